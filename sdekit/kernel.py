r"""Kernels of linear SDEs, as factors: :math:`p(z_t \mid x_0) = N(\psi x_0, S)` with :math:`S = L L^T`.

For :math:`dz = F z\,dB + G\,dW` on ``k`` blocks (everything acts as ``(k x k) (x) I_d``) over a stretch ``B`` of the unit clock,

.. math:: E = e^{FB}, \qquad S = \int_0^B e^{Fs} G G^T e^{F^T s}\,ds .

``S`` is never formed by a difference and no epsilon is ever added: its lower factor ``L`` is built from nonnegative quadrature columns
:math:`\sqrt{w_i}\, e^{F s_i} G` over a short stretch, then doubled, :math:`S(2B) = S(B) + E S(B) E^T`, each time by an orthogonal
triangularisation.  The rows of a factor keep their own scale, so that :math:`S_{xx} \sim B^3` next to :math:`S_{mm} \sim B` loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

__all__ = ["Kernel", "Transition", "flow", "solve_lower", "triangular"]

_NODES = 8  # Gauss points over the first stretch; with |F| B <= 1/2 the rule is exact to rounding for chains of up to five blocks
_TERMS = 20  # terms of the exponential series over the first stretch


def triangular(columns: ArrayLike) -> Array:
    """Lower triangular ``L`` with ``L L^T = M M^T``, for ``M`` of shape (..., k, c), by orthogonalising rows (modified Gram-Schmidt).

    Each row's error is relative to that row's own norm; a zero or dependent row gives a zero pivot, not an error.
    """
    rest = np.array(columns, dtype=float)
    k = rest.shape[-2]
    lower = np.zeros((*rest.shape[:-1], k))
    for i in range(k):
        scale = np.max(np.abs(rest[..., i, :]), axis=-1)
        safe = np.where(scale > 0.0, scale, 1.0)
        unit = rest[..., i, :] / safe[..., None]
        norm = np.sqrt(np.sum(unit * unit, axis=-1))
        lower[..., i, i] = norm * scale
        unit = np.divide(unit, norm[..., None], out=np.zeros_like(unit), where=norm[..., None] > 0.0)
        for j in range(i + 1, k):
            along = np.sum(rest[..., j, :] * unit, axis=-1)
            lower[..., j, i] = along
            rest[..., j, :] -= along[..., None] * unit
    return lower


def solve_lower(lower: ArrayLike, right: ArrayLike, transpose: bool = False) -> Array:
    """``L^-1 R`` (or ``L^-T R``) for ``L`` of shape (..., k, k) and ``R`` of shape (..., k, c)."""
    lower = np.asarray(lower, float)
    k = lower.shape[-1]
    shape = np.broadcast_shapes(lower.shape[:-2], np.shape(right)[:-2])
    out = np.array(np.broadcast_to(np.asarray(right, float), (*shape, *np.shape(right)[-2:])))
    order = range(k - 1, -1, -1) if transpose else range(k)
    for i in order:
        for j in range(i + 1, k) if transpose else range(i):
            out[..., i, :] -= (lower[..., j, i] if transpose else lower[..., i, j])[..., None] * out[..., j, :]
        out[..., i, :] /= lower[..., i, i][..., None]
    return out


@cache
def gauss(n: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(n)
    return 0.5 * (x + 1.0), 0.5 * w


def flow(F: ArrayLike, G: ArrayLike, B: ArrayLike) -> tuple[Array, Array]:
    r"""Mean and noise factor of ``dz = F z dB + G dW`` over the stretches ``B`` of the unit clock.

    Parameters
    ----------
    F, G : arrays (k, k) and (k, q)
    B : array of any shape, nonnegative

    Returns
    -------
    E, L : arrays of shape ``B.shape + (k, k)``
        :math:`E = e^{FB}` and the lower factor of :math:`\int_0^B e^{Fs} G G^T e^{F^T s} ds`.
    """
    F, G, B = np.atleast_2d(np.asarray(F, float)), np.atleast_2d(np.asarray(G, float)), np.asarray(B, float)
    k, q = G.shape
    if k == 1:
        rate, noise = F[0, 0], np.sum(G * G)
        variance = noise * (B if rate == 0.0 else np.expm1(2.0 * rate * B) / (2.0 * rate))
        return np.exp(rate * B)[..., None, None], np.sqrt(variance)[..., None, None]
    # everything below is elementwise in B, so that a stretch has the same numbers whatever is beside it
    size = 2.0 * float(np.linalg.norm(F, 2)) * B
    if np.any(np.isinf(size)):
        raise OverflowError("the stretch times the drift is out of range")
    doublings = np.ceil(np.log2(np.where(size > 1.0, size, 1.0))).astype(np.int64)
    short = (B * 0.5**doublings)[..., None, None]

    powers = np.empty((_TERMS, k, k))
    powers[0] = np.eye(k)
    for n in range(1, _TERMS):
        powers[n] = powers[n - 1] @ F / n

    def exponential(s: Array) -> Array:
        total = np.broadcast_to(powers[-1], (*s.shape[:-2], k, k))
        for power in powers[-2::-1]:
            total = total * s + power
        return total

    nodes, weights = gauss(_NODES)
    columns = exponential(short[..., None, :, :] * nodes[:, None, None]) @ G * np.sqrt(short * weights)[..., 0, :, None, None]
    lower = triangular(np.swapaxes(columns, -3, -2).reshape(*B.shape, k, _NODES * q))
    mean = exponential(short)
    for done in range(int(np.max(doublings, initial=0))):
        more = (doublings > done)[..., None, None]
        lower = np.where(more, triangular(np.concatenate([mean @ lower, lower], axis=-1)), lower)
        mean = np.where(more, mean @ mean, mean)
    return mean, lower


@dataclass(frozen=True, eq=False)
class Transition:
    r""":math:`p(z_t \mid z_s) = N(E z_s, L L^T)` for s < t; arrays of shape (..., k, k).

    Attributes
    ----------
    mean : array (..., k, k)
        :math:`E`.
    chol : array (..., k, k)
        Lower factor :math:`L` of the covariance (its diagonal may be zero).
    """

    mean: Array
    chol: Array

    @property
    def cov(self) -> Array:
        """Covariance, (..., k, k)."""
        return self.chol @ np.swapaxes(self.chol, -1, -2)

    def then(self, later: Transition) -> Transition:
        """This transition followed by ``later``: the Chapman-Kolmogorov composition."""
        moved = later.mean @ self.chol
        added = np.broadcast_to(later.chol, (*moved.shape[:-1], later.chol.shape[-1]))
        return Transition(later.mean @ self.mean, triangular(np.concatenate([moved, added], axis=-1)))


@dataclass(frozen=True, eq=False)
class Kernel:
    r""":math:`p(z_t \mid x_0) = N(\psi x_0, S)`, ``k`` blocks, any number of times at once.

    All that ``z`` says of ``x_0`` is in one block, :math:`y = \psi^T S^{-1} z / SNR = x_0 + \sigma_{eff} n` with
    :math:`SNR = \psi^T S^{-1} \psi` and :math:`\sigma_{eff} = SNR^{-1/2}`.

    Attributes
    ----------
    psi : array (..., k)
        Coefficients of the mean.
    chol : array (..., k, k)
        Lower factor of the covariance ``S``; singular at t = 0 where a block starts without noise.
    """

    psi: Array
    chol: Array

    @property
    def k(self) -> int:
        """Number of blocks."""
        return int(self.psi.shape[-1])

    @property
    def cov(self) -> Array:
        """Covariance ``S``, (..., k, k)."""
        return self.chol @ np.swapaxes(self.chol, -1, -2)

    @property
    def det(self) -> Array:
        """``det S``, from the pivots."""
        return np.asarray(np.prod(np.diagonal(self.chol, axis1=-2, axis2=-1), axis=-1) ** 2)

    @cached_property
    def whitened(self) -> Array:
        """``L^-1 psi``, (..., k); infinite where the data block has no noise."""
        with np.errstate(divide="ignore", invalid="ignore"):
            v = solve_lower(self.chol, self.psi[..., None])[..., 0]
        return np.asarray(np.where(np.isnan(v), np.inf, v))

    @property
    def snr(self) -> Array:
        """Signal-to-noise ratio ``psi^T S^-1 psi`` of unit data."""
        return np.asarray(np.sum(self.whitened**2, axis=-1))

    @property
    def sigma_eff(self) -> Array:
        """Noise level of the equivalent scalar observation of ``x_0``."""
        return np.asarray(1.0 / np.sqrt(self.snr))

    @property
    def observe(self) -> Array:
        """The row ``psi^T S^-1 / SNR`` that turns ``z`` into ``y``, (..., k)."""
        v = self.whitened
        return np.asarray(solve_lower(self.chol, (v / np.sum(v * v, axis=-1, keepdims=True))[..., None], transpose=True)[..., 0])

    def then(self, transition: Transition) -> Kernel:
        """The kernel at the end of ``transition``, which starts at this kernel's time."""
        psi = (transition.mean @ self.psi[..., None])[..., 0]
        return Kernel(psi, triangular(np.concatenate([transition.mean @ self.chol, transition.chol], axis=-1)))

    def posterior(self, transition: Transition) -> tuple[Array, Array]:
        r"""Backward law between the two ends of ``transition``, given ``x_0``.

        With ``s`` this kernel's time and ``t`` the transition's end,
        :math:`z_s \mid z_t, x_0 \sim N(\psi_s x_0 + K (z_t - \psi_t x_0),\; C)`,
        :math:`K = S_s E^T S_t^{-1}`, :math:`C = S_s - K S_t K^T`; one triangularisation gives both, positive by construction.

        Returns
        -------
        K, chol : arrays (..., k, k)
            The gain and the lower factor of ``C``.
        """
        k = self.k
        above = np.concatenate([transition.mean @ self.chol, transition.chol], axis=-1)
        below = np.concatenate([np.broadcast_to(self.chol, above[..., :k].shape), np.zeros_like(above[..., :k])], axis=-1)
        joint = triangular(np.concatenate([above, below], axis=-2))
        gain = np.swapaxes(solve_lower(joint[..., :k, :k], np.swapaxes(joint[..., k:, :k], -1, -2), transpose=True), -1, -2)
        return gain, np.asarray(joint[..., k:, k:])

    def sample(self, x0: Array, normals: Array) -> Array:
        """``z_t`` from data ``x0`` (*shape) and standard normals (k, *shape); one time only."""
        return np.asarray(np.multiply.outer(self.psi, x0) + np.tensordot(self.chol, normals, axes=1))

    def __getitem__(self, index: int | tuple[int, ...]) -> Self:
        return type(self)(self.psi[index], self.chol[index])
