r"""PFGM++: Poisson flows with ``D`` extra dimensions, real ``D > 0``; ``D = 1`` is PFGM, ``D`` to infinity is diffusion.

The kernel is a multivariate Student law with ``D`` degrees of freedom,

.. math:: p_r(x \mid y) \propto \big(|x - y|^2 + r^2\big)^{-(N + D)/2}, \qquad x = y + r\,g/\chi_D, \qquad r = \sigma\sqrt D,

``N`` the number of elements, and the flow is :math:`dx/d\sigma = (x - D(x, \sigma))/\sigma` as ever: samplers stay as they are, and what changes is
the denoiser, the start and the noise of Restart.

>>> import sdekit as sk
>>> flow, law = sk.pfgm.Pfgm(3.0), sk.law.Gaussian(0.0, 0.25)
>>> plan = flow.restart(sk.grids.karras(18), [(3, 2, 0.06, 0.30)])
>>> run = sk.sample(sk.catalogue.edm(), flow.denoiser(law), plan=plan, start=flow.prior(()), n=4)

References
----------
Xu et al. 2023, arXiv:2302.04265; Xu et al. 2022, arXiv:2209.11178 (PFGM); Restart: Xu et al. 2023, arXiv:2306.14878.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ._array import like, namespace, to_host
from .errors import BadInput, positive, unknown
from .grids import Grid
from .hitting import spread
from .law import Empirical, Gaussian, Law, LawDenoiser, Mixture, softmax
from .noise import MOVE, PRIOR, Address, Noise, as_ids, as_noise
from .plans import Interval, Jump, Move, Plan, restart
from .process import Process

Array = NDArray[np.float64]

__all__ = ["Marginal", "Pfgm", "PfgmDenoiser", "PfgmJump"]

_KERNELS = ("exact", "straight")


@dataclass(frozen=True)
class Pfgm:
    """PFGM++ with ``D`` extra dimensions.

    Parameters
    ----------
    D : float
        Positive, whole or not.  The variance of the kernel is infinite up to 2; for ``D`` below 0.1 samples may overflow.

    Raises
    ------
    BadInput
        Unless ``D`` is positive.
    """

    D: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "D", positive("D", self.D))

    def radius(self, sigma: ArrayLike) -> Array:
        r"""The radius of the extra dimensions at a level: :math:`r = \sigma\sqrt D`, the alignment with diffusion."""
        return np.asarray(np.asarray(sigma, float) * np.sqrt(self.D))

    def level(self, radius: ArrayLike) -> Array:
        r"""The level at a radius, :math:`\sigma = r / \sqrt D`."""
        return np.asarray(np.asarray(radius, float) / np.sqrt(self.D))

    def characteristic(self, k: ArrayLike, sigma: float) -> Array:
        r""":math:`E\,e^{i k \cdot (x - y)} = \frac{2^{1-\nu}}{\Gamma(\nu)} (r|k|)^\nu K_\nu(r|k|)`, :math:`\nu = D/2`, for ``|k| > 0``."""
        z, nu = self.radius(positive("sigma", sigma)) * np.asarray(k, float), 0.5 * self.D
        return np.asarray(np.exp((1.0 - nu) * np.log(2.0) - special.gammaln(nu) + nu * np.log(z) - z) * special.kve(nu, z))

    def perturb(self, data: Any, sigma: float, *, ids: ArrayLike | None = None, seed: int | Noise = 0) -> Any:
        """A draw of the kernel at level ``sigma`` around each datum, (n, *shape), addressed by (seed, id): the network's input."""
        chosen = np.arange(data.shape[0]) if ids is None else as_ids(ids)
        if len(chosen) != data.shape[0]:
            raise BadInput(f"{len(chosen)} ids for {data.shape[0]} data; give one for each")
        addresses = [Address(PRIOR, slot=slot) for slot in range(2)]
        normals = as_noise(seed).draw(addresses, chosen, tuple(data.shape[1:]), data)
        return data + _push(self.D, 0.0, positive("sigma", sigma), "exact", normals)

    def loss_weight(self, sigma: ArrayLike, sigma_data: float = 0.5) -> Array:
        r"""EDM's weight of :math:`|D_\theta(x) - y|^2` at aligned levels, :math:`(\sigma^2 + \sigma_d^2)/(\sigma \sigma_d)^2`.

        The minimiser is the posterior mean, :meth:`denoiser` of the law of the data.
        """
        sigma, own = np.asarray(sigma, float), positive("sigma_data", sigma_data)
        return np.asarray((sigma**2 + own**2) / (sigma * own) ** 2)

    def denoiser(self, law: Law) -> PfgmDenoiser:
        """The exact posterior mean of ``y`` given ``x``; of ``Empirical(batch)`` it is the regression target of a batch."""
        return PfgmDenoiser(law, self.D)

    def prior(self, shape: Sequence[int]) -> Marginal:
        r"""The start, :math:`R^2/(\sigma^2 D) \sim BetaPrime(N/2, D/2)` and a uniform direction, at the level where a run starts."""
        return self.marginal(Empirical(np.zeros((1, *shape))))

    def marginal(self, law: Law) -> Marginal:
        """The law of perturbed data as a start: exact, as :meth:`prior` is not."""
        return Marginal(self.D, law)

    def plan(self, plan: Plan, kernel: str = "exact") -> Plan:
        """``plan`` with the noise of PFGM++ in the place of all Gaussian noise that it adds between steps.

        Parameters
        ----------
        plan : Plan
        kernel : {"exact", "straight"}
            The transition kernel, under which the perturbed laws follow each other; or the published straight line, which adds too much noise:
            relatively :math:`2 r_1^2 / (D (r_2^2 - r_1^2))` in the variance, nothing from the data.  It needs ``D >= 1``.

        Raises
        ------
        BadInput
            For another kernel, and for a process with more than one block.
        """
        if kernel not in _KERNELS:
            raise unknown("kernel", kernel, _KERNELS)
        if kernel == "straight" and self.D < 1.0:
            raise BadInput(f"D = {self.D:g}: the straight line needs D >= 1; use kernel='exact'")
        return plan.then(_Jumps(self.D, kernel))

    def restart(self, grid: Grid | Plan, intervals: Iterable[Interval], *, kernel: str = "exact", **options: Any) -> Plan:
        """:func:`sdekit.plans.restart` with the noise of PFGM++; ``options`` are its own."""
        return self.plan(restart(grid, intervals, **options), kernel)


# ---------------------------------------------------------------------------------------------------------------- noise


def _push(D: float, low: float, high: float, kernel: str, normals: Sequence[Any]) -> Any:
    """What the move from level ``low`` to ``high`` adds: normals times a scale of each sample's own."""
    g = normals[0]
    first = [to_host(block.reshape((block.shape[0], -1))[:, 0]).astype(float) for block in normals[1:]]
    r1, r2 = low * np.sqrt(D), high * np.sqrt(D)
    with np.errstate(over="ignore", divide="ignore"):
        if kernel == "exact":
            scale = r2 * np.sqrt(spread(D, r1 / r2, first[0]))
        else:
            rest = 2.0 * special.gammaincinv(0.5 * (D - 1.0), special.ndtr(first[1])) if D > 1.0 else 0.0
            along, square = first[0], first[0] ** 2 + rest
            scale = (r1 * along + np.sqrt((r1 * along) ** 2 + square * (r2 - r1) * (r2 + r1))) / square
    return like(scale.reshape((-1, *(1,) * (g.ndim - 1))), g) * g


@dataclass(frozen=True)
class PfgmJump:
    """From ``start`` up to ``end`` by a transition of PFGM++, its noise times ``scale``; not affine, since its variance is drawn."""

    process: Process
    D: float
    kernel: str
    start: float
    end: float
    scale: float = 1.0
    leg: int = 0
    step: int = 0
    stream: int = MOVE

    @property
    def nfe(self) -> int:
        """Model calls."""
        return 0

    @property
    def noises(self) -> int:
        """Blocks of normals; of all but the first, one element of each sample is used."""
        return 2 if self.kernel == "exact" else 3

    def apply(self, state: list[Any], model: Callable[..., Any], normals: Sequence[Any]) -> list[Any]:  # noqa: ARG002
        """The block at the higher level."""
        low, high = (float(level) for level in self.process.sigma_eff([self.start, self.end]))
        before, after = (float(self.process.kernel(t).psi[0]) for t in (self.start, self.end))
        return [(after / before) * state[0] + (after * self.scale) * _push(self.D, low, high, self.kernel, normals)]


@dataclass(frozen=True)
class _Jumps:
    D: float
    kernel: str

    def __call__(self, moves: list[Move], process: Process) -> list[Move]:
        _one_block(process)
        return [self._jump(move, process) if isinstance(move, Jump) else move for move in moves]

    def _jump(self, move: Jump, process: Process) -> PfgmJump:
        return PfgmJump(process, self.D, self.kernel, move.s, move.t, move.scale, move.leg, move.step)


def _one_block(process: Any) -> None:
    if not isinstance(process, Process) or process.k != 1:
        raise BadInput(f"PFGM++ is known on processes with one block, such as edm() or vp(), not on {getattr(process, 'name', process)!r}")


@dataclass(frozen=True, eq=False)
class Marginal:
    """The law of data perturbed by PFGM++'s kernel, at whichever level a run starts: ``sdekit.sample(..., start=...)``.

    Attributes
    ----------
    D : float
    law : Law
        Of the data.
    """

    D: float
    law: Law

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        return self.law.shape

    def begin(self, process: Any, t: float, ids: NDArray[np.int64], source: Noise, reference: Any) -> list[Any]:
        """The block at time ``t``, addressed by id."""
        _one_block(process)
        kernel = process.kernel(t)
        x0 = like(self.law.sample(ids=ids, seed=source), reference)
        return [float(kernel.psi[0]) * Pfgm(self.D).perturb(x0, float(kernel.sigma_eff), ids=ids, seed=source)]


# ---------------------------------------------------------------------------------------------------------------- exact denoisers


@cache
def _nodes(N: int, D: float) -> tuple[Array, Array]:
    r"""Values of :math:`u \sim \chi^2_D`, equally spaced in :math:`\log u`, with the logarithms of their weights.

    Spaced for the narrowest posterior of ``u``, whose width is :math:`\sqrt{2/(N + D)}`, as far as posteriors reach.
    """
    nu = 0.5 * D
    tail = np.log(1e-20)
    low = (tail + special.gammaln(nu + 1.0)) / nu if D < 50.0 else np.log(special.gammaincinv(nu, np.exp(tail)))
    low += np.log(2.0) - np.log1p(16.0 * (N + 40.0) / D)
    high = np.log(2.0 * special.gammainccinv(0.5 * (N + D), np.exp(tail)))
    v = np.linspace(low, high, int(np.ceil((high - low) / (0.35 * np.sqrt(2.0 / (N + D))))))
    return np.exp(v), nu * v - 0.5 * np.exp(v)


def _squares(constants: tuple[Any, ...], y: Any) -> Any:
    data, squares, _ = constants
    gap = (y * y).sum(-1)[:, None] - 2.0 * (y @ data.T) + squares
    return gap * (gap > 0.0)


class PfgmDenoiser(LawDenoiser):
    r"""``denoise(x, sigma)``: the exact posterior mean of ``y`` under the kernel of PFGM++.

    For data :math:`y_i` the softmax of :math:`-\tfrac{N+D}{2}\log(|x - y_i|^2 + \sigma^2 D)`.  For laws with a density the kernel is a mixture of
    normals of variance :math:`\tau = \sigma^2 D / u`, :math:`u \sim \chi^2_D`, and the answer that of the Gaussian denoisers under the posterior
    of ``u``, by quadrature in :math:`\log u` to about 1e-12.

    Raises
    ------
    BadInput
        For a law that is neither Gaussian, Mixture nor Empirical.
    """

    def __init__(self, law: Law, D: float) -> None:
        if not isinstance(law, Gaussian | Mixture | Empirical):
            raise BadInput(f"law = {law!r} must be a Gaussian, Mixture or Empirical law")
        super().__init__(law)
        self.D = positive("D", D)

    def __call__(self, y: Any, sigma: Any) -> Any:
        """``E[y | x]`` for x (batch, *shape) and sigma a number or (batch,)."""
        constants = self._constants(y)
        flat = y.reshape((y.shape[0], -1))
        area = sigma * sigma * self.D
        if getattr(area, "ndim", 0):
            area = area.reshape((-1, 1))
        N = flat.shape[1]
        if isinstance(self.law, Empirical) and self.law.width == 0.0:
            logits = -0.5 * (N + self.D) * namespace(flat).log1p(_squares(constants, flat) / area)
            return (softmax(logits) @ constants[0]).reshape(y.shape)
        u, logs = _nodes(N, self.D)
        taus = [area / float(value) for value in u]
        logits = [log + self._logits(constants, flat, tau) for log, tau in zip(logs.tolist(), taus, strict=True)]  # (n, parts) each
        share = softmax(namespace(flat).concat(logits, axis=-1))
        parts = logits[0].shape[1]
        answers = (self._answer(constants, flat, tau, share[:, i * parts : (i + 1) * parts]) for i, tau in enumerate(taus))
        return sum(answers).reshape(y.shape)

    def _logits(self, constants: tuple[Any, ...], y: Any, tau: Any) -> Any:
        """Logarithms of the weighted densities of the law's parts, with noise of variance ``tau``."""
        if isinstance(self.law, Gaussian):
            return Gaussian._log_density(constants, y, tau)[:, None]
        if isinstance(self.law, Mixture):
            return Mixture._logits(constants, y, tau)
        total = tau + constants[2]
        return -0.5 * _squares(constants, y) / total - 0.5 * y.shape[1] * namespace(total).log(total)

    def _answer(self, constants: tuple[Any, ...], y: Any, tau: Any, share: Any) -> Any:
        """The posterior means of the parts, in their shares."""
        if isinstance(self.law, Gaussian):
            return share * Gaussian._denoise(constants, y, tau)
        if isinstance(self.law, Mixture):
            return sum(share[:, j : j + 1] * Gaussian._denoise(part, y, tau) for j, part in enumerate(constants[1]))
        data, _, inner = constants
        return (inner * share.sum(-1)[:, None] * y + tau * (share @ data)) / (tau + inner)
