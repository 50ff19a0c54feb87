"""Predictor and corrector: the published formulas for one block, the law that is kept, and the noise's own stream."""

import numpy as np
import pytest
from processes import psld, ve, vp

from sdekit import BadInput, analysis, denoiser, grids, methods, plans, sample
from sdekit.law import Gaussian, Mixture
from sdekit.noise import CORRECTOR, METHOD, Address, Addressed
from sdekit.plans import Langevin
from sdekit.solve import assemble, program, solve

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])


def score_ve(x, sigma):
    return -(x - LAW.denoiser()(x, sigma)) / sigma**2


def test_predictor_and_corrector_on_ve():
    """Song et al., Algorithm 2, with norms of each sample: corrector, then x + (s_t^2 - s_s^2) score + sqrt(s_t^2 - s_s^2) xi; two steps."""
    process, snr = ve(), 0.16
    times = np.array([0.6, 0.5, 0.45])
    sigma = process.sigma_eff(times)
    plan = plans.correct(plans.run(grids.times(times), methods.reverse_diffusion()), snr)
    x = start = sigma[0] * np.random.default_rng(0).normal(size=(4, 2))
    ids, noise = np.arange(4), Addressed(3)
    for i in range(2):
        z = noise.draw([Address(CORRECTOR, 0, i, 0)], ids, (2,))[0]
        grad = score_ve(x, sigma[i])
        eps = 2.0 * (snr * np.linalg.norm(z, axis=1) / np.linalg.norm(grad, axis=1))[:, None] ** 2
        x = x + eps * grad + np.sqrt(2.0 * eps) * z
        xi = noise.draw([Address(METHOD, 0, i, 0)], ids, (2,))[0]
        q = sigma[i] ** 2 - sigma[i + 1] ** 2
        x = x + q * score_ve(x, sigma[i]) + np.sqrt(q) * xi
    prog = program(process, plan)
    made, _ = solve(prog, [start], LAW.denoiser(), noise)
    np.testing.assert_allclose(made[0], x, atol=1e-10)
    assert prog.nfe == 4


def test_reverse_diffusion_on_vp():
    """x (2 - sqrt(1 - b)) + b score + sqrt(b) xi with 1 - b = abar_t / abar_s."""
    process, times = vp(), np.array([0.7, 0.6])
    a = process.kernel(times).psi[:, 0]
    x = np.random.default_rng(1).normal(size=(5, 2))
    y, level = x / a[0], float(process.sigma_eff(times[0]))
    grad = -(x - a[0] * LAW.denoiser()(y, level)) / (1.0 - a[0] ** 2)
    b = 1.0 - (a[0] / a[1]) ** 2
    xi = Addressed(0).draw([Address(METHOD)], np.arange(5), (2,))[0]
    made, _ = solve(program(process, plans.run(grids.times(times), methods.reverse_diffusion())), [x], LAW.denoiser())
    np.testing.assert_allclose(made[0], (2.0 - np.sqrt(1.0 - b)) * x + b * grad + np.sqrt(b) * xi, atol=1e-12)


@pytest.mark.parametrize("make", [vp, psld], ids=lambda m: m.__name__)
def test_langevin_dynamics_keep_the_marginal_in_many_dimensions(make):
    """Exact score, 1,024 elements: the law of all blocks stays, and comes back from one that is too wide; with two elements the step's own
    dependence on noise and state biases it."""
    process, t = make(), 0.3
    kernel, spread = process.kernel(t), {}
    cov = kernel.cov + 0.5 * np.outer(kernel.psi, kernel.psi)
    for d, factor in ((1024, 1.0), (1024, 1.5), (2, 1.0)):
        data, n = Gaussian(np.zeros(d), 0.5), 60_000 // d
        z = kernel.sample(data.sample(n, seed=1), np.random.default_rng(2).standard_normal((process.k, n, d)))
        made, _ = solve(assemble(process, [Langevin(process, t, 0.12, 60)]), list(factor * z), data.denoiser())
        found = np.cov(np.stack(made).reshape(process.k, -1)) if process.k > 1 else np.array([[np.var(made[0])]])
        scale = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
        spread[d, factor] = np.max(np.abs(found - cov) / scale)
    assert spread[1024, 1.0] < 0.05  # steps of eps = 0.03 have a bias of that order
    assert spread[1024, 1.5] < 0.3
    assert spread[2, 1.0] > 3.0 * spread[1024, 1.0]


def test_samples_do_not_depend_on_their_batch():
    plan = plans.correct(plans.run(grids.karras(6), methods.reverse_diffusion()), 0.1, 2)
    all_of_them = sample(psld(), LAW.denoiser(), plan=plan, n=6, seed=5)
    one = sample(psld(), LAW.denoiser(), plan=plan, ids=[4], seed=5)
    np.testing.assert_allclose(one.x[0], all_of_them.x[4], atol=1e-12)
    assert all_of_them.nfe[0] == 3 * 6
    plain = sample(psld(), LAW.denoiser(), method=methods.reverse_diffusion(), grid=grids.karras(6), n=6, seed=5)
    assert np.max(np.abs(plain.x - all_of_them.x)) > 1e-3


@pytest.mark.torch
def test_torch():
    torch = pytest.importorskip("torch")
    plan = plans.correct(plans.run(grids.karras(5), methods.ddim()))
    made = sample(psld(), LAW.denoiser(), plan=plan, n=3, dtype=torch.float64)
    np.testing.assert_allclose(made.x.numpy(), sample(psld(), LAW.denoiser(), plan=plan, n=3).x, atol=1e-11)


def test_what_is_refused():
    plan = plans.correct(plans.run(grids.karras(5)))
    with pytest.raises(BadInput, match="Langevin"):
        analysis.exact_law(vp(), plan=plan, data=Gaussian(0.0, 1.0)).w2  # noqa: B018
    with pytest.raises(BadInput, match="Langevin"):
        sample(vp(), denoiser.StateScore(lambda z, t: z, (2,)), plan=plan, n=2)
    for bad in ({"snr": 0.0}, {"steps": 0}):
        with pytest.raises(BadInput):
            plans.correct(plans.run(grids.karras(5)), **bad)
