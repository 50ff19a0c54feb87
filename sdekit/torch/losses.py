r"""Losses: what a batch is to a network, and what its answer costs.  A loss is a small object; the loop of training is one for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ..errors import finite, positive, whole
from .network import precondition

import torch  # isort: skip  (after .network, which says what to install)

__all__ = ["Classification", "Denoising", "Draw", "Loss", "squared"]


class Draw(NamedTuple):
    """A batch as the network sees it.

    Attributes
    ----------
    input : tensor (n, blocks in * channels, ...)
        Of unit variance for data of variance ``spread^2``.
    level : tensor (n,)
        What the network is told of the level: a quarter of ``ln sigma_eff``.
    target : tensor (n, blocks out * channels, ...)
        None where it is the class (n,), which training puts there.
    weight : tensor (n, r, blocks out), or None
        The root ``R`` of the weight; None for 1.
    """

    input: torch.Tensor
    level: torch.Tensor
    target: Any
    weight: torch.Tensor | None


class Loss(Protocol):
    """What a network is trained on."""

    kind: ClassVar[str]

    @property
    def normals(self) -> int:
        """Standard normals for each number of a datum."""
        ...

    def channels(self, channels: int) -> tuple[int, int]:
        """The network's channels in and out, for data with ``channels`` of them."""
        ...

    def draw(self, x0: torch.Tensor, normals: torch.Tensor, uniforms: ArrayLike) -> Draw:
        """The batch for data (n, *shape), normals (b, n, *shape) and numbers (n,) in (0, 1) that choose the levels."""
        ...

    def error(self, answer: torch.Tensor, drawn: Draw) -> torch.Tensor:
        """Loss of each datum, (n,)."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Plain data, read back by :func:`~sdekit.torch.trained.loss_of`."""
        ...


@dataclass(frozen=True)
class Denoising:
    r"""EDM's loss: :math:`E|D(y; \sigma) - x_0|^2 / c_{out}^2 = E|F(c_{in} y) - v|^2` with :math:`\ln\sigma \sim N(m, s^2)`.

    The target is written without cancellation,
    :math:`v = (x_0 - c_{skip} y) / c_{out} = (\sigma x_0 / \sigma_d - \sigma_d n) / \sqrt{\sigma^2 + \sigma_d^2}`.

    Attributes
    ----------
    spread : float
        :math:`\sigma_d`.
    log_sigma : (float, float)
        ``m`` and ``s``.

    References
    ----------
    T. Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022 (eq. 8).
    """

    kind: ClassVar[str] = "denoising"
    normals: ClassVar[int] = 1
    spread: float
    log_sigma: tuple[float, float] = (-1.2, 1.2)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spread", positive("spread", self.spread))
        object.__setattr__(self, "log_sigma", (finite("log_sigma", self.log_sigma[0]), positive("log_sigma", self.log_sigma[1])))

    def channels(self, channels: int) -> tuple[int, int]:
        """See :class:`Loss`."""
        return channels, channels

    def draw(self, x0: torch.Tensor, normals: torch.Tensor, uniforms: ArrayLike) -> Draw:
        """See :class:`Loss`."""
        from scipy.special import ndtri

        mean, deviation = self.log_sigma
        sigma = torch.from_numpy(np.exp(mean + deviation * ndtri(np.asarray(uniforms, float)))).to(x0)
        _, _, c_in, told = precondition(sigma, self.spread)
        wide = (-1, *[1] * (x0.ndim - 1))
        level, c_in = sigma.reshape(wide), c_in.reshape(wide)
        noise = normals[0]
        return Draw(c_in * (x0 + level * noise), told, c_in * (level * x0 / self.spread - self.spread * noise), None)

    def error(self, answer: torch.Tensor, drawn: Draw) -> torch.Tensor:
        """See :class:`Loss`."""
        return squared(answer, drawn)

    def as_dict(self) -> dict[str, Any]:
        """See :class:`Loss`."""
        return {"kind": self.kind, "spread": self.spread, "log_sigma": list(self.log_sigma)}


@dataclass(frozen=True)
class Classification:
    r"""Cross-entropy of the class of ``x0`` given ``y = x0 + sigma n``: :math:`p(c | z_t)` on every process, since it depends on ``y`` alone.

    The network's channels out are the classes; their mean over the pixels is the logit.

    Attributes
    ----------
    spread : float
    classes : int
    log_sigma : (float, float)
        Mean and deviation of :math:`\ln\sigma`.
    """

    kind: ClassVar[str] = "classification"
    normals: ClassVar[int] = 1
    spread: float
    classes: int
    log_sigma: tuple[float, float] = (-1.2, 1.2)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", whole("classes", self.classes, 2))
        object.__setattr__(self, "log_sigma", self._noise.log_sigma)

    @property
    def _noise(self) -> Denoising:
        return Denoising(self.spread, self.log_sigma)

    def channels(self, channels: int) -> tuple[int, int]:
        """See :class:`Loss`."""
        return channels, self.classes

    def draw(self, x0: torch.Tensor, normals: torch.Tensor, uniforms: ArrayLike) -> Draw:
        """See :class:`Loss`."""
        return self._noise.draw(x0, normals, uniforms)._replace(target=None)

    def error(self, answer: torch.Tensor, drawn: Draw) -> torch.Tensor:
        """See :class:`Loss`."""
        return torch.nn.functional.cross_entropy(answer.flatten(2).mean(2), drawn.target, reduction="none")

    def as_dict(self) -> dict[str, Any]:
        """See :class:`Loss`."""
        return {"kind": self.kind, "spread": self.spread, "classes": self.classes, "log_sigma": list(self.log_sigma)}


def squared(answer: torch.Tensor, drawn: Draw, blocks: int = 1) -> torch.Tensor:
    """Mean over the numbers of a block, sum over the rows of the weight's root."""
    gap = (answer - drawn.target).reshape(len(answer), blocks, -1)
    if drawn.weight is not None:
        gap = drawn.weight @ gap
    error: torch.Tensor = gap.square().mean(2).sum(1)
    return error
