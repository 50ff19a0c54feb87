r"""How fast Restart mends the weights of modes: the exact operator of a cycle on the line, and the matrix of mode switches in any dimension.

A cycle with the exact flow is a Markov kernel that keeps :math:`p_{t_{min}}`.  On the line the flow is the monotone map
:math:`\Phi = F_{t_{min}}^{-1} \circ F_{t_{max}}`, so on bins of equal mass the kernel is a matrix of increments of the normal distribution
function, and its second eigenvalue is the rate at which any start is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..clocks import linear
from ..errors import BadInput, whole
from ..law import Empirical, Gaussian, Law, Mixture
from ..process import Process
from .contraction import between
from .orders import reference_flow

Array = NDArray[np.float64]

_POWERS = 10_000

__all__ = ["Operator", "Switching", "first_ratio", "mode_switching", "restart_operator"]


def as_mixture(law: Law) -> Mixture:
    """A Gaussian or Empirical law as a mixture."""
    if isinstance(law, Mixture):
        return law
    if isinstance(law, Gaussian):
        return Mixture([1.0], law.mean[None], law.cov[None] if law.cov.ndim else float(law.cov))
    if isinstance(law, Empirical):
        return Mixture(np.ones(len(law.data)), law.data, law.width**2)
    raise BadInput(f"data = {law!r} must be a Gaussian, Mixture or Empirical law")


class Line:
    """A mixture on the line with its distribution function and quantiles at every level."""

    def __init__(self, law: Law) -> None:
        mixture = as_mixture(law)
        if mixture.parts[0].mean.size != 1:
            raise BadInput(f"the operator is for data on the line; these have {mixture.parts[0].mean.size} elements: use mode_switching")
        keep = mixture.weights > 0.0
        self.weights = mixture.weights[keep]
        self.means = np.array([float(part.mean.ravel()[0]) for part in mixture.parts])[keep]
        self.variances = np.array([float(part.variances[0]) for part in mixture.parts])[keep]

    def parts(self, x: Array, level: float) -> Array:
        """Distribution functions of the components at ``x``: (K, *x.shape)."""
        from scipy.special import ndtr

        root = np.sqrt(self.variances + level**2)
        return np.asarray(ndtr(np.subtract.outer(x, self.means) / root)).T

    def cdf(self, x: Array, level: float) -> Array:
        """Distribution function of data plus noise of the level."""
        return np.asarray(self.weights @ self.parts(x, level))

    def quantile(self, u: Array, level: float) -> Array:
        """Its inverse, by bisection."""
        reach = 40.0 * np.sqrt(self.variances + level**2)
        low, high = (np.full_like(u, end) for end in (np.min(self.means - reach), np.max(self.means + reach)))
        for _ in range(90):
            middle = 0.5 * (low + high)
            below = self.cdf(middle, level) < u
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray(0.5 * (low + high))


@dataclass(frozen=True, eq=False)
class Operator:
    """One Restart cycle with the exact flow, as a matrix on bins of equal mass at level ``low``.

    Attributes
    ----------
    low, high : float
    edges : array (bins - 1,)
        Of the bins at ``low``.
    matrix : array (bins, bins)
        Row ``i``: where the mass of bin ``i`` goes.
    """

    line: Line
    low: float
    high: float
    edges: Array
    matrix: Array

    @cached_property
    def eigenvalues(self) -> Array:
        """Moduli of the eigenvalues, falling; the first is 1."""
        return np.sort(np.abs(np.linalg.eigvals(self.matrix)))[::-1]

    @cached_property
    def rate(self) -> float:
        """The second eigenvalue: what a cycle leaves of an error in the long run.

        By powers: noise and a monotone map are totally positive, so all eigenvalues are positive and simple.
        """
        error, rate = np.linspace(-1.0, 1.0, len(self.matrix)), 0.0
        for _ in range(_POWERS):
            error = self.matrix @ error
            error -= np.mean(error)
            before, rate = rate, float(np.linalg.norm(error))
            error /= rate
            if abs(rate - before) <= 1e-12 * rate:
                break
        return rate

    def mass(self, law: Law) -> Array:
        """Masses of the bins under data of ``law`` plus noise of level ``low``."""
        return np.diff(Line(law).cdf(self.edges, self.low), prepend=0.0, append=1.0)

    def tv(self, start: Law, cycles: int) -> Array:
        """Distance in total variation, on the bins, from the exact law after 0, 1, .. ``cycles`` cycles from ``start``: (cycles + 1,)."""
        mass, found = self.mass(start), []
        for _ in range(whole("cycles", cycles, 0) + 1):
            found.append(0.5 * float(np.sum(np.abs(mass - 1.0 / len(mass)))))
            mass = mass @ self.matrix
        return np.array(found)

    @property
    def switching(self) -> Array:
        """Probabilities to go from one component of the mixture to another in a cycle, by quadrature on the bins, (K, K)."""
        each = np.diff(self.line.parts(self.edges, self.low), prepend=0.0, append=1.0, axis=1)
        return np.asarray(each @ self.matrix @ (each * self.line.weights[:, None] * each.shape[1]).T)

    def __repr__(self) -> str:
        return f"Operator([{self.low:g}, {self.high:g}], bins={len(self.matrix)}, rate={self.rate:.6g})"


def restart_operator(data: Law, low: float, high: float, bins: int = 400) -> Operator:
    r"""The exact Restart operator of data on the line, on ``bins`` bins of equal mass.

    .. math:: P_{ij} = \Phi\Big(\frac{e_{j+1} - x_i}{s}\Big) - \Phi\Big(\frac{e_j - x_i}{s}\Big),
              \qquad e_j = F_{t_{max}}^{-1}(j / n), \quad x_i = F_{t_{min}}^{-1}((i + \tfrac12)/n) .

    Raises
    ------
    BadInput
        For data of more than one element, or an interval that is none.
    """
    from scipy.special import ndtr

    low, high = between(low, high)
    line, n = Line(data), whole("bins", bins, 2)
    inner, middles = np.arange(1, n) / n, (np.arange(n) + 0.5) / n
    start, edges = line.quantile(middles, low), line.quantile(inner, high)
    below = ndtr(np.subtract.outer(edges, start).T / np.sqrt((high - low) * (high + low)))
    matrix = np.diff(below, axis=1, prepend=0.0, append=1.0)
    return Operator(line, low, high, line.quantile(inner, low), matrix)


def first_ratio(distance: float, variance: float, high: float) -> float:
    r"""What one cycle leaves of an error of the weights of two equal modes: :math:`1 - 2 Q(\mu / \sqrt{c^2 + t_{max}^2})`.

    ``distance`` is :math:`2 \mu`, between the means, ``variance`` :math:`c^2`, that of each mode along the line that joins them.  First order:
    later cycles keep more, because what is left lies near the modes' outer sides; see :attr:`Operator.rate`.
    """
    from scipy.special import erf

    return float(erf(0.5 * distance / np.sqrt(2.0 * (variance + high**2))))


@dataclass(frozen=True, eq=False)
class Switching:
    """Probabilities to go from mode to mode in one Restart cycle.

    Attributes
    ----------
    matrix, errors : arrays (K, K)
        Probabilities, rows summing to one, and their standard errors.
    """

    matrix: Array
    errors: Array

    @property
    def rate(self) -> float:
        """The second eigenvalue: the first cycle's ratio of an error of the weights; later cycles keep a little more."""
        return float(np.sort(np.abs(np.linalg.eigvals(self.matrix)))[-2]) if len(self.matrix) > 1 else 0.0

    def __str__(self) -> str:
        rows = (" ".join(f"{p:.4f}+-{e:.4f}" for p, e in zip(*pair, strict=True)) for pair in zip(self.matrix, self.errors, strict=True))
        return "\n".join(["from each mode (row) to each:", *rows])


def mode_switching(data: Mixture, low: float, high: float, n: int = 1000, seed: int = 0) -> Switching:
    """The matrix of mode switches in any dimension: ``n`` states of each mode at level ``low``, noised to ``high``, taken back by the exact flow.

    A state counts for each mode by the mode's posterior probability, so that the weights of the data are kept exactly in the limit of large ``n``.

    Parameters
    ----------
    data : Mixture
    low, high : float
        Levels.
    n, seed : int

    Raises
    ------
    BadInput
        For another law, or an interval that is none.
    """
    low, high = between(low, high)
    if not isinstance(data, Mixture):
        raise BadInput(f"data = {data!r} must be a Mixture: modes are its components")
    process = Process([[0.0]], [[1.0]], clock=linear(0.0, 2.0 * high, high))  # time is the level
    rng, count = np.random.default_rng(seed), whole("n", n, 2)
    begin = np.concatenate([part.sample(count, seed=seed + j) for j, part in enumerate(data.parts)])
    begin = begin + high * rng.standard_normal(begin.shape)  # noise up to low and from there to high is noise of level high
    end = reference_flow(process, data.denoiser(), begin[None], high, low)[0]
    found = responsibilities(data, end, low).reshape(len(data.parts), count, -1)
    return Switching(found.mean(axis=1), found.std(axis=1, ddof=1) / np.sqrt(count))


def responsibilities(data: Mixture, x: ArrayLike, level: float) -> Array:
    """Posterior probabilities of the components given data plus noise of the level, (n, K)."""
    logits = data._logits(data._constants, np.asarray(x, float).reshape(len(np.asarray(x)), -1), level**2)
    weights = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    return np.asarray(weights / np.sum(weights, axis=1, keepdims=True))
