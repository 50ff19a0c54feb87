"""PFGM++: its laws against quadrature and closed forms, its transition kernel, and runs with it."""

import numpy as np
import pytest
from processes import edm, psld, vp
from scipy import integrate, special, stats

from sdekit import BadInput, analysis, denoiser, grids, hitting, methods, plans, sample
from sdekit.law import Empirical, Gaussian, Mixture
from sdekit.noise import Address, Addressed
from sdekit.pfgm import Pfgm, PfgmJump, _push
from sdekit.plans import Jump, published
from sdekit.solve import program

EDM, VP = edm(), vp()
QUARTER = Gaussian(0.0, 0.25)
XI = np.linspace(-8.5, 8.5, 3001)
W = stats.norm.pdf(XI) * (XI[1] - XI[0])  # the trapezoidal rule, to rounding
NORMALS = Addressed(7).draw([Address(2, slot=i) for i in range(3)], np.arange(20_000), ())


# ---------------------------------------------------------------------------------------------------------------- the kernel from the data


def test_alignment():
    flow = Pfgm(2048)
    assert flow.radius(0.5) == 0.5 * np.sqrt(2048)
    np.testing.assert_allclose(flow.level(flow.radius([0.002, 80.0])), [0.002, 80.0], rtol=1e-15)


@pytest.mark.parametrize(("D", "N"), [(0.7, 3), (1.0, 2), (3.0, 1), (64.0, 12)])
def test_prior_radius(D, N):
    """R^2 / (sigma^2 D) ~ BetaPrime(N/2, D/2), and a uniform direction, at the level where the run starts."""
    plan = plans.run(grids.sigmas([80.0, 0.0]), methods.ddim())
    states = sample(EDM, lambda y, sigma: y, plan=plan, start=Pfgm(D).prior((N,)), shape=(N,), n=10_000, save="all", seed=2).saved.x[0]
    ratio = np.sum(states**2, axis=1) / (80.0**2 * D)
    assert stats.kstest(ratio, stats.betaprime(N / 2, D / 2).cdf).pvalue > 1e-3
    assert stats.kstest(states[:, 0] / 80.0, stats.t(D).cdf).pvalue > 1e-3
    first = states[:, 0] / np.linalg.norm(states, axis=1)
    if N > 1:
        assert stats.kstest(first**2, stats.beta(0.5, (N - 1) / 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("D", [0.5, 3.0, 40.0])
def test_kernel_around_data(D):
    x = Pfgm(D).perturb(np.full((10_000, 1), 2.0), 0.3, seed=4)[:, 0]
    assert stats.kstest((x - 2.0) / 0.3, stats.t(D).cdf).pvalue > 1e-3


@pytest.mark.parametrize("D", [1.0, 2.5, 3.0, 80.0])
def test_characteristic_function(D):
    """Against the Fourier integral of Student's law: cos by QAWF."""
    for k in (0.5, 3.0):
        want = 2.0 * integrate.quad(stats.t(D, scale=0.4).pdf, 0.0, np.inf, weight="cos", wvar=k)[0]
        assert float(Pfgm(D).characteristic(k, 0.4)) == pytest.approx(want, abs=1e-8)


def test_loss_weight_is_that_of_edm():
    levels = np.array([0.002, 0.3, 80.0])
    c_out = [denoiser.preconditioning(EDM, float(t), 0.5)[1] for t in levels]
    np.testing.assert_allclose(Pfgm(3).loss_weight(levels, 0.5) * np.square(c_out), 1.0, rtol=1e-9)


# ---------------------------------------------------------------------------------------------------------------- denoisers


def posterior_mean(x, sigma, D, parts):
    """By quadrature over y of the prior times (|x - y|^2 + sigma^2 D)^(-(1 + D)/2)."""

    def weight(y):
        prior = sum(w * np.exp(-((y - m) ** 2) / (2 * v)) / np.sqrt(v) for w, m, v in parts)
        return prior * (1.0 + (x - y) ** 2 / (sigma**2 * D)) ** (-(1.0 + D) / 2.0)

    nodes = np.linspace(-9.0, 9.0, 40_001)
    values = weight(nodes)
    return np.sum(nodes * values) / np.sum(values)


@pytest.mark.parametrize("D", [0.5, 1.0, 3.0, 16.0, 300.0])
@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_exact_denoisers_in_one_dimension(D, sigma):
    x = np.array([-3.0, 0.0, 0.4, 2.0])
    laws = {
        Gaussian(0.3, 0.25): [(1.0, 0.3, 0.25)],
        Mixture([0.3, 0.7], [-1.0, 0.8], [0.0625, 0.16]): [(0.3, -1.0, 0.0625), (0.7, 0.8, 0.16)],
        Empirical([-1.0, 0.5], width=0.3): [(0.5, -1.0, 0.09), (0.5, 0.5, 0.09)],
    }
    for law, parts in laws.items():
        want = [posterior_mean(v, sigma, D, parts) for v in x]
        np.testing.assert_allclose(Pfgm(D).denoiser(law)(x, sigma), want, atol=2e-9)


def test_denoiser_of_data():
    """Softmax of -(N + D)/2 log(|x - y_i|^2 + sigma^2 D): what a network regresses on a batch."""
    rng = np.random.default_rng(0)
    data, x, sigma, D = rng.normal(size=(6, 2, 3)), rng.normal(size=(4, 2, 3)), 0.4, 2.5
    square = np.sum((x[:, None] - data) ** 2, axis=(2, 3))
    weight = (square + sigma**2 * D) ** (-(6 + D) / 2)
    want = np.einsum("ni,iab->nab", weight / weight.sum(1, keepdims=True), data)
    np.testing.assert_allclose(Pfgm(D).denoiser(Empirical(data))(x, sigma), want, rtol=1e-12)


def test_mixture_of_points_is_the_data():
    """Quadrature over the random variance and the closed form meet, in five dimensions, with full and diagonal covariances."""
    rng = np.random.default_rng(1)
    data, x = rng.normal(size=(3, 5)), rng.normal(size=(4, 5))
    want = Pfgm(4.0).denoiser(Empirical(data))(x, 0.7)
    for covs in (1e-12, np.full((3, 5), 1e-12), np.stack([1e-12 * np.eye(5)] * 3)):
        np.testing.assert_allclose(Pfgm(4.0).denoiser(Mixture(np.ones(3), data, covs))(x, 0.7), want, atol=1e-9)


def test_gaussian_in_many_dimensions():
    """Against the integral over u by adaptive quadrature, far out and near."""
    N, D, c, sigma = 64, 64.0, 0.5, 1.0
    for size in (0.1, 1.0, 12.0):
        x = np.full((1, N), size)

        def part(v, power, size=size):
            tau = sigma**2 * D * np.exp(-v)
            log = 0.5 * D * v - 0.5 * np.exp(v) - 0.5 * N * np.log(c**2 + tau) - 0.5 * N * size**2 / (c**2 + tau)
            return np.exp(log - part.top) * (c**2 / (c**2 + tau)) ** power

        part.top = 0.0
        mesh = np.linspace(-2.0, 6.0, 4001)
        with np.errstate(over="ignore"):
            part.top = np.max(np.log(np.maximum(part(mesh, 0), 1e-300)))
        a, b = (integrate.quad(part, -2.0, 6.0, args=(power,), points=[mesh[np.argmax(part(mesh, 0))]], limit=400, epsabs=0.0)[0] for power in (1, 0))
        np.testing.assert_allclose(Pfgm(D).denoiser(Gaussian(np.zeros(N), c**2))(x, sigma), x * a / b, rtol=1e-7)


def test_many_extra_dimensions_are_diffusion():
    x = np.linspace(-3.0, 3.0, 7)
    for law in (Gaussian(0.3, 0.25), Mixture([0.3, 0.7], [-1.0, 0.8], 0.1), Empirical([-1.0, 0.2, 0.5])):
        gaps = [np.max(np.abs(Pfgm(D).denoiser(law)(x, 0.7) - law.denoiser()(x, 0.7))) for D in (1e4, 1e6)]
        assert gaps[1] < 2e-5
        assert gaps[0] / gaps[1] == pytest.approx(100.0, rel=0.05)  # O(1/D)


def test_denoiser_takes_a_level_of_each_sample():
    x, sigma = np.linspace(-2.0, 2.0, 6).reshape(3, 2), np.array([0.1, 0.5, 3.0])
    for law in (Gaussian([0.3, 0.0], [0.25, 1.0]), Mixture([0.3, 0.7], np.eye(2), 0.1), Empirical(np.eye(2)), Empirical(np.eye(2), 0.2)):
        model = Pfgm(3.0).denoiser(law)
        one = np.concatenate([model(x[i : i + 1], float(sigma[i])) for i in range(3)])
        np.testing.assert_allclose(model(x, sigma), one, rtol=1e-12)


# ---------------------------------------------------------------------------------------------------------------- the transition kernel


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.99])
def test_distribution_of_the_variance_at_one_dimension(ratio):
    """D = 1: Levy's law of the first passage of Brownian motion."""
    t = np.geomspace(1e-3, 1e6, 40) * (1.0 - ratio) ** 2
    np.testing.assert_allclose(hitting.distribution(1.0, ratio, t), special.erfc((1.0 - ratio) / np.sqrt(2.0 * t)), atol=2e-10)


@pytest.mark.parametrize("D", [3.0, 16.0, 29.0, 31.0, 500.0, 2e4])
def test_distribution_from_near_the_data(D):
    """r_1 to 0: one over a chi-square variable; across the switch of Bessel's function to its expansion."""
    p = np.array([1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999])
    t = 0.5 / special.gammainccinv(0.5 * D, p)
    np.testing.assert_allclose(hitting.distribution(D, 1e-6, t), p, atol=2e-9)


@pytest.mark.parametrize("D", [0.6, 1.0, 2.0, 3.0, 16.0, 64.0, 2048.0, 1e6])
@pytest.mark.parametrize("ratio", [0.14 / 0.30, 0.95])
def test_quantiles_have_the_transform(D, ratio):
    """E exp(-k^2 T / 2) by quadrature of the quantiles is phi_r2(k) / phi_r1(k), here in units of r_2."""
    with np.errstate(over="ignore"):
        T = hitting.spread(D, ratio, XI)
    k = np.array([0.3, 1.0, 2.5]) * np.sqrt(D)
    if D < 1e3:
        flow = Pfgm(D)
        want = flow.characteristic(k / np.sqrt(D), 1.0) / flow.characteristic(k / np.sqrt(D), ratio)
    else:  # to second order in 1/D
        mean, var = (1.0 - ratio**2) / (D - 2.0), 2.0 * (1.0 - ratio**4) / ((D - 2.0) ** 2 * (D - 4.0))
        want = np.exp(-0.5 * k**2 * mean + 0.125 * k**4 * var)
    np.testing.assert_allclose(np.exp(-0.5 * np.outer(k**2, T)) @ W, want, atol=1e-5 if D < 2.0 or D > 1e3 else 1e-6)


def test_moments_of_the_variance():
    """E T = (r2^2 - r1^2)/(D - 2), Var T = 2 (r2^4 - r1^4)/((D - 2)^2 (D - 4)), in units of r_2."""
    for D, ratio in ((12.0, 0.3), (64.0, 0.7), (2048.0, 0.3), (1e7, 0.7)):
        T = hitting.spread(D, ratio, XI)
        mean = (1.0 - ratio**2) / (D - 2.0)
        assert pytest.approx(mean, rel=1e-6) == T @ W
        want = 2.0 * (1.0 - ratio**4) / ((D - 2.0) ** 2 * (D - 4.0))
        assert (T - mean) ** 2 @ W == pytest.approx(want, rel=2e-3 if D == 12.0 else 1e-5)


def test_tails_of_the_quantiles():
    """D = 1 in closed form: T = (r2 - r1)^2 / z^2 with z the quantile of half of P; beyond the table they go on as they should, and rise."""
    xi = np.array([-7.0, -5.0, -4.5, -2.0, 0.0, 2.0, 4.5, 5.0, 7.0])
    z = np.where(xi < 0.0, special.ndtri(0.5 * special.ndtr(xi)), special.ndtri(0.5 + 0.5 * special.ndtr(-xi)))
    made = hitting.spread(1.0, 0.5, xi)
    np.testing.assert_allclose(made[2:-2], 0.25 / z[2:-2] ** 2, rtol=1e-4)
    np.testing.assert_allclose(np.log(made), np.log(0.25 / z**2), atol=0.05)
    for D in (0.6, 3.0, 50.0, 1e4):
        assert np.all(np.diff(hitting.spread(D, 0.7, np.linspace(-8.5, 8.5, 400))) > 0.0)


@pytest.mark.parametrize(("D", "k", "expected"), [(3.0, 2.0, 0.7889), (3.0, 5.0, 0.4068), (1.0, 2.0, 0.7261), (1.0, 5.0, 0.4493)])
def test_published_jumps(D, k, expected):
    """Levels .14 to .30: the mean of cos(k x), sampled, is phi_r2 / phi_r1."""
    assert float(Pfgm(D).characteristic(k, 0.30) / Pfgm(D).characteristic(k, 0.14)) == pytest.approx(expected, abs=6e-5)
    values = np.cos(k * _push(D, 0.14, 0.30, "exact", NORMALS))
    assert abs(values.mean() - expected) < 4.0 * values.std() / np.sqrt(len(values))
    line = np.cos(k * _push(D, 0.14, 0.30, "straight", NORMALS)).mean()
    assert line < expected - 0.03


@pytest.mark.parametrize("D", [2.5, 3.0, 16.0, 64.0])
def test_the_straight_line_adds_too_much(D):
    """Variance (r2^2 - r1^2 + 2 r1^2 / D)/(D - 2), at D = 3 .2504 where the exact kernel has .2112.

    The direction in the extra dimensions makes the angle ``c`` with the radius, and its length is independent of that: E 1/chi^2 = 1/(D - 2).
    """
    c, weight = special.roots_jacobi(60, 0.5 * (D - 3.0), 0.5 * (D - 3.0))
    length = np.sqrt(D)
    rest = special.ndtri(special.gammainc(0.5 * (D - 1.0), 0.5 * D * (1.0 - c**2)))
    moved = _push(D, 0.14, 0.30, "straight", [np.ones(60), length * c, rest])
    made = D * (moved**2 @ weight) / weight.sum() / (D - 2.0)
    r1, r2 = Pfgm(D).radius([0.14, 0.30])
    assert made == pytest.approx((r2**2 - r1**2 + 2.0 * r1**2 / D) / (D - 2.0), rel=1e-9)
    if D == 3.0:
        assert made == pytest.approx(0.2504, abs=6e-5)
        assert (r2**2 - r1**2) / (D - 2.0) == pytest.approx(0.2112, abs=6e-5)


def test_from_the_data_both_kernels_are_one():
    for kernel in ("exact", "straight"):
        x = _push(3.0, 0.0, 0.5, kernel, NORMALS)
        assert stats.kstest(x / 0.5, stats.t(3.0).cdf).pvalue > 1e-3


# ---------------------------------------------------------------------------------------------------------------- runs


def marginal_cdf(x, sigma, D, c):
    """Of y + sigma t_D with y ~ N(0, c^2), by quantiles of the chi-square variable."""
    u = stats.chi2(D).ppf((np.arange(2000) + 0.5) / 2000)
    return np.mean(special.ndtr(np.asarray(x)[:, None] / np.sqrt(c**2 + sigma**2 * D / u)), axis=1)


@pytest.mark.parametrize(("kernel", "kept"), [("exact", True), ("straight", False)])
def test_cycles_keep_the_marginal(kernel, kept):
    """Eight cycles with a fine flow at D = 3, from the exact marginal: Kolmogorov and Smirnov see no change, and see the straight line's."""
    flow, law = Pfgm(3.0), Gaussian(0.0, 0.05**2)
    plan = flow.restart(grids.sigmas([0.16, 0.14]), [(5, 8, 0.14, 0.17)], kernel=kernel)
    run = sample(EDM, flow.denoiser(law), plan=plan, start=flow.marginal(law), n=2500, seed=6)
    pvalue = stats.kstest(run.x, lambda x: marginal_cdf(x, 0.14, 3.0, 0.05)).pvalue
    assert pvalue > 1e-3 if kept else pvalue < 1e-8


def test_many_dimensions_repeat_restart():
    """D = 1e6: the published Restart run, sample by sample, from the same normals."""
    flow, n = Pfgm(1e6), 3000
    plan = published.cifar10_vp[43].plan
    made = sample(EDM, flow.denoiser(QUARTER), plan=flow.plan(plan), start=flow.prior(()), n=n)
    want = sample(EDM, QUARTER.denoiser(), plan=plan, n=n)
    np.testing.assert_allclose(made.x, want.x, atol=0.01)
    assert abs(np.mean(made.x**2) - 0.269498) < 4.0 * 0.269498 * np.sqrt(2.0 / n)
    assert set(made.nfe) == {43}


def test_the_published_row():
    plan = Pfgm(2048).plan(published.cifar10_pfgmpp[43].plan)
    prog = program(EDM, plan)
    jumps = [item.move for item in prog.items if isinstance(item.move, PfgmJump)]
    assert prog.nfe == 43
    np.testing.assert_allclose(EDM.sigma_eff([jumps[0].start, jumps[0].end]), [0.1395, 0.30], rtol=1e-3)
    assert len(jumps) == 2


def test_samples_do_not_depend_on_the_batch():
    flow, law = Pfgm(2.5), Gaussian(np.zeros(3), [0.1, 0.5, 1.0])
    plan = flow.restart(grids.karras(6), [(3, 2, 0.3, 1.0)], churn=0.1)
    options = {"plan": plan, "start": flow.prior((3,)), "seed": 5}
    whole = sample(EDM, flow.denoiser(law), n=6, **options)
    parts = sample(EDM, flow.denoiser(law), n=6, batch=2, **options)
    some = sample(EDM, flow.denoiser(law), ids=[4, 1], **options)
    np.testing.assert_allclose(parts.x, whole.x, rtol=1e-12)
    np.testing.assert_allclose(some.x, whole.x[[4, 1]], rtol=1e-12)
    assert np.ptp(whole.x[:, 0]) > 0.0


def test_processes_with_one_block_agree():
    """VP and EDM give the same samples: everything goes by levels."""
    flow = Pfgm(3.0)
    plan = flow.restart(grids.karras(6), [(3, 2, 0.3, 1.0), (3, 1, 0.0, 0.1)], S_noise=1.1)
    made = [sample(p, flow.denoiser(QUARTER), plan=plan, start=flow.prior(()), n=9).x for p in (EDM, VP)]
    np.testing.assert_allclose(*made, rtol=1e-9)


@pytest.mark.torch
def test_torch_repeats_numpy():
    torch = pytest.importorskip("torch")
    flow = Pfgm(3.0)
    plan = flow.restart(grids.karras(5), [(3, 2, 0.3, 1.0)])
    for law in (Gaussian(np.zeros(2), [0.1, 0.5]), Mixture([0.3, 0.7], np.eye(2), 0.1), Empirical(np.eye(2)), Empirical(np.eye(2), 0.2)):
        options = {"plan": plan, "start": flow.prior((2,)), "n": 3}
        made = sample(EDM, flow.denoiser(law), dtype=torch.float64, **options).x
        np.testing.assert_allclose(made.numpy(), sample(EDM, flow.denoiser(law), **options).x, rtol=1e-9)


def test_jumps_that_are_replaced():
    """Those of the plan so far: churn added later stays Gaussian, as released."""
    base = plans.restart(grids.karras(6), [(3, 1, 0.3, 1.0)])
    after = plans.churn(Pfgm(3.0).plan(base), 3.0)
    assert {type(m) for m in after.moves(EDM)} >= {PfgmJump, Jump}
    (jump,) = (m for m in Pfgm(3.0).plan(base).moves(EDM) if isinstance(m, PfgmJump))
    (plain,) = (m for m in base.moves(EDM) if isinstance(m, Jump))
    assert (jump.start, jump.end, jump.scale, jump.leg, jump.step) == (plain.s, plain.t, plain.scale, plain.leg, plain.step)


def test_exact_laws_refuse_by_name():
    plan = Pfgm(3.0).restart(grids.karras(6), [(3, 1, 0.3, 1.0)])
    with pytest.raises(BadInput, match="PfgmJump is not an affine move"):
        analysis.exact_law(EDM, plan=plan, data=QUARTER).w2  # noqa: B018
    with pytest.raises(BadInput, match="must be None"):
        analysis.exact_law(EDM, plan=plans.run(grids.karras(6)), data=QUARTER, start=Pfgm(3.0).prior(()))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Pfgm(0.0), "D = 0.0 must be positive"),
        (lambda: Pfgm(float("inf")), "finite"),
        (lambda: Pfgm(3.0).restart(grids.karras(6), [], kernel="line"), "unknown kernel"),
        (lambda: Pfgm(0.5).restart(grids.karras(6), [], kernel="straight"), "the straight line needs D >= 1"),
        (lambda: Pfgm(3.0).restart(grids.karras(6), [(3, 1, 0.3, 1.0)]).moves(psld()), "one block"),
        (lambda: Pfgm(3.0).denoiser("law"), "must be a Gaussian, Mixture or Empirical law"),
        (lambda: Pfgm(3.0).perturb(np.zeros(3), 0.0), "sigma"),
        (lambda: Pfgm(3.0).perturb(np.zeros(3), 1.0, ids=[1]), "1 ids for 3 data"),
        (lambda: sample(EDM, QUARTER.denoiser(), start=Pfgm(3.0).prior((2,)), n=2), "the law has data of shape"),
        (lambda: sample(psld(), QUARTER.denoiser(), start=Pfgm(3.0).prior(()), n=2), "one block"),
    ],
)
def test_bad_input(make, match):
    with pytest.raises(BadInput, match=match):
        make()
