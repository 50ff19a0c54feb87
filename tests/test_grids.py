"""Grids: published levels, closed formulas, the moving of ends into the range of a process, and what is refused."""

import numpy as np
import pytest
from processes import ALL, cld, edm, names, over, psld, under, ve, vp

from sdekit import BadInput, grids

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
     grids.quadratic(30), grids.quadratic(10, end=0.0)],
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
