"""Exact laws: published numbers."""

from itertools import pairwise

import numpy as np
import pytest
from processes import edm, psld

from sdekit import analysis, grids, methods, plans
from sdekit.law import Gaussian

HEUN = methods.heun()
EDM = edm()
QUARTER = Gaussian(0.0, 0.25)


def variance(**options):
    return float(analysis.exact_law(EDM, data=QUARTER, **options).cov)


def test_published_heun_variances():
    """EDM Heun from x_T = 80 N(0, 1) on N(0, .25)."""
    found = {n: variance(method=HEUN, grid=grids.karras(n)) for n in (18, 36, 72)}
    assert found[18] == pytest.approx(0.278388, abs=6e-7)
    assert found[36] == pytest.approx(0.256134, abs=6e-7)
    limit = 0.249990  # of the exact ODE from this prior
    assert (found[18] - limit) / (found[36] - limit) > 4.0
    assert (found[36] - limit) / (found[72] - limit) > 3.5
    assert variance(method=HEUN, grid=grids.karras(2000)) == pytest.approx(limit, abs=5e-6)


@pytest.mark.parametrize(
    ("K", "end", "bottom"),
    [(0, 0.278388, 0.282387), (1, 0.273313, 0.277239), (2, 0.269498, 0.273369), (5, 0.262853, 0.266629), (10, 0.259124, 0.262846),
     (20, 0.258014, 0.261720)],
)  # fmt: skip
def test_published_restart_variances(K, end, bottom):
    interval = [(3, K, 0.06, 0.30)]
    assert variance(plan=plans.restart(grids.karras(18), interval, method=HEUN, snap="nearest")) == pytest.approx(end, abs=6e-7)
    levels = EDM.sigma_eff(grids.karras(18).times(EDM))
    short = plans.restart(grids.sigmas(levels[:15]), interval, method=HEUN, snap="nearest")
    assert variance(plan=short) == pytest.approx(bottom, abs=6e-7)


def heun_factor(levels, v=0.25):
    """Product of the Heun step factors on N(0, v) in sigma."""
    out = 1.0
    for high, low in pairwise(levels):
        g, h = (lambda s: s / (v + s * s)), low - high
        out *= 1.0 + 0.5 * h * (g(high) + (1.0 + h * g(high)) * g(low))
    return out


def restart_cycle(points=3, low=None, high=0.30):
    low = float(EDM.sigma_eff(grids.karras(18).times(EDM)[14])) if low is None else low
    levels = np.linspace(high ** (1 / 7), low ** (1 / 7), points) ** 7
    return low, heun_factor(levels), high**2 - low**2


def test_published_contraction():
    low, a_h, _ = restart_cycle()
    assert low == pytest.approx(0.0599473, abs=6e-8)
    assert a_h == pytest.approx(0.867033, abs=6e-7)
    assert np.sqrt((0.25 + low**2) / (0.25 + 0.09)) == pytest.approx(0.863634, abs=6e-7)


@pytest.mark.parametrize(("K", "shift"), [(2, 0.75175), (5, 0.48998), (10, 0.24008), (20, 0.05764)])
def test_published_mean_contraction(K, shift):
    """A shift of all samples at t_min is contracted by a_h a cycle."""
    _, a_h, _ = restart_cycle()
    assert a_h**K == pytest.approx(shift, abs=6e-6)
    levels = EDM.sigma_eff(grids.karras(18).times(EDM))
    means = []
    for start in (Gaussian(0.0, 0.25), Gaussian(1.0, 0.25)):
        plan = plans.restart(grids.sigmas(levels[13:15]), [(3, K, 0.06, 0.30)], method=HEUN, snap="nearest")
        means.append(float(analysis.exact_law(EDM, plan=plan, data=QUARTER, start=start).mean))
    first = heun_factor(levels[13:15])
    assert (means[1] - means[0]) / first == pytest.approx(a_h**K, rel=1e-10)


def test_published_noise_scales():
    """Without noise the variance shrinks by a_h^2 a cycle; S* makes c^2 + t_min^2 stationary; K to infinity has its own fixed point."""
    low, a_h, s2 = restart_cycle()
    levels = EDM.sigma_eff(grids.karras(18).times(EDM))

    def at_bottom(K, S_noise):
        return variance(plan=plans.restart(grids.sigmas(levels[:15]), [(3, K, 0.06, 0.30)], method=HEUN, snap="nearest", S_noise=S_noise))

    base = at_bottom(0, 1.0)
    assert at_bottom(4, 0.0) == pytest.approx(a_h**8 * base, rel=1e-10)
    v = 0.25 + low**2
    star = np.sqrt(v * (1.0 - a_h**2)) / (a_h * np.sqrt(s2))
    assert star == pytest.approx(0.9845, abs=6e-5)
    assert at_bottom(400, star) == pytest.approx(v, rel=1e-10)
    assert at_bottom(400, 1.0) == pytest.approx(a_h**2 * s2 / (1.0 - a_h**2), rel=1e-10)
    assert at_bottom(400, 1.0) == pytest.approx(0.261651, abs=6e-7)
    assert at_bottom(3, star) - v == pytest.approx(a_h**6 * (base - v), rel=1e-9)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (grids.uniform(100), (0.261664634724, 0.006034937626, 0.084570685828)),
        (grids.quadratic(100), (0.257544997401, -0.000244515636, 0.020836077425)),
    ],
    ids=["uniform", "quadratic"],
)
def test_published_langevin_moments(grid, expected):
    """Euler-Maruyama on PSLD, N(0, .25), from p_T, 100 steps, no denoising."""
    made = analysis.exact_law(psld(), method=methods.euler_maruyama(), grid=grid, data=QUARTER, start=QUARTER).state_cov
    np.testing.assert_allclose(made[np.tril_indices(2)], expected, rtol=1e-9, atol=6e-13)


def test_published_langevin_target():
    kernel = psld().kernel(1e-3)
    target = kernel.cov + 0.25 * np.outer(kernel.psi, kernel.psi)
    np.testing.assert_allclose(target[np.tril_indices(2)], [0.250047277842, -0.000772753679, 0.017580160703], rtol=1e-9)


def test_published_euler_maruyama_error():
    """|| L^-1 C L^-T - I ||_F at t = .05 with 400 uniform steps, and its order."""
    kernel = psld().kernel(0.05)
    L = np.linalg.cholesky(kernel.cov + 0.25 * np.outer(kernel.psi, kernel.psi))
    errors = []
    for n in (400, 1600):
        C = analysis.exact_law(psld(), method=methods.euler_maruyama(), grid=grids.uniform(n, end=0.05), data=QUARTER, start=QUARTER).state_cov
        errors.append(np.linalg.norm(np.linalg.solve(L, np.linalg.solve(L, C).T) - np.eye(2)))
    assert errors[0] == pytest.approx(5.443e-2, abs=6e-6)
    assert np.log(errors[0] / errors[1]) / np.log(4.0) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("method", "plan", "coarse", "fine"),
    [
        (methods.exponential(1, noise=1.0), None, -4.44e-2, -2.98e-3),
        (methods.ddim(), plans.ancestral, -4.44e-2, -2.98e-3),
        (methods.exponential(2, noise=1.0), None, 5.44e-3, 2.12e-5),
        (methods.exponential(3, noise=1.0), None, 2.00e-3, 4.06e-6),
    ],
    ids=["SDE-DPM++1", "Euler-a", "SDE-2M, Taylor", "3M SDE, corrected"],
)
def test_published_stochastic_errors(method, plan, coarse, fine):
    """Error of the standard deviation at rho = .1 on N(.3, .25), from its marginal at rho = 5, uniform lambda, 20 and 320 steps; means exact."""
    data = Gaussian(0.3, 0.25)
    for n, expected in ((20, coarse), (320, fine)):
        chosen = plans.run(grids.logsnr(n, 0.1, 5.0), method)
        made = analysis.exact_law(EDM, plan=plan(chosen) if plan else chosen, data=data, start=data)
        assert np.sqrt(float(made.cov)) - np.sqrt(0.26) == pytest.approx(expected, rel=2e-3)
        assert float(made.mean) == pytest.approx(0.3, abs=1e-12)


def test_weak_orders_of_the_published_table():
    """Euler-a 1, SDE-2M 2, SDE-3M 2."""
    data = Gaussian(0.3, 0.25)
    for order, expected in ((1, 1.0), (2, 2.0), (3, 2.0)):
        errors = []
        for n in (160, 320):
            made = analysis.exact_law(EDM, method=methods.exponential(order, noise=1.0), grid=grids.logsnr(n, 0.1, 5.0), data=data, start=data)
            errors.append(abs(np.sqrt(float(made.cov)) - np.sqrt(0.26)))
        assert np.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=0.15)
