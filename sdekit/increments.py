r"""What the noise of a step is, as a functional of one Brownian path: laws of increments that join and that are cut exactly.

:class:`Increments`: increments and areas of the path over the step (:mod:`sdekit.brownian`).  :class:`Transfers`: the exact noise of an exponential
method, :math:`\eta_{t,s} = \int_s^t \Phi(s,u)\,\lambda G\,dW_u`, with the joint law of every part of the step:

.. math:: \eta_{t,s} = \Phi(s,m)\,\eta_{t,m} + \eta_{m,s}, \qquad \eta_{t,m} \mid \eta_{t,s} \sim N(K \eta_{t,s},\ V_1 - K \Phi V_1), \quad
          K = V_1 \Phi^T V^{-1},

for the covariances :math:`V_1, V_2, V = \Phi V_1 \Phi^T + V_2` of the parts and of the whole.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .brownian import Cell, split
from .kernel import solve_lower, triangular
from .reverse import Reverse

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

__all__ = ["Increments", "Law", "Segment", "Taken", "Transfers"]

_NEAR = 1e-12  # a rest this small, relative to the segment, is none
_UNITS = np.array([1.0, 12.0])  # the length of a piece over the variances of its increment and of its area


class Taken(NamedTuple):
    """Pieces that the paths ``who`` take: their numbers, where they start in the segment, and their lengths."""

    who: Ints
    cells: Ints
    start: Array
    length: Array


class Segment(NamedTuple):
    """A part of the steps of n paths: of length ``h`` from ``t``.

    ``left`` and ``right`` (m,) are the lengths of the new pieces, which are the last that is ``taken``, and of what is left of those they are cut
    from: 0 where they are cut from none.
    """

    t: Array
    h: Array
    taken: list[Taken]
    left: Array
    right: Array


class Law(Protocol):
    """Pieces have ``kinds`` numbers for each of ``channels``, which rows mix."""

    kinds: int
    channels: int

    def rows(self, segments: list[Segment]) -> list[tuple[Array, Array]]:
        """Two tables for each segment.

        The new pieces and what is left of the old ones, of the old ones and of fresh normals: (m, 2 kinds, 2 kinds), 0 for what is left of none.  And
        the standard normals of the segment, of its pieces: (n, kinds, len(taken) kinds), 0 for none.
        """
        ...


class Increments:
    r"""Increments :math:`\sqrt h\,\xi_1` and, with ``areas``, areas :math:`\sqrt{h/12}\,\xi_2`."""

    def __init__(self, channels: int, areas: bool) -> None:
        self.kinds, self.channels = 2 if areas else 1, channels

    def rows(self, segments: list[Segment]) -> list[tuple[Array, Array]]:
        """See :class:`Law`."""
        return [(self._parts(part.left, part.right), self._whole(part.h, part.taken)) for part in segments]

    def _whole(self, h: Array, taken: list[Taken]) -> Array:
        r"""Increments add; with :math:`e` the middle of a piece of length ``l``, :math:`h H = \sum l H_l + (h/2 - e) W_l`."""
        kinds = self.kinds
        rows = np.zeros((len(h), kinds, len(taken), kinds))
        for d, (who, _, start, length) in enumerate(taken):
            rows[who, 0, d, 0] = 1.0
            if kinds == 2:
                rows[who, 1, d, 0] = 0.5 - (start + 0.5 * length) / h[who]
                rows[who, 1, d, 1] = length / h[who]
        rows *= np.sqrt(_UNITS[:kinds] / h[:, None])[:, :, None, None]
        return rows.reshape(len(h), kinds, len(taken) * kinds)

    def _parts(self, left: Array, right: Array) -> Array:
        kinds, cut = self.kinds, right > 0.0
        made = np.zeros((len(left), 2 * kinds, 2 * kinds))
        for i in range(kinds):
            made[:, i, kinds + i] = np.sqrt(left / _UNITS[i])
        one, two = left[cut, None], right[cut, None]
        unit = np.broadcast_to(np.eye(2 * kinds)[:, None], (2 * kinds, len(one), 2 * kinds))
        if kinds == 2:
            first, second = split(Cell(unit[0], unit[1]), one, two, unit[2:])
            made[cut] = np.stack([*first, *second], axis=1)
        else:
            part = one / (one + two) * unit[0] + np.sqrt(one * two / (one + two)) * unit[1]
            made[cut] = np.stack([part, unit[0] - part], axis=1)
        return made


class Transfers:
    """The exact noise of steps of a reverse equation, ``k`` numbers for each element, with the data or eps in the drift."""

    channels = 1

    def __init__(self, reverse: Reverse, of: str) -> None:
        self.kinds, self._reverse, self._of = reverse.process.k, reverse, of

    def rows(self, segments: list[Segment]) -> list[tuple[Array, Array]]:
        """See :class:`Law`; all intervals are integrated at once."""
        ways = [_intervals(segment) for segment in segments]
        starts, ends = (np.concatenate([interval[i] for way in ways for interval in way]) for i in (0, 1))
        gains, roots = self._over(starts, ends)
        counts = np.cumsum([len(interval[0]) for way in ways for interval in way])[:-1]
        each = iter(zip(np.split(gains, counts), np.split(roots, counts), strict=True))
        return [self._segment(segment, [next(each) for _ in way]) for segment, way in zip(segments, ways, strict=True)]

    def _over(self, t: Array, s: Array) -> tuple[Array, Array]:
        r"""Transfer and lower root of the noise over the steps, (n, k, k) each.

        In eps they are those of the forward equation, turned round; with data and noise 1 those of its posterior, :math:`\Phi = S_s M^T S_t^{-1}` and
        :math:`(S_s^{-1} + M^T Q^{-1} M)^{-1}`, for its transition ``M``, ``Q``; otherwise the equation is integrated.
        """
        process, noise = self._reverse.process, self._reverse.noise
        if callable(noise) or (self._of == "data" and noise != 1.0):
            leg = self._reverse.leg(np.stack([t, s]))
            return (leg.epsilon_flows[0].back, leg.epsilon_flows[0].chol) if self._of == "eps" else (leg.flows[0].gain, leg.flows[0].chol)
        way = process.transition(s, t)
        if self._of == "eps":
            back = np.asarray(np.linalg.inv(way.mean))
            return back, noise * triangular(back @ way.chol)
        late, early = process.kernel(t).chol, process.kernel(s).chol
        carried = way.mean @ early
        gain = early @ np.swapaxes(solve_lower(late, carried), -1, -2)
        gain = np.swapaxes(solve_lower(late, np.swapaxes(gain, -1, -2), transpose=True), -1, -2)
        return gain, triangular(early @ _shrunk(solve_lower(way.chol, carried)))

    def _segment(self, segment: Segment, flows: list[tuple[Array, Array]]) -> tuple[Array, Array]:
        (_, whole), (_, first), (gain, second), *later = flows
        k, n, taken = self.kinds, len(segment.h), segment.taken
        rows = np.zeros((n, k, len(taken), k))
        for d, (piece, (carried, _)) in enumerate(zip(taken, later, strict=True)):
            rows[piece.who, :, d] = np.eye(k)
            rows[piece.who[_short(segment, piece)], :, d] = carried
        return self._parts(segment.right > 0.0, first, gain, second), solve_lower(whole, rows.reshape(n, k, len(taken) * k))

    def _parts(self, cut: NDArray[np.bool_], first: Array, gain: Array, second: Array) -> Array:
        r"""The conditional covariance is :math:`L_1 (1 + A^T A)^{-1} L_1^T`, :math:`A = L_2^{-1} \Phi L_1`."""
        k, eye, one = self.kinds, np.eye(self.kinds), first[cut]
        made = np.zeros((len(first), 2 * k, 2 * k))
        made[:, :k, k:] = first
        carried = gain @ one
        both = triangular(np.concatenate([carried, second], axis=-1))
        inverse = solve_lower(both, np.broadcast_to(eye, both.shape))
        known = one @ np.swapaxes(inverse @ carried, -1, -2) @ inverse
        fresh = one @ _shrunk(solve_lower(second, carried))
        made[cut, :k] = np.concatenate([known, fresh], axis=-1)
        made[cut, k:] = np.concatenate([eye - gain @ known, -gain @ fresh], axis=-1)
        return made


def _shrunk(A: Array) -> Array:
    """A root of ``(1 + A^T A)^-1``."""
    eye = np.broadcast_to(np.eye(A.shape[-1]), A.shape)
    return np.swapaxes(solve_lower(triangular(np.concatenate([eye, np.swapaxes(A, -1, -2)], axis=-1)), eye), -1, -2)


def _short(segment: Segment, piece: Taken) -> NDArray[np.bool_]:
    """Which pieces end before the segment does, as far as times resolve it."""
    end, s = segment.t[piece.who] - (piece.start + piece.length), (segment.t - segment.h)[piece.who]
    return np.asarray((piece.start + piece.length < segment.h[piece.who] * (1.0 - _NEAR)) & (end > s))


def _intervals(segment: Segment) -> list[tuple[Array, Array]]:
    """Starts and ends: of the segment, of new pieces, of what is left of old ones, and from the end of each piece to that of the segment."""
    t, h, taken, left, right = segment
    s, new, cut = t - h, taken[-1], right > 0.0
    start = t[new.who] - new.start
    middle = start[cut] - left[cut]
    out = [(t, s), (start, start - left), (middle, middle - right[cut])]
    for piece in taken:
        short = _short(segment, piece)
        out.append(((t[piece.who] - (piece.start + piece.length))[short], s[piece.who[short]]))
    return out
