r"""The linear part of the reverse equation over intervals of time, by Gauss collocation of order 16 on short panels.

In whitened coordinates, :math:`\Phi(s, r) = L_s M(s, r) L_r^{-1}` and

.. math:: \partial_r M(s, r) = -M(s, r)\,\big[\Omega(r) + \tfrac{\lambda^2}{2} K(r)\big], \qquad K = L^{-1} G G^T L^{-T},

with ``Omega`` skew: a rotation for the ODE, a contraction with noise.  All intervals are integrated at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .kernel import Kernel, solve_lower, triangular
from .motion import collocation
from .process import Process

Array = NDArray[np.float64]

Loudness = float | Callable[[Array], Array]
"""Noise level of a reverse equation: a number, or a function of ``sigma_eff``, with an attribute ``breaks`` of the levels where it jumps."""

__all__ = ["Loudness", "Propagation", "loudness", "side_by_side"]

_NODES = 8
_PANEL = 0.5  # longest panel, in log t and in log sigma_eff
_TURN = 2.0  # and in the integral of the generator's norm, where the collocation is exact to rounding
_PASSES = 8  # of refinement


def loudness(noise: Loudness, sigma: Array) -> Array:
    """The noise level at the levels ``sigma``, an array of their shape."""
    return np.broadcast_to(noise(sigma) if callable(noise) else noise, sigma.shape)


class _Panels:
    """Panels that cover intervals, uniform in ``log(r + shift)``, with their Gauss nodes and the kernel there; sorted by interval."""

    def __init__(self, process: Process, bottom: Array, width: Array, owner: NDArray[np.int64]) -> None:
        self.process, self.bottom, self.width, self.owner = process, bottom, width, owner
        ends = np.flatnonzero(np.diff(owner, append=-1)) + 1
        self.spans = list(pairwise([0, *ends.tolist()]))
        nodes, _, _ = collocation()
        x = np.exp(bottom[:, None] + width[:, None] * nodes)
        self.r = np.clip(x - process.knee, 0.0, process.T)
        self.dr = x * width[:, None]
        self.kernel: Kernel = process.kernel(self.r)

    @classmethod
    def cover(cls, process: Process, s: Array, t: Array, breaks: Sequence[float] = ()) -> Self:
        """Panels over the intervals [s, t], short in log time and in log level, that do not cross the levels ``breaks``."""
        low, high = np.log(s + process.knee), np.log(t + process.knee)
        levels = process.sigma_eff(np.stack([s, t]))
        inner = [b for b in sorted(breaks) if np.min(levels) < b < np.max(levels)]
        cuts = np.clip(np.log(process.time_of(inner) + process.knee), low[:, None], high[:, None])
        near = 1e-9 * (high - low)[:, None]
        cuts = np.where(cuts < low[:, None] + near, low[:, None], np.where(cuts > high[:, None] - near, high[:, None], cuts))
        edges = np.concatenate([low[:, None], cuts, high[:, None]], axis=1)
        parts = np.maximum(np.diff(edges), np.log(levels[1] / levels[0])[:, None]) / _PANEL
        some = np.diff(edges) > 0.0
        whole = cls.__new__(cls)
        whole.process, whole.bottom, whole.width, whole.owner = process, edges[:, :-1][some], np.diff(edges)[some], np.nonzero(some)[0]
        return whole.split(parts[some])

    def split(self, parts: Array) -> Self:
        """Each panel in as many equal parts as asked for, rounded up."""
        counts = np.maximum(1, np.ceil(parts)).astype(np.int64)
        which = np.repeat(np.arange(len(counts)), counts)
        width = (self.width / counts)[which]
        place = np.arange(len(which)) - (np.cumsum(counts) - counts)[which]
        return type(self)(self.process, self.bottom[which] + place * width, width, self.owner[which])


class Propagation:
    r"""The reverse equation's linear part over intervals [s, t], for data :math:`N(0, v)`.

    With ``v = 0`` this is the propagator of the exponential methods; with ``v > 0`` the exact reverse transition under the true score of
    Gaussian data, ``S`` replaced by :math:`P = S + v \psi\psi^T` throughout.

    Attributes
    ----------
    lower_s, lower_t : arrays (*modes, n, k, k)
        Lower factors of ``P`` at both ends.
    inner : array (*modes, panels, m, k, q)
        ``L^-1 G`` at the nodes, ``G`` the noise in time.
    nodes, ends : arrays (*modes, panels, m, k, k), (*modes, n, k, k)
        ``M(s, r)`` at the nodes ``r`` and ``M(s, t)``.
    measure, loud : arrays (panels, m)
        Weights of the quadrature in ``r``, and the noise level at its nodes.

    Notes
    -----
    Panels end at the levels ``breaks``, where the noise level (here, or in what is made of the nodes) may jump.
    """

    def __init__(self, process: Process, noise: Loudness, s: Array, t: Array, variance: Array, breaks: Sequence[float] = ()) -> None:
        k = process.k
        self.process, self.noise, self.variance = process, noise, variance
        panels = _Panels.cover(process, s, t, breaks)
        _, weights, until = collocation()
        W = self._generator(panels)
        for _ in range(_PASSES):
            turned = np.linalg.norm(W, axis=(-2, -1)) @ weights
            most = turned.reshape(-1, len(panels.owner)).max(axis=0)
            if np.max(most) <= _TURN:
                break
            panels = panels.split(most / _TURN)
            W = self._generator(panels)
        self.panels = panels
        self.lower_s, self.lower_t = self._factor(process.kernel(s)), self._factor(process.kernel(t))
        # X' = -X W on each panel, X = 1 at its lower end: collocation for the transposes
        m = _NODES
        big = np.einsum("qj,...jba->...qajb", until, W).reshape(*W.shape[:-3], m * k, m * k)
        big[..., np.arange(m * k), np.arange(m * k)] += 1.0
        ones = np.broadcast_to(np.tile(np.eye(k), (m, 1)), (*big.shape[:-1], k))
        X = np.swapaxes(np.linalg.solve(big, ones).reshape(*W.shape[:-3], m, k, k), -1, -2)
        end = np.eye(k) - np.einsum("q,...qab,...qbc->...ac", weights, X, W)
        start = np.empty_like(end)
        self.ends = np.broadcast_to(np.eye(k), self.lower_s.shape).copy()
        first, last = np.array(panels.spans).T
        for p in range(int(np.max(last - first))):
            some = first + p < last
            at = first[some] + p
            start[..., at, :, :] = self.ends[..., some, :, :]
            self.ends[..., some, :, :] = self.ends[..., some, :, :] @ end[..., at, :, :]
        self.nodes = start[..., None, :, :] @ X

    def _generator(self, panels: _Panels) -> Array:
        """``(Omega + noise^2 K / 2) dr`` at the nodes; keeps ``inner``, ``measure`` and ``loud``."""
        process = self.process
        lower = self._factor(panels.kernel)
        self.measure = collocation()[1] * panels.dr
        self.inner = solve_lower(lower, process.noise(panels.r))
        K = self.inner @ np.swapaxes(self.inner, -1, -2)
        upper = np.triu(solve_lower(lower, process.drift(panels.r) @ lower) + 0.5 * K, 1)
        self.loud = loudness(self.noise, panels.kernel.sigma_eff)
        return np.asarray(panels.dr[..., None, None] * (upper - np.swapaxes(upper, -1, -2) + 0.5 * self.loud[..., None, None] ** 2 * K))

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
        columns = (self.loud * np.sqrt(self.measure))[..., None, None] * self.spread
        made = np.empty(self.lower_s.shape)
        first, last = np.array(self.panels.spans).T
        for count in np.unique(last - first).tolist():
            some = np.flatnonzero(last - first == count)
            made[..., some, :, :] = triangular(side_by_side(columns[..., first[some][:, None] + np.arange(count), :, :, :]))
        return made


def side_by_side(columns: Array) -> Array:
    """(..., panels, m, k, q) to (..., k, panels m q)."""
    moved = np.moveaxis(columns, -2, -4)
    return moved.reshape(*moved.shape[:-3], -1)
