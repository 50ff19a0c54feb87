"""Tensors and their records on disk: safetensors and JSON only, checked before use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInput, MissingExtra
from ..files import read_bytes, read_json, sha256, write_bytes

try:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes
    from safetensors.torch import save as to_bytes
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

__all__ = ["read_record", "read_tensors", "write_tensors"]


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write a safetensors file; returns its sha256."""
    return write_bytes(path, to_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def read_record(path: Path, kind: str, /, **entries: type) -> dict[str, Any]:
    """Read a JSON file of format ``kind`` that has ``entries`` of the given types.

    Raises
    ------
    BadInput
        If it is missing, not JSON, of another format, or lacks an entry.
    """
    if not path.is_file():
        raise BadInput(f"{str(path)!r} does not exist; give a folder that train() wrote")
    record = read_json(path, kind)
    for name, kept in entries.items():
        value = record.get(name)
        if not isinstance(value, kept) or isinstance(value, bool):
            raise BadInput(f"{str(path)!r}: entry {name!r} is {value!r}, not {kept.__name__}: it is damaged; copy it again, or train again")
    return record


def read_tensors(path: Path, checksum: str, shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> dict[str, torch.Tensor]:
    """Read a safetensors file, if it has that sha256 and just the tensors of ``shapes``: name to (shape, dtype).

    Raises
    ------
    BadInput
        If it is missing, truncated or changed, or holds other tensors.
    """
    data = read_bytes(path)
    found = sha256(data)
    if found != checksum:
        rule = f"has sha256 {found[:12]}..., its record says {checksum[:12]}..."
        raise BadInput(f"{str(path)!r} {rule}: truncated or changed; copy it again, or train again")
    try:
        tensors: dict[str, torch.Tensor] = from_bytes(data)
    except SafetensorError as error:
        raise BadInput(f"{str(path)!r} is not a safetensors file: {str(error).splitlines()[0]}; copy it again, or train again") from None
    for name in sorted(set(shapes) ^ set(tensors)):
        what = "lacks" if name in shapes else "holds an unexpected"
        raise BadInput(f"{str(path)!r} {what} tensor {name!r}: the network in its record is another one; use the record that was written with it")
    for name, (shape, dtype) in shapes.items():
        kept = tensors[name]
        if tuple(kept.shape) != tuple(shape) or kept.dtype != dtype:
            needs = f"the network in its record needs {dtype} {tuple(shape)}; use the record that was written with it"
            raise BadInput(f"{str(path)!r}: tensor {name!r} is {kept.dtype} {tuple(kept.shape)}, {needs}")
    return tensors
