r"""Is this expression zero?  A decision for rational expressions, a proof or a witness for others, and "sampled" where neither is found.

Every transcendental part becomes a fresh generator: :math:`e^{u}` for each direction of exponent, a root with its algebraic relation, and
unspecified functions and their derivatives as they are.  What is then zero as a polynomial is zero; what is not is evaluated exactly.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sympy as sp

__all__ = ["Decision", "Verdict", "decide_zero", "points"]

_SIZE = 20_000  # nodes beyond which nothing is tried


class Verdict(StrEnum):
    """How a claim stands."""

    PROVED = "PROVED"
    SAMPLED = "SAMPLED"
    ASSUMED = "ASSUMED"
    UNDECIDED = "UNDECIDED"
    REFUTED = "REFUTED"


@dataclass(frozen=True)
class Decision:
    """A verdict on ``expr == 0``, why, and for REFUTED a point (symbol: rational) at which it is not, with the value there."""

    verdict: Verdict
    evidence: str
    witness: dict[Any, Any] | None = None
    value: Any = None


def points(symbols: Sequence[sp.Symbol], count: int, size: int = 10) -> list[dict[sp.Symbol, sp.Rational]]:
    """Rational points that respect the symbols' assumptions: simple ones first, then pseudo-random ones (always the same)."""
    rng = random.Random(20211)  # noqa: S311 - reproducible test points, not secrets
    out: list[dict[sp.Symbol, sp.Rational]] = []
    simple: list[Any] = [sp.Integer(1), sp.Rational(1, 2), sp.Integer(2), sp.Integer(0), sp.Integer(-1)]
    for n in range(count):
        point = {}
        for symbol in symbols:
            value = simple[n] if n < len(simple) else sp.Rational(rng.randint(-size * 12, size * 12), rng.randint(1, 12))
            if symbol.is_positive and value <= 0:
                value = abs(value) + sp.Rational(1, 3)
            elif symbol.is_nonnegative:
                value = abs(value)
            point[symbol] = value
        out.append(point)
    return out


def decide_zero(expr: sp.Expr, where: Mapping[sp.Symbol, sp.Expr] | None = None) -> Decision:
    """Decide whether ``expr`` vanishes identically for all values that its symbols may take.

    Parameters
    ----------
    expr : expression
    where : mapping, optional
        Abbreviations that ``expr`` uses, each a rational expression or the square root of one.

    Returns
    -------
    Decision
        PROVED or REFUTED for rational expressions, always; for others PROVED, REFUTED (with a witness), SAMPLED (zero to 50 digits at all
        points tried) or UNDECIDED (too large, or nowhere defined).
    """
    expr = sp.Integer(expr) if isinstance(expr, int) else expr
    if expr == 0:
        return Decision(Verdict.PROVED, "it is 0 as written")
    size = sp.count_ops(expr)
    if size > _SIZE:
        return Decision(Verdict.UNDECIDED, f"the expression has {size} operations, more than {_SIZE}")
    where = where or {}
    try:
        numerator, plain = _polynomial(expr, where)
    except sp.PolynomialError as error:
        return Decision(Verdict.UNDECIDED, f"no normal form: {error.args[0] if error.args else error}")
    if numerator == 0:
        how = "its numerator expands to the zero polynomial" if plain else "its numerator is zero modulo the relations of its functions and roots"
        return Decision(Verdict.PROVED, how)
    expr = expr.xreplace(dict(where))
    witness = _witness(expr, sorted(expr.free_symbols, key=lambda s: s.name))
    if witness is not None:
        return witness
    if plain:
        return Decision(Verdict.REFUTED, f"its numerator is the nonzero polynomial {sp.Poly(numerator, *numerator.free_symbols).as_expr()}")
    if sp.simplify(expr) == 0:
        return Decision(Verdict.PROVED, "it simplifies to 0")
    return Decision(Verdict.SAMPLED, "it is 0 to 50 digits at all points tried; this is evidence, not a proof")


def _polynomial(expr: sp.Expr, where: Mapping[sp.Symbol, sp.Expr]) -> tuple[sp.Expr, bool]:
    """Numerator of ``expr`` over fresh generators, reduced by their relations; whether it is an honest rational expression."""
    expr, relations = _roots(expr)
    expr = expr.rewrite(sp.exp) if expr.has(sp.sinh, sp.cosh, sp.tanh, sp.sin, sp.cos, sp.tan) else expr
    expr = sp.expand(expr, power_exp=True, mul=False, multinomial=False, log=False) if expr.has(sp.exp) else expr
    names = _exponentials(expr)
    expr = expr.xreplace(names)
    plain = not names and not relations and not expr.atoms(sp.log, sp.Derivative, sp.Function)
    numerator = sp.expand(sp.numer(sp.together(expr)))
    given = [(name, 2, value.base) if value.is_Pow and value.exp == sp.S.Half else (name, 1, value) for name, value in where.items()]
    for root, order, base in (*given, *relations):
        low, high = sp.fraction(sp.together(base))
        if root in numerator.free_symbols:
            numerator = sp.expand(sp.rem(numerator, high * root**order - low, root) if sp.Poly(numerator, root).degree() >= order else numerator)
            numerator = sp.expand(sp.numer(sp.together(numerator)))
    if (
        numerator != 0
        and numerator.has(sp.Pow)
        and any(p.exp.is_Rational and not p.exp.is_Integer and p.base.is_number for p in numerator.atoms(sp.Pow))
    ):
        numerator = sp.expand(sp.radsimp(numerator))
    return numerator, plain


def _exponentials(expr: sp.Expr) -> dict[sp.Expr, sp.Expr]:
    """Each exp(c w), c rational, as a power of one generator per direction w."""
    groups: dict[sp.Expr, list[tuple[sp.Rational, sp.Expr]]] = {}
    for atom in expr.atoms(sp.exp):
        c, w = sp.factor_terms(atom.args[0]).as_coeff_Mul()
        if w.could_extract_minus_sign():
            c, w = -c, -w
        groups.setdefault(sp.expand(w), []).append((c, atom))
    names: dict[sp.Expr, sp.Expr] = {}
    for found in groups.values():
        base = sp.Dummy("e", positive=True)
        scale = sp.ilcm(1, *(c.q for c, _ in found))
        for c, atom in found:
            names[atom] = base ** (c * scale)
    return names


def _roots(expr: sp.Expr) -> tuple[sp.Expr, list[tuple[sp.Dummy, int, sp.Expr]]]:
    """Fractional powers of non-numbers as generators with ``root^order = base``."""
    relations: list[tuple[sp.Dummy, int, sp.Expr]] = []
    while True:
        found = [p for p in expr.atoms(sp.Pow) if p.exp.is_Rational and not p.exp.is_Integer and not p.base.is_number]
        if not found:
            return expr, relations
        base = min(found, key=sp.count_ops).base
        same = [p for p in found if p.base == base]
        order = int(sp.ilcm(1, *(p.exp.q for p in same)))
        root = sp.Dummy("r", positive=True)
        expr = expr.xreplace({p: root ** (p.exp * order) for p in same})
        relations.append((root, order, base))


def _witness(expr: sp.Expr, symbols: Sequence[sp.Symbol]) -> Decision | None:
    """A point at which ``expr`` is certainly not 0: exact if the value is rational, else to 50 digits."""
    if expr.atoms(sp.core.function.AppliedUndef):
        return None
    for point in points(symbols, 24):
        value = expr.xreplace(point)
        value = sp.nsimplify(value) if value.is_Rational else value.evalf(50)
        if not value.is_number or value.has(sp.zoo, sp.nan, sp.oo):
            continue
        if value.is_Rational:
            if value != 0:
                return Decision(Verdict.REFUTED, f"it is {value}{_at(point)}", point, value)
        elif abs(value) > sp.Float("1e-30"):
            return Decision(Verdict.REFUTED, f"it is {sp.N(value, 12)}{_at(point)}", point, value)
    return None


def _at(point: dict[Any, Any]) -> str:
    return " at " * bool(point) + ", ".join(f"{symbol} = {value}" for symbol, value in point.items())
