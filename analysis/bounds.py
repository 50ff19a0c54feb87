r"""Bounds on the error of samplers, computed: every constant a number, every assumption checked, and whether the bound says anything.

Over one interval of levels: the W1 bounds of the Restart paper for the ODE, the SDE and Restart (:func:`ode`, :func:`sde`, :func:`restart`), as
published and with their slips mended; and the bound by the one-sided Lipschitz constant (:func:`one_sided`), which does not grow with the
number of cycles.  Over a whole run: :func:`sampler`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import BadInput, finite, positive, whole
from ..law import Law
from .bounds_constants import Blend
from .bounds_records import Constant, IntervalBound, SamplerBound, Split
from .bounds_sampler import sampler
from .bounds_setting import finish, grown, overlap, setting
from .contraction import between

__all__ = [
    "IntervalBound", "OneSided", "SamplerBound", "best_cycles", "ode", "one_sided", "overlap", "passage", "restart", "sampler", "sde",
]  # fmt: skip


def passage(distance: float, drift: float, low: float, high: float) -> float:
    r"""Exact probability that two paths ``distance`` apart meet within the interval, reflected, while a drift ``c`` drives each away.

    .. math:: Q\Big(\frac{a + cT}{\sqrt T}\Big) + e^{-2ac}\,Q\Big(\frac{a - cT}{\sqrt T}\Big), \qquad
              a = \tfrac12 B, \quad T = t_{max}^2 - t_{min}^2 :

    the first passage of a Brownian motion with drift.  The paper's :math:`\lambda e^{-U}` is a lower bound, loose by far.
    """
    from scipy.special import log_ndtr

    a, root = 0.5 * distance, np.sqrt((high - low) * (high + low))
    logs = [log_ndtr(-(a + drift * root**2) / root), -2.0 * a * drift + log_ndtr(-(a - drift * root**2) / root)]
    return float(np.sum(np.exp(logs)))


def best_cycles(diameter: float, distance: float, error: float, low: float, high: float) -> float:
    r"""The number of cycles at which the published bound with a linear additional part is least.

    .. math:: K^* = \ln(B\,TV_0\,\rho / e) / \rho, \qquad \rho = -\ln(1 - \lambda),

    for an error ``e`` added by each cycle; 0 where none helps.

    Parameters
    ----------
    diameter, distance, error : float
        ``B``, ``TV0`` and ``e``.
    low, high : float
        The interval.
    """
    low, high = between(low, high)
    rate = -float(np.log1p(-overlap(positive("diameter", diameter), low, high)))
    gain = diameter * finite("distance", distance) * rate
    return float(np.log(gain / error) / rate) if gain > positive("error", error) else 0.0


def ode(
    data: Law, interval: tuple[float, float], steps: int, *, eps: float = 0.0, start: Law | float = 1.0, diameter: float | None = None
) -> IntervalBound:
    r"""The W1 bound for Euler's method on the probability-flow ODE from ``t_max`` to ``t_min``.

    .. math:: W_1 \le B\,TV_0 + e^{L_2 \Delta} \big(\delta (L_2 L_1 + L_0) + \epsilon\big) \Delta, \qquad \Delta = t_{max} - t_{min} .

    Parameters
    ----------
    data : Gaussian, Mixture or Empirical
    interval : (t_min, t_max)
        Levels.
    steps : int
        Uniform in sigma: :math:`\delta = \Delta / n`.
    eps : float
        Supremum of the error of ``t`` times the score.
    start : law or float
        The law whose noised version the sampler has at ``t_max``, or the distance ``TV0`` itself; 1 knows nothing.
    diameter : float, optional
        ``B``; by default of the ball that holds ``p`` at ``t_max`` but for 6e-5 (four standard deviations on the line).

    Returns
    -------
    IntervalBound

    Raises
    ------
    BadInput
        For an interval that is none, a law without a closed-form distance to the data in space, or negative ``eps``.

    References
    ----------
    Xu et al. 2023, arXiv:2306.14878, Theorem 3.
    """
    s = setting(data, interval, steps, 0, eps, start, diameter, False)
    growth = grown(s.lipschitz, s.span)
    return finish(s, "ode", Split(s.diameter * s.apart, growth * s.source(False)), Split(s.distance(0.0, 0), growth * s.source(True)), (), (), None)


def sde(
    data: Law, interval: tuple[float, float], steps: int, *, eps: float = 0.0, start: Law | float = 1.0, diameter: float | None = None
) -> IntervalBound:
    r"""The W1 bound for Euler and Maruyama's method on the reverse SDE; parameters as for :func:`ode`.

    .. math:: W_1 \le B (1 - \lambda e^{-U}) TV_0
              + e^{2 L_2 \Delta} \big(\epsilon + \delta L_0 + L_2 (\delta L_1 + \sqrt{2 \delta d\,t_{max}})\big) \Delta,
              \qquad U = \frac{B L_1}{t_{min}} + \frac{L_1^2 t_{max}^2}{t_{min}^2} .

    Corrected, the source is twice as large with a drift of size :math:`2 L_1`, :math:`\lambda e^{-U}` is the exact :func:`passage`
    probability (which needs the drift bounded along the whole path), and Euler and Maruyama's noise :math:`\sqrt{2 t_k}`, frozen over a
    step, adds :math:`\delta \sqrt{d \Delta / 2 t_{min}}` before growth.  The theorem's own scheme has the exact noise.
    """
    s = setting(data, interval, steps, 0, eps, start, diameter, True)
    growth, root = grown(2.0 * s.lipschitz, s.span), np.sqrt(2.0 * s.step * s.blend.d * s.high)
    lam, drift = overlap(s.diameter, s.low, s.high), s.moved / s.low
    U = s.diameter * drift + (drift * s.high) ** 2
    loose, met = lam * float(np.exp(-U)), passage(s.diameter, drift, s.low, s.high)
    frozen = s.step * float(np.sqrt(s.blend.d * s.span / (2.0 * s.low)))
    old = s.eps + s.step * s.rate + s.lipschitz * (s.step * s.moved + root)
    new = s.eps + s.step * s.mean_rate + s.lipschitz * (2.0 * s.step * s.mean + root)
    more = (
        Constant("U", U, "published exponent"),
        Constant("lambda e^-U", loose, "published probability to meet"),
        Constant("passage", met, "exact probability to meet under the same drift"),
    )
    slips = (
        "the source of Gronwall's inequality: twice as large, with 2 delta L1",
        "U is loose by 2 in both terms; the probability of a passage has a closed form",
        "noise sqrt(2 t) frozen over a step, as in Euler and Maruyama's method: + delta sqrt(d (t_max - t_min) / (2 t_min)) before growth",
    )
    published = Split(s.diameter * (1.0 - loose) * s.apart, growth * old * s.span)
    return finish(s, "sde", published, Split(s.distance(met, 1), growth * (2.0 * new * s.span + frozen)), more, slips, loose)


def restart(
    data: Law,
    interval: tuple[float, float],
    steps: int,
    cycles: int,
    *,
    eps: float = 0.0,
    start: Law | float = 1.0,
    diameter: float | None = None,
) -> IntervalBound:
    r"""The W1 bound for ``cycles`` of Restart, each of ``steps`` steps of Euler's method, after one pass; other parameters as for :func:`ode`.

    .. math:: W_1 \le B (1 - \lambda)^K TV_0 + e^{(K+1) L_2 \Delta} (K + 1) \big(\delta (L_2 L_1 + L_0) + \epsilon\big) \Delta,
              \qquad \lambda = 2 Q\Big(\frac{B}{2 \sqrt{t_{max}^2 - t_{min}^2}}\Big) .

    References
    ----------
    Xu et al. 2023, arXiv:2306.14878, Theorem 4 (eq. 14 of the paper drops ``B``).
    """
    s = setting(data, interval, steps, whole("cycles", cycles, 0), eps, start, diameter, False)
    lam, K = overlap(s.diameter, s.low, s.high), s.cycles
    growth = (K + 1) * grown((K + 1) * s.lipschitz, s.span)
    with np.errstate(over="ignore"):
        tight = float(np.sum(np.exp(s.lipschitz * s.span * np.arange(1.0, K + 2.0))))
    published = Split(s.diameter * (1.0 - lam) ** K * s.apart, growth * s.source(False))
    slips = (
        "eq. (14) of the paper drops the factor B on its right side; the theorem has it, and so do both forms here",
        "the passes add e^{j L2 Delta}, j = 1 .. K + 1, not (K + 1) times the largest",
    )
    return finish(s, "restart", published, Split(s.distance(lam, K), tight * s.source(True)), (), slips, lam if K else None)


@dataclass(frozen=True)
class OneSided:
    r"""A bound on the error after ``K`` cycles that saturates: :math:`e_K \le \kappa^K e_0 + e_{cyc} (1 - \kappa^K) / (1 - \kappa)`.

    Attributes
    ----------
    kappa : float
        One-sided Lipschitz constant of the exact flow over the interval, in any W_p.
    how : str
    cycles : int
    contracted, additional : float
    """

    kappa: float
    how: str
    cycles: int
    contracted: float
    additional: float

    @property
    def total(self) -> float:
        """The bound."""
        return self.contracted + self.additional

    @property
    def limit(self) -> float:
        """What the additional part tends to; infinite unless ``kappa < 1``."""
        if self.kappa >= 1.0:
            return float("inf")
        done = 1.0 - self.kappa**self.cycles
        return self.additional / done if done > 0.0 else 0.0

    @property
    def vacuous(self) -> bool:
        """Whether cycles do not contract by this argument (modes that are far apart)."""
        return self.kappa >= 1.0

    def __str__(self) -> str:
        end = f"kappa {self.kappa:.6g} ({self.how})" + ("; vacuous: kappa >= 1, cycles do not contract by this argument" if self.vacuous else "")
        return f"W <= {self.total:.6g} = {self.contracted:.6g} + {self.additional:.6g} after {self.cycles} cycles, {end}"

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>"


def one_sided(data: Law, interval: tuple[float, float], cycles: int, *, start: float, each: float = 0.0) -> OneSided:
    r"""The bound by the one-sided Lipschitz constant.

    .. math:: \kappa = \exp \int_{t_{min}}^{t_{max}} t\,\sup_x \lambda_{max}(\nabla^2 \log p_t)\,dt .

    Noise does not move two chains apart and the exact flow moves them by at most ``kappa``, so this holds in every Wasserstein distance.

    Parameters
    ----------
    data : Gaussian, Mixture or Empirical
        On the line the supremum is maximised on a grid; in space it is an upper bound, for components with one covariance.
    interval : (t_min, t_max)
    cycles : int
    start : float
        The error at ``t_min`` before the first cycle.
    each : float
        What one cycle of the sampler adds to one of the exact flow from the same law, at most.

    Raises
    ------
    BadInput
        For components with different covariances in space, or negative errors.
    """
    low, high = between(*interval)
    if finite("start", start) < 0.0 or finite("each", each) < 0.0:
        raise BadInput(f"errors must not be negative: start = {start!r}, each = {each!r}")
    blend, K = Blend.of(data), whole("cycles", cycles, 0)
    kappa = blend.kappa(low, high)
    with np.errstate(over="ignore", invalid="ignore"):
        powers = np.float64(kappa) ** np.arange(K + 1)
        added = each * float(np.sum(powers[:K])) if each > 0.0 else 0.0
    return OneSided(kappa, blend.how, K, float(powers[K] * start) if start > 0.0 else 0.0, added)
