r"""Exponential integrators: the linear part of the reverse equation is solved exactly, the model's answers are interpolated.

With :math:`W(r) = \Phi(s, r)\,\psi_r` the exact solution is :math:`z_s = \Phi(s,t) z_t + \int_t^s D(r)\,dW(r)` plus noise; multistep methods put
the polynomial through the last answers, in :math:`u = -\log\sigma_{eff}`, the level or the time, in the place of ``D``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, finite, unknown, whole
from ..propagation import Loudness
from ..reverse import CLOCKS
from ..tableau import Rows, Step
from ._multistep import multistep, shown
from ._record import Method, Orders, constructor

Array = NDArray[np.float64]

__all__ = ["ddim", "deis", "dpm_solver_pp_2m", "dpm_solver_pp_3m", "er_sde", "exponential", "exponential_rk", "lms"]

_PUBLISHED = {"exact": 0, "midpoint": 2, "released": 3}  # rules, and the order that each belongs to


def _claims(order: int, noise: Loudness) -> Orders:
    return Orders(weak=min(order, 2)) if callable(noise) or noise else Orders(ode=min(order, 2), exact_start=order)


@constructor
def exponential(order: int = 2, of: str = "data", noise: Loudness = 0.0, clock: str = "log", rule: str = "exact") -> Method:
    r"""Exponential multistep (Adams) method of ``order`` 1 to 4: one model call a step, for the ODE and the SDE and any number of blocks.

    .. math:: z_s = \Phi(s,t)\, z_t + \sum_j \Big(\int_t^s \ell_j(u)\, dW\Big) D_{t_j} + C \xi,

    :math:`\ell_j` the Lagrange basis of the last ``order`` levels (fewer in the first steps of a leg), and ``C`` the exact noise of the step.
    Order 1 is DDIM for ``noise=0``; with data and ``noise=1`` it is the exact posterior step of DDPM for every process.

    Parameters
    ----------
    order : int
        1, 2, 3 or 4.
    of : {"data", "eps"}
        What is interpolated: the denoised data ``D``, or :math:`\epsilon = R^{-1}(z - \psi D) = -R^T s` with the rotation-free root.
    noise : float or callable
        :math:`\lambda`: 0 for the ODE, 1 for the reverse SDE; a function of ``sigma_eff`` gives each level its own.
    clock : {"log", "sigma", "time"}
        The variable of the polynomials: :math:`u = -\log\sigma_{eff}`, :math:`\sigma_{eff}` or the time.
    rule : {"exact", "midpoint", "released"}
        ``exact``: the integrals as they are.  ``midpoint``, for order 2 and clock "log": the published 2M formula, the total weight times
        :math:`D_0 + \tfrac h2 D[01]`.  ``released``, for order 3 and clock "log": the published 3M formula, which has the second difference
        :math:`D[012]` where the second derivative :math:`2 D[012]` is needed.  That costs an order: from exact start values it is 2, not 3.

    Raises
    ------
    BadInput
        For another order, variable, clock or rule, or a rule that does not belong to the order and clock.

    Notes
    -----
    The first step is of order 1, once: it leaves an error ``O(h^2)``, so that orders 3 and 4 show only from exact start values
    (``orders.exact_start``); with noise the weak order is at most 2.
    """
    if whole("order", order) > 4:
        raise BadInput(f"order = {order} must be 1, 2, 3 or 4")
    if of not in ("data", "eps"):
        raise unknown("variable", of, ["data", "eps"])
    if clock not in CLOCKS:
        raise unknown("clock", clock, CLOCKS)
    if rule not in _PUBLISHED:
        raise unknown("rule", rule, _PUBLISHED)
    if rule != "exact" and (order, clock) != (_PUBLISHED[rule], "log"):
        raise BadInput(f"rule = {rule!r} belongs to order {_PUBLISHED[rule]} on clock 'log'; take rule='exact' for order {order} on {clock!r}")
    said = [f'{key}="{value}"' for key, value, usual in (("of", of, "data"), ("clock", clock, "log"), ("rule", rule, "exact")) if value != usual]
    if callable(noise) or noise:
        said.append(f"noise={shown(noise)}")
    return multistep(
        ", ".join([f"exponential({order}", *said]) + ")",
        order,
        of=of,
        noise=noise,
        clock=clock,
        rule="half" if rule == "released" else rule,
        orders=_claims(2 if rule == "released" else order, noise),
        reference="Lu et al. 2022, arXiv:2211.01095 (2M, 3M); Zhang and Chen 2022, arXiv:2204.13902",
    )


@constructor
def ddim() -> Method:
    """DDIM with eta = 0: ``exponential(1)``, exact for a point mass (Song, Meng and Ermon 2020, arXiv:2010.02502)."""
    return exponential(1)


@constructor
def dpm_solver_pp_2m(noise: float = 0.0) -> Method:
    """DPM-Solver++(2M) as published, ``exponential(2, rule="midpoint")``; SDE-DPM-Solver++(2M) for ``noise=1`` (Lu et al. 2022, arXiv:2211.01095)."""
    return exponential(2, noise=noise, rule="midpoint")


@constructor
def dpm_solver_pp_3m(noise: float = 0.0) -> Method:
    """DPM-Solver++(3M) as released, of order 2: ``exponential(3, rule="released")``; ``exponential(3)`` is the formula put right."""
    return exponential(3, noise=noise, rule="released")


@constructor
def deis(order: int = 4, clock: str = "time") -> Method:
    """DEIS of Zhang and Chen 2022, arXiv:2204.13902: ``exponential(order, of="eps", clock=clock)``.

    Clock "time" is their tAB, "sigma" their rhoAB, "log" log-rhoAB; their numbers count the degree, ``order - 1``.
    """
    return exponential(order, of="eps", clock=clock)


@constructor
def lms(order: int = 4) -> Method:
    """The linear multistep method in sigma of k-diffusion, with exact integrals: ``exponential(order, of="eps", clock="sigma")``."""
    return exponential(order, of="eps", clock="sigma")


def extended(sigma: Array) -> Array:
    r"""Noise level of the usual ER-SDE, :math:`\lambda^2 = d\log\varphi / d\log\sigma - 1` with :math:`\varphi = \sigma (e^{\sigma^{0.3}} + 10)`."""
    power = sigma**0.3
    return np.asarray(np.sqrt(0.3 * power / (1.0 + 10.0 * np.exp(-power))))


@constructor
def er_sde(order: int = 3, power: float | None = None, rule: str = "exact") -> Method:
    r"""Extended reverse-time SDE solver ER-SDE of ``order`` 1 to 3: ``exponential(order, clock="sigma")`` at a noise level that varies.

    .. math:: \lambda(\sigma)^2 = \frac{d\log\varphi}{d\log\sigma} - 1, \qquad \varphi(\sigma) = \sigma^p \text{ or } \sigma(e^{\sigma^{0.3}} + 10),

    so that the transfer of a step from :math:`\sigma` to :math:`\sigma'` is :math:`\varphi(\sigma') / \varphi(\sigma)`, in :math:`z / \psi`.

    Parameters
    ----------
    order : int
        1, 2 or 3.
    power : float, optional
        ``p >= 1``: 1 is the ODE, 2 the reverse SDE; the authors' function when absent.
    rule : {"exact", "released"}
        ``released``, for order 3: the published formula, whose derivative at the start is the last difference ``D[01]``; for the ODE it has
        order 2.

    Raises
    ------
    BadInput
        For another order or rule, or a power below 1.
    """
    if whole("order", order) > 3:
        raise BadInput(f"order = {order} must be 1, 2 or 3")
    if power is not None and finite("power", power) < 1.0:
        raise BadInput(f"power = {power!r} must be at least 1: phi / sigma must not fall")
    if rule not in ("exact", "released"):
        raise unknown("rule", rule, ["exact", "released"])
    if rule == "released" and order != 3:
        raise BadInput(f"rule = 'released' belongs to order 3; take rule='exact' for order {order}")
    noise: Loudness = extended if power is None else float(np.sqrt(power - 1.0))
    said = [] if power is None else [f"power={power:g}"]
    if rule == "released":
        said.append('rule="released"')
    return multistep(
        ", ".join([f"er_sde({order}", *said]) + ")",
        order,
        noise=noise,
        clock="sigma",
        rule="last slope" if rule == "released" else "exact",
        orders=_claims(2 if rule == "released" else order, noise),
        reference="Cui et al. 2023, arXiv:2309.06169",
    )


def _trapezoid(step: Step) -> Rows:
    roots, flow = step.leg.roots, step.epsilon_flow
    here = -np.swapaxes(roots[step.i], -1, -2) @ step.ask(step.z, step.here).score
    guess = flow.back @ step.z + flow.whole @ here
    there = -np.swapaxes(roots[step.i + 1], -1, -2) @ step.ask(guess, step.there).score
    return step.rows(flow.back @ step.z + 0.5 * flow.whole @ (here + there), embedded=guess)


@constructor
def exponential_rk(order: int = 2) -> Method:
    r"""Exponential Runge-Kutta method of order 2: EDM's Heun step in :math:`\sigma_{eff}` with the exact transfer, for every process.

    .. math:: \tilde z = T z_t + V \epsilon_t, \qquad z_s = T z_t + \tfrac12 V (\epsilon_t + \tilde\epsilon_s), \qquad V = R_s - T R_t,

    :math:`T = e^{-FB}` over the step and :math:`\epsilon = R^{-1}(z - \psi D)`.  Two model calls a step.  For one block it is exactly Heun's
    method on :math:`dy/d\sigma = \epsilon`.

    Raises
    ------
    BadInput
        For an order other than 2.
    """
    if whole("order", order) != 2:
        raise BadInput(f"order = {order}: exponential_rk has order 2")
    reference = "Karras et al. 2022, arXiv:2206.00364, Algorithm 1, in sigma_eff"
    return Method("exponential_rk(2)", _trapezoid, asks=2, orders=Orders(ode=2), reference=reference)


SHIPPED = {
    "ddim": ddim,
    "deis": deis,
    "dpm_solver_pp_2m": dpm_solver_pp_2m,
    "dpm_solver_pp_2m_sde": lambda: dpm_solver_pp_2m(noise=1.0),
    "dpm_solver_pp_3m": dpm_solver_pp_3m,
    "er_sde": er_sde,
    "exponential1_sde": lambda: exponential(1, noise=1.0),
    "exponential2": lambda: exponential(2),
    "exponential2_eps": lambda: exponential(2, of="eps"),
    "exponential2_sde": lambda: exponential(2, noise=1.0),
    "exponential3": lambda: exponential(3),
    "exponential3_eps": lambda: exponential(3, of="eps"),
    "exponential3_sde": lambda: exponential(3, noise=1.0),
    "exponential_rk2": exponential_rk,
    "lms": lms,
}
