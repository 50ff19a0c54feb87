r"""Addressed normals made on the device: the same integers as :mod:`sdekit.noise` makes on the host, and normals within rounding of them.

Words of 32 bits are held in int64.  Their product with a multiplier :math:`M` is made with :math:`M - 2^{32}`, which is below :math:`2^{30}` in
size, so that nothing overflows: with :math:`p = a (M - 2^{32})`, the low word of :math:`a M` is that of :math:`p`, the high word
:math:`a + \lfloor p / 2^{32} \rfloor`.  No value comes back to the host, and uploads are asynchronous.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._array import upload

import torch  # isort: skip

__all__ = ["normal_of_each", "normals", "normals_each", "philox"]

_LOW = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53 - (1 << 32), 0xCD9E8D57 - (1 << 32)
_BUMPS = 0x9E3779B9, 0xBB67AE85
_TURN = 2.0 * np.pi * 2.0**-53
_CHUNK = 1 << 24  # normals made at once: bounds the memory of the words


def philox(counter: Sequence[torch.Tensor], key: tuple[Any, Any]) -> list[torch.Tensor]:
    """Philox 4x32-10 on int64 tensors that hold 32-bit words; the shapes of the counter words, and of the key's if they are tensors, broadcast."""
    a, b, c, d = counter
    for i in range(10):
        k0, k1 = ((word + (i * bump & _LOW)) & _LOW for word, bump in zip(key, _BUMPS, strict=True))
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, c = (c + (second >> 32)) ^ b ^ k0, (a + (first >> 32)) ^ d ^ k1
        b, d = second & _LOW, first & _LOW
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


def normal_of_each(words: torch.Tensor, key: torch.Tensor, ids: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Normals (len(ids), *shape) in float64 at one address, each made by itself from its own place: what a kernel can do in registers.

    Two neighbours share their words, and each makes them again.  The second of a pair is the sine of an angle; here it is the cosine of a quarter
    turn less, which is exact in the integers, so that there is one cosine for both.

    Parameters
    ----------
    words, key : int64 tensors (2,)
        Third and fourth counter word, and the seed's two words, low first.
    ids : int64 tensor (n,)
    shape : sequence of int
    """
    size = math.prod(shape)
    place = torch.arange(len(ids) * size, device=ids.device)
    element = place % size
    first, turn = _uniforms(philox([element // 2, ids[place // size], words[0], words[1]], (key[0], key[1])))
    return (_radius(first) * ((turn - (element % 2) * (1 << 51)).to(torch.float64) * _TURN).cos()).reshape(len(ids), *shape)


def _uniforms(words: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Two integers of 53 bits."""
    a, b, c, d = words
    return (a >> 5) * (1 << 26) + (b >> 6), (c >> 5) * (1 << 26) + (d >> 6)


def _radius(whole: torch.Tensor) -> torch.Tensor:
    return (-2.0 * ((whole + 1).to(torch.float64) * 2.0**-53).log()).sqrt()


def _box_muller(words: Sequence[torch.Tensor], out: torch.Tensor) -> None:
    first, turn = _uniforms(words)
    radius, angle = _radius(first), turn.to(torch.float64) * _TURN
    out[..., 0] = radius * angle.cos()
    out[..., 1] = radius * angle.sin()
