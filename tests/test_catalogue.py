"""The shipped processes: pinned certificates, kernels by the moment equations in many digits, and what each is known for."""

import mpmath as mp
import numpy as np
import pytest
import sympy as sp

import sdekit as sk
from sdekit.certificate import Verdict, certify

P, R, A = Verdict.PROVED, Verdict.REFUTED, Verdict.ASSUMED
IMPROPER = {"normalisable": R, "ergodic": R}
NONLINEAR = {"linear": R, "kernel": R, "ergodic": A}
PINNED = {
    "anisotropic": {}, "cld": {}, "cosine": {}, "edm": IMPROPER, "fourth_order": {}, "psld": {}, "riemannian": NONLINEAR, "sghmc": NONLINEAR,
    "sgnht": NONLINEAR, "third_order": {}, "ve": IMPROPER, "vp": {},
}  # fmt: skip
MOVING = ["flow", "subvp"]  # no fixed law: nothing to certify
LINEAR = [name for name, found in PINNED.items() if found is not NONLINEAR]


def test_all_are_pinned():
    assert sk.catalogue.names() == sorted([*PINNED, *MOVING])


@pytest.mark.parametrize("name", PINNED)
def test_certificate(name):
    certificate = certify(sk.catalogue.recipe(name))
    found = {key: claim.verdict for key, claim in certificate.claims()}
    assert found == dict.fromkeys(found, P) | PINNED[name]
    assert certificate.false == []
    assert sk.catalogue.recipe(name).paper


@pytest.mark.parametrize("name", LINEAR)
def test_kernel_by_exponential_in_many_digits(name):
    """exp of the block matrix [[F, N], [0, -F^T]] (Van Loan) with 60 digits, from small B to T."""
    process = getattr(sk.catalogue, name)()
    k = process.k
    with mp.workdps(60):
        F, N, S0 = (mp.matrix(m.tolist()) for m in (process.F, process.G @ process.G.T, process.S0))
        for t in np.array([1e-6, 1e-2, 0.3, 1.0]) * process.T:
            B = mp.mpf(float(process.clock.integral(t)))
            block = mp.zeros(2 * k)
            for i in range(k):
                for j in range(k):
                    block[i, j], block[i, k + j], block[k + i, k + j] = F[i, j] * B, N[i, j] * B, -F[j, i] * B
            E = mp.expm(block)
            mean = E[:k, :k]
            cov = E[:k, k:] * mean.T + mean * S0 * mean.T
            mine = process.kernel(t)
            exact = np.array([[float(cov[i, j]) for j in range(k)] for i in range(k)])
            scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
            assert np.max(np.abs(mine.psi - np.array([float(mean[i, 0]) for i in range(k)]))) < 1e-12
            assert np.max(np.abs(mine.cov - exact) / scale) < 2e-12


@pytest.mark.parametrize(("name", "rate", "n"), [("third_order", sp.sqrt(3), 3), ("fourth_order", sp.sqrt(5), 4)])
def test_chains_are_critically_damped(name, rate, n):
    recipe = sk.catalogue.recipe(name)
    F = recipe.drift.jacobian(recipe.state)
    x = sp.Symbol("x")
    assert sp.expand(F.charpoly(x).as_expr() - (x + rate) ** n) == 0
    assert "nilpotent" in certify(recipe).kernel.evidence


def test_cosine_is_the_papers_schedule():
    process = sk.catalogue.cosine()
    assert float(process.kernel(0.5).psi[0] ** 2) == pytest.approx(0.4938435904, abs=5e-11)


def test_moving_laws_have_their_kernels_and_no_certificate():
    t = np.array([1e-7, 1e-3, 0.3, 0.9])
    subvp, flow = sk.catalogue.subvp(), sk.catalogue.flow()
    B = subvp.clock.integral(t)
    np.testing.assert_allclose(subvp.kernel(t).cov[:, 0, 0], np.expm1(-B) ** 2, rtol=1e-12)
    np.testing.assert_allclose(subvp.kernel(t).psi[:, 0], np.exp(-B / 2), rtol=1e-12)
    assert float(subvp.kernel(0.3).cov[0, 0]) == pytest.approx(0.364413601892, abs=5e-13)
    np.testing.assert_allclose(flow.kernel(t).cov[:, 0, 0], t**2, rtol=1e-12)
    np.testing.assert_allclose(flow.kernel(t).psi[:, 0], 1.0 - t, rtol=1e-12)
    for name in MOVING:
        with pytest.raises(sk.BadInput, match="without a fixed H"):
            certify(sk.catalogue.recipe(name))


def test_flow_is_vp_in_another_clock_and_scale():
    """On Gaussian data deterministic exponential steps depend on the levels only: flow, VP and EDM give one law of the data block."""
    law = sk.law.Gaussian(0.3, 0.25)
    found = [
        sk.analysis.exact_law(process, method=sk.methods.exponential(2), grid=sk.grids.karras(12, 0.01, 50.0), data=law, start=law).w2
        for process in (sk.catalogue.flow(), sk.catalogue.vp(), sk.catalogue.edm(), sk.catalogue.subvp())
    ]
    np.testing.assert_allclose(found, found[0], rtol=1e-8)


def test_anisotropic_has_the_law_that_it_declares():
    process = sk.catalogue.anisotropic(c=0.7)
    np.testing.assert_allclose(process.stationary, [[1.0, 0.7], [0.7, 1.49]], atol=1e-14)
    np.testing.assert_allclose(process.kernel(1.0).cov, process.stationary, atol=2e-4)


@pytest.mark.parametrize("name", ["riemannian", "sghmc", "sgnht"])
def test_nonlinear_ones_become_no_process(name):
    with pytest.raises(sk.Refuted, match="linear is REFUTED"):
        getattr(sk.catalogue, name)()


def test_the_thermostat_needs_its_own_factor():
    """With 1/(2 d) in the place of d/2, in two dimensions, the residual is 3/4 (A - xi)(p.p - 2)."""
    x1, x2, p1, p2, xi = state = sp.symbols("x1 x2 p1 p2 xi", real=True)
    a = sp.Symbol("A", positive=True)
    U = sp.Function("U")(x1, x2)
    D = sp.diag(0, 0, a, a, 0)
    Q = sp.Matrix([[0, 0, -1, 0, 0], [0, 0, 0, -1, 0], [1, 0, 0, 0, p1 / 2], [0, 1, 0, 0, p2 / 2], [0, 0, -p1 / 2, -p2 / 2, 0]])

    def energy(factor):
        return U + (p1**2 + p2**2) / 2 + factor * (xi - a) ** 2

    good = sk.Recipe(state, energy(sp.Integer(1)), D, Q)  # d/2 = 1
    assert certify(good).stationary.verdict is P
    wrong = sk.Recipe.from_drift(state, list(good.drift), D, energy(sp.Rational(1, 4)))
    assert sp.expand(wrong.residual - sp.Rational(3, 4) * (a - xi) * (p1**2 + p2**2 - 2)) == 0
    assert certify(wrong).stationary.verdict is R
