r"""Kernels in closed form where ``F`` varies but commutes with itself, :math:`F(B) F(B') = F(B') F(B)`.

Then :math:`F(B) = \sum_i f_i(B) M_i` with constant matrices that commute, the mean is :math:`\exp \int_0^B F = \prod_i e^{M_i \int_0^B f_i}`,
and the covariance :math:`\Sigma - E (\Sigma - S_0) E^T` where one :math:`\Sigma` is stationary at every time, else an integral.
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from .symbolic import UNIT, SymbolicKernel, all_zero, exponential

__all__ = ["commuting_kernel"]


def commuting_kernel(
    state: Sequence[sp.Symbol], F: sp.Matrix, N: sp.Matrix, start: sp.Matrix, guess: sp.Matrix | None, clock: sp.Symbol
) -> SymbolicKernel | str:
    """The kernel of ``dz = F(B) z dB + noise`` with diffusion ``N(B)``, or why it has no closed form; arguments as for ``symbolic_kernel``."""
    other = F.xreplace({clock: sp.Dummy("s")})
    if not all_zero(F * other - other * F):
        return f"F({clock}) does not commute with itself at other times: the mean is not the exponential of its integral"
    parts = _separated(F, clock)
    if not all(all_zero(a * b - b * a) for _, a in parts for _, b in parts):
        return f"the matrices in F({clock}) are not seen to commute"
    names = {s.name for part in (F, N, start, *([] if guess is None else [guess])) for s in part.free_symbols}
    E = back = sp.eye(len(state))
    where: dict[sp.Symbol, sp.Expr] = {}
    forms: list[str] = []
    for f, M in parts:
        whole = _integral(f, clock)
        if whole is None:
            return f"sympy finds no integral of {f}"
        found = exponential(M, names | {s.name for s in where})
        if found is None:
            return "the eigenvalues of F have no closed form"
        E, back = E * found[0].xreplace({UNIT: whole}), back * found[0].xreplace({UNIT: -whole})
        where.update(found[1])
        forms.append(found[2])
    if guess is not None and all_zero(F * guess + guess * F.T + N):
        S = guess - E * (guess - start) * E.T
    else:
        inner = [_integral(entry, clock) for entry in (back * N * back.T).xreplace(where)]
        if None in inner:
            return "sympy finds no integral for the covariance"
        S = E * (start + sp.Matrix(*F.shape, inner)) * E.T
    form = "; ".join(["F commutes with itself at other times, exp of its integral", *dict.fromkeys(forms)])
    return SymbolicKernel(tuple(state), F, N, start, E, S, where, form, clock)


def _separated(F: sp.Matrix, clock: sp.Symbol) -> list[tuple[sp.Expr, sp.Matrix]]:
    """``F`` as a sum of functions of the clock times constant matrices, none a multiple of another."""
    terms: dict[sp.Expr, sp.Matrix] = {}
    for i in range(F.rows):
        for j in range(F.cols):
            for term in sp.Add.make_args(sp.expand(F[i, j])):
                constant, moving = term.as_independent(clock, as_Add=False)
                terms.setdefault(moving, sp.zeros(*F.shape))[i, j] += constant
    parts: list[tuple[sp.Expr, sp.Matrix]] = []
    for f, M in terms.items():
        for n, (g, L) in enumerate(parts):
            at = next(i for i in range(len(L)) if L[i] != 0)
            if all_zero(M - M[at] / L[at] * L):
                parts[n] = (g + M[at] / L[at] * f, L)
                break
        else:
            if any(M):
                parts.append((f, M))
    return parts


def _integral(f: sp.Expr, clock: sp.Symbol) -> sp.Expr | None:
    """From 0 to the clock; None if sympy finds none."""
    s, end = sp.symbols("s end", nonnegative=True, cls=sp.Dummy)
    found = sp.integrate(sp.expand(f.xreplace({clock: s})), (s, 0, end))
    return None if found.has(sp.Integral, sp.Piecewise, sp.nan, sp.zoo, sp.oo) else found.xreplace({end: clock})
