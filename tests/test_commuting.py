"""Closed forms where F varies in the clock and commutes with itself: by hand, by the moment equations, and against the numeric kernels."""

import numpy as np
import pytest
import sympy as sp

import sdekit as sk
from sdekit.certificate import Verdict, certify
from sdekit.zero import decide_zero

x, m = sp.symbols("x m", real=True)
B = sp.Symbol("B", nonnegative=True)
d = sp.Symbol("d", positive=True)
J = sp.Matrix([[0, -1], [1, 0]])
CLOCK = sk.clocks.linear(1.0, 3.0)


def on_a_line(D, H=x**2 / 2):
    return sk.Recipe((x,), H, [[D]], [[0]], CLOCK, time=B, initial={x: sp.Rational(1, 100)})


@pytest.mark.parametrize(
    ("D", "whole"),
    [((1 + B) * d, (B + B**2 / 2) * d), (d / (1 + B), d * sp.log(1 + B)), (d * sp.exp(-B), d * (1 - sp.exp(-B))),
     (d + sp.cos(B) * d / 2, d * (B + sp.sin(B) / 2)),
     (d / (1 + B) ** 2, d * B / (1 + B)), (d * sp.sqrt(1 + B), d * sp.Rational(2, 3) * ((1 + B) ** sp.Rational(3, 2) - 1))],
)  # fmt: skip
def test_varying_rate_on_a_line(D, whole):
    """OU: the mean is exp(-W), the variance 1 - exp(-2 W) (1 - v_0), with W the integral of the rate; without a drift v_0 + 2 W."""
    kernel = on_a_line(D).kernel()
    assert decide_zero(kernel.mean[0, 0] - sp.exp(-whole)).verdict is Verdict.PROVED
    assert decide_zero(kernel.cov[0, 0] - 1 + sp.exp(-2 * whole) * sp.Rational(99, 100)).verdict is Verdict.PROVED
    assert kernel.proof.verdict is Verdict.PROVED
    free = on_a_line(D, 0).kernel()
    assert free.mean[0, 0] == 1
    assert decide_zero(free.cov[0, 0] - sp.Rational(1, 100) - 2 * whole).verdict is Verdict.PROVED
    assert free.proof.verdict is Verdict.PROVED


def plane(D, Q, H=(x**2 + m**2) / 2):
    return sk.Recipe((x, m), H, D, Q, CLOCK, time=B, initial={m: sp.Rational(1, 25)})


COMMUTING = [
    on_a_line(1 + B),
    plane(sp.diag(0, 2) * (1 + sp.sin(B) ** 2), J * (1 + sp.sin(B) ** 2), x**2 / 2 + m**2),  # F = f(B) F_0, critically damped or not
    plane(sp.diag(0, 2) / (1 + B), J / (1 + B)),  # a Jordan block
    plane(sp.eye(2) * (1 + B), 3 * sp.exp(-B) * J),  # two functions, two matrices that commute
    plane(sp.Matrix([[2 + B, B], [B, 2 + B]]), sp.zeros(2)),
    sk.Recipe.from_drift((x, m), [B * m, 0], sp.diag(1, B**2), 0, CLOCK, time=B),  # no stationary law: the covariance is an integral
]


@pytest.mark.parametrize("recipe", COMMUTING, ids=range(len(COMMUTING)))
def test_the_closed_form_is_proved_and_is_what_the_panels_give(recipe):
    kernel, process = recipe.kernel(), recipe.process()
    assert kernel.proof.verdict is Verdict.PROVED
    assert kernel.clock == B
    for t in (1e-3, 0.4, 1.0):
        at = {B: sp.Float(float(process.clock.integral(t)), 60)}
        mean, cov = (np.array(part.subs(at).evalf(40).tolist(), complex) for part in (kernel.mean, kernel.cov))
        made = process.kernel(t)
        scale = np.sqrt(np.diag(cov))
        np.testing.assert_allclose(made.psi, mean[:, 0], atol=1e-13)
        assert np.max(np.abs(made.cov - cov) / np.outer(scale, scale)) < 5e-13


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (plane(sp.diag(1, 1 + B), J), "F(B) does not commute with itself at other times"),
        (on_a_line(sp.exp(sp.sin(B))), "sympy finds no integral of exp(sin(B))"),
        (sk.Recipe((x,), x**4, [[1 + B]], [[0]], time=B), "not linear"),
    ],
)
def test_where_there_is_none_it_says_why(recipe, says):
    assert recipe.kernel() is None
    assert says in recipe.closed_form
    claim = certify(recipe).kernel
    assert claim.verdict is (Verdict.REFUTED if "not linear" in says else Verdict.UNDECIDED)
    assert says in claim.evidence


def test_certificate_and_printed_function():
    recipe = plane(sp.eye(2) * (1 + B), 3 * sp.exp(-B) * J)
    assert certify(recipe).kernel.verdict is Verdict.PROVED
    space = {}
    exec(recipe.kernel().source("moving"), space)  # our own text, in a test
    _, cov, level = space["moving"](1.5)
    process = recipe.process(T=1.0)
    t = float(process.clock.inverse(1.5))
    np.testing.assert_allclose(cov, process.kernel(t).cov, atol=1e-12)
    assert level == pytest.approx(float(process.sigma_eff(t)), rel=1e-11)


@pytest.mark.parametrize("D", [1 / (1 + B) ** 2, sp.exp(-B)])
def test_the_clock_is_no_parameter_that_the_recipe_divides_by(D):
    """The integral of D is finite: starts are not forgotten, and no claim says so."""
    certificate = certify(on_a_line(D))
    assert certificate.recipe.varies
    assert certificate.ergodic.verdict is not Verdict.PROVED
    assert not any("B != 0" in text for _, claim in certificate.claims() for text in claim.assumptions)
