"""Adaptive runs: each sample takes steps of its own, in slots of one batch that are filled again as samples end.

All slots make the same model call of their step together.  Coefficients are those of fixed grids, for all slots at once; a round brings one number
for each slot back from a device, its error.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._array import like, namespace, to_host
from .control import Control, Past
from .errors import BadInput
from .grids import Grid
from .noise import METHOD, Address, Noise
from .pieces import Coefficients, Pieces, Repeated
from .process import Process
from .reverse import Reverse
from .slots import Slots, where
from .solve import Event, end_rows
from .tableau import Rows, Step

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

__all__ = ["Adapted", "March", "ends", "span"]

_LEVEL = 0.0105  # that of the usual linear VP process at 0.001
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


def ends(process: Process) -> tuple[float, float]:
    """Times from which and to which a run without a grid goes, before it denoises.

    From ``T`` to ``T / 1000``, or to where the level is 0.0105 if that comes later; to ``T / 100,000`` where the data themselves start with noise.
    """
    if float(process.sigma_eff(0.0)) > 0.0:
        return process.T, 1e-5 * process.T
    return process.T, min(1e-3 * process.T, float(process.time_of(min(_LEVEL, 0.5 * float(process.sigma_eff(process.T))))))


def span(process: Process, grid: Grid | None, start: float | None) -> tuple[tuple[float, float], bool]:
    """First and last positive time of a run over ``grid``, or from ``start``, and whether it goes on to the data."""
    if grid is None:
        first, last = ends(process)
        data = True
    else:
        times = np.asarray(grid.times(process), float)
        first, data = float(times[0]), bool(times[-1] == 0.0)
        last = float(times[-2 if data and len(times) > 2 else -1])
    first = first if start is None else start
    if not 0.0 < last < first:
        raise BadInput(f"an adaptive run goes from t = {first:g} to {last:g}: the grid must start above its last positive time")
    return (first, last), data


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
        ``model(y, sigma)`` or ``model(blocks, t)``, with one level or time for each sample.
    begin : callable
        ``begin(a, b)``: the blocks of samples ``a .. b-1`` at the first time.
    ids : int array (n,)
    noise : Noise
    of_state : bool
        Whether the model maps the state to its score.
    batch : int
        Slots.
    watch : callable, optional
        Called with an Event after each round: samples that are done, all samples, the largest time and the state of those under way.
    leg, step : int
        Of the noise's addresses: runs that must not share noise differ in one of them.

    Raises
    ------
    BadInput
        For a method without an embedded result, or with noise of another kind than the control says.
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
        leg: int = 0,
        step: int = 0,
    ) -> None:
        self.process, self.control, self.times, self.data, self.model = process, control, times, data, model
        self.begin, self.ids, self.noise, self.of_state, self.batch, self.watch, self.place = begin, ids, noise, of_state, batch, watch, (leg, step)
        self.reverse = Reverse(process, control.method.noise)
        n = len(ids)
        self.nfe, self.accepted, self.rejected = (np.zeros(n, np.int64) for _ in range(3))
        self.reached = np.full(n, float(times[0]))
        self.status: list[str] = ["ok"] * n
        self.calls: list[int] = []
        self.taken = [(np.arange(n), self.reached.copy())]
        self.done, self.next = 0, 0
        self.path: Pieces | Repeated | None = None
        self.out: list[Any] = []
        probe = self._rows(np.array([times[0]]), np.array([times[1]]))
        if probe.embedded is None:
            raise BadInput(f"{control.method} has no embedded result, so that its error is unknown: take heun(), sra(), dpm_solver(2) or such")
        channels = process.noise(times[0]).shape[-1]
        if probe.noises and control.noise == "path" and probe.noises not in (channels, 2 * channels):
            raise BadInput(f"{control.method} draws {probe.noises} normals a step, which are not the increments and areas of {channels} channels")
        self.channels, self.areas = channels, probe.noises == 2 * channels
        self.noises, self.asks = probe.noises, len(probe.asks)
        self.reuses = control.reuse and _same(probe.asks[0].argument, self._asked(probe, process, times[0]))
        self.stays = self.reuses and _same(probe.asks[-1].argument, self._asked(probe, process, times[1], probe.out))
        self.end = self._end() if data else None

    def _asked(self, rows: Rows, process: Process, t: float, z: Array | None = None) -> Array:
        """What the model would be asked about the state ``z``, the old one when absent."""
        state = np.eye(rows.k, rows.out.shape[-1]) if z is None else z
        return np.asarray(state if self.of_state else process.kernel(t).observe[None] @ state)

    def _end(self) -> Rows:
        step = Step(self.reverse.leg([self.times[1], 0.0]), 0, (), self.of_state)
        if self.control.denoise == "exact":
            return end_rows(step, self.reverse.noisy)
        return step.rows(step.here.psi[:, None] @ step.ask(step.z, step.here).data)

    def _rows(self, t: Array, s: Array) -> Rows:
        return self.control.method.rows(Step(self.reverse.leg(np.stack([t, s])), 0, (), self.of_state))

    def run(self) -> tuple[list[Any], Ints, tuple[str, ...], Adapted]:
        """Run all samples to their ends."""
        started = time.monotonic()
        slots = self._filled(None)
        leaving: Slots | None = None
        while len(slots.who) or leaving is not None:
            if time.monotonic() - started > self.control.seconds:
                self._stop(slots, np.arange(len(slots.who)), "budget")
                if leaving is not None:
                    self._stop(leaving, np.arange(len(leaving.who)), "budget")
                self._give_up()
                break
            leaving = self._round(slots, leaving)
            if self.watch is not None:
                self.watch(Event(self.done, len(self.ids), float(np.max(slots.t, initial=self.times[1])), slots.z))
            slots = self._filled(slots, 0 if leaving is None else len(leaving.who))
        adapted = Adapted(self.accepted, self.rejected, self.reached, np.array(self.calls, np.int64), self._taken())
        return self.out, self.nfe, tuple(self.status), adapted

    def _taken(self) -> tuple[Array, ...]:
        """Accepted times, sample by sample."""
        who, times = (np.concatenate(parts) for parts in zip(*self.taken, strict=True))
        return tuple(np.split(times[np.argsort(who, kind="stable")], np.cumsum(self.accepted + 1)[:-1]))

    # ------------------------------------------------------------------------------------------------------------ slots

    def _filled(self, slots: Slots | None, busy: int = 0) -> Slots:
        """The slots with new samples in those that are free."""
        free = self.batch - busy - (0 if slots is None else len(slots.who))
        count = min(free, len(self.ids) - self.next)
        if slots is not None and (count <= 0 or (not self.control.refill and free < self.batch)):
            return slots
        a, b = self.next, self.next + count
        z = self.begin(a, b)
        depth = self.control.controller.depth
        h = np.full(count, min(self.control.h_init * self.process.T, self.times[0] - self.times[1]))
        blocks = len(z) if self.of_state else 1
        more = Slots(
            np.arange(a, b), z, list(z), np.full(count, float(self.times[0])), h, np.full(count, np.nan), np.full((depth, count), np.nan),
            np.ones((depth, count)), np.zeros(count, bool), [0.0 * z[0] for _ in range(blocks)],
        )  # fmt: skip
        self.next = b
        if not self.out:
            self.out = [like(np.zeros((len(self.ids), *z[0].shape[1:])), z[0]) for _ in z]
        if self.noises and self.path is None:
            event = tuple(int(v) for v in z[0].shape[1:])
            retain = self.control.noise == "retain"
            self.path = (
                Pieces(self.noise, self.ids[a:b], event, self.channels, self.areas, z[0], place=self.place)
                if self.control.noise == "path"
                else Repeated(self.noise, self.ids[a:b], event, self.noises, False, z[0], retain=retain, place=self.place)
            )
        elif self.path is not None:
            self.path.add(self.ids[a:b])
        if slots is None:
            return more
        slots.join(more)
        return slots

    def _stop(self, slots: Slots, which: Ints, status: str, blocks: list[Any] | None = None) -> None:
        """Write the samples down."""
        who = slots.who[which]
        for out, block in zip(self.out, slots.z if blocks is None else blocks, strict=True):
            out[who] = block[which]
        self.reached[who] = slots.t[which] if blocks is None else 0.0
        self.done += len(who)
        for i in who.tolist():
            self.status[i] = status

    def _give_up(self) -> None:
        """Samples that had no slot yet stay where they start."""
        for a in range(self.next, len(self.ids), self.batch):
            b = min(a + self.batch, len(self.ids))
            for out, block in zip(self.out, self.begin(a, b), strict=True):
                out[a:b] = block
            self.status[a:b] = ["budget"] * (b - a)

    # ------------------------------------------------------------------------------------------------------------ one round

    def _round(self, slots: Slots, leaving: Slots | None) -> Slots | None:
        """One attempt of each slot, and the last call of those that have come to the end; returns those that now have."""
        control, (_, end) = self.control, self.times
        need = self.asks - slots.have
        broke = np.flatnonzero(self.nfe[slots.who] + need + int(self.data) > control.nfe)
        if len(broke):
            self._stop(slots, broke, "budget")
            self._keep(slots, np.setdiff1d(np.arange(len(slots.who)), broke))
        if not len(slots.who):
            if leaving is not None:
                self._finish(leaving, self._last(leaving))
            return None
        h = slots.h
        s = np.where(h >= (slots.t - end) * (1.0 - _NEAR), end, slots.t - h)
        h = slots.t - s
        rows = self._rows(slots.t, s)
        normals = self.path.over(h) if self.path is not None else []
        table = Coefficients(self._stacked(rows), slots.z[0])
        registers = [*slots.z, *normals]
        answers: list[Any] = []
        place = 0
        for j, ask in enumerate(rows.asks):
            height = ask.argument.shape[-2]
            blocks = table([*registers, *answers], place, place + height)
            place += height
            level = np.broadcast_to(ask.level, (len(h), 1, 1)).ravel()
            answers += self._call(blocks, level, slots.who) if j else self._first(slots, blocks, level, leaving)
        result = table([*registers, *answers], place)
        return self._decide(slots, s, h, rows.k, result, answers[-height:], normals)

    def _stacked(self, rows: Rows) -> Array:
        """All rows of a step, for each slot: those of the asks, the result, the other result, the error, and what the tolerance reads."""
        control = self.control
        if rows.embedded is None:
            raise BadInput(f"{control.method} has no embedded result")
        out, other = (rows.out, rows.embedded) if control.extrapolate else (rows.embedded, rows.out)
        quiet = np.ones(rows.out.shape[-1])
        quiet[rows.k + rows.memory : rows.k + rows.memory + rows.noises] = 0.0
        error = (rows.out - rows.embedded) * (quiet if control.estimate == "drift" else 1.0)
        parts = [*(ask.argument for ask in rows.asks), out, other, error, *([other * quiet] if control.noiseless else [])]
        n = out.shape[0]
        return np.concatenate([np.broadcast_to(part, (n, *part.shape[-2:])) for part in parts], axis=1)

    def _call(self, blocks: list[Any], level: Array, who: Ints) -> list[Any]:
        """The model's answer, as blocks; counts the call for each sample."""
        self.calls.append(len(who))
        self.nfe[who] += 1
        where = like(level, blocks[0])
        if self.of_state:
            return list(self.model(blocks, where))
        return [self.model(blocks[0], where)]

    def _first(self, slots: Slots, blocks: list[Any], level: Array, leaving: Slots | None) -> list[Any]:
        """The first answers of a step: asked where they are not known, together with the last answers of the samples that leave."""
        want = np.flatnonzero(~slots.have)
        asked, levels, who = [block[want] for block in blocks], level[want], slots.who[want]
        if leaving is not None and not np.all(leaving.have):
            xp, more = namespace(blocks[0]), self._question(leaving)
            asked = [xp.concat([one, two], axis=0) for one, two in zip(asked, more, strict=True)] if len(want) else more
            levels, who = np.append(levels, self._levels(leaving)), np.append(who, leaving.who)
        answers = self._call(asked, levels, who) if len(who) else []
        for i, answer in enumerate(answers):
            if len(want) == len(slots.who):
                slots.first[i] = answer[: len(want)]
            else:
                slots.first[i][want] = answer[: len(want)]
        if leaving is not None:
            self._finish(leaving, leaving.first if np.all(leaving.have) else [answer[len(want) :] for answer in answers])
        return list(slots.first)

    def _question(self, leaving: Slots) -> list[Any]:
        assert self.end is not None  # noqa: S101 (samples leave only for the data)
        argument = self.end.asks[0].argument
        return Coefficients(argument[None], leaving.z[0])(leaving.z)

    def _levels(self, leaving: Slots) -> Array:
        assert self.end is not None  # noqa: S101
        return np.full(len(leaving.who), float(self.end.asks[0].level))

    def _last(self, leaving: Slots) -> list[Any]:
        """The last answers, asked alone if they are not known."""
        return leaving.first if np.all(leaving.have) else self._call(self._question(leaving), self._levels(leaving), leaving.who)

    def _finish(self, leaving: Slots, answers: list[Any]) -> None:
        """The step to the data."""
        assert self.end is not None  # noqa: S101
        rows, z = self.end, leaving.z
        event = tuple(int(v) for v in z[0].shape[1:])
        addresses = [Address(METHOD, *self.place, slot) for slot in range(rows.noises)]
        normals = list(self.noise.draw(addresses, self.ids[leaving.who], event, z[0])) if addresses else []
        made = Coefficients(np.broadcast_to(rows.out, (1, *rows.out.shape)), z[0])([*z, *normals, *answers])
        xp = namespace(z[0])
        good = to_host(xp.all(xp.stack([xp.all(xp.isfinite(block.reshape((len(leaving.who), -1))), axis=1) for block in made]), axis=0))
        self._stop(leaving, np.flatnonzero(good), "ok", made)
        self._stop(leaving, np.flatnonzero(~good), "nonfinite")

    def _decide(self, slots: Slots, s: Array, h: Array, k: int, result: list[Any], last: list[Any], normals: list[Any]) -> Slots | None:
        """Accept or reject each attempt, set the next steps, and let go of samples that are through."""
        control = self.control
        new, other, error = result[:k], result[k : 2 * k], result[2 * k : 3 * k]
        scale = result[3 * k :] if control.noiseless else other
        errors = control.measure(error, scale, slots.other, normals)
        lost = ~np.isfinite(errors)
        accepted = ~lost & ((errors <= 1.0) | (not control.reject))
        slots.z = where(accepted, new, slots.z)
        slots.other = where(accepted, scale, slots.other)
        slots.first = where(accepted, last, slots.first) if self.stays else slots.first
        slots.have = accepted & self.stays | ~accepted & self.reuses
        if self.path is not None:
            self.path.settle(accepted)
        self.taken.append((slots.who[accepted], s[accepted]))
        self.accepted[slots.who] += accepted
        self.rejected[slots.who] += ~accepted
        self._next(slots, s, h, errors, accepted)
        small = ~lost & (slots.h < control.h_min * self.process.T) & (slots.h < slots.t - self.times[1])
        through = accepted & (s == self.times[1])
        self._stop(slots, np.flatnonzero(lost), "nonfinite")
        self._stop(slots, np.flatnonzero(small & ~through), "h_min")
        leaving = self._keep(slots, np.flatnonzero(~lost & ~through & ~small), np.flatnonzero(through))
        if leaving is None or self.end is not None:
            return leaving
        self._stop(leaving, np.arange(len(leaving.who)), "ok")
        return None

    def _next(self, slots: Slots, s: Array, h: Array, errors: Array, accepted: Mask) -> None:
        """Times, next steps and what the controller remembers."""
        slots.t = np.where(accepted, s, slots.t)
        factor, past = Past(slots.errors, slots.ratios, slots.last).after(self.control.controller, h, errors, accepted)
        with np.errstate(over="ignore", invalid="ignore"):
            slots.h = np.minimum(np.where(np.isfinite(errors), h * factor, 0.0), slots.t - self.times[1])
        slots.errors, slots.ratios, slots.last = past

    def _keep(self, slots: Slots, which: Ints, leaving: Ints | None = None) -> Slots | None:
        """Keep some of the slots; those that leave are returned."""
        if len(which) == len(slots.who):
            return None
        gone = None
        if leaving is not None and len(leaving):
            gone = replace(slots)
            gone.take(leaving)
        slots.take(which)
        if self.path is not None:
            self.path.take(which)
        return gone


def _same(one: Array, two: Array) -> bool:
    """Whether two rows are the same but for rounding."""
    return bool(np.max(np.abs(one - two)) <= _NEAR * np.max(np.abs(two)))
