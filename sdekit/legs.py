"""Plans with adaptive legs: in each stretch of steps every sample takes its own, and all of them meet at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._array import statuses
from .adaptive import Adapted, March
from .errors import BadInput
from .noise import Noise
from .plans import Move, Plan, Run
from .process import Process
from .solve import Event, assemble, solve

Ints = NDArray[np.int64]

__all__ = ["travel"]


def travel(
    process: Process, plan: Plan, start: float | None, blocks: list[Any], model: Callable[..., Any], noise: Noise, ids: Ints, of_state: bool,
    batch: int, watch: Callable[[Event], None] | None,
) -> tuple[list[Any], Ints, tuple[str, ...], Adapted]:  # fmt: skip
    """Run the blocks (n, *event) through the moves of a plan whose runs have a control.

    A sample that a leg gives up stays where it is, and the moves after that pass it by.

    Parameters
    ----------
    process, plan, model, noise, ids, of_state, batch
        As for :class:`~sdekit.adaptive.March`; ``batch`` is also the most samples in a fixed move.
    start : float, optional
        Time to start from instead of the first grid time.
    blocks : list of arrays (n, *event)
    watch : callable, optional
        Called with an Event after each move.

    Raises
    ------
    BadInput
        For an adaptive leg that goes to the data in one step.
    """
    moves = plan.moves(process, start)
    for move in moves:
        if isinstance(move, Run) and move.control is not None and move.times[-1] == 0.0 and len(move.times) == 2:
            raise BadInput(
                f"an adaptive leg from t = {move.times[0]:g} to the data needs a time before the data: add one to its grid, or a point to N_restart"
            )
    trip = _Trip(process, model, noise, ids, of_state, batch, [1.0 * block for block in blocks])
    for i, move in enumerate(moves):
        trip.go(move)
        if watch is not None:
            watch(Event(i + 1, len(moves), _end(move), trip.blocks))
    times = tuple(np.concatenate([np.zeros(0), *legs]) for legs in trip.times)
    return trip.blocks, trip.nfe, tuple(trip.status), Adapted(trip.accepted, trip.rejected, trip.reached, np.array(trip.calls, np.int64), times)


def _end(move: Move) -> float:
    return move.times[-1] if isinstance(move, Run) else float(move.t if hasattr(move, "t") else move.end)


@dataclass
class _Trip:
    process: Process
    model: Callable[..., Any]
    noise: Noise
    ids: Ints
    of_state: bool
    batch: int
    blocks: list[Any]
    calls: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.ids)
        self.nfe, self.accepted, self.rejected = (np.zeros(n, np.int64) for _ in range(3))
        self.times: list[list[NDArray[np.float64]]] = [[] for _ in range(n)]
        self.reached, self.status, self.alive = np.zeros(n), ["ok"] * n, np.arange(n)

    def go(self, move: Move) -> None:
        """One move of all samples that are under way."""
        if not len(self.alive):
            return
        (self._adapt if isinstance(move, Run) and move.control is not None else self._fixed)(move)
        self.alive = self.alive[[self.status[i] == "ok" for i in self.alive.tolist()]]

    def _adapt(self, move: Any) -> None:
        data, own = move.times[-1] == 0.0, self.alive
        part = [block[own] for block in self.blocks]
        times = move.times[0], move.times[-2 if data else -1]
        run = March(
            self.process, move.control, times, data, self.model, lambda a, b: [block[a:b] for block in part], self.ids[own], self.noise,
            of_state=self.of_state, batch=self.batch, place=(move.leg, move.first),
        )  # fmt: skip
        made, nfe, status, adapted = run.run()
        self.nfe[own] += nfe
        self.accepted[own] += adapted.accepted
        self.rejected[own] += adapted.rejected
        self.calls += adapted.calls.tolist()
        for i, times_ in zip(own.tolist(), adapted.times, strict=True):
            self.times[i].append(times_)
        self._write(own, made, list(status), adapted.t)

    def _fixed(self, move: Move) -> None:
        prog = assemble(self.process, [move], self.of_state)
        for a in range(0, len(self.alive), self.batch):
            own = self.alive[a : a + self.batch]
            made, _ = solve(prog, [block[own] for block in self.blocks], self.model, self.noise, self.ids[own])
            self.nfe[own] += prog.nfe
            self.calls += [len(own)] * prog.nfe
            self._write(own, made, statuses(made), np.full(len(own), _end(move)))

    def _write(self, own: Ints, made: list[Any], status: list[str], reached: NDArray[np.float64]) -> None:
        for old, new in zip(self.blocks, made, strict=True):
            old[own] = new
        self.reached[own] = reached
        for i, why in zip(own.tolist(), status, strict=True):
            self.status[i] = why
