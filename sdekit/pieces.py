r"""Brownian paths in pieces, for steps that are tried, rejected and tried again; each sample with steps of its own.

The known future of a sample's path is a list of pieces, each with its length, its increment ``W`` and, where asked for, its area ``H``
(:mod:`sdekit.brownian`).  A step takes pieces from the front: one that sticks out is split by its exact conditional law, and past the end a fresh one
is drawn.  A rejected step leaves them all in the list, an accepted one removes what it took.  Pieces are never joined, so no bridge is ever drawn
from a law that forgets what is known.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._array import like, namespace
from .brownian import Cell, join, split
from .noise import PATH, Address, Noise, draw_each

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Place = tuple[int, int]

__all__ = ["Coefficients", "Pieces", "Repeated"]

_NEAR = 1e-12  # a rest this small, relative to the step, is none


class Coefficients:
    """Rows for each sample, (n, o, r) on the host, applied to r registers (n, *event): one upload."""

    def __init__(self, rows: Array, reference: Any) -> None:
        self._used = np.any(rows != 0.0, axis=0)
        self._values = like(rows, reference)

    def __call__(self, registers: list[Any], first: int = 0, last: int | None = None) -> list[Any]:
        """``sum_j c_oj r_j`` for the rows from ``first`` to ``last``; coefficients of registers that are not there yet must be 0."""
        shape = (-1, *(1,) * (registers[0].ndim - 1))
        out = []
        for o in range(len(self._used))[first:last]:
            total: Any = None
            for r in np.flatnonzero(self._used[o]).tolist():
                term = self._values[:, o, r].reshape(shape) * registers[r]
                total = term if total is None else total + term
            out.append(0.0 * registers[0] if total is None else total)
        return out


class Pieces:
    """The future of ``n`` Brownian paths.

    Parameters
    ----------
    noise : Noise
    ids : int array (n,)
        Each sample's path is a function of its id and of the steps that were asked for, not of its neighbours.
    shape : tuple of int
        Shape of one datum.
    channels : int
        Columns of the noise.
    areas : bool
        Whether steps need areas beside increments.
    reference : array
        Carries library, dtype and device.
    place : (leg, step)
        Of the addresses: runs that must not share noise differ in it.  A step has room for 2^20 draws of a sample.
    """

    def __init__(
        self,
        noise: Noise,
        ids: NDArray[np.int64],
        shape: tuple[int, ...],
        channels: int,
        areas: bool,
        reference: Any,
        *,
        place: tuple[int, int] = (0, 0),
    ) -> None:
        self._noise, self._shape, self._reference = noise, shape, reference
        self._channels, self._kinds = channels, 2 if areas else 1
        self._addresses = [Address(PATH, place[0], 0, slot) for slot in range(self._kinds * channels)]
        self._first = place[1] << 20
        self.ids, self.draws = ids, np.full(len(ids), self._first)
        self._count, self._lengths = np.zeros(len(ids), np.int64), np.zeros((0, len(ids)))  # a stack: the next piece is number ``count - 1``
        self._cells: list[Any] = []
        self._pending: _Attempt | None = None

    def over(self, h: Array) -> list[Any]:
        r"""Standard normals over the next ``h`` (n,) of each path: one array (n, *event) for each channel's increment, then each area.

        The increment is :math:`\sqrt h\,\xi_1`, the area ``H`` of the module :math:`\sqrt{h/12}\,\xi_2`.
        """
        total, done, whole = self._zeros(len(h)), np.zeros(len(h)), np.zeros(len(h), np.int64)
        going = np.flatnonzero(self._count > 0)
        while len(going):
            place = self._count[going] - 1 - whole[going]
            length = self._lengths[place, going]
            fits = done[going] + length <= h[going] * (1.0 + _NEAR)
            going, place, length = going[fits], place[fits], length[fits]
            self._append(total, going, self._at(place, going), done, length)
            done[going] += length
            whole[going] += 1
            going = going[whole[going] < self._count[going]]
        rest = np.where(h - done > _NEAR * h, h - done, 0.0)
        new = np.flatnonzero(rest > 0.0)
        cut = self._count[new] > whole[new]
        pieces, right = self._new(new, cut, whole[new], rest[new])
        self._append(total, new, pieces, done, rest[new])
        self._pending = _Attempt(whole, new, cut, pieces, rest[new], right)
        scale = np.sqrt(np.array([1.0, 12.0][: self._kinds]) / h[:, None])
        return [total[:, i, c] * self._wide(scale[:, i])[:, 0, 0] for i in range(self._kinds) for c in range(self._channels)]

    def settle(self, accepted: Mask) -> None:
        """Remove what the last step took from the paths where it is accepted; keep it where it is not."""
        if self._pending is None:
            return
        whole, new, cut, pieces, length, right = self._pending
        again = ~accepted[new]
        place = self._count[new] - whole[new]  # of the new piece, the others that the step took above it
        self._reserve(int(np.max(self._count + 1, initial=0)) if np.any(again) else 0)
        for k in range(int(np.max(whole[new][again], initial=0)), 0, -1):
            up = new[again & (whole[new] >= k)]
            to = self._count[up] - whole[up] + k
            self._put(to, up, self._at(to - 1, up), self._lengths[to - 1, up])
        if right is not None:
            self._put(place[cut] - 1, new[cut], right, self._lengths[place[cut] - 1, new[cut]] - length[cut])
        if np.any(again):
            self._put(place[again], new[again], pieces[again], length[again])
        self._count[accepted] -= whole[accepted]
        self._count[new[again]] += 1
        self._pending = None

    def take(self, which: NDArray[np.int64]) -> None:
        """Keep only these paths."""
        self.ids, self.draws, self._count, self._lengths = self.ids[which], self.draws[which], self._count[which], self._lengths[:, which]
        self._cells = [cell[which] for cell in self._cells]

    def add(self, ids: NDArray[np.int64]) -> None:
        """More paths, at the end."""
        more, xp = np.zeros(len(ids), np.int64), namespace(self._reference)
        self.ids, self.draws, self._count = np.append(self.ids, ids), np.append(self.draws, more + self._first), np.append(self._count, more)
        self._lengths = np.pad(self._lengths, ((0, 0), (0, len(ids))))
        self._cells = [xp.concat([cell, self._zeros(len(ids))], axis=0) for cell in self._cells]

    # A batch of cells is an array (n, kinds, channels, *event); ``_cells[d]`` holds piece number d of each path.

    def _zeros(self, n: int) -> Any:
        return like(np.zeros((n, self._kinds, self._channels, *self._shape)), self._reference)

    def _wide(self, values: Array) -> Any:
        return like(values.reshape(-1, *(1,) * (2 + len(self._shape))), self._reference)

    def _reserve(self, depth: int) -> None:
        while len(self._cells) < depth:
            self._cells.append(self._zeros(len(self.ids)))
            self._lengths = np.pad(self._lengths, ((0, 1), (0, 0)))

    def _at(self, place: NDArray[np.int64], which: NDArray[np.int64]) -> Any:
        """Piece number ``place`` of each of the paths ``which``."""
        made = self._zeros(len(which))
        for d in np.unique(place).tolist():
            own = np.flatnonzero(place == d)
            made[own] = self._cells[d][which[own]]
        return made

    def _put(self, place: NDArray[np.int64], which: NDArray[np.int64], cells: Any, lengths: Array) -> None:
        for d in np.unique(place).tolist():
            own = np.flatnonzero(place == d)
            self._cells[d][which[own]] = cells[own]
        self._lengths[place, which] = lengths

    def _append(self, total: Any, which: NDArray[np.int64], cells: Any, done: Array, length: Array) -> None:
        """Join cells of these lengths to the end of what ``total`` has over ``done``."""
        if not len(which):
            return
        if self._kinds == 1:
            total[which] = total[which] + cells
            return
        left, right = self._wide(done[which])[:, 0], self._wide(length)[:, 0]
        before = total[which]
        made = join(Cell(before[:, 0], before[:, 1]), Cell(cells[:, 0], cells[:, 1]), left, right)
        total[which] = namespace(self._reference).stack(list(made), axis=1)

    def _new(self, which: NDArray[np.int64], cut: Mask, whole: NDArray[np.int64], rest: Array) -> tuple[Any, Any]:
        """The last piece of the step, of length ``rest``: fresh, or the first part of one that is cut; and the second parts."""
        normals = self._drawn(which)
        scale = np.sqrt(rest[:, None] / np.array([1.0, 12.0][: self._kinds]))
        made = normals * like(scale.reshape(*scale.shape, *(1,) * (1 + len(self._shape))), self._reference)
        if not np.any(cut):
            return made, None
        place = self._count[which[cut]] - 1 - whole[cut]
        old = self._at(place, which[cut])
        left, right = rest[cut], self._lengths[place, which[cut]] - rest[cut]
        rows = Coefficients(_halves(left, right, self._kinds), self._reference)
        kinds, xp = self._kinds, namespace(self._reference)
        parts = rows([*(old[:, i] for i in range(kinds)), *(normals[cut][:, i] for i in range(kinds))])
        made[cut] = xp.stack(parts[:kinds], axis=1)
        return made, xp.stack(parts[kinds:], axis=1)

    def _drawn(self, which: NDArray[np.int64]) -> Any:
        """The next normals of these paths: (m, kinds, channels, *event)."""
        drawn = draw_each(self._noise, self._addresses, self.draws[which], self.ids[which], self._shape, self._reference) if len(which) else None
        self.draws[which] += 1
        if drawn is None:
            return self._zeros(0)
        return namespace(self._reference).moveaxis(drawn, 0, 1).reshape(len(which), self._kinds, self._channels, *self._shape)


class _Attempt(NamedTuple):
    """What a step took: pieces as they are (how many of each path), and a last one of its own for the paths ``new``.

    Where ``cut``, that is the first part of a piece whose second part is in ``right``.
    """

    whole: NDArray[np.int64]
    new: NDArray[np.int64]
    cut: Mask
    pieces: Any
    length: Array
    right: Any


def _halves(left: Array, right: Array, kinds: int) -> Array:
    """First and second part of a piece as rows of the piece and fresh normals, (n, 2 kinds, 2 kinds)."""
    unit = np.broadcast_to(np.eye(2 * kinds)[:, None], (2 * kinds, len(left), 2 * kinds))
    left, right = left[:, None], right[:, None]
    if kinds == 2:
        first, second = split(Cell(unit[0], unit[1]), left, right, unit[2:])
        return np.stack([*first, *second], axis=1)
    part = left / (left + right) * unit[0] + np.sqrt(left * right / (left + right)) * unit[1]
    return np.stack([part, unit[0] - part], axis=1)


class Repeated:
    """Normals that do not follow a path: fresh ones for each attempt, or after a rejection the same again.  Both give a wrong law.

    Parameters
    ----------
    noise, ids, shape, channels, areas, reference, place
        As for :class:`Pieces`.
    retain : bool
        Whether a rejected step's normals serve the next attempt, scaled to its length.
    """

    def __init__(
        self,
        noise: Noise,
        ids: NDArray[np.int64],
        shape: tuple[int, ...],
        channels: int,
        areas: bool,
        reference: Any,
        *,
        retain: bool,
        place: tuple[int, int] = (0, 0),
    ) -> None:
        self._noise, self._shape, self._reference, self._retain = noise, shape, reference, retain
        self._addresses = [Address(PATH, place[0], 0, slot) for slot in range((2 if areas else 1) * channels)]
        self._first = place[1] << 20
        self.ids, self.draws, self._fresh = ids, np.full(len(ids), self._first), np.ones(len(ids), bool)
        self._last: Any = None

    def over(self, _: Array) -> list[Any]:
        """Standard normals, one array (n, *event) for each channel's increment, then each area."""
        if self._last is None or np.all(self._fresh):
            self._last = draw_each(self._noise, self._addresses, self.draws, self.ids, self._shape, self._reference)
        elif np.any(self._fresh):
            some = np.flatnonzero(self._fresh)
            self._last[:, some] = draw_each(self._noise, self._addresses, self.draws[some], self.ids[some], self._shape, self._reference)
        self.draws = self.draws + self._fresh
        return list(self._last)

    def settle(self, accepted: Mask) -> None:
        """Which attempts are over, so that the next has normals of its own."""
        self._fresh = accepted if self._retain else np.ones(len(accepted), bool)

    def take(self, which: NDArray[np.int64]) -> None:
        """Keep only these samples."""
        self.ids, self.draws, self._fresh = self.ids[which], self.draws[which], self._fresh[which]
        self._last = None if self._last is None else self._last[:, which]

    def add(self, ids: NDArray[np.int64]) -> None:
        """More samples, at the end."""
        self.ids, self.draws = np.append(self.ids, ids), np.append(self.draws, np.full(len(ids), self._first))
        self._fresh = np.append(self._fresh, np.ones(len(ids), bool))
        if self._last is not None:
            xp, more = namespace(self._reference), like(np.zeros((len(self._addresses), len(ids), *self._shape)), self._reference)
            self._last = xp.concat([self._last, more], axis=1)
