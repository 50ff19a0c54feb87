"""Deciding whether an expression is zero."""

import pytest
import sympy as sp
from mpmath import iv

from sdekit.zero import Verdict, decide_zero, enclosure, points

x, y = sp.symbols("x y", real=True)
a, b = sp.symbols("a b", positive=True)
n = sp.Symbol("n", nonnegative=True)


@pytest.mark.parametrize(
    "zero",
    [
        sp.Integer(0),
        (x**2 - y**2) / (x - y) - (x + y),  # expand alone misses it
        sp.tanh(x) - (sp.exp(2 * x) - 1) / (sp.exp(2 * x) + 1),  # simplify alone misses it
        sp.cosh(x) ** 2 - sp.sinh(x) ** 2 - 1,
        sp.sin(x) ** 2 + sp.cos(x) ** 2 - 1,
        sp.exp(x + y) - sp.exp(x) * sp.exp(y),
        sp.exp(x / 2) ** 2 - sp.exp(x),
        sp.sqrt(a + b) ** 2 - a - b,
        (sp.sqrt(a) + sp.sqrt(b)) * (sp.sqrt(a) - sp.sqrt(b)) - a + b,
        sp.cosh(sp.sqrt(a) * x) ** 2 - sp.sinh(sp.sqrt(a) * x) ** 2 - 1,
        sp.sqrt(6) - sp.sqrt(2) * sp.sqrt(3),
        (1 + sp.sqrt(3)) * (1 - sp.sqrt(3)) + 2,
        (1 + sp.sqrt(sp.Rational(15, 14)) * x) * (sp.sqrt(210) - 15 * x) - sp.sqrt(210) * (1 - sp.Rational(15, 14) * x**2),
        2 ** sp.Rational(1, 3) * 12 ** sp.Rational(1, 6) - 2 ** sp.Rational(2, 3) * 3 ** sp.Rational(1, 6),
        sp.sqrt(a + sp.sqrt(b)) * sp.sqrt(a - sp.sqrt(b)) * sp.sqrt(b) * sp.sqrt(sp.sqrt(b))
        - sp.sqrt(a + sp.sqrt(b)) * sp.sqrt(a - sp.sqrt(b)) * b ** sp.Rational(3, 4),
        sp.sqrt(a + sp.sqrt(b)) ** 4 - a**2 - 2 * a * sp.sqrt(b) - b,
        sp.sqrt(2 + sp.pi) ** 3 - sp.sqrt(2 + sp.pi) * (2 + sp.pi),
        sp.exp(sp.sqrt(2) * x) ** 2 - sp.exp(sp.sqrt(8) * x),
        sp.Abs(x - y) * sp.sqrt((x + y) ** 2) - sp.Abs(x**2 - y**2),
        sp.sqrt(1 + sp.Abs(x)) ** 4 - 1 - x**2 - 2 * sp.Abs(x),
        (1 + sp.I * x) * (1 - sp.I * x) - 1 - x**2,
    ],
)
def test_zero_is_proved(zero):
    assert decide_zero(zero).verdict is Verdict.PROVED


@pytest.mark.parametrize(
    "nonzero",
    [
        x,
        2 - 2 * x**2,
        x**2 - y**2,
        sp.exp(x) - 1 - x,
        sp.tanh(x) - x,
        sp.sqrt(a + b) - sp.sqrt(a) - sp.sqrt(b),
        x * (x - 1) * (x - 2) * (x + 1) * (2 * x - 1),
        sp.sqrt(6) * x - sp.sqrt(2) * sp.sqrt(5) * x,
        2 ** sp.Rational(1, 3) * x - sp.sqrt(2) * x,
    ],
)
def test_nonzero_is_refuted_by_a_point_that_plain_evaluation_confirms(nonzero):
    found = decide_zero(nonzero)
    assert found.verdict is Verdict.REFUTED
    assert abs(complex(nonzero.subs(found.witness))) > 1e-12
    for symbol, value in found.witness.items():
        assert not (symbol.is_positive and value <= 0)


def test_abbreviations_count_as_what_they_stand_for():
    r = sp.Symbol("r", positive=True)
    where = {r: sp.sqrt(a**2 + b)}
    assert decide_zero(r**2 - a**2 - b, where).verdict is Verdict.PROVED
    assert decide_zero(r**4 - (a**2 + b) ** 2, where).verdict is Verdict.PROVED
    found = decide_zero(r**2 - a**2 + b, where)
    assert found.verdict is Verdict.REFUTED
    assert found.value == 2 * found.witness[b]


def test_roots_in_roots_and_quotients_need_no_simplify():
    c, d = sp.sqrt(a + sp.sqrt(b)), sp.sqrt(b + 1 + sp.sqrt(a))
    found = decide_zero((c + d) * (c - d) - (a - b - 1 + sp.sqrt(b) - sp.sqrt(a)))
    assert "relations" in found.evidence
    r = sp.Symbol("r", positive=True)
    where = {r: sp.sqrt(1 + x**2 / (b + y**2))}
    good = (b + y**2) ** 2 * r**4 + (b + y**2) * r**2 - (b + y**2 + x**2) ** 2 - (b + y**2 + x**2)
    assert "relations" in decide_zero(good, where).evidence
    assert decide_zero(good + r**2, where).verdict is Verdict.REFUTED
    assert decide_zero(r**2 * x + r, {r: sp.Integer(0)}).verdict is Verdict.PROVED
    assert decide_zero(r * x + y, {r: sp.Integer(0)}).verdict is Verdict.REFUTED


def test_unspecified_functions_are_symbols():
    U = sp.Function("U")
    assert decide_zero(sp.diff(U(x) ** 2, x) - 2 * U(x) * sp.diff(U(x), x)).verdict is Verdict.PROVED
    assert decide_zero(sp.diff(U(x), x) - U(x)).verdict is not Verdict.PROVED


def test_too_large_is_undecided_not_guessed():
    huge = sp.Add(*[sp.Symbol(f"s{i}") ** 2 for i in range(11_000)])
    found = decide_zero(huge)
    assert found.verdict is Verdict.UNDECIDED
    assert "operations" in found.evidence


S = sum(sp.symbols("s0:8", real=True))
LARGE = (S + x) ** 20 * (S - x) ** 3 - (S + x) ** 19 * (S**2 - x**2) * (S - x) ** 2


def test_what_is_too_large_to_multiply_out_is_sampled_with_its_chance():
    found = decide_zero(LARGE)
    assert found.verdict is Verdict.SAMPLED
    # degree 23 over 10^6 numbers, eight points: (23/10^6)^8 = 7.8e-38
    assert "8e-38" in found.evidence
    wrong = decide_zero(LARGE + sp.Rational(1, 10**30))
    assert wrong.verdict is Verdict.REFUTED
    assert (LARGE + sp.Rational(1, 10**30)).subs(wrong.witness) == sp.Rational(1, 10**30)


def test_intervals_hold_the_value_and_refute():
    expr = sp.log(sp.exp(x) + 1) - sp.log(1 + sp.exp(-x)) - x + sp.Rational(1, 10**35)
    found = decide_zero(expr)
    assert found.verdict is Verdict.REFUTED
    assert found.value == pytest.approx(1e-35, rel=1e-9)
    for piece in (sp.exp(x) * sp.sin(x), sp.sqrt(1 + x**2), sp.tanh(x), sp.pi * sp.cos(x) / (3 + x), sp.E**2 * x):
        box, value = enclosure(piece, {x: sp.Rational(7, 3)}), piece.subs(x, sp.Rational(7, 3)).evalf(90)
        iv.dps = 60
        near = iv.mpf(str(value))
        assert near.a <= box.b
        assert box.a <= near.b
        assert float(box.delta) < 1e-55


def test_points_respect_assumptions():
    made = points([x, a, n], 40)
    assert all(p[a] > 0 and p[n] >= 0 for p in made)
    assert any(p[x] < 0 for p in made)
    assert made == points([x, a, n], 40)
