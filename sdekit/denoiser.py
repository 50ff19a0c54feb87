r"""The one model interface, ``denoise(y, sigma) -> E[x_0 | x_0 + sigma n = y]``, and conversions to it.

For a linear process everything that the data say is in one block, :math:`y = \psi^T S^{-1} z / SNR` at level
:math:`\sigma_{eff} = SNR^{-1/2}`, and the score of the whole state is :math:`-S^{-1}(z - \psi D(y; \sigma_{eff}))`: so one denoiser drives
every process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._array import like, to_host
from .errors import BadInput, finite, positive, unknown
from .kernel import solve_lower, triangular
from .process import Process

Array = NDArray[np.float64]

__all__ = ["Denoiser", "StateScore", "from_model", "guided", "preconditioning", "score"]


class Denoiser(Protocol):
    """``denoise(y, sigma)`` with y (batch, *shape) and sigma a number or (batch,); an attribute ``shape`` spares users to give it.

    One that needs more than the level itself (a label, a time) may say so with ``told(levels)``, which makes arrays (batch, ...) of levels (batch,)
    on the host: adaptive runs, where each sample has a level of its own, then send these along and call ``denoise(y, sigma, *told)``.
    """

    def __call__(self, y: Any, sigma: Any) -> Any:
        """The denoised data, of the shape of ``y``."""
        ...


class StateScore:
    """A network trained on the whole state, in the place of a denoiser: ``score(z, t)`` maps (k, n, *shape) to the k blocks of the score.

    Parameters
    ----------
    function : callable
    shape : tuple of int
        Shape of one block of one sample.
    told : callable, optional
        ``told(t)`` makes of times (n,) what the function takes after ``t``, see :class:`Denoiser`.
    """

    of_state = True

    def __init__(
        self, function: Callable[..., Any], shape: tuple[int, ...] | None = None, told: Callable[[Array], tuple[Array, ...]] | None = None
    ) -> None:
        if not callable(function):
            raise BadInput(f"function = {function!r} must be callable as score(z, t)")
        self.function = function
        if shape is not None:
            self.shape = tuple(shape)
        if told is not None:
            self.told = told

    def __call__(self, z: Any, t: Any, *told: Any) -> Any:
        """The score of the state; ``t`` is a number, or (n,) where each sample has a time of its own."""
        return self.function(z, t, *told)


def score(process: Process, denoise: Denoiser, z: ArrayLike, t: float) -> Array:
    r"""Score of the state, :math:`-S_t^{-1} (z - \psi_t D(y; \sigma_{eff}))`, for z (k, n, *shape) on the host.

    Returns
    -------
    array (k, n, *shape)
    """
    z = np.asarray(z, float)
    if z.ndim < 2 or z.shape[0] != process.k:
        raise BadInput(f"z has shape {z.shape}; the first axis must be the {process.k} blocks, the second the samples")
    kernel = process.kernel(t)
    y = np.tensordot(kernel.observe, z, axes=1)
    gap = z - np.multiply.outer(kernel.psi, np.asarray(denoise(y, float(kernel.sigma_eff))))
    flat = solve_lower(kernel.chol, solve_lower(kernel.chol, gap.reshape(process.k, -1)), transpose=True)
    return -flat.reshape(z.shape)


def preconditioning(process: Process, t: float, sigma_data: float) -> tuple[Array, float, Array]:
    r"""EDM's preconditioning for networks on the whole state: :math:`D(z) = c_{skip}^T z + c_{out} N(C_{in} z)`.

    With :math:`P = S + \sigma_d^2 \psi\psi^T`, the covariance of the state for data of variance :math:`\sigma_d^2`,

    .. math:: c_{skip} = \sigma_d^2 P^{-1} \psi, \qquad c_{out} = \frac{\sigma_{eff} \sigma_d}{\sqrt{\sigma_{eff}^2 + \sigma_d^2}}, \qquad
              C_{in} = L_P^{-1}, \quad P = L_P L_P^T,

    so that the network's input and target have unit variance.  One block gives EDM's scalars.

    Parameters
    ----------
    process : Process
    t : float
        In (0, T].
    sigma_data : float

    Returns
    -------
    c_skip, c_out, c_in : arrays (k,), float, (k, k)

    Raises
    ------
    BadInput
        If ``sigma_data`` is not positive, or ``t`` is outside the process.

    References
    ----------
    T. Karras, M. Aittala, T. Aila, S. Laine, Elucidating the Design Space of Diffusion-Based Generative Models, 2022 (Table 1), for one block.
    """
    spread = positive("sigma_data", sigma_data)
    kernel = process.kernel(t)
    lower = triangular(np.concatenate([kernel.chol, spread * kernel.psi[:, None]], axis=-1))
    c_in = solve_lower(lower, np.eye(process.k))
    level = float(kernel.sigma_eff)
    return spread**2 * c_in.T @ (c_in @ kernel.psi), level * spread / float(np.hypot(level, spread)), c_in


class from_model:
    r"""A denoiser out of a model that predicts something else, on another one-block process.

    With ``a = psi(t)`` and ``s = sqrt(S(t))`` of that process, the model is asked at ``x = a y`` and ``t = time_of(sigma)``, and

    ========  =================================================
    ``kind``  denoised data
    ========  =================================================
    x0        the answer
    eps       :math:`(x - s\,\epsilon) / a`
    v         :math:`(a x - s v) / (a^2 + s^2)`
    score     :math:`(x + s^2\,\mathrm{score}) / a`
    ========  =================================================

    Parameters
    ----------
    model : callable
        ``model(x, t)``, with a number ``t``, or an array (n,) of ``x``'s library where each sample has a level of its own.
    process : Process
        The one-block process that the model was trained on.
    kind : {"x0", "eps", "v", "score"}

    Raises
    ------
    BadInput
        For another kind, or a process with more than one block.
    """

    def __init__(self, model: Callable[..., Any], process: Process, kind: str) -> None:
        if kind not in ("x0", "eps", "v", "score"):
            raise unknown("kind of prediction", kind, ["x0", "eps", "v", "score"])
        if process.k != 1:
            raise BadInput(f"process {process.name!r} has {process.k} blocks; a model of the whole state is wrapped by StateScore")
        self.model, self.process, self.kind = model, process, kind
        for name in ("shape", "device", "dtype"):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))

    def told(self, levels: Array) -> tuple[Array, ...]:
        """Time, ``a`` and ``s`` of levels, and what the model makes of the times."""
        t = np.asarray(self.process.time_of(levels))
        kernel = self.process.kernel(t)
        return t, kernel.psi[..., 0], kernel.chol[..., 0, 0], *(self.model.told(t) if hasattr(self.model, "told") else ())

    def __call__(self, y: Any, sigma: Any, *told: Any) -> Any:
        """The denoised data; ``told`` is that of ``sigma``, made here when absent."""
        if not told:
            told = tuple(like(v, y) if v.ndim else v.item() for v in self.told(np.asarray(to_host(sigma), float)))
        t, a, s = (v if i == 0 or not np.ndim(v) else v.reshape(-1, *(1,) * (y.ndim - 1)) for i, v in enumerate(told[:3]))
        x = a * y
        answer = self.model(x, t, *told[3:])
        if self.kind == "x0":
            return answer
        if self.kind == "eps":
            return (x - s * answer) * (1.0 / a)
        if self.kind == "v":
            return (a * x - s * answer) * (1.0 / (a * a + s * s))
        return (x + s * s * answer) * (1.0 / a)


class guided:
    r"""Classifier-free guidance: :math:`D = D_u + w\,(D_c - D_u)`, which is the same mixture of eps, scores or velocities.

    Weight 0 is the unconditional model, 1 the conditional one.  A run counts one model call for each evaluation; each costs a call of both models.
    The guided field is not the reverse equation of any law: what noise and a way back leave unchanged depends on the weight.

    Parameters
    ----------
    conditional, unconditional : Denoiser
        With one shape, where they say theirs.
    weight : float

    Raises
    ------
    BadInput
        For models that are not denoisers or differ in shape, or a weight that is not a number.

    References
    ----------
    Ho and Salimans 2022, arXiv:2207.12598.
    """

    def __init__(self, conditional: Denoiser, unconditional: Denoiser, weight: float) -> None:
        pair = {"conditional": conditional, "unconditional": unconditional}
        for name, model in pair.items():
            if not callable(model) or getattr(model, "of_state", False):
                raise BadInput(f"{name} = {model!r} must be a denoiser, callable as denoise(y, sigma)")
        self.conditional, self.unconditional, self.weight = conditional, unconditional, finite("weight", weight)
        for name in ("shape", "device", "dtype"):
            known = [getattr(model, name) for model in pair.values() if hasattr(model, name)]
            if any(value != known[0] for value in known):
                raise BadInput(f"the models differ in {name}: {known[0]} and {known[1]}")
            if known:
                setattr(self, name, known[0])

    def told(self, levels: Array) -> tuple[Array, ...]:
        """What the two models make of levels, the conditional one's first."""
        one, two = (tuple(model.told(levels)) if hasattr(model, "told") else () for model in (self.conditional, self.unconditional))
        self._first = len(one)
        return one + two

    def __call__(self, y: Any, sigma: Any, *told: Any) -> Any:
        """The denoised data."""
        one, two = (told[: self._first], told[self._first :]) if told else ((), ())
        free = self.unconditional(y, sigma, *two)
        return free + self.weight * (self.conditional(y, sigma, *one) - free)
