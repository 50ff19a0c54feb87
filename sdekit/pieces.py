r"""Brownian paths in pieces, for steps that are tried, rejected and tried again; each sample with steps of its own.

The known future of a sample's path is a list of pieces, each with its length, its increment ``W`` and, where asked for, its area ``H``
(:mod:`sdekit.brownian`).  A step takes pieces from the front: one that sticks out is split by its exact conditional law, and past the end a fresh one
is drawn.  A rejected step leaves them all in the list, an accepted one removes what it took.  Pieces are never joined, so no bridge is ever drawn
from a law that forgets what is known.

Lengths and lists live on the host, increments and areas on the device, in a pool where a piece is a number: a step is planned with its numbers in a
:class:`~sdekit.staging.Load`, and made when that is there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._array import namespace
from .brownian import Cell, split
from .noise import PATH, Address, Noise
from .staging import Draw, Load, Part, Pool, Table

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

__all__ = ["Pieces", "Repeated"]

_NEAR = 1e-12  # a rest this small, relative to the step, is none
_UNITS = np.array([1.0, 12.0])  # the length of a piece over the variances of its increment and of its area


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
        self, noise: Noise, ids: Ints, shape: tuple[int, ...], channels: int, areas: bool, reference: Any, *, place: tuple[int, int] = (0, 0)
    ) -> None:
        self._noise, self._shape, self._reference = noise, shape, reference
        self._channels, self._kinds = channels, 2 if areas else 1
        self._addresses = [Address(PATH, place[0], 0, slot) for slot in range(self._kinds * channels)]
        self._first = place[1] << 20
        self.ids, self.draws = ids, np.full(len(ids), self._first)
        self._count = np.zeros(len(ids), np.int64)  # a stack: the next piece is number ``count - 1``
        self._lengths, self._cells = np.zeros((0, len(ids))), np.zeros((0, len(ids)), np.int64)
        self._pool = Pool((self._kinds, channels, *shape), reference)
        self._tried: _Tried | None = None

    def over(self, h: Array) -> list[Any]:
        """:meth:`plan` and :meth:`made` in one."""
        load = Load()
        self.plan(h, load)
        load.send(self._reference)
        return self.made()

    def plan(self, h: Array, load: Load) -> None:
        """Take the next ``h`` (n,) of each path."""
        done, whole, taken = np.zeros(len(h)), np.zeros(len(h), np.int64), []
        going = np.flatnonzero(self._count > 0)
        while len(going):
            place = self._count[going] - 1 - whole[going]
            length = self._lengths[place, going]
            fits = done[going] + length <= h[going] * (1.0 + _NEAR)
            going, place, length = going[fits], place[fits], length[fits]
            taken.append((going, self._cells[place, going], done[going], length))
            done[going] += length
            whole[going] += 1
            going = going[whole[going] < self._count[going]]
        rest = np.where(h - done > _NEAR * h, h - done, 0.0)
        new = np.flatnonzero(rest > 0.0)
        cut = self._count[new] > whole[new]
        place = self._count[new[cut]] - 1 - whole[new[cut]]
        old, right = np.zeros(len(new), np.int64), np.zeros(len(new))
        old[cut], right[cut] = self._cells[place, new[cut]], self._lengths[place, new[cut]] - rest[new[cut]]
        cells = self._pool.take(len(new))
        taken.append((new, cells, done[new], rest[new]))
        draw = Draw(self._noise, self._addresses, self.draws[new], self.ids[new], load)
        self.draws[new] += 1
        numbers, rows = _whole(h, taken, self._kinds)
        self._tried = _Tried(
            whole, new, cut, cells, rest[new], right, draw, load.add(cells), load.add(old),
            Table(_parts(rest[new], right, self._kinds), load), load.add(numbers), Table(rows, load),
        )  # fmt: skip

    def made(self) -> list[Any]:
        r"""Standard normals over the step: one array (n, *event) for each channel's increment, then each area.

        The increment is :math:`\sqrt h\,\xi_1`, the area ``H`` of the module :math:`\sqrt{h/12}\,\xi_2`.
        """
        tried, kinds, xp = self._tried, self._kinds, namespace(self._reference)
        assert tried is not None  # noqa: S101 (planned before)
        values = self._pool.values
        if len(tried.new):
            drawn = tried.draw.made(self._shape, self._reference)
            fresh = xp.moveaxis(drawn, 0, 1).reshape((len(tried.new), kinds, self._channels, *self._shape))
            before = values[tried.old.there]
            parts = tried.parts([*(before[:, i] for i in range(kinds)), *(fresh[:, i] for i in range(kinds))])
            values[tried.at.there] = xp.stack(parts[:kinds], axis=1)
            if np.any(tried.cut):  # those that are not write zeros to number 0
                values[tried.old.there] = xp.stack(parts[kinds:], axis=1)
        seen = [values[number] for number in tried.numbers.there]
        total = tried.total([piece[:, i] for piece in seen for i in range(kinds)])
        return [block[:, c] for block in total for c in range(self._channels)]

    def settle(self, accepted: Mask) -> None:
        """Remove what the last step took from the paths where it is accepted; keep it where it is not."""
        if self._tried is None:
            return
        whole, new, cut, cells, length, right = self._tried[:6]
        again = ~accepted[new]
        place = self._count[new] - whole[new]  # of the new piece, the others that the step took above it
        self._lengths[place[cut] - 1, new[cut]] = right[cut]
        if np.any(again):
            self._reserve(int(np.max(self._count + 1)))
        for k in range(int(np.max(whole[new][again], initial=0)), 0, -1):
            up = new[again & (whole[new] >= k)]
            to = self._count[up] - whole[up] + k
            self._cells[to, up], self._lengths[to, up] = self._cells[to - 1, up], self._lengths[to - 1, up]
        self._cells[place[again], new[again]], self._lengths[place[again], new[again]] = cells[again], length[again]
        self._pool.give(cells[~again])
        self._drop(np.where(accepted, whole, 0))
        self._count[new[again]] += 1
        self._tried = None

    def take(self, which: Ints) -> None:
        """Keep only these paths."""
        gone = np.ones(len(self.ids), bool)
        gone[which] = False
        self._drop(np.where(gone, self._count, 0))
        self.ids, self.draws, self._count = self.ids[which], self.draws[which], self._count[which]
        self._lengths, self._cells = self._lengths[:, which], self._cells[:, which]

    def add(self, ids: Ints) -> None:
        """More paths, at the end."""
        more = np.zeros(len(ids), np.int64)
        self.ids, self.draws, self._count = np.append(self.ids, ids), np.append(self.draws, more + self._first), np.append(self._count, more)
        self._lengths, self._cells = np.pad(self._lengths, ((0, 0), (0, len(ids)))), np.pad(self._cells, ((0, 0), (0, len(ids))))

    def _drop(self, counts: Ints) -> None:
        """Remove the next pieces of each path."""
        for k in range(1, int(np.max(counts, initial=0)) + 1):
            own = np.flatnonzero(counts >= k)
            self._pool.give(self._cells[self._count[own] - k, own])
        self._count = self._count - counts

    def _reserve(self, depth: int) -> None:
        more = max(0, depth - len(self._cells))
        self._lengths, self._cells = np.pad(self._lengths, ((0, more), (0, 0))), np.pad(self._cells, ((0, more), (0, 0)))


class _Tried(NamedTuple):
    """What a step took: pieces as they are (how many of each path), and a last one of its own for the paths ``new``.

    Where ``cut``, that is the first part of a piece, whose number the second part of length ``right`` keeps.
    """

    whole: Ints
    new: Ints
    cut: Mask
    cells: Ints
    length: Array
    right: Array
    draw: Draw
    at: Part
    old: Part
    parts: Table
    numbers: Part
    total: Table


def _whole(h: Array, taken: list[tuple[Ints, Ints, Array, Array]], kinds: int) -> tuple[Ints, Array]:
    r"""The pieces of each step, (m, n) with number 0 for none, and the rows (n, kinds, m kinds) that make its standard normals of theirs.

    Increments add; with :math:`e` the middle of a piece of length ``l`` in the step, :math:`h H = \sum l H_l + (h/2 - e) W_l`.
    """
    numbers, rows = np.zeros((len(taken), len(h)), np.int64), np.zeros((len(h), kinds, len(taken), kinds))
    for d, (who, cells, start, length) in enumerate(taken):
        numbers[d, who] = cells
        rows[who, 0, d, 0] = 1.0
        if kinds == 2:
            rows[who, 1, d, 0] = 0.5 - (start + 0.5 * length) / h[who]
            rows[who, 1, d, 1] = length / h[who]
    rows *= np.sqrt(_UNITS[:kinds] / h[:, None])[:, :, None, None]
    return numbers, rows.reshape(len(h), kinds, len(taken) * kinds)


def _parts(left: Array, right: Array, kinds: int) -> Array:
    """A piece of length ``left`` and its rest as rows of the piece they are cut from and of fresh normals, (n, 2 kinds, 2 kinds).

    Where ``right`` is 0 nothing is cut: the piece is fresh, and the rest 0.
    """
    made = np.zeros((len(left), 2 * kinds, 2 * kinds))
    for i in range(kinds):
        made[:, i, kinds + i] = np.sqrt(left / _UNITS[i])
    cut = right > 0.0
    l, r = left[cut, None], right[cut, None]  # noqa: E741
    unit = np.broadcast_to(np.eye(2 * kinds)[:, None], (2 * kinds, len(l), 2 * kinds))
    if kinds == 2:
        first, second = split(Cell(unit[0], unit[1]), l, r, unit[2:])
        made[cut] = np.stack([*first, *second], axis=1)
    else:
        part = l / (l + r) * unit[0] + np.sqrt(l * r / (l + r)) * unit[1]
        made[cut] = np.stack([part, unit[0] - part], axis=1)
    return made


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
        self, noise: Noise, ids: Ints, shape: tuple[int, ...], channels: int, areas: bool, reference: Any, *, retain: bool,
        place: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        self._noise, self._shape, self._reference, self._retain = noise, shape, reference, retain
        self._addresses = [Address(PATH, place[0], 0, slot) for slot in range((2 if areas else 1) * channels)]
        self._first = place[1] << 20
        self._pool = Pool((len(self._addresses), *shape), reference)
        self.ids, self.draws, self._fresh, self._at = ids[:0], ids[:0], np.zeros(0, bool), ids[:0]
        self.add(ids)

    def over(self, h: Array) -> list[Any]:
        """:meth:`plan` and :meth:`made` in one."""
        load = Load()
        self.plan(h, load)
        load.send(self._reference)
        return self.made()

    def plan(self, _: Array, load: Load) -> None:
        """The next attempt of each sample."""
        some = np.flatnonzero(self._fresh)
        self._tried = Draw(self._noise, self._addresses, self.draws[some], self.ids[some], load), load.add(self._at[some]), load.add(self._at)
        self.draws = self.draws + self._fresh

    def made(self) -> list[Any]:
        """Standard normals, one array (n, *event) for each channel's increment, then each area."""
        draw, fresh, at = self._tried
        values, xp = self._pool.values, namespace(self._reference)
        if len(fresh.host):
            values[fresh.there] = xp.moveaxis(draw.made(self._shape, self._reference), 0, 1)
        seen = values[at.there]
        return [seen[:, i] for i in range(len(self._addresses))]

    def settle(self, accepted: Mask) -> None:
        """Which attempts are over, so that the next has normals of its own."""
        self._fresh = accepted if self._retain else np.ones(len(accepted), bool)

    def take(self, which: Ints) -> None:
        """Keep only these samples."""
        self._pool.give(np.setdiff1d(self._at, self._at[which]))
        self.ids, self.draws, self._fresh, self._at = self.ids[which], self.draws[which], self._fresh[which], self._at[which]

    def add(self, ids: Ints) -> None:
        """More samples, at the end."""
        self.ids, self.draws = np.append(self.ids, ids), np.append(self.draws, np.full(len(ids), self._first))
        self._fresh, self._at = np.append(self._fresh, np.ones(len(ids), bool)), np.append(self._at, self._pool.take(len(ids)))
