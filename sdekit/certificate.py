"""Certificates: every claim of a recipe with its verdict, its evidence and, where refuted, a witness that a plain evaluation confirms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from html import escape
from itertools import combinations
from typing import TYPE_CHECKING, Any

import sympy as sp

from .errors import BadInput, Refuted, unknown
from .symbolic import linear_part
from .zero import Verdict, decide_zero, points

if TYPE_CHECKING:
    from .recipe import Recipe

__all__ = ["Certificate", "Claim", "Verdict", "certify"]


@dataclass(frozen=True)
class Claim:
    """One statement about a recipe.

    Attributes
    ----------
    statement : str
    verdict : Verdict
        PROVED (algebra), SAMPLED (numbers, never called a proof), ASSUMED, UNDECIDED or REFUTED.
    evidence : str
        Why.
    witness : object
        For REFUTED: what shows it, as exact values.
    assumptions : tuple of str
        What the verdict rests on.
    """

    statement: str
    verdict: Verdict
    evidence: str
    witness: Any = None
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Certificate:
    """What is known about a recipe.

    ``skew``, ``psd``, ``stationary`` are what a recipe asserts, and ``normalisable`` too unless ``H`` is constant (an improper stationary measure,
    declared as such); ``linear``, ``ergodic`` and ``kernel`` are properties that it has or has not.  Stationary is not ergodic.
    """

    recipe: Recipe
    skew: Claim
    psd: Claim
    stationary: Claim
    normalisable: Claim
    linear: Claim
    ergodic: Claim
    kernel: Claim

    def claims(self) -> Iterator[tuple[str, Claim]]:
        """Names and claims, in the order of the argument."""
        for field in fields(self)[1:]:
            yield field.name, getattr(self, field.name)

    @property
    def false(self) -> list[str]:
        """Names of the asserted claims that are refuted; a recipe with one is false."""
        asserted = ["skew", "psd", "stationary"] + ([] if self.recipe.improper else ["normalisable"])
        return [name for name in asserted if getattr(self, name).verdict is Verdict.REFUTED]

    def require(self, name: str) -> None:
        """Raise Refuted, with the claim, unless claim ``name`` is PROVED."""
        known = dict(self.claims())
        if name not in known:
            raise unknown("claim", name, known)
        claim = known[name]
        if claim.verdict is not Verdict.PROVED:
            raise Refuted(f"recipe {self.recipe.name!r}: {name} is {claim.verdict}, not PROVED: {claim.evidence}")

    def as_dict(self) -> dict[str, Any]:
        """Names to verdict, evidence, witness and assumptions, as plain data."""
        out: dict[str, Any] = {}
        for name, claim in self.claims():
            witness = None if claim.witness is None else str(claim.witness)
            out[name] = {"statement": claim.statement, "verdict": str(claim.verdict), "evidence": claim.evidence, "witness": witness,
                         "assumptions": list(claim.assumptions)}  # fmt: skip
        return out

    def __str__(self) -> str:
        lines = [f"certificate of {self.recipe.name}"]
        for name, claim in self.claims():
            lines.append(f"  {name:<12} {claim.verdict:<9} {claim.statement}: {claim.evidence}")
            lines += [f"  {'':<22} assuming {text}" for text in claim.assumptions]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{name}</th><td><b>{claim.verdict}</b></td><td>{escape(claim.statement)}</td>"
            f"<td>{escape(claim.evidence)}{''.join(f'<br><i>assuming {escape(a)}</i>' for a in claim.assumptions)}</td></tr>"
            for name, claim in self.claims()
        )
        return f"<table><caption>certificate of {escape(self.recipe.name)}</caption>{rows}</table>"


def certify(recipe: Recipe) -> Certificate:
    """Check every claim of ``recipe``.

    Returns
    -------
    Certificate

    Raises
    ------
    BadInput
        If ``recipe`` is not a Recipe.
    """
    for name in ("state", "H", "D", "Q", "drift", "residual"):
        if not hasattr(recipe, name):
            raise BadInput(f"certify takes a Recipe, not {type(recipe).__name__}")
    tight, notes = _tightened(recipe)
    linear, F = _linear(tight)
    normalisable = _normalisable(tight)
    stationary = _stationary(tight)
    claims = {
        "skew": _skew(tight),
        "psd": _psd(tight),
        "stationary": stationary,
        "normalisable": normalisable,
        "linear": linear,
        "ergodic": _ergodic(tight, F, normalisable, stationary),
        "kernel": _kernel(tight, F),
    }
    noted = {name: Claim(c.statement, c.verdict, c.evidence, c.witness, (*c.assumptions, *notes)) for name, c in claims.items()}
    return Certificate(recipe, **noted)


def _tightened(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with parameters that it divides by assumed different from 0: a nonnegative one becomes positive."""
    parts = [recipe.H, *recipe.D, *([] if recipe.Q is None else recipe.Q), *recipe.drift]
    below = set().union(*(sp.denom(sp.together(part)).free_symbols for part in parts)) - set(recipe.state)
    change = {s: sp.Symbol(s.name, positive=True) for s in below if s.is_nonnegative and not s.is_positive}
    return (
        (recipe.subs(change), tuple(f"{s.name} != 0, because the recipe divides by it" for s in sorted(change, key=str))) if change else (recipe, ())
    )


def _skew(recipe: Recipe) -> Claim:
    statement = "Q = -Q^T"
    if recipe.Q is None:
        return Claim(
            statement, Verdict.ASSUMED, "none was given; a skew Q exists whenever exp(-H) is stationary, and recover_Q finds it where it can"
        )
    n = len(recipe.state)
    for i in range(n):
        for j in range(i, n):
            found = decide_zero(recipe.Q[i, j] + recipe.Q[j, i])
            if found.verdict is not Verdict.PROVED:
                return Claim(statement, found.verdict, f"Q[{i},{j}] + Q[{j},{i}] should be 0: {found.evidence}", ((i, j), found.witness))
    return Claim(statement, Verdict.PROVED, "every entry of Q + Q^T is zero")


def _psd(recipe: Recipe) -> Claim:
    statement = "D = D^T >= 0"
    D, n = recipe.D, len(recipe.state)
    for i in range(n):
        for j in range(i):
            found = decide_zero(D[i, j] - D[j, i])
            if found.verdict is not Verdict.PROVED:
                return Claim(statement, found.verdict, f"D[{i},{j}] - D[{j},{i}] should be 0: {found.evidence}", ((i, j), found.witness))
    minors = {rows: sp.factor(D.extract(list(rows), list(rows)).det()) for size in range(1, n + 1) for rows in combinations(range(n), size)}
    open_ = {rows: minor for rows, minor in minors.items() if not minor.is_nonnegative}
    if not open_:
        return Claim(statement, Verdict.PROVED, f"D is symmetric and all {len(minors)} principal minors are nonnegative")
    symbols = sorted(D.free_symbols, key=str)
    for point in points(symbols, 40) if symbols else [{}]:
        at = D.subs(point)
        vector = _negative_direction(at)
        if vector is not None:
            value = (vector.T * at * vector)[0]
            where = ", ".join(f"{s} = {v}" for s, v in point.items()) or "as given"
            return Claim(statement, Verdict.REFUTED, f"v^T D v = {value} for v = {list(vector)}, {where}", (point, tuple(vector)))
    first, minor = next(iter(open_.items()))
    return Claim(statement, Verdict.UNDECIDED, f"the principal minor of rows {list(first)}, {minor}, has no known sign")


def _negative_direction(D: sp.Matrix) -> sp.Matrix | None:
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


def _stationary(recipe: Recipe) -> Claim:
    statement = "exp(-H) is invariant: the Fokker-Planck residual is zero"
    found = decide_zero(recipe.residual)
    evidence = f"R = {recipe.residual}: {found.evidence}" if recipe.residual != 0 else "R = 0 identically"
    return Claim(statement, found.verdict, evidence, found.witness)


def _linear(recipe: Recipe) -> tuple[Claim, sp.Matrix | None]:
    statement = "the drift is F z and D is constant"
    moving = [entry for entry in recipe.D if entry.free_symbols & set(recipe.state)]
    if moving:
        return Claim(statement, Verdict.REFUTED, f"D depends on the state: {moving[0]}", moving[0]), None
    F = linear_part(recipe.state, recipe.drift)
    if F is None:
        for i, entry in enumerate(recipe.drift):
            for x in recipe.state:
                for y in recipe.state:
                    bend = sp.simplify(sp.diff(entry, x, y))
                    if bend != 0:
                        return Claim(statement, Verdict.REFUTED, f"d^2 f_{i} / d{x} d{y} = {bend}", bend), None
        return Claim(statement, Verdict.REFUTED, "the drift has a constant term", tuple(recipe.drift)), None
    return Claim(statement, Verdict.PROVED, f"F = {F.tolist()}"), F


def _normalisable(recipe: Recipe) -> Claim:
    statement = "exp(-H) has a finite integral"
    H, state = recipe.H, recipe.state
    flat = [z for z in state if sp.diff(H, z).simplify() == 0]
    if flat:
        return Claim(statement, Verdict.REFUTED, f"H does not depend on {flat[0]}: the stationary measure is improper", flat[0])
    verdicts = [_integrable(part, variables) for part, variables in _separated(H, state)]
    order = [Verdict.REFUTED, Verdict.UNDECIDED, Verdict.ASSUMED, Verdict.PROVED]
    worst = min(verdicts, key=lambda claim: order.index(claim.verdict))
    evidence = "; ".join(claim.evidence for claim in verdicts) if worst.verdict is Verdict.PROVED else worst.evidence
    return Claim(statement, worst.verdict, evidence, worst.witness, worst.assumptions)


def _separated(H: sp.Expr, state: Sequence[sp.Symbol]) -> list[tuple[sp.Expr, list[sp.Symbol]]]:
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


def _integrable(H: sp.Expr, variables: list[sp.Symbol]) -> Claim:
    names = ", ".join(str(v) for v in variables)
    if not H.is_polynomial(*variables):
        return Claim("", Verdict.ASSUMED, f"exp(-({H})) is taken to be integrable in {names}", assumptions=(f"the integral over {names} is finite",))
    poly = sp.Poly(H, *variables)
    degree = poly.total_degree()
    if degree == 2:
        hessian = sp.hessian(H, variables)
        minors = [sp.factor(hessian[:i, :i].det()) for i in range(1, len(variables) + 1)]
        if all(minor.is_positive for minor in minors):
            return Claim("", Verdict.PROVED, f"H is quadratic in {names} with a positive definite Hessian")
        symbols = sorted(hessian.free_symbols, key=str)
        for point in points(symbols, 24) if symbols else [{}]:
            at = hessian.subs(point)
            vector = _negative_direction(at) or (at.nullspace() or [None])[0] if all(entry.is_number for entry in at) else None
            if vector is not None:
                return Claim("", Verdict.REFUTED, f"along {list(vector)} H does not grow ({point})", (point, tuple(vector)))
        return Claim("", Verdict.UNDECIDED, f"the leading minors {minors} of the Hessian have no known sign")
    lead = sum(c * sp.prod(v**e for v, e in zip(variables, powers, strict=True)) for powers, c in poly.terms() if sum(powers) == degree)
    for sign in (1, -1):
        for v in variables:
            ray = lead.subs({w: (sign if w == v else 0) for w in variables})
            if ray.is_negative:
                return Claim("", Verdict.REFUTED, f"H falls without bound along {'-' if sign < 0 else ''}{v}: leading term {ray}", (v, sign))
    squares = all(all(e % 2 == 0 for e in powers) and c.is_positive for powers, c in poly.terms() if sum(powers) == degree)
    alone = all(any(sum(powers) == degree and powers[i] == degree for powers, _ in poly.terms()) for i in range(len(variables)))
    if squares and alone:
        return Claim("", Verdict.PROVED, f"the leading form {lead} of H is a sum of even powers, positive definite in {names}")
    return Claim(
        "", Verdict.ASSUMED, f"the leading form {lead} is not seen to be positive definite", assumptions=(f"the integral over {names} is finite",)
    )


def _ergodic(recipe: Recipe, F: sp.Matrix | None, normalisable: Claim, stationary: Claim) -> Claim:
    statement = "every start converges to exp(-H)"
    if normalisable.verdict is Verdict.REFUTED or stationary.verdict is Verdict.REFUTED:
        failed = normalisable if normalisable.verdict is Verdict.REFUTED else stationary
        return Claim(statement, Verdict.REFUTED, f"there is no such law to converge to: {failed.evidence}", failed.witness)
    if F is None:
        return Claim(statement, Verdict.UNDECIDED, "the drift is not linear; controllability is decided for linear recipes only")
    n = len(recipe.state)
    blocks = [recipe.D]
    for _ in range(n - 1):
        blocks.append(F * blocks[-1])
    kalman = sp.Matrix.hstack(*blocks).applyfunc(sp.simplify)
    columns = [j for j in range(kalman.shape[1]) if any(kalman[:, j])]
    conditions: list[sp.Expr] = []
    for chosen in combinations(columns, n):
        minor = sp.factor(kalman.extract(list(range(n)), list(chosen)).det())
        if minor.is_nonzero:
            if stationary.verdict is normalisable.verdict is Verdict.PROVED:
                return Claim(statement, Verdict.PROVED, f"Kalman rank {n} of {n}: the noise reaches every direction, so F is a contraction")
            return Claim(statement, Verdict.UNDECIDED, f"Kalman rank {n} of {n}, but stationarity or integrability is not proved")
        if minor != 0:
            conditions.append(minor)
    if not conditions:
        rank = kalman.rank()
        stuck = kalman.T.nullspace()[0]
        return Claim(statement, Verdict.REFUTED, f"Kalman rank {rank} of {n}: no noise reaches {list(stuck)} . z", tuple(stuck))
    return Claim(
        statement, Verdict.UNDECIDED, f"holds where one of {sorted(conditions, key=sp.count_ops)[:3]} is not 0, which the assumptions do not say"
    )


def _kernel(recipe: Recipe, F: sp.Matrix | None) -> Claim:
    statement = "closed-form Gaussian perturbation kernel"
    if F is None:
        return Claim(statement, Verdict.REFUTED, "the drift is not linear or D is not constant: the kernel is not Gaussian")
    kernel = recipe.kernel()
    if kernel is None:
        return Claim(statement, Verdict.UNDECIDED, "the eigenvalues of F have no closed form; numeric kernels are exact to rounding all the same")
    proof = kernel.proof
    return Claim(statement, proof.verdict, f"{kernel.form}; {proof.evidence}", proof.witness)
