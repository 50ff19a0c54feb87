"""Single-step methods with noise: published formulas written out by hand, one path for all stages, weak orders, exact laws as tabled."""

from itertools import pairwise

import numpy as np
import pytest
from by_hand import LAW, TIMES, VP, a, at, beta, eps, fall, lam, low, normals, run, s, slope
from processes import edm, psld, third_order, vp

from sdekit import analysis, grids, methods, plans
from sdekit.law import Gaussian
from sdekit.plans import Run
from sdekit.solve import assemble, program

DATA = Gaussian(0.3, 0.25)


def seeds(order, z, t, end, xi):
    h = lam(end) - lam(t)
    e = eps(z, t)
    if order == 2:
        m = at(lam(t) + 0.5 * h)
        u = a(m) / a(t) * z - 2.0 * s(m) * np.expm1(0.5 * h) * e + s(m) * np.sqrt(np.expm1(h)) * xi[0]
        noise = np.sqrt(np.exp(2.0 * h) - np.exp(h)) * xi[0] + np.sqrt(np.expm1(h)) * xi[1]
        return a(end) / a(t) * z - 2.0 * s(end) * np.expm1(h) * eps(u, m) + s(end) * noise
    m, n, r1, r2 = at(lam(t) + h / 3.0), at(lam(t) + 2.0 * h / 3.0), 1.0 / 3.0, 2.0 / 3.0
    u = a(m) / a(t) * z - 2.0 * s(m) * np.expm1(r1 * h) * e + s(m) * np.sqrt(np.expm1(r2 * h)) * xi[0]
    noise = np.sqrt(np.exp(4.0 * h / 3.0) - np.exp(r2 * h)) * xi[0] + np.sqrt(np.expm1(r2 * h)) * xi[1]
    change = eps(u, m) - e
    u = a(n) / a(t) * z - 2.0 * s(n) * (np.expm1(r2 * h) * e + r2 / r1 * (np.expm1(r2 * h) / (r2 * h) - 1.0) * change) + s(n) * noise
    noise = (
        np.sqrt(np.exp(2.0 * h) - np.exp(4.0 * h / 3.0)) * xi[0] + np.sqrt(np.exp(4.0 * h / 3.0) - np.exp(r2 * h)) * xi[1]
        + np.sqrt(np.expm1(r2 * h)) * xi[2]
    )  # fmt: skip
    return a(end) / a(t) * z - 2.0 * s(end) * (np.expm1(h) * e + 1.0 / r2 * (np.expm1(h) / h - 1.0) * (eps(u, n) - e)) + s(end) * noise


def dpmpp_sde(z, t, end, xi, r):
    """k-diffusion: ancestral steps to sigma(r) and to the end, both from the start; one Brownian path in sigma."""
    x, high, low = z / a(t), s(t) / a(t), s(end) / a(end)
    part = high ** (1.0 - r) * low**r
    denoise = LAW.denoiser()
    data = denoise(x, high)

    def ancestral(down_to, answer, noise):
        up = np.sqrt(down_to**2 * (high**2 - down_to**2) / high**2)
        down = np.sqrt(down_to**2 - up**2)
        return down / high * x - np.expm1(np.log(down / high)) * answer + up * noise

    path = np.sqrt(high - part) * xi[0], np.sqrt(part - low) * xi[1]
    guess = ancestral(part, data, path[0] / np.sqrt(high - part))
    mixed = (1.0 - 0.5 / r) * data + 0.5 / r * denoise(guess, part)
    return a(end) * ancestral(low, mixed, (path[0] + path[1]) / np.sqrt(high - low))


def sra(name, z, t, end, xi):
    """Roessler's schemes as printed, for time tau = t - time running up."""
    h = t - end
    dW, area = np.sqrt(h) * xi[0], 0.5 * h**1.5 * (xi[0] + xi[1] / np.sqrt(3.0))

    def f(tau, y):
        return -fall(y, t - tau, 1.0)

    def g(tau):
        return np.sqrt(beta(t - tau))

    one = f(0.0, z)
    if name == 3:
        two = f(h, z + h * one)
        three = f(0.5 * h, z + 0.25 * h * (one + two) + (g(h) + 0.5 * g(0.0)) * area / h)
        return z + h * (one + two + 4.0 * three) / 6.0 + g(h) * dW + (g(0.0) - g(h)) * area / h
    where = h if name == 1 else h / 3.0
    two = f(0.75 * h, z + 0.75 * h * one + 1.5 * g(where) * area / h)
    mean = z + h * (one + 2.0 * two) / 3.0
    if name == 1:
        return mean + g(h) * dW + (g(0.0) - g(h)) * area / h
    return mean + g(h) * dW + 1.5 * (g(h / 3.0) - g(h)) * area / h


def sosra(name, z, t, end, xi):
    """Rackauckas and Nie's schemes as printed, for time tau = t - time running up."""
    h = t - end
    dW, area = np.sqrt(h) * xi[0], 0.5 * np.sqrt(h) * (xi[0] + xi[1] / np.sqrt(3.0))
    if name == 1:
        c, at_, a21, a31, a32 = 0.6923962376159507, 0.041248171110700504, 0.6923962376159507, -3.1609142252828395, 4.1609142252828395
        b21, b31, b32 = 1.3371632704399763, 1.442371048468624, 1.8632741501139225
        alpha = 0.2889874966892885, 0.6859880440839937, 0.025024459226717772
        beta1, beta2 = (-16.792534242221663, 17.514995785380226, 0.27753845684143835), (0.4237535769069274, 0.6010381474428539, -1.0247917243497813)
    else:
        c, at_, a21, a31, a32 = 1.0, 1.0, 1.0, 0.9511849235504364, 0.04881507644956362
        b21, b31, b32 = 0.7686101171003622, 0.43886792994934987, 0.7490415909204886
        alpha = 0.5, -0.9683897375354181, 1.4683897375354185
        beta1, beta2 = (0.0, 0.92438032145683, 0.07561967854316998), (1.0, -0.8169981105823436, -0.18300188941765633)
    g = [np.sqrt(beta(t - part * h)) for part in (0.0, at_, 1.0)]
    one = -fall(z, t, 1.0)
    two = -fall(z + h * a21 * one + b21 * g[0] * area, t - c * h, 1.0)
    three = -fall(z + h * (a31 * one + a32 * two) + (b31 * g[0] + b32 * g[1]) * area, end, 1.0)
    noise = sum((v * dW + w * area) * size for v, w, size in zip(beta1, beta2, g, strict=True))
    return z + h * (alpha[0] * one + alpha[1] * two + alpha[2] * three) + noise


NOISY = {
    "SEEDS-2": (methods.seeds(2), 2, lambda *x: seeds(2, *x)),
    "SEEDS-3": (methods.seeds(3), 3, lambda *x: seeds(3, *x)),
    "dpmpp_sde": (methods.dpmpp_sde(), 2, lambda *x: dpmpp_sde(*x, 0.5)),
    "dpmpp_sde, r = .3": (methods.dpmpp_sde(0.3), 2, lambda *x: dpmpp_sde(*x, 0.3)),
    **{f"SRA{name}": (methods.sra(name), 2, lambda *x, name=name: sra(name, *x)) for name in (1, 2, 3)},
    **{f"SOSRA{name}": (methods.sosra(name), 2, lambda *x, name=name: sosra(name, *x)) for name in (1, 2)},
}


@pytest.mark.parametrize("name", NOISY)
def test_formula_with_noise(name):
    method, slots, by_hand = NOISY[name]
    (z,), made = run(method)
    for (t, end), xi in zip(pairwise(TIMES), normals(len(TIMES) - 1, slots), strict=True):
        z = by_hand(z, t, end, xi)
    np.testing.assert_allclose(made[0], z, atol=1e-10 * np.max(np.abs(z)))
    assert program(VP, plans.run(grids.times(TIMES), method)).items[0].move.noises == slots


@pytest.mark.parametrize("make", [psld, third_order], ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    "method", [methods.dpmpp_sde(), methods.dpm_solver(2, of="data", noise=1.0), methods.dpm_solver(3, "data", noise=0.5)], ids=str
)
def test_noise_of_a_step_is_exact(method, make):
    """A point mass under noise, in data: the law of every block is that of the exact reverse equation."""
    point, grid = Gaussian(0.7, 0.0), grids.sigmas([3.0, 1.5, 0.4, 0.2])
    ours = analysis.exact_law(make(), method=method, grid=grid, data=point)
    theirs = analysis.exact_law(make(), method=methods.exponential(1, noise=method.noise), grid=grid, data=point)
    np.testing.assert_allclose(ours.state_cov, theirs.state_cov, atol=1e-10)
    np.testing.assert_allclose(ours.state_mean, theirs.state_mean, atol=1e-10)


@pytest.mark.parametrize("make", [psld, third_order], ids=lambda m: m.__name__)
@pytest.mark.parametrize("order", [2, 3])
def test_stages_are_on_one_path(order, make):
    """What the normals add to stages and result, beside the answers: the covariance of one path of dn = F n dt + G dW, run down."""
    process, k = make(), make().k
    parts = [0.5] if order == 2 else [1.0 / 3.0, 2.0 / 3.0]
    times = process.time_of(0.5 ** np.array([0.0, *parts, 1.0]))
    rows = assemble(process, [Run(methods.seeds(order), (times[0], times[-1]))], state_model=True).items[0].move
    noise = slice(k, k + rows.noises)
    states = [ask.argument[:, noise] for ask in rows.asks[1:]] + [rows.out[:, noise]]
    for i, left in enumerate(states, 1):
        way = process.transition(times[i], times[0])
        down = np.linalg.inv(way.mean)
        for j, right in enumerate(states[i - 1 :], i):
            later = np.linalg.inv(process.transition(times[j], times[i]).mean) if j > i else np.eye(k)
            expected = down @ way.cov @ down.T @ later.T
            np.testing.assert_allclose(left @ right.T, expected, atol=1e-9 * np.max(np.abs(expected)))


@pytest.mark.parametrize("make", [vp, psld, third_order], ids=lambda m: m.__name__)
def test_embedded_result_of_the_ancestral_pair(make):
    """The posterior step, in law: its normals come in two parts."""
    grid = grids.sigmas([3.0, 1.5, 0.4, 0.2])
    ours, theirs = (analysis.exact_law(make(), method=m, grid=grid, data=DATA) for m in (low(methods.dpmpp_sde()), methods.exponential(1, noise=1.0)))
    np.testing.assert_allclose(ours.state_cov, theirs.state_cov, atol=1e-10)


@pytest.mark.parametrize("method", [methods.sra(2), methods.sra(1, 0.5), methods.seeds(1), methods.dpm_solver(2, of="data", noise=1.0)], ids=str)
def test_weak_orders_of_other_options(method):
    for make in (vp, psld):
        assert slope(method, make(), (80, 160)) == pytest.approx(method.orders.weak, abs=0.15)


# ---------------------------------------------------------------------------------------------------------------- laws, as tabled


def std_errors(make_plan, counts=(20, 40, 80, 160)):
    """VE, N(.3, .5^2), start N(.3, .25 + 25), uniform lambda from 5 to .1: error of the standard deviation at the end."""
    errors = []
    for n in counts:
        law = analysis.exact_law(edm(), plan=make_plan(grids.logsnr(n, 0.1, 5.0)), data=DATA, start=DATA)
        assert float(law.mean) == pytest.approx(0.3, abs=1e-10)
        errors.append(float(np.sqrt(law.cov)) - np.sqrt(0.26))
    return np.array(errors)


def ancestral_by_hand(kind, n):
    """k-diffusion's loops for eta = 1 on an affine denoiser: gain of x and variance."""
    levels = np.exp(np.linspace(np.log(5.0), np.log(0.1), n + 1))
    variance = 25.25
    for high, end in pairwise(levels):
        up = min(end, np.sqrt(end**2 * (high**2 - end**2) / high**2))
        down = np.sqrt(end**2 - up**2)
        half = np.exp(0.5 * (np.log(high) + np.log(down)))

        def gap(sigma):  # (x - D) / x
            return sigma**2 / (0.25 + sigma**2)

        if kind == "dpm_2":
            guess = 1.0 + gap(high) / high * (half - high)
            gain = 1.0 + gap(half) / half * guess * (down - high)
        else:
            guess = half / high - np.expm1(np.log(half / high)) * (1.0 - gap(high))
            gain = down / high - np.expm1(np.log(down / high)) * (1.0 - gap(half)) * guess
        variance = gain**2 * variance + up**2
    return np.sqrt(variance) - np.sqrt(0.26)


@pytest.mark.parametrize(("kind", "method"), [("dpm_2", methods.dpm_2()), ("2s", methods.dpm_solver_pp_2s())])
def test_ancestral_plans_are_the_published_samplers(kind, method):
    """DPM2-ancestral and 2S-ancestral: a step of the method to sigma_down and fresh noise up; order 2 in law, 1 as a transition of the SDE."""
    errors = std_errors(lambda grid: plans.ancestral(plans.run(grid, method)))
    np.testing.assert_allclose(errors, [ancestral_by_hand(kind, n) for n in (20, 40, 80, 160)], atol=1e-11)
    assert np.log2(errors[-2] / errors[-1]) == pytest.approx(2.0, abs=0.1)
    gaps = []
    for n in (80, 160):
        plan = plans.ancestral(plans.run(grids.logsnr(n, 0.1, 5.0), method))
        gaps.append(analysis.exact_law(edm(), plan=plan, data=DATA).map.matrix[0, 0, 0] - 0.26 / 25.25)
    assert np.log2(gaps[0] / gaps[1]) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("method", [methods.dpmpp_sde(), methods.seeds(2), methods.seeds(3), methods.sra(1), methods.sra(2), methods.sra(3)], ids=str)
def test_laws_have_weak_order_two(method):
    errors = std_errors(lambda grid: plans.run(grid, method), (320, 640))  # that of SEEDS-2 changes its sign at 70
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.15), errors
