"""Runge-Kutta methods in ``z`` and ``t``."""

from __future__ import annotations

import numpy as np

from ..tableau import Rows, Step
from ._record import Method, Orders, constructor

__all__ = ["heun"]


def _heun(step: Step) -> Rows:
    first = step.here.drift(step.z, step.ask(step.z, step.here).score)
    guess, mean = step.z - step.h * first, step.z
    if step.leg.reverse.noisy:
        a, b = step.here.noise, step.there.noise
        normals = np.sqrt(step.h) * step.noise(a.shape[1])
        guess, mean = guess + a @ normals, mean + 0.5 * (a + b) @ normals
    second = step.there.drift(guess, step.ask(guess, step.there).score)
    return step.rows(mean - 0.5 * step.h * (first + second), embedded=guess)


@constructor
def heun(noise: float = 0.0) -> Method:
    r"""Heun's method (the trapezoidal Runge-Kutta method) on the reverse equation; its stochastic form for ``noise > 0``.

    .. math:: \tilde z = z_t - h f(z_t, t) + \sqrt h\, g_t \xi, \qquad
              z_s = z_t - \tfrac h2 \big[f(z_t, t) + f(\tilde z, s)\big] + \tfrac{\sqrt h}{2} (g_t + g_s)\, \xi,

    with the same normals ``xi`` in both lines and :math:`g = \lambda G`.  Two model calls a step; the embedded result is
    :math:`\tilde z`.  On EDM's process (``t = sigma``) this is EDM's sampler.

    Parameters
    ----------
    noise : float
        :math:`\lambda`: 0 for the ODE, 1 for the reverse SDE.
    """
    orders = Orders(ode=2) if noise == 0.0 else Orders(weak=2)
    name = "heun" if noise == 0.0 else f"heun(noise={noise:g})"
    return Method(name, _heun, noise=noise, asks=2, orders=orders, reference="Karras et al. 2022, arXiv:2206.00364, Algorithm 1")


SHIPPED = {"heun": heun, "heun_sde": lambda: heun(noise=1.0)}
