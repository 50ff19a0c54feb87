"""A recipe's derivation, from its parts to its kernel, as steps to read: words and equations, for notebooks, Markdown and browsers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from math import gcd, lcm
from typing import TYPE_CHECKING, Any, NamedTuple

import sympy as sp

if TYPE_CHECKING:
    from .certificate import Certificate
    from .recipe import Recipe

__all__ = ["Derivation", "Line", "derive", "math"]


class Line(NamedTuple):
    """One line of a derivation: words, or an equation ``left = right`` with ``left`` a name in LaTeX."""

    words: str = ""
    left: str | None = None
    right: Any = None


class Derivation(tuple[Line, ...]):
    """The lines of a derivation; shown as Markdown with LaTeX in a notebook."""

    __slots__ = ()

    def markdown(self) -> str:
        """Paragraphs, and displayed equations in LaTeX."""
        return "\n\n".join(
            re.sub(r"([*_])", r"\\\1", line.words) if line.left is None else f"$${line.left} = {sp.latex(line.right)}$$" for line in self
        )

    def html(self) -> str:
        """Paragraphs, and displayed equations in MathML, which browsers show without any library."""
        return "\n".join(f"<p>{escape(line.words)}</p>" if line.left is None else _equation(line) for line in self)

    _repr_markdown_ = markdown
    __str__ = markdown


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


_NAMES = {  # the left sides in LaTeX, and in MathML
    "H": "<mi>H</mi>", "D": "<mi>D</mi>", "Q": "<mi>Q</mi>", "f": "<mi>f</mi>", "F": "<mi>F</mi>", "R": "<mi>R</mi>",
    r"\sqrt{2D}": "<msqrt><mn>2</mn><mi>D</mi></msqrt>",
    "e^{FB}": "<msup><mi>e</mi><mrow><mi>F</mi><mi>B</mi></mrow></msup>",
    "S_0": "<msub><mi>S</mi><mn>0</mn></msub>",
    "S(B)": "<mi>S</mi><mo>(</mo><mi>B</mi><mo>)</mo>",
}  # fmt: skip


def _equation(line: Line) -> str:
    left = _NAMES.get(str(line.left), f"<mi>{escape(str(line.left))}</mi>")
    return f'<math display="block"><mrow>{left}<mo>=</mo>{math(line.right)}</mrow></math>'


def derive(recipe: Recipe, certificate: Certificate) -> Derivation:
    """The recipe's parts, its drift and noise, the residual, the kernel and the scalar denoising problem it is equal to."""
    lines = [
        Line(f"The state is ({', '.join(z.name for z in recipe.state)}); the data block is {recipe.blocks[0].name}. The recipe declares"),
        Line("", "H", recipe.H),
    ]
    lines.append(Line("", "D", recipe.D))
    if recipe.Q is not None:
        lines.append(Line("", "Q", recipe.Q))
        lines.append(Line("In the unit clock B the drift is f = -(D + Q) grad H + div(D + Q), and the noise is the lower factor of 2 D:"))
    else:
        lines.append(Line("and a drift f, which is a claim; the noise is the lower factor of 2 D:"))
    lines += [
        Line("", "f", recipe.drift),
        Line("", r"\sqrt{2D}", recipe.noise),
        Line(
            "exp(-H) is invariant if and only if the Fokker-Planck residual over the density, R = -div f + f . grad H + sum_ij [d_ij D_ij "
            "- d_i D_ij d_j H - d_j D_ij d_i H + D_ij (d_i H d_j H - d_ij H)], is zero everywhere. Here"
        ),
        Line("", "R", recipe.residual),
        Line(f"and stationarity is {certificate.stationary.verdict}: {certificate.stationary.evidence}."),
        Line(f"Ergodicity is another question. It is {certificate.ergodic.verdict}: {certificate.ergodic.evidence}."),
    ]
    kernel = recipe.kernel()
    if kernel is None:
        lines.append(Line(f"Kernel: {certificate.kernel.evidence}."))
        return _shown(lines)
    (mean, cov), rate = _one_rate([kernel.short_mean, kernel.short_cov])
    lines += [
        Line("The drift is linear, f = F z with"),
        Line("", "F", kernel.F),
        Line(f"so the mean of the kernel is exp(F B) times the start. Form: {kernel.form}."),
        Line("", "e^{FB}", mean),
    ]
    lines += [Line("", sp.latex(name), value) for name, value in {**rate, **kernel.where}.items()]
    lines += [
        Line("The covariance solves dS/dB = F S + S F^T + 2 D from the start"),
        Line("", "S_0", kernel.start),
        Line("and is"),
        Line("", "S(B)", cov),
        Line(f"The moment equations are {kernel.proof.verdict}: {kernel.proof.evidence}."),
        Line(
            "All that z says of the data is in one block, y = psi^T S^-1 z / SNR with SNR = psi^T S^-1 psi and psi the first column of exp(F B): "
            "y is the data plus noise of level sigma_eff = SNR^(-1/2), and the score of the state is -S^-1 (z - psi D(y; sigma_eff)). "
            "So one denoiser D drives this process and every other."
        ),
    ]
    return _shown(lines)


def _shown(lines: list[Line]) -> Derivation:
    return Derivation(Line(w, left, sp.ImmutableMatrix(right) if isinstance(right, sp.MatrixBase) else right) for w, left, right in lines)
