r"""Addressed noise: every standard normal has an address and is a pure function of it.

An address is (seed, sample, stream, leg, step, slot, element).  It goes through the counter-based generator Philox 4x32-10 (Salmon et al.
2011) into 128 bits, and those into two normals by the Box-Muller transform in float64.  So a sample does not depend on the batch it was
drawn in, on its neighbours, on the order of draws or on the array library; changing one leg does not renumber the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._array import is_torch
from ._array import like as like_
from .errors import BadInput, unknown

Array = NDArray[np.float64]
Words = NDArray[np.uint64]

__all__ = [
    "CORRECTOR", "DATA", "METHOD", "MOVE", "PATH", "PRIOR", "Address", "Addressed", "Fast", "Noise", "as_ids", "as_noise", "lines_of", "philox",
]  # fmt: skip

PRIOR, METHOD, MOVE, CORRECTOR, PATH, DATA = range(6)
"""Streams: the start of a trajectory, method steps, noise-injecting moves, correctors, Brownian paths, draws from a law."""

_LIMITS = {"stream": 1 << 4, "leg": 1 << 20, "slot": 1 << 8, "step": 1 << 32}
_CHUNK = 1 << 14
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_BUMPS = 0x9E3779B9, 0xBB67AE85


class Address(NamedTuple):
    """Where in a trajectory a normal belongs; sample and element are added when it is drawn."""

    stream: int
    leg: int = 0
    step: int = 0
    slot: int = 0


class Noise(Protocol):
    """A source of standard normals."""

    def draw(self, addresses: Sequence[Address], ids: NDArray[np.int64], shape: tuple[int, ...], like: Any = None) -> Any:
        """Normals of shape (len(addresses), len(ids), *shape), in the library, dtype and device of ``like`` (NumPy float64 if None)."""
        ...


def philox(counter: Sequence[ArrayLike], key: tuple[int, int]) -> list[Words]:
    """Philox 4x32-10: four 32-bit counter words and two key words to four 32-bit words (all held in uint64).

    References
    ----------
    Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
    """
    a, b, c, d = (np.array(word, dtype=np.uint64) for word in np.broadcast_arrays(*counter))
    k0, k1 = key
    first, second = np.empty_like(a), np.empty_like(a)
    for _ in range(10):
        np.multiply(a, _MULTIPLIERS[0], out=first)
        np.multiply(c, _MULTIPLIERS[1], out=second)
        # (a, b, c, d) <- (hi(second) ^ b ^ k0, lo(second), hi(first) ^ d ^ k1, lo(first))
        np.right_shift(second, _SHIFT, out=a)
        np.bitwise_xor(a, b, out=a)
        np.bitwise_xor(a, np.uint64(k0), out=a)
        np.right_shift(first, _SHIFT, out=c)
        np.bitwise_xor(c, d, out=c)
        np.bitwise_xor(c, np.uint64(k1), out=c)
        np.bitwise_and(second, _LOW, out=b)
        np.bitwise_and(first, _LOW, out=d)
        k0, k1 = (k0 + _BUMPS[0]) & 0xFFFFFFFF, (k1 + _BUMPS[1]) & 0xFFFFFFFF
    return [a, b, c, d]


def _normals(words: Sequence[Words], out: Array) -> None:
    """Box-Muller on 53-bit uniforms; ``out`` has the words' shape and a last axis of 2."""
    a, b, c, d = words
    scale = 2.0**-53
    u = ((a >> np.uint64(5)) * np.uint64(1 << 26) + (b >> np.uint64(6))).astype(np.float64)
    v = ((c >> np.uint64(5)) * np.uint64(1 << 26) + (d >> np.uint64(6))).astype(np.float64)
    u += 1.0
    u *= scale
    np.log(u, out=u)
    u *= -2.0
    np.sqrt(u, out=u)
    v *= 2.0 * np.pi * scale
    out[..., 0] = u * np.cos(v)
    out[..., 1] = u * np.sin(v)


@dataclass(frozen=True)
class Addressed:
    """The default source: reproducible sample by sample, on every device and for every batch.

    Parameters
    ----------
    seed : int
        0 <= seed < 2^64.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not hasattr(self.seed, "__index__") or not 0 <= int(self.seed) < 1 << 64:
            raise BadInput(f"seed = {self.seed!r} must be an integer in [0, 2^64)")

    def draw(self, addresses: Sequence[Address], ids: NDArray[np.int64], shape: tuple[int, ...], like: Any = None) -> Any:
        """Normals of shape (len(addresses), len(ids), *shape)."""
        ids = as_ids(ids)
        size = int(np.prod(shape, dtype=np.int64))
        lines = lines_of(addresses)
        if is_torch(like) and like.device.type != "cpu":
            from .torch.random import normals

            return normals(int(self.seed), lines, ids, size, like).reshape(len(lines), len(ids), *shape)
        line, sample = np.divmod(np.arange(len(lines) * len(ids)), len(ids))
        return like_(self._at(lines[line], ids[sample], size).reshape(len(lines), len(ids), *shape), like)

    def words(self, addresses: Sequence[Address], steps: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Counter words (len(addresses) * len(ids), 3) of normals, sample ``i`` at ``steps[i]`` of each address instead of its own step."""
        own = np.repeat([_word(_checked(a)) for a in addresses], len(ids))
        return np.column_stack([np.tile(as_ids(ids), len(addresses)), own, np.tile(steps, len(addresses))]).astype(np.int64)

    def at(self, words: NDArray[np.int64], there: Any, size: int, like: Any = None) -> Any:
        """Normals (len(words), size) of :meth:`words`, which are ``there`` too, on the device of ``like``."""
        if is_torch(like) and like.device.type != "cpu":
            from .torch.random import normals_each

            return normals_each(int(self.seed), there, size, like)
        return like_(self._at(words[:, 1:].astype(np.uint64), words[:, 0], size), like)

    def _at(self, lines: Words, ids: NDArray[np.int64], size: int) -> Array:
        """Normals (len(ids), size): the two words of ``lines`` and the id of each row."""
        pairs = max(1, -(-size // 2))
        out = np.empty((len(ids), pairs, 2))
        key = int(self.seed) & 0xFFFFFFFF, int(self.seed) >> 32
        element = np.arange(pairs, dtype=np.uint64)
        tall, wide = max(1, _CHUNK // pairs), min(pairs, _CHUNK)
        for top in range(0, len(out), tall):
            where, who = lines[top : top + tall], ids[top : top + tall].astype(np.uint64)
            for left in range(0, pairs, wide):
                counter = [element[None, left : left + wide], who[:, None], where[:, :1], where[:, 1:]]
                _normals(philox(counter, key), out[top : top + tall, left : left + wide])
        return out.reshape(len(ids), 2 * pairs)[:, :size]


def lines_of(addresses: Sequence[Address]) -> Words:
    """The third and fourth counter word of each address, (m, 2).

    Raises
    ------
    BadInput
        For a part of an address beyond its range.
    """
    return np.array([(_word(a), a.step) for a in map(_checked, addresses)], np.uint64).reshape(-1, 2)


def _word(address: Address) -> int:
    return address.stream << 28 | address.leg << 8 | address.slot


def _checked(address: Address) -> Address:
    for name, limit in _LIMITS.items():
        if not 0 <= getattr(address, name) < limit:
            raise BadInput(f"{name} = {getattr(address, name)} of a noise address must lie in [0, {limit})")
    return address


def as_ids(ids: ArrayLike) -> NDArray[np.int64]:
    """Sample ids as an array.

    Raises
    ------
    BadInput
        Unless they are at least one whole number in [0, 2^32).
    """
    array = np.asarray(ids)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iu":
        raise BadInput(f"ids = {ids!r} must be a list of at least one whole number")
    if int(array.min()) < 0 or int(array.max()) >= 1 << 32:
        raise BadInput("sample ids must lie in [0, 2^32)")
    return array.astype(np.int64)


def as_noise(seed: Any) -> Noise:
    """``seed`` itself if it is a source of noise, else the addressed source with that seed."""
    made: Noise = seed if hasattr(seed, "draw") else Addressed(seed)
    return made


class Fast:
    """A library's own generator: another stream, faster, and *not* addressed.

    Results depend on the batch, the order of draws and the device.  Use it where only the law matters.

    Parameters
    ----------
    seed : int
    library : {"own", "torch"}
        That of the arrays, or torch's generator for NumPy arrays too, which is several times faster than NumPy's in float32.

    Raises
    ------
    BadInput
        For a seed outside [0, 2^64), or another library.
    """

    def __init__(self, seed: int = 0, library: str = "own") -> None:
        if library not in ("own", "torch"):
            raise unknown("library", library, ["own", "torch"])
        self.seed, self.library = Addressed(seed).seed, library
        self._generators: dict[str, Any] = {}

    def draw(self, addresses: Sequence[Address], ids: NDArray[np.int64], shape: tuple[int, ...], like: Any = None) -> Any:
        """Normals of shape (len(addresses), len(ids), *shape)."""
        full = (len(addresses), len(ids), *shape)
        single = like is not None and not is_torch(like) and like.dtype == np.float32
        if not is_torch(like) and self.library == "own":
            generator = self._generators.setdefault("numpy", np.random.default_rng(self.seed))
            return like_(generator.standard_normal(full, np.float32 if single else np.float64), like)
        import torch

        device = str(like.device) if is_torch(like) else "cpu"
        dtype = like.dtype if is_torch(like) else torch.float32 if single else torch.float64
        if device not in self._generators:
            self._generators[device] = torch.Generator(device=device).manual_seed(self.seed % (1 << 63))
        drawn = torch.randn(full, generator=self._generators[device], dtype=dtype, device=device)
        return drawn if is_torch(like) else like_(drawn.numpy(), like)
