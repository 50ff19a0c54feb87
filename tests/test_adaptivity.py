"""Control loops, stationary laws of methods, and adaptive runs in the limit of many elements."""

from dataclasses import replace
from itertools import pairwise

import gotta_go_fast as ggf
import numpy as np
import pytest

from sdekit import catalogue, grids, methods, modes
from sdekit.analysis import adaptive_plots
from sdekit.analysis.adaptive_grids import embedded, frozen_law, mean_field, proportionality
from sdekit.analysis.adaptivity import control_loop, error_spread, recommended_controller, stability_limit, stationary_law, tolerance_slope
from sdekit.control import Controller, filtered, gotta_go_fast, power
from sdekit.errors import BadInput
from sdekit.law import Gaussian

EULER, HEUN = methods.euler_maruyama(), methods.heun(noise=1.0)
VP, VE = ggf.vp(), ggf.ve()


# ------------------------------------------------------------------------------------------------ loops


@pytest.mark.parametrize("k", [1.5, 2.0])
@pytest.mark.parametrize("r", [0.3, 0.5, 2 / 3, 0.9])
def test_one_gain(r, k):
    loop = control_loop(power(0.9, r), k)
    np.testing.assert_allclose(loop.poles, [1.0 - r * k], atol=1e-14)
    assert loop.noise_gain == pytest.approx(2.0 / (2.0 - r * k))
    assert loop.step_gain == pytest.approx(r / (k * (2.0 - r * k)))
    assert loop.margin == pytest.approx(2.0 / (r * k), rel=1e-9)
    assert loop.lag == pytest.approx(1.0 / (r * k))
    assert loop.controller.target == pytest.approx(0.9 ** (1.0 / r))


def test_stable_below_2_over_k():
    for k in (1.5, 2.0):
        for r, stable in ((1.99 / k, True), (2.01 / k, False)):
            loop = control_loop(power(r=r), k)
            assert loop.stable is stable
            assert np.isfinite(loop.noise_gain) == stable
    assert control_loop(power(r=1.2), 2.0).rejection(0.01) == 1.0


def driven(controller, k, distance):
    """Errors and steps of the controller itself, on log E = k log h + distance."""
    h, before, errors, ratios, found, steps = 0.0, None, [np.nan] * 3, [1.0] * 3, [], []
    for d in distance:
        error = np.log(controller.target) + k * h + d
        ratios = [1.0 if before is None else np.exp(h - before), *ratios]
        before = h
        factor = controller.factor(np.exp([error, *errors])[: controller.depth, None], np.array(ratios)[: controller.depth, None], np.array([True]))
        found.append(error - np.log(controller.target))
        steps.append(h)
        errors = [error, *errors]
        h += float(np.log(factor[0]))
    return np.array(found), np.array(steps)


LOOPS = [filtered(kind=kind, least=0.0, most=np.inf) for kind in ("i", "pi", "pid", "h211b")] + [
    Controller((0.4, -0.1, 0.05), 0.7, (0.2, -0.1)),
    Controller((0.3,), 0.8, (0.5,)),
]


@pytest.mark.parametrize("controller", LOOPS, ids=lambda c: f"{len(c.gains)},{len(c.steps)}")
@pytest.mark.parametrize("k", [1.5, 2.0])
def test_loops_are_what_the_controller_does(controller, k):
    """Its response to one disturbance has the claimed power and pole; to a growing distance, the claimed lag."""
    loop = control_loop(controller, k)
    found, steps = driven(controller, k, np.eye(1, 400)[0])
    assert np.sum(found**2) == pytest.approx(loop.noise_gain, rel=1e-10)
    assert np.sum(steps**2) == pytest.approx(loop.step_gain, rel=1e-10)
    found, _ = driven(controller, k, 0.01 * np.arange(400))
    assert found[-1] == pytest.approx(0.01 * loop.lag, rel=1e-9)


@pytest.mark.parametrize("controller", LOOPS, ids=lambda c: f"{len(c.gains)},{len(c.steps)}")
def test_margins(controller):
    margin = control_loop(controller).margin
    for part, stable in ((0.99, True), (1.01, False)):
        scaled = replace(controller, gains=tuple(part * margin * g for g in controller.gains))
        steps = np.abs(driven(scaled, 1.5, np.eye(1, 300)[0] * 1e-6)[1])
        assert (np.max(steps[-50:]) < 0.5 * np.max(steps[:50])) == stable


def test_rejections_predicted_and_measured():
    """r = .9 in 256 elements: 6.6 % by the formula; by the loop 6.2 % on VP and 5.8 % on VE, of which 1-2 % is the drift of the distance."""
    loop = control_loop(power(), 1.5)
    assert loop.rejection(error_spread(256)) == pytest.approx(0.0655, abs=5e-5)
    assert control_loop(power(r=0.5), 1.5).rejection(error_spread(256)) < 1e-4
    for eq, expected in ((VP, 0.062), (VE, 0.058)):
        nfe, rejected, _ = ggf.algorithm_1(replace(eq, mean=0.0), np.full(256, eq.pixel), 0.05, range(16), turn=False)
        rate = 2.0 * rejected.sum() / nfe.sum()
        assert rate == pytest.approx(expected, abs=0.012)
        assert rate == pytest.approx(loop.rejection(error_spread(256), 0.03), abs=0.02)


@pytest.mark.parametrize(("d", "drift"), [(16, 0.03), (256, 0.03), (3072, 0.03), (3072, 0.1)])
def test_recommended(d, drift):
    """No controller of one gain makes more progress, in a model that is flat around its best."""
    spread = error_spread(d)
    chosen = recommended_controller(1.5, spread, drift)
    best = control_loop(chosen, 1.5).progress(spread, drift)
    others = [Controller((r,), target) for r in np.linspace(0.03, 1.0, 20) for target in np.linspace(0.4, 0.99, 60)]
    assert max(control_loop(other, 1.5).progress(spread, drift) for other in others) <= best * (1.0 + 1e-6)
    assert best > control_loop(power(), 1.5).progress(spread, drift)
    near = Controller((0.85 * chosen.gains[0],), chosen.target)
    assert control_loop(near, 1.5).progress(spread, drift) > 0.98 * best


def test_more_noise_asks_for_less_gain():
    gains = [recommended_controller(1.5, error_spread(d), 0.03).gains[0] for d in (4, 64, 1024, 16384)]
    assert all(low < high for low, high in pairwise(gains))


# ------------------------------------------------------------------------------------------------ stationary laws


@pytest.mark.parametrize("u", [0.1, 0.5, 1.0, 1.7])
def test_stationary_variances(u):
    """The issue's numbers at u = .5: 1.3333 and .9231; SRA1 from its equation, with E I10^2 = h^3/3 and E dW I10 = h^2/2."""
    euler, heun, sra = (stationary_law(method, u) for method in (EULER, HEUN, methods.sra(1)))
    assert euler.factor == pytest.approx(1.0 - u, abs=1e-12)
    assert euler.variance == pytest.approx(1.0 / (1.0 - u / 2.0))
    np.testing.assert_allclose([heun.factor, sra.factor], 1.0 - u + u**2 / 2.0, atol=1e-12)
    assert heun.variance == pytest.approx((1.0 - u / 2.0) / (1.0 - u / 2.0 + u**2 / 4.0))
    assert sra.variance == pytest.approx(2.0 * u * (1.0 - u + u**2 / 3.0) / (1.0 - sra.factor**2))


def test_stability_limits():
    assert stability_limit(EULER) == stability_limit(HEUN) == pytest.approx(2.0, abs=1e-10)
    assert np.isinf(stationary_law(HEUN, 2.0 + 1e-9).variance)
    cubic = min(u.real for u in np.roots([-1 / 6, 1 / 2, -1.0, 2.0]) if abs(u.imag) < 1e-12)  # 1 - u + u^2/2 - u^3/6 = -1
    assert stability_limit(methods.sra(3)) == pytest.approx(cubic, abs=1e-10)
    last = 0.025024459226717772 * 4.1609142252828395 * 0.6923962376159507
    (wide,) = (u.real for u in np.roots([-last, 1 / 2, -1.0, 2.0]) if abs(u.imag) < 1e-12)
    assert stability_limit(methods.sosra()) == pytest.approx(wide, abs=1e-10)
    assert wide > 5.3


@pytest.mark.parametrize("method", [methods.ddim(), methods.heun(), methods.exponential(2, noise=1.0)], ids=str)
def test_no_stationary_law(method):
    with pytest.raises(BadInput, match="one-step method"):
        stationary_law(method, 0.5)


# ------------------------------------------------------------------------------------------------ frozen grids


@pytest.mark.parametrize("eq", [VP, VE], ids=["vp", "ve"])
def test_frozen_laws_by_hand(eq):
    """Against the recursion of variances, from the prior, both results of the pair, with and without a basis."""
    rng = np.random.default_rng(1)
    times = np.sort(np.append(rng.uniform(eq.t_eps, 1.0, 60), [eq.t_eps, 1.0]))[::-1]
    variances = ggf.power_law(eq, 12)
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    for data in (Gaussian(np.zeros(12), variances), Gaussian(np.zeros(12), basis * variances @ basis.T)):
        for method, kind in ((HEUN, "heun"), (embedded(HEUN), "euler"), (EULER, "euler"), (methods.ddim(), "ddim"), (methods.lamba(), "lamba")):
            found = frozen_law(eq.process, times, method, data).w2 / np.sqrt(12.0)
            assert found == pytest.approx(ggf.spread_error(eq, variances, times, kind), rel=1e-9)


def test_frozen_laws_start_and_refusals():
    """From the exact marginal at fine steps nothing is left; means are scaled to the last time."""
    data = Gaussian([0.5, -0.2], [0.3, 0.04])
    fine = grids.uniform(1000, end=1e-3).times(VP.process)
    law = frozen_law(VP.process, fine, HEUN, data, start=data)
    assert law.w2 < 5e-5
    np.testing.assert_allclose(law.data.mean, VP.a(1e-3) * data.mean, rtol=1e-12)
    with pytest.raises(BadInput, match="last time above 0"):
        frozen_law(VP.process, [1.0, 0.5, 0.0], HEUN, data)
    with pytest.raises(BadInput, match="one block"):
        frozen_law(catalogue.psld(), [1.0, 0.5], HEUN, data)
    with pytest.raises(BadInput, match="no embedded result"):
        frozen_law(VP.process, [1.0, 0.5], embedded(EULER), data)


# ------------------------------------------------------------------------------------------------ many elements


def flat(eq, d=3072):
    return Gaussian(np.zeros(d), eq.pixel)


@pytest.mark.parametrize(
    ("eq", "calls"), [(VP, (146, 133, 129, 126, 125)), (VE, (288, 256, 242, 234, 231))], ids=["vp", "ve"]
)  # fmt: skip
def test_flat_spectra(eq, calls):
    """The calls of one sample in 3072 elements at rtol = .05, for r = .3, .5, .67, .9, 1.2."""
    found = [mean_field(eq.process, gotta_go_fast(0.05, eq.atol, published=True, r=r), flat(eq)).nfe for r in (0.3, 0.5, 0.67, 0.9, 1.2)]
    np.testing.assert_allclose(found, calls, atol=3)


CHANGES = [{}, {"extrapolate": False}, {"previous": False}, {"lamba": True, "r": 0.5}, {"lamba": True, "extrapolate": False, "r": 0.5}]


@pytest.mark.parametrize("eq", [VP, VE], ids=["vp", "ve"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda c: ",".join(c) or "none")
def test_the_limit_is_that_of_the_loop(eq, change):
    """Grid by grid: the loop in 30,000 elements takes the steps of the limit."""
    nfe, rejected, (times,) = ggf.algorithm_1(replace(eq, mean=0.0), np.full(30_000, eq.pixel), 0.05, [0], turn=False, **change)
    control = gotta_go_fast(
        0.05, eq.atol, published=True, r=change.get("r", 0.9), lamba_pair=change.get("lamba", False), extrapolate=change.get("extrapolate", True)
    )
    made = mean_field(eq.process, replace(control, previous=change.get("previous", True)), flat(eq, 1))
    if change == {"previous": False}:  # 1/x^2 is then cut by atol alone: 30,000 elements are not many
        assert made.nfe == pytest.approx(nfe[0], rel=0.08)
        return
    assert abs(made.nfe - nfe[0]) <= 4
    assert abs(made.rejected - rejected[0]) <= 1
    u = np.linspace(0.0, 1.0, 50)
    both = [np.interp(u, np.linspace(0.0, 1.0, len(found)), found) for found in (made.times, times)]
    np.testing.assert_allclose(*both, atol=0.02)
    kind = "lamba" if "lamba" in change and "extrapolate" not in change else "euler" if "extrapolate" in change else "heun"
    assert made.w2 == pytest.approx(ggf.spread_error(eq, np.array([eq.pixel]), made.times, kind), rel=1e-8)


def test_the_first_error_by_quadrature():
    """Over the state and the normal, on a fine mesh; with a mean that the tolerance sees."""
    m, v, rtol, atol, h, t = 0.3, 0.25, 0.05, 0.0078, 0.01, 1.0
    control = gotta_go_fast(rtol, atol, published=True)
    start = Gaussian([m], 0.01)
    made = mean_field(VP.process, control, Gaussian([m], v), start=start)
    mesh = np.linspace(-8.0, 8.0, 2001)
    weight = np.exp(-0.5 * mesh**2)
    x, z = np.sqrt(VP.S(t) + VP.a(t) ** 2 * 0.01) * mesh[:, None], mesh[None]
    c0, c1, g0, g1 = VP.f(t) + VP.g2(t) / (VP.a(t) ** 2 * v + VP.S(t)), ggf.pull(VP, v, t - h), np.sqrt(VP.g2(t)), np.sqrt(VP.g2(t - h))
    low = x - h * c0 * x + np.sqrt(h) * g0 * z
    high = 0.5 * (low + x - h * c1 * low + np.sqrt(h) * g1 * z)
    size = np.maximum(np.abs(low + m * VP.a(t - h)), np.abs(x + m * VP.a(t)))
    square = ((low - high) / np.maximum(atol, rtol * size)) ** 2
    expected = np.sqrt(weight @ square @ weight / weight.sum() ** 2)
    assert made.errors[0] == pytest.approx(expected, rel=4e-3)


def test_reuse_saves_a_call_for_each_rejection():
    control = gotta_go_fast(0.05, VP.atol, published=True)
    plain, reused = (mean_field(VP.process, replace(control, reuse=reuse), flat(VP, 1)) for reuse in (False, True))
    assert plain.rejected == reused.rejected == 2
    assert plain.nfe - reused.nfe == 2


PUBLISHED = {("vp", 0.02): 261, ("vp", 0.05): 164, ("vp", 0.1): 119, ("ve", 0.05): 237, ("ve", 0.1): 143}


@pytest.mark.parametrize(("name", "rtol"), PUBLISHED)
def test_power_laws(name, rtol):
    """Mean calls of 24 samples of the replica: within 4 %, 8 % at .1."""
    eq = VP if name == "vp" else VE
    basis = modes.dct((48, 64))
    mean = np.full((48, 64), eq.mean)
    spectrum = Gaussian(basis.forward(mean), ggf.power_law(eq).reshape(48, 64))
    control = gotta_go_fast(rtol, eq.atol, published=True)
    made = mean_field(eq.process, control, modes.Spectral(spectrum, basis), start=Gaussian(mean, 0.0), points=1024)
    assert made.nfe == pytest.approx(PUBLISHED[name, rtol], rel=0.08 if rtol == 0.1 else 0.04)


def test_elements_with_a_basis():
    """A full covariance is seen in its elements: one basis, its law rotated, and the identity."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    control = gotta_go_fast(0.05, VP.atol, published=True)
    variances = ggf.power_law(VP, 6)
    full = mean_field(VP.process, control, Gaussian(np.zeros(6), basis * variances @ basis.T), elements=6)
    spectral = mean_field(VP.process, control, modes.Spectral(Gaussian(np.zeros(6), variances), modes.eigen(basis)), elements=6)
    axes = mean_field(VP.process, control, Gaussian(np.zeros(6), variances))
    np.testing.assert_allclose(full.times, spectral.times, rtol=1e-7)
    assert full.nfe != axes.nfe


def test_steps_follow_the_tolerance():
    """On VE with a small atol calls go like rtol^(-4/5), not -2/3: neighbouring values near 0 make the error a power 5/4 of the step.

    The law's error goes like the square of the step, so like rtol^(8/5).  With the paper's atol the slopes are those of one sample.
    """
    small = proportionality(VE.process, gotta_go_fast(0.05, 1e-6, published=True), flat(VE, 1), (0.01, 0.02, 0.05), points=512)
    assert small.call_slope[0] == pytest.approx(-4 / 5, abs=0.02)
    assert small.error_slope[0] == pytest.approx(8 / 5, abs=0.08)
    usual = proportionality(VE.process, gotta_go_fast(0.05, VE.atol, published=True), flat(VE, 1), (0.01, 0.02, 0.05), points=512)
    np.testing.assert_allclose(np.diff(np.log(usual.nfe)) / np.diff(np.log(usual.rtol)), [-0.66, -0.73], atol=0.04)


def test_slopes():
    rtol = np.array([0.01, 0.02, 0.05, 0.1])
    slope, error = tolerance_slope(rtol, 3.0 * rtol**0.7)
    assert slope == pytest.approx(0.7)
    assert error < 1e-12
    assert tolerance_slope(rtol, np.exp([0.0, 1.0, 0.0, 1.0]))[1] > 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda: control_loop(0.9),
        lambda: control_loop(power(), 0.0),
        lambda: recommended_controller(1.5, 0.0),
        lambda: recommended_controller(1.5, 0.1, -0.1),
        lambda: tolerance_slope([0.1, 0.2], [1.0, 2.0]),
        lambda: mean_field(catalogue.psld(), gotta_go_fast(), flat(VP, 2)),
        lambda: mean_field(VP.process, replace(gotta_go_fast(), norm="max"), flat(VP, 2)),
        lambda: mean_field(VP.process, replace(gotta_go_fast(), scale="sample"), flat(VP, 2)),
        lambda: mean_field(VP.process, replace(gotta_go_fast(), nfe=20), flat(VP, 2)),
    ],
)
def test_refusals(make):
    with pytest.raises(BadInput):
        make()


# ------------------------------------------------------------------------------------------------ plots


def test_responses():
    """Slow disturbances die like frequency times lag; white noise comes out with the noise gain."""
    for controller in LOOPS:
        loop = control_loop(controller)
        assert loop.response(1e-6) / (2e-6 * np.pi) == pytest.approx(loop.lag, rel=1e-6)
        mesh = (np.arange(4000) + 0.5) / 8000.0
        assert np.mean(loop.response(mesh) ** 2) == pytest.approx(loop.noise_gain, rel=1e-6)


def test_plots_show_the_numbers():
    from matplotlib.figure import Figure

    axes = Figure().subplots(1, 5)
    run = mean_field(VP.process, gotta_go_fast(0.1, VP.atol), flat(VP, 1), points=256)
    table = proportionality(VP.process, gotta_go_fast(0.1, VP.atol), flat(VP, 1), (0.1, 0.2, 0.4), points=256)
    made = [
        adaptive_plots.responses({"published": control_loop(power())}, axes[0]),
        adaptive_plots.rejections(axes[1], (256,)),
        adaptive_plots.stationary([EULER, HEUN], axes[2], 1.0),
        adaptive_plots.steps({"flat": run}, axes[3]),
        adaptive_plots.proportionality({"flat": table}, axes[4]),
    ]
    assert made == list(axes)
    x, y = axes[1].lines[0].get_data()
    assert np.interp(0.9, x, y) == pytest.approx(0.0655, abs=1e-3)
    x, y = axes[2].lines[1].get_data()
    np.testing.assert_allclose(y, (1.0 - x / 2.0) / (1.0 - x / 2.0 + x**2 / 4.0))
    assert np.sum(axes[3].lines[0].get_ydata()) == pytest.approx(1.0 - 1e-3)
    np.testing.assert_array_equal(axes[4].lines[0].get_ydata(), table.w2)
