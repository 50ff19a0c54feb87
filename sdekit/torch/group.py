"""Several devices, one process each, started by ``torchrun`` or ``accelerate launch``: the same gradient as one device on the joint batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import BadInput, MissingExtra

try:
    import torch
    import torch.distributed as dist
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

__all__ = ["Group", "joined"]


@dataclass(frozen=True)
class Group:
    """The processes that train together: this one's number, and how many there are."""

    rank: int = 0
    size: int = 1

    def share(self, batch: int) -> slice:
        """This process's part of a batch.

        Raises
        ------
        BadInput
            If the batch does not divide evenly.
        """
        if batch % self.size:
            raise BadInput(f"batch = {batch} must be a multiple of {self.size}, the number of processes")
        return slice(self.rank * batch // self.size, (self.rank + 1) * batch // self.size)

    def mean(self, tensors: list[torch.Tensor]) -> None:
        """Replace tensors by their means over the processes, all in one message."""
        if self.size == 1:
            return
        joint = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(joint)
        joint /= self.size
        for tensor, part in zip(tensors, torch.split(joint, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.reshape(tensor.shape))

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(device: Any) -> Iterator[Group]:
    """The group that the launcher started this process in; a group of one without a launcher.

    A group that was made before is used as it is.  Else ``RANK``, ``WORLD_SIZE`` and the like are taken from the environment, with NCCL on CUDA
    devices (each process its own, by ``LOCAL_RANK``) and Gloo otherwise.
    """
    if dist.is_available() and dist.is_initialized():
        yield Group(dist.get_rank(), dist.get_world_size())
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        on_cuda = torch.device(device).type == "cuda"
        if on_cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if on_cuda else "gloo")
        try:
            yield Group(dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()
    else:
        yield Group()
