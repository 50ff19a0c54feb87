r"""Is this expression zero?  A decision for rational expressions, a proof or a witness for others, and "sampled" where neither is found.

Every transcendental part becomes a fresh generator: :math:`e^{u}` for each direction of exponent, a root with its algebraic relation, and
unspecified functions and their derivatives as they are.  What is then zero as a polynomial is zero; what is not is evaluated exactly.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from math import comb, prod
from operator import add, mul
from typing import Any

import sympy as sp
from sympy.polys.domains import QQ
from sympy.polys.rings import PolyRing

__all__ = ["Decision", "Verdict", "decide_zero", "enclosure", "points"]

_SIZE = 20_000  # operations beyond which nothing is tried
_TERMS = 20_000  # terms beyond which a product of sums is not multiplied out, but evaluated at points
_SPREAD = 10**6  # numbers that a coordinate of a random point is drawn from
_DRAWS = 8


class Verdict(StrEnum):
    """How a claim stands."""

    PROVED = "PROVED"
    SAMPLED = "SAMPLED"
    ASSUMED = "ASSUMED"
    UNDECIDED = "UNDECIDED"
    REFUTED = "REFUTED"


@dataclass(frozen=True)
class Decision:
    """A verdict, why, and for REFUTED what shows it (for ``expr == 0`` a point, symbol: rational, at which it is not) with the value there."""

    verdict: Verdict
    evidence: str
    witness: Any = None
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
        PROVED or REFUTED for rational expressions of bounded size, always.  Beyond, and for others: PROVED, REFUTED (with a witness), SAMPLED
        (0 at random points: exactly, with the probability that a nonzero expression passes (Schwartz, Zippel); or in an interval that
        certainly holds the value) or UNDECIDED (too large, or nowhere defined).
    """
    expr = sp.Integer(expr) if isinstance(expr, int) else expr
    if expr == 0:
        return Decision(Verdict.PROVED, "it is 0 as written")
    size = sp.count_ops(expr)
    if size > _SIZE:
        return Decision(Verdict.UNDECIDED, f"the expression has {size} operations, more than {_SIZE}")
    where = where or {}
    if _terms(expr) > _TERMS:
        return _by_points(expr.xreplace(dict(where)))
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
        return Decision(Verdict.REFUTED, f"its numerator is the nonzero polynomial {numerator}")
    if size < _SIZE // 20 and sp.simplify(expr) == 0:
        return Decision(Verdict.PROVED, "it simplifies to 0")
    return _by_points(expr)


def _terms(expr: sp.Expr) -> int:
    """A bound on the terms of the expanded expression."""
    if expr.is_Add:
        return sum(_terms(part) for part in expr.args)
    if expr.is_Mul:
        return prod(_terms(part) for part in expr.args)
    if expr.is_Pow and expr.exp.is_Integer:
        return comb(_terms(expr.base) + abs(int(expr.exp)) - 1, abs(int(expr.exp)))
    return 1


def _degrees(expr: sp.Expr) -> tuple[int, int]:
    """Bounds on the degrees of numerator and denominator of a rational expression."""
    if expr.is_Add:
        parts = [_degrees(part) for part in expr.args]
        below = sum(low for _, low in parts)
        return max(high + below - low for high, low in parts), below
    if expr.is_Mul:
        parts = [_degrees(part) for part in expr.args]
        return sum(high for high, _ in parts), sum(low for _, low in parts)
    if expr.is_Pow:
        high, low = _degrees(expr.base)
        n = int(expr.exp)
        return (high * n, low * n) if n > 0 else (low * -n, high * -n)
    return (0 if expr.is_number else 1), 0


def _by_points(expr: sp.Expr) -> Decision:
    """A verdict from values at random rational points: exact ones for rational expressions, intervals that certainly hold the value for others."""
    symbols = sorted(expr.free_symbols, key=lambda s: s.name)
    if expr.atoms(sp.core.function.AppliedUndef, sp.Derivative):
        return Decision(Verdict.UNDECIDED, "it holds unspecified functions and did not reduce to 0")
    rng = random.Random(3721)  # noqa: S311 - reproducible test points, not secrets
    rational = expr.is_rational_function(*symbols) and not expr.atoms(sp.NumberSymbol) and all(n.is_Rational for n in expr.atoms(sp.Number))
    widest, used = 0.0, 0
    for _ in range(4 * _DRAWS):
        point = {s: sp.Rational(rng.randint(1, _SPREAD), 1000 if rational else 300_000) for s in symbols}
        try:
            value = expr.xreplace(point) if rational else enclosure(expr, point)
        except (ZeroDivisionError, ValueError):
            continue
        if rational:
            if value.is_Rational and value != 0:
                return Decision(Verdict.REFUTED, f"it is {value}{_at(point)}", point, value)
            used += bool(value.is_Rational)
        else:
            if not value.a <= 0 <= value.b:
                return Decision(Verdict.REFUTED, f"it is {sp.Float(value.mid, 12)}{_at(point)}", point, sp.Float(value.mid, 30))
            widest, used = max(widest, float(value.delta)), used + 1
        if used == _DRAWS:
            break
    if not used:
        return Decision(Verdict.UNDECIDED, "it has no value at the points tried")
    if rational:
        chance = sp.Rational(_degrees(expr)[0], _SPREAD) ** used
        how = f"exactly 0 at {used} random rational points; a nonzero expression of this degree passes with probability at most {float(chance):.1g}"
        return Decision(Verdict.SAMPLED, how)
    how = f"its value lies in an interval around 0 of width {widest:.1g} at {used} random points; this is evidence, not a proof"
    return Decision(Verdict.SAMPLED if widest < 1e-30 else Verdict.UNDECIDED, how)


def enclosure(expr: sp.Expr, point: Mapping[sp.Symbol, sp.Rational], digits: int = 60) -> Any:
    """An interval (mpmath's) that certainly holds the value of ``expr`` at a rational point.

    Raises
    ------
    ValueError
        For a function that interval arithmetic does not know.
    ZeroDivisionError
        Where a denominator's interval holds 0.
    """
    from mpmath import iv

    before, iv.dps = iv.dps, digits
    try:
        known: dict[Any, Any] = {sp.exp: iv.exp, sp.log: iv.log, sp.sin: iv.sin, sp.cos: iv.cos}

        def read(node: sp.Expr) -> Any:
            if node in point:
                return read(point[node])
            if node.is_Rational:
                return iv.mpf(int(node.p)) / iv.mpf(int(node.q))
            if node is sp.pi:
                return iv.pi
            if node is sp.E:
                return iv.exp(iv.mpf(1))
            if node.is_Add:
                return reduce(add, (read(part) for part in node.args))
            if node.is_Mul:
                return reduce(mul, (read(part) for part in node.args))
            if node.is_Pow and node.exp.is_Integer:
                return read(node.base) ** int(node.exp)
            if node.is_Pow and node.base is not sp.E:
                return iv.exp(read(node.exp) * iv.log(read(node.base)))
            if node.func in known:
                return known[node.func](read(node.args[0]))
            raise ValueError(f"no interval arithmetic for {node.func}")

        return read(expr.rewrite(sp.exp) if expr.has(sp.sinh, sp.cosh, sp.tanh) else expr)
    finally:
        iv.dps = before


def _polynomial(expr: sp.Expr, where: Mapping[sp.Symbol, sp.Expr]) -> tuple[sp.Expr, bool]:
    """Numerator of ``expr`` over fresh generators, reduced by their relations; whether it is an honest rational expression."""
    given = [(name, 2, value.base) if value.is_Pow and value.exp == sp.S.Half else (name, 1, value) for name, value in where.items()]
    whole, roots = _roots(sp.Tuple(expr, *(base for _, _, base in given)))
    named = [_in_exponentials(part) for part in (*whole.args, *(base for _, _, base in roots[::-1]))]
    names = _exponentials(sp.Tuple(*named))
    expr, *bases = (part.xreplace(names) for part in named)
    surds, numbers = _surds(sp.Tuple(expr, *bases))
    unsigned = {s: sp.Dummy(s.name) for part in (expr, *bases) for s in part.free_symbols}  # sympy asks for signs on its way, at length
    relations = [(unsigned.get(root, root), order) for root, order, _ in (*given, *roots[::-1])]
    parts = [_fraction(part.xreplace({**unsigned, **surds})) for part in (expr, *bases)]
    plain = not names and not relations and all(leaf.is_Symbol for leaf in _leaves(parts[0][0]))
    read = _Ring({leaf for pair in parts for part in pair for leaf in _leaves(part)} | {root for root, *_ in (*relations, *numbers)})
    numerator = read(parts[0][0])
    for (root, order), (low, high) in zip(relations, parts[1:], strict=True):
        numerator = read.reduced(numerator, root, order, read(low), read(high))
    for root, order, base in numbers:
        numerator = read.reduced(numerator, root, order, read(base), read(sp.S.One))
    back = {dummy: s for s, dummy in unsigned.items()} | {root: sp.root(base, order) for root, order, base in numbers}
    return numerator.as_expr().xreplace(back) if numerator else sp.S.Zero, plain


def _in_exponentials(expr: sp.Expr) -> sp.Expr:
    expr = expr.rewrite(sp.exp) if expr.has(sp.sinh, sp.cosh, sp.tanh, sp.sin, sp.cos, sp.tan) else expr
    return sp.expand(expr, power_exp=True, mul=False, multinomial=False, log=False) if expr.has(sp.exp) else expr


def _fraction(expr: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    below = any(power.exp.could_extract_minus_sign() for power in expr.atoms(sp.Pow))
    return sp.fraction(sp.together(expr)) if below else (expr, sp.S.One)


def _leaves(expr: sp.Expr) -> Iterator[sp.Expr]:
    """What a polynomial expression is a polynomial in."""
    if expr.is_Add or expr.is_Mul:
        for part in expr.args:
            yield from _leaves(part)
    elif expr.is_Pow and expr.exp.is_Integer and expr.exp > 0:
        yield from _leaves(expr.base)
    elif not expr.is_Rational:
        yield expr


class _Ring:
    """Polynomial expressions as elements of one ring over the rationals, whose arithmetic is that of dictionaries, not of trees."""

    def __init__(self, leaves: set[sp.Expr]) -> None:
        ring = PolyRing(sorted(leaves, key=str) or [sp.Dummy()], QQ)
        self.one, self.gens = ring.one, dict(zip(ring.symbols, ring.gens, strict=True))

    def __call__(self, expr: sp.Expr) -> Any:
        if expr in self.gens:
            return self.gens[expr]
        if expr.is_Add:
            return reduce(add, map(self, expr.args))
        if expr.is_Mul:
            return reduce(mul, map(self, expr.args))
        return self(expr.base) ** int(expr.exp) if expr.is_Pow else self.one * QQ(int(expr.p), int(expr.q))

    def reduced(self, numerator: Any, root: sp.Symbol, order: int, low: Any, high: Any) -> Any:
        """``numerator`` times a power of ``high``, with ``high root^order = low`` used until ``root`` has a degree below ``order``."""
        gen = self.gens[root]
        at = gen.ring.gens.index(gen)
        parts: dict[int, Any] = {}
        for powers, c in numerator.terms():
            rest = (*powers[:at], powers[at] % order, *powers[at + 1 :])
            parts.setdefault(powers[at] // order, gen.ring.zero.copy())[rest] = c
        most = max(parts, default=0)
        return sum((part * (low**n if n else 1) * high ** (most - n) for n, part in parts.items()), gen.ring.zero)


def _surds(whole: sp.Tuple) -> tuple[dict[sp.Expr, sp.Expr], list[tuple[sp.Dummy, int, sp.Expr]]]:
    """Roots of whole numbers as products of roots of primes, between which there is no relation, and the imaginary unit, as generators."""
    found = [p for p in whole.atoms(sp.Pow) if p.base.is_Integer and p.base > 1 and p.exp.is_Rational and not p.exp.is_Integer]
    factors = {p: sp.factorint(p.base) for p in found}
    orders = {q: int(sp.ilcm(1, *(p.exp.q for p in found if q in factors[p]))) for q in sorted(set().union(*factors.values()))}
    roots = {q: sp.Dummy(f"r{q}") for q in orders}
    surds: dict[sp.Expr, sp.Expr] = {p: sp.Mul(*(roots[q] ** (p.exp * often * orders[q]) for q, often in factors[p].items())) for p in found}
    numbers = [(roots[q], orders[q], sp.Integer(q)) for q in orders]
    if whole.has(sp.I):
        surds[sp.I] = sp.Dummy("i")
        numbers.append((surds[sp.I], 2, sp.S.NegativeOne))
    return surds, numbers


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
        scale = sp.ilcm(1, *(c.q for c, _ in found)) * (1 if max(c for c, _ in found) > 0 else -1)  # decaying ones become a polynomial too
        for c, atom in found:
            names[atom] = base ** (c * scale)
    return names


def _roots(expr: sp.Expr) -> tuple[sp.Expr, list[tuple[sp.Dummy, int, sp.Expr]]]:
    """Moduli, and fractional powers of all but rational numbers, as generators with ``root^order = base``."""
    relations: list[tuple[sp.Dummy, int, sp.Expr]] = []
    while True:
        moduli = [p for p in expr.atoms(sp.Abs) if p.args[0].is_extended_real]
        powers = [p for p in expr.atoms(sp.Pow) if p.exp.is_Rational and not p.exp.is_Integer and not p.base.is_Rational]
        if not moduli and not powers:
            return expr, relations
        first = min((*moduli, *powers), key=lambda p: sp.count_ops(p.args[0]))
        base, same = first.args[0], [p for p in powers if p.args[0] == first.args[0]]
        if first in moduli:
            order, root = 2, sp.Dummy("r", nonnegative=True)
            expr, base = expr.xreplace({first: root}), base**2
        else:
            order, root = int(sp.ilcm(1, *(p.exp.q for p in same))), sp.Dummy("r", positive=base.is_nonnegative)
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
