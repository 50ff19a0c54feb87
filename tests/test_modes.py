"""Processes mode by mode: against ordinary processes, against formulas written out, and against integrals."""

import numpy as np
import pytest
from mode_cases import GRID, PAIR, TURN, Alike, every, other
from processes import edm, psld, third_order, ve, vp
from scipy.integrate import solve_ivp
from scipy.stats import multivariate_normal

import sdekit as sk
from sdekit import Process, analysis, catalogue, clocks, grids, methods, modes
from sdekit.denoiser import StateScore
from sdekit.law import Empirical, Gaussian, Mixture

# ------------------------------------------------------------------------------------------------------------------------ bases


def test_dct_is_the_matrix_of_cosines_and_scipys():
    from scipy.fft import dctn

    x = np.random.default_rng(0).standard_normal((3, 2, 4, 6))
    basis = modes.dct((2, 4, 6))

    def cosines(n):
        i, j = np.arange(n), np.arange(n)[:, None]
        return np.sqrt(2.0 / n) * np.cos(np.pi * (i + 0.5) * j / n) * np.where(j == 0, np.sqrt(0.5), 1.0)

    c = basis.forward(x)
    assert np.allclose(c, np.einsum("ka,lb,ncab->nckl", cosines(4), cosines(6), x), atol=1e-14)
    assert np.allclose(c, dctn(x, axes=(-2, -1), norm="ortho"), atol=1e-14)
    assert np.allclose(basis.backward(c), x, atol=1e-14)
    assert np.allclose(basis.matrix.T @ basis.matrix, np.eye(48), atol=1e-14)
    assert np.allclose(basis.matrix.T @ x[0].ravel(), c[0].ravel(), atol=1e-14)


def test_eigen_takes_columns_and_any_shape():
    U = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    basis, x = modes.eigen(U, (2, 3)), np.arange(12.0).reshape(2, 2, 3)
    assert np.allclose(basis.forward(x).reshape(2, 6), x.reshape(2, 6) @ U, atol=1e-14)
    assert modes.eigen(np.eye(3)) == modes.eigen(np.eye(3)) != modes.eigen(np.eye(3)[::-1])
    assert modes.pixels((2, 3)).forward(x) is x


# -------------------------------------------------------------------------------------------------------- equal modes, separate modes


@every
@pytest.mark.parametrize("make", [vp, psld])
def test_equal_modes_are_the_process_itself(method, make):
    same = modes.Modes([make(), make()], modes.pixels(2))
    assert len(same.processes) == 1
    options = {"method": method, "grid": GRID, "n": 5, "seed": 4, "save": "all"}
    ours, plain = (sk.sample(p, PAIR.denoiser(), **options) for p in (same, make()))
    assert np.array_equal(ours.state, plain.state)
    assert np.array_equal(ours.saved.state, plain.saved.state)
    assert np.array_equal(ours.nfe, plain.nfe)
    data, start = Gaussian([0.3, -0.2], [0.5, 0.02]), Gaussian([0.1, 0.0], [0.3, 0.4])
    for begin in (None, start):
        exact, known = (analysis.exact_law(p, method=method, grid=GRID, data=data, model=start, start=begin) for p in (same, make()))
        assert exact.w2 == known.w2
        assert exact.parts == pytest.approx(known.parts, rel=1e-12, abs=1e-14)
        assert np.allclose(exact.state_cov, known.state_cov, rtol=1e-13, atol=1e-16)
        assert np.allclose(exact.state_mean, known.state_mean, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("start", [None, "stationary", PAIR])
def test_equal_modes_in_a_basis_are_the_process_with_the_same_noise(start):
    basis = modes.eigen(TURN)
    for method in (methods.exponential(2, noise=1.0), methods.heun(), methods.exponential(3, of="eps")):
        ours, plain = (sk.sample(p, PAIR.denoiser(), method=method, grid=GRID, n=6, start=start) for p in (modes.Modes(psld(), basis), psld()))
        assert np.allclose(ours.state, plain.state, rtol=0, atol=1e-13)
    data = Gaussian([0.3, -0.2], TURN @ np.diag([0.5, 0.02]) @ TURN.T)
    exact, known = (analysis.exact_law(p, method=methods.heun(), grid=GRID, data=data) for p in (modes.Modes(psld(), basis), psld()))
    assert exact.w2 == pytest.approx(known.w2, rel=1e-12)
    assert np.allclose(exact.state_cov, known.state_cov, rtol=0, atol=1e-13)
    assert np.allclose(exact.state_mean, known.state_mean, rtol=0, atol=1e-13)


@every
@pytest.mark.parametrize("make", [lambda: [vp(), Process(-0.9, 1.1, T=1.0, clock=clocks.linear(0.1, 20.0))], lambda: [psld(0.3), psld(0.0, nu=2.0)]])
def test_each_mode_runs_as_its_own_process_runs_on_its_own(method, make):
    pair = make()
    both = modes.Modes(pair, modes.pixels(2))
    times = grids.times([0.9, 0.6, 0.35, 0.15, 0.04, 0.0])
    laws = [Gaussian([0.4], [0.3]), Gaussian([-0.2], [0.09])]
    product = Gaussian([0.4, -0.2], [0.3, 0.09])
    options = {"method": method, "grid": times, "seed": Alike(), "n": 3}
    ours = sk.sample(both, both.denoiser(product), **options)
    exact = analysis.exact_law(both, method=method, grid=times, data=product, start=product)
    parts = []
    for j, (process, law) in enumerate(zip(pair, laws, strict=True)):
        alone = sk.sample(process, law.denoiser(), **options)
        assert np.allclose(ours.state[..., j], alone.state[..., 0], rtol=0, atol=1e-13)
        parts.append(analysis.exact_law(process, method=method, grid=times, data=law, start=law))
        assert exact.state_mean[:, j] == pytest.approx(parts[j].state_mean[:, 0], rel=1e-12, abs=1e-14)
        assert np.allclose(exact.state_cov[j::2, j::2], parts[j].state_cov, rtol=1e-11, atol=1e-15)
    for name, value in exact.parts.items():
        assert value == pytest.approx(np.hypot(*(part.parts[name] for part in parts)), rel=1e-9, abs=1e-12)
    assert exact.w2 == pytest.approx(np.hypot(parts[0].w2, parts[1].w2), rel=1e-12)


def scaled(process, r):
    return Process(process.F, r * process.G, r**2 * process.S0, clock=process.clock, T=process.T)


@every
def test_a_scale_is_a_process_with_louder_noise(method):
    """The rows of a scaled mode come from the rows of the unscaled process: every column must get its own power of the scale."""
    r = [0.5, 3.0]
    data = Gaussian([0.4, -0.2], [0.3, 0.09])
    for make in (psld, third_order):
        apart = modes.Modes([scaled(make(), r[0]), scaled(make(), r[1])], modes.pixels(2))
        times = grids.times([0.9, 0.6, 0.35, 0.15, 0.04, 0.0])
        both = [modes.per_dimension(make(), r), apart]
        assert np.allclose(both[0].levels(0.3), apart.levels(0.3), rtol=1e-12)
        models = [p.denoiser(data) for p in both]
        ours, known = (sk.sample(p, d, method=method, grid=times, n=4).state for p, d in zip(both, models, strict=True))
        assert np.allclose(ours, known, rtol=0, atol=1e-9 * np.max(np.abs(known)))
        scores = [StateScore(lambda z, t, p=p: gaussian_score(p, data, z, t), (2,)) for p in both]
        ours, told = (sk.sample(p, s, method=method, grid=times, n=4).state for p, s in zip(both, scores, strict=True))
        assert np.allclose(ours, told, rtol=0, atol=1e-9 * np.max(np.abs(told)))
        assert np.allclose(told, known, rtol=0, atol=1e-8 * np.max(np.abs(known)))
        laws = [analysis.exact_law(p, method=method, grid=times, data=data) for p in both]
        assert laws[0].w2 == pytest.approx(laws[1].w2, rel=1e-9)
        if make is psld:
            assert laws[0].parts == pytest.approx(laws[1].parts, rel=1e-8)


def gaussian_score(process, data, z, t):
    """Score of the state for data with independent elements, element by element."""
    kernel = process.kernel(t)
    out = np.empty_like(z)
    for j in range(z.shape[-1]):
        psi, chol = (np.broadcast_to(v, (z.shape[-1], *v.shape[-n:]))[j] for v, n in ((kernel.psi, 1), (kernel.chol, 2)))
        cov = chol @ chol.T + np.outer(psi, psi) * data.cov[j]
        out[..., j] = -np.linalg.solve(cov, z[..., j] - psi[:, None] * data.mean[j])
    return out


# ------------------------------------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("make", [vp, catalogue.cosine, edm, ve])
@pytest.mark.parametrize("least", [0.0, 1e-3])
def test_blurring_is_the_papers_kernel_and_its_own_moment_equations(make, least):
    base = make()
    process = modes.blurring(base, (1, 3, 4), 4.0, least)
    i, j = np.arange(3)[:, None], np.arange(4)
    frequency = np.pi**2 * (i**2 / 9 + j**2 / 16)
    for share in (1e-6, 0.03, 0.4, 1.0):
        t = share * base.T
        width = 4.0 * np.sin(0.5 * np.pi * share) ** 2
        d = least + (1.0 - least) * np.exp(-frequency * 0.5 * width**2)
        kernel, plain = process.kernel(t), base.kernel(t)
        assert np.allclose(kernel.psi[0, :, :, 0], d * plain.psi, rtol=1e-12, atol=0)
        assert np.allclose(kernel.cov[0, :, :, 0, 0], plain.cov[0, 0], rtol=1e-12, atol=0)
        assert np.allclose(process.levels(t)[0], base.sigma_eff(t) / d, rtol=1e-12)
    low, high = 0.3 * base.T, 0.7 * base.T
    for own in (process.processes[1], process.processes[-1]):

        def moments(t, m, own=own):
            F, G = float(own.drift(t)[0, 0]), float(own.noise(t)[0, 0])
            return [F * m[0], 2.0 * F * m[1] + G**2]

        found = solve_ivp(moments, (low, high), [1.0, 0.0], method="DOP853", rtol=1e-12, atol=1e-30).y[:, -1]
        step = own.transition(low, high)
        assert np.allclose([step.mean[0, 0], step.cov[0, 0]], found, rtol=1e-9)
        assert np.allclose(own.kernel(low).then(step).cov, own.kernel(high).cov, rtol=1e-12)


def test_short_steps_of_a_fading_mode_keep_their_digits():
    last = modes.blurring(vp(), (8,), 4.0).processes[-1]
    t, h = 0.3, 1e-9
    step = last.transition(t, t + h)
    assert step.cov[0, 0] == pytest.approx(float(last.noise(t)[0, 0]) ** 2 * ((t + h) - t), rel=1e-7)
    assert np.log(step.mean[0, 0]) == pytest.approx(float(last.drift(t)[0, 0]) * ((t + h) - t), rel=1e-7)


def test_whitening_makes_sigma_the_stationary_law():
    cov = np.array([[0.5, 0.2], [0.2, 0.3]])
    values, vectors = np.linalg.eigh(cov)
    process = modes.whitened(psld(), values, modes.eigen(vectors))
    turned = np.einsum("am,m,bm->ab", vectors, process.stationary[:, 0, 0], vectors)
    assert np.allclose(turned, cov, atol=1e-14)
    # the same as the ordinary process on whitened data
    data, wide = Gaussian([0.2, -0.1], [[0.3, 0.1], [0.1, 0.4]]), vectors / np.sqrt(values)
    white = Gaussian(data.mean @ wide, wide.T @ data.cov @ wide)
    z = np.random.default_rng(0).standard_normal((2, 5, 2))
    ours = sk.sample(process, process.denoiser(data), method=methods.heun(), grid=GRID, start=(z, 0.6)).state
    known = sk.sample(psld(), white.denoiser(), method=methods.heun(), grid=GRID, start=(z @ wide, 0.6)).state
    assert np.allclose(ours @ wide, known, atol=1e-12)


# ---------------------------------------------------------------------------------------------------------------------- denoisers


def brute(law, y, cov):
    """E[x | x + n = y] in the plane on a fine mesh."""
    x = np.linspace(-6.0, 6.0, 241)
    mesh = np.stack(np.meshgrid(x, x, indexing="ij"), -1)
    weight = sum(w * multivariate_normal(part.mean, part.matrix).pdf(mesh) for w, part in zip(law.weights, law.parts, strict=True))
    weight = weight * multivariate_normal(y, cov).pdf(mesh)
    return np.einsum("ab,abi->i", weight, mesh) / np.sum(weight)


@pytest.mark.parametrize("basis", [modes.pixels(2), modes.eigen(TURN), modes.dct(2)], ids=["pixels", "eigen", "dct"])
def test_denoisers_are_integrals_over_the_plane(basis):
    sigmas = np.array([0.4, 1.3])
    noise = basis.matrix @ np.diag(sigmas**2) @ basis.matrix.T
    axes = Mixture([0.4, 0.6], [[-1.0, 0.5], [0.7, 0.0]], [[0.3, 0.6], [0.2, 0.1]])
    round_ = Mixture([0.4, 0.6], [[-1.0, 0.5], [0.7, 0.0]], [0.3, 0.2])
    y = np.array([[0.3, -0.8], [-1.1, 1.4]])
    for law in (PAIR, axes, round_):
        found = modes.Denoiser(law, basis)(y, sigmas)
        assert np.allclose(found, [brute(law, row, noise) for row in y], rtol=0, atol=1e-10)
        one = law.parts[0]
        alone = Mixture([1.0], one.mean[None], one.matrix[None])
        assert np.allclose(modes.Denoiser(one, basis)(y, sigmas), [brute(alone, row, noise) for row in y], rtol=0, atol=1e-10)
        assert np.allclose(modes.Denoiser(law, basis)(y, 0.7), law.denoiser()(y, 0.7), rtol=1e-12, atol=1e-14)
    inside = modes.Spectral(axes, basis)
    turned = Mixture(axes.weights, [basis.matrix @ p.mean for p in axes.parts], [basis.matrix @ p.matrix @ basis.matrix.T for p in axes.parts])
    assert np.allclose(inside.denoiser()(y, sigmas), modes.Denoiser(turned, basis)(y, sigmas), rtol=0, atol=1e-13)


def test_empirical_denoiser_weighs_by_whitened_distance():
    rng = np.random.default_rng(2)
    data, y, sigmas = rng.standard_normal((5, 2, 3)), rng.standard_normal((4, 2, 3)), np.linspace(0.3, 2.0, 6).reshape(2, 3)
    basis = modes.dct((2, 3))
    gaps = basis.forward(y)[:, None] - basis.forward(data)[None]
    for width in (0.0, 0.3):
        total = sigmas**2 + width**2
        weights = np.exp(-0.5 * np.sum(gaps**2 / total, axis=(-2, -1)))
        means = basis.forward(data) + width**2 / total * gaps
        known = basis.backward(np.einsum("ni,niab->nab", weights / weights.sum(1, keepdims=True), means))
        assert np.allclose(modes.Denoiser(Empirical(data, width), basis)(y, sigmas), known, rtol=0, atol=1e-13)


def test_spectral_samples_have_their_covariance():
    basis = modes.dct((2, 2))
    law = modes.Spectral(Gaussian(np.zeros((2, 2)), np.array([[4.0, 1.0], [0.5, 0.1]])), basis)
    x = law.sample(40000, seed=1).reshape(-1, 4)
    known = basis.matrix @ np.diag([4.0, 1.0, 0.5, 0.1]) @ basis.matrix.T
    assert np.allclose(np.cov(x.T), known, atol=5 * 4.0 * np.sqrt(2 / 40000))


@pytest.mark.parametrize("basis", [modes.pixels(3), modes.dct(3)], ids=["pixels", "dct"])
def test_a_full_covariance_that_is_diagonal_in_the_basis_is_a_spectral_law(basis):
    mean, variances = np.array([0.3, -0.2, 0.5]), np.array([0.9, 0.4, 0.0])
    full = Gaussian(basis.matrix @ mean, basis.matrix @ np.diag(variances) @ basis.matrix.T)
    process = modes.Modes([vp(), other()], basis, [0, 1, 1])
    inside = modes.Spectral(Gaussian(mean, variances), basis)
    one, same = (analysis.exact_law(process, method=methods.heun(), grid=GRID, data=law, start=law) for law in (full, inside))
    assert one.w2 == pytest.approx(same.w2, rel=1e-10)
    assert np.allclose(one.mean, same.mean, atol=1e-13)
    isotropic = analysis.exact_law(process, method=methods.heun(), grid=GRID, data=Gaussian(np.zeros(3), 0.4), start="stationary")
    assert isotropic.w2 > 0.0
