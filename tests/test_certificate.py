"""Certificates: every claim of recipes that are right, and of recipes that are wrong in one place."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import sdekit as sk
from sdekit.certificate import Verdict, certify

x, m, z = sp.symbols("x m z", real=True)
Gamma, nu, M = sp.symbols("Gamma nu M", nonnegative=True)
J = sp.Matrix([[0, -1], [1, 0]])
P, R, U, A = Verdict.PROVED, Verdict.REFUTED, Verdict.UNDECIDED, Verdict.ASSUMED


def verdicts(recipe):
    return {name: claim.verdict for name, claim in certify(recipe).claims()}


def test_the_contracts_example():
    recipe = sk.Recipe(
        state=(x, m), H=x**2 / 2 + m**2 / (2 * M), D=sp.diag(Gamma, M * nu) / 2, Q=J / 2, clock=sk.clocks.linear(8.0, 8.0)
    )  # fmt: skip
    certificate = certify(recipe)
    found = verdicts(recipe)
    assert {k: v for k, v in found.items() if k != "ergodic"} == dict.fromkeys(("skew", "psd", "stationary", "normalisable", "linear", "kernel"), P)
    assert found["ergodic"] is U  # Gamma = nu = 0 is allowed by the assumptions, and then nothing converges
    assert "nu" in certificate.ergodic.evidence
    assert any("M != 0" in text for text in certificate.normalisable.assumptions)
    certificate.require("linear")
    with pytest.raises(sk.Refuted, match="ergodic is UNDECIDED"):
        certificate.require("ergodic")
    with pytest.raises(sk.BadInput, match="did you mean 'stationary'"):
        certificate.require("stationry")


@pytest.mark.parametrize(
    ("D", "Q", "ergodic", "rank"),
    [
        (sp.diag(0, 1), J, P, "2 of 2"),  # CLD
        (sp.diag(1, 0), J, P, "2 of 2"),  # PSLD with nu = 0
        (sp.diag(0, 1), sp.zeros(2), R, "1 of 2"),  # x is frozen
        (sp.zeros(2), J, R, "0 of 2"),  # stationary, and never converges
    ],
)
def test_kalman_table(D, Q, ergodic, rank):
    certificate = certify(sk.Recipe(state=(x, m), H=(x**2 + m**2) / 2, D=D, Q=Q))
    assert certificate.stationary.verdict is P
    assert certificate.ergodic.verdict is ergodic
    assert rank in certificate.ergodic.evidence


def test_chain_that_is_cut_is_not_ergodic_and_the_witness_is_the_frozen_direction():
    for coupling, verdict in ((1, P), (0, R)):
        Q = sp.Matrix([[0, -coupling, 0], [coupling, 0, -2], [0, 2, 0]])
        certificate = certify(sk.Recipe(state=(x, m, z), H=(x**2 + m**2 + z**2) / 2, D=sp.diag(0, 0, 1), Q=Q))
        assert certificate.ergodic.verdict is verdict
        assert certificate.stationary.verdict is P
    vector = sp.Matrix(certificate.ergodic.witness)
    F = certificate.recipe.drift.jacobian([x, m, z])
    kalman = sp.Matrix.hstack(sp.diag(0, 0, 1), F * sp.diag(0, 0, 1), F * F * sp.diag(0, 0, 1))
    assert (vector.T * kalman).is_zero_matrix


def test_q_that_is_not_skew():
    certificate = certify(sk.Recipe(state=(x, m), H=(x**2 + m**2) / 2, D=sp.eye(2), Q=[[0, 1], [1, 0]]))
    assert certificate.skew.verdict is R
    (i, j), _ = certificate.skew.witness
    assert certificate.recipe.Q[i, j] + certificate.recipe.Q[j, i] != 0
    assert certificate.stationary.verdict is R
    assert certificate.false == ["skew", "stationary"]
    with pytest.raises(sk.Refuted, match="skew"):
        certificate.recipe.process()


@pytest.mark.parametrize(
    "D",
    [
        sp.Matrix([[1, 2], [2, 1]]),
        sp.Matrix([[0, 1], [1, 0]]),
        sp.Matrix([[1 + x**2, x * m * 2], [x * m * 2, 1 + m**2]]),
        sp.Matrix([[x**2, x * m], [x * m, m**2 - 1]]),
        sp.Matrix([[1, x], [x, 1]]),
        -sp.eye(2),
    ],
)
def test_indefinite_d_has_a_rational_witness(D):
    claim = certify(sk.Recipe(state=(x, m), H=(x**4 + m**4) / 4, D=D, Q=J)).psd
    assert claim.verdict is R
    point, vector = claim.witness
    v = sp.Matrix(vector)
    value = (v.T * D.subs(point) * v)[0]
    assert value.is_Rational
    assert value < 0


@pytest.mark.parametrize(
    "D", [sp.Matrix([[1 + x**2, x * m], [x * m, 1 + m**2]]), sp.Matrix([[x**2, x * m], [x * m, m**2]]), sp.zeros(2), sp.Matrix([[1, 1], [1, 1]])]
)
def test_semidefinite_d_is_proved_where_sympy_returns_none(D):
    assert certify(sk.Recipe(state=(x, m), H=(x**4 + m**4) / 4, D=D, Q=J)).psd.verdict is P


def test_d_that_is_not_symmetric():
    assert certify(sk.Recipe(state=(x, m), H=(x**2 + m**2) / 2, D=[[1, 1], [0, 1]], Q=J)).psd.verdict is R


@pytest.mark.parametrize(
    ("H", "verdict"),
    [
        (x**2 / 2 + m**2, P),
        (x**4 - 3 * x**2 + m**2, P),
        (x**4 + x**2 * m**2 + m**4, P),
        (x**2 + 4 * x * m + m**2, R),
        (x**2 - 2 * x * m + m**2, R),  # flat along (1, 1)
        (x**3 + m**2, R),
        (-(x**4) + m**2, R),
        (x**2, R),  # m is free
        (sp.Integer(0), R),
        (sp.cosh(x) + m**2, A),
        (x**4 - x**3 * m + m**4, P),  # by the real roots of its leading form
        (x**4 - 3 * x**3 * m + m**4, R),
    ],
)
def test_integrability(H, verdict):
    assert certify(sk.Recipe(state=(x, m), H=H, D=sp.eye(2), Q=J)).normalisable.verdict is verdict


def test_integrability_that_is_not_seen_is_assumed_and_said():
    H = x**4 - x**3 * m + m**4 + x**2 * z**2 + z**4 - x * m * z**2
    claim = certify(sk.Recipe(state=(x, m, z), H=H, D=sp.eye(3), Q=sp.zeros(3))).normalisable
    assert claim.verdict is A
    assert claim.assumptions == ("the integral over x, m, z is finite",)


def test_a_wrong_mass_shows_the_true_law():
    """The fact sheet's case 3; the divergence by its definition, from quadrature of the two densities."""
    drift = [4 * m / 2 - sp.Rational(1, 200) * x, -x / 2 - sp.Rational(401, 200) * m]
    D = sp.diag(sp.Rational(1, 200), sp.Rational(401, 200))
    claim = certify(sk.Recipe.from_drift((x, m), drift, D, x**2 / 2 + 2 * m**2)).stationary
    assert claim.verdict is R
    cov = np.array(claim.truth.cov.tolist(), float)
    np.testing.assert_allclose(cov[np.tril_indices(2)], [3.962834893624, 0.007407087234, 0.998152846076], rtol=1e-11)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    chol = np.linalg.cholesky(cov)
    a, b = np.meshgrid(nodes, nodes)
    grid = chol @ np.stack([a.ravel(), b.ravel()])
    w = np.outer(weights, weights).ravel() / (2 * np.pi)
    true = -0.5 * np.sum(np.linalg.solve(chol, grid) ** 2, 0) - np.log(np.linalg.det(chol)) - np.log(2 * np.pi)
    wrong = -0.5 * grid[0] ** 2 - 2 * grid[1] ** 2 + 0.5 * np.log(4.0) - np.log(2 * np.pi)
    assert float(claim.truth.kl) == pytest.approx(w @ (true - wrong), rel=1e-11)
    assert "the stationary covariance is" in claim.evidence


def test_no_true_law_is_shown_where_there_is_none():
    claim = certify(sk.Recipe.from_drift((x,), [x], sp.Matrix([[1]]), x**2 / 2)).stationary
    assert claim.verdict is R
    assert claim.truth is None


@pytest.mark.parametrize(
    ("recipe", "verdict", "says"),
    [
        (sk.Recipe((x, m), x**4 / 4 + m**2 / 2, sp.zeros(2), J), R, "no noise"),
        (sk.Recipe((x, m), x**4 / 4 + m**4 / 4, sp.diag(0, 1), sp.zeros(2)), R, "x never moves"),
        (sk.Recipe((x, m), x**4 / 4 + m**4 / 4, sp.diag(1, 1), J), A, "positive definite"),
        (sk.Recipe((x, m), sp.Function("U")(x) + m**2 / 2, sp.diag(0, 1), J), A, "bracket rank 2 of 2"),
        (sk.Recipe((x, m, z), x**4 / 4 + m**4 / 4 + z**2 / 2, sp.diag(0, 0, 1), sp.diag(J, 0)), U, "bracket rank 1 of 3"),
    ],
)
def test_ergodicity_of_nonlinear_recipes(recipe, verdict, says):
    claim = certify(recipe).ergodic
    assert claim.verdict is verdict
    assert says in claim.evidence
    assert bool(claim.assumptions) == (verdict is A)


def test_spectral_gap():
    """Of the whole catalogue's critical PSLD: (Gamma + nu)/4, shared by the Jordan block."""
    from sdekit.recipe import resolved

    assert "spectral gap 1.005" in certify(resolved(sk.catalogue.recipe("psld"), {})).ergodic.evidence
    assert "(2 eigenvalues share it)" in certify(resolved(sk.catalogue.recipe("psld"), {})).ergodic.evidence
    over = certify(sk.Recipe((x, m), (x**2 + m**2) / 2, sp.diag(0, 4), J)).ergodic.evidence
    gap = -max(np.linalg.eigvals(np.array([[0.0, 1.0], [-1.0, -4.0]])).real)
    assert f"spectral gap {gap:.6f}"[:20] in over


def test_a_constant_h_is_improper_but_not_false():
    certificate = certify(sk.catalogue.recipe("edm"))
    assert certificate.normalisable.verdict is R
    assert certificate.ergodic.verdict is R
    assert certificate.stationary.verdict is P
    assert certificate.false == []


def test_nonlinear_recipe_is_stationary_but_has_no_gaussian_kernel():
    certificate = certify(sk.Recipe(state=(x, m), H=x**4 / 4 + m**2 / 2, D=sp.diag(0, 1), Q=J))
    assert certificate.stationary.verdict is P
    assert certificate.linear.verdict is R
    assert certificate.kernel.verdict is R
    assert certificate.ergodic.verdict is A
    assert "bracket rank 2 of 2" in certificate.ergodic.evidence
    assert certificate.false == []
    with pytest.raises(sk.Refuted, match="linear"):
        certificate.recipe.process()


coefficients = st.integers(-3, 3)


@st.composite
def recipes(draw, n=3):
    """Random skew Q, random D = C C^T, random quadratic or quartic H: true by construction."""
    state = (x, m, z)[:n]
    C = sp.Matrix(n, n, [draw(coefficients) for _ in range(n * n)])
    K = sp.Matrix(n, n, [draw(coefficients) for _ in range(n * n)])
    B = sp.Matrix(n, n, [draw(coefficients) for _ in range(n * n)])
    v = sp.Matrix(state)
    H = sp.expand((v.T * (B * B.T + sp.eye(n)) * v)[0] / 2)
    if draw(st.booleans()):
        H += sum(draw(st.integers(1, 3)) * s**4 for s in state)
    return sk.Recipe(state=state, H=H, D=C * C.T, Q=K - K.T)


@settings(max_examples=25)
@given(recipe=recipes())
def test_what_is_true_by_construction_is_proved(recipe):
    found = verdicts(recipe)
    assert {found[name] for name in ("skew", "psd", "stationary", "normalisable")} == {P}


@settings(max_examples=25)
@given(recipe=recipes(n=2), where=st.integers(0, 1), mistake=st.sampled_from(["sign", "swap", "factor"]))
def test_one_mistake_in_an_explicit_drift_is_refuted(recipe, where, mistake):
    drift = list(recipe.drift)
    if mistake == "sign":
        drift[where] = drift[where] + x * m
    elif mistake == "factor":
        drift[where] = 2 * drift[where] + 1
    else:
        drift.reverse()
    claim = certify(sk.Recipe.from_drift(recipe.state, drift, recipe.D, recipe.H))
    residual = claim.recipe.residual
    if residual == 0:  # for example D = 0 and a swap that is a rotation
        assert claim.stationary.verdict is P
        return
    assert claim.stationary.verdict is R
    assert residual.subs(claim.stationary.witness) != 0


@settings(max_examples=15)
@given(a=st.lists(st.integers(1, 3), min_size=3, max_size=3), where=st.sampled_from(["correction", "index", "sign of Q"]))
def test_state_dependent_parts_need_their_correction(a, where):
    """D(z) and Q(z): without div(D + Q), with an index of it swapped, or with Q's sign wrong in one place, the claim is refuted."""
    D = sp.diag(a[0] + x**2, a[1] + m**2 * x**2)
    Q = (a[2] + x**2 * m) * J
    H = (x**2 + m**2) / 2 + x**4 / 4
    good = sk.Recipe((x, m), H, D, Q)
    assert certify(good).stationary.verdict is P
    gradient = sp.Matrix([sp.diff(H, v) for v in (x, m)])
    if where == "correction":
        wrong = -(D + Q) * gradient
    elif where == "index":  # d_i in the place of d_j
        wrong = -(D + Q) * gradient + sp.Matrix([sum(sp.diff((D + Q)[i, j], (x, m)[i]) for j in range(2)) for i in range(2)])
    else:
        wrong = good.drift + 2 * Q * gradient
    claim = certify(sk.Recipe.from_drift((x, m), list(wrong), D, H)).stationary
    assert claim.verdict is R
    assert sk.Recipe.from_drift((x, m), list(wrong), D, H).residual.subs(claim.witness) != 0


def test_certificates_print_and_show():
    certificate = certify(sk.catalogue.recipe("psld"))
    assert "PROVED" in str(certificate)
    assert "<table>" in certificate._repr_html_()
    data = certificate.as_dict()
    assert data["kernel"]["verdict"] == "PROVED"
    assert set(data["psd"]) == {"statement", "verdict", "evidence", "witness", "assumptions"}


def test_only_recipes_are_certified():
    with pytest.raises(sk.BadInput, match="Recipe"):
        certify(3)
