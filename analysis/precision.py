"""Work against precision: methods at given budgets of model calls, exact where the law is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, whole
from ..grids import Grid, karras
from ..law import Gaussian, Law
from ..methods import Method
from ..plans import run
from ..process import Process
from ..sampling import prepare, sample
from ..solve import solve
from .exact import exact_law
from .orders import reference_flow, start_states
from .wasserstein import w2_exact_1d

__all__ = ["Cell", "WorkPrecision", "work_precision"]

Array = NDArray[np.float64]

_SAMPLES = 20_000
_PATHS = 128
_SMALL = 1e-4  # the level at which the reference flow ends for grids that end at the data


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
    kind : {"exact", "sampled", "path"}
        ``exact``; a sample's distance to as many fresh data, with ``floor`` what two samples of data have; or the root mean square distance of paths
        from the exact flow, which bounds the W2 that the steps cause.
    floor : float
    """

    method: str
    asked: int
    nfe: int
    steps: int
    w2: float
    kind: str = "exact"
    floor: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether ``w2`` is exact."""
        return self.kind == "exact"

    @property
    def described(self) -> str:
        """The kind in words."""
        return f"sampled, floor {self.floor:.3g}" if self.kind == "sampled" else self.kind


@dataclass(frozen=True)
class WorkPrecision:
    """Cells of :func:`work_precision`, with a table for print and Jupyter."""

    process: str
    cells: tuple[Cell, ...]

    def rows(self) -> list[dict[str, Any]]:
        """The cells as plain data."""
        return [{**vars(cell), "exact": cell.exact} for cell in self.cells]

    def __str__(self) -> str:
        lines = [f"{'method':<28} {'asked':>6} {'NFE':>6} {'steps':>6} {'W2':>12}  kind"]
        lines += [f"{c.method:<28} {c.asked:>6} {c.nfe:>6} {c.steps:>6} {c.w2:>12.5g}  {c.described}" for c in self.cells]
        return f"{self.process}\n" + "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("method", "asked", "NFE", "steps", "W2", "kind"))
        body = "".join(
            f"<tr><td>{escape(c.method)}</td><td>{c.asked}</td><td>{c.nfe}</td><td>{c.steps}</td><td>{c.w2:.5g}</td><td>{c.described}</td></tr>"
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
        Gaussian: exact.  A law of numbers: sampled, with the floor that two samples of the data have.  Any other law with an exact denoiser
        (mixtures, curves in many dimensions): by paths from its exact marginal, for methods without noise.
    model : Gaussian, optional
        As for :func:`exact_law`.
    grid : callable n -> Grid
    start
        As for :func:`sdekit.sample`.

    Raises
    ------
    BadInput
        For a method with noise where paths are measured, or a budget too small for a method.
    """
    measure = _measure(process, data, model, start)
    cells = []
    for method in methods:
        for asked in nfe:
            steps, calls = _most_steps(process, method, whole("nfe", asked), grid)
            w2, kind, floor = measure(method, grid(steps))
            cells.append(Cell(method.name, asked, calls, steps, w2, kind, floor))
    return WorkPrecision(process.name, tuple(cells))


def _measure(process: Process, data: Law, model: Gaussian | None, start: Any) -> Callable[[Method, Grid], tuple[float, str, float]]:
    """How the law's distance is measured: a function of method and grid to the distance, its kind and its floor."""
    if isinstance(data, Gaussian):
        return lambda method, grid: (exact_law(process, method=method, grid=grid, data=data, model=model, start=start).w2, "exact", 0.0)
    if int(np.prod(data.shape, dtype=int)) == 1:
        fresh = data.sample(_SAMPLES, seed=12)
        floor = w2_exact_1d(data.sample(_SAMPLES, seed=11), fresh)

        def sampled(method: Method, grid: Grid) -> tuple[float, str, float]:
            drawn = sample(process, data.denoiser(), method=method, grid=grid, n=_SAMPLES, start=start, seed=13)
            return w2_exact_1d(drawn.x, fresh), "sampled", floor

        return sampled
    flows: dict[tuple[float, float], tuple[Array, Array]] = {}

    def by_paths(method: Method, grid: Grid) -> tuple[float, str, float]:
        if method.noisy:
            raise BadInput(f"{method.name} has noise: on data of shape {data.shape} that are not Gaussian only paths of the flow are measured")
        prog = prepare(process, method, grid, None)
        denoise, t, s = data.denoiser(), float(prog.times[0]), float(prog.times[-1])
        if (t, s) not in flows:
            begin = start_states(process, data, t, _PATHS)
            low = s if s > 0.0 else float(process.time_of(max(_SMALL, 1.01 * float(process.sigma_eff(0.0)))))
            end = reference_flow(process, denoise, begin, t, low)
            if s == 0.0:
                kernel = process.kernel(low)
                end = denoise(np.tensordot(kernel.observe, end, axes=1), float(kernel.sigma_eff))[None]
            flows[t, s] = begin, end[0]
        begin, exact = flows[t, s]
        found, _ = solve(prog, list(begin), denoise)
        return float(np.sqrt(np.mean(np.sum((found[0] - exact).reshape(_PATHS, -1) ** 2, axis=1)))), "path", 0.0

    return by_paths


def _most_steps(process: Process, method: Method, budget: int, grid: Callable[[int], Grid]) -> tuple[int, int]:
    """The largest feasible number of steps, and its model calls."""
    for steps in range(budget // method.asks + 1, 0, -1):
        calls = prepare(process, None, None, run(grid(steps), method)).nfe
        if calls <= budget:
            return steps, calls
    raise BadInput(f"{method.name} needs more than {budget} model calls for one step")
