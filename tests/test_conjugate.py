"""Conjugate integrators and the rotation-free root: their equations written out by hand, published numbers, exact flows of a point mass."""

from itertools import pairwise

import numpy as np
import pytest
from phase_space import LAW, TIMES, agree, by, error, named, run, score, state_cov, times
from processes import cld, dense_kernel, edm, psld, third_order, ve, vp
from scipy.integrate import quad_vec, solve_ivp
from scipy.linalg import expm

from sdekit import Reverse, grids, methods, sample
from sdekit.noise import METHOD, Address, Addressed
from sdekit.plans import Run
from sdekit.solve import assemble, solve
from sdekit.tableau import Step

CONJUGATE = [methods.conjugate(0.5, "I"), methods.conjugate(0.5, "II")]


@pytest.mark.parametrize(
    ("n", "none", "first", "second"),
    [(20, 8.3658719, 4.1310250, 1.9188174), (50, 0.32331909, 0.14518914, 0.11468897), (100, 0.090816414, 0.087696678, 0.10415899)],
)
def test_published_conjugate_errors(n, none, first, second):
    for method, expected in zip((methods.conjugate(0.0), *CONJUGATE), (none, first, second), strict=True):
        assert error(state_cov(method, grids.quadratic(n)), 1e-3) == pytest.approx(expected, rel=1e-7)


# ---------------------------------------------------------------------------------------------------------------- conjugate by hand


@named(vp, psld, third_order)
@by([methods.conjugate(0.0), methods.conjugate(0.7, "I"), methods.conjugate(0.7, "II"), methods.conjugate(-0.4, "II")])
def test_conjugate_steps(method, make):
    """zh = exp((J - F) B) z, an Euler step there, Phi by 24 Gauss points and dense exponentials, all from B = 0 on."""
    process = make()
    k, lam, form = process.k, *dict(method.params).values()
    clock = process.clock
    J = lam / float(clock.integral(process.T)) * (np.eye(k) if form == "I" else np.ones((k, k)))
    x, w = np.polynomial.legendre.leggauss(24)

    def A(t):
        return expm((J - process.F) * float(clock.integral(t)))

    def slope(r):
        G = process.noise(r)
        return 0.5 * A(r) @ G @ G.T @ np.linalg.inv(np.linalg.cholesky(dense_kernel(process, r)[1])).T

    made, z, _ = run(method, process)
    for t, s in pairwise(TIMES):
        h = float(clock.integral(t) - clock.integral(s))
        eps = -times(np.linalg.cholesky(dense_kernel(process, t)[1]).T, score(process, z, t))
        dPhi = sum(0.5 * (t - s) * wi * slope(0.5 * (s + t) + 0.5 * (t - s) * xi) for wi, xi in zip(w, x, strict=True))
        there = times(A(t), z)
        there = there - h * times(A(t) @ J @ np.linalg.inv(A(t)), there) - times(dPhi, eps)
        z = times(np.linalg.inv(A(s)), there)
    agree(made, z)


@named(vp, edm, ve)
def test_conjugate_with_nothing_is_ddim_for_one_block(make):
    grid = grids.logsnr(5, 0.1, 3.0)
    made = sample(make(), LAW.denoiser(), method=methods.conjugate(0.0, "II"), grid=grid, n=4)
    np.testing.assert_allclose(made.state, sample(make(), LAW.denoiser(), method=methods.ddim(), grid=grid, n=4).state, atol=1e-11)


def test_forms_are_the_same_for_one_block_and_differ_for_two():
    for process, same in ((vp(), True), (psld(), False)):
        first, second = (run(method, process)[0] for method in CONJUGATE)
        assert np.allclose(first, second, atol=1e-12) == same


def test_one_long_step_of_a_conjugate_integrator():
    """From T to T / 1000 in one step, the integral over all of it by adaptive quadrature in log time."""
    process, s = psld(), 1e-3
    rows = methods.conjugate(0.5, "II").rows(Step(Reverse(process).leg([1.0, s]), 0))
    J = 0.5 / 8.0 * np.ones((2, 2))

    def slope(u):
        r = np.exp(u)
        L = np.linalg.cholesky(dense_kernel(process, r)[1])
        return 4.0 * r * expm(8.0 * (r - s) * (J - process.F)) @ process.G @ process.G.T @ np.linalg.inv(L).T

    pull = quad_vec(slope, np.log(s), 0.0, epsrel=1e-10)[0]
    psi, S = dense_kernel(process, 1.0)
    np.testing.assert_allclose(rows.out[:, 2], pull @ np.linalg.inv(np.linalg.cholesky(S)) @ psi, rtol=1e-9)  # eps = L^-1 (z - psi D)


# ---------------------------------------------------------------------------------------------------------------- the rotation-free root


# eps: its backward mean loses digits over longer steps
@pytest.mark.parametrize(("method", "t"), [(methods.exponential(1), 1.0), (methods.exponential(1, of="eps"), 0.1)], ids=str)
@named(cld, psld, third_order)
def test_one_step_is_the_whole_flow_of_a_point_mass(method, t, make):
    """Any z, in one step to 1e-3 (three blocks: 1e-2): against DOP853 in log time, whitened by the kernel at the end; then at another point."""
    process, s = make(), 1e-2 if make is third_order else 1e-3
    z = np.random.default_rng(0).normal(size=(process.k, 5))

    def slope(u, v):
        r = np.exp(u)
        G = process.noise(r)
        rate = process.drift(r) + 0.5 * G @ G.T @ np.linalg.inv(process.kernel(r).cov)
        return r * (rate @ v.reshape(process.k, -1)).ravel()

    start, end = process.kernel(t), process.kernel(s)
    flow = solve_ivp(slope, np.log([t, s]), z.ravel(), method="DOP853", rtol=1e-12, atol=1e-18).y[:, -1].reshape(z.shape)
    for x0 in (0.0, 0.7):
        begin = list(z + start.psi[:, None] * x0)
        made, _ = solve(assemble(process, [Run(method, (t, s))]), begin, lambda y, sigma, x0=x0: np.full_like(y, x0))
        gap = np.stack(made) - flow - end.psi[:, None] * x0
        np.testing.assert_allclose(gap, 0.0, atol=1e-10)
        np.testing.assert_allclose(np.linalg.solve(end.chol, gap), 0.0, atol=1e-10 if method.name == "exponential(1)" else 1e-8)


def test_cholesky_noise_turns():
    """By more than 200 degrees from T to T / 1000 on PSLD: what lambda = 0 gives up; one step is then wrong by orders of magnitude."""
    process = psld()
    turns = np.stack(Reverse(process).leg(np.geomspace(1.0, 1e-3, 400)).turns)
    angle = np.unwrap(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))
    assert np.degrees(np.ptp(angle)) > 200.0
    z = np.random.default_rng(0).normal(size=(2, 5))
    ends = [
        np.stack(solve(assemble(process, [Run(method, (1.0, 1e-3))]), list(z), lambda y, sigma: np.zeros_like(y))[0])
        for method in (methods.conjugate(0.0), methods.exponential(1, of="eps"))
    ]
    scale = np.sqrt(np.diag(process.kernel(1e-3).cov))[:, None]
    assert np.max(np.abs(ends[1] / scale)) < 10.0
    assert np.max(np.abs(ends[0] / scale)) > 1e4


@named(vp, psld, third_order)
def test_the_stochastic_twin_is_the_posterior(make):
    """z_s ~ N(psi_s x0 + K (z_t - psi_t x0), S_s - K S_t K^T), K = S_s Psi^T S_t^-1, by dense formulas."""
    process, x0, t, s = make(), 0.7, 0.8, 0.2
    z = np.random.default_rng(0).normal(size=(process.k, 5, 1))
    made, _ = solve(assemble(process, [Run(methods.exponential(1, noise=1.0), (t, s))]), list(z), lambda y, sigma: np.full_like(y, x0))
    xi = Addressed(0).draw([Address(METHOD, 0, 0, j) for j in range(process.k)], np.arange(5), (1,))
    (psi_s, S_s), (psi_t, S_t) = dense_kernel(process, s), dense_kernel(process, t)
    K = S_s @ expm(process.F * float(process.clock.integral(t) - process.clock.integral(s))).T @ np.linalg.inv(S_t)
    C = S_s - K @ S_t @ K.T
    expected = psi_s[:, None, None] * x0 + times(K, z - psi_t[:, None, None] * x0) + times(np.linalg.cholesky(C), xi)
    np.testing.assert_allclose(np.stack(made), expected, atol=1e-10)
