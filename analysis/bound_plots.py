"""Bounds beside the truth they bound: plots that take and return ``Axes``, as those of :mod:`sdekit.analysis.plots`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..law import Gaussian, Law
from ..methods import Method
from ..process import Process
from .bounds import one_sided, restart
from .contraction import cycle
from .exact import marginal
from .plots import _axes
from .switching import Operator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .bounds_records import SamplerBound

__all__ = ["cycles", "sampler", "weights"]


def cycles(
    process: Process,
    method: Method,
    interval: tuple[int, float, float],
    most: int,
    *,
    data: Gaussian,
    start: Gaussian,
    ax: Axes | None = None,
) -> Axes:
    """Exact W2 at ``t_min`` after 0, 1, .. ``most`` cycles from the noised ``start``, and what the bounds say of it.

    ``interval`` is (N_restart, t_min, t_max).  The published bound, on W1 and for Euler's method, is that of as many steps.
    """
    ax = _axes(ax)
    made, (points, low, high), K = cycle(process, method, interval, data), interval, np.arange(most + 1)
    law = marginal(
        process, float(process.time_of(low)), start.mean.ravel() if start.basis is None else start.mean.ravel() @ start.basis, start.variances
    )
    exact = [made.after(law, int(n)).rows(1).distance(made.target.rows(1)) for n in K]
    each = made.after(made.target, 1).rows(1).distance(made.target.rows(1))
    flow = [one_sided(data, (low, high), int(n), start=exact[0], each=each).total for n in K]
    paper = [restart(data, (low, high), points - 1, int(n), start=start) for n in K]
    ax.semilogy(K, exact, "o-", label="exact W2")
    ax.semilogy(K, flow, "--", label=r"bound by $\kappa$")
    ax.semilogy(K, [bound.published.total for bound in paper], ":", label="published bound (W1, Euler)")
    ax.semilogy(K, [bound.corrected.total for bound in paper], "-.", label="corrected bound (W1, Euler)")
    ax.axhline(paper[0]["B"], color="grey", linewidth=0.8, label="diameter: bounds above are vacuous")
    ax.set(xlabel="cycles K", ylabel="distance at $t_{min}$", title=f"Restart on [{low:g}, {high:g}], {method.name}, {process.name}")
    ax.legend(fontsize="small")
    return ax


def sampler(found: Sequence[SamplerBound], exact: Sequence[float], labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """Parts of bounds as stacked bars, the exact W2 as marks on them."""
    ax = _axes(ax)
    floor = np.zeros(len(found))
    for name in ("prior", "discretisation", "score", "end"):
        size = np.array([bound.parts[name] for bound in found])
        ax.bar(range(len(found)), size, bottom=floor, label=name)
        floor = floor + size
    ax.plot(range(len(found)), exact, "kD", label="exact W2")
    ax.set_xticks(range(len(found)), labels)
    ax.set(ylabel="W2", title="bounds and the truth")
    ax.legend(fontsize="small")
    return ax


def weights(operator: Operator, start: Law, most: int, ax: Axes | None = None) -> Axes:
    """Distance in total variation over the cycles from ``start`` by the exact operator, and the line of its second eigenvalue."""
    ax = _axes(ax)
    K, found = np.arange(most + 1), operator.tv(start, most)
    ax.semilogy(K, found, "o-", label="exact")
    ax.semilogy(K, found[-1] * operator.rate ** (K - float(most)), ":", label=f"second eigenvalue {operator.rate:.4f}")
    ax.set(xlabel="cycles K", ylabel="total variation", title=f"weights under Restart on [{operator.low:g}, {operator.high:g}]")
    ax.legend()
    return ax
