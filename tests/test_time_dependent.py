"""Recipes whose D and Q vary in the clock: the law stays, the kernel is that of the moment equations, and the other rooms follow."""

import numpy as np
import pytest
import sympy as sp
from scipy.integrate import solve_ivp

import sdekit as sk
from sdekit import clocks
from sdekit.certificate import Verdict, certify
from sdekit.spec import loads
from sdekit.writing import dumps

x, m = sp.symbols("x m", real=True)
B = sp.Symbol("B", nonnegative=True)
J = sp.Matrix([[0, -1], [1, 0]])
H = x**2 / 2 + 2 * m**2


def moving():
    """D(B) and Q(B) that do not commute at different times."""
    D = sp.diag((1 + B) / 50, sp.Rational(1, 2) + sp.sin(B) ** 2)
    return sk.Recipe((x, m), H, D, (1 + B**2 / 10) * J, clocks.linear(2.0, 6.0), initial={m: sp.Rational(1, 25)}, time=B, name="moving")


def test_the_law_stays_and_the_rest_is_said():
    found = {name: claim.verdict for name, claim in certify(moving()).claims()}
    assert found == dict.fromkeys(found, Verdict.PROVED) | {"kernel": Verdict.UNDECIDED}
    assert moving().symbols == ()


SLOW, OTHER = sp.diag(0, 1), sp.diag(sp.Rational(1, 2), 2)


@pytest.mark.parametrize(
    ("D", "Q", "verdict", "says"),
    [
        (OTHER * (1 + B), (1 + B**2) * J, Verdict.PROVED, "exp(-1 B) or faster"),  # 2 lambda_min(D) lambda_min(H'') = 2 * 1/2 * 1
        (OTHER * (1 + sp.exp(-B)), J, Verdict.PROVED, "D >= [[1/2, 0], [0, 2]]"),  # half of what it is at B = 0
        (OTHER / (1 + B) ** 2, J, Verdict.UNDECIDED, "below D"),  # its integral is finite: no start is forgotten
        (SLOW, (1 + B) * J, Verdict.UNDECIDED, "below D"),
        (SLOW * (1 + B), (1 + B) * J, Verdict.PROVED, "Kalman rank 2 of 2"),  # one function of B times constants: another clock
        (SLOW * (1 + B), sp.zeros(2), Verdict.REFUTED, "Kalman rank 1 of 2"),
        (SLOW / (1 + B) ** 2, J / (1 + B) ** 2, Verdict.UNDECIDED, "below D"),
    ],
)
def test_starts_are_forgotten_where_the_noise_never_fails(D, Q, verdict, says):
    claim = certify(sk.Recipe((x, m), H, D, Q, time=B)).ergodic
    assert claim.verdict is verdict
    assert says in claim.evidence


def test_relative_entropy_falls_as_fast_as_the_certificate_says():
    """KL(N(psi x_0, S) || N(0, diag(1, 1/4))) of the kernel against exp(-2 c B), c = 1/50 the smallest eigenvalue of D and 1 of the Hessian."""
    assert "exp(-0.04 B)" in certify(moving()).ergodic.evidence
    process, start = moving().process(), 2.0
    times = np.linspace(0.05, 1.0, 20)
    kernel, K = process.kernel(times), np.diag([1.0, 4.0])
    mean = start * kernel.psi
    entropy = 0.5 * (
        np.trace(K @ kernel.cov, axis1=1, axis2=2) - 2 + np.einsum("ti,ij,tj->t", mean, K, mean) - np.log(4.0 * np.linalg.det(kernel.cov))
    )
    assert np.all(np.diff(np.log(entropy)) <= -0.04 * np.diff(process.clock.integral(times)))


@pytest.mark.parametrize(("H", "verdict"), [(x**4 / 4 + x**2 / 2 + m**2, Verdict.ASSUMED), (x**4 / 4 - x**2 / 2 + m**2, Verdict.UNDECIDED)])
def test_a_nonlinear_one_is_proved_but_for_explosion_where_h_is_convex(H, verdict):
    claim = certify(sk.Recipe((x, m), H, sp.diag(1 + x**2, 2 + B), (1 + B) * J, time=B)).ergodic
    assert claim.verdict is verdict
    assert claim.assumptions == (("no path explodes in finite time",) if verdict is Verdict.ASSUMED else ())


def test_one_wrong_term_is_refuted_at_a_time():
    good = moving()
    wrong = [good.drift[0] + B * m, good.drift[1]]
    claim = certify(sk.Recipe.from_drift((x, m), wrong, good.D, H, time=B)).stationary
    assert claim.verdict is Verdict.REFUTED
    assert claim.witness[B] != 0


def test_process_is_the_moment_equations():
    recipe = moving()
    process = recipe.process()
    drift = sp.lambdify(B, recipe.drift.jacobian([x, m]))
    twice = sp.lambdify(B, 2 * recipe.D)

    def slope(s, y):
        E, S, f = y[:4].reshape(2, 2), y[4:].reshape(2, 2), drift(s)
        return np.concatenate([(f @ E).ravel(), (f @ S + S @ f.T + twice(s)).ravel()])

    start = np.concatenate([np.eye(2).ravel(), np.diag([0.0, 0.04]).ravel()])
    for t in (1e-3, 0.4, 1.0):
        end = float(process.clock.integral(t))
        found = solve_ivp(slope, (0.0, end), start, rtol=1e-13, atol=1e-16, method="DOP853").y[:, -1]
        made = process.kernel(t)
        scale = np.sqrt(np.outer(np.diag(made.cov), np.diag(made.cov)))
        assert np.max(np.abs(made.psi - found[[0, 2]])) < 1e-12
        assert np.max(np.abs(made.cov - found[4:].reshape(2, 2)) / scale) < 2e-12


def test_simulation_and_reversal_follow():
    """The exact one-step mean of Euler-Maruyama at B(t), and the reverse drift, at one time."""
    recipe = moving()
    t, h = 0.5, 1e-3
    at = float(recipe.clock.resolve().integral(t))
    F = np.array(recipe.drift.jacobian([x, m]).subs(B, at).tolist(), float)
    z = np.array([[0.3], [-0.7]])
    from sdekit.simulation import step

    new = step(recipe, z, t, t + h, np.zeros((2, 1)))
    length = float(recipe.clock.resolve().integral(t + h)) - at
    np.testing.assert_allclose(new, z + length * F @ z, rtol=1e-13)
    way = sk.reversal.reverse(recipe, noise=1)
    assert way.proof.verdict is Verdict.PROVED
    score = np.array([[0.2], [0.5]])
    D = np.array(recipe.D.subs(B, at).tolist(), float)
    rate = float(recipe.clock.resolve().rate(t))
    np.testing.assert_allclose(way.dynamics().drift(z, t, lambda z, t: score), rate * (-F @ z + 2.0 * D @ score), rtol=1e-13)


def test_spec_files_hold_them_both_ways():
    text = """
name = "moving"
state = ["x", "m"]
[recipe]
H = "x**2/2 + 2*m**2"
D = [["(1 + B)/50", "0"], ["0", "1/2 + sin(B)**2"]]
Q = [["0", "-1 - B**2/10"], ["1 + B**2/10", "0"]]
[clock]
kind = "linear"
beta_min = 2.0
beta_max = 6.0
[initial]
m = 0.04
"""
    read = loads(text)
    assert read.time == B
    assert (read.drift - moving().drift).applyfunc(sp.expand).is_zero_matrix
    np.testing.assert_allclose(read.process().kernel(0.7).cov, moving().process().kernel(0.7).cov, rtol=1e-13)
    assert loads(dumps(read)) == read
    with pytest.raises(sk.BadInput, match="unknown name 'B'"):
        loads(text.replace('"x**2/2 + 2*m**2"', '"x**2/2*(1 + B)"'))
    with pytest.raises(sk.BadInput, match="not both"):
        loads(text + "[process]\nF = [[-1]]\nG = [[1]]\n")
    with pytest.raises(sk.BadInput, match="rows of one length"):
        loads('name = "p"\nstate = ["x"]\n[process]\nF = [["-1"]]\nG = [["1"], ["B"]]\n')


def test_bad_input():
    with pytest.raises(sk.BadInput, match="does not move"):
        sk.Recipe((x,), x**2 * (1 + B), [[1]], [[0]], time=B)
    with pytest.raises(sk.BadInput, match="no block"):
        sk.Recipe((x,), x**2, [[1]], [[0]], time=x)
