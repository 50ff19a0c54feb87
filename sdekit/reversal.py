r"""The reverse recipe: every reverse-time diffusion with the marginals of a forward one, in closed form and as numbers.

Let :math:`dz = f\,dt + \sqrt{2D}\,dW` have the marginals :math:`p_t`, with score :math:`s = \nabla \log p_t`.  For every symmetric positive
semidefinite :math:`D'(z, t)` and skew :math:`Q'(z, t)`, run in :math:`\tau = T - t` from :math:`p_T`,

.. math:: dz = g\,d\tau + \sqrt{2 D'}\,dW, \qquad g = -f + (D + D' + Q')\,s + \operatorname{div}(D + D' + Q')

has the marginal :math:`p_t` at every time (``div`` is row-wise; all parts may depend on the state).  The proof is one line.  Because
:math:`A\,p\,s + p \operatorname{div} A = \operatorname{div}(A p)`, the reverse current is minus the forward one plus a divergence,

.. math:: g p - \operatorname{div}(D' p) = -\big[f p - \operatorname{div}(D p)\big] + \operatorname{div}(Q' p),

and :math:`\sum_{ij} \partial_i \partial_j (Q'_{ij} p) = 0` for a skew ``Q'``.  ``D' = Q' = 0`` is the probability-flow ODE (Song et al. 2021),
``D' = D`` the reverse SDE (Anderson 1982), :math:`D' = \lambda^2 D` the engine's ``noise = lambda`` (:mod:`sdekit.reverse`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from .clocks import Clock
from .definite import decide_psd
from .errors import BadInput, Refuted, finite
from .numeric import numeric
from .process import Process
from .recipe import Recipe, resolved
from .symbolic import cholesky
from .zero import Decision, Verdict, decide_zero

Array = NDArray[np.float64]
Score = Callable[[Array, float], ArrayLike]

__all__ = ["Dynamics", "Reversal", "reverse"]

_PIVOT = 1e-12  # a pivot below this part of its diagonal entry is rounding; one below minus that is a negative direction


def _div(A: sp.Matrix, state: Sequence[sp.Symbol]) -> sp.Matrix:
    return sp.Matrix([sum(sp.diff(A[i, j], z) for j, z in enumerate(state)) for i in range(len(state))])


@dataclass(frozen=True, eq=False)
class Reversal:
    r"""A reverse-time diffusion in closed form, in the unit clock; made by :func:`reverse`.

    Attributes
    ----------
    forward : Recipe or Process
    state, scores : tuples of Symbol
        The blocks, and one symbol for each block of the score.
    f, D : matrices
        The forward drift (k, 1) and diffusion (k, k).
    D1, Q1 : matrices (k, k)
        :math:`D'` and :math:`Q'`.
    time : Symbol or None
        The forward time in ``D1`` and ``Q1``.
    clock : Clock
    psd, skew : Decision
        That ``D1`` is symmetric positive semidefinite, and ``Q1`` skew; UNDECIDED where neither is known (for example unspecified functions).
    """

    forward: Recipe | Process
    state: tuple[sp.Symbol, ...]
    scores: tuple[sp.Symbol, ...]
    f: sp.ImmutableMatrix
    D: sp.ImmutableMatrix
    D1: sp.ImmutableMatrix
    Q1: sp.ImmutableMatrix
    time: sp.Symbol | None
    clock: Clock
    psd: Decision
    skew: Decision

    @cached_property
    def drift(self) -> sp.ImmutableMatrix:
        r""":math:`g = -f + (D + D' + Q') s + \operatorname{div}(D + D' + Q')` in the state and score symbols."""
        A = self.D + self.D1 + self.Q1
        return sp.ImmutableMatrix(-self.f + A * sp.Matrix(self.scores) + _div(A, self.state))

    @cached_property
    def noise(self) -> sp.ImmutableMatrix:
        """Lower Cholesky factor of ``2 D'``."""
        return cholesky(2 * self.D1)

    @cached_property
    def residual(self) -> sp.Expr:
        r"""Reverse plus forward Fokker-Planck operator on an unspecified positive density ``p(z, t)``; it must vanish identically.

        .. math:: R = -\sum_i \partial_i (g_i p) + \sum_{ij} \partial_{ij} (D'_{ij} p)
                  - \sum_i \partial_i (f_i p) + \sum_{ij} \partial_{ij} (D_{ij} p), \qquad s_i = \partial_i p / p.
        """
        p = sp.Function("p", positive=True)(*self.state, *(self._times or [sp.Symbol("t", real=True)]))
        score = {symbol: sp.diff(p, z) / p for symbol, z in zip(self.scores, self.state, strict=True)}
        drift, both = self.drift.xreplace(score) + self.f, self.D1 + self.D
        total = sp.Integer(0)
        for i, x in enumerate(self.state):
            total -= sp.diff(drift[i] * p, x)
            total += sum(sp.diff(both[i, j] * p, x, y) for j, y in enumerate(self.state))
        return total

    @cached_property
    def proof(self) -> Decision:
        r"""That :math:`\partial_\tau p = -\partial_t p` for every density: PROVED where the residual is 0 identically."""
        found = decide_zero(self.residual)
        if found.verdict is Verdict.PROVED:
            return Decision(found.verdict, "the reverse Fokker-Planck operator is minus the forward one on every density p(z, t)")
        return found

    def dynamics(self, **values: Any) -> Dynamics:
        """The numbers, with ``values`` (then the recipe's defaults) in the place of the parameters.

        Raises
        ------
        BadInput
            For a missing, unknown or non-numeric parameter, or a part without a numeric value (an unspecified function).
        """
        clock = [value for value in vars(self.clock).values() if isinstance(value, sp.Expr)]
        if isinstance(self.forward, Process):
            if values:
                raise BadInput(f"process {self.forward.name!r} has numbers already; {', '.join(values)} cannot be set")
            parts: list[Any] = [*self.drift, *self.D1]
        else:
            parts = _at(self.forward, values, [*self.drift, *self.D1, *clock], (*self.state, *self.scores, *self._times))
        k = len(self.state)
        found = dict(zip(clock, parts[k + k * k :], strict=True))
        resolve = getattr(self.clock, "resolve", None)
        made = self.clock if resolve is None else resolve(lambda value: found.get(value, value))
        drift = numeric((*self.state, *self.scores, *self._times), parts[:k])
        diffusion = numeric((*self.state, *self._times), parts[k : k + k * k])
        return Dynamics(k, made, drift, diffusion, (self.time is not None, len(self._times) > (self.time is not None)))

    @property
    def _times(self) -> tuple[sp.Symbol, ...]:
        moving = self.forward.time if isinstance(self.forward, Recipe) else None
        return tuple(symbol for symbol in (self.time, moving) if symbol is not None)

    def _repr_latex_(self) -> str:
        drift, noise = sp.latex(self.drift), sp.latex(self.noise)
        kick = rf" + {noise}\,dW" if any(self.D1) else ""
        return rf"$$d{sp.latex(sp.Matrix(self.state))} = {drift}\,d\tau{kick}, \quad \tau = T - t$$"


@dataclass(frozen=True, eq=False)
class Dynamics:
    r"""Reverse-time dynamics as functions of arrays; made by :meth:`Reversal.dynamics`.

    The state ``z`` has shape (k, n, \*event), each element of the event on its own.  ``t`` is the forward time.  ``score(z, t)`` returns the score
    in the shape of ``z``: for a linear process and a denoiser it is ``lambda z, t: sdekit.denoiser.score(process, denoise, z, t)``.
    """

    k: int
    clock: Clock
    _drift: Callable[..., list[Any]]
    _diffusion: Callable[..., list[Any]]
    _timed: tuple[bool, bool]

    def drift(self, z: ArrayLike, t: float, score: Score) -> Array:
        r""":math:`\beta(t)\,g(z, t)`, of the shape of ``z``.

        Raises
        ------
        BadInput
            If ``z`` or the score has the wrong shape, or ``t`` is outside [0, T].
        """
        z, rate = self._checked(z, t)
        s = np.asarray(score(z, t), float)
        if s.shape != z.shape:
            raise BadInput(f"the score has shape {s.shape}; it must have that of z, {z.shape}")
        found = self._drift(*z, *s, *self._times(t))
        return rate * np.stack([np.broadcast_to(np.asarray(entry, float), z.shape[1:]) for entry in found])

    def diffusion(self, z: ArrayLike, t: float) -> Array:
        r""":math:`\beta(t)\,D'(z, t)`, of shape (k, k, n, \*event)."""
        z, rate = self._checked(z, t)
        found = self._diffusion(*z, *self._times(t))
        entries = [np.broadcast_to(np.asarray(entry, float), z.shape[1:]) for entry in found]
        return rate * np.stack(entries).reshape(self.k, self.k, *z.shape[1:])

    def noise(self, z: ArrayLike, t: float) -> Array:
        r"""Lower factor of :math:`2 \beta(t) D'(z, t)`, of shape (k, k, n, \*event); a zero pivot makes a zero column.

        Raises
        ------
        BadInput
            As for :meth:`drift`.
        Refuted
            If ``D'`` has a negative direction at one of the points.
        """
        return _factor(2.0 * self.diffusion(z, t))

    def euler(self, z: ArrayLike, t: float, h: float, score: Score, normals: ArrayLike) -> Array:
        r"""One Euler-Maruyama step from ``t`` down to ``t - h``, with standard normals of the shape of ``z``."""
        z = np.asarray(z, float)
        kick = np.einsum("ij...,j...->i...", self.noise(z, t), np.asarray(normals, float))
        return np.asarray(z + h * self.drift(z, t, score) + np.sqrt(h) * kick)

    def _checked(self, z: ArrayLike, t: float) -> tuple[Array, float]:
        z = np.asarray(z, float)
        if z.ndim < 2 or z.shape[0] != self.k:
            raise BadInput(f"z has shape {z.shape}; the first axis must be the {self.k} blocks, the second the samples")
        if not 0.0 <= finite("t", t) <= self.clock.T * (1.0 + 1e-12):
            raise BadInput(f"t = {t} must lie in [0, {self.clock.T:g}]")
        return z, float(self.clock.rate(t))

    def _times(self, t: float) -> tuple[float, ...]:
        found = (float(t), float(self.clock.integral(t)))
        return tuple(value for value, wanted in zip(found, self._timed, strict=True) if wanted)


def reverse(
    forward: Recipe | Process,
    D1: Any = None,
    Q1: Any = None,
    *,
    noise: Any = None,
    time: sp.Symbol | None = None,
) -> Reversal:
    r"""The reverse-time dynamics with diffusion :math:`D'` and circulation :math:`Q'`.

    Parameters
    ----------
    forward : Recipe or Process
        In the unit clock; for a process the blocks are its names, and floats are taken exactly.
    D1 : matrix (k, k) or expression for k = 1, optional
        :math:`D'` in the unit clock, in the state's symbols, the recipe's parameters and ``time``; zero when absent.
    Q1 : matrix (k, k), optional
        :math:`Q'`, likewise.
    noise : number or expression, optional
        The level :math:`\lambda` of :math:`D' = \lambda^2 D`, instead of ``D1``.
    time : Symbol, optional
        The symbol of the forward time in ``D1`` and ``Q1``; best declared nonnegative.

    Returns
    -------
    Reversal

    Raises
    ------
    BadInput
        For parts that are no k x k matrices of expressions, both ``D1`` and ``noise``, or a ``time`` that is a block.
    Refuted
        If ``D1`` is not symmetric positive semidefinite or ``Q1`` not skew, with the witness.

    References
    ----------
    Anderson 1982; Song et al. 2021 for the two ends of ``D' = lambda^2 D``; Ma, Chen and Fox 2015 for the forward counterpart.
    """
    if D1 is not None and noise is not None:
        raise BadInput("give D1, or the noise level lambda of D1 = lambda^2 D, not both")
    if isinstance(forward, Process):
        state, f, D, clock = _exact(forward)
    elif isinstance(forward, Recipe):
        state, f, D, clock = forward.state, forward.drift, forward.D, forward.clock
    else:
        raise BadInput(f"reverse takes a Recipe or a Process, not {type(forward).__name__}")
    if time is not None and (not isinstance(time, sp.Symbol) or time in state or time == getattr(forward, "time", None)):
        raise BadInput(f"time = {time!r} must be a symbol that is not a block of the state, nor the recipe's own clock")
    if noise is not None:
        level = noise if isinstance(noise, sp.Expr) else sp.Rational(repr(finite("noise", noise)))
        D1 = level**2 * D
    D1, Q1 = _square("D1", D1, state), _square("Q1", Q1, state)
    psd, skew = decide_psd(D1), _decide_skew(Q1)
    for name, rule, found in (("D1", "symmetric positive semidefinite", psd), ("Q1", "skew", skew)):
        if found.verdict is Verdict.REFUTED:
            raise Refuted(f"{name} must be {rule}: {found.evidence.replace('D[', 'D1[')}")
    taken = {s.name for part in (*f, *D, *D1, *Q1) for s in part.free_symbols} | {z.name for z in state}
    scores = []
    for z in state:
        name = f"s_{z.name}"
        while name in taken:
            name += "_"
        scores.append(sp.Symbol(name, real=True))
    return Reversal(forward, tuple(state), tuple(scores), sp.ImmutableMatrix(f), sp.ImmutableMatrix(D), D1, Q1, time, clock, psd, skew)


def _square(name: str, value: Any, state: Sequence[sp.Symbol]) -> sp.ImmutableMatrix:
    """``value`` as a matrix of exact expressions, by the rules of a recipe's parts."""
    k = len(state)
    if value is None:
        return sp.ImmutableMatrix(sp.zeros(k, k))
    scalar = k == 1 and (isinstance(value, sp.Expr) or np.ndim(value) == 0)
    try:
        made: sp.ImmutableMatrix = Recipe(state, 0, [[value]] if scalar else value, sp.zeros(k, k)).D
    except BadInput as error:
        raise BadInput(str(error).replace("D[", f"{name}[").replace("D must", f"{name} must")) from None
    return made


def _decide_skew(Q1: sp.Matrix) -> Decision:
    for i in range(Q1.shape[0]):
        for j in range(i + 1):
            found = decide_zero(Q1[i, j] + Q1[j, i])
            if found.verdict is not Verdict.PROVED:
                return Decision(found.verdict, f"Q1[{i},{j}] + Q1[{j},{i}] should be 0: {found.evidence}", ((i, j), found.witness), found.value)
    return Decision(Verdict.PROVED, "every entry of Q' + Q'^T is zero")


def _exact(process: Process) -> tuple[tuple[sp.Symbol, ...], sp.Matrix, sp.Matrix, Clock]:
    """Blocks, drift, diffusion and clock; the product ``G G^T`` is taken of exact numbers, so that it is semidefinite without rounding."""
    state = tuple(sp.Symbol(name, real=True) for name in process.blocks)
    F, G = (sp.Matrix(matrix.shape[0], matrix.shape[1], [sp.Rational(repr(float(v))) for v in matrix.ravel()]) for matrix in (process.F, process.G))
    return state, F * sp.Matrix(state), G * G.T / 2, process.clock


def _at(recipe: Recipe, values: dict[str, Any], parts: list[sp.Expr], known: tuple[sp.Symbol, ...]) -> list[sp.Expr]:
    """``parts`` with the recipe's parameters resolved as the recipe does it: they travel as the drift of a recipe with more blocks."""
    carried = [*parts, recipe.H, *recipe.D, *recipe.drift]  # all of the recipe, so that all its parameters are known names
    blocks = (*known, *(sp.Dummy() for _ in range(len(carried) - len(known))))
    still, start, defaults = sp.zeros(len(blocks)), dict(recipe.initial), dict(recipe.parameters)
    carrier = Recipe.from_drift(blocks, carried, still, 0, initial=start, parameters=defaults, name=recipe.name)
    found: list[sp.Expr] = list(resolved(carrier, values).drift)
    return found[: len(parts)]


def _factor(A: Array) -> Array:
    """Lower ``L`` with ``L L^T = A`` on the first two axes, for semidefinite ``A`` (k, k, ...)."""
    L = np.zeros_like(A)
    k = len(A)
    for j in range(k):
        pivot = A[j, j] - np.sum(L[j, :j] ** 2, axis=0)
        size = np.abs(A[j, j])
        rest = np.array([A[i, j] - np.sum(L[i, :j] * L[j, :j], axis=0) for i in range(j + 1, k)]).reshape(k - j - 1, *pivot.shape)
        zero = pivot <= _PIVOT * size
        scale = np.sqrt(size * np.abs(np.array([A[i, i] for i in range(j + 1, k)]).reshape(rest.shape)))
        if np.any(pivot < -_PIVOT * size) or np.any(zero & (np.abs(rest) > np.sqrt(_PIVOT) * scale)):
            raise Refuted(f"D' has a negative direction at one of the points: pivot {j} of its factor is {np.min(pivot):g}")
        L[j, j] = np.sqrt(np.where(zero, 0.0, pivot))
        L[j + 1 :, j] = np.where(zero, 0.0, rest / np.where(zero, 1.0, L[j, j]))
    return L
