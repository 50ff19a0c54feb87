"""The safe parser: what it reads is exact, what it refuses it refuses with one clear line, and nothing is ever evaluated."""

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from sdekit.errors import BadInput
from sdekit.expression import parse

x, y = sp.symbols("x y", real=True)
NAMES = {"x": x, "y": y}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x**2/2 + y**2/(2*3)", x**2 / 2 + y**2 / 6),
        ("0.04*x", x / 25),
        ("-x**2", -(x**2)),
        ("2**-3", sp.Rational(1, 8)),
        ("x**(1/2)", sp.sqrt(x)),
        ("exp(-x)*sin(pi*y) + tanh(x)", sp.exp(-x) * sp.sin(sp.pi * y) + sp.tanh(x)),
        ("1e-3 + 1_000", sp.Rational(1000001, 1000)),
        (3, sp.Integer(3)),
        ("((x))", x),
    ],
)
def test_reads_formulas_exactly(text, value):
    assert parse(text, NAMES) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("__import__('os').getpid()", "Call is not allowed"),
        ("().__class__", "Attribute is not allowed"),
        ("[x for x in (1,)]", "ListComp is not allowed"),
        ("lambda: 0", "Lambda is not allowed"),
        ("x if y else 0", "IfExp is not allowed"),
        ("x == y", "Compare is not allowed"),
        ("f'{x}'", "JoinedStr is not allowed"),
        ("'x'", "Constant is not allowed"),
        ("True", "Constant is not allowed"),
        ("1j", "Constant is not allowed"),
        ("x @ y", "BinOp is not allowed"),
        ("x // y", "BinOp is not allowed"),
        ("exp(x, y)", "Call is not allowed"),
        ("exp(*x)", "Starred is not allowed"),
        ("expp(x)", "did you mean 'exp'"),
        ("z + 1", "unknown name 'z'"),
        ("x**99", "exponent '99'"),
        ("x**y", "exponent 'y'"),
        ("2**2**9", "exponent '512'"),
        ("((x**30)**30)", "degree above"),
        ("((9**30)**30)**30", "degree above"),
        ("1/0", "divides by zero"),
        ("0**-1", "divides by zero"),
        ("log(0)", "not a finite real"),
        ("sqrt(-1)", "not a finite real"),
        ("1e999", "too long"),
        ("9" * 61, "too long"),
        ("0x10", "not a decimal"),
        ("x +", "is not a formula"),
        ("", "is not a formula"),
        ("x; y", "is not a formula"),
        ("x = 1", "is not a formula"),
        ("(" * 300 + "x" + ")" * 300, "is not a formula"),
        ("-" * 50 + "x", "nested deeper"),
        ("x+" * 1200 + "x", "characters"),
        ("\uff58 + 1", "U+FF58 is not allowed"),
        ("x + \u0443", "U+0443 is not allowed"),
        ("(x+y)**20*(x-y)**12*(x+2)", "degree above"),
        ("(x+y+1)**30", "400 terms"),
        ("*".join(f"(x+{i})" for i in range(9)), "400 terms"),
        ("1/((x+1)*(x+2)*(x+3)*(x+4)*(x+5)*(x+6)*(x+7)*(x+8)*(x+9))", "400 terms"),
        ("exp(sin(exp(sin(exp(x)))))", "4 deep"),
        ("1e-101", "1e-100"),
        ("1e60*1e60", "1e100"),
        ("exp(exp(exp(9)))", "not a finite real"),
        ("log(log(log(2)))", "not a finite real"),
        ("(-8)**(1/3)", "not a finite real"),
        ("(" + "9" * 60 + "*x)**32", "600 digits"),
        ("9" * 5000, "characters"),
        pytest.param(10**5000, "too long", id="large"),
        (True, "must be a formula"),
        (None, "must be a formula"),
        (["x"], "must be a formula"),
    ],
)
def test_refuses_everything_else_in_one_line(text, says):
    with pytest.raises(BadInput) as caught:
        parse(text, NAMES, "recipe.H")
    assert says in str(caught.value)
    assert "recipe.H" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_sum_is_not_deep():
    assert parse("+".join(["x"] * 390), NAMES) == 390 * x
    assert parse("1 - x - " + " - ".join(f"{i}*y" for i in range(200)), NAMES) == 1 - x - 19900 * y


@given(st.text(alphabet="xy01.+-*/() eE_'\"[]{}=,:#\\\n", max_size=80))
def test_never_anything_but_an_expression_or_bad_input(text):
    try:
        made = parse(text, NAMES)
    except BadInput:
        return
    assert isinstance(made, sp.Expr)
    assert made.free_symbols <= {x, y}
