"""The assertions for users' tests pass what is right and stop what is wrong; the strategies give what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from processes import psld, vp

import sdekit as sk
from sdekit import BadInput, Process, testing
from sdekit.law import Gaussian, Mixture

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])


@settings(max_examples=10)
@given(process=testing.processes(), data=testing.gaussians(), grid=testing.grids(12), method=testing.methods(noisy=False))
def test_the_law_of_a_sampler(process, data, grid, method):
    """Whatever is drawn, the assertion is the exact law's own number, from both sides."""
    try:
        exact = sk.analysis.exact_law(process, method=method, grid=grid, data=data)
    except BadInput as error:
        assert method.name in str(error)  # noqa: PT017 - a method that does not fit the process
        return
    testing.assert_law(process, exact.w2 * (1.0 + 1e-9) + 1e-12, data=data, method=method, grid=grid)
    with pytest.raises(AssertionError, match="discretisation"):
        testing.assert_law(process, 0.99 * exact.w2 - 1e-9, data=data, method=method, grid=grid)


def test_methods_are_sorted_by_noise():
    @settings(max_examples=20)
    @given(method=testing.methods(noisy=True))
    def noisy(method):
        assert method.noisy

    noisy()


@settings(max_examples=10)
@given(law=testing.mixtures(3, 2), grid=testing.grids(7, 0.2, 3.0))
def test_what_strategies_draw(law, grid):
    assert law.shape == (3,)
    levels = vp().sigma_eff(grid.times(vp()))
    assert len(levels) == 8
    np.testing.assert_allclose(levels[[0, -1]], [3.0, 0.2], rtol=1e-9)


@pytest.mark.parametrize("data", [LAW, Gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.3]])], ids=["mixture", "gaussian"])
@pytest.mark.parametrize("make", [vp, psld], ids=lambda m: m.__name__)
def test_marginals(make, data):
    process, t, n = make(), 0.3, 20_000
    x0 = data.sample(n, seed=1)
    z = process.kernel(t).sample(x0, np.random.default_rng(0).standard_normal((process.k, n, 2)))
    testing.assert_marginal(z, process, t, data)
    for wrong in (1.03 * z, z + 0.05, z[:, :, ::-1]):
        with pytest.raises(AssertionError, match="standard errors off"):
            testing.assert_marginal(wrong, process, t, data)
    with pytest.raises(AssertionError):
        testing.assert_marginal(z, process, 1.2 * t, data)


def test_a_factor_of_two_in_the_noise_is_caught():
    """What users fear most: sqrt(D) in the place of sqrt(2 D) in a simulator of their own."""
    process, data, n = psld(0.05), Gaussian(0.3, 0.25), 4000
    half = Process(process.F, process.G / np.sqrt(2.0), process.S0, clock=process.clock)
    for source, right in ((process, True), (half, False)):
        made = sk.simulate(source, start=data, times=np.linspace(0.0, 0.3, 601), n=n, seed=2)
        if right:
            testing.assert_marginal(made.z, process, 0.3, data)
        else:
            with pytest.raises(AssertionError, match="covariance"):
                testing.assert_marginal(made.z, process, 0.3, data)


def test_bad_input():
    with pytest.raises(BadInput):
        testing.assert_marginal(np.zeros((1, 5, 2)), psld(), 0.3, LAW)
    with pytest.raises(BadInput):
        testing.assert_marginal(np.zeros((2, 5)), psld(), 0.3, LAW)
