r"""Addressed normals made on the device: the same integers as :mod:`sdekit.noise` makes on the host, and normals within rounding of them.

Words of 32 bits are held in int64.  A product of two of them wraps around at :math:`2^{64}`, which keeps its low word, and its high word is what an
arithmetic shift leaves under a mask.  No value comes back to the host, and uploads are asynchronous.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .._array import upload

import torch  # isort: skip

__all__ = ["normals", "normals_each", "philox"]

_LOW = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_BUMPS = 0x9E3779B9, 0xBB67AE85
_CHUNK = 1 << 24  # normals made at once: bounds the memory of the words


def philox(counter: Sequence[torch.Tensor], key: tuple[int, int]) -> list[torch.Tensor]:
    """Philox 4x32-10 on int64 tensors that hold 32-bit words; the shapes of the counter words broadcast."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a = ((second >> 32) & _LOW) ^ b ^ k0
        c = ((first >> 32) & _LOW) ^ d ^ k1
        b, d = second & _LOW, first & _LOW
        k0, k1 = (k0 + _BUMPS[0]) & _LOW, (k1 + _BUMPS[1]) & _LOW
    return [a, b, c, d]


def normals(seed: int, lines: NDArray[np.uint64], ids: NDArray[np.int64], size: int, reference: torch.Tensor) -> torch.Tensor:
    """Normals of shape (len(lines), len(ids), size) in the type and on the device of ``reference``.

    Parameters
    ----------
    seed : int
    lines : array (m, 2)
        The third and fourth counter word of each address, see :mod:`sdekit.noise`.
    ids : array (n,)
    size : int
        Elements of one datum.
    reference : Tensor
    """
    key, pairs = (seed & _LOW, seed >> 32), max(1, -(-size // 2))
    words, who = upload(lines.astype(np.int64), reference.device), upload(ids.astype(np.int64), reference.device)
    element = torch.arange(pairs, device=reference.device)
    out = torch.empty((len(lines), len(ids), pairs, 2), dtype=reference.dtype, device=reference.device)
    tall = max(1, _CHUNK // max(1, 2 * pairs * len(ids)))
    for top in range(0, len(lines), tall):
        where = words[top : top + tall, :, None, None]
        _box_muller(philox([element, who[:, None], where[:, 0], where[:, 1]], key), out[top : top + tall])
    return out.reshape(len(lines), len(ids), 2 * pairs)[..., :size]


def normals_each(seed: int, words: torch.Tensor, size: int, reference: torch.Tensor) -> torch.Tensor:
    """Normals of shape (len(words), size), each row at an address and a sample of its own.

    Parameters
    ----------
    seed, size, reference
        As for :func:`normals`.
    words : int64 tensor (n, 3)
        On the device: sample, third and fourth counter word of each row, see :meth:`sdekit.noise.Addressed.words`.
    """
    key, pairs = (seed & _LOW, seed >> 32), max(1, -(-size // 2))
    element = torch.arange(pairs, device=reference.device)
    out = torch.empty((len(words), pairs, 2), dtype=reference.dtype, device=reference.device)
    tall = max(1, _CHUNK // (2 * pairs))
    for top in range(0, len(words), tall):
        who, first, second = words[top : top + tall, :, None].unbind(1)
        _box_muller(philox([element, who, first, second], key), out[top : top + tall])
    return out.reshape(len(words), 2 * pairs)[:, :size]


def _box_muller(words: Sequence[torch.Tensor], out: torch.Tensor) -> None:
    a, b, c, d = words
    u = ((a >> 5) * (1 << 26) + (b >> 6) + 1).to(torch.float64) * 2.0**-53
    v = ((c >> 5) * (1 << 26) + (d >> 6)).to(torch.float64) * (2.0 * np.pi * 2.0**-53)
    radius = (-2.0 * u.log()).sqrt()
    out[..., 0] = radius * v.cos()
    out[..., 1] = radius * v.sin()
