r"""Step-size control as a linear filter: stability, noise, lag, rejections, and the controller that wastes least; stationary laws of methods.

Where the error of a step of length ``h`` is :math:`\log E = k \log h + c + \eta`, with ``c`` that changes along the way and ``eta`` of variance
:math:`\sigma^2` from step to step, a :class:`~sdekit.control.Controller` closes a loop that is linear in the logarithms.  For the pair of
"Gotta Go Fast" ``k`` is 3/2 where the noise makes the error (VE, small steps) and 2 where the drift does.  A tolerance that is relative to each
element takes 1/4 off, where ``atol`` is small: two neighbouring values are both near 0 with a probability that grows as the step shrinks, and
:math:`E^2 \propto h^{2k} / \sqrt h`.  :math:`\sigma^2 \approx 1/(2d)` for a root mean square over ``d`` independent elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..control import Controller
from ..errors import BadInput, finite, positive, whole
from ..methods import Method
from ..plans import Run
from ..process import Process
from ..solve import assemble
from .exact import probe

Array = NDArray[np.float64]

__all__ = ["Loop", "Stationary", "control_loop", "error_spread", "recommended_controller", "stability_limit", "stationary_law", "tolerance_slope"]

_MARGIN = 1e6  # a margin above this is none


def error_spread(d: int) -> float:
    r"""Standard deviation of ``log E`` for a root mean square over ``d`` independent normal elements, :math:`(2d)^{-1/2}`."""
    return float((2.0 * whole("d", d)) ** -0.5)


@dataclass(frozen=True)
class Loop:
    r"""A controller on errors of power ``k``, as a linear filter.

    With the shift ``w``, gains :math:`G(w) = \sum_j g_j w^j`, :math:`B(w) = \sum_j b_j w^j` and the distance :math:`D = c + \eta`

    .. math:: \log E - \log E^* = \frac{(1 - w)(1 + w B)}{(1 - w)(1 + w B) + k w G}\,D, \qquad
              \log h = \frac{-w G}{(1 - w)(1 + w B) + k w G}\,D .

    For :math:`\theta E^{-r}`: stable for :math:`0 < r < 2/k`, deadbeat at ``1/k``, set-point :math:`\theta^{1/r}`, noise gain
    :math:`2/(2 - rk)`, lag :math:`1/(rk)`.

    Attributes
    ----------
    controller : Controller
        Its clamp is not seen here.
    k : float
    """

    controller: Controller
    k: float

    def _closed(self, scale: float = 1.0) -> tuple[Array, Array, Array]:
        """Denominator, numerator for errors and numerator for steps, coefficients of 1, w, w^2, ..., for gains times ``scale``."""
        gains = np.convolve([0.0, 1.0], np.multiply(self.controller.gains, scale))
        free = np.convolve([1.0, -1.0], [1.0, *self.controller.steps])
        size = max(len(gains), len(free))
        gains, free = (np.pad(v, (0, size - len(v))) for v in (gains, free))
        return free + self.k * gains, free, -gains

    @cached_property
    def poles(self) -> Array:
        """Poles, the largest first: a disturbance dies like their powers; a negative one rings from step to step."""
        found = np.roots(self._closed()[0])
        return np.asarray(found[np.argsort(-np.abs(found))])

    @property
    def stable(self) -> bool:
        """Whether all poles lie inside the unit circle."""
        return bool(np.all(np.abs(self.poles) < 1.0))

    @cached_property
    def margin(self) -> float:
        r"""The factor on all gains at which the loop turns unstable: :math:`2/(rk)` for one gain; below 1 it is unstable as it is."""

        def stable(scale: float) -> bool:
            return bool(np.all(np.abs(np.roots(self._closed(scale)[0])) < 1.0))

        low, high = 1e-6, 1e-6
        if not stable(low):
            return 0.0
        while stable(high):
            low, high = high, 1.25 * high
            if high > _MARGIN:
                return float("inf")
        while high - low > 1e-12 * high:
            middle = 0.5 * (low + high)
            low, high = (middle, high) if stable(middle) else (low, middle)
        return low

    @cached_property
    def noise_gain(self) -> float:
        r"""Variance of ``log E`` over that of its noise, :math:`2/(2 - rk)` for one gain; infinite if unstable."""
        return self._power(1)

    @cached_property
    def step_gain(self) -> float:
        r"""Variance of ``log h`` over that of the noise of ``log E``, :math:`r/(k (2 - rk))` for one gain."""
        return self._power(2)

    def _power(self, which: int) -> float:
        """Sum of the squared impulse response, from the Lyapunov equation of the companion form."""
        if not self.stable:
            return float("inf")
        from scipy.linalg import companion, solve_discrete_lyapunov

        closed = self._closed()
        bottom, top = closed[0], closed[which]
        shift, rest = companion(bottom), top[1:] - top[0] * bottom[1:]
        first = np.eye(len(rest), 1)
        spread = solve_discrete_lyapunov(shift, first @ first.T)
        return float(top[0] ** 2 + rest @ spread @ rest)

    def response(self, frequency: ArrayLike) -> Array:
        """How much of a disturbance of so many cycles a step is left in ``log E``; 1/2 is the fastest."""
        bottom, top, _ = self._closed()
        w = np.exp(-2j * np.pi * np.asarray(frequency, float))
        return np.asarray(np.abs(np.polyval(top[::-1], w) / np.polyval(bottom[::-1], w)))

    @property
    def lag(self) -> float:
        """Steps by which the error trails a distance that grows steadily: ``log E`` is off by the lag times the growth per step."""
        return (1.0 + sum(self.controller.steps)) / (self.k * sum(self.controller.gains))

    def deviation(self, spread: float, drift: float = 0.0) -> float:
        """Standard deviation of ``log E``: noise of standard deviation ``spread``, and a distance that changes by ``drift`` a step either way."""
        return float(np.hypot(np.sqrt(self.noise_gain) * spread, self.lag * drift))

    def rejection(self, spread: float, drift: float = 0.0) -> float:
        r"""Probability of a rejection, :math:`\Phi(\log E^* / \mathrm{std}(\log E))`; rejections themselves are taken to change nothing."""
        from scipy.special import ndtr

        return float(ndtr(np.log(self.controller.target) / self.deviation(spread, drift))) if self.stable else 1.0

    def progress(self, spread: float, drift: float = 0.0) -> float:
        """Time gone per attempt over that of steps with ``E = 1`` each and no rejection: ``(1 - P(reject)) E*^(1/k)``."""
        return (1.0 - self.rejection(spread, drift)) * float(self.controller.target ** (1.0 / self.k))


def control_loop(controller: Controller, k: float = 1.5) -> Loop:
    """The loop of ``controller`` on errors that grow as ``h^k``.

    Raises
    ------
    BadInput
        For a ``k`` that is not positive.
    """
    if not isinstance(controller, Controller):
        raise BadInput(f"controller = {controller!r} must be a Controller, such as sdekit.control.power()")
    return Loop(controller, positive("k", k))


def recommended_controller(k: float, spread: float, drift: float = 0.0, least: float = 0.2, most: float = 5.0) -> Controller:
    r"""The integral controller, gain and set-point apart, with most progress per attempt in the model of :class:`Loop`.

    Noise asks for a small gain, a distance that changes for a large one; the set-point then trades length of steps for rejections.  The gain is at
    most :math:`3/(2k)`, so that errors of power ``4k/3`` leave the loop stable: the two powers of the pair lie that far apart.

    Parameters
    ----------
    k, spread : float
        See :func:`error_spread`.
    drift : float
        Typical change of the log distance per step: about 3 over the number of steps.
    least, most : float
        Clamp of the controller.

    Raises
    ------
    BadInput
        For numbers that are not positive (``drift`` may be 0).
    """
    from scipy.optimize import minimize_scalar

    positive("k", k)
    positive("spread", spread)
    if finite("drift", drift) < 0.0:
        raise BadInput(f"drift = {drift!r} must not be negative: it is a size")

    def best(gain: float) -> tuple[float, float]:
        """Loss, and the target, for a gain."""

        def loss(log_target: float) -> float:
            return -Loop(Controller((gain,), float(np.exp(log_target))), k).progress(spread, drift)

        found = minimize_scalar(loss, bounds=(-3.0 * k, 0.0), method="bounded", options={"xatol": 1e-7})
        return float(found.fun), float(np.exp(found.x))

    ends = 0.02 / k, 1.5 / k
    gain = float(minimize_scalar(lambda r: best(r)[0], bounds=ends, method="bounded", options={"xatol": 1e-5}).x)
    return Controller((gain,), best(gain)[1], (), least, most)


# ---------------------------------------------------------------------------------------------------------------- stationary laws


@dataclass(frozen=True)
class Stationary:
    """What a method makes of the process whose exact law stands still.

    Attributes
    ----------
    factor : float
        Of the state, in one step; ``exp(-u)`` is exact.
    variance : float
        Of its own stationary law over the exact one; infinite where it has none.
    """

    factor: float
    variance: float


def stationary_law(method: Method, u: float) -> Stationary:
    r"""The law that ``method`` settles at on :math:`dx = -\lambda x\,dt + \sigma\,dw` with steps :math:`h = u/\lambda`, from its exact affine map.

    Euler-Maruyama has variance :math:`1/(1 - u/2)`, ``heun(noise=1)`` :math:`(1 - u/2)/(1 - u/2 + u^2/4)`; both are unstable from ``u = 2`` on.  The
    equation is the reverse one of :math:`dz = -\lambda z\,dt + \sqrt{2\lambda}\,dW` on data N(0, 1).

    Parameters
    ----------
    method : Method
        With noise level 1 and no memory, in ``(z, t)``.
    u : float

    Raises
    ------
    BadInput
        For a method with memory or another noise level, or one whose map differs from step to step.
    """
    if method.history or method.noise != 1.0:
        raise BadInput(f"{method} must be a one-step method of the reverse SDE, such as euler_maruyama(), heun(noise=1) or sra()")
    h = positive("u", u)
    process = Process(-1.0, np.sqrt(2.0), T=1.0 + 2.0 * h, name="stationary")
    factors, variances = [], []
    for t in (1.0 + h, 1.0 + 2.0 * h):
        step = probe(assemble(process, [Run(method, (t, t - h))]), np.zeros(1), np.ones(1))
        factors.append(float(step.matrix[0, 0, 0]))
        variances.append(float(np.sum(step.noise[0, :, 0] ** 2)))
    if not np.allclose(factors[0], factors[1], rtol=1e-9, atol=1e-9):
        raise BadInput(f"{method} treats this stationary process differently at different times: it has no stationary law of its own")
    factor = factors[0]
    return Stationary(factor, variances[0] / ((1.0 - factor) * (1.0 + factor)) if abs(factor) < 1.0 else float("inf"))


def stability_limit(method: Method, most: float = 100.0) -> float:
    """The step ``u`` from where on ``method`` has no stationary law; ``most`` if there is none below."""
    from scipy.optimize import brentq

    def excess(u: float) -> float:
        return abs(stationary_law(method, u).factor) - 1.0

    for low, high in pairwise(np.linspace(0.05, most, int(20 * most))):
        if excess(high) >= 0.0:
            return float(brentq(excess, low, high, xtol=1e-13))
    return float(most)


# ---------------------------------------------------------------------------------------------------------------- proportionality


def tolerance_slope(rtol: ArrayLike, values: Sequence[float] | Array) -> tuple[float, float]:
    """Slope of ``log values`` against ``log rtol`` by least squares, and its standard error: of errors 1 is proportional, of calls ``-1/k``.

    Raises
    ------
    BadInput
        Unless there are at least three positive pairs.
    """
    x, y = np.asarray(rtol, float), np.asarray(values, float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3 or not (np.all(x > 0.0) and np.all(y > 0.0)):
        raise BadInput("a slope needs at least three tolerances and as many values, all positive")
    x, y = np.log(x) - np.mean(np.log(x)), np.log(y) - np.mean(np.log(y))
    slope = float(x @ y / (x @ x))
    return slope, float(np.sqrt(np.sum((y - slope * x) ** 2) / (len(x) - 2) / (x @ x)))
