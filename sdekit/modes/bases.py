"""Orthonormal bases of data arrays, for NumPy and torch alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._array import like, namespace
from ..errors import BadInput, whole

Array = NDArray[np.float64]

__all__ = ["Basis", "axes_of", "dct", "eigen", "pixels"]


def _shape(shape: Sequence[int] | int) -> tuple[int, ...]:
    return tuple(whole("shape", n) for n in ((shape,) if isinstance(shape, int) else shape))


@dataclass(frozen=True, eq=False)
class Basis:
    """An orthonormal basis of arrays of shape ``shape``.

    Attributes
    ----------
    shape : tuple of int
    view : tuple of int
        Shape in which it is separable.
    factors : tuple of (array (n, n) or None)
        For each axis of the view the orthogonal matrix whose columns are the basis vectors; None for the axis's own.
    """

    shape: tuple[int, ...]
    view: tuple[int, ...]
    factors: tuple[Array | None, ...]
    _moved: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for U in self.factors:
            if U is not None and np.max(np.abs(U.T @ U - np.eye(len(U)))) > 1e-10:
                raise BadInput("a basis must be orthonormal: U^T U is not the identity; for a covariance take its eigenvectors, eigh(C)[1]")

    def forward(self, x: Any) -> Any:
        """Coefficients ``c = U^T x`` of x (..., *shape), in the same shape: the axes of a separable basis stand for its modes."""
        return self._turn(x, False)

    def backward(self, c: Any) -> Any:
        """``x = U c``."""
        return self._turn(c, True)

    def _turn(self, x: Any, back: bool) -> Any:
        if all(U is None for U in self.factors):
            return x
        xp = namespace(x)
        made = x.reshape((-1, *self.view))
        for axis, U in enumerate(self._matrices(x), 1):
            if U is not None:
                made = xp.moveaxis(xp.moveaxis(made, axis, -1) @ (U.T if back else U), -1, axis)
        return made.reshape(x.shape)

    def _matrices(self, x: Any) -> tuple[Any, ...]:
        key = (str(x.dtype), str(getattr(x, "device", "")))
        if key not in self._moved:
            self._moved[key] = tuple(None if U is None else like(U, x) for U in self.factors)
        made: tuple[Any, ...] = self._moved[key]
        return made

    @property
    def flat(self) -> Basis:
        """The same basis for data as vectors (d,)."""
        return Basis((int(np.prod(self.shape)),), self.view, self.factors)

    @property
    def matrix(self) -> Array:
        """The basis as a matrix (d, d) with the modes as columns."""
        d = int(np.prod(self.shape))
        return np.asarray(self.flat.backward(np.eye(d)).T)

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """What it is."""
        return (self.shape, *(U if U is None else hashlib.sha256(U.tobytes()).hexdigest() for U in self.factors))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Basis) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def pixels(shape: Sequence[int] | int) -> Basis:
    """The elements of the data themselves."""
    made = _shape(shape)
    return Basis(made, (int(np.prod(made)),), (None,))


def dct(shape: Sequence[int] | int, axes: Sequence[int] | None = None) -> Basis:
    """Orthonormal cosines (DCT-II) along ``axes``, the last two (or the only one) when absent."""
    from scipy.fft import dct as transform

    made = _shape(shape)
    chosen = axes_of(made, axes)
    return Basis(made, made, tuple(transform(np.eye(n), axis=1, norm="ortho") if i in chosen else None for i, n in enumerate(made)))


def axes_of(shape: tuple[int, ...], axes: Sequence[int] | None) -> tuple[int, ...]:
    """``axes`` as numbers from 0 on; the last two when absent."""
    wanted = tuple(range(len(shape)))[-2:] if axes is None else tuple(axes)
    if not wanted or any(not -len(shape) <= i < len(shape) for i in wanted):
        raise BadInput(f"axes = {wanted} must be axes of data of shape {shape}, which needs at least one")
    return tuple(i % len(shape) for i in wanted)


def eigen(matrix: ArrayLike, shape: Sequence[int] | int | None = None) -> Basis:
    """The columns of an orthogonal matrix (d, d), for data of shape ``shape`` ((d,) when absent) with ``d`` elements.

    Raises
    ------
    BadInput
        Unless the matrix is orthogonal and fits the shape.
    """
    U = np.array(matrix, float)
    made = _shape(U.shape[0] if shape is None and U.ndim == 2 else () if shape is None else shape)
    if U.shape != (int(np.prod(made)),) * 2:
        raise BadInput(f"the matrix has shape {U.shape}; for data of shape {made} it must be square with {int(np.prod(made))} columns")
    return Basis(made, (len(U),), (U,))
