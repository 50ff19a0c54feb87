r"""Brownian paths in pieces, for steps that are tried, rejected and tried again; each sample with steps of its own.

The known future of a sample's path is a list of pieces, each with its length and the functionals of the path that its law is of
(:mod:`sdekit.increments`).  A step takes pieces from the front: one that sticks out is cut by its exact conditional law, and past the end a fresh one
is drawn.  A rejected step leaves them all in the list, an accepted one removes what it took.  Pieces are never joined, so no bridge is ever drawn
from a law that forgets what is known.

Lengths and lists live on the host, the numbers of pieces on the device, in a pool where each has its place: a step is planned with a
:class:`~sdekit.staging.Load`, and made when that is there.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._array import namespace
from .increments import Law, Segment, Taken
from .noise import PATH, Address, Noise
from .staging import Draw, Load, Part, Pool, Table

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

__all__ = ["Pieces", "Repeated"]

_NEAR = 1e-12  # a rest this small, relative to the step, is none
_ROUNDING = 1e-15  # nor is one that times do not resolve


class Pieces:
    """The future of ``n`` Brownian paths.

    Parameters
    ----------
    noise : Noise
    ids : int array (n,)
        Each sample's path is a function of its id and of the steps that were asked for, not of its neighbours.
    shape : tuple of int
        Shape of one datum.
    law : Law
        What steps need of the path.
    reference : array
        Carries library, dtype and device.
    place : (leg, step)
        Of the addresses: runs that must not share noise differ in it.  A step has room for 2^20 draws of a sample.
    """

    def __init__(self, noise: Noise, ids: Ints, shape: tuple[int, ...], law: Law, reference: Any, *, place: tuple[int, int] = (0, 0)) -> None:
        self._noise, self._shape, self._law, self._reference = noise, shape, law, reference
        self._addresses = [Address(PATH, place[0], 0, slot) for slot in range(law.kinds * law.channels)]
        self._first = place[1] << 20
        self.ids, self.draws = ids, np.full(len(ids), self._first)
        self._count = np.zeros(len(ids), np.int64)  # a stack: the next piece is number ``count - 1``
        self._lengths, self._cells = np.zeros((0, len(ids))), np.zeros((0, len(ids)), np.int64)
        self._pool = Pool((law.kinds, law.channels, *shape), reference)
        self._used, self._tried = self._count, list[_Made]()

    def over(self, h: Array) -> list[Any]:
        """:meth:`plan` of one segment of length ``h`` (n,), and :meth:`made`."""
        load = Load()
        self.plan(np.stack([0.0 * h, -h]), load)
        load.send(self._reference)
        return self.made()

    def plan(self, nodes: Array, load: Load) -> None:
        """Take the next steps of each path, each in the segments between its decreasing times ``nodes`` (m + 1, n)."""
        self._used = np.zeros(nodes.shape[1], np.int64)
        reached = [self._reach(t, t - s, load) for t, s in pairwise(nodes)]
        tables = self._law.rows([segment for segment, _ in reached])
        self._tried = [
            _Made(bool(np.any(segment.right > 0.0)), *parts, _numbers(segment, load), Table(pieces, load), Table(total, load))
            for (segment, parts), (pieces, total) in zip(reached, tables, strict=True)
        ]

    def _reach(self, t: Array, h: Array, load: Load) -> tuple[Segment, tuple[Draw, Part, Part]]:
        """Take what is next over ``h``: pieces as they are, then one that is cut or drawn, so that the list has an end of a piece there."""
        done, taken, used = np.zeros(len(h)), list[Taken](), self._used
        going = np.flatnonzero(self._count > used)
        while len(going):
            place = self._count[going] - 1 - used[going]
            length = self._lengths[place, going]
            fits = done[going] + length <= h[going] * (1.0 + _NEAR) + _ROUNDING * t[going]
            going, place, length = going[fits], place[fits], length[fits]
            taken.append(Taken(going, self._cells[place, going], done[going], length))
            done[going] += length
            used[going] += 1
            going = going[used[going] < self._count[going]]
        new = np.flatnonzero(h - done > _NEAR * h + _ROUNDING * t)
        left, at = (h - done)[new], self._count[new] - used[new]  # the new piece comes to stand above the others left
        cut = at > 0
        old, right = np.zeros(len(new), np.int64), np.zeros(len(new))
        old[cut] = self._cells[at[cut] - 1, new[cut]]
        right[cut] = self._lengths[at[cut] - 1, new[cut]] - left[cut]
        self._lengths[at[cut] - 1, new[cut]] = right[cut]
        cells = self._pool.take(len(new))
        taken.append(Taken(new, cells, done[new], left))
        self._insert(new, at, cells, left)
        used[new] += 1
        draw = Draw(self._noise, self._addresses, self.draws[new], self.ids[new], load)
        self.draws[new] += 1
        return Segment(t, h, taken, left, right), (draw, load.add(cells), load.add(old))

    def _insert(self, which: Ints, at: Ints, cells: Ints, lengths: Array) -> None:
        """Put a piece at place ``at`` of each list, under those above."""
        more = max(0, int(np.max(self._count[which] + 1, initial=0)) - len(self._cells))
        self._lengths, self._cells = np.pad(self._lengths, ((0, more), (0, 0))), np.pad(self._cells, ((0, more), (0, 0)))
        above = self._count[which] - at
        for k in range(1, int(np.max(above, initial=0)) + 1):
            up = which[above >= k]
            to = self._count[up] - k + 1
            self._cells[to, up], self._lengths[to, up] = self._cells[to - 1, up], self._lengths[to - 1, up]
        self._cells[at, which], self._lengths[at, which] = cells, lengths
        self._count[which] += 1

    def made(self) -> list[Any]:
        """Standard normals, arrays (n, *event): for each segment those of each kind, channel by channel."""
        return [block for segment in self._tried for block in self._segment(segment)]

    def _segment(self, segment: _Made) -> list[Any]:
        law, xp, values, n = self._law, namespace(self._reference), self._pool.values, len(segment.at.host)
        if n:
            drawn = segment.draw.made(self._shape, self._reference)
            fresh = xp.moveaxis(drawn, 0, 1).reshape((n, law.kinds, law.channels, *self._shape))
            before = values[segment.old.there]
            parts = segment.parts([*(before[:, i] for i in range(law.kinds)), *(fresh[:, i] for i in range(law.kinds))])
            values[segment.at.there] = xp.stack(parts[: law.kinds], axis=1)
            if segment.cut:  # those that are not write zeros to number 0
                values[segment.old.there] = xp.stack(parts[law.kinds :], axis=1)
        seen = [values[number] for number in segment.numbers.there]
        total = segment.total([piece[:, i] for piece in seen for i in range(law.kinds)])
        return [block[:, c] for block in total for c in range(law.channels)]

    def settle(self, accepted: Mask) -> None:
        """Remove what the last step took from the paths where it is accepted; keep it where it is not."""
        self._drop(np.where(accepted, self._used, 0))
        self._used, self._tried = np.zeros(len(accepted), np.int64), []

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


class _Made(NamedTuple):
    """How the new pieces of a segment are made, and its normals of which pieces."""

    cut: bool
    draw: Draw
    at: Part
    old: Part
    numbers: Part
    parts: Table
    total: Table


def _numbers(segment: Segment, load: Load) -> Part:
    """The pieces of each path (len(taken), n), with number 0 for none."""
    made = np.zeros((len(segment.taken), len(segment.h)), np.int64)
    for d, piece in enumerate(segment.taken):
        made[d, piece.who] = piece.cells
    return load.add(made)


class Repeated:
    """Normals that do not follow a path: fresh ones for each attempt, or after a rejection the same again.  Both give a wrong law.

    Parameters
    ----------
    noise, ids, shape, reference, place
        As for :class:`Pieces`.
    normals : int
        Of an attempt.
    retain : bool
        Whether a rejected step's normals serve the next attempt, scaled to its length.
    """

    def __init__(
        self, noise: Noise, ids: Ints, shape: tuple[int, ...], normals: int, reference: Any, *, retain: bool, place: tuple[int, int] = (0, 0)
    ) -> None:
        self._noise, self._shape, self._reference, self._retain = noise, shape, reference, retain
        self._addresses = [Address(PATH, place[0], 0, slot) for slot in range(normals)]
        self._first = place[1] << 20
        self._pool = Pool((len(self._addresses), *shape), reference)
        self.ids, self.draws, self._fresh, self._at = ids[:0], ids[:0], np.zeros(0, bool), ids[:0]
        self.add(ids)

    def over(self, h: Array) -> list[Any]:
        """:meth:`plan` and :meth:`made` in one."""
        load = Load()
        self.plan(h[None], load)
        load.send(self._reference)
        return self.made()

    def plan(self, _: Array, load: Load) -> None:
        """The next attempt of each sample."""
        some = np.flatnonzero(self._fresh)
        self._tried = Draw(self._noise, self._addresses, self.draws[some], self.ids[some], load), load.add(self._at[some]), load.add(self._at)
        self.draws = self.draws + self._fresh

    def made(self) -> list[Any]:
        """Standard normals, arrays (n, *event)."""
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
