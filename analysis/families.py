r"""Families of data laws, and the exact error of one sampler on all of them at once.

For normal laws the error is W2, from the exact map of each mode; equal modes are computed once.  For mixtures it is the root mean square
distance of 64 paths, started from fixed normals, to the exact flow of the ODE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..denoiser import score
from ..errors import BadInput, positive, whole
from ..law import Gaussian, Mixture
from ..process import Process
from ..solve import Program, solve
from .affine import Normal
from .exact import marginal, probe

Array = NDArray[np.float64]

__all__ = ["Family", "Spectrum", "power_law"]

_PATHS = 64
_NEAR = 1e-5  # of the highest level: where the exact flow stops and the data are denoised


def power_law(power: float = 2.0, scale: float = 0.5, frequencies: int = 32) -> Gaussian:
    r"""The normal law of an image-like spectrum: variance :math:`s^2 k^{-p}` in :math:`k^2` modes, k = 1 .. ``frequencies``, mean 0.

    Parameters
    ----------
    power, scale : float
        ``p`` and ``s``; natural images have p near 2.
    frequencies : int

    Raises
    ------
    BadInput
        Unless all are positive.
    """
    k = np.arange(1.0, whole("frequencies", frequencies) + 1.0)
    variances = np.repeat(positive("scale", scale) ** 2 * k ** -positive("power", power), (k**2).astype(int))
    return Gaussian(np.zeros_like(variances), variances)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The modes of several normal laws side by side, equal ones once: mean, variance, how many, and whose."""

    mean: Array
    variances: Array
    count: Array
    owner: NDArray[np.int64]

    @classmethod
    def of(cls, laws: Sequence[Gaussian]) -> Spectrum:
        """The modes of ``laws``."""
        parts = [np.empty((4, 0))]
        for i, law in enumerate(laws):
            mean = law.mean.reshape(-1)
            pairs, count = np.unique(np.stack([mean if law.basis is None else mean @ law.basis, law.variances]), axis=1, return_counts=True)
            parts.append(np.concatenate([pairs, count[None], np.full((1, len(count)), i)]))
        mean, variances, count, owner = np.concatenate(parts, axis=1)
        return cls(mean, variances, count, owner.astype(np.int64))

    def sums(self, squares: Array) -> Array:
        """Root of the sum over the modes of each law."""
        return np.asarray(np.sqrt(np.bincount(self.owner, self.count * squares)))

    def gaps(self, program: Program, prior: bool = True) -> Array:
        """Errors of mean and of standard deviation of the sampler, started from the prior or from the exact law there: (2, modes)."""
        process, t, d = program.process, float(program.times[0]), len(self.mean)
        plain = Normal(np.zeros((process.k, d)), np.broadcast_to(process.kernel(t).chol[..., None], (process.k, process.k, d)))
        found = probe(program, self.mean, self.variances).push(plain if prior else marginal(process, t, self.mean, self.variances))
        return np.stack([found.mean[0] - self.mean, np.sqrt(np.sum(found.factor[0] ** 2, axis=0)) - np.sqrt(self.variances)])

    def lost(self, sigma: Array) -> Array:
        """What one denoising step from each level loses, as a part of the size of each law: (levels, laws)."""
        v, s = self.variances, sigma[:, None]
        gap = np.sqrt(v) * (1.0 - np.sqrt(v / (v + s**2)))
        return np.stack([self.sums(row**2) for row in gap]) / self.sums(v)


class _Paths:
    """Paths of one mixture from fixed normals, with the ends that the exact flow gives them."""

    def __init__(self, process: Process, law: Mixture, top: float) -> None:
        self.model = law.denoiser()
        t = float(process.time_of(top))
        xi = np.random.default_rng(0).standard_normal((process.k, _PATHS, *law.shape))
        self.start = np.tensordot(process.kernel(t).chol, xi, axes=1)
        self.end = self._flow(process, t, float(process.time_of(max(_NEAR * top, 1.001 * float(process.sigma_eff(0.0))))))

    def _flow(self, process: Process, t: float, s: float) -> Array:
        from scipy.integrate import solve_ivp

        def slope(log_t: float, flat: Array) -> Array:
            now = float(np.exp(log_t))
            z, G = flat.reshape(self.start.shape), process.noise(now)
            drift = np.tensordot(process.drift(now), z, axes=1) - 0.5 * np.tensordot(G @ G.T, score(process, self.model, z, now), axes=1)
            return np.asarray(now * drift.ravel())

        made = solve_ivp(slope, np.log([t, s]), self.start.ravel(), method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1].reshape(self.start.shape)
        y = np.tensordot(process.kernel(s).observe, made, axes=1)
        return np.asarray(self.model(y, float(process.sigma_eff(s))))

    def gaps(self, program: Program) -> Array:
        """Errors of the data block at the end of each path, flat."""
        state, _ = solve(program, list(self.start), self.model)
        return np.asarray((state[0] - self.end).ravel())


def _variances(law: Gaussian | Mixture) -> Array:
    return law.variances if isinstance(law, Gaussian) else np.asarray(np.linalg.eigvalsh(law.matrix))


def _scales(law: Gaussian | Mixture) -> Gaussian:
    """A normal law with the scales of ``law``: those of its parts and of the whole."""
    if isinstance(law, Gaussian):
        return law
    variances = np.concatenate([*(part.variances for part in law.parts), _variances(law)])
    return Gaussian(np.zeros_like(variances), variances)


class Family:
    """Laws of data and the error of a sampler on each.

    Parameters
    ----------
    process : Process
    laws : sequence of Gaussian or Mixture
    top : float
        Highest level.
    prior : bool
        Whether samplers of normal laws start from the prior; if not, from the exact law at their first time.

    Attributes
    ----------
    spectrum : Spectrum
        Modes of all laws, or of normal laws with their scales, for estimates.
    owner : int array
        Which law each gap belongs to.
    size : array (laws,)
        Root mean square distance of the data to their mean.
    """

    def __init__(self, process: Process, laws: Sequence[Gaussian | Mixture], top: float, prior: bool = True) -> None:
        self.process, self.prior = process, prior
        self.spectrum = Spectrum.of([_scales(law) for law in laws])
        self.size = np.array([np.sqrt(np.sum(_variances(law))) for law in laws])
        self._normal = Spectrum.of([law for law in laws if isinstance(law, Gaussian)])
        self._paths = {i: _Paths(process, law, top) for i, law in enumerate(laws) if isinstance(law, Mixture)}
        own = np.array([i for i in range(len(laws)) if i not in self._paths], dtype=np.int64)[self._normal.owner]
        self.owner = np.concatenate([own, own, *(np.full(path.end.size, i) for i, path in self._paths.items())])
        counts = [self._normal.count, self._normal.count, *(np.full(path.end.size, 1.0 / _PATHS) for path in self._paths.values())]
        self._weight = np.sqrt(np.concatenate(counts))
        if not np.all(self.size > 0.0):
            raise BadInput("a law of data is a point: every grid is exact on it that ends at the data")

    def gaps(self, program: Program) -> Array:
        """All errors of ``program``, each with the root of its weight: the squares of a law sum to its squared error."""
        found = [np.empty(0), *(path.gaps(program) for path in self._paths.values())]
        if len(self._normal.mean):
            found.insert(0, self._normal.gaps(program, self.prior).ravel())
        return np.asarray(self._weight * np.concatenate(found))

    def errors(self, gaps: Array) -> Array:
        """The error on each law, (laws,)."""
        return np.asarray(np.sqrt(np.bincount(self.owner, gaps**2, minlength=len(self.size))))
