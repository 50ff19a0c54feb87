"""Kernels against 200-digit matrix exponentials, and the published numbers."""

import numpy as np
import pytest
from mpmath import mp
from processes import ALL, chain, cld, dense_kernel, edm, psld, third_order, unit, ve, vp

from sdekit import Process, clocks
from sdekit.kernel import Kernel, Transition, flow, solve_lower, triangular

DIGITS = 200  # the block exponential below holds -F, which grows like e^{|F| B}
SHAPES = {
    **{make.__name__: make for make in ALL},
    "psld .25": lambda: psld(0.25),
    "cld from a point": lambda: psld(0.0, start=0.0),
    "third order from a point": lambda: third_order(0.0),
    "chain(5)": chain,
}


def exact(F, G, S0, B):
    """``e^{FB}`` and the covariance from ``S0``, by Van Loan's block exponential."""
    k = len(F)
    F, G, S0 = mp.matrix(F.tolist()), mp.matrix(G.tolist()), mp.matrix(S0.tolist())
    block = mp.zeros(2 * k)
    block[:k, :k], block[:k, k:], block[k:, k:] = -F, G * G.T, F.T
    whole = mp.expm(block * mp.mpf(B))
    mean = whole[k:, k:].T
    return mean, mean * whole[:k, k:] + mean * S0 * mean.T


def worst(found, ref, scale):
    return float(max(abs(mp.mpf(float(found[i, j])) - ref[i, j]) / scale(i, j) for i in range(ref.rows) for j in range(ref.cols)))


@pytest.mark.parametrize("name", SHAPES)
def test_kernel_against_mpmath(name):
    """From B = 1e-8 to the end: covariance to 1e-12 of its own scales, psi by norm, determinant and level to 1e-11.

    Where blocks that start with noise make the state all but dependent (third order, B < 1e-6: a pivot is 1e-8 of its row), the determinant and
    the level can hold no more digits than that pivot.
    """
    process = unit(SHAPES[name]())
    times = np.append(np.logspace(-8.0, np.log10(process.T), 7)[:-1], process.T)
    kernel = process.kernel(times)
    levels = process.sigma_eff(times)
    pivots = np.min(np.diagonal(kernel.chol, axis1=1, axis2=2) / np.linalg.norm(kernel.chol, axis=2), axis=1)
    for i, B in enumerate(times):
        allowed = 1e-11 + 2e-17 / pivots[i]
        with mp.workdps(DIGITS):
            mean, cov = exact(process.F, process.G, process.S0, B)
            psi = mean[:, 0]
            assert worst(kernel.cov[i], cov, lambda a, b, cov=cov: mp.sqrt(cov[a, a] * cov[b, b])) < 1e-12
            assert worst(kernel.psi[i][:, None], psi, lambda a, b, psi=psi: mp.norm(psi)) < 1e-12
            assert abs(mp.mpf(float(kernel.det[i])) / mp.det(cov) - 1) < allowed
            level = 1 / mp.sqrt((psi.T * mp.lu_solve(cov, psi))[0])
            assert abs(mp.mpf(float(levels[i])) / level - 1) < allowed
            assert abs(mp.mpf(float(kernel.sigma_eff[i])) / level - 1) < allowed


@pytest.mark.parametrize("make", [vp, edm, ve, cld, psld], ids=lambda m: m.__name__)
def test_time_enters_through_the_clock(make):
    process = make()
    for part in (0.05, 0.4, 1.0):
        psi, S = dense_kernel(process, part * process.T)
        kernel = process.kernel(part * process.T)
        np.testing.assert_allclose(kernel.psi, psi, rtol=1e-11)
        np.testing.assert_allclose(kernel.cov, S, rtol=1e-10)


def test_short_and_long_stretches_in_one_call():
    """The doubling that the longest stretch needs must not spoil the shortest."""
    process = cld()
    B = np.array([1e-9, 8.0, 3e-5, 0.7])
    E, L = flow(process.F, process.G, B)
    for i, one in enumerate(B):
        alone = flow(process.F, process.G, one)
        np.testing.assert_allclose(L[i] @ L[i].T, alone[1] @ alone[1].T, rtol=1e-13)
        np.testing.assert_allclose(E[i], alone[0], rtol=1e-13)


def test_published_kernel():
    """PSLD with Gamma = .01: mean, covariance, factor and level at t = .1, 1e-3 and 1."""
    process = psld()
    kernel = process.kernel(0.1)
    E = process.transition(0.0, 0.1).mean
    np.testing.assert_allclose(E, [[0.805563428588, 0.716056380967], [-0.179014095242, 0.089507047621]], rtol=1e-10)
    np.testing.assert_allclose(kernel.cov[np.tril_indices(2)], [0.2280107447480, 0.1288251061068, 0.2160311909271], rtol=1e-12)
    np.testing.assert_allclose(kernel.chol[np.tril_indices(2)], [0.4775047065192, 0.2697881389398, 0.3784779399310], rtol=1e-12)
    assert float(kernel.sigma_eff) == pytest.approx(0.4205733970240, rel=1e-12)
    early = process.kernel(1e-3)
    np.testing.assert_allclose(early.cov[np.tril_indices(2)], [8.319043738672e-5, 2.191673026371e-4, 1.757622450880e-2], rtol=1e-12)
    assert float(early.det) == pytest.approx(1.414139497949e-6, rel=1e-12)
    assert float(early.sigma_eff) == pytest.approx(8.970011940069e-3, rel=1e-12)
    late = process.kernel(1.0)
    assert float(late.psi[0]) == pytest.approx(0.002900780551, rel=1e-9)
    assert float(late.cov[0, 0]) == pytest.approx(0.9999852028970, rel=1e-12)


def test_published_kernel_at_small_times_without_data_noise():
    kernel = cld().kernel(1e-5)
    np.testing.assert_allclose(kernel.cov[np.tril_indices(2)], [2.566416280285e-10, 1.606015017039e-6, 1.007678764916e-2], rtol=1e-12)
    assert float(kernel.det) == pytest.approx(6.838952622120e-15, rel=1e-12)
    assert 1.0 / kernel.chol[1, 1] == pytest.approx(193.71745, rel=1e-7)
    point = psld(0.0, start=0.0).kernel(1e-5)
    assert 1.0 / point.chol[1, 1] == pytest.approx(223.61127, rel=1e-7)
    assert 1.0 / psld().kernel(1e-5).chol[1, 1] == pytest.approx(9.9633245, rel=1e-7)


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (cld, [8.2382268e-7, 6.7648407e-4, 0.015102211, 0.40814523, 8.433356, 247.55156]),
        (lambda: psld(0.005), [6.3245613e-4, 6.3607053e-3, 0.02507484, 0.41439360, 8.5199916, 252.55257]),
        (psld, [8.9442775e-4, 8.9700119e-3, 0.032087035, 0.42057340, 8.6074789, 257.65461]),
        (lambda: psld(0.02), [1.2649118e-3, 1.2667715e-2, 0.04279856, 0.43273940, 8.7850434, 268.16996]),
        (lambda: psld(0.25), [4.4721584e-3, 4.4748921e-2, 0.14303206, 0.67100935, 14.001835, 672.92319]),
        (vp, [1.0004976e-3, 1.0485993e-2, 0.044687709, 0.34017653, 3.4129183, 152.16697]),
    ],
    ids=["0", ".005", ".01", ".02", ".25", "vp"],
)
def test_published_levels(make, values):
    np.testing.assert_allclose(make().sigma_eff([1e-5, 1e-3, 1e-2, 0.1, 0.5, 1.0]), values, rtol=6e-8)


@pytest.mark.parametrize(
    ("nu", "cov"),
    [(1.0, [0.20989067, 0.11344424, 0.12196625]), (4.0, [0.32873700, 0.13533528, 0.21616618]), (8.0, [0.27995603, 0.09137146, 0.23829342])],
)
def test_published_damping(nu, cov):
    np.testing.assert_allclose(psld(0.0, nu=nu, beta=1.0).kernel(1.0).cov[np.tril_indices(2)], cov, atol=6e-9)


def naive_float32(t):
    """The textbook formula of the critically damped kernel at Gamma = 0, in float32 throughout: variances and the last squared pivot."""
    f = np.float32
    u = a = f(8.0) * f(t)
    g, decay = f(0.04), np.exp(-2 * a)
    xx = f(1.0) - decay * ((1 + u) ** 2 + (1 - g) * u**2)
    xm = decay * u * (2 * u + g * (1 - u))
    mm = f(1.0) - decay * (u**2 + (1 - g) * (1 - u) ** 2)
    return xx, mm - xm**2 / xx if xx > 0 else f(-1.0)


def test_the_naive_float32_formula_fails_where_ours_does_not():
    process = cld()
    times = np.geomspace(1e-5, 3e-3, 4000)
    broken = np.array([min(naive_float32(t)) <= 0.0 for t in times])
    assert 5e-4 < times[broken].max() < 9e-4
    assert broken[times < 1e-4].mean() > 0.2
    chol = process.kernel(times).chol.astype(np.float32)
    assert np.all(chol[:, 0, 0] > 0.0)
    assert np.all(chol[:, 1, 1] > 0.0)
    for t in times[broken][::200]:
        with mp.workdps(DIGITS):
            _, cov = exact(process.F, process.G, process.S0, float(process.clock.integral(t)))
            assert float(abs(mp.mpf(float(process.kernel(t).det)) / mp.det(cov) - 1)) < 1e-11


@pytest.mark.parametrize("make", [*ALL, chain], ids=lambda m: m.__name__)
def test_transitions_compose(make):
    process = make()
    a, b, c = 0.03 * process.T, 0.31 * process.T, 0.9 * process.T
    both, once = process.transition(a, b).then(process.transition(b, c)), process.transition(a, c)
    scale = np.sqrt(np.diag(once.cov))
    np.testing.assert_allclose(both.mean, once.mean, atol=1e-12 * np.linalg.norm(once.mean))
    np.testing.assert_allclose(both.cov / np.outer(scale, scale), once.cov / np.outer(scale, scale), atol=1e-12)
    moved, direct = process.kernel(a).then(process.transition(a, c)), process.kernel(c)
    scale = np.sqrt(np.diag(direct.cov))
    np.testing.assert_allclose(moved.psi, direct.psi, atol=1e-12 * np.linalg.norm(direct.psi))
    np.testing.assert_allclose(moved.cov / np.outer(scale, scale), direct.cov / np.outer(scale, scale), atol=1e-12)


@pytest.mark.parametrize(("make", "s", "t"), [(cld, 1e-5, 2e-5), (cld, 1e-4, 1.0), (psld, 0.1, 0.11), (third_order, 1e-3, 0.5), (ve, 0.2, 0.3)])
def test_posterior_against_conditioning(make, s, t):
    """Gain and covariance of z_s given z_t and x_0, by the textbook formula in 200 digits."""
    process = make()
    Bs, Bt = (float(process.clock.integral(v)) for v in (s, t))
    gain, chol = process.kernel(s).posterior(process.transition(s, t))
    with mp.workdps(DIGITS):
        _, low = exact(process.F, process.G, process.S0, Bs)
        E, _ = exact(process.F, process.G, process.S0, Bt - Bs)
        _, high = exact(process.F, process.G, process.S0, Bt)
        K = low * E.T * mp.inverse(high)
        C = low - K * high * K.T
        assert worst(gain, K, lambda i, j: mp.sqrt(low[i, i] / high[j, j])) < 1e-10
        assert worst(chol @ chol.T, C, lambda i, j: mp.sqrt(C[i, i] * C[j, j])) < 1e-9


def test_observation_is_the_best_linear_estimate():
    """``observe`` is unbiased for x_0 with variance sigma_eff^2, and no unbiased row has less."""
    for make in (vp, psld, third_order):
        kernel = make().kernel(0.3)
        row = kernel.observe
        assert row @ kernel.psi == pytest.approx(1.0, abs=1e-12)
        assert row @ kernel.cov @ row == pytest.approx(float(kernel.sigma_eff) ** 2, rel=1e-11)
        for bump in np.eye(kernel.k):
            other = row + 0.1 * (bump - (bump @ kernel.psi) * row)
            assert other @ kernel.psi == pytest.approx(1.0, abs=1e-12)
            assert other @ kernel.cov @ other >= float(kernel.sigma_eff) ** 2 * (1 - 1e-12)


def test_kernel_sample_is_mean_plus_factor():
    kernel = psld().kernel(0.2)
    x0, xi = np.array([[1.0, -2.0, 0.5]]), np.arange(6.0).reshape(2, 1, 3)
    z = kernel.sample(x0, xi)
    np.testing.assert_allclose(z[0], kernel.psi[0] * x0 + kernel.chol[0, 0] * xi[0], rtol=1e-14)
    np.testing.assert_allclose(z[1], kernel.psi[1] * x0 + kernel.chol[1, 0] * xi[0] + kernel.chol[1, 1] * xi[1], rtol=1e-14)


def test_many_times_at_once():
    process = psld()
    times = np.array([[0.1, 0.2], [0.5, 1.0]])
    kernel = process.kernel(times)
    one = process.kernel(0.5)
    np.testing.assert_allclose(kernel[1, 0].psi, one.psi, rtol=1e-13)
    np.testing.assert_allclose(kernel[1, 0].cov, one.cov, rtol=1e-13)
    np.testing.assert_allclose(kernel.sigma_eff[1, 0], one.sigma_eff, rtol=1e-13)
    np.testing.assert_allclose(kernel.observe[1, 0], one.observe, rtol=1e-12)


def test_triangular_keeps_the_scale_of_each_row():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(5, 3, 9)) * np.array([1.0, 1e-200, 1e200])[:, None]
    L = triangular(columns)
    assert np.all(np.triu(L, 1) == 0.0)
    rows = np.linalg.norm(columns / np.array([1.0, 1e-200, 1e200])[:, None], axis=-1, keepdims=True) * np.array([1.0, 1e-200, 1e200])[:, None]
    L, unit = L / rows, columns / rows
    np.testing.assert_allclose(L @ np.swapaxes(L, -1, -2), unit @ np.swapaxes(unit, -1, -2), atol=1e-14)


def test_triangular_of_dependent_rows_has_a_zero_pivot():
    L = triangular([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0], [2.0, 4.0, 4.0]])
    np.testing.assert_allclose(L @ L.T, [[9.0, 0.0, 18.0], [0.0, 0.0, 0.0], [18.0, 0.0, 36.0]], atol=1e-14)
    assert L[1, 1] == 0.0


def test_solve_lower():
    rng = np.random.default_rng(1)
    L, R = np.tril(rng.normal(size=(4, 3, 3))) + 2.0 * np.eye(3), rng.normal(size=(3, 2))
    np.testing.assert_allclose(L @ solve_lower(L, R), np.broadcast_to(R, (4, 3, 2)), atol=1e-12)
    np.testing.assert_allclose(np.swapaxes(L, -1, -2) @ solve_lower(L, R, transpose=True), np.broadcast_to(R, (4, 3, 2)), atol=1e-12)


def test_growing_linear_process():
    """F > 0 is legal: x' = x/2 with unit noise has variance e^B - 1."""
    process = Process([[0.5]], [[1.0]], clock=clocks.constant(1.0, 3.0))
    kernel = process.kernel([1e-12, 1.0, 3.0])
    np.testing.assert_allclose(kernel.cov[:, 0, 0], np.expm1([1e-12, 1.0, 3.0]), rtol=1e-13)
    np.testing.assert_allclose(process.time_of(kernel.sigma_eff), [1e-12, 1.0, 3.0], rtol=1e-12)


def test_records_compose_by_hand():
    """The semigroup for numbers that can be done on paper: halve and add 1, halve and add 3."""
    first, later = Transition(np.array([[0.5]]), np.array([[1.0]])), Transition(np.array([[0.5]]), np.array([[np.sqrt(3.0)]]))
    both = first.then(later)
    assert float(both.mean[0, 0]) == 0.25
    assert float(both.cov[0, 0]) == pytest.approx(3.25, rel=1e-15)
    turn, shear = Transition(np.array([[0.0, -1.0], [1.0, 0.0]]), np.eye(2)), Transition(np.array([[1.0, 2.0], [0.0, 1.0]]), np.zeros((2, 2)))
    assert turn.then(shear).mean.tolist() == [[2.0, -1.0], [1.0, 0.0]]
    np.testing.assert_allclose(turn.then(shear).cov, [[5.0, 2.0], [2.0, 1.0]], atol=1e-14)
    kernel = Kernel(np.array([2.0]), np.array([[2.0]])).then(first)
    assert float(kernel.psi[0]) == 1.0
    assert float(kernel.cov[0, 0]) == pytest.approx(2.0, rel=1e-15)
    assert float(kernel.snr) == pytest.approx(0.5, rel=1e-15)
