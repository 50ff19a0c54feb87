"""What an adaptive run computes: an attempt's rows of both results, of their difference and of what the tolerance reads; and the step to the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._array import namespace, zeros
from .control import Control
from .errors import BadInput
from .grids import Grid
from .increments import Increments, Law, Transfers
from .noise import METHOD, Address, Noise
from .process import Process
from .reverse import Reverse
from .solve import end_rows
from .staging import Draw, Load, Table
from .tableau import Rows, Step

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

__all__ = ["Last", "Pair", "ends", "span", "visits"]

_LEVEL = 0.0105  # that of the usual linear VP process at 0.001

_NEAR = 1e-9


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


def visits(times: tuple[float, float], save: Sequence[float]) -> tuple[Array, list[float]]:
    """The times at which every sample has a step end, in order, and those to keep."""
    first, last = times
    for t in save:
        if not last <= t <= first:
            raise BadInput(f"save: t = {t:g} must lie in [{last:g}, {first:g}], the times of the run's steps")
    keep = sorted({float(t) for t in save}, reverse=True)
    return np.array([t for t in keep if last < t < first] + [last]), keep


class Pair:
    """A control's method on a process.

    Parameters
    ----------
    process : Process
    control : Control
    times : (first, last)
    data : bool
        Whether the run goes on from ``last`` to the data.
    of_state : bool
        Whether the model maps the state to its score.

    Attributes
    ----------
    law : Law
        What its normals are of a Brownian path.
    noises, asks : int
        Normals and calls of an attempt.
    reuses, stays : bool
        Whether the first call of an attempt serves the next after a rejection, and the last one after an accepted step.
    end : Rows or None
        The step from ``last`` to the data.

    Raises
    ------
    BadInput
        For a method without an embedded result, or with noise of another kind than the control says.
    """

    def __init__(self, process: Process, control: Control, times: tuple[float, float], data: bool, of_state: bool) -> None:
        self.control, self.of_state, self._reverse = control, of_state, Reverse(process, control.method.noise)
        probe = self.rows(self.step(np.array([times[0]]), np.array([times[1]])))
        if probe.embedded is None:
            raise BadInput(f"{control.method} has no embedded result, so that its error is unknown: take heun(), sra(), dpm_solver(2) or such")
        self.noises, self.asks = probe.noises, len(probe.asks)
        self.law = self._law(process.noise(times[0]).shape[-1])
        self.reuses = control.reuse and _same(probe.asks[0].argument, self._asked(probe, process, times[0]))
        self.stays = self.reuses and _same(probe.asks[-1].argument, self._asked(probe, process, times[1], probe.out))
        self.end = self._end(times[1]) if data else None

    def _law(self, channels: int) -> Law:
        method = self.control.method
        if method.exact_noise is not None:
            return Transfers(self._reverse, method.exact_noise[0])
        if self.noises not in (0, channels, 2 * channels) and self.control.noise == "path":
            rule = f"the increments and areas of {channels} channels"
            raise BadInput(f"{method} draws {self.noises} normals a step, which are not {rule}")
        return Increments(channels, self.noises == 2 * channels)

    def step(self, t: Array, s: Array) -> Step:
        """Steps from ``t`` (n,) to ``s``, side by side."""
        return Step(self._reverse.leg(np.stack([t, s])), 0, (), self.of_state)

    def rows(self, step: Step) -> Rows:
        """The method's rows of the steps."""
        return self.control.method.rows(step)

    def nodes(self, step: Step) -> Array:
        """Times (m + 1, n) between which the steps see noise of their own: their ends, and stages that cut it."""
        times, parts = step.leg.times, (self.control.method.exact_noise or ("", ()))[1]
        if not parts:
            return times
        stages = step.stages("log", *parts)
        return np.stack([times[0], *(np.ravel(stages.point(j).t) for j in range(1, stages.n)), times[1]])

    def stacked(self, rows: Rows) -> Array:
        """All rows of a step, (n, o, r): those of the asks, the result, the other result, the error, and what the tolerance reads if that differs."""
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

    def _asked(self, rows: Rows, process: Process, t: float, z: Array | None = None) -> Array:
        """What the model would be asked about the state ``z``, the old one when absent."""
        state = np.eye(rows.k, rows.out.shape[-1]) if z is None else z
        return np.asarray(state if self.of_state else process.kernel(t).observe[None] @ state)

    def _end(self, last: float) -> Rows:
        step = Step(self._reverse.leg([last, 0.0]), 0, (), self.of_state)
        if self.control.denoise == "exact":
            return end_rows(step, self._reverse.noisy)
        return step.rows(step.here.psi[:, None] @ step.ask(step.z, step.here).data)


class Last:
    """The step to the data, for samples that leave.

    Parameters
    ----------
    rows : Rows
        With one call.
    noise : Noise
    place : (leg, step)
        Of its normals.
    reference : array
        Carries library, dtype and device.
    """

    def __init__(self, rows: Rows, noise: Noise, place: tuple[int, int], reference: Any) -> None:
        load = Load()
        self.level = float(rows.asks[0].level)
        self._question, self._out = Table(rows.asks[0].argument[None], load), Table(rows.out[None], load)
        self._noise, self._place, self._reference = noise, place, reference
        self._addresses = [Address(METHOD, *place, slot) for slot in range(rows.noises)]
        load.send(reference)

    def draw(self, ids: Ints, load: Load) -> Draw:
        """Its normals."""
        return Draw(self._noise, self._addresses, np.full(len(ids), self._place[1]), ids, load)

    def question(self, z: list[Any]) -> list[Any]:
        """What the model is asked."""
        return self._question(z)

    def made(self, z: list[Any], draw: Draw, answers: list[Any]) -> tuple[list[Any], Any]:
        """The data, or the state where they are not finite; and where they are, as numbers (n,)."""
        xp, event = namespace(z[0]), tuple(int(v) for v in z[0].shape[1:])
        made = self._out([*z, *draw.made(event, self._reference), *answers])
        flat = [block.reshape((z[0].shape[0], -1)) for block in made]
        good = xp.all(xp.stack([xp.all(xp.isfinite(block), axis=1) for block in flat]), axis=0)
        wide = good.reshape((-1, *(1,) * len(event)))
        return [xp.where(wide, new, old) for new, old in zip(made, z, strict=True)], zeros((len(good),), self._reference) + good


def _same(one: Array, two: Array) -> bool:
    """Whether two rows are the same but for rounding."""
    return bool(np.max(np.abs(one - two)) <= _NEAR * np.max(np.abs(two)))
