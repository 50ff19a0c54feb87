r"""Step-size control: which pair of results measures the error, against which tolerance, and how the error sets the next step.

A step of a method with an *embedded* second result gives two states, :math:`z''` and :math:`z'`; their difference, over the tolerance

.. math:: \delta = \max(a, r \max(|z'|, |z'_{prev}|)) \qquad\text{(elementwise)},

is the error ``E``, a norm over one sample.  The step is accepted where :math:`E \le 1`, and the next is :math:`h\,\phi(E)`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._array import namespace
from .errors import BadInput, finite, positive, unknown, whole
from .methods import Method, heun, lamba

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

__all__ = ["Control", "Controller", "Past", "adaptive", "filtered", "gotta_go_fast", "power"]

_NORMS = ("rms", "l2", "max")
_ESTIMATES = ("strong", "drift", "residual")
_NOISES = ("path", "retain", "redraw")
_SCALES = ("element", "sample")
_SMALLEST = 1e-300


@dataclass(frozen=True)
class Controller:
    r"""The factor of the next step as a filter on the logarithms of past errors and past steps; a pure function.

    .. math:: \log\frac{h_{n+1}}{h_n} = \sum_j g_j \log\frac{E^*}{E_{n-j}} - \sum_j b_j \log\frac{h_{n-j}}{h_{n-j-1}},

    clamped to [least, most].  One gain is integral control, two PI, three PID; the gains on steps make Soederlind's digital filters.

    Attributes
    ----------
    gains : tuple of float
        :math:`g_0, g_1, \dots`.
    target : float
        The set-point :math:`E^*` in (0, 1].
    steps : tuple of float
        :math:`b_0, \dots`: gains on the ratios of the steps before.
    least, most : float
        Clamp of the factor.
    """

    gains: tuple[float, ...]
    target: float
    steps: tuple[float, ...] = ()
    least: float = 0.0
    most: float = float("inf")

    def __post_init__(self) -> None:
        if not self.gains or sum(map(float, self.gains)) <= 0.0:
            raise BadInput(f"gains = {self.gains!r} must have a positive sum: a larger error makes a smaller step")
        for value in (*self.gains, *self.steps):
            finite("gain", value)
        if not 0.0 < positive("target", self.target) <= 1.0:
            raise BadInput(f"target = {self.target!r} must lie in (0, 1]: at an error of 1 a step is rejected")
        if not 0.0 <= self.least < 1.0 < self.most:
            raise BadInput(f"least = {self.least!r} and most = {self.most!r} must satisfy 0 <= least < 1 < most")

    @property
    def depth(self) -> int:
        """How many errors and ratios of steps it looks back at, the present error included."""
        return max(len(self.gains), len(self.steps))

    def factor(self, errors: Array, ratios: Array, accepted: Mask) -> Array:
        """The factor of the step.

        Parameters
        ----------
        errors : array (depth, n)
            The error now, then those of the accepted steps before; not-a-number where there is none yet.
        ratios : array (depth, n)
            ``h_n / h_(n-1)`` of the accepted steps, the newest first; 1 where there is none yet.
        accepted : bool array (n,)
            Where False, the sum of the gains acts on the error now alone, and nothing on what was before.
        """
        logs = np.log(self.target) - np.log(np.maximum(errors[: len(self.gains)], _SMALLEST))
        # term by term: a sample's factor has the same bits whatever is beside it
        filtered = np.zeros(errors.shape[1:])
        for gain, log in zip(self.gains, np.where(np.isnan(logs), 0.0, logs), strict=True):
            filtered = filtered + gain * log
        for gain, log in zip(self.steps, np.log(ratios[: len(self.steps)]), strict=True):
            filtered = filtered - gain * log
        made = np.where(accepted, filtered, sum(self.gains) * logs[0])
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray(np.clip(np.exp(made), self.least, self.most))


class Past(NamedTuple):
    """What controllers remember of accepted steps, the newest first: errors and ratios (depth, n), and the last step (n,), not-a-number before."""

    errors: Array
    ratios: Array
    last: Array

    def after(self, controller: Controller, h: Array, error: Array, accepted: Mask) -> tuple[Array, Past]:
        """The factor of the next step after one of length ``h``, and what is remembered then."""
        seen = np.concatenate([error[None], self.errors[:-1]])
        ratios = np.concatenate([np.where(np.isnan(self.last), 1.0, h / self.last)[None], self.ratios[:-1]])
        with np.errstate(over="ignore", invalid="ignore"):
            factor = controller.factor(seen, ratios, accepted)
        return factor, Past(np.where(accepted, seen, self.errors), np.where(accepted, ratios, self.ratios), np.where(accepted, h, self.last))


def power(theta: float = 0.9, r: float = 0.9, least: float = 0.0, most: float = float("inf")) -> Controller:
    r"""The published law :math:`\theta E^{-r}`: the gain ``r`` and the set-point :math:`E^* = \theta^{1/r}`, without a clamp.

    Raises
    ------
    BadInput
        Unless :math:`0 < \theta \le 1` and ``r > 0``.
    """
    return Controller((positive("r", r),), positive("theta", theta) ** (1.0 / r), (), least, most)


def filtered(k: float = 1.5, target: float = 0.8, kind: str = "pi", least: float = 0.2, most: float = 5.0) -> Controller:
    r"""Controllers for an error :math:`E \propto h^k`, with set-point and gain apart.

    Parameters
    ----------
    k : float
        3/2 where the noise makes the error, 2 where the drift does (``heun``); ``q + 1`` for an embedded result of order ``q``.
    target : float
    kind : {"i", "pi", "pid", "h211b"}
        ``i``: deadbeat, :math:`1/k`.  ``pi``: :math:`(0.7, -0.4)/k`.  ``pid``: :math:`(1, -0.5, 0.1)/(1.7 k)`.  ``h211b``: Soederlind's
        filter, :math:`(1, 1)/(4k)` and 1/4 on the last ratio.

    Raises
    ------
    BadInput
        For another kind, or a ``k`` that is not positive.

    References
    ----------
    Soederlind 2003, "Digital filters in adaptive time-stepping"; Hairer and Wanner 1996, IV.2.
    """
    positive("k", k)
    gains: dict[str, tuple[float, ...]] = {"i": (1.0,), "pi": (0.7, -0.4), "pid": (1.0 / 1.7, -0.5 / 1.7, 0.1 / 1.7), "h211b": (0.25, 0.25)}
    if kind not in gains:
        raise unknown("kind of controller", kind, gains)
    return Controller(tuple(g / k for g in gains[kind]), target, (0.25,) if kind == "h211b" else (), least, most)


@dataclass(frozen=True)
class Control:
    """All that an adaptive run needs beside the process and the model.

    Attributes
    ----------
    method : Method
        A one-step method whose rows have an embedded result.
    rtol, atol : float
        Tolerances, of the state's own units.
    controller : Controller
    norm : {"rms", "l2", "max"}
        Over the elements of one sample, all blocks: root mean square, Euclidean without a mean, or the largest.
    scale : {"element", "sample"}
        What ``rtol`` is relative to: each element, or the root mean square of its block in the sample, so that elements near 0 do not count more.
    extrapolate : bool
        The new state is the method's result; else the embedded one, and the two change places in the tolerance.
    previous : bool
        Whether the tolerance knows the other result of the last accepted step.
    noise : {"path", "retain", "redraw"}
        What an attempt after a rejection sees: the same Brownian path (exact bridges); the same normals, scaled to the new step; or fresh ones.
        The last two are biased, the more so the fewer the elements: in one dimension by factors of 1.35 and 2.33 in variance at ``rtol=0.05``.
    estimate : {"strong", "drift", "residual"}
        The error as it is; without what the step's normals put into it directly; or without its component along the normals (the
        regression over the elements), which leaves the part that matters for the law alone.
    noiseless : bool
        The tolerance is of the results without the noise of the step.
    reject : bool
        False: every attempt is accepted, and the error sets only the next step, so that steps depend on the past alone.
    reuse : bool
        Whether a call at the same state and time is made once: after a rejection, or where a method's last stage is its result.
    denoise : {"exact", "published"}
        Runs that do not end at time 0 end with one more call: the denoised data, or those times ``psi`` of the last time.
    h_init, h_min : float
        The first step, and the smallest that may be tried again, in units of the process's ``T``.
    nfe : int
        Most calls of a sample.
    seconds : float
        Most seconds of the whole run.
    refill : bool
        Whether a slot that is free takes the next sample at once; else when all slots of the batch are free.
    """

    method: Method
    rtol: float
    atol: float
    controller: Controller
    norm: str = "rms"
    scale: str = "element"
    extrapolate: bool = True
    previous: bool = True
    noise: str = "path"
    estimate: str = "strong"
    noiseless: bool = False
    reject: bool = True
    reuse: bool = True
    denoise: str = "exact"
    h_init: float = 0.01
    h_min: float = 1e-10
    nfe: int = 100_000
    seconds: float = float("inf")
    refill: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.method, Method):
            raise BadInput(f"method = {self.method!r} must be a method, such as sdekit.methods.heun(noise=1)")
        if not isinstance(self.controller, Controller):
            raise BadInput(f"controller = {self.controller!r} must be a Controller, such as sdekit.control.power()")
        for name, known in (("norm", _NORMS), ("scale", _SCALES), ("noise", _NOISES), ("estimate", _ESTIMATES), ("denoise", ("exact", "published"))):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        if finite("rtol", self.rtol) < 0.0 or positive("atol", self.atol) <= 0.0:
            raise BadInput(f"rtol = {self.rtol!r} must not be negative")
        positive("h_init", self.h_init)
        positive("h_min", self.h_min)
        whole("nfe", self.nfe)
        if not self.seconds > 0.0:
            raise BadInput(f"seconds = {self.seconds!r} must be positive")
        if self.method.noisy and self.noise == "path" and self.method.orders.strong is None and self.method.exact_noise is None:
            raise BadInput(
                f"{self.method} does not say which functionals of a Brownian path its normals are: take heun(noise=1), sra(), lamba(), "
                "dpm_solver(2, of='data', noise=1), an ODE method, or noise='redraw' with its bias"
            )

    def measure(self, error: list[Any], new: list[Any], old: list[Any], normals: list[Any]) -> Any:
        """The error ``E`` of each sample, (n,), where the arrays are: the one number of a sample that leaves its device.

        Parameters
        ----------
        error : k arrays (n, *event)
            The difference of the two results.
        new, old : k arrays
            The other result, of this step and of the last accepted one.
        normals : arrays (n, *event)
            Of the step.
        """
        xp, n = namespace(error[0]), error[0].shape[0]
        parts = []
        for difference, one, two in zip(error, new, old, strict=True):
            e = difference.reshape((n, -1))
            for xi in normals if self.estimate == "residual" else ():
                flat = xi.reshape((n, -1))
                e = e - (xp.sum(e * flat, axis=1) / xp.sum(flat * flat, axis=1))[:, None] * flat
            sizes = [xp.abs(value.reshape((n, -1))) for value in ((one, two) if self.previous else (one,))]
            if self.scale == "sample":
                sizes = [xp.sqrt(xp.mean(size * size, axis=1))[:, None] for size in sizes]
            parts.append(e / xp.clip(self.rtol * reduce(xp.maximum, sizes), self.atol, None))
        e = xp.concat(parts, axis=1)
        if self.norm == "max":
            return xp.max(xp.abs(e), axis=1)
        return xp.sqrt(xp.mean(e * e, axis=1) if self.norm == "rms" else xp.sum(e * e, axis=1))

    def with_(self, **changes: object) -> Control:
        """The same control with some attributes changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


def gotta_go_fast(
    rtol: float = 0.02,
    atol: float = 1.0 / 128.0,
    *,
    published: bool = False,
    lamba_pair: bool = False,
    extrapolate: bool = True,
    noise: float = 1.0,
    r: float = 0.9,
    theta: float = 0.9,
) -> Control:
    r"""The stochastic improved Euler pair of "Gotta Go Fast": ``heun(noise=1)`` against Euler-Maruyama, two calls an attempt.

    Parameters
    ----------
    rtol : float
        0.01 (precise), 0.02, 0.05, 0.1 (fast).
    atol : float
        One level of 8 bits: 1/128 for data in [-1, 1], 1/256 for data in [0, 1].
    published : bool
        Everything as in the paper and its code: fresh normals after a rejection, the first call repeated, steps without a clamp, and the
        last call's data times ``psi``.  Its law is wrong: in one dimension at ``rtol=0.05`` the variance is 2.3 times the data's on VP, in
        256 dimensions 1.01 times.  Without a clamp an error that is small by chance is followed by a step of any length: in one dimension on VE
        one sample in some ten thousand ends fifty deviations away.  Otherwise the same control on an exact Brownian path, growth by at most 5.
    lamba_pair : bool
        Lamba's pair instead: the noise does not enter the second call, nor the tolerance.
    extrapolate : bool
        False: the Euler-Maruyama result is the new state.
    noise : float
        Noise level of the reverse equation; 0 is the probability-flow ODE.
    r, theta : float
        The next step is :math:`\theta h E^{-r}`.

    References
    ----------
    Jolicoeur-Martineau et al. 2021, arXiv:2105.14080; Roberts 2012, arXiv:1210.0933; Lamba 2003.
    """
    method = lamba(noise) if lamba_pair else heun(noise)
    made = Control(method, rtol, atol, power(theta, r, most=5.0), extrapolate=extrapolate, noiseless=lamba_pair)
    if not published:
        return made
    return replace(made, controller=power(theta, r), noise="redraw", reuse=False, denoise="published")


def adaptive(
    method: Method, rtol: float = 1e-2, atol: float = 1e-3, *, controller: Controller | None = None, k: float | None = None, **options: object
) -> Control:
    """Control of any one-step method with an embedded result.

    Parameters
    ----------
    method : Method
        ``heun(noise=1)``, ``sra()``, ``dpm_solver(2, of="data", noise=1)``, ``seeds(2)``; for the ODE ``heun()``,
        ``runge_kutta("bogacki_shampine")``, ``runge_kutta("dormand_prince")``, ``dpm_solver(2)``, ``dpm_solver(3)``, ``exponential_rk(2)``,
        ``rho_rk("dormand_prince")``.
    rtol, atol : float
    controller : Controller, optional
        ``filtered(k)`` when absent.
    k : float, optional
        The power of the step in the error; 3/2 with noise and the order of the method without when absent.
    **options
        Other attributes of :class:`Control`.

    Raises
    ------
    BadInput
        For a method with noise that is not known as a functional of the path, or bad numbers.
    """
    if not isinstance(method, Method):
        raise BadInput(f"method = {method!r} must be a method, such as sdekit.methods.heun()")
    power_of_h = 1.5 if method.noisy else float(method.orders.ode or 1.0)
    return Control(method, rtol, atol, filtered(power_of_h if k is None else k) if controller is None else controller, **options)  # type: ignore[arg-type]
