"""Affine maps with noise, and normal laws as factors, for many independent modes at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernel import triangular
from ..law import Gaussian
from .wasserstein import w2_factors

Array = NDArray[np.float64]

__all__ = ["Affine", "Normal", "in_basis", "shared_basis"]


def _join(left: Array, right: Array) -> Array:
    """Factors side by side, squeezed when they get wide."""
    wide: Array = np.concatenate([left, right], axis=1)
    rows, columns = wide.shape[:2]
    return wide if columns <= 8 * rows + 16 else squeeze(wide)


def squeeze(factor: Array) -> Array:
    """The same covariance from as many columns as rows; factors have shape (rows, columns, modes)."""
    return np.moveaxis(triangular(np.moveaxis(factor, -1, 0)), 0, -1)


@dataclass(frozen=True, eq=False)
class Affine:
    """``z -> A z + b + N xi``, mode by mode: arrays (K, J, d), (K, d), (K, r, d)."""

    matrix: Array
    offset: Array
    noise: Array

    def then(self, later: Affine) -> Affine:
        """This map followed by ``later``."""
        return Affine(
            np.einsum("ijd,jkd->ikd", later.matrix, self.matrix),
            np.einsum("ijd,jd->id", later.matrix, self.offset) + later.offset,
            _join(np.einsum("ijd,jrd->ird", later.matrix, self.noise), later.noise),
        )

    def push(self, law: Normal) -> Normal:
        """The law of the image."""
        mean = np.einsum("ijd,jd->id", self.matrix, law.mean) + self.offset
        return Normal(mean, np.concatenate([np.einsum("ijd,jrd->ird", self.matrix, law.factor), self.noise], axis=1))

    def dense(self, basis: Array | None) -> Affine:
        """The same map on all elements at once, in coordinates: one mode, blocks times elements rows."""
        return Affine(_spread(self.matrix, basis)[..., None], _turn(self.offset, basis), _spread(self.noise, basis, False)[..., None])


@dataclass(frozen=True, eq=False)
class Normal:
    """Normal laws of K rows, mode by mode: mean (K, d), factor (K, r, d)."""

    mean: Array
    factor: Array

    def dense(self, basis: Array | None) -> Normal:
        """The same law on all elements at once, in coordinates."""
        return Normal(_turn(self.mean, basis), _spread(self.factor, basis, False)[..., None])

    def rows(self, n: int) -> Normal:
        """The law of the first ``n`` rows."""
        return Normal(self.mean[:n], self.factor[:n])

    def distance(self, other: Normal) -> float:
        """Exact W2."""
        gap = self.mean - other.mean
        if len(self.mean) == 1:
            own, its = (np.sqrt(np.sum(law.factor[0] ** 2, axis=0)) for law in (self, other))
            return float(np.sqrt(np.sum(gap**2) + np.sum((own - its) ** 2)))
        squares = [w2_factors(gap[:, m], self.factor[..., m], other.factor[..., m]) ** 2 for m in range(gap.shape[1])]
        return float(np.sqrt(np.sum(squares)))


def _turn(vectors: Array, basis: Array | None) -> Array:
    return (vectors if basis is None else vectors @ basis.T).reshape(-1, 1)


def _spread(blocks: Array, basis: Array | None, square: bool = True) -> Array:
    """(K, J, d) modes to (K d, J d) in coordinates: each (i, j) becomes ``U diag U^T``, or ``U diag`` for noise columns."""
    rows, columns, d = blocks.shape
    U = np.eye(d) if basis is None else basis
    right = U.T if square else np.eye(d)
    return np.asarray(np.einsum("em,ijm,mf->iejf", U, blocks, right, optimize=True).reshape(rows * d, columns * d))


def in_basis(law: Any, basis: Array | None) -> tuple[Array, Array] | None:
    """Mean and variances of ``law`` along ``basis`` (None: the axes); None if its covariance is not diagonal there."""
    mean = law.mean.reshape(-1)
    same = law.basis is None if basis is None else law.basis is not None and np.array_equal(law.basis, basis)
    if not same and np.ptp(law.variances) > 0.0:
        return None
    return (mean if basis is None else mean @ basis), law.variances


def shared_basis(laws: list[Gaussian]) -> tuple[bool, Array | None]:
    """Whether the laws commute, and an eigenbasis of all of them."""
    basis = next((law.basis for law in laws if law.basis is not None), None)
    return all(in_basis(law, basis) is not None for law in laws), basis
