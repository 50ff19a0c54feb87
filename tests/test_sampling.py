"""``sample``: independence of batches and libraries, starts, what is saved and watched, statuses, costs, and everything it refuses."""

import numpy as np
import pytest
from processes import cld, edm, psld, third_order, ve, vp

from sdekit import BadInput, denoiser, grids, methods, plans, sample
from sdekit.law import Empirical, Gaussian, Mixture
from sdekit.noise import PRIOR, Address, Addressed, Fast
from sdekit.solve import program, solve
from sdekit.tableau import ByTerms, Stacked

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])
DENOISE = LAW.denoiser()
PLANS = {
    "ode": plans.run(grids.karras(6), methods.exponential_rk(2)),
    "sde": plans.run(grids.logsnr(6, 0.1, 20.0), methods.exponential(2, noise=1.0)),
    "restart": plans.restart(grids.karras(6), [(3, 2, 0.06, 0.3)]),
    "ancestral": plans.ancestral(plans.run(grids.karras(6), methods.ddim())),
    "churn": plans.churn(plans.run(grids.karras(6), methods.exponential(2)), 2.0),
}
by_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())


# ---------------------------------------------------------------------------------------------------------------- reproducibility


@by_plan
@pytest.mark.parametrize("make", [edm, psld], ids=lambda m: m.__name__)
def test_batches_do_not_matter(make, plan):
    process = make()
    whole = sample(process, DENOISE, plan=plan, n=20, seed=5, save="all")
    scale = np.max(np.abs(whole.saved.state))
    for batch in (1, 7, 64):
        made = sample(process, DENOISE, plan=plan, n=20, seed=5, batch=batch)
        np.testing.assert_allclose(made.state, whole.state, atol=1e-12)
        single = sample(process, DENOISE, plan=plan, n=20, seed=5, batch=batch, dtype=np.float32)
        assert single.x.dtype == np.float32
        np.testing.assert_allclose(single.x, whole.x, atol=1e-5 * scale)
    assert np.max(np.abs(sample(process, DENOISE, plan=plan, n=20, seed=6).x - whole.x)) > 0.1


@by_plan
def test_ids_choose_samples(plan):
    whole = sample(psld(), DENOISE, plan=plan, n=20)
    made = sample(psld(), DENOISE, plan=plan, ids=[17, 3, 3, 0])
    np.testing.assert_allclose(made.state, whole.state[:, [17, 3, 3, 0]], atol=1e-12)
    assert made.ids.tolist() == [17, 3, 3, 0]
    assert whole.ids.tolist() == list(range(20))
    far = sample(psld(), DENOISE, plan=plan, ids=[(1 << 32) - 1])
    assert far.status == ("ok",)


@pytest.mark.torch
@by_plan
@pytest.mark.parametrize("make", [edm, psld], ids=lambda m: m.__name__)
def test_torch_is_numpy(make, plan):
    torch = pytest.importorskip("torch")
    ref = sample(make(), DENOISE, plan=plan, n=6, save="all")
    scale = np.max(np.abs(ref.saved.state))
    made = sample(make(), DENOISE, plan=plan, n=6, dtype=torch.float64)
    assert made.x.dtype == torch.float64
    np.testing.assert_allclose(made.state.numpy(), ref.state, atol=1e-12 * scale)
    single = sample(make(), DENOISE, plan=plan, n=6, dtype="float32", device="cpu", batch=4)
    assert single.x.dtype == torch.float32
    assert single.status == ref.status
    np.testing.assert_allclose(single.x.numpy(), ref.x, atol=1e-5 * scale)
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(make().k, 4, 2)))
    given = sample(make(), DENOISE, plan=plan, start=(z, make().time_of(3.0)))
    assert isinstance(given.x, torch.Tensor)
    np.testing.assert_allclose(given.x.numpy(), sample(make(), DENOISE, plan=plan, start=(z.numpy(), make().time_of(3.0))).x, atol=1e-11)


@pytest.mark.torch
def test_a_model_on_torch_decides():
    """A model that says its device and dtype gets them, and gradients are not recorded."""
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        shape, device, dtype = (2,), torch.device("cpu"), torch.float32

        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(0.2))

        def forward(self, y, sigma):
            assert y.dtype == torch.float32
            return self.scale * y / (1.0 + sigma * sigma)

    made = sample(vp(), Net(), n=3)
    assert made.x.dtype == torch.float32
    assert not made.x.requires_grad


def test_noise_may_be_given():
    ref = sample(psld(), DENOISE, plan=PLANS["sde"], n=4, seed=9)
    np.testing.assert_array_equal(sample(psld(), DENOISE, plan=PLANS["sde"], n=4, seed=Addressed(9)).x, ref.x)
    np.testing.assert_array_equal(sample(psld(), DENOISE, plan=PLANS["sde"], n=4, seed=np.int64(9)).x, ref.x)
    fast = [sample(psld(), DENOISE, plan=PLANS["sde"], n=4, seed=Fast(9)).x for _ in range(2)]
    np.testing.assert_array_equal(fast[0], fast[1])
    assert np.max(np.abs(fast[0] - ref.x)) > 0.01


# ---------------------------------------------------------------------------------------------------------------- starts


@pytest.mark.parametrize("make", [vp, edm, ve, psld, third_order], ids=lambda m: m.__name__)
def test_start_from_the_prior_and_from_a_law(make):
    """S^(1/2) xi, and psi x_0 + S^(1/2) xi with x_0 the law's own sample of the same seed."""
    process = make()
    grid = grids.logsnr(2, 0.5, 3.0)
    t = grid.times(process)[0]
    kernel = process.kernel(t)
    xi = Addressed(4).draw([Address(PRIOR, slot=i) for i in range(process.k)], np.arange(5), (2,))
    prior = np.tensordot(kernel.chol, xi, axes=1)
    made = sample(process, DENOISE, method=methods.ddim(), grid=grid, n=5, seed=4, save="all")
    np.testing.assert_allclose(made.saved.state[0], prior, atol=1e-13)
    for start in (LAW, Gaussian([0.3, 0.1], 0.2), Empirical(np.eye(2))):
        made = sample(process, DENOISE, method=methods.ddim(), grid=grid, n=5, seed=4, start=start, save="all")
        np.testing.assert_allclose(made.saved.state[0], prior + np.multiply.outer(kernel.psi, start.sample(5, seed=4)), atol=1e-13)


def test_start_from_the_stationary_law():
    process = psld()
    made = sample(process, DENOISE, method=methods.ddim(), grid=grids.logsnr(2, 0.5, 100.0), n=20_000, start="stationary", save="all")
    z = made.saved.state[0].reshape(2, -1)
    np.testing.assert_allclose(np.cov(z), [[1.0, 0.0], [0.0, 0.25]], atol=4.5 * np.sqrt(2.0 / z.shape[1]))
    xi = Addressed(0).draw([Address(PRIOR), Address(PRIOR, slot=1)], np.arange(3), (2,))
    np.testing.assert_allclose(made.saved.state[0, :, :3], xi * np.array([1.0, 0.5])[:, None, None], atol=1e-12)


def test_start_from_a_state():
    process = psld()
    grid = grids.sigmas([5.0, 2.0, 1.0, 0.5])
    times = grid.times(process)
    z = np.random.default_rng(0).normal(size=(2, 4, 2))
    for method in (methods.heun(), methods.exponential(3)):
        for t, expected in ((times[1], times[1:]), (0.5 * (times[1] + times[2]), [0.5 * (times[1] + times[2]), *times[2:]]), (1.0, [1.0, *times])):
            made = sample(process, DENOISE, method=method, grid=grid, start=(z, t), save="all")
            np.testing.assert_allclose(made.saved.times, expected, rtol=1e-14)
            np.testing.assert_array_equal(made.saved.state[0], z)
            direct = sample(process, DENOISE, method=method, grid=grids.times(expected), start=(z, expected[0]))
            np.testing.assert_allclose(made.x, direct.x, atol=1e-13)
    for batch in (1, 3):
        parts = sample(process, DENOISE, method=methods.heun(noise=1.0), grid=grid, start=(z, times[0]), batch=batch, ids=[5, 0, 9, 2])
        whole = sample(process, DENOISE, method=methods.heun(noise=1.0), grid=grid, start=(z, times[0]), ids=[5, 0, 9, 2])
        np.testing.assert_allclose(parts.state, whole.state, atol=1e-12)
    continued = sample(process, DENOISE, method=methods.heun(), grid=grid, start=(z, times[0]), save=[times[2]])
    rest = sample(process, DENOISE, method=methods.heun(), grid=grid, start=(continued.saved.state[0], float(continued.saved.times[0])))
    again = sample(process, DENOISE, method=methods.heun(), grid=grid, start=(z, times[0]))
    np.testing.assert_allclose(rest.x, again.x, atol=1e-12)


@pytest.mark.parametrize("method", [methods.heun(), methods.exponential(2), methods.exponential(3), methods.exponential(2, of="eps")], ids=str)
@pytest.mark.parametrize("off", [1e-15, -1e-15])
def test_a_start_within_rounding_of_a_grid_time(method, off):
    """``time_of`` of one level and of a grid of levels may differ in the last digit: that must not make a step of length 0."""
    process = psld()
    grid = grids.karras(8)
    t = float(grid.times(process)[2])
    z = np.random.default_rng(0).normal(size=(2, 4, 2))
    ref = sample(process, DENOISE, method=method, grid=grid, start=(z, t)).x
    made = sample(process, DENOISE, method=method, grid=grid, start=(z, t * (1.0 + off))).x
    np.testing.assert_allclose(made, ref, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------- saving and watching


@by_plan
def test_save_and_watch_see_the_same(plan):
    process = psld()
    seen = []
    made = sample(
        process, DENOISE, plan=plan, n=4, save="all", watch=lambda event: seen.append((event.step, event.steps, event.t, np.stack(event.state)))
    )
    times = program(process, plan).times
    np.testing.assert_array_equal(made.saved.times, times)
    assert made.saved.state.shape == (len(times), 2, 4, 2)
    np.testing.assert_array_equal(made.saved.state[-1], made.state)
    np.testing.assert_array_equal(made.saved.x, made.saved.state[:, 0])
    np.testing.assert_array_equal(made.x, made.state[0])
    assert [s[0] for s in seen] == list(range(1, len(times)))
    assert {s[1] for s in seen} == {len(times) - 1}
    for (_, _, t, state), at, saved in zip(seen, times[1:], made.saved.state[1:], strict=True):
        assert t == at
        np.testing.assert_array_equal(state, saved)
    np.testing.assert_array_equal(sample(process, DENOISE, plan=plan, n=4).x, made.x)


@pytest.mark.parametrize("executor", [ByTerms, Stacked])
def test_an_event_keeps_its_state(executor):
    """What ``watch`` stored in a step is not overwritten by the next."""
    prog = program(psld(), PLANS["sde"])
    events = []
    z = np.random.default_rng(0).normal(size=(2, 4, 2))
    _, saved = solve(prog, list(z), DENOISE, save="all", watch=events.append, executor=executor)
    for event, state in zip(events, saved.state[1:], strict=True):
        np.testing.assert_array_equal(np.stack(event.state), state)


def test_save_some_times():
    grid = grids.times([1.0, 0.8, 0.5, 0.2])
    made = sample(vp(), DENOISE, method=methods.heun(), grid=grid, n=5, save=[0.2, 0.8], batch=2)
    whole = sample(vp(), DENOISE, method=methods.heun(), grid=grid, n=5, save="all")
    assert made.saved.times.tolist() == [0.8, 0.2]
    np.testing.assert_allclose(made.saved.state, whole.saved.state[[1, 3]], atol=1e-13)
    restart = plans.restart(grids.sigmas([5.0, 1.0, 0.2]), [(2, 2, 1.0, 2.0)])
    visits = sample(edm(), DENOISE, plan=restart, n=2, save=[1.0, 2.0])
    np.testing.assert_allclose(visits.saved.times, [1.0, 2.0, 1.0, 2.0, 1.0], rtol=1e-12)
    assert sample(vp(), DENOISE, n=2).saved is None


# ---------------------------------------------------------------------------------------------------------------- models


@by_plan
@pytest.mark.parametrize("make", [edm, psld], ids=lambda m: m.__name__)
def test_calls_are_counted_a_sample(make, plan):
    calls = np.zeros(10, int)

    def counting(y, sigma):
        calls[: len(y)] += 1
        return DENOISE(y, sigma)

    made = sample(make(), counting, plan=plan, n=10, shape=(2,))
    assert made.nfe.tolist() == calls.tolist()
    assert made.nfe.shape == (10,)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", [methods.heun(), methods.exponential(2, noise=1.0), methods.euler()], ids=str)
def test_one_bad_sample_is_marked_and_alone(method, bad):
    def model(y, sigma):
        made = DENOISE(np.where(np.isfinite(y), y, 0.0), sigma)
        made[y[:, 0] == poisoned] = bad
        return made

    options = {"method": method, "grid": grids.logsnr(5, 0.1, 3.0), "n": 6, "shape": (2,)}
    for process in (edm(), psld()):
        asked = []
        good = sample(process, lambda y, sigma, asked=asked: asked.append(y) or DENOISE(y, sigma), **options)
        poisoned = asked[0][2, 0]
        with np.errstate(invalid="ignore", over="ignore"):
            made = sample(process, model, **options)
        assert made.status == ("ok", "ok", "nonfinite", "ok", "ok", "ok")
        assert good.status == ("ok",) * 6
        rest = [0, 1, 3, 4, 5]
        np.testing.assert_array_equal(made.state[:, rest], good.state[:, rest])


def test_a_state_score_of_one_block():
    """``score(z, t)`` gets z (k, n, *shape) and the time, for k = 1 as for any other."""
    seen = []

    def score(z, t):
        seen.append((z.shape, t))
        return denoiser.score(vp(), DENOISE, z, t)

    grid = grids.times([0.9, 0.6, 0.3])
    made = sample(vp(), denoiser.StateScore(score, (2,)), method=methods.heun(), grid=grid, n=3)
    assert seen[0] == ((1, 3, 2), 0.9)
    assert [t for _, t in seen] == [0.9, 0.6, 0.6, 0.3]
    np.testing.assert_allclose(made.x, sample(vp(), DENOISE, method=methods.heun(), grid=grid, n=3).x, atol=1e-10)


def test_a_state_score_of_two_blocks():
    seen = []

    def score(z, t):
        seen.append((z.shape, t))
        return denoiser.score(psld(), DENOISE, z, t)

    made = sample(psld(), denoiser.StateScore(score), method=methods.exponential(2), grid=grids.times([0.9, 0.6, 0.3]), n=3, shape=(2,))
    assert seen == [((2, 3, 2), 0.9), ((2, 3, 2), 0.6)]
    assert made.nfe.tolist() == [2, 2, 2]


@pytest.mark.parametrize("trained_on", [vp, edm], ids=lambda m: m.__name__)
@pytest.mark.parametrize("make", [vp, psld], ids=lambda m: m.__name__)
def test_predictions_of_one_exact_model_are_one_model(make, trained_on):
    """eps, x0, v and score wrappers of the same exact denoiser, trained on VP or EDM, sample alike on every process."""
    process = trained_on()

    def model_of(kind):
        def model(x, t):
            kernel = process.kernel(t)
            a, s = float(kernel.psi[0]), float(kernel.chol[0, 0])
            D = DENOISE(x / a, s / a)
            eps = (x - a * D) / s
            return {"x0": D, "eps": eps, "v": a * eps - s * D, "score": -eps / s}[kind]

        return denoiser.from_model(model, process, kind)

    options = {"plan": PLANS["sde"], "n": 5, "shape": (2,)}
    ref = sample(make(), DENOISE, **options).x
    for kind in ("x0", "eps", "v", "score"):
        np.testing.assert_allclose(sample(make(), model_of(kind), **options).x, ref, atol=1e-10)


def test_a_wrapper_keeps_what_the_model_says_of_itself():
    class Model:
        shape, dtype = (3,), "float32"

        def __call__(self, x, t):
            return x

    wrapped = denoiser.from_model(Model(), vp(), "x0")
    assert wrapped.shape == (3,)
    assert wrapped.dtype == "float32"
    y, levels = np.ones((2, 3)), np.array([0.5, 2.0])  # one level a sample
    np.testing.assert_allclose(wrapped(y, levels), [wrapped(y[:1], level)[0] for level in levels.tolist()], rtol=1e-12)


def test_defaults():
    """``exponential(2)`` over ``karras(18)``, seed 0."""
    made = sample(cld(), DENOISE, n=3)
    ref = sample(cld(), DENOISE, method=methods.exponential(2), grid=grids.karras(18), n=3, seed=0)
    np.testing.assert_array_equal(made.x, ref.x)
    assert made.nfe.tolist() == [18] * 3
    assert made.x.dtype == np.float64


class Halve:
    """A move of the user's own, with noise."""

    start, end, nfe, noises = 0.2, 0.2, 1, 1

    def apply(self, state, model, normals):
        return [0.5 * block + 0.0 * model(state[0], 0.2) + normals[0] for block in state]


def test_a_move_of_the_users_own():
    base = plans.run(grids.times([5.0, 1.0, 0.2]), methods.heun())
    plan = base.then(lambda moves, process: [*moves, Halve()])
    made = sample(edm(), DENOISE, plan=plan, n=4)
    xi = Addressed(0).draw([Address(2)], np.arange(4), (2,))[0]
    np.testing.assert_allclose(made.x, 0.5 * sample(edm(), DENOISE, plan=base, n=4).x + xi, atol=1e-13)
    assert made.nfe.tolist() == [5] * 4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n": 0},
        {"n": -1},
        {"n": 1.5},
        {"n": 2, "ids": [0, 1]},
        {"ids": []},
        {"ids": [[0, 1]]},
        {"ids": [-1]},
        {"ids": [0.5]},
        {"n": 2, "shape": (0,)},
        {"n": 2, "shape": (1.5,)},
        {"n": 2, "shape": 3},
        {"n": 2, "batch": 0},
        {"n": 2, "method": "heun"},
        {"n": 2, "grid": 18},
        {"n": 2, "grid": [1.0, 0.5]},
        {"n": 2, "plan": "restart"},
        {"n": 2, "plan": PLANS["ode"], "grid": grids.karras(3)},
        {"n": 2, "plan": PLANS["ode"], "method": methods.heun()},
        {"n": 2, "save": "some"},
        {"n": 2, "save": [0.1234]},
        {"n": 2, "start": "posterior"},
        {"n": 2, "start": 3},
        {"n": 2, "start": Gaussian(0.0, 1.0)},
        {"start": (np.zeros((2, 3, 2)), 1.0)},
        {"start": (np.zeros(3), 1.0)},
        {"start": ([[0.0, 0.0]], 1.0)},
        {"start": (np.zeros((1, 3, 2)), 1000.0)},
        {"start": (np.zeros((1, 3, 2)), 0.0)},
        {"start": (np.zeros((1, 3, 2)),)},
        {"start": (np.zeros((1, 3, 2)), "late")},
        {"n": 2, "start": (np.zeros((1, 3, 2)), 1.0)},
        {"n": 2, "start": "stationary"},
        {"n": 2, "seed": -1},
        {"n": 2, "seed": 1 << 64},
        {"n": 2, "seed": 0.5},
        {"n": 2, "seed": "zero"},
        {"n": 2, "dtype": int},
        {"n": 2, "dtype": "float31"},
    ],
)
def test_bad_input_before_the_first_call(options):
    calls = []

    def model(y, sigma):
        calls.append(sigma)
        return DENOISE(y, sigma)

    model.shape = (2,)
    with pytest.raises(BadInput):
        sample(edm(), model, **options)
    assert not calls


def test_bad_process_or_model():
    for process in ("vp", None):
        with pytest.raises(BadInput):
            sample(process, DENOISE, n=2)
        with pytest.raises(BadInput):
            sample(process, DENOISE, start=(np.zeros((1, 2, 2)), 0.5))
    with pytest.raises(BadInput):
        sample(vp(), "model", n=2)
    with pytest.raises(BadInput, match="shape"):
        sample(vp(), lambda y, sigma: y, n=2)
