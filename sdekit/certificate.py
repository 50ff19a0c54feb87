"""Certificates: every claim of a recipe with its verdict, its evidence and, where refuted, a witness that a plain evaluation confirms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from html import escape
from typing import TYPE_CHECKING, Any

import sympy as sp

from .definite import decide_psd, negative_direction, positive_form, separated
from .derivation import Derivation, derive
from .errors import BadInput, Refuted, positive, unknown
from .limits import Watch
from .reach import bracket_rank, entropy_decay, kalman, steady
from .symbolic import linear_part, lyapunov, rates
from .zero import Verdict, decide_zero, points

if TYPE_CHECKING:
    from .recipe import Recipe

__all__ = ["Certificate", "Claim", "Truth", "Verdict", "assertions", "certify"]

_SKEW = "Q = -Q^T"
_PSD = "D = D^T >= 0"
_STATIONARY = "exp(-H) is invariant: the Fokker-Planck residual is zero"
_NORMALISABLE = "exp(-H) has a finite integral"
_LINEAR = "the drift is F z and D is constant"
_ERGODIC = "every start converges to exp(-H)"
_KERNEL = "closed-form Gaussian perturbation kernel"


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
    truth : Truth or None
        For a linear recipe that is not stationary under its claim: what it converges to instead.
    """

    statement: str
    verdict: Verdict
    evidence: str
    witness: Any = None
    assumptions: tuple[str, ...] = ()
    truth: Truth | None = None


@dataclass(frozen=True)
class Truth:
    """The stationary law ``N(0, cov)`` that a linear process has where another is claimed, and ``KL(truth || claim)`` (None if infinite)."""

    cov: sp.Matrix
    kl: sp.Expr | None


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

    def derivation(self) -> Derivation:
        """The way from the recipe's parts to its kernel, as steps to read: shows as Markdown; ``.markdown()``, ``.html()``."""
        return derive(self.recipe, self)

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


def certify(recipe: Recipe, *, limit: float = 60.0) -> Certificate:
    """Check every claim of ``recipe``.

    Parameters
    ----------
    recipe : Recipe
    limit : float
        Seconds for all claims together; what is not settled then is UNDECIDED.  Kept on the main thread only.

    Returns
    -------
    Certificate

    Raises
    ------
    BadInput
        If ``recipe`` is not a Recipe, or ``limit`` not positive.
    """
    return _certificate(recipe, Watch(positive("limit", limit)), full=True)


def assertions(recipe: Recipe, limit: float) -> Certificate:
    """What a recipe needs to become a process: every claim but ``ergodic`` and ``kernel``, which are left UNDECIDED."""
    return _certificate(recipe, Watch(positive("limit", limit)), full=False)


def _certificate(recipe: Recipe, watch: Watch, *, full: bool) -> Certificate:
    if not all(hasattr(type(recipe), name) for name in ("drift", "residual", "kernel")):
        raise BadInput(f"certify takes a Recipe, not {type(recipe).__name__}: without a fixed H there is no law to certify")
    tight, notes = watch.ask(lambda: _tightened(recipe), lambda _: (recipe, ()))

    def ask(statement: str, question: Callable[[], Claim]) -> Claim:
        return watch.ask(question, lambda why: Claim(statement, Verdict.UNDECIDED, why))

    skew, psd = ask(_SKEW, lambda: _skew(tight)), ask(_PSD, lambda: _psd(tight))
    linear, F = watch.ask(lambda: _linear(tight), lambda why: (Claim(_LINEAR, Verdict.UNDECIDED, why), None))
    stationary = ask(_STATIONARY, lambda: _stationary(tight, F))
    normalisable = ask(_NORMALISABLE, lambda: _normalisable(tight))
    ergodic, kernel = (Claim(statement, Verdict.UNDECIDED, "not asked") for statement in (_ERGODIC, _KERNEL))
    if full:
        ergodic = ask(_ERGODIC, lambda: _ergodic(tight, F, normalisable, stationary))
        if Verdict.REFUTED in (skew.verdict, psd.verdict):
            kernel = Claim(_KERNEL, Verdict.UNDECIDED, "not looked for: Q is not skew, or D no diffusion")
        else:
            kernel = ask(_KERNEL, lambda: _kernel(tight, F, linear))
    claims = (skew, psd, stationary, normalisable, linear, ergodic, kernel)
    return Certificate(recipe, *(replace(claim, assumptions=(*claim.assumptions, *notes)) for claim in claims))


def _tightened(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with parameters that it divides by assumed different from 0: a nonnegative one becomes positive."""
    parts = [recipe.H, *recipe.D, *([] if recipe.Q is None else recipe.Q), *recipe.drift]
    below = set().union(*(sp.denom(sp.together(part)).free_symbols for part in parts)) - {*recipe.state, recipe.time}
    change = {s: sp.Symbol(s.name, positive=True) for s in below if s.is_nonnegative and not s.is_positive}
    return (
        (recipe.subs(change), tuple(f"{s.name} != 0, because the recipe divides by it" for s in sorted(change, key=str))) if change else (recipe, ())
    )


def _skew(recipe: Recipe) -> Claim:
    statement = _SKEW
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
    found = decide_psd(recipe.D)
    return Claim(_PSD, found.verdict, found.evidence, found.witness)


def _stationary(recipe: Recipe, F: sp.Matrix | None) -> Claim:
    statement = _STATIONARY
    found = decide_zero(recipe.residual)
    evidence = f"R = {recipe.residual}: {found.evidence}" if recipe.residual != 0 else "R = 0 identically"
    truth = _truth(recipe, F) if found.verdict is Verdict.REFUTED and F is not None else None
    if truth is not None:
        evidence += f"; the stationary covariance is {truth.cov.tolist()}" + (
            "" if truth.kl is None else f", KL(truth || claim) = {sp.N(truth.kl, 8)}"
        )
    return Claim(statement, found.verdict, evidence, found.witness, truth=truth)


def _truth(recipe: Recipe, F: sp.Matrix) -> Truth | None:
    """The stationary law that a linear process with a refuted claim has in truth; None if it has none, or none is seen."""
    found = rates(F)
    if not found or found[0] >= 0:
        return None
    true = lyapunov(F, 2 * recipe.D)
    claimed = sp.hessian(recipe.H, recipe.state)
    if true is None:
        return None
    ratio = claimed.det() * true.det()
    if claimed.free_symbols or not ratio.is_positive or negative_direction(claimed) is not None:
        return Truth(true, None)
    mean = claimed.inv() * sp.Matrix([-sp.diff(recipe.H, z).subs(dict.fromkeys(recipe.state, 0)) for z in recipe.state])
    kl = ((claimed * true).trace() - len(recipe.state) + (mean.T * claimed * mean)[0] - sp.log(ratio)) / 2
    return Truth(true, kl)


def _linear(recipe: Recipe) -> tuple[Claim, sp.Matrix | None]:
    statement = _LINEAR
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
    statement = _NORMALISABLE
    H, state = recipe.H, recipe.state
    flat = [z for z in state if decide_zero(sp.diff(H, z)).verdict is Verdict.PROVED]
    if flat:
        return Claim(statement, Verdict.REFUTED, f"H does not depend on {flat[0]}: the stationary measure is improper", flat[0])
    verdicts = [_integrable(part, variables) for part, variables in separated(H, state)]
    order = [Verdict.REFUTED, Verdict.UNDECIDED, Verdict.ASSUMED, Verdict.PROVED]
    worst = min(verdicts, key=lambda claim: order.index(claim.verdict))
    evidence = "; ".join(claim.evidence for claim in verdicts) if worst.verdict is Verdict.PROVED else worst.evidence
    return Claim(statement, worst.verdict, evidence, worst.witness, worst.assumptions)


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
            if at.has(sp.nan, sp.zoo):
                continue
            vector = negative_direction(at) or (at.nullspace() or [None])[0] if all(entry.is_number for entry in at) else None
            if vector is not None:
                return Claim("", Verdict.REFUTED, f"along {list(vector)} H does not grow ({point})", (point, tuple(vector)))
        return Claim("", Verdict.UNDECIDED, f"the leading minors {minors} of the Hessian have no known sign")
    lead = sum(c * sp.prod(v**e for v, e in zip(variables, powers, strict=True)) for powers, c in poly.terms() if sum(powers) == degree)
    for sign in (1, -1):
        for v in variables:
            ray = lead.subs({w: (sign if w == v else 0) for w in variables})
            if ray.is_negative:
                return Claim("", Verdict.REFUTED, f"H falls without bound along {'-' if sign < 0 else ''}{v}: leading term {ray}", (v, sign))
    if positive_form(lead, variables):
        return Claim("", Verdict.PROVED, f"the leading form {lead} of H is positive definite in {names}")
    for point in points(variables, 24):
        value = lead.subs(point)
        if value.is_negative:
            return Claim("", Verdict.REFUTED, f"H falls without bound along {point}: leading form {value}", point)
    return Claim(
        "", Verdict.ASSUMED, f"the leading form {lead} is not seen to be positive definite", assumptions=(f"the integral over {names} is finite",)
    )


def _ergodic(recipe: Recipe, F: sp.Matrix | None, normalisable: Claim, stationary: Claim) -> Claim:
    statement = _ERGODIC
    if normalisable.verdict is Verdict.REFUTED or stationary.verdict is Verdict.REFUTED:
        failed = normalisable if normalisable.verdict is Verdict.REFUTED else stationary
        return Claim(statement, Verdict.REFUTED, f"there is no such law to converge to: {failed.evidence}", failed.witness)
    if F is None:
        return _forgetting(recipe, statement, False, stationary) if recipe.varies else _hypoelliptic(recipe, statement, normalisable, stationary)
    state, (F, D) = recipe.narrowed(F, recipe.D)
    if recipe.varies:
        constant = steady(F, D, recipe.time)
        if constant is None:
            return _forgetting(recipe, statement, True, stationary)
        F, D = constant
    n, reach = len(state), kalman(F, D)
    how = f"; F and D are these at B = 0 times one function of {recipe.time} above a positive constant" if recipe.varies else _gap(F)
    if reach.conditions:
        where = f"holds where one of {reach.conditions[:3]} is not 0, which the assumptions do not say"
        return Claim(statement, Verdict.UNDECIDED, where)
    if reach.stuck is not None:
        evidence = f"Kalman rank {reach.rank} of {n}: no noise reaches {list(reach.stuck)} . z"
        return Claim(statement, Verdict.REFUTED, evidence, tuple(reach.stuck))
    if stationary.verdict is not Verdict.PROVED or normalisable.verdict is not Verdict.PROVED:
        return Claim(statement, Verdict.UNDECIDED, f"Kalman rank {n} of {n}, but stationarity or integrability is not proved")
    return Claim(statement, Verdict.PROVED, f"Kalman rank {n} of {n}: the noise reaches every direction, so F is a contraction{how}")


def _forgetting(recipe: Recipe, statement: str, linear: bool, stationary: Claim) -> Claim:
    """Ergodicity of a recipe that varies in the clock."""
    if stationary.verdict is not Verdict.PROVED:
        return Claim(statement, Verdict.UNDECIDED, "drift or noise vary in the clock, and stationarity is not proved")
    found = entropy_decay(recipe.state, recipe.H, recipe.D, recipe.time)
    if found.verdict is Verdict.PROVED and not linear:
        return Claim(statement, Verdict.ASSUMED, found.evidence, assumptions=("no path explodes in finite time",))
    return Claim(statement, found.verdict, found.evidence)


def _gap(F: sp.Matrix) -> str:
    """The rate of convergence, where the eigenvalues are numbers."""
    found = rates(F)
    if not found:
        return ""
    often = sum(bool(abs(rate - found[0]) < sp.Float("1e-20")) for rate in found)
    return f", spectral gap {sp.N(-found[0], 8)} in the unit clock" + (f" ({often} eigenvalues share it)" if often > 1 else "")


def _hypoelliptic(recipe: Recipe, statement: str, normalisable: Claim, stationary: Claim) -> Claim:
    """Ergodicity of a nonlinear recipe: refuted where the noise cannot matter, else as far as brackets of vector fields go."""
    n, state = len(recipe.state), recipe.state
    if not any(recipe.D):
        return Claim(statement, Verdict.REFUTED, "there is no noise: a deterministic flow converges to no density", tuple(recipe.drift))
    for i, z in enumerate(state):
        if recipe.drift[i] == 0 and not any(recipe.D[i, :]):
            return Claim(statement, Verdict.REFUTED, f"{z} never moves", z)
    reach = bracket_rank(state, recipe.drift, recipe.D)
    if reach.rank < n:
        return Claim(statement, Verdict.UNDECIDED, f"bracket rank {reach.rank} of {n}: noise is not seen to reach every direction")
    if stationary.verdict is not Verdict.PROVED:
        return Claim(statement, Verdict.UNDECIDED, f"bracket rank {n} of {n}, but stationarity is not proved")
    where = ", ".join(f"{z} = {v}" for z, v in sorted(reach.point.items(), key=str))
    elsewhere = [f"the rank is {n} elsewhere too"] if where else []
    assumed = ["no path explodes in finite time", *elsewhere, "every region can be reached"]
    elliptic = all(sp.factor(recipe.D[:i, :i].det()).is_positive for i in range(1, n + 1))
    if elliptic:
        return Claim(statement, Verdict.ASSUMED, "D is positive definite everywhere", assumptions=(assumed[0], *normalisable.assumptions))
    return Claim(
        statement, Verdict.ASSUMED, f"bracket rank {n} of {n}{' at ' * bool(where)}{where}", assumptions=(*assumed, *normalisable.assumptions)
    )


def _kernel(recipe: Recipe, F: sp.Matrix | None, linear: Claim) -> Claim:
    statement = _KERNEL
    if F is None and linear.verdict is not Verdict.REFUTED:
        return Claim(statement, Verdict.UNDECIDED, f"whether the drift is linear is {linear.verdict}")
    if F is None:
        return Claim(statement, Verdict.REFUTED, "the drift is not linear or D is not constant: the kernel is not Gaussian")
    kernel = recipe.closed_form
    if isinstance(kernel, str):
        return Claim(statement, Verdict.UNDECIDED, f"{kernel}; numeric kernels are exact to rounding all the same")
    proof = kernel.proof
    return Claim(statement, proof.verdict, f"{kernel.form}; {proof.evidence}", proof.witness)
