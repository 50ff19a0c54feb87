r"""A convolutional denoiser in EDM's preconditioning.

With the data's spread :math:`\sigma_d`,

.. math::
    D(y; \sigma) = c_{skip}\, y + c_{out}\, F(c_{in}\, y, \tfrac14 \ln \sigma), \qquad
    c_{skip} = \frac{\sigma_d^2}{\sigma^2 + \sigma_d^2}, \quad
    c_{out} = \frac{\sigma \sigma_d}{\sqrt{\sigma^2 + \sigma_d^2}}, \quad
    c_{in} = \frac{1}{\sqrt{\sigma^2 + \sigma_d^2}}

so that the network's input and target have unit variance at every level (Karras et al. 2022, Table 1).
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from .._array import is_torch
from ..errors import BadInput, MissingExtra, positive, unknown

try:
    import torch
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

__all__ = ["Network", "NetworkDenoiser", "as_labels", "precondition", "raw", "shapes_of", "unet", "unet_config"]

_LEVELS = (1e-3, 1e3)  # the network is told a level inside; beyond, c_skip and c_out alone follow sigma
_PRECISIONS = ("float64", "float32", "bfloat16", "float16")
_LARGEST = 1024  # of any number, and _LONGEST of any list, in a network's configuration: a damaged one must not fill the memory
_LONGEST = 8


def precondition(sigma: Any, sigma_data: float) -> tuple[Any, Any, Any, Any]:
    r"""``(c_skip, c_out, c_in, c_noise)`` at ``sigma``, a number or a tensor; ``c_noise`` is :math:`\tfrac14 \ln \sigma`, kept finite at 0."""
    total = sigma * sigma + sigma_data * sigma_data
    if is_torch(sigma):
        root, told = total.sqrt(), sigma.clamp(*_LEVELS).log()
    else:
        root, told = math.sqrt(total), math.log(min(max(sigma, _LEVELS[0]), _LEVELS[1]))
    return sigma_data * sigma_data / total, sigma * sigma_data / root, 1.0 / root, 0.25 * told


class Network:
    """A network with the shape of its data and a record of its training.

    Attributes
    ----------
    device, dtype
        Of the network; :func:`sdekit.sample` gives its state the same.
    """

    def __init__(self, network: torch.nn.Module, shape: Sequence[int], record: Mapping[str, Any] | None = None) -> None:
        self.network = network
        self.shape: tuple[int, ...] = tuple(int(v) for v in shape)
        self.record: dict[str, Any] = dict(record or {})

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's numbers."""
        return next(self.network.parameters()).dtype

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Self:
        """The same model on another device or in another precision; the network itself moves."""
        for wanted in (device, dtype):
            if wanted is not None:
                self.network.to(wanted)
        return self

    def prepared(self, device: Any = None, precision: str | None = None, compiled: bool = False) -> Self:
        """For a run: on a device, in a precision ("float32", "bfloat16", "float16", "float64"), compiled by torch.

        The state keeps its own precision: arguments are cast on the way in, answers on the way out.

        Raises
        ------
        BadInput
            For a device that torch does not have, or another precision.
        """
        if precision is not None and precision not in _PRECISIONS:
            raise unknown("precision", precision, _PRECISIONS)
        try:
            self.to(None if device is None else torch.device(device), None if precision is None else getattr(torch, precision))
        except (RuntimeError, AssertionError) as error:
            raise BadInput(f"device = {device!r} cannot be used: {str(error).splitlines()[0]}") from None
        if compiled:
            self.network.compile()
        return self


class NetworkDenoiser(Network):
    r"""``denoise(y, sigma) -> E[x_0 \mid x_0 + \sigma n = y]`` by a trained network.

    Parameters
    ----------
    network : torch.nn.Module
        ``F(x, c_noise)``: tensors (batch, *shape) and (batch,) to a tensor (batch, *shape), or to an object that holds it as ``.sample``.
    shape : tuple of int
        Shape of one datum.
    sigma_data : float
        Spread of the data that the network was trained on.
    record : mapping, optional
        What is known of its training.
    classes : int, optional
        Of a network that takes labels ``0 .. classes - 1``, and ``classes`` for none: it denoises without a class until :meth:`given` one.

    Attributes
    ----------
    label : int or tensor (n,), or None
        The class that it denoises.

    Raises
    ------
    BadInput
        If ``sigma_data`` is not positive; at a call, for a ``y`` or ``sigma`` of another shape.

    References
    ----------
    T. Karras, M. Aittala, T. Aila, S. Laine, Elucidating the Design Space of Diffusion-Based Generative Models, 2022 (arXiv:2206.00364).
    """

    def __init__(
        self, network: torch.nn.Module, shape: Sequence[int], sigma_data: float, record: Mapping[str, Any] | None = None, classes: int | None = None
    ) -> None:
        super().__init__(network, shape, record)
        self.sigma_data = positive("sigma_data", sigma_data)
        self.classes, self.label = classes, classes

    def given(self, label: Any) -> NetworkDenoiser:
        """``E[x_0 | y, class]``: the same network for one class, or for a class each of a batch (n,); None is no class.

        Raises
        ------
        BadInput
            If the network takes no classes, or a label is not one of them.
        """
        if self.classes is None:
            raise BadInput("this network was trained without classes; train one with label_dropout, or load 'digits_classes'")
        made = copy.copy(self)
        made.label = self.classes if label is None else as_labels(label, self.classes)
        return made

    def __call__(self, y: Any, sigma: Any) -> Any:
        """The denoised data, of the shape, type and library of ``y``; a gradient is recorded where ``y`` asks for one.

        Parameters
        ----------
        y : array or tensor (batch, *shape)
        sigma : float, or array or tensor (batch,)
            Nonnegative; 0 gives ``y`` back.
        """
        if not is_torch(y):
            host = np.asarray(y)
            host = host if host.dtype.kind == "f" else host.astype(float)
            levels = torch.from_numpy(np.array(sigma, dtype=host.dtype)) if np.ndim(sigma) else float(sigma)
            return self(torch.from_numpy(np.array(host)), levels).numpy().astype(host.dtype, copy=False)
        if tuple(y.shape[1:]) != self.shape:
            raise BadInput(f"y has shape {tuple(y.shape)}; this network denoises data of shape (batch, {', '.join(map(str, self.shape))})")
        if np.ndim(sigma) and tuple(sigma.shape) != (y.shape[0],):
            raise BadInput(f"sigma has shape {tuple(sigma.shape)}; it must be a number or ({y.shape[0]},), one level a sample")
        with torch.set_grad_enabled(torch.is_grad_enabled() and y.requires_grad):
            level: Any = sigma.to(y.device, y.dtype) if is_torch(sigma) else float(sigma)
            c_skip, c_out, c_in, c_noise = precondition(level, self.sigma_data)
            if is_torch(level) and level.ndim:
                c_skip, c_out, c_in = (c.reshape(-1, *[1] * len(self.shape)) for c in (c_skip, c_out, c_in))
            told = c_noise.to(self.device, self.dtype) if is_torch(c_noise) else torch.full((), c_noise, dtype=self.dtype, device=self.device)
            told = told.expand(y.shape[0])
            labels = None if self.label is None else self._labels(y.shape[0])
            answer = raw(self.network, (c_in * y).to(self.device, self.dtype), told, labels)
            return c_skip * y + c_out * answer.to(y.device, y.dtype)

    def _labels(self, n: int) -> torch.Tensor:
        own: Any = self.label
        if not is_torch(own):
            return torch.full((n,), int(own), device=self.device)
        label: torch.Tensor = own.to(self.device, non_blocking=True)
        if label.ndim and len(label) != n:
            raise BadInput(f"{len(label)} labels for {n} data; give one label, or as many as there are data in a call")
        return label.expand(n)


def as_labels(label: Any, classes: int) -> Any:
    """``label``, an integer or integers (n,), as an int or a tensor, if each is in ``0 .. classes - 1``."""
    found = np.asarray(label)
    if found.dtype.kind not in "iu" or found.ndim > 1 or np.any((found < 0) | (found >= classes)):
        raise BadInput(f"label = {label!r} must be an integer, or integers (n,), from 0 to {classes - 1}")
    return torch.from_numpy(found.astype(np.int64)) if found.ndim else int(found)


def raw(network: torch.nn.Module, x: torch.Tensor, c_noise: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
    """``F(x, c_noise)``, or ``F(x, c_noise, labels)`` of a network that takes classes, with gradients."""
    answer = network(x, c_noise) if labels is None else network(x, c_noise, labels)
    out: torch.Tensor = getattr(answer, "sample", answer)
    return out


def unet_config(shape: Sequence[int], **changes: Any) -> dict[str, Any]:
    """Arguments of diffusers' ``UNet2DModel`` for images of ``shape`` (channels, height, width).

    Two resolutions with a residual block each on the way down and two up, attention at the coarse one, dropout against learning few images
    by heart: 0.75 million parameters for one channel.  ``changes`` replace entries.
    """
    channels, height, width = (int(v) for v in shape)
    return {
        "sample_size": [height, width],
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": [32, 64],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 16,
        "norm_num_groups": 8,
        "resnet_time_scale_shift": "scale_shift",
        "dropout": 0.2,
        **changes,
    }


def unet(config: Mapping[str, Any], *, device: Any = "cpu") -> torch.nn.Module:
    """Diffusers' ``UNet2DModel`` of a configuration; on the device ``"meta"`` it has shapes but no memory.

    Raises
    ------
    BadInput
        For an unknown argument, a number that is not in [0, 1024], or a configuration that diffusers refuses.
    MissingExtra
        Without diffusers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about packages that it looks for
            from diffusers import UNet2DModel
    except ImportError:
        raise MissingExtra("the U-Net", "images") from None
    known = set(inspect.signature(UNet2DModel.__init__).parameters) - {"self"}
    for key, value in config.items():
        if key not in known:
            raise unknown("argument of the network", key, known)
        numbers = [number for number in (value if isinstance(value, list | tuple) else [value]) if isinstance(number, int | float)]
        if not all(0 <= number <= _LARGEST for number in numbers) or len(numbers) > _LONGEST:
            raise BadInput(f"network: {key} = {value!r} must be numbers between 0 and {_LARGEST}, at most {_LONGEST} of them")
    try:
        with torch.device(device):
            network: torch.nn.Module = UNet2DModel(**config)
    except Exception as error:  # there is no end to what another library raises for a damaged configuration
        raise BadInput(f"network: diffusers refuses the configuration {dict(config)}: {' '.join(str(error).split())}") from None
    return network


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of every tensor of a network, by name."""
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in network.state_dict().items()}
