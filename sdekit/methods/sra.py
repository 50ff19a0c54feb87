r"""Stochastic Runge-Kutta methods for additive noise, on the reverse SDE in ``(z, t)``: Roessler's SRA family, of strong order 1.5."""

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

__all__ = ["SCHEMES", "Scheme", "sra"]


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


def _rows(step: Step, scheme: int) -> Rows:
    table = SCHEMES[scheme]
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
    if whole("scheme", scheme) not in SCHEMES:
        raise BadInput(f"scheme = {scheme} must be 1, 2 or 3 (SRA1, SRA2, SRA3)")
    positive("noise", noise)
    name = f"sra({scheme}" + (f", noise={noise:g}" if noise != 1.0 else "") + ")"
    return Method(
        name,
        _rows,
        (("scheme", scheme),),
        noise=noise,
        asks=len(SCHEMES[scheme].drift.b),
        orders=Orders(weak=2, strong=1.5),
        reference="Roessler 2010",
    )


SHIPPED = {"sra1": sra, "sra3": lambda: sra(3)}
