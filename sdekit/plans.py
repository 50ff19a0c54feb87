"""Plans: what a sampler does, as data.

A :class:`Plan` is a grid, a method and transforms; ``plan.moves(process)`` resolves it to moves in time.  A :class:`Run` is a run of method
steps with one memory; a :class:`Jump` adds the exact noise of the forward process, going back up; both are affine.  Any other object with
``apply(state, model, normals)`` may stand among them (a corrector, a threshold); exact laws refuse it by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .errors import BadInput, finite, positive, unknown, whole
from .grids import Grid
from .methods import Method, exponential, exponential_rk
from .process import Process

__all__ = ["Custom", "Jump", "Move", "Plan", "Run", "Transform", "ancestral", "churn", "denoise", "restart", "run"]


@dataclass(frozen=True)
class Run:
    """Steps of ``method`` through decreasing ``times``; memory starts empty.  ``leg`` and ``first`` address its noise."""

    method: Method
    times: tuple[float, ...]
    leg: int = 0
    first: int = 0


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
    """A move that is not affine: it takes the blocks from time ``start`` to time ``end`` by code of its own."""

    start: float
    end: float
    nfe: int
    noises: int

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
    """

    grid: Grid
    method: Method
    transforms: tuple[Transform, ...] = ()

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
        moves: list[Move] = [Run(self.method, tuple(float(t) for t in times))]
        for transform in self.transforms:
            moves = transform(moves, process)
        return moves


def run(grid: Grid, method: Method | None = None) -> Plan:
    """The plain plan: ``method`` (``exponential(2)`` when absent) over ``grid``."""
    if not isinstance(grid, Grid):
        raise BadInput(f"grid = {grid!r} must be a grid, such as sdekit.grids.karras(18)")
    if method is not None and not isinstance(method, Method):
        raise BadInput(f"method = {method!r} must be a method, such as sdekit.methods.heun()")
    return Plan(grid, exponential(2) if method is None else method)


def _cut(leg: Run, at: Sequence[int]) -> list[Run]:
    """The run in pieces, cut after the given steps."""
    ends = [0, *sorted(at), len(leg.times) - 1]
    return [replace(leg, times=leg.times[a : b + 1], first=leg.first + a) for a, b in pairwise(ends) if b > a]


@dataclass(frozen=True)
class _Denoise:
    def __call__(self, moves: list[Move], _: Process) -> list[Move]:
        last = moves[-1]
        t = last.times[-1] if isinstance(last, Run) else last.t if isinstance(last, Jump) else last.end
        if t == 0.0:
            raise BadInput("the plan ends at the data already; denoise() is for plans that end above time 0")
        step = last.first + len(last.times) - 1 if isinstance(last, Run) else 0
        method = next(move.method for move in moves if isinstance(move, Run))
        return [*moves, Run(replace(method, noise=0.0), (t, 0.0), first=step)]


def denoise() -> Transform:
    """Finish with one model call that puts the denoised data in the place of the state (``x = D``)."""
    return _Denoise()


def _step_by_step(moves: list[Move], change: Callable[[Run], list[Move] | None]) -> list[Move]:
    """Put what ``change`` makes of each step in its place; steps that it leaves alone (None) stay together, with their memory."""
    out: list[Move] = []
    for move in moves:
        for piece in _cut(move, range(1, len(move.times) - 1)) if isinstance(move, Run) else [move]:
            made = change(piece) if isinstance(piece, Run) else None
            last = out[-1] if out else None
            if made is not None:
                out += made
            elif isinstance(piece, Run) and isinstance(last, Run) and replace(last, times=piece.times, first=piece.first) == piece:
                out[-1] = replace(last, times=(*last.times, *piece.times[1:]))
            else:
                out.append(piece)
    return out


@dataclass(frozen=True)
class _Ancestral:
    eta: float

    def __call__(self, moves: list[Move], process: Process) -> list[Move]:
        def change(piece: Run) -> list[Move] | None:
            t, s = piece.times
            if s == 0.0:
                return None
            high, low = (float(v) for v in process.sigma_eff([t, s]))
            up = min(1.0, self.eta * np.sqrt((high - low) * (high + low)) / high)
            down = float(process.time_of(low * np.sqrt((1.0 - up) * (1.0 + up)))) if up < 1.0 else 0.0
            return [replace(piece, times=(t, down)), Jump(down, s, leg=piece.leg, step=2 + 2 * piece.first)]

        return _step_by_step(moves, change)


def ancestral(plan: Plan, eta: float = 1.0) -> Plan:
    r"""Each step goes down to :math:`\sigma_s \sqrt{1 - \eta^2 (\sigma_t^2 - \sigma_s^2)/\sigma_t^2}` and back up to ``s`` by fresh noise.

    With ``exponential(1)`` and ``eta=1`` on one block this is DDPM's posterior step and k-diffusion's ancestral Euler.

    Raises
    ------
    BadInput
        If ``eta`` is not positive, or the process starts with noise below which a step would have to go.
    """
    return plan.then(_Ancestral(positive("eta", eta)))


@dataclass(frozen=True)
class _Churn:
    amount: float
    low: float
    high: float
    scale: float
    restart: bool = False

    def __call__(self, moves: list[Move], process: Process) -> list[Move]:
        steps = sum(len(move.times) - 1 for move in moves if isinstance(move, Run) and move.leg == 0)
        gamma = self.amount if self.restart else min(self.amount / steps, np.sqrt(2.0) - 1.0)
        ceiling = float(process.sigma_eff(process.T))

        def change(piece: Run) -> list[Move] | None:
            t, s = piece.times
            level = float(process.sigma_eff(t))
            raised = min(level * (1.0 + gamma), ceiling)
            if (piece.leg > 0) != self.restart or not self.low <= level <= self.high or raised <= level:
                return None
            hat = float(process.time_of(raised))
            return [Jump(t, hat, self.scale, piece.leg, 1 + 2 * piece.first), replace(piece, times=(hat, s))]

        return _step_by_step(moves, change)


def churn(plan: Plan, S_churn: float, S_min: float = 0.0, S_max: float = float("inf"), S_noise: float = 1.0) -> Plan:
    r"""EDM's stochastic sampler: before each step at a level in [S_min, S_max] raise it by :math:`1 + \min(S_{churn}/N, \sqrt2 - 1)`.

    References
    ----------
    Karras et al. 2022, arXiv:2206.00364, Algorithm 2.
    """
    if finite("S_churn", S_churn) < 0.0 or S_min > S_max:
        raise BadInput(f"churn needs S_churn >= 0 and S_min <= S_max, got {S_churn:g}, [{S_min:g}, {S_max:g}]")
    return plan if S_churn == 0.0 else plan.then(_Churn(float(S_churn), float(S_min), float(S_max), finite("S_noise", S_noise)))


@dataclass(frozen=True)
class _Restart:
    intervals: tuple[tuple[int, int, float, float], ...]
    snap: str
    scale: float

    def __call__(self, moves: list[Move], process: Process) -> list[Move]:
        main = moves[0]
        if len(moves) != 1 or not isinstance(main, Run):
            raise BadInput("restart must be the first transform of a plan")
        times = list(main.times)
        floor, top = main.times[-1], main.times[0]
        nodes: list[float] = []
        for _, _, low, high in self.intervals:
            want = floor if floor == 0.0 and low == 0.0 else float(process.time_of(low))
            near = min(times[1:], key=lambda t: abs(float(process.sigma_eff(t)) - low))
            if not (abs(near - want) <= 1e-9 * top or self.snap != "error"):
                level = float(process.sigma_eff(near))
                raise BadInput(f"t_min = {low:g} is not a level of the grid (nearest {level:g}); use snap='exact' or 'nearest', or move it")
            node = near if self.snap == "nearest" or abs(near - want) <= 1e-9 * top else want
            if not floor <= node < top:
                raise BadInput(f"t_min = {low:g} lies outside the grid's levels; restart needs a level that the run passes")
            if node in nodes:
                raise BadInput(f"two restart intervals fall on the same level {float(process.sigma_eff(node)):g}; merge them or use snap='exact'")
            if float(process.sigma_eff(node)) >= high:
                raise BadInput(f"t_max = {high:g} is not above t_min = {float(process.sigma_eff(node)):g} of the same interval")
            nodes.append(node)
            if node not in times:
                times = sorted([*times, node], reverse=True)
        legs = {node: j for j, node in enumerate(nodes)}
        out: list[Move] = []
        for piece in _cut(replace(main, times=tuple(times)), [times.index(node) for node in nodes if node != times[-1]]):
            out.append(piece)
            if piece.times[-1] in legs:
                out += self._cycles(legs[piece.times[-1]], piece, process)
        return out

    def _cycles(self, j: int, piece: Run, process: Process) -> list[Move]:
        points, K, _, high = self.intervals[j]
        node = piece.times[-1]
        low = float(process.sigma_eff(node))
        levels = np.linspace(high ** (1 / 7), low ** (1 / 7), points) ** 7
        back = (*(float(t) for t in process.time_of(np.concatenate([[high], levels[1:-1]]))), node)
        out: list[Move] = []
        for cycle in range(K):
            leg = 1 + 1024 * j + cycle
            out += [Jump(node, back[0], self.scale, leg), Run(piece.method, back, leg)]
        return out


def restart(
    grid: Grid,
    intervals: Sequence[tuple[int, int, float, float]],
    *,
    method: Method | None = None,
    S_noise: float = 1.0,
    churn: float = 0.0,
    snap: str = "exact",
) -> Plan:
    r"""Restart sampling: at ``t_min`` go ``K`` times up to ``t_max`` by fresh noise and back down in ``N_restart - 1`` steps.

    Parameters
    ----------
    grid : Grid
        The main grid.
    intervals : sequence of (N_restart, K, t_min, t_max)
        Points of the backward grid (EDM's, rho = 7), repetitions, and the interval in ``sigma_eff``.
    method : Method, optional
        ``heun()`` would be the paper's on EDM; ``exponential_rk(2)`` is the same for every process and the default.
    S_noise : float
        Factor of the injected noise; 1 leaves the law of the exact flow unchanged.
    churn : float
        Relative rise of the level before each backward step of the restart legs (the paper's ``restart_gamma``).
    snap : {"exact", "nearest", "error"}
        ``exact`` inserts ``t_min`` into the grid (one more step), ``nearest`` moves it to the nearest grid level as the paper's code does,
        ``error`` refuses.

    Raises
    ------
    BadInput
        For ``N_restart < 2``, ``K < 0``, levels out of order or off the process, or two intervals on one level.

    References
    ----------
    Xu et al. 2023, arXiv:2306.14878, Algorithm 2.
    """
    if snap not in ("exact", "nearest", "error"):
        raise unknown("snap", snap, ["exact", "nearest", "error"])
    made = []
    for entry in intervals:
        if len(entry) != 4:
            raise BadInput(f"restart interval {entry!r} must be (N_restart, K, t_min, t_max)")
        points, K, low, high = entry
        whole("N_restart", points, 2)
        whole("K", K, 0)
        if K >= 1024 or finite("t_min", low) < 0.0 or finite("t_max", high) <= low:
            raise BadInput(f"restart interval {entry!r} needs 0 <= t_min < t_max and K < 1024")
        made.append((int(points), int(K), float(low), float(high)))
    plan = run(grid, exponential_rk(2) if method is None else method).then(_Restart(tuple(made), snap, finite("S_noise", S_noise)))
    if finite("churn", churn) < 0.0:
        raise BadInput(f"churn = {churn:g} must be nonnegative")
    return plan if churn == 0.0 else plan.then(_Churn(float(churn), 0.0, float("inf"), float(S_noise), restart=True))
