"""Pseudo numerical methods: published errors, orders, and what they do normal to the data."""

from itertools import pairwise

import numpy as np
import pytest
from by_hand import s
from processes import edm, vp
from scipy.integrate import solve_ivp

from sdekit import analysis, grids, methods, plans
from sdekit.law import Mixture
from sdekit.solve import program, solve

MIXTURE = Mixture([0.3, 0.7], [[-1.0], [0.8]], [[0.0625], [0.16]])
PSEUDO = [
    *(methods.pndm(clock) for clock in ("log", "sigma", "time")), *(methods.prk(midpoint) for midpoint in ("sigma", "log", "time")),
    *(methods.ipndm(order) for order in (1, 2, 3, 4)), methods.s_pndm(), methods.f_pndm(), methods.plms(), methods.pseudo_improved_euler(),
]  # fmt: skip


def run(process, grid, method, x, denoise):
    return solve(program(process, plans.run(grid, method)), [x], denoise)[0][0]


def published_errors(method, counts):
    """y' = (y - D) / rho from 5 to .1, nine starts, uniform log rho."""
    y = 5.0 * np.linspace(-2.0, 2.0, 9)
    denoise = MIXTURE.denoiser()
    rate = lambda u, y: y - denoise(y[:, None], np.exp(u))[:, 0]  # noqa: E731
    exact = solve_ivp(rate, np.log([5.0, 0.1]), y, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    return [float(np.max(np.abs(run(edm(), grids.logsnr(n, 0.1, 5.0), method, y[:, None], denoise)[:, 0] - exact))) for n in counts]


@pytest.mark.parametrize(
    ("method", "expected", "near"),
    [(methods.ipndm(1), 1.0, 0.1), (methods.s_pndm(), 2.0, 0.1), (methods.f_pndm("log"), 2.0, 0.1), (methods.plms(), 2.0, 0.1),
     (methods.prk("log"), 2.0, 0.1), (methods.prk("sigma"), 4.0, 0.1), (methods.f_pndm("sigma"), 2.0, 0.1), (methods.pndm(clock="sigma"), 4.0, 0.15)],
    ids=str,
)  # fmt: skip
def test_published_orders(method, expected, near):
    assert expected == (method.orders.one_block or method.orders.ode)
    errors = published_errors(method, (80, 160, 320))
    np.testing.assert_allclose([np.log2(first / second) for first, second in pairwise(errors)], expected, atol=near)


def test_published_errors():
    """Errors at 40 and 320 steps; the midpoint in sigma makes the same four calls 1,000 times better."""
    for method, first, last in (
        (methods.ipndm(1), 9.6e-2, 1.1e-2),
        (methods.s_pndm(), 5.9e-3, 9.8e-5),
        (methods.f_pndm("log"), 1.4e-3, 2.2e-5),
        (methods.prk("sigma"), 1.1e-6, 3.0e-10),
    ):
        np.testing.assert_allclose(published_errors(method, (40, 320)), [first, last], rtol=0.05)


def test_exact_weights_against_the_published():
    """F-PNDM of order 4 with the published start (12 calls) had 2.2e-4 at 20 steps and 5.7e-9 at 320; ours changes sign on the way."""
    errors = published_errors(methods.pndm(), (20, 320))
    assert errors[0] < 6e-4
    assert errors[1] < 3e-9
    assert np.log2(errors[0] / errors[1]) / 4.0 > 3.9
    assert errors[0] < 0.15 * published_errors(methods.f_pndm("log"), (20,))[0]  # which makes 7 calls more


@pytest.mark.parametrize("clock", ["sigma", "time"])
def test_order_four_on_every_clock(clock):
    report = analysis.order(methods.pndm(clock), vp(), steps=(40, 80, 160, 320))
    assert report.claimed == 4
    assert report.verdict == "confirmed", f"{report} {report.slopes}"


def test_the_released_fon_does_not_converge():
    """The derivative over one training index leaves a bias of T / 1000, which no number of steps removes."""
    report = analysis.order(methods.fon(released=True), vp(), steps=(40, 80, 160))
    assert report.claimed is None
    assert report.order < 0.3
    assert report.errors[-1] > 100.0 * analysis.order(methods.fon(), vp(), steps=(80, 160)).errors[-1]


def factor(method, grid):
    """Numerical over exact growth of a direction normal to the data, on VP."""
    process = vp()
    times = grid.times(process)
    exact = s(times[-1]) / s(times[0])
    return float(run(process, grid, method, np.ones((1, 1)), lambda y, sigma: 0.0 * y)[0, 0] / exact)


@pytest.mark.parametrize(
    ("method", "expected"),
    [(methods.euler(), [4.18826, 2.18777, 1.66748, 1.46903]), (methods.runge_kutta("rk4"), [-20.20, -4.052, -0.2266, 0.63368]),
     (methods.heun(), [-68.1, -16.2, -3.89, -0.847]), (methods.fon(), [1.79242, 1.63688, 1.45878, 1.29998])],
    ids=str,
)  # fmt: skip
def test_classical_methods_leave_the_data(method, expected):
    digits = {"heun": 3e-3, "runge_kutta(rk4)": 2e-4}.get(method.name, 3e-6)
    np.testing.assert_allclose([factor(method, grids.uniform(n)) for n in (10, 20, 50, 100)], expected, rtol=digits)


@pytest.mark.parametrize("method", [*PSEUDO, methods.exponential(3), methods.exponential(2, of="eps")], ids=str)
def test_pseudo_methods_stay_on_it(method):
    """On any grid, to the rounding that weights of both signs let grow over uneven steps."""
    for grid in (grids.uniform(20), grids.uniform(50), grids.logsnr(20, 0.01, 50.0), grids.karras(18, 0.02, 50.0, zero=False)):
        assert factor(method, grid) == pytest.approx(1.0, abs=1e-12)
    for grid in (grids.uniform(10), grids.times([1.0, 0.9, 0.2, 0.19, 0.05, 1e-3])):
        assert factor(method, grid) == pytest.approx(1.0, abs=1e-8)
