"""The shipped classifier of noisy digits: beside the exact class probabilities of the training images, at its ends, its gradient, and as a guide."""

import hashlib
import json

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

import sdekit as sk
from sdekit.torch import models, shipped
from sdekit.torch.data import digits
from sdekit.torch.exports import to_state_score
from sdekit.torch.guidance import Classified
from sdekit.torch.metrics import _classifier

pytestmark = pytest.mark.images


@pytest.fixture(scope="module")
def images():
    return digits()


@pytest.fixture(scope="module")
def classify():
    return models.load("digits_classifier")


@pytest.fixture(scope="module")
def denoise():
    return models.load("digits")


def noisy(images, sigma, seed=1):
    x0 = images.held_out.astype(float)
    return x0 + sigma * np.random.default_rng(seed).standard_normal(x0.shape), images.held_out_labels


def of_training_images(images, y, sigma):
    """log p(c | y) if the training images were all there are: sums of normal densities around those of each class."""
    gaps = cdist(y.reshape(len(y), -1), images.train.reshape(len(images.train), -1), "sqeuclidean")
    logs = np.stack([logsumexp(-0.5 * gaps[:, images.train_labels == c] / sigma**2, axis=1) for c in range(10)], 1)
    return logs - logsumexp(logs, axis=1, keepdims=True)


def judged(logs, labels):
    """Accuracy, and the mean log-probability of the true class."""
    return np.mean(np.argmax(logs, 1) == labels), np.mean(logs[np.arange(len(labels)), labels])


def test_it_is_what_its_record_says(classify, images):
    record, data = classify.record, (models._SHIPPED / "digits_classifier.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == record["sha256"]
    assert len(data) < 300_000
    assert record["data"] == images.as_dict()
    run = shipped.runs(images)["digits_classifier"]
    assert record["objective"] == run["loss"].as_dict() == classify.loss.as_dict()
    assert record["settings"]["steps"] == run["steps"]
    assert {key: record["network"][key] for key in run["network"]} == run["network"]
    found = shipped.classified(classify, images)
    for ours, kept in zip(found["levels"], record["judged"]["levels"], strict=True):
        assert ours == pytest.approx(kept, rel=1e-3, abs=0.003)  # one image of 397


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 5.0, 20.0])
def test_it_is_near_the_class_probabilities_of_the_training_images(classify, images, sigma):
    """Those are the best there is where noise hides which image it was; the network may be better where they are but 1,400."""
    y, labels = noisy(images, sigma)
    accuracy, mean = judged(classify(y, sigma), labels)
    best, most = judged(of_training_images(images, y, sigma), labels)
    assert accuracy > best - 0.04
    assert mean > most - 0.15
    assert mean > np.log(0.1) - 0.01


def test_with_little_noise_it_reads_digits_and_with_much_it_knows_their_frequencies(classify, images):
    for sigma, least in ((0.05, 0.95), (0.2, 0.95)):
        y, labels = noisy(images, sigma)
        assert judged(classify(y, sigma), labels)[0] > least
    y, labels = noisy(images, 300.0)
    logs, prior = classify(y, 300.0), np.bincount(images.train_labels) / len(images.train)
    assert judged(logs, labels)[0] < 0.2
    apart = np.sum(prior * (np.log(prior) - logs), axis=1)  # Kullback-Leibler
    assert np.mean(apart) < 0.02


def test_probabilities_are_calibrated(classify, images):
    """Where it says p, it is right in a share p of cases: each bin within four of its deviations and 0.03."""
    for sigma in (1.0, 2.0, 5.0):
        y, labels = (np.concatenate(part) for part in zip(*(noisy(images, sigma, seed) for seed in range(3)), strict=True))
        logs = classify(y, sigma)
        right, said = np.argmax(logs, 1) == labels, np.exp(np.max(logs, 1))
        for part in np.array_split(np.argsort(said), 4):
            expected = np.mean(said[part])
            assert abs(np.mean(right[part]) - expected) < 0.03 + 4.0 * np.sqrt(expected * (1.0 - expected) / (len(part) / 3))


def test_its_gradient_is_that_of_finite_differences(images):
    classify = models.load("digits_classifier").to(dtype=torch.float64)
    for sigma in (0.2, 1.0, 10.0):
        y, labels = (part[:4] for part in noisy(images, sigma))
        gradient = classify.gradient(y, sigma, labels)
        step = 1e-4 * sigma
        way = np.random.default_rng(0).standard_normal(y.shape)
        ends = [classify(y + sign * step * way, sigma)[np.arange(4), labels] for sign in (1, -1)]
        slopes = (gradient * way).reshape(4, -1).sum(1)
        np.testing.assert_allclose(slopes, (ends[0] - ends[1]) / (2.0 * step), rtol=1e-5, atol=1e-6 * np.abs(gradient).max())


@pytest.mark.parametrize("name", ["edm", "psld"])
def test_it_guides_the_denoiser_without_classes(classify, denoise, images, name):
    """Of 30 samples the share that is of the class asked for, by judge's classifier, which has seen no noise: a tenth without guidance."""
    labels = np.arange(30) % 10
    run = {"method": sk.methods.exponential(2), "grid": sk.grids.karras(14), "n": 30, "seed": 2}
    free, led = (
        np.mean(_classifier(images, 0).predict(sk.sample(getattr(sk.catalogue, name)(), model, **run).x.reshape(30, -1)) == labels)
        for model in (denoise, Classified(denoise, classify.given(labels), 2.0))
    )
    assert free < 0.3
    assert led > 0.65  # by chance: 1e-13


def test_on_the_whole_state_it_is_the_same_guide():
    """recipe.md 6.1: s + w grad_z log p(c | z, t), both blocks, is the score of the guided denoiser, so the samples agree to rounding."""
    process, labels = sk.catalogue.psld(), np.array([3, 8])
    classify, denoise = (models.load(name).to(dtype=torch.float64) for name in ("digits_classifier", "digits"))
    run = {"method": sk.methods.exponential(2), "grid": sk.grids.karras(6, 0.05), "n": 2, "device": "cpu", "dtype": torch.float64}
    one = sk.sample(process, Classified(denoise, classify.given(labels), 2.0), **run).x
    whole = Classified(to_state_score(denoise, process), classify.given(labels, process), 2.0)
    other = sk.sample(process, whole, **run).x
    assert (one - other).abs().max() < 1e-6
    assert (one - sk.sample(process, denoise, **run).x).abs().max() > 0.1


def test_a_classifier_is_not_sampled(tmp_path, capsys):
    from sdekit.cli import main

    assert main(["sample", "edm", "--model", "digits_classifier", "--n", "1", "--json", "-o", str(tmp_path)]) == 2
    assert "is a classifier: it guides a denoiser" in capsys.readouterr().err
    assert main(["list", "models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == ["digits", "digits_classes", "digits_classifier"]
