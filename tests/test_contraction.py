"""Contraction of Restart on Gaussian data and on mixtures: hand-written recursions, fixed points, the operator on the line."""

from itertools import pairwise

import numpy as np
import pytest
from processes import cld, edm, psld, vp
from scipy.stats import norm

from sdekit import BadInput, analysis, grids, methods, plans
from sdekit.analysis import bound_plots, contraction, switching
from sdekit.law import Empirical, Gaussian, Mixture

EDM = edm()
QUARTER = Gaussian(0.0, 0.25)
LOW = float(EDM.sigma_eff(grids.karras(18).times(EDM)[14]))  # 0.05995: where the paper's 0.06 falls on its grid
MODES = Mixture([0.5, 0.5], [-1.0, 1.0], 0.01)


def heun_gain(v, levels):
    """Heun's method on dx/dt = t x / (v + t^2), step by step."""
    gain = 1.0
    for a, b in pairwise(levels):
        g = a / (v + a * a)
        gain *= 1.0 + 0.5 * (b - a) * (g + (1.0 + (b - a) * g) * b / (v + b * b))
    return gain


def rho7(points, low, high):
    return np.linspace(high ** (1 / 7), low ** (1 / 7), points) ** 7


def made(points=3, data=QUARTER, method=None, process=EDM, **more):
    return contraction.cycle(process, method or methods.heun(), (points, LOW, 0.30), data, **more)


# ---------------------------------------------------------------------------------------------------------------- rates


def test_flow_rates():
    np.testing.assert_allclose(contraction.flow_rates(QUARTER, LOW, 0.30), 0.863634, atol=5e-7)
    np.testing.assert_allclose(contraction.flow_rates(QUARTER, LOW, 0.30, noise=1.0), 0.74586, atol=5e-6)
    np.testing.assert_allclose(contraction.flow_rates(QUARTER, LOW, 0.30, noise=0.5), 0.863634**1.25, rtol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.6, 1.0])
def test_flow_rates_are_those_of_fine_runs(noise):
    data = Gaussian([0.0, 0.0], [0.25, 0.04])
    times = np.geomspace(0.30, LOW, 4001)
    gain = [np.prod(1.0 + 0.5 * (1.0 + noise**2) * np.diff(times**2) / (v + times[:-1] ** 2)) for v in data.variances]
    np.testing.assert_allclose(contraction.flow_rates(data, LOW, 0.30, noise), gain, rtol=2e-3)


def test_a_solver_has_a_gain_of_its_own():
    for points, best in ((2, 0.9629), (3, 0.9845), (5, 0.9955), (9, 0.9988)):
        cycle = made(points)
        np.testing.assert_allclose(cycle.rates, heun_gain(0.25, rho7(points, LOW, 0.30)), rtol=1e-12)
        np.testing.assert_allclose(cycle.flow_rates, np.sqrt((0.25 + LOW**2) / (0.25 + 0.09)), rtol=1e-12)
        np.testing.assert_allclose(cycle.best_noise, best, atol=5e-5)
        assert cycle.compromise == pytest.approx(float(cycle.best_noise[0]), rel=1e-12)
    assert float(made().rates[0]) == pytest.approx(0.867033, abs=5e-7)


@pytest.mark.parametrize("process", [vp(), EDM], ids=["vp", "edm"])
def test_one_block_contracts_alike_on_every_process(process):
    data = Gaussian([0.1, 0.0], [0.25, 0.04])
    cycle = made(5, data, methods.exponential_rk(2), process)
    np.testing.assert_allclose(cycle.rates, [heun_gain(v, rho7(5, LOW, 0.30)) for v in data.variances], rtol=1e-9)
    np.testing.assert_allclose(cycle.flow_rates, np.sqrt((data.variances + LOW**2) / (data.variances + 0.09)), rtol=1e-9)


# ---------------------------------------------------------------------------------------------------------------- fixed points


@pytest.mark.parametrize("S", [0.0, 0.7, 1.0, 1.003])
def test_stationary_variance(S):
    a, s2 = heun_gain(0.25, rho7(3, LOW, 0.30)), 0.09 - LOW**2
    cycle = made(S_noise=S)
    found = float(np.sum(cycle.stationary.factor[0] ** 2))
    assert found == pytest.approx(a * a * S * S * s2 / (1.0 - a * a), rel=1e-12, abs=1e-15)
    if S == 1.0:
        assert found == pytest.approx(0.261651, abs=5e-7)
        assert cycle.bias == pytest.approx(np.sqrt(0.261651) - np.sqrt(0.25 + LOW**2), abs=1e-6)


@pytest.mark.parametrize("process", [EDM, vp(), psld(), cld()], ids=lambda p: p.name)
@pytest.mark.parametrize("method", [methods.exponential_rk(2), methods.exponential(2, noise=0.5)], ids=str)
def test_the_best_noise_makes_the_stationary_variance_exact(process, method):
    data = Gaussian([0.2, -0.1, 0.0], [0.25, 0.6, 0.04])
    plain = contraction.cycle(process, method, (6, 0.1, 0.8), data)
    good = 0
    for m, S in enumerate(plain.best_noise):
        if np.isfinite(S):
            law = contraction.cycle(process, method, (6, 0.1, 0.8), data, S_noise=float(S)).stationary
            np.testing.assert_allclose(np.sum(law.factor[0, :, m] ** 2), np.sum(plain.target.factor[0, :, m] ** 2), rtol=1e-10)
            good += 1
    assert good >= 2
    costs = [contraction.cycle(process, method, (6, 0.1, 0.8), data, S_noise=plain.compromise + e).bias for e in (0.0, 0.01, -0.01)]
    assert costs[0] < min(costs[1:])


def test_many_cycles_reach_the_fixed_point():
    cycle = made(4, Gaussian([0.3, 0.0], [0.25, 0.04]), methods.exponential_rk(2), psld(), S_noise=0.9)
    far = cycle.after(cycle.target, 400)
    assert far.distance(cycle.stationary) < 1e-12
    assert cycle.target.distance(cycle.stationary) > 1e-3


def test_a_model_of_its_own():
    data, model = Gaussian([0.5], [0.25]), Gaussian([0.3], [0.16])
    cycle = contraction.cycle(EDM, methods.heun(), (3, LOW, 0.30), data, model=model)
    np.testing.assert_allclose(cycle.stationary.mean, 0.3, rtol=1e-12)
    np.testing.assert_allclose(cycle.rates, heun_gain(0.16, rho7(3, LOW, 0.30)), rtol=1e-12)
    np.testing.assert_allclose(cycle.flow_rates, 0.863634, rtol=1e-6)


def test_a_cycle_is_that_of_the_plan():
    """Variances at t_min after K cycles of the whole plan, from the fact sheet and by the cycle's own map."""
    want = {0: 0.282387, 1: 0.277239, 2: 0.273369, 5: 0.266629, 10: 0.262846, 20: 0.261720}
    cycle = made()
    for K, variance in want.items():
        grid = grids.times(grids.karras(18).times(EDM)[:15])
        exact = analysis.exact_law(EDM, plan=plans.restart(grid, [(3, K, LOW, 0.30)], method=methods.heun()), data=QUARTER)
        assert float(exact.cov) == pytest.approx(variance, abs=5e-7)
        if K == 0:
            law = exact._out
        assert float(np.sum(cycle.after(law, K).factor[0] ** 2)) == pytest.approx(variance, abs=5e-7)


def test_refusals():
    with pytest.raises(BadInput, match="t_min < t_max"):
        contraction.flow_rates(QUARTER, 0.3, 0.1)
    with pytest.raises(BadInput, match="commute"):
        contraction.cycle(EDM, methods.heun(), (3, 0.1, 0.3), Gaussian([0, 0], [[1, 0.5], [0.5, 1]]), model=Gaussian([0, 0], [1.0, 2.0]))
    with pytest.raises(BadInput, match="no stationary law"):
        _ = contraction.cycle(psld(), methods.euler(), (2, 0.1, 1.0), Gaussian(0.0, 0.01)).stationary
    with pytest.raises(BadInput, match="on the line"):
        switching.restart_operator(Gaussian([0.0, 0.0], 1.0), 0.1, 1.0)
    with pytest.raises(BadInput, match="must be a Mixture"):
        switching.mode_switching(QUARTER, 0.1, 1.0)


# ---------------------------------------------------------------------------------------------------------------- the split of the error


def test_the_split_of_the_error_by_hand():
    """One mean, one variance: the contracted part decays by a_h each cycle."""
    data = Gaussian(0.4, 0.25)
    parts = {
        K: contraction.error_split(EDM, plans.restart(grids.karras(18), [(3, K, LOW, 0.3)], method=methods.heun()), 0.3, data=data) for K in (0, 3)
    }
    node = float(grids.karras(18).times(EDM)[11])  # the level at or above 0.3
    assert parts[0].sigma == pytest.approx(node)
    for K, split in parts.items():
        levels = [float(x) for x in grids.karras(18).times(EDM)]
        gains = {v: [heun_gain(v, np.array(levels[a:b])) for a, b in ((0, 12), (11, 15), (14, 18))] for v in (0.25,)}[0.25]
        last = 0.25 / (0.25 + levels[17] ** 2)
        h = heun_gain(0.25, rho7(3, LOW, 0.3))
        ends = []
        for mean, variance in ((0.4 * (1.0 - gains[0]), (80.0 * gains[0]) ** 2), (0.4, 0.25 + node**2)):
            m, v = 0.4 + (mean - 0.4) * gains[1], variance * gains[1] ** 2
            for _ in range(K):
                m, v = 0.4 + (m - 0.4) * h, h * h * (v + 0.09 - LOW**2)
            g = gains[2] * last
            ends.append((0.4 + (m - 0.4) * g, np.sqrt(v) * g))
        (m, s), (n, r) = ends
        assert split.total == pytest.approx(np.hypot(m - 0.4, s - 0.5), rel=1e-9)
        assert split.contracted == pytest.approx(np.hypot(m - n, s - r), rel=1e-9)
        assert split.additional == pytest.approx(np.hypot(n - 0.4, r - 0.5), rel=1e-9)
        assert split.total <= split.contracted + split.additional
    assert "contracted" in str(split)
    assert "contracted" in split._repr_html_()
    with pytest.raises(BadInput, match="among the grid's levels"):
        contraction.error_split(EDM, plans.run(grids.karras(18)), 100.0, data=data)


# ---------------------------------------------------------------------------------------------------------------- modes


def test_the_operator_of_two_modes():
    operator = switching.restart_operator(MODES, 0.06, 1.0, 500)
    tv = operator.tv(Mixture([0.1, 0.9], [-1.0, 1.0], 0.01), 4)
    np.testing.assert_allclose(tv, [0.3997, 0.2720, 0.1913, 0.1348, 0.0950], atol=4e-4)  # sampled, in the sheet
    np.testing.assert_allclose(tv[1:] / tv[:-1], [0.6803, 0.7034, 0.7044, 0.7045], atol=6e-5)
    assert operator.rate == pytest.approx(0.7045, abs=5e-5)
    assert switching.first_ratio(2.0, 0.01, 1.0) == pytest.approx(0.6803, abs=5e-5)
    np.testing.assert_allclose(operator.matrix.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(operator.matrix.sum(axis=0), 1.0, atol=1e-3)  # equal masses are kept


def test_the_published_factor_is_no_bound_on_the_rate():
    """lambda with B = the distance of the modes: below the true rate, because B must cover the whole spread."""
    operator = switching.restart_operator(Mixture([0.5, 0.5], [-3.0, 3.0], 1.0), 1.0, 4.0)
    assert operator.rate == pytest.approx(0.6537, abs=2e-4)
    assert 1.0 - analysis.bounds.overlap(6.0, 1.0, 4.0) == pytest.approx(0.5614, abs=5e-5)


def test_the_operator_of_a_normal_law_has_the_powers_of_a():
    """Mehler: the eigenvalues of a cycle on Gaussian data are a^n."""
    a, gaps = np.sqrt((0.25 + 0.06**2) / 1.25), []
    for bins in (100, 200):
        operator = switching.restart_operator(QUARTER, 0.06, 1.0, bins)
        np.testing.assert_allclose(operator.rate, operator.eigenvalues[1], rtol=1e-6)
        gaps.append(np.abs(operator.eigenvalues[1:4] / a ** np.arange(1.0, 4.0) - 1.0))
    assert gaps[1][0] < 4e-3
    assert np.all(gaps[1] < 0.7 * gaps[0])  # bins of equal mass see the tails slowly


def test_mode_switching_on_the_line_and_in_space():
    """From quadrature and from sampled exact flows; in space the modes' other directions do not matter."""
    operator = switching.restart_operator(MODES, 0.06, 1.0)
    flat = operator.switching
    stay = norm.cdf(1.0 / np.sqrt(1.01))
    np.testing.assert_allclose(flat, [[stay, 1.0 - stay], [1.0 - stay, stay]], atol=2e-4)
    space = switching.mode_switching(Mixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.01), 0.06, 1.0, 1000)
    np.testing.assert_allclose(space.matrix.sum(axis=1), 1.0, rtol=1e-12)
    assert np.all(np.abs(space.matrix - flat) < 4.0 * space.errors)
    assert np.all(space.errors < 0.02)
    assert space.rate == pytest.approx(space.matrix[0, 0] + space.matrix[1, 1] - 1.0)
    assert "+-" in str(space)


def test_switching_keeps_the_weights():
    weights = np.array([0.2, 0.3, 0.5])
    operator = switching.restart_operator(Mixture(weights, [-1.0, 0.2, 1.5], [0.01, 0.02, 0.05]), 0.06, 1.0)
    np.testing.assert_allclose(weights @ operator.switching, weights, atol=1e-3)
    data = Empirical([-1.0, 1.0], width=0.1)
    assert switching.restart_operator(data, 0.06, 1.0, 200).rate == pytest.approx(switching.restart_operator(MODES, 0.06, 1.0, 200).rate, rel=1e-9)


# ---------------------------------------------------------------------------------------------------------------- what is shown


def test_plots_show_the_numbers():
    import matplotlib as mpl

    mpl.use("Agg")
    data, start = Gaussian([0.2, 0.0], [0.25, 0.04]), Gaussian([0.7, 0.0], [0.25, 0.04])
    ax = bound_plots.cycles(EDM, methods.heun(), (3, LOW, 0.30), 4, data=data, start=start)
    exact, flow = ax.lines[0].get_ydata(), ax.lines[1].get_ydata()
    assert exact[0] == pytest.approx(0.5, rel=1e-9)
    assert np.all(flow >= exact * (1.0 - 1e-12))
    operator = switching.restart_operator(MODES, 0.06, 1.0, 100)
    bars = bound_plots.weights(operator, Mixture([0.1, 0.9], [-1.0, 1.0], 0.01), 3)
    assert bars.lines[0].get_ydata()[0] == pytest.approx(0.4, abs=1e-3)
    found = analysis.bounds.sampler(EDM, methods.heun(), grids.karras(10), data=data)
    w2 = analysis.exact_law(EDM, method=methods.heun(), grid=grids.karras(10), data=data).w2
    ax = bound_plots.sampler([found], [w2], ["heun"])
    assert sum(patch.get_height() for patch in ax.patches) == pytest.approx(found.total)
    mpl.pyplot.close("all")
    assert "0.867033" in str(made())
    assert "0.867033" in made()._repr_html_()
