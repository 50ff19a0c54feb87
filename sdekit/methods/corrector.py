"""Predictor-corrector methods with one call of the model a step: UniPC and SA-Solver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, finite, unknown, whole
from ..propagation import Loudness
from ._multistep import multistep
from ._record import Method, Orders, constructor

Array = NDArray[np.float64]

__all__ = ["Between", "sa_solver", "unipc"]

_UNIPC = {"exact": "exact", "bh1": "end", "bh2": "midpoint"}


@constructor
def unipc(order: int = 2, of: str = "data", rule: str = "bh2") -> Method:
    r"""UniPC of ``order`` p = 1, 2 or 3 for the probability-flow ODE, any number of blocks, one model call a step: order p + 1.

    UniP-p puts the polynomial in :math:`u = -\log\sigma_{eff}` through the last p answers in the place of the data (or eps); UniC-p puts the
    one through the answer at the predicted point too, and takes the step again.  The corrected state is where the next prediction starts;
    the last state of a run is a predicted one.  First steps have the order that the answers so far allow.

    Parameters
    ----------
    order : int
        1, 2 or 3.
    of : {"data", "eps"}
        What is interpolated.
    rule : {"bh2", "bh1", "exact"}
        How two answers are integrated.  ``exact``: as they are.  The published simplifications are ``bh2``: the value halfway
        times the whole weight (2M as a predictor, the trapezium as a corrector), and ``bh1``: the density ``dW/du`` at the end of the step
        in the place of its mean.  With more answers the three agree.

    Raises
    ------
    BadInput
        For another order, variable or rule.

    Notes
    -----
    From a cold start p = 3 has asymptotic order 3, since its first step leaves an error ``O(h^3)``, once.
    """
    if whole("order", order) > 3:
        raise BadInput(f"order = {order} must be 1, 2 or 3")
    _check_of(of)
    if rule not in _UNIPC:
        raise unknown("rule", rule, _UNIPC)
    said = [f'{key}="{value}"' for key, value, usual in (("of", of, "data"), ("rule", rule, "bh2")) if value != usual]
    return multistep(
        ", ".join([f"unipc({order}", *said]) + ")",
        order,
        order + 1,
        of=of,
        rule=_UNIPC[rule],
        orders=Orders(ode=min(order + 1, 3)),
        reference="Zhao et al. 2023, arXiv:2302.04867",
    )


def _check_of(of: str) -> None:
    if of not in ("data", "eps"):
        raise unknown("variable", of, ["data", "eps"])


@dataclass(frozen=True)
class Between:
    """The noise level ``level`` for ``low <= sigma <= high``, none elsewhere."""

    level: float
    low: float
    high: float

    @property
    def breaks(self) -> tuple[float, ...]:
        """Levels where it jumps."""
        return tuple(edge for edge in (self.low, self.high) if 0.0 < edge < np.inf)

    def __call__(self, sigma: Array) -> Array:
        """The noise level at the levels ``sigma``."""
        return np.where((sigma >= self.low) & (sigma <= self.high), self.level, 0.0)


@constructor
def sa_solver(
    predict: int = 3,
    correct: int = 3,
    tau: float = 1.0,
    low: float = 0.0,
    high: float | None = None,
    of: str = "data",
    rule: str = "exact",
) -> Method:
    r"""SA-Solver: stochastic Adams predictor and corrector on the reverse equation with noise :math:`\lambda = \tau`, one model call a step.

    .. math:: z_s = \Phi(s,t) z_t + \sum_j b_j D_j + C \xi,

    with the exact weights of the polynomial through ``predict`` answers, and then, with the same :math:`\xi`, through ``correct`` ones that
    begin with the answer at the predicted point.  The last state of a run is a predicted one.

    Parameters
    ----------
    predict : int
        1 to 4.
    correct : int
        0 (none) to 4.
    tau : float
        Noise level.
    low, high : float
        Levels ``sigma_eff`` between which there is noise; all of them when absent.  Within a step that crosses one, the integrals stop there.
    of : {"data", "eps"}
        What is interpolated.
    rule : {"exact", "released"}
        ``released``: the authors' code, which with two answers puts the density ``dW/du`` at the end of the step in the place of its mean.

    Raises
    ------
    BadInput
        For numbers out of range, another variable or rule.
    """
    if whole("predict", predict) > 4:
        raise BadInput(f"predict = {predict} must be 1, 2, 3 or 4")
    if whole("correct", correct, 0) > 4:
        raise BadInput(f"correct = {correct} must be 0, 1, 2, 3 or 4")
    if finite("tau", tau) < 0.0:
        raise BadInput(f"tau = {tau!r} must be nonnegative (0: ODE, 1: reverse SDE)")
    top = np.inf if high is None else finite("high", high)
    if not 0.0 <= finite("low", low) < top:
        raise BadInput(f"low = {low!r} and high = {high!r} must be levels, 0 <= low < high")
    _check_of(of)
    if rule not in ("exact", "released"):
        raise unknown("rule", rule, ["exact", "released"])
    everywhere = tau == 0.0 or (low == 0.0 and high is None)
    noise: Loudness = float(tau) if everywhere else Between(float(tau), float(low), float(top))
    said = [f"tau={tau:g}", f"low={low:g}" if low else "", "" if high is None else f"high={high:g}"]
    said += [f'{key}="{value}"' for key, value, usual in (("of", of, "data"), ("rule", rule, "exact")) if value != usual]
    return multistep(
        f"sa_solver({', '.join([str(predict), str(correct), *filter(None, said)])})",
        predict,
        correct,
        of=of,
        noise=noise,
        rule="end" if rule == "released" else "exact",
        orders=_claims(predict, correct, tau),
        reference="Xue et al. 2023, arXiv:2309.05019",
    )


def _claims(predict: int, correct: int, tau: float) -> Orders:
    """The predictor's order, or the corrector's, which the predicted point limits; 2 with noise; the first step costs the rest without."""
    order = min(correct, predict + 1) if correct else predict
    if tau:
        return Orders(weak=min(order, 2))
    return Orders(ode=min(order, 3 if correct else 2), exact_start=None if correct else order)


SHIPPED = {"sa_solver": sa_solver, "unipc2": unipc, "unipc3": lambda: unipc(3)}
