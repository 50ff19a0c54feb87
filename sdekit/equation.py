r"""Stochastic differential equations with any drift and noise: the record, its symbolic making from a recipe, Ito and Stratonovich.

.. math:: dz = \beta(t) f(z, t)\,dt + \sqrt{\beta(t)}\, G(z, t)\,dW, \qquad z = (z_1, \dots, z_k), \quad G \in R^{k \times q}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from .clocks import Clock, constant
from .errors import BadInput, unknown, whole
from .numeric import numeric
from .process import Process
from .recipe import Recipe, parameter_values, resolved, starting
from .zero import Verdict, decide_zero

Array = NDArray[np.float64]
Field = Callable[[Array, float], Array]

__all__ = ["CLASSES", "SDE"]

CLASSES = ("additive", "diagonal", "commutative", "general")
"""Noise that does not depend on z; column j acts on row j and depends on z_j only; columns whose flows commute (one column always does); other."""


@dataclass(frozen=True, eq=False)
class SDE:
    r"""A stochastic differential equation with the fields of the unit clock: :math:`dz = f\,dB + G\,dW`.

    Parameters
    ----------
    k : int
        Number of blocks.
    drift, noise : callable
        ``drift(z, t)`` (k, n, *event) and ``noise(z, t)`` (k, q, n, *event).  Where each sample has steps of its own, ``t`` is an array that
        broadcasts against (n, *event).
    noise_class : str
        One of ``CLASSES``.  Found symbolically by :meth:`of`, believed otherwise.
    noise_jacobian, jacobian : callable, optional
        ``d noise[i, j] / d z[l]`` (k, q, k, n, *event), for Milstein and conversions; ``d drift[i] / d z[l]`` (k, k, n, *event), for
        implicit methods.
    interpretation : "ito" or "stratonovich"
    clock : Clock, optional
        ``constant(1)`` when absent: then ``t`` is the unit clock.
    blocks : sequence of str, optional
    S0 : array (k, k), optional
        Covariance at the start of what does not start at a point; zero when absent.
    symbols : tuple (state, drift, noise), optional
        The expressions behind the functions.
    time : Symbol, optional
        The unit clock in ``symbols``.
    data : int
        Components of the data block, if that is a vector block of a recipe.

    Raises
    ------
    BadInput
        For an unknown noise class or interpretation.
    """

    k: int
    drift: Field
    noise: Field
    noise_class: str = "general"
    noise_jacobian: Field | None = None
    jacobian: Field | None = None
    interpretation: str = "ito"
    clock: Clock = field(default_factory=constant)
    blocks: tuple[str, ...] = ()
    S0: Array | None = None
    symbols: tuple[tuple[sp.Symbol, ...], sp.Matrix, sp.Matrix] | None = None
    time: sp.Symbol | None = None
    data: int = 1

    def __post_init__(self) -> None:
        whole("k", self.k)
        if self.noise_class not in CLASSES:
            raise unknown("noise class", self.noise_class, CLASSES)
        if self.interpretation not in ("ito", "stratonovich"):
            raise unknown("interpretation", self.interpretation, ("ito", "stratonovich"))
        object.__setattr__(self, "blocks", tuple(self.blocks) or tuple(f"z{i}" for i in range(self.k)))

    @classmethod
    def of(cls, source: Any, /, **parameters: Any) -> SDE:
        """The equation of a Recipe (with numbers for its parameters), of a Process, or an SDE as it is.

        Raises
        ------
        BadInput
            For missing or unknown parameters, unspecified functions such as ``U(x)``, or a ``D`` without a real root.
        """
        if isinstance(source, Recipe):
            return _of_recipe(source, tuple(sorted(parameters.items())))
        if parameters:
            raise BadInput(f"{next(iter(parameters))} is a parameter, which only a Recipe has; leave it out for a {type(source).__name__}")
        if isinstance(source, SDE):
            return source
        if not isinstance(source, Process):
            raise BadInput(f"{source!r} cannot be simulated; give a Recipe, a Process or an SDE")
        fields = [_constant(matrix) for matrix in (source.F, source.G[:, np.any(source.G != 0.0, axis=0)])]

        def drift(z: Array, t: float) -> Array:  # noqa: ARG001 - the clock has the time
            return np.asarray(np.einsum("ij,j...->i...", source.F.astype(z.dtype), z))  # no BLAS: its threads cost more than a few blocks

        more: dict[str, Any] = {"clock": source.clock, "blocks": source.blocks, "S0": source.S0}
        return cls(source.k, drift, fields[1], "additive", jacobian=fields[0], **more)

    def ito(self) -> SDE:
        r"""The same process in the Ito sense: from Stratonovich, the drift gains :math:`\frac12 \sum_{jl} G_{lj} \partial_l G_{ij}`."""
        return self if self.interpretation == "ito" else self._other

    def stratonovich(self) -> SDE:
        r"""The same process in the Stratonovich sense: from Ito, the drift loses :math:`\frac12 \sum_{jl} G_{lj} \partial_l G_{ij}`."""
        return self if self.interpretation == "stratonovich" else self._other

    @cached_property
    def _other(self) -> SDE:
        sign, name = (-1, "stratonovich") if self.interpretation == "ito" else (1, "ito")
        if self.noise_class == "additive":
            return replace(self, interpretation=name)
        if self.symbols is not None:
            state, f, G = self.symbols
            columns = [G[:, j].jacobian(state) * G[:, j] for j in range(G.shape[1])]
            f = sp.ImmutableMatrix(f + sign * sum(columns, sp.zeros(self.k, 1)) / 2)  # not simplified: that may bring in case distinctions
            made = _Maker(state, self.time, self.clock)
            return replace(self, interpretation=name, drift=made.field(f, (self.k,)), jacobian=made.slopes(f, (self.k,)), symbols=(state, f, G))
        slope = self.noise_jacobian
        if slope is None:
            raise BadInput("this SDE has no noise_jacobian, which the Ito-Stratonovich conversion needs; give it, or declare a Recipe")

        def drift(z: Array, t: float) -> Array:
            return self.drift(z, t) + 0.5 * sign * np.asarray(np.einsum("ijl...,lj...->i...", slope(z, t), self.noise(z, t)))

        return replace(self, interpretation=name, drift=drift, jacobian=None)


def _constant(matrix: Array) -> Field:
    """A matrix as a field: a view, no copy for each element."""

    @lru_cache(maxsize=2)
    def view(shape: tuple[int, ...], dtype: Any) -> Array:
        return np.broadcast_to(matrix.astype(dtype).reshape(*matrix.shape, *(1,) * len(shape)), (*matrix.shape, *shape))

    return lambda z, _: view(z.shape[1:], z.dtype)


@dataclass(frozen=True)
class _Maker:
    """Expressions as fields."""

    state: tuple[sp.Symbol, ...]
    time: sp.Symbol | None
    clock: Clock

    def field(self, entries: Any, shape: tuple[int, ...]) -> Field:
        """Expressions (row by row) as a function of (z, t) with values of shape (*shape, n, *event)."""
        run = numeric([*self.state, *([] if self.time is None else [self.time])], list(entries))
        if not any(entry.free_symbols for entry in entries):
            return _constant(np.array([float(entry) for entry in entries]).reshape(shape))

        def values(z: Array, t: float) -> Array:
            out = np.empty((int(np.prod(shape)), *z.shape[1:]), z.dtype)
            for row, value in zip(out, run(*z, *([] if self.time is None else [self._clocked(t)])), strict=True):
                row[...] = value
            return out.reshape(*shape, *z.shape[1:])

        return values

    def _clocked(self, t: Any) -> Any:
        B = self.clock.integral(t)
        return float(B) if np.ndim(B) == 0 else B

    def slopes(self, entries: sp.Matrix, shape: tuple[int, ...]) -> Field:
        """The derivatives as a field; made when first asked for, because those of a kink have no values and most methods need none."""
        made: list[Field] = []

        def values(z: Array, t: float) -> Array:
            if not made:
                made.append(self.field([sp.diff(entry, block) for entry in entries for block in self.state], (*shape, len(self.state))))
            return made[0](z, t)

        return values


def _smooth(G: sp.Matrix, twice: sp.Matrix) -> sp.Matrix:
    """The root without moduli, if that is a root too: its law is the same, and ``s x`` has no kink where ``s |x|`` has one."""
    plain = sp.ImmutableMatrix(G.replace(sp.Abs, lambda u: u))
    same = plain == G or all(decide_zero(entry).verdict is Verdict.PROVED for entry in plain * plain.T - twice)
    return plain if same else G


@lru_cache(maxsize=64)
def _of_recipe(recipe: Recipe, given: tuple[tuple[str, Any], ...]) -> SDE:
    exact, state, k = resolved(recipe, dict(given)), recipe.state, len(recipe.state)
    unspecified = set().union(*(entry.atoms(sp.core.function.AppliedUndef) for entry in (*exact.drift, *exact.D)))
    if unspecified:
        name = min(map(str, unspecified))
        raise BadInput(f"{name} of recipe {recipe.name!r} is an unspecified function and has no values; put one in its place with recipe.subs first")
    f, G = exact.drift, exact.noise
    if any(entry.has(sp.nan, sp.zoo) or entry.is_real is False for entry in G):
        raise BadInput(
            f"D = {exact.D.tolist()} of recipe {recipe.name!r} is not positive semidefinite: 2 D has no real root; certify(recipe) says where"
        )
    G = _smooth(G, 2 * exact.D)
    noise_class = _classify(state, G)
    if noise_class != "diagonal":  # diagonal noise keeps its square shape; otherwise columns of zeros cost normals for nothing
        G = sp.ImmutableMatrix(G[:, [j for j in range(k) if any(G[:, j])]])
    q = G.shape[1]
    values = {s.name: v for s, v in parameter_values(recipe, dict(given)).items()}
    clock = recipe.clock.resolve(lambda v: v.subs({s: values[s.name] for s in v.free_symbols}) if isinstance(v, sp.Expr) else v)  # type: ignore[attr-defined]
    start = starting(state, exact.initial)
    made = _Maker(state, recipe.time, clock)
    return SDE(
        k, made.field(f, (k,)), made.field(G, (k, q)), noise_class, made.slopes(G, (k, q)), made.slopes(f, (k,)),
        "ito", clock, tuple(z.name for z in state), start, (state, f, G), recipe.time, exact.blocks[0].size,
    )  # fmt: skip


def _classify(state: Sequence[sp.Symbol], G: sp.Matrix) -> str:
    """The noise class, decided symbolically; what cannot be proved is "general"."""
    k, q = G.shape

    def moves(entry: sp.Expr, z: sp.Symbol) -> bool:
        return z in entry.free_symbols and decide_zero(sp.diff(entry, z)).verdict is not Verdict.PROVED

    if not any(moves(entry, z) for entry in G for z in state):
        return "additive"
    if all(G[i, j] == 0 if i != j else not any(moves(G[i, i], z) for z in state if z != state[i]) for i in range(k) for j in range(q)):
        return "diagonal"
    for a in range(q):
        for b in range(a):
            bracket = G[:, a].jacobian(state) * G[:, b] - G[:, b].jacobian(state) * G[:, a]
            if any(decide_zero(entry).verdict is not Verdict.PROVED for entry in bracket):
                return "general"
    return "commutative"
