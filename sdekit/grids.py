r"""Grids: recipes for decreasing times, laid in the noise level :math:`\sigma_{eff}` or in time, resolved by ``grid.times(process)``.

``n`` is always the number of steps.  Time 0 is the data: a grid that ends there denoises in its last step, one that ends above does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import BadInput, finite, positive, whole
from .process import Process

Array = NDArray[np.float64]

_FIRST = 1e-5  # where a process that starts with noise (ve) is left for the data, in units of T

__all__ = ["Grid", "karras", "logsnr", "quadratic", "sigmas", "times", "uniform"]


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


@dataclass(frozen=True)
class _Levels:
    """Levels by a rule, then times through ``process.time_of``."""

    rule: str
    n: int
    sigma_min: float
    sigma_max: float
    rho: float
    zero: bool

    def times(self, process: Process) -> Array:
        """The times on ``process``; the highest level is capped at what the process reaches."""
        bottom = max(self.sigma_min, float(process.sigma_eff(_FIRST * process.T)) if process.sigma_eff(0.0) > 0.0 else 0.0)
        top = min(self.sigma_max, float(process.sigma_eff(process.T)))
        if bottom >= top:
            raise BadInput(f"sigma_min = {bottom:g} is not below the highest level {top:g} of process {process.name!r}")
        count = self.n if self.zero else self.n + 1
        if self.rule == "karras":
            levels = np.linspace(top ** (1.0 / self.rho), bottom ** (1.0 / self.rho), count) ** self.rho
        else:
            levels = np.exp(np.linspace(np.log(top), np.log(bottom), count))
        levels[0] = top
        if count > 1:
            levels[-1] = bottom
        made = process.time_of(levels)
        return np.append(made, 0.0) if self.zero else made


@dataclass(frozen=True)
class _Times:
    """Times by a rule in ``t``."""

    power: float
    n: int
    end: float | None

    def times(self, process: Process) -> Array:
        """The times on ``process``."""
        T = process.T
        end = 1e-3 * T if self.end is None else self.end
        if not 0.0 <= end < T:
            raise BadInput(f"end = {end:g} must lie in [0, T) with T = {T:g} of process {process.name!r}")
        ramp = np.linspace(1.0, 0.0, self.n + 1) ** self.power
        made = end + (T - end) * ramp
        made[0] = T
        return made


@dataclass(frozen=True)
class _Given:
    """Times, or levels, that the user wrote down."""

    values: tuple[float, ...]
    levels: bool

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
    return _levels("karras", n, sigma_min, sigma_max, rho, zero)


def logsnr(n: int = 20, sigma_min: float = 0.002, sigma_max: float = 80.0, zero: bool = False) -> Grid:
    """Levels uniform in ``log sigma_eff``; parameters as for :func:`karras`."""
    return _levels("logsnr", n, sigma_min, sigma_max, 1.0, zero)


def _levels(rule: str, n: int, sigma_min: float, sigma_max: float, rho: float, zero: bool) -> Grid:
    low, high = positive("sigma_min", sigma_min), positive("sigma_max", sigma_max)
    if low >= high:
        raise BadInput(f"sigma_min = {low:g} must be below sigma_max = {high:g}")
    return _Levels(rule, whole("n", n), low, high, positive("rho", rho), bool(zero))


def uniform(n: int = 100, end: float | None = None) -> Grid:
    """``n`` equal steps in time from ``T`` to ``end`` (``T / 1000`` when absent)."""
    return _Times(1.0, whole("n", n), None if end is None else finite("end", end))


def quadratic(n: int = 100, end: float | None = None) -> Grid:
    r"""``n`` steps in time that shrink towards the data, :math:`t_i = t_{end} + (T - t_{end})(1 - i/n)^2`."""
    return _Times(2.0, whole("n", n), None if end is None else finite("end", end))


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
