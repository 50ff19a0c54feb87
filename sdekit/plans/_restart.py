"""Restart sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import BadInput, finite, unknown, whole
from ..grids import Grid
from ..methods import Method, exponential_rk
from ..process import Process
from ._moves import Jump, Move, Plan, Run, cut, run
from ._transforms import Churn

__all__ = ["Restart", "restart"]


@dataclass(frozen=True)
class Restart:
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
        for piece in cut(replace(main, times=tuple(times)), [times.index(node) for node in nodes if node != times[-1]]):
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
    plan = run(grid, exponential_rk(2) if method is None else method).then(Restart(tuple(made), snap, finite("S_noise", S_noise)))
    if finite("churn", churn) < 0.0:
        raise BadInput(f"churn = {churn:g} must be nonnegative")
    return plan if churn == 0.0 else plan.then(Churn(float(churn), 0.0, float("inf"), float(S_noise), restart=True))
