r"""Stochastic improved Euler for general equations: one step, and steps by error control, for each sample its own.

.. math:: K_1 = h f(z, t) + (\Delta W - S \sqrt h)\,G(z, t), \quad K_2 = h f(z + K_1, t + h) + (\Delta W + S \sqrt h)\,G(z + K_1, t + h), \quad
          z'' = z + \tfrac12 (K_1 + K_2),

in the unit clock.  Signs :math:`S = \pm 1`, at random for each step and channel, give Ito's solution, since
:math:`(\Delta W - S\sqrt h)(\Delta W + S\sqrt h) = \Delta W^2 - h`; ``S = 0`` gives Stratonovich's.  The signs are those of the areas of the Brownian
path over the step, which do not depend on its increments: so they belong to the path, and what keeps the noise of a rejected step keeps them.

The other result, which measures the error, is Euler and Maruyama's :math:`z' = z + h f + \Delta W G`.  The published one is :math:`z + K_1`: with
signs its difference to :math:`z''` is :math:`S \sqrt h\,G` at first, whatever the error, so that steps go with the square of the tolerance.
"""

from __future__ import annotations

import time
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .control import Control, Past
from .equation import SDE
from .errors import BadInput
from .increments import Increments
from .noise import Noise
from .pieces import Pieces, Repeated

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

__all__ = ["Adapted", "along", "follow", "improved"]

_NEAR = 1e-9  # a step that leaves less than this part of itself takes it along


@dataclass(frozen=True, eq=False)
class Adapted:
    """How the steps of a forward run went.

    Attributes
    ----------
    accepted, rejected : int arrays (n,)
        Attempts of each sample; each evaluates drift and noise twice.
    t : array (n,)
        The time that each sample reached.
    """

    accepted: Ints
    rejected: Ints
    t: Array


def along(noise: Array, dW: Array) -> Array:
    """``G dW`` for each element."""
    return np.asarray(np.einsum("ij...,j...->i...", noise, dW))


def improved(sde: SDE, z: Array, t: Any, s: Any, h: Any, dW: Array, sign: Any) -> tuple[Array, Array, Array]:
    r"""The step of ``h`` in the unit clock from ``t`` to ``s``: :math:`z''`, :math:`z'` and :math:`z + K_1`.

    Parameters
    ----------
    sde : SDE
    z : array (k, n, *event)
    t, s, h : number, or array that broadcasts against (n, *event)
    dW : array (q, n, *event)
    sign : 0, or array (q, n, *event) of -1 and 1

    References
    ----------
    Roberts 2012, "Modify the Improved Euler scheme to integrate stochastic differential equations", arXiv:1210.0933.
    """
    noise, push = sde.noise(z, t), sign * h**0.5
    plain = z + h * sde.drift(z, t) + along(noise, dW)
    reached = plain - along(noise, push) if np.ndim(sign) else plain
    second = h * sde.drift(reached, s) + along(sde.noise(reached, s), dW + push)
    return 0.5 * (z + reached + second), plain, reached


def follow(
    sde: SDE, z: Array, times: Array, control: Control, signs: bool, noise: Noise, stops: Container[int]
) -> tuple[Array, list[Array], list[str], Adapted]:
    """Run every sample through ``times``, all of which it visits, with steps of its own between them.

    Parameters
    ----------
    sde : SDE
    z : array (k, n, *event)
    times : array (m,)
    control : Control
        Its method is ``heun()``, and the length of its first and smallest step a part of the run's in the unit clock.  With
        ``denoise="published"`` the other result is the published one.
    signs : bool
        Whether the solution is Ito's.
    noise : Noise
    stops : container of int
        Which of the times to keep.

    Returns
    -------
    state, kept, statuses, Adapted

    Raises
    ------
    BadInput
        For a control that means something else.
    """
    _suited(control)
    run = _Follow(sde, z, times, control, signs, noise)
    kept = {i: np.array(z) for i in range(len(times)) if i in stops}
    started = time.monotonic()
    while len(run.who):
        if time.monotonic() - started > control.seconds:
            run.stop((run.who >= 0, "budget"))
            break
        run.attempt(kept)
    for i, state in kept.items():  # a sample that stopped keeps what it has
        late = run.leg < i
        state[:, late] = run.z[:, late]
    reached = np.minimum(np.asarray(sde.clock.inverse(run.here), float), times[-1])
    return run.z, list(kept.values()), run.status, Adapted(run.accepted, run.rejected, np.where(run.leg == len(times) - 1, times[-1], reached))


def _suited(control: Any) -> None:
    if not isinstance(control, Control):
        raise BadInput(f"control = {control!r} must be a Control, such as sdekit.control.gotta_go_fast()")
    if control.method.name.split("(")[0] != "heun":
        raise BadInput(f"forward runs adapt the steps of improved Euler: the control's method must be heun(), not {control.method}")
    if control.estimate != "strong" or control.noiseless:
        raise BadInput("forward runs know the error as it is: leave estimate and noiseless of the control as they are")


class _Follow:
    def __init__(self, sde: SDE, z: Array, times: Array, control: Control, signs: bool, noise: Noise) -> None:
        self.sde, self.times, self.control, self.signs = sde, times, control, signs
        n, event, depth = z.shape[1], z.shape[2:], control.controller.depth
        self.q = sde.noise(z, times[0]).shape[1]
        self.z, self.other = np.array(z), np.array(z)
        self.B = np.asarray(sde.clock.integral(times), float)
        self.length = float(self.B[-1] - self.B[0])
        self.here, self.leg, self.h = np.full(n, self.B[0]), np.zeros(n, np.int64), np.full(n, control.h_init * self.length)
        self.past = Past(np.full((depth, n), np.nan), np.ones((depth, n)), np.full(n, np.nan))
        self.accepted, self.rejected = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.status, self.who = ["ok"] * n, np.arange(n)
        if control.noise == "path":
            self.path: Any = Pieces(noise, self.who, event, Increments(self.q, signs), z)
        else:
            self.path = Repeated(noise, self.who, event, self.q * (1 + signs), z, retain=control.noise == "retain")

    def attempt(self, kept: dict[int, Array]) -> None:
        """One attempt of each sample that is under way."""
        control, who, event = self.control, self.who, (1,) * (self.z.ndim - 2)
        start, end = self.here[who], self.B[self.leg[who] + 1]
        whole = self.h[who] >= (end - start) * (1.0 - _NEAR)
        h = np.where(whole, end - start, self.h[who])
        reached = np.where(whole, end, start + h)
        t, s = (np.minimum(np.asarray(self.sde.clock.inverse(B), float), self.times[-1]).reshape(-1, *event) for B in (start, reached))
        wide = h.reshape(-1, *event)
        old = self.z[:, who]
        normals = np.reshape(self.path.over(h), ((1 + self.signs) * self.q, *old.shape[1:]))
        sign = np.copysign(1.0, normals[self.q :]) if self.signs else 0.0
        new, plain, first = improved(self.sde, old, t, s, wide, np.sqrt(wide) * normals[: self.q], sign)
        other = first if control.denoise == "published" else plain
        error = new - other
        if not control.extrapolate:
            new, other = other, new
        E = control.measure(list(error), list(other), list(self.other[:, who]), [])
        lost = ~np.isfinite(E)
        good = ~lost & ((E <= 1.0) | (not control.reject))
        self.path.settle(good)
        self.accepted[who] += good
        self.rejected[who] += ~good
        factor, past = Past(self.past.errors[:, who], self.past.ratios[:, who], self.past.last[who]).after(control.controller, h, E, good)
        self.past.errors[:, who], self.past.ratios[:, who], self.past.last[who] = past
        again = np.where(lost, 0.0, h * factor)
        self.h[who] = np.where(good & whole, np.maximum(again, self.h[who]), again)  # cut at a time to visit: what was to be is not forgotten
        moved = who[good]
        self.z[:, moved], self.other[:, moved], self.here[moved] = new[:, good], other[:, good], reached[good]
        self.leg[who[good & whole]] += 1
        for i in np.unique(self.leg[who[good & whole]]).tolist():
            if i in kept:
                own = who[good & whole & (self.leg[who] == i)]
                kept[i][:, own] = self.z[:, own]
        through = self.leg[who] == len(self.times) - 1
        spent = 2 * (self.accepted[who] + self.rejected[who] + 1) > control.nfe
        small = self.h[who] < control.h_min * self.length
        self.stop((through, "ok"), (lost, "nonfinite"), (small, "h_min"), (spent, "budget"))

    def stop(self, *reasons: tuple[NDArray[np.bool_], str]) -> None:
        """Let samples go, each for the first reason that holds for it."""
        gone = np.zeros(len(self.who), bool)
        for which, why in reasons:
            for i in self.who[which & ~gone].tolist():
                self.status[i] = why
            gone |= which
        self.path.take(np.flatnonzero(~gone))
        self.who = self.who[~gone]
