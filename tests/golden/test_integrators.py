"""Our Runge-Kutta methods and steppers against recorded runs of diffrax and torchsde."""

import json
from pathlib import Path

import numpy as np
import pytest
from processes import vp

from sdekit import grids, methods, plans
from sdekit.equation import SDE
from sdekit.law import Mixture
from sdekit.simulation import step
from sdekit.solve import program, solve

PEERS = json.loads(Path(__file__).with_name("integrators.json").read_text())
ORDINARY, STOCHASTIC = PEERS["ordinary"], PEERS["stochastic"]


@pytest.mark.parametrize("name", ORDINARY["end"])
def test_ordinary(name):
    """The probability-flow ODE of VP by fixed steps of diffrax's solvers."""
    told = PEERS["law"]
    denoise = Mixture(told["weights"], told["means"], np.square(told["stds"])).denoiser()
    method = {"euler": methods.euler, "heun": methods.heun}.get(name, lambda: methods.runge_kutta(name))()
    made, _ = solve(program(vp(), plans.run(grids.times(ORDINARY["times"]), method)), [np.array(ORDINARY["start"])], denoise)
    np.testing.assert_allclose(made[0], ORDINARY["end"][name], rtol=1e-11)


def equation(sense, additive):
    """dy = (sin y - y/2 + 0.3 t) dt + (0.4 y + 0.2) dW, or 0.7 dW."""

    def drift(z, t):
        return np.sin(z) - 0.5 * z + 0.3 * t

    def noise(z, t):
        return (np.full_like(z, 0.7) if additive else 0.4 * z + 0.2)[None]

    def slope(z, t):
        return np.full((1, 1, *z.shape), 0.0 if additive else 0.4)

    return SDE(1, drift, noise, "additive" if additive else "diagonal", noise_jacobian=slope, interpretation=sense)


@pytest.mark.parametrize("name", STOCHASTIC["runs"])
def test_stochastic(name):
    """torchsde's solvers with the same increments and areas."""
    run = STOCHASTIC["runs"][name]
    sde, times, z = equation(run["sense"], run["additive"]), STOCHASTIC["times"], np.array(STOCHASTIC["start"])[None]
    for i, (dW, dZ) in enumerate(zip(STOCHASTIC["dW"], STOCHASTIC["dZ"], strict=True)):
        z = step(sde, z, times[i], times[i + 1], np.array(dW)[None], np.array(dZ)[None], method=name)
    np.testing.assert_allclose(z[0], run["end"], rtol=1e-11)
