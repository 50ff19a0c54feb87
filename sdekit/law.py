r"""Data laws with exact denoisers: the ground truth of every test.

Each law gives ``denoiser()``: :math:`D(y; \sigma) = E[x_0 \mid x_0 + \sigma n = y]`, exact, on NumPy and torch arrays alike.  Through
``sigma_eff`` it drives every process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._array import is_torch, like, namespace
from .errors import BadInput, finite, whole
from .kernel import Kernel
from .noise import DATA, Address, Noise, as_ids, as_noise

Array = NDArray[np.float64]

__all__ = ["Empirical", "Gaussian", "Law", "Mixture"]


@runtime_checkable
class Law(Protocol):
    """A law of data with arrays of shape ``shape``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        ...

    def sample(self, n: int | None = None, *, ids: ArrayLike | None = None, seed: int | Noise = 0) -> Array:
        """Samples (n, *shape)."""
        ...

    def denoiser(self) -> LawDenoiser:
        """The exact denoiser."""
        ...


class LawDenoiser:
    """``denoise(y, sigma)``: the exact posterior mean of a law, on the arrays that it is given."""

    def __init__(self, law: Any) -> None:
        self.law = law
        self.shape: tuple[int, ...] = law.shape
        self._moved: dict[Any, Any] = {}

    def __call__(self, y: Any, sigma: Any) -> Any:
        """``E[x0 | x0 + sigma n = y]`` for y (batch, *shape) and sigma a number or (batch,)."""
        constants = self._constants(y)
        flat = y.reshape((y.shape[0], -1))
        tau = sigma * sigma
        if hasattr(tau, "ndim") and tau.ndim:
            tau = tau.reshape((-1, 1))
        return self.law._denoise(constants, flat, tau).reshape(y.shape)

    def _constants(self, y: Any) -> Any:
        if not is_torch(y) and y.dtype == np.float64:
            return self.law._constants
        key = (str(y.dtype), str(getattr(y, "device", "")))
        if key not in self._moved:
            self._moved[key] = _move(self.law._constants, y)
        return self._moved[key]


def _move(tree: Any, reference: Any) -> Any:
    if isinstance(tree, tuple):
        return tuple(_move(leaf, reference) for leaf in tree)
    return like(tree, reference) if isinstance(tree, np.ndarray) else tree


def _array(name: str, value: ArrayLike) -> Array:
    try:
        array = np.array(value, dtype=float)
    except (TypeError, ValueError):
        raise BadInput(f"{name} must be an array of numbers") from None
    if not np.all(np.isfinite(array)):
        raise BadInput(f"{name} holds a value that is not finite")
    array.setflags(write=False)
    return array


def _draw(seed: int | Noise, n: int | None, ids: ArrayLike | None, size: int, rows: int = 1) -> Array:
    if (n is None) == (ids is None):
        raise BadInput("give either n, the number of samples, or their ids")
    chosen = np.arange(whole("n", n)) if ids is None else as_ids(ids)
    return np.asarray(as_noise(seed).draw([Address(DATA, slot=row) for row in range(rows)], chosen, (size,)))


@dataclass(frozen=True, eq=False, init=False)
class Gaussian:
    r"""The normal law :math:`N(\mu, C)`.

    Parameters
    ----------
    mean : array of the datum's shape
    cov : number, array of the datum's shape, or matrix (d, d)
        Isotropic, diagonal or full covariance; ``d`` is the number of elements of a datum.

    Raises
    ------
    BadInput
        For shapes that do not fit, or a covariance that is not symmetric positive semidefinite.
    """

    mean: Array
    cov: Array

    def __init__(self, mean: ArrayLike, cov: ArrayLike) -> None:
        mean, cov = _array("mean", mean), _array("cov", cov)
        d = mean.size
        full = cov.ndim == 2 and cov.shape == (d, d) and cov.shape != mean.shape
        if not full and cov.shape not in {(), mean.shape}:
            raise BadInput(f"cov has shape {cov.shape}; for a mean of shape {mean.shape} it must be a number, {mean.shape} or ({d}, {d})")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "cov", cov)
        size = float(np.max(np.abs(cov)))
        if full and np.any(np.abs(cov - cov.T) > 1e-10 * size):
            raise BadInput("cov must be symmetric")
        if float(np.min(self._values())) < -1e-10 * size:
            raise BadInput(f"cov has a negative eigenvalue {float(np.min(self._values())):g}; a covariance must be positive semidefinite")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        return self.mean.shape

    @property
    def full(self) -> bool:
        """Whether the covariance is given as a matrix."""
        return self.cov.ndim == 2 and self.cov.shape != self.mean.shape

    @cached_property
    def _eigen(self) -> tuple[Array, Array]:
        values, vectors = np.linalg.eigh(self.cov)
        return values, vectors

    def _values(self) -> Array:
        return self._eigen[0] if self.full else np.broadcast_to(self.cov, self.mean.shape).reshape(-1)

    @cached_property
    def variances(self) -> Array:
        """Eigenvalues of the covariance, (d,)."""
        return np.maximum(self._values(), 0.0)

    @property
    def basis(self) -> Array | None:
        """Orthonormal eigenvectors as columns, (d, d); None if they are the coordinate axes."""
        return self._eigen[1] if self.full else None

    @property
    def matrix(self) -> Array:
        """The covariance as a matrix (d, d)."""
        return np.array(self.cov) if self.full else np.diag(self.variances)

    @cached_property
    def _constants(self) -> tuple[Any, ...]:
        return self.mean.reshape(-1), np.array(self.variances), self.basis

    @staticmethod
    def _denoise(constants: tuple[Any, ...], y: Any, tau: Any) -> Any:
        mean, values, basis = constants
        shrink = values / (values + tau)
        gap = y - mean
        return mean + (shrink * gap if basis is None else (shrink * (gap @ basis)) @ basis.T)

    @staticmethod
    def _log_density(constants: tuple[Any, ...], y: Any, tau: Any) -> Any:
        mean, values, basis = constants
        xp = namespace(y)
        gap = y - mean if basis is None else (y - mean) @ basis
        total = values + tau
        return -0.5 * xp.sum(gap * gap / total + xp.log(2.0 * np.pi * total), axis=-1)

    def denoiser(self) -> LawDenoiser:
        r""":math:`D(y; \sigma) = \mu + C (C + \sigma^2)^{-1} (y - \mu)`."""
        return LawDenoiser(self)

    def log_density(self, y: Any, sigma: float = 0.0) -> Any:
        """Log-density of ``x0 + sigma n`` at y (n, *shape)."""
        return self._log_density(_move(self._constants, y), y.reshape((y.shape[0], -1)), sigma * sigma)

    def sample(self, n: int | None = None, *, ids: ArrayLike | None = None, seed: int | Noise = 0) -> Array:
        """Samples (n, *shape), addressed by (seed, id)."""
        xi = np.sqrt(self.variances) * _draw(seed, n, ids, self.mean.size)[0]
        basis = self.basis
        return np.asarray((xi if basis is None else xi @ basis.T).reshape(-1, *self.shape) + self.mean)

    def push(self, kernel: Kernel) -> Gaussian:
        """The law of the state at the kernel's time, on data of shape (k, *shape); its covariance is full if ``k > 1``."""
        if kernel.k == 1:
            psi, S = float(kernel.psi[0]), float(kernel.cov[0, 0])
            noise = S * np.eye(self.mean.size) if self.full else S
            return Gaussian(psi * self.mean, psi**2 * self.cov + noise)
        cov = np.kron(np.outer(kernel.psi, kernel.psi), self.matrix) + np.kron(kernel.cov, np.eye(self.mean.size))
        return Gaussian(np.multiply.outer(kernel.psi, self.mean), cov)


@dataclass(frozen=True, eq=False, init=False)
class Mixture:
    """A mixture of normal laws.

    Parameters
    ----------
    weights : (K,), nonnegative; normalised to sum to one
    means : (K, *shape)
    covs : number, (K,), (K, *shape) or (K, d, d)

    Raises
    ------
    BadInput
        For shapes that do not fit, negative weights, or a component that is not a normal law.
    """

    weights: Array
    parts: tuple[Gaussian, ...]

    def __init__(self, weights: ArrayLike, means: ArrayLike, covs: ArrayLike) -> None:
        weights, means, covs = _array("weights", weights), _array("means", means), _array("covs", covs)
        if weights.ndim != 1 or not len(weights) or np.min(weights) < 0.0 or np.sum(weights) <= 0.0:
            raise BadInput(f"weights = {weights.tolist()} must be a list of nonnegative numbers that are not all zero")
        if means.ndim < 1 or len(means) != len(weights):
            raise BadInput(f"means have shape {means.shape}; the first axis must be the {len(weights)} components")
        if covs.ndim and len(covs) != len(weights):
            raise BadInput(f"covs have shape {covs.shape}; they must be one number, or have the {len(weights)} components as first axis")
        each = np.broadcast_to(covs, len(weights)) if covs.ndim == 0 else covs
        object.__setattr__(self, "weights", weights / np.sum(weights))
        object.__setattr__(self, "parts", tuple(Gaussian(m, c) for m, c in zip(means, each, strict=True)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        return self.parts[0].shape

    @property
    def mean(self) -> Array:
        """Mean, of the datum's shape."""
        return np.asarray(np.tensordot(self.weights, np.stack([part.mean for part in self.parts]), axes=1))

    @property
    def matrix(self) -> Array:
        """Covariance as a matrix (d, d)."""
        gaps = np.stack([(part.mean - self.mean).reshape(-1) for part in self.parts])
        inner = sum(w * part.matrix for w, part in zip(self.weights, self.parts, strict=True))
        return np.asarray(inner + (gaps.T * self.weights) @ gaps)

    @cached_property
    def _constants(self) -> tuple[Any, ...]:
        with np.errstate(divide="ignore"):
            return np.log(self.weights), tuple(part._constants for part in self.parts)

    @staticmethod
    def _logits(constants: tuple[Any, ...], y: Any, tau: Any) -> Any:
        logs, parts = constants
        return namespace(y).stack([logs[j] + Gaussian._log_density(part, y, tau) for j, part in enumerate(parts)], axis=-1)

    @staticmethod
    def _denoise(constants: tuple[Any, ...], y: Any, tau: Any) -> Any:
        share = softmax(Mixture._logits(constants, y, tau))
        answers = (share[:, j : j + 1] * Gaussian._denoise(part, y, tau) for j, part in enumerate(constants[1]))
        return sum(answers)

    def denoiser(self) -> LawDenoiser:
        r""":math:`D = \sum_j r_j(y) D_j(y; \sigma)` with :math:`r_j \propto w_j N(y; \mu_j, C_j + \sigma^2)`."""
        return LawDenoiser(self)

    def log_density(self, y: Any, sigma: float = 0.0) -> Any:
        """Log-density of ``x0 + sigma n`` at y (n, *shape)."""
        logits = self._logits(_move(self._constants, y), y.reshape((y.shape[0], -1)), sigma * sigma)
        xp = namespace(y)
        top = xp.max(logits, axis=-1) if not is_torch(logits) else logits.max(dim=-1).values
        return top + xp.log(xp.sum(xp.exp(logits - top[:, None]), axis=-1))

    def sample(self, n: int | None = None, *, ids: ArrayLike | None = None, seed: int | Noise = 0) -> Array:
        """Samples (n, *shape), addressed by (seed, id)."""
        from scipy.special import ndtr

        d = self.parts[0].mean.size
        xi = _draw(seed, n, ids, max(d, 1), rows=2)
        which = np.minimum(np.searchsorted(np.cumsum(self.weights), ndtr(xi[1, :, 0]), side="right"), len(self.parts) - 1)
        out = np.empty((xi.shape[1], d))
        for j, part in enumerate(self.parts):
            rows = which == j
            scaled = np.sqrt(part.variances) * xi[0, rows]
            out[rows] = part.mean.reshape(-1) + (scaled if part.basis is None else scaled @ part.basis.T)
        return out.reshape(-1, *self.shape)

    def push(self, kernel: Kernel) -> Mixture:
        """The law of the state at the kernel's time, on data of shape (k, *shape)."""
        parts = [part.push(kernel) for part in self.parts]
        return Mixture(self.weights, np.stack([part.mean for part in parts]), np.stack([part.matrix for part in parts]))


@dataclass(frozen=True, eq=False, init=False)
class Empirical:
    r"""The uniform law on a finite set of data, or around it: :math:`\frac1n \sum_i N(x_i, w^2)`.

    Parameters
    ----------
    data : (n, *shape)
    width : float
        Standard deviation ``w`` around each datum; 0 for the data themselves.
    """

    data: Array
    width: float

    def __init__(self, data: ArrayLike, width: float = 0.0) -> None:
        data = _array("data", data)
        if data.ndim < 1 or not len(data):
            raise BadInput(f"data have shape {data.shape}; the first axis must be the samples")
        if finite("width", width) < 0.0:
            raise BadInput(f"width = {width!r} must not be negative")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "width", float(width))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        return self.data.shape[1:]

    @cached_property
    def _constants(self) -> tuple[Any, ...]:
        flat = self.data.reshape(len(self.data), -1)
        return flat, np.sum(flat * flat, axis=1), self.width**2

    @staticmethod
    def _denoise(constants: tuple[Any, ...], y: Any, tau: Any) -> Any:
        data, squares, inner = constants
        near = softmax((y @ data.T - 0.5 * squares) / (tau + inner)) @ data
        return near if inner == 0.0 else (inner * y + tau * near) / (tau + inner)

    def denoiser(self) -> LawDenoiser:
        r""":math:`D = (w^2 y + \sigma^2 \bar x)/(w^2 + \sigma^2)` with :math:`\bar x \propto \sum_i x_i e^{-|y - x_i|^2/2(w^2 + \sigma^2)}`.

        Needs ``sigma > 0`` or ``w > 0``.
        """
        return LawDenoiser(self)

    def sample(self, n: int | None = None, *, ids: ArrayLike | None = None, seed: int | Noise = 0) -> Array:
        """Data drawn with replacement, plus noise of the width, addressed by (seed, id)."""
        from scipy.special import ndtr

        u = ndtr(_draw(seed, n, ids, 1)[0, :, 0])
        drawn = self.data[np.minimum((u * len(self.data)).astype(int), len(self.data) - 1)]
        if self.width == 0.0:
            return np.asarray(drawn)
        xi = _draw(seed, n, ids, max(1, self.data[0].size), rows=2)[1]
        return np.asarray(drawn + self.width * xi.reshape(drawn.shape))


def softmax(logits: Any) -> Any:
    xp = namespace(logits)
    top = xp.max(logits, axis=-1) if not is_torch(logits) else logits.max(dim=-1).values
    weights = xp.exp(logits - top[:, None])
    return weights / xp.sum(weights, axis=-1)[:, None]
