r"""Samples given part of the data: by imputation, as published, and by the posterior of a denoiser, which is exact on Gaussian data.

Both work for every number of blocks.  Imputation is a transform of plans; the posterior is a denoiser, because the score of
:math:`p(z_t \mid c)` is again :math:`-S^{-1}(z - \psi D_c(y; \sigma_{eff}))` with :math:`D_c(y; \sigma) = E[x_0 \mid y, c]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._array import is_torch, like
from ..denoiser import Denoiser
from ..errors import BadInput, MissingExtra, finite, positive, unknown, whole
from ..noise import MOVE
from ..plans import Jump, Move, Plan, Run
from ..process import Process
from .guidance import Wrapped

try:
    import torch
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

__all__ = ["Imputation", "Posterior", "imputed"]

_OWN = 1 << 24  # first step of the noise addresses of this module
_LEGS = 1 << 16  # legs between one repetition and the next
_MOST = 16  # repetitions


@dataclass(frozen=True, eq=False)
class Imputation:
    r"""At time ``t`` the known elements of all blocks become a fresh draw of the kernel at ``level``, :math:`\psi x_0 + L\xi`."""

    process: Process
    t: float
    level: float
    mask: NDArray[np.bool_]
    values: NDArray[np.float64]
    leg: int = 0
    step: int = 0
    stream: int = MOVE

    @property
    def start(self) -> float:
        """The time before."""
        return self.t

    @property
    def end(self) -> float:
        """The time after."""
        return self.t

    @property
    def nfe(self) -> int:
        """Model calls."""
        return 0

    @property
    def noises(self) -> int:
        """Blocks of normals."""
        return self.process.k

    def apply(self, state: list[Any], _: Callable[..., Any], normals: Sequence[Any]) -> list[Any]:
        """The new blocks."""
        kernel = self.process.kernel(self.level)
        known, free = (like(part.astype(float), state[0]) for part in (self.mask, ~self.mask))
        values = like(np.where(self.mask, self.values, 0.0), state[0])
        drawn = [
            float(psi) * values + sum(float(c) * xi for c, xi in zip(row, normals, strict=True)) * known
            for psi, row in zip(kernel.psi, kernel.chol, strict=True)
        ]
        return [free * block + new for block, new in zip(state, drawn, strict=True)]


@dataclass(frozen=True, eq=False)
class _Imputed:
    mask: NDArray[np.bool_]
    values: NDArray[np.float64]
    repeats: int
    level: str

    def __call__(self, moves: list[Move], process: Process) -> list[Move]:
        def impute(t: float, level: float, piece: Run, after: int = 0) -> Imputation:
            return Imputation(process, t, level, self.mask, self.values, piece.leg, _OWN + 2 * piece.first + after)

        out: list[Move] = []
        last: Run | None = None
        for move in moves:
            if not isinstance(move, Run):
                out.append(move)
                continue
            for i, (t, s) in enumerate(zip(move.times, move.times[1:], strict=False)):
                for r in range(self.repeats):
                    piece = Run(move.method, (t, s), move.leg + r * _LEGS, move.first + i)
                    if r:
                        out.append(Jump(s, t, 1.0, piece.leg, _OWN + 2 * piece.first))
                    if self.level == "own":
                        out += [impute(t, t, piece, 1 if r else 0), piece]
                    else:
                        out += [piece, impute(s, t, piece, 1 if r else 0)]
                    last = piece
        if last is None:
            raise BadInput("imputed() is for plans with steps of a method")
        end = last.times[-1]
        return [*out, Imputation(process, end, end, self.mask, self.values, last.leg, _OWN + 2 * (last.first + 1))]


def imputed(plan: Plan, mask: ArrayLike, values: ArrayLike, *, repeats: int = 1, level: str = "own") -> Plan:
    r"""Inpainting by imputation: before each step, known elements of all blocks are overwritten by a fresh draw of the kernel given their data.

    A heuristic: the free elements are told of the known ones through noise that is drawn anew at each level, so their law is *not* the conditional
    one, and does not become it with more steps: for two normal elements of correlation 0.8 the mean of the free one moves by 0.5 of what it
    should and less.  More ``repeats`` come nearer, at their price in calls, with methods whose large steps are good; errors of Euler's method
    grow with them.  :class:`Posterior` is the method that is exact on Gaussian data.

    Parameters
    ----------
    plan : Plan
        Steps lose their memory: use methods of one step.
    mask : array of bool, of the datum's shape
        True where the datum is known.
    values : array of the datum's shape
        The known values; others are ignored.
    repeats : int
        How often each step is made, going back up by the forward process between: RePaint's resampling with jumps of one step.
    level : {"own", "released"}
        Noise of the known part: that of the state.  ``released`` is that of the level *before* the step, put in after it, as in
        the code of score_sde and PSLD: one level too noisy.

    Returns
    -------
    Plan
        It ends with the known values in their place (with their noise, if the plan ends above the data).

    Raises
    ------
    BadInput
        For shapes that do not fit, a mask that is not bool, more than 16 repeats, or another level.

    References
    ----------
    Song et al. 2021, arXiv:2011.13456, appendix I.2; Lugmayr et al. 2022, arXiv:2201.09865; Pandey and Mandt 2023, arXiv:2303.01748.
    """
    known, held = _observed(mask, values)
    if whole("repeats", repeats) > _MOST:
        raise BadInput(f"repeats = {repeats} must be at most {_MOST}")
    if level not in ("own", "released"):
        raise unknown("level", level, ["own", "released"])
    return plan.then(_Imputed(known, held, int(repeats), level))


def _observed(mask: ArrayLike, values: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    known = np.array(mask)
    if known.dtype != np.bool_ or not known.any():
        raise BadInput("mask must be an array of bool with at least one True, where the datum is known")
    held = np.array(values, dtype=float)
    if held.shape != known.shape:
        raise BadInput(f"values have shape {held.shape}, the mask {known.shape}; both must have the shape of a datum")
    if not np.all(np.isfinite(held[known])):
        raise BadInput("values must be finite where the mask is True")
    return known, held


class Posterior(Wrapped):
    r"""The denoiser given an observation :math:`c = H x_0 + s n`, from a denoiser and its derivative :math:`J = \partial D/\partial y`.

    By Tweedie's second formula the covariance of the data given ``y`` is :math:`C = \sigma^2 J`, and conditioning a Gaussian of that mean and
    covariance gives

    .. math:: D_c = D + C H^T (H C H^T + s^2)^{-1} (c - H D),

    which is exact for Gaussian data, of any covariance, and on every process.  The inverse is applied by conjugate gradients, one
    product with ``J`` each.  With ``spread``, :math:`\Pi`-GDM: ``C`` inside the inverse is :math:`r^2 I`, :math:`r^2 = \sigma^2\sigma_d^2 /
    (\sigma^2 + \sigma_d^2)`; it costs one product, and is exact for isotropic data.

    Parameters
    ----------
    denoise : Denoiser
        Through which torch can differentiate.
    mask : array of bool of the datum's shape
        What is observed.
    values : array of the datum's shape
    noise : float
        Standard deviation ``s`` of the observation.
    spread : float, optional
        :math:`\sigma_d`, the standard deviation of the data; with it the inverse is a number.
    most : int
        Conjugate gradient steps at each call, at most.

    Raises
    ------
    BadInput
        For arguments that do not fit; at a call, for a denoiser without gradient.

    Notes
    -----
    Slopes of a trained network are no exact covariance: not symmetric, and not positive.  The inverse of such a matrix is unstable (on the shipped
    digits it leaves the data's range by orders of magnitude): give ``spread`` for networks.

    References
    ----------
    Boys et al. 2023, arXiv:2310.06721; Song et al. 2023, Pseudoinverse-guided diffusion models (ICLR).
    """

    def __init__(
        self, denoise: Denoiser, mask: ArrayLike, values: ArrayLike, noise: float = 0.0, spread: float | None = None, most: int = 200
    ) -> None:
        super().__init__(denoise)
        self.mask, self.values = _observed(mask, values)
        if finite("noise", noise) < 0.0:
            raise BadInput(f"noise = {noise:g} must not be negative")
        self.noise, self.spread = float(noise), None if spread is None else positive("spread", spread)
        self.most = whole("most", most)

    def __call__(self, y: Any, sigma: Any, *told: Any) -> Any:
        """``E[x0 | y, c]``; no gradient is recorded."""
        if not is_torch(y):
            return self(torch.from_numpy(np.array(y)), sigma, *told).numpy()
        if tuple(y.shape[1:]) != self.mask.shape:
            raise BadInput(f"y has shape {tuple(y.shape)}, the mask {self.mask.shape}, which must be that of a datum")
        mask = torch.from_numpy(self.mask).to(y.device)
        known = torch.from_numpy(self.values).to(y)[mask]
        tau = sigma.to(y).reshape(-1, 1) ** 2 if is_torch(sigma) and sigma.ndim else float(sigma) ** 2
        with torch.enable_grad():
            y = y.detach().requires_grad_(True)
            data = self.inner(y, sigma, *told)
            if not data.requires_grad:
                raise BadInput("this denoiser records no gradient; wrap its network by sdekit.torch.adapters")
            seen = data[:, mask]

            def pull(w: torch.Tensor) -> torch.Tensor:
                """``C H^T w``, (n, d); ``J`` is symmetric."""
                slope: torch.Tensor = torch.autograd.grad(seen, y, w, retain_graph=True)[0]
                return tau * slope.reshape(len(w), -1)

            gap = (known - seen).detach()
            if self.spread is None:
                w = _solved(lambda v: pull(v)[:, mask.reshape(-1)] + self.noise**2 * v, gap, self.most)
            else:
                w = gap / (tau * self.spread**2 / (tau + self.spread**2) + self.noise**2)
            made: torch.Tensor = (data.detach() + pull(w).reshape(y.shape)).detach()
        return made


def _solved(product: Callable[[torch.Tensor], torch.Tensor], right: torch.Tensor, most: int) -> torch.Tensor:
    """``A^-1 b`` for each sample by conjugate gradients, to rounding or ``most`` steps."""
    w, rest = torch.zeros_like(right), right
    way, size = rest, (rest * rest).sum(1, keepdim=True)
    enough = size * torch.finfo(right.dtype).eps ** 1.8
    for _ in range(most):
        if bool((size <= enough).all()):
            break
        along = product(way)
        bent = (way * along).sum(1, keepdim=True)  # a network's slopes need not be symmetric or positive: then this is where to stop
        length = torch.where((size > enough) & (bent > 0.0), size / bent, 0.0)
        w, rest = w + length * way, rest - length * along
        new = (rest * rest).sum(1, keepdim=True)
        way, size = rest + torch.where(size > 0.0, new / size, 0.0) * way, new
    return w
