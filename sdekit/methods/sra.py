r"""Stochastic Runge-Kutta methods for additive noise, on the reverse SDE in ``(z, t)``, of strong order 1.5: Roessler's SRA and the stable SOSRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, positive, whole
from ..tableau import Rows, Step
from ._record import Method, Orders, constructor
from .runge_kutta import Tableau, explicit, fractions

Array = NDArray[np.float64]

__all__ = ["SCHEMES", "STABLE", "Scheme", "sosra", "sra"]


@dataclass(frozen=True)
class Scheme:
    """The numbers of a method: a tableau for the drift, and those of the noise.

    Attributes
    ----------
    drift : Tableau
    spread : tuple of tuples
        What the area adds to each stage, by the stages' noise: row ``i`` has ``i`` entries.
    at : tuple
        Where the noise is taken, as parts of the step.
    increment, area : tuples
        Weights of the increment and of the area in the result.
    """

    drift: Tableau
    spread: tuple[tuple[Fraction, ...], ...]
    at: tuple[Fraction, ...]
    increment: tuple[Fraction, ...]
    area: tuple[Fraction, ...]


def _scheme(drift: Tableau, spread: Sequence[str], at: str, increment: str, area: str) -> Scheme:
    return Scheme(drift, ((), *map(fractions, spread)), fractions(at), fractions(increment), fractions(area))


_TWO = explicit(2, ["3/4"], "1/3 2/3", "Roessler 2010")
SCHEMES = {
    1: _scheme(_TWO, ["3/2"], "1 0", "1 0", "-1 1"),
    2: _scheme(_TWO, ["3/2"], "1/3 1", "0 1", "3/2 -3/2"),
    3: _scheme(explicit(3, ["1", "1/4 1/4"], "1/6 1/6 2/3", "Roessler 2010"), ["0", "1 1/2"], "1 0 0", "1 0 0", "-1 1 0"),
}
"""SRA1, SRA2 and SRA3."""

_STABLE = "Rackauckas and Nie 2020"
STABLE = {
    1: _scheme(
        explicit(
            2, [".6923962376159507", "-3.1609142252828395 4.1609142252828395"], ".2889874966892885 .6859880440839937 .025024459226717772", _STABLE
        ),
        ["1.3371632704399763", "1.442371048468624 1.8632741501139225"],
        "0 .041248171110700504 1",
        "-16.792534242221663 17.514995785380226 .27753845684143835",
        ".4237535769069274 .6010381474428539 -1.0247917243497813",
    ),
    2: _scheme(
        explicit(2, ["1", ".9511849235504364 .0488150764495636"], ".5 -.9683897375354181 1.4683897375354181", _STABLE),
        [".7686101171003622", ".43886792994934987 .7490415909204886"],
        "0 1 1",
        "0 .92438032145683 .07561967854317",
        "1 -.8169981105823436 -.1830018894176564",
    ),
}
"""SOSRA and SOSRA2, last digits such that the nodes are where they should be."""


def _rows(step: Step, table: Scheme) -> Rows:
    drift = table.drift
    parts = sorted({c for c in (*drift.c, *table.at) if 0 < c < 1})
    stages = step.stages("time", *map(float, parts))
    places = [0, *parts, 1]
    points = [stages.point(places.index(c)) for c in drift.c]
    spreads = [stages.point(places.index(c)).noise for c in table.at]
    channels = step.here.noise.shape[-1]
    first, second = step.noise(channels), step.noise(channels)
    increment = np.sqrt(step.h) * first
    area = 0.5 * np.sqrt(step.h) * (first + second / np.sqrt(3.0))  # int_0^h W du / h
    increments, areas = ([g @ normals for g in spreads] for normals in (increment, area))
    slopes: list[Array] = []

    def mix(weights: Sequence[Fraction], values: Sequence[Array]) -> Array:
        return sum((float(w) * v for w, v in zip(weights, values, strict=False) if w != 0), np.zeros_like(step.z))

    for point, row, spread in zip(points, drift.a, table.spread, strict=True):
        z = step.z - step.h * mix(row, slopes) + mix(spread, areas)
        slopes.append(point.drift(z, step.ask(z, point).score))
    out = step.z - step.h * mix(drift.b, slopes) + mix(table.increment, increments) + mix(table.area, areas)
    return step.rows(out, embedded=step.z - step.h * slopes[0] + step.here.noise @ increment)


@constructor
def sra(scheme: int = 1, noise: float = 1.0) -> Method:
    r"""Roessler's stochastic Runge-Kutta methods SRA1, SRA2 and SRA3 for additive noise: strong order 1.5, weak order 2.

    .. math:: Z_i &= z_t - h \sum_{j<i} a_{ij} f(Z_j, t - c_j h) + \sum_{j<i} b_{ij}\, g(t - d_j h)\, I_{10} / h, \\
              z_s &= z_t - h \sum_i \alpha_i f(Z_i, t - c_i h) + \sum_i \big[\beta_i I_1 + \gamma_i I_{10} / h\big] g(t - d_i h), \\
              I_1 &= \sqrt h\,\xi_1, \qquad I_{10} = \tfrac12 h^{3/2} \big(\xi_1 + \xi_2 / \sqrt3\big), \qquad g = \lambda G,

    with two normals a step and channel: the first slots are the increments :math:`I_1` of the noise, the others complete its areas
    :math:`I_{10} = \int_0^h W\,du`.  Two model calls a step, SRA3 has three; the embedded result is Euler-Maruyama's.

    Parameters
    ----------
    scheme : int
        1, 2 or 3.
    noise : float
        :math:`\lambda > 0`: 1 for the reverse SDE.

    Raises
    ------
    BadInput
        For another scheme, or ``noise=0`` (take :func:`runge_kutta`).

    References
    ----------
    Roessler 2010, SIAM J. Numer. Anal. 48, "Runge-Kutta methods for the strong approximation of solutions of stochastic differential equations".
    """
    return _made("sra", SCHEMES, scheme, noise, "Roessler 2010")


@constructor
def sosra(scheme: int = 1, noise: float = 1.0) -> Method:
    r"""SOSRA and SOSRA2: the equation of :func:`sra` with three calls and numbers for long steps; strong order 1.5, weak order 2.

    On :math:`dx = -\lambda x\,dt + \sigma\,dw` they are stable up to :math:`\lambda h = 5.3`, where SRA1 is up to 2 and SRA3 up to 2.5.

    Parameters
    ----------
    scheme : int
        1 (SOSRA) or 2 (SOSRA2).
    noise : float
        :math:`\lambda > 0`: 1 for the reverse SDE.

    Raises
    ------
    BadInput
        For another scheme, or ``noise=0``.

    References
    ----------
    Rackauckas and Nie 2020, "Stability-optimized high order methods and stiffness detection for pathwise stiff stochastic differential equations".
    """
    return _made("sosra", STABLE, scheme, noise, _STABLE)


def _made(family: str, schemes: dict[int, Scheme], scheme: int, noise: float, reference: str) -> Method:
    if whole("scheme", scheme) not in schemes:
        raise BadInput(f"scheme = {scheme} of {family} must be one of {', '.join(map(str, schemes))}")
    positive("noise", noise)
    table = schemes[scheme]
    name = f"{family}({scheme}" + (f", noise={noise:g}" if noise != 1.0 else "") + ")"
    orders = Orders(weak=2, strong=1.5)
    return Method(name, _rows, (("table", table),), noise=noise, asks=len(table.drift.b), orders=orders, reference=reference)


SHIPPED = {"sra1": sra, "sra3": lambda: sra(3), "sosra": sosra}
