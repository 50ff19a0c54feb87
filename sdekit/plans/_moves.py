"""Moves and plans: what a sampler does, as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..control import Control
from ..errors import BadInput
from ..grids import Grid
from ..methods import Method, exponential
from ..process import Process

__all__ = ["Custom", "Jump", "Move", "Plan", "Run", "Transform", "cut", "run", "step_by_step"]


@dataclass(frozen=True)
class Run:
    """Steps of ``method`` through decreasing ``times``; memory starts empty.  ``leg`` and ``first`` address its noise.

    With a ``control``, whose method this is, each sample has steps of its own from the first time to the last; of the times between, only the
    one before the data counts.
    """

    method: Method
    times: tuple[float, ...]
    leg: int = 0
    first: int = 0
    control: Control | None = None


@dataclass(frozen=True)
class Jump:
    """From ``s`` up to ``t`` by the forward process, its noise times ``scale``."""

    s: float
    t: float
    scale: float = 1.0
    leg: int = 0
    step: int = 0


@runtime_checkable
class Custom(Protocol):
    """A move that is not affine: it takes the blocks from time ``start`` to time ``end`` by code of its own.

    ``stream``, ``leg`` and ``step``, if it has them, address its normals.
    """

    @property
    def start(self) -> float:
        """The time before."""
        ...

    @property
    def end(self) -> float:
        """The time after."""
        ...

    @property
    def nfe(self) -> int:
        """Model calls."""
        ...

    @property
    def noises(self) -> int:
        """Blocks of normals."""
        ...

    def apply(self, state: list[Any], model: Callable[..., Any], normals: Sequence[Any]) -> list[Any]:
        """The new blocks."""
        ...


Move = Run | Jump | Custom
Transform = Callable[[list[Move], Process], list[Move]]


@dataclass(frozen=True)
class Plan:
    """A grid, a method, and transforms applied in order.

    Attributes
    ----------
    grid : Grid
    method : Method
    transforms : tuple of Transform
    control : Control, optional
        That of the steps, whose method is then ``method``.
    """

    grid: Grid
    method: Method
    transforms: tuple[Transform, ...] = ()
    control: Control | None = None

    def then(self, transform: Transform) -> Plan:
        """This plan, transformed once more."""
        return replace(self, transforms=(*self.transforms, transform))

    def moves(self, process: Process, start: float | None = None) -> list[Move]:
        """The moves on ``process``; from time ``start`` instead of the first grid time, if given."""
        times = np.asarray(self.grid.times(process), float)
        if start is not None:  # grid times within rounding of the start are the start
            times = np.concatenate([[start], times[times < start * (1.0 - 1e-9)]])
        if len(times) < 2 or not np.all(np.diff(times) < 0.0):
            raise BadInput(f"the grid gives times {times.tolist()}; a run needs at least two, strictly decreasing")
        moves: list[Move] = [Run(self.method, tuple(float(t) for t in times), control=self.control)]
        for transform in self.transforms:
            moves = transform(moves, process)
        return moves


def run(grid: Grid, method: Method | Control | None = None) -> Plan:
    """The plain plan: ``method`` (``exponential(2)`` when absent) over ``grid``; or a control, whose steps go from its first time to its last."""
    if not isinstance(grid, Grid):
        raise BadInput(f"grid = {grid!r} must be a grid, such as sdekit.grids.karras(18)")
    if isinstance(method, Control):
        return Plan(grid, method.method, control=method)
    if method is not None and not isinstance(method, Method):
        raise BadInput(f"method = {method!r} must be a method, such as sdekit.methods.heun()")
    return Plan(grid, exponential(2) if method is None else method)


def cut(leg: Run, at: Sequence[int]) -> list[Run]:
    """The run in pieces, cut after the given steps."""
    ends = [0, *sorted(at), len(leg.times) - 1]
    return [replace(leg, times=leg.times[a : b + 1], first=leg.first + a) for a, b in pairwise(ends) if b > a]


def step_by_step(moves: list[Move], change: Callable[[Run], list[Move] | None]) -> list[Move]:
    """Put what ``change`` makes of each step in its place; steps that it leaves alone (None) stay together, with their memory."""
    out: list[Move] = []
    for move in moves:
        for piece in cut(move, range(1, len(move.times) - 1)) if isinstance(move, Run) else [move]:
            made = change(piece) if isinstance(piece, Run) else None
            last = out[-1] if out else None
            if made is not None:
                out += made
            elif isinstance(piece, Run) and isinstance(last, Run) and replace(last, times=piece.times, first=piece.first) == piece:
                out[-1] = replace(last, times=(*last.times, *piece.times[1:]))
            else:
                out.append(piece)
    return out
