"""The samples that an adaptive run has under way, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._array import like, namespace

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

__all__ = ["Slots", "schedule", "where"]


@dataclass(eq=False)
class Slots:
    """Host arrays (m,) and lists of arrays (m, *event) where the run is.

    Attributes
    ----------
    who : int array
        Each slot's sample, as a position in the run.
    z, other : lists of arrays
        The state, and what the tolerance reads of the last accepted step.
    t, h, last : arrays
        The time, the step to try, and the last accepted step; not-a-number before that.
    errors, ratios : arrays (depth, m)
        Of the last accepted steps, the newest first: see :class:`~sdekit.control.Controller`.
    have, first : bool array, list of arrays
        Where the model's answer at the state is known, and that answer.
    """

    who: Ints
    z: list[Any]
    other: list[Any]
    t: Array
    h: Array
    last: Array
    errors: Array
    ratios: Array
    have: Mask
    first: list[Any]

    def take(self, which: Ints) -> None:
        """Keep only these."""
        for name in ("who", "t", "h", "last", "have"):
            setattr(self, name, getattr(self, name)[which])
        self.errors, self.ratios = self.errors[:, which], self.ratios[:, which]
        self.z, self.other, self.first = ([block[which] for block in blocks] for blocks in (self.z, self.other, self.first))

    def join(self, more: Slots) -> None:
        """These and then the others."""
        xp = namespace(more.z[0])
        for name in ("who", "t", "h", "last", "have"):
            setattr(self, name, np.concatenate([getattr(self, name), getattr(more, name)]))
        self.errors, self.ratios = np.concatenate([self.errors, more.errors], 1), np.concatenate([self.ratios, more.ratios], 1)
        for name in ("z", "other", "first"):
            pairs = zip(getattr(self, name), getattr(more, name), strict=True)
            setattr(self, name, [xp.concat(pair, axis=0) for pair in pairs])


def where(accepted: Mask, new: list[Any], old: list[Any]) -> list[Any]:
    """The new blocks where accepted."""
    if np.all(accepted):
        return new
    mask = like(accepted.astype(float).reshape(-1, *(1,) * (new[0].ndim - 1)), new[0]) > 0.5
    xp = namespace(new[0])
    return [xp.where(mask, one, two) for one, two in zip(new, old, strict=True)]


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
