"""Recorded runs: the samples of ``sample``, with buffers that stay and a host that never asks the device."""

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

import sdekit as sk
from sdekit import BadInput, catalogue, grids, methods, plans
from sdekit.law import Gaussian, Mixture
from sdekit.solve import program, solve
from sdekit.tableau import ByTerms, Stacked
from sdekit.torch import trajectory
from sdekit.torch.trajectory import Fused, Plain, Trajectory

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2, 0.0], [0.8, -0.4, 0.1]], [[0.06, 0.3, 0.2], [0.16, 0.05, 0.1]])
RESTART = plans.restart(grids.karras(6), [(3, 2, 0.1, 0.5)], method=methods.heun())


@pytest.mark.parametrize("name", ["vp", "psld", "third_order"])
@pytest.mark.parametrize("plan", [plans.run(grids.karras(7), methods.pndm()), plans.run(grids.karras(7), methods.euler_maruyama()), RESTART])
def test_the_samples_of_sample(name, plan):
    process = getattr(catalogue, name)()
    run = Trajectory(process, LAW.denoiser(), plan=plan, n=6, dtype=torch.float64, compiled=False)
    for ids, seed in (((0, 1, 2, 3, 4, 5), 3), ((9, 2, 7, 11, 0, 1), 4)):  # buffers are used again
        made = run(ids=ids, seed=seed)
        want = sk.sample(process, LAW.denoiser(), plan=plan, ids=ids, seed=seed, dtype=torch.float64)
        np.testing.assert_allclose(made.state.numpy(), want.state.numpy(), rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(made.nfe, want.nfe)
        assert made.status == want.status


def test_models_of_the_whole_state_and_starts_from_a_law():
    process, law = catalogue.psld(), Gaussian([0.3], [0.25])
    model = sk.denoiser.StateScore(lambda z, t: -z * (1.0 + t), (1,))
    made = Trajectory(process, model, method=methods.heun(), grid=grids.karras(5), n=3, start=law, dtype=torch.float64, compiled=False)(seed=1)
    want = sk.sample(process, model, method=methods.heun(), grid=grids.karras(5), n=3, start=law, dtype=torch.float64, seed=1)
    np.testing.assert_allclose(made.state.numpy(), want.state.numpy(), rtol=1e-10)


def test_compiled_combinations(monkeypatch):
    """One function for each form of a combination, whatever the coefficients, and none of them given up; float32 to rounding."""
    seen = []
    real = torch.compile

    def counted(function, **options):
        seen.append(function)
        return real(function, dynamic=options["dynamic"], backend="aot_eager")

    monkeypatch.setattr(torch, "compile", counted)
    trajectory._compiled.cache_clear()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plan = plans.run(grids.karras(8), methods.exponential(3))
    run = Trajectory(catalogue.cld(), LAW.denoiser(), plan=plan, n=4, dtype=torch.float32)
    with torch._dynamo.config.patch(recompile_limit=2):  # the compiler gives up functions with more variants; 8 is its own limit
        made = run()
    want = sk.sample(catalogue.cld(), LAW.denoiser(), plan=plan, n=4, dtype=torch.float32)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    trajectory._compiled.cache_clear()
    torch._dynamo.reset()
    np.testing.assert_allclose(made.x.numpy(), want.x.numpy(), atol=2e-5)
    tables = run.program.tables(Fused, run.reference)
    forms = {tuple(matrix.shape) for table in tables for matrix in (*(ask[1] for ask in table.asks), table.update[1])}
    assert len(seen) == len(forms) == graphs > 3


class Deaf(TorchFunctionMode):
    """A device whose host may not ask: whatever brings a value back, or waits, fails."""

    BACK = frozenset({torch.Tensor.item, torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__bool__, torch.Tensor.__float__,
            torch.Tensor.__int__, torch.Tensor.__array__, torch.Tensor.nonzero, torch.nonzero, torch.Tensor.__index__})  # fmt: skip

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in self.BACK:
            raise AssertionError(f"{function} waits for the device")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("executor", [ByTerms, Stacked, Plain])
@pytest.mark.parametrize("plan", [plans.run(grids.karras(6), methods.sscs()), RESTART, plans.correct(plans.run(grids.karras(4), methods.ddim()))])
def test_no_trajectory_asks_the_device(executor, plan):
    process, model, shape = catalogue.psld(), sk.torch.load("digits"), (2, 1, 8, 8)
    prog = program(process, plan)
    drawn = {a: torch.randn(shape) for item in prog.items for a in item.addresses}

    class Given:
        def draw(self, addresses, ids, shape, like=None):
            return [drawn[a] for a in addresses]

    start = [torch.randn(shape), torch.randn(shape)]
    solve(prog, start, model, Given(), np.arange(2), executor=executor)  # tables are made, once
    with Deaf():
        with pytest.raises(AssertionError, match="waits"):
            start[0].sum().item()
        made, _ = solve(prog, start, model, Given(), np.arange(2), executor=executor)
    assert torch.isfinite(made[0]).all()


def test_bad_input():
    with pytest.raises(BadInput, match="prepared for 2 samples, not 3"):
        Trajectory(catalogue.vp(), LAW.denoiser(), n=2, compiled=False)(ids=[1, 2, 3])
    with pytest.raises(BadInput, match="starts from a law"):
        Trajectory(catalogue.vp(), LAW.denoiser(), n=2, start=(np.zeros((1, 2, 3)), 1.0))


def test_unused_registers_are_not_read():
    rows = program(catalogue.vp(), plans.run(grids.karras(5), methods.ddim())).items[0].move
    table = Fused.compile(rows, torch.empty(0))
    assert all(matrix.shape[1] == len(columns) for columns, matrix, _ in table.asks)
    assert len(table.asks[0][0]) == 1
