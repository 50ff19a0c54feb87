"""Signs of expressions, semidefinite matrices, definite forms: what is proved is true, what is refuted has a point, the rest is said."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from sdekit.definite import decide_nonnegative, decide_psd, negative_direction, positive_form
from sdekit.zero import Verdict

x, y, z = sp.symbols("x y z", real=True)
a = sp.Symbol("a", positive=True)
n = sp.Symbol("n", nonnegative=True)
P, R, U = Verdict.PROVED, Verdict.REFUTED, Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("expr", "verdict"),
    [
        (1 + x**2 + y**2, P), (x**2 - x + 1, P), ((x - y) ** 2, P), (x**2 - x * y + y**2, P), (a**2 + a, P), (n**2 - n + 1, P), (1 / x**2, P),
        ((x**2 - x + 1) / (1 + y**2), P), (x**4 - x**3 + 1, P), ((x**2 - x + 1) * (y**2 + y + 1), P), ((x**2 - x + 1) * sp.exp(y), P),
        ((-x**2 + x - 1) * (-1 - y**2), P), ((x**2 - 2) ** 2 * (x**2 - x + 1), P), (sp.Integer(0), P), (n**3 + n, P),
        (x**2 - 2 * x, R), (x**2 - 3 * x * y + y**2, R), (a - 1, R), (n - n**2, R), (-(x**2), R), (x**4 - 4 * x**3 + 1, R), (1 / x, R),
        (sp.exp(x) - 1, R), (sp.Integer(-2), R),
        (x**4 * y**2 + x**2 * y**4 - 3 * x**2 * y**2 + 1, U),  # Motzkin: nonnegative, and no sum of squares
        (sp.Function("U")(x), U),
    ],
    ids=str,
)  # fmt: skip
def test_sign(expr, verdict):
    found = decide_nonnegative(expr)
    assert found.verdict is verdict
    if verdict is R:
        assert float(expr.subs(found.witness)) < 0
        assert all(not (s.is_positive and v <= 0) for s, v in found.witness.items())


small = st.integers(-3, 3)


@given(st.lists(small, min_size=6, max_size=6))
def test_quadratic_polynomials_are_decided(c):
    """Against the least value of c0 + c1 x + c2 y + c3 x^2 + c4 x y + c5 y^2, from its Gram matrix's eigenvalues."""
    expr = c[0] + c[1] * x + c[2] * y + c[3] * x**2 + c[4] * x * y + c[5] * y**2
    gram = np.array([[c[0], c[1] / 2, c[2] / 2], [c[1] / 2, c[3], c[4] / 2], [c[2] / 2, c[4] / 2, c[5]]], float)
    least = np.linalg.eigvalsh(gram)[0]
    found = decide_nonnegative(sp.sympify(expr)).verdict
    if least > 1e-9:
        assert found is P
    elif least < -1e-9:
        assert found is not P


@given(st.lists(small, min_size=9, max_size=9), st.booleans())
def test_matrices_of_numbers_are_decided(entries, square):
    A = np.array(entries).reshape(3, 3)
    D = A @ A.T if square else A + A.T
    least = np.linalg.eigvalsh(D)[0]
    found = decide_psd(sp.Matrix(D))
    assert found.verdict is (P if least > -1e-9 else R)
    if found.verdict is R:
        v = np.array([float(e) for e in found.witness[1]])
        assert v @ D @ v < 0


@pytest.mark.parametrize(
    ("D", "verdict"),
    [
        ([[1 + x**2, x * y], [x * y, 1 + y**2]], P),
        ([[x**2, x * y], [x * y, y**2]], P),
        ([[1, x], [x, 1]], R),
        ([[1, 0], [1, 1]], R),
        (sp.diag(0, a, 1, 2, 3, 4, 5, n).tolist(), P),
        ([[x**2 - x + 1, 0], [0, 1]], P),
        ([[sp.Function("g")(x), 0], [0, 1]], U),
        ([[sp.Function("g")(1)]], U),
        ([[sp.I]], U),
        ([[1, sp.I * x], [sp.I * x, 1]], U),  # symmetric, with nonnegative minors, and not real
    ],
)
def test_matrices_of_expressions(D, verdict):
    assert decide_psd(sp.Matrix(D)).verdict is verdict


def test_negative_direction_of_a_semidefinite_matrix_is_none():
    assert negative_direction(sp.Matrix([[1, 1], [1, 1]])) is None
    assert negative_direction(sp.zeros(3)) is None


@pytest.mark.parametrize(
    ("form", "found"),
    [
        (x**4 - x**3 * y + y**4, True), (x**4 - 3 * x**3 * y + y**4, False), (x**4 + x**2 * y**2 + y**4, True), (x**2 * y**2, False),
        (x**4 + x * y**3, False), (x**4 + y**4 - 2 * x**2 * y**2, False), (a * x**4 + y**4, True), (a * x**4 - x**3 * y + y**4, None),
    ],
    ids=str,
)  # fmt: skip
def test_forms_in_two_variables(form, found):
    assert positive_form(form, [x, y]) is found
