r"""The exact law of a sampler on Gaussian data.

With Gaussian data the denoiser is affine, so every step is an affine map of (state, memory, normals).  The sampler's own rows are run on a
basis batch, mode by mode in the eigenbasis of the model: unit vectors of the initial state, one row for the offset, one row for each
normal drawn.  What comes out is the sampler's exact mean and a factor of its exact covariance: no Monte Carlo, no covariance ever formed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..grids import Grid
from ..law import Gaussian
from ..methods import Method
from ..modes import Basis, Modes, Spectral
from ..modes.laws import diagonal
from ..plans import Move, Plan, Run
from ..process import Process
from ..propagation import Loudness
from ..reverse import Reverse
from ..sampling import prepare
from ..solve import Program, assemble
from ..tableau import Rows
from .affine import Affine, Normal, in_basis, shared_basis, squeeze

Array = NDArray[np.float64]

__all__ = ["ExactLaw", "exact_law", "probe", "true_map"]

_WIDE = 48  # rows of normals that are carried before they are squeezed


def probe(
    program: Program,
    mean: Array,
    variances: Array,
    replace: Mapping[int, Array] | None = None,
    at: Callable[[float], tuple[Array, Array]] | None = None,
) -> Affine:
    """The affine map of ``program`` when the model is the exact denoiser of modes ``N(mean, variances)``.

    Parameters
    ----------
    program : Program
    mean, variances : arrays (d,)
    replace : mapping from a number of items done to an array (k, k + 1, d), optional
        States to go on from (coefficients of the initial state, then the offset): exact start values for multistep methods.
    at : callable, optional
        Mean and variances of the model at each level, in the place of those given: a model with an error at some levels only.
    """
    k, d = program.process.k, len(variances)
    fixed = k + 1  # rows: the initial state, the offset, then normals

    def model(y: Array, sigma: float) -> Array:
        centre, values = (mean, variances) if at is None else at(sigma)
        shrink = values / (values + sigma * sigma)
        answer = shrink * y
        answer[k] += (1.0 - shrink) * centre
        return answer

    executor = program.by_terms
    engine = executor([np.broadcast_to(one_hot[:, None], (fixed, d)) * 1.0 for one_hot in np.eye(k, fixed)], program.width)
    for i, (item, table) in enumerate(zip(program.items, program.tables(executor, np.empty(0)), strict=True)):
        if not isinstance(item.move, Rows):
            raise BadInput(f"{type(item.move).__name__} is not an affine move: it has no exact law; sample and measure instead")
        if item.fresh:
            engine.memory = []
        new = item.move.noises
        if new:
            engine.state, engine.memory = ([np.pad(b, ((0, new), (0, 0))) for b in blocks] for blocks in (engine.state, engine.memory))
        rows = len(engine.state[0])
        normals = [np.broadcast_to(np.eye(1, rows, rows - new + j).T, (rows, d)) for j in range(new)]
        engine.step(table, model, normals)
        if rows > fixed + _WIDE:
            blocks = np.stack([*engine.state, *engine.memory])
            small = np.concatenate([blocks[:, :fixed], squeeze(blocks[:, fixed:])], axis=1)
            engine.state, engine.memory = list(small[:k]), list(small[k:])
        if replace is not None and i + 1 in replace:
            engine.state = [np.pad(block, ((0, len(engine.state[0]) - fixed), (0, 0))) for block in replace[i + 1]]
    state = np.stack(engine.state)
    return Affine(state[:, :k], state[:, k], state[:, fixed:])


def reverse_transition(process: Process | Modes, noise: Loudness, s: float, t: float, mean: Array, variances: Array) -> Affine:
    """The exact reverse equation from ``t`` down to ``s > 0`` under the true score of modes ``N(mean, variances)``."""
    if isinstance(process, Modes):
        matrix, offset, chol = (np.zeros((process.k, columns, len(mean))) for columns in (process.k, 1, process.k))
        for i, own in enumerate(process.processes):
            here, unit = process.index == i, process.scale[process.index == i]
            part = reverse_transition(own, noise, s, t, mean[here] / unit, variances[here] / unit**2)
            matrix[..., here], offset[:, 0, here], chol[:, : part.noise.shape[1], here] = part.matrix, part.offset * unit, part.noise * unit
        return Affine(matrix, offset[:, 0], chol)
    psi_s, psi_t = process.kernel(s).psi, process.kernel(t).psi
    if process.k == 1 and not callable(noise):
        low, high = float(process.sigma_eff(s)) ** 2, float(process.sigma_eff(t)) ** 2
        log_ratio = np.log((variances + low) / (variances + high))
        ratio = float(psi_s[0] / psi_t[0])
        gain = (ratio * np.exp(0.5 * (1.0 + noise**2) * log_ratio))[None, None]
        spread = np.abs(psi_s[0]) * np.sqrt((variances + low) * -np.expm1(noise**2 * log_ratio))
        chol = spread[None, None] if noise > 0.0 else np.zeros((1, 0, len(variances)))
    else:
        way = Reverse(process, noise).propagate([s], [t], variances)
        gain = np.moveaxis(way.gain[:, 0], 0, -1)
        chol = np.moveaxis(way.chol[:, 0], 0, -1) if callable(noise) or noise > 0.0 else np.zeros((process.k, 0, len(variances)))
    offset = np.multiply.outer(psi_s, mean) - np.einsum("ijd,jd->id", gain, np.multiply.outer(psi_t, mean))
    return Affine(gain, offset, chol)


def true_map(process: Process | Modes, moves: Sequence[Move], mean: Array, variances: Array) -> Affine:
    """The plan's moves with every run of steps replaced by the exact reverse equation; steps to the data stay as they are."""
    k, d = process.k, len(variances)
    total = Affine(np.broadcast_to(np.eye(k)[..., None], (k, k, d)), np.zeros((k, d)), np.zeros((k, 0, d)))
    for move in moves:
        if isinstance(move, Run):
            times = move.times[:-1] if move.times[-1] == 0.0 else move.times
            if len(times) > 1:
                total = total.then(reverse_transition(process, move.method.noise, times[-1], times[0], mean, variances))
            if len(times) == len(move.times):
                continue
            total = total.then(probe(assemble(process, [Run(move.method, move.times[-2:])]), mean, variances))
        else:
            total = total.then(probe(assemble(process, [move]), mean, variances))
    return total


def marginal(process: Process | Modes, t: float, mean: Array, variances: Array) -> Normal:
    """The exact law of the state at time ``t``."""
    kernel = process.kernel(t)
    psi = kernel.psi.T.reshape(process.k, -1)
    return Normal(psi * mean, np.concatenate([_last(kernel.chol, len(mean)), psi[:, None] * np.sqrt(variances)], axis=1))


def _last(chol: Any, d: int) -> Array:
    """Factors (k, k), or (d, k, k) mode by mode, as (k, k, d)."""
    return np.broadcast_to(chol[..., None] if chol.ndim == 2 else np.moveaxis(chol, 0, -1), (*chol.shape[-2:], d))


@dataclass(frozen=True, eq=False)
class ExactLaw:
    """The exact law that a sampler produces, and its distance to the data.

    Attributes
    ----------
    program : Program
    data, model : Gaussian
        The law to be sampled, and the law whose exact denoiser drives the sampler.
    start : None, "stationary" or Gaussian
        As for :func:`sdekit.sample`.
    basis : Basis or None
        Of a process that goes mode by mode; the laws above are then those of the coefficients.
    """

    program: Program
    data: Gaussian
    model: Gaussian
    start: Any = None
    basis: Basis | None = None

    @cached_property
    def _together(self) -> tuple[bool, Array | None]:
        return shared_basis([self.data, self.model, *([self.start] if isinstance(self.start, Gaussian) else [])])

    def _modes(self, law: Gaussian) -> tuple[Array, Array, Array | None]:
        """Mean, variances and basis in which ``law`` is diagonal: the shared one if there is one."""
        together, basis = self._together
        own = basis if together else law.basis
        mean, variances = in_basis(law, own) or (law.mean.reshape(-1), law.variances)
        return mean, variances, own

    def _settle(self, thing: Any, basis: Array | None) -> Any:
        """Laws and maps as they are if all share a basis, else in coordinates."""
        return thing if self._together[0] else thing.dense(basis)

    @cached_property
    def map(self) -> Affine:
        """The sampler as an affine map of its initial state, per mode of the model."""
        mean, variances, _ = self._modes(self.model)
        return probe(self.program, mean, variances)

    @cached_property
    def _begin(self) -> Normal:
        process, t = self.program.process, float(self.program.times[0])
        d = self.data.mean.size
        if isinstance(self.start, Gaussian):
            mean, variances, basis = self._modes(self.start)
            return self._settle(marginal(process, t, mean, variances), basis)  # type: ignore[no-any-return]
        root = process.kernel(t).chol if self.start is None else np.linalg.cholesky(process.stationary)
        plain = Normal(np.zeros((process.k, d)), _last(root, d))
        return self._settle(plain, None)  # type: ignore[no-any-return]

    @cached_property
    def _out(self) -> Normal:
        return self._push(self.map, self._modes(self.model)[2])

    def _push(self, map_: Affine, basis: Array | None) -> Normal:
        return self._settle(map_, basis).push(self._begin)  # type: ignore[no-any-return]

    def _data_block(self, law: Normal) -> Normal:
        return law.rows(len(law.mean) // self.program.process.k)

    @property
    def nfe(self) -> int:
        """Model calls of each sample."""
        return self.program.nfe

    @property
    def mean(self) -> Array:
        """Mean of the data block, of the datum's shape."""
        return np.asarray(self.state_mean[0])

    @property
    def state_mean(self) -> Array:
        """Means of all blocks, (k, *shape)."""
        together, basis = self._together
        mean = self._out.mean
        if self.basis is not None:
            return np.asarray(self.basis.backward(mean.reshape(-1, *self.basis.shape)))
        turned = mean @ basis.T if together and basis is not None else mean
        return np.asarray(turned.reshape(-1, *self.data.shape))

    @property
    def cov(self) -> Array:
        """Covariance of the data block: (d, d), or a number for a datum of shape ()."""
        made = self._covariance(self._data_block(self._out))
        return np.asarray(made[0, 0]) if self.data.shape == () else made

    @property
    def state_cov(self) -> Array:
        """Covariance of all blocks, (k d, k d), block by block."""
        return self._covariance(self._out)

    def _covariance(self, law: Normal) -> Array:
        together, basis = self._together if self.basis is None else (True, self.basis.matrix)
        factor = (law.dense(basis) if together else law).factor[..., 0]
        return np.asarray(factor @ factor.T)

    @cached_property
    def _target(self) -> Normal:
        mean, variances, basis = self._modes(self.data)
        return self._settle(Normal(mean[None], np.sqrt(variances)[None, None]), basis)  # type: ignore[no-any-return]

    @cached_property
    def w2(self) -> float:
        """Exact W2 between the sampler's data block and the data, in the unit of the data (not divided by the dimension)."""
        return self._data_block(self._out).distance(self._target)

    @cached_property
    def parts(self) -> dict[str, float]:
        r"""Where the distance comes from: ``w2 <= prior + score + discretisation + end``.

        Each part is the W2 between two neighbours in a chain of laws from the data to the sampler: ``end`` (stopping above level 0, or the one
        step to the data), ``prior`` (not starting from the exact marginal), ``score`` (the model's law in the place of the data's; only if
        they differ), ``discretisation`` (steps in the place of the exact reverse equation).
        """
        process, moves = self.program.process, self.program.moves
        mean, variances, basis = self._modes(self.data)
        last = moves[-1]
        finish: list[Move] = []
        stop = float(self.program.times[-1])
        if isinstance(last, Run) and last.times[-1] == 0.0:
            stop = last.times[-2]
            finish = [Run(last.method, last.times[-2:])]
        there = marginal(process, stop, mean, variances)
        chain = {"end": self._settle(true_map(process, finish, mean, variances).push(there), basis)}
        chain["prior"] = self._push(true_map(process, moves, mean, variances), basis)
        if self.model is not self.data:
            its_mean, its_variances, its_basis = self._modes(self.model)
            chain["score"] = self._push(true_map(process, moves, its_mean, its_variances), its_basis)
        chain["discretisation"] = self._out
        parts, before = {}, self._target
        for name, law in chain.items():
            block = self._data_block(law)
            parts[name] = block.distance(before)
            before = block
        return parts

    def __repr__(self) -> str:
        return f"ExactLaw(nfe={self.nfe}, w2={self.w2:.6g})"


def exact_law(
    process: Process | Modes,
    *,
    method: Method | None = None,
    grid: Grid | None = None,
    plan: Plan | None = None,
    data: Gaussian,
    model: Gaussian | None = None,
    start: Any = None,
) -> ExactLaw:
    """The exact law of a sampler on Gaussian data, with its W2 to the data.

    Parameters
    ----------
    process, method, grid, plan, start
        As for :func:`sdekit.sample`; a ``start`` law must be Gaussian.
    data : Gaussian
        The law to be sampled; its covariance may be isotropic, diagonal or full.  For ``Modes`` it must be diagonal in their basis: any such
        Gaussian, or a ``modes.Spectral`` law.
    model : Gaussian, optional
        The law whose exact denoiser drives the sampler; ``data`` when absent.  Another one is a score error of known size.

    Returns
    -------
    ExactLaw

    Raises
    ------
    BadInput
        If a law is not Gaussian, shapes differ, or the plan has a move that is not affine.
    """
    basis = None
    if isinstance(process, Modes):
        basis, process = process.basis, process.flat
        laws: list[Any] = [diagonal(law, basis) if isinstance(law, Gaussian | Spectral) else law for law in (data, model, start)]
        data, model, start = laws
    for name, law in (("data", data), ("model", model if model is not None else data)):
        if not isinstance(law, Gaussian):
            raise BadInput(f"{name} = {law!r} must be a Gaussian law: the exact law of a sampler is known for affine denoisers only")
    if start is not None and start != "stationary" and not isinstance(start, Gaussian):
        raise BadInput(f"start = {start!r} must be None (the prior), 'stationary' or a Gaussian law")
    for other in (model, start):
        if isinstance(other, Gaussian) and other.shape != data.shape:
            raise BadInput(f"laws have data of different shapes, {other.shape} and {data.shape}")
    return ExactLaw(prepare(process, method, grid, plan), data, data if model is None else model, start, basis)
