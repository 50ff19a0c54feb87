r"""Pseudo methods for any semi-linear problem :math:`x' = L(t)\,x + b(t)\,g(x, t)` whose linear part is known in closed form.

What a pseudo method needs of the linear part is its propagator :math:`\Phi(s, t)` and the integrals of a polynomial against it,

.. math:: x_s = \Phi(s, t)\, x_t + \sum_j \Big(\int_t^s \Phi(s, r)\, b(r)\, \ell_j(r)\, dr\Big)\, g_j,

so that the stiffness of ``L`` never limits the step.  The integrals are exact: a method is exact where ``g`` is constant, and has its order
where ``g`` is smooth along the solution; a transient as fast as ``L`` that enters ``g`` lowers it while it lasts.

>>> import numpy as np, sdekit as sk
>>> part = sk.semilinear.constant(np.array([[0.0, 1.0], [-1e4, -1e4]]))
>>> path = sk.semilinear.solve(part, lambda x, t: np.array([0.0, np.cos(t)]), np.ones(2), np.linspace(0.0, 1.0, 11))
>>> path.shape
(11, 2)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import BadInput, whole
from .kernel import gauss
from .reverse import lagrange

Array = NDArray[np.float64]
Field = Callable[[Array, float], ArrayLike]

__all__ = ["Linear", "Step", "adams", "constant", "euler", "improved_euler", "runge_kutta", "solve", "varying"]

_NODES = 20


class Linear(Protocol):
    """The linear part.  Its values are numbers, vectors (d,) that act on each coordinate, or matrices (d, d)."""

    def propagator(self, t: float, s: float) -> Array:
        r""":math:`\Phi(s, t)`, from ``t`` to ``s``."""
        ...

    def weights(self, t: float, s: float, nodes: Sequence[float]) -> Array:
        r""":math:`\int_t^s \Phi(s, r)\, b(r)\, \ell_j(r)\, dr` for the Lagrange basis of the nodes, (len(nodes), ...)."""
        ...


class _Constant:
    """``L`` and ``b`` that do not depend on time: phi functions, from the exponential of one augmented matrix; equal steps share it."""

    def __init__(self, L: Array, b: Array) -> None:
        self.L, self.b = L, b
        self._moments = lru_cache(maxsize=256)(self._integrate)

    def propagator(self, t: float, s: float) -> Array:
        return self._moments(s - t, 0)[0]

    def weights(self, t: float, s: float, nodes: Sequence[float]) -> Array:
        h, n = s - t, len(nodes)
        places = (np.asarray(nodes) - t) / h
        basis = np.linalg.inv(places[:, None] ** np.arange(n)).T  # l_j = sum_k basis[j, k] x^k
        return np.asarray(np.tensordot(basis, self._moments(h, n)[1], axes=1))

    def _integrate(self, h: float, n: int) -> tuple[Array, Array]:
        r""":math:`e^{hL}`, and :math:`h \int_0^1 e^{(1-x) h L} x^k dx\, b = h\, k!\, \varphi_{k+1}(h L)\, b` for k < n."""
        from scipy.linalg import expm

        matrix = self.L.ndim == 2
        L = self.L if matrix else self.L[..., None, None]
        d, batch = L.shape[-1], L.shape[:-2]
        big = np.zeros((*batch, d * (n + 1), d * (n + 1)))
        big[..., :d, :d] = h * L
        for k in range(n):
            big[..., k * d : (k + 1) * d, (k + 1) * d : (k + 2) * d] = np.eye(d)
        blocks = np.moveaxis(expm(big)[..., :d, :].reshape(*batch, d, n + 1, d), -2, 0)
        phi = blocks[1:] * (h * np.cumprod([1.0, *range(1, n)])[:n]).reshape(n, *(1,) * L.ndim)
        if not matrix:
            return blocks[0, ..., 0, 0], phi[..., 0, 0] * self.b
        return blocks[0], phi @ self.b if self.b.ndim == 2 else phi * self.b


@dataclass(frozen=True, eq=False)
class _Varying:
    """A propagator that is known, and weights by Gauss quadrature of it."""

    given: Callable[[float, float], ArrayLike]
    b: Callable[[float], ArrayLike]
    panels: int

    def propagator(self, t: float, s: float) -> Array:
        return np.asarray(self.given(t, s), float)

    def weights(self, t: float, s: float, nodes: Sequence[float]) -> Array:
        x, w = gauss(_NODES)
        part = (s - t) / self.panels
        r = (t + part * (np.arange(self.panels)[:, None] + x)).ravel()
        pull = np.stack([_product(self.propagator(at, s), np.asarray(self.b(at), float)) for at in r.tolist()])
        return np.asarray(np.tensordot(lagrange(nodes, r) * np.tile(part * w, self.panels), pull, axes=1))


def _product(a: Array, b: Array) -> Array:
    """``a b`` where each is a number, a diagonal or a matrix."""
    if a.ndim == 2 and b.ndim == 2:
        return np.asarray(a @ b)
    return np.asarray(a[:, None] * b if a.ndim == 1 and b.ndim == 2 else a * b)


def _act(a: Array, x: Array) -> Array:
    """A number, a diagonal or a matrix on the first axis of ``x``."""
    if a.ndim == 2:
        return np.tensordot(a, x, axes=1)
    return np.asarray(a.reshape(*a.shape, *(1,) * (x.ndim - a.ndim)) * x)


def constant(L: ArrayLike, b: ArrayLike = 1.0) -> Linear:
    """The linear part with constant ``L`` and ``b``: exact however stiff.

    Parameters
    ----------
    L : number, array (d,) or (d, d)
        The rate of all coordinates, of each, or the matrix.
    b : number, array (d,) or (d, d)
        In front of ``g``; a matrix only if ``L`` is one.

    Raises
    ------
    BadInput
        For values that are not finite or shapes that do not fit.
    """
    rate, front = np.asarray(L, float), np.asarray(b, float)
    fits = rate.ndim <= 2 and front.ndim <= rate.ndim and len({*rate.shape, *front.shape}) <= 1
    if not (fits and np.all(np.isfinite(rate)) and np.all(np.isfinite(front))):
        raise BadInput(f"L has shape {rate.shape} and b {front.shape}: L must be a finite number, (d,) or (d, d), and b one of no more axes")
    return _Constant(rate, front)


def varying(propagator: Callable[[float, float], ArrayLike], b: Callable[[float], ArrayLike] = lambda _: 1.0, panels: int = 1) -> Linear:
    r"""The linear part with a known propagator; the integrals are Gauss quadratures with 20 nodes on each of ``panels`` parts of a step.

    Parameters
    ----------
    propagator : callable
        ``propagator(t, s)`` is :math:`\Phi(s, t)`, from ``t`` to ``s``: a number, (d,) or (d, d).
    b : callable
        ``b(t)``, likewise.
    panels : int
        More for a propagator that decays much within a step.
    """
    return _Varying(propagator, b, whole("panels", panels))


class Step:
    """What a method sees of one step.

    Attributes
    ----------
    x : array
        The state at ``t``.
    t, s : float
    i : int
        Number of the step.
    past : list of (time, value)
        Values of ``g`` that earlier steps kept, newest first; a method writes here what the next step gets.
    """

    def __init__(self, linear: Linear, field: Field, x: Array, t: float, s: float, i: int, past: list[tuple[float, Array]]) -> None:
        self.linear, self.field, self.x, self.t, self.s, self.i, self.past = linear, field, x, t, s, i, past

    def ask(self, x: Array, at: float) -> tuple[float, Array]:
        """The value of ``g`` there, with its time."""
        return at, np.asarray(self.field(x, at), float)

    def to(self, end: float, values: Sequence[tuple[float, Array]]) -> Array:
        """The state at ``end`` with the polynomial through ``values`` in the place of ``g``."""
        out = _act(self.linear.propagator(self.t, end), self.x)
        weights = self.linear.weights(self.t, end, [at for at, _ in values])
        return np.asarray(out + sum(_act(w, g) for w, (_, g) in zip(weights, values, strict=True)))


Method = Callable[[Step], Array]


def euler(step: Step) -> Array:
    """``g`` frozen at the start: order 1; DDIM."""
    return step.to(step.s, [step.ask(step.x, step.t)])


def improved_euler(step: Step) -> Array:
    """The line through ``g`` at both ends, the second at Euler's result: order 2."""
    first = step.ask(step.x, step.t)
    return step.to(step.s, [first, step.ask(step.to(step.s, [first]), step.s)])


def runge_kutta(step: Step) -> Array:
    r"""Pseudo Runge-Kutta: transfers from the start to both stages and the end, :math:`\tfrac16 (g_1 + 2 g_2 + 2 g_3 + g_4)` frozen; order 2."""
    middle = 0.5 * (step.t + step.s)
    values = [step.ask(step.x, step.t)[1]]
    for at in (middle, middle, step.s):
        values.append(step.ask(step.to(at, [(step.t, values[-1])]), at)[1])
    return step.to(step.s, [(step.t, (values[0] + 2.0 * values[1] + 2.0 * values[2] + values[3]) / 6.0)])


def _third_order(step: Step) -> Array:
    """Stages at 1/3 and 2/3, where two nodes integrate quadratics too; the second stays a node of the next step."""
    first = step.ask(step.x, step.t)
    one, two = (step.t + part * (step.s - step.t) for part in (1 / 3, 2 / 3))
    second = step.ask(step.to(one, [first]), one)
    third = step.ask(step.to(two, [first, second]), two)
    step.past[:] = [third, first]
    return step.to(step.s, [first, third])


def adams(order: int = 4) -> Method:
    """Adams-Bashforth method with exact weights.

    Orders 3 and 4 start with a Runge-Kutta step of order 3, and have their order from the start: ``N + 2`` calls, ``N`` for orders 1 and 2.

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

    def method(step: Step) -> Array:
        if order > 2 and step.i == 0:
            return _third_order(step)
        values = [step.ask(step.x, step.t), *step.past]
        step.past[:] = ([values[0], values[-1]] if order > 2 and step.i == 1 else values)[: order - 1]
        return step.to(step.s, values)

    return method


def solve(linear: Linear, g: Field, x: ArrayLike, times: ArrayLike, method: Method | None = None) -> Array:
    """The solution at ``times``.

    Parameters
    ----------
    linear : Linear
        ``constant(L, b)``, ``varying(propagator, b)``, or the user's own.
    g : callable
        ``g(x, t)``, an array of the shape of ``x``.
    x : array (d, ...)
        The state at the first time.
    times : array (n + 1,)
        Increasing or decreasing.
    method : callable, optional
        ``adams(4)`` when absent.

    Returns
    -------
    array (n + 1, d, ...)

    Raises
    ------
    BadInput
        Unless the times are finite and strictly monotone.
    """
    grid, state = np.asarray(times, float), np.asarray(x, float)
    steps = np.diff(grid) if grid.ndim == 1 else np.zeros(1)
    if not (len(steps) and np.all(np.isfinite(grid)) and (np.all(steps > 0.0) or np.all(steps < 0.0))):
        raise BadInput(f"times = {times!r} must be at least two finite times, all increasing or all decreasing")
    advance = adams() if method is None else method
    past: list[tuple[float, Array]] = []
    out = [state]
    for i, (t, s) in enumerate(pairwise(grid.tolist())):
        out.append(advance(Step(linear, g, out[-1], t, s, i, past)))
    return np.stack(out)
