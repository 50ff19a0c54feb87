r"""The bound on W2 of a whole run on mixtures: DDIM on one block, whose steps have a known Lipschitz constant.

With ``y = z / psi`` one step is :math:`y' = \frac st y + (1 - \frac st) D(y; t)`, and :math:`\nabla D = 1 + t^2 \nabla^2 \log p_t` is positive, so

.. math:: L = \tfrac st + (1 - \tfrac st)\big(1 + t^2 \sup_x \lambda_{max}(\nabla^2 \log p_t)\big), \qquad
          \|\delta\| \le \int_s^t (1 - \tfrac sq) \Big\| \frac{d}{dq} D(y_q; q) \Big\| dq

in root mean square along the exact flow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..law import Empirical, Mixture
from ..methods import ddim
from ..plans import Run
from ..solve import Program
from .bounds_constants import Blend
from .bounds_records import Assumption, Constant, SamplerBound, Step

Array = NDArray[np.float64]

__all__ = ["mixture_bound", "reasons"]


def reasons(total: float, spread: float) -> tuple[str, ...]:
    """Why a bound on W2 says nothing, if so."""
    if total < spread:
        return ()
    return (f"the bound {total:.3g} is not below {spread:.4g}, the W2 between the data and their mean",)


@cache
def _normal_rule() -> tuple[Array, Array]:
    """Nodes and weights for means over N(0, 1)."""
    u, w = np.polynomial.hermite_e.hermegauss(80)
    return u, w / np.sqrt(2.0 * np.pi)


def _speed(blend: Blend, q: float) -> float:
    r"""Root mean square of :math:`dD/dq` along the exact flow.

    :math:`D = y + q^2 s`, so this is :math:`q s + q^2 (2 q\,\partial_\tau s - q H s)`: by quadrature on the line.  With one covariance ``C``
    it is :math:`q C \Lambda s + q^3 (\mathrm{Cov}_r(g) s + E_r |h|^2 h)`, ``h`` the centred ``g``, of norm at most the range of ``g``.
    """
    if blend.d == 1:
        root = np.sqrt(blend.values[:, 0] + q * q)
        u, w = _normal_rule()
        x = (blend.means[:, 0, None] + root[:, None] * u).ravel()
        s, H, rate = blend._line(q, x)
        square = (q * s + q**3 * (2.0 * rate - H * s)) ** 2
        weights = (blend.weights[:, None] * w).ravel()
        return float(np.sqrt(weights @ square))
    values, width = blend.values[0], blend._range(q)
    inner = values + q * q
    plain = np.sqrt(np.sum((values / inner) ** 2 / inner))
    return float(q * plain + q**3 * (0.25 * width**2 * np.sqrt(np.sum(1.0 / inner)) + 0.5 * width**3))


def _defect(blend: Blend, t: float, s: float) -> float:
    nodes, weights = np.polynomial.legendre.leggauss(12)
    low = max(s, 1e-6 * t)
    q = np.exp(np.log(low) + 0.5 * (nodes + 1.0) * np.log(t / low))
    return float(0.5 * np.log(t / low) * np.sum(weights * q * (1.0 - s / q) * np.array([_speed(blend, float(level)) for level in q])))


def mixture_bound(
    program: Program, data: Mixture | Empirical, size: Callable[[float], float], steep: Callable[[float], float] | None, start: object
) -> SamplerBound:
    """See :func:`sdekit.analysis.bounds.sampler`."""
    if not isinstance(data, Mixture | Empirical):
        raise BadInput(f"data = {data!r} must be a Gaussian, Mixture or Empirical law")
    process, moves = program.process, program.moves
    if process.k != 1 or not all(isinstance(move, Run) and move.method == ddim() for move in moves):
        raise BadInput("on mixtures a bound is known for one block and methods.ddim() only: other steps have no Lipschitz constant in closed form")
    if start is not None:
        raise BadInput("on mixtures a bound is known from the prior only")
    blend = Blend.of(data)
    if blend.d > 1 and not blend.equal:
        raise BadInput("components with different covariances: no one-sided Lipschitz constant is known in space; give them one covariance")
    levels = process.sigma_eff(program.times)
    psi = float(process.kernel(float(program.times[-1])).psi[0])
    whole = np.array([_factor(blend, float(t), float(s)) for t, s in pairwise(levels)])
    after = psi * np.append(np.cumprod(whole[::-1])[::-1], 1.0)
    begin = float(np.hypot(blend.spread, np.linalg.norm(blend.law.mean)))
    away, score, largest, steps = begin, 0.0, 0.0, []
    for i, (t, s) in enumerate(pairwise(levels.tolist())):
        defect = 0.0 if s == 0.0 else _defect(blend, t, s)
        wrong = size(t) + (0.0 if steep is None else steep(t) * away)
        made = (1.0 - s / t) * wrong
        largest = max(largest, wrong)
        away = whole[i] * away + defect + made
        score += made * after[i + 1]
        steps.append(Step(t, s, defect, float(after[i + 1]), float(defect * after[i + 1])))
    prior, added, end = begin * float(after[0]), float(sum(step.added for step in steps)), _end(blend, levels, psi)
    total = prior + added + score + end
    constants = (
        Constant("W2 at the start", begin, "root mean square of the data, an upper bound"),
        Constant("whole map", float(after[0]), "product of the Lipschitz constants of all steps"),
        Constant("largest defect", max(step.defect for step in steps), f"of one step from the exact marginal, {_how(blend)}"),
        Constant("largest factor", float(np.max(after[1:])), "product of the Lipschitz constants of the steps that remain"),
        Constant("largest error", largest, "of the model at the states visited, in units of the data"),
    )
    return SamplerBound(prior, added, score, end, tuple(steps), constants, _assumptions(blend, steep is not None), reasons(total, blend.spread))


def _how(blend: Blend) -> str:
    return "by quadrature on the line" if blend.d == 1 else "upper bound"


def _factor(blend: Blend, t: float, s: float) -> float:
    return s / t + (1.0 - s / t) * max(0.0, 1.0 + t * t * blend.top(t))


def _end(blend: Blend, levels: Array, psi: float) -> float:
    """From the exact marginal at the last level to the data, by the process's own coupling; the best linear denoiser bounds a step to 0."""
    if levels[-1] == 0.0:
        gaps = blend.means
        cov = (gaps.T * blend.weights) @ gaps + sum(w * part.matrix for w, part in zip(blend.weights, blend.law.parts, strict=True))
        values, square = np.maximum(np.linalg.eigvalsh(cov), 0.0), float(levels[-2]) ** 2
        return float(np.sqrt(np.sum(values * square / (values + square))))
    mean = float(np.linalg.norm(blend.law.mean))
    return float(np.sqrt((1.0 - psi) ** 2 * (blend.spread**2 + mean**2) + (psi * float(levels[-1])) ** 2 * blend.d))


def _assumptions(blend: Blend, square: bool) -> tuple[Assumption, ...]:
    kind = "root mean square under the exact law, with its Lipschitz constant" if square else "sup over all arguments"
    how = "maximised on a grid" if blend.d == 1 else "an upper bound for one covariance"
    return (
        Assumption("the Hessian of log p_t is bounded above", True, f"a mixture of normal laws; its supremum is {how}"),
        Assumption(f"the denoiser's error is at most score_error ({kind})", None, "given by the caller"),
    )
