"""A training step shared by several workers: the same gradient as one worker's on the joint batch."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import BadInput, MissingExtra
from ..runs import World

try:
    import torch
    import torch.distributed as dist
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

__all__ = ["mean_over", "share"]


def share(batch: int, workers: World) -> slice:
    """This worker's part of a batch.

    Raises
    ------
    BadInput
        If the batch does not divide evenly.
    """
    if batch % workers.size:
        raise BadInput(f"batch = {batch} must be a multiple of {workers.size}, the number of workers")
    return slice(workers.rank * batch // workers.size, (workers.rank + 1) * batch // workers.size)


def mean_over(workers: World, tensors: Sequence[torch.Tensor]) -> None:
    """Replace tensors by their means over the workers, all in one message."""
    if workers.size == 1:
        return
    joint = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(joint)
    joint /= workers.size
    for tensor, part in zip(tensors, torch.split(joint, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.reshape(tensor.shape))
