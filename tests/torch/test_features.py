"""Streamed moments, kernel distances and their floors against closed forms and against the distances of whole sets."""

import sys
from itertools import pairwise

import numpy as np
import pytest

from sdekit import BadInput
from sdekit.errors import MissingExtra
from sdekit.runs import Alone
from sdekit.torch import digits, frechet
from sdekit.torch.features import Features, Moments, classifier, compare, inception, kernel_distance, pca, pixels

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((200, 5)) @ RNG.standard_normal((5, 5)) + 40.0, RNG.standard_normal((90, 5)) + 41.0


def test_moments_batch_after_batch():
    made = Moments(5)
    for lo, hi in pairwise([0, 1, 1, 70, 200]):
        made.update(A[lo:hi])
    assert made.n == 200
    np.testing.assert_allclose(made.mean, A.mean(0), rtol=1e-14)
    np.testing.assert_allclose(made.cov, np.cov(A, rowvar=False), rtol=1e-11)
    other = Moments.of(A[:50])
    other.merge(Moments.of(A[50:]))
    np.testing.assert_allclose(other.cov, made.cov, rtol=1e-11)


def test_moments_over_workers():
    parts = [Moments.of(A[:30]), Moments(5), Moments.of(A[30:])]
    packed = []

    class Together(Alone):
        def total(self, values):
            packed.append(values)
            return sum(packed)

    made = [part.over(Together()) for part in parts][-1]
    assert made.n == 200
    np.testing.assert_allclose(made.mean, A.mean(0), rtol=1e-13)
    np.testing.assert_allclose(made.cov, np.cov(A, rowvar=False), rtol=1e-8)  # sums of squares of numbers near 40


def test_frechet_from_moments_is_that_of_the_sets():
    assert Moments.of(A).frechet(Moments.of(B)) == pytest.approx(frechet(A, B), rel=1e-9)
    assert Moments.of(A).frechet(Moments.of(A)) < 1e-12


def test_kernel_distance_is_the_u_statistic():
    a, b = A[:6] - 40.0, B[:4] - 40.0
    k = lambda x, y: (x @ y / 5.0 + 1.0) ** 3  # noqa: E731
    own = [np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    assert kernel_distance(a, b) == pytest.approx(sum(own) - 2.0 * np.mean([k(x, y) for x in a for y in b]), rel=1e-12)


def test_kernel_distance_of_normal_laws():
    """In one dimension (xy + 1)^3 compares three moments: the square of their gaps, weighed 3, 3, 1."""
    moments = [(m, m * m + s * s, m**3 + 3.0 * m * s * s) for m, s in ((0.0, 1.0), (0.5, 1.2))]
    made = [kernel_distance(x, 0.5 + 1.2 * y) for x, y in RNG.standard_normal((20, 2, 400, 1))]
    assert np.mean(made) == pytest.approx(np.dot([3.0, 3.0, 1.0], np.subtract(*moments) ** 2), rel=0.3)
    assert abs(np.mean([kernel_distance(x, y) for x, y in RNG.standard_normal((400, 2, 20, 1))])) < 0.15  # no bias


def test_samples_of_the_data_are_at_the_floor_and_others_are_not():
    images = digits()
    x, y = images.held_out, images.train
    found = compare(x[:200], y, [pixels(), pca(images, 10), classifier(images)], repeats=4)
    for row in found.rows:
        for name in ("frechet", "sliced"):
            one = row["measures"][name]
            assert abs(one["value"] - one["floor"]) < 5.0 * one["spread"]
            assert 0.5 < one["value"] / one["floor"] < 2.0
        assert abs(row["measures"]["kernel"]["value"]) < 8.0 * row["measures"]["kernel"]["spread"]
    noise = images.gaussian().sample(200, seed=1)
    seen = compare(noise, y, [pixels(), classifier(images)], repeats=4)
    for row in seen.rows:  # moments cannot tell, neighbours can
        found = row["measures"]
        assert found["frechet"]["value"] < found["frechet"]["floor"] + 5.0 * found["frechet"]["spread"]
        assert found["precision"]["value"] < 0.3 * found["precision"]["floor"]
    assert "classifier" in str(seen)
    assert seen.rows[1]["settings"] == {"units": 100, "seed": 0}


def test_pca_features_are_projections_on_the_widest_directions():
    images = digits()
    made = pca(images, 5)(images.train)
    values = np.linalg.eigvalsh(np.cov(images.train.reshape(len(images.train), -1), rowvar=False))[::-1][:5]
    np.testing.assert_allclose(np.cov(made, rowvar=False), np.diag(values), atol=1e-10)


def test_bad_input(monkeypatch):
    with pytest.raises(BadInput, match="do not compare"):
        compare(A, B[:, :3])
    with pytest.raises(BadInput, match="not finite"):
        Features("log", lambda x: np.log(x - x))(A + np.nan)
    with pytest.raises(BadInput, match="at least two"):
        _ = Moments.of(A[:1]).cov
    with pytest.raises(BadInput, match="components = 99"):
        pca(digits(), 99)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(MissingExtra, match="inception"):
        inception()
