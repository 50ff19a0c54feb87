"""Foreign samplers as black boxes: one run on a basis batch gives the exact affine map, and what the model was asked on the way.

With normal data the exact model is affine, and so is every sampler that only adds and scales.  One run on a batch then tells everything: a
row for the offset, one for a unit start, one for a unit normal in each draw, one for a unit disturbance of each answer of the model.  The
sampler is a black box; nothing is sampled.  A mode without spread (the data are one point) shows which noise level each state really has.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._array import like, to_host
from ..errors import BadInput

Array = NDArray[np.float64]

__all__ = ["KINDS", "MEANS", "SPREAD", "VARIANCES", "Call", "Level", "Model", "Trace", "trace"]

MEANS = np.array([1.0, 0.3, 0.3, 0.3, 0.3])
VARIANCES = np.array([0.0, 0.25, 0.04, 1.0, 4.0])  # the first mode is one point: the level of a state; the second is the law that is reported
SPREAD = slice(1, None)
KINDS = ("x0", "eps", "v")


class Level(NamedTuple):
    """A noise level: the state is ``a x0 + s eps``."""

    a: float
    s: float

    def gap(self, other: Level) -> float:
        """How far apart two levels are: in log signal-to-noise, or in log scale."""
        scale = abs(np.log(np.hypot(*self) / np.hypot(*other)))
        ratio = abs(np.log(np.divide(self.s, other.s) * other.a / self.a)) if self.a and other.a else abs(self.a - other.a)
        return float(max(scale, ratio))

    @property
    def sigma(self) -> float:
        """Noise over signal."""
        return self.s / self.a if self.a else float("inf")

    @property
    def variance(self) -> Array:
        """Variance of the state in each mode."""
        return np.asarray(self.a**2 * VARIANCES + self.s**2)


class Call(NamedTuple):
    """One question to the model: the label given; the state as rows offset, start, check; its variance from draws; the row it disturbs."""

    label: float
    state: Array
    drawn: Array
    row: int

    def level(self, begin: Level) -> Level:
        """The level that the state really has after a start at level ``begin``, seen on data that are one point."""
        offset, gain = self.state[:2, 0]
        return Level(float(gain * begin.a + offset), float(np.sqrt((gain * begin.s) ** 2 + self.drawn[0])))

    def same(self, other: Call) -> bool:
        """Whether the same was asked in the same state."""
        return self.label == other.label and bool(np.allclose(self.state, other.state, rtol=1e-12, atol=1e-12))


class Model:
    """The exact model of normal data, as a foreign sampler calls it: ``model(x, label)``.

    Attributes
    ----------
    kind : {"x0", "eps", "v"}
        What the answer is: the data, the noise, or ``a eps - s x0``; where labels are levels sigma, ``x0`` is the denoiser ``D(y; sigma)``.
    calls : list of Call
    """

    def __init__(self, kind: str, levels: Callable[[float, int], Level], n: int, basis: _Basis) -> None:
        self.kind = kind
        self.calls: list[Call] = []
        self._levels = levels
        self._n = n
        self._basis = basis

    def __call__(self, x: Any, label: Any) -> Any:
        """The answer for a batch ``x`` (rows, ...) at one label: a number, or an array that repeats it."""
        asked = float(np.ravel(to_host(label))[0])
        basis, state = self._basis, np.array(to_host(x), float)
        if state.size != basis.start.size:
            raise BadInput(f"the model was given x of shape {state.shape}; it must hold the {basis.start.shape} states, in their order")
        state = state.reshape(basis.start.shape)
        row = basis.take()
        self.calls.append(Call(asked, state[:3].copy(), np.sum(state[basis.draws] ** 2, axis=0), row))
        a, s = self._levels(asked, self._n)
        total = a * a * VARIANCES + s * s
        gap = state - a * MEANS * basis.affine
        eps, x0 = s / total * gap, MEANS * basis.affine + a * VARIANCES / total * gap
        answer = {"x0": x0, "eps": eps, "v": a * eps - s * x0}[self.kind]
        answer[row] += 1.0
        return like(answer, x).reshape(x.shape)


class _Full(Exception):
    """The basis has no row left."""


class _Basis:
    """Rows: the offset, a unit start, a random start with random normals (a check), then one row for each draw and each call."""

    def __init__(self, room: int) -> None:
        rng = np.random.default_rng(0)
        self.start = np.zeros((3 + room, len(MEANS)))
        self.start[1], self.start[2] = 1.0, 10.0 * rng.standard_normal(len(MEANS))
        self.affine = np.zeros((3 + room, 1))
        self.affine[[0, 2]] = 1.0
        self.normals = rng.standard_normal((room, len(MEANS)))
        self.draws: list[int] = []
        self._next = 3

    def take(self) -> int:
        """The next free row."""
        if self._next == len(self.start):
            raise _Full
        self._next += 1
        return self._next - 1

    def draw(self) -> Array:
        """Unit normals of the next draw, of the shape of the start."""
        row = self.take()
        slot = np.zeros_like(self.start)
        slot[row], slot[2] = 1.0, self.normals[len(self.draws)]
        self.draws.append(row)
        return slot


class Trace(NamedTuple):
    """The sampler as an affine map ``x -> A x + b + N xi`` mode by mode; its calls; what disturbing each answer does; how affine it is."""

    A: Array
    b: Array
    N: Array
    calls: list[Call]
    influence: Array
    bent: float

    @property
    def noisy(self) -> bool:
        """Whether a draw reaches the result."""
        return bool(np.any(self.N != 0.0))

    @property
    def finite(self) -> bool:
        """Whether the map is finite on data with a spread."""
        return bool(np.all(np.isfinite(self.A[SPREAD])) and np.all(np.isfinite(self.b[SPREAD])) and np.all(np.isfinite(self.N[:, SPREAD])))

    def distance(self, other: Trace) -> float:
        """Largest difference of two maps, relative to their size."""
        gaps = [np.max(np.abs(a - b)[..., SPREAD], initial=0.0) for a, b in zip(self[:3], other[:3], strict=True)]
        return float(max(gaps) / np.max(np.abs(self.A[SPREAD])))


@np.errstate(all="ignore")
def trace(sampler: Callable[..., Any], n: int, kind: str, levels: Callable[[float, int], Level]) -> Trace:
    """Run ``sampler(start, model, n, draw)`` with a model of the given kind; errors of the sampler pass through.

    Raises
    ------
    BadInput
        If shapes do not fit, or the sampler asks without end.
    """
    for room in (2 * n + 64, 8 * n + 256, 32 * n + 1024):
        basis = _Basis(room)
        model = Model(kind, levels, n, basis)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                end = np.array(to_host(sampler(basis.start.copy(), model, n, basis.draw)), float)
            break
        except _Full:
            continue
    else:
        raise BadInput(f"the sampler asks and draws more than {room} times in {n} steps; an audit needs fewer")
    if end.size != basis.start.size:
        raise BadInput(f"the sampler was given {basis.start.shape} and returned {end.shape}; it must return the states, in their order")
    end = end.reshape(basis.start.shape)
    A, b, N = end[1], end[0], end[basis.draws]
    expected = A * basis.start[2] + b + np.sum(N * basis.normals[: len(N)], axis=0)
    bent = float(np.max((np.abs(end[2] - expected) / (1.0 + np.abs(expected)))[SPREAD]))
    return Trace(A, b, N, model.calls, end[[call.row for call in model.calls]], bent)
