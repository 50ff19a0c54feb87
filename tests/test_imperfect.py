"""Injected score errors: their size against closed forms, the laws behind them, windows, and their estimate from residuals."""

import numpy as np
import pytest
import torch
from processes import cld, edm, vp

import sdekit as sk
from sdekit import BadInput, analysis, imperfect
from sdekit.law import Empirical, Gaussian, Mixture

G = Gaussian([0.3, -0.5, 1.0], [0.04, 0.25, 1.0])
M = Mixture([0.3, 0.7], [[1.0, 1.0], [-1.0, -1.0]], [0.04, 0.09])


def gaps(wrong, data, sigma, n=20_000):
    """|t s_theta - t s| at samples of the exact law, from the definition."""
    rng = np.random.default_rng(0)
    y = data.sample(n, seed=9) + sigma * rng.standard_normal((n, *data.shape))
    score = (data.denoiser()(y, sigma) - y) / sigma
    return np.linalg.norm(((wrong(y, sigma) - y) / sigma - score).reshape(n, -1), axis=1)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 20.0])
def test_size_of_a_shift(sigma):
    r"""Shifted means of N(m, v): D' - D = (1 - v/(v + s^2)) shift, so eps = s |shift / (v + s^2)|."""
    shift = np.array([0.1, 0.0, -0.2])
    wrong = imperfect.shifted_means(G, shift)
    assert wrong.eps(sigma) == pytest.approx(sigma * np.linalg.norm(shift / (G.cov + sigma**2)), rel=1e-12)
    assert gaps(wrong, G, sigma, 50) == pytest.approx(wrong.eps(sigma), rel=1e-9)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 20.0])
def test_size_of_a_scale(sigma):
    r"""Variances f v: the slope changes by f v/(f v + s^2) - v/(v + s^2), on a deviation of variance v + s^2."""
    f = np.array([0.5, 1.0, 1.3])
    wrong = imperfect.scaled_covariance(G, f)
    slope = f * G.cov / (f * G.cov + sigma**2) - G.cov / (G.cov + sigma**2)
    assert wrong.eps(sigma) == pytest.approx(np.sqrt(np.sum(slope**2 * (G.cov + sigma**2))) / sigma, rel=1e-12)
    assert np.sqrt(np.mean(gaps(wrong, G, sigma) ** 2)) == pytest.approx(wrong.eps(sigma), rel=0.03)


def test_size_in_a_rotated_basis():
    U = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = Gaussian(U @ G.mean, (U * G.cov) @ U.T)
    order = np.argsort(turned.variances)
    f = np.array([0.5, 1.0, 1.3])[np.argsort(np.argsort(G.cov))][order]
    assert imperfect.scaled_covariance(turned, f).eps(0.4) == pytest.approx(imperfect.scaled_covariance(G, [0.5, 1.0, 1.3]).eps(0.4), rel=1e-10)


def test_wrong_weights():
    """Far modes at a low level: nobody sees the weights.  Between the modes the answer moves by the change of the posterior share."""
    wrong = imperfect.wrong_weights(M, [0.6, 0.4])
    assert wrong.eps(0.05) < 1e-10
    assert wrong.eps(1.5, n=20_000) == pytest.approx(np.sqrt(np.mean(gaps(wrong, M, 1.5) ** 2)), rel=0.03)
    y = np.zeros((1, 2))
    tau = 0.04 + 1.5**2, 0.09 + 1.5**2
    density = [np.exp(-1.0 / t) / t for t in tau]

    def denoised(w):
        share = w[0] * density[0] / (w[0] * density[0] + w[1] * density[1])
        return share * 1.5**2 / tau[0] - (1.0 - share) * 1.5**2 / tau[1]

    np.testing.assert_allclose(wrong(y, 1.5)[0], denoised([0.6, 0.4]), rtol=1e-12)
    np.testing.assert_allclose(wrong(y, 1.5) - M.denoiser()(y, 1.5), denoised([0.6, 0.4]) - denoised([0.3, 0.7]), rtol=1e-10)


def test_errors_of_mixtures():
    shifted = imperfect.shifted_means(M, [[0.1, 0.0], [0.0, 0.2]])
    np.testing.assert_allclose([part.mean for part in shifted.law.parts], [[1.1, 1.0], [-1.0, -0.8]])
    scaled = imperfect.scaled_covariance(M, 0.5)
    np.testing.assert_allclose([part.matrix[0, 0] for part in scaled.law.parts], [0.02, 0.045])
    np.testing.assert_allclose(imperfect.wrong_weights(M, [1, 1]).law.weights, 0.5)


@pytest.mark.parametrize("process", [edm(), vp(), cld()], ids=["edm", "vp", "cld"])
def test_the_law_behind_an_error_keeps_laws_exact(process):
    """A sampler driven by the injector has the law that exact_law gives for ``model=injector.law``."""
    wrong = imperfect.shifted_means(G, 0.2)
    plan = sk.plans.restart(sk.grids.karras(12, sigma_max=5.0), [(3, 2, 0.3, 1.0)], method=sk.methods.heun(), snap="nearest")
    exact = analysis.exact_law(process, plan=plan, data=G, model=wrong.law)
    run = sk.sample(process, wrong, plan=plan, n=4000)
    np.testing.assert_allclose(np.mean(run.x, axis=0), exact.mean, atol=4.0 * np.sqrt(np.max(exact.cov) / 4000))
    assert np.max(np.abs(exact.mean - G.mean)) > 0.1
    np.testing.assert_allclose(np.cov(run.x.T), exact.cov, atol=0.08)


@pytest.mark.parametrize("window", [(0.0, 0.5), (0.4, 2.0), (1.0, float("inf"))])
@pytest.mark.parametrize("kind", ["law", "field"])
def test_window(window, kind):
    wrong = imperfect.shifted_means(G, 0.2, window=window) if kind == "law" else imperfect.fourier(G, 0.1, window=window)
    exact = G.denoiser()
    y = np.random.default_rng(0).normal(size=(6, 3))
    levels = np.array([0.1, 0.3999, 0.4, 0.5, 2.0, 2.1])
    inside = (levels >= window[0]) & (levels <= window[1])
    changed = [not np.array_equal(wrong(y, s), exact(y, s)) for s in levels]
    assert changed == inside.tolist()
    assert [wrong.eps(s, n=100) > 0.0 for s in levels] == inside.tolist()
    together = wrong(y, levels)
    np.testing.assert_allclose(together, np.stack([wrong(y[i : i + 1], float(s))[0] for i, s in enumerate(levels)]), rtol=1e-12)
    assert wrong.law is None


def test_law_at():
    wrong = imperfect.scaled_covariance(G, 0.5, window=(0.2, 1.0))
    assert wrong.law_at(0.2) is wrong.law_at(1.0) is wrong.other
    assert wrong.law_at(0.19) is wrong.law_at(1.01) is G


@pytest.mark.parametrize("frequency", [0.5, 3.0])
@pytest.mark.parametrize("waves", [1, 3])
def test_fourier_keeps_its_bound(waves, frequency):
    """At most eps, and nearly reached by one wave; several orthonormal ones reach their joint peak rarely."""
    wrong = imperfect.fourier(G, 0.3, waves=waves, frequency=frequency)
    found = gaps(wrong, G, 0.6)
    assert np.max(found) <= 0.3 * (1.0 + 1e-9)
    assert np.max(found) > (0.299 if waves == 1 and frequency == 3.0 else 0.15)
    assert wrong.norm == "sup"
    assert wrong.eps(0.6) == pytest.approx(np.sqrt(np.mean(found**2)), rel=0.05)


def test_fast_waves_have_half_the_square():
    assert imperfect.fourier(G, 0.3, frequency=20.0).eps(0.5, n=20_000) == pytest.approx(0.3 / np.sqrt(2.0), rel=0.02)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("sigma", [0.05, 3.0])
def test_low_rank(rank, sigma):
    wrong = imperfect.low_rank(G, 0.2, rank=rank, seed=1)
    assert wrong.eps(sigma, n=40_000) == pytest.approx(0.2, rel=0.02)
    y = np.random.default_rng(0).normal(size=(50, 3))
    assert np.linalg.matrix_rank(wrong(y, sigma) - G.denoiser()(y, sigma), tol=1e-10) == rank


def test_off_shell():
    """Zero on the shell, eps beyond the tolerance, outwards outside and inwards inside."""
    law = Gaussian(np.zeros(400), 0.25)
    wrong = imperfect.off_shell(law, 0.5, tolerance=0.2)
    direction = np.random.default_rng(0).normal(size=400)
    direction /= np.linalg.norm(direction)
    shell = np.sqrt(400 * (0.25 + 0.09))
    y = np.array([1.0, 1.1, 1.3, 0.5])[:, None] * shell * direction
    along = (wrong(y, 0.3) - law.denoiser()(y, 0.3)) @ direction / 0.3
    np.testing.assert_allclose(along, [0.0, 0.25, 0.5, -0.5], atol=1e-12)
    assert wrong.eps(0.3) < 0.2 * 0.5


@pytest.mark.parametrize(
    "wrong",
    [imperfect.shifted_means(M, 0.1), imperfect.fourier(M, 0.2, waves=2), imperfect.low_rank(M, 0.2), imperfect.off_shell(M, 0.2)],
    ids=["misfit", "fourier", "low_rank", "off_shell"],
)
def test_torch_agrees(wrong):
    y = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(wrong(torch.as_tensor(y), 0.4).numpy(), wrong(y, 0.4), rtol=1e-12)
    levels = np.array([0.1, 0.2, 0.5, 1.0, 9.0])
    np.testing.assert_allclose(wrong(torch.as_tensor(y), torch.as_tensor(levels)).numpy(), wrong(y, levels), rtol=1e-12)


def test_any_law_can_be_spoilt():
    data = Empirical(np.random.default_rng(0).normal(size=(40, 2)), 0.1)
    assert imperfect.fourier(data, 0.1).eps(0.5) == pytest.approx(0.07, rel=0.4)
    assert imperfect.low_rank(data, 0.1).eps(0.5) == pytest.approx(0.1, rel=0.05)


# ------------------------------------------------------------------------------------------------------------ from residuals


def test_estimate_from_residuals():
    """On a law the excess loss is the squared error: it must give the injected eps back."""
    wrong = imperfect.scaled_covariance(G, [0.5, 1.0, 1.3])
    found = analysis.score_error(wrong, G, [0.1, 0.5, 2.0], n=20_000)
    exact = np.array([wrong.eps(s) for s in found.sigmas])
    assert np.all(np.abs((found.eps**2 - exact**2) * found.sigmas**2) < 4.0 * found.spread)
    np.testing.assert_allclose(found.eps, exact, rtol=0.15)
    assert found.reference == "the exact denoiser"


def test_no_excess_for_the_exact_denoiser():
    found = analysis.score_error(G.denoiser(), G, [0.1, 1.0], n=100)
    assert not np.any(found.eps)
    assert not np.any(found.spread)
    np.testing.assert_allclose(found.surrogate.law_at(0.5).variances, G.variances, rtol=1e-9)


def test_surrogate_finds_the_wrong_law():
    """A model that is another normal law in the same basis is found exactly, level by level."""
    U = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    data = Gaussian(U @ [0.3, -0.5, 1.0], (U * [0.04, 0.25, 1.0]) @ U.T)
    wrong = imperfect.scaled_covariance(data, [0.5, 1.0, 1.3])
    shifted = imperfect.Misfit(data, Gaussian(wrong.law.mean + 0.1, wrong.law.matrix), window=(0.3, 9.0))
    made = analysis.score_error(shifted, data, [0.1, 0.5, 2.0], n=200).surrogate
    for sigma, law in ((0.1, data), (0.5, shifted.other), (2.0, shifted.other)):
        np.testing.assert_allclose(made.law_at(sigma).matrix, law.matrix, atol=1e-9)
        np.testing.assert_allclose(made.law_at(sigma).mean, law.mean, atol=1e-9)
    middle = made.law_at(np.sqrt(0.1 * 0.5))
    np.testing.assert_allclose(middle.matrix, 0.5 * (data.matrix + shifted.other.matrix), atol=1e-9)


def test_estimate_on_data():
    """Held-out data without a law: against the normal law fitted to them, or against a better denoiser that is given."""
    x = M.sample(4000, seed=3)
    found = analysis.score_error(imperfect.wrong_weights(M, [0.5, 0.5]), x, [1.0, 2.0], best=M.denoiser())
    exact = [imperfect.wrong_weights(M, [0.5, 0.5]).eps(s, n=20_000) for s in (1.0, 2.0)]
    np.testing.assert_allclose(found.eps, exact, rtol=0.3)
    plain = analysis.score_error(M.denoiser(), x, [0.3])
    assert plain.loss[0] < plain.best[0]
    assert plain.eps[0] == 0.0
    assert "normal law of the data" in str(plain)


@pytest.mark.parametrize(
    "make",
    [
        lambda: imperfect.wrong_weights(M, [1.0, 2.0, 3.0]),
        lambda: imperfect.wrong_weights(G, [1.0]),
        lambda: imperfect.shifted_means(G, [1.0, 2.0]),
        lambda: imperfect.shifted_means(Empirical([[0.0]]), 1.0),
        lambda: imperfect.shifted_means(G, 1.0, window=(2.0, 1.0)),
        lambda: imperfect.scaled_covariance(G, -1.0),
        lambda: imperfect.scaled_covariance(M, [1.0, 2.0]),
        lambda: imperfect.fourier(G, 0.1, waves=4),
        lambda: imperfect.fourier("data", 0.1),
        lambda: imperfect.off_shell(G, 0.1, tolerance=0.0),
        lambda: imperfect.Misfit(G, M),
        lambda: imperfect.shifted_means(G, 1.0).eps(0.0),
        lambda: analysis.score_error(G.denoiser(), G, []),
        lambda: analysis.score_error(G.denoiser(), [[1.0]], [0.1]),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
