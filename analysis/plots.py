"""Plots that take and return ``Axes``; no global state, nothing shown, nothing saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ..pictures import tile
from ..process import Process

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .exact import ExactLaw
    from .orders import OrderReport
    from .precision import WorkPrecision

__all__ = ["images", "kernel", "order", "parts", "sigma_eff", "work_precision"]

_LINES = ("-", "--", ":")  # colours repeat after ten


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    return plt.subplots()[1]


def kernel(process: Process, ax: Axes | None = None, times: ArrayLike | None = None) -> Axes:
    """Coefficients of the mean and standard deviations of the blocks of ``p(z_t | x_0)`` over time."""
    ax = _axes(ax)
    t = np.linspace(process.T / 400, process.T, 400) if times is None else np.asarray(times, float)
    made = process.kernel(t)
    deviation = np.sqrt(np.diagonal(made.cov, axis1=-2, axis2=-1))
    for i, block in enumerate(process.blocks):
        line = ax.plot(t, made.psi[:, i], label=rf"mean of {block}")[0]
        ax.plot(t, deviation[:, i], "--", color=line.get_color(), label=rf"std of {block}")
    ax.set(xlabel="t", ylabel="given $x_0 = 1$", title=f"kernel of {process.name}")
    ax.legend()
    return ax


def sigma_eff(processes: Process | Sequence[Process], ax: Axes | None = None, labels: Sequence[str] | None = None) -> Axes:
    r"""The level :math:`\sigma_{eff}(t)` of one or more processes, over time in units of ``T``."""
    ax = _axes(ax)
    chosen = [processes] if isinstance(processes, Process) else list(processes)
    for process, label in zip(chosen, labels or [p.name for p in chosen], strict=True):
        t = np.geomspace(1e-5, 1.0, 300)
        ax.loglog(t, process.sigma_eff(t * process.T), label=label)
    ax.set(xlabel="t / T", ylabel=r"$\sigma_{\mathrm{eff}}$", title="noise level of the equivalent denoising problem")
    ax.legend()
    return ax


def order(report: OrderReport, ax: Axes | None = None) -> Axes:
    """Error against steps, with the claimed slope."""
    ax = _axes(ax)
    line = ax.loglog(report.steps, report.errors, "o-", label=f"{report.method}: {report.order:.2f}")[0]
    if report.claimed is not None:
        guide = report.errors[-1] * (report.steps / report.steps[-1]) ** -float(report.claimed)
        ax.loglog(report.steps, guide, ":", color=line.get_color(), label=f"slope {report.claimed:g}")
    ax.set(xlabel="steps", ylabel="relative error", title=f"order on {report.process}")
    ax.legend()
    return ax


def work_precision(table: WorkPrecision, ax: Axes | None = None) -> Axes:
    """W2 against model calls, one line for each method."""
    ax = _axes(ax)
    for i, name in enumerate(dict.fromkeys(cell.method for cell in table.cells)):
        cells = sorted((cell for cell in table.cells if cell.method == name), key=lambda cell: cell.nfe)
        ax.loglog([cell.nfe for cell in cells], [cell.w2 for cell in cells], "o" + _LINES[i // 10 % len(_LINES)], label=name)
    floors = {cell.floor for cell in table.cells if not cell.exact}
    for floor in floors:
        ax.axhline(floor, color="grey", linestyle=":", label="floor of sampling")
    kind = "exact W2" if not floors else "W2 of samples"
    ax.set(xlabel="model calls (NFE)", ylabel=kind, title=f"work and precision on {table.process}")
    ax.legend(fontsize="small")
    return ax


def parts(law: ExactLaw, ax: Axes | None = None) -> Axes:
    """Where the distance comes from, as bars."""
    ax = _axes(ax)
    found = {**law.parts, "w2": law.w2}
    ax.bar(list(found), list(found.values()))
    ax.set(ylabel="W2", yscale="log", title="parts of the error")
    return ax


def images(samples: ArrayLike, ax: Axes | None = None, columns: int = 8, range: tuple[float, float] = (-1.0, 1.0)) -> Axes:  # noqa: A002
    """Images (n, channels, height, width) with 1 or 3 channels as one picture."""
    ax = _axes(ax)
    ax.imshow(tile(samples, columns, range), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    ax.set_axis_off()
    return ax
