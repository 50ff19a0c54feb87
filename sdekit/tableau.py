r"""Rows: one step of any fixed-grid sampler as float64 coefficients, and the two executors that apply them to arrays.

A step sees *registers*, blocks of equal shape: the ``k`` blocks of the state, the memory that earlier steps of the leg kept, the model's
answers in this step, and standard normals.  Everything it computes is a linear combination of registers whose coefficients depend on times
only.  A method writes its equations with *combinations*: arrays of shape (blocks, registers), which add and multiply like the blocks
they stand for.

>>> import numpy as np, sdekit as sk
>>> from sdekit.methods import Method
>>> def rows(step):                                  # Euler's method for the probability-flow ODE, in full
...     data = step.ask(step.z, step.here)
...     return step.rows(step.z - step.h * step.here.drift(step.z, data))
>>> mine = Method("mine", rows)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._array import is_torch, like, namespace
from .errors import BadInput
from .reverse import EpsilonFlow, Flow, Leg, Point

Array = NDArray[np.float64]
Terms = tuple[tuple[float, int], ...]

__all__ = ["Ask", "ByTerms", "Rows", "Stacked", "Step", "by_terms"]

_SPARE = 32  # most answers and noise blocks of one step


class Ask(NamedTuple):
    """A call of the model: the registers that make its argument, and the level.

    ``y`` is a combination of shape (1, w) for a denoiser ``D(y; sigma)``; ``state`` (k, w) is the stage itself, for models of the whole state.
    """

    y: Array
    state: Array
    point: Point


@dataclass(frozen=True, eq=False)
class Rows:
    """The coefficients of one step.  Registers in order: state (k), memory, noise, answers.

    Attributes
    ----------
    k, memory, noises, answers : int
        Numbers of registers of each kind.
    asks : tuple of Ask
    out : array (k, w)
        The new state.
    keep : array (m, w)
        The memory for the next step.
    embedded : array (k, w) or None
        A second result, for error control.
    """

    k: int
    memory: int
    noises: int
    answers: int
    asks: tuple[Ask, ...]
    out: Array
    keep: Array
    embedded: Array | None = None

    def for_state_model(self) -> Rows:
        """The same step for a model that maps the whole state to its score (k blocks): ``D = (psi^T S^-1 z + psi^T s) / SNR``."""
        k, known = self.k, self.k + self.memory + self.noises
        change = np.zeros((known + self.answers, known + k * self.answers))
        change[:known, :known] = np.eye(known)
        asks = []
        for i, ask in enumerate(self.asks):
            asks.append(ask._replace(y=ask.state @ change, state=ask.state @ change))
            change[known + i] = (ask.y @ change)[0]
            change[known + i, known + k * i : known + k * (i + 1)] += ask.point.psi * ask.point.sigma**2
        embedded = None if self.embedded is None else self.embedded @ change
        return replace(self, answers=k * self.answers, asks=tuple(asks), out=self.out @ change, keep=self.keep @ change, embedded=embedded)


class Step:
    """What a method sees while it writes the rows of step ``i`` of a leg.

    Attributes
    ----------
    leg : Leg
    i : int
        Position of the step in its leg: start-up rules read it.
    z : combination (k, w)
        The state.
    memory : tuple of combinations
        What the step before kept, in its order.
    kept : list of int
        Blocks of each part that this step keeps, once its rows are written.
    """

    def __init__(self, leg: Leg, i: int, memory: Sequence[int] = ()) -> None:
        self.leg, self.i = leg, i
        k = leg.reverse.process.k
        self._known = k + sum(memory)
        unit = np.eye(self._known, self._known + _SPARE)
        self.z: Array = unit[:k]
        ends = np.cumsum([k, *memory])
        self.memory: tuple[Array, ...] = tuple(unit[a:b] for a, b in pairwise(ends))
        self._asks: list[Ask] = []
        self._answers: list[int] = []
        self._noises: list[int] = []
        self.kept: list[int] = []

    @property
    def t(self) -> float:
        """The time at the start of the step."""
        return float(self.leg.times[self.i])

    @property
    def s(self) -> float:
        """The time at its end, ``s < t``."""
        return float(self.leg.times[self.i + 1])

    @property
    def h(self) -> float:
        """``t - s``."""
        return self.t - self.s

    @property
    def here(self) -> Point:
        """The reverse equation at ``t``."""
        return self.leg.points[self.i]

    @property
    def there(self) -> Point:
        """The reverse equation at ``s``."""
        return self.leg.points[self.i + 1]

    @property
    def flow(self) -> Flow:
        """Propagator and data weights of the step."""
        return self.leg.flows[self.i]

    @property
    def epsilon_flow(self) -> EpsilonFlow:
        """Propagator and eps weights of the step."""
        return self.leg.epsilon_flows[self.i]

    def _new(self, kind: list[int]) -> Array:
        index = self._known + len(self._answers) + len(self._noises)
        if index == self._known + _SPARE:
            raise BadInput(f"a step may use at most {_SPARE} answers and noise blocks")
        kind.append(index)
        return np.eye(1, self._known + _SPARE, index)

    def ask(self, state: Array, point: Point) -> Array:
        """Ask the model about the stage ``state`` at ``point``; returns the register of its answer ``D``, the denoised data."""
        self._asks.append(Ask(point.observe @ state, state, point))
        return self._new(self._answers)

    def noise(self, blocks: int) -> Array:
        """``blocks`` fresh standard normals."""
        return np.concatenate([self._new(self._noises) for _ in range(blocks)])

    def rows(self, out: Array, keep: Sequence[Array] = (), embedded: Array | None = None) -> Rows:
        """The finished step: the new state, what to keep for the next step, and the embedded result if the method has one."""
        order = [*range(self._known), *self._noises, *self._answers]
        width = self._known + _SPARE
        asks = tuple(Ask(ask.y[:, order], ask.state[:, order], ask.point) for ask in self._asks)
        self.kept = [len(part) for part in keep]
        kept = np.concatenate([np.zeros((0, width)), *keep])[:, order]
        second = None if embedded is None else embedded[:, order]
        k = self.z.shape[0]
        return Rows(k, self._known - k, len(self._noises), len(self._answers), asks, out[:, order], kept, second)


# ---------------------------------------------------------------------------------------------------------------- executors
# An executor holds the state (k blocks) and the memory, and applies compiled rows to them.  ``model(argument, level)`` gets one block and
# sigma_eff, or k blocks and the time if it is a model of the whole state.

Blocks = list[Any]
Model = Callable[[Any, float], Any]


class TermTable(NamedTuple):
    """Rows as tuples of (coefficient, register)."""

    asks: tuple[tuple[tuple[Terms, ...], float], ...]
    out: tuple[Terms, ...]
    keep: tuple[Terms, ...]


class StackedTable(NamedTuple):
    """Rows as matrices in the arrays' own library."""

    asks: tuple[tuple[Any, float], ...]
    update: Any
    known: int


def _level(ask: Ask) -> float:
    return ask.point.sigma if len(ask.y) == 1 else ask.point.t


def _terms(matrix: Array) -> tuple[Terms, ...]:
    return tuple(tuple((float(c), int(j)) for j, c in enumerate(row) if c != 0.0) for row in matrix)


def by_terms(terms: Terms, registers: Sequence[Any]) -> Any:
    """``sum c_j r_j``: Python floats times arrays, so that the arrays' dtype decides; absent terms cost nothing."""
    if not terms:
        return 0.0 * registers[0]
    c, j = terms[0]
    if len(terms) == 1 and c == 1.0:
        return registers[j]
    total = c * registers[j]
    if is_torch(total):
        for c, j in terms[1:]:
            total.add_(registers[j], alpha=c)
    else:
        for c, j in terms[1:]:
            total = total + c * registers[j]
    return total


class ByTerms:
    """Executor term by term: any array type, ``+`` and ``*`` only."""

    def __init__(self, state: Blocks, _width: int) -> None:
        self.state: Blocks = list(state)
        self.memory: Blocks = []

    @staticmethod
    def compile(rows: Rows, _reference: Any) -> TermTable:
        """The rows in this executor's form."""
        return TermTable(tuple((_terms(ask.y), _level(ask)) for ask in rows.asks), _terms(rows.out), _terms(rows.keep))

    def step(self, table: TermTable, model: Model, normals: Sequence[Any]) -> None:
        """Apply one step."""
        registers = [*self.state, *self.memory, *normals]
        for rows, level in table.asks:
            if len(rows) == 1:
                registers.append(model(by_terms(rows[0], registers), level))
            else:
                registers.extend(model([by_terms(row, registers) for row in rows], level))
        self.state = [by_terms(row, registers) for row in table.out]
        self.memory = [by_terms(row, registers) for row in table.keep]


class Stacked:
    """Executor with all registers in one buffer: a step is one small matrix product, whose matrix may live on a device."""

    def __init__(self, state: Blocks, width: int) -> None:
        self._shape = state[0].shape
        self._k = len(state)
        xp, rows = namespace(state[0]), [block.reshape(-1) for block in state]
        self._buffer = xp.stack([*rows, *[xp.zeros_like(rows[0])] * (width - len(rows))])

    @property
    def state(self) -> Blocks:
        """The blocks of the state, views into the buffer."""
        return [self._buffer[i].reshape(self._shape) for i in range(self._k)]

    @staticmethod
    def compile(rows: Rows, reference: Any) -> StackedTable:
        """The rows in this executor's form."""
        known = rows.k + rows.memory + rows.noises
        asks = tuple((like(ask.y[:, : known + i * len(ask.y)], reference), _level(ask)) for i, ask in enumerate(rows.asks))
        return StackedTable(asks, like(np.concatenate([rows.out, rows.keep]), reference), rows.k + rows.memory)

    def step(self, table: StackedTable, model: Model, normals: Sequence[Any]) -> None:
        """Apply one step."""
        buffer, known = self._buffer, table.known
        for normal in normals:
            buffer[known] = normal.reshape(-1)
            known += 1
        for matrix, level in table.asks:
            asked = matrix @ buffer[: matrix.shape[1]]
            if asked.shape[0] == 1:
                buffer[known] = model(asked[0].reshape(self._shape), level).reshape(-1)
                known += 1
            else:
                for answer in model([row.reshape(self._shape) for row in asked], level):
                    buffer[known] = answer.reshape(-1)
                    known += 1
        made = table.update @ buffer[:known]
        buffer[: made.shape[0]] = made
