r"""How fast Restart forgets: the exact contraction of one cycle on Gaussian data, its fixed point, and the split of an error.

One cycle adds the noise of the forward process from ``t_min`` up to ``t_max`` and takes the backward leg down again.  On Gaussian data it is
an affine map with noise, mode by mode, so all about it is algebra: with exact flow on one block

.. math:: m' = a\,m, \qquad v' = a^2 (v + S^2 s^2), \qquad a = \sqrt{\frac{c^2 + t_{min}^2}{c^2 + t_{max}^2}}, \quad s^2 = t_{max}^2 - t_{min}^2 ,

whose fixed point is the exact marginal :math:`c^2 + t_{min}^2` at :math:`S = 1`.  A solver has a gain :math:`a_h` of its own.
The weights of modes go by another rate: see :mod:`sdekit.analysis.switching`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BadInput, finite, whole
from ..grids import sigmas
from ..law import Gaussian
from ..methods import Method
from ..plans import Jump, Plan, restart
from ..process import Process
from ..sampling import prepare
from ..solve import assemble, program
from .affine import Affine, Normal, in_basis, shared_basis
from .exact import ExactLaw, marginal, probe, reverse_transition
from .wasserstein import w2_gaussian

Array = NDArray[np.float64]

__all__ = ["Cycle", "ErrorSplit", "cycle", "error_split", "flow_rates"]


def between(low: float, high: float) -> tuple[float, float]:
    """The ends of an interval of levels, if they are one."""
    if finite("t_max", high) <= finite("t_min", low) or low <= 0.0:
        raise BadInput(f"interval [{low:g}, {high:g}] needs 0 < t_min < t_max")
    return float(low), float(high)


def flow_rates(data: Gaussian, low: float, high: float, noise: ArrayLike = 0.0) -> Array:
    r"""What is left of an error of the mean after the exact reverse equation from level ``high`` to ``low``, for each variance of the data.

    .. math:: a_i^{1 + \eta^2}, \qquad a_i = \sqrt{(c_i^2 + t_{min}^2)/(c_i^2 + t_{max}^2)},

    with ``noise`` :math:`\eta`: 0 the ODE (and each Restart cycle), 1 the reverse SDE, so that one pass of the SDE is worth one Restart.

    Raises
    ------
    BadInput
        Unless ``0 < low < high``.
    """
    low, high = between(low, high)
    v = data.variances
    return np.asarray(((v + low**2) / (v + high**2)) ** (0.5 * (1.0 + np.asarray(noise, float) ** 2)))


@dataclass(frozen=True, eq=False)
class Cycle:
    r"""One Restart cycle on Gaussian data, as an exact affine map of the state at ``t_min``, mode by mode.

    Attributes
    ----------
    process : Process
    interval : (int, float, float)
        Points of the backward grid, and the levels.
    scale : float
        ``S_noise``.
    jump, leg : Affine
        Up with unit noise, and down by the method under the model.
    flow : Affine
        Down by the exact flow of the data's law.
    target : Normal
        The exact marginal of the state at ``t_min``.
    """

    process: Process
    interval: tuple[int, float, float]
    scale: float
    jump: Affine
    leg: Affine
    flow: Affine
    target: Normal

    def _map(self, scale: float) -> Affine:
        return Affine(self.jump.matrix, self.jump.offset, scale * self.jump.noise).then(self.leg)

    @cached_property
    def map(self) -> Affine:
        """The cycle."""
        return self._map(self.scale)

    @property
    def rates(self) -> Array:
        """Spectral radius of the cycle for each mode: ``a_h`` with one block."""
        return _radius(self.map.matrix)

    @property
    def flow_rates(self) -> Array:
        """The same with the exact flow: ``a`` with one block."""
        return _radius(self.jump.then(self.flow).matrix)

    def after(self, law: Normal, cycles: int) -> Normal:
        """The law after some cycles from ``law`` at ``t_min``."""
        for _ in range(whole("cycles", cycles, 0)):
            law = self.map.push(law)
            law = Normal(law.mean, _factor(_gram(law.factor)))
        return law

    @cached_property
    def stationary(self) -> Normal:
        """The law that the cycle keeps; the limit of many cycles from any start.

        Raises
        ------
        BadInput
            If a mode does not contract.
        """
        return self._fixed(self.scale)

    def _fixed(self, scale: float) -> Normal:
        map_ = self._map(scale)
        if np.max(_radius(map_.matrix)) >= 1.0:
            raise BadInput(f"the cycle multiplies a mode by {np.max(_radius(map_.matrix)):g} >= 1: it has no stationary law; take more steps")
        mean = np.linalg.solve(np.eye(len(map_.offset)) - np.moveaxis(map_.matrix, -1, 0), map_.offset.T[..., None])[..., 0].T
        return Normal(np.asarray(mean, float), _factor(_lyapunov(map_.matrix, _gram(map_.noise))))

    @property
    def bias(self) -> float:
        """W2 of the data block between the law that the cycle keeps and the exact marginal: what no number of cycles removes."""
        return self.stationary.rows(1).distance(self.target.rows(1))

    @cached_property
    def _spread(self) -> tuple[Array, Array, Array]:
        """Stationary variance of the data block per mode: from the jumps at unit noise, from the method's own noise; and the exact one."""
        loud, quiet = (_gram(self._map(scale).noise) for scale in (1.0, 0.0))
        jumps, own = (_lyapunov(self.map.matrix, part)[0, 0] for part in (loud - quiet, quiet))
        return jumps, own, np.sum(self.target.factor[0] ** 2, axis=0)

    @property
    def best_noise(self) -> Array:
        r"""The ``S_noise`` of each mode at which the stationary variance of the data block is exact.

        .. math:: S^2 = (v^* - v_{method}) / v_{jumps}, \qquad
                  \text{with one block and no noise of the method} \quad S = \sqrt{v^* (1 - a_h^2)} / (a_h s) .

        Not-a-number for a mode to which the method alone gives too much variance.
        """
        jumps, own, exact = self._spread
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sqrt((exact - own) / jumps))

    @property
    def compromise(self) -> float:
        r"""The one ``S_noise`` with the least W2 of the stationary variances, :math:`\sum_i (\sqrt{S^2 j_i + o_i} - \sqrt{v_i})^2`.

        Without noise of the method :math:`S = \sum_i \sqrt{j_i v_i} / \sum_i j_i`.
        """
        jumps, own, exact = self._spread
        if not np.any(own):
            return float(np.sum(np.sqrt(jumps * exact)) / np.sum(jumps))
        from scipy.optimize import minimize_scalar

        top = float(np.sqrt(np.max(exact / jumps)))
        found = minimize_scalar(lambda S: np.sum((np.sqrt(S * S * jumps + own) - np.sqrt(exact)) ** 2), bounds=(0.0, top), options={"xatol": 1e-12})
        return float(found.x)

    def __str__(self) -> str:
        N, low, high = self.interval
        a, h, S = self.flow_rates, self.rates, self.best_noise
        head = f"Restart cycle [{low:g}, {high:g}] in {N - 1} steps on {self.process.name}, S_noise {self.scale:g}"
        rows = [f"  {m:>4}  {x:.6f}  {y:.6f}  {z:.6f}" for m, (x, y, z) in enumerate(zip(a, h, S, strict=True))]
        return "\n".join([head, "  mode  flow      solver    best S_noise", *rows])

    def _repr_html_(self) -> str:
        cells = zip(self.flow_rates, self.rates, self.best_noise, strict=True)
        body = "".join(f"<tr><td>{m}</td>" + "".join(f"<td>{x:.6f}</td>" for x in row) + "</tr>" for m, row in enumerate(cells))
        head = "".join(f"<th>{name}</th>" for name in ("mode", "flow", "solver", "best S_noise"))
        return f"<table><caption>{str(self).splitlines()[0]}</caption><tr>{head}</tr>{body}</table>"


def _radius(matrix: Array) -> Array:
    return np.asarray(np.max(np.abs(np.linalg.eigvals(np.moveaxis(matrix, -1, 0))), axis=-1))


def _gram(factor: Array) -> Array:
    return np.asarray(np.einsum("ird,jrd->ijd", factor, factor))


def _factor(cov: Array) -> Array:
    values, vectors = np.linalg.eigh(np.moveaxis(cov, -1, 0))
    return np.moveaxis(vectors * np.sqrt(np.maximum(values, 0.0))[:, None], 0, -1)


def _lyapunov(A: Array, Q: Array) -> Array:
    """``X = A X A^T + Q`` for each mode."""
    k, d = A.shape[0], A.shape[-1]
    A, Q = np.moveaxis(A, -1, 0), np.moveaxis(Q, -1, 0)
    squared = np.einsum("dij,dkl->dikjl", A, A).reshape(d, k * k, k * k)
    return np.moveaxis(np.linalg.solve(np.eye(k * k) - squared, Q.reshape(d, k * k, 1)).reshape(d, k, k), 0, -1)


def cycle(
    process: Process,
    method: Method,
    interval: tuple[int, float, float],
    data: Gaussian,
    *,
    S_noise: float = 1.0,
    model: Gaussian | None = None,
) -> Cycle:
    """One Restart cycle on Gaussian data.

    Parameters
    ----------
    process, method : Process, Method
    interval : (N_restart, t_min, t_max)
        As in :func:`sdekit.plans.restart`, without the number of cycles.
    data : Gaussian
    S_noise : float
    model : Gaussian, optional
        The law whose exact denoiser drives the legs; it must commute with the data.

    Raises
    ------
    BadInput
        For an interval that is none, or laws without a shared eigenbasis.
    """
    points, low, high = interval
    low, high = between(low, high)
    together, basis = shared_basis([data, data if model is None else model])
    if not together:
        raise BadInput("data and model do not commute: a cycle is taken apart in their shared eigenbasis; use exact_law for the whole plan")
    modes = [in_basis(law, basis) for law in (data, data if model is None else model)]
    (mean, variances), (its_mean, its_variances) = (pair for pair in modes if pair is not None)
    _, up, down = restart(sigmas([high, low]), [(points, 1, low, high)], method=method).moves(process)
    if not isinstance(up, Jump):
        raise BadInput("a cycle starts by a jump")
    flow = reverse_transition(process, 0.0, up.s, up.t, mean, variances)
    jump, leg = (probe(assemble(process, [move]), its_mean, its_variances) for move in (up, down))
    target = marginal(process, up.s, mean, variances)
    return Cycle(process, (int(points), low, high), finite("S_noise", S_noise), jump, leg, flow, target)


@dataclass(frozen=True)
class ErrorSplit:
    """The error of a sampler in two, as in the Restart paper: ``total <= contracted + additional``.

    Attributes
    ----------
    total : float
        W2 from the sampler to the data.
    contracted : float
        W2 from the sampler to itself started from the exact law at level ``sigma``: what is left of the error made before.
    additional : float
        W2 from that to the data: what the sampler adds from there on.
    sigma : float
    """

    total: float
    contracted: float
    additional: float
    sigma: float

    def __str__(self) -> str:
        return (
            f"W2 {self.total:.6g} <= contracted {self.contracted:.6g} + additional {self.additional:.6g}, "
            f"split at sigma {self.sigma:.6g}"
        )  # fmt: skip

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>"


def error_split(process: Process, plan: Plan, sigma: float, *, data: Gaussian, model: Gaussian | None = None, start: Any = None) -> ErrorSplit:
    """Split the exact error of a plan on Gaussian data at a level, by a second run that starts there from the exact marginal.

    Parameters
    ----------
    process, plan, data, model, start
        As for :func:`sdekit.analysis.exact_law`.
    sigma : float
        Level of the split, usually ``t_max``; the plan's nodes below it are run again from the exact law at the node at or above it.

    Raises
    ------
    BadInput
        If the plan does not pass ``sigma``, or has moves that are not affine.

    References
    ----------
    Xu et al. 2023, arXiv:2306.14878, section 3 (there W1 by matching samples; here W2, exact).
    """
    whole_run = prepare(process, None, None, plan)
    grid = np.asarray(plan.grid.times(process))
    levels = process.sigma_eff(grid)
    above = np.flatnonzero(levels >= finite("sigma", sigma) * (1.0 - 1e-9))
    if not len(above) or above[-1] == len(grid) - 1:
        raise BadInput(f"sigma = {sigma:g} must lie among the grid's levels [{levels[-1]:g}, {levels[0]:g}), with a step below it")
    node = float(grid[above[-1]])
    drive = data if model is None else model
    run, again = ExactLaw(whole_run, data, drive, start), ExactLaw(program(process, plan, node), data, drive, data)
    contracted = w2_gaussian(run.mean.ravel(), np.atleast_2d(run.cov), again.mean.ravel(), np.atleast_2d(again.cov))
    return ErrorSplit(run.w2, contracted, again.w2, float(levels[above[-1]]))
