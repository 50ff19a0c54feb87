"""Losses: their population minimisers on normal data are the law's score, exactly; targets, weights and levels by the papers' formulas."""

import json

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri

import sdekit as sk
from sdekit.denoiser import score
from sdekit.torch.levels import Importance, LogNormal, Uniform
from sdekit.torch.losses import Classification, Denoising
from sdekit.torch.matching import ANSWERS, STARTS, WEIGHTINGS, Matching
from sdekit.torch.trained import NetworkClassifier, NetworkScore, loss_of

pytestmark = pytest.mark.images
ALL = {name: getattr(sk.catalogue, name)() for name in ("vp", "edm", "subvp", "cld", "psld", "third_order")}
SPREAD, VARIANCE = 0.6, 0.9


def coefficients(loss, u):
    """Input (k, 1 + b), target (m, 1 + b) as maps of (x0, normals), and the root of the weight, by a basis batch at one level."""
    basis = torch.eye(1 + loss.normals, dtype=torch.float64)
    drawn = loss.draw(basis[:, :1], basis[:, 1:].T[..., None], np.full(len(basis), u))
    weight = np.eye(drawn.target.shape[1]) if drawn.weight is None else drawn.weight[0].numpy()
    return drawn.input.numpy().T, drawn.target.numpy().T, weight


def minimiser(loss, u, variance=VARIANCE):
    """The matrix that minimises the expected loss of the answer ``matrix @ input`` at one level, of least norm."""
    made, target, R = coefficients(loss, u)
    scale = np.sqrt(np.array([variance, *[1.0] * loss.normals]))
    made, target = made * scale, target * scale
    left = np.kron(made.T, R)  # row-major over (basis vector, row of R), column-major over the matrix
    best = np.linalg.lstsq(left, (R @ target).T.reshape(-1), rcond=1e-12)[0]
    return best.reshape(len(made), -1).T


def implied(loss, u):
    """The matrix of the score that the minimiser stands for, and the true one, in units of the state's deviations."""
    t = float(loss.levels.draw(loss.process, [u])[0][0])
    C, A, B, _ = (np.asarray(table)[0] for table in loss.maps(np.array([t])))
    kernel = loss.process.kernel(t)
    P = kernel.cov + VARIANCE * np.outer(kernel.psi, kernel.psi)
    size = np.sqrt(np.diag(P))
    found, true = A + B @ minimiser(loss, u) @ C, -np.linalg.inv(P)
    return found * np.outer(size, size), true * np.outer(size, size), t


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("name", ALL)
def test_minimisers_of_all_losses_are_the_law_s_score(name, weighting):
    process = ALL[name]
    for of in ANSWERS:
        for start in STARTS:
            for u in (0.03, 0.95):
                loss = Matching(process, SPREAD, of=of, weighting=weighting, start=start)
                found, true, t = implied(loss, u)
                if weighting == "likelihood" and loss.blocks > 1:
                    axes, sizes, _ = np.linalg.svd(process.noise(t))
                    noisy = axes[:, sizes > 1e-12 * sizes[0]].T  # what has no noise is not learnt
                    found, true = noisy @ found, noisy @ true
                np.testing.assert_allclose(found, true, rtol=0.0, atol=2e-9 * np.linalg.norm(true), err_msg=f"{of} {start} {u}")


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", ALL)
def test_inputs_and_targets_have_unit_variance(name, start):
    loss = Matching(ALL[name], SPREAD, start=start)
    for u in (0.03, 0.95):
        made, target, _ = coefficients(loss, u)
        law = np.diag([SPREAD**2, *[1.0] * loss.normals])
        np.testing.assert_allclose(made @ law @ made.T, np.eye(len(made)), atol=1e-9)
        np.testing.assert_allclose(target @ law @ target.T, [[1.0]], atol=1e-9)
        np.testing.assert_allclose(target @ law @ made.T, 0.0, atol=1e-9)  # nothing that a linear network could learn
        for of in ("eps", "mixed"):
            _, noise, _ = coefficients(Matching(loss.process, SPREAD, of=of, start=start), u)
            assert of == "mixed" or np.allclose(noise @ law @ noise.T, np.eye(loss.process.k))


def test_one_block_is_edm_s_loss():
    loss, plain = Matching(sk.catalogue.edm(), SPREAD), Denoising(SPREAD)
    rng = np.random.default_rng(0)
    x0, xi = torch.from_numpy(rng.standard_normal((5, 2, 3))), torch.from_numpy(rng.standard_normal((1, 5, 2, 3)))
    u = np.linspace(0.05, 0.95, 5)
    t, factor = loss.levels.draw(loss.process, u)
    ours, edm = loss.draw(x0, xi, u), plain.draw(x0, xi, ndtr((np.log(t) + 1.2) / 1.2))
    for one, other in zip(ours[:3], edm[:3], strict=True):
        np.testing.assert_allclose(one, other, rtol=0.0, atol=1e-13)
    assert ours.weight is edm.weight is None
    answer = torch.from_numpy(rng.standard_normal((5, 2, 3)))
    np.testing.assert_allclose(loss.error(answer, ours), plain.error(answer, edm), rtol=1e-12)
    weighted = loss.__class__(loss.process, SPREAD, of="data", weighting="edm").draw(x0, xi, u)  # |D - x0|^2 / c_out^2
    np.testing.assert_allclose(weighted.weight[:, 0, 0] ** 2, 1.0 / t**2 + 1.0 / SPREAD**2, rtol=1e-12)
    assert np.all(factor == 1.0)


def by_hand(t, Gamma=0.01):
    """PSLD's critical kernel from the fact sheet: (mu_x, mu_m), (l11, l21, l22) in (x, m); M = 1/4, nu = Gamma + 4, beta = 8, gamma = .04."""
    u, a, gamma, delta = 2.0 * 8.0 * t / 2.0, (2.0 * Gamma + 4.0) * 8.0 * t / 4.0, 0.04, 2.0
    xx = 1.0 - np.exp(-2 * a) * ((1 + u) ** 2 + (1 - gamma) * u**2)
    xm = np.exp(-2 * a) * u * (2 * u + gamma * (1 - u)) / delta
    mm = (1.0 - np.exp(-2 * a) * (u**2 + (1 - gamma) * (1 - u) ** 2)) / delta**2
    l11 = np.sqrt(xx)
    return (np.exp(-a) * (1 + u), -np.exp(-a) * u / delta), (l11, xm / l11, np.sqrt(mm - xm**2 / xx)), mm


def test_psld_s_noise_is_that_of_its_lower_root():
    process, t = sk.catalogue.psld(), 0.4
    loss = Matching(process, SPREAD, of="eps", levels=Uniform(1e-5))
    u = (t - 1e-5) / (1.0 - 1e-5)
    (mx, mm), (l11, l21, l22), Smm = by_hand(t)
    made, target, _ = coefficients(loss, u)
    state = np.linalg.solve(np.asarray(loss.maps(np.array([t])).C)[0], made)
    np.testing.assert_allclose(state, [[mx, l11, 0.0], [mm, l21, l22]], atol=1e-12)
    np.testing.assert_allclose(target, [[0, 1, 0], [0, 0, 1]], atol=0.0)
    np.testing.assert_allclose(loss.maps(np.array([t])).B[0], [[-1 / l11, l21 / (l11 * l22)], [0.0, -1 / l22]], rtol=1e-11)
    mixed = Matching(process, SPREAD, of="mixed", levels=Uniform(1e-5))  # s_m = -m / Smm - a / l22
    _, rest, _ = coefficients(mixed, u)
    np.testing.assert_allclose(rest[1], np.array([0.0, 0.0, 1.0]) - l22 / Smm * np.array([mm, l21, l22]), atol=1e-11)
    np.testing.assert_allclose(mixed.maps(np.array([t])).A[0], np.diag([0.0, -1.0 / Smm]), rtol=1e-12)


def test_given_start_keeps_the_start_s_noise_apart():
    """DSM: z_m starts at m0 ~ N(0, .01), and the root is that of the kernel without a start (gamma = 0)."""
    process, t = sk.catalogue.psld(), 0.4
    loss = Matching(process, SPREAD, of="score", start="given", levels=Uniform(1e-5))
    made, target, _ = coefficients(loss, (t - 1e-5) / (1.0 - 1e-5))
    state = np.linalg.solve(np.asarray(loss.maps(np.array([t])).C)[0], made)
    step = process.transition(0.0, t)
    np.testing.assert_allclose(state[:, 0], step.mean[:, 0], rtol=1e-12)
    np.testing.assert_allclose(state[:, 1:3], step.chol, atol=1e-12)
    np.testing.assert_allclose(state[:, 4], 0.1 * step.mean[:, 1], rtol=1e-12)
    np.testing.assert_allclose(target[:, 1:3], -np.linalg.inv(step.chol).T, atol=1e-9)
    hybrid = coefficients(Matching(process, SPREAD, of="score", levels=loss.levels), (t - 1e-5) / (1.0 - 1e-5))[1]
    assert np.min(np.linalg.eigvalsh(target @ target.T - hybrid @ hybrid.T)) > -1e-9  # the target varies more, in every direction
    assert np.trace(target @ target.T) > 1.0004 * np.trace(hybrid @ hybrid.T)


def test_likelihood_weights_are_the_papers():
    t, levels = 0.3, Uniform(1e-5)
    u = (t - 1e-5) / (1.0 - 1e-5)
    beta, B = 0.1 + 19.9 * t, 0.1 * t + 9.95 * t * t
    vp = sk.catalogue.vp()
    R = {of: coefficients(Matching(vp, SPREAD, of=of, weighting="likelihood", levels=levels), u)[2] for of in ANSWERS}
    assert R["score"][0, 0] ** 2 == pytest.approx(beta, rel=1e-12)  # g^2 |s - s*|^2
    assert R["eps"][0, 0] ** 2 == pytest.approx(beta / -np.expm1(-B), rel=1e-12)  # g^2 / sigma^2 |e - e*|^2
    assert R["data"][0, 0] ** 2 == pytest.approx(beta * np.exp(-B) / np.expm1(-B) ** 2, rel=1e-12)  # g^2 psi^2 / sigma^4 |D - x0|^2
    psld = Matching(sk.catalogue.psld(Gamma=0.02), SPREAD, of="score", weighting="likelihood", levels=levels)
    R2 = coefficients(psld, u)[2]
    np.testing.assert_allclose(R2.T @ R2, 8.0 * np.diag([0.02, 0.25 * 4.02]), rtol=1e-12, atol=1e-14)  # beta (Gamma, M nu): eq. 8 of the PSLD paper


def test_importance_keeps_the_mean_and_loses_the_variance():
    u = (np.arange(4000) + 0.5) / 4000
    for process in (sk.catalogue.vp(), sk.catalogue.psld()):
        t, factor = Importance(1e-3).draw(process, u)
        even = Uniform(1e-3).draw(process, u)[0]
        for of_time in (np.sqrt, lambda s: 1.0 / (0.05 + s)):
            assert np.mean(factor * of_time(t)) == pytest.approx(np.mean(of_time(even)), rel=1e-3)
        white = np.linalg.solve(process.kernel(t).chol, process.noise(t))
        cost = factor * np.sum(white**2, axis=(1, 2))
        assert np.std(cost) < 3e-3 * np.mean(cost)
        loss = Matching(process, SPREAD, of="eps", weighting="likelihood", levels=Importance(1e-3))
        root = loss.draw(torch.zeros(2, 1), torch.zeros(process.k, 2, 1), u[:2]).weight.double().numpy()
        np.testing.assert_allclose(np.sum(root**2, axis=(1, 2)), cost[:2], rtol=1e-5)
    t, _ = Importance(1e-3).draw(sk.catalogue.vp(), u)  # by hand: ln(e^B - 1) is even in u
    B = np.log(np.expm1(0.1 * t + 9.95 * t * t))
    np.testing.assert_allclose(np.diff(B), np.mean(np.diff(B)), rtol=2e-2)


@pytest.mark.parametrize("name", ALL)
def test_levels_follow_one_law_on_every_process(name):
    process, u = ALL[name], np.linspace(0.05, 0.95, 30)
    t, factor = LogNormal(-1.2, 1.2).draw(process, u)
    low, high = (ndtr((np.log(float(process.sigma_eff(s))) + 1.2) / 1.2) for s in (1e-8 * process.T, process.T))
    np.testing.assert_allclose(np.log(process.sigma_eff(t)), -1.2 + 1.2 * ndtri(low + (high - low) * u), atol=1e-4)
    assert np.all(factor == 1.0)


class Linear(torch.nn.Module):
    """The best linear network of a loss, at every level."""

    def __init__(self, loss, variance):
        super().__init__()
        self.loss, self.variance = loss, variance
        self.none = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x, level):
        sigma = float(torch.exp(4.0 * level[0]))
        inside = loss_at(self.loss, float(self.loss.process.time_of(sigma)))
        return x @ torch.from_numpy(minimiser(inside, 0.5, self.variance)).T


def loss_at(loss, t):
    """The same loss with every draw at one time."""

    class At:
        kind = "at"

        def draw(self, process, uniforms):
            return np.full(len(uniforms), t), np.ones(len(uniforms))

    return Matching(loss.process, loss.spread, loss.of, loss.weighting, loss.start, At())


@pytest.mark.parametrize("of", ANSWERS)
def test_a_native_network_samples_as_the_law_s_denoiser_does(of):
    """The whole way: pairs, minimiser, network on the state, sampler of any kind."""
    process, law = sk.catalogue.psld(), sk.law.Gaussian([0.0], VARIANCE)
    loss = Matching(process, SPREAD, of=of)
    native = NetworkScore(Linear(loss, VARIANCE), (1,), loss)
    z = np.random.default_rng(0).standard_normal((2, 4, 1))
    for t in (0.05, 0.9):
        np.testing.assert_allclose(native(z, t), score(process, law.denoiser(), z, t), rtol=1e-8)
    run = {"grid": sk.grids.karras(5), "n": 3, "shape": (1,), "dtype": np.float64}
    for method in (sk.methods.sscs(), sk.methods.euler(1.0), sk.methods.heun(), sk.methods.exponential(2)):
        ours, exact = (sk.sample(process, model, method=method, **run) for model in (native, law.denoiser()))
        np.testing.assert_allclose(np.asarray(ours.x), exact.x, rtol=1e-6, atol=1e-8)
    with pytest.raises(sk.BadInput, match=r"z has shape \(3, 4, 1\); this network takes \(2, n, 1\)"):
        native(np.zeros((3, 4, 1)), 0.5)


class Posterior(torch.nn.Module):
    """Logits of two classes N(-1, .04), N(1, .04) of one number, spread ``SPREAD``."""

    def __init__(self):
        super().__init__()
        self.none = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x, level):
        sigma2 = torch.exp(8.0 * level)[:, None]
        y = x * torch.sqrt(sigma2 + SPREAD**2)
        return torch.stack([-y, y], dim=1) / (sigma2 + 0.04)[..., None]


def test_classifier_guidance_of_an_exact_classifier_is_the_class_denoiser():
    classifier = NetworkClassifier(Posterior(), (1,), Classification(SPREAD, 2))
    both = sk.law.Mixture([0.5, 0.5], [[-1.0], [1.0]], [[0.04], [0.04]]).denoiser()
    one, y = sk.law.Gaussian([1.0], 0.04).denoiser(), np.linspace(-2.0, 2.0, 7)[:, None]
    for sigma in (0.1, 0.7, 3.0):
        guided = both(y, sigma) + sigma**2 * classifier.gradient(y, sigma, 1)
        np.testing.assert_allclose(guided, one(y, sigma), rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(np.exp(classifier(y, sigma)[:, 1]), 1.0 / (1.0 + np.exp(-2.0 * y[:, 0] / (sigma**2 + 0.04))), rtol=1e-9)
        mixed = classifier.gradient(y, sigma, np.array([1, 0, 1, 0, 1, 0, 1]))
        np.testing.assert_allclose(mixed[1], classifier.gradient(y, sigma, 0)[1], rtol=1e-12)
    with pytest.raises(sk.BadInput, match="label = 2 must be an integer, or integers"):
        classifier.gradient(y, 1.0, 2)


def test_cross_entropy_is_of_the_mean_over_pixels():
    loss = Classification(SPREAD, 3)
    drawn = loss.draw(torch.zeros(2, 1, 2, 2), torch.zeros(1, 2, 1, 2, 2), [0.2, 0.8])._replace(target=torch.tensor([0, 2]))
    answer = torch.zeros(2, 3, 2, 2)
    answer[0, 0, 0, 0] = 8.0
    np.testing.assert_allclose(loss.error(answer, drawn), [np.log(np.exp(2.0) + 2.0) - 2.0, np.log(3.0)], rtol=1e-6)


def test_losses_are_written_and_read():
    rng = np.random.default_rng(1)
    for loss in (
        Denoising(0.7, (-1.0, 0.9)),
        Classification(0.7, 4),
        Matching(sk.catalogue.psld(Gamma=0.03), 0.7, "mixed", "likelihood", "given", Importance(1e-4)),
        Matching(sk.catalogue.third_order(), 0.7, "data", "edm", levels=LogNormal(-1.0, 1.0)),
    ):
        again = loss_of(json.loads(json.dumps(loss.as_dict())))
        assert json.dumps(again.as_dict()) == json.dumps(loss.as_dict())
        x0, xi = torch.from_numpy(rng.standard_normal((2, 3))), torch.from_numpy(rng.standard_normal((loss.normals, 2, 3)))
        for one, other in zip(loss.draw(x0, xi, [0.3, 0.6]), again.draw(x0, xi, [0.3, 0.6]), strict=True):
            assert one is other is None or torch.equal(one, other)


def test_wrong_losses_are_named():
    psld = sk.catalogue.psld()
    for make, message in (
        (lambda: Matching(psld, SPREAD, of="esp"), "unknown value of of 'esp'; did you mean 'eps'"),
        (lambda: Matching(psld, SPREAD, weighting="g2"), "unknown value of weighting 'g2'"),
        (lambda: Matching(psld, SPREAD, start="dsm"), "unknown value of start"),
        (lambda: Matching("psld", SPREAD), "must be a Process"),
        (lambda: Matching(psld, 0.0), "spread = 0.0 must be positive"),
        (lambda: Denoising(1.0, (0.0, -1.0)), "log_sigma = -1.0 must be positive"),
        (lambda: Classification(1.0, 1), "classes = 1 must be an integer >= 2"),
        (lambda: Uniform(2.0).draw(psld, [0.5]), "low = 2 must lie below T = 1"),
        (lambda: Uniform().draw(psld, [1.0]), r"uniforms must lie in \(0, 1\)"),
        (lambda: loss_of({"kind": "denosing"}), "unknown kind of objective 'denosing'; did you mean 'denoising'"),
        (lambda: loss_of({"kind": "denoising", "spread": 1.0}), r"it must have \['log_sigma', 'spread'\]"),
        (lambda: Matching(sk.catalogue.subvp(), SPREAD).as_dict(), "has no constant F"),
    ):
        with pytest.raises(sk.BadInput, match=message):
            make()
