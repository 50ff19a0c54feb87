"""Pseudo methods for x' = L(t) x + b(t) g(x, t): exactness, orders, stiffness, a small neural ODE, and diffusion as one case."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from processes import vp
from scipy.integrate import quad_vec, solve_ivp
from scipy.linalg import expm

from sdekit import BadInput, grids, methods, plans
from sdekit import semilinear as sl
from sdekit.law import Mixture
from sdekit.solve import program, solve

METHODS = {"euler": (sl.euler, 1), "improved_euler": (sl.improved_euler, 2), "runge_kutta": (sl.runge_kutta, 2),
           **{f"adams({q})": (sl.adams(q), q) for q in (1, 2, 3, 4)}}  # fmt: skip
every = pytest.mark.parametrize("name", METHODS)
OSCILLATOR = np.array([[0.0, 1.0], [-2500.0, -4.0]])


def turning(t, s):
    """Propagator of x' = [[-1, t], [-t, -1]] x, whose matrices commute."""
    angle = 0.5 * (s * s - t * t)
    return np.exp(t - s) * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


PARTS = {
    "number": (sl.constant(-3.0, 2.0), lambda t: -3.0 * np.eye(2), lambda t: 2.0 * np.eye(2)),
    "diagonal": (sl.constant([-3.0, 0.5], [1.0, -2.0]), lambda t: np.diag([-3.0, 0.5]), lambda t: np.diag([1.0, -2.0])),
    "matrix": (sl.constant(OSCILLATOR, [[1.0, 0.2], [0.0, 3.0]]), lambda t: OSCILLATOR, lambda t: np.array([[1.0, 0.2], [0.0, 3.0]])),
    "matrix, diagonal b": (sl.constant(OSCILLATOR, [1.0, 3.0]), lambda t: OSCILLATOR, lambda t: np.diag([1.0, 3.0])),
    "varying": (sl.varying(turning, lambda t: 1.0 + t), lambda t: np.array([[-1.0, t], [-t, -1.0]]), lambda t: (1.0 + t) * np.eye(2)),
    "varying, diagonal b": (sl.varying(turning, lambda t: np.array([t, 2.0])), lambda t: np.array([[-1.0, t], [-t, -1.0]]),
                            lambda t: np.diag([t, 2.0])),
    "varying diagonal, matrix b": (sl.varying(lambda t, s: np.exp([t - s, 0.5 * (s * s - t * t)]), lambda t: np.array([[t, 1.0], [0.3, 2.0]])),
                                   lambda t: np.diag([-1.0, t]), lambda t: np.array([[t, 1.0], [0.3, 2.0]])),
    "varying diagonal": (sl.varying(lambda t, s: np.exp([t - s, 0.5 * (s * s - t * t)]), lambda t: np.array([t, 1.0])),
                         lambda t: np.diag([-1.0, t]), lambda t: np.diag([t, 1.0])),
}  # fmt: skip


def reference(L, b, g, x, times):
    """The problem by a classical method of order 8, whose steps the linear part limits."""
    made = solve_ivp(lambda t, y: L(t) @ y + b(t) @ g(y, t), (times[0], times[-1]), x, method="DOP853", rtol=1e-12, atol=1e-13)
    return made.y[:, -1]


@pytest.mark.parametrize("kind", PARTS)
@every
def test_exact_for_constant_g(name, kind):
    """Whatever the steps, of any length and in both directions."""
    part, L, b = PARTS[kind]
    x, g, times = np.array([1.0, -0.5]), np.array([0.7, -1.1]), np.array([0.2, 0.5, 0.6, 1.1, 1.2, 1.3])

    def rate(t, y):
        return L(t) @ y + b(t) @ g

    for grid in (times, times[::-1]):
        exact = solve_ivp(rate, (grid[0], grid[-1]), x, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
        made = sl.solve(part, lambda y, t: g, x, grid, METHODS[name][0])
        assert made.shape == (6, 2)
        np.testing.assert_allclose(made[-1], exact, atol=2e-9 * np.max(np.abs(exact)))


@pytest.mark.parametrize("rate", [-1e6, -40.0, -1e-9, 0.0, 3.0])
def test_weights_of_stiff_numbers(rate):
    """h int exp((1 - x) h L) l_j(x) dx for L h from -1e6 to 3, by quadrature in the fast variable."""
    nodes, h = [0.3, 0.1, -0.15], 0.2

    def basis(r):
        return np.array([np.prod([(r - o) / (nodes[j] - o) for i, o in enumerate(nodes) if i != j]) for j in range(3)])

    span = h if rate >= -1.0 / h else min(h, 60.0 / -rate)
    exact, _ = quad_vec(lambda v: np.exp(rate * v) * basis(0.3 + h - v), 0.0, span, epsabs=1e-17, epsrel=1e-13)
    np.testing.assert_allclose(sl.constant(rate).weights(0.3, 0.3 + h, nodes), exact, rtol=1e-11)
    diagonal = sl.constant([rate, -1.0], [1.0, 2.0]).weights(0.3, 0.3 + h, nodes)
    np.testing.assert_allclose(diagonal[:, 0], exact, rtol=1e-11)
    np.testing.assert_allclose(diagonal[:, 1], 2.0 * sl.constant(-1.0).weights(0.3, 0.3 + h, nodes), rtol=1e-13)


def test_weights_of_matrices_and_of_propagators_agree():
    """phi functions of a matrix against Gauss quadrature of its exponential."""
    matrix = np.array([[0.0, 1.0], [-30.0, -2.0]])
    front = np.array([[1.0, 0.5], [0.0, 2.0]])
    nodes = [0.4, 0.3, 0.15, 0.05]
    exact = sl.varying(lambda t, s: expm((s - t) * matrix), lambda t: front, panels=4).weights(0.4, 0.6, nodes)
    np.testing.assert_allclose(sl.constant(matrix, front).weights(0.4, 0.6, nodes), exact, atol=1e-13)
    np.testing.assert_allclose(exact.sum(axis=0), np.linalg.solve(matrix, (expm(0.2 * matrix) - np.eye(2)) @ front), atol=1e-13)


def forcing(y, t):
    return np.array([0.0, 200.0 * np.tanh(y[0]) * np.cos(3.0 * t)])


@every
def test_a_stiff_oscillator_with_a_nonlinear_force(name):
    """x'' + 4 x' + 2500 x = 200 tanh(x) cos 3t: frequency 50, so that classical methods need steps far below 0.02; order as claimed."""
    method, order = METHODS[name]
    x, b = np.array([1.0, 0.0]), np.eye(2)
    exact = reference(lambda t: OSCILLATOR, lambda t: b, forcing, x, [0.0, 2.0])
    counts = (128, 256, 512)
    errors = [np.max(np.abs((sl.solve(sl.constant(OSCILLATOR), forcing, x, np.linspace(0.0, 2.0, n + 1), method)[-1] - exact) / [1.0, 50.0]))
              for n in counts]  # fmt: skip
    slopes = [np.log2(one / two) for one, two in pairwise(errors)]
    assert slopes[-1] == pytest.approx(order, abs=0.3), f"{errors} {slopes}"


@every
def test_stiffness_does_not_limit_the_step(name):
    """A mode with rate -1e6 in 20 steps of 0.1: it follows the slow one, y - y' / 1e6 to 1e-12, whose error is all there is."""
    method, order = METHODS[name]
    matrix = np.array([[-1.0, 0.0], [1e6, -1e6]])

    def g(y, t):
        return np.array([np.sin(2.0 * t) * np.tanh(y[0]), 0.0])

    slow = reference(lambda t: -np.eye(1), lambda t: np.eye(1), lambda y, t: g(y, t)[:1], np.ones(1), [0.0, 2.0])[0]
    exact = [slow, slow - (-slow + g([slow], 2.0)[0]) / 1e6]
    errors = [np.abs(sl.solve(sl.constant(matrix), g, np.ones(2), np.linspace(0.0, 2.0, n + 1), method)[-1] - exact) for n in (20, 40, 80)]
    assert np.max(errors[0]) < {1: 0.1, 2: 0.02}.get(order, 2e-3)
    assert np.all(np.log2(errors[1] / errors[2]) > order - 0.35)


@cache
def neural():
    """x' = A x + W2 tanh(W1 x + c t), fixed random weights, rates up to 1000, eight states; between times where the fast ones have died out."""
    rng = np.random.default_rng(0)
    W1, W2, c = rng.normal(size=(16, 4)), 0.3 * rng.normal(size=(4, 16)), rng.normal(size=(16, 1))
    A = -np.diag([0.5, 2.0, 500.0, 1000.0]) + 0.3 * np.tril(rng.normal(size=(4, 4)), -1)

    def g(y, t):
        return W2 @ np.tanh(W1 @ y + c * t)

    def exact(x, start, end):
        flat = reference(lambda t: np.kron(A, np.eye(8)), lambda t: np.eye(32), lambda y, t: g(y.reshape(4, 8), t).ravel(), x.ravel(), [start, end])
        return flat.reshape(4, 8)

    x = exact(rng.normal(size=(4, 8)), 0.0, 0.05)
    return A, g, x, exact(x, 0.05, 1.0)


@every
def test_a_small_neural_ode(name):
    method, order = METHODS[name]
    A, g, x, end = neural()
    errors = [np.max(np.abs(sl.solve(sl.constant(A), g, x, np.linspace(0.05, 1.0, n + 1), method)[-1] - end)) for n in (32, 64, 128)]
    slopes = [np.log2(one / two) for one, two in pairwise(errors)]
    assert slopes[-1] == pytest.approx(order, abs=0.3), f"{errors} {slopes}"
    assert errors[-1] < 0.05 / 4.0**order


def test_orders_on_uneven_steps():
    """Lagrange weights know their nodes: Adams keeps order 4 where steps shrink."""

    def g(y, t):
        return np.array([np.sin(2.0 * t) * np.tanh(y[1]), np.cos(y[0])])

    x, times = np.array([1.0, 0.3]), lambda n: 2.0 * np.linspace(0.0, 1.0, n + 1) ** 1.7
    exact = reference(lambda t: np.array([[-1.0, t], [-t, -1.0]]), lambda t: (1.0 + t) * np.eye(2), g, x, [0.0, 2.0])
    for order in (2, 3, 4):
        errors = [np.max(np.abs(sl.solve(PARTS["varying"][0], g, x, times(n), sl.adams(order))[-1] - exact)) for n in (40, 80, 160)]
        assert np.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.3)


def test_diffusion_is_one_case():
    """VP: Phi(s, t) = a_s / a_t, b = beta / (2 s_t), g = eps; Euler is DDIM, Adams is the library's own pndm in time."""
    law = Mixture([0.3, 0.7], [[-1.0], [0.8]], [[0.0625], [0.16]])
    B = lambda t: 0.1 * t + 9.95 * t * t  # noqa: E731
    a, s = lambda t: np.exp(-0.5 * B(t)), lambda t: np.sqrt(-np.expm1(-B(t)))
    part = sl.varying(lambda t, s: a(s) / a(t), lambda t: 0.5 * (0.1 + 19.9 * t) / s(t))

    def eps(x, t):
        return (x - a(t) * law.denoiser()(x / a(t), s(t) / a(t))) / s(t)

    times = np.linspace(1.0, 0.2, 9)
    x = np.random.default_rng(0).normal(size=(5, 1))
    for ours, theirs in ((sl.euler, methods.ddim()), (sl.adams(4), methods.pndm(clock="time")), (sl.adams(1), methods.ipndm(1)),
                         (sl.runge_kutta, methods.prk("time"))):  # fmt: skip
        made, _ = solve(program(vp(), plans.run(grids.times(times), theirs)), [x], law.denoiser())
        np.testing.assert_allclose(sl.solve(part, eps, x, times, ours)[-1], made[0], atol=1e-10)


def test_calls_and_short_runs():
    """adams(4) asks N + 2 times, Runge-Kutta 4 N; in runs of one to three steps the error falls as the fourth power of the window."""
    asked = []

    def g(y, t):
        asked.append(t)
        return np.cos(y + t)

    def error(n, end):
        exact = solve_ivp(lambda t, y: -y + np.cos(y + t), (0.0, end), [1.0], method="DOP853", rtol=1e-13, atol=1e-14).y[0, -1]
        return abs(sl.solve(sl.constant(-1.0), g, np.array([1.0]), np.linspace(0.0, end, n + 1))[-1, 0] - exact)

    for n in (1, 2, 3, 10):
        for method, calls in ((None, n + 2), (sl.adams(3), n + 2), (sl.adams(2), n), (sl.euler, n), (sl.runge_kutta, 4 * n)):
            asked.clear()
            sl.solve(sl.constant(-1.0), g, np.array([1.0]), np.linspace(0.0, 0.2, n + 1), method)
            assert len(asked) == calls
        if n < 4:
            assert np.log2(error(n, 0.1) / error(n, 0.05)) == pytest.approx(4.0, abs=0.2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sl.adams(5),
        lambda: sl.adams(0),
        lambda: sl.constant(np.ones((2, 3))),
        lambda: sl.constant(1.0, [1.0, 2.0]),
        lambda: sl.constant([1.0, 2.0], [1.0, 2.0, 3.0]),
        lambda: sl.constant(float("inf")),
        lambda: sl.varying(turning, panels=0),
        lambda: sl.solve(sl.constant(1.0), lambda x, t: x, np.ones(1), [0.0]),
        lambda: sl.solve(sl.constant(1.0), lambda x, t: x, np.ones(1), [0.0, 1.0, 0.5]),
        lambda: sl.solve(sl.constant(1.0), lambda x, t: x, np.ones(1), [0.0, float("nan")]),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
