"""Restart sampling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..control import Control
from ..errors import BadInput, finite, unknown, whole
from ..grids import Grid
from ..methods import Method, exponential_rk
from ..process import Process
from ._moves import Jump, Move, Plan, Run, cut, run
from ._transforms import Churn

__all__ = ["Interval", "Restart", "as_intervals", "restart", "restart_nfe"]

Array = NDArray[np.float64]
Interval = tuple[int, int, float, float]
_SAME = 1e-9  # levels that differ by less, relatively, are one
_MOST = 1024  # repetitions of an interval, and intervals: the legs of an address


@dataclass(frozen=True)
class Restart:
    intervals: tuple[Interval, ...]
    snap: str
    scale: float

    def __call__(self, moves: list[Move], process: Process) -> list[Move]:
        runs = [move for move in moves if isinstance(move, Run) and move.leg == 0]
        if len(runs) < len(moves):
            raise BadInput("restart goes before the transforms that add noise: apply it to the plan first, then churn, ancestral or correct")
        nodes = self._nodes(runs, process)
        out: list[Move] = []
        first = 0
        for main in runs:
            times = sorted({*main.times, *(t for t in nodes if main.times[-1] < t < main.times[0])}, reverse=True)
            inside = [i for i, t in enumerate(times) if t in nodes and 0 < i < len(times) - 1]
            for piece in cut(replace(main, times=tuple(times), first=first), inside):
                out.append(piece)
                if piece.times[-1] in nodes:
                    out += self._cycles(nodes[piece.times[-1]], piece.times[-1], runs[0], process)
            first += len(times) - 1
        return out

    def _nodes(self, runs: list[Run], process: Process) -> dict[float, int]:
        """The time of each interval's ``t_min``, with the interval's number."""
        times = np.array([runs[0].times[0], *(t for main in runs for t in main.times[1:])])
        levels = process.sigma_eff(times)
        top, reach = float(levels[0]), float(process.sigma_eff(process.T))
        made: dict[float, int] = {}
        for j, (_, _, low, high) in enumerate(self.intervals):
            if high > reach * (1.0 + 1e-12):
                raise BadInput(f"t_max = {high:g} is above {reach:g}, the highest level of process {process.name!r}; lower it")
            if low >= top * (1.0 - _SAME):
                raise BadInput(f"t_min = {low:g} must be below {top:g}, the level that the run starts from, or it never comes by; lower it")
            node = self._node(low, times[1:], levels[1:], process)
            level = float(process.sigma_eff(node))
            if high <= level * (1.0 + _SAME):
                raise BadInput(f"t_max = {high:g} is not above t_min = {level:g} of the same interval; raise it")
            if any(abs(level - float(process.sigma_eff(other))) <= _SAME * level for other in made):
                raise BadInput(f"two restart intervals fall on the same level {level:g}; merge them, or use snap='exact' if their t_min differ")
            made[node] = j
        return made

    def _node(self, low: float, times: Array, levels: Array, process: Process) -> float:
        near = int(np.argmin(np.abs(levels - low)))
        on_grid = abs(levels[near] - low) <= _SAME * low or (low == 0.0 and times[near] == 0.0)
        if on_grid or self.snap == "nearest":
            return float(times[near])
        if self.snap == "error":
            raise BadInput(f"t_min = {low:g} is not a level of the grid (nearest {levels[near]:g}); use snap='exact' or 'nearest', or move it")
        if low < levels[-1]:
            raise BadInput(f"t_min = {low:g} is below {levels[-1]:g}, the level that the run ends at; raise it, or end the grid lower")
        return float(process.time_of(low))

    def _cycles(self, j: int, node: float, main: Run, process: Process) -> list[Move]:
        points, K, _, high = self.intervals[j]
        levels = np.linspace(high ** (1 / 7), float(process.sigma_eff(node)) ** (1 / 7), points) ** 7
        back = (*(float(t) for t in process.time_of(np.array([high, *levels[1:-1]]))), node)
        legs = [1 + _MOST * j + cycle for cycle in range(K)]
        return [move for leg in legs for move in (Jump(node, back[0], self.scale, leg), Run(main.method, back, leg, control=main.control))]


def restart(
    grid: Grid | Plan,
    intervals: Iterable[Interval],
    *,
    method: Method | Control | None = None,
    S_noise: float = 1.0,
    churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = float("inf"),
    snap: str = "exact",
) -> Plan:
    r"""Restart sampling: at ``t_min`` go ``K`` times up to ``t_max`` by fresh noise and back down in ``N_restart - 1`` steps.

    .. math:: z_{t_{max}} = \Phi(t_{max}, t_{min})\,z_{t_{min}} + S_{noise}\,L\,\xi, \qquad
              \sigma_j = \Big(\sigma_{max}^{1/7} + \tfrac{j}{N_{restart} - 1}(\sigma_{min}^{1/7} - \sigma_{max}^{1/7})\Big)^7,

    with the forward process's exact transition noise ``L``, and the levels of the way back.  Intervals may overlap or nest, in any order: each
    one fires when the main run reaches its ``t_min``, nothing fires on a way back, and the memory of a multistep method is cleared by each
    noise.  With the exact flow and ``S_noise = 1`` the law at ``t_min`` stays what it is, on every process.

    Parameters
    ----------
    grid : Grid or Plan
        The main grid; or a plan, such as ``run(grid, method).then(finish(...))``, whose first method then goes down in the intervals.
    intervals : sequence of (N_restart, K, t_min, t_max)
        Points of the backward grid (EDM's, rho = 7), repetitions, and the interval in ``sigma_eff``.  ``t_min = 0`` restarts from the data
        after the last step; there the forward process starts afresh, with new auxiliary blocks.  ``t_max`` may be above the grid's first level.
    method : Method, optional
        ``heun()`` would be the paper's on EDM; ``exponential_rk(2)`` is the same for every process and the default.  A control, such as
        ``adaptive(heun())``, gives each sample steps of its own in the main run and in each leg, to the leg's end exactly; its limits are those
        of a leg.
    S_noise : float
        Factor of the injected noise; 1 leaves the law of the exact flow unchanged.  The published script has 0 as default, which only contracts.
    churn, S_min, S_max : float
        Relative rise of the level before each backward step of the restart legs (the paper's ``restart_gamma``) from a level in [S_min, S_max].
    snap : {"exact", "nearest", "error"}
        ``exact`` inserts ``t_min`` into the grid (one more step), ``nearest`` moves it to the nearest grid level after the first as the paper's
        code does, ``error`` refuses.

    Raises
    ------
    BadInput
        For ``N_restart < 2``, ``K < 0``, levels out of order; and, once a process is known, for levels that the run does not pass or the
        process does not have, and for two intervals on one level.

    See Also
    --------
    restart_nfe : the cost, in closed form.
    sdekit.plans.published : the paper's settings.

    References
    ----------
    Xu et al. 2023, arXiv:2306.14878, Algorithm 2.
    """
    if snap not in ("exact", "nearest", "error"):
        raise unknown("snap", snap, ["exact", "nearest", "error"])
    if isinstance(grid, Plan) and method is not None:
        raise BadInput("the plan has a method already; give a grid and a method, or a plan alone")
    base = grid if isinstance(grid, Plan) else run(grid, exponential_rk(2) if method is None else method)
    if churn and base.control is not None:
        raise BadInput(f"churn = {churn:g} comes before each step, and the steps of a control are each sample's own; leave it out")
    plan = base.then(Restart(as_intervals(intervals), snap, finite("S_noise", S_noise)))
    if finite("churn", churn) < 0.0:
        raise BadInput(f"churn = {churn:g} must be nonnegative")
    if not 0.0 <= S_min <= S_max:
        raise BadInput(f"churn needs 0 <= S_min <= S_max, got [{S_min!r}, {S_max!r}]")
    return plan if churn == 0.0 else plan.then(Churn(float(churn), float(S_min), float(S_max), float(S_noise), restart=True))


def as_intervals(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """The intervals, checked, from noise to data."""
    made = []
    for entry in _listed("restart intervals", intervals, "a list of (N_restart, K, t_min, t_max)"):
        parts = _listed("restart interval", entry, "(N_restart, K, t_min, t_max)")
        if len(parts) != 4:
            raise BadInput(f"restart interval {entry!r} must be (N_restart, K, t_min, t_max)")
        points, K, low, high = whole("N_restart", parts[0], 2), whole("K", parts[1], 0), finite("t_min", parts[2]), finite("t_max", parts[3])
        if K >= _MOST or low < 0.0 or high <= low:
            raise BadInput(f"restart interval {entry!r} needs 0 <= t_min < t_max and K < {_MOST}")
        made.append((points, K, low, high))
    if len(made) >= _MOST:
        raise BadInput(f"{len(made)} restart intervals are too many; use fewer than {_MOST}")
    return tuple(sorted(made, key=lambda interval: -interval[2]))


def _listed(what: str, value: object, shape: str) -> list[object]:
    if isinstance(value, str | dict) or not isinstance(value, Iterable):
        raise BadInput(f"{what} {value!r} must be {shape}")
    return list(value)


def restart_nfe(steps: int, intervals: Sequence[Interval], asks: int = 2, data: bool = True) -> int:
    r"""Model calls of Restart with a single-step method: :math:`(a N - a + 1) + \sum_j a K_j (N_{restart,j} - 1)`.

    The published formula counts ``K (a - 1)`` too many for an interval at ``t_min = 0``, whose legs end with one call; here that is right.

    Parameters
    ----------
    steps : int
        Of the main grid, the levels that ``snap="exact"`` inserts included.
    intervals : sequence of (N_restart, K, t_min, t_max)
    asks : int
        Model calls of a step, ``a``: 2 for Heun.
    data : bool
        Whether the grid ends at the data, in a step of one call.

    Raises
    ------
    BadInput
        As for :func:`restart`.
    """
    main = whole("asks", asks) * whole("steps", steps) - (asks - 1) * bool(data)
    return main + sum(K * (asks * (points - 1) - (asks - 1) * (low == 0.0)) for points, K, low, _ in as_intervals(intervals))
