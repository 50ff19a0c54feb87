"""The error of many plans that share their pieces: exact on Gaussian data, by common noise on others.

On Gaussian data each step is an affine map of each mode; a step that many plans have is mapped once, so that a plan costs as many small
products as it has moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..imperfect import Misfit
from ..law import Gaussian, Law
from ..methods import Method
from ..noise import PRIOR, Address, Addressed
from ..plans import Jump, Move, Run
from ..process import Process
from ..solve import assemble, solve
from .affine import Affine
from .distances import sliced
from .exact import probe
from .residuals import LevelLaws

Array = NDArray[np.float64]

__all__ = ["Common", "Exact", "State", "along", "judge_of"]

_SAMPLES = 1000
_REFERENCE = 20_000
_DIRECTIONS = 32


class State(NamedTuple):
    """Normal laws of the state, for each mode: mean (..., d, k), covariance (..., d, k, k)."""

    mean: Array
    cov: Array


class Map(NamedTuple):
    """``z -> A z + b + noise of covariance Q`` for each mode, (..., d, k, k), (..., d, k), (..., d, k, k); and its model calls."""

    A: Array
    b: Array
    Q: Array
    nfe: int = 0

    def push(self, law: State) -> State:
        """The law of the image."""
        return State((self.A @ law.mean[..., None])[..., 0] + self.b, self.A @ law.cov @ np.swapaxes(self.A, -1, -2) + self.Q)

    def then(self, later: Map) -> Map:
        """This map followed by ``later``."""
        mean, cov = later.push(State(self.b, self.Q))
        return Map(later.A @ self.A, mean, cov, self.nfe + later.nfe)


def _map(found: Affine, nfe: int) -> Map:
    A, b, N = np.moveaxis(found.matrix, -1, 0), found.offset.T, np.moveaxis(found.noise, -1, 0)
    return Map(A, b, N @ np.swapaxes(N, -1, -2), nfe)


class Exact:
    """Exact errors on Gaussian data, for a model whose answers are those of a normal law at each level.

    Parameters
    ----------
    process : Process
    data : Gaussian
    model : Gaussian, Misfit or LevelLaws, optional

    Attributes
    ----------
    mean, spread, count : arrays (modes,)
        Of the data, along the shared eigenbasis; equal modes once, and how many they are.

    Raises
    ------
    BadInput
        For a model that is none of these, or that does not commute with the data.
    """

    exact = True

    def __init__(self, process: Process, data: Gaussian, model: Any = None) -> None:
        self.process = process
        laws = [data, *_laws(model)]
        basis = next((law.basis for law in laws if np.ptp(law.variances) > 0.0), None)
        modes = np.concatenate([np.stack(along(law, basis)) for law in laws])
        self._at: Callable[[float], tuple[Array, Array]] | None = None
        if hasattr(model, "law_at"):
            self._at = lambda sigma: along(model.law_at(sigma), basis)
            self.count = np.ones(modes.shape[1])
        else:
            modes, counts = np.unique(modes, axis=1, return_counts=True)
            self.count = counts.astype(float)
        self.mean, self.spread = modes[0], np.sqrt(modes[1])
        self._model = modes[-2], modes[-1]
        self._maps: dict[Any, Map] = {}

    def start(self, t: float) -> State:
        """The prior at the first time."""
        k, d = self.process.k, len(self.mean)
        return State(np.zeros((d, k)), np.broadcast_to(self.process.kernel(t).cov, (d, k, k)))

    def map_of(self, move: Move) -> Map:
        """The map of a move, made once; a run of a method without memory step by step."""
        if isinstance(move, Jump):
            made = self._made((move.s, move.t), lambda: [Jump(move.s, move.t)])
            return made._replace(Q=move.scale**2 * made.Q)
        if not isinstance(move, Run):
            raise BadInput(f"{type(move).__name__} is not an affine move: it has no exact law")
        if move.method.history:
            return self._made((move.method, move.times), lambda: [Run(move.method, move.times)])
        total = self._step(move.method, *move.times[:2])
        for t, s in zip(move.times[1:-1], move.times[2:], strict=True):
            total = total.then(self._step(move.method, t, s))
        return total

    def _step(self, method: Method, t: float, s: float) -> Map:
        return self._made((method, t, s), lambda: [Run(method, (t, s))])

    def _made(self, key: Any, moves: Callable[[], list[Move]]) -> Map:
        if key not in self._maps:
            program = assemble(self.process, moves())
            self._maps[key] = _map(probe(program, *self._model, at=self._at), program.nfe)
        return self._maps[key]

    def gaps(self, moves: Sequence[Move]) -> Array:
        """Errors of mean and standard deviation of the data block, (2, modes)."""
        first = moves[0]
        law = self.start(first.times[0] if isinstance(first, Run) else getattr(first, "s", self.process.T))
        for move in moves:
            law = self.map_of(move).push(law)
        return self.gap(law)

    def gap(self, law: State) -> Array:
        """The same of a law, (2, ..., modes)."""
        return np.stack([law.mean[..., 0] - self.mean, np.sqrt(law.cov[..., 0, 0]) - self.spread])

    def size(self, gaps: Array) -> Array:
        """W2 from the errors of the modes, (...)."""
        return np.asarray(np.sqrt(np.sum(gaps**2 @ self.count, axis=0)))

    def error(self, moves: Sequence[Move]) -> float:
        """Exact W2 to the data."""
        return float(self.size(self.gaps(moves)))


def _laws(model: Any) -> list[Gaussian]:
    if model is None:
        return []
    made: list[Any] = (
        [model.data, model.other] if isinstance(model, Misfit) else [model.law_at(model.sigmas[0])] if isinstance(model, LevelLaws) else [model]
    )
    if not all(isinstance(law, Gaussian) for law in made):
        raise BadInput(f"model = {model!r} must be a Gaussian law, an injector of sdekit.imperfect between two, or the surrogate of score_error")
    return made


def along(law: Gaussian, basis: Array | None) -> tuple[Array, Array]:
    """Mean and variances of a law in an eigenbasis that is its own up to rounding (None: the axes)."""
    if basis is None and law.basis is None:
        return law.mean.reshape(-1), law.variances
    axes = np.eye(law.mean.size) if basis is None else basis
    turned = axes.T @ law.matrix @ axes
    values = np.diag(turned)
    if np.max(np.abs(turned - np.diag(values))) > 1e-9 * np.max(np.abs(values)):
        raise BadInput("two laws do not commute: all is done mode by mode in a shared eigenbasis; take laws that have one")
    return law.mean.reshape(-1) @ axes, np.maximum(values, 0.0)


class Common:
    """Errors on any law by samples: all plans from the same starts, with the same noise at the same places.

    W2 on the line, sliced W2 elsewhere, of 1000 samples to 20,000 of the law: differences between plans have much less noise than each value.
    """

    exact = False

    def __init__(self, process: Process, data: Law, model: Any = None) -> None:
        self.process = process
        self._denoise = data.denoiser() if model is None else model.denoiser() if isinstance(model, Law) else model
        self._shape = tuple(data.shape)
        self._truth = data.sample(_REFERENCE, seed=1).reshape(_REFERENCE, -1)
        self._xi = Addressed(0).draw([Address(PRIOR, slot=i) for i in range(process.k)], np.arange(_SAMPLES), self._shape)

    def error(self, moves: Sequence[Move]) -> float:
        """W2, with the floor of these numbers of samples inside."""
        program = assemble(self.process, moves)
        start = np.tensordot(self.process.kernel(float(program.times[0])).chol, self._xi, axes=1)
        found, _ = solve(program, list(start), self._denoise, Addressed(0))
        return sliced(found[0].reshape(_SAMPLES, -1), self._truth, _DIRECTIONS, 0)


def judge_of(process: Process, data: Any, model: Any) -> Exact | Common:
    """The exact judge where there is one."""
    own = isinstance(model, Misfit) and isinstance(model.other, Gaussian)
    if isinstance(data, Gaussian) and (own or not callable(model)) and not (isinstance(model, Law) and not isinstance(model, Gaussian)):
        return Exact(process, data, model.law if own and model.law is not None else model)
    if not isinstance(data, Law) or not (model is None or callable(model) or isinstance(model, Law)):
        raise BadInput(f"data ({type(data).__name__}) must be a law, and model ({type(model).__name__}) a law, a surrogate or a denoiser")
    return Common(process, data, model)
