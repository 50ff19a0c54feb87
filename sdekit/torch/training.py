r"""Training, in steps that are functions of (seed, step): a run that is killed and resumed ends the same.

One loop serves every loss: what differs between a denoiser, a network on the whole state and a classifier is an object.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput, MissingExtra, finite, positive, unknown, whole
from ..files import folder
from ..runs import World
from .checkpoint import RECORD, State, keep, resume_from
from .data import Images
from .distributed import local_device, world
from .group import mean_over, share
from .losses import Denoising, Loss
from .models import load, save
from .network import raw, unet_config

import torch  # isort: skip  (after .network, which says what to install)

__all__ = ["Settings", "draw", "tensorboard", "train"]


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
        Mean and deviation of :math:`\ln \sigma` of the default loss; each batch is stratified in it.
    clip : float
        Largest norm of the gradient.
    precision : {"float32", "bfloat16"}
        Of the network's products; weights, moments and losses stay in float32.
    label_dropout : float, optional
        Train on the images' classes, each left out with this probability.

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
    precision: str = "float32"
    label_dropout: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("seed", 0), ("warm_up", 0)):
            object.__setattr__(self, name, whole(name, getattr(self, name), least))
        for name in ("rate", "clip"):
            object.__setattr__(self, name, positive(name, getattr(self, name)))
        if not 0.0 <= finite("averaging", self.averaging) < 1.0:
            raise BadInput(f"averaging = {self.averaging!r} must lie in [0, 1)")
        if self.precision not in ("float32", "bfloat16"):
            raise unknown("precision", self.precision, ("float32", "bfloat16"))
        if self.label_dropout is not None and not 0.0 <= finite("label_dropout", self.label_dropout) <= 1.0:
            raise BadInput(f"label_dropout = {self.label_dropout!r} must lie in [0, 1]")
        object.__setattr__(self, "log_sigma", (finite("log_sigma", self.log_sigma[0]), positive("log_sigma", self.log_sigma[1])))

    def rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        return self.rate * min(1.0, (step + 1) / (self.warm_up + 1)) * 0.5 * (1.0 + math.cos(math.pi * step / self.steps))

    def forgetting_at(self, step: int) -> float:
        """Factor of the old average at a step."""
        return min(self.averaging, (1.0 + step) / (10.0 + step))


def train(
    data: Images,
    out: str | os.PathLike[str],
    *,
    loss: Loss | None = None,
    network: Mapping[str, Any] | None = None,
    start: str | os.PathLike[str] | None = None,
    every: int = 500,
    resume: bool = True,
    progress: bool = True,
    watch: Callable[[int, float], None] | None = None,
    device: Any = "cpu",
    **settings: Any,
) -> Any:
    """Train a network on images and write it to a folder; the defaults made the shipped model ``"digits"``.

    Parameters
    ----------
    data : Images
        For example :func:`sdekit.torch.digits`; only its training part is used.
    out : path
        Folder for ``model.safetensors`` and ``model.json`` (read by :func:`sdekit.torch.load`) and the checkpoints.
    loss : Loss, optional
        :class:`~sdekit.torch.losses.Denoising` of the data's spread when absent.  :class:`~sdekit.torch.losses.Matching` trains on the whole state
        of a process, :class:`~sdekit.torch.losses.Classification` a classifier of noisy images.
    network : mapping, optional
        Changes to :func:`~sdekit.torch.network.unet_config`.
    start : name or path, optional
        A model (see :func:`sdekit.torch.load`) with the same network, whose weights the run starts from; its sha256 goes into the record.  A model
        without classes may start one with them: each class is at first denoised as none.
    every : int
        Steps between checkpoints.
    resume : bool
        Whether to go on from a checkpoint in ``out``; if not, what is there is replaced.
    progress : bool
        Whether to show a progress bar.
    watch : callable, optional
        Called as ``watch(step, loss)`` after each step, for example :func:`tensorboard`; what it raises ends the run.
    device : optional
        Where to train.
    **settings
        Entries of :class:`Settings`: steps, batch, seed, rate, warm_up, averaging, log_sigma, clip, precision, label_dropout.

    Returns
    -------
    NetworkDenoiser, NetworkScore or NetworkClassifier
        With the averaged weights, read back from ``out``.

    Raises
    ------
    BadInput
        For settings out of range, a folder that cannot be written, a checkpoint that is damaged or made with other settings, a start with
        another network, or a loss that is not finite.
    MissingExtra
        Without torch, safetensors or diffusers.

    Notes
    -----
    A run that was interrupted, at any moment, and resumed ends with the same bits as one that was not, on the same CPU with the same number of
    threads and the same versions of the libraries.

    Under ``torchrun`` or ``accelerate launch`` each process takes its part of every batch, and the gradient is that of the joint batch (to
    rounding, and but for the masks of dropout).  The process of rank 0 writes and watches.
    """
    if not isinstance(data, Images):
        raise BadInput(f"data = {type(data).__name__} must be Images, such as sdekit.torch.digits()")
    known = {field.name for field in fields(Settings)}
    for name in settings:
        if name not in known:
            raise unknown("setting of train", name, known)
    chosen, every = Settings(**settings), whole("every", every)
    objective = _objective(data, loss, chosen, settings)
    inside, outside = objective.channels(data.shape[0])
    shape = {"out_channels": outside} | ({} if chosen.label_dropout is None else {"num_class_embeds": data.classes + 1})
    config = unet_config((inside, *data.shape[1:]), **{**shape, **(network or {})})
    parts = {"settings": asdict(chosen), "network": config, "data": data.as_dict(), "objective": objective.as_dict()}
    origin = None if start is None else _origin(start, config)
    parts["start"] = {} if origin is None else {"model": Path(str(start)).name, "sha256": origin.record["sha256"]}
    identity = json.loads(json.dumps(parts))
    place = local_device(str(device))
    with world(str(device)) as workers:
        share(chosen.batch, workers)
        state = State(config, chosen.seed, place)
        if origin is not None:
            state.begin(origin.network.state_dict())
        path = folder(out)
        if resume:
            resume_from(path, state, identity)
        elif workers.rank == 0:
            (path / RECORD).unlink(missing_ok=True)
            (path / "model.json").unlink(missing_ok=True)
        workers.barrier()
        _run(data, path, state, chosen, objective, workers, identity, every=every, progress=progress, watch=watch)
        if workers.rank == 0:
            save(state.average, path, data.shape, identity, loss=state.loss, seconds=round(state.seconds, 1), versions=_versions())
        workers.barrier()
    return load(path, device=place)


def _objective(data: Images, loss: Loss | None, chosen: Settings, given: Mapping[str, Any]) -> Loss:
    """The loss, if it goes with the settings."""
    if loss is None:
        return Denoising(data.spread, chosen.log_sigma)
    if "log_sigma" in given:
        raise BadInput("log_sigma is the default loss's; a loss that is given has its own levels: leave log_sigma out")
    if chosen.label_dropout is not None and not isinstance(loss, Denoising):
        raise BadInput(f"label_dropout goes with a denoiser, not with {type(loss).__name__}: leave it out")
    return loss


def _origin(start: str | os.PathLike[str], config: Mapping[str, Any]) -> Any:
    """The model to start from, if its network is that of ``config``; dropout may differ, and a class embedding be missing."""
    model = load(start)
    own, free = model.record["network"], {"dropout"} | ({"num_class_embeds"} - set(model.record["network"]))
    for key in sorted((set(own) | set(config)) - free):
        if own.get(key) != config.get(key):
            raise BadInput(f"start = {str(start)!r}: its network has {key} = {own.get(key)!r}, this one has {config.get(key)!r}; they must be equal")
    return model


def _run(
    data: Images, path: Path, state: State, settings: Settings, objective: Loss, workers: World, identity: Mapping[str, Any], *,
    every: int, progress: bool, watch: Callable[[int, float], None] | None,
) -> None:  # fmt: skip
    """All steps that are left, with a checkpoint after each ``every`` and after the last."""
    from tqdm import tqdm

    device = next(state.network.parameters()).device
    images, labels = (torch.from_numpy(array.copy()).to(device) for array in (data.train, data.train_labels))
    batch, first = settings.batch, workers.rank == 0
    with tqdm(
        total=settings.steps * batch, initial=state.step * batch, unit="img", desc=f"train {data.name}", disable=not (progress and first)
    ) as bar:
        start = time.perf_counter() - state.seconds
        while state.step < settings.steps:
            loss = _advance(state, images, labels, data.classes, settings, objective, workers)
            if not math.isfinite(loss):
                raise BadInput(f"the loss is {loss} at step {state.step}; it must stay finite: start anew with rate below {settings.rate:g}")
            state.loss = loss if math.isnan(state.loss) else 0.99 * state.loss + 0.01 * loss
            state.seconds = time.perf_counter() - start
            if first and (state.step % every == 0 or state.step == settings.steps):
                keep(path, state, identity)
            bar.update(batch)
            bar.set_postfix(loss=f"{state.loss:.4f}", refresh=False)
            if watch is not None and first:
                watch(state.step, loss)


def draw(step: int, count: int, shape: tuple[int, ...], settings: Settings, normals: int = 1) -> tuple[Any, Any, Any, int, Any]:
    """What a step is made of, a function of (seed, step).

    Returns
    -------
    index (batch,)
        Images, below ``count``.
    uniforms (batch,)
        Stratified numbers in (0, 1) that choose the levels.
    xi (normals, batch, *shape)
    seed : int
        For dropout.
    dropped (batch,)
        Where the label is left out.
    """
    rng = np.random.default_rng([settings.seed, step])
    index = rng.integers(0, count, settings.batch)
    uniforms = (rng.random() + np.arange(settings.batch)) / settings.batch
    xi = rng.standard_normal((normals, settings.batch, *shape), dtype=np.float32)
    seed = int(rng.integers(2**63))
    return index, uniforms, xi, seed, rng.random(settings.batch) < (settings.label_dropout or 0.0)


def _advance(state: State, images: torch.Tensor, labels: torch.Tensor, classes: int, settings: Settings, objective: Loss, workers: World) -> float:
    """One step; returns the batch's loss."""
    device, part = images.device, share(settings.batch, workers)
    index, uniforms, xi, seed, dropped = draw(state.step, len(images), tuple(images.shape[1:]), settings, objective.normals)
    chosen, noise, without = (torch.from_numpy(array).to(device) for array in (index[part], xi[:, part], dropped[part]))
    for parameters in state.optimiser.param_groups:
        parameters["lr"] = settings.rate_at(state.step)
    drawn, own = objective.draw(images[chosen], noise, uniforms[part]), labels[chosen]
    drawn = drawn._replace(target=own) if drawn.target is None else drawn
    told = None if settings.label_dropout is None else own.masked_fill(without, classes)
    lower = torch.autocast(device.type, torch.bfloat16) if settings.precision == "bfloat16" else nullcontext()
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        torch.manual_seed(seed + workers.rank)
        with lower:
            answer = raw(state.network, drawn.input, drawn.level, told)
        loss = objective.error(answer.float(), drawn).mean()
    state.optimiser.zero_grad()
    torch.autograd.backward(loss)
    total = loss.detach()
    mean_over(workers, [total, *(parameter.grad for parameter in state.network.parameters() if parameter.grad is not None)])
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip)
    state.optimiser.step()
    old = settings.forgetting_at(state.step)
    with torch.no_grad():
        for mean, now in zip(state.average.parameters(), state.network.parameters(), strict=True):
            mean.lerp_(now, 1.0 - old)
    state.step += 1
    return float(total)


def tensorboard(path: str | os.PathLike[str]) -> Callable[[int, float], None]:
    """A ``watch`` that writes each step's loss for TensorBoard into a folder.

    Raises
    ------
    MissingExtra
        Without tensorboard.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtra("logging for TensorBoard", "tensorboard") from None
    writer = SummaryWriter(os.fspath(path))

    def watch(step: int, loss: float) -> None:
        writer.add_scalar("loss", loss, step)
        writer.flush()  # its thread writes every two minutes, and what it has not written at the end is lost

    return watch


def _versions() -> dict[str, Any]:
    made: dict[str, Any] = {name: version(name) for name in ("numpy", "torch", "diffusers", "safetensors")}
    return {"python": platform.python_version(), **made, "threads": torch.get_num_threads(), "machine": platform.machine()}
