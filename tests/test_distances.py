"""Sampled distances: closed forms where they are known, floors of known size, intervals that cover, zero on equal samples."""

import sys

import numpy as np
import pytest
from scipy.optimize import linprog, minimize_scalar
from scipy.stats import wasserstein_distance

from sdekit import BadInput
from sdekit.analysis import w1_exact_1d, w1_matching, w2_exact_1d, w2_matching, w2_sinkhorn, w2_sliced
from sdekit.errors import MissingExtra
from sdekit.law import Gaussian

ALL = [w2_sliced, w1_matching, w2_matching, w2_sinkhorn]


def normals(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("distance", ALL)
def test_zero_on_equal_samples(distance):
    a = normals(60, 3)
    made = distance(a, a.copy(), repeats=3)
    assert float(made) == made.value == 0.0
    assert made.floor > 0.1
    assert made.interval[0] == 0.0 < made.interval[1]
    assert made.sizes == (60, 60)


@pytest.mark.parametrize("distance", [w2_sliced, w1_matching, w2_matching])
def test_order_of_samples_does_not_matter(distance):
    a = normals(60, 3)
    assert distance(a, np.random.default_rng(1).permutation(a), repeats=2).value < 1e-12


@pytest.mark.parametrize(("d", "directions"), [(1, 1), (3, 3), (20, 40), (4, 128)])
def test_shift(d, directions):
    """A shifted copy: W2 = W1 = |gap|, and the sliced one |gap| / sqrt d, exactly since the directions are whole frames."""
    a = normals(50, d)
    gap = np.linspace(0.3, 1.0, d)
    size = np.linalg.norm(gap)
    assert w2_sliced(a, a + gap, directions=directions, repeats=2).value == pytest.approx(size / np.sqrt(d), rel=1e-12)
    assert w2_matching(a, a + gap, repeats=2).value == pytest.approx(size, rel=1e-12)
    assert w1_matching(a, a + gap, repeats=2).value == pytest.approx(size, rel=1e-12)
    assert w2_sinkhorn(a, a + gap, repeats=2).value == pytest.approx(size, rel=1e-6)


def test_sliced_between_isotropic_normal_laws():
    r"""SW2^2 = |gap|^2 / d + (s1 - s2)^2, for samples of different sizes too."""
    gap = np.array([0.5, -1.0, 2.0, 0.0])
    a, b = 1.5 * normals(20_000, 4, 1) + gap, 0.7 * normals(15_000, 4, 2)
    expected = np.sqrt(np.sum(gap**2) / 4 + 0.8**2)
    assert w2_sliced(a, b, directions=64, repeats=2).value == pytest.approx(expected, rel=0.01)


def test_sliced_on_the_line_is_exact():
    a, b = normals(40, 1)[:, 0], 2.0 * normals(33, 1, 1)[:, 0] + 1.0
    assert w2_sliced(a, b, repeats=2).value == pytest.approx(w2_exact_1d(a, b), rel=1e-12)


def test_sliced_is_below_w2_by_the_root_of_the_dimension():
    a, b = normals(100, 5) @ np.diag([1, 2, 3, 4, 5]), normals(100, 5, 1) + 1.0
    assert np.sqrt(5) * w2_sliced(a, b, repeats=2).value <= w2_matching(a, b, repeats=2).value


def test_directions_are_addressed():
    a, b = normals(50, 6), normals(50, 6, 1) ** 3
    assert w2_sliced(a, b, seed=3, repeats=2) == w2_sliced(a, b, seed=3, repeats=2)
    assert w2_sliced(a, b, seed=3, repeats=2).value != w2_sliced(a, b, seed=4, repeats=2).value


def test_matching_on_the_line():
    a, b = normals(80, 1), 2.0 * normals(80, 1, 1) + 1.0
    assert w1_matching(a, b, repeats=2).value == pytest.approx(w1_exact_1d(a, b), rel=1e-12)
    assert w2_matching(a, b, repeats=2).value == pytest.approx(w2_exact_1d(a, b), rel=1e-12)


def test_matching_is_optimal_transport():
    """Against the linear programme of Kantorovich."""
    n = 7
    a, b = normals(n, 3), normals(n, 3, 1) + 0.5
    cost = np.linalg.norm(a[:, None] - b[None], axis=-1)
    marginals = np.concatenate([np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))])
    for power, distance in ((1, w1_matching), (2, w2_matching)):
        best = linprog((cost**power).ravel(), A_eq=marginals, b_eq=np.full(2 * n, 1 / n)).fun
        assert distance(a, b, repeats=2).value == pytest.approx(best ** (1 / power), rel=1e-9)


def test_sinkhorn_between_normal_laws():
    """The best coupling is normal: on the line one number, the covariance c, is left of the regularised problem."""
    epsilon = 2.0 * 0.5**2

    def transport(gap, s, r):
        def cost(c):
            return gap**2 + s**2 + r**2 - 2.0 * c - 0.5 * epsilon * np.log1p(-((c / (s * r)) ** 2))

        return minimize_scalar(cost, bounds=(0.0, s * r), method="bounded", options={"xatol": 1e-12}).fun

    expected = np.sqrt(transport(0.8, 1.0, 0.4) - 0.5 * transport(0, 1.0, 1.0) - 0.5 * transport(0, 0.4, 0.4))
    from scipy.special import ndtri

    grid = ndtri((np.arange(300) + 0.5) / 300)[:, None]
    assert w2_sinkhorn(grid + 0.8, 0.4 * grid, blur=0.5, repeats=2).value == pytest.approx(expected, rel=0.01)


def test_sinkhorn_tends_to_w2():
    a, b = normals(60, 2), normals(60, 2, 1) * 0.5 + 1.0
    exact = w2_matching(a, b, repeats=2).value
    assert w2_sinkhorn(a, b, blur=0.2, repeats=2).value == pytest.approx(exact, rel=0.02)
    assert w2_sinkhorn(a, b, blur=50.0, repeats=2).value == pytest.approx(np.linalg.norm(a.mean(0) - b.mean(0)), rel=1e-3)


def test_floor_of_a_law():
    """On the line n E W2^2 of two samples of one law is known: twice that of one sample; for the uniform law 2 * 1/6."""
    law = Gaussian(np.zeros(3), 1.0)
    a = law.sample(200, seed=5)
    made = w2_matching(a, law, repeats=6)
    pairs = [w2_matching(normals(200, 3, i), normals(200, 3, 50 + i), repeats=2).value for i in range(6)]
    assert made.floor == pytest.approx(np.mean(pairs), rel=0.06)
    assert made.value == pytest.approx(made.floor, rel=0.15)


def test_floor_from_halves_is_an_upper_bound():
    a, b = normals(400, 2, 1), normals(400, 2, 2)
    made, law = w2_matching(a, b), w2_matching(a, Gaussian(np.zeros(2), 1.0))
    assert law.floor < made.floor < 2.0 * law.floor


def test_floor_tells_equal_laws_from_shifted_ones():
    law = Gaussian(np.zeros(4), 1.0)
    same, other = w2_sliced(law.sample(500, seed=1), law), w2_sliced(law.sample(500, seed=1) + 0.5, law)
    assert same.value < 1.5 * same.floor
    assert other.interval[0] > 2.0 * other.floor


def test_interval_covers_its_mean():
    """Of 80 intervals at 90 % for a shifted normal law at least 64 must hold the mean over all samples (chance of fewer: 1 %)."""
    made = [w2_sliced(normals(200, 2, i) + 0.7, normals(200, 2, 500 + i), directions=4, level=0.9) for i in range(80)]
    mean = np.mean([float(one) for one in made])
    inside = sum(one.interval[0] <= mean <= one.interval[1] for one in made)
    assert 64 <= inside <= 79


def test_interval_widens_with_the_level():
    a, b = normals(100, 2), normals(100, 2, 1) + 1.0
    narrow, wide = (w2_sliced(a, b, level=level) for level in (0.68, 0.99))
    assert np.diff(wide.interval) == pytest.approx(2.5758 / 0.99446 * np.diff(narrow.interval), rel=1e-3)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (9, 4)])
def test_weights_on_the_line(n, m):
    rng = np.random.default_rng(n)
    a, b, u, v = rng.normal(size=n), rng.normal(size=m), rng.uniform(size=n), rng.uniform(size=m)
    assert w1_exact_1d(a, b, a_weights=u, b_weights=v) == pytest.approx(wasserstein_distance(a, b, u, v), rel=1e-12)
    assert w1_exact_1d(a, b, b_weights=v) == pytest.approx(wasserstein_distance(a, b, None, v), rel=1e-12)
    counts = rng.integers(1, 4, size=n)
    assert w2_exact_1d(a, b, a_weights=counts) == pytest.approx(w2_exact_1d(np.repeat(a, counts), b), rel=1e-12)
    assert w2_exact_1d(a, a[::-1], a_weights=u, b_weights=u[::-1]) == pytest.approx(0.0, abs=1e-7)


def test_without_pot(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(MissingExtra, match="metrics"):
        w2_sinkhorn(normals(10, 2), normals(10, 2))


def test_text():
    made = w2_sliced(normals(50, 2), normals(50, 2, 1), repeats=4)
    assert str(made) == repr(made)
    assert f"floor {made.floor:.4g}" in str(made)
    assert "95% interval" in str(made)


@pytest.mark.parametrize(
    "make",
    [
        lambda: w2_sliced(normals(10, 2), normals(10, 3)),
        lambda: w2_sliced(normals(3, 2), normals(10, 2)),
        lambda: w2_sliced([[0.0], [1.0], [np.nan], [2.0]], normals(10, 1)),
        lambda: w2_sliced("many", normals(10, 1)),
        lambda: w2_sliced(normals(10, 2), normals(10, 2), level=1.0),
        lambda: w2_sliced(normals(10, 2), normals(10, 2), directions=0),
        lambda: w2_sliced(normals(10, 2), normals(10, 2), repeats=1),
        lambda: w2_matching(normals(10, 2), normals(11, 2)),
        lambda: w2_sinkhorn(normals(10, 2), normals(10, 2), blur=0.0),
        lambda: w2_sinkhorn(normals(10, 2), normals(10, 2, 1), blur=1e-3),
        lambda: w1_exact_1d([1.0, 2.0], [1.0], a_weights=[1.0]),
        lambda: w2_exact_1d([1.0, 2.0], [1.0], a_weights=[1.0, -1.0]),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
