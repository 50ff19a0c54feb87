"""Brownian paths: the exact joint law of the parts, the same path whatever is asked, and runs coupled by it."""

from itertools import pairwise

import numpy as np
import pytest

from sdekit import BadInput, Process, clocks
from sdekit.brownian import Cell, Path, join, split
from sdekit.equation import SDE
from sdekit.simulation import simulate


@pytest.mark.parametrize(("left", "right"), [(0.5, 0.5), (0.1, 0.7), (2.0, 0.03)])
def test_split_is_the_conditional_law(left, right):
    """From basis vectors of (W, H, X1, X2): the four parts have the law of two independent intervals, and join to the whole."""
    h = left + right
    basis = np.eye(4)
    whole = Cell(np.sqrt(h) * basis[0], np.sqrt(h / 12.0) * basis[1])
    first, second = split(whole, left, right, basis[2:])
    parts = np.stack([first.W, first.H, second.W, second.H])
    np.testing.assert_allclose(parts @ parts.T, np.diag([left, left / 12.0, right, right / 12.0]), atol=1e-15)
    back = join(first, second, left, right)
    np.testing.assert_allclose(np.stack(back), np.stack(whole), atol=1e-15)


def test_areas_are_integrals():
    """Var Z = t^3 / 3, Cov(W, Z) = t^2 / 2, Cov(W(s), Z(t)) = s t - s^2 / 2: from 40,000 paths, within 4.5 standard errors."""
    path = Path(2.0, seed=3, ids=np.arange(40_000))
    s, t = 0.3, 1.7
    (Ws, Zs), (Wt, Zt) = path.at(s), path.at(t)
    rows = np.stack([v[0] for v in (Ws, Zs, Wt, Zt)])
    a, b = s * s / 2.0, s * t - s * s / 2.0
    c = s * s * t / 2.0 - s**3 / 6.0
    exact = np.array([[s, a, s, b], [a, s**3 / 3.0, a, c], [s, a, t, t * t / 2.0], [b, c, t * t / 2.0, t**3 / 3.0]])
    spread = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / rows.shape[1])
    assert np.max(np.abs(rows @ rows.T / rows.shape[1] - exact) / spread) < 4.5


def test_a_path_is_a_function_of_time():
    ids = np.array([5, 2])
    one, two = Path(3.0, 2, seed=1, ids=ids, shape=(3,)), Path(3.0, 2, seed=1, ids=ids[:1], shape=(3,))
    times = [0.0, 3.0, 1.5, 0.7123, 2.9999, 1e-7]
    there = {t: one.at(t) for t in times}
    for t in reversed(times):  # another order, another batch
        for mine, other in zip(two.at(t), there[t], strict=True):
            np.testing.assert_array_equal(mine[:, 0], other[:, 0])
    assert there[0.7123][0].shape == (2, 2, 3)
    assert np.all(there[0.0][0] == 0.0)
    assert not np.any(there[1.5][0] == Path(3.0, 2, seed=2, ids=ids, shape=(3,)).at(1.5)[0])


def test_intervals_join():
    """Increments add; integrals gain the first part's increment times the second's length."""
    path = Path(1.0, seed=4, ids=np.arange(5))
    a, b, c = 0.11, 0.5, 0.77
    (first, below), (second, above), (whole, area) = path.over(a, b), path.over(b, c), path.over(a, c)
    np.testing.assert_allclose(first + second, whole, atol=1e-14)
    np.testing.assert_allclose(below + above + (c - b) * first, area, atol=1e-14)


def test_refinement_near_a_point():
    """Quadratic variation over ever finer cells around an irrational time stays that of a Brownian path."""
    path = Path(1.0, seed=6, ids=np.arange(4000))
    t = 1.0 / np.sqrt(2.0)
    for h in (1e-2, 1e-4, 1e-6):
        W, Z = path.over(t, t + h)
        assert np.mean(W**2) == pytest.approx(h, rel=4.5 * np.sqrt(2.0 / 4000))
        assert np.mean(Z**2) == pytest.approx(h**3 / 3.0, rel=4.5 * np.sqrt(2.0 / 4000))
        assert np.mean(W * Z) == pytest.approx(h**2 / 2.0, rel=4.5 * np.sqrt(7.0 / 3.0 / 4000))


KNOWN = {"euler_maruyama": 0.14135, "milstein": 0.0476842}
GBM = SDE(
    1,
    lambda z, t: 1.01 * z,
    lambda z, t: 0.87 * z[None],
    "diagonal",
    noise_jacobian=lambda z, t: np.full((1, 1, 1, *z.shape[1:]), 0.87),
)


@pytest.mark.parametrize(("method", "slope"), [("euler_maruyama", 0.5), ("milstein", 1.0), ("sri", 1.5)])
def test_strong_order_against_the_solution_on_the_same_path(method, slope):
    """x0 exp((mu - sigma^2 / 2) t + sigma W(t)); Kloeden-Platen's problem, 4,000 paths, one path for all grids."""
    n = 4000
    path = Path(1.0, seed=0, ids=np.arange(n))
    exact = 0.5 * np.exp(0.63155 + 0.87 * path.at(1.0)[0])

    def error(steps):
        made = simulate(GBM, start=np.full((1, n), 0.5), times=np.linspace(0.0, 1.0, steps + 1), method=method, path=path)
        return np.sqrt(np.mean((made.z - exact) ** 2))

    assert np.log2(error(16) / error(256)) / 4.0 == pytest.approx(slope, abs=0.12)
    if method in KNOWN:  # the exact root mean square at h = 2^-6; tails are heavy, and 4,000 paths know it to some 6 %
        assert error(64) == pytest.approx(KNOWN[method], rel=0.15)


def test_coupled_levels_of_a_multilevel_estimate():
    """The variance of fine less coarse falls as h^2 for a method of strong order 1, with grids that do not share the path's dyadic times."""
    process = Process([[-1.0]], [[1.0]], clock=clocks.constant(2.0, 1.0))
    path = Path(2.0, seed=8, ids=np.arange(500))
    ends = [simulate(process, start=np.ones((1, 500)), times=np.linspace(0.0, 1.0, 24 * 3**i + 1), path=path).z[0] for i in range(3)]
    spread = [np.var(fine - coarse) for coarse, fine in pairwise(ends)]
    assert np.log(spread[0] / spread[1]) / np.log(3.0) == pytest.approx(2.0, abs=0.2)
    assert spread[0] < 1e-3 * np.var(ends[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Path(0.0),
        lambda: Path(1.0, 0),
        lambda: Path(1.0).at(1.1),
        lambda: Path(1.0).over(0.5, 0.5),
        lambda: simulate(Process([[-1.0]], [[1.0]]), start=np.zeros((1, 3)), times=[0.0, 0.5], path=Path(1.0)),
        lambda: simulate(Process([[-1.0]], [[1.0]], T=2.0), start=np.zeros((1, 1)), times=[0.0, 2.0], path=Path(1.0)),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
