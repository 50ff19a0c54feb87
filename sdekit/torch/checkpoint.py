"""All that a training step depends on, on disk: written whole, read back only into the same run."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..files import write_json
from .network import shapes_of, unet
from .storage import read_record, read_tensors, write_tensors

import torch  # isort: skip  (after .network, which says what to install)

__all__ = ["RECORD", "State", "keep", "resume_from"]

RECORD = "checkpoint.json"
_FORMAT = "sdekit.checkpoint/3"


class State:
    """Network, averaged network and optimiser after ``step`` steps."""

    def __init__(self, config: Mapping[str, Any], seed: int, device: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = unet(config).to(device)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.optimiser = torch.optim.Adam(self.network.parameters(), betas=(0.9, 0.99))
        self.step, self.loss, self.seconds = 0, math.nan, 0.0

    def begin(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take another network's weights; what it lacks, a class embedding, is zero: each class is at first what that network does without."""
        for module in (self.network, self.average):
            own = module.state_dict()
            module.load_state_dict({name: weights.get(name, torch.zeros_like(tensor)) for name, tensor in own.items()})

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


def _name(step: int) -> str:
    return f"checkpoint-{step:08d}.safetensors"


def keep(path: Path, state: State, identity: Mapping[str, Any]) -> None:
    """Write a checkpoint; its record goes last, and only then are older tensors removed."""
    sha256 = write_tensors(path / _name(state.step), state.tensors())
    record = {"format": _FORMAT, "step": state.step, "sha256": sha256, "loss": state.loss, "seconds": state.seconds, **identity}
    write_json(path / RECORD, record)
    for old in path.glob("checkpoint-*.safetensors"):
        if old.name != _name(state.step):
            old.unlink(missing_ok=True)


def resume_from(path: Path, state: State, identity: Mapping[str, Mapping[str, Any]]) -> None:
    """Go on from the checkpoint of a folder, if there is one and it is of the same run.

    Raises
    ------
    BadInput
        If it is damaged, or of a run with another identity.
    """
    if not (path / RECORD).exists():
        return
    record = read_record(path / RECORD, _FORMAT, step=int, sha256=str, loss=float, seconds=float, **dict.fromkeys(identity, dict))
    for part, now in identity.items():
        old = record[part]
        for key in sorted(set(old) | set(now)):
            if old.get(key) != now.get(key):
                raise BadInput(
                    f"{str(path)!r} holds a run with {key} = {old.get(key)!r}, this one has {now.get(key)!r}; "
                    "give the same value, another folder, or resume=False to start anew"
                )
    state.restore(read_tensors(path / _name(record["step"]), record["sha256"], state.shapes()))
    state.step, state.loss, state.seconds = record["step"], record["loss"], record["seconds"]
