"""Data and two networks of known errors for the figures of Restart: normal laws stand for both, so that every error is exact.

A network's error is that of a normal law at each level: its means are off by independent normals, one set where noise is small and one where it is
large, blended in the log level from 0.2 to 0.5.  ``WEAK`` stands for the paper's VP network, ``STRONG`` for EDM's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import sdekit as sk
from sdekit.analysis.candidates import judge_of
from sdekit.analysis.residuals import LevelLaws
from sdekit.law import Gaussian
from sdekit.plans import Plan
from sdekit.process import Process
from sdekit.solve import program

LAW = Gaussian(np.zeros(64), np.full(64, 0.25))
PROCESS: Process = sk.catalogue.edm()


def network(above: float, below: float, law: Gaussian = LAW, seed: int = 0) -> LevelLaws:
    """A network whose means are off by ``above`` and ``below`` standard deviations of each mode, in root mean square, at high and at low levels."""
    off = np.random.default_rng(seed).standard_normal((2, law.variances.size))
    off /= np.sqrt(np.mean(off**2, axis=1, keepdims=True))
    means = law.mean.ravel() + np.sqrt(law.variances) * np.stack([below * off[0]] * 2 + [above * off[1]] * 2)
    return LevelLaws(np.array([0.002, 0.2, 0.5, 80.0]), means, np.broadcast_to(law.variances, means.shape), None, law.shape)


WEAK, STRONG = network(0.5, 0.25), network(0.15, 0.12)
NETWORKS = {"weak": WEAK, "strong": STRONG}


class Judge:
    """Exact W2 of plans with a network (None: exact scores), over the size of the data."""

    def __init__(self, model: LevelLaws | None, law: Gaussian = LAW) -> None:
        self._judge = judge_of(PROCESS, law, model)
        self._size = float(np.sqrt(np.sum(law.variances)))

    def error(self, plan: Plan) -> float:
        """Of samples from the prior."""
        return float(self._judge.error(plan.moves(PROCESS))) / self._size

    def means(self, plan: Plan) -> NDArray[np.float64]:
        """What the means of the modes are off by, over the size of the data."""
        return np.asarray(self._judge.gaps(plan.moves(PROCESS))[0] / self._size)


def calls(plan: Plan) -> int:
    """Model calls of a plan."""
    return program(PROCESS, plan).nfe
