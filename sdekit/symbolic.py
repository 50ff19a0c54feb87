r"""The algebra of a recipe: drift, noise, residual, and the symbolic kernel of linear ones.

All in the unit clock.  ``div A`` is row-wise, :math:`(\operatorname{div} A)_i = \sum_j \partial_j A_{ij}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import sympy as sp

from .definite import connected
from .errors import BadInput
from .zero import Decision, Verdict, decide_zero

__all__ = [
    "UNIT",
    "SymbolicKernel",
    "all_zero",
    "cholesky",
    "derive_drift",
    "derive_residual",
    "exponential",
    "linear_part",
    "lyapunov",
    "rates",
    "symbolic_kernel",
]

UNIT = B = sp.Symbol("B", nonnegative=True)
"""The unit clock."""


def derive_drift(state: Sequence[sp.Symbol], H: sp.Expr, D: sp.Matrix, Q: sp.Matrix) -> sp.Matrix:
    r""":math:`f = -(D + Q) \nabla H + \operatorname{div}(D + Q)` (Ma, Chen and Fox 2015)."""
    A = D + Q
    n = len(state)
    grad = sp.Matrix([sp.diff(H, z) for z in state])
    correction = sp.Matrix([sum(sp.diff(A[i, j], state[j]) for j in range(n)) for i in range(n)])
    return sp.ImmutableMatrix((-A * grad + correction).applyfunc(sp.expand))


def derive_residual(state: Sequence[sp.Symbol], f: sp.Matrix, D: sp.Matrix, H: sp.Expr) -> sp.Expr:
    r"""The Fokker-Planck residual over the density: 0 everywhere if and only if :math:`e^{-H}` is invariant for ``(f, D)``.

    .. math:: R = -\operatorname{div} f + f \cdot \nabla H + \sum_{ij} \big[\partial_{ij} D_{ij} - \partial_i D_{ij} \partial_j H
              - \partial_j D_{ij} \partial_i H + D_{ij} (\partial_i H \partial_j H - \partial_{ij} H)\big].
    """
    n = len(state)
    g = [sp.diff(H, z) for z in state]
    total = sum(-sp.diff(f[i], state[i]) + f[i] * g[i] for i in range(n))
    for i in range(n):
        for j in range(n):
            d, x, y = D[i, j], state[i], state[j]
            total += sp.diff(d, x, y) - sp.diff(d, x) * g[j] - sp.diff(d, y) * g[i] + d * (g[i] * g[j] - sp.diff(g[i], y))
    return sp.expand(total)


def cholesky(A: sp.Matrix) -> sp.Matrix:
    """Lower factor ``L`` with ``L L^T = A`` for a symmetric positive semidefinite ``A``; a zero pivot makes a zero column."""
    n = A.shape[0]
    L = sp.zeros(n, n)
    for j in range(n):
        pivot = sp.simplify(A[j, j] - sum(L[j, m] ** 2 for m in range(j)))
        L[j, j] = sp.sqrt(pivot)
        for i in range(j + 1, n):
            left = sp.simplify(A[i, j] - sum(L[i, m] * L[j, m] for m in range(j)))
            L[i, j] = 0 if left == 0 else left / L[j, j] if pivot != 0 else sp.nan
    return sp.ImmutableMatrix(L)


def linear_part(state: Sequence[sp.Symbol], f: sp.Matrix) -> sp.Matrix | None:
    """The matrix ``F`` with ``f = F z``; None if the drift is not linear."""
    inside = set(state)
    F = f.jacobian(sp.Matrix(state)).applyfunc(lambda entry: sp.simplify(entry) if entry.free_symbols & inside else sp.cancel(entry))
    if F.free_symbols & inside:
        return None
    rest = f - F * sp.Matrix(state)
    return sp.ImmutableMatrix(F) if all(decide_zero(entry).verdict is Verdict.PROVED for entry in rest) else None


def exponential(F: sp.Matrix, taken: set[str]) -> tuple[sp.Matrix, dict[sp.Symbol, sp.Expr], str] | None:
    r""":math:`e^{FB}` in closed form, its abbreviations (by names that are not ``taken``), and which form it is; None if the eigenvalues have none.

    Each connected part by itself: nilpotent about the mean eigenvalue (critical damping, any order), 2 x 2 by
    :math:`e^{aB}[c I + q (F - aI)]`, otherwise the spectral form on exact eigenvalues; a Jordan block never meets a numerical diagonalisation.
    """
    E, forms = sp.zeros(*F.shape), []
    where: dict[sp.Symbol, sp.Expr] = {}
    for rows in connected(F):
        found = _exponential(F.extract(rows, rows), taken | {s.name for s in where})
        if found is None:
            return None
        for i, row in enumerate(rows):
            for j, column in enumerate(rows):
                E[row, column] = found[0][i, j]
        where.update(found[1])
        forms.append(found[2])
    return E, where, "; ".join(dict.fromkeys(forms))


def _exponential(F: sp.Matrix, taken: set[str]) -> tuple[sp.Matrix, dict[sp.Symbol, sp.Expr], str] | None:
    n = F.shape[0]
    eye = sp.eye(n)
    mean = sp.cancel(F.trace() / n)
    N = (F - mean * eye).applyfunc(sp.cancel)
    powers = [eye]
    while len(powers) <= n and not all_zero(powers[-1]):
        powers.append((powers[-1] * N).applyfunc(sp.cancel))
    if all_zero(powers[-1]):
        series = sum((power * B**j / sp.factorial(j) for j, power in enumerate(powers)), sp.zeros(n, n))
        return sp.exp(mean * B) * series, {}, "one eigenvalue" if n == 1 else "all eigenvalues equal: F - a I is nilpotent"
    if n == 2:
        gap = sp.factor(-N.det())
        number = next(i for i in ("", *range(1, len(taken) + 2)) if not {f"a{i}", f"r{i}"} & taken)
        a, r = sp.Symbol(f"a{number}", real=True), sp.Symbol(f"r{number}", positive=True)
        if gap.is_negative:
            gap, c, q, how = -gap, sp.cos(r * B), sp.sin(r * B) / r, "complex eigenvalues a +- i r"
        else:
            c, q, how = sp.cosh(r * B), sp.sinh(r * B) / r, "eigenvalues a +- r (r != 0; its limit where they meet)"
        return sp.exp(a * B) * (c * eye + q * N), {a: mean, r: sp.sqrt(gap)}, how
    return _spectral(F)


def _spectral(F: sp.Matrix) -> tuple[sp.Matrix, dict[sp.Symbol, sp.Expr], str] | None:
    """The sum over eigenvalues of ``exp(l B) sum_j ((F - l) B)^j / j! P_l``, with the projections ``P_l`` as polynomials in ``F`` (Hermite)."""
    n, poly = F.rows, F.charpoly()
    x = poly.gen
    found = sp.roots(poly.as_expr(), x, cubics=False, quartics=False)
    if sum(found.values()) != n:
        return None
    total = sp.zeros(n, n)
    for value, often in found.items():
        pair = value.is_real is False and sp.conjugate(value) in found
        if pair and sp.im(value).is_negative:
            continue
        rest = sp.Mul(*((x - other) ** count for other, count in found.items() if other != value))
        N = (F - value * sp.eye(n)).applyfunc(sp.cancel)
        project = sp.eye(n)
        for other, count in found.items():
            project *= (F - other * sp.eye(n)) ** (count if other != value else 0)
        taylor = [sp.diff(1 / rest, x, j).subs(x, value) / sp.factorial(j) for j in range(often)]
        project *= sum((c * N**j for j, c in enumerate(taylor)), sp.zeros(n, n))
        part = sum((N**j * project * B**j / sp.factorial(j) for j in range(often)), sp.zeros(n, n)).applyfunc(sp.radsimp)
        if pair:
            (a, b), (real, imaginary) = value.as_real_imag(), part.as_real_imag()
            total += 2 * sp.exp(a * B) * (sp.cos(b * B) * real - sp.sin(b * B) * imaginary)
        else:
            total += sp.exp(value * B) * part
    return total, {}, f"{len(found)} different eigenvalues"


@dataclass(frozen=True, eq=False)
class SymbolicKernel:
    r"""``p(z_B | z_0)`` in closed form: mean ``E z_0``, covariance :math:`S = \Sigma - E(\Sigma - S_0)E^T`, or the integral that it stands for.

    Attributes
    ----------
    state : tuple of Symbol
    F, N : matrices
        Drift and diffusion (``N = 2 D``) in the unit clock.
    start : matrix
        ``S_0``.
    short_mean, short_cov : matrices in the clock ``B`` and the abbreviations
    where : dict
        The abbreviations.
    form : str
        Which closed form.
    """

    state: tuple[sp.Symbol, ...]
    F: sp.Matrix
    N: sp.Matrix
    start: sp.Matrix
    short_mean: sp.Matrix
    short_cov: sp.Matrix
    where: dict[sp.Symbol, sp.Expr]
    form: str
    clock: sp.Symbol = B

    @property
    def mean(self) -> sp.Matrix:
        """``E = exp(F B)`` in the clock ``B`` and the parameters."""
        return self.short_mean.xreplace(self.where)

    @property
    def cov(self) -> sp.Matrix:
        """``S`` in the clock ``B`` and the parameters."""
        return self.short_cov.xreplace(self.where)

    @property
    def psi(self) -> sp.Matrix:
        """The mean's dependence on the data, the first column of ``mean``."""
        return self.mean[:, 0]

    @property
    def sigma_eff(self) -> sp.Expr:
        r"""Level :math:`(\psi^T S^{-1} \psi)^{-1/2}` of the scalar denoising problem that the kernel is equal to, in ``B`` and the parameters."""
        psi, S = self.short_mean[:, 0], self.short_cov
        return sp.sqrt(sp.together(S.det()) / sp.together((psi.T * S.adjugate() * psi)[0])).xreplace(self.where)

    def source(self, name: str = "kernel") -> str:
        """The closed form as the text of a NumPy function of ``B`` and the parameters, that needs nothing else.

        It returns ``exp(F B)`` and ``S``, of shape (k, k), and ``sigma_eff``.  Near ``B = 0`` a closed form cancels (``S`` is a small difference of
        large numbers), which :meth:`sdekit.Process.kernel` does not.

        Parameters
        ----------
        name : str
            Of the function.

        Raises
        ------
        BadInput
            If ``name`` is no Python name.
        """
        from sympy.printing.numpy import NumPyPrinter

        if not name.isidentifier():
            raise BadInput(f"name = {name!r} must be a Python name")
        k = len(self.state)
        parts = [*self.mean, *self.cov]
        shared, values = sp.cse(parts, sp.numbered_symbols("_"))
        written = NumPyPrinter().doprint
        arguments = [self.clock, *sorted(set().union(*(part.free_symbols for part in parts)) - {self.clock}, key=str)]
        rows = [f"[{', '.join(map(written, values[i : i + k]))}]" for i in range(0, 2 * k * k, k)]
        body = [f"{symbol} = {written(value)}" for symbol, value in shared]
        body += [f"mean = numpy.array([{', '.join(rows[:k])}])", f"cov = numpy.array([{', '.join(rows[k:])}])", "psi = mean[:, 0]"]
        body.append("return mean, cov, (psi @ numpy.linalg.solve(cov, psi)) ** -0.5")
        return "\n".join(["import numpy", "", "", f"def {name}({', '.join(map(str, arguments))}):", *(f"    {line}" for line in body), ""])

    @cached_property
    def proof(self) -> Decision:
        r"""The moment equations, symbolically: :math:`\dot E = F E,\; E(0) = I,\; \dot S = F S + S F^T + N,\; S(0) = S_0`."""
        B = sp.Dummy("B")  # without a sign: sympy asks for the sign of every part on its way, at length
        F, N, E, S = (part.xreplace({self.clock: B}) for part in (self.F, self.N, self.short_mean, self.short_cov))
        n = len(self.state)
        equations = {
            "dE/dB = F E": list(E.diff(B) - F * E),
            "E(0) = I": list(E.subs(B, 0) - sp.eye(n)),
            "dS/dB = F S + S F^T + 2 D": _lower(S.diff(B) - F * S - S * F.T - N),
            "S(0) = S_0": _lower(S.subs(B, 0) - self.start),
            "S = S^T": [S[i, j] - S[j, i] for i in range(n) for j in range(i)],
        }
        for name, entries in equations.items():
            for entry in entries:
                found = decide_zero(entry.xreplace({B: self.clock}), self.where)
                if found.verdict is not Verdict.PROVED:
                    return Decision(found.verdict, f"{name}: {found.evidence}", found.witness, found.value)
        return Decision(Verdict.PROVED, f"the moment equations hold identically in B ({', '.join(equations)})")

    def _repr_latex_(self) -> str:
        names = "".join(f", \\quad {sp.latex(name)} = {sp.latex(value)}" for name, value in self.where.items())
        return f"$$e^{{FB}} = {sp.latex(self.short_mean)}, \\qquad S(B) = {sp.latex(self.short_cov)}{names}$$"


def _lower(matrix: sp.Matrix) -> list[sp.Expr]:
    return [matrix[i, j] for i in range(matrix.shape[0]) for j in range(i + 1)]


def symbolic_kernel(state: Sequence[sp.Symbol], F: sp.Matrix, N: sp.Matrix, start: sp.Matrix, guess: sp.Matrix | None) -> SymbolicKernel | str:
    """The kernel of ``dz = F z dB + noise`` with diffusion ``N = 2 D`` and initial covariance ``start``, or why it has no closed form.

    ``guess`` is tried first as the stationary covariance: it has the form that the recipe was written in.
    """
    parts = [F, N, start, *([] if guess is None else [guess])]
    found = exponential(F, {s.name for part in parts for s in part.free_symbols})
    if found is None:
        return "the eigenvalues of F have no closed form"
    E, where, form = found
    fixed = guess if guess is not None and all_zero(F * guess + guess * F.T + N) else lyapunov(F, N)
    if fixed is not None:
        S = fixed - E * (fixed - start) * E.T
    else:
        s = sp.Dummy("s", nonnegative=True)
        E, where = E.xreplace(where), {}
        inner = (E * N * E.T).subs(B, s).applyfunc(sp.expand)
        S = E * start * E.T + inner.applyfunc(lambda entry: sp.integrate(entry, (s, 0, B)))
        if S.has(sp.Piecewise, sp.Integral):
            return "sympy finds no integral for the covariance"
    tidy = (lambda entry: entry) if where else _tidy
    return SymbolicKernel(tuple(state), F, N, start, E.applyfunc(tidy), S.applyfunc(tidy), where, form)


def all_zero(matrix: sp.Matrix) -> bool:
    """Whether every entry is proved to be zero."""
    return all(decide_zero(entry).verdict is Verdict.PROVED for entry in matrix)


def lyapunov(F: sp.Matrix, N: sp.Matrix) -> sp.Matrix | None:
    """A symmetric solution of ``F X + X F^T + N = 0``; None if there is none.  For a stable ``F`` it is the stationary covariance."""
    n = F.shape[0]
    unknowns = [[sp.Dummy(f"x{min(i, j)}{max(i, j)}") for j in range(n)] for i in range(n)]
    for i in range(n):
        for j in range(i):
            unknowns[i][j] = unknowns[j][i]
    X = sp.Matrix(unknowns)
    names = list(dict.fromkeys(entry for row in unknowns for entry in row))
    found = list(sp.linsolve(_lower(F * X + X * F.T + N), names))
    if not found:
        return None
    values = {name: sp.simplify(value.subs(dict.fromkeys(names, 0))) for name, value in zip(names, found[0], strict=True)}
    return sp.ImmutableMatrix(X.xreplace(values))


def _tidy(entry: sp.Expr) -> sp.Expr:
    """A polynomial in B per exponential, one exponential per term."""
    parts: dict[sp.Expr, list[sp.Expr]] = {}
    for term in sp.Add.make_args(sp.expand(entry)):
        powers = [factor for factor in sp.Mul.make_args(term) if isinstance(factor, sp.exp)]
        parts.setdefault(sp.expand(sum(power.args[0] for power in powers)), []).append(
            sp.Mul(*(f for f in sp.Mul.make_args(term) if f not in powers))
        )
    return sp.Add(*(sp.exp(rate) * _factored(sp.Add(*terms)) if rate else sp.Add(*terms) for rate, terms in parts.items()))


def _factored(entry: sp.Expr) -> sp.Expr:
    sines = {p: sp.sin(*p.base.args) ** (p.exp % 2) * (1 - sp.cos(*p.base.args) ** 2) ** (p.exp // 2) for p in entry.atoms(sp.Pow)
             if isinstance(p.base, sp.sin) and p.exp.is_Integer and p.exp > 1}  # fmt: skip
    return sp.factor(sp.expand(entry.xreplace(sines)))


def rates(F: sp.Matrix) -> list[sp.Float]:
    """Real parts of the eigenvalues, the slowest first; none if ``F`` is not all numbers, or they have no exact form."""
    poly = F.charpoly()
    if F.free_symbols:
        return []
    if all(c.is_Rational for c in poly.all_coeffs()):
        values = sp.Poly(poly.as_expr(), *poly.gens).all_roots()
    else:
        values = [value for value, count in sp.roots(poly.as_expr(), *poly.gens).items() for _ in range(count)]
    return sorted((sp.re(sp.N(value, 30)) for value in values), reverse=True) if len(values) == F.shape[0] else []
