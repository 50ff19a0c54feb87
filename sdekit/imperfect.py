r"""Denoisers with a known error: what a trained network gets wrong, put in by hand.

With :math:`t\,s = (D - y)/\sigma` at level :math:`\sigma = t`, an error of the denoiser is one of the score,

.. math:: \epsilon(\sigma) = \big\| t\,s_\theta - t\,s \big\| = \frac{\| D_\theta - D \|}{\sigma},

in root mean square over the exact law of :math:`y = x_0 + \sigma n` unless another norm is named.  Each injector is a denoiser for every
method and process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._array import like, namespace
from .errors import BadInput, finite, positive, whole
from .law import Gaussian, Law, Mixture
from .noise import PATH, Address, Addressed

Array = NDArray[np.float64]

__all__ = ["Field", "Imperfect", "Misfit", "fourier", "low_rank", "off_shell", "scaled_covariance", "shifted_means", "wrong_weights"]


def _window(low: float, high: float) -> tuple[float, float]:
    if not 0.0 <= finite("low", low) < float(high):
        raise BadInput(f"window [{low:g}, {high:g}] needs 0 <= low < high")
    return float(low), float(high)


def _inside(sigma: Any, window: tuple[float, float]) -> Any:
    return (sigma >= window[0]) & (sigma <= window[1])


def _mixed(inside: Any, wrong: Any, right: Any) -> Any:
    """``wrong`` for the samples whose level is inside, ``right`` for the others."""
    rows = inside.reshape((-1, *(1,) * (right.ndim - 1)))
    return namespace(right).where(rows, wrong, right)


def _check(data: Any) -> None:
    if not isinstance(data, Law):
        raise BadInput(f"data = {data!r} must be a law, such as sdekit.law.Gaussian(mean, cov): its exact denoiser is what gets the error")


class Imperfect:
    """What injectors share: an exact law, a wrong denoiser, and a window of levels in which it is asked.

    Attributes
    ----------
    data : Law
        The law whose exact denoiser is spoilt.
    shape : tuple of int
        Of one datum.
    window : (float, float)
        Levels at which the error is there, ends included; the denoiser is exact elsewhere.
    law : Law or None
        The law whose exact denoiser this is, if there is one: with another law's field at all levels.
    """

    def __init__(self, data: Law, window: tuple[float, float] = (0.0, float("inf"))) -> None:
        _check(data)
        self.data, self.window = data, _window(*window)
        self.shape: tuple[int, ...] = tuple(data.shape)
        self._exact = data.denoiser()
        self.law: Law | None = None

    def _wrong(self, y: Any, sigma: Any) -> Any:
        raise NotImplementedError

    def __call__(self, y: Any, sigma: Any) -> Any:
        """The denoised data, with the error where ``sigma`` is in the window."""
        inside = _inside(sigma, self.window)
        if not getattr(inside, "ndim", 0):
            return self._wrong(y, sigma) if inside else self._exact(y, sigma)
        return _mixed(inside, self._wrong(y, sigma), self._exact(y, sigma))

    def eps(self, sigma: float, *, n: int = 4096, seed: int = 0) -> float:
        r""":math:`\epsilon(\sigma)` in root mean square over the exact law there, from ``n`` samples where no closed form is known."""
        level = positive("sigma", sigma)
        if not _inside(level, self.window):
            return 0.0
        y = _noised(self.data, level, n, seed)
        gap = self._wrong(y, level) - self._exact(y, level)
        return float(np.sqrt(np.mean(np.sum(gap.reshape(len(y), -1) ** 2, axis=1)))) / level


def _noised(law: Law, sigma: float, n: int, seed: int) -> Array:
    x0 = law.sample(whole("n", n), seed=seed)
    return np.asarray(x0 + sigma * Addressed(seed).draw([Address(PATH, slot=254)], np.arange(n), tuple(law.shape))[0])


class Misfit(Imperfect):
    """The exact denoiser of another law, within a window of levels.

    Parameters
    ----------
    data, other : Law
        The right and the wrong law, with data of one shape.
    window : (float, float), optional
        All levels when absent; then ``law`` is ``other``, which :func:`sdekit.analysis.exact_law` takes as ``model``.

    Raises
    ------
    BadInput
        For laws of different shapes, or a window that is none.
    """

    def __init__(self, data: Law, other: Law, window: tuple[float, float] = (0.0, float("inf"))) -> None:
        super().__init__(data, window)
        if not isinstance(other, Law) or tuple(other.shape) != self.shape:
            raise BadInput(f"other = {other!r} must be a law with data of shape {self.shape}")
        self.other = other
        self._its = other.denoiser()
        self.law = other if self.window == (0.0, float("inf")) else None

    def _wrong(self, y: Any, sigma: Any) -> Any:
        return self._its(y, sigma)

    def law_at(self, sigma: float) -> Law:
        """The law whose exact denoiser answers at this level."""
        return self.other if _inside(sigma, self.window) else self.data

    def eps(self, sigma: float, *, n: int = 4096, seed: int = 0) -> float:
        r""":math:`\epsilon(\sigma)`: in closed form between normal laws, else from ``n`` samples."""
        level = positive("sigma", sigma)
        own, its = self.data, self.law_at(level)
        if not isinstance(own, Gaussian) or not isinstance(its, Gaussian):
            return super().eps(level, n=n, seed=seed)
        gain, offset = zip(*(_affine(law, level) for law in (own, its)), strict=True)
        slope, gap = gain[1] - gain[0], offset[1] - offset[0]
        total = np.sum((slope @ own.mean.reshape(-1) + gap) ** 2) + np.trace(slope @ (own.matrix + level**2 * np.eye(len(gap))) @ slope.T)
        return float(np.sqrt(total)) / level


def _affine(law: Gaussian, sigma: float) -> tuple[Array, Array]:
    """The denoiser of a normal law as ``D(y) = A y + b``."""
    shrink = law.variances / (law.variances + sigma**2)
    gain = np.diag(shrink) if law.basis is None else (law.basis * shrink) @ law.basis.T
    mean = law.mean.reshape(-1)
    return gain, mean - gain @ mean


def wrong_weights(data: Mixture, weights: ArrayLike, *, window: tuple[float, float] = (0.0, float("inf"))) -> Misfit:
    """The denoiser of the same mixture with other weights: modes are right, their frequencies are not.

    Raises
    ------
    BadInput
        Unless ``data`` is a mixture and there is one weight for each part.
    """
    if not isinstance(data, Mixture) or np.shape(weights) != data.weights.shape:
        raise BadInput(f"wrong_weights needs a Mixture and one weight for each of its parts, got {data!r} and weights of shape {np.shape(weights)}")
    return Misfit(data, _mixture(weights, data.parts), window)


def _mixture(weights: ArrayLike, parts: Sequence[Gaussian]) -> Mixture:
    return Mixture(weights, np.stack([part.mean for part in parts]), np.stack([part.matrix for part in parts]))


def shifted_means(data: Gaussian | Mixture, by: ArrayLike, *, window: tuple[float, float] = (0.0, float("inf"))) -> Misfit:
    """The denoiser of the law moved by ``by``: a number, one datum, or for a mixture one datum for each part.

    Raises
    ------
    BadInput
        Unless ``data`` is a Gaussian or a Mixture and ``by`` fits its means.
    """
    try:
        if isinstance(data, Gaussian):
            return Misfit(data, Gaussian(data.mean + np.broadcast_to(by, data.shape), data.cov), window)
        if isinstance(data, Mixture):
            moves = np.broadcast_to(by, (len(data.parts), *data.shape))
            return Misfit(data, _mixture(data.weights, [Gaussian(p.mean + m, p.matrix) for p, m in zip(data.parts, moves, strict=True)]), window)
    except ValueError as error:
        raise BadInput(f"by = {by!r} does not fit means of shape {data.shape}: {error}") from None
    raise BadInput(f"data = {data!r} must be a Gaussian or a Mixture")


def scaled_covariance(data: Gaussian | Mixture, factor: ArrayLike, *, window: tuple[float, float] = (0.0, float("inf"))) -> Misfit:
    """The denoiser of the law whose covariance (of each part, for a mixture) is ``factor`` times as large.

    Parameters
    ----------
    data : Gaussian or Mixture
    factor : number, or array (d,) for a Gaussian
        One for each element of ``data.variances``: by eigenvector.  Below 1 the model over-denoises.
    window : (float, float), optional

    Raises
    ------
    BadInput
        For a factor that is not positive or does not fit.
    """
    scale = np.asarray(factor, float)
    if not np.all(np.isfinite(scale)) or np.min(scale, initial=1.0) < 0.0:
        raise BadInput(f"factor = {factor!r} must be positive")
    if isinstance(data, Mixture) and scale.ndim == 0:
        return Misfit(data, _mixture(data.weights, [Gaussian(part.mean, float(scale) * part.matrix) for part in data.parts]), window)
    if not isinstance(data, Gaussian) or scale.shape not in {(), data.variances.shape}:
        raise BadInput(f"factor of shape {scale.shape} needs a Gaussian with as many variances, or must be a number")
    if data.full:
        lines = data.basis * np.sqrt(scale * data.variances)
        return Misfit(data, Gaussian(data.mean, lines @ lines.T), window)
    return Misfit(data, Gaussian(data.mean, (scale * data.variances).reshape(data.shape)), window)


class Field(Imperfect):
    r"""An error that is no other law's: :math:`t\,s_\theta = t\,s + \epsilon\,u(y, \sigma)`.

    Attributes
    ----------
    bound : float
        ``eps`` as it was asked for.
    norm : {"sup", "rms"}
        In which norm over ``y`` the field ``u`` has size one: at most, or in root mean square under the exact law.
    """

    def __init__(self, data: Law, field: Any, eps: float, norm: str, window: tuple[float, float]) -> None:
        super().__init__(data, window)
        self.bound, self.norm, self._field = finite("eps", eps), norm, field

    def _wrong(self, y: Any, sigma: Any) -> Any:
        flat = y.reshape((y.shape[0], -1))
        level = sigma.reshape((-1, 1)) if getattr(sigma, "ndim", 0) else sigma
        return self._exact(y, sigma) + (self.bound * level * self._field(flat, level)).reshape(y.shape)


def _moments(data: Any) -> tuple[Array, Array]:
    """Mean (d,) and covariance of a law."""
    _check(data)
    if isinstance(data, Gaussian | Mixture):
        return data.mean.reshape(-1), data.matrix
    x = data.sample(4096).reshape(4096, -1)
    return np.mean(x, axis=0), np.atleast_2d(np.cov(x.T))


def _directions(d: int, count: int, seed: int) -> Array:
    """Orthonormal columns (d, count), the same for the same seed."""
    if whole("count of directions", count) > d:
        raise BadInput(f"{count} directions do not fit into {d} dimensions")
    return np.asarray(np.linalg.qr(Addressed(seed).draw([Address(PATH, slot=253)], np.arange(1), (d, count))[0, 0])[0])


def fourier(
    data: Law, eps: float, *, waves: int = 1, frequency: float = 1.0, seed: int = 0, window: tuple[float, float] = (0.0, float("inf"))
) -> Field:
    r"""Waves in random orthonormal directions :math:`v_j` along and across: at most ``eps`` in every point, reached in some.

    .. math:: u = \frac{1}{\sqrt J} \sum_j v_j \cos\Big(\frac{\omega\, v_j^T (y - m)}{\sqrt{v_j^T C v_j + \sigma^2}} + \phi_j\Big)

    Parameters
    ----------
    data : Law
    eps : float
        Largest :math:`|t s_\theta - t s|`.
    waves : int
        ``J``.
    frequency : float
        ``omega``, in periods of 2 pi by spread of the noised data; high frequencies average out, low ones shift and squeeze.
    seed : int
        Of directions and phases.
    window : (float, float), optional
    """
    mean, cov = _moments(data)
    lines = _directions(mean.size, waves, seed)
    phases = 2.0 * np.pi * np.random.default_rng(seed).uniform(size=waves)
    own = np.einsum("dj,de,ej->j", lines, cov, lines)
    omega = finite("frequency", frequency)

    def field(y: Any, sigma: Any) -> Any:
        m, v, phase, variance = (like(x, y) for x in (mean, lines, phases, own))
        angle = omega * ((y - m) @ v) / (variance + sigma * sigma) ** 0.5 + phase
        return namespace(y).cos(angle) @ v.T * waves**-0.5

    return Field(data, field, eps, "sup", window)


def low_rank(data: Law, eps: float, *, rank: int = 1, seed: int = 0, window: tuple[float, float] = (0.0, float("inf"))) -> Field:
    r"""A linear error in ``rank`` random directions, exactly ``eps`` in root mean square at every level.

    .. math:: u = \frac{U U^T (y - m)}{\sqrt{tr(U^T C U) + r \sigma^2}}

    ``eps > 0`` pushes outwards: the score is too weak there.
    """
    mean, cov = _moments(data)
    lines = _directions(mean.size, rank, seed)
    own = float(np.einsum("dj,de,ej->", lines, cov, lines))

    def field(y: Any, sigma: Any) -> Any:
        m, u = like(mean, y), like(lines, y)
        return ((y - m) @ u) @ u.T / (own + rank * sigma * sigma) ** 0.5

    return Field(data, field, eps, "rms", window)


def off_shell(data: Law, eps: float, *, tolerance: float = 0.1, window: tuple[float, float] = (0.0, float("inf"))) -> Field:
    r"""An error where the noised data are not: radial, zero on the shell of the exact law, growing to ``eps`` off it.

    .. math:: u = clip\Big(\frac{\rho - 1}{tol}, -1, 1\Big) \frac{y - m}{|y - m|}, \qquad \rho = \frac{|y - m|}{\sqrt{tr\,C + d \sigma^2}}

    A network is trained on the shell only; samplers that leave it meet this error, though the training loss does not show it.
    """
    mean, cov = _moments(data)
    width, spread = positive("tolerance", tolerance), float(np.trace(cov))

    def field(y: Any, sigma: Any) -> Any:
        gap = y - like(mean, y)
        radius = (gap * gap).sum(-1).reshape((-1, 1)) ** 0.5
        off = (radius / (spread + mean.size * sigma * sigma) ** 0.5 - 1.0) / width
        return off.clip(-1.0, 1.0) * gap / namespace(y).where(radius > 0.0, radius, radius + 1.0)

    return Field(data, field, eps, "sup", window)
