r"""The exponential multistep family: one call of the model a step, a polynomial through its last answers, and a corrector if there is one.

With :math:`dW(r)` the weight of the answer ``A`` (the data or eps) at ``r``, a step ``t -> s`` of the reverse equation is

.. math:: z_s = T z_t + \int_t^s A(r)\,dW(r) + C \xi .

The predictor puts the polynomial through the last ``predict`` answers in the place of ``A``.  The model is asked where that leads; the
polynomial through the last ``correct`` answers, the new one included, then takes its place in the same step, with the same :math:`\xi`: the
state moves by the difference of two integrals.  The next prediction starts from there, without another call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..propagation import Loudness, loudness
from ..reverse import EpsilonFlow, Flow, Leg
from ..tableau import Rows, Step
from ._record import Method, Orders

Array = NDArray[np.float64]

__all__ = ["multistep", "shown"]


class _Polynomial(NamedTuple):
    """A polynomial through answers, integrated over one step: what a published rule may read.

    ``nodes`` and ``first``: where the answers and the start of the step are on the clock; ``h``: length of the step there;
    ``weights``: exact ones, (n, k, m); ``density``: makes ``dW/du`` at the end of the step.
    """

    nodes: Array
    first: float
    h: float
    weights: Array
    density: Callable[[], Array]

    def moment(self, degree: int) -> Array:
        """The integral of ``(u - u_t)^degree dW``."""
        return np.tensordot((self.nodes - self.first) ** degree, self.weights, axes=1)


_RULES: dict[str, tuple[int, Callable[[_Polynomial], Array]]] = {
    "midpoint": (2, lambda p: 0.5 * p.h * p.moment(0) - p.moment(1)),
    "end": (2, lambda p: 0.5 * p.h**2 * p.density() - p.moment(1)),
    "half": (3, lambda p: -0.5 * p.moment(2)),
    "last slope": (3, lambda p: (p.nodes[1] - p.nodes[0]) * p.moment(1)),
}
"""Published simplifications: the number of answers that they apply to, and what they add to the weight of the highest difference."""


def _density(leg: Leg, i: int, of: str) -> Array:
    r"""``dW/du`` at time ``i``, from :math:`dW = c\,G G^T S^{-1} \psi\,dr` and :math:`du/dr = -\tfrac12 \sigma^2 |G^T S^{-1} \psi|^2`.

    For one block ``(1 + noise^2) psi`` of data and ``-(1 + noise^2) chol`` of eps.
    """
    point = leg.points[i]
    along = point.observe[0] / point.sigma**2
    answer = along[:, None] if of == "data" else -np.linalg.inv(leg.roots[i]).T
    factor = 1.0 + loudness(leg.reverse.noise, np.asarray(point.sigma)) ** 2
    return np.asarray(factor * point.pull @ answer / (point.sigma**2 * along @ point.pull @ along))


def _flow(leg: Leg, i: int, of: str) -> tuple[Array, Flow | EpsilonFlow]:
    if of == "data":
        return leg.flows[i].gain, leg.flows[i]
    return leg.epsilon_flows[i].back, leg.epsilon_flows[i]


def _integral(step: Step, i: int, newest: int, past: Sequence[Array], of: str, clock: str, rule: str) -> Array:
    """Over step ``i`` of the leg, the integral of the polynomial through ``past``, the answers at ``newest``, ``newest - 1``, ..."""
    leg = step.leg
    nodes = np.array([leg.points[newest - j].on(clock) for j in range(len(past))])
    weights = _flow(leg, i, of)[1].weights(list(nodes), clock).reshape(len(past), len(step.z), -1)
    if rule in _RULES and _RULES[rule][0] == len(past):
        first, last = leg.points[i].on(clock), leg.points[i + 1].on(clock)
        gaps = nodes[:, None] - nodes
        np.fill_diagonal(gaps, 1.0)
        change = _RULES[rule][1](_Polynomial(nodes, first, last - first, weights, lambda: _density(leg, i + 1, of)))
        weights = weights + np.multiply.outer(1.0 / np.prod(gaps, axis=1), change)
    return np.asarray(sum(w @ a for w, a in zip(weights, past, strict=True)))


def _rows(step: Step, predict: int, correct: int, of: str, clock: str, rule: str) -> Rows:
    answer = step.ask(step.z, step.here)
    new = answer.data if of == "data" else -step.leg.roots[step.i].T @ answer.score
    past, i, how = [new, *step.memory], step.i, (of, clock, rule)
    z = step.z
    if correct and i:
        z = z + _integral(step, i - 1, i, past[:correct], *how) - _integral(step, i - 1, i - 1, past[1 : predict + 1], *how)
    gain, flow = _flow(step.leg, i, of)
    out = gain @ z + _integral(step, i, i, past[:predict], *how)
    if step.leg.reverse.noisy:
        out = out + flow.chol @ step.noise(len(flow.chol))
    return step.rows(out, keep=past[: max(predict, correct - 1) if correct else predict - 1])


def shown(noise: Loudness) -> str:
    """A noise level as names show it."""
    return getattr(noise, "__name__", repr(noise)) if callable(noise) else f"{noise:g}"


def multistep(
    name: str,
    predict: int,
    correct: int = 0,
    *,
    of: str = "data",
    noise: Loudness = 0.0,
    clock: str = "log",
    rule: str = "exact",
    orders: Orders,
    reference: str,
) -> Method:
    """The method with ``predict`` answers in its predictor and ``correct`` in its corrector (0: none), interpolated on ``clock``."""
    params = (("predict", predict), ("correct", correct), ("of", of), ("clock", clock), ("rule", rule))
    return Method(name, _rows, params, noise=noise, history=max(predict, correct) - 1, orders=orders, reference=reference)
