r"""Networks that people have already, as the one interface ``denoise(y, sigma) -> E[x_0 | x_0 + \sigma n = y]``; and that as theirs.

Each class takes a live network, loaded by its owner's code, and says how its convention reads.  ``sigma`` is a number or (batch,); arrays of
NumPy and tensors go in and come out as they are; the network runs in its own precision; gradients pass through tensors.

==================  ======================================================  ==================
class               the network                                             the other way
==================  ======================================================  ==================
`Diffusers`         ``model(x, label, ...)`` of eps, v or x0 (VP, labels)   `to_diffusers`
`KDiffusion`        ``model(y, sigma, ...)``                                `to_k_diffusion`
`EDM`               ``net(y, sigma, class_labels)``                         `to_edm`
`ScoreSDE`          ``score(x, t)`` of a one-block process                  `to_score_sde`
`Flow`              velocity ``v(x, t)`` of flow matching                   `to_flow`
`states.psld`       score or noise of a whole state in the channels         `to_state_score`
==================  ======================================================  ==================
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._array import is_torch, to_host
from ..errors import BadInput, MissingExtra, positive, unknown
from ..process import Process
from ..tables import Table
from .conventions import denoised, kind_of, table_of, without_variance

try:
    import torch
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

__all__ = ["EDM", "Adapted", "Diffusers", "Flow", "KDiffusion", "ScoreSDE"]

Level = Any
"""A level: a float, or a tensor (batch,) in float64."""


class Adapted:
    """What all adapters share: types, shapes and levels.

    Attributes
    ----------
    network : callable
    shape : tuple of int
        Shape of one datum, where it is known.
    device, dtype
        Of the network, where it has parameters.
    """

    shape: tuple[int, ...]

    def __init__(self, network: Callable[..., Any], shape: Sequence[int] | None = None) -> None:
        if not callable(network):
            raise BadInput(f"network = {network!r} must be callable")
        self.network = network
        if shape is not None:
            self.shape = tuple(int(v) for v in shape)

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self._parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's numbers."""
        return self._parameter.dtype

    @property
    def _parameter(self) -> torch.Tensor:
        found = next(iter(self.network.parameters()), None) if isinstance(self.network, torch.nn.Module) else None
        if found is None:
            raise AttributeError("this network has no parameters")
        return found

    def told(self, levels: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:  # noqa: ARG002
        """What the network is told beside the level, made on the host: see :class:`~sdekit.denoiser.Denoiser`."""
        return ()

    def denoise(self, y: torch.Tensor, sigma: Level, *told: Any) -> torch.Tensor:
        """The denoised data of tensors; ``sigma`` and all that :meth:`told` makes of it are numbers or (batch,)."""
        raise NotImplementedError

    def __call__(self, y: Any, sigma: Any, *told: Any) -> Any:
        """The denoised data, of the shape, type and library of ``y``; :meth:`told` is asked when that is absent.

        Raises
        ------
        BadInput
            For a ``y`` or ``sigma`` of another shape, or a level that the network was not trained on.
        """
        if not is_torch(y):
            host = np.array(y, dtype=y.dtype if y.dtype.kind == "f" else float)
            return self(torch.from_numpy(host), sigma, *told).detach().cpu().numpy()
        known = getattr(self, "shape", None)
        if known is not None and tuple(y.shape[1:]) != known:
            raise BadInput(f"y has shape {tuple(y.shape)}; this network denoises data of shape (batch, {', '.join(map(str, known))})")
        if not np.ndim(sigma):
            return self.denoise(y, float(sigma), *(told or [v.item() for v in self.told(np.array(sigma, float))]))
        if tuple(np.shape(sigma)) != (y.shape[0],):
            raise BadInput(f"sigma has shape {tuple(np.shape(sigma))}; it must be a number or ({y.shape[0]},), one level a sample")
        told = told or self.told(np.asarray(to_host(sigma), float))
        levels = torch.as_tensor(sigma, dtype=torch.float64, device=y.device)
        return self.denoise(y, levels, *(torch.as_tensor(v, device=y.device) for v in told))

    def ask(self, x: torch.Tensor, told: Any, *more: Any, **extra: Any) -> torch.Tensor:
        """The network's answer in the type of ``x``; ``told`` is a number or (batch,) and is given as (batch,)."""
        try:
            home, dtype = self.device, self.dtype
        except AttributeError:
            home, dtype = x.device, x.dtype
        kind = torch.int64 if isinstance(told, int) or (is_torch(told) and not told.is_floating_point()) else dtype
        each = told.to(home, kind) if is_torch(told) else torch.full((x.shape[0],), told, dtype=kind, device=home)
        answer = self.network(x.to(home, dtype), each, *more, **extra)
        answer = answer[0] if isinstance(answer, tuple) else getattr(answer, "sample", answer)
        made: torch.Tensor = answer.to(x.device, x.dtype)
        return made


def wide(c: Any, y: torch.Tensor) -> Any:
    """A coefficient of each sample, so that it multiplies ``y``; a number stays."""
    return c.to(y.dtype).reshape(-1, *[1] * (y.ndim - 1)) if is_torch(c) else c


def on_host(function: Callable[[Any], Any], levels: Level) -> Any:
    """``function`` of NumPy on a float, or on a tensor by way of the host."""
    if not is_torch(levels):
        return float(function(levels))
    return torch.from_numpy(np.asarray(function(levels.cpu().numpy()), float)).to(levels.device)


class Diffusers(Adapted):
    r"""A U-Net or transformer of diffusers, with the schedule that it was trained on.

    The network is asked at :math:`x = y/\sqrt{1 + \sigma^2}` and the label whose level is ``sigma``: an exact fractional one, which networks with
    sinusoidal embeddings take.  Channels beyond the data's, of a learned variance, are dropped.

    Parameters
    ----------
    network : callable
        ``network(x, label, **condition)``, an answer, a tuple that starts with it, or an object that holds it as ``.sample``.
    scheduler : scheduler, mapping or Table
        The scheduler of the pipeline or its configuration, for betas and ``prediction_type``; or a table with ``kind``.
    kind : {"eps", "v", "x0"}, optional
        What the network predicts, if not what the scheduler says.
    rounding : {"exact", "nearest"}
        ``nearest`` gives the nearest whole label, also for levels outside the table (label 0 or the last).
    shape : tuple of int, optional
        That of the network's configuration when absent.
    **condition
        More arguments of the network, such as ``encoder_hidden_states`` or ``class_labels``: tensors with one entry for each sample, or with one
        for all.

    Raises
    ------
    BadInput
        For an unknown kind or rounding; at a call, for a level outside the table with exact labels.
    """

    def __init__(
        self, network: Any, scheduler: Any, *, kind: str | None = None, rounding: str = "exact", shape: Sequence[int] | None = None, **condition: Any
    ) -> None:
        super().__init__(network, _image_shape(network) if shape is None else shape)
        is_table = isinstance(scheduler, Table)
        self.table: Table = scheduler if is_table else table_of(scheduler)
        self.kind = kind if kind is not None else "eps" if is_table else kind_of(scheduler)
        if self.kind not in ("eps", "v", "x0"):
            raise unknown("kind of prediction", self.kind, ["eps", "v", "x0"])
        if rounding not in ("exact", "nearest"):
            raise unknown("rounding", rounding, ["exact", "nearest"])
        self.rounding, self.condition = rounding, condition

    @property
    def levels(self) -> tuple[float, float]:
        """Lowest and highest level that the network was trained on."""
        return float(self.table.sigma[0]), float(self.table.sigma[-1])

    def given(self, **condition: Any) -> Diffusers:
        """The same network with more, or other, arguments."""
        made = copy.copy(self)
        made.condition = {**self.condition, **condition}
        return made

    def told(self, levels: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
        """The labels."""
        return (label_of(self.table, levels, self.rounding),)

    def denoise(self, y: torch.Tensor, sigma: Level, *told: Any) -> torch.Tensor:
        """The denoised data."""
        (label,) = told
        level = wide(sigma, y)
        extra = {name: _spread(value, y.shape[0]) for name, value in self.condition.items()}
        answer = self.ask(y / (1.0 + level * level) ** 0.5, label, **extra)
        made: torch.Tensor = denoised(self.kind, y, level, without_variance(answer, y.shape[1]))
        return made


def label_of(table: Table, sigma: ArrayLike, rounding: str = "exact") -> NDArray[Any]:
    """The labels of levels; whole ones are integers if all are.

    Raises
    ------
    BadInput
        For a level outside the table with exact labels.
    """
    low, high = float(table.sigma[0]), float(table.sigma[-1])
    levels = np.asarray(sigma, float)
    inside = np.clip(levels, low, high)
    if rounding == "exact" and np.any(np.abs(inside - levels) > 1e-9 * levels):
        worst = float(np.max(np.where(inside == levels, 0.0, levels)))
        rule = f"lies outside the levels [{low:.6g}, {high:.6g}] of the labels that the network was trained on"
        raise BadInput(f"sigma = {worst:g} {rule}; use a grid inside, such as karras(18, {low:.4g}, {high:.4g}), or rounding='nearest'")
    found = table.label(np.log1p(inside * inside))
    found = np.round(found) if rounding == "nearest" else found
    return found.astype(np.int64) if np.all(found == np.round(found)) else found


def _spread(value: Any, n: int) -> Any:
    """A condition with one entry for each of ``n`` samples."""
    return value.expand(n, *value.shape[1:]) if is_torch(value) and value.ndim and value.shape[0] == 1 else value


def _image_shape(network: Any) -> tuple[int, ...] | None:
    config = getattr(network, "config", None)
    channels, size = getattr(config, "in_channels", None), getattr(config, "sample_size", None)
    if not isinstance(channels, int) or not isinstance(size, int | list | tuple):
        return None
    return (channels, size, size) if isinstance(size, int) else (channels, *size)


class KDiffusion(Adapted):
    """A denoiser of k-diffusion, ``model(y, sigma, **extra)`` with sigma (batch,)."""

    def __init__(self, model: Any, shape: Sequence[int] | None = None, **extra: Any) -> None:
        super().__init__(model, shape)
        self.extra = extra

    def denoise(self, y: torch.Tensor, sigma: Level, *_: Any) -> torch.Tensor:
        """The denoised data."""
        return self.ask(y, sigma, **{name: _spread(value, y.shape[0]) for name, value in self.extra.items()})


class EDM(Adapted):
    """A preconditioned network of EDM's code, ``net(y, sigma, class_labels)``; its shape is ``img_channels`` and ``img_resolution``."""

    def __init__(self, net: Any, class_labels: Any = None, shape: Sequence[int] | None = None, **extra: Any) -> None:
        own = getattr(net, "img_resolution", None)
        super().__init__(net, (net.img_channels, own, own) if shape is None and own is not None else shape)
        self.class_labels, self.extra = class_labels, extra

    def denoise(self, y: torch.Tensor, sigma: Level, *_: Any) -> torch.Tensor:
        """The denoised data."""
        return self.ask(y, sigma, _spread(self.class_labels, y.shape[0]), **self.extra)


class ScoreSDE(Adapted):
    r"""A score network in continuous time, ``score(x, t)``, of a process of one block (VP, VE, sub-VP, ...).

    With :math:`x = \psi y`, :math:`D = y + \frac{S}{\psi}\,\mathrm{score}(x, t)`, ``t`` the time at which the level is ``sigma``.

    Parameters
    ----------
    score : callable
    process : Process
        What it was trained on, with its times.
    scale : float
        The network gets ``scale * t``: 999 for networks of score_sde's VP that are not inside its ``get_score_fn``.
    shape : tuple of int, optional

    Raises
    ------
    BadInput
        For a process with more blocks; at a call, for a level that it does not reach.
    """

    def __init__(self, score: Any, process: Process, scale: float = 1.0, shape: Sequence[int] | None = None) -> None:
        super().__init__(score, shape)
        if process.k != 1:
            raise BadInput(f"process {process.name!r} has {process.k} blocks; a network of a whole state is wrapped by sdekit.torch.states.psld")
        self.process, self.scale = process, positive("scale", scale)

    def told(self, levels: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
        """The time as the network knows it, psi and the deviation."""
        t = np.asarray(self.process.time_of(levels))
        kernel = self.process.kernel(t)
        return self.scale * t, kernel.psi[..., 0], kernel.chol[..., 0, 0]

    def denoise(self, y: torch.Tensor, sigma: Level, *told: Any) -> torch.Tensor:  # noqa: ARG002 - the time says it
        """The denoised data."""
        t, psi, std = told
        made: torch.Tensor = y + wide(std * std / psi, y) * self.ask(wide(psi, y) * y, t)
        return made


class Flow(Adapted):
    r"""A velocity of flow matching on straight paths, :math:`x_t = (1-t) x_0 + t n`, :math:`v = n - x_0`.

    .. math:: t = \frac{\sigma}{1 + \sigma}, \qquad x = (1 - t)\,y, \qquad D = x - t\,v(x, t) .

    Parameters
    ----------
    velocity : callable
        ``v(x, t)``.
    data_at : {0, 1}
        End of its time where the data are; with 1 its time is ``1 - t`` and its velocity ``x_0 - n``.
    scale : float
        The network gets ``scale`` times its time (1000 in diffusers).
    shape, **extra
        As for the other adapters.
    """

    def __init__(self, velocity: Any, data_at: int = 0, scale: float = 1.0, shape: Sequence[int] | None = None, **extra: Any) -> None:
        super().__init__(velocity, shape)
        if data_at not in (0, 1):
            raise BadInput(f"data_at = {data_at!r} must be 0 or 1")
        self.data_at, self.scale, self.extra = data_at, positive("scale", scale), extra

    def denoise(self, y: torch.Tensor, sigma: Level, *_: Any) -> torch.Tensor:
        """The denoised data."""
        t, rest = sigma / (1.0 + sigma), 1.0 / (1.0 + sigma)
        x = wide(rest, y) * y
        extra = {name: _spread(value, y.shape[0]) for name, value in self.extra.items()}
        told, way = (rest, wide(t, y)) if self.data_at else (t, -wide(t, y))
        made: torch.Tensor = x + way * self.ask(x, self.scale * told, **extra)
        return made
