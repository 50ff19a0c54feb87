"""Predictor and corrector: Langevin dynamics between the steps of a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import positive, whole
from ..noise import CORRECTOR
from ..process import Process
from ._moves import Move, Plan, Run, step_by_step

__all__ = ["Correct", "Langevin", "correct"]


@dataclass(frozen=True, eq=False)
class Langevin:
    r"""Steps of Langevin dynamics at time ``t``, as long as the ratio of the norms of noise and score says, for each sample by itself.

    .. math:: z \leftarrow z + L\big(\epsilon\, L^T s + \sqrt{2\epsilon}\, \xi\big), \qquad
              \epsilon = 2 \Big(\mathrm{snr}\, \frac{|\xi|}{|L^T s|}\Big)^2, \qquad S_t = L L^T .

    For one block this is the published corrector with ``alpha = 1``, whose norms are averages over a batch.  The length depends on noise and state:
    in few dimensions that biases the law, in many it is a number.
    """

    process: Process
    t: float
    snr: float
    steps: int
    leg: int = 0
    step: int = 0
    stream: int = CORRECTOR

    @property
    def start(self) -> float:
        """The time before."""
        return self.t

    @property
    def end(self) -> float:
        """The time after."""
        return self.t

    @property
    def nfe(self) -> int:
        """Model calls."""
        return self.steps

    @property
    def noises(self) -> int:
        """Blocks of normals."""
        return self.steps * self.process.k

    def apply(self, state: list[Any], model: Callable[..., Any], normals: Sequence[Any]) -> list[Any]:
        """The corrected blocks."""
        kernel, k = self.process.kernel(self.t), self.process.k
        observe, lower, white = kernel.observe.tolist(), kernel.chol.tolist(), np.linalg.inv(kernel.chol).tolist()
        z = list(state)
        for i in range(self.steps):
            xi = normals[i * k : (i + 1) * k]
            data = model(sum(c * block for c, block in zip(observe, z, strict=True)), float(kernel.sigma_eff))
            gap = [block - float(psi) * data for block, psi in zip(z, kernel.psi, strict=True)]
            pull = [-sum(row[j] * gap[j] for j in range(n + 1)) for n, row in enumerate(white)]
            size = self.snr * _norm(xi) / _norm(pull)
            push = [2.0 * size * size * p + 2.0 * size * n for p, n in zip(pull, xi, strict=True)]
            z = [block + sum(row[j] * push[j] for j in range(n + 1)) for n, (block, row) in enumerate(zip(z, lower, strict=True))]
        return z


def _norm(blocks: Sequence[Any]) -> Any:
    """Norm of each sample over blocks and elements, of shape (n, 1, ..., 1)."""
    first = blocks[0]
    total = sum((block * block).reshape((first.shape[0], -1)).sum(-1) for block in blocks)
    return (total**0.5).reshape((-1, *(1,) * (first.ndim - 1)))


@dataclass(frozen=True)
class Correct:
    snr: float
    steps: int

    def __call__(self, moves: list[Move], process: Process) -> list[Move]:
        def change(piece: Run) -> list[Move]:
            return [Langevin(process, piece.times[0], self.snr, self.steps, piece.leg, piece.first), piece]

        return step_by_step(moves, change)


def correct(plan: Plan, snr: float = 0.16, steps: int = 1) -> Plan:
    r"""Predictor and corrector: ``steps`` of Langevin dynamics before each step of the plan, whose method is the predictor.

    Parameters
    ----------
    plan : Plan
    snr : float
        The paper's for CIFAR-10; 0.17 for CelebA, 0.075 for 256 pixels.
    steps : int
        Model calls more for each step.

    References
    ----------
    Song et al. 2021, arXiv:2011.13456, Algorithms 2 and 4 (corrector before predictor, as in their code).
    """
    return plan.then(Correct(positive("snr", snr), whole("steps", steps)))
