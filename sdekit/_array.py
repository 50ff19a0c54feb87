"""The only file that knows which array library an array belongs to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BadInput

__all__ = ["dtype_of", "is_torch", "like", "namespace", "sent", "statuses", "to_host", "unwatched", "upload", "zeros"]


def is_torch(x: Any) -> bool:
    """Whether ``x`` is a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def namespace(x: Any) -> Any:
    """The array-API namespace of ``x``."""
    if isinstance(x, np.ndarray | np.generic | float | int):
        return np
    from array_api_compat import array_namespace

    return array_namespace(x)


def like(host: NDArray[Any], reference: Any) -> Any:
    """``host`` in the library, dtype and device of ``reference`` (unchanged if that is None)."""
    if reference is None:
        return host
    if is_torch(reference):
        return upload(host, reference.device).to(reference.dtype)
    return host.astype(reference.dtype, copy=False)


def upload(host: NDArray[Any], device: Any) -> Any:
    """``host`` as a tensor on a device; the host does not wait for the copy."""
    import torch

    made = torch.from_numpy(np.array(host))
    return made if device.type == "cpu" else made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


def sent(parts: Sequence[NDArray[Any]], reference: Any) -> list[Any]:
    """Host arrays in the library and on the device of ``reference``: floats in its dtype, integers and truth values as they are; one copy."""
    if not is_torch(reference):
        return [part.astype(reference.dtype, copy=False) if part.dtype.kind == "f" else part for part in parts]
    import torch

    if not parts:
        return []
    kinds = [part.dtype.kind for part in parts]
    flat = [np.ravel(np.asarray(part, np.float64)).view(np.int64) if kind == "f" else np.ravel(part) for kind, part in zip(kinds, parts, strict=True)]
    pieces = upload(np.concatenate(flat, dtype=np.int64, casting="unsafe"), reference.device).split([part.size for part in parts])
    made = [
        piece.view(torch.float64).to(reference.dtype) if kind == "f" else piece != 0 if kind == "b" else piece
        for kind, piece in zip(kinds, pieces, strict=True)
    ]
    return [piece.reshape(part.shape) for piece, part in zip(made, parts, strict=True)]


def zeros(shape: tuple[int, ...], reference: Any) -> Any:
    """Zeros in the library, dtype and device of ``reference``, made there."""
    if is_torch(reference):
        return reference.new_zeros(shape)
    return np.zeros(shape, reference.dtype)


def to_host(x: Any) -> NDArray[Any]:
    """``x`` as a NumPy array: a copy from a device if need be, so never inside a trajectory."""
    return np.asarray(x.detach().cpu().numpy()) if is_torch(x) else np.asarray(x)


def dtype_of(dtype: Any, device: Any, model: Any) -> Any:
    """An empty array that carries library, dtype and device for a run.

    torch is chosen if ``device`` is given, ``dtype`` is a torch dtype, or the model says that it lives on a torch ``device``.
    """
    torch = sys.modules.get("torch")
    device = getattr(model, "device", None) if device is None else device
    dtype = getattr(model, "dtype", None) if dtype is None else dtype
    if device is None and not (torch is not None and isinstance(dtype, torch.dtype)):
        return np.empty(0, _floating(np.float64 if dtype is None else dtype))
    import torch as library

    if not isinstance(dtype, library.dtype):
        dtype = getattr(library, _floating(np.float64 if dtype is None else dtype).name)
    if not dtype.is_floating_point:
        raise BadInput(f"dtype = {dtype} must be a floating type, such as float32 or float64")
    return library.empty(0, dtype=dtype, device="cpu" if device is None else device)


def _floating(dtype: Any) -> np.dtype[Any]:
    try:
        made: np.dtype[Any] | None = np.dtype(dtype)
    except TypeError:
        made = None
    if made is None or made.kind != "f":
        raise BadInput(f"dtype = {dtype!r} must be a floating type, such as float32 or float64")
    return made


def statuses(blocks: list[Any]) -> list[str]:
    """For blocks of shape (n, *event): "ok" for the samples that are finite everywhere, else "nonfinite"; one transfer from a device."""
    xp = namespace(blocks[0])
    good = None
    for block in blocks:
        flat = xp.isfinite(block.reshape((block.shape[0], -1)))
        row = xp.all(flat, axis=1) if not is_torch(block) else flat.all(dim=1)
        good = row if good is None else good & row
    return list(np.where(to_host(good), "ok", "nonfinite").tolist())


class unwatched:
    """Context without gradient recording, where torch is in use."""

    def __init__(self, reference: Any) -> None:
        self._context: Any = sys.modules["torch"].no_grad() if is_torch(reference) else None

    def __enter__(self) -> None:
        if self._context is not None:
            self._context.__enter__()

    def __exit__(self, *details: Any) -> None:
        if self._context is not None:
            self._context.__exit__(*details)
