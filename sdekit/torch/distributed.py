"""Several workers, one run: what ``torchrun -m sdekit sample ...`` starts.

``torchrun`` tells each worker its rank, and how many there are, by environment variables.  Samples are shared out by their ids, so nothing is
sent but one sum of statistics at the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import BadInput, MissingExtra
from ..runs import Alone, World

try:
    import torch
    import torch.distributed as dist
except ImportError:
    raise MissingExtra("several workers", "torch") from None

__all__ = ["Group", "local_device", "world"]


class Group:
    """The workers of a torch process group."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size, self.device = dist.get_rank(), dist.get_world_size(), device

    def barrier(self) -> None:
        """Wait until all workers are here."""
        dist.barrier()

    def total(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The sum over the workers, in float64: one all-reduce."""
        tensor = torch.from_numpy(np.array(values, float)).to(self.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()


def local_device(device: str | None = None) -> str | None:
    """``device``, where ``"cuda"`` becomes the GPU of this worker."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


@contextmanager
def world(device: str | None = None) -> Iterator[World]:
    """The workers that ``torchrun`` started, or this one alone.

    Parameters
    ----------
    device : str, optional
        ``"cuda"`` or ``"cuda:0"`` joins them by NCCL, everything else by gloo.

    Raises
    ------
    BadInput
        If the environment names a world that cannot be joined.

    Examples
    --------
    ``torchrun --nproc-per-node 8 -m sdekit sample psld --model digits --n 50000 --device cuda -o out/``
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        yield Alone()
        return
    gpu = (device or "").startswith("cuda")
    try:
        dist.init_process_group("nccl" if gpu else "gloo")
    except (ValueError, RuntimeError) as error:
        raise BadInput(f"WORLD_SIZE = {size!r}, but the workers cannot be joined: {error}; start them with torchrun") from None
    try:
        yield Group(torch.device(local_device(device) or "cpu"))
    finally:
        dist.destroy_process_group()
