"""Normals made inside the compiled update: those of ``sample``, and nowhere in memory."""

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit import catalogue, grids, methods, plans
from sdekit.law import Mixture
from sdekit.noise import METHOD, Address, Addressed, Fast, lines_of
from sdekit.torch import trajectory
from sdekit.torch.random import normal_of_each
from sdekit.torch.trajectory import Trajectory

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # the compiler's own, when it is first imported
ODD = Mixture([0.3, 0.7], [[-1.0, 0.2, 0.0], [0.8, -0.4, 0.1]], [[0.06, 0.3, 0.2], [0.16, 0.05, 0.1]])
IMAGES = Mixture([0.4, 0.6], np.linspace(-1.0, 1.0, 30).reshape(2, 3, 5), [0.2, 0.4])
SEED = (5 << 32) + 3  # both words of the key


@pytest.fixture(autouse=True)
def fresh():
    trajectory._compiled.cache_clear()
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch):
    """The compiler's view of the functions, run operation by operation: what is checked is all but its kernels, in a tenth of the time."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: real(function, dynamic=options["dynamic"], backend="aot_eager"))


@pytest.mark.parametrize("size", [1, 4, 5])
def test_each_normal_is_the_hosts(size):
    """To rounding, for both words of the address and of the seed, and whole as well as odd numbers of elements."""
    ids = np.array([0, 7, 123_456_789, (1 << 32) - 1])
    for address in (Address(METHOD), Address(METHOD, 3, 1 << 31, 255)):
        words = torch.from_numpy(lines_of([address]).astype(np.int64))[0]
        made = normal_of_each(words, torch.tensor([SEED & 0xFFFFFFFF, SEED >> 32]), torch.from_numpy(ids), (size,))
        np.testing.assert_allclose(made.numpy(), Addressed(SEED).draw([address], ids, (size,))[0], rtol=0, atol=8e-15)


CASES = {
    "vp, in an ask and in the update": (catalogue.vp(), ODD, plans.run(grids.karras(4), methods.heun(noise=0.5))),
    "psld": (catalogue.psld(), IMAGES, plans.run(grids.karras(6), methods.euler_maruyama())),
    "restart": (catalogue.psld(), ODD, plans.restart(grids.karras(5), [(3, 2, 0.1, 0.5)], method=methods.ddim())),
    "moves of their own": (catalogue.edm(), ODD, plans.correct(plans.run(grids.karras(3, 0.05, 5.0), methods.ddim()))),  # at 80 one ulp is 1e-14
}


@pytest.mark.parametrize("name", CASES)
def test_samples_without_a_buffer(name, monkeypatch, traced):
    """The samples of ``sample`` to rounding, for other ids and seeds in one recording; no normal is drawn before the run."""
    process, law, plan = CASES[name]
    monkeypatch.setattr(trajectory, "_Held", None)
    run = Trajectory(process, law.denoiser(), plan=plan, n=5, dtype=torch.float64)
    assert any(item.addresses for item in run.program.items)
    for ids, seed in (((0, 1, 2, 3, 4), 3), ((9, 2, 7, 11, (1 << 32) - 1), SEED)):
        made = run(ids=ids, seed=seed)
        want = sk.sample(process, law.denoiser(), plan=plan, ids=ids, seed=seed, dtype=torch.float64)
        size = float(want.state.abs().max())
        np.testing.assert_allclose(made.state.numpy(), want.state.numpy(), rtol=0, atol=1e-12 * size)


def test_single_precision_and_many_samples(traced):
    """More normals than the engine looks ahead for, and than one chunk of the host's."""
    law, plan = Mixture([1.0], np.zeros((1, 129)), [0.5]), plans.run(grids.karras(3), methods.exponential(1, noise=1.0))
    made = Trajectory(catalogue.vp(), law.denoiser(), plan=plan, n=3001, dtype=torch.float32)(seed=2)
    want = sk.sample(catalogue.vp(), law.denoiser(), plan=plan, n=3001, dtype=torch.float32, seed=2)
    np.testing.assert_allclose(made.x.numpy(), want.x.numpy(), rtol=0, atol=2e-5)


def test_other_sources_keep_their_buffer(traced):
    plan = plans.run(grids.karras(3), methods.euler_maruyama())
    run = Trajectory(catalogue.vp(), ODD.denoiser(), plan=plan, n=4, dtype=torch.float64)
    seen = []
    for source in (Fast, Addressed, Fast):
        made = run(seed=source(7))
        seen.append(len(run._sources))
        want = sk.sample(catalogue.vp(), ODD.denoiser(), plan=plan, n=4, dtype=torch.float64, seed=source(7))
        np.testing.assert_allclose(made.x.numpy(), want.x.numpy(), rtol=0, atol=1e-11)
    assert seen == [1, 2, 2]


def test_one_kernel():
    """What the compiler makes of a step with normals: one loop over the elements, and memory for its results only."""
    from torch._inductor.utils import run_and_get_code

    process, law = catalogue.psld(), Mixture([1.0], np.zeros((1, 3, 7)), [0.5])
    run = Trajectory(process, law.denoiser(), method=methods.euler_maruyama(), grid=grids.karras(2), n=5, dtype=torch.float64)
    ids = [9, 2, 7, 11, (1 << 32) - 1]
    made, codes = run_and_get_code(run, ids=ids, seed=SEED)
    want = sk.sample(process, law.denoiser(), method=methods.euler_maruyama(), grid=grids.karras(2), ids=ids, seed=SEED, dtype=torch.float64)
    np.testing.assert_allclose(made.state.numpy(), want.state.numpy(), rtol=0, atol=1e-12 * float(want.state.abs().max()))
    update = max(codes, key=len)
    assert update.count(" = empty_strided_cpu(") == 2
    assert update.count("for(int64_t x0") == 1
