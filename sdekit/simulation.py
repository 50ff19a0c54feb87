r"""Forward simulation of any recipe: nonlinear drift, noise that depends on the state, Ito or Stratonovich.

A step from ``t`` to ``s`` is taken in the unit clock: by :math:`h = B(s) - B(t)`, with increments of variance ``h``.  The rate is thus integrated
exactly, and what a method sees is smooth whatever the clock does.  Arrays are NumPy's, z of shape (k, n, *event), elementwise in n and event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._array import dtype_of, is_torch, statuses
from .brownian import Path
from .clocks import Clock, Linear
from .control import Control
from .equation import CLASSES, SDE
from .errors import BadInput, unknown, whole
from .forward import Adapted, along, follow, improved
from .law import Law
from .noise import PATH, PRIOR, Address, Noise, as_noise
from .solve import Saved, stops_of

Array = NDArray[np.float64]

__all__ = ["METHODS", "SDE", "Paths", "Span", "Stepper", "simulate", "step"]

_AHEAD = 1 << 16  # normals drawn ahead of their use: as many as a cache holds
_NEWTON = 20


class Span(NamedTuple):
    """One step: its times and its length ``h`` in the unit clock."""

    t: float
    s: float
    h: float
    clock: Clock

    def at(self, part: float) -> float:
        """The time at which this part of the unit clock's stretch has passed."""
        return float(self.clock.inverse(self.clock.integral(self.t) + part * self.h)) if 0.0 < part < 1.0 else self.s if part else self.t


@dataclass(frozen=True)
class Stepper:
    """A method: one step, and what is claimed of it.

    Attributes
    ----------
    name, reference : str
    advance : callable
        ``advance(sde, z, span, dW, dZ) -> z``, with ``dW`` (q, n, *event) of variance h and, if ``area``, its time integral ``dZ``.
    strong, weak : mapping from noise class to order
        The classes in them are those that the method is allowed for.
    interpretation : str
        Of the solution that the formula converges to; the equation is converted to it first.
    needs : str
        A derivative that the equation must have: "", "noise_jacobian" or "jacobian".
    """

    name: str
    advance: Callable[[SDE, Array, Span, Array, Any], Array]
    strong: Mapping[str, float]
    weak: Mapping[str, float]
    reference: str
    interpretation: str = "ito"
    area: bool = False
    needs: str = ""


def _euler_maruyama(sde: SDE, z: Array, span: Span, dW: Array, _: Any) -> Array:
    step = span.h * sde.drift(z, span.t)
    step += z
    step += along(sde.noise(z, span.t), dW)
    return step


def _milstein(sde: SDE, z: Array, span: Span, dW: Array, dZ: Any) -> Array:
    r"""EM :math:`+ \frac12 \sum_{jml} G_{lm} \partial_l G_{ij} (dW_j dW_m - \delta_{jm} h)`: for noise that commutes, areas cancel."""
    new = _euler_maruyama(sde, z, span, dW, dZ)
    if sde.noise_class == "additive" or sde.noise_jacobian is None:
        return new
    G, slope = sde.noise(z, span.t), sde.noise_jacobian(z, span.t)
    square = np.einsum("ijl...,l...,j...->i...", slope, along(G, dW), dW) - span.h * np.einsum("ijl...,lj...->i...", slope, G)
    return np.asarray(new + 0.5 * square)


def _heun(sde: SDE, z: Array, span: Span, dW: Array, _: Any) -> Array:
    return improved(sde, z, span.t, span.s, span.h, dW, 0.0)[0]


def _roberts(sde: SDE, z: Array, span: Span, dW: Array, dZ: Any) -> Array:
    if sde.noise_class == "additive":
        return _heun(sde, z, span, dW, dZ)
    _single(sde, len(dW))
    return improved(sde, z, span.t, span.s, span.h, dW, np.copysign(1.0, 2.0 * dZ - span.h * dW))[0]


def _single(sde: SDE, q: int) -> None:
    if sde.noise_class == "commutative" and q > 1:
        raise BadInput(f"roberts is for noise of one column or of one column for each row, and this has {q} that act together; use milstein")


def _sra1(sde: SDE, z: Array, span: Span, dW: Array, dZ: Any) -> Array:
    area = dZ / span.h
    here, there = sde.noise(z, span.t), sde.noise(z, span.s)
    slope = sde.drift(z, span.t)
    stage = z + 0.75 * span.h * slope + 1.5 * along(there, area)
    return z + span.h / 3.0 * (slope + 2.0 * sde.drift(stage, span.at(0.75))) + along(there, dW) + along(here - there, area)


def _sri(sde: SDE, z: Array, span: Span, dW: Array, dZ: Any) -> Array:
    """SRIW1: each component has its own noise, so the scalar tableau acts row by row."""
    h, root = span.h, sqrt(span.h)
    one, area = dW, dZ / h
    two, three = (dW**2 - h) / (2.0 * root), (dW**3 - 3.0 * h * dW) / (6.0 * h)

    def own(at: Array, part: float) -> Array:
        return np.asarray(np.einsum("ii...->i...", sde.noise(at, span.at(part))))

    f1, g1 = sde.drift(z, span.t), own(z, 0.0)
    f2 = sde.drift(z + 0.75 * h * f1 + 1.5 * g1 * area, span.at(0.75))
    g2 = own(z + 0.25 * h * f1 + 0.5 * root * g1, 0.25)
    g3 = own(z + h * f1 - root * g1, 1.0)
    g4 = own(z + 0.25 * h * f1 + root * (-5.0 * g1 + 3.0 * g2 + 0.5 * g3), 0.25)
    noise = g1 * (-one - two + 2.0 * area - 2.0 * three) + 4.0 / 3.0 * g2 * (one + two - area + 1.25 * three)
    noise += g3 / 3.0 * (2.0 * one - two - 2.0 * area - 2.0 * three) + g4 * three
    return np.asarray(z + h / 3.0 * (f1 + 2.0 * f2) + noise)


def _divide(matrix: Array, z: Array) -> Array:
    """``matrix^-1 z`` for each element, blocks first."""
    if len(z) == 1:
        return np.asarray(z / matrix[0])
    try:
        flat = np.linalg.solve(np.moveaxis(matrix, (0, 1), (-2, -1)), np.moveaxis(z, 0, -1)[..., None])
    except np.linalg.LinAlgError:
        raise ArithmeticError("Newton met a singular matrix: take smaller steps") from None
    return np.asarray(np.moveaxis(flat[..., 0], -1, 0))


def _theta(theta: float) -> Callable[[SDE, Array, Span, Array, Any], Array]:
    """Implicit in the drift alone: the noise is read at the start of the step, as Ito's sense wants it."""

    def advance(sde: SDE, z: Array, span: Span, dW: Array, _: Any) -> Array:
        slope, weight = sde.jacobian, theta * span.h
        if slope is None:
            raise BadInput("this SDE has no jacobian of its drift, which an implicit method needs")
        explicit = span.h * sde.drift(z, span.t)
        known = z + (1.0 - theta) * explicit + along(sde.noise(z, span.t), dW)
        new, change = known + theta * explicit, np.full_like(z, np.inf)
        for _i in range(_NEWTON):
            gap = new - weight * sde.drift(new, span.s) - known
            matrix = np.eye(sde.k).reshape(sde.k, sde.k, *(1,) * (z.ndim - 1)) - weight * slope(new, span.s)
            change = _divide(matrix, gap)
            new = new - change
            if not np.any(np.abs(change) > 1e-12 * (1.0 + np.abs(new))):  # not-a-number counts as done: its sample is "nonfinite"
                return new
        raise ArithmeticError(f"Newton did not converge in {_NEWTON} iterations between t = {span.t:g} and {span.s:g}: take smaller steps")

    return advance


_HALF = {"additive": 1.0, "diagonal": 0.5, "commutative": 0.5, "general": 0.5}
_ONE = dict.fromkeys(CLASSES, 1.0)
_TWO = {**_ONE, "additive": 2.0}
_ROBERTS = "Roberts, Modify the Improved Euler scheme to integrate SDEs (2012), arXiv:1210.0933"
_KP = "Kloeden and Platen, Numerical Solution of Stochastic Differential Equations (1992)"
_R = "Roessler, Runge-Kutta methods for the strong approximation of solutions of SDEs (2010)"

METHODS: dict[str, Stepper] = {
    made.name: made
    for made in (
        Stepper("euler_maruyama", _euler_maruyama, _HALF, _ONE, f"{_KP}, 10.2"),
        Stepper("milstein", _milstein, dict.fromkeys(CLASSES[:3], 1.0), dict.fromkeys(CLASSES[:3], 1.0), f"{_KP}, 10.3", needs="noise_jacobian"),
        Stepper("heun", _heun, {**_ONE, "general": 0.5}, _TWO, "Rumelin, Numerical treatment of SDEs (1982)", "stratonovich"),
        Stepper("roberts", _roberts, dict.fromkeys(CLASSES[:3], 1.0), {**dict.fromkeys(CLASSES[:3], 1.0), "additive": 2.0}, _ROBERTS, area=True),
        Stepper("trapezoidal", _theta(0.5), _HALF, _TWO, f"{_KP}, 12.2", needs="jacobian"),
        Stepper("implicit_euler", _theta(1.0), _HALF, _ONE, f"{_KP}, 12.2", needs="jacobian"),
        Stepper("sra1", _sra1, {"additive": 1.5}, {"additive": 2.0}, f"{_R}, SRA1", area=True),
        Stepper("sri", _sri, {"diagonal": 1.5}, {"diagonal": 1.5}, f"{_R}, SRIW1", area=True),
    )
}
"""The methods by name: their orders hold per noise class, for smooth coefficients with bounded derivatives.

``roberts`` is for commutative noise of one column only."""


def _prepare(method: str | Stepper, sde: SDE) -> tuple[Stepper, SDE]:
    if isinstance(method, str) and method not in METHODS:
        raise unknown("method", method, METHODS)
    stepper = METHODS[method] if isinstance(method, str) else method
    if sde.noise_class not in stepper.strong:
        others = ", ".join(m.name for m in METHODS.values() if sde.noise_class in m.strong)
        raise BadInput(f"{stepper.name} is for {' or '.join(stepper.strong)} noise, and this noise is {sde.noise_class}; use {others}")
    sde = sde.ito() if stepper.interpretation == "ito" else sde.stratonovich()
    wanted = "" if sde.noise_class == "additive" and stepper.needs == "noise_jacobian" else stepper.needs
    if wanted and getattr(sde, wanted) is None:
        raise BadInput(f"{stepper.name} needs the {wanted} of the SDE, which has none; give it, or declare a Recipe")
    return stepper, sde


def step(source: Any, z: ArrayLike, t: float, s: float, dW: ArrayLike, dZ: ArrayLike | None = None, *, method: Any = "euler_maruyama") -> Array:
    r"""One step with given increments, for coupled paths and for the exact map of a method.

    Parameters
    ----------
    source : Recipe, Process or SDE
        A Recipe's parameters take their defaults here; use ``SDE.of`` for others.
    z : array (k, n, *event)
    t, s : float
    dW : array (q, n, *event)
        Increments of W over the step in the unit clock: variance :math:`h = B(s) - B(t)`.
    dZ : array (q, n, *event), for methods with ``area``
        :math:`\int_t^s (W_u - W_t)\,dB(u)`: variance h^3/3, covariance h^2/2 with ``dW``.

    Raises
    ------
    BadInput
        For an unknown method, a noise class it is not for, or a missing ``dZ``.
    """
    stepper, sde = _prepare(method, SDE.of(source))
    if stepper.area and dZ is None:
        raise BadInput(f"{stepper.name} needs dZ, the time integral of the increments, beside dW")
    span = Span(t, s, float(sde.clock.integral(s) - sde.clock.integral(t)), sde.clock)
    return stepper.advance(sde, np.asarray(z, float), span, np.asarray(dW, float), None if dZ is None else np.asarray(dZ, float))


@dataclass(frozen=True, eq=False)
class Paths:
    """What a simulation made.

    Attributes
    ----------
    z : array (k, n, *event)
        The state at the last time.
    times : array
        The grid.
    status : tuple of str
        ``"ok"``, or ``"nonfinite"`` for a sample that holds an infinity or not-a-number; with a control a sample stays where it stopped, and may be
        ``"h_min"`` or ``"budget"``.
    saved : Saved or None
        The state at the times asked for.
    adapted : Adapted or None
        How a run with a control went.
    """

    z: Array
    times: Array
    status: tuple[str, ...]
    saved: Saved | None = None
    adapted: Adapted | None = None


def simulate(
    source: Any,
    *,
    start: Any,
    times: ArrayLike,
    method: str | Stepper | None = None,
    control: Control | None = None,
    n: int | None = None,
    seed: int | Noise = 0,
    save: str | Sequence[float] | None = None,
    path: Path | None = None,
    dtype: Any = np.float64,
    **parameters: Any,
) -> Paths:
    """Simulate a process forwards in time.

    Parameters
    ----------
    source : Recipe, Process or SDE
    start : array (k, n, *event), a Law, or a mapping from every block to a number or an array (n, *event)
        The state at the first time.  A law is that of the data block; the others then start as the source says (its ``initial`` or ``S0``).
        Where a recipe's data block is a vector, its law is of that shape, and the state has an entry for each component.
    times : increasing sequence of float
    method : str or Stepper
        A name in ``METHODS``; ``euler_maruyama`` when absent, or ``roberts`` with a control.
    control : Control, optional
        Steps by error control between the ``times``, for each sample its own: ``gotta_go_fast()``, or ``adaptive(heun(1))``, whose pair is improved
        Euler against Euler and Maruyama, for the equation's own solution.  Its first and smallest step are parts of the run's length in the unit
        clock, and its ``nfe`` counts drifts.  ``method`` may be ``"roberts"`` or ``"heun"``, which differ by the conversion of the drift.
    n : int
        How many samples, for a law or a mapping of numbers.
    seed : int or Noise
        Sample ``i`` is the same whatever ``n`` is, and all methods get the same increments on the same grid.
    save : "all" or sequence of times, optional
    path : Path, optional
        The Brownian path to follow, in the unit clock from 0 on: runs on other grids with the same path are coupled.
    dtype : float64 or float32
        Of the state and the normals: float32 with ``sdekit.noise.Fast`` is for speed.
    **parameters : number
        A recipe's, where they are not its defaults.

    Raises
    ------
    BadInput
        For anything that does not fit together, before the first step.
    ArithmeticError
        If an implicit method's Newton iteration does not converge.
    """
    stepper, sde = _prepare(method or ("roberts" if control is not None else "euler_maruyama"), SDE.of(source, **parameters))
    grid = _grid(sde.clock, times)
    stops = stops_of(grid, save)
    noise = as_noise(seed)
    reference = dtype_of(dtype, None, None)
    if is_torch(reference):
        raise BadInput(f"dtype = {dtype!r} is torch's; simulate runs on NumPy arrays: give numpy.float64 or numpy.float32")
    z = _begin(sde, start, n, noise).astype(reference.dtype, copy=False)
    shape = np.shape(sde.noise(z, grid[0]))
    if np.shape(sde.drift(z, grid[0])) != z.shape or shape[:1] + shape[2:] != z.shape:
        raise BadInput(f"drift and noise must have shapes {z.shape} and ({sde.k}, q, {', '.join(map(str, z.shape[1:]))}); noise has {shape}")
    q, kept = shape[1], [z] if 0 in stops else []
    normals: Any = None
    if path is not None and (path.width, len(path.ids), *path.shape) != (q, *z.shape[1:]):
        raise BadInput(f"the path has {path.width} channels, {len(path.ids)} samples of shape {path.shape}; this run needs {q}, {z.shape[1:]}")
    if control is not None:
        return _adaptively(sde, z, grid, control, stepper, path, noise, stops)
    width, ids, B = (2 if stepper.area else 1) * q, np.arange(z.shape[1]), sde.clock.integral(grid)
    chunk = max(1, _AHEAD // max(1, width * z[0].size))
    with np.errstate(all="ignore"):  # a sample that overflows is reported by its status
        for i, h in enumerate(np.diff(B).tolist()):
            if path is None and i % chunk == 0:
                ahead = range(i, min(i + chunk, len(grid) - 1))
                normals = noise.draw([Address(PATH, 0, at, slot) for at in ahead for slot in range(width)], ids, z.shape[2:], reference)
            if path is None:
                own = normals[i % chunk * width : (i % chunk + 1) * width]
                dW = sqrt(h) * own[:q]
                dZ = 0.5 * h * (dW + sqrt(h / 3.0) * own[q:]) if stepper.area else None
            else:
                dW, dZ = path.over(float(B[i]), float(B[i + 1]))
            z = stepper.advance(sde, z, Span(float(grid[i]), float(grid[i + 1]), h, sde.clock), dW, dZ).astype(z.dtype, copy=False)
            if i + 1 in stops:
                kept.append(z)
    status = tuple(statuses(list(z)))
    return Paths(z, grid, status, Saved(grid[sorted(stops)], np.stack(kept)) if stops else None)


def _adaptively(sde: SDE, z: Array, grid: Array, control: Control, stepper: Stepper, path: Path | None, noise: Noise, stops: frozenset[int]) -> Paths:
    if path is not None or stepper.name not in ("roberts", "heun"):
        raise BadInput(f"a control draws the path itself and takes steps of roberts or heun, not {'a path' if path is not None else stepper.name}")
    signs = stepper.area and sde.noise_class != "additive"
    _single(sde, np.shape(sde.noise(z, grid[0]))[1] if signs else 1)
    with np.errstate(all="ignore"):
        z, kept, status, adapted = follow(sde, z, grid, control, signs, noise, stops)
    return Paths(z, grid, tuple(status), Saved(grid[sorted(stops)], np.stack(kept)) if stops else None, adapted)


def _grid(clock: Clock, times: ArrayLike) -> Array:
    grid = np.array(times, dtype=float)
    if grid.ndim != 1 or len(grid) < 2 or not np.all(np.isfinite(grid)) or not np.all(np.diff(grid) > 0.0):
        raise BadInput(f"times = {times!r} must be at least two finite numbers that increase, such as numpy.linspace(0, 1, 101)")
    steady = isinstance(clock, Linear) and clock.beta_min == clock.beta_max  # has no end but by name
    if not steady and (grid[0] < 0.0 or grid[-1] > clock.T * (1.0 + 1e-12)):
        raise BadInput(f"times from {grid[0]:g} to {grid[-1]:g} must lie in [0, {clock.T:g}], the span of the clock")
    return grid


def _begin(sde: SDE, start: Any, n: int | None, noise: Noise) -> Array:
    if n is not None:
        whole("n", n)
    if isinstance(start, Law):
        if n is None:
            raise BadInput("start is a law: how many samples? give n")
        ids, cov = np.arange(n), np.zeros((sde.k, sde.k)) if sde.S0 is None else sde.S0
        values, vectors = np.linalg.eigh(cov)
        vector = sde.data > 1
        if vector and start.shape != (sde.data,):
            raise BadInput(f"start is a law of shape {start.shape}; the data block has {sde.data} components: give a law of shape ({sde.data},)")
        xi = noise.draw([Address(PRIOR, slot=i) for i in range(sde.k)], ids, () if vector else start.shape)
        z = np.tensordot(vectors * np.sqrt(np.maximum(values, 0.0)), xi, 1)
        data = start.sample(ids=ids, seed=noise)
        z[: sde.data] += data.T if vector else data
    elif isinstance(start, Mapping):
        given = {str(key): np.asarray(value, float) for key, value in start.items()}
        for name in (*given, *sde.blocks):
            if name not in sde.blocks:
                raise unknown("block", name, sde.blocks)
            if name not in given:
                raise BadInput(f"start has no value for block {name!r}; give one for each of {', '.join(sde.blocks)}")
        shapes = {value.shape for value in given.values() if value.ndim} or {() if n is None else (n,)}
        if len(shapes) > 1 or shapes == {()}:
            raise BadInput(f"start: blocks have shapes {sorted(shapes)}; give arrays of one shape (n, *event), or numbers and n")
        z = np.stack([np.broadcast_to(given[name], next(iter(shapes))) for name in sde.blocks])
    else:
        z = np.array(start, dtype=float)
    if z.ndim < 2 or z.shape[0] != sde.k or not z.size or (n is not None and z.shape[1] != n) or not np.all(np.isfinite(z)):
        count = "n" if n is None else str(n)
        raise BadInput(f"start has shape {z.shape}; it must be finite, of shape ({sde.k}, {count}, *event): blocks first, then samples")
    return z
