"""What the contract's tests share: every method, a mixture, a grid, a random state and a run to its end."""

import numpy as np
import pytest

from sdekit import BadInput, grids, methods, plans
from sdekit.law import Mixture
from sdekit.solve import program, solve
from sdekit.tableau import ByTerms

METHODS = [
    *(make() for make in methods.SHIPPED.values()),
    methods.euler(noise=0.5),
    methods.exponential(1, of="eps"),
    *(methods.exponential(p, of="eps", noise=1.0) for p in (1, 2, 3)),
]
LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])
GRID = grids.logsnr(6, 0.1, 3.0)
every = pytest.mark.parametrize("method", METHODS, ids=str)
FAMILY = ("exponential", "ddim", "unipc", "sa_solver", "er_sde", "dpm", "seeds", "rho_rk")
EXPONENTIAL = [method for method in METHODS if method.name.startswith(FAMILY) and 'clock="time"' not in method.name]  # functions of the levels only


def refusal(method, process):
    """Why the method does not fit the process, in one clear error before the first model call; empty if it does."""
    try:
        program(process, plans.run(GRID, method))
    except BadInput as error:
        return str(error)
    return ""


def needs(method, process):
    why = refusal(method, process)
    if why:
        assert method.name in why
        pytest.skip(why)


def random_state(process, t, n=4, shape=(2,)):
    kernel = process.kernel(t)
    return kernel.sample(LAW.sample(n, seed=3).reshape(n, *shape), np.random.default_rng(0).standard_normal((process.k, n, *shape)))


def final(process, plan, denoise=None, executor=ByTerms, dtype=np.float64, torch=None):
    prog = program(process, plan)
    z = random_state(process, prog.times[0]).astype(dtype)
    state = [torch.from_numpy(b) for b in z] if torch else list(z)
    made, _ = solve(prog, state, LAW.denoiser() if denoise is None else denoise, executor=executor)
    return np.stack([np.asarray(b) for b in made]), made
