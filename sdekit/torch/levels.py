r"""Where in time the pairs of a training step lie: laws of the time ``t``, each drawn by inverting its distribution function.

A law of :math:`\ln\sigma_{eff}` and one of ``t`` are the same thing, because :math:`\sigma_{eff}` increases with ``t``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BadInput, finite, positive, unknown
from ..kernel import solve_lower
from ..process import Process

Array = NDArray[np.float64]

__all__ = ["Importance", "Levels", "LogNormal", "Uniform", "levels_of"]

_MESH = 2048  # times of a table, even in ln t
_LOWEST = 1e-8  # of T: where the table of a law in sigma begins


class Levels(Protocol):
    """A law of the time."""

    kind: ClassVar[str]

    def draw(self, process: Process, uniforms: ArrayLike) -> tuple[Array, Array]:
        """Times (n,) for numbers (n,) in (0, 1), and the factors (n,) by which their losses count."""
        ...


@dataclass(frozen=True)
class LogNormal:
    r""":math:`\ln\sigma_{eff} \sim N(m, s^2)`, cut to the levels of the process: the same levels on every process (Karras et al. 2022, Table 1)."""

    kind: ClassVar[str] = "log_normal"
    mean: float = -1.2
    deviation: float = 1.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", finite("mean", self.mean))
        object.__setattr__(self, "deviation", positive("deviation", self.deviation))

    def draw(self, process: Process, uniforms: ArrayLike) -> tuple[Array, Array]:
        """See :class:`Levels`; every factor is 1."""
        mesh, below = _log_normal(process, self.mean, self.deviation)
        t = np.exp(np.interp(_between(uniforms), below, mesh))
        return t, np.ones_like(t)


@dataclass(frozen=True)
class Uniform:
    """``t`` uniform in [low, T], the papers' choice for PSLD and CLD (low = 1e-5)."""

    kind: ClassVar[str] = "uniform"
    low: float = 1e-5

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", positive("low", self.low))

    def draw(self, process: Process, uniforms: ArrayLike) -> tuple[Array, Array]:
        """See :class:`Levels`; every factor is 1."""
        t = self.low + (_end(process, self.low) - self.low) * _between(uniforms)
        return t, np.ones_like(t)


@dataclass(frozen=True)
class Importance:
    r"""``t`` with density :math:`\propto E|G^T s^*|^2 = \mathrm{tr}\,G^T S^{-1} G`, and the factor that keeps the mean of a uniform ``t``.

    The likelihood-weighted loss keeps its mean and loses most of its variance; for one block the density is :math:`g^2 / \sigma^2` (Song, Durkan,
    Murray and Ermon 2021, arXiv:2101.09258, section 5.1).
    """

    kind: ClassVar[str] = "importance"
    low: float = 1e-5

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", positive("low", self.low))

    def draw(self, process: Process, uniforms: ArrayLike) -> tuple[Array, Array]:
        """See :class:`Levels`."""
        span = _end(process, self.low) - self.low
        mesh, below = _importance(process, self.low)
        u = _between(uniforms)
        cell = np.clip(np.searchsorted(below, u, side="right") - 1, 0, len(mesh) - 2)
        slope = np.diff(mesh) / np.diff(below)
        t = np.exp(mesh[cell] + slope[cell] * (u - below[cell]))
        return t, slope[cell] * t / span  # 1 / (density span): the density of the table, so that the mean is exact


def levels_of(record: Any) -> Levels:
    """The levels that ``{"kind": ..., **fields}`` describes."""
    kinds: dict[str, Any] = {made.kind: made for made in (LogNormal, Uniform, Importance)}
    entries = dict(record) if isinstance(record, dict) else {}
    kind = entries.pop("kind", None)
    if kind not in kinds:
        raise unknown("kind of levels", kind, kinds)
    known = {entry.name for entry in fields(kinds[kind])}
    if set(entries) != known:
        raise BadInput(f"levels {record!r} must have just the entries {sorted(known)}")
    made: Levels = kinds[kind](**entries)
    return made


def _between(uniforms: ArrayLike) -> Array:
    u = np.asarray(uniforms, float)
    if not np.all((u > 0.0) & (u < 1.0)):
        raise BadInput("uniforms must lie in (0, 1)")
    return u


def _end(process: Process, low: float) -> float:
    if low >= process.T:
        raise BadInput(f"low = {low:g} must lie below T = {process.T:g} of process {process.name!r}")
    return float(process.T)


@lru_cache(maxsize=16)
def _log_normal(process: Process, mean: float, deviation: float) -> tuple[Array, Array]:
    from scipy.special import ndtr

    mesh = np.linspace(np.log(_LOWEST * process.T), np.log(process.T), _MESH)
    below = ndtr((np.log(process.sigma_eff(np.exp(mesh))) - mean) / deviation)
    return mesh, np.asarray((below - below[0]) / (below[-1] - below[0]))


@lru_cache(maxsize=16)
def _importance(process: Process, low: float) -> tuple[Array, Array]:
    mesh = np.linspace(np.log(low), np.log(_end(process, low)), _MESH)
    t = np.exp(mesh)
    white = solve_lower(process.kernel(t).chol, process.noise(t))
    rate = t * np.sum(white * white, axis=(-2, -1))
    below = np.concatenate([[0.0], np.cumsum(0.5 * (rate[1:] + rate[:-1]))])
    return mesh, np.asarray(below / below[-1])
