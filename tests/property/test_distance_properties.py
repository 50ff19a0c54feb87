"""W2 between normal laws is a metric with the known symmetries."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sdekit.analysis import w1_exact_1d, w2_exact_1d, w2_gaussian

seeds = st.integers(0, 100_000)
numbers = st.lists(st.floats(-50.0, 50.0), min_size=1, max_size=12)


def laws(seed, d, count):
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(count, d, rng.integers(1, d + 2)))  # singular ones too
    return [(m, root @ root.T) for m, root in zip(rng.normal(size=(count, d)), roots, strict=True)]


@given(seeds, st.integers(1, 5))
def test_metric(seed, d):
    a, b, c = laws(seed, d, 3)
    ab, ba, bc, ac = w2_gaussian(*a, *b), w2_gaussian(*b, *a), w2_gaussian(*b, *c), w2_gaussian(*a, *c)
    np.testing.assert_allclose(ab, ba, rtol=1e-9)
    assert ac <= ab + bc + 1e-9
    assert ab > 0.0
    for law in (a, b, c):
        assert w2_gaussian(*law, *law) < 1e-7


@given(seeds, st.integers(1, 5), st.floats(0.1, 10.0))
def test_symmetries(seed, d, scale):
    """Rotation and shift of both laws change nothing; scaling scales."""
    (m, A), (n, B) = laws(seed, d, 2)
    rng = np.random.default_rng(seed + 1)
    U, shift = np.linalg.qr(rng.normal(size=(d, d)))[0], rng.normal(size=d)
    base = w2_gaussian(m, A, n, B)
    np.testing.assert_allclose(w2_gaussian(U @ m + shift, U @ A @ U.T, U @ n + shift, U @ B @ U.T), base, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(w2_gaussian(scale * m, scale**2 * A, scale * n, scale**2 * B), scale * base, rtol=1e-9)
    assert base >= np.linalg.norm(m - n) - 1e-12
    assert base <= np.sqrt(np.sum((m - n) ** 2) + np.trace(A) + np.trace(B)) + 1e-9


@given(st.floats(-5.0, 5.0), st.floats(0.0, 5.0), st.floats(-5.0, 5.0), st.floats(0.0, 5.0))
def test_closed_form_on_the_line(m, s, n, r):
    np.testing.assert_allclose(w2_gaussian(m, s * s, n, r * r), np.hypot(m - n, s - r), rtol=1e-12, atol=1e-12)


@given(numbers, numbers, numbers)
def test_samples_on_the_line(a, b, c):
    for distance in (w1_exact_1d, w2_exact_1d):
        np.testing.assert_allclose(distance(a, b), distance(b, a), rtol=1e-12, atol=1e-12)
        assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-9
        assert distance(a, a * 3) < 1e-12  # the same law in more points
    assert w1_exact_1d(a, b) <= w2_exact_1d(a, b) + 1e-9
    assert abs(np.mean(a) - np.mean(b)) <= w1_exact_1d(a, b) + 1e-9
