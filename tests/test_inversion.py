"""Inversion: against the exact flow of Gaussian data, and back again."""

import numpy as np
import pytest
from processes import cld, edm, psld, third_order, vp

from sdekit import BadInput, denoiser, grids, invert, methods, sample
from sdekit.analysis.exact import reverse_transition
from sdekit.law import Gaussian, Mixture

MEAN, VARIANCES = np.array([0.3, -0.2]), np.array([0.5, 0.05])
LAW = Gaussian(MEAN, VARIANCES)
MIXTURE = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])
by_process = pytest.mark.parametrize("make", [vp, edm, cld, psld, third_order], ids=lambda m: m.__name__)


def gap(process, n, order):
    """Distance from the exact flow back of where the inversion ends to its start, over the start's size."""
    grid = grids.logsnr(n, 0.1, 5.0)
    times, x = grid.times(process), LAW.sample(4, seed=1)
    run = invert(process, LAW.denoiser(), x, grid, order=order)
    back = reverse_transition(process, 0.0, times[-1], times[0], MEAN, VARIANCES)
    found = np.einsum("ijd,jnd->ind", back.matrix, run.state) + back.offset[:, None]
    start = np.multiply.outer(process.kernel(times[-1]).psi, x)
    return np.max(np.abs(found - start)) / np.max(np.abs(start))


@pytest.mark.parametrize("order", [1, 2])
@by_process
def test_order_against_the_exact_flow(make, order):
    process = make()
    coarse, fine = gap(process, 60, order), gap(process, 120, order)
    assert np.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@by_process
def test_sampling_from_the_inverse_returns_the_data(make):
    process, x, grid = make(), MIXTURE.sample(6, seed=2), grids.logsnr(160, 0.1, 5.0)
    run = invert(process, MIXTURE.denoiser(), x, grid)
    t = float(grid.times(process)[0])
    again = sample(process, MIXTURE.denoiser(), method=methods.exponential_rk(2), grid=grid, start=(run.state, t))
    np.testing.assert_allclose(again.x / process.kernel(float(grid.times(process)[-1])).psi[0], x, atol=2e-3)
    assert run.nfe.tolist() == [320] * 6
    assert run.status == ("ok",) * 6


def test_ddim_inversion():
    """One block, in y = x / psi: y_t = y_s + (sigma_t - sigma_s) (y_s - D(y_s)) / sigma_s, upwards."""
    process, x = vp(), MIXTURE.sample(3, seed=3)
    levels = np.array([3.0, 1.0, 0.4])
    grid = grids.sigmas([*levels, 0.0])
    run = invert(process, MIXTURE.denoiser(), x, grid, order=1)
    y = x
    for low, high in ((0.4, 1.0), (1.0, 3.0)):
        y = y + (high - low) * (y - MIXTURE.denoiser()(y, low)) / low
    np.testing.assert_allclose(run.x, float(process.kernel(grid.times(process)[0]).psi[0]) * y, atol=1e-10)
    assert run.nfe.tolist() == [2, 2, 2]


def test_start_from_the_kernel_and_a_model_of_the_state():
    process, x, grid = psld(), LAW.sample(5, seed=4), grids.logsnr(20, 0.1, 5.0)
    score = denoiser.StateScore(lambda z, t: denoiser.score(process, LAW.denoiser(), z, t), (2,))
    drawn = invert(process, LAW.denoiser(), x, grid, start="sample", seed=7)
    np.testing.assert_allclose(invert(process, score, x, grid, start="sample", seed=7).state, drawn.state, atol=1e-8)
    assert np.max(np.abs(drawn.state - invert(process, LAW.denoiser(), x, grid).state)) > 0.1
    same = invert(process, LAW.denoiser(), x[:2], grid, start="sample", seed=7)
    np.testing.assert_array_equal(same.state, drawn.state[:, :2])


@pytest.mark.torch
def test_torch():
    torch = pytest.importorskip("torch")
    x, grid = LAW.sample(3, seed=4), grids.logsnr(10, 0.1, 5.0)
    found = invert(psld(), LAW.denoiser(), torch.from_numpy(x), grid, dtype=torch.float64)
    np.testing.assert_allclose(found.state.numpy(), invert(psld(), LAW.denoiser(), x, grid).state, atol=1e-12)


@pytest.mark.parametrize("change", [{"order": 3}, {"start": "none"}, {"x": 3.0}, {"x": np.zeros((0, 2))}])
def test_bad_input(change):
    given = {"x": np.zeros((1, 2)), **change}
    with pytest.raises(BadInput):
        invert(vp(), LAW.denoiser(), given.pop("x"), grids.karras(5), **given)
