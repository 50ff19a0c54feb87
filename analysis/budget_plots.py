"""Plots of budgets, sensitivities and tuned processes; they take and return ``Axes``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .budgeting import Budget, Sensitivities
from .plots import _axes
from .shaping import TunedProcess

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["budgets", "scan", "sensitivities"]

_PARTS = ("prior", "discretisation", "score", "end")


def budgets(made: Sequence[Budget], ax: Axes | None = None, labels: Sequence[str] | None = None) -> Axes:
    """The parts of several budgets side by side, and their totals as marks."""
    ax = _axes(ax)
    names = list(labels or [f"{one.sampler}, {one.process}\n{one.nfe} calls" for one in made])
    at, width = np.arange(len(names)), 0.8 / len(_PARTS)
    for j, part in enumerate(_PARTS):
        ax.bar(at + (j - 1.5) * width, [one.parts.get(part, np.nan) for one in made], width, label=part)
    ax.plot(at, [one.total for one in made], "k_", markersize=24, label="total")
    ax.set(yscale="log", ylabel="W2", title="where the error comes from")
    ax.set_xticks(at, names)
    ax.legend()
    return ax


def sensitivities(table: Sensitivities, ax: Axes | None = None) -> Axes:
    """What an error of one in the network's outputs does to the samples, for each process and method."""
    ax = _axes(ax)
    at = np.arange(len(table.rows))
    for j, kind in enumerate(("independent", "common")):
        ax.bar(at + (j - 0.5) * 0.4, [getattr(row, kind) for row in table.rows], 0.4, label=kind)
    ax.set(ylabel="W2 for an error of one", title="sensitivity to errors of the network")
    ax.set_xticks(at, [f"{row.method}\n{row.process}" for row in table.rows], rotation=30)
    ax.legend()
    return ax


def scan(tuned: TunedProcess, name: str, values: ArrayLike, ax: Axes | None = None) -> Axes:
    """The error over one parameter, with the tuned choice and, where it is known, the paper's."""
    ax, values = _axes(ax), np.asarray(values, float)
    ax.loglog(values, tuned.scan(name, values), label="error")
    ax.plot(tuned.parameters[name], tuned.error, "o", label="tuned")
    if name in tuned.baseline:
        ax.axvline(tuned.baseline[name], linestyle="--", color="grey", label="paper")
    ax.set(xlabel=name, ylabel="relative error", title=f"choice of {name}")
    ax.legend()
    return ax
