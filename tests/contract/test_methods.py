"""Methods: formulas from the literature on VP, models of the state, identities."""

from itertools import pairwise

import numpy as np
import pytest
from by_hand import TIMES, VP, D, a, beta, eps, lam, s
from by_hand import fall as drift
from cases import EXPONENTIAL, GRID, LAW, METHODS, every, final, needs, random_state
from processes import cld, edm, psld, third_order, ve, vp

from sdekit import BadInput, Process, analysis, clocks, denoiser, grids, methods, plans, sample
from sdekit.law import Gaussian, Mixture
from sdekit.noise import METHOD, PRIOR, Address, Addressed
from sdekit.plans import Run
from sdekit.solve import assemble, program, solve
from sdekit.tableau import Step

# ---------------------------------------------------------------------------------------------------------------- formulas on VP


def phi(k, z):
    """phi_1 = (e^z - 1) / z and so on, by their series (|z| < 3 here)."""
    terms = np.cumprod(np.concatenate([[1.0 / np.prod(np.arange(1, k + 1))], z / np.arange(k + 1, k + 60)]))
    return float(np.sum(terms))


def derivatives(values, times):
    """f, f', f'' at the newest time from the history in lambda (newest first)."""
    u = [lam(t) for t in times]
    out = [values[0]]
    if len(values) > 1:
        f01 = (values[0] - values[1]) / (u[0] - u[1])
        out.append(f01)
    if len(values) > 2:
        f12 = (values[1] - values[2]) / (u[1] - u[2])
        f012 = (f01 - f12) / (u[0] - u[2])
        out = [values[0], f01 + (u[0] - u[1]) * f012, 2.0 * f012]
    return out


def by_hand(kind, order, noise, z, xi):
    """All steps on VP, from the equations as their papers print them."""
    history = []
    for i, (t, end) in enumerate(pairwise(TIMES)):
        h, step = lam(end) - lam(t), t - end
        if kind == "euler":
            z = z - step * drift(z, t, noise) + noise * np.sqrt(step * beta(t)) * xi[i]
        elif kind == "heun":
            guess = z - step * drift(z, t, noise) + noise * np.sqrt(step * beta(t)) * xi[i]
            spread = 0.5 * noise * np.sqrt(step) * (np.sqrt(beta(t)) + np.sqrt(beta(end)))
            z = z - 0.5 * step * (drift(z, t, noise) + drift(guess, end, noise)) + spread * xi[i]
        elif kind == "heun in sigma":
            y, low, high = z / a(t), s(end) / a(end), s(t) / a(t)
            d = (y - D(z, t)) / high
            guess = y + (low - high) * d
            z = a(end) * (y + 0.5 * (low - high) * (d + (guess - D(a(end) * guess, end)) / low))
        elif kind == "data":
            history = [D(z, t), *history][:order]
            f = derivatives(history, TIMES[i::-1][:order])
            H, c = (1.0 + noise**2) * h, 1.0 + noise**2
            z = s(end) / s(t) * np.exp(-(noise**2) * h) * z + a(end) * c * sum(h ** (k + 1) * phi(k + 1, -H) * f[k] for k in range(len(f)))
            z = z + s(end) * np.sqrt(-np.expm1(-2.0 * noise**2 * h)) * xi[i]
        else:
            history = [eps(z, t), *history][:order]
            f = derivatives(history, TIMES[i::-1][:order])
            c = 1.0 + noise**2
            z = a(end) / a(t) * z - c * s(end) * sum(h ** (k + 1) * phi(k + 1, h) * f[k] for k in range(len(f)))
            z = z + noise * s(end) * np.sqrt(np.expm1(2.0 * h)) * xi[i]
    return z


FORMULAS = {
    "Euler": (methods.euler(), "euler", 1),
    "Euler-Maruyama": (methods.euler_maruyama(), "euler", 1),
    "Euler, half the noise": (methods.euler(noise=0.5), "euler", 1),
    "Heun": (methods.heun(), "heun", 1),
    "stochastic Heun": (methods.heun(noise=1.0), "heun", 1),
    "EDM's Heun in sigma": (methods.exponential_rk(2), "heun in sigma", 1),
    "DDIM": (methods.ddim(), "data", 1),
    "DPM-Solver++(2M), Taylor": (methods.exponential(2), "data", 2),
    "DPM-Solver++(3M), corrected": (methods.exponential(3), "data", 3),
    "SDE-DPM-Solver++(1)": (methods.exponential(1, noise=1.0), "data", 1),
    "SDE-DPM-Solver++(2M), Taylor": (methods.exponential(2, noise=1.0), "data", 2),
    "SDE-DPM-Solver++(3M), corrected": (methods.exponential(3, noise=1.0), "data", 3),
    "DPM-Solver-1": (methods.exponential(1, of="eps"), "eps", 1),
    "log-rhoAB-2": (methods.exponential(2, of="eps"), "eps", 2),
    "log-rhoAB-3": (methods.exponential(3, of="eps"), "eps", 3),
    "SDE-DPM-Solver-1": (methods.exponential(1, of="eps", noise=1.0), "eps", 1),
    "SDE-DPM-Solver-2M": (methods.exponential(2, of="eps", noise=1.0), "eps", 2),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name):
    method, kind, order = FORMULAS[name]
    z = np.random.default_rng(2).normal(size=(6, 2))
    ids = np.arange(6)
    xi = Addressed(5).draw([Address(METHOD, 0, i, 0) for i in range(len(TIMES) - 1)], ids, (2,))
    made, _ = solve(program(VP, plans.run(grids.times(TIMES), method)), [z], LAW.denoiser(), Addressed(5))
    expected = by_hand(kind, order, method.noise, z, xi)
    np.testing.assert_allclose(made[0], expected, atol=1e-10 * np.max(np.abs(expected)))


def test_ddpm_posterior_step():
    """mean sqrt(abar_s) b / (1 - abar_t) x0 + sqrt(alpha) (1 - abar_s) / (1 - abar_t) x_t, variance (1 - abar_s) / (1 - abar_t) b."""
    t, end = 0.6, 0.45
    z = np.random.default_rng(2).normal(size=(6, 2))
    xi = Addressed(0).draw([Address(METHOD, 0, 0, 0)], np.arange(6), (2,))[0]
    made, _ = solve(assemble(VP, [Run(methods.exponential(1, noise=1.0), (t, end))]), [z], LAW.denoiser())
    high, low = a(t) ** 2, a(end) ** 2
    alpha, b = high / low, 1.0 - high / low
    mean = np.sqrt(low) * b / (1 - high) * D(z, t) + np.sqrt(alpha) * (1 - low) / (1 - high) * z
    np.testing.assert_allclose(made[0], mean + np.sqrt((1 - low) / (1 - high) * b) * xi, atol=1e-12)


def test_edm_algorithm_1():
    """Heun on dx/dsigma = (x - D) / sigma with Euler into sigma = 0, on Karras' levels; native on EDM, and through sigma_eff on VP and VE."""
    grid = grids.karras(7, 0.02, 40.0)
    sigma = edm().sigma_eff(grid.times(edm()))
    x = start = 40.0 * np.random.default_rng(3).normal(size=(5, 2))
    for high, low in pairwise(sigma):
        d = (x - LAW.denoiser()(x, float(high))) / high
        guess = x + (low - high) * d
        x = guess if low == 0.0 else x + 0.5 * (low - high) * (d + (guess - LAW.denoiser()(guess, float(low))) / low)
    native, _ = solve(program(edm(), plans.run(grid, methods.heun())), [start], LAW.denoiser())
    np.testing.assert_allclose(native[0], x, atol=1e-12)
    for make in (edm, vp, ve):
        process = make()
        prog = program(process, plans.run(grid, methods.exponential_rk(2)))
        made, _ = solve(prog, [float(process.kernel(prog.times[0]).psi[0]) * start], LAW.denoiser())
        np.testing.assert_allclose(made[0], x, atol=1e-10)


def test_psld_euler_maruyama():
    """x += h b/2 (Gamma x - m / M + 2 Gamma s_x) + sqrt(Gamma b h) xi, m += h b/2 (x + nu m + 2 M nu s_m) + sqrt(M nu b h) xi; ODE: 2 is 1."""
    process, Gamma, nu, M, b = psld(0.02), 0.02, 4.02, 0.25, 8.0
    times = np.array([1.0, 0.9, 0.83])
    z = np.random.default_rng(4).normal(size=(2, 5, 2))
    xi = Addressed(0).draw([Address(METHOD, 0, i, j) for i in range(2) for j in range(2)], np.arange(5), (2,)).reshape(2, 2, 5, 2)
    for method, factor in ((methods.euler_maruyama(), 2.0), (methods.euler(), 1.0)):
        x, m = z
        for i, (t, end) in enumerate(pairwise(times)):
            h = t - end
            sx, sm = denoiser.score(process, LAW.denoiser(), np.stack([x, m]), t)
            noisy = factor - 1.0
            x, m = (
                x + h * b / 2 * (Gamma * x - m / M + factor * Gamma * sx) + noisy * np.sqrt(Gamma * b * h) * xi[i, 0],
                m + h * b / 2 * (x + nu * m + factor * M * nu * sm) + noisy * np.sqrt(M * nu * b * h) * xi[i, 1],
            )
        made, _ = solve(program(process, plans.run(grids.times(times), method)), list(z), LAW.denoiser())
        np.testing.assert_allclose(np.stack(made), np.stack([x, m]), atol=1e-11)


def test_published_ddim():
    """DDIM on the linear table of 1000 betas, mixture .3 N(-1, .25^2) + .7 N(.8, .4^2), from x_T = -2 .. 2, in y = x / sqrt(abar)."""
    abar = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))
    law = Mixture([0.3, 0.7], [-1.0, 0.8], [0.0625, 0.16])
    leading, trailing = np.arange(10)[::-1] * 100, np.round(np.arange(1000, 0, -50)).astype(int) - 1
    for labels, expected in (
        (leading, [-1.179523, -0.890434, 0.573407, 0.986102, 1.304246]),
        (trailing, [-1.253162, -0.939828, 0.576991, 1.037520, 1.408700]),
    ):
        A = abar[labels]
        process = Process([[0.0]], [[1.0]], clock=clocks.linear(0.0, 400.0, 200.0))
        grid = grids.sigmas([*np.sqrt((1.0 - A) / A), 0.0])
        x = np.linspace(-2.0, 2.0, 5)
        made, _ = solve(program(process, plans.run(grid, methods.ddim())), [x / np.sqrt(A[0])], law.denoiser())
        np.testing.assert_allclose(made[0], expected, atol=1.5e-6)


@pytest.mark.parametrize("method", [methods.heun(), methods.exponential_rk(2)], ids=str)
def test_embedded_result_is_the_first_order_step(method):
    """Heun embeds Euler, the exponential Runge-Kutta method embeds DDIM of the eps kind."""
    first = methods.euler() if method.name == "heun" else methods.exponential(1, of="eps")
    for process in (vp(), psld()):
        leg = process_leg(process)
        pair, low = method.rows(Step(leg, 1)), first.rows(Step(leg, 1))
        k = process.k
        np.testing.assert_allclose(pair.embedded[:, : k + 1], low.out, atol=1e-9)
        assert np.all(pair.embedded[:, k + 1] == 0.0)


def process_leg(process):
    from sdekit import Reverse

    return Reverse(process).leg([0.8, 0.6, 0.3])


def test_a_method_written_by_a_user():
    """The example of the module's documentation is Euler's method."""

    def rows(step):
        answer = step.ask(step.z, step.here)
        return step.rows(step.z - step.h * step.here.drift(step.z, answer.score))

    mine, _ = final(psld(), plans.run(GRID, methods.Method("mine", rows)))
    ref, _ = final(psld(), plans.run(GRID, methods.euler()))
    np.testing.assert_array_equal(mine, ref)


# ---------------------------------------------------------------------------------------------------------------- models of the state


@pytest.mark.parametrize("make", [vp, psld, third_order], ids=lambda m: m.__name__)
@every
def test_state_score_is_the_denoiser_it_is_equal_to(method, make):
    process = make()
    needs(method, process)
    score = denoiser.StateScore(lambda z, t: denoiser.score(process, LAW.denoiser(), z, t), (2,))
    for plan in (plans.run(grids.logsnr(5, 0.1, 3.0), method), plans.run(grids.logsnr(4, 0.1, 3.0, zero=True), method)):
        ref = sample(process, LAW.denoiser(), plan=plan, n=5)
        made = sample(process, score, plan=plan, n=5)
        np.testing.assert_allclose(made.state, ref.state, atol=1e-8 * np.max(np.abs(ref.state)))
        assert made.nfe.tolist() == ref.nfe.tolist()


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_native_score_is_used_as_it_is(noise):
    """Score methods take the k blocks of a network of the state, not only their part along psi: here a score that no denoiser has."""
    process = psld(0.05)

    def network(z, t):
        return np.stack([-z[0] + 0.3 * z[1], 2.0 * z[0] - 3.0 * z[1] + 0.1])

    t, end = 0.8, 0.7
    z = np.random.default_rng(6).normal(size=(2, 4, 2))
    run = sample(process, denoiser.StateScore(network), method=methods.euler(noise=noise), grid=grids.times([t, end]), start=(z, t))
    xi = Addressed(0).draw([Address(METHOD, 0, 0, j) for j in range(2)], np.arange(4), (2,))
    c, G = 0.5 * (1.0 + noise**2), process.noise(t)
    expected = z - (t - end) * np.einsum("ij,jnd->ind", process.drift(t), z)
    expected = (
        expected + (t - end) * c * np.einsum("ij,jnd->ind", G @ G.T, network(z, t)) + noise * np.sqrt(t - end) * np.einsum("ij,jnd->ind", G, xi)
    )
    np.testing.assert_allclose(run.state, expected, atol=1e-11)


# ---------------------------------------------------------------------------------------------------------------- identities


@pytest.mark.parametrize("start", [None, Gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.3]])], ids=["prior", "law"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("make", [cld, psld, third_order], ids=lambda m: m.__name__)
def test_the_sde_in_data_is_the_same_for_every_process(make, order, start):
    """With noise 1 everything that the data see is y: the x-law of k blocks is EDM's on the same levels."""
    data = Gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.3]])
    model = Gaussian([0.1, 0.0], [[0.4, 0.1], [0.1, 0.3]])
    grid = grids.sigmas([20.0, 6.0, 2.0, 1.0, 0.5, 0.3, 0.1, 0.0])
    options = {"method": methods.exponential(order, noise=1.0), "grid": grid, "data": data, "model": model, "start": start}
    ours, theirs = analysis.exact_law(make(), **options), analysis.exact_law(edm(), **options)
    np.testing.assert_allclose(ours.cov, theirs.cov, atol=1e-10)
    np.testing.assert_allclose(ours.mean, theirs.mean, atol=1e-10)


@pytest.mark.parametrize("make", [vp, ve], ids=lambda m: m.__name__)
@pytest.mark.parametrize("method", EXPONENTIAL, ids=str)
def test_one_block_is_a_change_of_scale(make, method):
    """In y = x / psi and sigma every one-block process is EDM, step by step, for all exponential methods; same normals."""
    process = make()
    grid = grids.sigmas([10.0, 3.0, 1.0, 0.6, 0.3])
    y = np.random.default_rng(7).normal(size=(5, 2)) * 3.0
    ends = []
    for one in (process, edm()):
        prog = program(one, plans.run(grid, method))
        made, _ = solve(prog, [float(one.kernel(prog.times[0]).psi[0]) * y], LAW.denoiser())
        ends.append(made[0] / float(one.kernel(prog.times[-1]).psi[0]))
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-9 * np.max(np.abs(ends[1])))


def test_ddim_is_euler_in_sigma():
    grid = grids.karras(8)
    for method in (methods.ddim(), methods.exponential(1), methods.exponential(1, of="eps")):
        np.testing.assert_allclose(final(edm(), plans.run(grid, method))[0], final(edm(), plans.run(grid, methods.euler()))[0], atol=1e-11)
    np.testing.assert_allclose(
        final(psld(), plans.run(GRID, methods.exponential(1)))[0], final(psld(), plans.run(GRID, methods.exponential(1, of="eps")))[0], atol=1e-9
    )


@pytest.mark.parametrize("make", [vp, edm], ids=lambda m: m.__name__)
def test_ancestral_is_the_posterior_in_law(make):
    """DDPM: a DDIM step to sigma_down and fresh noise up; also k-diffusion's ancestral Euler, and DDIM with eta = 1."""
    data, model = Gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.3]]), Gaussian([0.1, 0.0], [[0.4, 0.1], [0.1, 0.3]])
    for grid in (grids.karras(9), grids.logsnr(7, 0.1, 20.0)):
        posterior = analysis.exact_law(make(), method=methods.exponential(1, noise=1.0), grid=grid, data=data, model=model)
        made = analysis.exact_law(make(), plan=plans.ancestral(plans.run(grid, methods.ddim())), data=data, model=model)
        np.testing.assert_allclose(made.cov, posterior.cov, atol=1e-11)
        np.testing.assert_allclose(made.mean, posterior.mean, atol=1e-11)
    half = analysis.exact_law(make(), plan=plans.ancestral(plans.run(grid, methods.ddim()), 0.5), data=data)
    assert abs(half.cov - posterior.cov).max() > 1e-4


def test_ddim_with_eta_in_its_own_form():
    """x_s = a_s D + sqrt(s_s^2 - v^2) eps + v xi, v = eta sqrt(s_s^2 / s_t^2 (1 - a_t^2 / a_s^2)): the variance of Song, Meng and Ermon, in law."""
    t, end, eta = 0.6, 0.45, 0.7
    data = Gaussian(0.0, 0.25)
    made = analysis.exact_law(VP, plan=plans.ancestral(plans.run(grids.times([t, end]), methods.ddim()), eta), data=data)
    v = eta * np.sqrt(s(end) ** 2 / s(t) ** 2 * (1.0 - a(t) ** 2 / a(end) ** 2))
    shrink = 0.25 / (0.25 + (s(t) / a(t)) ** 2) / a(t)
    gain = a(end) * shrink + np.sqrt(s(end) ** 2 - v**2) * (1.0 - a(t) * shrink) / s(t)
    assert float(made.cov) == pytest.approx(gain**2 * s(t) ** 2 + v**2, rel=1e-11)


def test_steps_to_the_data():
    """The last step of every method puts D in the data block; auxiliary blocks get their law given x_0 = D (noise) or its mean (ODE)."""
    process = psld()
    t = 0.05
    z = random_state(process, t)
    y = np.tensordot(process.kernel(t).observe, z, axes=1)
    data = LAW.denoiser()(y, float(process.sigma_eff(t)))
    gain, chol = process.end(t)
    mean = gain[1, 0] * (z[0] - process.kernel(t).psi[0] * data) + gain[1, 1] * (z[1] - process.kernel(t).psi[1] * data)
    xi = Addressed(0).draw([Address(METHOD)], np.arange(4), (2,))[0]
    for method in METHODS:
        made, _ = solve(assemble(process, [Run(method, (t, 0.0))]), list(z), LAW.denoiser())
        np.testing.assert_allclose(made[0], data, atol=1e-13)
        np.testing.assert_allclose(made[1], mean + (chol[1, 1] * xi if method.noise else 0.0), atol=1e-12)


def test_prior_and_steps_use_their_own_streams():
    run = sample(vp(), lambda y, sigma: np.zeros_like(y), method=methods.euler_maruyama(), grid=grids.times([1.0, 0.9]), n=3, shape=(2,), save="all")
    xi = Addressed(0).draw([Address(PRIOR), Address(METHOD)], np.arange(3), (2,))
    np.testing.assert_allclose(run.saved.x[0], s(1.0) * xi[0], rtol=1e-13)
    z = run.saved.x[0]
    np.testing.assert_allclose(run.x, z - 0.1 * (-0.5 * beta(1.0) * z + beta(1.0) * z / s(1.0) ** 2) + np.sqrt(0.1 * beta(1.0)) * xi[1], rtol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: methods.exponential(0),
        lambda: methods.exponential(5),
        lambda: methods.exponential(1.5),
        lambda: methods.exponential(2, of="score"),
        lambda: methods.exponential_rk(3),
        lambda: methods.exponential_rk(0),
        lambda: program(VP, plans.run(GRID, methods.euler(noise=-1.0))),
        lambda: program(VP, plans.run(GRID, methods.exponential(1, noise=float("nan")))),
        lambda: assemble(VP, [Run(methods.euler(), (0.9, 0.5)), Run(methods.euler(), (0.4, 0.2))]),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
