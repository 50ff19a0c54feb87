"""The posterior of denoisers whose slopes are wrong, as those of trained networks are: neither symmetric nor positive."""

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit.torch.conditional import Posterior, _slopes
from sdekit.torch.data import digits

AT = np.arange(16.0)
COV = np.exp(-((AT[:, None] - AT) ** 2) / 18.0) + 1e-4 * np.eye(16)  # smooth: most directions are hardly there
MASK = AT < 8
NOISE = 0.05


def gain(sigma):
    return np.linalg.solve(COV + sigma**2 * np.eye(16), COV)


def wrong(size, seed=0):
    """A matrix of that norm, neither symmetric nor positive."""
    made = np.random.default_rng(seed).standard_normal((16, 16))
    return size * made / np.linalg.norm(made, 2)


def linear(size):
    """The exact denoiser of N(0, COV), its slopes wrong by a matrix of norm ``size``."""
    return lambda y, sigma: y @ torch.from_numpy(gain(float(sigma)) + wrong(size))


def exact(y, values, sigma):
    """The conditional mean, by Gaussian elimination."""
    gain_ = COV[:, MASK] @ np.linalg.inv(COV[MASK][:, MASK] + NOISE**2 * np.eye(8))
    mean, cov = gain_ @ values[MASK], COV - gain_ @ COV[MASK]
    return mean + (y - mean) @ np.linalg.solve(cov + sigma**2 * np.eye(16), cov)


def test_both_parts_of_the_slopes():
    y = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 16))).requires_grad_(True)
    sigma = torch.tensor([[0.3], [2.0]], dtype=torch.float64)
    slope = torch.from_numpy(wrong(1.0))
    pull = _slopes(y @ slope.T, y, torch.from_numpy(MASK), sigma**2)
    v = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 8)))
    full = torch.cat([v, torch.zeros(2, 8, dtype=torch.float64)], 1)
    for made, matrix in zip(pull(v), (0.5 * (slope + slope.T), 0.5 * (slope - slope.T)), strict=True):
        torch.testing.assert_close(made, sigma**2 * full @ matrix.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0, 10.0])
def test_wrong_slopes_are_not_inverted(sigma):
    """Errors stay in proportion to those of the slopes, where solving the equations as they stand multiplies them."""
    values = np.random.default_rng(3).multivariate_normal(np.zeros(16), COV)
    y = values + sigma * np.random.default_rng(4).standard_normal((20, 16))
    want, plain = exact(y, values, sigma), y @ gain(sigma)
    assert Posterior(linear(0.0), MASK, values, NOISE)(y, sigma) == pytest.approx(want, abs=1e-6)
    missed = np.abs(plain - want).max()
    for size in (1e-4, 1e-2):
        made = Posterior(linear(size), MASK, values, NOISE)(y, sigma)
        assert np.abs(made - want).max() < min(0.6 * missed, 10.0 * size * (1.0 + sigma**2))
    if sigma >= 2.0:
        told, slope = linear(1e-2)(torch.from_numpy(y), sigma).numpy(), (gain(sigma) + wrong(1e-2)).T
        w = np.linalg.solve(sigma**2 * slope[MASK][:, MASK] + NOISE**2 * np.eye(8), (values - told)[:, MASK].T)
        assert np.abs(made - want).max() < 0.5 * np.abs(told + sigma**2 * (slope[:, MASK] @ w).T - want).max()


@pytest.mark.images
def test_the_shipped_network():
    """Half of a digit is seen: samples stay in the range of images, and agree with what is seen to about its noise."""
    denoise, seen = sk.torch.load("digits"), digits().held_out[0]
    mask = np.zeros(seen.shape, bool)
    mask[:, :4] = True
    given = Posterior(denoise, mask, seen, NOISE)
    run = sk.sample(sk.catalogue.edm(), given, method=sk.methods.exponential(2), grid=sk.grids.karras(10), n=2, dtype=torch.float32)
    assert np.abs(run.x.numpy()).max() < 1.3
    assert np.sqrt(np.mean((run.x.numpy() - seen)[:, mask] ** 2)) < 2.5 * NOISE
