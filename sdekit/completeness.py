r"""Completeness: the ``Q`` of a process that is given by drift, diffusion and stationary density.

If :math:`e^{-H}` is invariant for ``(f, D)``, the current :math:`J = f e^{-H} - \operatorname{div}(D e^{-H})` has no divergence, so that it is
:math:`\operatorname{div}(Q e^{-H})` of a skew ``Q``, that is

.. math:: g := f + D \nabla H - \operatorname{div} D = -Q \nabla H + \operatorname{div} Q .

``Q`` is never unique: :math:`R e^{H}` with ``R`` skew and :math:`\operatorname{div} R = 0` may be added, and the process stays the same
(Ma, Chen and Fox 2015, theorem 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import sympy as sp
from sympy.integrals.manualintegrate import manualintegrate
from sympy.polys.monomials import itermonomials

from .recipe import Recipe
from .symbolic import linear_part
from .zero import Verdict, decide_zero

__all__ = ["Recovery", "recover_Q"]

_UNKNOWNS = 300  # coefficients of the ansatz
_SIZE = 200  # operations in a line integral


@dataclass(frozen=True)
class Recovery:
    """What :func:`recover_Q` found.

    Attributes
    ----------
    Q : matrix or None
    gauge : str
        Which other ``Q`` give the same process.
    obstruction : str or None
        The first reason why there is no ``Q``, or why none was found.
    method : str
        How it was found.
    """

    Q: sp.Matrix | None
    gauge: str
    obstruction: str | None
    method: str = ""

    def _repr_latex_(self) -> str:
        return f"$$Q = {sp.latex(self.Q)}$$" if self.Q is not None else f"no Q: {self.obstruction}"


def recover_Q(state: Sequence[sp.Symbol], drift: Sequence[Any], D: Any, H: Any) -> Recovery:
    r"""A ``Q`` for which ``drift`` is :math:`-(D + Q) \nabla H + \operatorname{div}(D + Q)`.

    Exactly for a linear drift and quadratic ``H`` (:math:`Q = -(D + F \Sigma)`, the only constant one); for polynomials by an ansatz whose
    coefficients solve a linear system over the rationals; in the plane by a line integral of the current.

    Parameters
    ----------
    state : sequence of Symbol
    drift, D, H
        As for :meth:`Recipe.from_drift`, in the unit clock.

    Returns
    -------
    Recovery
        With ``Q``, or with the obstruction: that ``exp(-H)`` is not stationary, or the first monomial that no ``Q`` of the tried degrees matches.

    Raises
    ------
    BadInput
        For malformed parts.
    """
    recipe = Recipe.from_drift(state, drift, D, H)
    z, n = recipe.state, len(recipe.state)
    F = linear_part(z, recipe.drift)
    hessian = sp.hessian(recipe.H, z)
    moving = set(z) & (hessian.free_symbols | recipe.D.free_symbols)
    if F is not None and not moving and decide_zero(hessian.det()).verdict is Verdict.REFUTED:
        return _linear(recipe, F, hessian)
    stationary = decide_zero(recipe.residual)
    if stationary.verdict is Verdict.REFUTED:
        return Recovery(None, "", f"exp(-H) is not stationary: the residual {recipe.residual} is not 0: {stationary.evidence}")
    gradient = sp.Matrix([sp.diff(recipe.H, v) for v in z])
    target = recipe.drift + recipe.D * gradient - sp.Matrix([sum(sp.diff(recipe.D[i, j], z[j]) for j in range(n)) for i in range(n)])
    target = target.applyfunc(lambda entry: sp.expand(sp.cancel(entry)) if entry.is_rational_function(*z) else sp.expand(entry))
    if not any(target):
        return Recovery(sp.ImmutableMatrix(sp.zeros(n, n)), _gauge(n), None, "the process is reversible: its current is 0")
    if n == 1:
        return Recovery(None, "", f"on a line Q = 0, but the current {target[0]} exp(-H) is not 0")
    if all(entry.is_polynomial(*z) for entry in (*target, recipe.H)):
        found = _ansatz(z, target, gradient)
        if found.Q is not None or n > 2:
            return found
    if n == 2:
        return _line_integral(z, target, recipe.H)
    return Recovery(None, "", "neither linear, polynomial nor in the plane: no constructive way to Q is known here")


def _gauge(n: int, free: int = 0) -> str:
    if n == 1:
        return "unique: a skew number is 0"
    if n == 2:
        return "Q + c e^H [[0, -1], [1, 0]] is the same process for every constant c, and grows without bound unless c = 0"
    more = f"; {free} coefficients of the ansatz are free, here 0" if free else ""
    return f"Q + R e^H is the same process for every skew R with div R = 0{more}"


def _linear(recipe: Recipe, F: sp.Matrix, hessian: sp.Matrix) -> Recovery:
    Q = (-(recipe.D + F * hessian.inv())).applyfunc(sp.simplify)
    for i in range(len(recipe.state)):
        for j in range(i, len(recipe.state)):
            if decide_zero(Q[i, j] + Q[j, i]).verdict is not Verdict.PROVED:
                text = f"entry ({i}, {j}) of F Sigma + Sigma F^T + 2 D is {sp.simplify(-(Q[i, j] + Q[j, i]))}, not 0: exp(-H) is not stationary"
                return Recovery(None, "", text)
    gauge = "unique among constant Q; adding R e^H with R skew and div R = 0 leaves the process unchanged but grows without bound"
    return Recovery(sp.ImmutableMatrix(Q), gauge, None, "Q = -(D + F Sigma)")


def _skew(n: int, entries: Sequence[Any]) -> sp.Matrix:
    Q = sp.zeros(n, n)
    for (i, j), entry in zip(combinations(range(n), 2), entries, strict=True):
        Q[i, j], Q[j, i] = entry, -entry
    return Q


def _side(z: Sequence[sp.Symbol], Q: sp.Matrix, gradient: sp.Matrix) -> sp.Matrix:
    n = len(z)
    return -Q * gradient + sp.Matrix([sum(sp.diff(Q[i, j], z[j]) for j in range(n)) for i in range(n)])


def _ansatz(z: Sequence[sp.Symbol], target: sp.Matrix, gradient: sp.Matrix) -> Recovery:
    """A polynomial ``Q`` of the least degree that works."""
    n, pairs = len(z), len(z) * (len(z) - 1) // 2
    most = max(sp.Poly(entry, *z).total_degree() for entry in target if entry != 0)
    obstruction = "the ansatz would be too large"
    for degree in range(most + 1):
        basis = sorted(itermonomials(list(z), degree), key=sp.default_sort_key)
        if pairs * len(basis) > _UNKNOWNS:
            break
        names = [[sp.Dummy(f"q{p}_{b}") for b in range(len(basis))] for p in range(pairs)]
        Q = _skew(n, [sum(c * b for c, b in zip(row, basis, strict=True)) for row in names])
        unknowns = [c for row in names for c in row]
        equations = []
        for i, entry in enumerate(_side(z, Q, gradient) - target):
            equations += [(sum(powers), i, powers, c) for powers, c in sp.Poly(entry, *z).terms()]
        equations.sort(key=lambda item: (item[0], item[2], item[1]))
        found = list(sp.linsolve([c for *_, c in equations], unknowns))
        if found:
            values = dict(zip(unknowns, found[0], strict=True))
            free = sorted(set().union(*(value.free_symbols for value in found[0])) & set(unknowns), key=str)
            Q = Q.xreplace(values).xreplace(dict.fromkeys(free, sp.Integer(0))).applyfunc(sp.expand)
            return Recovery(sp.ImmutableMatrix(Q), _gauge(n, len(free)), None, f"polynomial of degree {degree}, by comparing coefficients")
        low, high = 0, len(equations)  # the first equation that contradicts those of lower degree
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if list(sp.linsolve([c for *_, c in equations[:middle]], unknowns)) else (low, middle)
        _, i, powers, _ = equations[high - 1]
        monomial = sp.prod(v**e for v, e in zip(z, powers, strict=True))
        obstruction = f"no polynomial Q of degree <= {degree} matches the term in {monomial} of component {i}"
    return Recovery(None, "", obstruction)


def _line_integral(z: Sequence[sp.Symbol], target: sp.Matrix, H: sp.Expr) -> Recovery:
    """In the plane, ``Q = q [[0, -1], [1, 0]]`` with ``d_1 (q e^-H) = g_2 e^-H`` and ``d_2 (q e^-H) = -g_1 e^-H``."""
    failed = Recovery(None, "", "the line integral of the current has no closed form that was found")
    if sp.count_ops(target) + sp.count_ops(H) > _SIZE:
        return failed
    slopes = {z[0]: target[1] * sp.exp(-H), z[1]: -target[0] * sp.exp(-H)}
    gradient = sp.Matrix([sp.diff(H, v) for v in z])
    for first, second in (z, z[::-1]):
        along = manualintegrate(sp.expand(slopes[first]), first)
        rest = sp.simplify(slopes[second] - sp.diff(along, second))
        if along.has(sp.Integral) or first in rest.free_symbols:
            continue
        across = manualintegrate(rest, second)
        if across.has(sp.Integral):
            continue
        Q = _skew(2, [-sp.simplify((along + across) * sp.exp(H))])
        if all(decide_zero(entry).verdict is Verdict.PROVED for entry in _side(z, Q, gradient) - target):
            return Recovery(sp.ImmutableMatrix(Q), _gauge(2), None, "line integral of the current")
    return failed
