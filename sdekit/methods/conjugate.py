r"""Conjugate integrators: Euler's method on the probability-flow ODE in coordinates :math:`\hat z = A_t z` that take the stiff part out."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, finite, unknown
from ..kernel import flow, gauss, solve_lower
from ..reverse import Leg
from ..tableau import Rows, Step
from ._record import Method, Orders, constructor

Array = NDArray[np.float64]

__all__ = ["conjugate"]

_NODES, _PANEL = 8, 0.5  # Gauss-Legendre points of a panel, and its length in log time


def _name(lam: float, form: str) -> str:
    return f'conjugate({lam:g}, "{form}")'


@lru_cache(maxsize=8)
def _weights(leg: Leg, lam: float, form: str) -> tuple[Array, Array]:
    r""":math:`A_s^{-1} A_t (1 - (B_t - B_s) J)` and :math:`A_s^{-1} (\Phi_t - \Phi_s)` for all steps of the leg that end before time 0, (n, k, k)."""
    process = leg.reverse.process
    try:
        F = process.F
    except BadInput as error:
        raise BadInput(f"{_name(lam, form)} needs a constant drift: {error}") from None
    times = leg.times[:-1] if leg.ends else leg.times
    t, s, clock, knee = times[:-1, None], times[1:, None], process.clock, process.knee
    J = lam / float(clock.integral(process.T)) * (np.eye(process.k) if form == "I" else np.ones((process.k, process.k)))

    low, wide = np.log(s + knee), np.log((t + knee) / (s + knee))
    panels = int(np.ceil(np.max(wide) / _PANEL))
    nodes, weights = gauss(_NODES)
    x = np.exp(low + wide / panels * (np.arange(panels)[:, None] + nodes).ravel())
    r = np.append(np.clip(x - knee, s, t), t, axis=1)
    carry = flow(J - F, np.zeros((process.k, 1)), np.maximum(clock.integral(r) - clock.integral(s), 0.0))[0]
    G, r = process.noise(r[:, :-1]), r[:, :-1]
    half = 0.5 * wide / panels * np.tile(weights, panels) * x
    pull = carry[:, :-1] @ G @ np.swapaxes(solve_lower(process.kernel(r).chol, G), -1, -2)
    stretch = (clock.integral(t) - clock.integral(s))[..., None]
    return carry[:, -1] @ (np.eye(process.k) - stretch * J), np.sum(half[..., None, None] * pull, axis=1)


def _conjugate(step: Step, lam: float, form: str) -> Rows:
    carry, pull = (part[step.i] for part in _weights(step.leg, lam, form))
    eps = -step.here.chol.T @ step.ask(step.z, step.here).score
    return step.rows(carry @ step.z - pull @ eps)


@constructor
def conjugate(lam: float = 0.5, form: str = "I") -> Method:
    r"""Conjugate integrator :math:`\lambda`-DDIM-I or -II for the probability-flow ODE of every linear process with constant ``F``.

    In the unit clock, with :math:`\epsilon = L^{-1}(z - \psi D) = -L^T s`, ``L`` the lower Cholesky factor of the kernel's covariance,

    .. math:: \hat z = A z, \quad A' = A (J - F), \quad \Phi' = \tfrac12 A G G^T L^{-T}, \qquad
              d\hat z = A J A^{-1} \hat z\,dB + \epsilon\,d\Phi,

    and a step is Euler's: :math:`\hat z_s = \hat z_t - (B_t - B_s) A_t J A_t^{-1} \hat z_t + (\Phi_s - \Phi_t)\,\epsilon_t`, with :math:`\Phi` by
    quadrature.  One model call.

    Parameters
    ----------
    lam : float
        Size of :math:`J = \lambda / B(T)` times the identity (form I) or the matrix of ones (form II): for a clock of constant rate and
        ``T = 1`` it is the papers' :math:`\lambda`, and it means the same for every clock.
    form : {"I", "II"}
        The same for one block.

    Raises
    ------
    BadInput
        For a number that is not finite or another form; when the steps are written, on a process whose drift varies in its own clock.

    Notes
    -----
    For ``lam = 0`` it is the exponential integrator of order 1 in the *Cholesky* noise, for one block exactly DDIM.  With more blocks that
    noise is not constant along the exact flow of a point mass: it differs from the noise of ``exponential(1, of="eps")`` by a rotation that
    turns through more than 200 degrees on PSLD, and the step, unlike that one, is not exact there.
    """
    if form not in ("I", "II"):
        raise unknown("form", form, ["I", "II"])
    params = (("lam", finite("lam", lam)), ("form", form))
    return Method(_name(lam, form), _conjugate, params, orders=Orders(ode=1), reference="Pandey, Rudolph and Mandt 2024, arXiv:2310.07894")


SHIPPED = {"conjugate1": lambda: conjugate(0.5, "I"), "conjugate2": lambda: conjugate(0.5, "II")}
