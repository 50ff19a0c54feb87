"""A program that is given its answers one by one: the same samples as a run that asks for them itself."""

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit.noise import Addressed
from sdekit.sampling import prepare
from sdekit.solve import solve
from sdekit.torch.stepping import Stepper

GRID = sk.grids.karras(5, 0.02, 100.0)
PLANS = {
    "heun": sk.plans.run(GRID, sk.methods.heun()),
    "with noise": sk.plans.run(GRID, sk.methods.exponential(2, noise=1.0)),
    "memory": sk.plans.run(GRID, sk.methods.unipc(3)),
    "restart": sk.plans.restart(GRID, [(3, 2, 0.1, 1.0)], method=sk.methods.heun()),
}


def answered(stepper, denoise):
    """Calls made until the end."""
    count = 0
    while stepper.question is not None:
        stepper.answer(denoise(*stepper.question))
        count += 1
    return count


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_two_blocks(plan):
    law = sk.law.Gaussian(np.zeros(2), 0.3)
    prog = prepare(sk.catalogue.psld(), None, None, plan)
    z = [np.ones((3, 2)), np.zeros((3, 2))]
    stepper = Stepper(prog, z, Addressed(1))
    assert answered(stepper, law.denoiser()) == prog.nfe
    expected, _ = solve(prog, z, law.denoiser(), Addressed(1))
    assert all(np.array_equal(a, b) for a, b in zip(stepper.state, expected, strict=True))
    with pytest.raises(sk.BadInput, match="at its end"):
        stepper.answer(z[0])


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_modes(plan, library):
    """Blurring, whose levels and coefficients differ from mode to mode: the model is asked in the data's elements."""
    process = sk.modes.blurring(sk.catalogue.cosine(), (4, 4), blur=2.0)
    denoise = process.denoiser(sk.law.Gaussian(np.linspace(-1.0, 1.0, 16).reshape(4, 4), 0.3))
    prog = prepare(process, None, None, plan)
    z = np.random.default_rng(0).standard_normal((1, 3, 4, 4))
    z = torch.from_numpy(z) if library == "torch" else z
    stepper = Stepper(prog, list(z), Addressed(1), np.array([4, 0, 9]))
    y, levels = stepper.question
    scale = float(process.reference.kernel(prog.items[0].t).psi[0])
    np.testing.assert_allclose(levels, process.levels(prog.items[0].t), rtol=1e-12)
    np.testing.assert_allclose(process.basis.forward(np.asarray(y))[:, 0, 0] * scale, process.basis.forward(np.asarray(z[0]))[:, 0, 0], rtol=1e-9)
    assert answered(stepper, denoise) == prog.nfe
    expected = sk.sample(process, denoise, plan=plan, start=(z, prog.items[0].t), ids=[4, 0, 9], seed=1)
    np.testing.assert_allclose(stepper.state[0], expected.x, rtol=1e-12, atol=1e-12)


def test_a_state_in_modes_is_not_moved():
    process = sk.modes.blurring(sk.catalogue.cosine(), (4, 4), blur=2.0)
    stepper = Stepper(prepare(process, None, None, PLANS["heun"]), [np.zeros((1, 4, 4))], Addressed(0))
    with pytest.raises(sk.BadInput, match="process of one block without modes"):
        stepper.move_to(np.zeros((1, 4, 4)))
