r"""Plans that repeat released samplers call for call: the PNDM repository and diffusers, with their indices.

There a step is a list of calls of the network at *labels* and transfers between entries of the table of :math:`\bar\alpha`, and the two need
not fit: the repository asks at label ``i`` about a state whose noise is that of ``i + 1``.  With the network's

.. math:: \epsilon(x, i) = \frac{x - a_i D(x / a_i; \sigma_i)}{s_i}

any such list is a table of rows.  These plans say what the published code computes; for sampling use :mod:`sdekit.methods` over
``table.grid(...)``.  They start from standard normals: ``sdekit.sample(table.process, denoise, plan=plan, start="stationary")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import BadInput, unknown, whole
from .grids import times
from .methods import Method, ddim, exponential_rk
from .methods.pndm import ADAMS
from .plans import Interval, Jump, Plan, Run
from .plans import Move as PlanMove
from .plans._restart import as_intervals
from .process import Process
from .reverse import Point, points
from .tableau import Rows, Step
from .tables import Table, transfer

Array = NDArray[np.float64]

__all__ = ["Move", "diffusers_ddim", "diffusers_pndm", "diffusers_restart", "pndm_repository"]

_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
_DATA = 2.0**-104  # -log abar that stands for abar = 1 in the list of times: a sigma below rounding


class Move(NamedTuple):
    r"""One transfer, :math:`x' = \phi(x, \sum_j w_j e_j)` from one entry of the table to another, and the calls it needs.

    Attributes
    ----------
    way : (float, float)
        :math:`\bar\alpha` that ``x`` is taken to have, and that of the new state.
    labels : tuple of float
        Where the network is asked.
    stages : tuple of (float, float)
        The same two for the state of each call but the first: the transfer of ``x`` with the answer before.
    weights : tuple of float
        Of this move's answers, then of the first answers of earlier moves, newest first.
    linear : float
        If not 0, FON's derivative takes the place of the transfer: stages and result are ``x`` plus this many times the change
        :math:`\phi(x, e) - x` (halfway for the second and third call), and changes are what is remembered.
    """

    way: tuple[float, float]
    labels: tuple[float, ...]
    stages: tuple[tuple[float, float], ...]
    weights: tuple[float, ...]
    linear: float = 0.0


class _Network:
    """The network of labels, in rows."""

    def __init__(self, step: Step, table: Table) -> None:
        self.step, self.table = step, table

    def __call__(self, x: Array, label: float) -> Array:
        reverse, t = self.step.leg.reverse, np.atleast_1d(self.table.time(label))
        at: Point = points(reverse, t, reverse.process.kernel(t))[0]
        return np.asarray(-at.chol.T @ self.step.ask(x, at).score)


def _phi(x: Array, e: Array, way: tuple[float, float]) -> Array:
    keep, add = transfer(*way)
    return keep * x + add * e


def _transferred(move: Move, x: Array, past: Sequence[Array], ask: _Network) -> tuple[Array, Array]:
    """The new state, and what to remember."""
    answers = [ask(x, move.labels[0])]
    for label, way in zip(move.labels[1:], move.stages, strict=True):
        answers.append(ask(_phi(x, answers[-1], way), label))
    return _phi(x, _mixed(move, answers, past), move.way), answers[0]


def _shifted(move: Move, x: Array, past: Sequence[Array], ask: _Network) -> tuple[Array, Array]:
    """The same for FON, whose stages are shifts of ``x``, and whose transfer always starts from ``x``."""

    def change(state: Array, label: float) -> Array:
        return np.asarray(_phi(x, ask(state, label), move.way) - x)

    changes = [change(x, move.labels[0])]
    for label, part in zip(move.labels[1:], (0.5, 0.5, 1.0), strict=False):
        changes.append(change(x + part * move.linear * changes[-1], label))
    return x + move.linear * _mixed(move, changes, past), changes[0]


def _mixed(move: Move, own: Sequence[Array], past: Sequence[Array]) -> Array:
    return np.asarray(sum(w * e for w, e in zip(move.weights, [*own, *past], strict=False)))


def _rows(step: Step, table: Table, steps: tuple[tuple[Move, ...], ...]) -> Rows:
    if step.leg.reverse.process != table.process:
        raise BadInput(f"this plan repeats indices of its own table; run it on table.process, not on {step.leg.reverse.process.name!r}")
    ask, x, past = _Network(step, table), step.z, list(step.memory)
    for move in steps[step.i]:
        x, first = (_shifted if move.linear else _transferred)(move, x, past, ask)
        past = [first, *past][:3]
    return step.rows(x, keep=past)


def _plan(table: Table, name: str, start: Sequence[float], end: float, moves: Sequence[Move], reference: str) -> Plan:
    """The plan of ``moves`` from the entries ``start`` of the table to ``end``; one that ends where it starts belongs to the one before."""
    levels = [*(-np.log(abar) for abar in start), max(-float(np.log(end)), _DATA)]
    if len(levels) > 2 and levels[-1] == levels[-2]:
        levels.pop()
    steps = [*((move,) for move in moves[: len(levels) - 2]), tuple(moves[len(levels) - 2 :])]
    calls = [sum(len(move.labels) for move in step) for step in steps]
    params = (("table", table), ("steps", tuple(steps)))
    return Plan(times(levels), Method(name, _rows, params, start=tuple(calls), history=3, reference=reference))


def _adams(done: int) -> tuple[float, ...]:
    return ADAMS[min(done, 3)]


# ---------------------------------------------------------------------------------------------------------------- PNDM repository


def pndm_repository(table: Table, n: int, method: str = "F-PNDM") -> Plan:
    r"""The sampler of the PNDM repository asked for ``n`` steps.

    It visits the multiples of ``T // n``, more than ``n`` of them where ``n`` does not divide T; asks at label ``i`` about a state with the noise of
    label ``i + 1``, which is the larger part of its error from 20 steps on; cuts half labels for the table but not for the network; and ends
    at :math:`\bar\alpha_0`, not at the data.

    Parameters
    ----------
    table : Table
        ``tables.linear(single=True)`` has the digits of the release.
    n : int
    method : {"DDIM", "S-PNDM", "F-PNDM", "FON"}

    Raises
    ------
    BadInput
        For another method; for fewer than four steps (two for S-PNDM), whose Runge-Kutta steps would ask below label 0; and where the first
        label is the last of the table, as for ``n = T``: the release then reads one entry beyond it and fails.
    """
    least = {"DDIM": 1, "S-PNDM": 2, "F-PNDM": 4, "FON": 4}
    if method not in least:
        raise unknown("method", method, least)
    labels = table.labels(n, "released")
    if labels[0] + 1 >= len(table):
        raise BadInput(f"n = {n}: the release starts at label {labels[0]} and reads the entry after the last; take an n with another T // n")
    if len(labels) < least[method]:
        raise BadInput(f"n = {n}: {method} of the release needs at least {least[method]} steps, or it asks below label 0")

    def entry(label: float) -> float:
        return table.abar[int(label) + 1]

    moves = []
    for i, (t, s) in enumerate(pairwise([*labels, -1])):
        half = 0.5 * (t + s)
        step = Move((entry(t), entry(s)), (t,), (), _adams(0 if method == "DDIM" else min(i, 1) if method == "S-PNDM" else i))
        if i == 0 and method == "S-PNDM":
            step = step._replace(labels=(t, s), stages=(step.way,), weights=(0.5, 0.5))
        elif i < 3 and method in ("F-PNDM", "FON"):
            to_half = (entry(t), entry(half))
            step = step._replace(labels=(t, half, half, s), stages=(to_half, to_half, step.way), weights=_KUTTA)
        moves.append(step._replace(way=(entry(t), entry(t - 1)), linear=float(t - s)) if method == "FON" else step)
    reference = "Liu, Ren, Lin and Zhao 2022, arXiv:2202.09778 (code)"
    return _plan(table, f"pndm_repository({n}, {method})", [entry(t) for t in labels], entry(-1), moves, reference)


# ---------------------------------------------------------------------------------------------------------------- diffusers


class _Strides:
    """Labels of a scheduler, where it goes from each, and the entries of the table: the step is T // n whatever the spacing."""

    def __init__(self, table: Table, n: int, spacing: str, offset: int, alpha_one: bool, stride: str) -> None:
        if spacing not in ("leading", "trailing", "linspace"):
            raise unknown("spacing", spacing, ["leading", "trailing", "linspace"])
        if stride not in ("released", "grid"):
            raise unknown("stride", stride, ["released", "grid"])
        self.table, self.labels, self.width = table, table.labels(n, spacing, offset), len(table) // n
        self.released = stride == "released"
        self.last = 1.0 if alpha_one else table.abar[0]

    def entry(self, label: float) -> float:
        return float(np.exp(-self.table.time(label))) if label != int(label) else self.table.abar[int(label)] if label >= 0 else self.last

    def way(self, t: float, s: float) -> tuple[float, float]:
        return self.entry(t), self.entry(s)

    def after(self, i: int) -> int:
        """The label that the step from label number ``i`` goes to; negative at the end."""
        if self.released:
            return self.labels[i] - self.width
        return self.labels[i + 1] if i + 1 < len(self.labels) else -1


def diffusers_ddim(table: Table, n: int, spacing: str = "leading", offset: int = 0, alpha_one: bool = True, stride: str = "released") -> Plan:
    r"""DDIM with ``eta = 0`` as in diffusers' ``DDIMScheduler``, without its clipping.

    Parameters
    ----------
    table : Table
    n : int
    spacing, offset : str, int
        ``timestep_spacing`` and ``steps_offset``.
    alpha_one : bool
        ``set_alpha_to_one``: the last step goes to :math:`\bar\alpha = 1`, else to that of label 0.
    stride : {"released", "grid"}
        Where a step goes: ``T // n`` labels on, which is not the next label for linspace and for ``n`` that do not divide T (diffusers issues
        9261, 11347), or the next label.

    Raises
    ------
    BadInput
        For an option that is not known, more steps than labels, or a run that goes nowhere.
    """
    at = _Strides(table, n, spacing, offset, alpha_one, stride)
    moves = [Move(at.way(t, at.after(i)), (t,), (), (1.0,)) for i, t in enumerate(at.labels)]
    return _diffusers(at, "diffusers_ddim", moves)


def diffusers_pndm(
    table: Table, n: int, skip_prk: bool = False, spacing: str = "leading", offset: int = 0, alpha_one: bool = False, stride: str = "released"
) -> Plan:
    r"""F-PNDM or PLMS as in diffusers' ``PNDMScheduler``, for a network of eps.

    Parameters
    ----------
    table : Table
    n : int
    skip_prk : bool
        ``skip_prk_steps``: PLMS with ``n + 1`` calls (its second label comes twice) in the place of Runge-Kutta steps with ``n + 9``.
    spacing, offset, alpha_one
        As for :func:`diffusers_ddim`.  With the defaults the last call is wasted: the transfer goes from :math:`\bar\alpha_0` to itself.
    stride : {"released", "grid"}
        As for :func:`diffusers_ddim`; and where ``T // n`` is odd, the release asks the second call of a Runge-Kutta step one label below
        that of its state.

    Raises
    ------
    BadInput
        As for :func:`diffusers_ddim`, and for fewer than four steps with Runge-Kutta steps, where diffusers fails too.
    """
    if whole("n", n) < 4 and not skip_prk:
        raise BadInput(f"n = {n}: diffusers' PNDM needs at least 4 steps, or skip_prk=True")
    at = _Strides(table, n, spacing, offset, alpha_one, stride)
    labels, width, moves = at.labels, at.width, []
    for i, t in enumerate(labels):
        s = at.after(i)
        if not skip_prk and i < 3:
            s = labels[i + 1]
            middle = s + width // 2 if at.released else 0.5 * (t + s)
            first, third = (t - width // 2, middle - width // 2) if at.released else (middle, s)
            moves.append(Move(at.way(t, s), (t, middle, middle, s), (at.way(t, first), at.way(t, middle), at.way(t, third)), _KUTTA))
        elif skip_prk and i == 0 and n > 1:
            end = labels[1]
            moves.append(Move(at.way(end + width if at.released else t, end), (t, end), (at.way(t, s),), (0.5, 0.5)))
        else:
            moves.append(Move(at.way(t, s), (t,), (), _adams(i)))
    return _diffusers(at, "diffusers_plms" if skip_prk else "diffusers_pndm", moves)


def _diffusers(at: _Strides, name: str, moves: Sequence[Move]) -> Plan:
    start, end = [at.entry(t) for t in at.labels], moves[-1].way[1]
    if len(start) == 1 and start[0] == end:
        raise BadInput(f"{name}: one step from label 0 to itself does nothing; use more steps, or alpha_one=True")
    return _plan(at.table, f"{name}({len(start)})", start, end, moves, "diffusers (code)")


# ---------------------------------------------------------------------------------------------------------------- Restart in diffusers


@dataclass(frozen=True)
class _Cycles:
    """After the main step to ``times[0]``: ``K`` times up to ``times[-1]`` and down again through the others."""

    table: Table
    legs: tuple[tuple[int, tuple[int, ...]], ...]

    def __call__(self, moves: list[PlanMove], process: Process) -> list[PlanMove]:
        (main,) = moves
        if process != self.table.process or not isinstance(main, Run):
            raise BadInput(f"this plan repeats labels of its own table; run it on table.process, not on {process.name!r}")
        cycles = {float(self.table.time(labels[-1])): (j, K, labels) for j, (K, labels) in enumerate(self.legs)}
        out: list[PlanMove] = []
        begin = 0
        for end, t in enumerate(main.times):
            if t in cycles or end == len(main.times) - 1:
                out += [Run(main.method, main.times[begin : end + 1], first=begin)] if end > begin else []
                out += self._way(*cycles[t]) if t in cycles else []
                begin = end
        return out

    def _way(self, j: int, K: int, labels: tuple[int, ...]) -> list[PlanMove]:
        times = tuple(self.table.time(labels).tolist())
        turn = len(times) - 2 if labels[-1] <= 1 else len(times) - 1  # the last correction is left out at the last labels
        parts = [(exponential_rk(2), times[: turn + 1], 0), (ddim(), times[turn:], turn)]
        way: list[PlanMove] = []
        for leg in (1 + 1024 * j + cycle for cycle in range(K)):
            way += [Jump(times[-1], times[0], leg=leg), *(Run(method, part, leg, first) for method, part, first in parts if len(part) > 1)]
        return way


def diffusers_restart(table: Table, intervals: Iterable[Interval], n: int = 30) -> Plan:
    r"""Restart as released for latent diffusion: DDIM over ``n`` leading labels with offset 1, then label 0, and Heun's method in the intervals.

    All is by labels: ``t_min`` moves to the nearest level of the main labels, ``t_max`` to the nearest of the table, and the way back is uniform in
    labels, rounded.  Its steps average eps, which is Heun's method in the level; the last one does not where it ends at label 1 or 0.

    .. math:: x \leftarrow \sqrt{\bar\alpha_2 / \bar\alpha_1}\, x + \sqrt{1 - \bar\alpha_2 / \bar\alpha_1}\, \xi

    The plan ends at label 0, with the noise that is left there.

    Parameters
    ----------
    table : Table
        ``tables.scaled_linear()`` is Stable Diffusion's.
    intervals : sequence of (N_restart, K, t_min, t_max)
        In sigma; ``sdekit.plans.published.stable_diffusion`` has the published ones, by weight of :func:`sdekit.denoiser.guided`.
    n : int

    Raises
    ------
    BadInput
        As for :func:`sdekit.plans.restart`; for an interval that moves to the first main label, where the release never restarts, onto another
        one, which the release drops, or has no label of the table inside where it needs one.

    References
    ----------
    Xu et al. 2023, arXiv:2306.14878 (code).
    """
    labels = (*table.labels(n, "leading", 1), 0)
    legs: dict[int, tuple[int, tuple[int, ...]]] = {}
    for N, K, low, high in as_intervals(intervals):
        at = int(np.argmin(np.abs(table.sigma[list(labels)] - low)))
        top = int(np.argmin(np.abs(table.sigma - high)))
        way = tuple(int(label) for label in np.round(np.linspace(labels[at], top, N))[::-1])
        if at == 0:
            raise BadInput(f"t_min = {low:g} moves to the first label {labels[0]}, where nothing has run yet; lower it")
        if labels[at] in legs:
            raise BadInput(f"two restart intervals move to the same label {labels[at]}; merge them, or move one")
        if any(t <= s for t, s in pairwise(way)):
            raise BadInput(f"restart interval {(N, K, low, high)} moves to labels {way}; widen it or use fewer points")
        legs[labels[at]] = K, way
    return Plan(table.grid(labels), ddim(), (_Cycles(table, tuple(legs.values())),))
