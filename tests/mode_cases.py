"""What the tests of modes share: methods, laws, a turn, and a blur."""

import numpy as np
import pytest
from processes import vp

from sdekit import Process, grids, methods, modes
from sdekit.law import Mixture
from sdekit.noise import Addressed

GRID = grids.logsnr(5, 0.1, 3.0)
METHODS = [
    methods.euler(),
    methods.euler(noise=0.7),
    methods.heun(),
    methods.heun(noise=1.0),
    methods.exponential_rk(2),
    *(methods.exponential(p, of=of, noise=noise) for p in (1, 2, 3) for of in ("data", "eps") for noise in (0.0, 1.0)),
]
every = pytest.mark.parametrize("method", METHODS, ids=str)
PAIR = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[[0.3, 0.1], [0.1, 0.2]], [[0.16, -0.05], [-0.05, 0.1]]])
ANGLE = 0.7
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])


class Alike:
    """Normals that are the same in all elements."""

    def draw(self, addresses, ids, shape, like=None):
        one = Addressed(3).draw(addresses, ids, (1,) * len(shape), like)
        return one + 0.0 * Addressed(0).draw(addresses, ids, shape, like)


def _middle(step, clock):
    stages = step.stages(clock, 0.5)
    first = step.ask(step.z, step.here)
    half = stages.flow(0, 1)
    middle = step.ask(half.gain @ step.z + half.weights([0.0])[0][:, None] @ first.data, stages.point(1))
    return step.rows(step.flow.gain @ step.z + step.flow.weights([0.0])[0][:, None] @ middle.data)


def in_the_middle(clock):
    """The exponential midpoint rule: a stage inside the step."""
    return methods.Method(f"middle({clock})", _middle, (("clock", clock),), asks=2)


def blurred(shape=(4, 4), blur=3.0):
    return modes.blurring(vp(), shape, blur)


def other():
    return Process(-0.8, 0.9, clock=vp().clock)
