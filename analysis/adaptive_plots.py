"""Plots of step-size control that take and return ``Axes``; no global state, nothing shown, nothing saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..control import power
from .adaptivity import control_loop, error_spread, stationary_law
from .plots import _axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..methods import Method
    from .adaptive_grids import MeanField, Proportionality
    from .adaptivity import Loop

__all__ = ["proportionality", "rejections", "responses", "stationary", "steps"]


def responses(loops: Mapping[str, Loop], ax: Axes | None = None) -> Axes:
    """What each loop leaves of disturbances over their frequency: below 1 they are damped, above 1 made larger."""
    ax = _axes(ax)
    frequency = np.linspace(0.002, 0.5, 250)
    for name, loop in loops.items():
        ax.semilogy(frequency, loop.response(frequency), marker="", label=f"{name}: noise {loop.noise_gain:.3g}, lag {loop.lag:.3g}")
    ax.axhline(1.0, color="grey", linewidth=0.8)
    ax.set(xlabel="cycles a step", ylabel=r"left in $\log E$", title="controllers as filters")
    ax.legend(fontsize="small")
    return ax


def rejections(
    ax: Axes | None = None, elements: Sequence[int] = (16, 64, 256, 1024, 3072), k: float = 1.5, theta: float = 0.9, drift: float = 0.0
) -> Axes:
    r"""Predicted probability of a rejection under :math:`\theta E^{-r}` over ``r``, for several numbers of elements."""
    ax = _axes(ax)
    r = np.linspace(0.1, 0.995 * 2.0 / k, 200)
    loops = [control_loop(power(theta, float(value)), k) for value in r]
    for d in elements:
        ax.plot(r, [loop.rejection(error_spread(d), drift) for loop in loops], marker="", label=f"{d} elements")
    ax.axvline(1.0 / k, color="grey", linewidth=0.8, linestyle=":")
    ax.set(xlabel="r", ylabel="probability of a rejection", title=rf"errors of power k = {k:g}, $\theta$ = {theta:g}; dotted: deadbeat")
    ax.legend(fontsize="small")
    return ax


def stationary(methods: Sequence[Method], ax: Axes | None = None, most: float = 1.9) -> Axes:
    """Variance of the stationary law of each method over the exact one, over the step ``u``; gaps where there is none."""
    ax = _axes(ax)
    u = np.linspace(0.02, most, 95)
    for method in methods:
        made = np.array([stationary_law(method, float(value)).variance for value in u])
        ax.semilogy(u, np.where(np.isfinite(made), made, np.nan), marker="", label=str(method))
    ax.axhline(1.0, color="grey", linewidth=0.8)
    ax.set(xlabel=r"$u = \lambda h$", ylabel="variance / exact", title=r"stationary laws on $dx = -\lambda x\,dt + \sigma\,dw$")
    ax.legend(fontsize="small")
    return ax


def steps(runs: Mapping[str, MeanField], ax: Axes | None = None) -> Axes:
    """Length of the accepted steps over time, for each run."""
    ax = _axes(ax)
    for name, run in runs.items():
        ax.semilogy(run.times[:-1], -np.diff(run.times), marker="", label=f"{name}: {run.nfe} calls")
    ax.set(xlabel="t", ylabel="h", title="steps in the limit of many elements")
    ax.legend(fontsize="small")
    return ax


def proportionality(tables: Mapping[str, Proportionality], ax: Axes | None = None) -> Axes:
    """Exact W2 over the tolerance, with slopes; a dotted line has slope 1."""
    ax = _axes(ax)
    for name, table in tables.items():
        slope, error = table.error_slope
        (line,) = ax.loglog(table.rtol, table.w2, "o-", label=f"{name}: slope {slope:.2f} ± {error:.2f}")
        ax.loglog(table.rtol, table.w2[0] * table.rtol / table.rtol[0], ":", marker="", color=line.get_color())
    ax.set(xlabel="rtol", ylabel="exact W2, root mean square", title="error against tolerance")
    ax.legend(fontsize="small")
    return ax
