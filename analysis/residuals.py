r"""How wrong a trained denoiser is, level by level, from its residuals on data.

The excess of its loss over the least possible one is its error: :math:`E|D_\theta - x_0|^2 = E|D - x_0|^2 + E|D_\theta - D|^2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BadInput, positive, whole
from ..law import Gaussian, Law
from ..noise import PATH, Address, Addressed

Array = NDArray[np.float64]

__all__ = ["LevelLaws", "ScoreError", "score_error"]


@dataclass(frozen=True, eq=False)
class LevelLaws:
    """Normal laws, one for each noise level, in one eigenbasis: what a denoiser does to mean and variances there.

    Attributes
    ----------
    sigmas : array (levels,)
        Increasing; between them means and variances go linearly in the log level, beyond them they stay.
    means, variances : arrays (levels, d)
        Along the basis.
    basis : array (d, d) or None
    shape : tuple of int
        Of one datum.
    """

    sigmas: Array = field(repr=False)
    means: Array = field(repr=False)
    variances: Array = field(repr=False)
    basis: Array | None = field(repr=False)
    shape: tuple[int, ...]

    def law_at(self, sigma: float) -> Gaussian:
        """The law whose exact denoiser stands for the model at this level."""
        at = np.log(positive("sigma", sigma))
        mean, values = (np.array([np.interp(at, np.log(self.sigmas), column) for column in rows.T]) for rows in (self.means, self.variances))
        if self.basis is None:
            return Gaussian(mean.reshape(self.shape), values.reshape(self.shape))
        return Gaussian((self.basis @ mean).reshape(self.shape), (self.basis * values) @ self.basis.T)


@dataclass(frozen=True, eq=False)
class ScoreError:
    r"""What :func:`score_error` found, level by level.

    Attributes
    ----------
    sigmas : array (levels,)
    loss, best : arrays (levels,)
        Mean squares of the residual of the model and of the reference denoiser, summed over elements.
    eps : array (levels,)
        :math:`\sqrt{(loss - best)_+} / \sigma`: the error of ``t s`` in root mean square.
    spread : array (levels,)
        Standard error of ``loss - best``; an excess below two of it is not told from none.
    surrogate : LevelLaws
        The normal laws that answer most nearly like the model: ``model=`` of :func:`sdekit.analysis.tune_restart`.
    reference : str
        What ``best`` is the loss of.
    """

    sigmas: Array
    loss: Array
    best: Array
    eps: Array
    spread: Array
    surrogate: LevelLaws = field(repr=False)
    reference: str

    def __str__(self) -> str:
        rows = zip(self.sigmas, self.loss, self.best, self.eps, self.spread, strict=True)
        head = f"score error against {self.reference}\n{'sigma':>10} {'loss':>11} {'best':>11} {'eps':>9} {'+- loss':>9}"
        return "\n".join([head, *(f"{s:10.4g} {a:11.5g} {b:11.5g} {e:9.3g} {w:9.2g}" for s, a, b, e, w in rows)])


def score_error(denoise: Any, data: ArrayLike | Law, sigmas: Sequence[float], *, best: Any = None, n: int = 4096, seed: int = 0) -> ScoreError:
    """Estimate the error of a denoiser at each noise level from its residuals.

    Parameters
    ----------
    denoise : callable
        ``denoise(y, sigma)``.
    data : Law, or array (n, *shape)
        The law itself, or data held out from training (on training data a network that remembers them looks too good).
    sigmas : sequence of float
    best : callable, optional
        The best denoiser known: the law's exact one when absent; for an array that of the normal law with its mean and covariance, which a good
        network beats, so that the excess is then a lower bound.
    n : int
        Samples drawn from a law.
    seed : int
        Of noise and law; both denoisers see the same samples, so that an equal one has no excess at all.

    Returns
    -------
    ScoreError

    Raises
    ------
    BadInput
        For fewer than two data or levels that are not positive.
    """
    levels = np.unique([positive("sigma", sigma) for sigma in sigmas])
    x0 = data.sample(whole("n", n, 2), seed=seed) if isinstance(data, Law) else np.asarray(data, float)
    if not len(levels) or x0.ndim < 1 or len(x0) < 2:
        raise BadInput(f"score_error needs at least one level and two data, got {len(levels)} and an array of shape {x0.shape}")
    normal = data if isinstance(data, Gaussian) else _fitted(x0)
    law = data if isinstance(data, Law) else normal
    reference = "a given denoiser" if best is not None else "the exact denoiser" if law is data else "the normal law of the data"
    chosen = law.denoiser() if best is None else best
    xi = Addressed(seed).draw([Address(PATH, slot=252)], np.arange(len(x0)), x0.shape[1:])[0]
    rows, laws = [], []
    for sigma in levels.tolist():
        y = x0 + sigma * xi
        answer = np.asarray(denoise(y, sigma), float)
        own, its = (np.sum((np.asarray(d, float) - x0).reshape(len(x0), -1) ** 2, axis=1) for d in (answer, chosen(y, sigma)))
        rows.append([np.mean(own), np.mean(its), np.std(own - its, ddof=1) / np.sqrt(len(x0))])
        laws.append(_nearest(normal, y, answer, sigma))
    loss, least, spread = np.array(rows).T
    eps = np.sqrt(np.maximum(loss - least, 0.0)) / levels
    means, variances = (np.stack(part) for part in zip(*laws, strict=True))
    return ScoreError(levels, loss, least, eps, spread, LevelLaws(levels, means, variances, normal.basis, normal.shape), reference)


def _fitted(x0: Array) -> Gaussian:
    flat = x0.reshape(len(x0), -1)
    return Gaussian(np.mean(x0, axis=0), np.atleast_2d(np.cov(flat.T)))


def _nearest(normal: Gaussian, y: Array, answer: Array, sigma: float) -> tuple[Array, Array]:
    """Mean and variances, by mode, of the normal law whose denoiser fits the answers: least squares on what is left of the given law's."""

    def modes(x: Array) -> Array:
        flat = x.reshape(len(x), -1)
        return flat if normal.basis is None else flat @ normal.basis

    gap, at = modes(answer - normal.denoiser()(y, sigma)), modes(y)
    centred = at - np.mean(at, axis=0)
    change = np.sum(centred * gap, axis=0) / np.sum(centred**2, axis=0)
    shrink = normal.variances / (normal.variances + sigma**2)
    slope = np.clip(shrink + change, 0.0, 1.0 - 1e-9)
    centre = modes(normal.mean[None])[0]
    offset = (1.0 - shrink) * centre + np.mean(gap, axis=0) - change * np.mean(at, axis=0)
    return offset / (1.0 - slope), sigma**2 * slope / (1.0 - slope)
