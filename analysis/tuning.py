r"""Grids chosen by exact errors: a mesh from the local error, refined in few parameters over a family of data laws.

A grid that is free in every point, fitted to one law, does not serve another.  So the family is small (a few bends of the logarithm of the
level, and the lowest level), the error is that of all given laws at once, and the report sets beside it laws that the choice did not see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from ..errors import BadInput, finite, positive, whole
from ..grids import Grid, bent, karras, logsnr, uniform
from ..kernel import solve_lower, triangular
from ..law import Gaussian
from ..methods import Method
from ..plans import run
from ..process import Process
from ..solve import Program, assemble
from .affine import Normal
from .exact import marginal, probe, reverse_transition

Array = NDArray[np.float64]

__all__ = ["Comparison", "TunedGrid", "power_law", "tune_grid"]

_PANELS = 32, 96  # least and most steps of the mesh that samples the local error
_ENDS = 6  # lowest levels that are tried before the refinement
_FLOOR = 0.02  # least density of the mesh, of its mean
_WIDEST = 6.0  # largest bend
_ROOM = 0.3  # highest value of the lowest level, in units of the highest
_ROUNDS = 6  # steps of least squares before the weights are made anew
_CHANCE = 0.01  # of the largest relative W2: less counts as this
_GAIN = 1e-3  # of the mean logarithm: less ends the search


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
class _Modes:
    """The modes of several laws side by side, equal ones once: mean, variance, how many, and whose."""

    mean: Array
    variances: Array
    count: Array
    owner: NDArray[np.int64]

    @classmethod
    def of(cls, laws: Sequence[Gaussian]) -> _Modes:
        """The modes of ``laws``."""
        parts = []
        for i, law in enumerate(laws):
            mean = law.mean.reshape(-1)
            pairs, count = np.unique(np.stack([mean if law.basis is None else mean @ law.basis, law.variances]), axis=1, return_counts=True)
            parts.append(np.concatenate([pairs, count[None], np.full((1, len(count)), i)]))
        mean, variances, count, owner = np.concatenate(parts, axis=1)
        return cls(mean, variances, count, owner.astype(np.int64))

    @property
    def size(self) -> Array:
        """Root mean square of each law around its mean: the root of the trace of its covariance."""
        return self.sums(self.variances)

    def sums(self, squares: Array) -> Array:
        """Root of the sum over the modes of each law."""
        return np.asarray(np.sqrt(np.bincount(self.owner, self.count * squares)))

    def gaps(self, process: Process, grid: Grid, method: Method) -> Array:
        """Errors of mean and of standard deviation of the sampler, started from the prior: (modes, 2)."""
        program = assemble(process, run(grid, method).moves(process))
        chol = process.kernel(float(program.times[0])).chol
        prior = Normal(np.zeros((process.k, len(self.mean))), np.broadcast_to(chol[..., None], (*chol.shape, len(self.mean))))
        found = probe(program, self.mean, self.variances).push(prior)
        spread = np.sqrt(np.sum(found.factor[0] ** 2, axis=0))
        return np.stack([found.mean[0] - self.mean, spread - np.sqrt(self.variances)], axis=1)

    def w2(self, gaps: Array) -> Array:
        """Exact W2 of each law, (laws,)."""
        return self.sums(np.sum(gaps**2, axis=1))

    def lost(self, sigma: Array) -> Array:
        """What one denoising step from each level loses, as a part of the size of each law: (levels, laws)."""
        v, s = self.variances, sigma[:, None]
        gap = np.sqrt(v) * (1.0 - np.sqrt(v / (v + s**2)))
        return np.stack([self.sums(row**2) for row in gap]) / self.size


def _order(method: Method, process: Process) -> float:
    orders = method.orders
    claim = orders.weak if method.noisy else orders.one_block if process.k == 1 and orders.one_block is not None else orders.ode
    return 2.0 if claim is None else claim


def _root(law: Normal) -> Array:
    """Lower factors (d, k, k) of the covariances of the modes."""
    return triangular(np.moveaxis(law.factor, -1, 0))


def _defects(process: Process, method: Method, modes: _Modes, times: Array, program: Program) -> Array:
    """Error in law that each step adds, relative to the spread at its time and as much of it as reaches the end: (steps, modes)."""
    laws = [marginal(process, t, modes.mean, modes.variances) for t in times]
    roots = [_root(law) for law in laws]
    found, kept = [], []
    before = (np.zeros_like(roots[0]), np.zeros((*roots[0].shape[:2], 1)))
    for j in range(1, len(times)):
        law = probe(Program(process, program.moves, program.items[:j], 0), modes.mean, modes.variances).push(laws[0])
        whole_ = solve_lower(roots[j], np.moveaxis(law.factor, -1, 0))
        covariance = whole_ @ np.swapaxes(whole_, -1, -2) - np.eye(process.k)
        shift = solve_lower(roots[j], (law.mean - laws[j].mean).T[..., None])
        step = reverse_transition(process, method.noise, times[j], times[j - 1], modes.mean, modes.variances)
        gain = solve_lower(roots[j], np.moveaxis(step.matrix, -1, 0) @ roots[j - 1])
        new = (covariance - gain @ before[0] @ np.swapaxes(gain, -1, -2), shift - gain @ before[1])
        found.append(np.sqrt(0.25 * np.sum(new[0] ** 2, axis=(-2, -1)) + np.sum(new[1] ** 2, axis=(-2, -1))))
        kept.append(np.linalg.norm(gain, 2, axis=(-2, -1)) ** 2)
        before = (covariance, shift)
    after = np.cumprod(np.stack([*kept[1:], np.ones_like(kept[0])])[::-1], axis=0)[::-1]
    return np.stack(found) * after


def _density(process: Process, method: Method, modes: _Modes, low: float, high: float, steps: int) -> tuple[Array, Array]:
    r"""Where steps are needed: middles of panels in ``log sigma``, falling, and the density there, the mean over the laws.

    A step of length ``h`` in ``log sigma`` errs by :math:`c\,h^{p+1}`; the sum is least, for a given number of steps, at the density
    :math:`c^{1/(p+1)}`.
    """
    program = assemble(process, run(logsnr(steps, low, high), method).moves(process))
    levels = np.log(process.sigma_eff(program.times))
    errors = np.sqrt(modes.variances) * _defects(process, method, modes, program.times, program)
    each = np.stack([modes.sums(row**2) for row in errors]) ** (1.0 / (_order(method, process) + 1.0))
    density = np.mean(each / np.mean(each, axis=0), axis=1)
    return 0.5 * (levels[1:] + levels[:-1]), density + _FLOOR


def _bends(levels: Array, density: Array, terms: int) -> Array:
    """Bends of the grid that has this density between these levels: a fit of the logarithm of its speed."""
    way = np.cumsum(density) - 0.5 * density
    fit = legendre.legfit(2.0 * way / np.sum(density) - 1.0, -np.log(density), min(terms, len(levels) - 1), w=np.sqrt(density))
    return np.clip(np.append(fit[1:], np.zeros(terms))[:terms], -_WIDEST, _WIDEST)


@dataclass(frozen=True)
class Comparison:
    """One law: whether the choice saw it, W2 of the tuned grid, and of others with as many steps."""

    law: str
    seen: bool
    w2: float
    others: dict[str, float]


@dataclass(frozen=True)
class TunedGrid:
    """What :func:`tune_grid` found, with a table for print and Jupyter.

    Attributes
    ----------
    grid : Grid
        A plain grid: use it with any process, write it with :func:`sdekit.record.to_record`.
    bends, sigma_min : tuple of float, float
        Its parameters.
    process, method : str
    nfe : int
        Model calls.
    rows : tuple of Comparison
        The laws seen, then the others.
    start : float
        W2 relative to the size of the law, geometric mean over the laws, of the best grid before the refinement.
    evaluations : int
        How many grids were tried.
    """

    grid: Grid
    bends: tuple[float, ...]
    sigma_min: float
    process: str
    method: str
    nfe: int
    rows: tuple[Comparison, ...]
    start: float
    evaluations: int

    def _cells(self) -> list[list[str]]:
        head = ["law", "", "tuned", *(self.rows[0].others)]
        return [head, *([r.law, "seen" if r.seen else "not seen", f"{r.w2:.4g}", *(f"{w:.4g}" for w in r.others.values())] for r in self.rows)]

    def __str__(self) -> str:
        bends = ", ".join(f"{b:.4g}" for b in self.bends)
        head = f"{self.method} on {self.process}, {self.nfe} model calls: W2 on a grid with bends {bends} down to sigma {self.sigma_min:.4g}"
        return "\n".join([head, *(f"{c[0]:<10} {c[1]:<9} " + " ".join(f"{x:>10}" for x in c[2:]) for c in self._cells())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        body = "".join("<tr>" + "".join(f"<td>{escape(x)}</td>" for x in row) + "</tr>" for row in self._cells())
        return f"<table><caption>{escape(str(self).splitlines()[0])}</caption>{body}</table>"


def tune_grid(
    process: Process,
    method: Method,
    n: int,
    *,
    data: Sequence[Gaussian],
    judge: Sequence[Gaussian] = (),
    end: bool = True,
    bends: int = 3,
    sigma_min: float = 0.0,
    sigma_max: float | None = None,
    evaluations: int = 200,
    progress: bool = False,
) -> TunedGrid:
    r"""Choose the grid of ``n`` steps for a method by its exact W2 on a family of data laws.

    The start is a mesh that spreads the known local error evenly, without search.  Then the bends of :func:`sdekit.grids.bent` and the
    lowest level are refined to the least mean of ``log W2`` over the laws, by least squares that are weighted anew.

    Parameters
    ----------
    process, method : Process, Method
    n : int
        Steps, at least 2; the step to the data is one of them.
    data : sequence of Gaussian
        The laws that the choice sees.  Give several: a grid fitted to one does not serve others.
    judge : sequence of Gaussian
        Laws that it does not see, for the report.
    end : bool
        Whether the last step goes to the data.
    bends : int
        Parameters besides the lowest level; 2 to 4 transfer, ``n`` make the grid free.
    sigma_min : float
        Lowest level allowed, such as the lowest that a network was trained for.
    sigma_max : float, optional
        Highest level; the highest of the process when absent.
    evaluations : int
        Most grids to try.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    TunedGrid
        The same for the same arguments: nothing is random.

    Raises
    ------
    BadInput
        For no laws, laws that are not Gaussian, fewer than 2 steps, or levels that leave no room.

    Notes
    -----
    W2 between normal laws sees the error that is left when those of all steps have partly cancelled in each mode.  A good grid makes them
    cancel for all variances at once, which is why one law is not enough.
    """
    if not data or not all(isinstance(law, Gaussian) for law in [*data, *judge]):
        raise BadInput("data must be Gaussian laws, at least one, and judge Gaussian laws: only their W2 is exact")
    modes, terms = _Modes.of(data), whole("bends", bends, 0)
    if not np.all(modes.size > 0.0):
        raise BadInput("a law of data is a point: any grid of an exponential method is exact on it")
    reach = float(process.sigma_eff(process.T))
    top = reach if sigma_max is None else min(positive("sigma_max", sigma_max), reach)
    floor = max(finite("sigma_min", sigma_min), _floor(process, top))
    if floor >= _ROOM * top:
        raise BadInput(f"sigma_min = {floor:g} must be below {_ROOM:g} times the highest level {top:g}: there is nothing to choose between them")

    def make(x: Array) -> Grid:
        return bent(whole("n", n, 2), tuple(map(float, x[:-1])), float(np.exp(x[-1])), top, zero=bool(end))

    from tqdm import tqdm

    with tqdm(total=whole("evaluations", evaluations), desc="tune grid", unit="grid", disable=not progress, leave=False) as bar:

        def gaps(x: Array) -> Array:
            bar.update(1)
            return modes.gaps(process, make(x), method)

        search = _Search(modes, gaps, evaluations)
        seeds, bounds = _seeds(process, method, modes, (floor, top), n, terms)
        start, best = search.best(seeds, bounds)
    grid = make(best)
    rivals = {
        "karras": karras(n, sigma_max=top, zero=end),
        "logsnr": logsnr(n, sigma_max=top, zero=end),
        "uniform": uniform(n, 0.0 if end else None),
    }
    nfe = assemble(process, run(grid, method).moves(process)).nfe
    rows = _compare(process, method, grid, rivals, data, judge)
    bends_, sigma_min = tuple(map(float, best[:-1])), float(np.exp(best[-1]))
    return TunedGrid(grid, bends_, sigma_min, process.name, method.name, nfe, rows, float(np.exp(start)), search.tried)


def _floor(process: Process, top: float) -> float:
    """Lowest level that makes sense on the process."""
    return top * 1e-7 if float(process.sigma_eff(0.0)) == 0.0 else 1.001 * float(process.sigma_eff(1e-5 * process.T))


def _seeds(
    process: Process, method: Method, modes: _Modes, ends: tuple[float, float], n: int, terms: int
) -> tuple[list[Array], list[tuple[float, float]]]:
    """For each of a few lowest levels the grid from the mesh and the one without bends; and the bounds of the parameters."""
    floor, top = ends
    levels = np.geomspace(floor, _ROOM * top, 200)
    lost = np.log(np.max(modes.lost(levels), axis=1) + 1e-300)
    low, high = (float(np.interp(np.log(part), lost, np.log(levels))) for part in (1e-6, 0.2))
    middles, density = _density(process, method, modes, float(np.exp(low)), top, int(np.clip(3 * n, *_PANELS)))
    seeds = []
    for bottom in np.linspace(low, high, _ENDS + 2)[1:-1]:
        above = middles > bottom
        seeds += [np.append(_bends(middles[above], density[above], terms), bottom), np.append(np.zeros(terms), bottom)]
    return seeds, [(-_WIDEST, _WIDEST)] * terms + [(float(np.log(floor)), float(np.log(_ROOM * top)))]


@dataclass
class _Search:
    """Least mean of ``log W2``: each law's squares are weighted by one over its last W2 squared, so that their gradients agree."""

    modes: _Modes
    gaps: Callable[[Array], Array]
    budget: int
    tried: int = 0

    def _gaps(self, x: Array) -> Array:
        self.tried += 1
        return self.gaps(x)

    def _relative(self, gaps: Array) -> Array:
        """W2 of each law in units of its size, none taken for less than a hundredth of the largest: a law of few modes can be met by chance."""
        relative = self.modes.w2(gaps) / self.modes.size
        return np.asarray(np.hypot(relative, _CHANCE * np.max(relative)))

    def _error(self, gaps: Array) -> float:
        return float(np.mean(np.log(self._relative(gaps))))

    def best(self, seeds: list[Array], bounds: list[tuple[float, float]]) -> tuple[float, Array]:
        """The error of the best seed, and the best parameters."""
        from scipy.optimize import least_squares

        found = [(self._gaps(seed), seed) for seed in seeds[: self.budget]]
        gaps, x = min(found, key=lambda pair: self._error(pair[0]))
        first = self._error(gaps)
        low, high = np.array(bounds).T
        while self.budget - self.tried > len(x) + 1:
            scale = self._relative(gaps) * self.modes.size
            weight = (np.sqrt(self.modes.count) / scale[self.modes.owner])[:, None]
            rounds = min(_ROUNDS, (self.budget - self.tried) // (len(x) + 1))
            made = least_squares(
                lambda y, weight=weight: (weight * self._gaps(y)).ravel(), np.clip(x, low, high), bounds=(low, high), diff_step=1e-4, x_scale=0.5,
                max_nfev=rounds,
            )  # fmt: skip
            new = self._gaps(made.x)
            gain = self._error(gaps) - self._error(new)
            if gain > 0.0:
                gaps, x = new, made.x
            if gain < _GAIN:
                break
        return first, x


def _compare(
    process: Process, method: Method, grid: Grid, rivals: dict[str, Grid], data: Sequence[Gaussian], judge: Sequence[Gaussian]
) -> tuple[Comparison, ...]:
    modes = _Modes.of([*data, *judge])
    own, *others = (modes.w2(modes.gaps(process, one, method)) for one in (grid, *rivals.values()))
    names = [f"data[{i}]" for i in range(len(data))] + [f"judge[{i}]" for i in range(len(judge))]
    return tuple(
        Comparison(name, i < len(data), float(own[i]), {rival: float(w2[i]) for rival, w2 in zip(rivals, others, strict=True)})
        for i, name in enumerate(names)
    )
