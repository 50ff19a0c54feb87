"""Work against precision: methods at given budgets of model calls, exact where the law is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ..errors import BadInput, whole
from ..grids import Grid, karras
from ..law import Gaussian, Law
from ..methods import Method
from ..plans import run
from ..process import Process
from ..sampling import prepare, sample
from .exact import exact_law
from .wasserstein import w2_exact_1d

__all__ = ["Cell", "WorkPrecision", "work_precision"]

_SAMPLES = 20_000


@dataclass(frozen=True)
class Cell:
    """One method at one budget.

    Attributes
    ----------
    method : str
    asked, nfe, steps : int
        Budget, model calls used (the largest feasible number not above it), steps of the grid.
    w2 : float
        Distance to the data.
    exact : bool
        Whether ``w2`` is exact; if not, it is a sample's distance to as many fresh data, and ``floor`` what two samples of data have.
    floor : float
    """

    method: str
    asked: int
    nfe: int
    steps: int
    w2: float
    exact: bool
    floor: float = 0.0


@dataclass(frozen=True)
class WorkPrecision:
    """Cells of :func:`work_precision`, with a table for print and Jupyter."""

    process: str
    cells: tuple[Cell, ...]

    def rows(self) -> list[dict[str, Any]]:
        """The cells as plain data."""
        return [vars(cell) for cell in self.cells]

    def __str__(self) -> str:
        lines = [f"{'method':<28} {'asked':>6} {'NFE':>6} {'steps':>6} {'W2':>12}  kind"]
        for c in self.cells:
            kind = "exact" if c.exact else f"sampled, floor {c.floor:.3g}"
            lines.append(f"{c.method:<28} {c.asked:>6} {c.nfe:>6} {c.steps:>6} {c.w2:>12.5g}  {kind}")
        return f"{self.process}\n" + "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("method", "asked", "NFE", "steps", "W2", "kind"))
        body = "".join(
            f"<tr><td>{escape(c.method)}</td><td>{c.asked}</td><td>{c.nfe}</td><td>{c.steps}</td><td>{c.w2:.5g}</td>"
            f"<td>{'exact' if c.exact else f'sampled, floor {c.floor:.3g}'}</td></tr>"
            for c in self.cells
        )
        return f"<table><caption>{escape(self.process)}</caption><tr>{head}</tr>{body}</table>"


def work_precision(
    process: Process,
    methods: Sequence[Method],
    nfe: Sequence[int] = (10, 20, 50),
    *,
    data: Law,
    model: Gaussian | None = None,
    grid: Callable[[int], Grid] = karras,
    start: Any = None,
) -> WorkPrecision:
    """The W2 distance to the data of each method at each budget of model calls.

    Parameters
    ----------
    process : Process
    methods : sequence of Method
    nfe : sequence of int
        Budgets; each method takes the most steps whose calls do not exceed it.
    data : Law
        Gaussian: exact.  A law of numbers: sampled, with the floor that two samples of the data have.
    model : Gaussian, optional
        As for :func:`exact_law`.
    grid : callable n -> Grid
    start
        As for :func:`sdekit.sample`.

    Raises
    ------
    BadInput
        For a law that is neither Gaussian nor of numbers, or a budget too small for a method.
    """
    size = int(np.prod(data.shape, dtype=int))
    if not isinstance(data, Gaussian) and size != 1:
        raise BadInput(f"work_precision measures Gaussian data exactly and numbers by samples; this law has data of shape {data.shape}")
    floor = 0.0
    if not isinstance(data, Gaussian):
        floor = w2_exact_1d(data.sample(_SAMPLES, seed=11), data.sample(_SAMPLES, seed=12))
    cells = []
    for method in methods:
        for asked in nfe:
            steps, calls = _most_steps(process, method, whole("nfe", asked), grid)
            if isinstance(data, Gaussian):
                w2 = exact_law(process, method=method, grid=grid(steps), data=data, model=model, start=start).w2
                cells.append(Cell(method.name, asked, calls, steps, w2, True))
            else:
                drawn = sample(process, data.denoiser(), method=method, grid=grid(steps), n=_SAMPLES, start=start, seed=13)
                cells.append(Cell(method.name, asked, calls, steps, w2_exact_1d(drawn.x, data.sample(_SAMPLES, seed=12)), False, floor))
    return WorkPrecision(process.name, tuple(cells))


def _most_steps(process: Process, method: Method, budget: int, grid: Callable[[int], Grid]) -> tuple[int, int]:
    """The largest feasible number of steps, and its model calls."""
    for steps in range(budget // method.asks + 1, 0, -1):
        calls = prepare(process, None, None, run(grid(steps), method)).nfe
        if calls <= budget:
            return steps, calls
    raise BadInput(f"{method.name} needs more than {budget} model calls for one step")
