r"""A bound on W2 for a whole run of a sampler: prior, steps, score and end, each with its constants.

The exact reverse equation, started from the exact marginal, satisfies the sampler's own recursion with a *defect* added at each node.  On
Gaussian data that recursion is linear, so with ``T_i`` the map from node ``i`` to the end, ``c_a`` the weight of answer ``a`` in the result,

.. math:: x - x^* &= T_0 (z_0 - z_0^*) - \sum_i T_i \delta_i + \sum_a c_a e_a, \\
          W_2 &\le \|T_0 (z_0 - z_0^*)\| + \Big\|\sum_i T_i \delta_i\Big\|
          + \sum_a \max_m |c_{a,m}|\,\epsilon(\sigma_a) + W_2(x^*, x_0),

in root mean square, memory of multistep methods included, with the noise of both coupled step by step.  The
error of the model may be any function that is no larger than said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, finite
from ..grids import Grid
from ..law import Empirical, Gaussian, Mixture
from ..methods import Method
from ..plans import Jump, Plan, Run
from ..process import Process
from ..sampling import prepare
from ..solve import Program
from ..tableau import Rows
from .affine import Affine, Normal, in_basis, shared_basis
from .bounds_mixture import mixture_bound, reasons
from .bounds_records import Assumption, Constant, SamplerBound, Step
from .exact import marginal, reverse_transition, true_map

Array = NDArray[np.float64]
Level = float | Callable[[float], float]

__all__ = ["sampler"]


def sampler(
    process: Process,
    method: Method | None = None,
    grid: Grid | None = None,
    *,
    data: Gaussian | Mixture | Empirical,
    plan: Plan | None = None,
    score_error: Level = 0.0,
    error_lipschitz: Level | None = None,
    start: Gaussian | None = None,
) -> SamplerBound:
    r"""Bound the W2 between what a sampler makes and the data.

    Parameters
    ----------
    process, method, grid, plan
        As for :func:`sdekit.sample`.
    data : Gaussian, or on one block without noise a Mixture or Empirical
        For normal laws any process and any plan of steps and jumps.  For others DDIM (``methods.ddim()``), whose steps have a known Lipschitz
        constant, :math:`s/t + (1 - s/t)(1 + t^2 \sup_x \lambda_{max}(\nabla^2 \log p_t))`.
    score_error : float or callable
        Bound on the error of the *denoiser* (:math:`\sigma^2` times that of the score), the same at all levels or a function of ``sigma``:
        its supremum over all arguments; with ``error_lipschitz`` its root mean square under the exact law of the noised data.
    error_lipschitz : float or callable, optional
        A Lipschitz constant of the error as a function of the noised data.  Without one a root mean square says nothing at the states that the
        sampler visits.  For methods that ask at the nodes only.
    start : Gaussian, optional
        The law whose noised version the run starts from; the prior when absent.

    Returns
    -------
    SamplerBound

    Raises
    ------
    BadInput
        Where nothing rigorous is known: moves that are not affine, laws that do not commute, mixtures on more than one block, under other
        methods, or in space with different covariances.
    """
    made = prepare(process, method, grid, plan)
    if not isinstance(process, Process):
        raise BadInput("bounds are for a Process; take the modes one by one")
    wrong = next((item.move for item in made.items if not isinstance(item.move, Rows)), None)
    if wrong is not None:
        raise BadInput(f"{type(wrong).__name__} is not an affine move: no bound is known for a plan with it")
    error = _Error(_level("score_error", score_error), None if error_lipschitz is None else _level("error_lipschitz", error_lipschitz))
    if isinstance(data, Gaussian):
        return _normal(made, data, error, start)
    return mixture_bound(made, data, error.size, error.steep, start)


def _level(name: str, value: Level) -> Callable[[float], float]:
    if not callable(value) and finite(name, value) < 0.0:
        raise BadInput(f"{name} = {value!r} must not be negative")

    def at(sigma: float) -> float:
        found = finite(f"{name}({sigma:g})", value(sigma) if callable(value) else value)
        if found < 0.0:
            raise BadInput(f"{name}({sigma:g}) = {found!r} must not be negative")
        return found

    return at


@dataclass(frozen=True)
class _Error:
    """Size of the model's error at each level, and its Lipschitz constant if the size is a root mean square."""

    size: Callable[[float], float]
    steep: Callable[[float], float] | None


# ---------------------------------------------------------------------------------------------------------------- the linear recursion


@dataclass(frozen=True, eq=False)
class _Weights:
    """What each cause weighs in the data block at the end, (rows, d), and in the argument of each ask (asks, rows, d).

    Rows in order: the initial state (k), a shift at each node (items x k), an error of each answer (asks).
    """

    end: Array
    asked: Array
    levels: Array
    k: int

    def nodes(self, i: int) -> slice:
        """Rows of a shift after item ``i``; -1 the initial state."""
        return slice((i + 1) * self.k, (i + 2) * self.k)

    def answer(self, a: int) -> int:
        """Row of an error of answer ``a``."""
        return len(self.end) - len(self.levels) + a


def _weigh(program: Program, variances: Array) -> _Weights:
    k, d, n = program.process.k, len(variances), len(program.items)
    asks = sum(len(item.move.asks) for item in program.items if isinstance(item.move, Rows))
    rows = k * (n + 1) + asks
    asked: list[Array] = []
    levels: list[float] = []

    def model(y: Array, sigma: float) -> Array:
        answer = variances / (variances + sigma * sigma) * y
        answer[k * (n + 1) + len(asked)] += 1.0
        asked.append(y)
        levels.append(float(sigma))
        return answer

    executor = program.by_terms
    engine = executor([np.broadcast_to(row[:, None], (rows, d)) * 1.0 for row in np.eye(k, rows)], program.width)
    for i, (item, table) in enumerate(zip(program.items, program.tables(executor, np.empty(0)), strict=True)):
        if item.fresh:
            engine.memory = []
        engine.step(table, model, [np.zeros((rows, d))] * item.move.noises)
        engine.state = [block + np.eye(1, rows, (i + 1) * k + b).T for b, block in enumerate(engine.state)]
    return _Weights(engine.state[0], np.stack(asked), np.array(levels), k)


def _exact_moves(program: Program, mean: Array, variances: Array) -> list[Affine | None]:
    """The exact law's transition of each item; None for a step to the data."""
    process = program.process
    out: list[Affine | None] = []
    for move in program.moves:
        if isinstance(move, Jump):
            law = process.transition(move.s, move.t)
            shape = (process.k, process.k, len(mean))
            matrix, chol = (np.broadcast_to(part[..., None], shape) for part in (law.mean, law.chol))
            out.append(Affine(matrix, np.zeros((process.k, len(mean))), chol))
        elif isinstance(move, Run):
            for t, s in pairwise(move.times):
                out.append(None if s == 0.0 else reverse_transition(process, move.method.noise, s, t, mean, variances))
    return out


def _defects(program: Program, mean: Array, variances: Array) -> list[Array]:
    """What the exact path has more than the sampler's step from it, node by node: (k, rows, d); rows: initial state (k), offset, normals."""
    k, d = program.process.k, len(variances)
    exact = _exact_moves(program, mean, variances)
    slots = [
        max(item.move.noises, 0 if way is None else way.noise.shape[1]) for item, way in zip(program.items, exact, strict=True)
    ]  # fmt: skip
    rows, at = k + 1 + sum(slots), k + 1

    def model(y: Array, sigma: float) -> Array:
        shrink = variances / (variances + sigma * sigma)
        answer = shrink * y
        answer[k] += (1.0 - shrink) * mean
        return answer

    executor = program.by_terms
    engine = executor([np.broadcast_to(row[:, None], (rows, d)) * 1.0 for row in np.eye(k, rows)], program.width)
    found = []
    for item, table, way, new in zip(program.items, program.tables(executor, np.empty(0)), exact, slots, strict=True):
        if item.fresh:
            engine.memory = []
        before = np.stack(engine.state)
        engine.step(table, model, [np.broadcast_to(np.eye(1, rows, at + j).T, (rows, d)) for j in range(item.move.noises)])
        made = np.stack(engine.state)
        true = made if way is None else np.einsum("ijd,jrd->ird", way.matrix, before)
        if way is not None:
            true[:, k] += way.offset
            if way.noise.shape[1]:
                true[:, at : at + new] += _aligned(way.noise, made[:, at : at + new] - true[:, at : at + new])
        found.append(true - made)
        engine.state = list(true)
        at += new
    return found


def _aligned(noise: Array, like: Array) -> Array:
    """``noise`` (k, q, d) times the rotation that brings it nearest to ``like`` (k, r, d), r >= q."""
    left, right = np.moveaxis(noise, -1, 0), np.moveaxis(like, -1, 0)
    u, _, vt = np.linalg.svd(np.swapaxes(left, -1, -2) @ right, full_matrices=False)
    return np.moveaxis(left @ (u @ vt), 0, -1)


class _Cause:
    """A random vector (k, modes): mean and factor of its rows, weighed by rows of a map."""

    def __init__(self, mean: Array, factor: Array) -> None:
        self.mean, self.factor = mean, factor

    @classmethod
    def of(cls, rows: Array, law: Normal) -> _Cause:
        """Rows of a linear map of a state under ``law``, an offset, and normals."""
        k = len(law.mean)
        first = rows[:, :k]
        factor = np.concatenate([np.einsum("ijd,jrd->ird", first, law.factor), rows[:, k + 1 :]], axis=1)
        return cls(np.einsum("ijd,jd->id", first, law.mean) + rows[:, k], factor)

    def size(self, weight: Array) -> float:
        """Root mean square of ``weight`` (k, d) times it."""
        mean = np.einsum("kd,kd->d", weight, self.mean)
        spread = np.einsum("kd,krd->rd", weight, self.factor)
        return float(np.sqrt(np.sum(mean**2) + np.sum(spread**2)))

    @property
    def norm(self) -> float:
        """Root mean square."""
        return float(np.sqrt(np.sum(self.mean**2) + np.sum(self.factor**2)))


def _coupled(one: Normal, other: Normal) -> _Cause:
    """The difference of two normal laws, coupled mode by mode for the least W2."""
    width = max(one.factor.shape[1], other.factor.shape[1])
    left, right = (np.pad(law.factor, ((0, 0), (0, width - law.factor.shape[1]), (0, 0))) for law in (one, other))
    return _Cause(one.mean - other.mean, left - _aligned(right, left))


def _normal(program: Program, data: Gaussian, error: _Error, start: Gaussian | None) -> SamplerBound:
    process = program.process
    if start is not None and (not isinstance(start, Gaussian) or start.shape != data.shape):
        raise BadInput(f"start = {start!r} must be a Gaussian law of data of shape {data.shape}")
    together, basis = shared_basis([data, *([] if start is None else [start])])
    modes = in_basis(data, basis)
    if not together or modes is None:
        raise BadInput("start and data do not commute: the bound goes mode by mode in their shared eigenbasis")
    mean, variances = modes
    k, d, t = process.k, len(mean), float(program.times[0])
    truth = marginal(process, t, mean, variances)
    begin = Normal(np.zeros((k, d)), np.broadcast_to(process.kernel(t).chol[..., None], (k, k, d)))
    other = None if start is None else in_basis(start, basis)
    if other is not None:
        begin = marginal(process, t, *other)
    weights, gap = _weigh(program, variances), _coupled(begin, truth)
    defects = _defects(program, mean, variances)
    causes = [_Cause.of(defect, truth) for defect in defects]
    together = np.sum([np.einsum("kd,krd->rd", weights.end[weights.nodes(i)], defect) for i, defect in enumerate(defects)], axis=0)
    added = _Cause.of(together[None], truth).norm
    prior = gap.size(weights.end[weights.nodes(-1)])
    sigmas = process.sigma_eff(program.times)
    steps = []
    for i, cause in enumerate(causes):
        own = weights.end[weights.nodes(i)]
        factor = float(np.max(np.sqrt(np.sum(own**2, axis=0))))
        steps.append(Step(float(sigmas[i]), float(sigmas[i + 1]), cause.norm, factor, cause.size(own)))
    score, sizes = _score(program, weights, gap, causes, error)
    end = _end(program, mean, variances)
    own = weights.end[weights.nodes(-1)]
    constants = (
        Constant("W2 at the start", gap.norm, f"between the start and the exact marginal at sigma {sigmas[0]:.4g}, all blocks"),
        Constant("whole map", float(np.max(np.sqrt(np.sum(own**2, axis=0)))), "norm of the product of all steps, from the state to the data"),
        Constant("largest defect", max(step.defect for step in steps), "of one step from the exact marginal, W2, all blocks"),
        Constant("largest factor", max(step.factor for step in steps), "norm of the product of the steps that remain"),
        Constant("sum of steps", float(sum(step.added for step in steps)), "of what each step adds, by itself; together they cancel in part"),
        Constant("sum of answers", float(np.sum(_reach(weights))), "norms of the weights of all answers in the result"),
        Constant("largest error", max(sizes), "of the model at the states visited, in units of the data"),
    )
    spread = float(np.sqrt(np.sum(variances)))
    return SamplerBound(prior, added, score, end, tuple(steps), constants, _assumptions(error, data), reasons(prior + added + score + end, spread))


def _reach(weights: _Weights) -> Array:
    return np.asarray(np.max(np.abs(weights.end[weights.answer(0) :]), axis=1))


def _score(program: Program, weights: _Weights, gap: _Cause, causes: list[_Cause], error: _Error) -> tuple[float, list[float]]:
    """The part of the model's error, and its size at each ask."""
    sizes = [error.size(float(sigma)) for sigma in weights.levels]
    if error.steep is not None:
        _asks_at_nodes(program)
        for a, sigma in enumerate(weights.levels):
            row = weights.asked[a]
            away = gap.size(row[weights.nodes(-1)]) + sum(cause.size(row[weights.nodes(i)]) for i, cause in enumerate(causes[:a]))
            away += sum(float(np.max(np.abs(row[weights.answer(b)]))) * sizes[b] for b in range(a))
            sizes[a] += error.steep(float(sigma)) * away
    return float(_reach(weights) @ np.array(sizes)), sizes


def _asks_at_nodes(program: Program) -> None:
    for item in program.items:
        rows: Any = item.move
        observe = program.process.kernel(item.t).observe
        if len(rows.asks) != 1 or not _same(rows.asks[0].argument[0], observe):
            raise BadInput("a root mean square error is known at the exact law of the nodes only, and this method asks at stages; give a supremum")
    if any(isinstance(move, Jump) for move in program.moves):
        raise BadInput("a root mean square error needs one ask for each step, and this plan has jumps; give a supremum")


def _same(argument: Array, observe: Array) -> bool:
    k = len(observe)
    return bool(np.allclose(argument[:k], observe, rtol=1e-8, atol=0.0) and not np.any(argument[k:]))


def _end(program: Program, mean: Array, variances: Array) -> float:
    """W2 between the exact marginal at the last level, or the last step from there to the data, and the data."""
    process, last = program.process, program.moves[-1]
    finish = [Run(last.method, last.times[-2:])] if isinstance(last, Run) and last.times[-1] == 0.0 else []
    stop = finish[0].times[0] if finish else float(program.times[-1])
    law = true_map(process, finish, mean, variances).push(marginal(process, stop, mean, variances))
    return law.rows(1).distance(Normal(mean[None], np.sqrt(variances)[None, None]))


def _assumptions(error: _Error, data: Gaussian) -> tuple[Assumption, ...]:
    size = "sup over all arguments" if error.steep is None else "root mean square under the exact law, with its Lipschitz constant"
    return (
        Assumption(
            "the data are Gaussian", isinstance(data, Gaussian), "then every step of the exact denoiser is affine and nothing is bounded away"
        ),
        Assumption(f"the denoiser's error is at most score_error ({size})", None, "given by the caller"),
        Assumption("arithmetic is exact", True, "float64; rounding is far below the parts that are not zero"),
    )
