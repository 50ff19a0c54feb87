r"""Grids: recipes for decreasing times, laid in the noise level :math:`\sigma_{eff}` or in time, resolved by ``grid.times(process)``.

``n`` is always the number of steps.  Time 0 is the data: a grid that ends there denoises in its last step, one that ends above does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import BadInput, finite, positive, unknown, whole
from .process import Process

Array = NDArray[np.float64]

_FIRST = 1e-5  # where a process that starts with noise (ve) is left for the data, in units of T

_PANELS = 64  # fewest intervals of the quadrature of a bent grid
_STEEPEST = 50.0
_VP_ENDS = float(np.sqrt(np.expm1(1.0995e-4))), float(np.sqrt(np.expm1(10.05)))  # levels of the usual linear VP process at times 0.001 and 1
_AYS = {
    "sd": (14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904, 0.6523686016, 0.3977456272,
           0.1515232662, 0.0291671582),
    "sdxl": (14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289, 0.3798540708, 0.2332364134,
             0.1114188177, 0.0291671582),
    "svd": (700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}  # fmt: skip

__all__ = [
    "Grid", "arctan", "ays", "bent", "beta", "cosine", "karras", "logsnr", "polyexponential", "quadratic", "sigmas", "times", "uniform", "vp",
]  # fmt: skip


@runtime_checkable
class Grid(Protocol):
    """Anything with ``times(process)``: strictly decreasing times in [0, T], at least two."""

    def times(self, process: Process) -> Array:
        """The times on ``process``."""
        ...


def _decreasing(what: str, values: ArrayLike) -> Array:
    try:
        array = np.array(values, dtype=float)
    except (TypeError, ValueError):
        raise BadInput(f"{what} = {values!r} must be numbers") from None
    if array.ndim != 1 or len(array) < 2 or not np.all(np.isfinite(array)):
        raise BadInput(f"{what} must be a list of at least two finite numbers, got {values!r}")
    rising = np.flatnonzero(np.diff(array) >= 0.0)
    if len(rising):
        i = int(rising[0])
        raise BadInput(f"{what} must decrease strictly: {what}[{i}] = {array[i]:g}, {what}[{i + 1}] = {array[i + 1]:g}; sort them from noise to data")
    if array[-1] < 0.0:
        raise BadInput(f"{what} must be nonnegative, got {array[-1]:g}")
    return array


Rule = Callable[..., Array]
Shape = float | str | tuple[float, ...]


def _uniform(u: Array, low: float, high: float) -> Array:
    return np.asarray(np.exp(np.log(high) + u * np.log(low / high)))


def _karras(u: Array, low: float, high: float, rho: float) -> Array:
    top, bottom = high ** (1.0 / rho), low ** (1.0 / rho)
    return np.asarray((top + u * (bottom - top)) ** rho)


def _polyexponential(u: Array, low: float, high: float, rho: float) -> Array:
    return np.asarray(low * (high / low) ** ((1.0 - u) ** rho))


def _arctan(u: Array, low: float, high: float, scale: float) -> Array:
    top, bottom = np.arctan(high / scale), np.arctan(low / scale)
    return np.asarray(scale * np.tan(top + u * (bottom - top)))


def _beta(u: Array, low: float, high: float, alpha: float, beta: float) -> Array:
    from scipy.special import betaincinv

    return np.asarray(low + (high - low) * betaincinv(alpha, beta, 1.0 - u))


def _vp(u: Array, low: float, high: float, beta_min: float, beta_max: float) -> Array:
    growth = beta_max - beta_min
    stretch = np.log1p(np.array([high, low]) ** 2)
    top, bottom = 2.0 * stretch / (np.sqrt(beta_min**2 + 2.0 * growth * stretch) + beta_min)
    t = top + u * (bottom - top)
    return np.asarray(np.sqrt(np.expm1(0.5 * growth * t**2 + beta_min * t)))


def _bent(u: Array, low: float, high: float, bends: tuple[float, ...]) -> Array:
    from numpy.polynomial.legendre import legval

    pieces = -(-_PANELS // (len(u) - 1))
    edges = np.interp(np.arange((len(u) - 1) * pieces + 1) / pieces, np.arange(len(u)), u)
    nodes, weights = np.polynomial.legendre.leggauss(4)
    half = 0.5 * np.diff(edges)
    speed = np.exp(legval(2.0 * (edges[:-1, None] + half[:, None] * (1.0 + nodes)) - 1.0, [0.0, *bends]))
    way = np.append(0.0, np.cumsum(half * (speed @ weights)))[::pieces]
    return _uniform(way / way[-1], low, high)


def _ays(u: Array, low: float, high: float, table: str, end: bool) -> Array:
    whole_way = 10.0 * (len(u) - 1) / len(u) if end else 10.0  # the table's last level gives way to the data
    made = np.interp(whole_way * u, np.arange(11), np.log(_AYS[table]))
    return _uniform((made - made[0]) / (made[-1] - made[0]), low, high)


def _quadratic(u: Array) -> Array:
    return np.asarray((1.0 - u) ** 2)


def _straight(u: Array) -> Array:
    return 1.0 - u


def _cosine(u: Array) -> Array:
    return np.asarray(np.cos(0.5 * np.pi * u))


@dataclass(frozen=True)
class _Levels:
    """Levels by a rule, then times through ``process.time_of``: ``rule(u, low, high, *shape)`` at ``u`` in [0, 1] from noise to data."""

    rule: Rule
    n: int
    sigma_min: float
    sigma_max: float
    zero: bool
    shape: tuple[tuple[str, Shape], ...] = ()

    def times(self, process: Process) -> Array:
        """The times on ``process``; the highest level is capped at what the process reaches."""
        bottom = max(self.sigma_min, float(process.sigma_eff(_FIRST * process.T)) if process.sigma_eff(0.0) > 0.0 else 0.0)
        top = min(self.sigma_max, float(process.sigma_eff(process.T)))
        if bottom >= top:
            raise BadInput(f"sigma_min = {bottom:g} is not below the highest level {top:g} of process {process.name!r}")
        count = self.n if self.zero else self.n + 1
        levels = np.array([top])
        if count > 1:
            levels = self.rule(np.linspace(0.0, 1.0, count), bottom, top, **dict(self.shape))
            levels[0], levels[-1] = top, bottom
        made = process.time_of(levels)
        return np.append(made, 0.0) if self.zero else made


@dataclass(frozen=True)
class _Times:
    """Times by a rule in ``t``: ``rule(u)`` falls from 1 to 0."""

    rule: Rule
    n: int
    end: float | None

    def times(self, process: Process) -> Array:
        """The times on ``process``."""
        T = process.T
        end = 1e-3 * T if self.end is None else self.end
        if not 0.0 <= end < T:
            raise BadInput(f"end = {end:g} must lie in [0, T) with T = {T:g} of process {process.name!r}")
        made = end + (T - end) * self.rule(np.linspace(0.0, 1.0, self.n + 1))
        made[0], made[-1] = T, end
        return made


@dataclass(frozen=True)
class _Given:
    """Times, or levels, that the user wrote down."""

    values: tuple[float, ...]
    levels: bool

    @property
    def n(self) -> int:
        """Number of steps."""
        return len(self.values) - 1

    def times(self, process: Process) -> Array:
        """The times on ``process``."""
        return process.time_of(self.values) if self.levels else np.asarray(process.within(self.values))


def karras(n: int = 18, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0, zero: bool = True) -> Grid:
    r"""EDM's grid: :math:`\sigma_i^{1/\rho}` uniform from ``sigma_max`` to ``sigma_min``, then 0.

    Parameters
    ----------
    n : int
        Steps.  With ``zero`` the last goes from ``sigma_min`` to the data, as in EDM (Heun then costs ``2 n - 1`` calls).
    sigma_min, sigma_max : float
        Levels; moved inside those that the process has.
    rho : float
    zero : bool
        Whether to end at the data.

    Raises
    ------
    BadInput
        For levels that do not decrease or ``n < 1``.
    """
    return _levels(_karras, n, sigma_min, sigma_max, zero, rho=positive("rho", rho))


def logsnr(n: int = 20, sigma_min: float = 0.002, sigma_max: float = 80.0, zero: bool = False) -> Grid:
    """Levels uniform in ``log sigma_eff``; parameters as for :func:`karras`."""
    return _levels(_uniform, n, sigma_min, sigma_max, zero)


def polyexponential(n: int = 20, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 1.0, zero: bool = True) -> Grid:
    r"""Levels with :math:`\log\sigma_i = \log\sigma_{min} + (1 - u_i)^\rho \log(\sigma_{max} / \sigma_{min})`, ``u`` uniform in [0, 1].

    ``rho = 1`` is :func:`logsnr`, known as the exponential grid; parameters as for :func:`karras` (k-diffusion's ``get_sigmas_polyexponential``).
    """
    return _levels(_polyexponential, n, sigma_min, sigma_max, zero, rho=positive("rho", rho))


def arctan(n: int = 20, sigma_min: float = 0.002, sigma_max: float = 80.0, scale: float = 1.0, zero: bool = True) -> Grid:
    r"""Levels uniform in :math:`\arctan(\sigma / c)`, ``c = scale``; other parameters as for :func:`karras`.

    The grid that is optimal in KL for Euler's method on isotropic normal data with standard deviation ``c`` (Sabour, Fidler and Kreis 2024,
    arXiv:2404.14507, theorem 3.1), and the uniform grid in time of the cosine schedule, where :math:`\sigma = \tan(\pi t / 2)`.
    """
    return _levels(_arctan, n, sigma_min, sigma_max, zero, scale=positive("scale", scale))


def beta(
    n: int = 20, sigma_min: float = 0.002, sigma_max: float = 80.0, alpha: float = 0.6, beta: float = 0.6, zero: bool = True
) -> Grid:  # fmt: skip
    r"""Levels at the quantiles ``1 - u`` of Beta(alpha, beta) between ``sigma_min`` and ``sigma_max``, ``u`` uniform in [0, 1].

    Small steps at both ends (Lee et al. 2024, arXiv:2407.12173); parameters as for :func:`karras`.
    """
    return _levels(_beta, n, sigma_min, sigma_max, zero, alpha=positive("alpha", alpha), beta=positive("beta", beta))


def vp(
    n: int = 20,
    sigma_min: float = _VP_ENDS[0],
    sigma_max: float = _VP_ENDS[1],
    beta_min: float = 0.1,
    beta_max: float = 20.0,
    zero: bool = True,
) -> Grid:
    r"""Levels uniform in the time of the variance-preserving process with a linear rate, on any process.

    .. math:: \sigma(t) = \sqrt{\exp(\tfrac12 (\beta_{max} - \beta_{min}) t^2 + \beta_{min} t) - 1},

    between its levels at times 1 and 0.001 by default (Song et al. 2021, arXiv:2011.13456; k-diffusion's ``get_sigmas_vp``).
    """
    low, high = positive("beta_min", beta_min), finite("beta_max", beta_max)
    if high <= low:
        raise BadInput(f"beta_max = {high:g} must be above beta_min = {low:g}")
    return _levels(_vp, n, sigma_min, sigma_max, zero, beta_min=low, beta_max=high)


def bent(n: int = 20, bends: Sequence[float] = (), sigma_min: float = 0.002, sigma_max: float = 80.0, zero: bool = True) -> Grid:
    r"""Levels uniform in the logarithm, bent: a family in few parameters, monotone for all their values, for :func:`sdekit.analysis.tune_grid`.

    .. math:: -\frac{d \log\sigma}{du} \propto \exp\Big(\sum_{j \ge 1} b_j P_j(2u - 1)\Big), \qquad u \in [0, 1],

    ``P_j`` Legendre's polynomials.  No bends: :func:`logsnr`; a positive first bend: smaller steps at the noise, larger ones at the data.

    Raises
    ------
    BadInput
        For bends that are not numbers or sum to more than 50 in absolute value, and as for :func:`karras`.
    """
    numbers = tuple(finite(f"bends[{i}]", value) for i, value in enumerate(bends))
    if sum(map(abs, numbers)) > _STEEPEST:
        raise BadInput(f"bends = {numbers} must sum to at most {_STEEPEST:g} in absolute value")
    return _levels(_bent, n, sigma_min, sigma_max, zero, bends=numbers)


def ays(n: int = 10, table: str = "sd", zero: bool = True) -> Grid:
    """The published optimised levels of Align Your Steps; other ``n`` by interpolation of their logarithms, as published.

    Parameters
    ----------
    n : int
        Steps.
    table : {"sd", "sdxl", "svd"}
        Stable Diffusion 1.5, Stable Diffusion XL, Stable Video Diffusion.
    zero : bool
        Whether the table's last level is replaced by the data.

    Raises
    ------
    BadInput
        For another table or ``n < 1``.

    Notes
    -----
    On a process that does not have the table's ends the logarithms are stretched to those that it has.

    References
    ----------
    Sabour, Fidler and Kreis 2024, arXiv:2404.14507.
    """
    if table not in _AYS:
        raise unknown("table", table, list(_AYS))
    last = max(whole("n", n) - 1, 1) / n if zero else 1.0
    low = float(np.exp(np.interp(10.0 * last, np.arange(11), np.log(_AYS[table]))))
    return _levels(_ays, n, low, _AYS[table][0], zero, table=table, end=bool(zero))


def _levels(rule: Rule, n: int, sigma_min: float, sigma_max: float, zero: bool, **shape: Shape) -> Grid:
    low, high = positive("sigma_min", sigma_min), positive("sigma_max", sigma_max)
    if low >= high:
        raise BadInput(f"sigma_min = {low:g} must be below sigma_max = {high:g}")
    return _Levels(rule, whole("n", n), low, high, bool(zero), tuple(shape.items()))


def uniform(n: int = 100, end: float | None = None) -> Grid:
    """``n`` equal steps in time from ``T`` to ``end`` (``T / 1000`` when absent)."""
    return _times(_straight, n, end)


def quadratic(n: int = 100, end: float | None = None) -> Grid:
    r"""``n`` steps in time that shrink towards the data, :math:`t_i = t_{end} + (T - t_{end})(1 - i/n)^2`."""
    return _times(_quadratic, n, end)


def cosine(n: int = 100, end: float | None = None) -> Grid:
    r"""``n`` steps in time that are smaller at the noise, :math:`t_i = t_{end} + (T - t_{end}) \cos(\pi i / 2n)`.

    The cosine grid of flow matching (Du et al. 2024, arXiv:2407.05407).  Uniform steps of the cosine *schedule* are :func:`arctan`.
    """
    return _times(_cosine, n, end)


def _times(rule: Rule, n: int, end: float | None) -> Grid:
    return _Times(rule, whole("n", n), None if end is None else finite("end", end))


def times(values: Sequence[float]) -> Grid:
    """The given times, from noise to data.

    Raises
    ------
    BadInput
        Unless they decrease strictly and are nonnegative.
    """
    return _Given(tuple(_decreasing("times", values)), levels=False)


def sigmas(values: Sequence[float]) -> Grid:
    """The times at the given levels ``sigma_eff``, from noise to data.

    Raises
    ------
    BadInput
        Unless they decrease strictly and are nonnegative.
    """
    return _Given(tuple(_decreasing("sigmas", values)), levels=True)
