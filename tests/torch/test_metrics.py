"""Measures of samples: closed forms, and what they have to tell apart."""

import json

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit.torch.data import Images, digits
from sdekit.torch.metrics import frechet, gaussian_baseline, judge, precision_recall

pytestmark = pytest.mark.images


@pytest.fixture(scope="module")
def images():
    return digits()


def test_digits_are_as_described(images):
    assert images.train.shape == (1400, 1, 8, 8)
    assert images.held_out.shape == (397, 1, 8, 8)
    assert images.train.dtype == np.float32
    assert (images.train.min(), images.train.max()) == images.range == (-1.0, 1.0)
    assert set(np.unique((images.train + 1.0) * 8.0)) == set(range(17))
    assert set(images.train_labels) == set(range(10))
    assert np.array_equal(images.order, np.random.default_rng(0).permutation(1797))
    assert images.as_dict() == digits().as_dict()
    assert images.as_dict()["split_sha256"] != digits(1).as_dict()["split_sha256"]
    with pytest.raises(ValueError, match="read-only"):
        images.train[0] = 0.0


def test_images_are_checked():
    pixels, labels = np.zeros((4, 1, 2, 2)), np.zeros(4)
    for arguments, message in (
        ((pixels[:, 0], labels, 2), r"pixels have shape \(4, 2, 2\)"),
        ((pixels, labels[:3], 2), r"labels \(3,\)"),
        ((pixels + 2.0, labels, 2), r"pixels lie in \[2, 2\]"),
        ((pixels * np.nan, labels, 2), "pixels lie in"),
        ((pixels, labels, 4), "leaves nothing held out of 4"),
    ):
        with pytest.raises(sk.BadInput, match=message):
            Images(*arguments)


def test_frechet_of_equal_images_is_zero(images):
    assert frechet(images.train, images.train) < 1e-20
    assert frechet(images.train, images.train[::-1]) < 1e-20


def test_frechet_is_the_closed_form():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((50, 1, 1, 2))
    flat = a.reshape(50, 2)
    whitened = (flat - flat.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(flat.T))).T  # exact covariance 1, mean 0
    left = whitened * [1.0, 2.0] + [3.0, 0.0]
    right = whitened * [4.0, 0.5] + [0.0, 4.0]
    assert frechet(left, right) == pytest.approx(3.0**2 + 4.0**2 + 3.0**2 + 1.5**2, rel=1e-12)
    # not commuting: tr of the root of the product of the covariances, from its eigenvalues
    angle = 0.7
    turned = right @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    c, d = np.cov(left.T), np.cov(turned.T)
    cross = np.sum(np.sqrt(np.linalg.eigvals(c @ d).real))
    expected = np.sum((left.mean(0) - turned.mean(0)) ** 2) + np.trace(c) + np.trace(d) - 2.0 * cross
    assert frechet(left, turned) == pytest.approx(expected, rel=1e-12)
    assert frechet(torch.from_numpy(left), turned) == frechet(left, turned)


def test_frechet_keeps_small_distances(images):
    moved = images.train.astype(float) + 1e-7
    assert frechet(moved, images.train) == pytest.approx(64 * 1e-14, rel=1e-6)


def test_precision_and_recall_by_hand():
    reference = np.array([[0.0], [1.0], [2.0], [10.0]])  # distances to the nearest: 1, 1, 1, 8
    samples = np.array([[0.5], [3.5], [30.0]])  # balls of radius 3, 3, 26.5
    assert precision_recall(samples, reference, neighbours=1) == (2 / 3, 1.0)
    assert precision_recall(samples[:2] + 100.0, reference, neighbours=1) == (0.0, 0.0)
    with pytest.raises(sk.BadInput, match="neighbours = 3 needs more than 3"):
        precision_recall(samples, reference)


def test_held_out_digits_pass(images):
    verdict = judge(images.held_out, images)
    assert verdict.passed, str(verdict)
    assert verdict.n == 397
    assert verdict.accuracy > 0.96
    for measure in verdict.measures:
        assert measure.value == pytest.approx(measure.held_out, rel=1e-9)
    assert json.loads(json.dumps(verdict.as_dict())) == verdict.as_dict()
    assert judge(torch.tensor(images.held_out), images).as_dict() == verdict.as_dict()


def test_the_fitted_normal_law_passes_frechet_alone_and_fails(images):
    samples = gaussian_baseline(images, 397, seed=1)
    verdict = judge(samples, images)
    assert verdict["frechet"].passed
    assert not verdict["confidence"].passed
    assert not verdict["precision"].passed
    assert verdict["precision"].value < 0.3 * verdict["precision"].held_out
    assert not verdict.passed
    assert np.array_equal(samples, gaussian_baseline(images, 397, seed=1))
    assert "precision" in str(verdict)
    assert "FAILED" in str(verdict)


def test_copies_and_missing_classes_fail(images):
    copies = judge(images.train[:300], images)
    assert not copies["novelty"].passed
    assert copies["precision"].value == 1.0
    few = judge(images.held_out[images.held_out_labels < 5], images)
    assert not few["class_balance"].passed
    assert not few["recall"].passed
    assert few["confidence"].passed
    with pytest.raises(KeyError):
        few["fid"]


def test_bad_samples_are_named(images):
    with pytest.raises(sk.BadInput, match=r"samples have shape \(5, 64\)"):
        judge(np.zeros((5, 64)), images)
    with pytest.raises(sk.BadInput, match="not finite"):
        judge(np.full((5, 1, 8, 8), np.nan), images)
    with pytest.raises(sk.BadInput, match="at least two images"):
        frechet(np.zeros((1, 4)), np.zeros((5, 4)))
    with pytest.raises(sk.BadInput, match="4 and 9 pixels"):
        frechet(np.zeros((5, 4)), np.zeros((5, 9)))
