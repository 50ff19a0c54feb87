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

    def panels(self, s: Array, t: Array) -> _Panels:
        """Quadrature panels that cover each interval [s, t]."""
        return _Panels(self.process, s, t)

    def contraction(self, panels: _Panels, variance: ArrayLike = 0.0) -> tuple[Array, Array, Array]:
        r"""``M(s, .)`` at the nodes and at the upper end of each interval, for data N(0, ``variance``) per mode.

        With a variance the whitening factor is that of :math:`P = S + v \psi\psi^T`, and ``M`` is the exact flow of the reverse equation
        under the true score of Gaussian data; with 0 it is the propagator of the exponential methods.

        Returns
        -------
        nodes : array (*modes, panels, m, k, k)
        ends : array (*modes, intervals, k, k)
        factor : array (*modes, panels, m, k, k)
            The whitening factors at the nodes.
        """
        process, noise, kernel = self.process, self.noise, panels.kernel
        v = np.asarray(variance, float)
        if v.ndim or v > 0.0:
            column = np.sqrt(v)[(..., *(None,) * 4)] * kernel.psi[..., None]
            shape = column.shape[:-1]
            factor = triangular(np.concatenate([np.broadcast_to(kernel.chol, (*shape, process.k)), column], axis=-1))
        else:
            factor = kernel.chol
        k = process.k
        rate = (process.clock.rate(panels.r) * panels.dr)[..., None, None]
        inner = solve_lower(factor, np.broadcast_to(process.G, (*factor.shape[:-2], *process.G.shape)))
        K = inner @ np.swapaxes(inner, -1, -2)
        Y = solve_lower(factor, process.F @ factor)
        upper = np.triu(Y + 0.5 * K, 1)
        W = rate * (upper - np.swapaxes(upper, -1, -2) + 0.5 * noise**2 * K)
        # X' = -X W on each panel, X = 1 at its lower end: collocation for the transposes
        _, weights, until = _collocation()
        m = _NODES
        big = np.einsum("qj,...jba->...qajb", until, W).reshape(*W.shape[:-3], m * k, m * k)
        big[..., np.arange(m * k), np.arange(m * k)] += 1.0
        ones = np.broadcast_to(np.tile(np.eye(k), (m, 1)), (*big.shape[:-1], k))
        X = np.swapaxes(np.linalg.solve(big, ones).reshape(*W.shape[:-3], m, k, k), -1, -2)
        end = np.eye(k) - np.einsum("q,...qab,...qbc->...ac", weights, X, W)
        start = np.empty_like(end)
        ends = np.empty((*end.shape[:-3], len(panels.first), k, k))
        for i, (a, b) in enumerate(zip(panels.first, panels.last, strict=True)):
            at = np.broadcast_to(np.eye(k), (*end.shape[:-3], k, k))
            for p in range(a, b):
                start[..., p, :, :] = at
                at = at @ end[..., p, :, :]
            ends[..., i, :, :] = at
        return start[..., None, :, :] @ X, ends, factor


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
        self.last = np.cumsum(counts)
        self.first = self.last - counts
        self.owner = np.repeat(np.arange(len(counts)), counts)
        width = ((high - low) / counts)[self.owner]
        bottom = low[self.owner] + width * (np.arange(len(self.owner)) - self.first[self.owner])
        nodes, _, _ = _collocation()
        x = np.exp(bottom[:, None] + width[:, None] * nodes)
        self.r = np.clip(x - shift, s[self.owner, None], t[self.owner, None])
        self.dr = x * width[:, None]
        self.kernel: Kernel = process.kernel(self.r)


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
    def _panels(self) -> _Panels:
        return self.reverse.panels(self._inner[1:], self._inner[:-1])

    @cached_property
    def flows(self) -> list[Flow]:
        """One Flow for each step between times before 0."""
        reverse, process, t = self.reverse, self.reverse.process, self._inner
        if len(t) < 2:
            return []
        panels = self._panels
        nodes, ends, factor = reverse.contraction(panels)
        lower = self.kernel.chol
        gain = lower[1:] @ ends @ solve_lower(lower[:-1], np.broadcast_to(np.eye(process.k), lower[:-1].shape))
        _, weights, _ = _collocation()
        measure = weights * process.clock.rate(panels.r) * panels.dr
        inner = solve_lower(factor, np.broadcast_to(process.G, (*factor.shape[:-2], *process.G.shape)))
        spread = lower[1:][panels.owner][:, None] @ nodes @ inner
        c = 0.5 * (1.0 + reverse.noise**2)
        pull = c * measure[..., None] * (spread @ (np.swapaxes(inner, -1, -2) @ panels.kernel.whitened[..., None]))[..., 0]
        columns = reverse.noise * np.sqrt(measure)[..., None, None] * spread
        u = -np.log(panels.kernel.sigma_eff)
        out = []
        for i, (a, b) in enumerate(zip(panels.first, panels.last, strict=True)):
            wide = np.moveaxis(columns[a:b], -2, 0).reshape(process.k, -1)
            out.append(Flow(gain[i], triangular(wide), u[a:b].ravel(), pull[a:b].reshape(-1, process.k)))
        return out

    @cached_property
    def turns(self) -> list[Array]:
        """Rotations ``O`` at the times before 0, identity at the first: ``R = L O`` is the root that an ODE step keeps."""
        return self._rotations[1]

    @cached_property
    def _rotations(self) -> tuple[Array, list[Array]]:
        nodes, ends, _ = Reverse(self.reverse.process).contraction(self._panels)
        turns = [np.eye(self.reverse.process.k)]
        for end in ends:
            turns.append(end @ turns[-1])
        below = np.stack(turns[1:])[self._panels.owner][:, None]
        return np.swapaxes(nodes, -1, -2) @ below, turns

    @cached_property
    def epsilon_flows(self) -> list[EpsilonFlow]:
        """One EpsilonFlow for each step between times before 0."""
        reverse, process, t = self.reverse, self.reverse.process, self._inner
        if len(t) < 2:
            return []
        panels, lower = self._panels, self.kernel.chol
        rotation, turns = self._rotations
        step = process.transition(t[1:], t[:-1])
        back = np.linalg.inv(step.mean)
        chol = reverse.noise * triangular(back @ step.chol)
        _, weights, _ = _collocation()
        measure = weights * process.clock.rate(panels.r) * panels.dr
        inner = solve_lower(panels.kernel.chol, np.broadcast_to(process.G, (*panels.r.shape, *process.G.shape)))
        c = 0.5 * (1.0 + reverse.noise**2)
        there = np.linalg.inv(process.transition(np.broadcast_to(t[1:][panels.owner, None], panels.r.shape), panels.r).mean)
        pull = -c * measure[..., None, None] * (there @ process.G @ np.swapaxes(inner, -1, -2) @ rotation)
        u = -np.log(panels.kernel.sigma_eff)
        return [
            EpsilonFlow(back[i], chol[i], u[a:b].ravel(), pull[a:b].reshape(-1, process.k, process.k), lower[i + 1] @ turns[i + 1] - back[i] @ lower[i] @ turns[i])
            for i, (a, b) in enumerate(zip(panels.first, panels.last, strict=True))
        ]


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
