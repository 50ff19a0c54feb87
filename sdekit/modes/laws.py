"""Data laws in a basis, and exact denoisers for noise with a level of its own in each mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._array import like, namespace
from ..errors import BadInput
from ..law import Empirical, Gaussian, LawDenoiser, Mixture, softmax
from ..noise import Noise
from .bases import Basis, pixels

Array = NDArray[np.float64]

__all__ = ["Denoiser", "Spectral", "diagonal"]


@dataclass(frozen=True, eq=False)
class Spectral:
    """The law of ``x = U c`` with ``c ~ law``: data given by their coefficients, such as a spectrum ``Gaussian(0, variances)``.

    Attributes
    ----------
    law : Law
        Of arrays of the basis's shape.
    basis : Basis
    """

    law: Any
    basis: Basis

    def __post_init__(self) -> None:
        if tuple(self.law.shape) != self.basis.shape:
            raise BadInput(f"the law has coefficients of shape {tuple(self.law.shape)}, the basis {self.basis.shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        return self.basis.shape

    def sample(self, n: int | None = None, *, ids: ArrayLike | None = None, seed: int | Noise = 0) -> Array:
        """Samples (n, *shape)."""
        return np.asarray(self.basis.backward(self.law.sample(n, ids=ids, seed=seed)))

    def denoiser(self) -> Denoiser:
        """The exact denoiser, for a level or one level for each mode."""
        return Denoiser(self, self.basis)


def _coefficients(law: Gaussian, basis: Basis) -> tuple[Array, Array]:
    """Mean (d,) and variances (d,) of the coefficients; their covariance (d, d) if it is not diagonal."""
    mean = basis.forward(law.mean[None]).reshape(-1)
    same = all(U is None for U in basis.factors)
    if (same and not law.full) or np.ptp(law.variances) == 0.0:
        return mean, law.variances
    d = mean.size
    half = basis.flat.forward(law.matrix).reshape(d, d).T
    cov = np.asarray(basis.flat.forward(half))
    own = np.diagonal(cov)
    separate = np.max(np.abs(cov - np.diag(own))) <= 1e-12 * np.max(own)
    return mean, np.maximum(own, 0.0) if separate else 0.5 * (cov + cov.T)


def _unwrapped(law: Any, basis: Basis) -> tuple[Any, Basis]:
    """A law of coefficients with its own axes as basis, in the place of a law in a basis."""
    if tuple(law.shape) != basis.shape:
        raise BadInput(f"the law has data of shape {tuple(law.shape)}, the basis {basis.shape}")
    if not isinstance(law, Spectral):
        return law, basis
    if law.basis != basis:
        raise BadInput("the law is given in another basis than the process's: build both with the same one")
    return law.law, pixels(basis.shape)


def diagonal(law: Any, basis: Basis) -> Gaussian:
    """The coefficients of a Gaussian law as independent normals (d,).

    Raises
    ------
    BadInput
        Unless the law is Gaussian with a covariance that is diagonal in ``basis``.
    """
    law, basis = _unwrapped(law, basis)
    if not isinstance(law, Gaussian):
        raise BadInput(f"{law!r} must be a Gaussian law: the exact law of a sampler is known for affine denoisers only")
    mean, cov = _coefficients(law, basis)
    if cov.ndim == 2:
        raise BadInput("the law's covariance is not diagonal in the basis of the process, whose modes must be independent; give a Spectral law in it")
    return Gaussian(mean, cov)


@dataclass(frozen=True)
class _Parts:
    shape: tuple[int, ...]
    _constants: Any


class Denoiser(LawDenoiser):
    r"""``denoise(y, sigmas)``: the exact mean of the data given :math:`y = x_0 + U\,\mathrm{diag}(\sigma)\,n`.

    With :math:`T = \mathrm{diag}(\sigma^2)`, all in coefficients: Gaussian :math:`\mu + C (C + T)^{-1} (y - \mu)`; mixtures weigh these by
    :math:`w N(y; \mu, C + T)`; empirical laws of width ``w`` are such mixtures of their data.  Covariances that are not diagonal
    in the basis cost ``d^3`` at each call.

    Parameters
    ----------
    law : Gaussian, Mixture, Empirical, or Spectral of these
    basis : Basis
        What a process of modes knows its model by: any ``denoise(y, sigmas)`` with this attribute will do.

    Raises
    ------
    BadInput
        For another law.
    """

    def __init__(self, law: Any, basis: Basis) -> None:
        self.basis = basis
        law, own = _unwrapped(law, basis)
        self._mean: Callable[[Any, Any, Any], Any] = _of_parts
        constants: tuple[Any, ...]
        if isinstance(law, Empirical):
            self._mean = _of_data
            data = own.forward(law.data).reshape(len(law.data), -1)
            constants = data, data * data, law.width**2
        elif isinstance(law, Gaussian):
            constants = np.zeros(1), (_coefficients(law, own),)
        elif isinstance(law, Mixture):
            with np.errstate(divide="ignore"):
                constants = np.log(law.weights), tuple(_coefficients(part, own) for part in law.parts)
        else:
            raise BadInput(f"{law!r} has no exact denoiser for one level in each mode: give a Gaussian, a Mixture or an Empirical law")
        super().__init__(_Parts(basis.shape, constants))

    def __call__(self, y: Any, sigma: Any) -> Any:
        """``E[x0 | y]`` for y (n, *shape) and sigma a number, or the level of each mode, broadcastable to ``shape``."""
        xp = namespace(y)
        levels = sigma if hasattr(sigma, "dtype") and namespace(sigma) is xp else like(np.asarray(sigma, float), y)
        tau = xp.broadcast_to(levels * levels, self.shape).reshape(-1)
        c = self.basis.forward(y).reshape((y.shape[0], -1))
        return self.basis.backward(self._mean(self._constants(y), c, tau).reshape(y.shape))


def _of_data(constants: tuple[Any, ...], y: Any, tau: Any) -> Any:
    data, squares, inner = constants
    total = tau + inner
    near = softmax((y / total) @ data.T - 0.5 * (squares @ (1.0 / total))) @ data
    return near + inner / total * (y - near)


def _of_parts(constants: tuple[Any, ...], y: Any, tau: Any) -> Any:
    logs, parts = constants
    means, densities = zip(*(_posterior(mean, cov, y, tau) for mean, cov in parts), strict=True)
    share = softmax(namespace(y).stack(densities, axis=-1) + logs)
    return sum(share[:, j : j + 1] * mean for j, mean in enumerate(means))


def _posterior(mean: Any, cov: Any, y: Any, tau: Any) -> tuple[Any, Any]:
    """Mean of the coefficients given ``y``, and the log-density of ``y`` up to a constant."""
    xp = namespace(y)
    gap = y - mean
    if cov.ndim == 1:
        total = cov + tau
        return mean + cov / total * gap, -0.5 * xp.sum(gap * gap / total + xp.log(total), axis=-1)
    total = cov + tau * xp.eye(len(mean), dtype=y.dtype, device=getattr(y, "device", None))
    pull = xp.linalg.solve(total, gap.T).T
    return mean + pull @ cov, -0.5 * (xp.sum(gap * pull, axis=-1) + xp.linalg.slogdet(total)[1])
