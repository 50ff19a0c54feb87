r"""The random variance of PFGM++'s transition kernel: hitting times of Bessel processes, as quantiles.

The kernel from radius :math:`r_1` to :math:`r_2` is :math:`N(0, T I)` with ``T`` the time in which a Bessel process of dimension
:math:`2 - D` goes from :math:`r_2` down to :math:`r_1`: with :math:`\nu = D/2`

.. math:: E\,e^{-s T} = \frac{\phi(r_2 \sqrt{2s})}{\phi(r_1 \sqrt{2s})}, \qquad \phi(z) = \frac{2^{1 - \nu}}{\Gamma(\nu)} z^\nu K_\nu(z), \qquad
          E\,T = \frac{r_2^2 - r_1^2}{D - 2}, \quad Var\,T = \frac{2 (r_2^4 - r_1^4)}{(D-2)^2 (D-4)} .

From the data (:math:`r_1 = 0`) it is :math:`r_2^2 / \chi^2_D`.  Else its distribution function is inverted from the Laplace transform on the line
of Abate and Whitt, with Euler's summation, to about 1e-10, and tabulated once for each ratio of radii; where its coefficient of variation ``c``
is below 0.02 (many dimensions) it is the log-normal law with the same mean and variance, which is wrong by :math:`O(c^4)` in what it does to a law.

References
----------
Abate and Whitt, "Numerical inversion of Laplace transforms of probability distributions" (1995); NIST DLMF 10.41 (uniform
expansions of Bessel functions).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from scipy import special
from scipy.interpolate import make_interp_spline

Array = NDArray[np.float64]

__all__ = ["distribution", "spread"]

_A = 24.0  # e^-A is the error of the sum that takes the integral's place
_EULER = 16  # terms averaged
_LARGE = 15.0  # nu from which Bessel functions are expanded
_TABLE = 385  # fewest quantiles of a table
_EDGE = 1e-6  # tail beyond the table
_NARROW = 0.02  # coefficient of variation below which the law is its first two moments


@cache
def _debye() -> tuple[Polynomial, ...]:
    """The polynomials of the uniform expansion, DLMF 10.41.9."""
    p = Polynomial([0.0, 1.0])
    made = [Polynomial([1.0])]
    for _ in range(8):
        u = made[-1]
        made.append(0.5 * p**2 * (1.0 - p**2) * u.deriv() + ((1.0 - 5.0 * p**2) * u).integ() / 8.0)
    return tuple(made)


def _log_transform(nu: float, ratio: float, s: NDArray[Any]) -> NDArray[Any]:
    """Logarithm of ``E exp(-s T)`` for ``r_2 = 1`` and ``r_1 = ratio``, Re s > 0."""
    q = np.sqrt(2.0 * s)
    if nu < _LARGE:
        fraction = special.kve(nu, q) / special.kve(nu, ratio * q)
        return np.asarray(np.log(fraction) - nu * np.log(ratio) - (1.0 - ratio) * q)
    high, low = (np.sqrt(1.0 + (z / nu) ** 2) for z in (q, ratio * q))
    gap = 2.0 * s * (1.0 - ratio) * (1.0 + ratio) / nu**2 / (high + low)
    after, before = (sum((-1.0 / nu) ** k * u(1.0 / w) for k, u in enumerate(_debye())) for w in (high, low))
    return np.asarray(nu * (special.log1p(gap / (1.0 + low)) - gap) - 0.5 * special.log1p(gap / low) + np.log(after / before))


def _moments(D: float, ratio: float) -> tuple[float, float]:
    """Mean and coefficient of variation, for ``D > 4``."""
    gap = (1.0 - ratio) * (1.0 + ratio)
    return gap / (D - 2.0), float(np.sqrt(2.0 * (1.0 + ratio**2) / (gap * (D - 4.0))))


def distribution(D: float, ratio: float, t: Array) -> Array:
    """``P(T <= t)`` for ``r_2 = 1`` and ``0 < r_1 = ratio < 1``, ``t`` (m,)."""
    t = np.asarray(t, float)[:, None]
    mean, rough = _moments(D, ratio) if D > 4.0 else (1.0, np.inf)
    terms = 64 + int(3.0 * min(np.max(t) / (mean * rough), 2e3) if rough < 1.0 else 0)  # the transform of a narrow law is long
    k = np.arange(terms + _EULER + 1)
    s = (_A + 2j * np.pi * k) / (2.0 * t)
    values = np.exp(0.5 * _A + _log_transform(0.5 * D, ratio, s)) / s
    sums = np.cumsum((-1.0) ** k * np.where(k == 0, 0.5, 1.0) * values.real, axis=1)[:, terms:]
    return np.asarray(sums @ special.binom(_EULER, np.arange(_EULER + 1)) * 0.5**_EULER / t[:, 0])


@lru_cache(maxsize=256)
def _table(D: float, ratio: float) -> Callable[[Array], Array]:
    """``log T`` for ``r_2 = 1`` as a function of a standard normal, increasing."""
    if D > 4.0:
        mean, rough = _moments(D, ratio)
        if rough < _NARROW:
            wide = np.log1p(rough**2)
            return lambda xi: np.log(mean) - 0.5 * wide + np.sqrt(wide) * xi
    s = np.geomspace(1e-6, 1e14, 4000) / (1.0 - ratio) ** 2
    with np.errstate(invalid="ignore"):
        low = float(np.nanmax((np.log(0.1 * _EDGE) - _log_transform(0.5 * D, ratio, s)) / s))  # Chernoff's bound
    high = 2.0 * low
    while distribution(D, ratio, np.array([high]))[0] < 1.0 - 0.1 * _EDGE:
        high *= 2.0
    for _ in range(2):
        t = np.geomspace(low, high, max(_TABLE, int(np.log(high / low) / 0.08)))
        P = distribution(D, ratio, t)
        inside = np.flatnonzero((P > _EDGE) & (P < 1.0 - _EDGE))
        low, high = t[max(inside[0] - 1, 0)], t[min(inside[-1] + 1, len(t) - 1)]
    xi = special.ndtri(P[inside])
    line = make_interp_spline(xi, np.log(t[inside]), k=3)
    ends = xi[[0, -1]]
    slope, left = line.derivative()(ends), special.log_ndtr(ends[0])
    hazard = np.exp(-0.5 * ends**2 - special.log_ndtr(-np.abs(ends))) / np.sqrt(2.0 * np.pi)

    def quantile(x: Array) -> Array:
        """Beyond the table T falls like a power of -log P, and rises like a power of 1 - P, as they do."""
        below = np.log(special.log_ndtr(np.minimum(x, ends[0])) / left) * slope[0] / hazard[0] * left
        above = (special.log_ndtr(-ends[1]) - special.log_ndtr(-np.maximum(x, ends[1]))) * slope[1] / hazard[1]
        return np.asarray(line(np.clip(x, *ends)) + below + above)

    return quantile


def spread(D: float, ratio: float, xi: Array) -> Array:
    r"""Quantiles of :math:`T / r_2^2` at standard normals ``xi``, for ``r_1 / r_2 = ratio`` in [0, 1)."""
    if ratio ** min(D, 2.0) < 1e-12:
        nu = 0.5 * D
        small, rest = special.gammaincinv(nu, special.ndtr(-np.abs(xi))), special.gammainccinv(nu, special.ndtr(-np.abs(xi)))
        return np.asarray(0.5 / np.where(xi > 0.0, small, rest))
    return np.asarray(np.exp(_table(float(D), float(f"{ratio:.12g}"))(xi)))
