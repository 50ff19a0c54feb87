r"""Denoisers made of denoisers: thresholds, classifier guidance; and the way from latents to images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._array import is_torch
from ..denoiser import Denoiser, StateScore
from ..errors import BadInput, MissingExtra, finite, positive, whole

try:
    import torch
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

__all__ = ["Classified", "Clipped", "Thresholded", "Wrapped", "clipped", "decoder", "thresholded"]


def clipped(data: Any, most: float) -> Any:
    """Values cut to [-most, most]."""
    return data.clamp(-most, most) if is_torch(data) else np.clip(data, -most, most)


def thresholded(data: Any, ratio: float, most: float) -> Any:
    r"""Each sample cut to its range and scaled back, :math:`\mathrm{clip}(x, -s, s)/s`, ``s`` the ``ratio`` quantile of ``|x|`` inside [1, most].

    References
    ----------
    Saharia et al. 2022, arXiv:2205.11487, section 2.3; the upper end is that of diffusers' ``sample_max_value``.
    """
    if not is_torch(data):
        return thresholded(torch.from_numpy(np.array(data)), ratio, most).numpy()
    flat = data.reshape(data.shape[0], -1)
    s = torch.quantile(flat.abs().to(torch.promote_types(flat.dtype, torch.float32)), ratio, dim=1, keepdim=True).clamp(1.0, most).to(flat.dtype)
    return (torch.maximum(torch.minimum(flat, s), -s) / s).reshape(data.shape)


class Wrapped:
    """What is known of the denoiser inside: ``shape``, ``device``, ``dtype``; and what it is told, which a subclass hands on."""

    def __init__(self, denoise: Denoiser) -> None:
        if not callable(denoise) or getattr(denoise, "of_state", False):
            raise BadInput(f"denoise = {denoise!r} must be callable as denoise(y, sigma)")
        self.inner = denoise
        for name in ("shape", "device", "dtype"):
            if hasattr(denoise, name):
                setattr(self, name, getattr(denoise, name))

    def told(self, levels: Any) -> tuple[Any, ...]:
        """See :class:`~sdekit.denoiser.Denoiser`."""
        return tuple(self.inner.told(levels)) if hasattr(self.inner, "told") else ()


class Clipped(Wrapped):
    """A denoiser whose data are cut to [-most, most] (``clip_sample``)."""

    def __init__(self, denoise: Denoiser, most: float = 1.0) -> None:
        super().__init__(denoise)
        self.most = positive("most", most)

    def __call__(self, y: Any, sigma: Any, *told: Any) -> Any:
        """The denoised data."""
        return clipped(self.inner(y, sigma, *told), self.most)


class Thresholded(Wrapped):
    """A denoiser with dynamic thresholding, see :func:`thresholded`: for strong guidance on pixels in [-1, 1], not for latents.

    Raises
    ------
    BadInput
        Unless ``0 < ratio <= 1`` and ``most >= 1``.
    """

    def __init__(self, denoise: Denoiser, ratio: float = 0.995, most: float = float("inf")) -> None:
        super().__init__(denoise)
        if not 0.0 < finite("ratio", ratio) <= 1.0 or not most >= 1.0:
            raise BadInput(f"ratio = {ratio!r} must lie in (0, 1], most = {most!r} must be at least 1")
        self.ratio, self.most = float(ratio), float(most)

    def __call__(self, y: Any, sigma: Any, *told: Any) -> Any:
        """The denoised data."""
        return thresholded(self.inner(y, sigma, *told), self.ratio, self.most)


def Classified(denoise: Any, log_probability: Callable[[torch.Tensor, Any], torch.Tensor], weight: float = 1.0) -> Any:
    r"""Classifier guidance.

    A denoiser is guided by a classifier of noisy data, ``log_probability(y, sigma) -> (batch,)``, on every process:

    .. math:: D_w(y; \sigma) = D(y; \sigma) + w \sigma^2 \nabla_y \log p(c \mid y; \sigma),

    because :math:`\log p(c \mid z, t)` is a function of ``y`` alone, so that :math:`\nabla_z = \frac{S^{-1}\psi}{SNR} \nabla_y`.  A
    :class:`~sdekit.denoiser.StateScore` is guided by one of the whole state, ``log_probability(z, t)``: :math:`s + w \nabla_z \log p(c \mid z, t)`.
    ``t`` is the time of the forward process.

    Parameters
    ----------
    denoise : Denoiser or StateScore
    log_probability : callable
        With torch's gradient.
    weight : float

    Returns
    -------
    Denoiser or StateScore

    References
    ----------
    Dhariwal and Nichol 2021, arXiv:2105.05233; for whole states Pandey and Mandt 2023, arXiv:2303.01748.
    """
    if not callable(log_probability):
        raise BadInput(f"log_probability = {log_probability!r} must be callable")
    w = finite("weight", weight)
    if getattr(denoise, "of_state", False):

        def score(z: torch.Tensor, t: float) -> torch.Tensor:
            made: torch.Tensor = denoise(z, t) + w * _slope(log_probability, z, t, z.shape[1])
            return made

        return StateScore(score, getattr(denoise, "shape", None))
    return _Guided(denoise, log_probability, w)


class _Guided(Wrapped):
    """A denoiser and a classifier."""

    def __init__(self, denoise: Denoiser, log_probability: Callable[[torch.Tensor, Any], torch.Tensor], weight: float) -> None:
        super().__init__(denoise)
        self.log_probability, self.weight = log_probability, weight

    def __call__(self, y: Any, sigma: Any, *told: Any) -> Any:
        """The denoised data."""
        if not is_torch(y):
            return self(torch.from_numpy(np.array(y)), sigma, *told).numpy()
        each = is_torch(sigma) and sigma.ndim
        level = sigma.to(y.dtype).reshape(-1, *[1] * (y.ndim - 1)) if each else float(sigma)
        return self.inner(y, sigma, *told) + self.weight * level * level * _slope(self.log_probability, y, sigma, y.shape[0])


def _slope(function: Callable[[torch.Tensor, Any], torch.Tensor], x: torch.Tensor, level: Any, n: int) -> torch.Tensor:
    """The gradient of each sample's log probability."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        value = function(x, level)
        if tuple(value.shape) != (n,):
            raise BadInput(f"log_probability gives shape {tuple(value.shape)}; it must be one number for each of the {n} samples")
        return torch.autograd.grad(value.sum(), x)[0]


def decoder(vae: Any, batch: int = 16, scale: float | None = None) -> Callable[[Any], torch.Tensor]:
    """From latents to images in [-1, 1]: ``decoder(vae)(run.x)``.

    Parameters
    ----------
    vae : AutoencoderKL, or whatever has ``decode``
        Its answer is a tensor or holds it as ``.sample``.
    batch : int
        Latents decoded together.
    scale : float, optional
        Latents are divided by it, then the shift of the configuration is added; ``vae.config.scaling_factor`` when absent, or 1.
    """
    config = getattr(vae, "config", None)
    factor = positive("scale", getattr(config, "scaling_factor", None) or 1.0 if scale is None else scale)
    shift = getattr(config, "shift_factor", None) or 0.0
    size = whole("batch", batch)

    def decode(latents: Any) -> torch.Tensor:
        z = latents if is_torch(latents) else torch.from_numpy(np.array(latents))
        home = next(iter(vae.parameters()), z) if isinstance(vae, torch.nn.Module) else z
        with torch.no_grad():
            made = [vae.decode(part.to(home.device, home.dtype) / factor + shift) for part in z.split(size)]
        return torch.cat([getattr(part, "sample", part) for part in made])

    return decode
