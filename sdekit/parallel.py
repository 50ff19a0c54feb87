r"""Sampling in parallel over time: all steps of a window at once, swept until they agree with the sequential run.

A sweep takes every step :math:`\Phi_i` from the last sweep's states and adds up the changes, in coordinates :math:`u = z / c(t)` of unit variance,

.. math:: u_{j+1} \leftarrow u_0 + \sum_{i \le j} \big[\Phi_i(z_i)/c_{i+1} - z_i/c_i\big], \qquad c^2 = \mathrm{diag}\,S + \sigma_d^2 \psi^2 .

After ``k`` sweeps the first ``k`` states are those of the sequential run, so that as many sweeps as steps suffice; far fewer do.  The coordinates
decide how many: on VP they are those of Shih et al. 2023, on EDM and VE the plain sum of changes takes three times as many sweeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._array import dtype_of, is_torch, like, namespace, statuses, to_host, unwatched
from .errors import BadInput, finite, positive, whole
from .grids import Grid
from .methods import Method
from .noise import Noise, as_noise
from .plans import Plan
from .process import Process
from .sampling import Samples, begin_at, chosen_ids, prepare, shape_of
from .solve import Program
from .tableau import ByTerms, Rows, by_terms

Array = NDArray[np.float64]

__all__ = ["Swept", "picard"]


@dataclass(frozen=True, eq=False)
class Swept(Samples):
    """Samples with what the sweeps took.

    Attributes
    ----------
    sweeps, depth : int
        Sweeps, and the batched model calls in sequence that they took: a sequential run has depth ``nfe``.
    """

    sweeps: int = 0
    depth: int = 0


def picard(
    process: Process,
    denoise: Any,
    *,
    method: Method | None = None,
    grid: Grid | None = None,
    plan: Plan | None = None,
    n: int | None = None,
    ids: ArrayLike | None = None,
    shape: Any = None,
    start: Any = None,
    seed: int | Noise = 0,
    dtype: Any = None,
    device: Any = None,
    window: int | None = None,
    tolerance: float = 0.0,
    sweeps: int | None = None,
    sigma_data: float = 0.5,
) -> Swept:
    """Draw the same samples as :func:`sdekit.sample` with fewer model calls in sequence, each on a larger batch.

    Parameters
    ----------
    process, denoise, method, grid, plan, n, ids, shape, start, seed, dtype, device
        As for :func:`sdekit.sample`; ``denoise`` is called with an array of levels, and ``start`` is None, "stationary" or a law.
    window : int, optional
        Steps swept together; all of them when absent.  The window slides over those that have settled.
    tolerance : float
        A state has settled when it moved by at most this much in units of its standard deviation (root mean square over elements, worst sample).
        0 gives the sequential run, to the rounding of a batched model.
    sweeps : int, optional
        Most sweeps; as many as there are steps when absent, which always suffices.
    sigma_data : float
        Standard deviation of the data, for the coordinates; only the number of sweeps depends on it.

    Returns
    -------
    Swept

    Raises
    ------
    BadInput
        For a plan with a move that is not affine, or a model of the whole state.

    References
    ----------
    Shih, Belkhale, Ermon, Sadigh and Anari 2023, arXiv:2305.16317 (ParaDiGMS).
    """
    if getattr(denoise, "of_state", False):
        raise BadInput("picard batches calls of a denoiser over levels; a model of the whole state is asked at one time: use sample")
    prog = prepare(process, method, grid, plan)
    for item in prog.items:
        if not isinstance(item.move, Rows):
            raise BadInput(f"{type(item.move).__name__} is not an affine move: it cannot be swept in parallel; use sample")
    steps = len(prog.items)
    most, width = (steps if value is None else whole(name, value) for name, value in (("sweeps", sweeps), ("window", window)))
    if finite("tolerance", tolerance) < 0.0:
        raise BadInput(f"tolerance = {tolerance!r} must not be negative")
    chosen, source = chosen_ids(n, ids, None), as_noise(seed)
    event, reference = shape_of(denoise, shape, start, None), dtype_of(dtype, device, denoise)
    with unwatched(reference):
        state = begin_at(process, float(prog.times[0]), start, chosen, event, source, reference)
        normals = [list(source.draw(item.addresses, chosen, event, reference)) if item.addresses else [] for item in prog.items]
        sweeper = _Sweeper(prog, denoise, state, normals, _scales(process, prog.times, positive("sigma_data", sigma_data)), reference)
        done = 0
        while done < steps and sweeper.sweeps < most:
            done = sweeper.sweep(done, min(done + width, steps), tolerance)
        made = sweeper.states[-1]
        status = tuple(statuses(made))
        z = namespace(made[0]).stack(made)
    return Swept(z, np.full(len(chosen), sweeper.nfe), status, chosen, sweeps=sweeper.sweeps, depth=sweeper.depth)


def _scales(process: Process, times: Array, sigma_data: float) -> Array:
    """Standard deviations of the blocks at the times, (times, k); a block that is known at time 0 keeps its last one."""
    kernel = process.kernel(times)
    scales = np.sqrt(np.diagonal(kernel.cov, axis1=-2, axis2=-1) + sigma_data**2 * kernel.psi**2)
    for i in range(1, len(scales)):
        scales[i] = np.where(scales[i] > 0.0, scales[i], scales[i - 1])
    return np.asarray(scales)


class _Sweeper:
    """States and memories before each step of a program, and what it took to get them."""

    def __init__(self, prog: Program, denoise: Any, state: list[Any], normals: list[list[Any]], scales: Array, reference: Any) -> None:
        self.items, self.tables = prog.items, prog.tables(ByTerms, reference)
        self.denoise, self.normals, self.scales = denoise, normals, scales.tolist()
        self.states = [state] * len(self.scales)
        self._spread(0)
        # zeros of the right number until the first sweep has passed
        self.memories: list[list[Any]] = [[], *([0.0 * state[0]] * len(table.keep) for table in self.tables)]
        self.sweeps = self.depth = self.nfe = 0

    def _spread(self, known: int) -> None:
        """The states after ``known`` as that one, in units of their standard deviations: the guess of a first sweep."""
        unit = [z / c for z, c in zip(self.states[known], self.scales[known], strict=True)]
        for i in range(known + 1, len(self.states)):
            self.states[i] = [c * v for c, v in zip(self.scales[i], unit, strict=True)]

    def sweep(self, first: int, last: int, tolerance: float) -> int:
        """Take steps ``first .. last - 1`` at once; returns the number of the state up to which all have settled."""
        here = range(first, last)
        registers = {i: [*self.states[i], *([] if self.items[i].fresh else self.memories[i]), *self.normals[i]] for i in here}
        for stage in range(max(len(self.tables[i].asks) for i in here)):
            asking = [i for i in here if stage < len(self.tables[i].asks)]
            arguments = [by_terms(self.tables[i].asks[stage][0][0], registers[i]) for i in asking]
            answers = _batched(self.denoise, arguments, [self.tables[i].asks[stage][1] for i in asking])
            for i, answer in zip(asking, answers, strict=True):
                registers[i].append(answer)
            self.depth, self.nfe = self.depth + 1, self.nfe + len(asking)
        self.sweeps += 1
        old, settled = self.states[first : last + 1], first + 1
        unit = [z / c for z, c in zip(old[0], self.scales[first], strict=True)]
        for i in here:
            made, low, high = [by_terms(row, registers[i]) for row in self.tables[i].out], self.scales[i], self.scales[i + 1]
            self.memories[i + 1] = [by_terms(row, registers[i]) for row in self.tables[i].keep]
            unit = [v + (m / b - z / a) for v, m, z, a, b in zip(unit, made, old[i - first], low, high, strict=True)]
            self.states[i + 1] = made if i == first else [b * v for b, v in zip(high, unit, strict=True)]
            apart = max(_moved(new, z) / b for new, z, b in zip(self.states[i + 1], old[i + 1 - first], high, strict=True))
            settled += int(settled == i and apart <= tolerance)
        if settled == last:
            self._spread(last)
        return settled


def _batched(denoise: Any, arguments: list[Any], levels: list[float]) -> list[Any]:
    """The answers at several levels by one call."""
    n, xp = arguments[0].shape[0], namespace(arguments[0])
    sigma = like(np.repeat(np.array(levels), n), arguments[0])
    joined = denoise(xp.concat(arguments, axis=0), sigma)
    return [joined[i * n : (i + 1) * n] for i in range(len(levels))]


def _moved(new: Any, old: Any) -> float:
    """Largest root mean square change of a sample; infinite for what is not a number."""
    gap = (new - old).reshape((new.shape[0], -1))
    square = gap * gap
    worst = float(to_host(square.mean(dim=1) if is_torch(square) else square.mean(axis=1)).max())
    return float(np.sqrt(worst)) if np.isfinite(worst) else np.inf
