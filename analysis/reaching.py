"""How many model calls a method needs to reach a given error: speed-ups at equal quality, with their intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ..errors import BadInput, positive, unknown, whole
from ..grids import Grid, karras
from ..law import Gaussian, Law
from ..methods import Method
from ..plans import run
from ..process import Process
from ..sampling import prepare, sample
from .exact import exact_law
from .wasserstein import w2_exact_1d

__all__ = ["Reached", "Reaching", "nfe_to_reach"]

_SAMPLES = 20_000
_SEEDS = (13, 14, 15)
_SURE = 2.0  # standard errors


@dataclass(frozen=True)
class Reached:
    """One method.

    Attributes
    ----------
    method : str
    nfe, steps : int
        Fewest model calls found that reach the error, and the steps of that grid; 0 if the most that was allowed did not.
    w2 : float
        Error there.
    low, high : int
        Interval of ``nfe`` from the uncertainty of a sampled error (two standard errors); equal to it where the error is exact.
    before : int
        Most calls tried below ``nfe``, which did not reach it.
    seconds : float
        Wall time of a run of ``timing`` samples at ``nfe``; 0 if none was asked for.
    """

    method: str
    nfe: int
    steps: int
    w2: float
    low: int
    high: int
    before: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Reaching:
    """What :func:`nfe_to_reach` found, with a table for print and Jupyter."""

    process: str
    error: float
    rows: tuple[Reached, ...]

    def speed_up(self, fast: str, slow: str) -> tuple[float, float, float]:
        """Calls of ``slow`` over calls of ``fast`` at the same error, and the interval of that ratio.

        Raises
        ------
        BadInput
            For a method that is not in the table or did not reach the error.
        """
        known = {row.method: row for row in self.rows}
        for name in (fast, slow):
            if name not in known:
                raise unknown("method", name, known)
            if not known[name].nfe:
                raise BadInput(f"{name} did not reach W2 = {self.error:g}: allow more model calls")
        a, b = known[fast], known[slow]
        return b.nfe / a.nfe, b.low / a.high, b.high / a.low

    def __str__(self) -> str:
        lines = [f"{self.process}: model calls to reach W2 = {self.error:g}", f"{'method':<28} {'NFE':>6} {'interval':>12} {'W2':>12} {'seconds':>9}"]
        lines += [f"{r.method:<28} {r.nfe or '-':>6} {f'{r.low}..{r.high}':>12} {r.w2:>12.5g} {r.seconds or 0.0:>9.3g}" for r in self.rows]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("method", "NFE", "interval", "W2", "seconds"))
        body = "".join(
            f"<tr><td>{escape(r.method)}</td><td>{r.nfe or '-'}</td><td>{r.low} .. {r.high}</td><td>{r.w2:.5g}</td><td>{r.seconds:.3g}</td></tr>"
            for r in self.rows
        )
        return f"<table><caption>{escape(self.process)}: model calls to reach W2 = {self.error:g}</caption><tr>{head}</tr>{body}</table>"


def nfe_to_reach(
    process: Process,
    methods: Sequence[Method],
    error: float,
    *,
    data: Law,
    grid: Callable[[int], Grid] = karras,
    start: Any = None,
    most: int = 1000,
    timing: int = 0,
) -> Reaching:
    """Fewest model calls with which each method comes within ``error`` of the data in W2.

    Doubling finds a number of steps that suffices, bisection the smallest such; errors that do not fall with the number of steps would need more.

    Parameters
    ----------
    process : Process
    methods : sequence of Method
    error : float
        W2, in the unit of the data.
    data : Law
        Gaussian: exact.  A law of numbers: by 20,000 samples with three seeds, from which the interval.
    grid : callable n -> Grid
    start
        As for :func:`sdekit.sample`.
    most : int
        Most model calls.
    timing : int
        Samples of a timed run at the calls found.

    Returns
    -------
    Reaching

    Raises
    ------
    BadInput
        For an error that is not positive, or a law that is neither Gaussian nor of numbers.
    """
    positive("error", error)
    whole("most", most)
    if not isinstance(data, Gaussian) and int(np.prod(data.shape, dtype=int)) != 1:
        raise BadInput(f"nfe_to_reach measures Gaussian data exactly and numbers by samples; this law has data of shape {data.shape}")
    rows = [_reach(process, method, error, data, grid, start, most, timing) for method in methods]
    return Reaching(process.name, float(error), tuple(rows))


def _reach(process: Process, method: Method, error: float, data: Law, grid: Callable[[int], Grid], start: Any, most: int, timing: int) -> Reached:
    known: dict[int, tuple[float, float]] = {}

    def calls(steps: int) -> int:
        return prepare(process, None, None, run(grid(steps), method)).nfe

    def measured(steps: int) -> tuple[float, float]:
        if steps not in known:
            known[steps] = _w2(process, method, grid(steps), data, start)
        return known[steps]

    def fewest(sure: float) -> int:
        """Fewest steps whose error, so many standard errors up, is below the target; 0 if ``most`` calls do not do."""
        low, high = 0, 1
        while sum(part * by for part, by in zip(measured(high), (1.0, sure), strict=True)) > error:
            low, high = high, 2 * high
            if calls(high) > most:
                return 0
        while high - low > 1:
            middle = (low + high) // 2
            w2, spread = measured(middle)
            low, high = (low, middle) if w2 + sure * spread <= error else (middle, high)
        return high

    steps = fewest(0.0)
    if not steps:
        last = max(known)
        return Reached(method.name, 0, 0, known[last][0], 0, 0, calls(last))
    before = max((n for n in known if n < steps), default=0)
    ends = [fewest(sure) for sure in (-_SURE, _SURE)]
    low, high = calls(ends[0]), calls(ends[1]) if ends[1] else most
    seconds = 0.0
    if timing:
        begin = time.perf_counter()
        sample(process, data.denoiser(), method=method, grid=grid(steps), n=whole("timing", timing), start=start)
        seconds = time.perf_counter() - begin
    return Reached(method.name, calls(steps), steps, known[steps][0], low, high, calls(before) if before else 0, seconds)


def _w2(process: Process, method: Method, grid: Grid, data: Law, start: Any) -> tuple[float, float]:
    """The distance to the data, and its standard error; 0 where it is exact."""
    if isinstance(data, Gaussian):
        return exact_law(process, method=method, grid=grid, data=data, start=start).w2, 0.0
    drawn = [sample(process, data.denoiser(), method=method, grid=grid, n=_SAMPLES, start=start, seed=seed).x for seed in _SEEDS]
    found = [w2_exact_1d(x, data.sample(_SAMPLES, seed=100 + seed)) for x, seed in zip(drawn, _SEEDS, strict=True)]
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(len(found)))
