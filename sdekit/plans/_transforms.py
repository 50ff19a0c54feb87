"""Transforms of plans: denoise, ancestral steps, churn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import BadInput, finite, positive
from ..process import Process
from ._moves import Jump, Move, Plan, Run, Transform, step_by_step

__all__ = ["Ancestral", "Churn", "Denoise", "ancestral", "churn", "denoise"]


@dataclass(frozen=True)
class Denoise:
    def __call__(self, moves: list[Move], _: Process) -> list[Move]:
        last = moves[-1]
        t = last.times[-1] if isinstance(last, Run) else last.t if isinstance(last, Jump) else last.end
        if t == 0.0:
            raise BadInput("the plan ends at the data already; denoise() is for plans that end above time 0")
        step = last.first + len(last.times) - 1 if isinstance(last, Run) else 0
        method = next(move.method for move in moves if isinstance(move, Run))
        return [*moves, Run(replace(method, noise=0.0), (t, 0.0), first=step)]


def denoise() -> Transform:
    """Finish with one model call that puts the denoised data in the place of the state (``x = D``)."""
    return Denoise()


@dataclass(frozen=True)
class Ancestral:
    eta: float

    def __call__(self, moves: list[Move], process: Process) -> list[Move]:
        def change(piece: Run) -> list[Move] | None:
            t, s = piece.times
            if s == 0.0:
                return None
            high, low = (float(v) for v in process.sigma_eff([t, s]))
            up = min(1.0, self.eta * np.sqrt((high - low) * (high + low)) / high)
            down = float(process.time_of(low * np.sqrt((1.0 - up) * (1.0 + up)))) if up < 1.0 else 0.0
            return [replace(piece, times=(t, down)), Jump(down, s, leg=piece.leg, step=2 + 2 * piece.first)]

        return step_by_step(moves, change)


def ancestral(plan: Plan, eta: float = 1.0) -> Plan:
    r"""Each step goes down to :math:`\sigma_s \sqrt{1 - \eta^2 (\sigma_t^2 - \sigma_s^2)/\sigma_t^2}` and back up to ``s`` by fresh noise.

    With ``exponential(1)`` and ``eta=1`` on one block this is DDPM's posterior step and k-diffusion's ancestral Euler.

    Raises
    ------
    BadInput
        If ``eta`` is not positive, or the process starts with noise below which a step would have to go.
    """
    return plan.then(Ancestral(positive("eta", eta)))


@dataclass(frozen=True)
class Churn:
    amount: float
    low: float
    high: float
    scale: float
    restart: bool = False

    def __call__(self, moves: list[Move], process: Process) -> list[Move]:
        steps = sum(len(move.times) - 1 for move in moves if isinstance(move, Run) and move.leg == 0)
        gamma = self.amount if self.restart else min(self.amount / steps, np.sqrt(2.0) - 1.0)
        ceiling = float(process.sigma_eff(process.T))

        def change(piece: Run) -> list[Move] | None:
            t, s = piece.times
            level = float(process.sigma_eff(t))
            raised = min(level * (1.0 + gamma), ceiling)
            if (piece.leg > 0) != self.restart or not self.low <= level <= self.high or raised <= level:
                return None
            hat = float(process.time_of(raised))
            return [Jump(t, hat, self.scale, piece.leg, 1 + 2 * piece.first), replace(piece, times=(hat, s))]

        return step_by_step(moves, change)


def churn(plan: Plan, S_churn: float, S_min: float = 0.0, S_max: float = float("inf"), S_noise: float = 1.0) -> Plan:
    r"""EDM's stochastic sampler: before each step at a level in [S_min, S_max] raise it by :math:`1 + \min(S_{churn}/N, \sqrt2 - 1)`.

    References
    ----------
    Karras et al. 2022, arXiv:2206.00364, Algorithm 2.
    """
    if finite("S_churn", S_churn) < 0.0 or S_min > S_max:
        raise BadInput(f"churn needs S_churn >= 0 and S_min <= S_max, got {S_churn:g}, [{S_min:g}, {S_max:g}]")
    return plan if S_churn == 0.0 else plan.then(Churn(float(S_churn), float(S_min), float(S_max), finite("S_noise", S_noise)))
