"""Euler and Euler-Maruyama, in ``z`` and ``t``."""

from __future__ import annotations

import numpy as np

from ..tableau import Rows, Step
from ._record import Method, Orders, constructor

__all__ = ["euler", "euler_maruyama", "reverse_diffusion"]


def _rows(step: Step) -> Rows:
    out = step.z - step.h * step.here.drift(step.z, step.ask(step.z, step.here).score)
    if step.leg.reverse.noisy:
        spread = step.here.noise
        out = out + np.sqrt(step.h) * spread @ step.noise(spread.shape[-1])
    return step.rows(out)


@constructor
def euler(noise: float = 0.0) -> Method:
    r"""Euler's method on the reverse equation, Euler-Maruyama for ``noise > 0``.

    .. math:: z_s = z_t - h f(z_t, t) + \lambda \sqrt{h}\, G_t \xi, \qquad h = t - s, \quad
              f = F z + \tfrac12 (1 + \lambda^2) G G^T S^{-1} (z - \psi D).

    Parameters
    ----------
    noise : float
        :math:`\lambda`: 0 for the ODE, 1 for the reverse SDE.
    """
    orders = Orders(ode=1) if noise == 0.0 else Orders(weak=1, strong=1)
    name = "euler" if noise == 0.0 else "euler_maruyama" if noise == 1.0 else f"euler(noise={noise:g})"
    return Method(name, _rows, noise=noise, orders=orders, reference="Maruyama 1955; Song et al. 2021, arXiv:2011.13456")


@constructor
def euler_maruyama() -> Method:
    """``euler(noise=1)``."""
    return euler(noise=1.0)


def _reverse_diffusion(step: Step) -> Rows:
    law = step.leg.reverse.process.transition(step.s, step.t)
    score = step.ask(step.z, step.here).score
    k = len(law.mean)
    return step.rows((2.0 * np.eye(k) - law.mean) @ step.z + law.chol @ (law.chol.T @ score + step.noise(k)))


@constructor
def reverse_diffusion() -> Method:
    r"""The predictor of Song et al.: the forward step turned round, with its exact mean ``E`` and covariance ``Q`` over the step.

    .. math:: z_s = (2 - E) z_t + Q\,s(z_t, t) + Q^{1/2} \xi .

    On VE :math:`Q = \sigma_t^2 - \sigma_s^2`; on VP :math:`E = \sqrt{1 - \beta_i}`, :math:`Q = \beta_i`.
    """
    reference = "Song et al. 2021, arXiv:2011.13456, Algorithms 2 and 3"
    return Method("reverse_diffusion", _reverse_diffusion, noise=1.0, orders=Orders(weak=1), reference=reference)


SHIPPED = {"reverse_diffusion": reverse_diffusion, "euler": euler, "euler_maruyama": euler_maruyama}
