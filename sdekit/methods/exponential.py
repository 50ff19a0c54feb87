r"""Exponential integrators: the linear part of the reverse equation is solved exactly, the model's answers are interpolated.

With :math:`W(r) = \Phi(s, r)\,\psi_r` the exact solution is :math:`z_s = \Phi(s,t) z_t + \int_t^s D(r)\,dW(r)` plus noise; multistep methods put
the polynomial through the last answers, in :math:`u = -\log\sigma_{eff}`, in the place of ``D``.
"""

from __future__ import annotations

from ..errors import BadInput, unknown, whole
from ..tableau import Rows, Step
from ._record import Method, Orders, constructor

__all__ = ["ddim", "exponential", "exponential_rk"]


def _nodes(step: Step, n: int) -> list[float]:
    return [step.leg.points[step.i - j].u for j in range(n)]


def _data(step: Step, order: int) -> Rows:
    past = [step.ask(step.z, step.here).data, *step.memory][:order]
    flow = step.flow
    out = flow.gain @ step.z + sum(w[:, None] @ d for w, d in zip(flow.weights(_nodes(step, len(past))), past, strict=True))
    if step.leg.reverse.noisy:
        out = out + flow.chol @ step.noise(len(flow.chol))
    return step.rows(out, keep=past[: order - 1])


def _epsilon(step: Step, order: int) -> Rows:
    eps = -step.leg.roots[step.i].T @ step.ask(step.z, step.here).score
    past = [eps, *step.memory][:order]
    flow = step.epsilon_flow
    out = flow.back @ step.z + sum(w @ e for w, e in zip(flow.weights(_nodes(step, len(past))), past, strict=True))
    if step.leg.reverse.noisy:
        out = out + flow.chol @ step.noise(len(flow.chol))
    return step.rows(out, keep=past[: order - 1])


@constructor
def exponential(order: int = 2, of: str = "data", noise: float = 0.0) -> Method:
    r"""Exponential multistep (Adams) method of ``order`` 1, 2 or 3: one model call a step, for the ODE and the SDE and any number of blocks.

    .. math:: z_s = \Phi(s,t)\, z_t + \sum_j \Big(\int_t^s \ell_j(u)\, dW\Big) D_{t_j} + C \xi,

    :math:`\ell_j` the Lagrange basis of the last ``order`` levels (fewer in the first steps of a leg), and ``C`` the exact noise of the step.
    Order 1 is DDIM for ``noise=0``; with data and ``noise=1`` it is the exact posterior step of DDPM for every process.

    Parameters
    ----------
    order : int
        1, 2 or 3.
    of : {"data", "eps"}
        What is interpolated: the denoised data ``D``, or :math:`\epsilon = R^{-1}(z - \psi D) = -R^T s` with the rotation-free root.
    noise : float
        :math:`\lambda`: 0 for the ODE, 1 for the reverse SDE.

    Raises
    ------
    BadInput
        For another order or variable.

    Notes
    -----
    The first step is of order 1, once: it leaves an error ``O(h^2)``, so that order 3 shows only from exact start values
    (``orders.exact_start``); with noise the weak order is at most 2.
    """
    whole("order", order)
    if order > 3:
        raise BadInput(f"order = {order} must be 1, 2 or 3")
    if of not in ("data", "eps"):
        raise unknown("variable", of, ["data", "eps"])
    orders = Orders(ode=min(order, 2), exact_start=order) if noise == 0.0 else Orders(weak=min(order, 2))
    name = f"exponential({order}" + (', of="eps"' if of == "eps" else "") + (f", noise={noise:g}" if noise else "") + ")"
    reference = "Lu et al. 2022, arXiv:2211.01095 (2M, 3M, corrected); Zhang and Chen 2022, arXiv:2204.13902"
    return Method(name, _data if of == "data" else _epsilon, (("order", order),), noise=noise, history=order - 1, orders=orders, reference=reference)


@constructor
def ddim() -> Method:
    """DDIM with eta = 0: ``exponential(1)``, exact for a point mass (Song, Meng and Ermon 2020, arXiv:2010.02502)."""
    return exponential(1)


def _trapezoid(step: Step) -> Rows:
    roots, flow = step.leg.roots, step.epsilon_flow
    here = -roots[step.i].T @ step.ask(step.z, step.here).score
    guess = flow.back @ step.z + flow.whole @ here
    there = -roots[step.i + 1].T @ step.ask(guess, step.there).score
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
    "exponential1_sde": lambda: exponential(1, noise=1.0),
    "exponential2": lambda: exponential(2),
    "exponential2_eps": lambda: exponential(2, of="eps"),
    "exponential2_sde": lambda: exponential(2, noise=1.0),
    "exponential3": lambda: exponential(3),
    "exponential3_eps": lambda: exponential(3, of="eps"),
    "exponential3_sde": lambda: exponential(3, noise=1.0),
    "exponential_rk2": exponential_rk,
}
