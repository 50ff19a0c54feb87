"""A denoiser in the conventions of other libraries, so that their samplers run on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._array import is_torch, like, to_host
from ..denoiser import Denoiser, StateScore
from ..errors import BadInput, MissingExtra
from ..kernel import solve_lower
from ..process import Process
from ..tables import Table
from .adapters import on_host, wide
from .conventions import kind_of, predicted, table_of
from .states import mix

try:
    import torch
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

Array = NDArray[np.float64]

__all__ = ["Answer", "to_diffusers", "to_edm", "to_flow", "to_k_diffusion", "to_score_sde", "to_state_score"]


class Answer(NamedTuple):
    """What a network of diffusers returns."""

    sample: torch.Tensor


def to_diffusers(denoise: Denoiser, scheduler: Any, kind: str | None = None) -> Callable[..., Answer]:
    """``model(sample, timestep)`` of the scheduler's schedule and ``prediction_type`` (or of a Table and ``kind``), answering ``.sample``."""
    table = scheduler if isinstance(scheduler, Table) else table_of(scheduler)
    said = kind if kind is not None else "eps" if isinstance(scheduler, Table) else kind_of(scheduler)

    def level(label: Any) -> Any:
        return on_host(lambda at: table.process.sigma_eff(table.time(at)), label)

    def model(sample: torch.Tensor, timestep: Any, **_: Any) -> Answer:
        each = is_torch(timestep) and timestep.ndim > 0 and timestep.numel() > 1
        sigma = level(timestep.double()) if each else level(float(timestep))
        wider = wide(sigma, sample)
        y = sample * (1.0 + wider * wider) ** 0.5
        return Answer(predicted(said, y, wider, denoise(y, sigma)))

    return model


def to_k_diffusion(denoise: Denoiser) -> Callable[..., Any]:
    """``model(x, sigma, **extra)``."""
    return lambda x, sigma, **_: denoise(x, sigma)


class to_edm:
    """``net(x, sigma, class_labels)`` with what EDM's samplers look at: ``sigma_min``, ``sigma_max``, ``round_sigma``, sizes."""

    label_dim = 0
    sigma_min, sigma_max = 0.0, float("inf")

    def __init__(self, denoise: Denoiser) -> None:
        self.denoise = denoise
        shape = getattr(denoise, "shape", None)
        if shape is not None and len(shape) == 3:
            self.img_channels, self.img_resolution = shape[0], shape[-1]

    def __call__(self, x: Any, sigma: Any, class_labels: Any = None, **_: Any) -> Any:
        """The denoised data."""
        if class_labels is not None:
            raise BadInput("this denoiser takes no class_labels; guide it before it is exported")
        each = is_torch(sigma) and sigma.numel() > 1
        return self.denoise(x, sigma.reshape(-1) if each else float(sigma))

    def round_sigma(self, sigma: Any) -> Any:
        """The level itself: nothing is rounded."""
        return torch.as_tensor(sigma)


def to_score_sde(denoise: Denoiser, process: Process) -> Callable[[torch.Tensor, Any], torch.Tensor]:
    r"""``score(x, t)`` on a process of one block, :math:`(\psi D - x) / S`, t (batch,) or a number."""
    if process.k != 1:
        raise BadInput(f"process {process.name!r} has {process.k} blocks; use to_state_score")

    def score(x: torch.Tensor, t: Any) -> torch.Tensor:
        when = t.double() if is_torch(t) and t.ndim else float(t)
        sigma = on_host(process.sigma_eff, when)
        psi = on_host(lambda at: process.kernel(at).psi[..., 0], when)
        scale, level = wide(psi, x), wide(sigma, x)
        made: torch.Tensor = (denoise(x / scale, sigma) - x / scale) / (scale * level * level)
        return made

    return score


def to_flow(denoise: Denoiser, data_at: int = 0, scale: float = 1.0) -> Callable[..., torch.Tensor]:
    """``v(x, t)`` of flow matching; ``data_at`` and ``scale`` as for :class:`~sdekit.torch.adapters.Flow`."""

    def velocity(x: torch.Tensor, t: Any, **_: Any) -> torch.Tensor:
        own = (t.double() if is_torch(t) and t.ndim else float(t)) / scale
        t = 1.0 - own if data_at else own
        data = denoise(x / wide(1.0 - t, x), t / (1.0 - t))
        made: torch.Tensor = (x - data) / wide(t, x)
        return -made if data_at else made

    return velocity


def to_state_score(denoise: Denoiser, process: Process) -> StateScore:
    r"""The score of the whole state, :math:`-S^{-1} (z - \psi D(y; \sigma_{eff}))`, on tensors."""

    def told(t: Array) -> tuple[Array, ...]:
        kernel = process.kernel(t)
        white = solve_lower(kernel.chol, np.broadcast_to(np.eye(process.k), kernel.chol.shape))
        more = denoise.told(kernel.sigma_eff) if hasattr(denoise, "told") else ()
        return -np.swapaxes(white, -1, -2) @ white, kernel.psi[..., None], kernel.observe[..., None, :], np.asarray(kernel.sigma_eff), *more

    def score(z: torch.Tensor, t: Any, *maps: Any) -> torch.Tensor:
        known = maps or tuple(like(table, z) for table in told(np.atleast_1d(np.asarray(to_host(t), float))))
        pull, psi, observe, sigma = known[:4]
        y = mix(observe, z)[0]
        data = denoise(y, sigma, *maps[4:]) if maps or np.ndim(t) else denoise(y, float(process.sigma_eff(float(t))))
        return mix(pull, z - mix(psi, data[None]))

    return StateScore(score, getattr(denoise, "shape", None), told)
