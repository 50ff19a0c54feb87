r"""Training of a denoiser by EDM's loss, in steps that are functions of (seed, step): a run that is killed and resumed ends the same.

With :math:`y = x_0 + \sigma n` and :math:`\ln \sigma \sim N(m, s^2)` the loss is

.. math::
    E\,\frac{|D(y; \sigma) - x_0|^2}{c_{out}^2} = E\,|F(c_{in} y, \tfrac14 \ln\sigma) - v|^2, \qquad
    v = \frac{x_0 - c_{skip}\, y}{c_{out}} = \frac{\sigma x_0 / \sigma_d - \sigma_d n}{\sqrt{\sigma^2 + \sigma_d^2}},

the last form free of cancellation (Karras et al. 2022, eq. 8).
"""

from __future__ import annotations

import copy
import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput, finite, positive, unknown, whole
from ..files import folder, write_json
from .data import Images
from .models import load, save
from .network import NetworkDenoiser, precondition, raw, shapes_of, unet, unet_config
from .storage import read_record, read_tensors, write_tensors

import torch  # isort: skip  (after .network, which says what to install)

__all__ = ["Settings", "train"]

_FORMAT = "sdekit.checkpoint/1"
_RECORD = "checkpoint.json"


@dataclass(frozen=True)
class Settings:
    r"""What a training run is, beside its data and its network.

    Attributes
    ----------
    steps, batch : int
    seed : int
        Batches, levels and noise of step ``i`` come from ``numpy.random.default_rng([seed, i])``.
    rate : float
        Highest learning rate of Adam; it rises over ``warm_up`` steps and falls by a half cosine to 0.
    warm_up : int
    averaging : float
        The weights' exponential moving average forgets by :math:`\min(averaging, (1 + i)/(10 + i))` at step ``i``.
    log_sigma : (float, float)
        Mean and deviation of :math:`\ln \sigma`; each batch is stratified in it.
    clip : float
        Largest norm of the gradient.

    Raises
    ------
    BadInput
        For a value outside its range.
    """

    steps: int = 3500
    batch: int = 128
    seed: int = 0
    rate: float = 2e-3
    warm_up: int = 100
    averaging: float = 0.999
    log_sigma: tuple[float, float] = (-1.2, 1.2)
    clip: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("seed", 0), ("warm_up", 0)):
            object.__setattr__(self, name, whole(name, getattr(self, name), least))
        for name in ("rate", "clip"):
            object.__setattr__(self, name, positive(name, getattr(self, name)))
        if not 0.0 <= finite("averaging", self.averaging) < 1.0:
            raise BadInput(f"averaging = {self.averaging!r} must lie in [0, 1)")
        object.__setattr__(self, "log_sigma", (finite("log_sigma", self.log_sigma[0]), positive("log_sigma", self.log_sigma[1])))

    def rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        return self.rate * min(1.0, (step + 1) / (self.warm_up + 1)) * 0.5 * (1.0 + math.cos(math.pi * step / self.steps))

    def forgetting_at(self, step: int) -> float:
        """Factor of the old average at a step."""
        return min(self.averaging, (1.0 + step) / (10.0 + step))


class _State:
    """Network, averaged network and optimiser after ``step`` steps."""

    def __init__(self, config: Mapping[str, Any], settings: Settings, device: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.network = unet(config).to(device)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.rate, betas=(0.9, 0.99))
        self.step, self.loss, self.seconds = 0, math.nan, 0.0

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that the next step depends on."""
        made = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        made |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        moments = self.optimiser.state_dict()["state"]
        return made | {f"adam.{i}.{name}": tensor for i, slots in moments.items() for name, tensor in slots.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take the tensors of :meth:`tensors`."""
        for part, module in (("network.", self.network), ("average.", self.average)):
            module.load_state_dict({name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)})
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, index, slot = name.split(".")
                slots.setdefault(int(index), {})[slot] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": slots})

    def shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """What a checkpoint has to hold."""
        weights = shapes_of(self.network)
        made = {f"{part}.{name}": value for part in ("network", "average") for name, value in weights.items()}
        for i, parameter in enumerate(self.network.parameters()):
            made[f"adam.{i}.step"] = ((), torch.float32)
            made |= {f"adam.{i}.{slot}": (tuple(parameter.shape), parameter.dtype) for slot in ("exp_avg", "exp_avg_sq")}
        return made


def train(
    data: Images,
    out: str | os.PathLike[str],
    *,
    network: Mapping[str, Any] | None = None,
    every: int = 500,
    resume: bool = True,
    progress: bool = True,
    watch: Callable[[int, float], None] | None = None,
    device: Any = "cpu",
    **settings: Any,
) -> NetworkDenoiser:
    """Train a denoiser on images and write it to a folder; the defaults made the shipped model ``"digits"``.

    Parameters
    ----------
    data : Images
        For example :func:`sdekit.torch.digits`; only its training part is used.
    out : path
        Folder for ``model.safetensors`` and ``model.json`` (read by :func:`sdekit.torch.load`) and the checkpoints.
    network : mapping, optional
        Changes to :func:`~sdekit.torch.network.unet_config`.
    every : int
        Steps between checkpoints.
    resume : bool
        Whether to go on from a checkpoint in ``out``; if not, what is there is replaced.
    progress : bool
        Whether to show a progress bar.
    watch : callable, optional
        Called as ``watch(step, loss)`` after each step; what it raises ends the run.
    device : optional
        Where to train.
    **settings
        Entries of :class:`Settings`: steps, batch, seed, rate, warm_up, averaging, log_sigma, clip.

    Returns
    -------
    NetworkDenoiser
        With the averaged weights, read back from ``out``.

    Raises
    ------
    BadInput
        For settings out of range, a folder that cannot be written, a checkpoint that is damaged or made with other settings, or a loss that
        is not finite.
    MissingExtra
        Without torch, safetensors or diffusers.

    Notes
    -----
    A run that was interrupted, at any moment, and resumed ends with the same bits as one that was not, on the same CPU with the same number of
    threads and the same versions of the libraries.
    """
    if not isinstance(data, Images):
        raise BadInput(f"data = {type(data).__name__} must be Images, such as sdekit.torch.digits()")
    known = {field.name for field in fields(Settings)}
    for name in settings:
        if name not in known:
            raise unknown("setting of train", name, known)
    chosen, every = Settings(**settings), whole("every", every)
    config = unet_config(data.shape, **(network or {}))
    state = _State(config, chosen, device)
    path = folder(out)
    identity = json.loads(json.dumps({"settings": asdict(chosen), "network": config, "data": data.as_dict()}))
    if resume:
        _resume(path, state, identity)
    else:
        (path / _RECORD).unlink(missing_ok=True)
        (path / "model.json").unlink(missing_ok=True)
    _run(data, path, state, chosen, identity, every=every, progress=progress, watch=watch)
    save(
        NetworkDenoiser(state.average, data.shape, data.spread), path, config,
        data=identity["data"], settings=identity["settings"], loss=state.loss, seconds=round(state.seconds, 1), versions=_versions(),
    )  # fmt: skip
    return load(path, device=device)


def _run(
    data: Images, path: Path, state: _State, settings: Settings, identity: Mapping[str, Any], *,
    every: int, progress: bool, watch: Callable[[int, float], None] | None,
) -> None:  # fmt: skip
    """All steps that are left, with a checkpoint after each ``every`` and after the last."""
    from tqdm import tqdm

    images = torch.from_numpy(data.train.copy()).to(next(state.network.parameters()).device)
    batch = settings.batch
    with tqdm(total=settings.steps * batch, initial=state.step * batch, unit="img", desc=f"train {data.name}", disable=not progress) as bar:
        start = time.perf_counter() - state.seconds
        while state.step < settings.steps:
            loss = _advance(state, images, settings, data.spread)
            if not math.isfinite(loss):
                raise BadInput(f"the loss is {loss} at step {state.step}; it must stay finite: start anew with rate below {settings.rate:g}")
            state.loss = loss if math.isnan(state.loss) else 0.99 * state.loss + 0.01 * loss
            state.seconds = time.perf_counter() - start
            if state.step % every == 0 or state.step == settings.steps:
                _keep(path, state, identity)
            bar.update(batch)
            bar.set_postfix(loss=f"{state.loss:.4f}", refresh=False)
            if watch is not None:
                watch(state.step, loss)


def draw(step: int, count: int, shape: tuple[int, ...], settings: Settings) -> tuple[Any, Any, Any, int]:
    """Indices (batch,) of images below ``count``, levels (batch,), normals (batch, *shape) and a seed for dropout: functions of (seed, step)."""
    from scipy.special import ndtri

    rng = np.random.default_rng([settings.seed, step])
    index = rng.integers(0, count, settings.batch)
    share = (rng.random() + np.arange(settings.batch)) / settings.batch
    mean, deviation = settings.log_sigma
    sigma = np.exp(mean + deviation * ndtri(share)).astype(np.float32)
    normals = rng.standard_normal((settings.batch, *shape), dtype=np.float32)
    return index, sigma, normals, int(rng.integers(2**63))


def loss_of(network: torch.nn.Module, x0: torch.Tensor, sigma: torch.Tensor, normals: torch.Tensor, sigma_data: float) -> torch.Tensor:
    """EDM's loss of each image, (batch,): the mean square of ``(D - x0) / c_out`` over its pixels."""
    _, _, c_in, c_noise = precondition(sigma, sigma_data)
    wide = (-1, *[1] * (x0.ndim - 1))
    level, c_in = sigma.reshape(wide), c_in.reshape(wide)
    target = c_in * (level * x0 / sigma_data - sigma_data * normals)
    answer = raw(network, c_in * (x0 + level * normals), c_noise)
    error: torch.Tensor = (answer - target).square().flatten(1).mean(1)
    return error


def _advance(state: _State, images: torch.Tensor, settings: Settings, sigma_data: float) -> float:
    """One step; returns the batch's loss."""
    device = images.device
    index, sigma, normals, seed = draw(state.step, len(images), tuple(images.shape[1:]), settings)
    for group in state.optimiser.param_groups:
        group["lr"] = settings.rate_at(state.step)
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        torch.manual_seed(seed)
        chosen, level, xi = (torch.from_numpy(array).to(device) for array in (index, sigma, normals))
        loss = loss_of(state.network, images[chosen], level, xi, sigma_data).mean()
    state.optimiser.zero_grad()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip)
    state.optimiser.step()
    old = settings.forgetting_at(state.step)
    with torch.no_grad():
        for mean, now in zip(state.average.parameters(), state.network.parameters(), strict=True):
            mean.lerp_(now, 1.0 - old)
    state.step += 1
    return float(loss.detach())


def _name(step: int) -> str:
    return f"checkpoint-{step:08d}.safetensors"


def _keep(path: Path, state: _State, identity: Mapping[str, Any]) -> None:
    """Write a checkpoint; its record goes last, and only then are older tensors removed."""
    sha256 = write_tensors(path / _name(state.step), state.tensors())
    record = {"format": _FORMAT, "step": state.step, "sha256": sha256, "loss": state.loss, "seconds": state.seconds, **identity}
    write_json(path / _RECORD, record)
    for old in path.glob("checkpoint-*.safetensors"):
        if old.name != _name(state.step):
            old.unlink(missing_ok=True)


def _resume(path: Path, state: _State, identity: Mapping[str, Any]) -> None:
    """Go on from the checkpoint of a folder, if there is one and it is of the same run."""
    if not (path / _RECORD).exists():
        return
    record = read_record(path / _RECORD, _FORMAT, step=int, sha256=str, loss=float, seconds=float, settings=dict, network=dict, data=dict)
    for part in ("settings", "network", "data"):
        old, new = record[part], identity[part]
        for key in sorted(set(old) | set(new)):
            if old.get(key) != new.get(key):
                raise BadInput(
                    f"{str(path)!r} holds a run with {key} = {old.get(key)!r}, this one has {new.get(key)!r}; "
                    "give the same value, another folder, or resume=False to start anew"
                )
    state.restore(read_tensors(path / _name(record["step"]), record["sha256"], state.shapes()))
    state.step, state.loss, state.seconds = record["step"], record["loss"], record["seconds"]


def _versions() -> dict[str, Any]:
    made: dict[str, Any] = {name: version(name) for name in ("numpy", "torch", "diffusers", "safetensors")}
    return {"python": platform.python_version(), **made, "threads": torch.get_num_threads(), "machine": platform.machine()}
