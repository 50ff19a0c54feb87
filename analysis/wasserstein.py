"""Wasserstein distances: exact between normal laws, exact between samples on the line."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BadInput

Array = NDArray[np.float64]

__all__ = ["partition", "w1_exact_1d", "w2_exact_1d", "w2_factors", "w2_gaussian"]


def w2_factors(gap: ArrayLike, left: ArrayLike, right: ArrayLike) -> float:
    r"""W2 between normal laws with means ``gap`` apart and covariances ``L L^T``, ``R R^T``, from the factors (d, r).

    .. math:: W_2^2 = |\Delta\mu|^2 + \min_{O} \|L - R O\|_F^2,

    solved by the singular values of :math:`R^T L` (orthogonal Procrustes): no difference of traces, so small distances keep their digits and
    the distance of a law to itself is zero to rounding.
    """
    left, right = np.asarray(left, float), np.asarray(right, float)
    width = max(left.shape[1], right.shape[1])
    left = np.pad(left, ((0, 0), (0, width - left.shape[1])))
    right = np.pad(right, ((0, 0), (0, width - right.shape[1])))
    u, _, vt = np.linalg.svd(right.T @ left)
    return float(np.sqrt(np.sum(np.asarray(gap, float) ** 2) + np.sum((left - right @ (u @ vt)) ** 2)))


def _root(name: str, cov: Array, d: int) -> Array:
    cov = np.broadcast_to(cov, (d, d)) * np.eye(d) if cov.ndim == 0 else np.diag(cov) if cov.ndim == 1 and d == len(cov) else cov
    if cov.shape != (d, d) or np.any(np.abs(cov - cov.T) > 1e-10 * np.max(np.abs(cov))):
        raise BadInput(f"{name} has shape {cov.shape}; it must be a number, ({d},) or a symmetric ({d}, {d})")
    values, vectors = np.linalg.eigh(cov)
    if values[0] < -1e-10 * max(values[-1], 0.0):
        raise BadInput(f"{name} has a negative eigenvalue {values[0]:g}; a covariance must be positive semidefinite")
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def w2_gaussian(mean1: ArrayLike, cov1: ArrayLike, mean2: ArrayLike, cov2: ArrayLike) -> float:
    """Exact W2 between ``N(mean1, cov1)`` and ``N(mean2, cov2)``.

    Parameters
    ----------
    mean1, mean2 : number or array (d,)
    cov1, cov2 : number, (d,) or (d, d)
        Isotropic, diagonal or full covariances; may be singular.

    Returns
    -------
    float
        In the unit of the data.

    Raises
    ------
    BadInput
        For shapes that do not fit or a matrix that is not a covariance.

    References
    ----------
    Dowson and Landau 1982; the factor form is the one of :func:`w2_factors`.
    """
    m1, m2 = np.atleast_1d(np.asarray(mean1, float)).ravel(), np.atleast_1d(np.asarray(mean2, float)).ravel()
    if m1.shape != m2.shape:
        raise BadInput(f"means have {m1.size} and {m2.size} elements")
    return w2_factors(m1 - m2, _root("cov1", np.asarray(cov1, float), m1.size), _root("cov2", np.asarray(cov2, float), m1.size))


def partition(n: int, m: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """The common partition of [0, 1] by multiples of 1/n and of 1/m, in exact integers: place in each sorted sample, and width."""
    edges = np.union1d(np.arange(n + 1, dtype=np.int64) * m, np.arange(m + 1, dtype=np.int64) * n)
    return edges[:-1] // m, edges[:-1] // n, np.diff(edges) / (n * m)


def _sorted(x: ArrayLike, weights: ArrayLike | None) -> tuple[Array, Array | None]:
    x = np.asarray(x, float).ravel()
    if not x.size:
        raise BadInput("both samples must hold at least one number")
    if weights is None:
        return np.sort(x), None
    w = np.asarray(weights, float).ravel()
    if w.shape != x.shape or not np.all(np.isfinite(w)) or np.min(w) < 0.0 or np.sum(w) <= 0.0:
        raise BadInput(f"weights must be {x.size} finite numbers >= 0, one for each sample, not all zero")
    order = np.argsort(x, kind="stable")
    return x[order], np.cumsum(w[order]) / np.sum(w)


def _quantiles(a: ArrayLike, b: ArrayLike, a_weights: ArrayLike | None, b_weights: ArrayLike | None) -> tuple[Array, Array, Array]:
    """Both samples at the midpoints of the common partition of [0, 1], and its widths."""
    (x, own), (y, its) = _sorted(a, a_weights), _sorted(b, b_weights)
    if own is None and its is None:
        if x.size == y.size:
            return x, y, np.full(x.size, 1.0 / x.size)
        left, right, widths = partition(x.size, y.size)
        return x[left], y[right], widths
    shares = [np.arange(1, z.size + 1) / z.size if share is None else share for z, share in ((x, own), (y, its))]
    edges = np.union1d(0.0, np.minimum(np.concatenate(shares), 1.0))
    middles = 0.5 * (edges[1:] + edges[:-1])
    places = [np.minimum(np.searchsorted(share, middles), len(share) - 1) for share in shares]
    return x[places[0]], y[places[1]], np.diff(edges)


def w1_exact_1d(a: ArrayLike, b: ArrayLike, *, a_weights: ArrayLike | None = None, b_weights: ArrayLike | None = None) -> float:
    """Exact W1 between two samples of numbers, of any sizes: the mean distance of their quantiles.

    Parameters
    ----------
    a, b : arrays
    a_weights, b_weights : arrays, optional
        Weights of the samples, which need not sum to one; equal when absent.

    Raises
    ------
    BadInput
        For an empty sample, or weights that are not one nonnegative number for each sample.
    """
    x, y, w = _quantiles(a, b, a_weights, b_weights)
    return float(np.sum(w * np.abs(x - y)))


def w2_exact_1d(a: ArrayLike, b: ArrayLike, *, a_weights: ArrayLike | None = None, b_weights: ArrayLike | None = None) -> float:
    """Exact W2 between two samples of numbers: the root mean square distance of their quantiles; as for :func:`w1_exact_1d`."""
    x, y, w = _quantiles(a, b, a_weights, b_weights)
    return float(np.sqrt(np.sum(w * (x - y) ** 2)))
