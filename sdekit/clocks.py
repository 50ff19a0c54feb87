r"""Clocks: the speed :math:`\beta(t) \ge 0` at which a process runs, with its integral and inverse: closed forms, or any formula by quadrature.

A recipe is written in the *unit clock* :math:`B`; in time it reads :math:`dz = \beta(t) F z\,dt + \sqrt{\beta(t)} G\,dW`, and every kernel
depends on time only through :math:`B(t) = \int_0^t \beta`.  All formulas are free of cancellation, so that small times keep their digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import BadInput, finite, positive

Array = NDArray[np.float64]

__all__ = ["Clock", "Cosine", "Exponential", "Expression", "Linear", "constant", "cosine", "exponential", "expression", "linear"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_NODES, _WEIGHTS = 0.5 * (_NODES + 1.0), 0.5 * _WEIGHTS
_PANELS = 4000  # most panels of a quadrature; a rate that needs more is no schedule


@runtime_checkable
class Clock(Protocol):
    """What a process needs of a clock: the rate, its integral from 0, the inverse of that integral, and the end ``T``."""

    @property
    def T(self) -> float:
        """The end."""
        ...

    def rate(self, t: ArrayLike) -> Array:
        """The rate at ``t``."""
        ...

    def integral(self, t: ArrayLike) -> Array:
        """``B(t)``."""
        ...

    def inverse(self, B: ArrayLike) -> Array:
        """``t`` with ``B(t) = B``."""
        ...


class _Record:
    """Shared by the clock records: fields may be expressions in a recipe's parameters until ``resolve`` makes them numbers."""

    def resolve(self, number: Callable[[Any], Any] = lambda value: value) -> Self:
        """A copy whose fields went through ``number``, are floats, and are checked."""
        values: dict[str, Any] = {f.name: finite(f.name, number(getattr(self, f.name))) for f in fields(self)}  # type: ignore[arg-type]
        made = replace(self, **values)  # type: ignore[type-var]
        made.check()
        return made

    def check(self) -> None:
        """Raise BadInput unless the end is positive."""
        positive("T", self.T)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Linear(_Record):
    r""":math:`\beta(t) = \beta_{min} + (\beta_{max} - \beta_{min})\, t/T`."""

    beta_min: float
    beta_max: float
    T: float = 1.0

    def check(self) -> None:
        """Raise BadInput unless the rate is nonnegative and not identically zero."""
        super().check()
        low, high = finite("beta_min", self.beta_min), finite("beta_max", self.beta_max)
        if low < 0.0 or high < 0.0 or low + high == 0.0:
            raise BadInput(f"beta_min = {low:g}, beta_max = {high:g}: a clock must not run backwards or stand still; give nonnegative rates")

    def rate(self, t: ArrayLike) -> Array:
        """The rate at ``t``."""
        return np.asarray(self.beta_min + (self.beta_max - self.beta_min) * (np.asarray(t, float) / self.T))

    def integral(self, t: ArrayLike) -> Array:
        """``B(t)``."""
        t = np.asarray(t, float)
        return np.asarray(t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * (t / self.T)))

    def inverse(self, B: ArrayLike) -> Array:
        """``t`` with ``B(t) = B``; not-a-number where the clock never gets there."""
        B = np.asarray(B, float)
        root = np.sqrt(self.beta_min**2 + 2.0 * (self.beta_max - self.beta_min) * (B / self.T))
        return np.asarray(np.divide(2.0 * B, self.beta_min + root, out=np.zeros_like(B), where=B != 0.0))


@dataclass(frozen=True)
class Exponential(_Record):
    r""":math:`\beta(t) = \beta_{min} (\beta_{max}/\beta_{min})^{t/T}`: variance-exploding noise, whose standard deviation grows geometrically."""

    beta_min: float
    beta_max: float
    T: float = 1.0

    def check(self) -> None:
        """Raise BadInput unless both rates are positive and differ."""
        super().check()
        low, high = finite("beta_min", self.beta_min), finite("beta_max", self.beta_max)
        if low <= 0.0 or high <= 0.0:
            raise BadInput(f"beta_min = {low:g}, beta_max = {high:g}: an exponential clock needs positive rates")
        if low == high:
            raise BadInput(f"beta_min = beta_max = {low:g}: this clock is constant; use kind = 'constant'")

    @property
    def _growth(self) -> float:
        return float(np.log(self.beta_max / self.beta_min)) / self.T

    def rate(self, t: ArrayLike) -> Array:
        """The rate at ``t``."""
        return np.asarray(self.beta_min * np.exp(self._growth * np.asarray(t, float)))

    def integral(self, t: ArrayLike) -> Array:
        """``B(t)``."""
        return np.asarray(self.beta_min * np.expm1(self._growth * np.asarray(t, float)) / self._growth)

    def inverse(self, B: ArrayLike) -> Array:
        """``t`` with ``B(t) = B``."""
        return np.asarray(np.log1p(self._growth * np.asarray(B, float) / self.beta_min) / self._growth)


@dataclass(frozen=True)
class Cosine(_Record):
    r""":math:`e^{-B(t)} = \cos^2\frac{\pi(t+s)}{2(1+s)} \big/ \cos^2\frac{\pi s}{2(1+s)}` (Nichol, Dhariwal 2021); ``T < 1`` clips the pole at 1."""

    s: float = 0.008
    T: float = 0.9999

    def check(self) -> None:
        """Raise BadInput unless ``s > 0`` and ``0 < T < 1``."""
        super().check()
        if finite("s", self.s) <= 0.0 or self.T >= 1.0:
            raise BadInput(f"cosine clock: s = {self.s!r} must be positive and T = {self.T!r} below 1, where the rate is infinite")

    @property
    def _half(self) -> float:
        return 0.5 * float(np.pi) / (1.0 + self.s)

    def rate(self, t: ArrayLike) -> Array:
        """The rate at ``t``."""
        return np.asarray(2.0 * self._half * np.tan(self._half * (np.asarray(t, float) + self.s)))

    def integral(self, t: ArrayLike) -> Array:
        """``B(t)``."""
        step = self._half * np.asarray(t, float)
        return np.asarray(-2.0 * np.log1p(-(2.0 * np.sin(step / 2.0) ** 2 + np.tan(self._half * self.s) * np.sin(step))))

    def inverse(self, B: ArrayLike) -> Array:
        """``t`` with ``B(t) = B``."""
        lost = -np.expm1(-0.5 * np.asarray(B, float))
        low, high = np.sin(self._half * self.s), np.cos(self._half * self.s)
        gain = high**2 * lost * (2.0 - lost)
        return np.asarray(np.arcsin(high * (gain / (np.sqrt(low**2 + gain) + low) + low * lost)) / self._half)


@dataclass(frozen=True)
class Expression(_Record):
    r""":math:`\beta(t)` by a formula: ``beta`` is a sympy ``Lambda`` of the time, whose other symbols are parameters; see :func:`expression`.

    The integral is a Gauss-Legendre quadrature on panels that shrink towards 0 by halves.  A closed form would not do better: the weights and the
    rate are nonnegative, so that nothing cancels, while an antiderivative is a difference that loses small times.
    """

    beta: Any
    T: float = 1.0

    def resolve(self, number: Callable[[Any], Any] = lambda value: value) -> Self:
        """A copy with numbers in the place of parameters, checked."""
        made = replace(self, beta=number(self.beta), T=finite("T", number(self.T)))
        made.check()
        return made

    def check(self) -> None:
        """Raise BadInput unless the rate is finite and nonnegative on [0, T], and not zero everywhere."""
        super().check()
        _ = self._table

    @property
    def _table(self) -> _Table:
        return _table(self)

    def rate(self, t: ArrayLike) -> Array:
        """The rate at ``t``."""
        return self._table.rate(np.asarray(t, float))

    def integral(self, t: ArrayLike) -> Array:
        """``B(t)``; not-a-number outside [0, T]."""
        t = np.asarray(t, float)
        edges, sums, _ = table = self._table
        inside = (t >= 0.0) & (t <= self.T * (1.0 + 1e-12))
        at = np.where(inside, np.minimum(t, self.T), 0.0)
        i = np.clip(np.searchsorted(edges, at, "right") - 1, 0, len(edges) - 2)
        return np.asarray(np.where(inside, sums[i] + table.part(edges[i], at), np.nan))

    def inverse(self, B: ArrayLike) -> Array:
        """``t`` with ``B(t) = B``; not-a-number where the clock never gets there."""
        B = np.asarray(B, float)
        edges, sums, _ = table = self._table
        total = sums[-1]
        top = total * (1.0 + 1e-12)
        moving = (B > 0.0) & (top >= B)
        out = np.where(B == 0.0, 0.0, np.full(B.shape, np.nan))
        wanted = np.minimum(B[moving], total)
        i = np.clip(np.searchsorted(sums, wanted, "left") - 1, 0, len(edges) - 2)
        out[moving] = table.solve(edges[i], edges[i + 1], wanted - sums[i])
        return np.asarray(out)


class _Table(NamedTuple):
    """Panels of a quadrature: their edges, the integral up to each edge, and the rate."""

    edges: Array
    sums: Array
    function: Callable[[Array], Array]

    def rate(self, t: Array) -> Array:
        """The rate, without the rounding that makes a zero negative."""
        return np.asarray(np.maximum(self.function(t), 0.0))

    def part(self, a: Array, t: Array) -> Array:
        """The integral from ``a`` to ``t`` of the same panel."""
        width = t - a
        return np.asarray(width * (self.rate(a[..., None] + width[..., None] * _NODES) @ _WEIGHTS))

    def solve(self, a: Array, b: Array, rest: Array) -> Array:
        """``t`` in (a, b] with ``part(a, t) = rest``: Newton in a bracket; on logarithms in the first panel, where the rate may be a power."""
        first = a == 0.0
        low, high = np.where(first, 1e-300 * b, a), b
        t = a + (b - a) * np.clip(rest / self.part(a, b), 0.0, 1.0)
        t = np.where((t > low) & (t <= high), t, high)
        for _ in range(200):
            found, slope = self.part(a, t), self.rate(t)
            low, high = np.where(found < rest, t, low), np.where(found >= rest, t, high)
            with np.errstate(all="ignore"):
                new = np.where(first, t * (rest / found) ** (found / (t * slope)), t - (found - rest) / slope)
            middle = np.where(first, np.sqrt(low) * np.sqrt(high), 0.5 * (low + high))
            new = np.where((new >= low) & (new <= high), new, middle)
            done = np.abs(new - t) <= 4e-16 * t
            t = new
            if np.all(done):
                break
        return np.asarray(t)


@lru_cache(maxsize=64)
def _table(clock: Expression) -> _Table:
    """The quadrature of a clock, refined until halving a panel changes the integral up to it by less than 2e-15."""
    function = _function(clock)
    T = clock.T
    _checked(clock, function, np.linspace(0.0, T, 2049))
    edges = np.unique(np.concatenate([T * 0.5 ** np.arange(64.0), np.linspace(0.0, T, 33)]))
    for _ in range(60):
        table = _Table(edges, edges, function)
        a, b = edges[:-1], edges[1:]
        middle = 0.5 * (a + b)
        _checked(clock, function, (a[:, None] + (b - a)[:, None] * _NODES).ravel())
        parts = table.part(a, middle) + table.part(middle, b)
        sums = np.concatenate([[0.0], np.cumsum(parts.astype(np.longdouble)).astype(float)])
        rough = (np.abs(table.part(a, b) - parts) > 2e-15 * sums[1:]) & (middle > a) & (middle < b)
        rough[0] = False  # [0, 1e-19 T]: exact for smooth rates; for sqrt(t) it would halve forever, and its error is lost in what follows
        if not rough.any():
            return _Table(edges, sums, function)
        edges = np.sort(np.concatenate([edges, middle[rough]]))
        if len(edges) > _PANELS:
            break
    raise BadInput(f"clock.rate = {clock.beta.expr} changes too fast on [0, {T:g}] to be integrated; give a smoother formula")


def _function(clock: Expression) -> Callable[[Array], Array]:
    from .numeric import numeric

    try:
        run = numeric(clock.beta.variables, [clock.beta.expr])
    except (TypeError, OverflowError):
        raise BadInput(f"clock.rate = {clock.beta.expr} is not a real number") from None

    def function(t: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(np.broadcast_to(run(t)[0], t.shape), float)

    return function


def _checked(clock: Expression, function: Callable[[Array], Array], t: Array) -> None:
    """Raise BadInput unless the rate is finite, nonnegative and somewhere positive at the times ``t``."""
    values = function(t)
    bad = np.flatnonzero(~np.isfinite(values) | (values < -1e-12 * np.max(np.abs(values), initial=0.0, where=np.isfinite(values))))
    if len(bad):
        raise BadInput(f"clock.rate = {clock.beta.expr} is {values[bad[0]]:g} at t = {t[bad[0]]:g}; it must be finite and nonnegative on [0, T]")
    if not np.any(values > 0.0):
        raise BadInput(f"clock.rate = {clock.beta.expr} is zero on all of [0, {clock.T:g}]; a clock must not stand still")


def constant(beta: float = 1.0, T: float = 1.0) -> Linear:
    """The clock with rate ``beta``."""
    return linear(beta, beta, T)


def linear(beta_min: float, beta_max: float, T: float = 1.0) -> Linear:
    r""":math:`\beta` from ``beta_min`` at 0 to ``beta_max`` at ``T``, linearly.

    Raises
    ------
    BadInput
        If a rate is negative, both are zero, or ``T`` is not positive.
    """
    return Linear(beta_min, beta_max, T).resolve()


def exponential(beta_min: float, beta_max: float, T: float = 1.0) -> Exponential:
    r""":math:`\beta` from ``beta_min`` at 0 to ``beta_max`` at ``T``, geometrically.

    Raises
    ------
    BadInput
        If a rate is not positive, the rates are equal, or ``T`` is not positive.
    """
    return Exponential(beta_min, beta_max, T).resolve()


def cosine(s: float = 0.008, T: float = 0.9999) -> Cosine:
    """The cosine schedule with offset ``s``.

    Raises
    ------
    BadInput
        If ``s`` is not positive or ``T`` is not in (0, 1).
    """
    return Cosine(s, T).resolve()


def expression(rate: Any, t: Any, T: Any = 1.0) -> Expression:
    r""":math:`\beta` by a sympy expression in the symbol ``t``.

    Parameters
    ----------
    rate : expression or number
        Its other symbols are parameters of the recipe; the clock is then checked when they get their values.
    t : Symbol
    T : number or expression in parameters

    Raises
    ------
    BadInput
        Unless the rate is finite and nonnegative on [0, T] (tried on a dense set of times) and not zero everywhere.

    Examples
    --------
    >>> import sympy as sp, sdekit as sk
    >>> t = sp.Symbol("t")
    >>> sk.clocks.expression(8 * (1 + t)**2, t).integral(1.0).round(12)
    np.float64(18.666666666667)
    """
    import sympy as sp

    if not isinstance(t, sp.Symbol):
        raise BadInput(f"t = {t!r} must be the sympy symbol of the time")
    if isinstance(rate, int | float | np.number) and not isinstance(rate, bool):
        rate = sp.Rational(repr(finite("rate", rate)))
    if not isinstance(rate, sp.Expr) or isinstance(T, str):
        raise BadInput(f"rate = {rate!r} and T = {T!r} must be sympy expressions or numbers (text belongs into a spec file, which parses it safely)")
    exact = {number: sp.Rational(repr(float(number))) for number in rate.atoms(sp.Float)}
    time = sp.Symbol("t", nonnegative=True)
    made = Expression(sp.Lambda(time, rate.xreplace({**exact, t: time})), T)
    open_ = made.beta.free_symbols | getattr(T, "free_symbols", set())
    return made if open_ else made.resolve()
