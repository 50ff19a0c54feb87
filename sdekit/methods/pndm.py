r"""Pseudo numerical methods: the linear part is transferred exactly, and classical weights mix the noises.

With :math:`\epsilon = R^{-1}(z - \psi D) = -R^T s` and the rotation-free root ``R`` the transfer from ``t`` to ``s`` is

.. math:: \phi(z, e) = T z + (R_s - T R_t)\, e, \qquad T = e^{-F B},

for any number of blocks: exact where eps is constant.  For one block it is
:math:`\sqrt{\bar\alpha_s}\,(z/\sqrt{\bar\alpha_t} + (\sigma_s - \sigma_t) e)`, so that a pseudo method is a classical one on
:math:`dy/d\sigma = \epsilon`.  The published weights are those of equal steps in sigma, which no grid has: order 2 is all they give.
:func:`pndm` integrates its polynomial exactly instead, and has order 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import BadInput, unknown, whole
from ..kernel import gauss
from ..reverse import CLOCKS, EpsilonFlow, Point, lagrange
from ..tableau import Array, Rows, Step
from ._record import Method, Orders, constructor
from .exponential import exponential, exponential_rk

__all__ = ["f_pndm", "fon", "ipndm", "plms", "pndm", "prk", "pseudo_improved_euler", "s_pndm"]

_LIU = "Liu, Ren, Lin and Zhao 2022, arXiv:2202.09778"
ADAMS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))  # of equal steps, newest first
_INDICES = 1000  # training indices of the released FON


def _eps(step: Step, state: Array, point: Point, root: Array) -> Array:
    return np.asarray(-root.T @ step.ask(state, point).score)


def _here(step: Step) -> Array:
    return _eps(step, step.z, step.here, step.leg.roots[step.i])


def _transfer(step: Step, flow: EpsilonFlow, e: Array) -> Array:
    return flow.back @ step.z + flow.whole @ e


def _through(step: Step, flow: EpsilonFlow, nodes: Sequence[float], values: Sequence[Array], clock: str) -> Array:
    """The transfer with the polynomial on ``clock`` through the values at the nodes in the place of eps."""
    return np.asarray(flow.back @ step.z + sum(w @ e for w, e in zip(flow.weights(nodes, clock), values, strict=True)))


def _adams(step: Step, e: Array, order: int) -> Rows:
    """Adams-Bashforth with the weights of equal steps, of as high an order as the memory allows."""
    past = [e, *step.memory][:order]
    mean = sum(c * noise for c, noise in zip(ADAMS[len(past) - 1], past, strict=True))
    return step.rows(_transfer(step, step.epsilon_flow, np.asarray(mean)), keep=past[: order - 1])


def _runge_kutta(step: Step, midpoint: str) -> tuple[Array, Array]:
    """The new state, and eps at the old one."""
    stages = step.stages(midpoint, 0.5)
    half, full = stages.epsilon_flow(0, 1), stages.epsilon_flow(0, 2)

    def eps(j: int, state: Array) -> Array:
        return _eps(step, state, stages.point(j), stages.root(j))

    e1 = eps(0, step.z)
    e2 = eps(1, _transfer(step, half, e1))
    e3 = eps(1, _transfer(step, half, e2))
    e4 = eps(2, _transfer(step, full, e3))
    return _transfer(step, full, (e1 + 2.0 * e2 + 2.0 * e3 + e4) / 6.0), e1


def _prk(step: Step, midpoint: str) -> Rows:
    return step.rows(_runge_kutta(step, midpoint)[0])


def _f_pndm(step: Step, midpoint: str) -> Rows:
    if step.i > 2:
        return _adams(step, _here(step), 4)
    out, e = _runge_kutta(step, midpoint)
    return step.rows(out, keep=[e, *step.memory])


def _ipndm(step: Step, order: int) -> Rows:
    return _adams(step, _here(step), order)


def _plms(step: Step, order: int) -> Rows:
    e, flow = _here(step), step.epsilon_flow
    if step.i:
        return _adams(step, e, order)
    end = _eps(step, _transfer(step, flow, e), step.there, step.leg.roots[1])
    return step.rows(_transfer(step, flow, 0.5 * (e + end)), keep=[e])


def _pndm(step: Step, clock: str) -> Rows:
    if step.i == 0:
        return _third_order(step, clock)
    if step.i > 1:
        return exponential(4, of="eps", clock=clock).rows(step)
    here, (inner, first) = _here(step), step.memory
    now, before = (step.leg.points[j].on(clock) for j in (1, 0))
    nodes = [now, (2.0 * now + before) / 3.0, before]  # the last stage of the first step is a node between its ends
    return step.rows(_through(step, step.epsilon_flow, nodes, [here, inner, first], clock), keep=[here, first])


def _third_order(step: Step, clock: str) -> Rows:
    """Stages at 1/3 and 2/3 of the step, where two nodes integrate quadratics too; keeps eps at the second and at the start."""
    stages = step.stages(clock, 1 / 3, 2 / 3)
    u = [stages.point(j).on(clock) for j in range(3)]

    def eps(j: int, state: Array) -> Array:
        return _eps(step, state, stages.point(j), stages.root(j))

    e0 = eps(0, step.z)
    e1 = eps(1, _transfer(step, stages.epsilon_flow(0, 1), e0))
    e2 = eps(2, _through(step, stages.epsilon_flow(0, 2), u[:2], [e0, e1], clock))
    return step.rows(_through(step, stages.epsilon_flow(0, 3), [u[0], u[2]], [e0, e2], clock), keep=[e2, e0])


def _fon(step: Step) -> Rows:
    h = step.h
    if step.i > 2:
        past = [step.here.drift(step.z, step.ask(step.z, step.here).score), *step.memory]
        x, w = gauss(4)
        weights = lagrange([step.leg.points[step.i - j].t for j in range(4)], step.t - h * x) @ w
        return step.rows(np.asarray(step.z - h * sum(c * f for c, f in zip(weights, past, strict=True))), keep=past[:3])
    stages = step.stages("time", 0.5)

    def drift(j: int, state: Array) -> Array:
        return stages.point(j).drift(state, step.ask(state, stages.point(j)).score)

    f1 = drift(0, step.z)
    f2 = drift(1, step.z - 0.5 * h * f1)
    f3 = drift(1, step.z - 0.5 * h * f2)
    f4 = drift(2, step.z - h * f3)
    return step.rows(step.z - h / 6.0 * (f1 + 2.0 * f2 + 2.0 * f3 + f4), keep=[f1, *step.memory])


def _fon_released(step: Step) -> Rows:
    width = step.leg.reverse.process.T / _INDICES
    if step.t <= width:
        raise BadInput(f"fon(released=True): t = {step.t:g} lies within T/{_INDICES} of the data; end the grid at {2.0 * width:g} or above")
    flow, turn = step.leg.reverse.leg([step.t, step.t - width]).epsilon_flows[0], step.leg.turns[step.i]

    def change(e: Array) -> Array:
        return np.asarray((step.z - _transfer(step, flow, turn @ e)) * (step.h / width))

    if step.i > 2:
        past = [change(_here(step)) / step.h, *step.memory]
        return step.rows(np.asarray(step.z - step.h * sum(c * d for c, d in zip(ADAMS[3], past, strict=True))), keep=past[:3])
    stages = step.stages("time", 0.5)

    def eps(j: int, state: Array) -> Array:
        return _eps(step, state, stages.point(j), stages.root(j))

    d1 = change(eps(0, step.z))
    d2 = change(eps(1, step.z - 0.5 * d1))
    d3 = change(eps(1, step.z - 0.5 * d2))
    d4 = change(eps(2, step.z - d3))
    return step.rows(step.z - (d1 + 2.0 * d2 + 2.0 * d3 + d4) / 6.0, keep=[d1 / step.h, *step.memory])


def _named(name: str, clock: str, usual: str, what: str) -> str:
    """The method's name, if the clock is one."""
    if clock not in CLOCKS:
        raise unknown(what, clock, CLOCKS)
    return name if clock == usual else f"{name}({what}={clock!r})"


@constructor
def pseudo_improved_euler() -> Method:
    r"""Pseudo improved Euler method, :math:`z_s = \phi(z, \tfrac12(\epsilon_t + \epsilon_s(\phi(z, \epsilon_t))))`: ``exponential_rk(2)``.

    Two model calls a step; order 2.
    """
    return exponential_rk(2)


@constructor
def prk(midpoint: str = "sigma") -> Method:
    r"""Pseudo Runge-Kutta method: the classical one with transfers, all from the start of the step.

    .. math:: e_1 = \epsilon_t(z),\; e_2 = \epsilon_m(\phi(z, e_1)),\; e_3 = \epsilon_m(\phi(z, e_2)),\; e_4 = \epsilon_s(\phi(z, e_3)), \qquad
              z_s = \phi\big(z, \tfrac16 (e_1 + 2 e_2 + 2 e_3 + e_4)\big).

    Four model calls a step.  With one block and the midpoint in sigma it is the classical method on :math:`dy/d\sigma = \epsilon` and has
    order 4; in time, as published, or with more blocks, where the transfer has no scalar clock, order 2 (:func:`rho_rk` has order 4 there too).

    Parameters
    ----------
    midpoint : {"sigma", "log", "time"}
        Clock in which ``m`` is halfway.

    Raises
    ------
    BadInput
        For another clock.
    """
    orders = Orders(ode=2, one_block=4 if midpoint == "sigma" else None)
    return Method(_named("prk", midpoint, "sigma", "midpoint"), _prk, (("midpoint", midpoint),), asks=4, orders=orders, reference=_LIU)


@constructor
def s_pndm() -> Method:
    r"""S-PNDM: a pseudo improved Euler step, then :math:`z_s = \phi(z, \tfrac12 (3 \epsilon_i - \epsilon_{i-1}))`.

    ``N + 1`` model calls; order 2.
    """
    return Method("s_pndm", _plms, (("order", 2),), start=(2,), history=1, orders=Orders(ode=2), reference=_LIU)


@constructor
def f_pndm(midpoint: str = "time") -> Method:
    r"""F-PNDM, the paper's PNDM: three pseudo Runge-Kutta steps, then Adams-Bashforth weights of equal steps.

    .. math:: z_s = \phi\big(z, \tfrac1{24} (55 \epsilon_i - 59 \epsilon_{i-1} + 37 \epsilon_{i-2} - 9 \epsilon_{i-3})\big).

    ``N + 9`` model calls; runs of one to three steps are Runge-Kutta steps only, of four calls each.  The weights are those of a grid
    uniform in sigma; on every other one the order is 2, as for :func:`plms`, which costs eight calls less.

    Parameters
    ----------
    midpoint : {"sigma", "log", "time"}
        Of the Runge-Kutta steps; "time" is the paper's, whose grid is uniform in it.

    Raises
    ------
    BadInput
        For another clock.
    """
    name = _named("f_pndm", midpoint, "time", "midpoint")
    return Method(name, _f_pndm, (("midpoint", midpoint),), start=(4, 4, 4), history=3, orders=Orders(ode=2), reference=_LIU)


@constructor
def plms() -> Method:
    """PLMS as in latent diffusion: a pseudo improved Euler step, then Adams-Bashforth weights of equal steps of order 2, 3, 4.

    ``N + 1`` model calls; order 2.
    """
    reference = f"{_LIU}; Rombach et al. 2022, arXiv:2112.10752 (code)"
    return Method("plms", _plms, (("order", 4),), start=(2,), history=3, orders=Orders(ode=2), reference=reference)


@constructor
def ipndm(order: int = 4) -> Method:
    """Improved PNDM: Adams-Bashforth weights of equal steps of order 1, 2, ... up to ``order``, with no other start.

    ``N`` model calls; order 1 is DDIM, all others have order 2 on grids that are not uniform in sigma.  Among the best at ten calls or fewer.

    Parameters
    ----------
    order : int
        1, 2, 3 or 4.

    Raises
    ------
    BadInput
        For another order.
    """
    if whole("order", order) > 4:
        raise BadInput(f"order = {order} must be 1, 2, 3 or 4")
    orders = Orders(ode=min(order, 2))
    return Method(f"ipndm({order})", _ipndm, (("order", order),), history=order - 1, orders=orders, reference="Zhang and Chen 2022, arXiv:2204.13902")


@constructor
def pndm(clock: str = "log") -> Method:
    r"""PNDM of order 4 for every process, at ``N + 2`` model calls: exact weights, and a start as accurate as they are.

    .. math:: z_s = T(s, t)\, z_t - \sum_{j<4} \Big(\int_s^t \ell_j(u_r)\, T(s, r)\, \tfrac12 G G^T R_r^{-T}\, dr\Big)\, \epsilon_{i-j},

    :math:`\ell_j` the Lagrange basis of the last four times on the clock ``u``.  The first step is a Runge-Kutta step of order 3 with stages at 1/3
    and 2/3 of it in ``u``:

    .. math:: z_{1/3} = \phi(z, \epsilon_0), \qquad z_{2/3}, z_1: \text{ lines through } (\epsilon_0, \epsilon_{1/3}), (\epsilon_0, \epsilon_{2/3}),

    the second goes through :math:`\epsilon_1, \epsilon_{2/3}, \epsilon_0`, the third through the three states so far; from then on it is :func:`deis`
    of order 4.  Each of the three has local error :math:`O(h^4)`, so that the global order is 4; runs of up to three steps have order 3.

    Parameters
    ----------
    clock : {"log", "sigma", "time"}
        Variable of the polynomials.  Any has order 4 on smooth grids; take one in which the grid's steps are nearly equal: "log" for ``logsnr`` and
        ``karras``, "time" for ``uniform``, "sigma" for the labels of a table.  Extrapolation in "log" over the last step of a uniform
        grid, a fifth of all of it, costs a factor of 15 to 50 at 20 to 50 steps.

    Raises
    ------
    BadInput
        For another clock.

    Notes
    -----
    The published start costs seven calls more and, with the published weights, leaves order 2.  Below some ten calls :func:`ipndm` is better.
    """
    name, reference = _named("pndm", clock, "log", "clock"), f"{_LIU}, with exact weights (Zhang and Chen 2022, arXiv:2204.13902)"
    return Method(name, _pndm, (("clock", clock),), start=(3,), history=3, orders=Orders(ode=4), reference=reference)


@constructor
def fon(released: bool = False) -> Method:
    r"""FON, the classical fourth-order method that PNDM is compared with: three Runge-Kutta steps, then Adams-Bashforth, on ``dz/dt``.

    .. math:: z_s = z_t - \sum_{j<4} \Big(\int_s^t \ell_j(r)\, dr\Big) f(z_{t_{i-j}}, t_{i-j}), \qquad f = F z - \tfrac12 G G^T s.

    ``N + 9`` model calls, order 4; on equal steps the weights are 55, -59, 37, -9 over 24.  It has no exact linear part: on the normal
    directions of the data, where pseudo methods are exact, it leaves too much noise near ``t = 0``.

    Parameters
    ----------
    released : bool
        As in the released code: the derivative is the transfer over one training index ``T/1000``, divided by it; the Runge-Kutta stages take
        eps at the stage but transfer the state at the start of the step; weights of equal steps.  The bias ``O(T/1000)`` remains however small
        the steps: no order is claimed.
    """
    if released:
        return Method("fon(released=True)", _fon_released, start=(4, 4, 4), history=3, reference=f"{_LIU} (code)")
    return Method("fon", _fon, start=(4, 4, 4), history=3, orders=Orders(ode=4), reference=_LIU)


SHIPPED = {
    "pndm": pndm,
    "s_pndm": s_pndm,
    "f_pndm": f_pndm,
    "plms": plms,
    "ipndm": ipndm,
    "prk": prk,
    "pseudo_improved_euler": pseudo_improved_euler,
    "fon": fon,
}
