"""Steps side by side, each with times of its own, have the rows of each step alone: for every method with an embedded result."""

import numpy as np
import pytest
from processes import edm, psld, third_order, ve, vp

from sdekit import methods
from sdekit.reverse import Reverse
from sdekit.tableau import Step

METHODS = [
    methods.heun(), methods.heun(1.0), methods.lamba(), methods.sra(1), methods.sra(3), methods.runge_kutta("bogacki_shampine"),
    methods.runge_kutta("dormand_prince"), methods.rho_rk("dormand_prince"), methods.rho_rk("heun", clock="time"), methods.dpm_solver(2),
    methods.dpm_solver(3), methods.dpm_solver(3, of="data"), methods.dpm_solver(2, of="data", noise=1.0), methods.exponential_rk(2),
    methods.dpmpp_sde(),
]  # fmt: skip


@pytest.mark.parametrize("make", [vp, edm, ve, psld, third_order])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_rows_side_by_side(make, method):
    process = make()
    times = process.T * np.sort(np.random.default_rng(0).uniform(0.05, 0.9, (2, 4)), axis=0)[::-1]
    all_ = method.rows(Step(Reverse(process, method.noise).leg(times), 0))
    for j in range(4):
        one = method.rows(Step(Reverse(process, method.noise).leg(times[:, j]), 0))
        assert (all_.noises, all_.answers) == (one.noises, one.answers)
        pairs = [(all_.out[j], one.out), (all_.embedded[j], one.embedded)]
        for ours, ask in zip(all_.asks, one.asks, strict=True):
            pairs.append((ours.argument[j], ask.argument))
            assert ours.level.ravel()[j] == pytest.approx(ask.level, rel=1e-13)
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=3e-12 * np.max(np.abs(theirs)))
