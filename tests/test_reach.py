"""Which directions the noise reaches."""

import numpy as np
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from sdekit.reach import bracket_rank, kalman

x, m, z, p, xi = sp.symbols("x m z p xi", real=True)
A, nu = sp.symbols("A nu", positive=True)
entry = st.integers(-2, 2)


@given(st.lists(entry, min_size=9, max_size=9), st.lists(entry, min_size=3, max_size=3))
def test_brackets_and_kalman_agree_on_linear_drifts(f, g):
    """For f = F z and constant D both ranks are that of [D, F D, F^2 D]."""
    F, G = sp.Matrix(3, 3, f), sp.Matrix(g)
    D = G * G.T
    dense = np.hstack([np.linalg.matrix_power(np.array(f, float).reshape(3, 3), i) @ np.array(g, float)[:, None] for i in range(3)])
    rank = np.linalg.matrix_rank(dense)
    assert kalman(F, D).rank == rank
    assert bracket_rank((x, m, z), F * sp.Matrix([x, m, z]), D).rank == rank
    stuck = kalman(F, D).stuck
    assert (stuck is None) == (rank == 3)
    if stuck is not None:
        assert np.allclose(np.array(stuck.tolist(), float).ravel() @ dense, 0.0)


def test_known_ranks():
    U = sp.Function("U")(x)
    for state, f, D, rank in (
        ((x, m), [m, -U.diff(x) - nu * m], sp.diag(0, nu), 2),  # underdamped Langevin, any potential
        ((x, p, xi), [p, -(x**3) - xi * p, p**2 - 1], sp.diag(0, A, 0), 3),  # SGNHT
        ((x, p, xi), [0, -(x**3) - xi * p, p**2 - 1], sp.diag(0, A, 0), 2),  # x stands still
        ((x, m), [m, -x], sp.zeros(2), 0),
        ((x, m), [m**2, 0], sp.diag(0, 1), 2),  # at almost every point, by [[X0, e], e]
        ((x,), [-x], sp.Matrix([[1 + x**2]]), 1),
        # X1 along v = (x, m), X0 = f - div D = (-m, x): rays turn into rays, [X0, v] = 0, so only v is reached
        ((x, m), [3 * x - m, 3 * m + x], sp.Matrix([[x**2, x * m], [x * m, m**2]]), 1),
        # v = (1, x^2), f = div D = (0, 2 x): X0 = 0, and the curve m = x^3/3 + c is never left
        ((x, m), [0, 2 * x], sp.Matrix([[1, x**2], [x**2, x**4]]), 1),
    ):
        assert bracket_rank(state, sp.Matrix(f), sp.Matrix(D)).rank == rank


def test_conditions_on_parameters():
    n = sp.Symbol("n", nonnegative=True)
    found = kalman(sp.Matrix([[0, 1], [-1, -n]]), sp.diag(0, n))
    assert found.stuck is None
    assert all(condition.subs(n, 0) == 0 for condition in found.conditions)
    assert kalman(sp.Matrix([[0, 1], [-1, -nu]]), sp.diag(0, nu)).conditions == []
