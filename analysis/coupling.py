r"""A certificate for any model: how much of an earlier error Restart has left, from pairs of chains that meet.

Two chains run the same backward legs from starts of two laws; the noise of each cycle is coupled so that they meet as often as can be.  Once
they have met they stay together, so whatever the model,

.. math:: TV(\mathrm{law}\, x_K, \mathrm{law}\, y_K) \le P(\text{not met by } K) .

With ``y`` from the exact law at ``t_min`` this bounds the contracted error, not what the legs themselves add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, finite, whole
from ..grids import sigmas
from ..law import Law
from ..methods import Method
from ..noise import CORRECTOR, MOVE, Address, Addressed
from ..plans import Jump, Run, restart
from ..process import Process
from ..sampling import as_model
from ..solve import Program, assemble, solve

Array = NDArray[np.float64]

__all__ = ["Lagged", "Meeting", "couple", "couple_lagged"]

_APART = 4.0  # in units of the noise: farther chains take the same noise, and let the legs bring them together


def _upper(hits: NDArray[np.int64], n: int, level: float) -> Array:
    """Clopper and Pearson's one-sided upper bound of a probability."""
    from scipy.special import betaincinv

    return np.where(hits >= n, 1.0, betaincinv(np.minimum(hits + 1.0, n), np.maximum(n - hits, 1.0), level))


@dataclass(frozen=True, eq=False)
class Meeting:
    """When pairs of chains met.

    Attributes
    ----------
    times : array (n,)
        The first cycle after which a pair was one, infinite if it never was.
    cycles : int
        How many were run.
    distance : array (cycles + 1,)
        Mean distance of the pairs before and after each cycle.
    level : float
        Confidence of :attr:`upper`.
    """

    times: Array
    cycles: int
    distance: Array
    level: float

    @property
    def _apart(self) -> NDArray[np.int64]:
        return np.asarray(np.count_nonzero(self.times > np.arange(self.cycles + 1)[:, None], axis=1), np.int64)

    @property
    def tv(self) -> Array:
        """Estimate of the bound after 0, 1, .. cycles: the share of pairs still apart, (cycles + 1,)."""
        return self._apart / len(self.times)

    @property
    def upper(self) -> Array:
        """The bound at its confidence (for each number of cycles by itself), (cycles + 1,)."""
        return _upper(self._apart, len(self.times), self.level)

    def stop(self, tolerance: float) -> int | None:
        """Fewest cycles whose bound is at most ``tolerance``; None if those that were run do not do."""
        found = np.flatnonzero(self.upper <= tolerance)
        return int(found[0]) if len(found) else None

    @property
    def rate(self) -> float:
        """What a cycle leaves of the share of pairs apart, in the mean from its half to where ten are left."""
        apart = self._apart
        inside = np.flatnonzero((apart <= 0.5 * len(self.times)) & (apart >= 10))
        if len(inside) < 2:
            return float("nan")
        first, last = inside[0], inside[-1]
        return float((apart[last] / apart[first]) ** (1.0 / (last - first)))

    def __str__(self) -> str:
        ends = ", ".join(f"K = {K}: {self.tv[K]:.3g} (at most {self.upper[K]:.3g})" for K in sorted({0, 1, self.cycles // 2, self.cycles}))
        return f"total variation left by Restart, {len(self.times)} pairs, {100.0 * self.level:g}% confidence: {ends}"

    __repr__ = __str__


@dataclass(frozen=True, eq=False)
class Lagged:
    r"""Meeting times of chains ``lag`` cycles apart: the distance of one sampler to the law that its cycle keeps, from itself alone.

    .. math:: TV(x_k, x_\infty) \le E \max\big(0, \lceil (\tau - L - k) / L \rceil\big)

    Attributes
    ----------
    times : array (n,)
        Cycles of the chain ahead, ``tau > L``, until it met the other; infinite if it never did.
    lag, cycles : int
    """

    times: Array
    lag: int
    cycles: int

    @property
    def tv(self) -> Array:
        """The bound after 0, 1, .. cycles, (cycles + 1,); infinite if a pair never met: run more cycles."""
        k = np.arange(self.cycles + 1)[:, None]
        return np.asarray(np.mean(np.maximum(0.0, np.ceil((self.times - self.lag - k) / self.lag)), axis=1))

    def __str__(self) -> str:
        met = int(np.sum(np.isfinite(self.times)))
        return f"{met} of {len(self.times)} pairs at lag {self.lag} met within {self.cycles} cycles; bound at 0 cycles {self.tv[0]:.3g}"

    __repr__ = __str__


class _Cycle:
    """One coupled Restart cycle of pairs of states."""

    def __init__(
        self, process: Process, denoise: Any, method: Method, interval: tuple[int, float, float], S_noise: float, apart: float, seed: int
    ) -> None:
        points, low, high = interval
        if not 0.0 < finite("t_min", low) < finite("t_max", high):
            raise BadInput(f"interval [{low:g}, {high:g}] needs 0 < t_min < t_max")
        self.t = float(process.time_of(low))
        self.process, self.model = process, as_model(denoise)
        self.noise, self.scale, self.apart = Addressed(seed), finite("S_noise", S_noise), finite("apart", apart)
        _, jump, leg = restart(sigmas([high, low]), [(points, 1, low, high)], method=method).moves(process)
        if not isinstance(jump, Jump) or not isinstance(leg, Run) or self.scale <= 0.0 or self.apart < 0.0:
            raise BadInput(f"S_noise = {S_noise!r} must be positive and apart = {apart!r} nonnegative: pairs can only meet in the noise")
        self.leg = leg
        law = process.transition(jump.s, jump.t)
        self.mean, self.root = law.mean, self.scale * law.chol

    def begin(self, start: Any, n: int, slot: int) -> Array:
        """States (k, n, *shape) at ``t_min``: given, or drawn from the noised law."""
        if isinstance(start, Law):
            kernel, ids = self.process.kernel(self.t), np.arange(slot * n, (slot + 1) * n)
            x0 = start.sample(ids=ids, seed=self.noise)
            xi = self.noise.draw([Address(CORRECTOR, slot=i) for i in range(self.process.k)], ids, tuple(start.shape))
            return np.multiply.outer(kernel.psi, x0) + np.tensordot(kernel.chol, xi, axes=1)
        state = np.array(start, float)
        if state.ndim < 2 or state.shape[0] != self.process.k or state.shape[1] != n:
            raise BadInput(f"start has shape {state.shape}; states at t_min must have shape ({self.process.k}, {n}, *shape), or give a law")
        return state

    def step(self, x: Array, y: Array, cycle: int) -> tuple[Array, Array]:
        """Both chains one cycle on."""
        k, n, *shape = x.shape
        ids = np.arange(n)
        xi = self.noise.draw([Address(MOVE, 1 + cycle, slot=i) for i in range(k)], ids, tuple(shape)).reshape(k, n, -1)
        toss = self.noise.draw([Address(CORRECTOR, 1 + cycle, slot=k)], ids, (1,))[0, :, 0]
        up, other = (np.tensordot(self.mean, z, axes=1).reshape(k, n, -1) for z in (x, y))
        eta, met = self._coupled(np.linalg.solve(self.root, (up - other).reshape(k, -1)).reshape(xi.shape), xi, toss)
        highs = [mean + np.tensordot(self.root, normals, axes=1) for mean, normals in ((up, xi), (other, eta))]
        highs[1] = np.where(met[None, :, None], highs[0], highs[1])
        program = self._down(cycle)
        ends = [solve(program, list(high.reshape(x.shape)), self.model, self.noise, ids)[0] for high in highs]
        return np.stack(ends[0]), np.stack(ends[1])

    def _coupled(self, gap: Array, xi: Array, toss: Array) -> tuple[Array, NDArray[np.bool_]]:
        """The other chain's normals: those that close the gap with the largest probability there is, else reflected; common ones far apart."""
        from scipy.special import log_ndtr

        square = np.sum(gap**2, axis=(0, 2))
        along = np.sum(gap * xi, axis=(0, 2))
        same = square == 0.0
        met = same | (log_ndtr(toss) <= -along - 0.5 * square)  # the density of xi + gap over that of xi
        mirrored = xi - 2.0 * gap * (along / np.where(same, 1.0, square))[None, :, None]
        far = square > self.apart**2
        eta = np.where(far[None, :, None], xi, mirrored)
        return np.where((met & ~far)[None, :, None], xi + gap, eta), met & ~far

    def _down(self, cycle: int) -> Program:
        leg = Run(self.leg.method, self.leg.times, 1 + cycle)
        return assemble(self.process, [leg])


def _separation(x: Array, y: Array) -> Array:
    gaps = np.moveaxis(x - y, 1, 0).reshape(x.shape[1], -1)
    return np.asarray(np.linalg.norm(gaps, axis=1))


def couple(
    process: Process,
    denoise: Callable[..., Any],
    method: Method,
    interval: tuple[int, float, float],
    start: Any,
    other: Any,
    *,
    cycles: int = 30,
    n: int = 500,
    S_noise: float = 1.0,
    apart: float = _APART,
    level: float = 0.95,
    seed: int = 0,
) -> Meeting:
    """Bound what Restart leaves of the difference between two starts, by pairs of chains that meet.

    Parameters
    ----------
    process, denoise, method
        Any model; a method with noise draws the same for both chains.
    interval : (N_restart, t_min, t_max)
    start, other : arrays (k, n, *shape), or Laws
        States at ``t_min``: a law stands for its noised data there.  A good coupling of the two starts, such as one made from the other, helps.
    cycles, n : int
        Repetitions, and pairs.
    S_noise : float
    apart : float
        Distance, in units of the noise, from which chains share the noise so that the legs bring them together, instead of trying to meet.
    level : float
        Confidence of the bound.
    seed : int

    Returns
    -------
    Meeting

    Raises
    ------
    BadInput
        For states that do not fit, or no noise.

    References
    ----------
    Xu et al. 2023, arXiv:2306.14878, proof of theorem 3; Bou-Rabee, Eberle and Zimmer 2020 for the reflected maximal coupling.
    """
    made = _Cycle(process, denoise, method, interval, S_noise, apart, seed)
    count = whole("n", n, 2)
    x, y = made.begin(start, count, 0), made.begin(other, count, 1)
    times = np.where(_separation(x, y) == 0.0, 0.0, np.inf)
    distance = [float(np.mean(_separation(x, y)))]
    for cycle in range(whole("cycles", cycles)):
        x, y = made.step(x, y, cycle)
        gaps = _separation(x, y)
        times = np.where((gaps == 0.0) & np.isinf(times), cycle + 1.0, times)
        distance.append(float(np.mean(gaps)))
    return Meeting(times, int(cycles), np.array(distance), _share(level))


def _share(level: float) -> float:
    if not 0.0 < finite("level", level) < 1.0:
        raise BadInput(f"level = {level!r} must lie between 0 and 1")
    return float(level)


def couple_lagged(
    process: Process,
    denoise: Callable[..., Any],
    method: Method,
    interval: tuple[int, float, float],
    start: tuple[Any, Any],
    *,
    lag: int = 1,
    cycles: int = 100,
    S_noise: float = 1.0,
    apart: float = _APART,
    n: int = 500,
    seed: int = 0,
) -> Lagged:
    """Bound the distance of a start to the law that the cycle keeps, from two draws of that start alone.

    Parameters
    ----------
    start : pair of arrays (k, n, *shape), or of Laws
        Two independent draws of the same start.  The first runs ``lag`` cycles ahead.
    lag : int
        A larger one gives a sharper bound.
    process, denoise, method, interval, cycles, S_noise, apart, n, seed
        As for :func:`couple`.

    References
    ----------
    Biswas, Jacob and Vanetti 2019, arXiv:1905.09971.
    """
    made = _Cycle(process, denoise, method, interval, S_noise, apart, seed)
    ahead, behind = whole("lag", lag), whole("cycles", cycles)
    x, y = (made.begin(own, whole("n", n, 2), i) for i, own in enumerate(start))
    for cycle in range(ahead):
        x, _ = made.step(x, x, behind + cycle)
    times = np.full(x.shape[1], np.inf)
    for cycle in range(behind):
        x, y = made.step(x, y, cycle)
        times = np.where((_separation(x, y) == 0.0) & np.isinf(times), ahead + cycle + 1.0, times)
        if np.all(np.isfinite(times)):
            break
    return Lagged(times, ahead, behind)
