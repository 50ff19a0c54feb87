r"""What Restart does to a guided law, in closed form on normal laws, and ways to mend it.

The guided score :math:`w\,s_c + (1 - w)\,s_u` is at each level that of the *tilted* density :math:`p_c^w p_u^{1 - w}` of the noised laws, but no
noising of one law has these as its marginals: its ODE ends at a law that Restart does not keep, and both are narrower than the tilted one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..denoiser import Denoiser, guided
from ..errors import BadInput, finite, positive, whole
from ..law import Gaussian
from ..noise import CORRECTOR, Address, Noise, as_noise
from ..plans import Jump, Plan, Run
from ..process import Process
from ..sampling import begin_at, shape_of
from ..solve import assemble, solve
from .candidates import along
from .contraction import between

Array = NDArray[np.float64]

__all__ = ["GuidedLaws", "guided_within", "sample_guided"]


@dataclass(frozen=True)
class GuidedLaws:
    r"""Two normal laws, of a condition and of all data, and the weight of guidance.

    All below is for the exact flow of the guided field in the level ``t``, mode by mode:

    .. math:: \frac{dx}{dt} = w\,\frac{t (x - m_c)}{v_c + t^2} + (1 - w)\,\frac{t (x - m_u)}{v_u + t^2} .

    Parameters
    ----------
    conditional, unconditional : Gaussian
        With a shared eigenbasis.
    weight : float
        1 is the conditional law, 0 the unconditional one.

    Raises
    ------
    BadInput
        For laws that differ in shape or do not commute.
    """

    conditional: Gaussian
    unconditional: Gaussian
    weight: float

    def __post_init__(self) -> None:
        laws = [self.conditional, self.unconditional]
        if not all(isinstance(law, Gaussian) for law in laws) or laws[0].shape != laws[1].shape:
            raise BadInput("conditional and unconditional must be Gaussian laws of one shape")
        finite("weight", self.weight)
        _ = self._modes

    @cached_property
    def _modes(self) -> tuple[Array, Array, Array, Array, Array | None]:
        laws = self.conditional, self.unconditional
        basis = next((law.basis for law in laws if np.ptp(law.variances) > 0.0), None)
        (mc, vc), (mu, vu) = (along(law, basis) for law in laws)
        return mc, vc, mu, vu, basis

    def _law(self, mean: Array, variances: Array) -> Gaussian:
        basis, shape = self._modes[-1], self.conditional.shape
        if basis is None:
            return Gaussian(mean.reshape(shape), variances.reshape(shape))
        return Gaussian((basis @ mean).reshape(shape), (basis * variances) @ basis.T)

    def _scale(self, t: Any) -> Array:
        _, vc, _, vu, _ = self._modes
        return np.asarray((vc + t * t) ** (0.5 * self.weight) * (vu + t * t) ** (0.5 * (1.0 - self.weight)))

    def gain(self, low: float, high: float) -> Array:
        r"""What the guided flow from ``high`` to ``low`` leaves of a difference, for each mode.

        .. math:: a_w = \Big(\frac{v_c + t_{min}^2}{v_c + t_{max}^2}\Big)^{w/2} \Big(\frac{v_u + t_{min}^2}{v_u + t_{max}^2}\Big)^{(1 - w)/2}
        """
        low, high = between(low, high)
        return np.asarray(self._scale(low) / self._scale(high))

    def _offset(self, low: float, high: float) -> Array:
        """The image of zero, in the basis: by quadrature in the log level."""
        from scipy.integrate import quad_vec

        mc, vc, mu, _, _ = self._modes

        def push(log_t: float) -> Array:
            t = np.exp(log_t)
            return np.asarray(self.weight * t * t * (mc - mu) / ((vc + t * t) * self._scale(t)))

        moved = quad_vec(push, np.log(low), np.log(high), epsrel=1e-12, epsabs=1e-14)[0]
        return np.asarray((1.0 - self.gain(low, high)) * mu + self._scale(low) * moved)

    def restart(self, low: float, high: float, S_noise: float = 1.0) -> Gaussian:
        r"""The law that Restart cycles on ``[low, high]`` keep, at level ``low``: of variance :math:`a_w^2 s^2 / (1 - a_w^2)`.

        With equal covariances it is the marginal of :math:`N(m_u + w (m_c - m_u), v)`; else it depends on the interval.
        """
        gain, offset = self.gain(low, high), self._offset(*between(low, high))
        noise = (finite("S_noise", S_noise) * gain) ** 2 * (high**2 - low**2)
        if np.max(gain) >= 1.0:
            raise BadInput(f"the guided flow widens a mode (gain {np.max(gain):g} >= 1): Restart has no law that it keeps; take less weight")
        return self._law(offset / (1.0 - gain), noise / (1.0 - gain**2))

    def flow(self, low: float, top: float) -> Gaussian:
        """The law at level ``low`` of the guided ODE alone, from ``N(0, top^2)``."""
        return self._law(self._offset(*between(low, top)), (self.gain(low, top) * top) ** 2)

    def tilted(self, low: float) -> Gaussian:
        r"""The tilted density at level ``low``: precision :math:`w / (v_c + t^2) + (1 - w) / (v_u + t^2)`.

        Raises
        ------
        BadInput
            If the precision of a mode is not positive: then the tilted density is none.
        """
        mc, vc, mu, vu, _ = self._modes
        level = positive("low", low) ** 2
        parts = self.weight / (vc + level), (1.0 - self.weight) / (vu + level)
        precision = parts[0] + parts[1]
        if np.min(precision) <= 0.0:
            raise BadInput(f"weight = {self.weight:g}: the tilted density has precision {np.min(precision):g} in a mode; take less weight")
        return self._law((parts[0] * mc + parts[1] * mu) / precision, 1.0 / precision)

    def corrected(self, low: float, size: float) -> Gaussian:
        r"""The law that Langevin steps of length ``size`` :math:`h` keep at level ``low``: the tilted one, wider by :math:`1/(1 - h / 2 v)`.

        Raises
        ------
        BadInput
            If the steps do not settle: ``h`` must be below twice the least variance.
        """
        law = self.tilted(low)
        mean, variances = law.mean.reshape(-1), law.variances
        h = positive("size", size)
        if h >= 2.0 * np.min(variances):
            raise BadInput(f"size = {h:g} must be below {2.0 * np.min(variances):g}, twice the least variance of the tilted density")
        basis = law.basis
        return self._law(mean if basis is None else mean @ basis, variances / (1.0 - h / (2.0 * variances)))


class guided_within:
    """Guidance between two levels, and the conditional model alone outside.

    Parameters
    ----------
    conditional, unconditional : Denoiser
    weight : float
    low, high : float
        In ``sigma_eff``, ends included.

    References
    ----------
    Kynkaanniemi et al. 2024, arXiv:2404.07724.
    """

    def __init__(self, conditional: Denoiser, unconditional: Denoiser, weight: float, low: float, high: float) -> None:
        self._inside = guided(conditional, unconditional, weight)
        self.conditional, (self.low, self.high) = conditional, between(low, high)
        for name in ("shape", "device", "dtype"):
            if hasattr(self._inside, name):
                setattr(self, name, getattr(self._inside, name))

    def __call__(self, y: Any, sigma: Any) -> Any:
        """The denoised data."""
        if np.ndim(sigma):
            raise BadInput("guided_within takes one level for the whole batch")
        return self._inside(y, sigma) if self.low <= float(sigma) <= self.high else self.conditional(y, sigma)


def sample_guided(
    process: Process,
    conditional: Denoiser,
    unconditional: Denoiser,
    weight: float,
    plan: Plan,
    *,
    legs: Denoiser | None = None,
    corrector: tuple[int, float] = (0, 0.0),
    n: int = 1,
    shape: tuple[int, ...] | None = None,
    seed: int | Noise = 0,
) -> Array:
    r"""Sample with guidance, with another model in the Restart legs, or Langevin steps on the tilted density after them.

    .. math:: x \leftarrow x + h\,s_w(x) + \sqrt{2h}\,\xi, \qquad s_w = w\,s_c + (1 - w)\,s_u

    Parameters
    ----------
    process : Process
        With one block.
    conditional, unconditional, weight
        Of the main run.
    plan : Plan
        Usually of :func:`sdekit.plans.restart`.
    legs : Denoiser, optional
        For the legs: ``conditional`` leaves guidance to the main run; a :class:`guided_within` keeps a part of it.  The guided model when absent.
    corrector : (int, float)
        Langevin steps after the last cycle of each interval, and their length ``h`` in units of the squared level.
    n, shape, seed
        As for :func:`sdekit.sample`.

    Returns
    -------
    array (n, *shape)

    Raises
    ------
    BadInput
        For a process with more blocks.
    """
    if process.k != 1:
        raise BadInput(f"process {process.name!r} has {process.k} blocks; sample_guided is for one block")
    model = guided(conditional, unconditional, weight)
    steps, size = whole("steps of the corrector", corrector[0], 0), finite("size", corrector[1])
    source, ids, event = as_noise(seed), np.arange(whole("n", n)), shape_of(model, shape, None, None)
    moves = plan.moves(process)
    state = begin_at(process, float(assemble(process, moves).times[0]), None, ids, event, source, np.empty(0))
    for i, move in enumerate(moves):
        inside = isinstance(move, Run) and move.leg > 0
        program = assemble(process, [move])
        state, _ = solve(program, state, legs if inside and legs is not None else model, source, ids)
        if inside and not (i + 1 < len(moves) and isinstance(moves[i + 1], Jump)):
            xi = source.draw([Address(CORRECTOR, i, step) for step in range(steps)], ids, event)
            state = [_langevin(process, model, state[0], float(program.times[-1]), size, xi)]
    return np.asarray(state[0])


def _langevin(process: Process, model: Denoiser, z: Array, t: float, size: float, normals: ArrayLike) -> Array:
    """Langevin steps at time ``t``, in units of the data."""
    kernel = process.kernel(t)
    scale, sigma = float(kernel.psi[0]), float(kernel.sigma_eff)
    y = z / scale
    for xi in np.asarray(normals):
        y = y + size * (model(y, sigma) - y) + sigma * np.sqrt(2.0 * size) * xi
    return np.asarray(scale * y)
