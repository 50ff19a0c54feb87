"""Bounds: constants against brute force, formulas written out, the numbers of the fact sheet, and what is refused."""

from itertools import pairwise

import numpy as np
import pytest
from processes import edm, psld, vp
from scipy.integrate import quad
from scipy.stats import norm

from sdekit import BadInput, analysis, grids, methods, plans
from sdekit.analysis import bounds
from sdekit.analysis.bounds_constants import Blend, initial_distance
from sdekit.analysis.bounds_mixture import _speed
from sdekit.analysis.orders import reference_flow
from sdekit.analysis.switching import Line
from sdekit.law import Empirical, Gaussian, Mixture

QUARTER = Gaussian(0.0, 0.25)
TURNED = Gaussian([0, 0], [[1, 0.5], [0.5, 1]])
PAPER = (0.05995, 0.30)
MODES = Mixture([0.5, 0.5], [-1.0, 1.0], 0.01)
UNEQUAL = Mixture([0.5, 0.3, 0.2], [-0.6, 0.5, 0.9], [0.04, 0.3, 0.02])
PLANE = Mixture([0.2, 0.5, 0.3], [[-0.6, 0.1], [0.5, 0.0], [0.3, 0.9]], [[[0.1, 0.05], [0.05, 0.2]]] * 3)


# ---------------------------------------------------------------------------------------------------------------- the sheet's numbers


def test_the_gaussian_of_the_sheet():
    found = bounds.restart(QUARTER, PAPER, 2, 3)
    assert found["lambda"] == pytest.approx(2.111e-15, rel=5e-4)
    assert found["L0"] == pytest.approx(3.6317, abs=5e-5)
    assert found["L1"] == pytest.approx(2.0580, abs=5e-5)
    assert found["L2"] == pytest.approx(0.88235, abs=5e-6)
    assert found["B"] == pytest.approx(8.0 * np.sqrt(0.34), rel=1e-6)
    assert found["kappa"] == pytest.approx(0.86363, abs=6e-6)
    assert found.vacuous
    assert "< 1e-06: nothing contracts" in found.reasons[0]
    assert "lambda" in str(found)
    assert "<table>" in found._repr_html_()
    other = bounds.sde(QUARTER, PAPER, 2)
    assert other["U"] == pytest.approx(266.19, abs=5e-3)
    assert other["passage"] == pytest.approx(2.8e-70, rel=0.02)
    assert other["lambda e^-U"] == pytest.approx(5e-131, rel=0.06)


def test_two_modes_of_the_sheet():
    found = bounds.ode(MODES, PAPER, 2)
    assert found["L2"] == pytest.approx(320.0, rel=1e-4)
    assert found["L2"] * (0.30 - 0.05995) == pytest.approx(77.0, abs=0.5)


def test_cycles_under_the_published_bound():
    for high, want in ((0.6, 13.9), (1.0, 7.2), (2.0, 3.8)):
        assert bounds.best_cycles(2.0, 0.4, 0.02, 0.06, high) == pytest.approx(want, abs=0.05)
        K = np.linspace(0.0, 40.0, 400_001)
        total = 2.0 * 0.4 * (1.0 - bounds.overlap(2.0, 0.06, high)) ** K + 0.02 * K
        assert bounds.best_cycles(2.0, 0.4, 0.02, 0.06, high) == pytest.approx(K[np.argmin(total)], abs=2e-4)
    assert bounds.best_cycles(2.0, 0.4, 10.0, 0.06, 1.0) == 0.0


# ---------------------------------------------------------------------------------------------------------------- the formulas


def test_overlap_is_that_of_two_normal_laws():
    s = np.sqrt(1.0 - 0.01)
    x = np.linspace(-12.0, 12.0, 200_001)
    least = np.minimum(norm.pdf(x, -0.8, s), norm.pdf(x, 0.8, s))
    assert bounds.overlap(1.6, 0.1, 1.0) == pytest.approx(np.sum(least) * (x[1] - x[0]), rel=1e-8)


@pytest.mark.parametrize("drift", [0.0, 0.7, 3.0])
def test_passage_is_the_integral_of_its_density(drift):
    a, T = 0.6, 1.0 - 0.01
    density = quad(lambda t: a / np.sqrt(2.0 * np.pi * t**3) * np.exp(-((a + drift * t) ** 2) / (2.0 * t)), 0.0, T)[0]
    assert bounds.passage(1.2, drift, 0.1, 1.0) == pytest.approx(density, rel=1e-8)
    loose = bounds.overlap(1.2, 0.1, 1.0) * np.exp(-(1.2 * drift + drift**2 * T))
    assert bounds.passage(1.2, drift, 0.1, 1.0) >= loose * (1.0 - 1e-12)


def test_the_three_theorems_as_written():
    low, high, n, K, eps, tv = 0.2, 0.8, 10, 3, 0.01, 0.3
    span, d = high - low, 1
    delta = span / n
    found = [
        bounds.ode(QUARTER, (low, high), n, eps=eps, start=tv, diameter=5.0),
        bounds.sde(QUARTER, (low, high), n, eps=eps, start=tv, diameter=5.0),
        bounds.restart(QUARTER, (low, high), n, K, eps=eps, start=tv, diameter=5.0),
    ]
    t = np.linspace(low, high, 100_001)
    L2 = np.max(t / (0.25 + t**2))
    L1, L0 = 2.5 * L2, 2.5 * np.max(2.0 * t**2 / (0.25 + t**2) ** 2)
    M1 = np.max(t / np.sqrt(0.25 + t**2))
    M0 = max(np.max(2.0 * t**2 / (0.25 + t**2) ** 1.5), np.max(np.abs(0.25 - t**2) / (0.25 + t**2) ** 1.5))
    lam = 2.0 * norm.sf(2.5 / np.sqrt(high**2 - low**2))
    U = 5.0 * L1 / low + L1**2 * high**2 / low**2
    source, root = (delta * (L2 * L1 + L0) + eps) * span, np.sqrt(2.0 * delta * d * high)
    assert found[0].published.contracted == pytest.approx(5.0 * tv)
    assert found[0].published.additional == pytest.approx(np.exp(L2 * span) * source, rel=1e-6)
    assert found[1].published.contracted == pytest.approx(5.0 * (1.0 - lam * np.exp(-U)) * tv)
    assert found[1].published.additional == pytest.approx(np.exp(2 * L2 * span) * (eps + delta * L0 + L2 * (delta * L1 + root)) * span, rel=1e-6)
    assert found[2].published.contracted == pytest.approx(5.0 * (1.0 - lam) ** K * tv)
    assert found[2].published.additional == pytest.approx(np.exp((K + 1) * L2 * span) * (K + 1) * source, rel=1e-6)
    mean = (delta * (L2 * M1 + M0) + eps) * span
    assert found[0].corrected.additional == pytest.approx(np.exp(L2 * span) * mean, rel=1e-6)
    noise = delta * np.sqrt(span / (2.0 * low))
    want = np.exp(2 * L2 * span) * (2 * (eps + delta * M0 + L2 * (2 * delta * M1 + root)) * span + noise)
    assert found[1].corrected.additional == pytest.approx(want, rel=1e-6)
    assert found[2].corrected.additional == pytest.approx(mean * sum(np.exp(j * L2 * span) for j in range(1, K + 2)), rel=1e-6)
    eta, tail = 2.0 * norm.sf(2.5 / np.sqrt(0.89)), 2.0 * np.sqrt(0.89) * norm.pdf(2.5 / np.sqrt(0.89))
    assert found[2]["eta"] == pytest.approx(eta)
    assert found[2]["tail"] == pytest.approx(tail)
    left = (1.0 - lam) ** K
    assert found[2].corrected.contracted == pytest.approx(5.0 * (left * tv + 2.0 * eta * (1.0 - left)) + 2.0 * tail)
    met = bounds.passage(5.0, L1 / low, low, high)
    assert found[1].corrected.contracted == pytest.approx(5.0 * ((1.0 - met) * tv + 2.0 * eta * met) + 2.0 * tail)


def test_assumptions_are_checked():
    found = bounds.restart(QUARTER, (0.2, 0.8), 10, 2, start=Gaussian(0.1, 0.25))
    verdicts = {a.text.split(" (")[0]: a.holds for a in found.assumptions}
    assert verdicts["all laws have bounded support"] is False
    assert next(holds for text, holds in verdicts.items() if text.startswith("all laws lie in the ball")) is True
    wide = bounds.restart(QUARTER, (0.2, 0.8), 10, 2, start=Gaussian(0.1, 9.0))
    assert wide["eta"] > 100.0 * found["eta"]  # the tails are those of the sampler, which started wider
    given = bounds.restart(QUARTER, (0.2, 0.8), 10, 2, start=0.3, eps=0.1)
    assert [a.holds for a in given.assumptions].count(None) == 3
    assert not bounds.restart(Gaussian(0.0, 4.0), (1.0, 2.0), 400, 1, diameter=4.0, start=0.1).vacuous


def test_distances_at_the_start():
    same = initial_distance(Gaussian(0.3, 0.25), QUARTER, 0.3)[0]
    assert same == pytest.approx(2.0 * norm.cdf(0.15 / np.sqrt(0.34)) - 1.0, rel=1e-6)
    above, how = initial_distance(Gaussian([0.3, 0.0], 0.25), Gaussian([0.0, 0.0], 0.25), 0.3)
    assert same < above < 1.3 * same
    assert "upper" in how
    assert initial_distance(Mixture([0.1, 0.9], [-1, 1], 0.01), MODES, 0.06)[0] == pytest.approx(0.4, abs=1e-4)


# ---------------------------------------------------------------------------------------------------------------- the constants


def log_density(law, t):
    return lambda x: law.log_density(np.asarray(x, float).reshape(len(x), *law.shape), t)


def line(law, t, h=1e-3):
    """Score, curvature and speed of the score in t by differences of the log density, over the line."""
    x = np.linspace(-4.0, 4.0, 8001)
    f = log_density(law, t)
    score = (f(x + h) - f(x - h)) / (2.0 * h)
    after, before = ((g(x + h) - g(x - h)) / (2.0 * h) for g in (log_density(law, t + 1e-4), log_density(law, t - 1e-4)))
    return x, score, (f(x + h) - 2.0 * f(x) + f(x - h)) / h**2, (after - before) / 2e-4


@pytest.mark.parametrize("law", [QUARTER, UNEQUAL, Mixture([0.3, 0.7], [-0.5, 0.6], 0.05)], ids=["normal", "unequal", "equal"])
@pytest.mark.parametrize("t", [0.2, 0.7])
def test_constants_on_the_line(law, t):
    blend = Blend.of(law)
    x, score, hessian, speed = line(law, t)
    inside = np.abs(x - float(np.ravel(law.mean)[0])) <= 1.5
    assert blend.top(t) == pytest.approx(np.max(hessian), rel=1e-3)
    assert blend.curvature(t) >= np.max(np.abs(hessian)) * (1.0 - 1e-3)
    assert blend.score(t, 1.5) == pytest.approx(np.max(np.abs(score[inside])), rel=2e-3)
    assert blend.score_rate(t, 1.5) == pytest.approx(t * np.max(np.abs(speed[inside])), rel=5e-3)
    assert blend.score_rate(t, 1.5, 0.0) == pytest.approx(np.max(np.abs(score + t * speed)[inside]), rel=5e-3)
    density = np.exp(log_density(law, t)(x)) * (x[1] - x[0])
    assert density @ np.abs(score) <= blend.score_mean(t) * (1.0 + 1e-6)
    assert density @ np.abs(speed) <= 2.0 * t * blend.rate_mean(t) * (1.0 + 1e-6)
    tail = blend.tail(1.5, t)
    outside = np.abs(x - float(np.ravel(law.mean)[0])) > 1.5
    assert density[outside].sum() <= tail.mass
    assert density[outside] @ np.abs(x - float(np.ravel(law.mean)[0]))[outside] <= tail.moment


def test_bounds_on_constants_in_the_plane():
    rng, t, h = np.random.default_rng(0), 0.3, 1e-4
    blend = Blend.of(PLANE)
    x = blend.law.mean + rng.uniform(-1.5, 1.5, (4000, 2))
    f, e = log_density(PLANE, t), np.eye(2) * h

    def score(x, f=f):
        return np.stack([(f(x + v) - f(x - v)) / (2.0 * h) for v in e], axis=1)

    hessian = np.stack([(score(x + v) - score(x - v)) / (2.0 * h) for v in e], axis=2)
    values = np.linalg.eigvalsh(0.5 * (hessian + np.swapaxes(hessian, 1, 2)))
    assert np.max(values) <= blend.top(t)
    assert blend.top(t) < 12.0 * abs(np.max(values))
    assert np.max(np.abs(values)) <= blend.curvature(t)
    radius = float(np.max(np.linalg.norm(x - blend.law.mean, axis=1)))
    assert np.max(np.linalg.norm(score(x), axis=1)) <= blend.score(t, radius)
    speed = (score(x, log_density(PLANE, t + h)) - score(x, log_density(PLANE, t - h))) / (2.0 * h)
    assert t * np.max(np.linalg.norm(speed, axis=1)) <= blend.score_rate(t, radius)
    drawn = PLANE.sample(4000, seed=1) + t * rng.standard_normal((4000, 2))
    assert np.mean(np.linalg.norm(score(drawn), axis=1)) <= blend.score_mean(t)
    assert np.mean(np.linalg.norm(drawn - blend.law.mean, axis=1) > 1.2) <= blend.tail(1.2, t).mass


def test_kappa_of_a_normal_law_is_a():
    low, high = 0.06, 0.9
    assert Blend.of(Gaussian([0.0, 0.0], [0.25, 0.04])).kappa(low, high) == pytest.approx(np.sqrt((0.25 + low**2) / (0.25 + high**2)))
    flat = Mixture([0.4, 0.6], [[0.1, 0.0], [0.1, 0.0]], [[0.25, 0.04]] * 2)  # the same law, written as a mixture
    assert Blend.of(flat).kappa(low, high) == pytest.approx(np.sqrt((0.25 + low**2) / (0.25 + high**2)), rel=1e-9)


@pytest.mark.parametrize("law", [UNEQUAL, Mixture([0.5, 0.5], [-0.4, 0.4], 0.2)], ids=["unequal", "near"])
def test_kappa_bounds_the_slope_of_the_flow(law):
    """On the line the exact flow is F_low^-1(F_high), with slope p_high / p_low."""
    low, high, own = 0.2, 0.8, Line(law)
    u = np.linspace(1e-4, 1.0 - 1e-4, 2001)
    there, here = own.quantile(u, high), own.quantile(u, low)
    slope = np.exp(log_density(law, high)(there) - log_density(law, low)(here))
    kappa = Blend.of(law).kappa(low, high)
    assert np.max(slope) <= kappa * (1.0 + 1e-12)
    assert np.max(slope) > 0.5 * kappa


def test_one_sided_saturates():
    low, high = 0.06, 0.30
    a = np.sqrt((0.25 + low**2) / (0.25 + high**2))
    found = bounds.one_sided(QUARTER, (low, high), 7, start=0.4, each=0.01)
    assert found.total == pytest.approx(a**7 * 0.4 + 0.01 * (1 - a**7) / (1 - a))
    assert found.limit == pytest.approx(0.01 / (1 - a))
    assert not found.vacuous
    assert bounds.one_sided(MODES, (low, high), 3, start=0.4).vacuous
    assert "vacuous" in str(bounds.one_sided(MODES, (low, high), 3, start=0.4))


# ---------------------------------------------------------------------------------------------------------------- whole runs


def test_a_run_by_hand():
    """DDIM on EDM, one mode: every number from scalars."""
    levels, v, mean, eps = np.array([5.0, 2.0, 0.7, 0.1]), 0.25, 0.3, 0.02
    found = bounds.sampler(edm(), methods.ddim(), grids.sigmas(levels), data=Gaussian(mean, v), score_error=eps)
    pairs = list(pairwise(levels))
    gains = np.array([s / t + (1.0 - s / t) * v / (v + t * t) for t, s in pairs])
    after = np.array([np.prod(gains[i:]) for i in range(4)])
    flow = np.array([np.sqrt((v + s * s) / (v + t * t)) for t, s in pairs])
    assert found.prior == pytest.approx(after[0] * np.hypot(mean, np.sqrt(v + 25.0) - 5.0), rel=1e-9)
    defects = np.abs(flow - gains) * np.sqrt(v + levels[:-1] ** 2)
    np.testing.assert_allclose([step.defect for step in found.steps], defects, rtol=1e-9)
    np.testing.assert_allclose([step.factor for step in found.steps], after[1:], rtol=1e-9)
    assert found["sum of steps"] == pytest.approx(np.sum(defects * after[1:]))
    signed = (flow - gains) * np.sqrt(v + levels[:-1] ** 2)
    assert found.discretisation == pytest.approx(abs(np.sum(signed * after[1:])))
    assert found.score == pytest.approx(eps * np.sum([(1.0 - s / t) * g for (t, s), g in zip(pairs, after[1:], strict=True)]))
    assert found.end == pytest.approx(np.sqrt(v + 0.01) - 0.5)


@pytest.mark.parametrize("process", [edm(), vp(), psld()], ids=lambda p: p.name)
@pytest.mark.parametrize("method", [methods.ddim(), methods.exponential(3), methods.heun(), methods.exponential(2, noise=1.0)], ids=str)
def test_parts_meet_the_exact_ones(process, method):
    """Without a score error the coupling's discretisation is at least the exact part, and not far from it where nothing is drawn."""
    data = Gaussian([0.3, -0.1], [0.25, 0.04])
    grid = grids.karras(24, 0.01, 20.0)
    found = bounds.sampler(process, method, grid, data=data)
    exact = analysis.exact_law(process, method=method, grid=grid, data=data)
    assert exact.w2 <= found.total
    assert found.end == pytest.approx(exact.parts["end"], rel=1e-9)
    if process.k == 1 and not method.noisy:
        assert found.total < 1.6 * exact.w2
    assert found.parts.keys() == {"prior", "discretisation", "score", "end"}
    assert not found.vacuous


def test_a_root_mean_square_error_with_its_slope():
    """The model of another variance: its error is linear, so its size and slope are exact."""
    data, model, grid = Gaussian(0.2, 0.25), Gaussian(0.2, 0.3), grids.sigmas([20.0, 5.0, 2.0, 0.7, 0.2, 0.05])

    def slope(sigma):
        return 0.3 / (0.3 + sigma**2) - 0.25 / (0.25 + sigma**2)

    def size(sigma):
        return slope(sigma) * np.sqrt(0.25 + sigma**2)

    for process in (edm(), vp(), psld()):
        found = bounds.sampler(process, methods.exponential(2), grid, data=data, score_error=size, error_lipschitz=slope)
        exact = analysis.exact_law(process, method=methods.exponential(2), grid=grid, data=data, model=model)
        assert exact.w2 <= found.total
        assert found["largest error"] > size(0.05)


def test_restart_plans_have_bounds():
    plan = plans.restart(grids.karras(18), [(3, 2, 0.06, 0.30)], method=methods.heun())
    found = bounds.sampler(edm(), plan=plan, data=QUARTER)
    exact = analysis.exact_law(edm(), plan=plan, data=QUARTER)
    assert exact.w2 <= found.total < 2.0 * exact.w2
    loud = bounds.sampler(edm(), plan=plans.restart(grids.karras(18), [(3, 2, 0.06, 0.30)], S_noise=1.2), data=QUARTER)
    jumps = [step for step in loud.steps if step.stop > step.start]
    np.testing.assert_allclose([step.defect for step in jumps], 0.2 * np.sqrt(0.09 - 0.0036), rtol=1e-6)


def test_the_speed_of_the_denoised_data():
    """Root mean square of dD/dq along the exact flow, by differences of integrated paths."""
    for law, rtol in ((Mixture([0.4, 0.6], [-0.5, 0.6], [0.1, 0.2]), 0.03), (QUARTER, 0.03)):
        q, h, D = 0.4, 1e-3, law.denoiser()
        x = law.sample(6000, seed=3) + (q + h) * np.random.default_rng(1).standard_normal(6000)
        y = reference_flow(edm(), D, x[None], q + h, q - h)[0]
        speed = (D(x, q + h) - D(y, q - h)) / (2.0 * h)
        assert _speed(Blend.of(law), q) == pytest.approx(np.sqrt(np.mean(speed**2)), rel=rtol)
    plane, q, h = Blend.of(PLANE), 0.4, 1e-3
    x = PLANE.sample(2000, seed=3) + (q + h) * np.random.default_rng(1).standard_normal((2000, 2))
    y = reference_flow(edm(), PLANE.denoiser(), x[None], q + h, q - h)[0]
    speed = (PLANE.denoiser()(x, q + h) - PLANE.denoiser()(y, q - h)) / (2.0 * h)
    assert np.sqrt(np.mean(np.sum(speed**2, axis=1))) <= _speed(plane, q)


@pytest.mark.parametrize("process", [edm(), vp()], ids=lambda p: p.name)
@pytest.mark.parametrize("end", [0.0, 0.05])
def test_mixtures_on_the_line(process, end):
    """A step of DDIM is increasing, so the sampler's quantiles are the images of the prior's: W2 by one integral."""
    law = Mixture([0.4, 0.6], [-0.3, 0.4], [0.2, 0.2])
    levels = [20.0, 8.0, 4.0, 2.0, 1.0, 0.6, 0.3, 0.1, end]
    grid = grids.sigmas(levels)
    u = (np.arange(20_000) + 0.5) / 20_000
    z = levels[0] * norm.ppf(u)
    for t, s in pairwise(levels):
        z = s / t * z + (1.0 - s / t) * (law.denoiser()(z, t) + 0.03 * np.cos(3.0 * z))
    psi = float(process.kernel(process.time_of(end)).psi[0]) if end else 1.0
    exact = np.sqrt(np.mean((psi * z - Line(law).quantile(u, 0.0)) ** 2))
    found = bounds.sampler(process, methods.ddim(), grid, data=law, score_error=0.03)
    assert exact <= found.total < 8.0 * exact
    assert bounds.sampler(process, methods.ddim(), grid, data=MODES).vacuous


def test_a_root_mean_square_error_on_a_mixture():
    """How far the sampler is from the exact flow at each node decides what the error's slope adds there."""
    law, levels = Mixture([0.4, 0.6], [-0.3, 0.4], 0.2), [20.0, 4.0, 1.0, 0.3, 0.1]
    found = bounds.sampler(edm(), methods.ddim(), grids.sigmas(levels), data=law, score_error=0.02, error_lipschitz=0.05)
    away, after, score = found["W2 at the start"], [found["whole map"], *(step.factor for step in found.steps)], 0.0
    for i, ((t, s), step) in enumerate(zip(pairwise(levels), found.steps, strict=True)):
        made = (1.0 - s / t) * (0.02 + 0.05 * away)
        score += made * after[i + 1]
        away = after[i] / after[i + 1] * away + step.defect + made
    assert found.score == pytest.approx(score)
    assert found.score > bounds.sampler(edm(), methods.ddim(), grids.sigmas(levels), data=law, score_error=0.02).score


def test_mixtures_in_the_plane_and_points():
    near = Mixture([0.5, 0.5], [[-0.2, 0.0], [0.2, 0.1]], 0.3)
    assert not bounds.sampler(edm(), methods.ddim(), grids.karras(60), data=near).vacuous
    points = bounds.sampler(edm(), methods.ddim(), grids.karras(20), data=Empirical([[-0.2, 0.0], [0.2, 0.1]]))
    assert points.vacuous
    assert "vacuous" in str(points)
    same = bounds.sampler(edm(), methods.ddim(), grids.karras(20), data=Empirical([[-0.2, 0.0], [0.2, 0.1]], width=np.sqrt(0.3)))
    want = bounds.sampler(edm(), methods.ddim(), grids.karras(20), data=near)
    assert same.total == pytest.approx(want.total, rel=1e-9)


# ---------------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bounds.sampler(edm(), methods.heun(), grids.karras(8), data=MODES), "one block and methods.ddim"),
        (lambda: bounds.sampler(psld(), methods.ddim(), grids.karras(8), data=MODES), "one block and methods.ddim"),
        (lambda: bounds.sampler(edm(), methods.ddim(), grids.karras(8), data=MODES, start=QUARTER), "prior only"),
        (lambda: bounds.sampler(edm(), methods.ddim(), grids.karras(8), data=Mixture([1, 1], [[0, 0], [1, 1]], [1.0, 2.0])), "different covariances"),
        (lambda: bounds.sampler(edm(), plan=plans.correct(plans.run(grids.karras(8))), data=QUARTER), "not an affine move"),
        (lambda: bounds.sampler(edm(), methods.heun(), grids.karras(8), data=QUARTER, error_lipschitz=0.1), "give a supremum"),
        (lambda: bounds.sampler(edm(), methods.ddim(), grids.karras(8), data=QUARTER, score_error=-1.0), "must not be negative"),
        (lambda: bounds.sampler(edm(), methods.ddim(), grids.karras(8), data=QUARTER, score_error=lambda s: -s), "must not be negative"),
        (lambda: bounds.sampler(edm(), methods.ddim(), grids.karras(8), data=QUARTER, start=Gaussian([0.0, 1.0], 1.0)), "data of shape"),
        (lambda: bounds.sampler(edm(), methods.ddim(), grids.karras(8), data=TURNED, start=Gaussian([0, 0], [1, 2.0])), "commute"),
        (lambda: bounds.restart(QUARTER, (0.3, 0.1), 2, 2), "t_min < t_max"),
        (lambda: bounds.restart(QUARTER, (0.1, 0.3), 2, 2, eps=-0.1), "eps"),
        (lambda: bounds.ode(QUARTER, (0.1, 0.3), 0), "steps"),
        (lambda: bounds.ode(QUARTER, (0.1, 0.3), 2, start=1.5), r"\[0, 1\]"),
        (lambda: bounds.ode(PLANE, (0.1, 0.3), 2, start=Gaussian([0.0, 0.0], 1.0)), "no closed form"),
        (lambda: bounds.one_sided(Mixture([1, 1], [[0, 0], [1, 1]], [1.0, 2.0]), (0.1, 0.3), 2, start=1.0), "different covariances"),
        (lambda: bounds.one_sided(QUARTER, (0.1, 0.3), 2, start=-1.0), "negative"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(BadInput, match=message):
        call()
