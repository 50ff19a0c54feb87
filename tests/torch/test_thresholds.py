"""Denoisers made of denoisers: a mixture whose classes are its components, where guidance of weight 1 is conditioning, exactly."""

import math

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit.denoiser import StateScore
from sdekit.torch.conventions import library
from sdekit.torch.exports import to_state_score
from sdekit.torch.guidance import Classified, Clipped, Thresholded, clipped, decoder, thresholded

PSLD = sk.catalogue.psld()
WEIGHTS, MEANS, SPREAD = np.array([0.3, 0.7]), np.array([[1.0, -0.5, 0.2], [-0.7, 0.2, 0.4]]), 0.3
MIXTURE = sk.law.Mixture(WEIGHTS, MEANS, [SPREAD**2, SPREAD**2])
CLASS = sk.law.Gaussian(MEANS[0], SPREAD**2)


def posterior(gaps):
    """log p(class 0) from the squared Mahalanobis distances to both classes."""
    logs = torch.stack([math.log(w) - 0.5 * gap for w, gap in zip(WEIGHTS, gaps, strict=True)])
    return logs[0] - torch.logsumexp(logs, 0)


def of_data(y, sigma):
    tau = SPREAD**2 + torch.as_tensor(sigma, dtype=y.dtype) ** 2
    return posterior([(y - torch.from_numpy(m).to(y)).square().sum(1) / tau for m in MEANS])


def of_state(z, t):
    """From the law of the whole state."""
    kernel = PSLD.kernel(t)
    precision = torch.from_numpy(np.linalg.inv(kernel.cov + SPREAD**2 * np.outer(kernel.psi, kernel.psi))).to(z)
    gaps = []
    for m in MEANS:
        gap = z - torch.from_numpy(np.multiply.outer(kernel.psi, m)).to(z)[:, None]
        gaps.append(torch.einsum("ind,ij,jnd->n", gap, precision, gap))
    return posterior(gaps)


def test_weight_one_is_conditioning():
    y = np.random.default_rng(0).standard_normal((4, 3))
    guided = Classified(MIXTURE.denoiser(), of_data)
    for sigma in (0.1, 1.0, 20.0):
        assert guided(y, sigma) == pytest.approx(CLASS.denoiser()(y, sigma), abs=1e-9)
    levels = torch.tensor([0.1, 0.5, 2.0, 9.0], dtype=torch.float64)
    each = torch.cat([guided(torch.from_numpy(y[i : i + 1]), float(s)) for i, s in enumerate(levels)])
    assert torch.allclose(guided(torch.from_numpy(y), levels), each, atol=1e-12)
    D, D0 = MIXTURE.denoiser()(y, 1.0), CLASS.denoiser()(y, 1.0)
    assert Classified(MIXTURE.denoiser(), of_data, 5.0)(y, 1.0) == pytest.approx(D + 5.0 * (D0 - D), abs=1e-9)
    assert guided.shape == (3,)


def test_samples_of_a_class_on_two_blocks_by_either_classifier():
    chosen = {"method": sk.methods.exponential(2), "grid": sk.grids.karras(8, 0.02, 20.0), "n": 4, "device": "cpu", "dtype": torch.float64}
    native = sk.sample(PSLD, CLASS.denoiser(), **chosen).x
    assert (sk.sample(PSLD, Classified(MIXTURE.denoiser(), of_data), **chosen).x - native).abs().max() < 1e-8
    whole = Classified(to_state_score(MIXTURE.denoiser(), PSLD), of_state)
    assert isinstance(whole, StateScore)
    assert whole.shape == (3,)
    assert (sk.sample(PSLD, whole, **chosen).x - native).abs().max() < 1e-6


@pytest.mark.images
def test_thresholds_are_those_of_diffusers():
    x = 3.0 * torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    x[0] *= 0.1
    for ratio, most in ((0.995, 1.0), (0.9, 1.5), (0.5, 100.0)):
        theirs = library().DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=ratio, sample_max_value=most)
        expected = theirs._threshold_sample(x)
        assert torch.allclose(thresholded(x, ratio, most), expected, atol=1e-6)
        assert np.allclose(thresholded(x.numpy(), ratio, most), expected, atol=1e-6)
        denoise = Thresholded(lambda y, sigma: y, ratio, most)
        assert torch.allclose(denoise(x, 1.0), expected, atol=1e-6)
        assert denoise(x.half(), 1.0).dtype == torch.float16


def test_clipping():
    x = np.array([[-3.0, 0.2, 1.1]])
    assert clipped(x, 1.0).tolist() == [[-1.0, 0.2, 1.0]]
    assert clipped(torch.from_numpy(x), 0.5).tolist() == [[-0.5, 0.2, 0.5]]
    limited = Clipped(MIXTURE.denoiser(), 0.3)
    run = sk.sample(PSLD, limited, n=5)
    assert np.max(np.abs(run.x)) <= 0.3 + 1e-12  # the last step puts the data in the place of the state
    assert limited.shape == (3,)


def test_latents_are_decoded_in_parts():
    seen = []

    class Toy(torch.nn.Module):
        def decode(self, z):
            seen.append(len(z))
            return 2.0 * z

    latents = np.arange(10.0).reshape(5, 2)
    assert decoder(Toy(), batch=2, scale=0.5)(latents).tolist() == (4.0 * latents).tolist()
    assert seen == [2, 2, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Classified(MIXTURE.denoiser(), "cat"), "log_probability = 'cat' must be callable"),
        (lambda: Classified(MIXTURE.denoiser(), of_data, "x"), "weight = 'x' must be a number"),
        (
            lambda: Classified(MIXTURE.denoiser(), lambda y, s: y.sum())(np.zeros((2, 3)), 1.0),
            r"gives shape \(\); it must be one number for each of the 2",
        ),
        (lambda: Clipped(MIXTURE.denoiser(), 0.0), "most = 0.0 must be positive"),
        (lambda: Clipped(StateScore(len)), "must be callable as denoise"),
        (lambda: Thresholded(MIXTURE.denoiser(), 1.5), r"ratio = 1.5 must lie in \(0, 1\]"),
        (lambda: Thresholded(MIXTURE.denoiser(), 0.9, 0.5), "most = 0.5 must be at least 1"),
        (lambda: decoder(object(), batch=0), "batch = 0"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(sk.BadInput, match=message):
        make()
