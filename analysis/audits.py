r"""Audit of foreign samplers: their exact law, true order, model calls and faults, from one basis batch at each number of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Any, NamedTuple

import numpy as np

from ..errors import BadInput, unknown, whole
from .blackbox import KINDS, MEANS, SPREAD, Level, Trace, trace
from .orders import OrderReport, judge

__all__ = ["AuditReport", "Audits", "Fault", "Outcome", "audit"]

_SAME = 1e-6  # relative difference that float32 coefficients may leave
_OFF = 1e-4  # difference of levels, relative, that is a fault


def _sigma(label: float, _: int) -> Level:
    return Level(1.0, label)


def _exactly(_: float) -> float:
    return 0.0


class Fault(NamedTuple):
    """What is wrong, in words with numbers, and a line of code that shows it again."""

    kind: str
    says: str
    line: str


class Outcome(NamedTuple):
    """The exact law of data N(0.3, 0.25) after ``n`` steps, its W2 to the true law at the sampler's last level, and the error of the map."""

    n: int
    nfe: int
    mean: float
    std: float
    w2: float
    error: float


@dataclass(frozen=True, eq=False)
class AuditReport:
    """What the audit of one sampler found.

    Attributes
    ----------
    name : str
    claimed : float or None
    orders : tuple of OrderReport
        Of the map (``ode``), or of mean and variance where the sampler draws normals (``weak``); one more for each kind of prediction that
        gives other samples.
    outcomes : tuple of Outcome
        Exact law, model calls and error at each number of steps.
    faults : tuple of Fault
    """

    name: str
    claimed: float | None
    orders: tuple[OrderReport, ...]
    outcomes: tuple[Outcome, ...]
    faults: tuple[Fault, ...]

    @property
    def measured(self) -> str:
        """The measured orders as text; with a question mark where the slopes have not settled."""
        return ", ".join(f"{o.order:.2f}{'?' * (o.interval[1] - o.interval[0] > 0.25)}" for o in self.orders if np.isfinite(o.order))

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        names = ("kind", "claimed", "order", "interval", "verdict", "window")
        return {
            "name": self.name,
            "claimed": self.claimed,
            "orders": [{name: getattr(o, name) for name in names} for o in self.orders],
            "outcomes": [o._asdict() for o in self.outcomes],
            "faults": [f._asdict() for f in self.faults],
        }

    def _rows(self) -> list[list[str]]:
        return [[str(o.n), str(o.nfe), f"{o.mean:.6f}", f"{o.std:.6f}", f"{o.w2:.3e}", f"{o.error:.3e}"] for o in self.outcomes]

    def __str__(self) -> str:
        slopes = [" ".join(f"{slope:.2f}" for slope in o.slopes) for o in self.orders]
        orders = [f"  {o}; slopes {text}" for o, text in zip(self.orders, slopes, strict=True)]
        faults = [f"  fault, {f.kind}: {f.says}\n    {f.line}" for f in self.faults] or ["  no fault found"]
        return "\n".join([self.name, *orders, _text(_OUTCOME, self._rows()), *faults])

    def _repr_html_(self) -> str:
        orders = "".join(f"<p>{escape(str(o))}</p>" for o in self.orders)
        return f"<h4>{escape(self.name)}</h4>{orders}{_html(_OUTCOME, self._rows())}{_listed([self])}"


@dataclass(frozen=True, eq=False)
class Audits:
    """Audits of one library, with its version.

    Attributes
    ----------
    library : str
    reports : tuple of AuditReport
    """

    library: str
    reports: tuple[AuditReport, ...]

    @property
    def faulty(self) -> tuple[AuditReport, ...]:
        """The reports with a fault."""
        return tuple(report for report in self.reports if report.faults)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"library": self.library, "reports": [report.as_dict() for report in self.reports]}

    def _rows(self) -> list[list[str]]:
        rows = []
        for r in self.reports:
            calls, w2 = (" ".join(cells) for cells in ([f"{o.n}:{o.nfe}" for o in r.outcomes[-3:]], [f"{o.w2:.1e}" for o in r.outcomes[-3:]]))
            claim, found = ("", "") if r.claimed is None else (f"{r.claimed:g}", r.measured)
            rows.append([r.name, claim, found, calls, w2, ", ".join(dict.fromkeys(f.kind for f in r.faults)) or "none"])
        return rows

    def __str__(self) -> str:
        faults = [f"{r.name}\n  {f.kind}: {f.says}\n  {f.line}" for r in self.faulty for f in r.faults]
        title = f"{self.library}: {len(self.reports)} audits, {len(self.faulty)} with faults"
        return "\n\n".join([title, _text(_SUMMARY, self._rows()), *faults])

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.library)}</p>{_html(_SUMMARY, self._rows())}{_listed(self.faulty)}"


_OUTCOME = ["steps", "calls", "mean", "std", "W2", "error"]
_SUMMARY = ["sampler", "claimed", "measured", "steps:calls", "W2", "faults"]


def _text(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows])


def _html(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<table><tr>{top}</tr>" + "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows) + "</table>"


def _listed(reports: Sequence[AuditReport]) -> str:
    faults = [(f"{escape(r.name)}, <b>{escape(f.kind)}</b>: {escape(f.says)}", escape(f.line)) for r in reports for f in r.faults]
    return "<ul>" + "".join(f"<li>{says}<br><code>{line}</code></li>" for says, line in faults) + "</ul>" if faults else "<p>No fault found.</p>"


@dataclass(frozen=True)
class _Sampler:
    """A black box, what its owner says about it, and its runs."""

    run: Callable[..., Any]
    span: Callable[[int], tuple[Level, Level]]
    levels: Callable[[float, int], Level]
    resolution: Callable[[float], float]
    exact_transfer: bool
    name: str

    def trace(self, n: int, kind: str) -> Trace:
        return trace(self.run, n, kind, self.levels)

    def error(self, n: int, made: Trace) -> float:
        """Relative error of the map; with noise, of the mean and variance; the worst mode counts."""
        begin, end = self.span(n)
        v0, v1 = begin.variance, end.variance
        if made.noisy:
            spread = (made.A**2 * v0 + np.sum(made.N**2, axis=0)) / v1 - 1.0
            shift = made.A * begin.a * MEANS + made.b - end.a * MEANS
        else:
            gain = np.sqrt(v1 / v0)
            spread = made.A / gain - 1.0
            shift = made.b - MEANS * (end.a - gain * begin.a)
        return float(np.max(np.hypot(spread, shift / np.sqrt(v1))[SPREAD]))

    def outcome(self, n: int, made: Trace, prior: float | None) -> Outcome:
        begin, end = self.span(n)
        mean, variance = (begin.a * MEANS, begin.variance) if prior is None else (0.0 * MEANS, np.full_like(MEANS, prior**2))
        where = float((made.A * mean + made.b)[1])
        std = float(np.sqrt(made.A**2 * variance + np.sum(made.N**2, axis=0))[1])
        w2 = float(np.hypot(where - end.a * MEANS[1], std - np.sqrt(end.variance[1])))
        return Outcome(n, len(made.calls), where, std, w2, self.error(n, made))

    def order(self, kind: str, traces: dict[int, Trace], claimed: float | None) -> OrderReport:
        sort = "weak" if any(made.noisy for made in traces.values()) else "ode"
        counts, errors = np.array(list(traces)), np.array([self.error(n, made) for n, made in traces.items()])
        begin, end = self.span(int(counts[-1]))
        return judge(self.name, "normal data", f"{sort}, {kind}", counts, errors, (begin.sigma, end.sigma), claimed)


Found = Iterator[tuple[str, str]]


def _unsound(traces: dict[int, Trace]) -> Found:
    """Results that are not finite, or not affine in start and normals."""
    bad = [n for n, made in traces.items() if not made.finite]
    if bad:
        yield "not finite", f"NaN or infinity in the result after {', '.join(map(str, bad))} steps"
    bent = {n: made.bent for n, made in traces.items() if made.finite and made.bent > _OFF}
    if bent:
        n = max(bent, key=lambda n: bent[n])
        yield "not affine", f"a combination of starts and normals is {bent[n]:.1e} off after {n} steps: clipping, or a state kept from another run"


def _misplaced(sampler: _Sampler, traces: dict[int, Trace]) -> Found:
    """Calls at a level that the state does not have.

    A sampler that transfers signal and noise exactly has exact levels on data that are one point.  Another one is off by its own local error,
    O(step^2) in log level, so only the first call, and changes that are large against fine steps, are judged.
    """
    for n, made in traces.items():
        begin = sampler.span(n)[0]
        asked = [sampler.levels(call.label, n) for call in made.calls]
        gaps = [call.level(begin).gap(level) for call, level in zip(made.calls, asked, strict=True)]
        room = [sampler.resolution(call.label) + _OFF for call in made.calls]
        excess = [gap - more for gap, more in zip(gaps, room, strict=True)]
        if not sampler.exact_transfer:
            steps = [asked[i].gap(asked[i - 1]) for i in range(1, len(asked))]
            rises = [abs(gaps[i] - gaps[i - 1]) - room[i] - room[i - 1] for i in range(1, len(gaps))]
            excess[1:] = [rise - 3.0 * step**2 if 0.0 < step <= 0.1 else -1.0 for rise, step in zip(rises, steps, strict=True)]
        wrong = [i for i, more in enumerate(excess) if more > 0.0]
        if wrong:
            i = max(wrong, key=lambda i: gaps[i])
            has, level, where = made.calls[i].level(begin), asked[i], f"in {n} steps call {i + 1} of {len(gaps)}"
            asks = f"asks at label {made.calls[i].label:g}, level {level.sigma:.6g}, in a state of level {has.sigma:.6g}"
            yield "level", f"{where} {asks} (scale {np.hypot(*has) / np.hypot(*level):.6g}); {len(wrong)} such calls"
            return


def _wasted(traces: dict[int, Trace]) -> Found:
    """Calls whose answer does not reach the result, and questions asked twice."""
    for n, made in traces.items():
        sizes = np.max(np.abs(made.influence[:, SPREAD]), axis=1, initial=0.0)
        idle = np.flatnonzero(sizes <= 1e-12 * np.max(sizes, initial=0.0)) + 1
        if made.finite and len(idle):
            still = idle[-1] == len(sizes) and np.allclose(made.calls[-1].state[1], made.A, rtol=1e-12)
            end = "; the last step moves nothing" if still else ""
            yield "wasted call", f"of {len(sizes)} calls in {n} steps the answer to number {', '.join(map(str, idle))} does not reach the result{end}"
            return
        asked: dict[float, list[int]] = {}
        for j, call in enumerate(made.calls):
            twins = asked.setdefault(call.label, [])
            twin = next((i for i in twins if made.calls[i].same(call)), None)
            if twin is not None:
                yield "repeated call", f"calls {twin + 1} and {j + 1} in {n} steps ask the same in the same state, at label {call.label:g}"
                return
            twins.append(j)


def _counted(traces: dict[int, Trace], nfe: Callable[[int], int] | None) -> Found:
    for n, made in traces.items():
        if nfe is not None and len(made.calls) != nfe(n):
            yield "calls", f"{len(made.calls)} model calls in {n} steps, claimed {nfe(n)}"
            return


def _started(sampler: _Sampler, traces: dict[int, Trace], priors: dict[int, float]) -> Found:
    """A start with a spread that no data variance from 0 to 4 would give at the first level."""
    for n in traces if priors else ():
        a, s = sampler.span(n)[0]
        if not 0.999 * s <= priors[n] <= 1.001 * np.hypot(2.0 * a, s):
            yield "start", f"{n} steps start with standard deviation {priors[n]:.6g} at level {s:.6g} (signal {a:.6g})"
            return


def _refuted(report: OrderReport) -> bool:
    """Settled below the claim, or not settled and far below it throughout."""
    return report.verdict == "refuted" or (report.claimed is not None and report.interval[1] < report.claimed - 0.5)


@np.errstate(all="ignore")
def audit(
    step_function: Callable[..., Any],
    *,
    span: Callable[[int], tuple[Level, Level]],
    levels: Callable[[float, int], Level] = _sigma,
    predicts: Sequence[str] = ("x0",),
    claimed: float | None = None,
    nfe: Callable[[int], int] | None = None,
    exact_transfer: bool = False,
    resolution: Callable[[float], float] = _exactly,
    prior: Callable[[int], float] | None = None,
    steps: Sequence[int] = (8, 16, 32, 64, 128, 256),
    name: str = "sampler",
    line: str = "",
) -> AuditReport:
    r"""Audit somebody else's sampler as a black box on normal data: exact law, true order, model calls, faults.

    The error behind the order is that of the sampler's exact map against the exact probability flow,
    :math:`x \mapsto a' m + \sqrt{(a'^2 c + s'^2)/(a^2 c + s^2)}\,(x - a m)` for data N(m, c), relative, the worst of four variances; if
    normals are drawn, of its exact mean and variance against the true marginal.  Give a smooth grid that ends above the data: rounded labels,
    lower-order last steps and the step to the data hide orders, and so does a first step of order 1 in multistep methods, unless it is finer.

    Parameters
    ----------
    step_function : callable (start, model, n, draw) -> states
        Runs ``n`` steps from states ``start`` (rows, 5), float64; asks ``model(x, label)`` and calls ``draw()`` for each array of normals it
        needs; may reshape each row and change libraries, never mix rows.  ``model.kind`` says what the model answers.
    span : callable n -> (Level, Level)
        Levels ``(a, s)`` of the state at start and end.
    levels : callable (label, n) -> Level
        What the label means to the model; by default it is sigma of a state ``x0 + sigma eps``.
    predicts : sequence of {"x0", "eps", "v"}
        Kinds of model that the sampler can use; the same model in each kind must give the same samples.
    claimed : float, optional
        Claimed order; a lower one is a fault if it has settled, or if the last slopes are all lower by more than a half.
    nfe : callable n -> int, optional
        Claimed model calls.
    exact_transfer : bool
        Whether signal and noise are transferred exactly, as all samplers in sigma or log signal-to-noise do; then every call at a wrong level
        is found, else only those that are not explained by discretisation.
    resolution : callable label -> float, optional
        Half the distance of neighbouring labels in log level: a state may be that far from its label.
    prior : callable n -> float, optional
        Standard deviation of the start in use; the true marginal at the first level if absent.
    steps : sequence of int
    name, line : str
        For the report: the sampler's name, and the code that runs this audit.

    Returns
    -------
    AuditReport

    Raises
    ------
    BadInput
        For unknown kinds or steps, or a sampler that returns or asks with other shapes.
    """
    if not predicts or set(predicts) - set(KINDS):
        raise unknown("kind of model", next(iter(set(predicts) - set(KINDS)), ""), KINDS)
    counts = sorted({whole("steps", n) for n in steps})
    sampler = _Sampler(step_function, cache(span), levels, resolution, exact_transfer, name)
    found: list[tuple[str, str]] = []

    def runs(kind: str, counts: Sequence[int]) -> dict[int, Trace]:
        made: dict[int, Trace] = {}
        failed: dict[str, list[int]] = {}
        for n in counts:
            try:
                made[n] = sampler.trace(n, kind)
            except BadInput:
                raise
            except Exception as error:  # whatever a foreign sampler raises is a finding
                failed.setdefault(f"{type(error).__name__}: {error}", []).append(n)
        found.extend(("raises", f"{what} (in {', '.join(map(str, where))} steps, model of kind {kind})") for what, where in failed.items())
        return made

    traces = runs(predicts[0], counts)
    priors = {} if prior is None else {n: prior(n) for n in traces}
    orders = [sampler.order(predicts[0], traces, claimed)] if traces else []
    for check in (_unsound(traces), _misplaced(sampler, traces), _wasted(traces), _counted(traces, nfe), _started(sampler, traces, priors)):
        found.extend(check)
    for kind in predicts[1:]:
        for n, other in runs(kind, list(traces)[:1]).items():
            gap = traces[n].distance(other)
            if gap > _SAME:
                found.append(("prediction kind", f"samples with a model of kind {kind} differ from those of {predicts[0]} by {gap:.1e} in {n} steps"))
                orders.append(sampler.order(kind, runs(kind, counts), claimed))
    found.extend(("order", f"claimed {o.claimed:g}, measured {o.order:.2f} ({o.kind})") for o in orders if _refuted(o))
    outcomes = tuple(sampler.outcome(n, made, priors.get(n)) for n, made in traces.items())
    return AuditReport(name, claimed, tuple(orders), outcomes, tuple(Fault(kind, says, line) for kind, says in found))
