r"""Data near a curve or a surface in many dimensions: where a sampler leaves it, and in which directions.

The law is uniform on a manifold in an ``m``-dimensional subspace of :math:`R^D`, plus noise of ``thickness`` in all directions.  In the
:math:`D - m` normal directions everything is Gaussian: under the exact flow the shell ratio

.. math:: R = \frac{|P_\perp y|^2}{(D - m)(s^2 + \sigma^2)}, \qquad y = x_0 + \sigma n,

does not change along a path, and is 1 in the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BadInput, positive, unknown, whole
from ..law import Empirical
from ..process import Process
from ..sampling import sample

Array = NDArray[np.float64]

__all__ = ["Manifold", "ManifoldReport", "manifold_error"]


def _circle(u: Array) -> Array:
    return np.asarray(np.stack([np.cos(u), np.sin(u)], axis=-1))


def _spiral(u: Array) -> Array:
    return np.asarray((0.25 + 0.75 * u / (2.0 * np.pi))[:, None] * _circle(2.0 * u))


def _torus(u: Array) -> Array:
    side = round(np.sqrt(len(u)))
    a, b = np.meshgrid(2.0 * np.pi * np.arange(side) / side, 2.0 * np.pi * np.arange(side) / side)
    return np.asarray(np.concatenate([_circle(a.ravel()), _circle(b.ravel())], axis=-1) / np.sqrt(2.0))


_SHAPES = {"circle": (_circle, 2), "spiral": (_spiral, 2), "torus": (_torus, 4)}


@dataclass(frozen=True)
class Manifold:
    """A curve or surface embedded by a random orthonormal frame.

    Parameters
    ----------
    shape : {"circle", "spiral", "torus"}
        The unit circle, an Archimedean spiral of two turns from radius 1/4 to 1, the flat torus with circles of radius 1/sqrt 2.
    dimension : int
        ``D``.
    thickness : float
        Standard deviation of the noise around it.
    centres : int
        Points that the law is made of (a square number for the torus).
    seed : int
        Of the frame.

    Raises
    ------
    BadInput
        For another shape, or a dimension without normal directions.
    """

    shape: str = "circle"
    dimension: int = 16
    thickness: float = 0.02
    centres: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.shape not in _SHAPES:
            raise unknown("shape", self.shape, _SHAPES)
        positive("thickness", self.thickness)
        if whole("dimension", self.dimension) <= _SHAPES[self.shape][1]:
            raise BadInput(f"dimension = {self.dimension} leaves no normal direction: a {self.shape} spans {_SHAPES[self.shape][1]}")
        if self.shape == "torus" and round(np.sqrt(self.centres)) ** 2 != whole("centres", self.centres):
            raise BadInput(f"centres = {self.centres} must be a square number for a torus")

    @cached_property
    def frame(self) -> Array:
        """Orthonormal columns (D, m) that span it."""
        width = _SHAPES[self.shape][1]
        return np.asarray(np.linalg.qr(np.random.default_rng(self.seed).standard_normal((self.dimension, width)))[0])

    @cached_property
    def points(self) -> Array:
        """The centres in the frame, (centres, m)."""
        return np.asarray(_SHAPES[self.shape][0](2.0 * np.pi * np.arange(self.centres) / self.centres))

    @cached_property
    def law(self) -> Empirical:
        """The law of the data."""
        return Empirical(self.points @ self.frame.T, self.thickness)

    @property
    def normals(self) -> int:
        """Normal directions to the subspace, ``D - m``."""
        return int(self.dimension - self.frame.shape[1])

    def normal(self, y: ArrayLike) -> Array:
        """The part of ``y`` (..., D) that is normal to the subspace."""
        y = np.asarray(y, float)
        return np.asarray(y - (y @ self.frame) @ self.frame.T)

    def shell(self, y: ArrayLike, sigma: float) -> Array:
        """The shell ratio of each ``y`` (n, D) at level ``sigma``."""
        return np.asarray(np.sum(self.normal(y) ** 2, axis=-1) / (self.normals * (self.thickness**2 + sigma**2)))

    def distance(self, y: ArrayLike) -> Array:
        """Distance within the subspace to the nearest centre, (n,): how far along or off the curve itself."""
        inner = np.asarray(y, float) @ self.frame
        return np.asarray(np.sqrt(np.min(np.sum((inner[:, None] - self.points) ** 2, axis=-1), axis=1)))


@dataclass(frozen=True, eq=False)
class ManifoldReport:
    """How a sampler treats a manifold.

    Attributes
    ----------
    shell : array (stops,)
        Mean shell ratio at the times of the trajectory, the start first.
    sigma : array (stops,)
        Levels there.
    asked : array (calls,)
        Mean shell ratio of the points at which the model is asked.
    normal, tangential : float
        Root mean square error, by element of each kind of direction, of the end against the exact flow from the same start.
    spread, target : float
        Root mean square of the end in the normal directions, and what it should be.
    nfe : int
    """

    shell: Array
    sigma: Array
    asked: Array
    normal: float
    tangential: float
    spread: float
    target: float
    nfe: int

    def __repr__(self) -> str:
        return (
            f"ManifoldReport(nfe={self.nfe}, normal spread {self.spread:.4g} for {self.target:.4g}, errors {self.normal:.3g} normal,"
            f" {self.tangential:.3g} tangential, shell {self.shell.min():.3g} to {self.shell.max():.3g})"
        )


def manifold_error(process: Process, manifold: Manifold, *, n: int = 200, tolerance: float = 1e-9, **options: Any) -> ManifoldReport:
    """Run a sampler on data near a manifold and split its error into normal and tangential directions.

    Parameters
    ----------
    process : Process
        With one block.
    manifold : Manifold
    n : int
        Samples.
    tolerance : float
        Of the reference flow (DOP853 in the log level).
    **options
        As for :func:`sdekit.sample`: ``method`` and ``grid``, or ``plan``; the grid must end above time 0, where the flow is defined.

    Returns
    -------
    ManifoldReport

    Raises
    ------
    BadInput
        For a process with more blocks, or a grid that ends at the data.

    References
    ----------
    Liu, Ren, Lin and Zhao 2022, arXiv:2202.09778, section 4.2: "pseudo" methods stay near the data.
    """
    if process.k != 1:
        raise BadInput(f"process {process.name!r} has {process.k} blocks; the shell of its data block is measured for one block")
    denoise = manifold.law.denoiser()
    asked: list[float] = []

    def watched(y: Array, sigma: float) -> Array:
        asked.append(float(np.mean(manifold.shell(y, sigma))))
        return np.asarray(denoise(y, sigma))

    run = sample(process, watched, n=n, shape=(manifold.dimension,), save="all", batch=n, **options)
    if run.saved is None or run.saved.times[-1] == 0.0:
        raise BadInput("the grid ends at the data, where the flow is not defined; end it above time 0")
    kernel = process.kernel(run.saved.times)
    y = np.asarray(run.saved.x) / kernel.psi[:, 0][:, None, None]
    sigma = kernel.sigma_eff
    from scipy.integrate import solve_ivp

    def slope(u: float, flat: Array) -> Array:
        at = flat.reshape(n, -1)
        return np.asarray(at - denoise(at, float(np.exp(u)))).ravel()

    flow = solve_ivp(slope, np.log(sigma[[0, -1]]), y[0].ravel(), method="DOP853", rtol=tolerance, atol=0.01 * tolerance)
    gap = y[-1] - flow.y[:, -1].reshape(n, -1)
    off = manifold.normal(gap)
    normal = float(np.sqrt(np.sum(off**2) / (n * manifold.normals)))
    tangential = float(np.sqrt(np.sum((gap - off) ** 2) / (n * manifold.frame.shape[1])))
    shell = np.array([np.mean(manifold.shell(state, float(level))) for state, level in zip(y, sigma, strict=True)])
    target = float(np.hypot(manifold.thickness, sigma[-1]))
    return ManifoldReport(shell, sigma, np.array(asked), normal, tangential, float(np.sqrt(shell[-1]) * target), target, int(run.nfe[0]))
