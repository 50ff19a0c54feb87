r"""Vector blocks: a state of a few vectors, and matrices written block by block.

A scalar between two blocks of ``d`` components each stands for that multiple of :math:`I_d`; between other blocks stands a matrix of their shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sympy as sp

from .errors import BadInput

__all__ = ["Block", "alike", "blocks_of", "folded", "stacked", "unfolded"]


class Block(NamedTuple):
    """A named part of the state: one symbol, or those of a vector."""

    name: str
    symbols: tuple[sp.Symbol, ...]

    @property
    def size(self) -> int:
        """The number of components."""
        return len(self.symbols)


Blocks = tuple[Block, ...]


def blocks_of(state: Any) -> Blocks:
    """The blocks of a state: symbols, and vectors of symbols.

    A vector of ``x1, x2, ...`` is called ``x``, another one after its first component.

    Raises
    ------
    BadInput
        For anything else, and names that are taken twice.
    """
    parts = state if isinstance(state, list | tuple) else (state,)
    made = [tuple(part) if isinstance(part, sp.MatrixBase) and part.shape[1] == 1 else (part,) for part in parts]
    flat = [z for part in made for z in part]
    if not flat or any(not part for part in made) or any(not isinstance(z, sp.Symbol) for z in flat) or len(set(flat)) != len(flat):
        raise BadInput(f"state = {state!r} must be different sympy symbols, or columns of them, the data block first")
    blocks = tuple(Block(_name(part), part) for part in made)
    names = [name for block in blocks for name in {block.name, *(z.name for z in block.symbols)}]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"state = {state!r}: two blocks or components are called {twice[0]!r}; names must differ")
    return blocks


def _name(symbols: tuple[sp.Symbol, ...]) -> str:
    first = str(symbols[0].name)
    plain = len(symbols) > 1 and first[:-1] and all(z.name == f"{first[:-1]}{i}" for i, z in enumerate(symbols, 1))
    return first[:-1] if plain else first


def unfolded(name: str, value: Any, blocks: Blocks) -> list[list[Any]]:
    """The entries of a matrix given by components, or block by block.

    Raises
    ------
    BadInput
        For any other shape.
    """
    k, n = len(blocks), sum(block.size for block in blocks)
    rows = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(rows, list | tuple) or len(rows) not in (k, n) or any(not isinstance(r, list | tuple) or len(r) != len(rows) for r in rows):
        choice = f"a {k} x {k} matrix of blocks, or a {n} x {n} one of" if k != n else f"a {n} x {n} matrix, one row and column for each of"
        raise BadInput(f"{name} must be {choice} the {'components' if k != n else 'blocks'} of the state")
    if len(rows) == n:
        return [list(row) for row in rows]
    parts = [[_part(f"{name}[{i},{j}]", entry, blocks[i], blocks[j]) for j, entry in enumerate(row)] for i, row in enumerate(rows)]
    return [[entry for part in row for entry in part[r]] for row, block in zip(parts, blocks, strict=True) for r in range(block.size)]


def _part(name: str, entry: Any, row: Block, column: Block) -> list[list[Any]]:
    a, b = row.size, column.size
    entry = entry.tolist() if hasattr(entry, "tolist") else entry
    if not isinstance(entry, list | tuple):
        if a != b and entry != 0:
            raise BadInput(
                f"{name} = {entry} must be 0 or a {a} x {b} matrix: a scalar is a multiple of the identity, {row.name} and {column.name} differ"
            )
        return [[entry if i == j else 0 for j in range(b)] for i in range(a)]
    if (
        len(entry) == a * b and 1 in (a, b) and not any(isinstance(part, list | tuple) for part in entry)
    ):  # a plain list between a vector and a scalar
        return [list(entry)] if a == 1 else [[part] for part in entry]
    if len(entry) != a or any(not isinstance(part, list | tuple) or len(part) != b for part in entry):
        raise BadInput(f"{name} must be a scalar or a {a} x {b} matrix, the sizes of {row.name} and {column.name}")
    return [list(part) for part in entry]


def stacked(name: str, value: Sequence[Any], blocks: Blocks) -> list[Any]:
    """The entries of a vector given by components, or block by block.

    Raises
    ------
    BadInput
        For any other shape.
    """
    parts, sizes = list(value), [block.size for block in blocks]
    if len(parts) == sum(sizes):
        return parts
    if len(parts) != len(sizes):
        raise BadInput(f"{name} has {len(parts)} entries; the state has {sum(sizes)}" + f" in {len(sizes)} blocks" * (len(sizes) != sum(sizes)))
    entries = [list(part) if isinstance(part, list | tuple | sp.MatrixBase) else [part] for part in parts]
    for part, block in zip(entries, blocks, strict=True):
        if len(part) != block.size:
            raise BadInput(f"{name} of {block.name} has {len(part)} entries; {block.name} has {block.size}")
    return [entry for part in entries for entry in part]


def folded(matrix: sp.Matrix, blocks: Blocks) -> list[list[Any]]:
    """The matrix block by block: a scalar where a block is that multiple of the identity, else the block."""
    ends = [sum(block.size for block in blocks[:i]) for i in range(len(blocks) + 1)]

    def part(i: int, j: int) -> Any:
        found = matrix[ends[i] : ends[i + 1], ends[j] : ends[j + 1]]
        if not any(found):
            return sp.S.Zero
        return found[0, 0] if found.rows == found.cols and found == found[0, 0] * sp.eye(found.rows) else found

    return [[part(i, j) for j in range(len(blocks))] for i in range(len(blocks))]


def alike(matrix: sp.Matrix, blocks: Blocks) -> sp.ImmutableMatrix | None:
    """``A`` with ``matrix = A (x) I_d``, where it is one; None where not all blocks have ``d`` components, or they are not treated alike."""
    rows = folded(matrix, blocks)
    same = len({block.size for block in blocks}) == 1 and not any(isinstance(entry, sp.MatrixBase) for row in rows for entry in row)
    return sp.ImmutableMatrix(rows) if same else None
