"""Samples given part of the data: Gaussian data, where the conditional law is a formula and every sampler is affine."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit.torch import adapters, conditional
from sdekit.torch.conditional import Posterior, imputed

PSLD = sk.catalogue.psld(Gamma=0.01)
PAIR = 0.25 * np.array([[1.0, 0.8], [0.8, 1.0]])
FIRST, HALF = np.array([True, False]), np.array([0.5, 0.0])


class Units:
    """Normals as unit vectors: sample 0 has none, sample j the j-th alone; so an affine sampler shows its mean and its columns."""

    def __init__(self):
        self.at = {}

    def draw(self, addresses, ids, shape, like=None):
        size = int(np.prod(shape))
        out = np.zeros((len(addresses), len(ids), size))
        for i, address in enumerate(addresses):
            first = self.at.setdefault(address, 1 + size * len(self.at))
            out[i, first + np.arange(size), np.arange(size)] = 1.0
        return out.reshape(len(addresses), len(ids), *shape)


def moments(process, denoise, plan, d, most=1000, start=None):
    """Exact mean and covariance of the samples of a plan that is affine."""
    source = Units()
    run = sk.sample(process, denoise, plan=plan, n=most, batch=most, shape=(d,), seed=source, start=start)
    used = 1 + d * len(source.at)
    assert used <= most
    assert np.array_equal(run.x[used:], np.broadcast_to(run.x[0], run.x[used:].shape))
    columns = run.x[1:used] - run.x[0]
    return run.x[0], columns.T @ columns


# ------------------------------------------------------------------------------------------------------------------ imputation


def by_hand(process, times, level, repeats=1):
    """Mean and covariance of imputation with Euler-Maruyama's steps on the pair, by matrices; the state is all blocks of x1, then x2."""
    k = process.k
    known = np.arange(2 * k) % 2 == 0

    kernels, drifts, noises, eye = process.kernel(times), process.drift(times), process.noise(times), np.eye(2)

    def impute(mean, cov, i):
        mean, cov = np.where(known, 0.0, mean), cov * np.outer(~known, ~known)
        mean[known], cov[np.ix_(known, known)] = kernels.psi[i] * 0.5, kernels.cov[i]
        return mean, cov

    mean, cov = np.zeros(2 * k), np.kron(kernels.cov[0], eye)
    for (i, (t, s)), r in product(enumerate(pairwise(times)), range(repeats)):
        if r:
            up = process.transition(s, t)
            step = np.kron(up.mean, eye)
            mean, cov = step @ mean, step @ cov @ step.T + np.kron(up.cov, eye)
        if level == "own":
            mean, cov = impute(mean, cov, i)
        psi, h = kernels.psi[i], t - s
        noise = np.kron(noises[i] @ noises[i].T, eye)
        precision = np.linalg.inv(np.kron(np.outer(psi, psi), PAIR) + np.kron(kernels.cov[i], eye))
        step = np.eye(2 * k) - h * (np.kron(drifts[i], eye) + noise @ precision)
        mean, cov = step @ mean, step @ cov @ step.T + h * noise
        if level == "released":
            mean, cov = impute(mean, cov, i)
    mean, cov = impute(mean, cov, -1)
    return mean[:2], cov[:2, :2]


@pytest.mark.parametrize(("level", "mean"), [("own", 0.250742), ("released", 0.250227)])
def test_the_bias_of_imputation_is_that_of_the_fact_sheet(level, mean):
    """recipe.md 6.2: exact would be 0.4 and 0.09."""
    made, cov = by_hand(PSLD, sk.grids.uniform(1000, 1e-3).times(PSLD), level)
    assert made[1] == pytest.approx(mean, abs=5e-7)
    assert cov[1, 1] == pytest.approx(0.124250, abs=5e-6)


@pytest.mark.parametrize(("level", "repeats", "n"), [("own", 1, 60), ("released", 1, 60), ("own", 3, 20), ("released", 2, 20)])
@pytest.mark.parametrize("process", [PSLD, sk.catalogue.vp(), sk.catalogue.third_order()], ids=["psld", "vp", "third order"])
def test_imputation_is_the_formula(process, level, repeats, n):
    grid = sk.grids.uniform(n, 1e-2)
    plan = imputed(sk.plans.run(grid, sk.methods.euler(noise=1.0)), FIRST, HALF, level=level, repeats=repeats)
    mean, cov = moments(process, sk.law.Gaussian(np.zeros(2), PAIR).denoiser(), plan, 2)
    expected, spread = by_hand(process, grid.times(process), level, repeats)
    assert mean == pytest.approx(expected, rel=1e-9, abs=1e-11)
    assert cov == pytest.approx(spread, rel=1e-9, abs=1e-11)


def test_repeats_come_nearer():
    denoise = sk.law.Gaussian(np.zeros(2), PAIR).denoiser()
    plan = sk.plans.run(sk.grids.karras(10, 0.005, 80.0), sk.methods.exponential(1, noise=1.0))
    means = []
    for repeats in (1, 4, 8):
        mean, cov = moments(PSLD, denoise, imputed(plan, FIRST, HALF, repeats=repeats), 2)
        assert (mean[0], cov[0, 0], cov[0, 1]) == (0.5, 0.0, 0.0)
        means.append(mean[1])
    assert means[0] < means[1] - 0.05 < means[2] - 0.07 < 0.4 - 0.07
    run = sk.sample(PSLD, denoise, plan=imputed(plan, FIRST, HALF, repeats=3), n=2)
    assert run.nfe.tolist() == [30, 30]


def test_imputation_goes_with_restart_and_torch():
    plan = imputed(sk.plans.restart(sk.grids.karras(6, 0.05, 20.0), [(3, 2, 0.1, 0.5)]), FIRST, HALF)
    law = sk.law.Gaussian(np.zeros(2), PAIR)
    host = sk.sample(PSLD, law.denoiser(), plan=plan, n=3)
    assert np.array_equal(host.x[:, 0], [0.5, 0.5, 0.5])
    tensors = sk.sample(PSLD, law.denoiser(), plan=plan, n=3, device="cpu")
    assert tensors.x.numpy() == pytest.approx(host.x, abs=1e-12)
    with pytest.raises(sk.BadInput, match="Imputation is not an affine move"):
        _ = sk.analysis.exact_law(PSLD, plan=plan, data=law).mean


# ------------------------------------------------------------------------------------------------------------------- posterior


def data(seed=0, d=4):
    root = np.random.default_rng(seed).standard_normal((d, d))
    return np.arange(d) / d, root @ root.T / d + 0.05 * np.eye(d)


MASK, SEEN = np.array([True, False, True, False]), np.array([1.2, np.nan, -0.4, np.nan])


def given(mean, cov, mask, values, noise):
    """The conditional law, by Gaussian elimination."""
    H = np.eye(len(mean))[mask]
    gain = cov @ H.T @ np.linalg.inv(H @ cov @ H.T + noise**2 * np.eye(len(H)))
    spread = cov - gain @ H @ cov
    return mean + gain @ (values[mask] - H @ mean), 0.5 * (spread + spread.T)


def denoised(mean, cov, y, sigma):
    return mean + (y - mean) @ np.linalg.solve(cov + sigma**2 * np.eye(len(mean)), cov)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_posterior_of_gaussian_data_is_exact(noise):
    mean, cov = data()
    denoise = Posterior(sk.law.Gaussian(mean, cov).denoiser(), MASK, SEEN, noise)
    expected = given(mean, cov, MASK, SEEN, noise)
    y = np.random.default_rng(1).standard_normal((3, 4))
    for sigma in (1e-3, 0.1, 1.0, 80.0):
        assert denoise(y, sigma) == pytest.approx(denoised(*expected, y, sigma), rel=1e-6, abs=1e-7)
    levels = torch.tensor([0.02, 0.4, 9.0], dtype=torch.float64)
    together = denoise(torch.from_numpy(y), levels).numpy()
    assert together == pytest.approx(np.concatenate([denoised(*expected, y[i : i + 1], float(s)) for i, s in enumerate(levels)]), rel=1e-6, abs=1e-7)
    if not noise:
        assert together[:, MASK] == pytest.approx(np.tile(SEEN[MASK], (3, 1)), abs=1e-7)


@pytest.mark.parametrize("process", [PSLD, sk.catalogue.vp(), sk.catalogue.third_order()], ids=["psld", "vp", "third order"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_samples_of_the_posterior_on_every_process(process, noise):
    mean, cov = data()
    expected = given(mean, cov, MASK, SEEN, noise)
    chosen = {"method": sk.methods.exponential(2, noise=0.5), "grid": sk.grids.karras(12, 0.01, 50.0), "n": 3}
    native = sk.sample(process, sk.law.Gaussian(*expected).denoiser(), **chosen)
    ours = sk.sample(process, Posterior(sk.law.Gaussian(mean, cov).denoiser(), MASK, SEEN, noise), **chosen)
    assert ours.x == pytest.approx(native.x, abs=1e-6)


def test_the_law_of_the_samples_is_the_posterior():
    denoise = Posterior(sk.law.Gaussian(np.zeros(2), PAIR).denoiser(), FIRST, HALF)
    plan = sk.plans.run(sk.grids.karras(240, 0.002, 80.0), sk.methods.exponential(3))
    mean, cov = moments(PSLD, denoise, plan, 2, most=20, start=sk.law.Gaussian([0.5, 0.4], [0.0, 0.09]))
    assert mean == pytest.approx([0.5, 0.4], abs=1e-5)  # recipe.md 6.2
    assert cov == pytest.approx(np.diag([0.0, 0.09]), abs=1e-5)


def test_a_number_for_the_covariance_is_exact_on_isotropic_data_only():
    y = np.random.default_rng(1).standard_normal((3, 4))
    mean = np.arange(4) / 4.0
    round_ = Posterior(sk.law.Gaussian(mean, 0.36).denoiser(), MASK, SEEN, 0.2, spread=0.6)
    for sigma in (0.05, 1.0, 30.0):
        assert round_(y, sigma) == pytest.approx(denoised(*given(mean, 0.36 * np.eye(4), MASK, SEEN, 0.2), y, sigma), rel=1e-9, abs=1e-9)
    mean, cov = data()
    law = sk.law.Gaussian(mean, cov).denoiser()
    exact = Posterior(law, MASK, SEEN, 0.2)(y, 1.0)
    assert np.max(np.abs(Posterior(law, MASK, SEEN, 0.2, spread=0.6)(y, 1.0) - exact)) > 1e-2


def test_through_a_network_in_single_precision():
    """An adapter passes gradients; images of 64 pixels with a smooth covariance, half of them seen."""
    at = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(-1, 2)
    cov = np.exp(-((at[:, None] - at[None]) ** 2).sum(-1) / 8.0) + 1e-3 * np.eye(64)
    law = sk.law.Gaussian(np.zeros((1, 8, 8)), cov)
    mask = np.zeros((1, 8, 8), bool)
    mask[..., :4] = True
    values = law.sample(1, seed=3)[0]
    model = adapters.KDiffusion(law.denoiser())
    y = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = given(np.zeros(64), cov, mask.reshape(-1), values.reshape(-1), 0.1)
    for sigma in (0.1, 1.0, 20.0):
        made = Posterior(model, mask, values, 0.1)(y, sigma)
        assert made.dtype == torch.float32
        assert made.reshape(2, 64).numpy() == pytest.approx(denoised(*expected, y.reshape(2, 64).numpy(), sigma), abs=2e-3)


def test_conjugate_gradients_stop():
    matrix = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]], dtype=torch.float64)
    right = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    count = []

    def product(v):
        count.append(1)
        return v @ matrix, torch.zeros(len(v), 1)

    assert torch.allclose(conditional._solved(product, right, 50), torch.linalg.solve(matrix, right.T).T, atol=1e-13)
    assert 3 <= len(count) <= 4
    assert torch.isfinite(conditional._solved(product, right, 1)).all()


LAW = sk.law.Gaussian(np.zeros(2), PAIR).denoiser()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Posterior(LAW, [1, 0], HALF), "mask must be an array of bool"),
        (lambda: Posterior(LAW, [False, False], HALF), "at least one True"),
        (lambda: Posterior(LAW, FIRST, [0.5]), r"values have shape \(1,\), the mask \(2,\)"),
        (lambda: Posterior(LAW, FIRST, [np.nan, 0.0]), "values must be finite where the mask is True"),
        (lambda: Posterior(LAW, FIRST, HALF, noise=-1.0), "noise = -1 must not be negative"),
        (lambda: Posterior(LAW, FIRST, HALF, spread=0.0), "spread = 0.0 must be positive"),
        (lambda: Posterior(LAW, FIRST, HALF, most=0), "most = 0 must be an integer >= 1"),
        (lambda: Posterior(sk.denoiser.StateScore(len), FIRST, HALF), "must be callable as denoise"),
        (lambda: Posterior(LAW, FIRST, HALF)(np.zeros((1, 3)), 1.0), r"y has shape \(1, 3\), the mask \(2,\)"),
        (lambda: Posterior(lambda y, sigma: y.detach(), FIRST, HALF)(np.zeros((1, 2)), 1.0), "records no gradient"),
        (lambda: imputed(sk.plans.run(sk.grids.karras(3)), FIRST, HALF, repeats=17), "repeats = 17 must be at most 16"),
        (lambda: imputed(sk.plans.run(sk.grids.karras(3)), FIRST, HALF, level="late"), "unknown level 'late'"),
        (lambda: imputed(sk.plans.run(sk.grids.karras(3)), FIRST, [[0.5, 0.0]]), "both must have the shape of a datum"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(sk.BadInput, match=message):
        make()
