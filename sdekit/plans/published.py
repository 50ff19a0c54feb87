"""Settings of Restart as published, by model and number of model calls.

>>> import sdekit as sk
>>> row = sk.plans.published.cifar10_vp[43]
>>> row.fid
2.7
>>> row.plan == sk.plans.restart(sk.grids.karras(18), [(3, 2, 0.06, 0.30)], snap="nearest")
True

All go by levels, so they run on every process that reaches the grid's top, with the same cost.  Heun's method in the level is ``exponential_rk(2)``.
``snap="nearest"`` is the paper's: the levels where they really restart are those of the grid, such as 0.0599 for 0.06 in 18 steps.

References
----------
Xu et al. 2023, arXiv:2306.14878, tables 3, 5 and 10, and their code for ``S_noise`` and churn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ..grids import karras, vp
from ..methods import dpm_solver
from ._finish import finish
from ._moves import Plan, run
from ._restart import Interval, restart

__all__ = ["Published", "cifar10_edm", "cifar10_pfgmpp", "cifar10_vp", "cifar10_vp_dpm_solver", "imagenet64_edm", "stable_diffusion"]


@dataclass(frozen=True)
class Published:
    """A row of a table.

    Attributes
    ----------
    plan : Plan
    nfe : int
        Model calls of each sample, as published.
    fid : float
        As published, of their network: not a claim about another.
    source : str
    """

    plan: Plan
    nfe: int
    fid: float
    source: str


def _rows(source: str, *rows: Published) -> Mapping[int, Published]:
    return MappingProxyType({row.nfe: Published(row.plan, row.nfe, row.fid, f"Xu et al. 2023, arXiv:2306.14878, {source}") for row in rows})


def _heun(nfe: int, fid: float, n: int, *intervals: Interval) -> Published:
    return Published(restart(karras(n), intervals, snap="nearest"), nfe, fid, "")


def _dpm(nfe: int, fid: float, n: int, interval: Interval) -> Published:
    main = run(vp(n), dpm_solver(3)).then(finish(dpm_solver(2, rule="published")))
    return Published(restart(main, [interval], snap="nearest"), nfe, fid, "")


def _imagenet(nfe: int, fid: float, n: int, *intervals: Interval) -> Published:
    plan = restart(karras(n), intervals, S_noise=1.003, churn=0.05, S_min=0.01, S_max=1.0, snap="nearest")
    return Published(plan, nfe, fid, "")


cifar10_vp = _rows(
    "table 3",
    _heun(519, 2.11, 20, (9, 30, 0.06, 0.20)),
    _heun(115, 2.21, 18, (3, 20, 0.06, 0.30)),
    _heun(75, 2.27, 18, (3, 10, 0.06, 0.30)),
    _heun(55, 2.45, 18, (3, 5, 0.06, 0.30)),
    _heun(43, 2.70, 18, (3, 2, 0.06, 0.30)),
)
"""CIFAR-10, unconditional, the VP network of EDM."""

cifar10_vp_dpm_solver = _rows(
    "table 3",
    _dpm(27, 2.11, 8, (3, 1, 0.06, 0.3)),
    _dpm(24, 2.15, 7, (3, 1, 0.06, 1.0)),
    _dpm(21, 2.28, 6, (3, 1, 0.06, 1.0)),
    _dpm(18, 2.40, 5, (3, 1, 0.06, 1.0)),
)
"""The same with DPM-Solver-3 on VP's grid: order 2 in the second-last step, then the data.  ``t_min`` falls on the grid's last level, 0.01049."""

cifar10_edm = _rows("table 3", _heun(43, 1.90, 18, (3, 2, 0.14, 0.30)))
"""CIFAR-10, unconditional, EDM."""

cifar10_pfgmpp = _rows("table 3", _heun(43, 1.88, 18, (3, 2, 0.14, 0.30)))
"""CIFAR-10, PFGM++ with D = 2048: the plan for ``sdekit.pfgm.Pfgm(2048).plan(...)``, which puts its noise in the place of the Gaussian one."""

imagenet64_edm = _rows(
    "table 5",
    _imagenet(39, 2.38, 14, (3, 1, 19.35, 40.79), (3, 1, 1.09, 1.92), (3, 1, 0.06, 0.30)),
    _imagenet(67, 1.95, 18, (5, 1, 19.35, 40.79), (5, 1, 1.09, 1.92), (5, 1, 0.59, 1.09), (5, 1, 0.06, 0.30)),
    _imagenet(99, 1.71, 18, (3, 1, 19.35, 40.79), (4, 1, 1.09, 1.92), (4, 4, 0.59, 1.09), (4, 1, 0.30, 0.59), (4, 4, 0.06, 0.30)),
    _imagenet(165, 1.51, 18, (3, 1, 19.35, 40.79), (4, 1, 1.09, 1.92), (4, 5, 0.59, 1.09), (4, 5, 0.30, 0.59), (4, 10, 0.06, 0.30)),
    _imagenet(203, 1.46, 36, (4, 1, 19.35, 40.79), (4, 1, 1.09, 1.92), (4, 5, 0.59, 1.09), (4, 5, 0.30, 0.59), (6, 6, 0.06, 0.30)),
    _imagenet(385, 1.41, 36, (3, 1, 19.35, 40.79), (6, 1, 1.09, 1.92), (6, 5, 0.59, 1.09), (6, 5, 0.30, 0.59), (6, 20, 0.06, 0.30)),
    _imagenet(535, 1.39, 36, (6, 1, 19.35, 40.79), (6, 1, 1.09, 1.92), (7, 6, 0.59, 1.09), (7, 6, 0.30, 0.59), (7, 25, 0.06, 0.30)),
    _imagenet(623, 1.36, 36, (10, 3, 19.35, 40.79), (10, 3, 1.09, 1.92), (7, 6, 0.59, 1.09), (7, 6, 0.30, 0.59), (7, 25, 0.06, 0.30)),
)
"""ImageNet 64 x 64, class-conditional, EDM, with churn in the intervals."""


def _weights(intervals: Mapping[int, Sequence[Interval]]) -> Mapping[int, tuple[Interval, ...]]:
    return MappingProxyType({weight: tuple(chosen) for weight, chosen in intervals.items()})


stable_diffusion = _weights(
    {
        2: [(5, 2, 1.0, 9.0), (5, 2, 5.0, 10.0)],
        3: [(10, 2, 0.1, 3.0)],
        5: [(10, 2, 0.1, 2.0)],
        8: [(10, 2, 0.1, 2.0)],
    }
)
"""Stable Diffusion 1.5, intervals by weight of the guidance (table 10), for :func:`sdekit.compatibility.diffusers_restart` in 30 steps.

Published as 66 calls; what the code computes is 64, and 62 at weight 2.
"""
