"""Measured order of convergence: successive slopes of an exact error, and a verdict on the method's claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..denoiser import score
from ..errors import BadInput, unknown
from ..grids import Grid, logsnr
from ..kernel import solve_lower, triangular
from ..law import Gaussian, Law, Mixture
from ..methods import Method
from ..plans import Plan
from ..process import Process
from ..solve import program, solve
from .exact import probe, reverse_transition

Array = NDArray[np.float64]

__all__ = ["OrderReport", "order"]

_FLOOR = 3e-12  # relative error below which rounding speaks
_SETTLED = 0.1


@dataclass(frozen=True, eq=False)
class OrderReport:
    """What an order measurement found.

    Attributes
    ----------
    method, process : str
    kind : {"ode", "exact_start", "weak", "path"}
        Error of the map, of the map from exact start values, of mean and covariance, or of paths on a mixture.
    steps, errors : arrays
        Numbers of steps and the relative error at each.
    slopes : array
        Between neighbours; not-a-number where rounding has taken over.
    order : float
        The slope at the finest two levels above rounding.
    interval : (float, float)
        Range of the last three slopes: how well the slope has settled (the errors are exact; nothing here is sampled).
    window : (float, float)
        Levels ``sigma_eff`` at the start and end of the grid.
    claimed : float or None
    verdict : {"confirmed", "exceeded", "refuted", "unsettled", "no claim"}
        ``exceeded``: settled at more than the claim, or above it throughout.
    """

    method: str
    process: str
    kind: str
    steps: NDArray[np.int64]
    errors: Array
    slopes: Array
    order: float
    interval: tuple[float, float]
    window: tuple[float, float]
    claimed: float | None
    verdict: str

    def __str__(self) -> str:
        claim = "no claim" if self.claimed is None else f"claimed {self.claimed:g}"
        low, high = self.interval
        return f"{self.method} on {self.process}: {self.kind} order {self.order:.3f} in [{low:.3f}, {high:.3f}], {claim}: {self.verdict}"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("steps", "error", "slope"))
        slopes = ["", *(f"{s:.3f}" for s in self.slopes)]
        body = "".join(f"<tr><td>{n}</td><td>{e:.3e}</td><td>{s}</td></tr>" for n, e, s in zip(self.steps, self.errors, slopes, strict=True))
        return f"<p>{self}</p><table><tr>{head}</tr>{body}</table>"


def order(
    method: Method,
    process: Process,
    *,
    data: Gaussian | Mixture | None = None,
    grid: Grid | Callable[[int], Grid] | None = None,
    start: str = "cold",
    steps: Sequence[int] = (10, 20, 40, 80, 160, 320, 640),
) -> OrderReport:
    r"""Measure the order of convergence of ``method`` on ``process``.

    For Gaussian data the error is that of the sampler's exact map (ODE), or of its exact mean and covariance (noise), against the exact
    reverse equation, whitened by the true marginals; no sampling.  For a mixture (ODE only) it is the error of 64 paths against a reference
    flow computed by an independent integrator (DOP853 at 1e-12).

    Parameters
    ----------
    method : Method
    process : Process
    data : Gaussian or Mixture, optional
        Default: four variances at once (0.04, 0.25, 1, 4) around mean 0.3; the worst counts.
    grid : callable n -> Grid, or a Grid with an attribute ``n``, optional
        Default: uniform in log level from 5 (or what the process has) to 0.1: an interior window.
    start : {"cold", "exact"}
        ``exact`` gives multistep methods exact past values.
    steps : sequence of int
        Increasing; slopes are taken between neighbours.

    Returns
    -------
    OrderReport

    Raises
    ------
    BadInput
        For a grid that ends at the data (the end step is of first order and would hide the rest), or a mixture with noise.
    """
    if start not in ("cold", "exact"):
        raise unknown("start", start, ["cold", "exact"])
    law = Gaussian([0.3] * 4, [0.04, 0.25, 1.0, 4.0]) if data is None else data
    make = _family(grid, process)
    counts = np.array(sorted(steps))
    if isinstance(law, Mixture):
        if method.noisy:
            raise BadInput("a mixture has no exact law under noise: measure weak orders on Gaussian data, or noise=0 on the mixture")
        error, kind, claimed = _path_error(process, law), "path", _claim(method, process)
    elif method.noisy:
        error, kind, claimed = _law_error(process, law), "weak", method.orders.weak
    else:
        error, kind, claimed = _map_error(process, law, start), "ode", _claim(method, process)
    if start == "exact":
        if kind != "ode":
            raise BadInput("start='exact' needs Gaussian data and a method without noise")
        kind, claimed = "exact_start", method.orders.exact_start
    errors, window = [], (0.0, 0.0)
    for n in counts:
        times = make(int(n)).times(process)
        if times[-1] == 0.0:
            raise BadInput("the grid ends at the data, by a step of first order; measure orders on a grid that ends above time 0")
        levels = process.sigma_eff(times[[0, -1]])
        window = (float(levels[0]), float(levels[1]))
        errors.append(error(Plan(make(int(n)), method)))
    return judge(method.name, process.name, kind, counts, np.array(errors), window, claimed)


def _claim(method: Method, process: Process) -> float | None:
    one = method.orders.one_block
    return method.orders.ode if one is None or process.k > 1 else one


def judge(
    method: str, process: str, kind: str, steps: NDArray[np.int64], errors: Array, window: tuple[float, float], claimed: float | None
) -> OrderReport:
    """Slopes between neighbours and the verdict on a claim, from exact errors."""
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.log(errors[:-1] / errors[1:]) / np.log(steps[1:] / steps[:-1])
    slopes = np.where(errors[1:] > _FLOOR, slopes, np.nan)
    good = slopes[np.isfinite(slopes)]
    if len(good) < 2:
        return OrderReport(method, process, kind, steps, errors, slopes, np.nan, (np.nan, np.nan), window, claimed, "unsettled")
    last, tail = float(good[-1]), good[-3:]
    interval = (float(np.min(tail)), float(np.max(tail)))
    settled = abs(good[-1] - good[-2]) <= _SETTLED and interval[1] - interval[0] <= 2.5 * _SETTLED
    if claimed is None:
        verdict = "no claim"
    elif interval[0] > claimed + _SETTLED:
        verdict = "exceeded"
    elif settled and abs(last - claimed) <= _SETTLED:
        verdict = "confirmed"
    elif settled:
        verdict = "refuted" if last < claimed else "exceeded"
    else:
        verdict = "unsettled"
    return OrderReport(method, process, kind, steps, errors, slopes, last, interval, window, claimed, verdict)


def _family(grid: Any, process: Process) -> Callable[[int], Grid]:
    if grid is None:
        top = min(5.0, 0.999 * float(process.sigma_eff(process.T)))
        return lambda n: logsnr(n, 0.1, top)
    if is_dataclass(grid) and "n" in {f.name for f in fields(grid)}:
        refine: Callable[..., Grid] = replace
        return lambda n: refine(grid, n=n)
    if not callable(grid):
        raise BadInput(f"grid = {grid!r} has no number of steps to refine; give a function of n")
    made: Callable[[int], Grid] = grid
    return made


def _roots(process: Process, t: float, variances: Array) -> Array:
    """Lower factors of the true marginal covariance of each mode, (d, k, k)."""
    kernel = process.kernel(t)
    column = np.sqrt(variances)[:, None, None] * kernel.psi[:, None]
    return triangular(np.concatenate([np.broadcast_to(kernel.chol, (len(variances), *kernel.chol.shape)), column], axis=-1))


def _modes(law: Gaussian) -> tuple[Array, Array]:
    mean = law.mean.reshape(-1)
    return (mean if law.basis is None else mean @ law.basis), law.variances


def _map_error(process: Process, law: Gaussian, start: str) -> Callable[[Plan], float]:
    mean, variances = _modes(law)

    def error(plan: Plan) -> float:
        prog = program(process, plan)
        times = prog.times
        exact = reverse_transition(process, 0.0, times[-1], times[0], mean, variances)
        replaced = None
        if start == "exact":
            first = max((i for i, item in enumerate(prog.items) if item.fresh), default=0)
            warm = first + plan.method.history
            replaced = {}
            for i in range(1, min(warm, len(times) - 2) + 1):
                part = reverse_transition(process, 0.0, times[i], times[0], mean, variances)
                replaced[i] = np.concatenate([part.matrix, part.offset[:, None]], axis=1)
        found = probe(prog, mean, variances, replaced)
        low, high = _roots(process, times[-1], variances), _roots(process, times[0], variances)
        gap = np.moveaxis(found.matrix - exact.matrix, -1, 0) @ high
        shift = np.moveaxis(found.offset - exact.offset, -1, 0)[..., None]
        return float(np.max(np.linalg.norm(solve_lower(low, np.concatenate([gap, shift], axis=-1)), axis=(-2, -1))))

    return error


def _law_error(process: Process, law: Gaussian) -> Callable[[Plan], float]:
    mean, variances = _modes(law)

    def error(plan: Plan) -> float:
        prog = program(process, plan)
        times = prog.times
        exact = reverse_transition(process, plan.method.noise, times[-1], times[0], mean, variances)
        found = probe(prog, mean, variances)
        low, high = _roots(process, times[-1], variances), _roots(process, times[0], variances)
        A, N = np.moveaxis(found.matrix, -1, 0), np.moveaxis(found.noise, -1, 0)
        whole = solve_lower(low, np.concatenate([A @ high, N], axis=-1))
        covariance = whole @ np.swapaxes(whole, -1, -2) - np.eye(process.k)
        gap = solve_lower(low, (A - np.moveaxis(exact.matrix, -1, 0)) @ high)
        shift = solve_lower(low, np.moveaxis(found.offset - exact.offset, -1, 0)[..., None])
        return float(np.max([np.max(np.linalg.norm(part, axis=(-2, -1))) for part in (covariance, gap, shift)]))

    return error


def reference_flow(process: Process, denoise: Any, start: Array, t: float, s: float) -> Array:
    """The probability-flow ODE from the state ``start`` (k, n, *shape) at ``t`` down to ``s > 0``, by DOP853 in ``log t`` to 12 digits."""
    from scipy.integrate import solve_ivp

    def slope(log_t: float, flat: Array) -> Array:
        now = float(np.exp(log_t))
        z, G = flat.reshape(start.shape), process.noise(now)
        drift = np.tensordot(process.drift(now), z, axes=1) - 0.5 * np.tensordot(G @ G.T, score(process, denoise, z, now), axes=1)
        return np.asarray(now * drift.ravel())

    made = solve_ivp(slope, np.log([t, s]), start.ravel(), method="DOP853", rtol=1e-12, atol=1e-13)
    return np.asarray(made.y[:, -1].reshape(start.shape))


def start_states(process: Process, law: Law, t: float, paths: int) -> Array:
    """States at ``t`` from the exact marginal of the law, always the same, (k, paths, *shape)."""
    x0 = law.sample(paths, seed=1)
    return process.kernel(t).sample(x0, np.random.default_rng(0).standard_normal((process.k, *x0.shape)))


def _path_error(process: Process, law: Mixture, paths: int = 64) -> Callable[[Plan], float]:
    reference: dict[tuple[float, float], tuple[Array, Array]] = {}
    denoise = law.denoiser()

    def error(plan: Plan) -> float:
        prog = program(process, plan)
        ends = (float(prog.times[0]), float(prog.times[-1]))
        near = next((key for key in reference if np.allclose(key, ends, rtol=1e-12, atol=0.0)), ends)
        if near not in reference:
            begin = start_states(process, law, ends[0], paths)
            reference[near] = begin, reference_flow(process, denoise, begin, *ends)
        start, exact = reference[near]
        found, _ = solve(prog, list(start), denoise)
        scale = np.sqrt(np.mean(exact**2, axis=tuple(range(1, exact.ndim)), keepdims=True))
        return float(np.max(np.abs(np.stack(found) - exact) / scale))

    return error
