"""Log likelihoods against densities in closed form."""

import numpy as np
import pytest
from processes import edm, psld, third_order, vp
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from sdekit import BadInput, Process, analysis, clocks, denoiser
from sdekit.law import Gaussian, Mixture
from sdekit.noise import DATA, Address, Addressed

LAW = Gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.3]])
WIDE = Process([[0.0]], [[1.0]], clock=clocks.linear(0.0, 2e6, 1000.0), name="edm to 1000")


def of_model(process, law, x, sigma):
    """Density of the model: the exact map of the flow is affine, from N(0, sigma_T^2 I) back to the level sigma."""
    top = float(process.sigma_eff(process.T))
    values, U = np.linalg.eigh(law.cov)
    shrink = np.sqrt((values + sigma**2) / (values + top**2))
    mean = law.mean - U @ (shrink * (U.T @ law.mean))
    return multivariate_normal(mean, U @ np.diag((shrink * top) ** 2) @ U.T).logpdf(x)


@pytest.mark.parametrize("make", [edm, vp, psld, third_order], ids=lambda m: m.__name__)
def test_gaussian_data(make):
    process, x = make(), LAW.sample(5, seed=1)
    found = analysis.log_likelihood(process, LAW.denoiser(), x, sigma_min=0.01)
    np.testing.assert_allclose(found.value, of_model(process, LAW, x, 0.01), atol=1e-5)
    np.testing.assert_allclose(found.bits, -found.value / (2.0 * np.log(2.0)))
    assert not found.bound


def test_a_mixture():
    law = Mixture([0.3, 0.7], [-1.0, 0.8], [0.0625, 0.16])
    x, sigma = np.array([-1.2, 0.0, 0.5, 1.4]), 0.05
    exact = logsumexp(norm(np.array([-1.0, 0.8]), np.sqrt(np.array([0.0625, 0.16]) + sigma**2)).logpdf(x[:, None]), b=[0.3, 0.7], axis=1)
    found = analysis.log_likelihood(WIDE, law.denoiser(), x, sigma_min=sigma)
    np.testing.assert_allclose(found.value, exact, atol=1e-4)  # the prior at level 1000 differs by 1e-6
    assert found.sigma == pytest.approx(sigma)


def test_random_directions_are_unbiased():
    """In two dimensions the trace along signs (1, 1) and (1, -1) averages to the exact one; each differs by the off-diagonal."""
    x = np.repeat(LAW.sample(1, seed=2), 400, axis=0)
    exact = analysis.log_likelihood(edm(), LAW.denoiser(), x[:1], sigma_min=0.1).value
    found = analysis.log_likelihood(edm(), LAW.denoiser(), x, sigma_min=0.1, trace="hutchinson", seed=3).value
    spread = np.std(found) / 20.0
    assert spread > 0.01
    assert abs(np.mean(found) - exact[0]) < 4.0 * spread
    more = analysis.log_likelihood(edm(), LAW.denoiser(), x, sigma_min=0.1, trace="hutchinson", probes=16, seed=3).value
    assert np.std(more) == pytest.approx(np.std(found) / 4.0, rel=0.25)


def test_the_bound_of_a_model_of_the_state():
    """With the exact score: the exact density of (x, m) under the marginal at t, less that of the m drawn; the law of the state is Gaussian."""
    law = Gaussian([0.0, 0.0], LAW.cov)  # the prior then misses the end by 1e-6
    process, x, sigma = psld(0.05, start=0.5), law.sample(3, seed=1), 0.02
    score = denoiser.StateScore(lambda z, t: denoiser.score(process, law.denoiser(), z, t), (2,))
    found = analysis.log_likelihood(process, score, x, sigma_min=sigma, seed=5)
    kernel = process.kernel(float(process.time_of(sigma)))
    m = np.sqrt(process.S0[1, 1]) * Addressed(5).draw([Address(DATA)], np.arange(3), (2,))[0]
    cov = np.kron(kernel.cov, np.eye(2)) + np.kron(np.outer(kernel.psi, kernel.psi), law.cov)
    exact = multivariate_normal(np.zeros(4), cov).logpdf(np.concatenate([x, m], axis=1))
    np.testing.assert_allclose(found.value, exact - norm(0.0, np.sqrt(process.S0[1, 1])).logpdf(m).sum(axis=1), atol=2e-5)
    assert found.bound
    wrong = denoiser.StateScore(lambda z, t: 1.1 * denoiser.score(process, law.denoiser(), z, t), (2,))
    assert np.max(np.abs(analysis.log_likelihood(process, wrong, x, sigma_min=sigma, seed=5).value - found.value)) > 0.1


@pytest.mark.torch
def test_torch_differentiates():
    torch = pytest.importorskip("torch")
    x = LAW.sample(4, seed=1)

    class OnTorch:
        device, dtype, shape = "cpu", torch.float64, (2,)

        def __call__(self, y, sigma):
            return LAW.denoiser()(y, sigma)

    for trace in ("exact", "hutchinson"):
        mine = analysis.log_likelihood(vp(), OnTorch(), x, trace=trace)
        np.testing.assert_allclose(mine.value, analysis.log_likelihood(vp(), LAW.denoiser(), x, trace=trace).value, atol=1e-5)
        assert mine.nfe < 0.8 * analysis.log_likelihood(vp(), LAW.denoiser(), x, trace=trace).nfe


@pytest.mark.parametrize(
    "change",
    [{"trace": "none"}, {"probes": 0}, {"sigma_min": -1.0}, {"sigma_min": 1e6}, {"x": np.array([[np.nan, 0.0]])},
     {"process": psld(start=0.0), "denoise": denoiser.StateScore(lambda z, t: z, (2,))}],
)  # fmt: skip
def test_bad_input(change):
    given = {"process": edm(), "denoise": LAW.denoiser(), "x": np.zeros((1, 2)), **change}
    with pytest.raises(BadInput):
        analysis.log_likelihood(given.pop("process"), given.pop("denoise"), given.pop("x"), **given)
