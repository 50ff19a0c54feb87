"""Trained models: those that come with the library, and those that ``train`` wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadInput, unknown
from ..files import write_json
from .losses import Denoising
from .network import shapes_of, unet
from .storage import read_record, read_tensors, write_tensors
from .trained import loss_of, model_of

import torch  # isort: skip  (after .network, which says what to install)

__all__ = ["FORMAT", "load", "names", "save"]

FORMAT = "sdekit.denoiser/1"
_SHIPPED = Path(__file__).parent / "weights"


def names() -> list[str]:
    """Names of the models that come with the library."""
    return sorted(path.stem for path in _SHIPPED.glob("*.json"))


def load(name: str | os.PathLike[str] = "digits", *, device: Any = None) -> Any:
    """A trained model.

    Parameters
    ----------
    name : str or path
        One of :func:`names`, or a folder with ``model.json`` and ``model.safetensors``, as :func:`sdekit.torch.train` writes it.
    device : optional
        Where it shall run; the CPU when absent.

    Returns
    -------
    NetworkDenoiser, NetworkScore or NetworkClassifier
        By the loss that it was trained on; its ``record`` says on what data and how.

    Raises
    ------
    BadInput
        For an unknown name, or files that are missing or damaged, or do not belong together.
    MissingExtra
        Without torch, safetensors or diffusers.

    Notes
    -----
    Files are not trusted: the record is JSON, the weights are safetensors, nothing is unpickled.  The sha256, and every tensor's name, shape and
    type, are checked against the record before the network takes memory.
    """
    if str(name) in names():
        return _read(_SHIPPED / f"{name}.json", _SHIPPED / f"{name}.safetensors", device)
    path = Path(name)
    if not path.is_dir():
        if path.name == str(name):
            raise unknown("model", str(name), names())
        raise BadInput(f"model {str(name)!r} is not a folder; give one that train() wrote, or a name: {', '.join(names())}")
    return _read(path / "model.json", path / "model.safetensors", device)


def save(network: torch.nn.Module, path: Path, shape: Sequence[int], identity: Mapping[str, Any], **record: Any) -> None:
    """Write ``model.safetensors`` and, after it, ``model.json`` to a folder.

    Parameters
    ----------
    network : torch.nn.Module
    path : Path
    shape : sequence of int
        Shape of one datum.
    identity : mapping
        ``network`` (see :func:`~sdekit.torch.network.unet_config`), ``objective`` (see :func:`~sdekit.torch.losses.loss_of`), ``data``, ``settings``.
    **record
        What else to say, as JSON.
    """
    weights = network.state_dict()
    sha256 = write_tensors(path / "model.safetensors", weights)
    known = {"format": FORMAT, "shape": list(shape), "sigma_data": identity["objective"]["spread"]}
    count = sum(tensor.numel() for tensor in weights.values())
    write_json(path / "model.json", {**known, **identity, "parameters": count, "sha256": sha256, **record})


def _read(record_path: Path, weights_path: Path, device: Any) -> Any:
    record = read_record(record_path, FORMAT, shape=list, sigma_data=float, network=dict, sha256=str)
    config, shape = record["network"], record["shape"]
    loss = loss_of(record.get("objective") or Denoising(record["sigma_data"]).as_dict())
    inside, size = config.get("in_channels"), config.get("sample_size")
    if not isinstance(size, list) or shape[1:] != size or (inside, config.get("out_channels")) != loss.channels(*shape[:1]):
        raise BadInput(f"{str(record_path)!r}: shape = {shape} does not fit the network's channels and sample_size; copy it again")
    network = unet(config, device="meta")
    weights = read_tensors(weights_path, record["sha256"], shapes_of(network))
    network.load_state_dict(weights, assign=True)
    network.requires_grad_(False).eval()
    embedded = config.get("num_class_embeds")
    return model_of(loss, network.to(device), shape, record, None if embedded is None else embedded - 1)
