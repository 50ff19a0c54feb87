r"""Recipes: a diffusion declared by :math:`(H, D, Q)`, or by a drift to be checked.

.. math:: dz = f\,dB + \sqrt{2 D}\,dW, \qquad f = -(D + Q) \nabla H + \operatorname{div}(D + Q),

with ``D`` symmetric positive semidefinite and ``Q`` skew leaves :math:`e^{-H}` invariant (Ma, Chen and Fox 2015; Pandey and Mandt 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import sympy as sp

from .blocks import Block, alike, blocks_of, stacked, unfolded
from .certificate import assertions
from .clocks import Clock, constant
from .commuting import commuting_kernel
from .errors import BadInput, Refuted, finite, unknown
from .kernel import triangular
from .limits import Watch
from .numeric import numeric
from .process import Process
from .symbolic import UNIT, SymbolicKernel, cholesky, derive_drift, derive_residual, linear_part, symbolic_kernel
from .zero import Verdict

__all__ = ["Recipe", "initial_of", "parameter_values", "resolved", "starting"]


def _expression(name: str, value: Any) -> sp.Expr:
    if isinstance(value, str):
        raise BadInput(f"{name} = {value!r} is text; give a sympy expression (text belongs into a spec file, which parses it safely)")
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return sp.Rational(repr(finite(name, value)))
    if not isinstance(value, sp.Expr):
        raise BadInput(f"{name} = {value!r} must be a sympy expression")
    return value.xreplace({number: sp.Rational(repr(float(number))) for number in value.atoms(sp.Float)})


def _matrix(name: str, value: Any, blocks: tuple[Block, ...]) -> sp.ImmutableMatrix:
    rows = unfolded(name, value, blocks)
    return sp.ImmutableMatrix([[_expression(f"{name}[{i},{j}]", entry) for j, entry in enumerate(row)] for i, row in enumerate(rows)])


@dataclass(frozen=True, init=False)
class Recipe:
    r"""A diffusion by its parts, in the unit clock.

    Parameters
    ----------
    state : sequence of Symbol or column Matrix of them
        One for each block, the data block first.  A block may be a vector: ``sp.Matrix(sp.symbols("x1:4", real=True))`` is the block ``x``.
    H : expression
        :math:`-\log` of the stationary density, up to a constant.
    D, Q : matrices (k, k)
        Diffusion and circulation.  Constants or functions of the state.  An entry between two vectors of ``d`` components each is a (d, d) matrix,
        or a scalar, for that multiple of the identity; between others it is a matrix of their sizes, or 0.
    clock : Clock, optional
        The speed in time; ``constant(1)`` when absent.
    initial : mapping from Symbol or name to expression, optional
        Variances at t = 0 of blocks that do not start at a point (the auxiliary ones).
    parameters : mapping from Symbol or name to a value or expression, optional
        Defaults for :meth:`process`.
    name, paper : str, optional
    time : Symbol, optional
        The unit clock in ``D``, ``Q`` and a claimed drift, if they vary; never in ``H``, whose law is to stay.

    Attributes
    ----------
    state : tuple of Symbol
        All components; ``D``, ``Q`` and the drift have one row for each of them.
    blocks : tuple of Block
        The names of the blocks, with their symbols.

    Raises
    ------
    BadInput
        For malformed parts.  A *false* recipe is not malformed: :func:`sdekit.certify` refutes it, and :meth:`process` then refuses.
    """

    state: tuple[sp.Symbol, ...]
    H: sp.Expr
    D: sp.ImmutableMatrix
    Q: sp.ImmutableMatrix | None
    clock: Clock
    claimed: sp.ImmutableMatrix | None
    initial: tuple[tuple[sp.Symbol, sp.Expr], ...]
    parameters: tuple[tuple[str, Any], ...]
    name: str
    paper: str
    time: sp.Symbol | None
    blocks: tuple[Block, ...]

    def __init__(
        self,
        state: Sequence[sp.Symbol | sp.Matrix],
        H: Any,
        D: Any,
        Q: Any = None,
        clock: Clock | None = None,
        *,
        initial: Mapping[Any, Any] | None = None,
        parameters: Mapping[Any, Any] | None = None,
        name: str = "recipe",
        paper: str = "",
        drift: Any = None,
        time: sp.Symbol | None = None,
    ) -> None:
        blocks = blocks_of(state)
        components = tuple(z for block in blocks for z in block.symbols)
        if (Q is None) == (drift is None):
            raise BadInput("give Q, or a drift to be checked (Recipe.from_drift), not both")
        entries = [] if drift is None else stacked("drift", drift, blocks)
        claimed = None if drift is None else sp.ImmutableMatrix([_expression(f"drift[{i}]", entry) for i, entry in enumerate(entries)])
        start = initial_of(blocks, initial or {})
        defaults = tuple((str(key), _expression(f"parameters[{key}]", value)) for key, value in (parameters or {}).items())
        values = {
            "state": components, "H": _expression("H", H), "D": _matrix("D", D, blocks), "Q": None if Q is None else _matrix("Q", Q, blocks),
            "clock": constant(1.0) if clock is None else clock, "claimed": claimed, "initial": start,
            "parameters": defaults, "name": name, "paper": paper, "time": time,
            "blocks": blocks,
        }  # fmt: skip
        if time is not None and (not isinstance(time, sp.Symbol) or time in components or time in values["H"].free_symbols):
            raise BadInput(f"time = {time!r} must be a symbol that is no block and not in H: a recipe's law does not move")
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @classmethod
    def from_drift(
        cls, state: Sequence[sp.Symbol | sp.Matrix], drift: Sequence[Any], D: Any, H: Any, clock: Clock | None = None, **more: Any
    ) -> Recipe:
        """A claim to be checked: that ``exp(-H)`` is invariant under this drift and diffusion.  Other keywords as for Recipe."""
        return cls(state, H, D, None, clock, drift=drift, **more)

    @cached_property
    def drift(self) -> sp.Matrix:
        """The drift in the unit clock: the claimed one, or the recipe's."""
        return self.claimed if self.claimed is not None else derive_drift(self.state, self.H, self.D, self.Q)

    @cached_property
    def noise(self) -> sp.Matrix:
        """Lower Cholesky factor of ``2 D``."""
        return cholesky(2 * self.D)

    @cached_property
    def residual(self) -> sp.Expr:
        """The Fokker-Planck residual over the density; zero if and only if ``exp(-H)`` is invariant."""
        return derive_residual(self.state, self.drift, self.D, self.H)

    @property
    def improper(self) -> bool:
        """Whether ``H`` is constant: the recipe then declares Lebesgue measure as stationary, which is no law."""
        return not self.H.free_symbols & set(self.state)

    @property
    def varies(self) -> bool:
        """Whether drift or diffusion depend on the unit clock."""
        return self.time is not None and any(self.time in entry.free_symbols for entry in (*self.drift, *self.D))

    @property
    def symbols(self) -> tuple[sp.Symbol, ...]:
        """The parameters: symbols that are not blocks of the state, by name."""
        clock = [value for value in vars(self.clock).values() if isinstance(value, sp.Expr)]
        drift = [*([] if self.Q is None else self.Q), *([] if self.claimed is None else self.claimed)]
        parts = [self.H, *self.D, *drift, *(value for _, value in self.initial), *clock]
        found = set().union(*(part.free_symbols for part in parts)) - {*self.state, self.time}
        return tuple(sorted(found, key=lambda s: s.name))

    def kernel(self, **values: Any) -> SymbolicKernel | None:
        """The perturbation kernel in the clock ``B``; None if the recipe is not linear or has no closed form (``closed_form`` says why).

        Keywords put values (or expressions) in the place of parameters first: critical damping is another closed form than its neighbours.
        """
        recipe = self.subs({s: values[s.name] for s in self.symbols if s.name in values}) if values else self
        return None if isinstance(recipe.closed_form, str) else recipe.closed_form

    @cached_property
    def closed_form(self) -> SymbolicKernel | str:
        """The perturbation kernel, or why there is none in closed form; looked for during 20 seconds at most."""
        return Watch(60.0).ask(self._closed_form, lambda why: why)

    def _closed_form(self) -> SymbolicKernel | str:
        if UNIT in self.symbols:
            return "B is a parameter here and the unit clock in closed forms: say time=B if the recipe varies in it, else call it otherwise"
        F = linear_part(self.state, self.drift)
        if F is None or any(entry.free_symbols & set(self.state) for entry in self.D):
            return "the drift is not linear or D is not constant: the kernel is not Gaussian"
        state, (F, D, start, hessian) = self.narrowed(F, self.D, self.start, sp.hessian(self.H, self.state))
        quadratic = not hessian.free_symbols & set(self.state) and hessian.det() != 0
        guess = hessian.inv() if quadratic else None
        if self.varies:
            return commuting_kernel(state, F, 2 * D, start, guess, self.time)
        return symbolic_kernel(state, F, 2 * D, start, guess)

    @property
    def start(self) -> sp.ImmutableMatrix:
        """Covariance at t = 0."""
        return sp.ImmutableMatrix(sp.diag(*(dict(self.initial).get(z, 0) for z in self.state)))

    def narrowed(self, *matrices: sp.Matrix) -> tuple[tuple[sp.Symbol, ...], tuple[sp.Matrix, ...]]:
        """The state and the matrices for one coordinate of vector blocks, where all of these treat coordinates alike; else as they are."""
        narrow = tuple(alike(matrix, self.blocks) for matrix in matrices)
        if all(matrix is not None for matrix in narrow):
            return tuple(block.symbols[0] for block in self.blocks), narrow
        return self.state, matrices

    def subs(self, values: Mapping[sp.Symbol, Any]) -> Recipe:
        """The recipe with values or expressions in the place of parameters."""
        put = {key: _expression(str(key), value) for key, value in values.items()}
        parts = {name: getattr(self, name) for name in ("H", "D", "Q", "claimed")}
        changed = {name: None if part is None else part.subs(put) for name, part in parts.items()}
        return self._with(**changed, initial=tuple((key, value.subs(put)) for key, value in self.initial))

    def _with(self, **changes: Any) -> Recipe:
        made = object.__new__(Recipe)
        for field in fields(self):
            object.__setattr__(made, field.name, changes.get(field.name, getattr(self, field.name)))
        return made

    def process(self, *, initial: Mapping[Any, Any] | None = None, T: float | None = None, limit: float = 20.0, **values: Any) -> Process:
        """The linear process with numbers in the place of the parameters.

        Parameters
        ----------
        **values : number
            One for each parameter; defaults are the recipe's ``parameters``.
        initial : mapping from block (symbol or name) to variance, optional
            Replaces the recipe's.
        T : float, optional
            End of the forward process; the clock's when absent.
        limit : float
            Seconds for the check of the recipe's claims.

        Raises
        ------
        BadInput
            For a missing, unknown or non-numeric parameter.
        Refuted
            If the recipe is false at these values, or not linear.
        """
        return _process(self if initial is None else self._started(initial), tuple(sorted(values.items())), T, limit)

    def _started(self, initial: Mapping[Any, Any]) -> Recipe:
        return self._with(initial=initial_of(self.blocks, initial))

    def __hash__(self) -> int:
        return hash((self.state, self.H, self.D, self.Q, self.claimed, self.clock, self.initial, self.parameters, self.time, self.blocks))

    def _repr_latex_(self) -> str:
        rows = [f"H &= {sp.latex(self.H)}", f"D &= {sp.latex(self.D)}"]
        rows += [f"Q &= {sp.latex(self.Q)}"] if self.Q is not None else []
        rows += [f"f &= {sp.latex(self.drift)}", f"\\sqrt{{2D}} &= {sp.latex(self.noise)}"]
        return "$$\\begin{aligned}" + r" \\ ".join(rows) + "\\end{aligned}$$"


def _symbols(blocks: tuple[Block, ...], key: Any) -> tuple[sp.Symbol, ...]:
    for block in blocks:
        if str(key) == block.name or (isinstance(key, sp.MatrixBase) and tuple(key) == block.symbols):
            return block.symbols
        if any(key == z or str(key) == z.name for z in block.symbols):
            return (next(z for z in block.symbols if key == z or str(key) == z.name),)
    raise unknown("block", key, [block.name for block in blocks])


def initial_of(blocks: tuple[Block, ...], initial: Mapping[Any, Any]) -> tuple[tuple[sp.Symbol, sp.Expr], ...]:
    """Variances at t = 0 by component; a key is a block's name or symbols, or a component."""
    return tuple((z, _expression(f"initial[{key}]", value)) for key, value in initial.items() for z in _symbols(blocks, key))


def starting(state: tuple[sp.Symbol, ...], initial: tuple[tuple[sp.Symbol, sp.Expr], ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Covariance at t = 0, of variances that are numbers."""
    for z, value in initial:
        if not (value.is_real and value.is_finite and value >= 0):
            raise BadInput(f"initial[{z}] = {value} must be a variance: a finite number that is not negative")
    return np.diag([float(dict(initial).get(z, 0)) for z in state])


def parameter_values(recipe: Any, given: Mapping[str, Any]) -> dict[sp.Symbol, sp.Expr]:
    """All parameters as exact numbers: given ones, then defaults, which may use other parameters."""
    defaults = dict(recipe.parameters)
    needed = {s.name: s for s in recipe.symbols}
    for name in given:
        if name not in needed and name not in defaults:
            raise unknown("parameter", name, [*needed, *defaults])
    known: dict[str, sp.Expr] = {}
    for name, value in given.items():
        known[name] = _expression(name, value) if isinstance(value, sp.Expr) else _expression(name, finite(name, value))
    waiting = {name: _expression(name, value) for name, value in defaults.items() if name not in known}
    while waiting:
        ready = [name for name, value in waiting.items() if {s.name for s in value.free_symbols} <= set(known)]
        if not ready:
            raise BadInput(f"the defaults of {', '.join(sorted(waiting))} depend on each other or on unknown names")
        for name in ready:
            value = waiting.pop(name)
            known[name] = value.subs({s: known[s.name] for s in value.free_symbols})
    missing = [name for name in needed if name not in known]
    if missing:
        raise BadInput(f"parameter {missing[0]!r} of recipe {recipe.name!r} has no value: give {', '.join(missing)}")
    for name, symbol in needed.items():
        value = known[name]
        if not (value.is_real and value.is_finite):
            raise BadInput(f"{name} = {value} must be a finite real number")
        if (symbol.is_positive and value <= 0) or (symbol.is_nonnegative and value < 0):
            rule = "positive" if symbol.is_positive else "nonnegative"
            raise BadInput(f"{name} = {value} must be {rule}")
    return {symbol: known[name] for name, symbol in needed.items()} | {sp.Symbol(n): v for n, v in known.items() if n not in needed}


def _float_matrix(matrix: sp.Matrix) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([[float(entry) for entry in row] for row in matrix.tolist()])


def resolved(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with exact numbers in the place of all parameters: the given ones, then its defaults."""
    found = parameter_values(recipe, values)
    return recipe.subs({symbol: value for symbol, value in found.items() if symbol in recipe.symbols})


def _root(twice: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    eigenvalues, vectors = np.linalg.eigh(twice)
    return triangular(vectors * np.sqrt(np.maximum(eigenvalues, 0.0)))


def _numbers(exact: Recipe, F: sp.Matrix, D: sp.Matrix) -> tuple[Any, Any]:
    """Drift and noise in the unit clock: matrices, or functions of it where they vary."""
    if not exact.varies:
        return _float_matrix(F), _root(_float_matrix(2 * D))
    k = F.rows
    drift, twice = (numeric((exact.time,), list(matrix)) for matrix in (F, 2 * D))
    return lambda B: np.array(drift(B), float).reshape(k, k), lambda B: _root(np.array(twice(B), float).reshape(k, k))


@lru_cache(maxsize=256)
def _process(recipe: Recipe, given: tuple[tuple[str, Any], ...], T: float | None, limit: float) -> Process:
    values = parameter_values(recipe, dict(given))
    exact = resolved(recipe, dict(given))
    certificate = assertions(exact, limit)
    if certificate.false:
        name = certificate.false[0]
        raise Refuted(f"recipe {recipe.name!r} is false, {name} is REFUTED: {getattr(certificate, name).evidence}")
    for name in ("skew", "psd", "stationary"):
        if getattr(certificate, name).verdict not in (Verdict.PROVED, Verdict.ASSUMED):
            certificate.require(name)
    certificate.require("linear")
    starting(exact.state, exact.initial)
    state, (F, D, start) = exact.narrowed(linear_part(exact.state, exact.drift), exact.D, exact.start)
    if len(state) != len(exact.blocks):
        raise BadInput(
            f"recipe {recipe.name!r} is linear, but treats the components of {', '.join(b.name for b in exact.blocks if b.size > 1)} differently: "
            "a Process is one (k x k) matrix for all of them; simulate and certify take the recipe as it is"
        )
    F, G = _numbers(exact, F, D)
    by_name = {s.name: v for s, v in values.items()}
    clock = recipe.clock.resolve(lambda value: value.subs({s: by_name[s.name] for s in value.free_symbols}) if isinstance(value, sp.Expr) else value)  # type: ignore[attr-defined]
    blocks = tuple(block.name for block in exact.blocks)
    return Process(F, G, _float_matrix(start), T, clock=clock, blocks=blocks, name=recipe.name, recipe=recipe)
