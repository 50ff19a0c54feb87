"""Strong orders: how far a sampler's paths are from the solution on the same Brownian path."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..brownian import Coupled, Walk
from ..errors import BadInput, whole
from ..grids import Grid, logsnr
from ..law import Law, Mixture
from ..methods import Method, sra
from ..plans import run
from ..process import Process
from ..solve import program, solve
from .orders import OrderReport, judge

Array = NDArray[np.float64]

__all__ = ["strong_order"]

_FINER = 16


def strong_order(
    method: Method,
    process: Process,
    *,
    data: Law | None = None,
    grid: Callable[[int], Grid] | None = None,
    steps: Sequence[int] = (20, 40, 80),
    paths: int = 400,
    seed: int = 0,
) -> OrderReport:
    r"""Measure the strong order, :math:`(E|z_N - z|^2)^{1/2} = O(N^{-\gamma})`, on coupled paths.

    All grids read one Brownian path; the solution is SRA1 (strong order 1.5, weak order 2) on a grid 16 times finer than the finest.  The default
    data are a mixture: with a linear drift methods of order 1.5 show 2.  Modes far apart would make paths part at a ridge, and slopes erratic.

    Parameters
    ----------
    method : Method
        With noise, whose normals are increments, or increments and then areas: ``euler``, ``heun``, ``sra``.
    process : Process
    data : Law, optional
    grid : callable n -> Grid, optional
        Nested as n doubles.  Default: uniform in log level from 3 to 0.3.
    steps : sequence of int
        Each twice the one before.
    paths, seed : int

    Returns
    -------
    OrderReport
        Of kind "strong".

    Raises
    ------
    BadInput
        For a method without noise.
    """
    if not method.noisy or callable(method.noise):
        raise BadInput(f"{method.name} has noise level {method.noise!r}; a strong order needs a constant one above 0")
    law = Mixture([0.4, 0.6], [-0.6, 0.5], [0.25, 0.3]) if data is None else data
    make = (lambda n: logsnr(n, 0.3, 3.0)) if grid is None else grid
    counts, n = np.array(sorted(steps)), whole("paths", paths)
    fine = make(int(counts[-1]) * _FINER).times(process)
    kernel, ids, width = process.kernel(float(fine[0])), np.arange(n), int(process.noise(float(fine[0])).shape[-1])
    walk = Walk(fine[0] - fine, width, seed=seed, ids=ids, shape=law.shape)
    xi = np.random.default_rng(seed).standard_normal((process.k, n, *law.shape))
    start, denoise = list(kernel.sample(law.sample(n, seed=seed + 1), xi)), law.denoiser()

    def ends(which: Method, count: int) -> Array:
        prog = program(process, run(make(count), which))
        return np.stack(solve(prog, start, denoise, Coupled(walk, prog.times), ids)[0])

    exact = ends(sra(1, noise=method.noise), int(counts[-1]) * _FINER)
    scale = np.sqrt(np.mean(exact**2, axis=tuple(range(1, exact.ndim)), keepdims=True))
    errors = np.array([np.max(np.sqrt(np.mean(((ends(method, int(c)) - exact) / scale) ** 2, axis=tuple(range(1, exact.ndim))))) for c in counts])
    levels = process.sigma_eff(fine[[0, -1]])
    return judge(method.name, process.name, "strong", counts, errors, (float(levels[0]), float(levels[1])), method.orders.strong)
