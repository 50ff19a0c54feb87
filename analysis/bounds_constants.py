r"""Constants of a data law over an interval of noise levels: Lipschitz and one-sided Lipschitz constants, moments of the score, tails.

Data plus noise of level ``t`` have density :math:`p_t`.  For a mixture of :math:`N(m_j, C_j)` write :math:`\Lambda_j = (C_j + t^2)^{-1}`,
:math:`g_j(x) = \Lambda_j (m_j - x)` and :math:`r_j(x)` for the posterior weights.  Then, with :math:`\tau = t^2`,

.. math:: \nabla \log p_t = E_r g, \qquad \nabla^2 \log p_t = -E_r \Lambda + \mathrm{Cov}_r(g), \qquad
          \partial_\tau \nabla \log p_t = -E_r \Lambda g + \mathrm{Cov}_r(\ell, g), \quad \ell_j = \tfrac12 (|g_j|^2 - \mathrm{tr}\,\Lambda_j) .

On the line these are maximised on grids; in space they are bounded from above.  Which of the two is said beside each number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..law import Gaussian, Law, Mixture
from .switching import as_mixture

Array = NDArray[np.float64]

__all__ = ["Blend"]

_TIMES = 65  # levels of a grid over an interval
_POINTS = 1201  # points of a grid over the line
_PAIRS = 512  # most components whose pairs are looked at
_ZOOMS = 3
RARE = 6.334248366623996e-05  # what lies outside of 4 standard deviations: the radius of the ball


@dataclass(frozen=True)
class Tail:
    """Outside of a ball of radius ``radius`` around the mean: the mass, and ``E[|x| 1{|x| > radius}]``."""

    radius: float
    mass: float
    moment: float


@dataclass(frozen=True, eq=False)
class Blend:
    """A data law as a mixture of normal laws with different means and covariances.

    Attributes
    ----------
    law : Mixture
    """

    law: Mixture

    @classmethod
    def of(cls, law: Law) -> Blend:
        """The Gaussian, Mixture or Empirical ``law``, without components of weight 0."""
        made = as_mixture(law)
        if np.all(made.weights > 0.0):
            return cls(made)
        keep = np.flatnonzero(made.weights > 0.0)
        return cls(Mixture(made.weights[keep], np.stack([made.parts[i].mean for i in keep]), np.stack([made.parts[i].cov for i in keep])))

    @property
    def weights(self) -> Array:
        """Weights, (K,)."""
        return self.law.weights

    @cached_property
    def means(self) -> Array:
        """Means of the components around the mean of the whole, (K, d)."""
        return np.stack([(part.mean - self.law.mean).reshape(-1) for part in self.law.parts])

    @cached_property
    def values(self) -> Array:
        """Eigenvalues of the covariances, (K, d)."""
        return np.stack([part.variances for part in self.law.parts])

    @property
    def d(self) -> int:
        """Number of elements of a datum."""
        return int(self.means.shape[1])

    @property
    def gaussian(self) -> bool:
        """Whether there is one component."""
        return len(self.weights) == 1

    @cached_property
    def equal(self) -> bool:
        """Whether all components have the same covariance."""
        first = self.law.parts[0]
        return all(np.array_equal(p.cov, first.cov) for p in self.law.parts)

    @property
    def how(self) -> str:
        """How suprema over ``x`` are found."""
        return "closed form" if self.gaussian else "maximised on a grid" if self.d == 1 else "upper bound"

    @property
    def spread(self) -> float:
        """Root mean square distance of the data to their mean."""
        return float(np.sqrt(self.weights @ (np.sum(self.means**2, axis=1) + np.sum(self.values, axis=1))))

    # ------------------------------------------------------------------------------------------------ over x, at one level

    def _range(self, t: float) -> float:
        """Largest distance between two ``g_j``; it does not depend on ``x`` as the covariances are equal."""
        part = self.law.parts[0]
        shrunk = (self.means if part.basis is None else self.means @ part.basis) / (part.variances + t * t)
        if len(shrunk) > _PAIRS:  # twice the radius around the middle of the box is at least the diameter
            middle = 0.5 * (shrunk.max(axis=0) + shrunk.min(axis=0))
            return 2.0 * float(np.sqrt(np.max(np.sum((shrunk - middle) ** 2, axis=1))))
        squares = np.sum(shrunk**2, axis=1)
        return float(np.sqrt(max(0.0, np.max(squares[:, None] + squares - 2.0 * shrunk @ shrunk.T))))

    def top(self, t: float) -> float:
        """The largest eigenvalue of the Hessian of ``log p_t`` anywhere (an upper bound in space)."""
        if self.gaussian:
            return -1.0 / (float(np.max(self.values)) + t * t)
        if self.d == 1:
            return float(self._line_max(t, lambda found: found[1]))
        if not self.equal:
            raise BadInput(
                "components with different covariances: no one-sided Lipschitz constant is known in space; "
                "give them one covariance, or project the data on a line"
            )  # fmt: skip
        # the variance of each coordinate of g is at most a quarter of its squared range (Popoviciu)
        return -1.0 / (float(np.max(self.values)) + t * t) + 0.25 * self._range(t) ** 2

    def curvature(self, t: float) -> float:
        """The largest norm of the Hessian of ``log p_t``: no eigenvalue is below ``-1 / (least variance + t^2)``."""
        return max(1.0 / (float(np.min(self.values)) + t * t), self.top(t))

    def score(self, t: float, radius: float) -> float:
        """The largest norm of the score in the ball."""
        if self.d == 1 and not self.gaussian:
            return float(self._line_max(t, lambda found: np.abs(found[0]), radius))
        inner = self.values.min(axis=1) + t * t
        return float(np.max((np.linalg.norm(self.means, axis=1) + radius) / inner))

    def score_rate(self, t: float, radius: float, frozen: float = 1.0) -> float:
        r"""The largest norm of :math:`t\,\partial_t s` in the ball (``frozen`` 1), or of :math:`\partial_t (t s)` (``frozen`` 0)."""
        if self.gaussian:
            v = self.values[0]
            return radius * float(np.max(np.abs(2.0 * t * t - (1.0 - frozen) * (v + t * t)) / (v + t * t) ** 2))
        if self.d == 1:
            return float(self._line_max(t, lambda found: np.abs(2.0 * t * t * found[2] + (1.0 - frozen) * found[0]), radius))
        inner = self.values + t * t
        g = (np.linalg.norm(self.means, axis=1) + radius) / inner.min(axis=1)
        reach, traces = float(np.max(g)), np.sum(1.0 / inner, axis=1)
        between = self._range(t) if self.equal else 2.0 * reach
        spread = 0.5 * float(np.ptp(traces)) + 0.5 * min(reach**2, 2.0 * reach * between)
        made = 2.0 * t * t * (float(np.max(g / inner.min(axis=1))) + 0.25 * spread * between)
        return made + (1.0 - frozen) * reach

    def _line(self, t: float, x: Array) -> tuple[Array, Array, Array]:
        """Score, its slope in ``x``, and its derivative in ``t^2``, on the line."""
        inner = self.values[:, 0] + t * t
        g = (self.means[:, 0] - x[:, None]) / inner
        logs = np.log(self.weights) - 0.5 * np.log(inner) - 0.5 * g**2 * inner
        r = np.exp(logs - logs.max(axis=1, keepdims=True))
        r /= r.sum(axis=1, keepdims=True)
        score = np.sum(r * g, axis=1)
        gap, ell = g - score[:, None], 0.5 * (g**2 - 1.0 / inner)
        return score, np.sum(r * (gap**2 - 1.0 / inner), axis=1), np.sum(r * (ell * gap - g / inner), axis=1)

    def _line_max(self, t: float, of: Any, radius: float | None = None) -> float:
        """Maximum over the line, or over the ball: a grid with the points where two components balance, refined around the best."""
        m, inner = self.means[:, 0], self.values[:, 0] + t * t
        reach = np.max(np.abs(m)) + 8.0 * np.sqrt(np.max(inner)) if radius is None else radius
        x = np.clip(np.concatenate([np.linspace(-reach, reach, _POINTS), self._balances(inner)]), -reach, reach)
        x.sort()
        best = 0.0 if radius is not None else -np.inf
        for _ in range(_ZOOMS):
            found = of(self._line(t, x))
            i = int(np.argmax(found))
            best = max(best, float(found[i]))
            x = np.linspace(x[max(0, i - 1)], x[min(len(x) - 1, i + 1)], 101)
        return best

    def _balances(self, inner: Array) -> Array:
        """Points on the line where neighbouring components have equal weight: there the Hessian is largest."""
        m, order = self.means[:, 0], np.argsort(self.means[:, 0])
        i, j = order[:-1], order[1:]
        if len(m) <= 32:
            i, j = np.triu_indices(len(m), 1)
        log = np.log(self.weights) - 0.5 * np.log(inner)
        a = 0.5 / inner[j] - 0.5 / inner[i]
        b = m[i] / inner[i] - m[j] / inner[j]
        c = log[i] - log[j] - 0.5 * m[i] ** 2 / inner[i] + 0.5 * m[j] ** 2 / inner[j]
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(b * b - 4.0 * a * c)
            found = np.concatenate([-c / b, *((-b + sign * root) / (2.0 * a) for sign in (1.0, -1.0))])
        return np.asarray(found[np.isfinite(found)])

    # ------------------------------------------------------------------------------------------------ over an interval

    @staticmethod
    def over(low: float, high: float, of: Any) -> float:
        """Maximum over a grid of levels, both ends included, refined around the best."""
        t = np.geomspace(low, high, _TIMES)
        for _ in range(2):
            found = [of(float(level)) for level in t]
            i = int(np.argmax(found))
            t = np.linspace(t[max(0, i - 1)], t[min(len(t) - 1, i + 1)], 17)
        return float(max(found))

    def lipschitz(self, low: float, high: float) -> float:
        """``L2``: the largest Lipschitz constant of ``t`` times the score."""
        if self.gaussian:
            v = float(np.min(self.values))
            t = float(np.clip(np.sqrt(v), low, high))
            return t / (v + t * t)
        return self.over(low, high, lambda t: t * self.curvature(t))

    def kappa(self, low: float, high: float) -> float:
        r"""One-sided Lipschitz constant of the exact flow, :math:`\exp \int t \sup_x \lambda_{max}(\nabla^2 \log p_t)\,dt`."""
        if self.gaussian:
            v = float(np.max(self.values))
            return float(np.sqrt((v + low**2) / (v + high**2)))
        nodes, weights = np.polynomial.legendre.leggauss(48)
        u = 0.5 * (nodes + 1.0) * np.log(high / low) + np.log(low)
        t = np.exp(u)
        total = 0.5 * np.log(high / low) * np.sum(weights * t**2 * np.array([self.top(float(level)) for level in t]))
        with np.errstate(over="ignore"):
            return float(np.exp(total))

    # ------------------------------------------------------------------------------------------------ moments and tails

    def score_mean(self, t: float) -> float:
        r"""``E|score|`` at level ``t`` is at most :math:`(\sum_j w_j \mathrm{tr}\,\Lambda_j)^{1/2}`: Fisher information is convex."""
        return float(np.sqrt(self.weights @ np.sum(1.0 / (self.values + t * t), axis=1)))

    def rate_mean(self, t: float) -> float:
        r"""``E|d score / d t^2|`` is at most :math:`(\sum w \mathrm{tr}\,\Lambda^3)^{1/2} + (\sum w \mathrm{tr}\,\Lambda^2 / 2)^{1/2} E|score|`.

        The second part is the covariance of :math:`\ell` and ``g`` given ``x``, by Cauchy and Schwarz; a single component has none.
        """
        one, two, three = (float(self.weights @ np.sum((self.values + t * t) ** -p, axis=1)) for p in (1.0, 2.0, 3.0))
        return float(np.sqrt(three) + (0.0 if self.gaussian else np.sqrt(0.5 * two * one)))

    def tail(self, radius: float, t: float) -> Tail:
        """Upper bounds on the tail of ``p_t`` outside of a ball around the mean, exact for one isotropic component."""
        return tail(radius, self.weights, np.linalg.norm(self.means, axis=1), np.sqrt(self.values.max(axis=1) + t * t), self.d)

    def radius(self, t: float) -> float:
        """Radius of a ball that holds ``p_t`` but for the mass outside of four standard deviations on the line."""
        from scipy.stats import chi

        roots = np.sqrt(self.values.max(axis=1) + t * t)
        return float(np.max(np.linalg.norm(self.means, axis=1) + roots * chi.isf(RARE, self.d)))


def tail(radius: float, weights: Array, offsets: Array, roots: Array, d: int) -> Tail:
    r"""Tail of a mixture of normal laws that are at distances ``offsets`` from the centre and no wider than ``roots``.

    With :math:`|x| \le o + \sigma \chi_d`: mass :math:`P(\chi_d > (r - o)/\sigma)`, moment
    :math:`o\,P(\cdot) + \sigma E[\chi_d 1\{\cdot\}]`, and :math:`E[\chi_d 1\{\chi_d > z\}] = E\chi_d\, P(\chi_{d+1} > z)`.
    """
    from scipy.special import gammaln
    from scipy.stats import chi

    z = np.maximum((radius - offsets) / roots, 0.0)
    mass = chi.sf(z, d)
    mean = np.sqrt(2.0) * np.exp(gammaln(0.5 * (d + 1.0)) - gammaln(0.5 * d))
    return Tail(radius, float(weights @ mass), float(weights @ (offsets * mass + roots * mean * chi.sf(z, d + 1))))


def initial_distance(start: Law | float, data: Law, high: float) -> tuple[float, str]:
    """Distance in total variation between ``start`` and ``data``, both plus noise of level ``high``; and how it was found."""
    if isinstance(start, int | float):
        if not 0.0 <= start <= 1.0:
            raise BadInput(f"start = {start!r} as a distance in total variation must lie in [0, 1]; or give a law")
        return float(start), "given"
    one, two = Blend.of(start), Blend.of(data)
    if one.d != two.d:
        raise BadInput(f"start and data have {one.d} and {two.d} elements")
    if one.d == 1:
        top = max(blend.radius(high) for blend in (one, two)) + abs(float(np.ravel(one.law.mean)[0] - np.ravel(two.law.mean)[0]))
        x = np.linspace(-3.0 * top, 3.0 * top, 40_001)
        centre = float(np.ravel(two.law.mean)[0])
        gap = [np.exp(blend.law.log_density((x + centre).reshape(-1, *blend.law.shape), high)) for blend in (one, two)]
        return float(0.5 * np.sum(np.abs(gap[0] - gap[1])) * (x[1] - x[0])), "quadrature"
    if not (isinstance(start, Gaussian) and isinstance(data, Gaussian)):
        raise BadInput("the distance in total variation between mixtures in space has no closed form: give start as a number in [0, 1]")
    A, B = (law.matrix + high**2 * np.eye(one.d) for law in (start, data))
    gap_ = (start.mean - data.mean).reshape(-1)
    middle = 0.5 * (A + B)
    logs = [float(np.linalg.slogdet(M)[1]) for M in (A, B, middle)]
    overlap = float(np.exp(0.25 * (logs[0] + logs[1]) - 0.5 * logs[2] - 0.125 * float(gap_ @ np.linalg.solve(middle, gap_))))
    return float(np.sqrt(max(0.0, 1.0 - overlap**2))), "upper bound by the Hellinger distance"
