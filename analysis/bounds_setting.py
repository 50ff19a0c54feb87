r"""What the W1 bounds of the Restart paper share: the constants of a law over an interval, its tails, the assumptions and the slips."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, finite, positive, whole
from ..law import Gaussian, Law
from .bounds_constants import Blend, Tail, initial_distance, tail
from .bounds_records import Assumption, Constant, IntervalBound, Split
from .contraction import between

Array = NDArray[np.float64]

__all__ = ["Setting", "finish", "grown", "overlap", "setting"]

_NOTHING = 1e-6  # a probability to meet below this is none


def overlap(distance: float, low: float, high: float) -> float:
    r"""``lambda``: :math:`2 Q(B / (2 \sqrt{t_{max}^2 - t_{min}^2}))`, the overlap of the injected noise around two points ``distance`` apart.

    Two chains of Restart cycles in a ball of that diameter meet in each cycle with at least this probability.
    """
    from scipy.special import ndtr

    return float(2.0 * ndtr(-0.5 * distance / np.sqrt((high - low) * (high + low))))


class Setting(NamedTuple):
    """What the three theorems share."""

    blend: Blend
    low: float
    high: float
    step: float
    eps: float
    cycles: int
    diameter: float
    apart: float
    lipschitz: float
    moved: float  # L1
    rate: float  # L0
    mean: float  # E|t s|
    mean_rate: float  # and of its derivative in time
    tail: Tail
    checked: Assumption
    constants: tuple[Constant, ...]

    @property
    def span(self) -> float:
        """Length of the interval."""
        return self.high - self.low

    def source(self, corrected: bool) -> float:
        """Additional error of one pass of the ODE, before it grows."""
        moved, rate = (self.mean, self.mean_rate) if corrected else (self.moved, self.rate)
        return (self.step * (self.lipschitz * moved + rate) + self.eps) * self.span

    def distance(self, met: float, times: int) -> float:
        """W1 from a distance in total variation that ``times`` chances to meet with probability ``met`` have cut, tails included."""
        left = (1.0 - met) ** times
        return self.diameter * min(1.0, left * self.apart + 2.0 * self.tail.mass * (1.0 - left)) + 2.0 * self.tail.moment


def grown(rate: float, length: float) -> float:
    """The exponential of Gronwall's inequality, infinite where it overflows."""
    with np.errstate(over="ignore"):
        return float(np.exp(rate * length))


def setting(
    data: Law, interval: tuple[float, float], steps: int, cycles: int, eps: float, start: Law | float, diameter: float | None, noisy: bool
) -> Setting:
    """All numbers of one interval; ``noisy`` says that the sampler is the SDE's, whose laws have other tails."""
    low, high = between(*interval)
    blend, n = Blend.of(data), whole("steps", steps)
    B = 2.0 * blend.radius(high) if diameter is None else positive("diameter", diameter)
    apart, found = initial_distance(start, data, high)
    step, how = (high - low) / n, blend.how
    L2, L1 = blend.lipschitz(low, high), blend.over(low, high, lambda t: t * blend.score(t, 0.5 * B))
    L0 = blend.over(low, high, lambda t: blend.score_rate(t, 0.5 * B))
    if finite("eps", eps) < 0.0:
        raise BadInput(f"eps = {eps!r} must not be negative")
    if blend.gaussian:
        L1 = 0.5 * B * L2
    mean = blend.over(low, high, lambda t: t * blend.score_mean(t))
    mean_rate = blend.over(low, high, lambda t: _mean_rate(blend, t))
    edge, checked = _edge(blend, start, _Scheme(low, high, n, cycles, noisy), eps, 0.5 * B)
    constants = (
        Constant("B", B, "twice the radius that holds four standard deviations" if diameter is None else "given"),
        Constant("L0", L0, f"t |d score/dt| on the ball, {how}"),
        Constant("L1", L1, f"t |score| on the ball, {how}"),
        Constant("L2", L2, f"Lipschitz constant of t score, {how}"),
        Constant("M0", mean_rate, "E|d(t score)/dt| and E|t d score/dt|, upper bound"),
        Constant("M1", mean, "E|t score|, upper bound"),
        Constant("eps", float(eps), "sup |t s_theta - t score|, given"),
        Constant("delta", step, "step in sigma"),
        Constant("TV0", apart, f"at t_max, {found}"),
        Constant("lambda", overlap(B, low, high), "probability that the noise of one cycle makes two chains meet"),
        Constant("eta", edge.mass, "mass outside of the ball, upper bound"),
        Constant("tail", edge.moment, "E[|x| 1{|x| > B/2}], upper bound"),
        Constant("K cap", 1.0 / (L2 * (high - low)), "informal: K <= C / (L2 (t_max - t_min)), here C = 1"),
        Constant("kappa", *_kappa(blend, low, high)),
    )
    return Setting(blend, low, high, step, float(eps), cycles, B, apart, L2, L1, L0, mean, mean_rate, edge, checked, constants)


def _kappa(blend: Blend, low: float, high: float) -> tuple[float, str]:
    if blend.gaussian:
        return blend.kappa(low, high), "exact contraction of the mean by one cycle (widest mode)"
    if blend.d > 1 and not blend.equal:
        return float("nan"), "not known in space with different covariances"
    return blend.kappa(low, high), f"one-sided Lipschitz constant of the exact flow, {blend.how}"


def _mean_rate(blend: Blend, t: float) -> float:
    """For both schemes, the score frozen (as in the paper) and ``t`` times the score frozen (Euler's method)."""
    frozen = 2.0 * t * t * blend.rate_mean(t)
    if blend.gaussian:
        v = blend.values[0]
        return max(frozen, float(np.sqrt(np.sum((v - t * t) ** 2 / (v + t * t) ** 3))))
    return frozen + blend.score_mean(t)


class _Scheme(NamedTuple):
    """Euler's method over the interval: the ODE with jumps between the passes, or the SDE."""

    low: float
    high: float
    steps: int
    cycles: int
    noisy: bool

    def laws(self, v: Array, mean: Array, variance: Array, eps: float) -> list[tuple[Array, Array, float]]:
        """Mean and variance of each mode of data variance ``v`` after each pass, and how far the score's error may have moved a path.

        For ``t s`` frozen over a step, and for ``s`` frozen.
        """
        grid, found = np.linspace(self.high, self.low, self.steps + 1), []
        t, s = grid[:-1], grid[1:]
        for length in (2.0 * t * (t - s), t * t - s * s):
            m, w, moved, share = mean, variance, 0.0, 1.0 if self.noisy else 0.5
            for _ in range(self.cycles + 1):
                for now, h in zip(t.tolist(), length.tolist(), strict=True):
                    f = 1.0 - share * h / (v + now * now)
                    m, w = f * m, f * f * w + (h if self.noisy else 0.0)
                    moved = float(np.max(np.abs(f))) * moved + share * h / now * eps
                found.append((m, w, moved))
                w = w + self.high**2 - self.low**2
        return found


def _edge(blend: Blend, start: Law | float, scheme: _Scheme, eps: float, radius: float) -> tuple[Tail, Assumption]:
    """Tails of the exact laws, and of the sampler's own where they are known: Gaussian data, a Gaussian start along the axes."""
    exact = blend.tail(radius, scheme.high)
    text = f"all laws lie in the ball of radius {radius:.4g}, but for eta and tail"
    data = blend.law.parts[0]
    if not (blend.gaussian and isinstance(start, Gaussian) and start.basis is None and data.basis is None):
        return exact, Assumption(text, None, "the sampler's own laws are known for Gaussian data and start only")
    v, found = data.variances, [exact]
    for shift, spread in (((start.mean - data.mean).ravel(), start.variances), (np.zeros_like(v), v)):
        begin = shift, spread + scheme.high**2
        for mean, variance, moved in [(*begin, 0.0), *scheme.laws(v, *begin, eps)]:
            found.append(tail(radius, np.ones(1), np.array([np.linalg.norm(mean) + moved]), np.array([np.sqrt(np.max(variance))]), blend.d))
    worst = Tail(radius, max(e.mass for e in found), max(e.moment for e in found))
    return worst, Assumption(text, True, "the sampler's Gaussian laws after each pass were looked at")


def _assumptions(s: Setting) -> tuple[Assumption, ...]:
    flat = s.blend.law.parts[0]
    point = bool(np.min(flat.variances) == 0.0) and s.low == 0.0
    L2 = "its Hessian is bounded at levels above 0" if not point else "a point at level 0"
    return (
        Assumption("all laws have bounded support (published)", False, "p_t has a density on all of space at every t > 0"),
        Assumption("t |s| <= L1 everywhere (published)", False, "the score grows with |x|; L1 is its supremum on the ball only"),
        Assumption("t s is Lipschitz with constant L2", True, L2),
        Assumption(
            "|t s_theta - t score| <= eps everywhere", True if s.eps == 0.0 else None, "exact score" if s.eps == 0.0 else "given by the caller"
        ),
        s.checked,
        Assumption("steps of Euler's method, uniform in sigma", None, "the theorems cover no other method; sampler() does"),
    )


_SLIPS = (
    "bounded support replaced by a ball: +2 eta in total variation, +2 E[|x| 1{|x| > B/2}] in W1",
    "L1 and L0 in the additional part replaced by means under p_t (M1, M0), which exist on all of space",
    "L0 for the score frozen over a step (the theorem's scheme) and for t s frozen (Euler's method): the larger of the two",
)


def finish(
    s: Setting, name: str, published: Split, corrected: Split, more: tuple[Constant, ...], slips: tuple[str, ...], met: float | None
) -> IntervalBound:
    """The record, with the reasons why the published bound says nothing; ``met`` is the probability that its chains meet, if they can."""
    reasons = []
    if met is not None and met < _NOTHING:
        reasons.append(f"the chains meet with probability {met:.3g} < {_NOTHING:g}: nothing contracts")
    if not published.total < s.diameter:
        reasons.append(f"the bound {published.total:.3g} is not below the diameter {s.diameter:.4g} of the ball")
    return IntervalBound(name, published, corrected, s.constants + more, _assumptions(s), (*_SLIPS, *slips), tuple(reasons))
