"""Processes mode by mode: against ordinary processes, against formulas written out, against integrals and other integrators."""

import numpy as np
import pytest
from processes import edm, psld, third_order, ve, vp
from scipy.integrate import solve_ivp
from scipy.stats import multivariate_normal

import sdekit as sk
from sdekit import BadInput, Process, analysis, catalogue, clocks, grids, methods, modes, plans
from sdekit.denoiser import StateScore
from sdekit.law import Empirical, Gaussian, Mixture
from sdekit.noise import Addressed
from sdekit.solve import program, solve
from sdekit.tableau import ByTerms, Stacked

GRID = grids.logsnr(5, 0.1, 3.0)
METHODS = [
    methods.euler(),
    methods.euler(noise=0.7),
    methods.heun(),
    methods.heun(noise=1.0),
    methods.exponential_rk(2),
    *(methods.exponential(p, of=of, noise=noise) for p in (1, 2, 3) for of in ("data", "eps") for noise in (0.0, 1.0)),
]
every = pytest.mark.parametrize("method", METHODS, ids=str)
PAIR = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[[0.3, 0.1], [0.1, 0.2]], [[0.16, -0.05], [-0.05, 0.1]]])
ANGLE = 0.7
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])


class Alike:
    """Normals that are the same in all elements."""

    def draw(self, addresses, ids, shape, like=None):
        one = Addressed(3).draw(addresses, ids, (1,) * len(shape), like)
        return one + 0.0 * Addressed(0).draw(addresses, ids, shape, like)


def _middle(step, clock):
    stages = step.stages(clock, 0.5)
    first = step.ask(step.z, step.here)
    half = stages.flow(0, 1)
    middle = step.ask(half.gain @ step.z + half.weights([0.0])[0][:, None] @ first.data, stages.point(1))
    return step.rows(step.flow.gain @ step.z + step.flow.weights([0.0])[0][:, None] @ middle.data)


def in_the_middle(clock):
    """The exponential midpoint rule: a stage inside the step."""
    return methods.Method(f"middle({clock})", _middle, (("clock", clock),), asks=2)


def blurred(shape=(4, 4), blur=3.0):
    return modes.blurring(vp(), shape, blur)


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


def other():
    return Process(-0.8, 0.9, clock=vp().clock)


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


# ----------------------------------------------------------------------------------------------------------------- laws and orders


def spectrum(shape):
    i, j = (np.arange(n) / n for n in shape[-2:])
    return np.broadcast_to(1.0 / (1.0 + 30.0 * (i[:, None] ** 2 + j**2)), shape)


def test_the_exact_law_is_that_of_the_sampler():
    process, basis = blurred(), modes.dct((4, 4))
    law = modes.Spectral(Gaussian(np.ones((4, 4)), spectrum((4, 4))), basis)
    z = np.random.default_rng(0).standard_normal((1, 7, 4, 4))
    for method in (methods.exponential(2), methods.heun()):
        exact = analysis.exact_law(process, method=method, grid=GRID, data=law)
        t = float(exact.program.times[0])
        made = sk.sample(process, law.denoiser(), method=method, grid=GRID, start=(z, t)).x
        affine = exact.map.matrix[0, 0] * basis.forward(z[0]).reshape(7, 16) + exact.map.offset[0]
        assert np.allclose(made, basis.backward(affine.reshape(7, 4, 4)), rtol=0, atol=1e-12)
    noisy = analysis.exact_law(process, method=methods.exponential(2, noise=1.0), grid=GRID, data=law)
    drawn = sk.sample(process, law.denoiser(), method=methods.exponential(2, noise=1.0), grid=GRID, n=20000).x.reshape(-1, 16)
    spread = np.sqrt(np.diag(noisy.cov))
    assert np.max(np.abs(drawn.mean(0) - noisy.mean.ravel()) / spread) < 5 / np.sqrt(20000)
    assert np.max(np.abs(np.cov(drawn.T) - noisy.cov) / np.outer(spread, spread)) < 5 * np.sqrt(2 / 20000)


@pytest.mark.parametrize(
    ("method", "order"),
    [
        (methods.euler(), 1),
        (methods.exponential(1), 1),
        (methods.exponential(2), 2),
        (methods.heun(), 2),
        (methods.exponential_rk(2), 2),
        (methods.exponential(2, noise=1.0), 2),
        (in_the_middle("time"), 2),
    ],
    ids=str,
)
def test_blurring_converges_at_the_methods_order(method, order):
    process = blurred((2, 3), 4.0)
    law = modes.Spectral(Gaussian(np.ones((2, 3)), spectrum((2, 3))), process.basis)
    errors = [
        analysis.exact_law(process, method=method, grid=grids.logsnr(n, 0.05, 20.0), data=law, start=law).parts["discretisation"]
        for n in (40, 80, 160)
    ]
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(slopes - order) < 0.15), slopes


def test_w2_to_the_data_falls_to_the_end_of_the_grid():
    process = blurred()
    law = modes.Spectral(Gaussian(np.zeros((4, 4)), spectrum((4, 4))), process.basis)
    coarse, fine = (analysis.exact_law(process, method=methods.exponential(2), grid=grids.logsnr(n, 0.01, 100.0), data=law) for n in (20, 160))
    assert fine.w2 < 0.05 * coarse.w2
    end = float(fine.program.times[-1])
    left, psi = process.levels(end), process.kernel(end).psi[..., 0]
    assert fine.parts["end"] == pytest.approx(np.sqrt(np.sum((psi * np.sqrt(spectrum((4, 4)) + left**2) - np.sqrt(spectrum((4, 4)))) ** 2)), rel=1e-9)


def test_three_thousand_modes():
    """3 x 32 x 32 with blurring: each distinct frequency is one process; a few of them against the process alone."""
    process = modes.blurring(vp(), (3, 32, 32))
    assert len(process.processes) == len({i * i + j * j for i in range(32) for j in range(32)})
    variances = spectrum((3, 32, 32))
    law = modes.Spectral(Gaussian(np.zeros((3, 32, 32)), variances), process.basis)
    exact = analysis.exact_law(process, method=methods.exponential(2), grid=grids.logsnr(6, 0.05, 20.0), data=law)
    assert 0.0 < exact.w2 < np.sqrt(np.sum(variances))
    times = tuple(exact.program.times)
    for place in ((0, 0, 0), (1, 0, 1), (2, 31, 31), (0, 7, 20)):
        own = process.processes[process.index[0, place[1], place[2]]]
        alone = analysis.exact_law(own, method=methods.exponential(2), grid=grids.times(times), data=Gaussian(0.0, variances[place]))
        j = np.ravel_multi_index(place, (3, 32, 32))
        assert exact.map.matrix[0, 0, j] == pytest.approx(alone.map.matrix[0, 0, 0], rel=1e-12)


@pytest.mark.parametrize("transform", ["restart", "churn", "ancestral"])
def test_plans_keep_the_marginals_of_every_mode(transform):
    """With runs solved exactly, jumps that are exact in each mode leave the data's law; the levels are those of the constant mode."""
    process = blurred()
    law = modes.Spectral(Gaussian(np.ones((4, 4)), spectrum((4, 4))), process.basis)
    grid = grids.logsnr(6, 0.05, 10.0)
    plan = {
        "restart": plans.restart(grid, [(3, 2, 0.2, 1.0)]),
        "churn": plans.churn(plans.run(grid, methods.heun()), 10.0),
        "ancestral": plans.ancestral(plans.run(grid, methods.exponential(1))),
    }[transform]
    exact = analysis.exact_law(process, plan=plan, data=law, start=law)
    assert exact.parts["prior"] < 1e-12
    if transform == "restart":
        assert process.reference.sigma_eff(exact.program.moves[1].t) == pytest.approx(1.0, rel=1e-9)
    assert np.isfinite(sk.sample(process, law.denoiser(), plan=plan, n=2).x).all()


def test_coupled_modes_converge_to_the_flow_of_all_of_them():
    """Modes of a mixture see each other: the reference is the whole equation in coordinates, by DOP853."""
    basis = modes.eigen(TURN)
    pair = [vp(), Process(-0.9, 1.1, clock=clocks.linear(0.1, 20.0))]
    process, top, low = modes.Modes(pair, basis), 0.5, 0.02
    z = np.array([[[0.9, -0.4]]])

    def flow(t, z):
        F, G = (np.array([float(f(t)[0, 0]) for f in (p.drift if i == 0 else p.noise for p in pair)]) for i in (0, 1))
        kernel = process.kernel(t)
        psi, S = kernel.psi[:, 0], kernel.cov[:, 0, 0]
        c = TURN.T @ z
        gap = z @ TURN / psi
        D = TURN.T @ modes.Denoiser(PAIR, basis)((TURN @ gap)[None], np.sqrt(S) / psi)[0]
        return TURN @ (F * c + 0.5 * G**2 * (c - psi * D) / S)

    known = solve_ivp(flow, (top, low), z[0, 0], method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    for method, order in ((methods.exponential(2), 2), (methods.heun(), 2), (methods.exponential(1), 1), (in_the_middle("time"), 2)):
        errors = []
        for n in (30, 60, 120):
            grid = grids.times(np.geomspace(top, low, n + 1))
            made = sk.sample(process, process.denoiser(PAIR), method=method, grid=grid, start=(z, top))
            errors.append(np.max(np.abs(made.x[0] - known)))
        slopes = np.log2(np.array(errors[:-1]) / errors[1:])
        assert np.all(np.abs(slopes - order) < 0.25), (method, slopes)


# ------------------------------------------------------------------------------------------------------------------------- engine


def test_everything_outside_is_in_the_datas_elements():
    process, seen = blurred((2, 3)), []
    z = np.random.default_rng(0).standard_normal((1, 4, 2, 3))
    law = Gaussian(np.zeros((2, 3)), 0.3)

    def known(y, sigmas):
        assert sigmas.shape == (2, 3)
        seen.append((y, sigmas))
        return process.denoiser(law)(y, sigmas)

    known.basis = modes.dct((2, 3))
    run = sk.sample(process, known, method=methods.euler(), grid=GRID, start=(z, 0.6), save="all", watch=seen.append)
    assert np.allclose(run.saved.state[0], z, atol=1e-14)
    assert np.array_equal(run.saved.state[-1], run.state)
    y, sigmas = seen[0]
    assert np.allclose(sigmas, process.levels(0.6), rtol=1e-13)
    psi = process.kernel(0.6).psi[..., 0]
    assert np.allclose(process.basis.forward(y), process.basis.forward(z[0]) / psi, atol=1e-13)
    assert np.allclose(seen[1].state[0], run.saved.state[1, 0], atol=1e-14)


def test_numpy_and_torch_agree():
    torch = pytest.importorskip("torch")
    for process, law in (
        (blurred((2, 3)), Mixture([0.4, 0.6], [np.zeros((2, 3)), np.ones((2, 3))], [0.2, 0.1])),
        (blurred((2, 3)), Empirical(np.random.default_rng(0).standard_normal((5, 2, 3)))),
        (modes.Modes([vp(), other()], modes.eigen(TURN)), PAIR),
        (modes.Modes([psld(0.3), psld(0.0, nu=2.0)], modes.eigen(TURN), scale=[0.5, 2.0]), PAIR),
    ):
        for method in (methods.exponential(3), methods.heun(noise=1.0)):
            options = {"method": method, "grid": GRID, "n": 4, "start": law}
            host = sk.sample(process, process.denoiser(law), **options).state
            device = sk.sample(process, process.denoiser(law), device="cpu", **options).state
            assert np.allclose(host, device.numpy(), rtol=0, atol=1e-11)
            for dtype in (torch.float32, np.float32):
                small = sk.sample(process, process.denoiser(law), dtype=dtype, **options).state
                assert small.dtype == dtype
                assert np.allclose(host, np.asarray(small), rtol=0, atol=2e-3 * np.max(np.abs(host)))


def test_programs_are_kept_and_differ_with_their_parts():
    a, b, c = blurred((2, 2)), blurred((2, 2)), blurred((2, 2), 4.0)
    plan = plans.run(GRID)
    assert a == b != c
    assert program(a, plan) is program(b, plan) is not program(c, plan)
    assert modes.Modes(vp(), modes.pixels(2)) != modes.Modes(vp(), modes.pixels(2), scale=[1.0, 2.0]) != vp()
    assert "6 processes" in repr(modes.blurring(vp(), (1, 2, 3)))


def test_a_run_into_a_folder_knows_its_modes(tmp_path):
    pytest.importorskip("safetensors")
    from sdekit.runs import load_samples, sample_to

    process, law, plan = blurred((2, 3)), Gaussian(np.zeros((2, 3)), 0.3), plans.run(GRID)
    sample_to(tmp_path, process, process.denoiser(law), plan, n=5, shard=3)
    assert np.array_equal(load_samples(tmp_path), sk.sample(process, process.denoiser(law), plan=plan, n=5).x)
    sample_to(tmp_path, blurred((2, 3)), process.denoiser(law), plan, n=6, shard=3)
    assert len(load_samples(tmp_path)) == 6
    with pytest.raises(BadInput, match="holds another run"):
        sample_to(tmp_path, blurred((2, 3), 4.0), process.denoiser(law), plan, n=5, shard=3)


class Custom:
    start, end, nfe, noises = 0.5, 0.5, 0, 0

    def apply(self, state, model, normals):
        return state


def test_refusals():
    process, law = blurred((2, 3)), Gaussian(np.zeros((2, 3)), 0.3)
    with pytest.raises(BadInput, match=r"another noise level in each mode.*process.denoiser\(law\)"):
        sk.sample(process, law.denoiser(), n=2)
    with pytest.raises(BadInput, match="another noise level in each mode"):
        sk.sample(process, modes.Denoiser(law, modes.pixels((2, 3))), n=2)
    with pytest.raises(BadInput, match=r"data of shape \(3, 2\) do not fit"):
        sk.sample(process, process.denoiser(law), n=2, shape=(3, 2))
    with pytest.raises(BadInput, match="has no stationary law"):
        sk.sample(process, process.denoiser(law), n=2, start="stationary")
    with pytest.raises(BadInput, match="Custom acts on the state by code of its own"):
        sk.sample(process, process.denoiser(law), n=2, plan=plans.run(GRID).then(lambda moves, _: [*moves, Custom()]))
    with pytest.raises(BadInput, match="stages placed by level"):
        sk.sample(process, process.denoiser(law), n=2, method=in_the_middle("log"), grid=GRID)
    assert sk.sample(modes.whitened(vp(), [1.0, 2.0], modes.dct(2)), modes.Denoiser(PAIR, modes.dct(2)), n=2, method=in_the_middle("log"), grid=GRID)
    with pytest.raises(BadInput, match="not diagonal in the basis"):
        analysis.exact_law(modes.Modes([vp(), other()], modes.pixels(2)), data=PAIR.parts[0])
    with pytest.raises(BadInput, match="must be a Gaussian law"):
        analysis.exact_law(process, data=modes.Spectral(Empirical(np.zeros((1, 2, 3))), process.basis))
    with pytest.raises(BadInput, match="another basis"):
        process.denoiser(modes.Spectral(law, modes.pixels((2, 3))))
    with pytest.raises(BadInput, match="no exact denoiser"):
        process.denoiser(modes.Spectral(modes.Spectral(law, process.basis), process.basis))
    with pytest.raises(BadInput, match="has no 'sigma_eff'"):
        analysis.order(methods.heun(), process)
    with pytest.raises(BadInput, match="leaves nothing of the finest mode"):
        modes.blurring(vp(), (32, 32), 20.0, least=0.0)
    with pytest.raises(BadInput, match="one block"):
        modes.blurring(psld(), (4, 4))
    with pytest.raises(BadInput, match="same number of blocks"):
        modes.Modes([vp(), psld()], modes.pixels(2))
    with pytest.raises(BadInput, match="2 processes for 3 modes"):
        modes.Modes([vp(), other()], modes.pixels(3))
    with pytest.raises(BadInput, match="whole numbers from 0 to 1"):
        modes.Modes([vp(), other()], modes.pixels(2), [0, 2])
    with pytest.raises(BadInput, match="must broadcast"):
        modes.Modes(vp(), modes.pixels(2), scale=[1.0, 2.0, 3.0])
    with pytest.raises(BadInput, match="scale must be positive"):
        modes.Modes(vp(), modes.pixels(2), scale=[1.0, 0.0])
    with pytest.raises(BadInput, match="orthonormal"):
        modes.eigen([[1.0, 0.5], [0.5, 1.0]])
    with pytest.raises(BadInput, match="axes"):
        modes.dct((2, 3), axes=(2,))
    prog = program(process, plans.run(GRID))
    with pytest.raises(BadInput, match="term by term"):
        solve(prog, [np.zeros((1, 2, 3))], process.denoiser(law), executor=Stacked)
    assert solve(prog, [np.zeros((1, 2, 3))], process.denoiser(law), executor=ByTerms)
