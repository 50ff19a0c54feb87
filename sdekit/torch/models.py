"""Trained denoisers: those that come with the library, and those that ``train`` wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInput, unknown
from ..files import write_json
from .network import NetworkDenoiser, shapes_of, unet
from .storage import read_record, read_tensors, write_tensors

__all__ = ["FORMAT", "load", "names", "save"]

FORMAT = "sdekit.denoiser/1"
_SHIPPED = Path(__file__).parent / "weights"


def names() -> list[str]:
    """Names of the models that come with the library."""
    return sorted(path.stem for path in _SHIPPED.glob("*.json"))


def load(name: str | os.PathLike[str] = "digits", *, device: Any = None) -> NetworkDenoiser:
    """A trained denoiser.

    Parameters
    ----------
    name : str or path
        One of :func:`names`, or a folder with ``model.json`` and ``model.safetensors``, as :func:`sdekit.torch.train` writes it.
    device : optional
        Where it shall run; the CPU when absent.

    Returns
    -------
    NetworkDenoiser
        ``denoise(y, sigma)``; its ``record`` says what it was trained on and how.

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


def save(denoise: NetworkDenoiser, path: Path, config: Mapping[str, Any], **record: Any) -> None:
    """Write ``model.safetensors`` and, after it, ``model.json`` to a folder.

    Parameters
    ----------
    denoise : NetworkDenoiser
    path : Path
    config : mapping
        The network's configuration, see :func:`~sdekit.torch.network.unet_config`.
    **record
        What else to say, as JSON.
    """
    weights = denoise.network.state_dict()
    sha256 = write_tensors(path / "model.safetensors", weights)
    known = {"format": FORMAT, "shape": list(denoise.shape), "sigma_data": denoise.sigma_data, "network": dict(config)}
    count = sum(tensor.numel() for tensor in weights.values())
    write_json(path / "model.json", {**known, "parameters": count, "sha256": sha256, **record})


def _read(record_path: Path, weights_path: Path, device: Any) -> NetworkDenoiser:
    record = read_record(record_path, FORMAT, shape=list, sigma_data=float, network=dict, sha256=str)
    config = record["network"]
    channels, size = config.get("in_channels"), config.get("sample_size")
    if not isinstance(size, list) or record["shape"] != [channels, *size] or config.get("out_channels") != channels:
        raise BadInput(f"{str(record_path)!r}: shape = {record['shape']} does not fit the network's channels and sample_size; copy it again")
    network = unet(config, device="meta")
    weights = read_tensors(weights_path, record["sha256"], shapes_of(network))
    network.load_state_dict(weights, assign=True)
    network.requires_grad_(False).eval()
    return NetworkDenoiser(network, record["shape"], record["sigma_data"], record).to(device)
