"""A recipe's derivation, from its parts to its kernel, as steps to read: titles, words and MathML that browsers show without any library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import gcd, lcm
from typing import Any, NamedTuple

import sympy as sp

from ..certificate import Certificate
from ..recipe import Recipe

__all__ = ["Line", "derivation", "math", "to_html"]


class Line(NamedTuple):
    """One line of a derivation: words, or an equation ``left = right``."""

    words: str = ""
    left: Any = None
    right: Any = None


def math(thing: Any) -> str:
    """Presentation MathML of an expression or matrix."""
    from sympy.printing.mathml import mathml

    text = str(mathml(thing, printer="presentation"))
    # brackets by the style sheet: those of a font grow with the matrix only where a mathematical font is installed
    return text.replace("<mo>[</mo><mtable>", '<mtable class="matrix">').replace("</mtable><mo>]</mo>", "</mtable>").replace("&ExponentialE;", "e")


def _one_rate(matrices: Sequence[sp.MatrixBase]) -> tuple[list[sp.MatrixBase], dict[sp.Symbol, sp.Expr]]:
    """The matrices with ``E^n`` for their exponentials, and what ``E`` is, if all are powers of one; else as they were."""
    parts = sorted({part for matrix in matrices for part in matrix.atoms(sp.exp)}, key=str)
    ratios = [sp.simplify(part.args[0] / parts[0].args[0]) for part in parts]
    if not parts or not all(ratio.is_Rational and ratio > 0 for ratio in ratios):
        return list(matrices), {}
    below = lcm(*[int(ratio.q) for ratio in ratios])
    unit = sp.Rational(gcd(*[int(ratio * below) for ratio in ratios]), below)
    E = sp.Symbol("E", positive=True)
    powers = {part: E ** (ratio / unit) for part, ratio in zip(parts, ratios, strict=True)}
    made = [m.xreplace(powers).applyfunc(lambda entry: sp.collect(sp.expand(entry), E, sp.factor)) for m in matrices]
    return made, {E: sp.exp(parts[0].args[0] * unit)}


def _equation(line: Line) -> str:
    left = line.left if isinstance(line.left, str) else math(line.left)
    return f'<math display="block"><mrow>{left}<mo>=</mo>{math(line.right)}</mrow></math>'


def to_html(lines: list[Line]) -> str:
    """The lines as paragraphs and displayed equations."""
    return "\n".join(f"<p>{escape(line.words)}</p>" if line.left is None else _equation(line) for line in lines)


def _name(text: str, sub: str = "") -> str:
    base = f"<mi>{text}</mi>"
    return f"<msub>{base}<mi>{sub}</mi></msub>" if sub else base


def derivation(recipe: Recipe, certificate: Certificate) -> list[Line]:
    """The recipe's parts, its drift and noise, the residual, the kernel and the scalar denoising problem it is equal to."""
    lines = [
        Line(f"The state is ({', '.join(z.name for z in recipe.state)}); the first block is the data. The recipe declares"),
        Line("", _name("H"), recipe.H),
    ]
    lines.append(Line("", _name("D"), recipe.D))
    if recipe.Q is not None:
        lines.append(Line("", _name("Q"), recipe.Q))
    lines += [
        Line("In the unit clock B the drift is f = -(D + Q) grad H + div(D + Q), and the noise is the lower factor of 2 D:"),
        Line("", _name("f"), recipe.drift),
        Line("", f"<msqrt><mn>2</mn>{_name('D')}</msqrt>", recipe.noise),
        Line(
            f"The Fokker-Planck residual over the density exp(-H), in which every derivative of H, D and f is taken, is R = {recipe.residual}: "
            f"stationarity is {certificate.stationary.verdict}."
        ),
    ]
    kernel = recipe.kernel()
    if kernel is None:
        return [*lines, Line(f"Kernel: {certificate.kernel.evidence}.")]
    (mean, cov), rate = _one_rate([kernel.short_mean, kernel.short_cov])
    lines += [
        Line("The drift is linear, f = F z with"),
        Line("", _name("F"), kernel.F),
        Line(f"so the mean of the kernel is exp(F B) times the start. Form: {kernel.form}."),
        Line("", f"<msup><mi>e</mi><mrow>{_name('F')}{_name('B')}</mrow></msup>", mean),
    ]
    lines += [Line("", math(name), value) for name, value in {**rate, **kernel.where}.items()]
    lines += [
        Line("The covariance solves dS/dB = F S + S F^T + 2 D from the start"),
        Line("", _name("S", "0"), kernel.start),
        Line("and is"),
        Line("", f"{_name('S')}<mo>(</mo>{_name('B')}<mo>)</mo>", cov),
        Line(f"The moment equations are {kernel.proof.verdict}: {kernel.proof.evidence}."),
        Line(
            "All that z says of the data is in one block, y = psi^T S^-1 z / SNR with SNR = psi^T S^-1 psi and psi the first column of exp(F B): "
            "y is the data plus noise of level sigma_eff = SNR^(-1/2), and the score of the state is -S^-1 (z - psi D(y; sigma_eff)). "
            "So one denoiser D drives this process and every other."
        ),
    ]
    return [Line(line.words, line.left, sp.ImmutableMatrix(line.right) if isinstance(line.right, sp.MatrixBase) else line.right) for line in lines]
