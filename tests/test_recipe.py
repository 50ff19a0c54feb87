"""Recipes: drift, noise, residual, kernels; the acceptance cases 1, 2, 3 and 5 of the complete recipe."""

import time

import mpmath as mp
import numpy as np
import pytest
import sympy as sp
from scipy.linalg import expm

import sdekit as sk
from sdekit.limits import Watch
from sdekit.zero import Verdict, decide_zero

x, m, z = sp.symbols("x m z", real=True)
Gamma, nu, M = sp.symbols("Gamma nu M", positive=True)
J = sp.Matrix([[0, -1], [1, 0]])


def psld(**more):
    return sk.Recipe(state=(x, m), H=x**2 / 2 + m**2 / (2 * M), D=sp.diag(Gamma, M * nu) / 2, Q=J / 2, clock=sk.clocks.linear(8.0, 8.0), **more)


def test_psld_drift_noise_and_residual():
    recipe = psld()
    assert sp.simplify(recipe.drift - sp.Matrix([(m / M - Gamma * x) / 2, (-x - nu * m) / 2])) == sp.zeros(2, 1)
    assert recipe.residual == 0
    assert sp.simplify(recipe.noise * recipe.noise.T - sp.diag(Gamma, M * nu)) == sp.zeros(2, 2)
    assert recipe.noise.is_lower


def test_state_dependent_parts_get_their_correction():
    # recipe 1.6: dropping the divergence (0, 2 x) leaves the residual -2 m x
    Q, D, H = (1 + x**2) * J, sp.diag(0, 1), (x**2 + m**2) / 2
    recipe = sk.Recipe(state=(x, m), H=H, D=D, Q=Q)
    assert sp.expand(recipe.drift - sp.Matrix([m * (1 + x**2), -m - x * (1 + x**2) + 2 * x])) == sp.zeros(2, 1)
    assert recipe.residual == 0
    dropped = sk.Recipe.from_drift(state=(x, m), drift=[m * (1 + x**2), -m - x * (1 + x**2)], D=D, H=H)
    assert sp.expand(dropped.residual + 2 * m * x) == 0


def test_unspecified_functions_leave_no_residual():
    H = sp.Function("H")(x, m)
    d = [sp.Function(f"d{i}")(x, m) for i in range(3)]
    q = sp.Function("q")(x, m)
    recipe = sk.Recipe(state=(x, m), H=H, D=[[d[0], d[1]], [d[1], d[2]]], Q=[[0, -q], [q, 0]])
    assert decide_zero(recipe.residual).verdict is Verdict.PROVED


def test_missing_correction_is_refuted_at_one_half():
    # case 2
    recipe = sk.Recipe.from_drift(state=(x,), drift=[-(1 + x**2) * x], D=[[1 + x**2]], H=x**2 / 2)
    assert sp.expand(recipe.residual - 2 * (1 - x**2)) == 0
    claim = sk.certify(recipe).stationary
    assert claim.verdict is Verdict.REFUTED
    assert recipe.residual.subs(claim.witness) == sp.Rational(3, 2)
    assert claim.witness == {x: sp.Rational(1, 2)}
    right = sk.Recipe.from_drift(state=(x,), drift=[-(1 + x**2) * x + 2 * x], D=[[1 + x**2]], H=x**2 / 2)
    assert sk.certify(right).stationary.verdict is Verdict.PROVED


def test_wrong_mass_is_refuted_with_the_residual_of_the_fact_sheet():
    # case 3
    g, v = sp.Rational(1, 100), sp.Rational(401, 100)
    drift = [(4 * m - g * x) / 2, (-x - v * m) / 2]
    recipe = sk.Recipe.from_drift(state=(x, m), drift=drift, D=sp.diag(g, v) / 2, H=x**2 / 2 + 2 * m**2)
    assert sp.expand(recipe.residual - 1203 * (4 * m**2 - 1) / 200) == 0
    assert recipe.residual.subs(m, 1) == sp.Rational(3609, 200)
    with pytest.raises(sk.Refuted, match="stationary"):
        recipe.process()


def test_recover_q_of_the_fact_sheet():
    # case 5: F = 4 [[-.01, 4], [-1, -4.01]], S = diag(1, .25), G G^T = 8 diag(.01, 1.0025)
    drift = [4 * (-sp.Rational(1, 100) * x + 4 * m), 4 * (-x - sp.Rational(401, 100) * m)]
    found = sk.recover_Q(state=(x, m), drift=drift, D=4 * sp.diag(sp.Rational(1, 100), sp.Rational(10025, 10000)), H=x**2 / 2 + 2 * m**2)
    assert sp.Matrix([[0, -4], [4, 0]]) == found.Q
    assert found.obstruction is None
    assert "unique" in found.gauge
    F = sp.Matrix(drift).jacobian([x, m])
    assert F.eigenvals() == {-sp.Rational(804, 100): 2}  # defective


def test_recover_q_names_the_first_obstruction():
    found = sk.recover_Q(state=(x, m), drift=[m, -x - m], D=sp.diag(0, 2), H=(x**2 + m**2) / 2)
    assert found.Q is None
    assert "(1, 1)" in found.obstruction


@pytest.mark.parametrize("damping", [1, sp.Rational(1, 4), 3, None])
def test_symbolic_kernel_equals_the_numeric_one(damping):
    """Critical (1), under- and over-damped; None: the general formula with numbers put in afterwards."""
    values = {"Gamma": sp.Rational(1, 100), "M": sp.Rational(1, 4)}
    values["nu"] = values["Gamma"] + 4 * (damping or sp.Rational(3, 2))
    recipe = psld(initial={m: M / 25})
    kernel = recipe.kernel(**values) if damping is not None else recipe.kernel()
    assert kernel.proof.verdict is Verdict.PROVED
    assert ("nilpotent" in kernel.form) == (damping == 1)
    put = {s: values[s.name] for s in (Gamma, nu, M)}
    process = recipe.process(**{name: float(value) for name, value in values.items()})
    for t in (1e-4, 0.1, 1.0):
        at = {**put, kernel.clock: sp.Float(8 * t, 60)}
        mean, cov = (np.array(part.subs(at).evalf(40).tolist(), float) for part in (kernel.mean, kernel.cov))
        mine = process.kernel(t)
        assert np.max(np.abs(mine.psi - mean[:, 0])) <= 1e-12 * np.max(np.abs(mean[:, 0]))
        scale = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
        assert np.max(np.abs(mine.cov - cov) / scale) <= 1e-12


@pytest.mark.parametrize("damping", [1, sp.Rational(1, 4), 3, None])
def test_printed_function_and_level(damping):
    """The text that is printed, run on its own, is the process's kernel; sigma_eff too."""
    values = {"Gamma": 0.01, "M": 0.25, "nu": 0.01 + 4 * float(damping or 1.5)}
    exact = {"Gamma": sp.Rational(1, 100), "M": sp.Rational(1, 4), "nu": sp.Rational(1, 100) + 4 * (damping or 0)}
    recipe = psld(initial={m: M / 25})
    kernel = recipe.kernel(**exact) if damping is not None else recipe.kernel()
    space = {}
    exec(kernel.source("psld"), space)  # our own text, in a test
    process = recipe.process(**values)
    names = space["psld"].__code__.co_varnames[1 : space["psld"].__code__.co_argcount]
    assert list(names) == ([] if damping is not None else ["Gamma", "M", "nu"])
    for t in (0.05, 0.3, 1.0):
        mean, cov, level = space["psld"](8 * t, *(values[name] for name in names))
        mine = process.kernel(t)
        np.testing.assert_allclose(mean[:, 0], mine.psi, rtol=1e-11)
        scale = np.sqrt(np.diag(mine.cov))
        np.testing.assert_allclose((cov - mine.cov) / np.outer(scale, scale), 0.0, atol=1e-12)
        exactly = {kernel.clock: sp.Float(8 * t, 50), **{s: sp.Float(values[s.name], 50) for s in (Gamma, nu, M)}}
        for found in (level, float(kernel.sigma_eff.subs(exactly).evalf(30))):
            assert found == pytest.approx(float(process.sigma_eff(t)), rel=1e-10)
    with pytest.raises(sk.BadInput, match="Python name"):
        kernel.source("a b")


def test_critical_kernel_is_the_closed_form_of_the_paper():
    # recipe 2.2, in x and m, with delta = 1/sqrt(M), u = delta B/2, a = (Gamma + nu) B/4
    kernel = psld(initial={m: M / 25}).kernel(nu=Gamma + 2 / sp.sqrt(M))
    B, delta = kernel.clock, 1 / sp.sqrt(M)
    u, a, g = delta * B / 2, (Gamma + Gamma + 2 / sp.sqrt(M)) * B / 4, sp.Rational(1, 25)
    decay = sp.exp(-2 * a)
    assert decide_zero(kernel.cov[0, 0] - (1 - decay * ((1 + u) ** 2 + (1 - g) * u**2))).verdict is Verdict.PROVED
    assert decide_zero(kernel.cov[0, 1] - decay * u * (2 * u + g * (1 - u)) / delta).verdict is Verdict.PROVED
    assert decide_zero(kernel.cov[1, 1] - (1 - decay * (u**2 + (1 - g) * (1 - u) ** 2)) / delta**2).verdict is Verdict.PROVED
    assert decide_zero(kernel.mean[0, 0] - sp.exp(-a) * (1 + u)).verdict is Verdict.PROVED
    assert decide_zero(kernel.mean[0, 1] - sp.exp(-a) * u * delta).verdict is Verdict.PROVED


def test_third_order_critical_chain_is_nilpotent():
    # recipe 2.4: g = 2 sqrt 2, xi = 3 sqrt 3, triple root -sqrt 3
    g, xi = 2 * sp.sqrt(2), 3 * sp.sqrt(3)
    recipe = sk.Recipe(state=(x, m, z), H=(x**2 + m**2 + z**2) / 2, D=sp.diag(0, 0, xi), Q=[[0, -1, 0], [1, 0, -g], [0, g, 0]])
    kernel = recipe.kernel()
    assert "nilpotent" in kernel.form
    assert kernel.proof.verdict is Verdict.PROVED
    assert (
        decide_zero(kernel.mean[0, 0] - sp.exp(-sp.sqrt(3) * kernel.clock) * (1 + sp.sqrt(3) * kernel.clock + kernel.clock**2)).verdict
        is Verdict.PROVED
    )


def test_kernel_without_a_stationary_law_is_integrated():
    recipe = sk.Recipe(state=(x,), H=sp.Integer(0), D=[[sp.Rational(1, 2)]], Q=[[0]], initial={x: sp.Rational(1, 100)})
    kernel = recipe.kernel()
    assert kernel.cov[0, 0] == kernel.clock + sp.Rational(1, 100)
    assert kernel.proof.verdict is Verdict.PROVED
    # free particle with noise on the velocity: S_xx = 2 D B^3 / 3
    free = sk.Recipe.from_drift(state=(x, m), drift=[m, 0], D=sp.diag(0, Gamma), H=sp.Integer(0))
    assert sp.expand(free.kernel().cov[0, 0] - 2 * Gamma * free.kernel().clock ** 3 / 3) == 0
    assert free.kernel().proof.verdict is Verdict.PROVED


@pytest.mark.parametrize(
    ("F", "form"),
    [
        ([[-1, 1, 0], [0, -2, 1], [1, 0, -3]], None),  # a cubic without rational roots
        ([[-3, 1, 1], [0, -2, 1], [0, 1, -2]], "2 different"),  # -3 in a Jordan block, and -1
        ([[-2, 1, 0, 0], [0, -2, 1, 0], [0, 0, -2, 1], [0, 0, 0, -5]], "2 different"),
        ([[-1, -2, 1], [2, -1, 0], [0, 0, -3]], "3 different"),  # -1 +- 2 i, -3
        ([[-1, -2, 1, 0], [2, -1, 0, 1], [0, 0, -1, -2], [0, 0, 2, -1]], "2 different"),  # a complex pair in a Jordan block
        ([[-2, 1, 0], [1, -3, 1], [0, 1, -2]], "3 different"),
        ([[-2, 1, 0, 0], [-1, -2, 0, 0], [0, 0, -1, 1], [0, 0, 0, -1]], "complex eigenvalues a +- i r; all eigenvalues equal"),
    ],
)
def test_kernel_of_any_eigenvalues(F, form):
    """Against scipy's exponential, and the proof; from a start and a diffusion that the form does not know of."""
    F, n = sp.Matrix(F), len(F)
    state = sp.symbols(f"z1:{n + 1}", real=True)
    D = sp.diag(*range(1, n + 1)) / 3
    recipe = sk.Recipe.from_drift(state, list(F * sp.Matrix(state)), D, sum(s**2 for s in state), initial={state[1]: sp.Rational(1, 3)})
    kernel = recipe.kernel()
    if form is None:
        assert kernel is None
        assert "no closed form" in recipe.closed_form
        return
    assert form in kernel.form
    assert kernel.proof.verdict is Verdict.PROVED
    assert not kernel.mean.has(sp.I)
    at = np.array(kernel.mean.subs(kernel.clock, 0.7).evalf(20).tolist(), float)
    np.testing.assert_allclose(at, expm(0.7 * np.array(F.tolist(), float)), atol=1e-13)


def test_abbreviations_leave_the_recipes_own_names_alone():
    a, r = sp.symbols("a r", real=True)
    recipe = sk.Recipe((x, m), (x**2 + m**2) / 2, sp.diag(1, 2) * (1 + a**2), a * J, initial={m: r**2})
    kernel = recipe.kernel()
    assert not {a, r} & set(kernel.where)
    assert kernel.proof.verdict is Verdict.PROVED
    mean = np.array(kernel.mean.subs({a: 0.3, kernel.clock: 0.5}).evalf().tolist(), complex)
    np.testing.assert_allclose(mean, expm(-0.5 * np.array([[1.09, -0.3], [0.3, 2.18]])), rtol=1e-12)


def test_a_parameter_that_is_called_like_the_clock():
    B = sp.Symbol("B", nonnegative=True)
    assert "say time=B" in sk.Recipe((x,), x**2, [[1 + B]], [[0]]).closed_form
    assert sk.Recipe((x,), x**2, [[1 + B]], [[0]], time=B).kernel() is not None


def test_the_search_for_a_kernel_ends(monkeypatch):
    monkeypatch.setattr(Watch, "__init__", lambda self, seconds: vars(self).update(seconds=0.3, end=time.monotonic() + 0.3))
    recipe = psld()
    monkeypatch.setattr("sdekit.recipe.symbolic_kernel", lambda *_: time.sleep(5.0))
    start = time.monotonic()
    assert recipe.kernel() is None
    assert time.monotonic() - start < 2.0
    assert "not settled" in recipe.closed_form


def test_a_wrong_kernel_does_not_pass_its_proof():
    kernel = psld().kernel()
    for change in ({"short_cov": 2 * kernel.short_cov}, {"short_mean": kernel.short_mean.T}, {"start": sp.diag(0, 1)}):
        broken = object.__new__(type(kernel))
        broken.__dict__.update({k: v for k, v in vars(kernel).items() if k != "proof"} | change)
        assert broken.proof.verdict is Verdict.REFUTED


def test_process_has_the_recipes_numbers():
    process = psld(initial={m: M / 25}).process(Gamma=0.01, nu=4.01, M=0.25)
    assert np.allclose(process.F, [[-0.005, 2.0], [-0.5, -2.005]], rtol=1e-15, atol=0)
    assert np.allclose(process.G @ process.G.T, np.diag([0.01, 1.0025]), rtol=1e-15, atol=0)
    assert np.array_equal(process.S0, np.diag([0.0, 0.01]))
    assert process.blocks == ("x", "m")
    again = psld().process(Gamma=0.01, nu=4.01, M=0.25, initial={"m": 0.01})
    assert again == process
    assert again.kernel(0.1).sigma_eff == pytest.approx(0.4205733970240, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: sk.Recipe(state=(x, x), H=x**2, D=sp.eye(2), Q=sp.zeros(2)), "different sympy symbols"),
        (lambda: sk.Recipe(state="x", H=x**2, D=[[1]], Q=[[0]]), "different sympy symbols"),
        (lambda: sk.Recipe(state=(x,), H="x**2", D=[[1]], Q=[[0]]), "is text"),
        (lambda: sk.Recipe(state=(x,), H=x**2, D=[[1, 0]], Q=[[0]]), "1 x 1 matrix"),
        (lambda: sk.Recipe(state=(x,), H=x**2, D=[["1"]], Q=[[0]]), "is text"),
        (lambda: sk.Recipe(state=(x,), H=x**2, D=[[1]]), "give Q, or a drift"),
        (lambda: sk.Recipe.from_drift(state=(x,), drift=[-x, x], D=[[1]], H=x**2), "drift has 2"),
        (lambda: sk.Recipe(state=(x,), H=x**2, D=[[1]], Q=[[0]], initial={"y": 1}), "unknown block 'y'"),
        (lambda: psld().process(Gamma=0.01, nu=4.01), "'M'"),
        (lambda: psld().process(Gamma=0.01, nu=4.01, M=0.25, mass=1.0), "unknown parameter 'mass'"),
        (lambda: psld().process(Gamma=0.01, nu=4.01, M=-0.25), "must be positive"),
        (lambda: psld().process(Gamma=0.01, nu=4.01, M="heavy"), "must be a number"),
        (lambda: psld().process(Gamma=0.01, nu=float("nan"), M=0.25), "must be finite"),
    ],
)
def test_malformed_input_raises_at_construction(make, says):
    with pytest.raises(sk.BadInput) as caught:
        make()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reprs_are_latex():
    recipe = psld()
    assert r"\Gamma" in recipe._repr_latex_()
    assert r"\cosh" in recipe.kernel()._repr_latex_()


def test_numeric_evaluation_of_the_symbolic_covariance_is_stable_enough_to_be_checked_with_mpmath():
    """The symbolic form subtracts; the numeric kernel must match it at 60 digits, where the subtraction is harmless."""
    kernel = psld(initial={m: M / 25}).kernel(Gamma=0, M=sp.Rational(1, 4), nu=4)
    process = psld(initial={m: M / 25}).subs({Gamma: sp.Integer(0)}).process(nu=4.0, M=0.25)
    with mp.workdps(60):
        exact = mp.mpf(str(kernel.cov.det().subs(kernel.clock, sp.Float("8e-5", 60)).evalf(50)))
        assert abs(mp.mpf(float(process.kernel(1e-5).det)) / exact - 1) < 1e-11
    assert float(process.kernel(1e-5).det) == pytest.approx(6.838952622120e-15, rel=1e-12)


@pytest.mark.parametrize("value", [-1, sp.I, sp.Rational(-8, 1) ** sp.Rational(1, 3), sp.oo])
def test_initial_values_are_variances(value):
    with pytest.raises(sk.BadInput, match="must be a variance"):
        psld().process(Gamma=0.01, nu=4.01, M=0.25, initial={m: value})
