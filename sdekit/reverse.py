r"""Reverse-time equations of a linear process, and everything about them that depends on times only.

For noise level :math:`\lambda` (0: probability-flow ODE, 1: reverse SDE) the equation run from ``t`` down to ``s < t`` is

.. math:: dz = \big[F z + c\,G G^T S^{-1} (z - \psi D)\big]\,dt + \lambda G\,d\bar W, \qquad c = \tfrac12 (1 + \lambda^2),

because the score is :math:`-S^{-1}(z - \psi D)` with ``D`` the denoised data.  Exponential methods need its propagator ``Phi(s, r)`` for
``D = 0``.  In whitened coordinates, :math:`\Phi(s, r) = L_s M(s, r) L_r^{-1}` and

.. math:: \partial_r M(s, r) = -M(s, r)\,\big[\Omega(r) + \tfrac{\lambda^2}{2} K(r)\big], \qquad K = L^{-1} G G^T L^{-T},

with ``Omega`` skew: a rotation for the ODE (the rotation-free root is :math:`R = L O`), a contraction with noise.  ``M`` is integrated by
Gauss collocation of order 16 on short panels, for all steps of a leg at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import BadInput, finite
from .kernel import Kernel, gauss, solve_lower, triangular
from .process import Process

Array = NDArray[np.float64]

__all__ = ["Flow", "Leg", "Point", "Reverse", "lagrange"]

_NODES = 8
_PANEL = 0.5  # longest panel, in log t and in log sigma_eff


@cache
def _collocation() -> tuple[Array, Array, Array]:
    """Gauss nodes, weights and the matrix of integrals of the Lagrange basis from 0 to each node, on [0, 1]."""
    nodes, weights = gauss(_NODES)
    powers = nodes[:, None] ** np.arange(_NODES)
    basis = np.linalg.inv(powers)
    until = nodes[:, None] ** np.arange(1, _NODES + 1) / np.arange(1, _NODES + 1)
    return nodes, weights, until @ basis


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
    """The reverse equation at one time: what a row needs there."""

    t: float
    sigma: float
    psi: Array
    chol: Array
    observe: Array
    linear: Array
    data: Array
    noise: Array

    @property
    def u(self) -> float:
        """``-log sigma_eff``."""
        return -float(np.log(self.sigma))

    def drift(self, z: Array, data: Array) -> Array:
        r"""``F z + c G G^T S^-1 (z - psi D)`` as a combination of registers."""
        return np.asarray(self.linear @ z + self.data @ data)

    def epsilon(self, z: Array, data: Array, turn: Array) -> Array:
        """``R^-1 (z - psi D)`` with ``R = L O``: the noise that is constant along the exact flow of a point mass."""
        return np.asarray(turn.T @ solve_lower(self.chol, z - self.psi[:, None] @ data))


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

    def leg(self, times: ArrayLike) -> Leg:
        """All that depends on time, for a run of steps through the decreasing ``times``."""
        return Leg(self, np.asarray(times, float))

    def propagate(self, s: ArrayLike, t: ArrayLike, variance: ArrayLike = 0.0) -> Propagation:
        """The linear reverse equation over the intervals [s, t], arrays (n,); ``variance`` (d,) or a number: see :class:`Propagation`."""
        return Propagation(self, np.asarray(s, float), np.asarray(t, float), np.asarray(variance, float))


class _Panels:
    """Panels that cover intervals [s, t], short in log time and in log level, with their Gauss nodes and the kernel there."""

    def __init__(self, process: Process, s: Array, t: Array) -> None:
        self.process = process
        shift = process.knee
        low, high = np.log(s + shift), np.log(t + shift)
        levels = np.log(process.sigma_eff(np.stack([s, t])))
        turns = np.linalg.norm(process.F, 2) * (process.clock.integral(t) - process.clock.integral(s))
        lengths = np.stack([(high - low) / _PANEL, (levels[1] - levels[0]) / _PANEL, turns])
        counts = np.maximum(1, np.ceil(np.max(lengths, axis=0))).astype(int)
        last = np.cumsum(counts)
        first = last - counts
        self.spans = list(zip(first.tolist(), last.tolist(), strict=True))
        self.owner = np.repeat(np.arange(len(counts)), counts)
        width = ((high - low) / counts)[self.owner]
        bottom = low[self.owner] + width * (np.arange(len(self.owner)) - first[self.owner])
        nodes, _, _ = _collocation()
        x = np.exp(bottom[:, None] + width[:, None] * nodes)
        self.r = np.clip(x - shift, s[self.owner, None], t[self.owner, None])
        self.dr = x * width[:, None]
        self.kernel: Kernel = process.kernel(self.r)


class Propagation:
    r"""The reverse equation's linear part over intervals [s, t], for data :math:`N(0, v)`.

    With ``v = 0`` this is the propagator of the exponential methods; with ``v > 0`` the exact reverse transition under the true score of
    Gaussian data, ``S`` replaced by :math:`P = S + v \psi\psi^T` throughout.

    Attributes
    ----------
    lower_s, lower_t : arrays (*modes, n, k, k)
        Lower factors of ``P`` at both ends.
    inner : array (*modes, panels, m, k, q)
        ``L^-1 G`` at the nodes.
    nodes, ends : arrays (*modes, panels, m, k, k), (*modes, n, k, k)
        ``M(s, r)`` at the nodes ``r`` and ``M(s, t)``.
    measure : array (panels, m)
        Weights of the quadrature in ``r``, times the clock's rate.
    """

    def __init__(self, reverse: Reverse, s: Array, t: Array, variance: Array) -> None:
        process, k = reverse.process, reverse.process.k
        self.reverse, self.variance = reverse, variance
        self.panels = panels = _Panels(process, s, t)
        self.lower_s, self.lower_t = self._factor(process.kernel(s)), self._factor(process.kernel(t))
        lower = self._factor(panels.kernel)
        rate = process.clock.rate(panels.r) * panels.dr
        self.inner = solve_lower(lower, np.broadcast_to(process.G, (*lower.shape[:-1], process.G.shape[1])))
        K = self.inner @ np.swapaxes(self.inner, -1, -2)
        Y = solve_lower(lower, process.F @ lower)
        upper = np.triu(Y + 0.5 * K, 1)
        W = rate[..., None, None] * (upper - np.swapaxes(upper, -1, -2) + 0.5 * reverse.noise**2 * K)
        # X' = -X W on each panel, X = 1 at its lower end: collocation for the transposes
        _, weights, until = _collocation()
        self.measure = weights * rate
        m = _NODES
        big = np.einsum("qj,...jba->...qajb", until, W).reshape(*W.shape[:-3], m * k, m * k)
        big[..., np.arange(m * k), np.arange(m * k)] += 1.0
        ones = np.broadcast_to(np.tile(np.eye(k), (m, 1)), (*big.shape[:-1], k))
        X = np.swapaxes(np.linalg.solve(big, ones).reshape(*W.shape[:-3], m, k, k), -1, -2)
        end = np.eye(k) - np.einsum("q,...qab,...qbc->...ac", weights, X, W)
        start = np.empty_like(end)
        self.ends = np.empty(self.lower_s.shape)
        for i, (a, b) in enumerate(panels.spans):
            at = np.broadcast_to(np.eye(k), (*end.shape[:-3], k, k))
            for p in range(a, b):
                start[..., p, :, :] = at
                at = at @ end[..., p, :, :]
            self.ends[..., i, :, :] = at
        self.nodes = start[..., None, :, :] @ X

    def _factor(self, kernel: Kernel) -> Array:
        if self.variance.ndim == 0 and self.variance == 0.0:
            return kernel.chol
        modes = self.variance.reshape(*self.variance.shape, *(1,) * kernel.psi.ndim)
        column = (np.sqrt(modes) * kernel.psi)[..., None]
        return triangular(np.concatenate([np.broadcast_to(kernel.chol, (*column.shape[:-1], kernel.k)), column], axis=-1))

    @property
    def gain(self) -> Array:
        r""":math:`\Phi(s, t) = L_s M(s, t) L_t^{-1}`, (*modes, n, k, k)."""
        right = solve_lower(self.lower_t, np.swapaxes(self.ends, -1, -2), transpose=True)
        return np.asarray(self.lower_s @ np.swapaxes(right, -1, -2))

    @cached_property
    def spread(self) -> Array:
        r""":math:`\Phi(s, r)\, G` at the nodes, (*modes, panels, m, k, q)."""
        return np.asarray(self.lower_s[..., self.panels.owner, :, :][..., None, :, :] @ self.nodes @ self.inner)

    @property
    def chol(self) -> Array:
        r"""Lower factors of the noise that each interval adds, :math:`\lambda^2 \int_s^t \Phi(s,r) G G^T \Phi(s,r)^T dr`."""
        columns = self.reverse.noise * np.sqrt(self.measure)[..., None, None] * self.spread
        return np.stack([triangular(_side_by_side(columns[..., a:b, :, :, :])) for a, b in self.panels.spans], axis=-3)


def _side_by_side(columns: Array) -> Array:
    """(..., panels, m, k, q) to (..., k, panels m q)."""
    moved = np.moveaxis(columns, -2, -4)
    return moved.reshape(*moved.shape[:-3], -1)


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
        pull = -c * way.measure[..., None, None] * (there @ process.G @ np.swapaxes(way.inner, -1, -2) @ rotation)
        u = -np.log(panels.kernel.sigma_eff)
        root = self.kernel.chol @ np.stack(turns)
        whole = root[1:] - back @ root[:-1]
        return [EpsilonFlow(back[i], chol[i], u[a:b].ravel(), pull[a:b].reshape(-1, k, k), whole[i]) for i, (a, b) in enumerate(panels.spans)]


def points(reverse: Reverse, times: Array, kernel: Kernel) -> list[Point]:
    """Points at ``times``, whose kernel is known."""
    process, k = reverse.process, reverse.process.k
    G = process.noise(times)
    inner = solve_lower(kernel.chol, G)
    half = solve_lower(kernel.chol, np.broadcast_to(np.eye(k), kernel.chol.shape))
    c = 0.5 * (1.0 + reverse.noise**2)
    pull = c * G @ np.swapaxes(inner, -1, -2)
    linear = process.drift(times) + pull @ half
    data = -(pull @ kernel.whitened[..., None])
    sigma, observe = kernel.sigma_eff, kernel.observe
    return [
        Point(float(times[i]), float(sigma[i]), kernel.psi[i], kernel.chol[i], observe[i][None], linear[i], data[i], reverse.noise * G[i])
        for i in range(len(times))
    ]
