"""Data laws: exact denoisers against quadrature and Bayes' rule, densities against scipy, samples against moments; the score of the state."""

import numpy as np
import pytest
from processes import cld, dense_kernel, edm, psld, third_order, vp
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from sdekit import BadInput, denoiser
from sdekit.law import Empirical, Gaussian, Mixture

SIGMAS = [0.01, 0.3, 2.0, 50.0]
A = np.array([[1.0, 0.6], [0.6, 0.5]])
B = np.array([[0.2, -0.1], [-0.1, 0.4]])
# in the plane eigenvectors make a symmetric matrix, which hides transposes: so one law in space
SPACE = np.array([[1.0, 0.4, -0.3], [0.4, 0.6, 0.2], [-0.3, 0.2, 0.8]])
SPACES = np.stack([SPACE, np.diag([0.1, 0.3, 0.2]) + 0.1 * SPACE @ SPACE])
IN_SPACE = Mixture([0.4, 0.6], [[1.0, -1.0, 0.0], [0.0, 0.5, -0.5]], SPACES)
MIXTURE = Mixture([0.2, 0.5, 0.3], [[1.0, -1.0], [0.3, 2.0], [-1.5, 0.0]], np.stack([A, B, 0.1 * np.eye(2)]))
PUBLISHED = Mixture([0.3, 0.7], [[-0.8], [0.5]], [[0.01], [0.04]])


def posterior_mean(mean, cov, y, sigma):
    """Precision form of Bayes' rule for one Gaussian."""
    prior = np.linalg.inv(cov)
    return np.linalg.solve(prior + np.eye(len(mean)) / sigma**2, prior @ mean + y / sigma**2)


@pytest.mark.parametrize("sigma", [0.02, 0.3, 2.0])
def test_mixture_denoiser_against_quadrature(sigma):
    w, mu, var = [0.3, 0.1, 0.6], [-1.0, 0.1, 0.8], [0.05, 0.4, 0.01]
    denoise = Mixture(w, mu, var).denoiser()
    y = np.array([-2.0, -0.9, 0.0, 0.35, 1.0, 3.0])
    found = denoise(y, sigma)
    for here, got in zip(y, found, strict=True):

        def weight(x, here=here):
            return sum(p * norm.pdf(x, m, np.sqrt(v)) for p, m, v in zip(w, mu, var, strict=True)) * np.exp(-((here - x) ** 2) / (2 * sigma**2))

        spots = sorted({here, *mu, *((m * sigma**2 + here * v) / (sigma**2 + v) for m, v in zip(mu, var, strict=True))})
        options = {"points": spots, "epsabs": 0.0, "epsrel": 1e-11, "limit": 400}
        mass, first = (quad(f, -8.0, 8.0, **options)[0] for f in (weight, lambda x: x * weight(x)))
        assert got == pytest.approx(first / mass, abs=1e-9)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_full_covariance_denoiser_against_bayes(sigma):
    y = np.random.default_rng(0).normal(size=(7, 2)) * 2.0
    mean = np.array([0.5, -1.0])
    found = Gaussian(mean, A).denoiser()(y, sigma)
    np.testing.assert_allclose(found, [posterior_mean(mean, A, row, sigma) for row in y], rtol=1e-9, atol=1e-12)
    y, mean = np.random.default_rng(0).normal(size=(7, 3)), np.array([0.5, -1.0, 0.2])
    found = Gaussian(mean, SPACE).denoiser()(y, sigma)
    np.testing.assert_allclose(found, [posterior_mean(mean, SPACE, row, sigma) for row in y], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(("law", "covs"), [(MIXTURE, [A, B, 0.1 * np.eye(2)]), (IN_SPACE, SPACES)], ids=["plane", "space"])
def test_mixture_against_bayes(law, covs, sigma):
    d = law.shape[0]
    y = np.random.default_rng(1).normal(size=(7, d)) * 1.5
    found = law.denoiser()(y, sigma)
    for row, got in zip(y, found, strict=True):
        parts = list(zip(law.weights, [p.mean for p in law.parts], covs, strict=True))
        logs = np.array([np.log(w) + multivariate_normal.logpdf(row, m, C + sigma**2 * np.eye(d)) for w, m, C in parts])
        share = np.exp(logs - logs.max()) / np.sum(np.exp(logs - logs.max()))
        np.testing.assert_allclose(got, sum(r * posterior_mean(m, C, row, sigma) for r, (_, m, C) in zip(share, parts, strict=True)), atol=1e-9)


def test_empirical_denoiser_by_brute_force():
    data = np.random.default_rng(2).normal(size=(9, 2, 3))
    denoise = Empirical(data).denoiser()
    y = np.random.default_rng(3).normal(size=(4, 2, 3))
    for sigma in (0.2, 1.0, 30.0):
        for row, got in zip(y, denoise(y, sigma), strict=True):
            weights = np.exp(-np.sum((row - data) ** 2, axis=(1, 2)) / (2.0 * sigma**2))
            np.testing.assert_allclose(got, np.tensordot(weights / weights.sum(), data, axes=1), atol=1e-12)
    np.testing.assert_allclose(denoise(data + 1e-4, 1e-3), data, atol=1e-12)


def test_covariance_forms_are_one_law():
    """A number, a diagonal and a matrix that say the same thing; a datum of two axes in C order."""
    mean = np.arange(6.0).reshape(2, 3)
    values = np.linspace(0.2, 1.2, 6)
    y = np.random.default_rng(4).normal(size=(5, 2, 3))
    diagonal = Gaussian(mean, values.reshape(2, 3))
    full = Gaussian(mean, np.diag(values))
    assert not diagonal.full
    assert full.full
    np.testing.assert_allclose(diagonal.denoiser()(y, 0.7), full.denoiser()(y, 0.7), atol=1e-13)
    np.testing.assert_allclose(diagonal.denoiser()(y, 0.7), mean + values.reshape(2, 3) / (values.reshape(2, 3) + 0.49) * (y - mean), atol=1e-13)
    np.testing.assert_allclose(diagonal.matrix, full.matrix, atol=1e-15)
    np.testing.assert_allclose(Gaussian(mean, 0.3).denoiser()(y, 0.7), Gaussian(mean, np.full((2, 3), 0.3)).denoiser()(y, 0.7), atol=1e-14)
    one = Mixture([2.0], [mean], [np.diag(values)])
    np.testing.assert_allclose(one.denoiser()(y, 0.7), full.denoiser()(y, 0.7), atol=1e-13)
    np.testing.assert_allclose(one.matrix, full.matrix, atol=1e-15)


def test_one_level_a_sample():
    y = np.random.default_rng(5).normal(size=(4, 2))
    sigma = np.array([0.1, 0.5, 2.0, 9.0])
    for law in (Gaussian([1.0, 0.0], A), MIXTURE, Empirical(y + 1.0)):
        denoise = law.denoiser()
        together = denoise(y, sigma)
        for i in range(4):
            np.testing.assert_allclose(together[i], denoise(y[i : i + 1], float(sigma[i]))[0], rtol=1e-12)


@pytest.mark.parametrize("sigma", [0.0, 0.4])
def test_log_density(sigma):
    y = np.random.default_rng(6).normal(size=(6, 2))
    noise = sigma**2 * np.eye(2)
    np.testing.assert_allclose(Gaussian([0.5, -1.0], A).log_density(y, sigma), multivariate_normal.logpdf(y, [0.5, -1.0], A + noise), rtol=1e-12)
    parts = zip(MIXTURE.weights, MIXTURE.parts, [A, B, 0.1 * np.eye(2)], strict=True)
    ref = np.log(sum(w * multivariate_normal.pdf(y, p.mean, C + noise) for w, p, C in parts))
    np.testing.assert_allclose(MIXTURE.log_density(y, sigma), ref, rtol=1e-11)


@pytest.mark.parametrize("law", [Gaussian([0.5, -1.0], A), Gaussian(0.3, 0.25), Mixture([0.3, 0.7], [-1.0, 0.8], [0.05, 0.2]), MIXTURE, IN_SPACE])
def test_tweedie(law):
    """D = y + sigma^2 grad log p_sigma, by central differences of the density."""
    sigma, h = 0.6, 1e-5
    y = np.random.default_rng(7).normal(size=(5, *law.shape))
    flat = y.reshape(5, -1)
    score = np.empty_like(flat)
    for i in range(flat.shape[1]):
        step = h * np.eye(flat.shape[1])[i]
        up, down = (law.log_density((flat + s * step).reshape(y.shape), sigma) for s in (1.0, -1.0))
        score[:, i] = (up - down) / (2.0 * h)
    np.testing.assert_allclose(law.denoiser()(y, sigma), y + sigma**2 * score.reshape(y.shape), atol=1e-8)


@pytest.mark.torch
@pytest.mark.parametrize(
    "law", [Gaussian([0.5, -1.0], A), Gaussian([0.5, -1.0], [0.3, 2.0]), MIXTURE, Empirical(np.arange(12.0).reshape(6, 2) / 5.0)]
)
def test_torch_is_numpy(law):
    torch = pytest.importorskip("torch")
    denoise = law.denoiser()
    y = np.random.default_rng(8).normal(size=(6, 2))
    for sigma in (0.4, 3.0):
        ref = denoise(y, sigma)
        made = denoise(torch.from_numpy(y), sigma)
        assert made.dtype == torch.float64
        np.testing.assert_allclose(made.numpy(), ref, atol=1e-13)
        single = denoise(torch.from_numpy(y).to(torch.float32), sigma)
        assert single.dtype == torch.float32
        np.testing.assert_allclose(single.numpy(), ref, atol=3e-5)
        half = denoise(y.astype(np.float32), sigma)
        assert half.dtype == np.float32
        np.testing.assert_allclose(half, ref, atol=3e-5)
        np.testing.assert_array_equal(denoise(y, sigma), ref)  # the constants were not spoiled
    levels = np.linspace(0.2, 2.0, 6)
    np.testing.assert_allclose(denoise(torch.from_numpy(y), torch.from_numpy(levels)).numpy(), denoise(y, levels), atol=1e-13)
    if not isinstance(law, Empirical):
        np.testing.assert_allclose(law.log_density(torch.from_numpy(y), 0.3).numpy(), law.log_density(y, 0.3), atol=1e-12)


def moments(law, n=200_000):
    x = law.sample(n, seed=7).reshape(n, -1)
    return x.mean(axis=0), np.cov(x.T, bias=True).reshape(x.shape[1], x.shape[1]), x


@pytest.mark.parametrize(
    ("law", "mean", "cov"),
    [
        (Gaussian([0.5, -1.0], A), [0.5, -1.0], A),
        (Gaussian([[0.5], [-1.0]], [[0.3], [2.0]]), [0.5, -1.0], np.diag([0.3, 2.0])),
        (Gaussian(0.5, 0.3), [0.5], [[0.3]]),
        (Gaussian([0.5, -1.0, 0.0], SPACE), [0.5, -1.0, 0.0], SPACE),
        (Mixture([1.0], [[0.5, -1.0, 0.0]], SPACE[None]), [0.5, -1.0, 0.0], SPACE),
        (Mixture([3.0, 7.0], [-0.8, 0.5], [0.01, 0.04]), [0.11], [[0.031 + 0.21 * 1.3**2]]),
        (
            Mixture([0.25, 0.75], [[1.0, 0.0], [0.0, 2.0]], np.stack([A, B])),
            [0.25, 1.5],
            0.25 * A + 0.75 * B + 0.1875 * np.outer([1.0, -2.0], [1.0, -2.0]),
        ),
        (Empirical([[0.0, 1.0], [2.0, 5.0], [4.0, 0.0]]), [2.0, 2.0], [[8.0 / 3.0, -2.0 / 3.0], [-2.0 / 3.0, 14.0 / 3.0]]),
    ],
)
def test_samples_have_the_moments(law, mean, cov):
    found, spread, x = moments(law)
    cov = np.asarray(cov)
    assert np.all(np.abs(found - mean) < 4.5 * np.sqrt(np.diag(cov) / len(x)))
    gaps = x - mean
    fourth = np.einsum("ni,nj->nij", gaps, gaps).var(axis=0)
    assert np.all(np.abs(spread - cov) < 4.5 * np.sqrt(fourth / len(x)))
    if not isinstance(law, Empirical):
        np.testing.assert_allclose(law.matrix, cov, atol=1e-12)
        np.testing.assert_allclose(np.ravel(law.mean), mean, atol=1e-12)


def test_mixture_draws_components_by_weight():
    law = Mixture([0.2, 0.0, 0.8], [-5.0, 0.0, 5.0], 1e-6)
    x = law.sample(20_000)
    assert not np.any(np.abs(x) < 1.0)
    assert np.mean(x > 0.0) == pytest.approx(0.8, abs=4.5 * np.sqrt(0.16 / 20_000))


@pytest.mark.parametrize("law", [Gaussian([0.5, -1.0], A), MIXTURE, Empirical(np.arange(20.0).reshape(10, 2))])
def test_samples_are_addressed(law):
    whole = law.sample(50, seed=3)
    assert whole.shape == (50, 2)
    np.testing.assert_array_equal(law.sample(ids=[7, 49, 7], seed=3), whole[[7, 49, 7]])
    np.testing.assert_array_equal(law.sample(20, seed=3), whole[:20])
    assert not np.array_equal(law.sample(50, seed=4), whole)
    with pytest.raises(BadInput):
        law.sample()
    with pytest.raises(BadInput):
        law.sample(3, ids=[1])


def test_seed_may_be_a_numpy_integer():
    """As for ``sdekit.sample``."""
    law = Gaussian(0.0, 1.0)
    np.testing.assert_array_equal(law.sample(3, seed=np.int64(5)), law.sample(3, seed=5))


@pytest.mark.parametrize("make", [vp, edm, cld, psld, third_order], ids=lambda m: m.__name__)
@pytest.mark.parametrize("law", [Gaussian([0.5, -1.0], A), Gaussian([0.5, -1.0], 0.3), Gaussian([0.5, -1.0], [0.3, 2.0]), MIXTURE])
def test_push_forward(make, law):
    """psi x_0 + S^(1/2) xi, component by component, blocks outermost."""
    process = make()
    t = 0.4 * process.T
    psi, S = dense_kernel(process, t)
    pushed = law.push(process.kernel(t))
    assert pushed.shape == ((2,) if process.k == 1 else (process.k, 2))
    parts = pushed.parts if isinstance(pushed, Mixture) else [pushed]
    for before, after in zip(law.parts if isinstance(law, Mixture) else [law], parts, strict=True):
        np.testing.assert_allclose(after.mean.ravel(), np.kron(psi, before.mean), atol=1e-11)
        ref = np.kron(np.outer(psi, psi), before.matrix) + np.kron(S, np.eye(2))
        np.testing.assert_allclose(after.matrix, ref, atol=1e-10 * np.max(np.abs(ref)))


def test_published_score():
    """PSLD from one scalar denoiser: score, observation and denoised datum at z = (.3, -.2)."""
    process = psld()
    z = np.array([[[0.3]], [[-0.2]]])
    for t, score, y, D in (
        (0.01, [4.531696622662, 2.084234165632], 0.317861078587, 0.322431591072),
        (0.1, [0.174795533645, 0.416737414029], 0.476818674348, 0.488529502979),
    ):
        kernel = process.kernel(t)
        asked = []

        def denoise(at, sigma, asked=asked):
            asked.append((float(at[0, 0]), sigma))
            return PUBLISHED.denoiser()(at, sigma)

        found = denoiser.score(process, denoise, z, t)
        np.testing.assert_allclose(found[:, 0, 0], score, rtol=2e-12)
        assert asked == [(pytest.approx(y, abs=1e-12), pytest.approx(float(kernel.sigma_eff), rel=1e-14))]
        assert float(PUBLISHED.denoiser()(np.array([[asked[0][0]]]), asked[0][1])[0, 0]) == pytest.approx(D, abs=1e-12)


@pytest.mark.parametrize("make", [vp, cld, psld, third_order], ids=lambda m: m.__name__)
def test_score_is_the_gradient_of_the_density_of_the_state(make):
    process = make()
    t, h = 0.5 * process.T, 1e-5
    pushed = MIXTURE.push(process.kernel(t))
    z = np.random.default_rng(9).normal(size=(process.k, 4, 2))
    found = denoiser.score(process, MIXTURE.denoiser(), z, t)
    for i in np.ndindex(process.k, 2):
        step = np.zeros((process.k, 1, 2))
        step[i[0], 0, i[1]] = h
        up, down = (pushed.log_density(np.moveaxis(z + s * step, 1, 0).reshape(4, *pushed.shape)) for s in (1.0, -1.0))
        np.testing.assert_allclose(found[i[0], :, i[1]], (up - down) / (2.0 * h), atol=1e-7)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian([0.0, 0.0], -1.0),
        lambda: Gaussian([0.0, 0.0], [1.0, -1.0]),
        lambda: Gaussian([0.0, 0.0], [1.0, 1.0, 1.0]),
        lambda: Gaussian([0.0, 0.0], [[1.0, 0.5], [0.2, 1.0]]),
        lambda: Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]),
        lambda: Gaussian([0.0, float("nan")], 1.0),
        lambda: Gaussian([0.0, 0.0], float("inf")),
        lambda: Gaussian("mean", 1.0),
        lambda: Mixture([], [], 1.0),
        lambda: Mixture([0.5, -0.5], [0.0, 1.0], 1.0),
        lambda: Mixture([0.0, 0.0], [0.0, 1.0], 1.0),
        lambda: Mixture([[0.5, 0.5]], [0.0, 1.0], 1.0),
        lambda: Mixture([0.5, 0.5], [0.0, 1.0, 2.0], 1.0),
        lambda: Mixture([0.5, 0.5], [0.0, 1.0], [1.0, 1.0, 1.0]),
        lambda: Mixture([0.5, 0.5], [0.0, 1.0], [1.0, -1.0]),
        lambda: Mixture([0.5, 0.5], 0.0, 1.0),
        lambda: Empirical([]),
        lambda: Empirical(1.0),
        lambda: Empirical([[0.0], [float("nan")]]),
        lambda: denoiser.from_model(lambda x, t: x, vp(), "noise"),
        lambda: denoiser.from_model(lambda x, t: x, psld(), "eps"),
        lambda: denoiser.StateScore("score"),
        lambda: denoiser.score(psld(), PUBLISHED.denoiser(), np.zeros((1, 3, 1)), 0.5),
        lambda: denoiser.score(psld(), PUBLISHED.denoiser(), np.zeros(2), 0.5),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
