"""The samples that an adaptive run has under way, side by side: their numbers on the host, their arrays on the device."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._array import namespace
from .staging import Load, Part

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

__all__ = ["Held", "Slots", "schedule"]


@dataclass(eq=False)
class Slots:
    """What the host knows of each slot: arrays whose last axis is (m,).

    Attributes
    ----------
    who : int array
        Its sample, as a position in the run.
    at : int array
        Where the arrays of its state are, see :class:`Held`.
    stop : int array
        The next of the times that it must visit.
    t, h, last : arrays
        The time, the step to try, and the last accepted step; not-a-number before that.
    errors, ratios : arrays (depth, m)
        Of the last accepted steps, the newest first: see :class:`~sdekit.control.Controller`.
    have : bool array
        Whether the model's answer at the state is known.
    """

    who: Ints
    at: Ints
    stop: Ints
    t: Array
    h: Array
    last: Array
    errors: Array
    ratios: Array
    have: Mask

    @classmethod
    def fresh(cls, who: Ints, at: Ints, t: float, h: float, depth: int) -> Slots:
        """Samples at their start."""
        n = len(who)
        none, past = np.full(n, np.nan), np.full((depth, n), np.nan)
        return cls(who, at, np.zeros(n, np.int64), np.full(n, t), np.full(n, h), none, past, np.ones((depth, n)), np.zeros(n, bool))

    def of(self, which: Ints | Mask) -> Slots:
        """Some of them."""
        return Slots(*(getattr(self, entry.name)[..., which] for entry in fields(self)))

    def and_(self, more: Slots) -> Slots:
        """These and then the others."""
        return Slots(*(np.concatenate([getattr(self, entry.name), getattr(more, entry.name)], axis=-1) for entry in fields(self)))


@dataclass(eq=False)
class Held:
    """The arrays (m, *event) of the samples under way, and what the host has decided since it last wrote to the device.

    Places count through ``z`` and then through ``more``, the samples that come in.

    Attributes
    ----------
    z, other, first : lists of arrays
        The state, what the tolerance reads of the last accepted step, and the model's answer at the state where that is known.
    more : list of arrays
        States of the samples that come in.
    tried : three lists of arrays, or None
        What ``z``, ``other`` and ``first`` become where ``accepted``.
    writes : list of (target, who, at)
        States to be written down: ``target[who] = z[at]``, block by block.
    """

    z: list[Any]
    other: list[Any]
    first: list[Any]
    more: list[Any]
    tried: tuple[list[Any], list[Any], list[Any]] | None = None
    accepted: Mask = field(default_factory=lambda: np.zeros(0, bool))
    writes: list[tuple[list[Any], Ints, Ints]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.z[0])

    def plan(self, load: Load, stay: Ints, leave: Ints) -> tuple[Any, ...]:
        """What :meth:`settle` needs, as parts of the load: the samples at ``stay`` remain, those at ``leave`` go."""
        same = len(stay) == len(self) and bool(np.all(stay == np.arange(len(stay))))
        mask = None if self.tried is None or np.all(self.accepted) else load.add(self.accepted)
        return mask, None if same else load.add(stay), load.add(leave), [(target, load.add(who), load.add(at)) for target, who, at in self.writes]

    def settle(self, plan: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
        """Carry it out; returns state and first answers of those that leave."""
        mask, stay, leave, writes = plan
        if self.tried is not None:
            self.z, self.other, self.first = (_where(mask, new, old) for new, old in zip(self.tried, (self.z, self.other, self.first), strict=True))
        all_ = self._with_more(self.z)
        for target, who, at in writes:
            for out, block in zip(target, all_, strict=True):
                out[who.there] = block[at.there]
        gone = [block[leave.there] for block in all_], [block[leave.there] for block in self._with_more(self.first)]
        if stay is not None:
            others, answers = self._with_more(self.other), self._with_more(self.first)
            self.z, self.other, self.first = ([block[stay.there] for block in blocks] for blocks in (all_, others, answers))
        self.tried, self.writes = None, []
        return gone

    def _with_more(self, blocks: list[Any]) -> list[Any]:
        if not len(self.more[0]):
            return blocks
        xp = namespace(blocks[0])
        return [xp.concat([block, new], axis=0) for block, new in zip(blocks, self.more, strict=False)]


def _where(mask: Part | None, new: list[Any], old: list[Any]) -> list[Any]:
    """The new blocks where the mask says so, or everywhere."""
    if mask is None or new is old:
        return new
    wide, xp = mask.there.reshape((-1, *(1,) * (new[0].ndim - 1))), namespace(new[0])
    return [xp.where(wide, one, two) for one, two in zip(new, old, strict=True)]


def schedule(nfe: Ints, batch: int, refill: bool = True) -> Ints:
    """Samples in each call of a model when samples that need ``nfe`` calls each go through ``batch`` slots: a pure function.

    With ``refill`` a slot takes the next sample as soon as it is free, else when all are: then the cost of calls that take the time of a full batch,
    ``batch * len(schedule)``, is that of the slowest sample of each batch.
    """
    left, rest, sizes = nfe[:0], nfe, []
    while len(left) or len(rest):
        if refill or not len(left):
            free = batch - len(left)
            left, rest = np.concatenate([left, rest[:free]]), rest[free:]
        calls = int(np.min(left))
        sizes.append(np.full(calls, len(left)))
        left = left[left > calls] - calls
    return np.concatenate(sizes) if sizes else np.zeros(0, np.int64)
