"""Spec files: a recipe in TOML, in the users' own format.  Nothing in a file is evaluated; formulas go through :mod:`sdekit.expression`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal

import sympy as sp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .blocks import Block, blocks_of, stacked, unfolded
from .clocks import Cosine, Exponential, Expression, Linear, expression
from .errors import BadInput, unknown
from .expression import FUNCTIONS, NAME, parse, shown
from .moving import Moving
from .recipe import Recipe
from .symbolic import UNIT

__all__ = ["BLOCKS", "load", "load_rate", "loads"]

_LARGEST = 100_000  # bytes of a spec file
BLOCKS = 8
"""The most blocks that a spec file may have, or components where blocks are vectors."""
_PARAMETERS = 64
TIME = sp.Symbol("t", nonnegative=True)
"""The time in the rate of a clock."""
Formula = str | int | Decimal | float
Row = Annotated[list[Formula], Field(max_length=BLOCKS)]
Matrix = Annotated[list[Row], Field(max_length=BLOCKS)]
Parts = Annotated[list[Annotated[list[Formula | Row | Matrix], Field(max_length=BLOCKS)]], Field(max_length=BLOCKS)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class _Parameter(_Table):
    value: Formula | None = None
    assume: Literal["positive", "nonnegative", "real"] = "positive"


class _Parts(_Table):
    H: Formula
    D: Parts
    Q: Parts | None = None
    drift: Annotated[list[Formula | Row], Field(max_length=BLOCKS)] | None = None


class _Linear(_Table):
    F: Matrix
    G: Matrix


class _ConstantClock(_Table):
    kind: Literal["constant"]
    beta: Formula = 1
    T: Formula = 1


class _LinearClock(_Table):
    kind: Literal["linear"]
    beta_min: Formula
    beta_max: Formula
    T: Formula = 1


class _ExponentialClock(_Table):
    kind: Literal["exponential"]
    beta_min: Formula
    beta_max: Formula
    T: Formula = 1


class _CosineClock(_Table):
    kind: Literal["cosine"]
    s: Formula = Decimal("0.008")
    T: Formula = Decimal("0.9999")


class _ExpressionClock(_Table):
    kind: Literal["expression"]
    rate: Formula
    T: Formula = 1


_KINDS: dict[str, type[_Table]] = {
    "constant": _ConstantClock, "linear": _LinearClock, "exponential": _ExponentialClock, "cosine": _CosineClock, "expression": _ExpressionClock,
}  # fmt: skip
_AnyClock = Annotated[
    _ConstantClock | _LinearClock | _ExponentialClock | _CosineClock | _ExpressionClock,
    Field(discriminator="kind"),
]


class _Spec(_Table):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    paper: Annotated[str, Field(max_length=200)] = ""
    state: Annotated[list[str], Field(min_length=1, max_length=BLOCKS)]
    parameters: Annotated[dict[str, _Parameter | Formula], Field(max_length=_PARAMETERS)] = {}
    recipe: _Parts | None = None
    process: _Linear | None = None
    clock: _AnyClock = _ConstantClock(kind="constant")
    initial: dict[str, Formula] = {}


def load(path: str | Path) -> Recipe | Moving:
    """The recipe in a TOML file.

    Parameters
    ----------
    path : str or Path
        Keys: ``name``, ``paper``, ``state``, and tables ``[parameters]``, ``[recipe]`` (``H``, ``D`` and ``Q`` or ``drift``), ``[clock]``,
        ``[initial]``; instead of ``[recipe]`` a process without a fixed law has ``[process]`` (``F`` and ``G``).  ``D``, ``Q``, ``drift``, ``F`` and
        ``G`` may depend on the unit clock ``B``.  ``"x[3]"`` in ``state`` is a vector block with the components ``x1``, ``x2``, ``x3``; entries of
        ``D``, ``Q`` and ``drift`` are then as for :class:`sdekit.Recipe`.  The catalogue's files are examples.

    Raises
    ------
    BadInput
        With the file, the key, the value and the rule, for anything malformed.
    """
    file = Path(path)
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read the spec file {str(file)!r}: {error.strerror or error}") from None
    if len(raw) > _LARGEST:
        raise BadInput(f"{file.name} has {len(raw)} bytes; a spec file may have at most {_LARGEST}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{file.name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    return loads(text, file.name)


def loads(text: str, where: str = "spec") -> Recipe | Moving:
    """The recipe in TOML text; see :func:`load`."""
    if len(text) > _LARGEST:
        raise BadInput(f"{where} has {len(text)} characters; a spec may have at most {_LARGEST}")
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        said = "a number is too large" if isinstance(error, InvalidOperation) else _cut(" ".join(str(error).split()))
        raise BadInput(f"{where} is not TOML: {said}") from None
    at = _Places(text, where)
    try:
        spec = _Spec.model_validate(data)
    except ValidationError as error:
        raise _first(error, data, at) from None
    except RecursionError:
        raise BadInput(f"{where}: tables or lists are nested too deeply") from None
    return _build(spec, at)


class _Places:
    """Where keys stand in the text: ``at("recipe.D[0][1]")`` is the file and, if the key is found, its line."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where, self.lines = text, where, _lines(text)

    def __call__(self, key: str = "", value: Any = None) -> str:
        path = tuple(re.sub(r"\[.*", "", key).split(".")) if key else ()
        line = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), 0)
        if line and isinstance(value, str) and "[" in key:  # an entry of a matrix that is written over several lines
            after = [n for n in self.lines.values() if n > line]
            body = self.text.split("\n")[line - 1 : min(after, default=line + 200) - 1]
            found = [i for i, row in enumerate(body) if f'"{value}"' in row or f"'{value}'" in row]
            line += found[0] if len(found) == 1 else 0
        return f"{self.where}, line {line}" if line else self.where


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Lines of tables and keys that are written plainly; keys in quotes are left out, and so is everything if a string spans lines."""
    found: dict[tuple[str, ...], int] = {}
    if '"""' in text or "'''" in text:
        return found
    table: tuple[str, ...] = ()
    depth = 0
    for number, line in enumerate(text.split("\n"), 1):
        bare = re.sub(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'', "_", line).split("#")[0].strip()
        header, key = re.fullmatch(r"\[([\w.\- ]+)\]", bare), re.match(r"([A-Za-z0-9_.\- ]+?)\s*=", line.strip())
        if depth == 0 and header:
            table = tuple(part.strip() for part in header.group(1).split("."))
            found.setdefault(table, number)
        elif depth == 0 and key:
            found.setdefault((*table, *(part.strip() for part in key.group(1).split("."))), number)
        if not (depth == 0 and header):
            depth = max(0, depth + sum(bare.count(c) for c in "[{") - sum(bare.count(c) for c in "]}"))
    return found


def _first(error: ValidationError, data: dict[str, Any], at: _Places) -> BadInput:
    """One line for the first thing that is wrong."""
    found = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    path = [
        str(part)
        for part in found["loc"]
        if not str(part).startswith(("function", "str", "int", "is-instance", "float", "list[", "constrained", "_"))
    ]
    if path[:1] == ["clock"] and len(path) > 1 and path[1] in _KINDS:
        del path[1]
    key = _cut(".".join(" ".join(part.split()) for part in path)) or "file"
    kind = found["type"]
    if kind == "extra_forbidden":
        known: dict[str, type[BaseModel]] = {
            "recipe": _Parts,
            "process": _Linear,
            "parameters": _Parameter,
            "clock": _KINDS.get(str(found["loc"][-2:][0]), _Table),
        }
        table = known.get(path[0], _Spec) if len(path) > 1 else _Spec
        names = [".".join((*path[:-1], name)) for name in table.model_fields]
        return BadInput(f"{at(key)}: {unknown('key', key, names)}")
    if kind == "missing":
        return BadInput(f"{at('.'.join(path[:-1]))}: key {key!r} is missing")
    if kind.startswith("union_tag"):
        given = data["clock"].get("kind") if isinstance(data.get("clock"), dict) else None
        return BadInput(f"{at('clock.kind')}: clock.kind = {shown(given)} must be one of {', '.join(_KINDS)}")
    plain = "must be a number, a formula in quotes, or {value = ..., assume = ...}"
    said = plain if "_Parameter" in found["msg"] else " ".join(found["msg"].split())
    return BadInput(f"{at(key)}: {key} = {shown(found.get('input'))}: {said[0].lower()}{said[1:]}")


def _cut(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "..."


def _symbol(name: str, where: str, assume: str) -> sp.Symbol:
    if not NAME.fullmatch(name) or name in FUNCTIONS or name in {"pi", "t", "B"}:
        raise BadInput(f"{where}: {shown(name)} cannot be a symbol; use a letter, then letters, digits and _ (at most 32), and no function's name")
    return sp.Symbol(name, **{assume: True})


def _blocks(state: list[str], where: str) -> tuple[Block, ...]:
    """``["x[2]", "xi"]`` as the blocks x = (x1, x2) and xi."""
    parts: list[Any] = []
    for text in state:
        name, bracket, size = text.partition("[")
        plain = _symbol(name if bracket else text, where, "real")
        if bracket and size not in {f"{d}]" for d in range(2, BLOCKS + 1)}:
            raise BadInput(f"{where}: {shown(text)} must be a name, or name[d] for a vector of 2 to {BLOCKS} components")
        parts.append(sp.Matrix([_symbol(f"{name}{i}", where, "real") for i in range(1, int(size[0]) + 1)]) if bracket else plain)
    if sum(len(part) if isinstance(part, sp.MatrixBase) else 1 for part in parts) > BLOCKS:
        raise BadInput(f"{where}: all blocks together may have at most {BLOCKS} components")
    try:
        return blocks_of(parts)
    except BadInput:
        raise BadInput(f"{where}: names of blocks and their components must all differ") from None


class _Reader:
    """The names of a spec, and its formulas read with them."""

    def __init__(self, spec: _Spec, at: _Places) -> None:
        self.at, self.blocks = at, _blocks(spec.state, at("state"))
        self.given = {name: p if isinstance(p, _Parameter) else _Parameter(value=p) for name, p in spec.parameters.items()}
        self.parameters = {name: _symbol(name, at(f"parameters.{name}"), p.assume) for name, p in self.given.items()}
        self.state = {z.name: z for block in self.blocks for z in block.symbols}
        self.starts = {*self.state, *(block.name for block in self.blocks)}
        if self.starts & set(self.parameters):
            raise BadInput(f"{at('state')}: names of blocks and parameters must all differ")

    def read(self, value: Formula, key: str, known: dict[str, sp.Symbol] | None = None) -> sp.Expr:
        return parse(value, self.parameters if known is None else known, f"{self.at(key, value)}: {key}")

    def entries(self, value: Any, key: str, known: dict[str, sp.Symbol]) -> Any:
        if isinstance(value, list):
            return [self.entries(entry, f"{key}[{i}]", known) for i, entry in enumerate(value)]
        return self.read(value, key, known)

    def arranged(self, by: Callable[..., list[Any]], value: list[Any], key: str, known: dict[str, sp.Symbol]) -> list[Any]:
        """The entries of a vector or matrix, which may be given block by block."""
        made = self.entries(value, key, known)
        try:
            return by(key, made, self.blocks)
        except BadInput as error:
            raise BadInput(f"{self.at(key)}: {error}") from None


def _build(spec: _Spec, at: _Places) -> Recipe | Moving:
    reader = _Reader(spec, at)
    if (spec.recipe is None) == (spec.process is None):
        raise BadInput(f"{at.where}: give a table [recipe] (H, D and Q or drift), or a table [process] (F and G), not both")
    for name in spec.initial:
        if name not in reader.starts:
            raise BadInput(f"{at(f'initial.{name}')}: {unknown('block', name, [block.name for block in reader.blocks])}")
    more: dict[str, Any] = {
        "initial": {name: reader.read(value, f"initial.{name}") for name, value in spec.initial.items()},
        "parameters": {name: reader.read(p.value, f"parameters.{name}") for name, p in reader.given.items() if p.value is not None},
        "name": spec.name,
        "paper": spec.paper,
    }
    clock = _clock(spec.clock, reader)
    if spec.process is not None:
        return _moving(spec.process, reader, clock, more)
    assert spec.recipe is not None  # noqa: S101 - by the check above
    return _recipe(spec.recipe, reader, clock, more)


def _moving(parts: _Linear, reader: _Reader, clock: Any, more: dict[str, Any]) -> Moving:
    known, state, at = {**reader.parameters, "B": UNIT}, tuple(reader.state.values()), reader.at
    if len(reader.blocks) != len(state):
        raise BadInput(f"{at('state')}: F and G of a [process] are the same for all components of a block; give its name without a number")
    if len(parts.G) != len(state) or any(len(row) != len(parts.G[0]) for row in parts.G) or not parts.G[0]:
        raise BadInput(f"{at('process.G')}: process.G must be {len(state)} rows of one length, one for each block of the state")
    F, G = reader.arranged(unfolded, parts.F, "process.F", known), reader.entries(parts.G, "process.G", known)
    return Moving(state, sp.ImmutableMatrix(F), sp.ImmutableMatrix(G), clock, UNIT, **more)


def _recipe(parts: _Parts, reader: _Reader, clock: Any, more: dict[str, Any]) -> Recipe:
    at, names = reader.at, {**reader.parameters, **reader.state}
    known = {**names, "B": UNIT}
    if (parts.Q is None) == (parts.drift is None):
        raise BadInput(f"{at('recipe')}: [recipe] must have either Q or drift")
    H, D = reader.read(parts.H, "recipe.H", names), reader.arranged(unfolded, parts.D, "recipe.D", known)
    Q = None if parts.Q is None else reader.arranged(unfolded, parts.Q, "recipe.Q", known)
    drift = None if parts.drift is None else reader.arranged(stacked, parts.drift, "recipe.drift", known)
    vectors = [sp.Matrix(block.symbols) if block.size > 1 else block.symbols[0] for block in reader.blocks]
    time = UNIT if UNIT in sp.Matrix(sp.flatten([D, Q or [], drift or []])).free_symbols else None
    try:
        return Recipe(vectors, H, D, Q, clock, **more, drift=drift, time=time)
    except BadInput as error:
        raise BadInput(f"{at('recipe')}: {error}") from None


def _clock(spec: Any, reader: _Reader) -> Any:
    def number(name: str) -> Any:
        """A number is a float, as in :mod:`sdekit.clocks`; a formula stays exact until parameters have values."""
        raw = getattr(spec, name)
        made = reader.read(raw, f"clock.{name}")
        return made if isinstance(raw, str) else float(made)

    if spec.kind == "expression":
        rate, T = reader.read(spec.rate, "clock.rate", {**reader.parameters, "t": TIME}), number("T")
        try:
            return expression(rate, TIME, T)
        except BadInput as error:
            raise BadInput(f"{reader.at('clock.rate')}: {error}") from None
    values = {name: number(name) for name in type(spec).model_fields if name != "kind"}
    if spec.kind == "constant":
        return Linear(values["beta"], values["beta"], values["T"])
    return {"linear": Linear, "exponential": Exponential, "cosine": Cosine}[spec.kind](**values)


def load_rate(text: str, T: float) -> Expression:
    """The clock whose rate :func:`dump_rate` wrote."""
    return expression(parse(text, {"t": TIME}, "clock.rate"), TIME, T)
