"""Every bound is above the exact error whenever its assumptions hold; and each of its constants matters: a tenth of it is too little somewhere."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from processes import edm, psld, vp
from scipy.stats import norm

from sdekit import analysis, grids, methods
from sdekit.analysis import bounds, contraction, switching
from sdekit.analysis.exact import marginal
from sdekit.law import Gaussian, Mixture

PROCESSES = [edm(), vp(), psld()]
METHODS = [
    methods.ddim(),
    methods.heun(),
    methods.exponential(2),
    methods.exponential_rk(2),
    methods.exponential(2, noise=1.0),
    methods.euler(noise=0.7),
]
CLOSE = 1.0 + 1e-9


@st.composite
def normal_laws(draw):
    d = draw(st.integers(1, 3))
    means = draw(st.lists(st.floats(-1.0, 1.0), min_size=d, max_size=d))
    return Gaussian(means, draw(st.lists(st.floats(0.01, 2.0), min_size=d, max_size=d)))


@given(
    st.sampled_from(PROCESSES), st.sampled_from(METHODS), normal_laws(), st.integers(2, 12), st.floats(0.01, 0.3), st.floats(2.0, 30.0), st.booleans()
)  # fmt: skip
def test_the_bound_of_a_run_is_above_the_exact_error(process, method, data, n, low, high, zero):
    grid = grids.karras(n, low, high, zero=zero)
    exact = analysis.exact_law(process, method=method, grid=grid, data=data).w2
    assert exact <= bounds.sampler(process, method, grid, data=data).total * CLOSE + 1e-12


@given(st.sampled_from(PROCESSES), st.sampled_from([methods.ddim(), methods.heun()]), normal_laws(), st.integers(2, 8), st.floats(-0.2, 0.2))
def test_with_an_error_of_the_model(process, method, data, n, shift):
    """A denoiser wrong by a constant: the sampler's mean moves by the sum of the weights of all answers."""
    grid = grids.karras(n, 0.02, 20.0)
    found = bounds.sampler(process, method, grid, data=data, score_error=abs(shift) * np.sqrt(data.mean.size))
    assert exact_with_shift(process, method, grid, data, shift) <= found.total * CLOSE + 1e-12


def exact_with_shift(process, method, grid, data, shift):
    """The exact denoiser plus ``shift`` is that of Gaussian data whose mean goes with the level: run means and spreads apart."""
    from sdekit.solve import program, solve

    plan = analysis.exact_law(process, method=method, grid=grid, data=data)
    start = [np.zeros((1, data.mean.size)) for _ in range(process.k)]
    wrong, _ = solve(program(process, plan_of(grid, method)), start, lambda y, sigma: data.denoiser()(y, sigma) + shift)
    spread = np.sqrt(np.diag(np.atleast_2d(plan.cov)))
    return float(np.sqrt(np.sum((wrong[0][0] - data.mean) ** 2) + np.sum((spread - np.sqrt(data.variances)) ** 2)))


def plan_of(grid, method):
    from sdekit import plans

    return plans.run(grid, method)


# ---------------------------------------------------------------------------------------------------------------- the theorems of Restart


def w1(mean, one, two):
    """W1 between normal laws on the line: the mean of |mean + (one - two) z|."""
    s = abs(one - two)
    return abs(mean) if s < 1e-14 else s * np.sqrt(2.0 / np.pi) * np.exp(-0.5 * (mean / s) ** 2) + mean * (1.0 - 2.0 * norm.cdf(-mean / s))


def euler(kind, data, start, interval, n, K, shift):
    """Mean and variance after Euler's method, with the error ``shift`` of ``t`` times the score; ``frozen`` keeps ``s`` over a step."""
    scheme, frozen = kind
    (low, high), v, noisy = interval, float(data.variances[0]), scheme == "sde"
    t = np.linspace(high, low, n + 1)
    m, w = float(start.mean) - float(data.mean), float(start.variances[0]) + high**2
    for cycle in range(K + 1):
        w += (high**2 - low**2) if cycle else 0.0
        for a, b in pairwise(t):
            h = 0.5 * (a * a - b * b) if frozen else a * (a - b)
            c = 2.0 if noisy else 1.0
            m, w = (1.0 - c * h / (v + a * a)) * m + c * h / a * shift, (1.0 - c * h / (v + a * a)) ** 2 * w + (2.0 * h if noisy else 0.0)
    return m, w


def theorem(kind, data, start, interval, n, K, eps):
    if kind == "ode":
        return bounds.ode(data, interval, n, eps=eps, start=start)
    return bounds.sde(data, interval, n, eps=eps, start=start) if kind == "sde" else bounds.restart(data, interval, n, K, eps=eps, start=start)


CASES = st.tuples(
    st.sampled_from(["ode", "sde", "restart"]), st.booleans(), st.floats(0.02, 2.0), st.floats(-1.0, 1.0), st.floats(0.02, 2.0), st.floats(0.05, 0.5),
    st.floats(1.2, 6.0), st.integers(1, 10), st.integers(0, 4), st.sampled_from([0.0, 0.02, -0.1]),
)  # fmt: skip


def judged(case):
    """The exact W1 and the bound of one case."""
    kind, frozen, v, mean, spread, low, ratio, n, K, shift = case
    data, start, interval, K = Gaussian(0.0, v), Gaussian(mean, spread), (low, low * ratio), K if kind == "restart" else 0
    m, w = euler((kind, frozen), data, start, interval, n, K, shift)
    return w1(m, np.sqrt(w), np.sqrt(v + low**2)), theorem(kind, data, start, interval, n, K, abs(shift))


@settings(max_examples=60)
@given(CASES)
def test_the_corrected_theorems_are_above_the_exact_error(case):
    exact, bound = judged(case)
    assert exact <= bound.corrected.total * CLOSE


# ---------------------------------------------------------------------------------------------------------------- one-sided constants


@given(normal_laws(), st.floats(0.05, 0.4), st.floats(1.2, 8.0), st.integers(2, 6), st.integers(0, 6), st.floats(-1.0, 1.0))
def test_the_one_sided_bound_is_above_the_exact_error(data, low, ratio, points, K, shift):
    """Heun's cycles from a shifted start: one cycle from the exact law errs by ``each``, and Heun under-contracts by its own gain."""
    cycle = contraction.cycle(edm(), methods.heun(), (points, low, low * ratio), data)
    assume(np.max(cycle.rates) < 1.0)
    law = marginal(edm(), low, data.mean.ravel() + shift, data.variances)
    laws = [cycle.after(law, n) for n in range(K + 1)]
    flow = cycle.jump.then(cycle.flow)
    each = max((cycle.after(law, 1).distance(flow.push(law)) for law in laws), default=0.0)
    bound = bounds.one_sided(data, (low, low * ratio), K, start=laws[0].distance(cycle.target), each=each)
    assert laws[-1].distance(cycle.target) <= bound.total * CLOSE + 1e-12
    if K:
        assert bounds.one_sided(data, (low, low * ratio), 10_000, start=1.0, each=each).additional <= bound.limit * (1.0 + 1e-9) + 1e-12


@settings(max_examples=10)
@given(st.floats(0.05, 0.6), st.floats(0.1, 0.5), st.floats(0.1, 0.9), st.floats(0.2, 0.5), st.integers(1, 4))
def test_kappa_bounds_cycles_on_mixtures(mu, v, weight, low, K):
    """W2 on the line over cycles of the exact operator, which moves mass between bins: within the width of a bin."""
    data, high = Mixture([weight, 1.0 - weight], [-mu, mu], v), 3.0 * low
    operator, start = switching.restart_operator(data, low, high, 150), Gaussian(0.4, v)
    middles = operator.line.quantile((np.arange(150) + 0.5) / 150, low)
    mass = operator.mass(start)
    distances = []
    for _ in range(K + 1):
        cut = np.unique(np.concatenate([np.cumsum(mass)[:-1], np.arange(1, 150) / 150]).clip(0.0, 1.0))
        u = 0.5 * (np.append(0.0, cut) + np.append(cut, 1.0))
        index = np.minimum(np.searchsorted(np.cumsum(mass), u), 149)
        gap = middles[index] - middles[np.minimum((u * 150).astype(int), 149)]
        distances.append(np.sqrt(np.sum(np.diff(np.concatenate([[0.0], cut, [1.0]])) * gap**2)))
        mass = mass @ operator.matrix
    bound = bounds.one_sided(data, (low, high), K, start=distances[0])
    assert distances[-1] <= bound.total + 0.03


# ---------------------------------------------------------------------------------------------------------------- a tenth is too little


@pytest.mark.parametrize(
    ("part", "process", "method", "grid", "shift"),
    [
        ("prior", edm(), methods.heun(), grids.karras(60, 0.002, 1.5), 0.0),
        ("discretisation", psld(), methods.ddim(), grids.karras(8), 0.0),
        ("discretisation", vp(), methods.exponential(2, noise=1.0), grids.karras(10), 0.0),
        ("score", vp(), methods.ddim(), grids.karras(60), 0.1),
        ("end", edm(), methods.ddim(), grids.logsnr(200, 0.5, 80.0), 0.0),
    ],
)
def test_each_part_of_a_run_is_needed(part, process, method, grid, shift):
    data = Gaussian([0.5], [0.25])
    found = bounds.sampler(process, method, grid, data=data, score_error=abs(shift))
    exact = (
        exact_with_shift(process, method, grid, data, shift)
        if not method.noisy
        else analysis.exact_law(process, method=method, grid=grid, data=data).w2
    )
    assert found.total * 1.0 >= exact
    assert found.total - 0.9 * found.parts[part] < exact


def test_each_constant_of_the_theorems_is_needed():
    needed = {
        "contracted": ("ode", True, 0.25, 0.9, 0.25, 0.05, 1.5, 10, 0, 0.0),
        "additional": ("ode", False, 0.25, 0.0, 0.25, 0.05, 1.5, 10, 0, 0.1),
    }
    for part, case in needed.items():
        exact, bound = judged(case)
        assert exact <= bound.corrected.total
        assert bound.corrected.total - 0.9 * getattr(bound.corrected, part) < exact
