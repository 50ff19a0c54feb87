"""Processes whose drift and noise vary in their own clock: closed forms, an adaptive integrator, and the whole engine on them."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import sdekit as sk
from sdekit import BadInput, Process, analysis, clocks, grids, methods

LINEAR = clocks.linear(0.1, 20.0)


def subvp():
    """f = -x/2 and g^2 = 1 - e^{-2B} in the unit clock: mean e^{-B/2}, variance (1 - e^{-B})^2."""
    return Process([[-0.5]], lambda B: [[np.sqrt(-np.expm1(-2.0 * B))]], clock=LINEAR, name="subvp")


def F(s):
    return np.array([[-0.1 - 0.2 * np.sin(s), 1.5 + s], [-1.0 - 0.5 * s, -1.2 + 0.3 * np.cos(3.0 * s)]])


def G(s):
    return np.array([[0.1 + 0.05 * s], [1.0 + 0.2 * np.sin(2.0 * s)]])


def turning():
    """F(s) and F(r) do not commute, so that exp of the integral is wrong."""
    return Process(F, G, S0=np.diag([0.0, 0.04]), T=4.0, name="turning")


def test_sub_vp_has_its_closed_form():
    process = subvp()
    t = np.array([1e-8, 1e-5, 1e-3, 0.1, 0.3, 1.0])
    B = LINEAR.integral(t)
    made = process.kernel(t)
    np.testing.assert_allclose(made.psi[:, 0], np.exp(-B / 2), rtol=1e-12)
    np.testing.assert_allclose(made.cov[:, 0, 0], np.expm1(-B) ** 2, rtol=1e-12)
    assert float(process.kernel(0.3).cov[0, 0]) == pytest.approx(0.364413601892, abs=5e-13)
    np.testing.assert_allclose(process.sigma_eff(t), -np.expm1(-B) * np.exp(B / 2), rtol=1e-12)
    np.testing.assert_allclose(process.time_of(process.sigma_eff(t)), t, rtol=1e-11)


def test_flow_matching_has_its_closed_form():
    """x_t = (1 - t) x_0 + t n: f = -x/(1 - t), g^2 = 2 t/(1 - t), up to T < 1."""
    process = Process(lambda t: [[-1.0 / (1.0 - t)]], lambda t: [[np.sqrt(2.0 * t / (1.0 - t))]], T=0.99)
    t = np.array([1e-6, 1e-3, 0.5, 0.99])
    made = process.kernel(t)
    np.testing.assert_allclose(made.psi[:, 0], 1.0 - t, rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(made.cov[:, 0, 0]), t, rtol=1e-12)
    np.testing.assert_allclose(process.sigma_eff(t), t / (1.0 - t), rtol=1e-12)


def test_a_drift_that_does_not_commute_against_an_adaptive_integrator():
    process, times = turning(), np.array([0.01, 0.3, 1.7, 4.0])

    def slope(s, y):
        E, S, f, g = y[:4].reshape(2, 2), y[4:].reshape(2, 2), F(s), G(s)
        return np.concatenate([(f @ E).ravel(), (f @ S + S @ f.T + g @ g.T).ravel()])

    start = np.concatenate([np.eye(2).ravel(), np.diag([0.0, 0.04]).ravel()])
    found = solve_ivp(slope, (0.0, 4.0), start, rtol=1e-13, atol=1e-16, t_eval=times, method="DOP853").y
    made = process.kernel(times)
    for i in range(4):
        cov = found[4:, i].reshape(2, 2)
        scale = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
        assert np.max(np.abs(made.psi[i] - found[[0, 2], i])) < 1e-12
        assert np.max(np.abs(made.cov[i] - cov) / scale) < 1e-12


def test_transitions_compose():
    process = turning()
    for s, m, t in ((0.0, 1e-9, 3.0), (1e-7, 0.2, 4.0), (0.7, 0.7000001, 2.9), (1.0, 1.0, 2.0)):
        whole, parts = process.transition(s, t), process.transition(s, m).then(process.transition(m, t))
        np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-12)
        np.testing.assert_allclose(parts.cov, whole.cov, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(process.kernel(s).then(whole).cov, process.kernel(t).cov, rtol=1e-11, atol=1e-14)
    many = process.transition(np.array([0.0, 0.3, 2.0]), 3.0)
    for i, s in enumerate((0.0, 0.3, 2.0)):
        np.testing.assert_allclose(many.cov[i], process.transition(s, 3.0).cov, rtol=1e-13)


def test_functions_that_are_constant_are_the_constant_process():
    fixed = sk.catalogue.psld()
    moving = Process(lambda s: fixed.F, lambda s: fixed.G, fixed.S0, clock=fixed.clock)
    t = np.array([1e-6, 1e-2, 0.3, 1.0])
    scale = np.sqrt(np.einsum("nii->ni", fixed.kernel(t).cov))
    gap = (moving.kernel(t).cov - fixed.kernel(t).cov) / (scale[:, :, None] * scale[:, None, :])
    assert np.max(np.abs(gap)) < 1e-12
    law = sk.law.Gaussian(0.0, 0.25)
    for method in (methods.exponential(2), methods.heun(noise=1.0), methods.exponential_rk()):
        ways = [analysis.exact_law(p, method=method, grid=grids.karras(12), data=law).w2 for p in (fixed, moving)]
        assert ways[0] == pytest.approx(ways[1], rel=1e-9)


@pytest.mark.parametrize("make", [subvp, turning], ids=lambda m: m.__name__)
@pytest.mark.parametrize("method", [methods.heun(), methods.exponential(2), methods.exponential(2, noise=1.0), methods.euler_maruyama()], ids=str)
def test_methods_keep_their_orders(make, method):
    steps = (20, 40, 80, 160) if make is subvp else (80, 160, 320, 640)
    report = analysis.order(method, make(), steps=steps, grid=grids.uniform(1, end=0.4))
    assert report.verdict == "confirmed", report


def test_what_needs_constants_says_so():
    process = subvp()
    for read in (lambda: process.F, lambda: process.G, lambda: process.stationary):
        with pytest.raises(BadInput, match="varies"):
            read()
    assert "varying" in repr(process)
    assert process != subvp()  # another function: no one can say that they are equal


@pytest.mark.parametrize(
    ("F", "G", "says"),
    [
        (lambda s: [[np.nan]], [[1.0]], "finite"),
        (lambda s: [[-1.0, 0.0]], [[1.0]], "rows and columns"),
        (lambda s: [[-1.0]], [[1.0], [1.0]], "2 rows|1 rows"),
        (lambda s: [[-float(s > 0.3)]], [[1.0]], "not smooth"),
    ],
)
def test_bad_input(F, G, says):
    with pytest.raises(BadInput, match=says):
        Process(F, G, T=1.0)
