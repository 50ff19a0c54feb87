r"""Reverse-time equations of a linear process, and everything about them that depends on times only.

For noise level :math:`\lambda` (0: probability-flow ODE, 1: reverse SDE) the equation run from ``t`` down to ``s < t`` is

.. math:: dz = \big[F z + c\,G G^T S^{-1} (z - \psi D)\big]\,dt + \lambda G\,d\bar W, \qquad c = \tfrac12 (1 + \lambda^2),

because the score is :math:`-S^{-1}(z - \psi D)` with ``D`` the denoised data.  Exponential methods need its propagator ``Phi(s, r)`` for
``D = 0`` (:mod:`sdekit.propagation`); for the ODE it is :math:`R_s R_r^{-1}` with the rotation-free root :math:`R = L O`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import BadInput, finite
from .kernel import Kernel, solve_lower, triangular
from .process import Process
from .propagation import Propagation

Array = NDArray[np.float64]

__all__ = ["Flow", "Leg", "Point", "Reverse", "lagrange"]

_LOUDEST = 100.0  # highest noise level


def lagrange(nodes: Sequence[float], u: Array) -> Array:
    """Lagrange basis polynomials of ``nodes`` at the points ``u``: (len(nodes), *u.shape)."""
    out = np.ones((len(nodes), *u.shape))
    for j, own in enumerate(nodes):
        for i, other in enumerate(nodes):
            if i != j:
                out[j] *= (u - other) / (own - other)
    return out


@dataclass(frozen=True, eq=False)
class Flow:
    r"""One step ``t -> s`` of the linear reverse equation, ready for variation of constants.

    Attributes
    ----------
    gain : array (k, k)
        :math:`\Phi(s, t)`.
    chol : array (k, k)
        Lower factor of the noise that the step adds, :math:`\lambda^2 \int_s^t \Phi(s,r) G G^T \Phi(s,r)^T dr`.
    u : array (m,)
        :math:`-\log \sigma_{eff}` at the quadrature nodes.
    pull : array (m, k)
        Weighted :math:`c\,\Phi(s,r) G G^T S_r^{-1} \psi_r`: the weight of data ``D(u)`` in the new state.
    """

    gain: Array
    chol: Array
    u: Array
    pull: Array

    def weights(self, nodes: Sequence[float]) -> Array:
        """Weights (len(nodes), k) of data interpolated in ``u`` through ``nodes``; they sum to ``psi_s - gain psi_t``."""
        return np.asarray(lagrange(nodes, self.u) @ self.pull)


@dataclass(frozen=True, eq=False)
class EpsilonFlow:
    r"""One step of the reverse equation with ``eps = R^-1 (z - psi D)`` in the place of the data.

    Attributes
    ----------
    back : array (k, k)
        Inverse of the forward mean, :math:`e^{-FB}`: large over long steps, so keep eps-methods out of float32.
    chol : array (k, k)
        Lower factor of the noise that the step adds.
    u, pull : arrays (m,), (m, k, k)
        Quadrature nodes in :math:`-\log\sigma_{eff}`, and the weight of ``eps(u)`` in the new state.
    whole : array (k, k)
        Weight of a constant eps in the ODE, ``R_s - back R_t``.
    """

    back: Array
    chol: Array
    u: Array
    pull: Array
    whole: Array

    def weights(self, nodes: Sequence[float]) -> Array:
        """Weights (len(nodes), k, k) of eps interpolated in ``u`` through ``nodes``."""
        return np.tensordot(lagrange(nodes, self.u), self.pull, axes=1)


@dataclass(frozen=True, eq=False)
class Point:
    """The reverse equation at one time: what a row needs there.

    Attributes
    ----------
    t, sigma : float
    psi, chol, observe : arrays (k,), (k, k), (1, k)
        Of the kernel.
    F, pull, noise : arrays (k, k), (k, k), (k, q)
        Forward drift, ``c G G^T`` and ``noise G``.
    """

    t: float
    sigma: float
    psi: Array
    chol: Array
    observe: Array
    F: Array
    pull: Array
    noise: Array

    @property
    def u(self) -> float:
        """``-log sigma_eff``."""
        return -float(np.log(self.sigma))

    def drift(self, z: Array, score: Array) -> Array:
        r"""``F z - c G G^T s`` as a combination of registers."""
        return np.asarray(self.F @ z - self.pull @ score)

    def score(self, z: Array, data: Array) -> Array:
        """``-S^-1 (z - psi D)``, the score of the state by the denoised data."""
        gap = solve_lower(self.chol, z - self.psi[:, None] @ data)
        return -solve_lower(self.chol, gap, transpose=True)

    def data(self, z: Array, score: Array) -> Array:
        """``(psi^T S^-1 z + psi^T s) / SNR``, the denoised data by the score of the state."""
        return np.asarray(self.observe @ z + self.sigma**2 * self.psi[None] @ score)


@dataclass(frozen=True)
class Reverse:
    """The reverse equation of ``process`` with noise level ``noise``.

    Parameters
    ----------
    process : Process
    noise : float
        0 is the probability-flow ODE, 1 the reverse SDE; any nonnegative value has the same marginals.

    Raises
    ------
    BadInput
        If ``noise`` is negative or not finite.
    """

    process: Process
    noise: float = 0.0

    def __post_init__(self) -> None:
        if finite("noise", self.noise) < 0.0:
            raise BadInput(f"noise = {self.noise!r} must be nonnegative (0: ODE, 1: reverse SDE)")
        if self.noise > _LOUDEST:
            raise BadInput(f"noise = {self.noise!r} is above {_LOUDEST:g}: the equation is then stiffer than any grid resolves")

    def leg(self, times: ArrayLike) -> Leg:
        """All that depends on time, for a run of steps through the decreasing ``times``."""
        return Leg(self, np.asarray(times, float))

    def propagate(self, s: ArrayLike, t: ArrayLike, variance: ArrayLike = 0.0) -> Propagation:
        """The linear part over the intervals [s, t], arrays (n,); ``variance`` (d,) or a number: see :class:`~sdekit.propagation.Propagation`."""
        return Propagation(self.process, self.noise, np.asarray(s, float), np.asarray(t, float), np.asarray(variance, float))


class Leg:
    """A run of steps through decreasing ``times``, with the kernel, the drift and the propagators of all of them."""

    def __init__(self, reverse: Reverse, times: Array) -> None:
        if times.ndim != 1 or len(times) < 2 or not np.all(np.diff(times) < 0.0):
            raise BadInput(f"times = {times} must be at least two strictly decreasing times")
        self.reverse = reverse
        self.times = times
        self.ends = bool(times[-1] == 0.0)
        self._inner = times[:-1] if self.ends else times

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
        way = self.reverse.propagate(t[1:], t[:-1])
        kernel, k = way.panels.kernel, self.reverse.process.k
        c = 0.5 * (1.0 + self.reverse.noise**2)
        pull = c * way.measure[..., None] * (way.spread @ (np.swapaxes(way.inner, -1, -2) @ kernel.whitened[..., None]))[..., 0]
        u = -np.log(kernel.sigma_eff)
        gain, chol = way.gain, way.chol
        return [Flow(gain[i], chol[i], u[a:b].ravel(), pull[a:b].reshape(-1, k)) for i, (a, b) in enumerate(way.panels.spans)]

    @cached_property
    def _rotation(self) -> Propagation:
        return Reverse(self.reverse.process).propagate(self._inner[1:], self._inner[:-1])

    @cached_property
    def turns(self) -> list[Array]:
        """Rotations ``O`` at the times before 0, identity at the first: ``R = L O`` is the root that an exact ODE step keeps."""
        turns = [np.eye(self.reverse.process.k)]
        for end in self._rotation.ends if len(self._inner) > 1 else ():
            turns.append(end @ turns[-1])
        return turns

    @cached_property
    def roots(self) -> list[Array]:
        """Rotation-free roots ``R = L O``, ``R R^T = S``, at the times before 0."""
        return [lower @ turn for lower, turn in zip(self.kernel.chol, self.turns, strict=True)]

    @cached_property
    def epsilon_flows(self) -> list[EpsilonFlow]:
        """One EpsilonFlow for each step between times before 0."""
        process, noise, t = self.reverse.process, self.reverse.noise, self._inner
        if len(t) < 2:
            return []
        way, turns, k = self._rotation, self.turns, process.k
        panels = way.panels
        step = process.transition(t[1:], t[:-1])
        back = np.linalg.inv(step.mean)
        chol = noise * triangular(back @ step.chol)
        rotation = np.swapaxes(way.nodes, -1, -2) @ np.stack(turns[1:])[panels.owner][:, None]
        there = np.linalg.inv(process.transition(t[1:][panels.owner, None], panels.r).mean)
        c = 0.5 * (1.0 + noise**2)
        pull = -c * way.measure[..., None, None] * (there @ process.noise(panels.r) @ np.swapaxes(way.inner, -1, -2) @ rotation)
        u = -np.log(panels.kernel.sigma_eff)
        root = np.stack(self.roots)
        whole = root[1:] - back @ root[:-1]
        return [EpsilonFlow(back[i], chol[i], u[a:b].ravel(), pull[a:b].reshape(-1, k, k), whole[i]) for i, (a, b) in enumerate(panels.spans)]


def points(reverse: Reverse, times: Array, kernel: Kernel) -> list[Point]:
    """Points at ``times``, whose kernel is known."""
    process = reverse.process
    F, G = process.drift(times), process.noise(times)
    pull = 0.5 * (1.0 + reverse.noise**2) * G @ np.swapaxes(G, -1, -2)
    sigma, observe = kernel.sigma_eff, kernel.observe
    return [
        Point(float(times[i]), float(sigma[i]), kernel.psi[i], kernel.chol[i], observe[i][None], F[i], pull[i], reverse.noise * G[i])
        for i in range(len(times))
    ]
