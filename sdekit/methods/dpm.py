r"""Single-step exponential methods with stages inside the step: DPM-Solver and DPM-Solver++, SEEDS, and k-diffusion's SDE-DPM-Solver++.

The linear part and the noise are exact; the answers at the stages are interpolated in :math:`u = -\log\sigma_{eff}`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, finite, unknown, whole
from ..reverse import EpsilonFlow, Flow
from ..tableau import Rows, Step
from ._record import Method, Orders, constructor

Array = NDArray[np.float64]

__all__ = ["dpm_2", "dpm_solver", "dpm_solver_pp_2s", "dpmpp_sde", "seeds"]


class _Way:
    """One step with stages at ``parts`` of it, in data or in eps; all stages share one path of the noise."""

    def __init__(self, step: Step, of: str, parts: tuple[float, ...]) -> None:
        self._step, self._of = step, of
        self._stages = step.stages("log", *parts)
        self._noise: list[Array | float] = [0.0]
        if step.leg.reverse.noisy:
            for j in range(self._stages.n):
                flow = self._flow(j, j + 1)
                gain = flow.back if isinstance(flow, EpsilonFlow) else flow.gain
                carried = gain @ self._noise[j] if j else 0.0
                self._noise.append(carried + flow.chol @ step.noise(flow.chol.shape[-1]))
        else:
            self._noise *= self._stages.n + 1

    def _flow(self, i: int, j: int) -> Flow | EpsilonFlow:
        return self._stages.epsilon_flow(i, j) if self._of == "eps" else self._stages.flow(i, j)

    def ask(self, j: int, z: Array) -> Array:
        """The answer at stage ``j``: the data (1, w), or eps (k, w)."""
        answer = self._step.ask(z, self._stages.point(j))
        return -np.swapaxes(self._stages.root(j), -1, -2) @ answer.score if self._of == "eps" else answer.data

    def to(self, j: int, answers: Mapping[int, Array]) -> Array:
        """The state at stage ``j`` by the polynomial through the answers, by number of the stage."""
        flow = self._flow(0, j)
        weights = flow.weights([self._stages.point(i).u for i in answers])
        out = (flow.back if isinstance(flow, EpsilonFlow) else flow.gain) @ self._step.z + self._noise[j]
        for weight, answer in zip(weights, answers.values(), strict=True):
            out = out + (weight if self._of == "eps" else weight[..., None]) @ answer
        return np.asarray(out)


def _parts(order: int, r: float) -> tuple[float, ...]:
    return ((), (r,), (r, 2.0 / 3.0))[order - 1]


def _rows(step: Step, order: int, of: str, r: float, rule: str) -> Rows:
    way = _Way(step, of, _parts(order, r))
    first = way.ask(0, step.z)
    if order == 1:
        return step.rows(way.to(1, {0: first}))
    second = way.ask(1, way.to(1, {0: first}))
    mean = (1.0 - 0.5 / r) * first + 0.5 / r * second
    if order == 2:
        return step.rows(way.to(2, {0: mean} if rule == "published" else {0: first, 1: second}), embedded=way.to(2, {0: first}))
    third = way.ask(2, way.to(2, {0: first, 1: second}))
    return step.rows(way.to(3, {0: first, 2: third}), embedded=way.to(3, {0: mean} if rule == "published" else {0: first, 1: second}))


def _solver(name: str, order: int, of: str, r: float, rule: str, noise: float, reference: str) -> Method:
    orders = Orders(ode=order) if noise == 0.0 else Orders(weak=min(order, 2))
    params, exact = (("order", order), ("of", of), ("r", r), ("rule", rule)), (of, _parts(order, r))
    return Method(name, _rows, params, noise=noise, asks=order, orders=orders, exact_noise=exact, reference=reference)


@constructor
def dpm_solver(order: int = 2, of: str = "eps", r: float | None = None, rule: str = "exact", noise: float = 0.0) -> Method:
    r"""DPM-Solver and DPM-Solver++, single-step, of ``order`` 1, 2 or 3 with as many model calls a step, for any number of blocks.

    With :math:`E(j; i_1, \dots)` the exact solution from the start of the step to stage ``j`` when eps (or the data) is the polynomial in
    :math:`u = -\log\sigma_{eff}` through the answers at stages :math:`i_1, \dots`,

    .. math:: z_1 = E(1; 0), \qquad z_s = E(2; 0, 1)
              \qquad\text{or}\qquad z_1 = E(1; 0), \quad z_2 = E(2; 0, 1), \quad z_s = E(3; 0, 2).

    Stages are at the part ``r`` of the step and, for order 3, at ``2/3``, which order 3 needs.  The embedded result is the method of one
    order less from the same answers.  With noise all stages see one path of it.

    Parameters
    ----------
    order : int
        1 (DDIM), 2 or 3.
    of : {"eps", "data"}
        What is interpolated: eps is DPM-Solver, the data DPM-Solver++ (2S, 3S).
    r : float, optional
        The first stage, in (0, 1) for order 2 (default 1/2) and in (0, 2/3) for order 3 (default 1/3).
    rule : {"exact", "published"}
        ``published``: order 2 (and the embedded result of order 3) solves with the constant :math:`e_0 + (e_1 - e_0)/(2r)`, as the papers and
        their code do, which differs by ``O(h^3)`` a step; orders 1 and 3 are published with the exact weights.
    noise : float
        :math:`\lambda`: 0 for the ODE, 1 for the reverse SDE.

    Raises
    ------
    BadInput
        For another order, variable or rule, or a stage outside its interval.

    References
    ----------
    Lu et al. 2022, arXiv:2206.00927 (eps) and arXiv:2211.01095 (data).
    """
    if whole("order", order) > 3:
        raise BadInput(f"order = {order} must be 1, 2 or 3")
    if of not in ("eps", "data"):
        raise unknown("variable", of, ["eps", "data"])
    if rule not in ("exact", "published"):
        raise unknown("rule", rule, ["exact", "published"])
    usual, top = (1.0 / 3.0, 2.0 / 3.0) if order == 3 else (0.5, 1.0)
    at = usual if r is None else finite("r", r)
    if order == 1 and r is not None:
        raise BadInput(f"r = {at:g} places a stage; order 1 has none")
    if not 0.0 < at < top:
        raise BadInput(f"r = {at:g} must lie in (0, {top:.4g}) for order {order}")
    chosen = [f"{order}", *([] if of == "eps" else [f'of="{of}"'])]
    chosen += [f"r={at:g}"] if order > 1 and at != usual else []
    chosen += ['rule="published"'] if order > 1 and rule == "published" else []
    chosen += [f"noise={noise:g}"] if noise else []
    return _solver(f"dpm_solver({', '.join(chosen)})", order, of, at, rule, noise, "Lu et al. 2022, arXiv:2206.00927 (eps), arXiv:2211.01095 (data)")


@constructor
def dpm_2() -> Method:
    r"""DPM-Solver-2 as published, ``r = 1/2``: k-diffusion's ``dpm_2``, Euler's step in :math:`\sigma_{eff}` with eps at the middle of the log level.

    ``plans.ancestral(plans.run(grid, dpm_2()))`` is k-diffusion's ``dpm_2_ancestral``: of order 2 in the laws it passes, of order 1 as a
    transition of the reverse SDE, like every ancestral plan.
    """
    return _solver("dpm_2", 2, "eps", 0.5, "published", 0.0, "Lu et al. 2022, arXiv:2206.00927, Algorithm 1; Crowson, k-diffusion")


@constructor
def dpm_solver_pp_2s() -> Method:
    """DPM-Solver++(2S) as published, ``r = 1/2``; ``plans.ancestral`` of it is k-diffusion's ``dpmpp_2s_ancestral`` (see :func:`dpm_2`)."""
    return _solver("dpm_solver_pp_2s", 2, "data", 0.5, "published", 0.0, "Lu et al. 2022, arXiv:2211.01095, Algorithm 1; Crowson, k-diffusion")


@constructor
def seeds(order: int = 2) -> Method:
    r"""SEEDS of ``order`` 1, 2 or 3: DPM-Solver as published on the reverse SDE, its stages on one path of the noise.

    On VP, with :math:`h = \lambda_s - \lambda_t` the step in log SNR / 2, the second order is

    .. math:: u &= \tfrac{a_m}{a_t} z_t - 2 s_m (e^{h/2} - 1)\,\epsilon_t + s_m \sqrt{e^h - 1}\,\xi_1 \\
              z_s &= \tfrac{a_s}{a_t} z_t - 2 s_s (e^h - 1)\,\epsilon_u + s_s \big[\sqrt{e^{2h} - e^h}\,\xi_1 + \sqrt{e^h - 1}\,\xi_2\big].

    Parameters
    ----------
    order : int
        1, 2 or 3: the number of stages; the weak order is at most 2.

    Raises
    ------
    BadInput
        For another order.

    References
    ----------
    Gonzalez et al. 2023, arXiv:2305.14267.
    """
    if whole("order", order) > 3:
        raise BadInput(f"order = {order} must be 1, 2 or 3")
    return _solver(f"seeds({order})", order, "eps", 1.0 / 3.0 if order == 3 else 0.5, "published", 1.0, "Gonzalez et al. 2023, arXiv:2305.14267")


def _ancestral_pair(step: Step, r: float) -> Rows:
    stages = step.stages("log", r)
    part, full = stages.flow(0, 1), stages.flow(0, 2)
    levels = [stages.point(j).sigma for j in range(3)]
    early = (levels[0] - levels[1]) / (levels[0] - levels[2])
    xi, later = step.noise(part.chol.shape[-1]), step.noise(part.chol.shape[-1])
    node = [step.here.u]

    def to(flow: Flow, data: Array, normals: Array) -> Array:
        return np.asarray(flow.gain @ step.z + flow.weights(node)[0][..., None] @ data + flow.chol @ normals)

    first = step.ask(step.z, step.here).data
    second = step.ask(to(part, first, xi), stages.point(1)).data
    mixed = np.sqrt(early) * xi + np.sqrt(1.0 - early) * later
    return step.rows(to(full, (1.0 - 0.5 / r) * first + 0.5 / r * second, mixed), embedded=to(full, first, mixed))


@constructor
def dpmpp_sde(r: float = 0.5) -> Method:
    r"""k-diffusion's single-step SDE-DPM-Solver++: two ancestral steps from the start, to the part ``r`` and to the end, on one Brownian path.

    .. math:: u = \Phi_r z_t + (\psi_r - \Phi_r \psi_t) D_t + C_r \xi, \qquad
              z_s = \Phi z_t + (\psi_s - \Phi \psi_t) \big[(1 - \tfrac1{2r}) D_t + \tfrac1{2r} D_u\big] + C \xi',

    with the exact noise ``C`` of each step of the reverse SDE, and normals that share a Brownian path whose time is the level:
    :math:`\xi' = \sqrt w\,\xi + \sqrt{1 - w}\,\xi_2`, :math:`w = (\sigma_t - \sigma_r)/(\sigma_t - \sigma_s)`.  So the covariance of the two
    noises is not the SDE's, at a higher order; ``dpm_solver(2, of="data", rule="published", noise=1)`` is the same step with theirs.

    Parameters
    ----------
    r : float
        Where the stage is in :math:`u = -\log\sigma_{eff}`, in (0, 1).

    Raises
    ------
    BadInput
        For a stage outside the step.

    References
    ----------
    Lu et al. 2022, arXiv:2211.01095; Crowson, k-diffusion, ``sample_dpmpp_sde`` with ``eta=1``.
    """
    if not 0.0 < finite("r", r) < 1.0:
        raise BadInput(f"r = {r:g} must lie in (0, 1)")
    name = "dpmpp_sde" if r == 0.5 else f"dpmpp_sde(r={r:g})"
    reference = "Lu et al. 2022, arXiv:2211.01095; Crowson, k-diffusion"
    return Method(name, _ancestral_pair, (("r", float(r)),), noise=1.0, asks=2, orders=Orders(weak=2), reference=reference)


SHIPPED = {
    "dpm_2": dpm_2,
    "dpm_solver_3": lambda: dpm_solver(3),
    "dpm_solver_pp_2s": dpm_solver_pp_2s,
    "dpm_solver_pp_3s": lambda: dpm_solver(3, of="data"),
    "dpmpp_sde": dpmpp_sde,
    "seeds2": seeds,
    "seeds3": lambda: seeds(3),
}
