"""Q from drift, diffusion and density: what went in comes out, up to the gauge; or the first obstruction."""

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

import sdekit as sk

x, m, p, xi, z = sp.symbols("x m p xi z", real=True)
J = sp.Matrix([[0, -1], [1, 0]])
U = sp.Function("U")(x)


def recovered(recipe):
    return sk.recover_Q(recipe.state, list(recipe.drift), recipe.D, recipe.H)


def same_process(recipe, Q):
    """The drift that a recipe with this Q has, less the drift that was given."""
    again = sk.Recipe(recipe.state, recipe.H, recipe.D, Q)
    return (again.drift - recipe.drift).applyfunc(sp.simplify).is_zero_matrix


@pytest.mark.parametrize(
    ("recipe", "method"),
    [
        (sk.Recipe((x, m), (x**2 + m**2) / 2, sp.diag(0, 1), (1 + x**2) * J), "polynomial of degree 2"),
        (sk.Recipe((x, m), x**4 / 4 + m**2 / 2, sp.diag(0, 1), J), "polynomial of degree 0"),
        (sk.Recipe((x, m), sp.cosh(x) + m**2 / 2, sp.diag(0, 1), J), "line integral"),
        (sk.Recipe((x, m), (x**2 + m**2) / 2, sp.diag(0, 1), sp.exp(x) * J), "line integral"),
        (sk.Recipe((x, m), (x**2 + m**2) / 2, sp.diag(1, 1 + x**2), sp.sin(m) * J), "line integral"),
        (sk.Recipe((x, m), U + m**2 / 2, sp.diag(0, 1), J), "line integral"),
        (sk.Recipe((x, m), x**2 / 2 + 2 * m**2, sp.diag(1, 2), 3 * J), "D + F Sigma"),
    ],
)
def test_in_the_plane_the_q_that_went_in_comes_out(recipe, method):
    found = recovered(recipe)
    assert (found.Q - recipe.Q).applyfunc(sp.simplify).is_zero_matrix
    assert method in found.method
    assert "e^H" in found.gauge


def test_sgnht_in_space():
    recipe = sk.Recipe(
        (x, p, xi), x**4 / 4 + p**2 / 2 + (xi - 2) ** 2 / 2, sp.diag(0, 2, 0), sp.Matrix([[0, -1, 0], [1, 0, p], [0, -p, 0]])
    )  # fmt: skip
    found = recovered(recipe)
    assert found.Q == recipe.Q


entry = st.integers(-2, 2)


@given(st.lists(entry, min_size=9, max_size=9), st.lists(entry, min_size=4, max_size=4))
def test_polynomial_q_in_space_gives_the_same_process(q, c):
    """Random polynomial Q of degree 1: another Q may come out, but the drift is the same, exactly."""
    state = (x, m, z)
    a, b, d = (q[3 * i] + q[3 * i + 1] * x + q[3 * i + 2] * m for i in range(3))
    Q = sp.Matrix([[0, a, b], [-a, 0, d], [-b, -d, 0]])
    recipe = sk.Recipe(state, (x**2 + m**2 + z**2) / 2 + c[0] ** 2 * x**4 / 4, sp.diag(c[1] ** 2, c[2] ** 2 * (1 + z**2), c[3] ** 2), Q)
    found = recovered(recipe)
    assert found.obstruction is None
    assert (found.Q + found.Q.T).is_zero_matrix
    assert same_process(recipe, found.Q)


def test_reversible_processes_have_none():
    found = recovered(sk.Recipe((x, m), x**4 + m**2, sp.diag(1 + x**2, 1), sp.zeros(2)))
    assert found.Q.is_zero_matrix
    assert "reversible" in found.method


def test_obstructions():
    wrong = sk.recover_Q((x, m), [m + x**2, -x - m], sp.diag(0, 1), (x**2 + m**2) / 2)
    assert wrong.Q is None
    assert "not stationary" in wrong.obstruction
    assert "x**3 - 2*x" in wrong.obstruction
    line = sk.recover_Q((x,), [sp.exp(x**2 / 2) - x], [[1]], x**2 / 2)  # a constant current through the line: invariant as a measure only
    assert line.Q is None
    assert "current" in line.obstruction


def test_what_no_polynomial_matches_is_named():
    """Q = e^x on the plane of x and m in space: stationary, and beyond every polynomial."""
    recipe = sk.Recipe((x, m, z), (x**2 + m**2 + z**2) / 2, sp.eye(3), sp.diag(J, 0) / (1 + x**2))
    found = recovered(recipe)
    assert found.Q is None
    assert "no constructive way" in found.obstruction
