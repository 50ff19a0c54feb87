"""Is this expression nonnegative, this matrix positive semidefinite, this form definite?  Proofs, rational witnesses, or "not known"."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import prod

import sympy as sp

from .zero import Decision, Verdict, decide_zero, points

__all__ = ["connected", "decide_nonnegative", "decide_psd", "negative_direction", "positive_form", "separated"]

_POINTS = 40
_ROWS = 6  # rows of a connected part of a matrix beyond which not all principal minors are formed


def decide_nonnegative(expr: sp.Expr) -> Decision:
    """Decide whether ``expr >= 0`` for all values that its symbols may take.

    Returns
    -------
    Decision
        PROVED by the signs of its factors, for a polynomial in one symbol by its real roots (Sturm), for a quadratic one by its Gram matrix;
        REFUTED with a rational point; else UNDECIDED.
    """
    expr = sp.factor(sp.together(expr))
    if expr.is_nonnegative:
        return Decision(Verdict.PROVED, "its factors are nonnegative")
    if not expr.atoms(sp.core.function.AppliedUndef):
        symbols = sorted(expr.free_symbols, key=str)
        for point in points(symbols, _POINTS) if symbols else [{}]:
            value = expr.xreplace(point)
            if value.is_number and value.is_negative:
                return Decision(
                    Verdict.REFUTED, f"it is {value}" + " at " * bool(point) + ", ".join(f"{s} = {v}" for s, v in point.items()), point, value
                )
    low, high = sp.fraction(sp.Mul(*(part for part in sp.Mul.make_args(expr) if not part.is_nonnegative)))
    if not (low * high).is_polynomial(*expr.free_symbols):
        return Decision(Verdict.UNDECIDED, f"{expr} has no known sign")
    lead, factors = sp.factor_list(low * high)
    signs = [_sign(factor) for factor, power in factors if power % 2]
    if lead.is_number and all(sign for sign, _ in signs) and sp.sign(lead) * prod(sign for sign, _ in signs) > 0:
        return Decision(Verdict.PROVED, "; ".join(how for _, how in signs if how) or "its factors have known signs")
    return Decision(Verdict.UNDECIDED, f"{expr} has no known sign")


def _sign(factor: sp.Expr) -> tuple[int, str]:
    """The sign that a polynomial has everywhere and why; (0, "") if not known."""
    for sign in (1, -1):
        if (sign * factor).is_nonnegative:
            return sign, ""
        how = _never_negative(sp.expand(sign * factor))
        if how:
            return sign, how
    return 0, ""


def _never_negative(expr: sp.Expr) -> str:
    """Why the irreducible polynomial ``expr`` is nowhere negative; empty if not known."""
    symbols = sorted(expr.free_symbols, key=str)
    poly = sp.Poly(expr, *symbols)
    if not all(c.is_Rational for c in poly.coeffs()):
        return ""
    if len(symbols) == 1:
        (x,) = symbols
        bottom = 0 if x.is_nonnegative else None
        inside = poly.count_roots(bottom, None) - (bottom == 0 and poly.eval(0) == 0)
        return f"{expr} has no real root where {x} may lie" if inside == 0 and poly.eval(1) > 0 else ""
    if poly.total_degree() == 2:
        one = sp.Dummy("one")
        gram = sp.hessian(poly.homogenize(one).as_expr(), [*symbols, one])
        if negative_direction(gram) is None:
            return f"{expr} is a sum of squares: its Gram matrix is positive semidefinite"
    return ""


def negative_direction(D: sp.Matrix) -> sp.Matrix | None:
    """A rational ``v`` with ``v^T D v < 0`` for a matrix of numbers, by exact elimination; None if there is none (or D is not all numbers)."""
    n = D.shape[0]
    if not all(entry.is_number and entry.is_real for entry in D):
        return None
    A, T = sp.Matrix(D), sp.eye(n)  # A = T^T D T throughout
    for p in range(n):
        if A[p, p] < 0:
            return T[:, p]
        if A[p, p] == 0:
            for j in range(p + 1, n):
                if A[p, j] != 0:  # [[0, b], [b, c]]: v = t e_p + e_j with 2 t b + c < 0
                    return T[:, j] - T[:, p] * (A[j, j] + 1) / (2 * A[p, j])
            continue
        for j in range(p + 1, n):
            ratio = A[p, j] / A[p, p]
            T[:, j] -= ratio * T[:, p]
            A[:, j] -= ratio * A[:, p]
            A[j, :] -= ratio * A[p, :]
    return None


def connected(D: sp.Matrix) -> list[list[int]]:
    """Rows of ``D`` in groups that no entry connects."""
    groups = [{i} for i in range(D.shape[0])]
    for i, j in combinations(range(D.shape[0]), 2):
        if D[i, j] != 0 or D[j, i] != 0:
            a, b = (next(g for g in groups if k in g) for k in (i, j))
            if a is not b:
                groups.remove(b)
                a |= b
    return [sorted(group) for group in groups]


def decide_psd(D: sp.Matrix) -> Decision:
    """Decide whether the matrix ``D`` is symmetric and positive semidefinite for all values that its symbols may take.

    Returns
    -------
    Decision
        PROVED by the signs of all principal minors of each connected part.  REFUTED with the witness ``(point, v)``, ``v^T D v < 0`` at that
        rational point, or with the entries that are not symmetric.  Else UNDECIDED.
    """
    n = D.shape[0]
    for i in range(n):
        for j in range(i):
            found = decide_zero(D[i, j] - D[j, i])
            if found.verdict is not Verdict.PROVED:
                return Decision(found.verdict, f"D[{i},{j}] - D[{j},{i}] should be 0: {found.evidence}", ((i, j), found.witness))
    open_ = [f"whether {entry} is real is not known" for entry in D if not entry.is_extended_real][:1]
    count = 0
    for part in connected(D):
        if len(part) > _ROWS and D.free_symbols:
            open_.append(f"the block of rows {part} is too large for all its principal minors")
            continue
        sizes = range(1, len(part) + 1) if D.extract(part, part).free_symbols else ()
        if not sizes and negative_direction(D.extract(part, part)) is not None:
            open_.append(f"the block of rows {part} is not positive semidefinite")
        for rows in (rows for size in sizes for rows in combinations(part, size)):
            found = decide_nonnegative(D.extract(list(rows), list(rows)).det())
            count += 1
            if found.verdict is not Verdict.PROVED:
                open_.append(f"the principal minor of rows {list(rows)}: {found.evidence}")
                break
    if not open_:
        how = f"all {count} principal minors are nonnegative" if count else "exact elimination meets no negative pivot"
        return Decision(Verdict.PROVED, f"D is symmetric and {how}")
    if not D.atoms(sp.core.function.AppliedUndef):
        symbols = sorted(D.free_symbols, key=str)
        for point in points(symbols, _POINTS) if symbols else [{}]:
            at = D.subs(point)
            vector = negative_direction(at)
            if vector is not None:
                value = (vector.T * at * vector)[0]
                where = ", ".join(f"{s} = {v}" for s, v in point.items()) or "as given"
                return Decision(Verdict.REFUTED, f"v^T D v = {value} for v = {list(vector)}, {where}", (point, tuple(vector)), value)
    return Decision(Verdict.UNDECIDED, open_[0])


def positive_form(form: sp.Expr, variables: Sequence[sp.Symbol]) -> bool | None:
    """Whether a form (all terms of one degree) is positive off the origin; None if not known.

    Even powers with positive coefficients, each variable alone among them; or two variables and rational coefficients, by the real roots of
    ``form(x, 1)``.
    """
    poly = sp.Poly(form, *variables)
    degree = poly.total_degree()
    even = all(all(e % 2 == 0 for e in powers) and c.is_positive for powers, c in poly.terms())
    if even and all(any(powers[i] == degree for powers, _ in poly.terms()) for i in range(len(variables))):
        return True
    if len(variables) == 2 and all(c.is_Rational for c in poly.coeffs()):
        x, y = variables
        line = sp.Poly(form.subs(y, 1), x)
        return bool(form.subs({x: 1, y: 0}) > 0 and line.degree() == degree and line.count_roots() == 0)
    return None


def separated(H: sp.Expr, state: Sequence[sp.Symbol]) -> list[tuple[sp.Expr, list[sp.Symbol]]]:
    """``H`` as a sum of functions of disjoint groups of variables."""
    groups: list[tuple[sp.Expr, set[sp.Symbol]]] = []
    for term in sp.Add.make_args(sp.expand(H)):
        used = term.free_symbols & set(state)
        if not used:
            continue
        joined = [g for g in groups if g[1] & used]
        groups = [g for g in groups if not g[1] & used]
        groups.append((term + sum(g[0] for g in joined), used.union(*(g[1] for g in joined))))
    return [(part, [z for z in state if z in used]) for part, used in groups]
