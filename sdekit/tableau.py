r"""Rows: one step of any fixed-grid sampler as float64 coefficients, and the two executors that apply them to arrays.

A step sees *registers*, blocks of equal shape: the ``k`` blocks of the state, the memory that earlier steps of the leg kept, the model's
answers in this step, and standard normals.  Everything it computes is a linear combination of registers whose coefficients depend on times
only.  A method writes its equations with *combinations*: arrays of shape (blocks, registers), which add and multiply like the blocks
they stand for.

>>> from sdekit.methods import Method
>>> def rows(step):                                  # Euler's method for the probability-flow ODE, in full
...     answer = step.ask(step.z, step.here)
...     return step.rows(step.z - step.h * step.here.drift(step.z, answer.score))
>>> mine = Method("mine", rows)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._array import is_torch, like, namespace
from .errors import BadInput
from .reverse import EpsilonFlow, Flow, Leg, Point, Stages, number

Array = NDArray[np.float64]
Terms = tuple[tuple[float, int], ...]

__all__ = ["Answer", "Ask", "ByTerms", "Rows", "Stacked", "Step", "by_terms"]

_SPARE = 32  # most answers and noise blocks of one step


class Ask(NamedTuple):
    """A call of the model: its argument as a combination of registers, and the level.

    The argument is ``y`` (1, w) with the level ``sigma_eff`` for a denoiser, the state (k, w) with the time for a model of the whole state.
    Rows of several modes hold one level for each, unless all are equal.
    """

    argument: Array
    level: Any


class Answer(NamedTuple):
    """What the model said of a stage, both ways: the denoised data (1, w) and the score of the state (k, w)."""

    data: Array
    score: Array


@dataclass(frozen=True, eq=False)
class Rows:
    """The coefficients of one step.  Registers in order: state (k), memory, noise, answers.

    Attributes
    ----------
    k, memory, noises, answers : int
        Numbers of registers of each kind.
    asks : tuple of Ask
    out : array (k, w)
        The new state.  Rows of n steps side by side, each with times of its own, have n as their first axis.
    keep : array (m, w)
        The memory for the next step.
    embedded : array (k, w) or None
        A second result, for error control.
    of_state : bool
        Whether the model is asked at the whole state (k blocks and the time) instead of at ``y`` (one block and its level).
    """

    k: int
    memory: int
    noises: int
    answers: int
    asks: tuple[Ask, ...]
    out: Array
    keep: Array
    embedded: Array | None = None
    of_state: bool = False


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

    def __init__(self, leg: Leg, i: int, memory: Sequence[int] = (), of_state: bool = False) -> None:
        self.leg, self.i, self._of_state = leg, i, of_state
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
    def t(self) -> Any:
        """The time at the start of the step: a float, or (n, 1, 1) for n steps side by side."""
        return number(self.leg.times[self.i])

    @property
    def s(self) -> Any:
        """The time at its end, ``s < t``."""
        return number(self.leg.times[self.i + 1])

    @property
    def h(self) -> Any:
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

    def stages(self, clock: str, *parts: float) -> Stages:
        """Stages inside the step, at the given increasing parts of it in (0, 1), measured on ``clock``: "log", "sigma" or "time"."""
        return self.leg.stages(self.i, clock, parts)

    def _new(self, kind: list[int]) -> Array:
        index = self._known + len(self._answers) + len(self._noises)
        if index == self._known + _SPARE:
            raise BadInput(f"a step may use at most {_SPARE} answers and noise blocks")
        kind.append(index)
        return np.eye(1, self._known + _SPARE, index)

    def ask(self, state: Array, point: Point) -> Answer:
        """Ask the model about the stage ``state`` at ``point``.

        A denoiser gives the data, and the score follows; a model of the whole state gives the score, and the data follow.
        """
        if self._of_state:
            self._asks.append(Ask(state, point.t))
            score = np.concatenate([self._new(self._answers) for _ in self.z])
            return Answer(point.data(state, score), score)
        self._asks.append(Ask(point.observe @ state, point.sigma))
        data = self._new(self._answers)
        return Answer(data, point.score(state, data))

    def noise(self, blocks: int) -> Array:
        """``blocks`` fresh standard normals."""
        return np.concatenate([self._new(self._noises) for _ in range(blocks)])

    def rows(self, out: Array, keep: Sequence[Array] = (), embedded: Array | None = None) -> Rows:
        """The finished step: the new state, what to keep for the next step, and the embedded result if the method has one."""
        order = [*range(self._known), *self._noises, *self._answers]
        width = self._known + _SPARE
        asks = tuple(Ask(ask.argument[..., order], ask.level) for ask in self._asks)
        self.kept = [part.shape[-2] for part in keep]
        kept = np.concatenate([np.zeros((*out.shape[:-2], 0, width)), *keep], axis=-2)[..., order]
        second = None if embedded is None else embedded[..., order]
        k = self.z.shape[0]
        return Rows(k, self._known - k, len(self._noises), len(self._answers), asks, out[..., order], kept, second, self._of_state)


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
    of_state: bool


class StackedTable(NamedTuple):
    """Rows as matrices in the arrays' own library."""

    asks: tuple[tuple[Any, float], ...]
    update: Any
    known: int
    of_state: bool


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

    total = staticmethod(by_terms)

    def __init__(self, state: Blocks, _width: int) -> None:
        self.state: Blocks = list(state)
        self.memory: Blocks = []

    @staticmethod
    def compile(rows: Rows, _reference: Any) -> TermTable:
        """The rows in this executor's form."""
        return TermTable(tuple((_terms(ask.argument), ask.level) for ask in rows.asks), _terms(rows.out), _terms(rows.keep), rows.of_state)

    def step(self, table: TermTable, model: Model, normals: Sequence[Any]) -> None:
        """Apply one step."""
        registers, total = [*self.state, *self.memory, *normals], self.total
        for rows, level in table.asks:
            if table.of_state:
                registers.extend(model([total(row, registers) for row in rows], level))
            else:
                registers.append(model(total(rows[0], registers), level))
        self.state = [total(row, registers) for row in table.out]
        self.memory = [total(row, registers) for row in table.keep]


class Stacked:
    """Executor with all registers in one buffer: a step is one small matrix product, whose matrix may live on a device."""

    def __init__(self, state: Blocks, width: int) -> None:
        self._shape = state[0].shape
        self._k = len(state)
        xp, rows = namespace(state[0]), [block.reshape(-1) for block in state]
        self._buffer = xp.stack([*rows, *[xp.zeros_like(rows[0])] * (width - len(rows))])

    @property
    def state(self) -> Blocks:
        """The blocks of the state, copied out of the buffer."""
        return [1.0 * self._buffer[i].reshape(self._shape) for i in range(self._k)]

    @staticmethod
    def compile(rows: Rows, reference: Any) -> StackedTable:
        """The rows in this executor's form."""
        known = rows.k + rows.memory + rows.noises
        asks = tuple((like(ask.argument[:, : known + i * len(ask.argument)], reference), ask.level) for i, ask in enumerate(rows.asks))
        return StackedTable(asks, like(np.concatenate([rows.out, rows.keep]), reference), rows.k + rows.memory, rows.of_state)

    def step(self, table: StackedTable, model: Model, normals: Sequence[Any]) -> None:
        """Apply one step."""
        buffer, known = self._buffer, table.known
        for normal in normals:
            buffer[known] = normal.reshape(-1)
            known += 1
        for matrix, level in table.asks:
            asked = matrix @ buffer[: matrix.shape[1]]
            blocks = [row.reshape(self._shape) for row in asked]
            for answer in model(blocks, level) if table.of_state else [model(blocks[0], level)]:
                buffer[known] = answer.reshape(-1)
                known += 1
        made = table.update @ buffer[:known]
        buffer[: made.shape[0]] = made
