"""Normal data with the spectrum of images, on which the tables of "Gotta Go Fast" (arXiv:2105.14080) come out without weights.

Cosine modes of variance ~ j^-2 with the paper's pixel variance; the exact denoiser; the paper's processes and tolerances.  The W2 of an adaptive run
is that of its accepted grid, frozen: exact, mode by mode.  For VE the data have mean 1/2, as images in [0, 1] have; the run starts around
it, so that the mean is exact and W2 is about the spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct

import sdekit as sk
from sdekit.analysis.adaptive_grids import frozen_law
from sdekit.control import Control, gotta_go_fast
from sdekit.law import Gaussian
from sdekit.methods import Method
from sdekit.process import Process

Array = NDArray[np.float64]


def power_law(d: int, pixel: float, power: float = 2.0) -> Array:
    """Variances ~ j^-power, j = 1 .. d, of mean ``pixel``."""
    made = np.arange(1.0, d + 1.0) ** -power
    return np.asarray(pixel * d / made.sum() * made)


@dataclass(frozen=True, eq=False)
class Replica:
    """One process with what the paper sets for it, and its data; callable as the exact denoiser."""

    process: Process
    t_end: float
    atol: float
    mean: float
    variances: Array = field(repr=False)

    @property
    def shape(self) -> tuple[int]:
        return (len(self.variances),)

    def __call__(self, y: Any, sigma: Any) -> Any:
        noise = np.asarray(sigma, float).reshape(-1, 1) ** 2
        modes = dct(y - self.mean, norm="ortho")
        return self.mean + idct(self.variances / (self.variances + noise) * modes, norm="ortho")

    def control(self, rtol: float, **changes: Any) -> Control:
        """Algorithm 1 as published."""
        return gotta_go_fast(rtol, self.atol, published=True, **changes)

    def run(self, control: Control, seeds: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64], list[Array]]:
        """Calls (without denoising), rejections and accepted times of one sample for each seed."""
        start, grid = Gaussian(np.full(self.shape, self.mean), 0.0), sk.grids.times([self.process.T, self.t_end])
        options = {"ids": seeds, "start": start, "shape": self.shape, "batch": len(seeds)}
        run = sk.sample(self.process, self, control=control, grid=grid, **options)
        if set(run.status) != {"ok"}:
            raise RuntimeError(f"the run did not end: {set(run.status)}")
        return run.nfe, run.adapted.rejected, list(run.adapted.times)

    def w2(self, times: Any, method: Method) -> float:
        """Exact W2 of ``method`` on a grid, root mean square over the elements."""
        variances, count = self._groups
        law = frozen_law(self.process, times, method, Gaussian(np.zeros_like(variances), variances))
        prior = float(self.process.kernel(self.process.T).cov[0, 0])
        spread = np.sqrt(law.map.matrix[0, 0] ** 2 * prior + np.sum(law.map.noise[0] ** 2, axis=0))
        return float(np.sqrt(np.average((spread - np.sqrt(law.data.variances)) ** 2, weights=count)))

    @cached_property
    def _groups(self) -> tuple[Array, Array]:
        """Variances that differ by less than a percent as one, at their geometric mean: W2 keeps five digits."""
        logs = np.log(self.variances)
        _, index, count = np.unique(np.round(logs / 0.01), return_inverse=True, return_counts=True)
        return np.exp(np.bincount(index, logs) / count), count

    def uniform(self, steps: int) -> Array:
        """Times in equal steps."""
        return np.asarray(sk.grids.uniform(steps, end=self.t_end).times(self.process))


def vp(d: int = 3072) -> Replica:
    """CIFAR-10 in [-1, 1]."""
    return Replica(sk.catalogue.vp(), 1e-3, 0.0078, 0.0, power_law(d, 0.25))


def ve(d: int = 3072, sigma_max: float = 50.0) -> Replica:
    """Data in [0, 1]; ``sigma_max`` 50 for CIFAR-10, 348 for FFHQ, 380 for LSUN-Church at 256 x 256."""
    return Replica(sk.catalogue.ve(sigma_max=sigma_max), 1e-5, 0.0039, 0.5, power_law(d, 0.0625))
