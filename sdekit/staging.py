"""What one round of an adaptive run needs on its device: planned on the host, sent as one block, read there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._array import like, namespace, sent, to_host, zeros
from .noise import Address, Addressed, Fast, Noise

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

__all__ = ["Draw", "Load", "Part", "Pool", "Table"]


class Part:
    """One array of a load: ``host`` at once, ``there`` when the load is sent."""

    def __init__(self, host: NDArray[Any]) -> None:
        self.host = host
        self.there: Any = None


class Load:
    """Arrays of floats, whole numbers and truth values that go to a device together, in one copy."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def add(self, host: NDArray[Any]) -> Part:
        """Put an array in."""
        self._parts.append(Part(host))
        return self._parts[-1]

    def told(self, model: Any, levels: Array) -> list[Part]:
        """Put in what a call is told: levels, and what the model makes of them on the host, see :class:`~sdekit.denoiser.Denoiser`."""
        more = getattr(model, "told", None)
        return [self.add(levels), *(map(self.add, more(levels)) if more is not None and len(levels) else ())]

    def send(self, reference: Any) -> None:
        """Send all of them to the library and device of ``reference``; floats take its dtype."""
        for part, there in zip(self._parts, sent([part.host for part in self._parts], reference), strict=True):
            part.there = there


class Table:
    """Rows for each sample, (n, o, r), to be applied to r registers (n, *event)."""

    def __init__(self, rows: Array, load: Load) -> None:
        self._used = np.any(rows != 0.0, axis=0)
        self._values = load.add(rows)

    def __call__(self, registers: Sequence[Any], first: int = 0, last: int | None = None) -> list[Any]:
        """``sum_j c_oj r_j`` for the rows from ``first`` to ``last``; coefficients of registers that are not there yet must be 0."""
        values, shape = self._values.there, (-1, *(1,) * (registers[0].ndim - 1))
        out = []
        for o in range(len(self._used))[first:last]:
            total: Any = None
            for r in np.flatnonzero(self._used[o]).tolist():
                term = values[:, o, r].reshape(shape) * registers[r]
                total = term if total is None else total + term
            out.append(0.0 * registers[0] if total is None else total)
        return out


class Draw:
    """Normals (len(addresses), len(ids), *shape), sample ``i`` at ``steps[i]`` of each address: planned now, made when the load is there.

    Addressed noise needs a few words for each sample, which travel with the load; another source draws as it does.
    """

    def __init__(self, noise: Noise, addresses: Sequence[Address], steps: Ints, ids: Ints, load: Load) -> None:
        self._noise, self._addresses, self._steps, self._ids = noise, addresses, steps, ids
        self._words = load.add(noise.words(addresses, steps, ids)) if isinstance(noise, Addressed) and len(ids) else None

    def made(self, shape: tuple[int, ...], reference: Any) -> Any:
        """The normals, like ``reference``."""
        noise, full = self._noise, (len(self._addresses), len(self._ids), *shape)
        if not len(self._ids):
            return zeros(full, reference)
        if self._words is not None and isinstance(noise, Addressed):
            return noise.at(self._words.host, self._words.there, int(np.prod(shape, dtype=np.int64)), reference).reshape(full)
        if isinstance(noise, Fast):
            return noise.draw(self._addresses, self._ids, shape, reference)
        made = np.empty(full)
        for step in np.unique(self._steps):
            own = np.flatnonzero(self._steps == step)
            made[:, own] = to_host(noise.draw([a._replace(step=int(step)) for a in self._addresses], self._ids[own], shape))
        return like(made, reference)


class Pool:
    """Numbered arrays of one shape on a device; number 0 is zero and stays it."""

    def __init__(self, shape: tuple[int, ...], reference: Any) -> None:
        self.values = zeros((1, *shape), reference)
        self._free = np.zeros(0, np.int64)

    def take(self, count: int) -> Ints:
        """Numbers that nobody has."""
        size = len(self.values)
        if count > len(self._free):
            more = max(size, count - len(self._free))
            xp = namespace(self.values)
            self.values = xp.concat([self.values, zeros((more, *self.values.shape[1:]), self.values)], axis=0)
            self._free = np.concatenate([np.arange(size, size + more), self._free])
        taken, self._free = self._free[:count], self._free[count:]
        return taken

    def give(self, numbers: Ints) -> None:
        """Numbers that are free again."""
        self._free = np.concatenate([self._free, numbers])
