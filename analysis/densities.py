r"""Reference densities and scores in one and two dimensions: the Fokker-Planck equation on a grid.

.. math:: \partial_B p = -\operatorname{div} J, \qquad J = f p - \operatorname{div}(D p),

in the unit clock ``B``, by finite volumes: unknowns are cell averages, fluxes live on faces, no flux leaves the box, so mass is conserved to rounding
for any ``f`` and ``D``.  In one dimension fluxes are exponentially fitted (Chang and Cooper 1970; Scharfetter and Gummel 1969): every density without
current is kept exactly, so that of a recipe :math:`e^{-H}` is stationary to rounding.  In two dimensions, and wherever ``D = 0``, they are central:
second order, also for degenerate ``D`` and off-diagonal entries, but positive only where the grid resolves the density.  In time the exponential
of the generator acts: in one dimension by a Pade approximant of order nine that damps stiff modes, with error control by halving the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import comb, factorial
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from ..clocks import Clock
from ..errors import BadInput, finite, positive, whole
from ..numeric import numeric
from ..process import Process
from ..recipe import Recipe, resolved
from ..reversal import reverse

Array = NDArray[np.float64]
Field = Callable[[Array], ArrayLike]

__all__ = ["Box", "Density", "fokker_planck", "generator"]

_FLOOR = 1e-10  # part of the largest density below which the score is not given: rounding and the box are felt there
_NODES = 8  # Gauss points between two cell centres; exact to rounding for drifts that the grid resolves
_KEPT = 32  # factorised step sizes, and splines, in memory


@dataclass(frozen=True, init=False)
class Box:
    """A box in one or two dimensions, cut into equal cells.

    Parameters
    ----------
    *sides : (low, high, cells)
        One for each block of the state.

    Raises
    ------
    BadInput
        For an empty side, fewer than four cells, or more than two sides.
    """

    sides: tuple[tuple[float, float, int], ...]

    def __init__(self, *sides: Sequence[Any]) -> None:
        if not 1 <= len(sides) <= 2:
            raise BadInput(f"a grid has one or two sides, not {len(sides)}: cells grow as a power of the number of blocks")
        if any(np.ndim(side) != 1 or len(side) != 3 for side in sides):
            raise BadInput(f"each side must be (low, high, cells), not {sides}")
        made = tuple((finite("low", low), finite("high", high), whole("cells", cells, 4)) for low, high, cells in sides)
        if any(low >= high for low, high, _ in made):
            raise BadInput(f"a side is empty: {made}")
        object.__setattr__(self, "sides", made)

    @property
    def k(self) -> int:
        """Number of dimensions."""
        return len(self.sides)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of cells along each side."""
        return tuple(n for _, _, n in self.sides)

    @property
    def widths(self) -> tuple[float, ...]:
        """Width of a cell along each side."""
        return tuple((high - low) / n for low, high, n in self.sides)

    @property
    def volume(self) -> float:
        """Volume of a cell."""
        return float(np.prod(self.widths))

    @cached_property
    def axes(self) -> tuple[Array, ...]:
        """Cell centres along each side."""
        return tuple(np.asarray(low + (np.arange(n) + 0.5) * ((high - low) / n)) for low, high, n in self.sides)

    def points(self, axis: int | None = None, shift: float = 0.5) -> Array:
        """Cell centres (k, cells), the last side fastest; with ``axis`` points between neighbours along it, ``shift`` of a cell from the first."""
        axes = [a if i != axis else a[:-1] + shift * self.widths[i] for i, a in enumerate(self.axes)]
        return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")])


def generator(f: Field, D: Field, box: Box) -> Any:
    r"""The matrix ``L`` with :math:`\dot p = L p` on flat cell averages; its columns sum to zero.

    Parameters
    ----------
    f : callable
        ``f(z) -> (k, n)`` for z (k, n).
    D : callable
        ``D(z) -> (k, k, n)``.
    box : Box

    Returns
    -------
    scipy.sparse array (cells, cells), CSC

    Raises
    ------
    BadInput
        If ``D`` is negative.
    """
    from scipy import sparse

    cells = int(np.prod(box.shape))
    spread = np.asarray(D(box.points()), float).reshape(box.k, box.k, cells)
    if any(np.min(spread[i, i]) < 0.0 for i in range(box.k)):
        raise BadInput("D is negative on the grid: densities would blow up")
    total = sparse.csc_array((cells, cells))
    for axis, h in enumerate(box.widths):
        eye = sparse.eye_array(box.shape[axis], format="csr")
        left, right = _along(box, axis, eye[:-1]), _along(box, axis, eye[1:])  # the two cells of each face
        drift = np.asarray(f(box.points(axis)), float).reshape(box.k, -1)[axis]
        low, high = 0.5 * drift + left @ spread[axis, axis] / h, 0.5 * drift - right @ spread[axis, axis] / h
        if box.k == 1:
            low, high = _fitted(f, D, box, spread[0, 0], low, high)
        flux = sparse.diags_array(low) @ left + sparse.diags_array(high) @ right
        for other in range(box.k):
            if other != axis and np.any(spread[axis, other]):
                # d_j (D_ij p) on a face: the mean of the differences in its two cells
                slope = np.gradient(np.eye(box.shape[other]), box.widths[other], axis=0, edge_order=2)
                slope = _along(box, other, slope) @ sparse.diags_array(spread[axis, other])
                flux = flux - 0.5 * (left + right) @ slope
        total = total + (right - left).T @ flux / h
    return total.tocsc()


def _along(box: Box, axis: int, matrix: Any) -> Any:
    """``matrix`` acting on the cells along ``axis``."""
    from scipy import sparse

    parts = [sparse.csr_array(matrix) if i == axis else sparse.eye_array(n) for i, n in enumerate(box.shape)]
    return parts[0] if box.k == 1 else sparse.kron(*parts, format="csr")


def _fitted(f: Field, D: Field, box: Box, spread: Array, low: Array, high: Array) -> tuple[Array, Array]:
    r"""Weights of the two cells in the flux between them that is zero for every density without current; ``low``, ``high`` where ``D = 0``.

    With :math:`u = D p` and :math:`w = \int f / D` between the centres, ``J = 0`` means :math:`u_{i+1} = e^w u_i`; the flux with that property is
    :math:`J = [b(-w) u_i - b(w) u_{i+1}] / h`, :math:`b(w) = w / (e^w - 1)`.
    """
    from scipy.special import exprel

    (h,) = box.widths
    x, weights = np.polynomial.legendre.leggauss(_NODES)
    w, moving = np.zeros(len(low)), (spread[:-1] > 0.0) & (spread[1:] > 0.0)
    for node, weight in zip(0.5 * (x + 1.0), 0.5 * weights, strict=True):
        z = box.points(0, node)
        force, width = np.asarray(f(z), float).reshape(-1), np.asarray(D(z), float).reshape(-1)
        moving = moving & (width > 0.0)
        w += h * weight * np.divide(force, width, out=np.zeros_like(force), where=width > 0.0)
    return np.where(moving, spread[:-1] / (exprel(-w) * h), low), np.where(moving, -spread[1:] / (exprel(w) * h), high)


@dataclass(eq=False)
class _Exponential:
    r"""``exp(L h) p`` by the Pade approximant of degrees (4, 5), in partial fractions: one real and two complex factorisations for each ``h``.

    The numerator has the lower degree, so stiff modes are damped (it is the five-stage Radau IIA method; Hairer and Wanner 1996, IV.5).
    """

    L: Any
    banded: bool
    tolerance: float
    _kept: dict[float, list[tuple[complex, Any]]] = field(default_factory=dict)

    @cached_property
    def _fractions(self) -> list[tuple[complex, complex]]:
        x = sp.Symbol("x")
        above = sp.Poly([comb(4, j) * factorial(9 - j) for j in range(4, -1, -1)], x)
        below = sp.Poly([(-1) ** j * comb(5, j) * factorial(9 - j) for j in range(5, -1, -1)], x)
        slope = below.diff(x)
        # 30 digits: residues add up to one, the mass, after cancelling
        found = [(z, (above.eval(z) / slope.eval(z)).evalf(30)) for z in below.nroots(n=30)]
        return [(complex(z), complex(c)) for z, c in found if sp.im(z) >= 0]

    def once(self, h: float, p: Array) -> Array:
        """One step of length ``h``."""
        from scipy import sparse
        from scipy.sparse.linalg import splu

        if h not in self._kept:
            if len(self._kept) > _KEPT:
                self._kept.clear()
            eye = sparse.eye_array(self.L.shape[0], format="csc")
            self._kept[h] = [(c * (1 + (z.imag > 0.0)), splu((h * self.L - z * eye).tocsc())) for z, c in self._fractions]
        return np.asarray(sum((c * solver.solve(p.astype(complex))).real for c, solver in self._kept[h]))

    def __call__(self, B: float, p: Array) -> Array:
        """``exp(L B) p``; in one dimension to the tolerance: equal steps are halved until a step agrees with its two halves.

        In two dimensions factors fill in, and the generator of a resolved density is not very stiff: a Taylor series, to rounding, is faster.
        """
        if B == 0.0:
            return p
        if not self.banded:
            from scipy.sparse.linalg import expm_multiply

            return np.asarray(expm_multiply(B * self.L, p))
        level, done = 0, 0.0
        while done < 1.0 - 1e-12:
            h = B / 2.0**level
            whole_step, half = self.once(h, p), self.once(0.5 * h, self.once(0.5 * h, p))
            error = float(np.max(np.abs(half - whole_step)) / np.max(np.abs(p)))
            if error > self.tolerance:
                level += 1
                continue
            p, done = half, done + 0.5**level
            # a longer step must fit what is left, in whole steps of its size
            if error < 1e-3 * self.tolerance and level > 0 and (done * 2.0 ** (level - 1)) % 1.0 == 0.0:
                level -= 1
        return p


@dataclass(frozen=True, eq=False)
class Density:
    r"""Densities on a grid at given times, and what lies between; made by :func:`fokker_planck`.

    Attributes
    ----------
    box : Box
    times : array (m,)
    values : array (m, \*cells)
    clock : Clock
    L : sparse array
        The generator in the unit clock.
    """

    box: Box
    times: Array
    values: Array
    clock: Clock
    L: Any
    _step: _Exponential = field(repr=False)
    _splines: dict[float, Any] = field(default_factory=dict, repr=False)

    @property
    def mass(self) -> Array:
        """The integral at each time, (m,)."""
        return np.asarray(np.sum(self.values.reshape(len(self.times), -1), axis=1) * self.box.volume)

    @property
    def edge(self) -> Array:
        """Largest density in the outermost cells as part of the largest of all, (m,): what the box cuts off."""
        inside = (slice(None), *(slice(1, -1) for _ in self.box.shape))
        rim = np.array(np.abs(self.values))
        rim[inside] = 0.0
        axes = tuple(range(1, rim.ndim))
        return np.asarray(np.max(rim, axis=axes) / np.max(self.values, axis=axes))

    def at(self, t: float) -> Array:
        """The density on the grid at ``t``, of shape (*cells); between the given times it is computed from the one before."""
        t, last = finite("t", t), len(self.times) - 1
        if not self.times[0] - 1e-12 <= t <= self.times[last] + 1e-12:
            raise BadInput(f"t = {t:g} must lie in [{self.times[0]:g}, {self.times[last]:g}], the times of this density")
        near = int(np.argmin(np.abs(self.times - t)))
        if abs(self.times[near] - t) <= 1e-12:
            return np.asarray(self.values[near])
        before = int(np.searchsorted(self.times, t)) - 1
        B = float(self.clock.integral(t) - self.clock.integral(self.times[before]))
        return self._step(B, self.values[before].reshape(-1)).reshape(self.box.shape)

    def score(self, z: ArrayLike, t: float) -> Array:
        r"""Gradient of the log-density by cubic splines, for z (k, n, \*event), each element of the event on its own.

        Not-a-number outside the box and where the density is below 1e-10 of its largest value: no reference is better than a wrong one.  BadInput if
        ``z`` has the wrong shape or ``t`` lies outside the times.
        """
        from scipy.interpolate import CubicSpline, RectBivariateSpline

        z = np.asarray(z, float)
        if z.ndim < 2 or z.shape[0] != self.box.k:
            raise BadInput(f"z has shape {z.shape}; the first axis must be the {self.box.k} blocks, the second the samples")
        flat, t = z.reshape(self.box.k, -1), float(t)
        if t not in self._splines:
            if len(self._splines) > _KEPT:
                self._splines.clear()
            p = self.at(t)
            log = np.log(np.maximum(p, 1e-4 * _FLOOR * np.max(p)))  # rounding beyond it would bend the spline
            one = self.box.k == 1
            self._splines[t] = (CubicSpline(*self.box.axes, log) if one else RectBivariateSpline(*self.box.axes, log), np.max(log) + np.log(_FLOOR))
        spline, least = self._splines[t]
        if self.box.k == 1:
            height, found = spline(flat[0]), spline(flat[0], 1)[None]
        else:
            height, found = spline.ev(*flat), np.stack([spline.ev(*flat, dx=1), spline.ev(*flat, dy=1)])
        good = height > least
        for row, (low, high, _) in zip(flat, self.box.sides, strict=True):
            good &= (row >= low) & (row <= high)
        return np.where(good, found, np.nan).reshape(z.shape)


def fokker_planck(
    forward: Recipe | Process,
    start: Any,
    grid: Box | Sequence[Any],
    times: ArrayLike,
    *,
    tolerance: float = 1e-10,
    **values: Any,
) -> Density:
    """The density of a forward process at ``times``.

    Parameters
    ----------
    forward : Recipe or Process
        With one or two blocks; linear or not, true or false.
    start : Law, callable or array
        The density at ``times[0]``: a law with ``log_density`` on data of shape () (one block) or (k,); ``start(z) -> (n,)`` for z (k, n), not
        necessarily normalised; or its values in the cells.
    grid : Box or sequence of (low, high, cells)
        One side for each block; for one block one side is enough.
    times : array (m,)
        Increasing, in [0, T].
    tolerance : float
        Error of a time step as part of the largest density, for one block; for two it is rounding.
    **values
        Parameters of the recipe.

    Returns
    -------
    Density

    Raises
    ------
    BadInput
        For more than two blocks, or parts that do not fit.
    """
    if not isinstance(forward, Recipe | Process):
        raise BadInput(f"fokker_planck takes a Recipe or a Process, not {type(forward).__name__}")
    k = forward.k if isinstance(forward, Process) else len(forward.state)
    if k > 2:
        raise BadInput(f"{forward.name!r} has {k} blocks; a grid can hold one or two. Use a linear process, whose kernel is exact, or simulate")
    box = grid if isinstance(grid, Box) else Box(*(grid if np.ndim(grid[0]) else [grid]))
    if box.k != k:
        raise BadInput(f"the grid has {box.k} sides; {forward.name!r} has {k} blocks")
    clock, f, D = _fields(forward, values)
    moments = np.asarray(times, float).reshape(-1)
    if not len(moments) or np.any(np.diff(moments) <= 0.0) or moments[0] < 0.0 or moments[-1] > clock.T * (1.0 + 1e-12):
        raise BadInput(f"times = {moments.tolist()} must increase within [0, {clock.T:g}]")
    L = generator(f, D, box)
    if not np.all(np.isfinite(L.data)):
        raise BadInput(f"the drift or the diffusion of {forward.name!r} is not finite on the grid {box.sides}")
    step = _Exponential(L, k == 1, max(positive("tolerance", tolerance), 1e-14))
    p = _begin(start, box)
    found = [p]
    stretches = np.diff(np.asarray(clock.integral(moments), float))
    for B in stretches:
        p = step(float(B), p)
        found.append(p)
    return Density(box, moments, np.stack(found).reshape(-1, *box.shape), clock, L, step)


def _fields(forward: Recipe | Process, values: dict[str, Any]) -> tuple[Clock, Field, Field]:
    """Clock, drift and diffusion of the forward process, in the unit clock."""
    if isinstance(forward, Process):
        if values:
            raise BadInput(f"process {forward.name!r} has numbers already; {', '.join(values)} cannot be set")
        F, D = forward.F, 0.5 * forward.G @ forward.G.T
        return forward.clock, lambda z: F @ z, lambda z: np.broadcast_to(D[..., None], (*D.shape, z.shape[1]))
    exact, k = resolved(forward, values), len(forward.state)
    drift, diffusion = numeric(exact.state, list(exact.drift)), numeric(exact.state, list(exact.D))
    return (
        reverse(forward).dynamics(**values).clock,
        lambda z: np.stack([np.broadcast_to(entry, z.shape[1:]) for entry in drift(*z)]),
        lambda z: np.stack([np.broadcast_to(entry, z.shape[1:]) for entry in diffusion(*z)]).reshape(k, k, -1),
    )


def _begin(start: Any, box: Box) -> Array:
    """The starting density in the cells, flat, of mass one."""
    z = box.points()
    if hasattr(start, "log_density"):
        shape = tuple(start.shape)
        if shape not in {(box.k,), ()} or (shape == () and box.k != 1):
            raise BadInput(f"the start has data of shape {shape}; on this grid it must be ({box.k},)" + " or ()" * (box.k == 1))
        p = np.exp(np.asarray(start.log_density(z[0] if shape == () else z.T), float))
    else:
        p = np.asarray(start(z) if callable(start) else start, float)
    if p.size != z.shape[1] or not np.all(np.isfinite(p)) or np.min(p) < 0.0 or np.sum(p) <= 0.0:
        raise BadInput(f"the start must give a finite nonnegative density in each of the {z.shape[1]} cells, somewhere positive")
    p = p.reshape(-1)
    return np.asarray(p / (np.sum(p) * box.volume))
