r"""Clocks: the speed :math:`\beta(t) \ge 0` at which a process runs, with its integral and inverse in closed form.

A recipe is written in the *unit clock* :math:`B`; in time it reads :math:`dz = \beta(t) F z\,dt + \sqrt{\beta(t)} G\,dW`, and every kernel
depends on time only through :math:`B(t) = \int_0^t \beta`.  All formulas are free of cancellation, so that small times keep their digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import BadInput, finite, positive

Array = NDArray[np.float64]

__all__ = ["Clock", "Cosine", "Exponential", "Linear", "constant", "cosine", "exponential", "linear"]


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
