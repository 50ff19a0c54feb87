"""Processes mode by mode: exact laws, orders, and what the engine does with them."""

import numpy as np
import pytest
from mode_cases import GRID, PAIR, TURN, blurred, in_the_middle, other
from processes import psld, vp
from scipy.integrate import solve_ivp

import sdekit as sk
from sdekit import BadInput, Process, analysis, clocks, grids, methods, modes, plans
from sdekit.law import Empirical, Gaussian, Mixture
from sdekit.solve import program, solve
from sdekit.tableau import ByTerms, Stacked

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
