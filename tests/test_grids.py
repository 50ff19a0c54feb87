"""Grids: published levels, closed formulas, the moving of ends into the range of a process, and what is refused."""

import numpy as np
import pytest
from processes import ALL, cld, edm, names, over, psld, under, ve, vp

from sdekit import BadInput, Process, clocks, grids

KARRAS_18 = [80, 57.586, 40.786, 28.375, 19.352, 12.910, 8.401, 5.315, 3.257, 1.923, 1.088, 0.5853, 0.2964, 0.1395, 0.05995, 0.0229, 0.0075, 0.002, 0]


def levels(grid, process):
    return process.sigma_eff(grid.times(process))


def test_published_karras_levels():
    np.testing.assert_allclose(levels(grids.karras(18), edm()), KARRAS_18, rtol=4e-3)
    exact = [80.0, 17.5278320, 2.51521898, 0.169752756, 0.002, 0.0]
    np.testing.assert_allclose(levels(grids.karras(5), edm()), exact, rtol=1e-8)
    np.testing.assert_allclose(levels(grids.karras(4, zero=False), edm()), exact[:-1], rtol=1e-8)


@pytest.mark.parametrize("make", ALL, ids=names)
@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_karras_is_uniform_in_a_power_of_the_level(make, rho):
    process = make()
    low, high = 0.05, 5.0
    made = levels(grids.karras(7, low, high, rho, zero=False), process)
    np.testing.assert_allclose(made ** (1.0 / rho), np.linspace(high ** (1.0 / rho), low ** (1.0 / rho), 8), rtol=1e-10)


PRINTED = {  # levels between 0.002 and 80 in five points, as published or computed from the published formula
    "karras": (grids.karras(5), [80.0, 17.5278320, 2.51521898, 0.169752756, 0.002]),
    "polyexponential": (grids.polyexponential(5, rho=2.0), [80.0, 0.775691, 0.0282843, 0.00387845, 0.002]),
    "arctan": (grids.arctan(5), [80.0, 2.35488, 0.989555, 0.412311, 0.002]),
}


@pytest.mark.parametrize("name", PRINTED)
def test_printed_levels(name):
    grid, printed = PRINTED[name]
    np.testing.assert_allclose(levels(grid, edm()), [*printed, 0.0], rtol=2e-6)


@pytest.mark.parametrize("make", ALL, ids=names)
def test_polyexponential_and_arctan_are_uniform_where_they_say(make):
    process, low, high = make(), 0.05, 5.0
    made = levels(grids.polyexponential(8, low, high, 3.0, zero=False), process)
    np.testing.assert_allclose(np.log(made), np.log(low) + np.linspace(1.0, 0.0, 9) ** 3 * np.log(high / low), atol=1e-10)
    made = levels(grids.arctan(8, low, high, 0.5, zero=False), process)
    np.testing.assert_allclose(np.diff(np.arctan(2.0 * made)), (np.arctan(0.1) - np.arctan(10.0)) / 8, rtol=1e-9)
    plain = grids.polyexponential(8, low, high, zero=False).times(process)
    np.testing.assert_allclose(plain, grids.logsnr(8, low, high).times(process), rtol=1e-13)


def test_arctan_is_the_uniform_grid_of_the_cosine_schedule():
    """With sigma = tan(pi t / 2) the angle is the time."""
    t = np.linspace(0.99, 0.01, 7)
    level = np.tan(0.5 * np.pi * t)
    np.testing.assert_allclose(levels(grids.arctan(6, level[-1], level[0], zero=False), edm()), level, rtol=1e-10)


def test_vp_is_the_uniform_grid_of_the_variance_preserving_process():
    t = np.linspace(1.0, 1e-3, 7)
    level = np.sqrt(np.exp(9.95 * t**2 + 0.1 * t) - 1.0)
    wide = Process([[0.0]], [[1.0]], clock=clocks.linear(0.0, 600.0, 300.0), name="wide")
    np.testing.assert_allclose(levels(grids.vp(6, zero=False), wide), level, rtol=1e-9)
    np.testing.assert_allclose(levels(grids.vp(7), wide), [*level, 0.0], rtol=1e-9)
    np.testing.assert_allclose(grids.vp(6, zero=False).times(vp()), t, rtol=1e-9)
    np.testing.assert_allclose(grids.vp(6, zero=False).times(vp()), grids.uniform(6).times(vp()), rtol=1e-9)


def test_beta_levels_are_quantiles():
    """Beta(1/2, 1/2) is the arcsine law, Beta(1, 1) the uniform one; of Beta(0.6, 0.6) the distribution function is integrated by hand."""
    u = np.linspace(0.0, 1.0, 6)
    span = 40.0 - 0.5
    made = levels(grids.beta(5, 0.5, 40.0, 0.5, 0.5, zero=False), edm())
    np.testing.assert_allclose(made, 0.5 + span * np.cos(0.5 * np.pi * u) ** 2, rtol=1e-9)
    np.testing.assert_allclose(levels(grids.beta(5, 0.5, 40.0, 1.0, 1.0, zero=False), edm()), 40.0 - span * u, rtol=1e-12)
    np.testing.assert_allclose(levels(grids.beta(5, 0.5, 40.0, 1.0, 2.0, zero=False), edm()), 40.0 - span * np.sqrt(u), rtol=1e-12)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    for share, level in zip(1.0 - u[1:-1], levels(grids.beta(6, 0.5, 40.0), edm())[1:-2], strict=True):
        top = ((level - 0.5) / span) ** 0.6  # x = y^(1/0.6) takes the singularity at 0 away, 1 - x stays above 0.1
        halves = [0.5 * end * np.sum(weights * (1.0 - (0.5 * end * (1.0 + nodes)) ** (1.0 / 0.6)) ** -0.4) for end in (top, 0.5**0.6)]
        assert halves[0] / (2.0 * halves[1]) == pytest.approx(share, rel=1e-4)
    shape = levels(grids.beta(9, 0.5, 40.0, 0.6, 0.6, zero=False), edm())
    np.testing.assert_allclose(shape + shape[::-1], 40.5, rtol=1e-9)


AYS = {  # published with three digits
    "sd": [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0],
    "sdxl": [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.0],
}


@pytest.mark.parametrize("table", AYS)
def test_ays_tables(table):
    made = levels(grids.ays(10, table), vp())
    np.testing.assert_allclose(made, AYS[table], rtol=1.5e-2)  # the tables were published twice, rounded to labels and not
    np.testing.assert_allclose(levels(grids.ays(20, table), vp())[:-1:2], made[:-1], rtol=1e-9)
    np.testing.assert_allclose(levels(grids.ays(20, table), vp())[1:-2:2], np.sqrt(made[:-2] * made[1:-1]), rtol=1e-9)  # log-linear
    assert levels(grids.ays(5, table, zero=False), vp())[-1] == pytest.approx(0.0291671582, rel=1e-9)


def test_ays_is_stretched_to_the_levels_of_a_process():
    svd = [700, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034]
    wide = Process([[0.0]], [[1.0]], clock=clocks.linear(0.0, 2000.0, 1000.0), name="wide")
    np.testing.assert_allclose(levels(grids.ays(10, "svd"), wide), [*svd, 0.0], rtol=1e-9)
    made = np.log(levels(grids.ays(10, "svd"), edm())[:-1])
    np.testing.assert_allclose(np.diff(made) / np.diff(np.log(svd)), np.log(80.0 / 0.034) / np.log(700.0 / 0.034), rtol=1e-8)


@pytest.mark.parametrize("make", ALL, ids=names)
def test_bent_follows_its_density(make):
    """No bends are uniform in the log; one bend has a closed form; more are compared with a quadrature of the formula."""
    process, low, high = make(), 0.05, 5.0
    np.testing.assert_allclose(grids.bent(9, (), low, high, zero=False).times(process), grids.logsnr(9, low, high).times(process), rtol=1e-12)
    u = np.linspace(0.0, 1.0, 10)
    made = np.log(levels(grids.bent(9, [0.8], low, high, zero=False), process) / high) / np.log(low / high)
    np.testing.assert_allclose(made, np.expm1(1.6 * u) / np.expm1(1.6), atol=1e-9)
    fine = np.linspace(0.0, 1.0, 20_001)
    x = 2.0 * fine - 1.0
    speed = np.exp(-0.5 * x + 0.7 * (1.5 * x**2 - 0.5) - 0.4 * (2.5 * x**3 - 1.5 * x))
    way = np.append(0.0, np.cumsum(0.5 * (speed[1:] + speed[:-1])))
    made = np.log(levels(grids.bent(9, [-0.5, 0.7, -0.4], low, high, zero=False), process) / high) / np.log(low / high)
    np.testing.assert_allclose(made, np.interp(u, fine, way / way[-1]), atol=1e-7)


@pytest.mark.parametrize("make", ALL, ids=names)
def test_logsnr_is_uniform_in_the_logarithm(make):
    process = make()
    np.testing.assert_allclose(np.diff(np.log(levels(grids.logsnr(9, 0.05, 5.0), process))), np.log(0.01) / 9, rtol=1e-9)
    with_end = levels(grids.logsnr(9, 0.05, 5.0, zero=True), process)
    np.testing.assert_allclose(np.diff(np.log(with_end[:-1])), np.log(0.01) / 8, rtol=1e-9)
    assert grids.logsnr(9, 0.05, 5.0, zero=True).times(process)[-1] == 0.0


@pytest.mark.parametrize("make", ALL, ids=names)
@pytest.mark.parametrize(
    "grid",
    [grids.karras(), grids.karras(1), grids.karras(40, rho=2.0), grids.logsnr(), grids.logsnr(3, zero=True), grids.uniform(), grids.uniform(1),
     grids.quadratic(30), grids.quadratic(10, end=0.0), grids.cosine(7), grids.cosine(1, end=0.0), grids.polyexponential(9, rho=2.0),
     grids.polyexponential(1), grids.arctan(8), grids.arctan(3, scale=0.1, zero=False), grids.beta(8), grids.beta(1), grids.vp(30), grids.vp(1),
     grids.ays(13), grids.ays(1), grids.ays(4, "sdxl", zero=False), grids.bent(1, [0.4]), grids.bent(200, [2.0, -3.0, 1.0]),
     grids.bent(3, [30.0, -20.0])],
)  # fmt: skip
def test_n_is_the_number_of_steps_and_times_decrease(make, grid):
    process = make()
    times = grid.times(process)
    assert len(times) == grid.n + 1
    assert np.all(np.diff(times) < 0.0)
    assert times[0] <= process.T
    assert times[-1] >= 0.0


def test_uniform_and_quadratic_times():
    np.testing.assert_allclose(grids.uniform(4, end=0.2).times(vp()), [1.0, 0.8, 0.6, 0.4, 0.2], rtol=1e-14)
    np.testing.assert_allclose(grids.uniform(4).times(edm()), 0.08 + 79.92 * np.array([1.0, 0.75, 0.5, 0.25, 0.0]), rtol=1e-14)
    k = np.arange(11)
    np.testing.assert_allclose(grids.quadratic(10).times(psld()), 1.0 - (1.0 - 1e-3) * (1.0 - (1.0 - k / 10.0) ** 2), rtol=1e-12)
    last = grids.quadratic(10).times(psld())
    assert last[-2] - last[-1] == pytest.approx((1.0 - 1e-3) / 100.0, rel=1e-12)


def test_cosine_times():
    i = np.arange(6)
    np.testing.assert_allclose(grids.cosine(5, end=0.1).times(vp()), 0.1 + 0.9 * np.cos(np.pi * i / 10.0), rtol=1e-12)
    np.testing.assert_allclose(grids.cosine(5, end=0.0).times(edm()), 80.0 * np.cos(np.pi * i / 10.0), atol=1e-12)


def test_levels_are_capped_at_what_the_process_has():
    """The top moves down to sigma_eff(T); the bottom moves up only where the data block starts with noise."""
    for make in (under, over):
        times = grids.karras(6).times(make())
        assert times[0] == make().T
    for n in range(1, 15):
        for rho in (1.0, 2.0, 3.0, 7.0):
            assert grids.karras(n, sigma_max=1e9, rho=rho).times(vp())[0] == 1.0  # not one digit less
        assert grids.logsnr(n, sigma_max=1e9).times(psld())[0] == 1.0
    assert levels(grids.karras(6), cld())[0] == pytest.approx(80.0, rel=1e-12)
    assert levels(grids.karras(6), cld())[-2] == pytest.approx(0.002, rel=1e-12)
    assert levels(grids.karras(6), ve())[0] == pytest.approx(50.0, rel=1e-12)
    assert 0.01 < levels(grids.karras(6), ve())[-2] < 0.0101
    assert grids.karras(6).times(ve())[-2] == pytest.approx(1e-5, rel=1e-6)
    for rule in (grids.polyexponential, grids.arctan, grids.beta, grids.vp, grids.bent):
        for n in range(1, 15):
            assert rule(n, sigma_max=1e9).times(vp())[0] == 1.0
            assert levels(rule(n, sigma_min=0.02, sigma_max=1e9, zero=False), vp())[-1] == pytest.approx(0.02, rel=1e-12)
    with pytest.raises(BadInput, match="highest level"):
        grids.karras(6, sigma_min=10.0, sigma_max=20.0).times(under())


def test_given_times_and_levels():
    np.testing.assert_array_equal(grids.times([0.9, 0.3, 0.0]).times(vp()), [0.9, 0.3, 0.0])
    np.testing.assert_allclose(levels(grids.sigmas([5.0, 1.0, 0.1, 0.0]), psld()), [5.0, 1.0, 0.1, 0.0], rtol=1e-12)
    with pytest.raises(BadInput):
        grids.times([1.5, 0.3]).times(vp())
    with pytest.raises(BadInput):
        grids.sigmas([500.0, 0.3]).times(vp())


def test_grids_of_one_recipe_are_equal():
    assert grids.karras(18) == grids.karras(18)
    assert hash(grids.karras(18)) == hash(grids.karras(18))
    assert grids.karras(18) != grids.karras(19)
    assert grids.karras(18) != grids.logsnr(18, zero=True)
    assert grids.karras(18) != grids.polyexponential(18, rho=7.0)
    assert grids.bent(5, [0.1, 0.2]) == grids.bent(5, (0.1, 0.2))
    assert grids.bent(5, [0.1, 0.2]) != grids.bent(5, [0.2, 0.1])
    assert grids.cosine(5) != grids.quadratic(5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: grids.karras(0),
        lambda: grids.karras(-3),
        lambda: grids.karras(1.5),
        lambda: grids.karras(True),
        lambda: grids.karras(5, sigma_min=0.0),
        lambda: grids.karras(5, sigma_min=1.0, sigma_max=1.0),
        lambda: grids.karras(5, sigma_min=2.0, sigma_max=1.0),
        lambda: grids.karras(5, sigma_max=float("inf")),
        lambda: grids.karras(5, rho=0.0),
        lambda: grids.karras(5, rho=-7.0),
        lambda: grids.logsnr(5, sigma_min=-1.0),
        lambda: grids.logsnr("5"),
        lambda: grids.uniform(0),
        lambda: grids.uniform(5, end=float("nan")),
        lambda: grids.uniform(5, end=1.0).times(vp()),
        lambda: grids.quadratic(5, end=-0.1).times(vp()),
        lambda: grids.cosine(0),
        lambda: grids.cosine(5, end=1.0).times(vp()),
        lambda: grids.polyexponential(5, rho=0.0),
        lambda: grids.arctan(5, scale=-1.0),
        lambda: grids.beta(5, alpha=0.0),
        lambda: grids.beta(5, beta=float("nan")),
        lambda: grids.vp(5, beta_min=0.0),
        lambda: grids.vp(5, beta_max=0.1),
        lambda: grids.bent(5, ["steep"]),
        lambda: grids.bent(5, [40.0, -11.0]),
        lambda: grids.bent(5, [float("inf")]),
        lambda: grids.ays(0),
        lambda: grids.ays(10, "flux"),
        lambda: grids.times([0.5]),
        lambda: grids.times([0.5, 0.5]),
        lambda: grids.times([0.1, 0.5]),
        lambda: grids.times([0.5, -0.1]),
        lambda: grids.times([0.5, float("nan")]),
        lambda: grids.times("late, early"),
        lambda: grids.times([[1.0, 0.5]]),
        lambda: grids.sigmas([1.0, 2.0]),
        lambda: grids.sigmas([]),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
