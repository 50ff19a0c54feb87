r"""Restart tuned by exact errors: intervals, repetitions, points, noise and main grid under a budget of model calls; and when it cannot help.

One cycle is an affine map of the state's law, made once for (t_max, t_min, N_restart) and applied K times.  Several intervals are chosen by
dynamic programming over the nodes of the main grid (the state is the law there, mode by mode), then all numbers are refined together.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, finite, whole
from ..grids import karras
from ..methods import Method, euler, exponential_rk
from ..plans import Plan, churn, restart, run
from ..plans import published as papers
from ..process import Process
from .candidates import Exact, judge_of
from .restart_search import Choice, Interval, Programme, Search

Array = NDArray[np.float64]

__all__ = ["TunedRestart", "sweet_spot", "tune_restart"]

_CHURNS = (1.0, 3.0, 10.0, 20.0, 40.0, 80.0)
_NOISES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
_FINE = 240  # steps that stand for the exact flow
_WORTH = 0.99  # of the best other sampler's error: less is a gain
_MEND = 0.9  # of the plateau: less is mended


def sweet_spot(start: float, end: float, rate: float) -> float:
    r"""The number of cycles at which an error is zero that goes from ``start`` to ``end`` of the other sign: the bottom of the V over K.

    .. math:: e_K = e_\infty + \rho^K (e_0 - e_\infty) = 0 \quad\text{at}\quad
              K^* = \frac{\ln\big((|e_0| + |e_\infty|) / |e_\infty|\big)}{|\ln \rho|} .

    Parameters
    ----------
    start, end : float
        :math:`e_0` and :math:`e_\infty`, of the mean or (nearly) of the variance of a mode.
    rate : float
        :math:`\rho` of one cycle.

    Returns
    -------
    float
        0 if both errors have one sign and the end is the larger, infinity if the start is: then no number of cycles is best but none or many.

    Raises
    ------
    BadInput
        Unless ``0 < rate < 1``.
    """
    if not 0.0 < finite("rate", rate) < 1.0:
        raise BadInput(f"rate = {rate!r} must lie between 0 and 1: a cycle that forgets")
    if start * end >= 0.0:
        return 0.0 if abs(end) >= abs(start) else float("inf")
    return float(np.log1p(abs(start) / abs(end)) / -np.log(rate))


@dataclass(frozen=True)
class TunedRestart:
    """What :func:`tune_restart` found; prints as a table.

    Attributes
    ----------
    plan : Plan
        The best plan: with restarts, or plain where they do not help.
    intervals : tuple of (N_restart, K, t_min, t_max)
    S_noise : float
    steps, nfe : int
        Of the main grid, and model calls in all.
    error : float
        W2 to the data: exact on Gaussian data, else as :attr:`exact` says.
    ode, sde : float
        Of the same method without restarts, on the best of a few grids, and of the best of churn and noisy Euler, at no more model calls.
    sde_plan : Plan
    plateau : float
        Error of the ODE with very many steps: what the field does.
    reach : float
        Least error of 30 cycles with very many steps, over a table of intervals: what Restart could mend at any cost.
    helps : bool
        Whether the plan restarts and beats both.
    explanation : str
    presets : dict
        Errors of the published settings that fit the budget.
    modes, ode_modes : arrays (2, modes) or None
        Errors of mean and standard deviation of each mode, of the plan and of the ODE.
    exact : bool
    evaluations : int
    """

    plan: Plan
    intervals: tuple[Interval, ...]
    S_noise: float
    steps: int
    nfe: int
    error: float
    ode: float
    sde: float
    sde_plan: Plan = field(repr=False)
    plateau: float
    reach: float
    helps: bool
    explanation: str
    presets: dict[str, float]
    modes: Array | None
    ode_modes: Array | None
    exact: bool
    evaluations: int

    def _rows(self) -> list[tuple[str, str]]:
        rows = [
            ("tuned", self.error),
            ("ODE", self.ode),
            ("best SDE", self.sde),
            ("ODE, many steps", self.plateau),
            ("Restart, many steps", self.reach),
        ]
        return [(name, f"{error:.6g}") for name, error in [*rows, *self.presets.items()]]

    def _head(self) -> str:
        spans = ", ".join(f"({N}, {K}, {low:.4g}, {high:.4g})" for N, K, low, high in self.intervals) or "none"
        return f"Restart in {self.nfe} model calls: {self.steps} steps, intervals {spans}, S_noise {self.S_noise:.5g}"

    def __str__(self) -> str:
        return "\n".join([self._head(), *(f"  {name:<24} {error:>12}" for name, error in self._rows()), self.explanation])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        body = "".join(f"<tr><td>{escape(name)}</td><td>{error}</td></tr>" for name, error in self._rows())
        return f"<table><caption>{escape(self._head())}</caption>{body}</table><p>{escape(self.explanation)}</p>"


def tune_restart(
    process: Process,
    method: Method | None = None,
    *,
    data: Any,
    model: Any = None,
    nfe: int = 43,
    S_noise: float | None = None,
    evaluations: int | None = None,
) -> TunedRestart:
    """Choose Restart's intervals, repetitions, points, noise and main grid by their error under a budget of model calls.

    Parameters
    ----------
    process : Process
    method : Method, optional
        For the main run and the legs; ``exponential_rk(2)``, the paper's Heun, when absent.
    data : Law
        Gaussian: errors are exact.  Any other: by samples with common noise, which is slower and has a floor.
    model : optional
        The field's error, explicitly: None (exact scores), another law, an injector of :mod:`sdekit.imperfect`, the ``surrogate`` of
        :func:`sdekit.analysis.score_error`; or any denoiser, then by samples.
    nfe : int
        Most model calls.
    S_noise : float, optional
        Fix the factor of the injected noise, 1 for noise that leaves the exact law as it is.  Tuned when absent.
    evaluations : int, optional
        Most plans that the refinement tries: 1200 where errors are exact, 60 by samples.

    Returns
    -------
    TunedRestart
        The same for the same arguments.

    Raises
    ------
    BadInput
        For a budget below 8 calls, or laws without a shared eigenbasis.

    Notes
    -----
    Errors of solver, field and noise may cancel in the modes of one law; give ``S_noise=1`` to leave out the most direct way of that.

    References
    ----------
    Xu et al. 2023, arXiv:2306.14878, leave the choice open (their section 6); settings by hand in tables 3 and 5.
    """
    solver = exponential_rk(2) if method is None else method
    judge = judge_of(process, data, model)
    search = Search(process, solver, judge, whole("nfe", nfe, 8), S_noise, evaluations or (1200 if judge.exact else 60))
    plain = search.shaped(search.longest())
    presets = _presets(search)
    seeds = [plain, *(choice for choice, _ in presets.values())]
    if isinstance(judge, Exact):
        seeds += Programme(search, judge).choices(plain)
    else:
        seeds += [Choice(search.longest(0.6), ((3, 2, low, ratio * low),)) for low in (0.06, 0.3, 1.0) for ratio in (3.0, 10.0)]
    best, error = search.refined(seeds)
    plan = best.plan(solver)
    ode = search.error(plain)
    sde, sde_plan = _stochastic(search, plain)
    plateau, reach = _limits(search)
    helps = bool(best.intervals) and error < _WORTH * min(ode, sde)
    own, bare = (judge.gaps(p.moves(process)) if isinstance(judge, Exact) else None for p in (plan, plain.plan(solver)))
    why = _explain(model is None, error, ode, sde, plateau, reach, bool(best.intervals))
    return TunedRestart(
        plan, best.intervals, best.scale, best.n, search.cost(best), error, ode, sde, sde_plan, plateau, reach, helps,
        why, {name: e for name, (_, e) in presets.items()}, own, bare, judge.exact, search.tried,
    )  # fmt: skip


def _explain(right: bool, error: float, ode: float, sde: float, plateau: float, reach: float, restarts: bool) -> str:
    gain = f"Restart {error:.3g}, ODE {ode:.3g}, best SDE {sde:.3g}"
    if right or plateau < 0.1 * ode:
        why = (
            f"The field is right or nearly so: with many steps the ODE comes to {plateau:.3g}, so its error at this budget is the solver's."
            " Steps mend that, and each leg of Restart makes an error of its own: the calls belong into steps."
        )
        if restarts and error < _WORTH * min(ode, sde):
            why += " What the plan gains here is errors that cancel on this law; it goes with more steps."
    elif reach > _MEND * plateau:
        why = (
            f"Restart cannot help: the law that its cycles keep has the error of the field itself, {reach:.3g} at best, where the ODE comes to"
            f" {plateau:.3g}. The field is wrong in or below every interval; more cycles hold the samples at the wrong law."
        )
        if restarts and error < _WORTH * min(ode, sde):
            why += " What the plan gains here is noise or steps that happen to compensate on this law."
    else:
        why = (
            f"The field is wrong above the intervals: the ODE comes to no better than {plateau:.3g} with any number of steps, cycles below that error"
            f" forget it down to {reach:.3g}."
        )
    return f"{why} ({gain}.)"


def _presets(search: Search) -> dict[str, tuple[Choice, float]]:
    """The published settings that fit the budget, with this method."""
    tables = {"CIFAR-10 VP": papers.cifar10_vp, "CIFAR-10 EDM": papers.cifar10_edm, "ImageNet-64": papers.imagenet64_edm}
    found = {}
    for name, table in tables.items():
        for row in table.values():
            first = row.plan.transforms[0]
            grid: Any = row.plan.grid
            choice = Choice(int(grid.n), first.intervals, first.scale)  # type: ignore[attr-defined]
            if np.isfinite(search.error(choice)):
                found[f"{name} {row.nfe}"] = choice, search.error(choice)
    return found


def _stochastic(search: Search, plain: Choice) -> tuple[float, Plan]:
    """The best sampler with noise in every step, on the grid of the plain run and on the usual one."""
    shapes = plain, Choice(plain.n)
    plans = [churn(shape.plan(search.method), amount) for amount in _CHURNS for shape in shapes]
    plans += [run(replace(shape, n=search.budget).grid, euler(noise=noise)) for noise in _NOISES for shape in shapes]
    return min(((search.judge.error(plan.moves(search.process)), plan) for plan in plans), key=lambda pair: pair[0])


def _limits(search: Search) -> tuple[float, float]:
    """Error of the flow, and the least of many cycles, both with very many steps."""
    n = _FINE if search.judge.exact else _FINE // 8
    solver = exponential_rk(2)
    plateau = search.judge.error(run(karras(n), solver).moves(search.process))
    nodes = search.nodes(karras(n))
    spans = [
        (low, min(ratio * low, search.ceiling))
        for low in np.geomspace(0.05, 0.2 * search.ceiling, 6 if search.judge.exact else 3)
        for ratio in (3.0, 15.0)
    ]
    errors = []
    for low, high in spans:
        node = float(nodes[np.argmin(np.abs(nodes - low))])
        if node < high:
            plan = restart(karras(n), [(13, 30 if search.judge.exact else 6, node, high)], method=solver, snap="nearest")
            errors.append(search.judge.error(plan.moves(search.process)))
    return plateau, min([plateau, *errors])
