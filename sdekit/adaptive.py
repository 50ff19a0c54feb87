"""Adaptive runs: each sample takes steps of its own, in slots of one batch that are filled again as samples end.

All slots make the same model call of their step together.  Coefficients are those of fixed grids, for all slots at once.  A round is planned on the
host: what it needs there goes to the device as one block, and one vector comes back, with the error of each slot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._array import namespace, to_host, zeros
from .control import Control, Past
from .noise import Noise
from .pairs import Last, Pair, visits
from .pieces import Pieces, Repeated
from .process import Process
from .slots import Held, Slots
from .solve import Event, Saved
from .staging import Draw, Load, Part, Table
from .tableau import Rows

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

__all__ = ["Adapted", "March"]

_NEAR = 1e-9  # a step that leaves less than this part of itself takes it along


@dataclass(frozen=True, eq=False)
class Adapted:
    """How an adaptive run went.

    Attributes
    ----------
    accepted, rejected : int arrays (n,)
        Attempts of each sample.
    t : array (n,)
        The time that each sample reached.
    calls : int array (m,)
        Samples in each call of the model, in order; they add up to the sum of ``nfe``.
    times : tuple of n arrays (accepted + 1,)
        Where each sample started, and the ends of its accepted steps; without the step to the data.
    """

    accepted: Ints
    rejected: Ints
    t: Array
    calls: Ints
    times: tuple[Array, ...]


class March:
    """One adaptive run: :meth:`run` gives the blocks, the calls and statuses of all samples, and how it went.

    Parameters
    ----------
    process : Process
    control : Control
    times : (first, last)
    data : bool
        Whether the run goes on from ``last`` to the data, in one step and call.
    model : callable
        ``model(y, sigma, *told)`` or ``model(blocks, t, *told)``, with one level or time for each sample, see :class:`~sdekit.denoiser.Denoiser`.
    begin : callable
        ``begin(a, b)``: the blocks of samples ``a .. b-1`` at the first time.
    ids : int array (n,)
    noise : Noise
    of_state : bool
        Whether the model maps the state to its score.
    batch : int
        Slots.
    watch : callable, optional
        Called with an Event before each round and at the end: samples that are done, all samples, the largest time and the state of those under way.
    place : (leg, step)
        Of the noise's addresses: runs that must not share noise differ in it.
    save : sequence of float
        Times in [last, first] that every sample visits, and whose states to keep, see :attr:`saved`.

    Raises
    ------
    BadInput
        For a method without an embedded result, with noise of another kind than the control says, or for other times.
    """

    def __init__(
        self,
        process: Process,
        control: Control,
        times: tuple[float, float],
        data: bool,
        model: Callable[..., Any],
        begin: Callable[[int, int], list[Any]],
        ids: Ints,
        noise: Noise,
        *,
        of_state: bool = False,
        batch: int = 256,
        watch: Callable[[Event], None] | None = None,
        place: tuple[int, int] = (0, 0),
        save: Sequence[float] = (),
    ) -> None:
        self.control, self.times, self.T, self.model, self.ids, self.noise = control, times, process.T, model, ids, noise
        self.begin, self.batch, self.watch, self.place = begin, batch, watch, place
        self.pair = Pair(process, control, times, data, of_state)
        n = len(ids)
        self.nfe, self.accepted, self.rejected = (np.zeros(n, np.int64) for _ in range(3))
        self.reached = np.full(n, float(times[0]))
        self.status: list[str] = ["ok"] * n
        self.calls: list[int] = []
        self.taken = [(np.arange(n), self.reached.copy())]
        self.done, self.next, self.drawn = 0, 0, 0
        self.visits = visits(times, save)
        self._open()

    def _open(self) -> None:
        """The arrays of the run, where its first samples are."""
        n, count = len(self.ids), min(self.batch, len(self.ids))
        self.ahead, self.drawn = self.begin(0, count), count
        z, pair = self.ahead, self.pair
        self.reference, self.event = z[0][:0], tuple(int(v) for v in z[0].shape[1:])
        none = [block[:0] for block in z]
        self.held = Held(none, none, none if pair.of_state else none[:1], none)
        self.out = [zeros((n, *self.event), self.reference) for _ in z]
        self.kept = {t: [zeros((n, *self.event), self.reference) for _ in z] for t in self.visits[1]}
        self.path: Pieces | Repeated | None = None
        if pair.noises and self.control.noise == "path":
            self.path = Pieces(self.noise, self.ids[:0], self.event, pair.law, self.reference, place=self.place)
        elif pair.noises:
            retain = self.control.noise == "retain"
            self.path = Repeated(self.noise, self.ids[:0], self.event, pair.noises, self.reference, retain=retain, place=self.place)
        self.last = None if pair.end is None else Last(pair.end, self.noise, self.place, self.reference)

    def run(self) -> tuple[list[Any], Ints, tuple[str, ...], Adapted]:
        """Run all samples to their ends."""
        started = time.monotonic()
        slots = leaving = Slots.fresh(np.arange(0), np.arange(0), *self.times, self.control.controller.depth)
        while True:
            slots = self._filled(slots, len(leaving.who))
            if time.monotonic() - started > self.control.seconds:
                for left in (slots, leaving):
                    self._stop(left, "budget")
                self._settle(slots.of(slots.who < 0), leaving.of(leaving.who < 0), Load())
                self._give_up()
                break
            slots = self._within(slots)
            if len(slots.who) or len(leaving.who):
                slots, leaving = self._round(slots, leaving)
            else:
                self._settle(slots, leaving, Load())
                if self.next == len(self.ids):
                    break
        adapted = Adapted(self.accepted, self.rejected, self.reached, np.array(self.calls, np.int64), self._taken())
        return self.out, self.nfe, tuple(self.status), adapted

    @property
    def saved(self) -> Saved | None:
        """The states at the times of ``save``; a sample that stopped before keeps what it had."""
        if not self.kept:
            return None
        xp, times = namespace(self.reference), sorted(self.kept, reverse=True)
        return Saved(np.array(times), xp.stack([xp.stack(self.kept[t]) for t in times]))

    def _taken(self) -> tuple[Array, ...]:
        """Accepted times, sample by sample."""
        who, times = (np.concatenate(parts) for parts in zip(*self.taken, strict=True))
        return tuple(np.split(times[np.argsort(who, kind="stable")], np.cumsum(self.accepted + 1)[:-1]))

    def _filled(self, slots: Slots, busy: int) -> Slots:
        """The slots with new samples in those that are free."""
        free = self.batch - busy - len(slots.who)
        count = min(free, len(self.ids) - self.next)
        if count <= 0 or (not self.control.refill and free < self.batch):
            self.held.more = [block[:0] for block in self.ahead]
            return slots
        a, self.next = self.next, self.next + count
        if self.drawn < self.next:
            xp, b = namespace(self.reference), min(self.drawn + self.batch, len(self.ids))
            self.ahead = [xp.concat([one, two], axis=0) for one, two in zip(self.ahead, self.begin(self.drawn, b), strict=True)]
            self.drawn = b
        self.held.more, self.ahead = [block[:count] for block in self.ahead], [block[count:] for block in self.ahead]
        h = min(self.control.h_init * self.T, self.times[0] - self.times[1])
        who, at = np.arange(a, a + count), len(self.held) + np.arange(count)
        if self.times[0] in self.kept:
            self.held.writes.append((self.kept[self.times[0]], who, at))
        if self.path is not None:
            self.path.add(self.ids[who])
        return slots.and_(Slots.fresh(who, at, float(self.times[0]), h, self.control.controller.depth))

    def _within(self, slots: Slots) -> Slots:
        """The slots that may make the calls of one more attempt."""
        calls = self.nfe[slots.who] + self.pair.asks - slots.have + int(self.pair.end is not None)
        broke = calls > self.control.nfe
        self._stop(slots.of(broke), "budget")
        return self._keep(slots, ~broke)

    def _keep(self, slots: Slots, which: Mask) -> Slots:
        if np.all(which):
            return slots
        if self.path is not None:
            self.path.take(np.flatnonzero(which))
        return slots.of(which)

    def _stop(self, slots: Slots, status: str) -> None:
        """Write the samples down where they are."""
        who = slots.who
        if not len(who):
            return
        self.held.writes.append((self.out, who, slots.at))
        if status != "ok":
            for i, t in enumerate(self.visits[0].tolist()):
                late = slots.stop <= i
                if t in self.kept and np.any(late):
                    self.held.writes.append((self.kept[t], who[late], slots.at[late]))
        self._note(who, slots.t, status)

    def _note(self, who: Ints, reached: Any, status: str) -> None:
        self.reached[who] = reached
        self.done += len(who)
        for i in who.tolist():
            self.status[i] = status

    def _give_up(self) -> None:
        """Samples that had no slot yet stay where they start."""
        for a in range(self.next, len(self.ids), self.batch):
            b = min(a + self.batch, len(self.ids))
            for i, block in enumerate(self.begin(a, b)):
                for target in (self.out, *self.kept.values()):
                    target[i][a:b] = block
            self.status[a:b] = ["budget"] * (b - a)

    def _round(self, slots: Slots, leaving: Slots) -> tuple[Slots, Slots]:
        """One attempt of each slot, and the last call of those that have come to the end; returns those under way, and those that now have."""
        load, down = Load(), []
        goes, levels = None, np.zeros(0)
        if self.last is not None and len(leaving.who):
            levels = np.full(int(np.sum(~leaving.have)), self.last.level)
            goes = _Leaves(load.add(leaving.who), load.told(self.model, levels), self.last.draw(self.ids[leaving.who], load))
        tried = self._planned(slots, load, levels) if len(slots.who) else None
        z, answers = self._settle(slots, leaving, load)
        asked = self.last.question(z) if self.last is not None and len(levels) else None
        if tried is not None:
            more, error = self._try(slots, tried, asked, leaving)
            answers = answers if asked is None else more
            down.append(error)
        elif asked is not None and goes is not None:
            answers = self._call(asked, goes.levels, leaving.who)
        if self.last is not None and goes is not None:
            made, finite = self.last.made(z, goes.draw, answers)
            for out, block in zip(self.out, made, strict=True):
                out[goes.who.there] = block
            down.append(finite)
        seen = np.asarray(to_host(namespace(self.reference).concat(down)), float)
        good = seen[len(slots.who) :] > 0.5
        self._note(leaving.who[good], 0.0, "ok")
        self._note(leaving.who[~good], leaving.t[~good], "nonfinite")
        return (slots, leaving.of(leaving.who < 0)) if tried is None else self._decide(slots, tried, seen[: len(slots.who)])

    def _settle(self, slots: Slots, leaving: Slots, load: Load) -> tuple[list[Any], list[Any]]:
        """Send the load, and bring the device's arrays to what the host has decided."""
        plan = self.held.plan(load, slots.at, leaving.at)
        load.send(self.reference)
        gone = self.held.settle(plan)
        slots.at = np.arange(len(slots.who))
        if self.watch is not None:
            self.watch(Event(self.done, len(self.ids), float(np.max(slots.t, initial=self.times[1])), self.held.z))
        return gone

    def _planned(self, slots: Slots, load: Load, last: Array) -> _Try:
        """An attempt of each slot, as parts of the load; the levels ``last`` are asked with the first call."""
        target = self.visits[0][slots.stop]
        whole = slots.h >= (slots.t - target) * (1.0 - _NEAR)
        s = np.where(whole, target, slots.t - slots.h)
        h = slots.t - s
        step = self.pair.step(slots.t, s)
        rows = self.pair.rows(step)
        if self.path is not None:
            self.path.plan(self.pair.nodes(step), load)
        levels = [np.broadcast_to(ask.level, (len(h), 1, 1)).ravel() for ask in rows.asks]
        want = np.flatnonzero(~slots.have)
        fill = np.where(slots.have, np.arange(len(h)), len(h) + np.cumsum(~slots.have) - 1)
        levels[0] = np.concatenate([levels[0][want], last])
        parts = load.add(want), load.add(fill)
        return _Try(s, h, whole, rows, Table(self.pair.stacked(rows), load), [load.told(self.model, level) for level in levels], *parts)

    def _try(self, slots: Slots, tried: _Try, last: list[Any] | None, leaving: Slots) -> tuple[list[Any], Any]:
        """The calls of an attempt; returns the answers to ``last``, which go with the first, and the error of each slot."""
        held, rows, k = self.held, tried.rows, tried.rows.k
        normals = self.path.made() if self.path is not None else []
        registers = [*held.z, *normals]
        more: list[Any] = []
        place = 0
        for j, ask in enumerate(rows.asks):
            height = ask.argument.shape[-2]
            blocks = tried.table(registers, place, place + height)
            place += height
            if j:
                registers += self._call(blocks, tried.levels[j], slots.who)
            else:
                more = self._first(slots, tried, blocks, last, leaving)
                registers += held.first
        result = tried.table(registers, place)
        new, other, error = result[:k], result[k : 2 * k], result[2 * k : 3 * k]
        scale = result[3 * k :] if self.control.noiseless else other
        held.tried = new, scale, registers[-height:] if self.pair.stays else held.first
        return more, self.control.measure(error, scale, held.other, normals)

    def _first(self, slots: Slots, tried: _Try, blocks: list[Any], last: list[Any] | None, leaving: Slots) -> list[Any]:
        """The first answers of a step: asked where they are not known, together with the last answers of the samples that leave."""
        xp, want = namespace(blocks[0]), tried.want.host
        some, who = len(want), slots.who[want]
        asked = [block[tried.want.there] for block in blocks] if some < len(slots.who) else blocks
        if last is not None:
            asked, who = [xp.concat([one, two], axis=0) for one, two in zip(asked, last, strict=True)], np.append(who, leaving.who)
        answers = self._call(asked, tried.levels[0], who) if len(who) else []
        if some == len(slots.who):
            self.held.first = [answer[:some] for answer in answers]
        elif some:
            pairs = zip(self.held.first, answers, strict=True)
            self.held.first = [xp.concat([one, answer[:some]], axis=0)[tried.fill.there] for one, answer in pairs]
        return [answer[some:] for answer in answers]

    def _call(self, blocks: list[Any], levels: list[Part], who: Ints) -> list[Any]:
        """The model's answer, as blocks; counts the call for each sample."""
        self.calls.append(len(who))
        self.nfe[who] += 1
        told = [part.there for part in levels]
        return list(self.model(blocks, *told)) if self.pair.of_state else [self.model(blocks[0], *told)]

    def _decide(self, slots: Slots, tried: _Try, errors: Array) -> tuple[Slots, Slots]:
        """Accept or reject each attempt, set the next steps, and let go of samples that are through."""
        control, s = self.control, tried.s
        lost = ~np.isfinite(errors)
        accepted = ~lost & ((errors <= 1.0) | (not control.reject))
        self.held.accepted = accepted
        slots.have = accepted & self.pair.stays | ~accepted & self.pair.reuses
        if self.path is not None:
            self.path.settle(accepted)
        self.taken.append((slots.who[accepted], s[accepted]))
        self.accepted[slots.who] += accepted
        self.rejected[slots.who] += ~accepted
        self._next(slots, tried, errors, accepted)
        small = ~lost & (slots.h < control.h_min * self.T) & (slots.h < slots.t - self.times[1])
        self._visit(slots, accepted & tried.whole)
        through = accepted & (s == self.times[1])
        self._stop(slots.of(lost), "nonfinite")
        self._stop(slots.of(small & ~through), "h_min")
        leaving = slots.of(through)
        if self.pair.end is None:
            self._stop(leaving, "ok")
            leaving = leaving.of(leaving.who < 0)
        return self._keep(slots, ~lost & ~through & ~small), leaving

    def _next(self, slots: Slots, tried: _Try, errors: Array, accepted: Mask) -> None:
        """Times, next steps and what the controller remembers."""
        planned, h = slots.h, tried.h
        slots.t = np.where(accepted, tried.s, slots.t)
        factor, past = Past(slots.errors, slots.ratios, slots.last).after(self.control.controller, h, errors, accepted)
        with np.errstate(over="ignore", invalid="ignore"):
            again = np.where(np.isfinite(errors), h * factor, 0.0)
        again = np.where(accepted & tried.whole, np.maximum(again, planned), again)  # cut at a time to visit: what was to be is not forgotten
        slots.h = np.minimum(again, slots.t - self.times[1])
        slots.errors, slots.ratios, slots.last = past

    def _visit(self, slots: Slots, arrived: Mask) -> None:
        """Write down the states at the times to visit."""
        for i in np.unique(slots.stop[arrived]).tolist():
            t = float(self.visits[0][i])
            if t in self.kept:
                here = slots.of(arrived & (slots.stop == i))
                self.held.writes.append((self.kept[t], here.who, here.at))
        slots.stop = slots.stop + arrived


class _Try(NamedTuple):
    """An attempt of each slot: from ``t`` to ``s`` by ``h``, ``whole`` where that is a time to visit."""

    s: Array
    h: Array
    whole: Mask
    rows: Rows
    table: Table
    levels: list[list[Part]]
    want: Part
    fill: Part


class _Leaves(NamedTuple):
    """Samples that take the step to the data."""

    who: Part
    levels: list[Part]
    draw: Draw
