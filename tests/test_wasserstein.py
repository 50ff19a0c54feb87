"""Distances: closed forms between normal laws, small ones to their last digits, samples on the line against scipy."""

import numpy as np
import pytest
from mpmath import mp
from scipy.linalg import sqrtm
from scipy.stats import wasserstein_distance

from sdekit import BadInput
from sdekit.analysis import w1_exact_1d, w2_exact_1d, w2_gaussian
from sdekit.analysis.wasserstein import w2_factors


def random_cov(rng, d):
    A = rng.normal(size=(d, d))
    return A @ A.T / d + 0.05 * np.eye(d)


def bures(m1, C1, m2, C2):
    """Dowson and Landau: tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2) by matrix square roots."""
    root = np.real(sqrtm(C1))
    return np.sqrt(np.sum((m1 - m2) ** 2) + np.trace(C1 + C2 - 2.0 * np.real(sqrtm(root @ C2 @ root))))


def test_on_the_line():
    assert w2_gaussian(0.3, 0.25, -0.5, 0.09) == pytest.approx(np.hypot(0.8, 0.2), rel=1e-14)
    assert w2_gaussian([0.0], [4.0], [0.0], [1.0]) == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("d", [2, 3, 6])
def test_full_covariances_against_matrix_roots(d):
    rng = np.random.default_rng(d)
    for _ in range(5):
        m1, m2, C1, C2 = rng.normal(size=d), rng.normal(size=d), random_cov(rng, d), random_cov(rng, d)
        assert w2_gaussian(m1, C1, m2, C2) == pytest.approx(bures(m1, C1, m2, C2), rel=1e-9)


def test_commuting_covariances():
    rng = np.random.default_rng(0)
    U, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    a, b = np.array([1.0, 0.5, 0.2, 0.0]), np.array([0.3, 0.6, 0.0, 2.0])
    gap = np.linalg.norm(np.sqrt(a) - np.sqrt(b))
    assert w2_gaussian(np.zeros(4), a, np.zeros(4), b) == pytest.approx(gap, rel=1e-13)
    assert w2_gaussian(np.zeros(4), U @ np.diag(a) @ U.T, np.zeros(4), U @ np.diag(b) @ U.T) == pytest.approx(gap, rel=1e-7)


def test_singular_laws():
    """Points and lines: orthogonal lines of unit variance are sqrt 2 apart, a point and a law sqrt(tr C)."""
    assert w2_gaussian([0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]) == pytest.approx(np.sqrt(2.0), rel=1e-14)
    C = random_cov(np.random.default_rng(1), 3)
    assert w2_gaussian(np.zeros(3), C, np.ones(3), 0.0) == pytest.approx(np.sqrt(3.0 + np.trace(C)), rel=1e-12)
    assert w2_gaussian([1.0, 2.0], 0.0, [4.0, 6.0], 0.0) == pytest.approx(5.0, rel=1e-14)


def test_forms_of_covariances():
    rng = np.random.default_rng(2)
    m1, m2, C = rng.normal(size=3), rng.normal(size=3), random_cov(rng, 3)
    forms = [0.4, [0.4] * 3, 0.4 * np.eye(3)]
    assert np.ptp([w2_gaussian(m1, C, m2, form) for form in forms]) < 1e-13


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-9, 1e-12])
def test_small_distances_keep_their_digits(size):
    """The formula with traces would lose everything below 1e-8."""
    rng = np.random.default_rng(3)
    L = np.tril(rng.normal(size=(3, 3))) + 2.0 * np.eye(3)
    E = rng.normal(size=(3, 3)) * size
    found = w2_factors(np.zeros(3), L, L + E)
    with mp.workdps(60):
        A = mp.matrix(L.tolist())
        R = A + (mp.matrix((L + E).tolist()) - A)

        def root(C):
            values, vectors = mp.eigsy(C)
            return vectors * mp.diag([mp.sqrt(v) for v in values]) * vectors.T

        C1, C2 = A * A.T, R * R.T
        half = root(C1)
        cross = root(half * C2 * half)
        exact = mp.sqrt(sum((C1 + C2 - 2 * cross)[i, i] for i in range(3)))
    assert found == pytest.approx(float(exact), rel=1e-9 + 1e-14 / size)


def test_factors_of_any_width():
    rng = np.random.default_rng(4)
    wide, tall = rng.normal(size=(2, 5)), rng.normal(size=(2, 1))
    gap = np.array([0.3, -0.4])
    expected = w2_gaussian(gap, wide @ wide.T, [0.0, 0.0], tall @ tall.T)
    assert w2_factors(gap, wide, tall) == pytest.approx(expected, rel=1e-9)
    assert w2_factors(gap, tall, wide) == pytest.approx(expected, rel=1e-9)
    Q, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert w2_factors(np.zeros(2), wide, wide @ Q) < 1e-13


@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 7), (6, 4), (5, 13), (100, 37), (1, 9)])
def test_samples_on_the_line(n, m):
    rng = np.random.default_rng(n + 100 * m)
    a, b = rng.normal(size=n), 1.0 + 2.0 * rng.standard_t(3, size=m)
    assert w1_exact_1d(a, b) == pytest.approx(wasserstein_distance(a, b), rel=1e-12)
    copies_a, copies_b = np.sort(np.repeat(a, m)), np.sort(np.repeat(b, n))  # both of n m points: matched in order
    assert w2_exact_1d(a, b) == pytest.approx(np.sqrt(np.mean((copies_a - copies_b) ** 2)), rel=1e-12)
    assert w1_exact_1d(a, b) == w1_exact_1d(b, a)
    assert w2_exact_1d(a, b) == pytest.approx(w2_exact_1d(b, a), rel=1e-14)
    assert w2_exact_1d(a, np.random.default_rng(0).permutation(a)) == 0.0
    assert w2_exact_1d(a, a + 0.5) == pytest.approx(0.5, rel=1e-12)


def test_large_samples_of_coprime_sizes():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=20_011), rng.normal(size=17_977)
    assert w1_exact_1d(a, b) == pytest.approx(wasserstein_distance(a, b), rel=1e-10)
    assert w2_exact_1d(a, b) < 0.05


def test_sampled_distance_tends_to_the_exact_one():
    rng = np.random.default_rng(6)
    a, b = 0.3 + 0.5 * rng.normal(size=200_000), -0.2 + 0.8 * rng.normal(size=200_000)
    assert w2_exact_1d(a, b) == pytest.approx(w2_gaussian(0.3, 0.25, -0.2, 0.64), abs=0.01)


@pytest.mark.parametrize(
    "make",
    [
        lambda: w2_gaussian([0.0, 0.0], 1.0, [0.0], 1.0),
        lambda: w2_gaussian([0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0], 1.0),
        lambda: w2_gaussian([0.0, 0.0], [[1.0, 0.5], [0.1, 1.0]], [0.0, 0.0], 1.0),
        lambda: w2_gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]], [0.0, 0.0], 1.0),
        lambda: w2_gaussian([0.0, 0.0], 1.0, [0.0, 0.0], [1.0, -1.0]),
        lambda: w2_gaussian(0.0, -1.0, 0.0, 1.0),
        lambda: w1_exact_1d([], [1.0]),
        lambda: w2_exact_1d([1.0], []),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
