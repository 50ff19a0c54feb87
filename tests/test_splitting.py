"""SSCS and splitting integrators: their equations written out by hand, published numbers, identities."""

from itertools import pairwise

import numpy as np
import pytest
from phase_space import LAW, TIMES, agree, by, error, named, run, score, state_cov, times, true_cov
from processes import cld, edm, psld, random_stable, third_order, ve, vp
from scipy.linalg import expm, solve_continuous_lyapunov

from sdekit import BadInput, Reverse, analysis, catalogue, grids, methods, plans, sample
from sdekit.law import Gaussian
from sdekit.solve import program
from sdekit.tableau import Step

SSCS = [methods.sscs(), methods.sscs(order=2), methods.sscs(order=2, multistep=True)]
ODE = [methods.splitting(scheme) for scheme in ("nse", "rse", "nvv", "rvv")]
SDE = [methods.splitting(scheme) for scheme in ("oba", "reduced_oba")]
CONJUGATE = [methods.conjugate(0.5, "I"), methods.conjugate(0.5, "II")]


# ---------------------------------------------------------------------------------------------------------------- SSCS by hand


def langevin_half(h, b, Gamma, nu, M):
    """Half a step of the stationary reversal of PSLD: mean and covariance in (x, m) from the closed form in (x, delta m)."""
    delta = 0.5 * (nu - Gamma)
    B = b * h / 2
    u, a = delta * B / 2, (Gamma + nu) * B / 4
    mean = np.exp(-a) * np.array([[1 + u, -u], [u, 1 - u]])
    xx = 1 - np.exp(-2 * a) * ((1 + u) ** 2 + u**2)
    xm = -2 * u**2 * np.exp(-2 * a)
    mm = 1 - np.exp(-2 * a) * (u**2 + (1 - u) ** 2)
    scale = np.diag([1.0, delta])
    return np.linalg.inv(scale) @ mean @ scale, np.array([[xx, xm / delta], [xm / delta, mm / delta**2]])


@by(SSCS[:2])
@pytest.mark.parametrize("Gamma", [0.0, 0.02])
def test_sscs_on_langevin_dynamics_term_by_term(method, Gamma):
    """x += h b Gamma (s_x + x), m += h b M nu (s_m + m / M) between two half steps, each with its own two normals."""
    nu, M, b = Gamma + 4.0, 0.25, 8.0
    process = psld(Gamma)
    made, (x, m), xi = run(method, process, slots=4)
    for i, (t, s) in enumerate(pairwise(TIMES)):
        h = t - s
        mean, cov = langevin_half(h, b, Gamma, nu, M)
        l11 = np.sqrt(cov[0, 0])
        l21 = cov[0, 1] / l11
        l22 = np.sqrt(np.linalg.det(cov) / cov[0, 0])

        def half(x, m, first, second, mean=mean, L=(l11, l21, l22)):
            return mean[0, 0] * x + mean[0, 1] * m + L[0] * first, mean[1, 0] * x + mean[1, 1] * m + L[1] * first + L[2] * second

        def pull(x, m, t, h=h):
            sx, sm = score(process, [x, m], t)
            return h * b * Gamma * (sx + x), h * b * M * nu * (sm + m / M)

        x, m = half(x, m, xi[i, 0], xi[i, 1])
        dx, dm = pull(x, m, t)
        if method.asks == 2:
            dx, dm = pull(x + 0.5 * dx, m + 0.5 * dm, 0.5 * (t + s))
        x, m = half(x + dx, m + dm, xi[i, 2], xi[i, 3])
    agree(made, np.stack([x, m]))


def reversal(process):
    """-(D - Q) Sigma^-1 and Sigma, with D and Q from F = -(D + Q) Sigma^-1."""
    D = 0.5 * process.G @ process.G.T
    Sigma = solve_continuous_lyapunov(process.F, -2.0 * D)
    Q = -process.F @ Sigma - D
    np.testing.assert_allclose(Q, -Q.T, atol=1e-12)
    return -(D - Q) @ np.linalg.inv(Sigma), Sigma, D


def four_blocks():
    return random_stable(3, 4)


@named(vp, psld, third_order, four_blocks)
@by(SSCS)
def test_sscs_on_every_process(method, make):
    """A(B/2) S(B) A(B/2) with dense exponentials, B the stretch of the clock; multistep: E (z + B g + B^2 / (2 B_-) (g - E_- g_-)) + L xi."""
    process = make()
    k = process.k
    back, Sigma, D = reversal(process)
    long = method.history == 1
    made, z, xi = run(method, process, slots=k if long else 2 * k)
    before = None
    for i, (t, s) in enumerate(pairwise(TIMES)):
        B = float(process.clock.integral(t) - process.clock.integral(s))
        E = expm(back * (B if long else B / 2))
        L = np.linalg.cholesky(Sigma - E @ Sigma @ E.T)

        def pull(z, t):
            return times(2.0 * D, score(process, z, t) + times(np.linalg.inv(Sigma), z))

        if long:
            g = pull(z, t)
            new = z + B * g
            if before:
                new = new + B * B / (2.0 * before[0]) * (g - before[1])
            z, before = times(E, new) + times(L, xi[i]), (B, times(E, g))
            continue
        z = times(E, z) + times(L, xi[i, :k])
        change = B * pull(z, t)
        if method.asks == 2:
            change = B * pull(z + 0.5 * change, 0.5 * (t + s))
        z = times(E, z + change) + times(L, xi[i, k:])
    agree(made, z)


@named(vp, lambda: psld(0.3, start=1.0), lambda: third_order(start=1.0))
@by(SSCS)
def test_sscs_is_exact_at_stationarity(method, make):
    """Where every marginal is the stationary law, S vanishes and A is exact: one step or four."""
    for n in (1, 2, 3, 4):
        made = analysis.exact_law(make(), method=method, grid=grids.uniform(n, end=0.05), data=Gaussian(0.0, 1.0), start=Gaussian(0.0, 1.0))
        np.testing.assert_allclose(made.state_cov, make().stationary, atol=1e-12)


@by([*SSCS, *SDE, *CONJUGATE])
def test_a_process_that_does_not_fit_is_refused_by_name(method):
    refusing = [ve(), edm(), catalogue.subvp()] if method in SSCS else [catalogue.subvp(), catalogue.flow()]
    for process in refusing:
        with pytest.raises(BadInput) as caught:
            program(process, plans.run(grids.logsnr(4, 0.1, 3.0), method))
        assert method.name in str(caught.value)
        assert process.name in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------- published numbers


def sscs_recursion(grid_times):
    """Covariance of the official form on PSLD, N(0, .25), from p_T, as 2 x 2 matrices."""
    nu, M = 4.01, 0.25
    rate = 8.0 * np.diag([0.01, M * nu])
    C = true_cov(psld(), grid_times[0])
    for t, s in pairwise(grid_times):
        mean, cov = langevin_half(t - s, 8.0, 0.01, nu, M)
        S = np.eye(2) + (t - s) * rate @ (np.diag([1.0, 1.0 / M]) - np.linalg.inv(true_cov(psld(), t)))
        C = S @ (mean @ C @ mean.T + cov) @ S.T
        C = mean @ C @ mean.T + cov
    return C


@by(SSCS[:1])
@pytest.mark.parametrize("grid", [grids.uniform(100), grids.quadratic(100)], ids=["uniform", "quadratic"])
def test_published_moments(method, grid):
    """The case of ``test_published_langevin_moments`` for SSCS, by the recursion of its covariance."""
    np.testing.assert_allclose(state_cov(method, grid), sscs_recursion(grid.times(psld())), rtol=1e-9, atol=1e-13)


def test_published_gain_over_euler_maruyama():
    """100 steps of the quadratic grid: std_x is wrong by .0043 and .0074."""
    for method, expected in ((methods.sscs(), 0.0043), (methods.euler_maruyama(), 0.0074)):
        assert abs(np.sqrt(state_cov(method, grids.quadratic(100))[0, 0]) - np.sqrt(0.250047277842)) == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(
    ("method", "expected", "within"),
    [(SSCS[0], 1.173e-2, 6e-6), (SSCS[1], 3.550e-4, 6e-8), (ODE[0], 4.26e-2, 6e-5), (ODE[1], 5.42e-2, 6e-5), (ODE[2], 1.08e-2, 6e-5),
     (ODE[3], 2.52e-3, 6e-6)],
    ids=str,
)  # fmt: skip
def test_published_errors(method, expected, within):
    """Relative error of the covariance at t = .05 after 400 uniform steps."""
    assert error(state_cov(method, grids.uniform(400, end=0.05)), 0.05) == pytest.approx(expected, abs=within)


@pytest.mark.parametrize(("method", "order"), [(SSCS[0], 1.0), (SSCS[1], 2.0)], ids=str)
def test_published_orders(method, order):
    errors = [error(state_cov(method, grids.uniform(n, end=0.05)), 0.05) for n in (400, 1600)]
    assert np.log(errors[0] / errors[1]) / np.log(4.0) == pytest.approx(order, abs=0.05)


# ---------------------------------------------------------------------------------------------------------------- splitting by hand


def parts_of_langevin(method, Gamma):
    """The parts of PSLD as functions of (x, m, h, score): 4.5 of the fact sheet, b = 8, M^-1 = 4."""
    b, nu, M = 8.0, Gamma + 4.0, 0.25

    def A(x, m, h, s):
        if method in SDE:
            return x + h * b / 2 * (2 * Gamma * x - m / M + 2 * Gamma * s[0]), m
        return x + h * b / 2 * (Gamma * x - m / M + Gamma * s[0]), m

    def B(x, m, h, s):
        if method in SDE:
            return x, m + h * b / 2 * (x + 2 * nu * m + 2 * M * nu * s[1])
        return x, m + h * b / 2 * (x + nu * m + M * nu * s[1])

    def O(x, m, h, xi):  # noqa: E743
        x = np.exp(-h * b * Gamma / 2) * x + np.sqrt(-np.expm1(-h * b * Gamma)) * xi[0]
        return x, np.exp(-h * b * nu / 2) * m + np.sqrt(-M * np.expm1(-h * b * nu)) * xi[1]

    return A, B, O


def parts_of_third_order(method):
    """z = (x, p, s), rate 4: x' = p, p' = -x + g s, s' = -g p - xi s + sqrt(2 xi) dW; A moves x, B moves p and s."""
    b, g, f = 4.0, 2.0 * np.sqrt(2.0), 3.0 * np.sqrt(3.0)
    c = 2.0 if method in SDE else 1.0

    def A(x, p, s, h, score_):
        return x - h * b * p, p, s

    def B(x, p, s, h, score_):
        return x, p + h * b * (x - g * s), s + h * b * (g * p + c * f * s + c * f * score_[2])

    def O(x, p, s, h, xi):  # noqa: E743
        return x, p, np.exp(-h * b * f) * s + np.sqrt(-np.expm1(-2.0 * h * b * f)) * xi[0]

    return A, B, O


def by_hand(method, process, parts, z, xi):
    A, B, O = parts  # noqa: E741
    scheme = dict(method.params)["scheme"]
    for i, (t, s) in enumerate(pairwise(TIMES)):
        h = t - s
        if method in SDE:
            z = O(*z, h, xi[i])
            first = score(process, z, t)
            z = B(*z, h, first)
            z = A(*z, h, first if scheme == "reduced_oba" else score(process, z, t))
            continue
        first = score(process, z, t)
        if scheme in {"nse", "rse"}:
            z = A(*z, h, first)
            z = B(*z, h, first if scheme == "rse" else score(process, z, t))
        else:
            z = B(*z, h / 2, first)
            z = A(*z, h, first if scheme == "rvv" else score(process, z, t))
            z = B(*z, h / 2, score(process, z, s if scheme == "rvv" else t))
    return np.stack(z)


@by([*ODE, *SDE])
@pytest.mark.parametrize("Gamma", [0.0, 0.02])
def test_splitting_on_langevin_dynamics(method, Gamma):
    process = psld(Gamma)
    slots = (2 if Gamma else 1) if method in SDE else 0  # no normals where there is no noise
    made, z, xi = run(method, process, slots=slots)
    if slots == 1:
        xi = np.concatenate([np.zeros_like(xi), xi], axis=1)
    agree(made, by_hand(method, process, parts_of_langevin(method, Gamma), z, xi))


@by([*ODE, *SDE])
def test_splitting_on_three_blocks(method):
    made, z, xi = run(method, third_order(), slots=1 if method in SDE else 0)
    agree(made, by_hand(method, third_order(), parts_of_third_order(method), z, xi))


@by(ODE)
@named(vp, edm, catalogue.subvp)
def test_one_block_is_euler_with_one_call(method, make):
    """B has no blocks: nothing to move, nothing to ask."""
    plan = plans.run(grids.logsnr(5, 0.1, 3.0), method)
    made = sample(make(), LAW.denoiser(), plan=plan, n=4)
    euler = sample(make(), LAW.denoiser(), plan=plans.run(grids.logsnr(5, 0.1, 3.0), methods.euler()), n=4)
    np.testing.assert_allclose(made.state, euler.state, atol=1e-12)
    assert made.nfe.tolist() == [5] * 4


@by(SDE)
def test_one_block_with_noise(method):
    """VP: the exact half x' = -x / 2 with all of the noise, then x' = x + s by Euler."""
    made, z, xi = run(method, vp(), slots=1)
    z = z[0]
    for i, (t, s) in enumerate(pairwise(TIMES)):
        B = 0.1 * (t - s) + 9.95 * (t * t - s * s)
        z = np.exp(-B / 2) * z + np.sqrt(-np.expm1(-B)) * xi[i, 0]
        z = z + (t - s) * (0.1 + 19.9 * t) * (z + score(vp(), [z], t)[0])
    agree(made[0], z)


def rates(method, process, t=0.5, h=1e-6):
    """(out - 1) / h by register: the state, the sum of all answers, and the covariance of the noise."""
    noise = method.noise
    rows = method.rows(Step(Reverse(process, noise).leg([t, t - h]), 0))
    k, n = process.k, rows.noises
    normals = rows.out[:, k : k + n]
    return (rows.out[:, :k] - np.eye(k)) / h, rows.out[:, k + n :].sum(axis=1) / h, normals @ normals.T / h


@named(vp, cld, psld, third_order, four_blocks)
@by([*SSCS, *ODE, *SDE, *CONJUGATE])
def test_all_parts_together_are_the_reverse_equation(method, make):
    """A step that shrinks becomes Euler's, in the drift of the state, in that of the data and in the noise."""
    for made, expected in zip(rates(method, make()), rates(methods.euler(noise=method.noise), make()), strict=True):
        np.testing.assert_allclose(made, expected, atol=2e-3 * np.max(np.abs(expected)) + 1e-12)


def test_the_law_by_simulation():
    """Mean and covariance of 20000 samples of SSCS within 4 standard errors of the exact law, N(.3, .25), from the prior."""
    n, grid, data = 20_000, grids.quadratic(20), Gaussian(0.3, 0.25)
    z = sample(psld(), data.denoiser(), method=methods.sscs(), grid=grid, n=n, seed=1).state
    exact = analysis.exact_law(psld(), method=methods.sscs(), grid=grid, data=data)
    cov = exact.state_cov
    assert np.all(np.abs(z.mean(axis=1) - exact.state_mean) < 4.0 * np.sqrt(np.diag(cov) / n))
    spread = np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / n)
    assert np.all(np.abs(np.cov(z) - cov) < 4.0 * spread)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: methods.sscs(order=3), "1 or 2"),
        (lambda: methods.sscs(order=0), "order"),
        (lambda: methods.sscs(multistep=True), "multistep"),
        (lambda: methods.splitting("obab"), "oba"),
        (lambda: methods.conjugate(0.5, "III"), "II"),
        (lambda: methods.conjugate(float("nan")), "lam"),
    ],
)
def test_bad_input(make, says):
    with pytest.raises(BadInput, match=says):
        make()
