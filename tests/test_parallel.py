"""Parallel sweeps give the sequential samples, in fewer calls in sequence."""

import numpy as np
import pytest
from processes import edm, psld, vp

import sdekit as sk
from sdekit import BadInput, denoiser, grids, methods, plans, sample
from sdekit.law import Gaussian, Mixture
from sdekit.parallel import picard

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])
METHODS = [methods.ddim(), methods.exponential(3), methods.heun(), methods.exponential(2, noise=1.0), methods.euler_maruyama()]


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("make", [vp, psld], ids=lambda m: m.__name__)
def test_the_sequential_samples(make, method):
    """Tolerance 0: multistep, two-stage and noisy methods, whole or by a window, to the rounding of a batched model."""
    process, grid = make(), grids.karras(12, 0.02, 40.0)
    ref = sample(process, LAW.denoiser(), method=method, grid=grid, n=5, seed=3)
    for window in (None, 4, 1):
        made = picard(process, LAW.denoiser(), method=method, grid=grid, n=5, seed=3, window=window)
        np.testing.assert_allclose(made.state, ref.state, atol=1e-12 * np.max(np.abs(ref.state)))
        assert made.status == ("ok",) * 5
        assert made.sweeps <= 12
    assert made.depth == ref.nfe[0]  # a window of one is the sequential run


def test_the_first_states_are_exact_after_as_many_sweeps():
    """After k sweeps the first k arguments are those of the sequential run, bit by bit."""
    grid, asked = grids.karras(9, 0.02, 40.0), []

    def keep(y, sigma):
        asked.append(y)
        return 0.25 / (0.25 + np.reshape(np.asarray(sigma) ** 2, (-1, 1))) * y

    sample(vp(), keep, method=methods.ddim(), grid=grid, n=2, shape=(3,), seed=1)
    sequential, asked[:] = list(asked), []
    for k in range(1, 8):
        asked.clear()
        picard(vp(), keep, method=methods.ddim(), grid=grid, n=2, shape=(3,), seed=1, sweeps=k + 1, tolerance=0.0)
        np.testing.assert_array_equal(asked[k].reshape(-1, 2, 3)[0], sequential[k])


@pytest.mark.parametrize("make", [vp, edm], ids=lambda m: m.__name__)
def test_fifty_steps_of_ddim(make):
    """Far fewer sweeps than steps, on every scale of the state."""
    grid = grids.karras(50)
    ref = sample(make(), LAW.denoiser(), method=methods.ddim(), grid=grid, n=16).x
    errors = [np.max(np.abs(picard(make(), LAW.denoiser(), method=methods.ddim(), grid=grid, n=16, sweeps=s).x - ref)) for s in (5, 10, 15)]
    assert errors[1] < 1e-5
    assert errors[2] < 1e-11
    assert errors[0] < 0.05


def test_sweeps_by_hand():
    """Two steps of DDIM on EDM, one sweep: u_2 = u_0 + the two changes taken from the guess c_i u_0."""
    grid, D = grids.sigmas([4.0, 1.0, 0.5]), LAW.denoiser()
    z = sample(edm(), D, method=methods.ddim(), grid=grid, n=3, save="all").saved.x[0]
    c = np.sqrt(np.array([16.0, 1.0, 0.25]) + 0.25)
    step = [lambda x: x + (1.0 - 4.0) * (x - D(x, 4.0)) / 4.0, lambda x: x + (0.5 - 1.0) * (x - D(x, 1.0)) / 1.0]
    guess = z / c[0] * c[1]
    expected = c[2] * (step[0](z) / c[1] + step[1](guess) / c[2] - guess / c[1])
    np.testing.assert_allclose(picard(edm(), D, method=methods.ddim(), grid=grid, n=3, sweeps=1).x, expected, atol=1e-12)


def test_tolerance_and_counts():
    grid = grids.karras(40)
    ref = sample(psld(), LAW.denoiser(), method=methods.exponential(2), grid=grid, n=8)
    made = picard(psld(), LAW.denoiser(), method=methods.exponential(2), grid=grid, n=8, tolerance=1e-3, window=20)
    assert made.sweeps < 30
    assert 1e-12 < np.max(np.abs(made.x - ref.x)) < 2e-3
    calls = []

    def counted(y, sigma):
        calls.append(len(y))
        return LAW.denoiser()(y, sigma)

    again = picard(psld(), counted, method=methods.exponential(2), grid=grid, n=8, shape=(2,), tolerance=1e-3, window=20)
    assert len(calls) == again.depth == again.sweeps == made.sweeps
    assert sum(calls) == 8 * again.nfe[0]


@pytest.mark.torch
def test_torch():
    torch = pytest.importorskip("torch")
    grid = grids.karras(10)
    made = picard(psld(), LAW.denoiser(), grid=grid, n=3, dtype=torch.float64)
    np.testing.assert_allclose(made.x.numpy(), sample(psld(), LAW.denoiser(), grid=grid, n=3).x, atol=1e-11)


def test_plans_with_noise_injections():
    plan = plans.restart(grids.karras(6), [(3, 2, 0.06, 0.3)])
    ref = sample(sk.catalogue.edm(), LAW.denoiser(), plan=plan, n=3)
    np.testing.assert_allclose(picard(sk.catalogue.edm(), LAW.denoiser(), plan=plan, n=3).x, ref.x, atol=1e-12)


class Threshold:
    start = end = 0.5
    nfe = noises = 0

    def apply(self, state, model, normals):
        return state


@pytest.mark.parametrize(
    "change",
    [{"window": 0}, {"sweeps": 0}, {"tolerance": -1.0}, {"sigma_data": 0.0}, {"denoise": denoiser.StateScore(lambda z, t: z, (2,))},
     {"plan": plans.run(grids.times([1.0, 0.5])).then(lambda moves, _: [*moves, Threshold()]), "grid": None}],
)  # fmt: skip
def test_bad_input(change):
    given = {"denoise": Gaussian([0.0, 0.0], 1.0).denoiser(), "grid": grids.karras(5), "n": 2, **change}
    with pytest.raises(BadInput):
        picard(vp(), given.pop("denoise"), **given)
