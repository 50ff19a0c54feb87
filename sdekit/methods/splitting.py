r"""Splitting integrators: the reverse equation is cut into parts that are easy alone, and a step runs them one after the other.

:func:`sscs` cuts the reverse SDE into its *stationary reversal*, which is solved exactly, and the rest of the score; :func:`splitting` cuts the
blocks of the state into the data block and the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, unknown, whole
from ..kernel import flow
from ..reverse import Point
from ..tableau import Rows, Step
from ._record import Method, Orders, constructor

Array = NDArray[np.float64]

__all__ = ["splitting", "sscs"]


def _stretch(step: Step, back: int = 0) -> float:
    """What the step, or the one ``back`` before it, covers of the unit clock."""
    clock, times = step.leg.reverse.process.clock, step.leg.times[step.i - back :]
    return float(clock.integral(times[0]) - clock.integral(times[1]))


def _carried(step: Step, z: Array, mean: Array, chol: Array) -> Array:
    """``E z + L xi`` with fresh normals; a column of ``L`` without noise draws none."""
    columns = chol[:, chol.any(axis=0)]
    return np.asarray(mean @ z + columns @ step.noise(columns.shape[1]))


# ---------------------------------------------------------------------------------------------------------------- SSCS


def _sscs_name(order: int, multistep: bool) -> str:
    return "sscs" if order == 1 else f"sscs(order=2{', multistep=True' if multistep else ''})"


def _sscs(step: Step, order: int, multistep: bool) -> Rows:
    process = step.leg.reverse.process
    try:
        law = process.stationary
    except BadInput as error:
        raise BadInput(f"{_sscs_name(order, multistep)} needs the stationary law: {error}") from None
    B, spread, back = _stretch(step), process.G @ process.G.T, np.linalg.solve(law, process.F @ law).T

    def pull(z: Array, point: Point) -> Array:
        return np.asarray(spread @ (step.ask(z, point).score + np.linalg.solve(law, z)))

    if multistep:
        mean, chol = flow(back, process.G, B)
        now = pull(step.z, step.here)
        z = step.z + B * now
        if step.memory:
            z = z + 0.5 * B * B / _stretch(step, back=1) * (now - step.memory[0])
        return step.rows(_carried(step, z, mean, chol), keep=[mean @ now])
    half = flow(back, process.G, 0.5 * B)
    z = _carried(step, step.z, *half)
    change = 0.0 * z
    for point in (step.here,) if order == 1 else (step.here, step.stages("time", 0.5).point(1)):
        change = B * pull(z + 0.5 * change, point)
    return step.rows(_carried(step, z + change, *half))


@constructor
def sscs(order: int = 1, multistep: bool = False) -> Method:
    r"""Symmetric splitting sampler of CLD, for every linear process with a stationary law :math:`N(0, \Sigma)`.

    With :math:`F = -(D + Q)\Sigma^{-1}`, the reverse SDE in the unit clock, run backwards in time, is the sum of

    .. math:: A:\; dz = \bar F z\,d\tau + G\,dW, \quad \bar F = -(D - Q)\Sigma^{-1} = \Sigma F^T \Sigma^{-1}, \qquad
              S:\; dz = g(z, t)\,d\tau, \quad g = G G^T \big(s(z, t) + \Sigma^{-1} z\big).

    ``A`` is the reversal of the stationary process, solved exactly; ``S`` vanishes at stationarity.  A step over the stretch ``B`` of the unit
    clock is ``A(B/2) S(B) A(B/2)``, each half with normals of its own.

    Parameters
    ----------
    order : int
        1: the published form, ``S`` by Euler's method with the score at the time of the step's start: one model call.
        2: ``S`` from the start to the end of the step by the midpoint Runge-Kutta method: two model calls.
    multistep : bool
        Order 2 with one call: ``S(B) A(B)``, with ``g`` extrapolated from the step before, which ``A`` has carried on:
        :math:`z_s = E\big(z_t + B g_t + \tfrac{B^2}{2 B_-}(g_t - E_- g_-)\big) + L \xi`, with ``E``, ``L`` the mean and noise of ``A`` over
        the step, and the minus for the step before.  The first step is of order 1.

    Raises
    ------
    BadInput
        For another order, or ``multistep`` with order 1; when the steps are written, on a process without a stationary law (``ve``, ``edm``).

    Notes
    -----
    The published form is of weak order 1: a symmetric composition is of order 2 only if each of its parts is.
    """
    if whole("order", order) > 2:
        raise BadInput(f"order = {order} must be 1 or 2")
    if multistep and order == 1:
        raise BadInput("multistep = True needs order = 2: with order 1 there is nothing to extrapolate")
    params, asks = (("order", order), ("multistep", bool(multistep))), 1 if multistep else order
    reference = "Dockhorn, Vahdat and Kreis 2022, arXiv:2112.07068; Pandey and Mandt 2023, arXiv:2303.01748"
    return Method(
        _sscs_name(order, multistep), _sscs, params, noise=1.0, asks=asks, history=int(multistep), orders=Orders(weak=order), reference=reference
    )


# ---------------------------------------------------------------------------------------------------------------- blocks

_SCHEMES: dict[str, Sequence[tuple[str, float, str]]] = {
    "nse": (("A", 1.0, "t"), ("B", 1.0, "t")),
    "rse": (("A", 1.0, "t"), ("B", 1.0, "=")),
    "nvv": (("B", 0.5, "t"), ("A", 1.0, "t"), ("B", 0.5, "t")),
    "rvv": (("B", 0.5, "t"), ("A", 1.0, "="), ("B", 0.5, "s")),
    "oba": (("O", 1.0, ""), ("B", 1.0, "t"), ("A", 1.0, "t")),
    "reduced_oba": (("O", 1.0, ""), ("B", 1.0, "t"), ("A", 1.0, "=")),
}
"""Parts in the order in which they run: the part, the fraction of the step, and its score: fresh with the time of the step's start ("t") or end
("s"), or the last one again ("=")."""


def _parts(step: Step, scheme: str) -> Rows:
    process, z = step.leg.reverse.process, step.z
    blocks = {"A": np.arange(process.k) == 0, "B": np.arange(process.k) > 0}
    inside = np.zeros(process.k)
    point, score = step.here, None
    for part, fraction, time in _SCHEMES[scheme]:
        if part == "O":
            try:
                inside = np.diag(process.F)
            except BadInput as error:
                raise BadInput(f"{_splitting_name(scheme)} needs a constant drift: {error}") from None
            z = _carried(step, z, *flow(np.diag(inside), process.G, fraction * _stretch(step)))
        elif blocks[part].any():
            if score is None or time != "=":
                point = step.there if time == "s" else step.here
                score = step.ask(z, point).score
            rate = float(process.clock.rate(point.t))
            drift = point.drift(z, score) + rate * inside[:, None] * z
            z = z - fraction * step.h * blocks[part][:, None] * drift
    return step.rows(z)


def _splitting_name(scheme: str) -> str:
    return f'splitting("{scheme}")'


@constructor
def splitting(scheme: str = "rvv") -> Method:
    r"""Splitting integrators in phase space: ``A`` moves the data block, ``B`` all others, each by Euler's method with the rest held.

    Without noise the parts are the rows of the probability-flow ODE, ``h`` the step and :math:`s(z, t)` the score:

    ============== ================================= =================================================================
    scheme         parts                             scores
    ============== ================================= =================================================================
    nse            ``A(h) B(h)``                     each fresh, at the time of the start (two calls)
    rse            ``A(h) B(h)``                     ``B`` takes the score of ``A`` again (one call)
    nvv            ``B(h/2) A(h) B(h/2)``            each fresh, at the time of the start (three calls)
    rvv            ``B(h/2) A(h) B(h/2)``            ``A`` takes the score of ``B`` again; the last at the end (two calls)
    oba            ``O B(h) A(h)``                   each fresh, at the time of the start (two calls)
    reduced_oba    ``O B(h) A(h)``                   ``A`` takes the score of ``B`` again (one call)
    ============== ================================= =================================================================

    With noise, ``O`` is the exact step of :math:`dz = \operatorname{diag}(F) z\,d\tau + G\,dW` (in the unit clock, run backwards in time), and
    ``B`` and ``A`` the rows of the rest of the reverse SDE, :math:`dz = [-(F + \operatorname{diag}(F)) z + G G^T s]\,d\tau`.

    Parameters
    ----------
    scheme : str

    Raises
    ------
    BadInput
        For an unknown scheme; when the steps are written, for the schemes with noise on a process whose drift varies in its own clock.

    Notes
    -----
    All are of order 1: the parts are, each alone, and the naive schemes take all scores at the time of the start.  With one block ``B`` is
    empty and costs nothing: the schemes without noise are then Euler's method.
    """
    if scheme not in _SCHEMES:
        raise unknown("scheme", scheme, _SCHEMES)
    parts = _SCHEMES[scheme]
    noisy, asks = any(part == "O" for part, _, _ in parts), sum(time in {"t", "s"} for _, _, time in parts)
    reference = "Pandey, Rudolph and Mandt 2024, arXiv:2310.07894 and arXiv:2402.07211"
    orders = Orders(weak=1) if noisy else Orders(ode=1)
    return Method(_splitting_name(scheme), _parts, (("scheme", scheme),), noise=float(noisy), asks=asks, orders=orders, reference=reference)


SHIPPED = {
    "sscs": sscs,
    "sscs2": lambda: sscs(order=2),
    "sscs2_multistep": lambda: sscs(order=2, multistep=True),
    "nse": lambda: splitting("nse"),
    "rse": lambda: splitting("rse"),
    "nvv": lambda: splitting("nvv"),
    "rvv": lambda: splitting("rvv"),
    "oba": lambda: splitting("oba"),
    "reduced_oba": lambda: splitting("reduced_oba"),
}
