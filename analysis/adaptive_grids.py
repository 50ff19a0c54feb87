r"""Adaptive runs without sampling: the grid that a control takes in the limit of many elements, and the exact law of a frozen grid.

In the limit ``d -> infinity`` the error of a step is no longer random: its square is an expectation over the joint normal law of the state,
the result before and the step's normals, element by element.  So the whole run is a deterministic recursion: steps, rejections, calls, and with the
grid the exact law of the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..control import Control, Controller
from ..errors import BadInput, whole
from ..grids import Grid, times
from ..law import Gaussian
from ..methods import Method
from ..modes import Basis, Spectral, eigen, pixels
from ..modes.laws import diagonal
from ..pairs import ends
from ..process import Process
from ..reverse import Reverse
from ..tableau import Rows, Step
from .adaptivity import tolerance_slope
from .affine import Normal
from .exact import ExactLaw, exact_law, marginal

Array = NDArray[np.float64]

__all__ = ["MeanField", "Proportionality", "embedded", "frozen_law", "mean_field", "proportionality"]

_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)
_CLOSE = 1e-6  # a remaining time below this part of T is none
_FAR = 8.5  # standard deviations


def frozen_law(process: Process, accepted: ArrayLike, method: Method, data: Gaussian, start: Any = None) -> ExactLaw:
    """The exact law of ``method`` on the grid that an adaptive run took, against the exact law of the state at its last time.

    What depends on how grid and noise go together is not seen: exact in the limit of many elements.

    Parameters
    ----------
    process : Process
        One block.
    accepted : decreasing sequence of float
        Accepted times, above 0.
    method : Method
        What was propagated: that of the control, or its :func:`embedded` one without extrapolation.
    data : Gaussian
    start : None, "stationary" or Gaussian
        As for :func:`sdekit.sample`.

    Returns
    -------
    ExactLaw
        Its ``data`` is the exact law at the last time.

    Raises
    ------
    BadInput
        For a process of several blocks, or a grid that ends at time 0.
    """
    grid = np.asarray(accepted, float)
    if process.k > 1 or grid[-1] <= 0.0:
        raise BadInput("frozen_law compares states of one block at a last time above 0; use exact_law for other runs")
    kernel = process.kernel(float(grid[-1]))
    psi, variance = float(kernel.psi[0]), float(kernel.cov[0, 0])
    if data.basis is None:
        there = Gaussian(psi * data.mean, psi**2 * data.variances.reshape(data.shape) + variance)
    else:
        there = Gaussian(psi * data.mean, psi**2 * data.matrix + variance * np.eye(data.mean.size))
    return exact_law(process, method=method, grid=times(grid.tolist()), data=there, model=data, start=start)


def embedded(method: Method) -> Method:
    """The method whose result is the embedded one of ``method``: what a run without extrapolation propagates.

    Raises
    ------
    BadInput
        When its rows are asked for, if ``method`` has none.
    """

    def table(step: Step) -> Rows:
        made = method.rows(step)
        if made.embedded is None:
            raise BadInput(f"{method} has no embedded result")
        return replace(made, out=made.embedded)

    return Method(f"embedded result of {method}", table, noise=method.noise, asks=method.asks)


# ---------------------------------------------------------------------------------------------------------------- the pair of one step


@dataclass(frozen=True)
class _Form:
    """A quantity of each mode as a linear form in (state, other result before, normals), and its mean: arrays (2 + noises, d), (d,)."""

    weights: Array
    mean: Array

    def minus(self, other: _Form) -> _Form:
        return _Form(self.weights - other.weights, self.mean - other.mean)


class _Modes:
    """Means and joint variances of the state and of the other result before, mode by mode."""

    def __init__(self, process: Process, method: Method, law: Gaussian, first: Normal) -> None:
        self.process, self.method, self.law = process, method, law
        self.mean = np.stack([first.mean[0], first.mean[0]])
        self.cov = np.broadcast_to(np.sum(first.factor[0] ** 2, axis=0), (2, 2, len(law.mean)))

    def pair(self, t: float, s: float) -> tuple[_Form, _Form]:
        """The method's result and the embedded one of the step from ``t`` to ``s``."""
        rows = self.method.rows(Step(Reverse(self.process, self.method.noise).leg(np.array([t, s])), 0))
        if rows.embedded is None:
            raise BadInput(f"{self.method} has no embedded result")
        variances, known = self.law.variances, 1 + rows.noises
        registers = [np.broadcast_to(unit[:, None], (known + 1, len(variances))) for unit in np.eye(known, known + 1)]

        def mixed(row: Array) -> Array:
            return np.asarray(sum(c * r for c, r in zip(row, registers, strict=False)))

        for ask in rows.asks:
            keep = variances / (variances + ask.level**2)
            answer = keep * mixed(ask.argument[0])
            answer[-1] += (1.0 - keep) * self.law.mean
            registers.append(answer)

        def form(row: Array) -> _Form:
            made = mixed(row)
            return _Form(np.insert(made[:-1], 1, 0.0, axis=0), made[0] * self.mean[0] + made[-1])

        return form(rows.out[0]), form(rows.embedded[0])

    @property
    def before(self) -> _Form:
        """The other result of the step before."""
        return _Form(np.repeat([[0.0], [1.0]], self.mean.shape[1], axis=1), self.mean[1])

    def products(self, forms: Sequence[_Form]) -> Array:
        """Covariances of ``forms``, (n, n, d)."""
        size = max(len(f.weights) for f in forms)
        w = np.stack([np.pad(f.weights, ((0, size - len(f.weights)), (0, 0))) for f in forms])
        return np.asarray(np.einsum("aid,ijd,bjd->abd", w[:, :2], self.cov, w[:, :2]) + np.einsum("aid,bid->abd", w[:, 2:], w[:, 2:]))

    def move(self, new: _Form, other: _Form) -> None:
        """Accept a step."""
        self.cov, self.mean = self.products([new, other]), np.stack([new.mean, other.mean])


class _Elements:
    """Some elements of the data as mixtures of its modes."""

    def __init__(self, basis: Basis, most: int) -> None:
        d = int(np.prod(basis.shape))
        chosen = np.unique(((np.arange(most) + 0.5) * d / most).astype(np.int64)) if most < d else np.arange(d)
        unit = (np.arange(d) == chosen[:, None]).astype(float)
        self.plain = all(U is None for U in basis.factors)
        self.rows = np.empty((0, d)) if self.plain else np.asarray(basis.flat.forward(unit))

    def of(self, values: Array, power: int) -> Array:
        """Means (power 1) or covariances (power 2) of the elements, from those of the modes."""
        return values if self.plain else np.asarray(values @ (self.rows**power).T)


def _lattice(n: int) -> Array:
    """``n`` points of a golden lattice in the unit square."""
    i = np.arange(n) + 0.5
    return np.asarray(np.stack([i / n, (i * _GOLDEN) % 1.0]))


@dataclass(frozen=True, eq=False)
class _Error:
    """The error of a step in the limit."""

    control: Control
    elements: _Elements
    count: Array
    points: Array

    def __call__(self, modes: _Modes, forms: Sequence[_Form]) -> float:
        """From the two results that the tolerance knows, and their difference from the other result."""
        control = self.control
        cov, mean = self.elements.of(modes.products(forms), 2), self.elements.of(np.stack([form.mean for form in forms]), 1)
        own = np.sqrt(cov[0, 0])
        gain = cov[0, 1] / own
        rest = np.sqrt(np.maximum(cov[1, 1] - gain**2, 0.0))
        a = cov[0, 2] / own
        b = np.divide(cov[1, 2] - gain * a, rest, out=np.zeros_like(rest), where=rest > 1e-9 * own)
        left = np.maximum(cov[2, 2] - a**2 - b**2, 0.0)
        x, u, weight = self._sizes(mean[0], own)
        size = np.abs(x)
        v = self._normals
        if control.previous:
            size = np.maximum(size, np.abs(mean[1] + gain * u + rest * v))
        square = ((mean[2] + a * u + b * v) ** 2 + left) / np.maximum(control.atol, control.rtol * size) ** 2
        return float(np.sqrt(np.average(np.sum(weight * square, axis=0), weights=self.count)))

    @cached_property
    def _normals(self) -> Array:
        from scipy.special import ndtri

        return np.asarray(ndtri(self.points[1])[:, None])

    def _sizes(self, mean: Array, own: Array) -> tuple[Array, Array, Array]:
        """Nodes of a normal variable, (n, m), what they are in standard deviations, and their weights: dense about 0, where sizes are divided by."""
        near = self.control.atol / max(self.control.rtol, 1e-12)
        low, high = (np.arcsinh((mean + side * _FAR * own) / near) for side in (-1.0, 1.0))
        y = low + (high - low) * self.points[0][:, None]
        x = near * np.sinh(y)
        u = (x - mean) / own
        density = np.exp(-0.5 * u * u) * np.cosh(y) * (high - low) * near / own
        return x, u, density / np.sum(density, axis=0)


# ---------------------------------------------------------------------------------------------------------------- the run


@dataclass(frozen=True, eq=False)
class MeanField:
    """The run of a control in the limit of many elements.

    Attributes
    ----------
    times : array
        Accepted times, first and last included.
    errors : array
        Of the accepted steps.
    rejected : int
    nfe : int
        Model calls, without that of a denoising end.
    law : ExactLaw
        The exact law of the modes on that grid, against the exact law at its last time.
    """

    times: Array
    errors: Array
    rejected: int
    nfe: int
    law: ExactLaw

    @property
    def w2(self) -> float:
        """W2 at the last time, root mean square over the elements."""
        return self.law.w2 / float(np.sqrt(self.law.data.mean.size))


@dataclass
class _Memory:
    """What the controller looks back at."""

    depth: int
    errors: list[float]
    ratios: list[float]
    length: float = float("nan")

    def factor(self, controller: Controller, error: float, h: float, accepted: bool) -> float:
        """The factor of the next step."""
        if accepted:
            self.ratios = [h / self.length if self.length > 0.0 else 1.0, *self.ratios][: self.depth]
            self.length = h
        seen = np.array([error, *self.errors])[: self.depth, None]
        if accepted:
            self.errors = [error, *self.errors]
        return float(controller.factor(seen, np.array(self.ratios)[:, None], np.array([accepted]))[0])


def mean_field(
    process: Process,
    control: Control,
    data: Gaussian | Spectral,
    *,
    grid: Grid | None = None,
    start: Gaussian | Spectral | None = None,
    elements: int = 16,
    points: int = 4096,
) -> MeanField:
    r"""The grid, calls and exact law of an adaptive run for ``d -> infinity``, without sampling.

    .. math:: E^2 = \frac1d \sum_i \mathbb E\, \frac{(z''_i - z'_i)^2}{\max(a, r \max(|z'_i|, |z'_{prev,i}|))^2},

    each a normal integral in the two sizes, with the third variable in closed form.  In ``d`` independent elements the error differs from
    this by about :math:`(2d)^{-1/2}`; where a few modes hold most of the variance samples keep apart by some percent.  That an accepted step has
    seen its own noise is neglected.

    Parameters
    ----------
    process : Process
        One block.
    control : Control
        With the norm ``"rms"`` and the estimate ``"strong"``.
    data : Gaussian or Spectral
        In the elements that the control sees.
    grid : Grid, optional
        Its first and last time are used; when absent those of :func:`sdekit.sample`.
    start : Gaussian or Spectral, optional
        As for :func:`sdekit.sample`: the run starts from its exact marginal instead of the prior.
    elements, points : int
        Elements of a law with a basis, evenly spaced, and nodes of the integral.

    Raises
    ------
    BadInput
        For a control or process whose limit is not known, or a run of more calls than the control allows.
    """
    if process.k > 1 or (control.norm, control.estimate, control.scale) != ("rms", "strong", "element") or control.method.history:
        raise BadInput("the limit is known for one block, one-step methods, norm='rms', scale='element' and estimate='strong'")
    begin, end = ends(process) if grid is None else (float(v) for v in np.asarray(grid.times(process))[[0, -1]])
    basis = data.basis if isinstance(data, Spectral) else pixels(data.shape) if data.basis is None else eigen(data.basis, data.shape)
    law = diagonal(data, basis)
    origin = Gaussian(np.zeros(law.shape), 0.0) if start is None else diagonal(start, basis)
    part = _Elements(basis, whole("elements", elements))
    modes, count = _begin(process, control.method, law, marginal(process, begin, origin.mean, np.broadcast_to(origin.variances, law.shape)), part)
    accepted, errors, rejected, calls = _run(control, modes, begin, end, _Error(control, part, count, _lattice(whole("points", points))))
    method = control.method if control.extrapolate else embedded(control.method)
    made = frozen_law(process, accepted, method, law, None if start is None else origin)
    return MeanField(np.array(accepted), np.array(errors), rejected, calls, made)


def _begin(process: Process, method: Method, law: Gaussian, first: Normal, part: _Elements) -> tuple[_Modes, Array]:
    """The modes at the first time, and how many elements are like each; modes that are elements and alike come once."""
    if not part.plain:
        return _Modes(process, method, law, first), np.ones(len(part.rows))
    kinds = np.stack([law.mean, law.variances, first.mean[0], np.sum(first.factor[0] ** 2, axis=0)])
    _, index, count = np.unique(kinds, axis=1, return_index=True, return_counts=True)
    small = Gaussian(law.mean[index], law.variances[index])
    return _Modes(process, method, small, Normal(first.mean[:, index], first.factor[..., index])), count.astype(float)


def _run(control: Control, modes: _Modes, t: float, end: float, measure: _Error) -> tuple[list[float], list[float], int, int]:
    """Accepted times and errors, rejections and calls."""
    depth, T = control.controller.depth, modes.process.T
    memory = _Memory(depth, [float("nan")] * depth, [1.0] * depth)
    accepted, errors, rejected, calls = [t], [], 0, 0
    h, again = min(control.h_init * T, t - end), False
    while t - end > _CLOSE * T:
        result, second = modes.pair(t, t - h)
        new, other = (result, second) if control.extrapolate else (second, result)
        seen = _Form(other.weights[:2], other.mean) if control.noiseless else other
        error = measure(modes, [seen, modes.before, result.minus(second)])
        good = error <= 1.0 or not control.reject
        calls += control.method.asks - int(control.reuse and again)
        if calls > control.nfe:
            raise BadInput(f"the run takes more than nfe = {control.nfe} calls: give looser tolerances, or a larger nfe")
        if good:
            modes.move(new, seen)
            t -= h
            accepted.append(t)
            errors.append(error)
        rejected, again = rejected + (not good), not good
        h = min(t - end, h * memory.factor(control.controller, error, h, good))
    accepted[-1] = end
    return accepted, errors, rejected, calls


# ---------------------------------------------------------------------------------------------------------------- proportionality


@dataclass(frozen=True, eq=False)
class Proportionality:
    """Calls and errors of a control over tolerances, in the limit of many elements.

    Attributes
    ----------
    rtol, nfe, w2 : arrays
    error_slope, call_slope : (float, float)
        Slopes of log W2 and log NFE against log rtol, with their standard errors; an error proportional to the tolerance has slope 1.
    """

    rtol: Array
    nfe: NDArray[np.int64]
    w2: Array
    error_slope: tuple[float, float]
    call_slope: tuple[float, float]


def proportionality(
    process: Process, control: Control, data: Gaussian | Spectral, rtol: Sequence[float] = (0.005, 0.01, 0.02, 0.05, 0.1), **options: Any
) -> Proportionality:
    """:func:`mean_field` over tolerances.

    Parameters
    ----------
    process, control, data, **options
        As for :func:`mean_field`; ``atol`` stays as it is.
    rtol : sequence of float
        At least three.
    """
    runs = [mean_field(process, replace(control, rtol=r), data, **options) for r in rtol]
    nfe, w2 = np.array([run.nfe for run in runs]), np.array([run.w2 for run in runs])
    return Proportionality(np.array(rtol), nfe, w2, tolerance_slope(rtol, w2), tolerance_slope(rtol, nfe))
