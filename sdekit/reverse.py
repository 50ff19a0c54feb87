r"""Reverse-time equations of a linear process, and everything about them that depends on times only.

For noise level :math:`\lambda` (0: probability-flow ODE, 1: reverse SDE) the equation run from ``t`` down to ``s < t`` is

.. math:: dz = \big[F z + c\,G G^T S^{-1} (z - \psi D)\big]\,dt + \lambda G\,d\bar W, \qquad c = \tfrac12 (1 + \lambda^2),

because the score is :math:`-S^{-1}(z - \psi D)` with ``D`` the denoised data.  Exponential methods need its propagator ``Phi(s, r)`` for
``D = 0`` (:mod:`sdekit.propagation`); for the ODE it is :math:`R_s R_r^{-1}` with the rotation-free root :math:`R = L O`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import BadInput, finite
from .kernel import Kernel, solve_lower, triangular
from .process import Process
from .propagation import Loudness, Propagation, loudness, side_by_side

Array = NDArray[np.float64]

__all__ = ["CLOCKS", "EpsilonFlow", "Flow", "Leg", "Point", "Reverse", "Stages", "lagrange", "number"]

_LOUDEST = 100.0  # highest noise level

CLOCKS: dict[str, Callable[[Array, Array], Array]] = {
    "log": lambda _, sigma: -np.log(sigma),
    "sigma": lambda _, sigma: sigma,
    "time": lambda t, _: t,
}
"""Variables in which methods interpolate, and place stages: functions of the time and its level."""


def lagrange(nodes: Sequence[Any], u: Array) -> Array:
    """Lagrange basis polynomials of ``nodes`` (numbers, or arrays that broadcast with ``u``) at the points ``u``: (len(nodes), *u.shape)."""
    out = np.ones((len(nodes), *u.shape))
    for j, own in enumerate(nodes):
        for i, other in enumerate(nodes):
            if i != j:
                out[j] *= (u - other) / (own - other)
    return out


def number(values: Array) -> Any:
    """A float, or numbers of several steps side by side, ready to multiply combinations."""
    return float(values) if values.ndim == 0 else values[..., None, None]


@dataclass(frozen=True, eq=False)
class Flow:
    r"""One step ``t -> s`` of the linear reverse equation, ready for variation of constants.

    Attributes
    ----------
    gain : array (k, k)
        :math:`\Phi(s, t)`.
    chol : array (k, k)
        Lower factor of the noise that the step adds, :math:`\lambda^2 \int_s^t \Phi(s,r) G G^T \Phi(s,r)^T dr`.
    t, sigma : arrays (m,)
        Times and levels of the quadrature nodes.
    pull : array (m, k)
        Weighted :math:`c\,\Phi(s,r) G G^T S_r^{-1} \psi_r`: the weight of the data ``D`` at the node in the new state.
    """

    gain: Array
    chol: Array
    t: Array
    sigma: Array
    pull: Array

    def weights(self, nodes: Sequence[Any], clock: str = "log") -> Array:
        """Weights (len(nodes), k) of data interpolated in ``clock`` through ``nodes``; they sum to ``psi_s - gain psi_t``."""
        return _summed(lagrange(nodes, CLOCKS[clock](self.t, self.sigma)[..., None, :])[..., 0, :], self.pull)

    def then(self, later: Flow) -> Flow:
        """This step followed by ``later``, which starts where it ends."""
        t, sigma = np.concatenate([self.t, later.t], axis=-1), np.concatenate([self.sigma, later.sigma], axis=-1)
        chol = triangular(np.concatenate([later.gain @ self.chol, later.chol], axis=-1))
        pull = np.concatenate([self.pull @ np.swapaxes(later.gain, -1, -2), later.pull], axis=-2)
        return Flow(later.gain @ self.gain, chol, t, sigma, pull)


def _summed(basis: Array, pull: Array) -> Array:
    """``sum_m basis (j, ..., m) pull (..., m, c)``, added in order, so that nodes without weight at the end change no bit."""
    return np.asarray(np.add.accumulate(basis[..., None] * pull, axis=-2)[..., -1, :])


@dataclass(frozen=True, eq=False)
class EpsilonFlow:
    r"""One step of the reverse equation with ``eps = R^-1 (z - psi D)`` in the place of the data.

    Attributes
    ----------
    back : array (k, k)
        Inverse of the forward mean, :math:`e^{-FB}`: large over long steps, so keep eps-methods out of float32.
    chol : array (k, k)
        Lower factor of the noise that the step adds.
    t, sigma, pull : arrays (m,), (m,), (m, k, k)
        Times and levels of the quadrature nodes, and the weight of eps there in the new state.
    whole : array (k, k)
        Weight of a constant eps in the ODE, ``R_s - back R_t``.
    """

    back: Array
    chol: Array
    t: Array
    sigma: Array
    pull: Array
    whole: Array

    def weights(self, nodes: Sequence[Any], clock: str = "log") -> Array:
        """Weights (len(nodes), k, k) of eps interpolated in ``clock`` through ``nodes``."""
        basis = lagrange(nodes, CLOCKS[clock](self.t, self.sigma)[..., None, :])[..., 0, :]
        flat = _summed(basis, self.pull.reshape(*self.pull.shape[:-2], -1))
        return np.asarray(flat.reshape(*flat.shape[:-1], *self.pull.shape[-2:]))

    def then(self, later: EpsilonFlow) -> EpsilonFlow:
        """This step followed by ``later``, which starts where it ends."""
        t, sigma = np.concatenate([self.t, later.t], axis=-1), np.concatenate([self.sigma, later.sigma], axis=-1)
        chol = triangular(np.concatenate([later.back @ self.chol, later.chol], axis=-1))
        pull = np.concatenate([later.back[..., None, :, :] @ self.pull, later.pull], axis=-3)
        return EpsilonFlow(later.back @ self.back, chol, t, sigma, pull, later.whole + later.back @ self.whole)


@dataclass(frozen=True, eq=False)
class Point:
    """The reverse equation at one time: what a row needs there.

    Each array has the leading axes of the time, if several steps are taken side by side.

    Attributes
    ----------
    t, sigma : float, or arrays (n, 1, 1) for n steps side by side
    psi, chol, observe : arrays (k,), (k, k), (1, k)
        Of the kernel.
    F, pull, noise : arrays (k, k), (k, k), (k, q)
        Forward drift, ``c G G^T`` and ``noise G``.
    """

    t: Any
    sigma: Any
    psi: Array
    chol: Array
    observe: Array
    F: Array
    pull: Array
    noise: Array

    @property
    def u(self) -> Any:
        """``-log sigma_eff``."""
        return self.on("log")

    def on(self, clock: str) -> Any:
        """Where the point is on ``clock``, one of ``CLOCKS``."""
        made = CLOCKS[clock](np.asarray(self.t), np.asarray(self.sigma))
        return float(made) if made.ndim == 0 else made

    def drift(self, z: Array, score: Array) -> Array:
        r"""``F z - c G G^T s`` as a combination of registers."""
        return np.asarray(self.F @ z - self.pull @ score)

    def score(self, z: Array, data: Array) -> Array:
        """``-S^-1 (z - psi D)``, the score of the state by the denoised data."""
        gap = solve_lower(self.chol, z - self.psi[..., None] @ data)
        return -solve_lower(self.chol, gap, transpose=True)

    def data(self, z: Array, score: Array) -> Array:
        """``(psi^T S^-1 z + psi^T s) / SNR``, the denoised data by the score of the state."""
        return np.asarray(self.observe @ z + self.sigma**2 * self.psi[..., None, :] @ score)


@dataclass(frozen=True)
class Reverse:
    """The reverse equation of ``process`` with noise level ``noise``.

    Parameters
    ----------
    process : Process
    noise : float or callable
        0 is the probability-flow ODE, 1 the reverse SDE; any nonnegative value has the same marginals.  A function of ``sigma_eff`` (arrays
        to arrays) gives each level its own; the levels where it jumps are its attribute ``breaks``.

    Raises
    ------
    BadInput
        If ``noise`` is negative or not finite.
    """

    process: Process
    noise: Loudness = 0.0

    def __post_init__(self) -> None:
        if callable(self.noise):
            top = float(self.process.sigma_eff(self.process.T))
            values = np.asarray(self.noise(top * np.logspace(-6.0, 0.0, 25)), float)
        else:
            values = np.array([finite("noise", self.noise)])
        if not np.all(np.isfinite(values)) or np.min(values) < 0.0:
            raise BadInput(f"noise = {self.noise!r} must be nonnegative (0: ODE, 1: reverse SDE)")
        if np.max(values) > _LOUDEST:
            raise BadInput(f"noise = {self.noise!r} is above {_LOUDEST:g}: the equation is then stiffer than any grid resolves")

    @property
    def noisy(self) -> bool:
        """Whether it has noise: False for the ODE."""
        return callable(self.noise) or self.noise > 0.0

    def leg(self, times: ArrayLike) -> Leg:
        """All that depends on time, for a run of steps through the decreasing ``times`` (steps + 1,), or (steps + 1, n) for n runs side by side."""
        return Leg(self, np.asarray(times, float))

    def propagate(self, s: ArrayLike, t: ArrayLike, variance: ArrayLike = 0.0) -> Propagation:
        """The linear part over the intervals [s, t], arrays (n,); ``variance`` (d,) or a number: see :class:`~sdekit.propagation.Propagation`."""
        return Propagation(self.process, self.noise, np.asarray(s, float), np.asarray(t, float), np.asarray(variance, float), self.breaks)

    @property
    def breaks(self) -> tuple[float, ...]:
        """Levels where the noise level jumps."""
        return tuple(getattr(self.noise, "breaks", ()))


class Leg:
    """A run of steps through decreasing ``times``, with the kernel, the drift and the propagators of all of them."""

    def __init__(self, reverse: Reverse, times: Array) -> None:
        if times.ndim not in (1, 2) or len(times) < 2 or not np.all(np.diff(times, axis=0) < 0.0):
            raise BadInput(f"times = {times} must be at least two strictly decreasing times")
        self.reverse = reverse
        self.times = times
        self.ends = bool(np.all(times[-1] == 0.0))
        self._inner = times[:-1] if self.ends else times
        self._fine: dict[tuple[str, tuple[float, ...]], Leg] = {}

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.times) - 1

    @cached_property
    def kernel(self) -> Kernel:
        """Kernels at the times before 0."""
        return self.reverse.process.kernel(self._inner)

    @cached_property
    def points(self) -> list[Point]:
        """One Point for each time with noise."""
        return points(self.reverse, self._inner, self.kernel)

    @cached_property
    def flows(self) -> list[Flow]:
        """One Flow for each step between times before 0."""
        t = self._inner
        if len(t) < 2:
            return []
        way = self.reverse.propagate(t[1:].ravel(), t[:-1].ravel())
        kernel, k = way.panels.kernel, self.reverse.process.k
        c = 0.5 * (1.0 + way.loud**2)
        pull = (c * way.measure)[..., None] * (way.spread @ (np.swapaxes(way.inner, -1, -2) @ kernel.whitened[..., None]))[..., 0]
        gain, chol = (v.reshape(*t[1:].shape, k, k) for v in (way.gain, way.chol))
        return [Flow(gain[i], chol[i], *parts) for i, parts in enumerate(self._nodes(way, kernel.sigma_eff, pull))]

    def _nodes(self, way: Propagation, sigma: Array, pull: Array) -> list[tuple[Array, Array, Array]]:
        """Times, levels and weights of each step's nodes; steps side by side get as many as the longest has, with weights of 0."""
        r, inner, spans = way.panels.r, pull.shape[2:], way.panels.spans
        if self._inner.ndim == 1:
            return [(r[a:b].ravel(), sigma[a:b].ravel(), pull[a:b].reshape(-1, *inner)) for a, b in spans]
        first, last = np.array(spans).T[..., None]
        at = first + np.arange(np.max(last - first))
        inside = (at < last).reshape(*at.shape, *(1,) * (pull.ndim - 1))
        at, shape = np.minimum(at, last - 1), (*self._inner[1:].shape, -1)
        return list(zip(r[at].reshape(shape), sigma[at].reshape(shape), (inside * pull[at]).reshape(*shape, *inner), strict=True))

    @cached_property
    def _rotation(self) -> Propagation:
        t = self._inner
        return Propagation(self.reverse.process, 0.0, t[1:].ravel(), t[:-1].ravel(), np.asarray(0.0), self.reverse.breaks)

    @cached_property
    def turns(self) -> list[Array]:
        """Rotations ``O`` at the times before 0, identity at the first: ``R = L O`` is the root that an exact ODE step keeps."""
        k = self.reverse.process.k
        turns = [np.eye(k)]
        for end in self._rotation.ends.reshape(-1, *self._inner.shape[1:], k, k) if len(self._inner) > 1 else ():
            turns.append(end @ turns[-1])
        return turns

    @cached_property
    def roots(self) -> list[Array]:
        """Rotation-free roots ``R = L O``, ``R R^T = S``, at the times before 0."""
        return [lower @ turn for lower, turn in zip(self.kernel.chol, self.turns, strict=True)]

    @cached_property
    def epsilon_flows(self) -> list[EpsilonFlow]:
        """One EpsilonFlow for each step between times before 0."""
        process, t = self.reverse.process, self._inner
        if len(t) < 2:
            return []
        way, turns, k = self._rotation, self.turns, process.k
        panels = way.panels
        step = process.transition(t[1:], t[:-1])
        back = np.linalg.inv(step.mean)
        rotation = np.swapaxes(way.nodes, -1, -2) @ np.stack(turns[1:]).reshape(-1, k, k)[panels.owner][:, None]
        there = np.linalg.inv(process.transition(t[1:].ravel()[panels.owner, None], panels.r).mean)
        sigma = panels.kernel.sigma_eff
        loud = loudness(self.reverse.noise, sigma)
        spread = there @ process.noise(panels.r)
        pull = -(0.5 * (1.0 + loud**2) * way.measure)[..., None, None] * (spread @ np.swapaxes(way.inner, -1, -2) @ rotation)
        noise, root = self.reverse.noise, np.stack(self.roots)
        whole = root[1:] - back @ root[:-1]
        if callable(noise):
            columns = (loud * np.sqrt(way.measure))[..., None, None] * spread
            chol = np.stack([triangular(side_by_side(columns[a:b])) for a, b in panels.spans]).reshape(back.shape)
        else:
            chol = noise * triangular(back @ step.chol)
        return [EpsilonFlow(back[i], chol[i], *parts, whole[i]) for i, parts in enumerate(self._nodes(way, sigma, pull))]

    def stages(self, i: int, clock: str, parts: tuple[float, ...]) -> Stages:
        """Step ``i`` with stages at the given ``parts`` of it, in (0, 1) and increasing, measured on ``clock``."""
        if (clock, parts) not in self._fine:
            self._fine[clock, parts] = Leg(self.reverse, self._refined(clock, parts))
        return Stages(self._fine[clock, parts], i * (len(parts) + 1), len(parts) + 1)

    def _refined(self, clock: str, parts: tuple[float, ...]) -> Array:
        t = self._inner
        part = np.array(parts).reshape(-1, *(1,) * (t.ndim - 1))
        if clock == "time":
            inner = t[:-1, None] + part * np.diff(t, axis=0)[:, None]
        else:
            process = self.reverse.process
            sigma = process.sigma_eff(t)
            on = np.log(sigma) if clock == "log" else sigma
            level = on[:-1, None] + part * np.diff(on, axis=0)[:, None]
            inner = process.time_of(np.exp(level) if clock == "log" else level)
        return np.append(np.concatenate([t[:-1, None], inner], axis=1).reshape(-1, *t.shape[1:]), t[-1:], axis=0)


@dataclass(frozen=True, eq=False)
class Stages:
    """One step of a leg with stages inside: number 0 is its start, ``n`` its end."""

    _leg: Leg
    _first: int
    n: int

    def point(self, j: int) -> Point:
        """The reverse equation at stage ``j``."""
        return self._leg.points[self._first + j]

    def root(self, j: int) -> Array:
        """Rotation-free root at stage ``j``."""
        return self._leg.roots[self._first + j]

    def flow(self, i: int, j: int) -> Flow:
        """From stage ``i`` to stage ``j > i``."""
        return reduce(Flow.then, self._leg.flows[self._first + i : self._first + j])

    def epsilon_flow(self, i: int, j: int) -> EpsilonFlow:
        """From stage ``i`` to stage ``j > i``, in eps."""
        return reduce(EpsilonFlow.then, self._leg.epsilon_flows[self._first + i : self._first + j])


def points(reverse: Reverse, times: Array, kernel: Kernel) -> list[Point]:
    """Points at ``times``, whose kernel is known."""
    process = reverse.process
    F, G = process.drift(times), process.noise(times)
    sigma, observe = kernel.sigma_eff, kernel.observe
    loud = loudness(reverse.noise, sigma)[..., None, None]
    pull, spread = 0.5 * (1.0 + loud**2) * G @ np.swapaxes(G, -1, -2), loud * G
    return [
        Point(number(times[i]), number(sigma[i]), kernel.psi[i], kernel.chol[i], observe[i][..., None, :], F[i], pull[i], spread[i])
        for i in range(len(times))
    ]
