r"""Runge-Kutta methods: Heun's, and explicit tableaus in ``(z, t)`` and behind the exact transfer of the linear part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import unknown
from ..reverse import CLOCKS, Point, Stages, number
from ..tableau import Rows, Step
from ._record import Method, Orders, constructor

Array = NDArray[np.float64]

__all__ = ["TABLEAUS", "Tableau", "heun", "lamba", "rho_rk", "runge_kutta"]


def _heun(step: Step) -> Rows:
    first = step.here.drift(step.z, step.ask(step.z, step.here).score)
    guess, mean = step.z - step.h * first, step.z
    if step.leg.reverse.noisy:
        a, b = step.here.noise, step.there.noise
        normals = np.sqrt(step.h) * step.noise(a.shape[-1])
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
    orders = Orders(ode=2) if noise == 0.0 else Orders(weak=2, strong=1)
    name = "heun" if noise == 0.0 else f"heun(noise={noise:g})"
    return Method(name, _heun, noise=noise, asks=2, orders=orders, reference="Karras et al. 2022, arXiv:2206.00364, Algorithm 1")


def _lamba(step: Step) -> Rows:
    first = step.here.drift(step.z, step.ask(step.z, step.here).score)
    guess = step.z - step.h * first
    second = step.there.drift(guess, step.ask(guess, step.there).score)
    spread = step.here.noise
    normals = np.sqrt(step.h) * spread @ step.noise(spread.shape[-1]) if step.leg.reverse.noisy else 0.0
    return step.rows(step.z - 0.5 * step.h * (first + second) + normals, embedded=guess + normals)


@constructor
def lamba(noise: float = 1.0) -> Method:
    r"""Lamba's pair: Euler-Maruyama, and the same with Heun's drift; the noise is added after both, so that the estimate does not see it.

    .. math:: m = z_t - h f(z_t, t), \qquad z_s = z_t - \tfrac h2 \big[f(z_t, t) + f(m, s)\big] + \sqrt h\, g_t \xi,

    and the embedded result :math:`m + \sqrt h\, g_t \xi`.  Two model calls a step, weak order 1: a baseline.

    Parameters
    ----------
    noise : float
        :math:`\lambda`: 1 for the reverse SDE.

    References
    ----------
    Lamba 2003, J. Comput. Appl. Math. 161; Jolicoeur-Martineau et al. 2021, arXiv:2105.14080, the ablation.
    """
    name = "lamba" if noise == 1.0 else f"lamba(noise={noise:g})"
    orders = Orders(ode=2) if noise == 0.0 else Orders(weak=1, strong=1)
    return Method(name, _lamba, noise=noise, asks=2, orders=orders, reference="Lamba 2003")


# ---------------------------------------------------------------------------------------------------------------- tableaus


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method as exact numbers.

    Attributes
    ----------
    order : int
    a : tuple of tuples
        Row ``i`` has ``i`` entries; the first is empty.  The nodes ``c`` are the sums of the rows.
    b : tuple
        Weights of the stages.
    embedded_order : int
    embedded : tuple or None
        Weights of a second result, for error control.
    reference : str
    """

    order: int
    a: tuple[tuple[Fraction, ...], ...]
    b: tuple[Fraction, ...]
    embedded_order: int
    embedded: tuple[Fraction, ...] | None
    reference: str

    @property
    def c(self) -> tuple[Fraction, ...]:
        """Where the stages are, as parts of the step."""
        return tuple(sum(row, Fraction(0)) for row in self.a)

    @property
    def reuses_last(self) -> bool:
        """Whether the last stage is the result itself, so that its answer serves the next step."""
        return self.a[-1] == self.b[:-1] and self.b[-1] == 0


def fractions(text: str) -> tuple[Fraction, ...]:
    """The numbers in ``text``."""
    return tuple(Fraction(word) for word in text.split())


def explicit(order: int, rows: Sequence[str], b: str, reference: str, embedded: tuple[int, str] | None = None) -> Tableau:
    """The tableau with the given rows below the first, weights, and order and weights of the embedded result."""
    low, second = (0, None) if embedded is None else (embedded[0], fractions(embedded[1]))
    return Tableau(order, ((), *map(fractions, rows)), fractions(b), low, second, reference)


TABLEAUS = {
    "heun": explicit(2, ["1"], "1/2 1/2", "Heun 1900", (1, "1 0")),
    "midpoint": explicit(2, ["1/2"], "0 1", "Runge 1895", (1, "1 0")),
    "ralston": explicit(2, ["2/3"], "1/4 3/4", "Ralston 1962", (1, "1 0")),
    "heun3": explicit(3, ["1/3", "0 2/3"], "1/4 0 3/4", "Heun 1900"),
    "kutta3": explicit(3, ["1/2", "-1 2"], "1/6 2/3 1/6", "Kutta 1901", (2, "0 1 0")),
    "rk4": explicit(4, ["1/2", "0 1/2", "0 0 1"], "1/6 1/3 1/3 1/6", "Kutta 1901"),
    "three_eighths": explicit(4, ["1/3", "-1/3 1", "1 -1 1"], "1/8 3/8 3/8 1/8", "Kutta 1901"),
    "bogacki_shampine": explicit(
        3, ["1/2", "0 3/4", "2/9 1/3 4/9"], "2/9 1/3 4/9 0", "Bogacki and Shampine 1989", (2, "7/24 1/4 1/3 1/8")
    ),
    "cash_karp": explicit(
        5,
        [
            "1/5",
            "3/40 9/40",
            "3/10 -9/10 6/5",
            "-11/54 5/2 -70/27 35/27",
            "1631/55296 175/512 575/13824 44275/110592 253/4096",
        ],
        "37/378 0 250/621 125/594 0 512/1771",
        "Cash and Karp 1990",
        (4, "2825/27648 0 18575/48384 13525/55296 277/14336 1/4"),
    ),
    "dormand_prince": explicit(
        5,
        [
            "1/5",
            "3/40 9/40",
            "44/45 -56/15 32/9",
            "19372/6561 -25360/2187 64448/6561 -212/729",
            "9017/3168 -355/33 46732/5247 49/176 -5103/18656",
            "35/384 0 500/1113 125/192 -2187/6784 11/84",
        ],
        "35/384 0 500/1113 125/192 -2187/6784 11/84 0",
        "Dormand and Prince 1980",
        (4, "5179/57600 0 7571/16695 393/640 -92097/339200 187/2100 1/40"),
    ),
}  # fmt: skip
"""Explicit Runge-Kutta methods by name."""

Place = Callable[[int, Array], Array]
Slope = Callable[[int, Array, Array], Array]


def _stages(step: Step, clock: str, tableau: Tableau) -> tuple[Stages, list[int]]:
    """The step's stages, and the number of each row's own."""
    parts = sorted({c for c in tableau.c if 0 < c < 1})
    return step.stages(clock, *map(float, parts)), [[0, *parts, 1].index(c) for c in tableau.c]


def _march(step: Step, tableau: Tableau, points: Sequence[Point], first: Array, place: Place, slope: Slope) -> Rows:
    """Rows of ``tableau``, given the score at the start, the state at a row's stage by its mean slope, and the slope there by state and score."""
    slopes = [slope(0, step.z, first)]
    score = first

    def mean(weights: Sequence[Fraction]) -> Array:
        parts = [float(w) * v for w, v in zip(weights, slopes, strict=False) if w != 0]
        return sum(parts, np.zeros_like(step.z))

    for i, row in enumerate(tableau.a[1:], 1):
        z = place(i, mean(row))
        score = step.ask(z, points[i]).score
        slopes.append(slope(i, z, score))
    second = None if tableau.embedded is None else place(-1, mean(tableau.embedded))
    return step.rows(place(-1, mean(tableau.b)), keep=[score] if tableau.reuses_last else [], embedded=second)


def _first(step: Step) -> Array:
    """The score at the start: kept by the step before, or asked."""
    return step.memory[0] if step.memory else step.ask(step.z, step.here).score


def _plain(step: Step, tableau: str) -> Rows:
    table = TABLEAUS[tableau]
    stages, places = _stages(step, "time", table)
    points = [stages.point(j) for j in places]

    def place(_: int, slope: Array) -> Array:
        return np.asarray(step.z - step.h * slope)

    def slope(i: int, z: Array, score: Array) -> Array:
        return points[i].drift(z, score)

    return _march(step, table, points, _first(step), place, slope)


def _method(name: str, rows: Callable[..., Rows], tableau: str, params: tuple[tuple[str, str], ...], reference: str = "") -> Method:
    table = TABLEAUS[tableau]
    stages = len(table.a)
    saves = int(table.reuses_last)
    start, history = ((stages,), 1) if saves else ((), 0)
    return Method(
        name,
        rows,
        (("tableau", tableau), *params),
        asks=stages - saves,
        start=start,
        history=history,
        orders=Orders(ode=table.order),
        reference=table.reference + reference,
    )


def _known(tableau: str) -> str:
    if tableau not in TABLEAUS:
        raise unknown("tableau", tableau, TABLEAUS)
    return tableau


@constructor
def runge_kutta(tableau: str = "rk4") -> Method:
    r"""An explicit Runge-Kutta method on the probability-flow ODE in ``z`` and ``t``.

    .. math:: Z_i = z_t - h \sum_{j<i} a_{ij} f(Z_j, t - c_j h), \qquad z_s = z_t - h \sum_i b_i f(Z_i, t - c_i h).

    One model call a stage; ``bogacki_shampine`` and ``dormand_prince`` save one, after the first step of a leg.  On thin data every method in
    ``(z, t)`` is unstable in the last steps unless they are short (see :func:`rho_rk`).

    Parameters
    ----------
    tableau : str
        A key of ``sdekit.methods.runge_kutta.TABLEAUS``: heun, midpoint, ralston, heun3, kutta3, rk4, three_eighths, bogacki_shampine,
        cash_karp, dormand_prince.

    Raises
    ------
    BadInput
        For another tableau.
    """
    return _method(f"runge_kutta({tableau})", _plain, _known(tableau), ())


# ---------------------------------------------------------------------------------------------------------------- exact transfer


def _speed(point: Point, clock: str) -> Any:
    """``dt / d clock``."""
    if clock == "time":
        return 1.0
    fall = number((point.observe @ point.pull @ np.swapaxes(point.observe, -1, -2))[..., 0, 0])  # sigma dsigma/dt, for the ODE
    return point.sigma / fall if clock == "sigma" else -(point.sigma**2) / fall


def _transferred(step: Step, tableau: str, clock: str) -> Rows:
    table = TABLEAUS[tableau]
    stages, places = _stages(step, clock, table)
    places.append(stages.n)  # the result, -1 below
    points = [stages.point(j) for j in places]
    first = _first(step)
    flows = [stages.epsilon_flow(0, j) for j in places[1:]]
    pushes = [_speed(point, clock) * point.pull for point in points]
    pushes[1:] = [np.asarray(np.linalg.solve(flow.back, push)) for flow, push in zip(flows, pushes[1:], strict=True)]
    kept = np.swapaxes(stages.root(0), -1, -2) @ first
    gone = [np.linalg.solve(np.swapaxes(stages.root(j), -1, -2), kept) for j in places]  # the score if eps stayed as it is
    h = step.there.on(clock) - step.here.on(clock)
    eps = -kept

    def place(i: int, slope: Array) -> Array:
        flow = flows[max(i - 1, -1)]
        return np.asarray(flow.back @ (step.z + h * slope) + flow.whole @ eps)

    def slope(i: int, _: Array, score: Array) -> Array:
        return np.asarray(pushes[i] @ (gone[i] - score))

    return _march(step, table, points, first, place, slope)


@constructor
def rho_rk(tableau: str = "rk4", clock: str = "sigma") -> Method:
    r"""An explicit Runge-Kutta method behind the exact transfer: DEIS's rhoRK, for every number of blocks.

    With the rotation-free root ``R`` and :math:`V = e^{-FB} R` the probability-flow ODE in :math:`v = e^{-FB} z` is :math:`dv = dV\,\epsilon(v)`.
    Each step applies the tableau to what is left of it once eps stays as it was at the start,

    .. math:: v = v_t + (V - V_t)\,\epsilon_t + w, \qquad \frac{dw}{du} = \frac{dV}{du} \big(\epsilon(v, u) - \epsilon_t\big), \qquad w_t = 0,

    on the clock ``u``.  So it has the order of the tableau for every process, and is exact where eps is constant (thin data), whatever the
    grid.  For one block and :math:`u = \sigma_{eff}` it is the tableau on :math:`dy/d\sigma = \epsilon`.

    Parameters
    ----------
    tableau : str
        As for :func:`runge_kutta`.
    clock : {"sigma", "log", "time"}
        Where stages are placed and slopes taken.  ``time`` does not divide by the speed of the level, which vanishes somewhere on underdamped
        processes; there every method needs a grid in time.

    Raises
    ------
    BadInput
        For another tableau or clock.
    """
    if clock not in CLOCKS:
        raise unknown("clock", clock, CLOCKS)
    name = f"rho_rk({tableau}" + (f", clock={clock}" if clock != "sigma" else "") + ")"
    return _method(name, _transferred, _known(tableau), (("clock", clock),), "; Zhang and Chen 2022, arXiv:2204.13902 (rhoRK)")


SHIPPED = {
    "heun": heun,
    "heun_sde": lambda: heun(noise=1.0),
    "lamba": lamba,
    "rk4": runge_kutta,
    "bogacki_shampine": lambda: runge_kutta("bogacki_shampine"),
    "rho_rk4": rho_rk,
}
