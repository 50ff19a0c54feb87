"""Processes of modes that papers use, in closed form: blurring, noise levels for each mode, whitening."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BadInput, finite, positive
from ..kernel import Transition
from ..process import Process
from .bases import Basis, axes_of, dct, pixels
from .process import Modes

Array = NDArray[np.float64]

__all__ = ["Fading", "blurring", "per_dimension", "whitened"]


@dataclass(frozen=True, eq=False)
class Fading:
    r"""The motion of a one-block process ``base`` whose mean fades by a factor ``d`` beside, under the same noise :math:`S`:

    .. math:: \psi_j(t) = d_j(t)\,\psi(t), \quad d_j = m + (1 - m)\,e^{-\lambda_j \tau(t)}, \quad \tau = \tfrac12 b^2 \sin^4\tfrac{\pi t}{2T};
              \qquad F_j = F + \dot d_j/d_j, \quad G_j^2 = G^2 - 2 S\,\dot d_j/d_j .

    Attributes
    ----------
    base : Process
    frequency, blur, least : float
        :math:`\lambda_j, b, m`.
    """  # noqa: D400

    base: Process
    frequency: float
    blur: float
    least: float

    def _angle(self, t: ArrayLike) -> Array:
        return np.asarray(t, float) * (0.5 * np.pi / self.base.T)

    def _left(self, t: ArrayLike) -> Array:
        """``exp(-lambda tau)``."""
        return np.asarray(np.exp(-0.5 * self.frequency * self.blur**2 * np.sin(self._angle(t)) ** 4))

    def _rate(self, t: ArrayLike) -> Array:
        """``-d'/d``, (..., 1, 1)."""
        angle, left = self._angle(t), self._left(t)
        speed = self.blur**2 * np.sin(angle) ** 3 * np.cos(angle) * (np.pi / self.base.T)
        return np.asarray(self.frequency * speed * (1.0 - self.least) * left / (self.least + (1.0 - self.least) * left))[..., None, None]

    def _loss(self, low: Array, high: Array) -> Array:
        """``log d(low) - log d(high)``, free of cancellation, (..., 1, 1)."""
        a, b = self._angle(low), self._angle(high)
        span = 0.5 * self.blur**2 * (np.sin(a) ** 2 + np.sin(b) ** 2) * np.sin(a + b) * np.sin(self._angle(high - low))
        gone = (1.0 - self.least) * self._left(low) * -np.expm1(-self.frequency * span)
        return np.asarray(np.log1p(gone / (self.least + (1.0 - self.least) * self._left(high))))[..., None, None]

    def drift(self, s: ArrayLike) -> Array:
        """``F_j`` at the time ``s``, (..., 1, 1)."""
        return self.base.drift(s) - self._rate(s)

    def noise(self, s: ArrayLike) -> Array:
        """``G_j`` at the time ``s``, (..., 1, 1)."""
        squares = np.sum(self.base.noise(s) ** 2, axis=-1, keepdims=True)
        return np.asarray(np.sqrt(squares + 2.0 * self.base.kernel(s).cov * self._rate(s)))

    def transition(self, low: Array, high: Array) -> Transition:
        """From ``low`` to ``high``."""
        step, loss = self.base.transition(low, high), self._loss(low, high)
        gained = step.mean**2 * self.base.kernel(low).cov * -np.expm1(-2.0 * loss)
        return Transition(step.mean * np.exp(-loss), np.sqrt(step.cov + gained))

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is."""
        return (*self.base.key, self.frequency, self.blur, self.least)


def blurring(process: Process, shape: Sequence[int] | int, blur: float = 20.0, least: float = 1e-3, axes: Sequence[int] | None = None) -> Modes:
    r"""``process`` with blurring: cosine mode ``j`` of frequency :math:`\lambda_j = \pi^2 \sum_i (j_i/n_i)^2` fades by ``d_j`` beside.

    .. math:: q(c_{t,j} \mid c_0) = N(\psi(t)\,d_j(t)\,c_{0,j},\; S(t)), \qquad \sigma_j(t) = \sigma_{eff}(t)/d_j(t),

    with ``d_j`` of :class:`Fading`.  The noise has the same variance in all modes, that of ``process``; the constant mode is ``process`` itself
    and steers the grids.

    Parameters
    ----------
    process : Process
        One block; ``catalogue.cosine()`` is the paper's choice.
    shape : tuple of int
    blur : float
        Width of the blur at ``T``, in pixels.
    least : float
        Least factor ``m`` that is left of any mode, in [0, 1).
    axes : sequence of int, optional
        Axes that are blurred; the last two when absent.

    Raises
    ------
    BadInput
        For a process of more blocks, or a blur so wide that a mode vanishes (``least = 0``).

    Notes
    -----
    Inverse heat dissipation (Rissanen et al. 2022, arXiv:2206.13397) is the case of a noise that stands still, where no noise reaches the constant
    mode: that is no process here; take one whose noise grows slowly.

    References
    ----------
    E. Hoogeboom and T. Salimans, Blurring Diffusion Models, 2022, arXiv:2209.05557, section 4 and appendix A.
    """
    if process.k != 1:
        raise BadInput(f"process {process.name!r} has {process.k} blocks; blurring takes a process of one block")
    width, least = positive("blur", blur), finite("least", least)
    if not 0.0 <= least < 1.0:
        raise BadInput(f"least = {least:g} must lie in [0, 1)")
    basis = dct(shape, axes)
    chosen = axes_of(basis.shape, axes)
    product = int(np.prod([basis.shape[i] for i in chosen]))
    whole_numbers = np.zeros([1] * len(basis.shape), np.int64)
    for i in chosen:
        steps = np.arange(basis.shape[i]) * (product // basis.shape[i])
        whole_numbers = whole_numbers + (steps**2).reshape([-1 if i == j else 1 for j in range(len(basis.shape))])
    values, index = np.unique(whole_numbers, return_inverse=True)
    frequencies = np.pi**2 * values / product**2
    if least == 0.0 and 0.5 * width**2 * frequencies[-1] > 600.0:
        widest = np.sqrt(1200.0 / frequencies[-1])
        raise BadInput(f"blur = {width:g} with least = 0 leaves nothing of the finest mode; give least > 0 or blur < {widest:.3g}")
    faded = [Process(Fading(process, float(v), width, least), None, process.S0, process.T, name=f"{process.name} fading") for v in frequencies[1:]]
    return Modes([process, *faded], basis, index.reshape(whole_numbers.shape), name=f"{process.name} with blur {width:g}")


def per_dimension(process: Process, levels: ArrayLike, basis: Basis | None = None) -> Modes:
    r"""``process`` with a noise level of its own in each mode: :math:`y_j = c_j + r_j \sigma_{eff}(t)\, n_j`, ``r`` the ``levels``.

    Closed form: kernel :math:`N(\psi c_j, r_j^2 S)`.  ``basis`` are the elements of the data when absent.
    """
    scale = np.array(levels, float)
    return Modes(process, pixels(scale.shape) if basis is None else basis, scale=scale, name=f"{process.name} per dimension")


def whitened(process: Process, spectrum: ArrayLike, basis: Basis) -> Modes:
    r"""``process`` on data whitened by a covariance :math:`\Sigma = U\,\mathrm{diag}(s)\,U^T` with the spectrum ``s``.

    This is the recipe with :math:`H = z^T \Sigma^{-1} z/2` for one block.

    Closed form: :math:`c_j/\sqrt{s_j}` follows ``process``; a stationary law N(0, 1) of the data block becomes :math:`N(0, \Sigma)`.
    """
    values = np.array(spectrum, float)
    if not np.all(values > 0.0):
        raise BadInput("spectrum must be positive: a covariance with a null space cannot be whitened")
    return Modes(process, basis, scale=np.sqrt(values), name=f"{process.name} whitened")
