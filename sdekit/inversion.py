r"""From data to noise: the probability-flow ODE run upwards, so that sampling from what it gives returns the data.

A step from ``s`` up to ``t > s`` inverts the exponential Runge-Kutta step: with :math:`E` the forward mean over it and eps as in
:mod:`sdekit.reverse`,

.. math:: \tilde z = E (z_s - V \epsilon_s), \qquad z_t = E \big(z_s - \tfrac12 V (\epsilon_s + \tilde\epsilon_t)\big), \qquad V = R_s - E^{-1} R_t .
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._array import dtype_of, like, namespace, statuses, to_host, unwatched
from .errors import BadInput, unknown
from .grids import Grid
from .noise import PRIOR, Address, Noise, as_noise
from .process import Process
from .reverse import Leg, Reverse
from .sampling import Samples, as_model
from .solve import Item, Program, solve
from .tableau import Rows, Step

__all__ = ["invert"]


def _up(leg: Leg, i: int, order: int, of_state: bool) -> Rows:
    """The rows of step ``i`` of ``leg``, taken upwards."""
    step = Step(leg, i, (), of_state)
    flow, roots = step.epsilon_flow, leg.roots
    rise = np.linalg.inv(flow.back)
    low = -roots[i + 1].T @ step.ask(step.z, step.there).score
    high = rise @ (step.z - flow.whole @ low)
    if order == 2:
        again = -roots[i].T @ step.ask(high, step.here).score
        high = rise @ (step.z - 0.5 * flow.whole @ (low + again))
    return step.rows(high)


def invert(
    process: Process, denoise: Any, x: Any, grid: Grid, *, order: int = 2, start: str = "mean", seed: int | Noise = 0, dtype: Any = None
) -> Samples:
    """The state at the first time of ``grid`` from which the probability-flow ODE leads to the data ``x``.

    Parameters
    ----------
    process : Process
    denoise : callable
        As for :func:`sdekit.sample`.
    x : array (n, *shape)
    grid : Grid
        The sampler's grid, run backwards; a last time 0 is left out, as the step to the data loses what it denoises.
    order : int
        2, or 1: DDIM inversion, one model call a step instead of two.
    start : {"mean", "sample"}
        The state at the lowest time: the kernel's mean given ``x``, auxiliary blocks included, or a draw from the kernel.
    seed : int or Noise
    dtype : optional
        Of the state; that of the model when absent.

    Returns
    -------
    Samples
        ``state`` at the highest time, for ``sample(..., start=(state, t))``.

    Raises
    ------
    BadInput
        For another order or start, or data whose first axis is not the samples.

    References
    ----------
    Song, Meng and Ermon 2020, arXiv:2010.02502, section 5.4, for order 1.
    """
    if order not in (1, 2):
        raise BadInput(f"order = {order!r} of the inversion must be 1 or 2")
    if start not in ("mean", "sample"):
        raise unknown("start", start, ["mean", "sample"])
    if not hasattr(x, "shape") or len(x.shape) < 1 or not x.shape[0]:
        raise BadInput(f"x must be an array (n, *shape) of data, got {type(x).__name__}")
    times = np.asarray(grid.times(process), float)
    leg = Reverse(process).leg(times[:-1] if times[-1] == 0.0 else times)
    of_state = bool(getattr(denoise, "of_state", False))
    rows = [(i, _up(leg, i, order, of_state)) for i in reversed(range(leg.steps))]
    items = tuple(Item(made, float(leg.times[i + 1]), float(leg.times[i]), (), True) for i, made in rows)
    prog = Program(process, (), items, order * leg.steps)
    reference = dtype_of(dtype, None, denoise)
    data, kernel, ids = like(to_host(x), reference), process.kernel(float(leg.times[-1])), np.arange(x.shape[0])
    state = [float(psi) * data for psi in kernel.psi]
    if start == "sample":
        xi = as_noise(seed).draw([Address(PRIOR, slot=i) for i in range(process.k)], ids, tuple(x.shape[1:]), reference)
        state = [block + sum(float(c) * xi[j] for j, c in enumerate(row)) for block, row in zip(state, kernel.chol, strict=True)]
    with unwatched(reference):
        made, _ = solve(prog, state, as_model(denoise), ids=ids)
        status = tuple(statuses(made))
    return Samples(namespace(made[0]).stack(made), np.full(len(ids), prog.nfe), status, ids)
