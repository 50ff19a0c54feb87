r"""Grids chosen by exact errors: a mesh from the local error, refined in few parameters over a family of data laws.

A grid that is free in every point, fitted to one law, does not serve another.  So the family is small (a few bends of the logarithm of the
level, and the lowest level), the error is that of all given laws at once, and the report sets beside it laws that the choice did not see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from ..errors import BadInput, finite, positive, whole
from ..grids import Grid, bent, karras, logsnr, sigmas, uniform
from ..kernel import solve_lower, triangular
from ..law import Gaussian, Mixture
from ..methods import Method
from ..plans import run
from ..process import Process
from ..solve import Program, assemble
from .affine import Normal
from .exact import marginal, probe, reverse_transition
from .families import Family, Spectrum

Law = Gaussian | Mixture
Array = NDArray[np.float64]

__all__ = ["Comparison", "TunedGrid", "tune_grid"]

_PANELS = 32, 96  # least and most steps of the mesh that samples the local error
_ENDS = 6  # lowest levels that are tried before the refinement
_FLOOR = 0.02  # least density of the mesh, of its mean
_WIDEST = 6.0  # largest bend
_ROOM = 0.3  # highest value of the lowest level, in units of the highest
_ROUNDS = 6  # steps of least squares before the weights are made anew
_NEXT_TO_NOTHING = 1e-5  # of the lowest level, where a method's own last step ends
_CHANCE = 0.01  # of the largest relative W2: less counts as this
_GAIN = 1e-3  # of the mean logarithm: less ends the search


def _order(method: Method, process: Process) -> float:
    orders = method.orders
    claim = orders.weak if method.noisy else orders.one_block if process.k == 1 and orders.one_block is not None else orders.ode
    return 2.0 if claim is None else claim


def _root(law: Normal) -> Array:
    """Lower factors (d, k, k) of the covariances of the modes."""
    return triangular(np.moveaxis(law.factor, -1, 0))


def _defects(program: Program, method: Method, modes: Spectrum) -> Array:
    """Error in law that each step adds, relative to the spread at its time and as much of it as reaches the end: (steps, modes)."""
    process, times = program.process, program.times
    laws = [marginal(process, t, modes.mean, modes.variances) for t in times]
    roots = [_root(law) for law in laws]
    found, kept = [], []
    covariance, shift = np.zeros_like(roots[0]), np.zeros((*roots[0].shape[:2], 1))
    for j in range(1, len(times)):
        law = probe(Program(process, program.moves, program.items[:j], 0), modes.mean, modes.variances).push(laws[0])
        step = reverse_transition(process, method.noise, times[j], times[j - 1], modes.mean, modes.variances)
        gain = solve_lower(roots[j], np.moveaxis(step.matrix, -1, 0) @ roots[j - 1])
        carried = gain @ covariance @ np.swapaxes(gain, -1, -2), gain @ shift
        factor = solve_lower(roots[j], np.moveaxis(law.factor, -1, 0))
        covariance = factor @ np.swapaxes(factor, -1, -2) - np.eye(process.k)
        shift = solve_lower(roots[j], (law.mean - laws[j].mean).T[..., None])
        found.append(np.sqrt(0.25 * np.sum((covariance - carried[0]) ** 2, axis=(-2, -1)) + np.sum((shift - carried[1]) ** 2, axis=(-2, -1))))
        kept.append(np.linalg.norm(gain, 2, axis=(-2, -1)) ** 2)
    after = np.cumprod(np.stack([*kept[1:], np.ones_like(kept[0])])[::-1], axis=0)[::-1]
    return np.stack(found) * after


def _density(process: Process, method: Method, modes: Spectrum, low: float, high: float, steps: int) -> tuple[Array, Array]:
    r"""Where steps are needed: middles of panels in ``log sigma``, falling, and the density there, the mean over the laws.

    A step of length ``h`` in ``log sigma`` errs by :math:`c\,h^{p+1}`; the sum is least, for a given number of steps, at the density
    :math:`c^{1/(p+1)}`.
    """
    program = assemble(process, run(logsnr(steps, low, high), method).moves(process))
    levels = np.log(process.sigma_eff(program.times))
    errors = np.sqrt(modes.variances) * _defects(program, method, modes)
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
    """One law: whether the choice saw it, the error of the tuned grid, and of others with as many steps."""

    law: str
    seen: bool
    error: float
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
        Error relative to the size of the law, geometric mean over the laws, of the best grid before the refinement.
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
        return [head, *([r.law, "seen" if r.seen else "not seen", f"{r.error:.4g}", *(f"{w:.4g}" for w in r.others.values())] for r in self.rows)]

    def __str__(self) -> str:
        bends = ", ".join(f"{b:.4g}" for b in self.bends)
        head = f"{self.method} on {self.process}, {self.nfe} model calls: errors on a grid with bends {bends} down to sigma {self.sigma_min:.4g}"
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
    data: Sequence[Law],
    judge: Sequence[Law] = (),
    end: bool | Literal["method"] = True,
    bends: int = 3,
    sigma_min: float = 0.0,
    sigma_max: float | None = None,
    prior: bool = True,
    evaluations: int = 200,
    progress: bool = False,
) -> TunedGrid:
    r"""Choose the grid of ``n`` steps for a method by its exact errors on a family of data laws: W2 if they are normal, of paths for mixtures.

    The start is a mesh that spreads the known local error evenly, without search.  Then the bends of :func:`sdekit.grids.bent` and the
    lowest level are refined to the least mean of the log error over the laws, by least squares that are weighted anew.

    Parameters
    ----------
    process, method : Process, Method
    n : int
        Steps, at least 2; the step to the data is one of them.
    data : sequence of Gaussian or Mixture
        The laws that the choice sees.  Give several: a grid fitted to one does not serve others.
    judge : sequence of Gaussian or Mixture
        Laws that it does not see, for the report.
    end : bool or "method"
        Whether the last step goes to the data: by one denoising, or by the method's own polynomial, to a hundred thousandth of the lowest level
        (for methods on clock "sigma" or "time"; then the model is asked at the lowest level for the last time).
    bends : int
        Parameters besides the lowest level; 2 to 4 transfer, ``n`` make the grid free.
    sigma_min : float
        Lowest level allowed, such as the lowest that a network was trained for.
    sigma_max : float, optional
        Highest level; the highest of the process when absent.
    prior : bool
        Whether samplers start from the prior.  If not, from the exact law of the noised data: what is tuned is then the steps alone.
    evaluations : int
        Most grids to try.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    TunedGrid
        The same for the same arguments: nothing is drawn anew.

    Raises
    ------
    BadInput
        For no laws, other laws, mixtures for a method with noise, an own last step of a method with stages, fewer than 2 steps, or levels
        that leave no room.

    Notes
    -----
    W2 between normal laws sees the error that is left when those of all steps have partly cancelled in each mode.  A good grid makes them
    cancel for all variances at once, which is why one law is not enough, and why a grid for normal laws is not one for mixtures.
    """
    laws = [*data, *judge]
    if not data or not all(isinstance(law, Gaussian | Mixture) for law in laws):
        raise BadInput("data and judge must be Gaussian or Mixture laws, data at least one: only their errors are exact")
    if method.noisy and any(isinstance(law, Mixture) for law in laws):
        raise BadInput(f"{method.name} has noise: its error on a mixture is not exact; tune it on Gaussian laws")
    if end not in (True, False, "method"):
        raise BadInput(f"end = {end!r} must be True (denoise), False (stop at the lowest level) or 'method'")
    if end == "method" and method.asks != 1:
        raise BadInput(f"{method.name} asks the model inside its steps: its own last step would ask next to level 0; take end=True")
    steps, terms = whole("n", n, 2), whole("bends", bends, 0)
    reach = float(process.sigma_eff(process.T))
    top = reach if sigma_max is None else min(positive("sigma_max", sigma_max), reach)
    floor = max(finite("sigma_min", sigma_min), _floor(process, top))
    if floor >= _ROOM * top:
        raise BadInput(f"sigma_min = {floor:g} must be below {_ROOM:g} times the highest level {top:g}: there is nothing to choose between them")

    def make(x: Array) -> Grid:
        chosen, low = tuple(map(float, x[:-1])), float(np.exp(x[-1]))
        if end != "method":
            return bent(steps, chosen, low, top, zero=end)
        levels = process.sigma_eff(bent(steps - 1, chosen, low, top, zero=False).times(process))
        return sigmas([*levels, _NEXT_TO_NOTHING * low])

    family = Family(process, data, top, prior)
    from tqdm import tqdm

    with tqdm(total=whole("evaluations", evaluations), desc="tune grid", unit="grid", disable=not progress, leave=False) as bar:

        def gaps(x: Array) -> Array:
            bar.update(1)
            return family.gaps(assemble(process, run(make(x), method).moves(process)))

        search = _Search(family, gaps, evaluations)
        start, best = search.best(*_seeds(process, method, family.spectrum, (floor, top), steps, terms))
    grid = make(best)
    zero = bool(end)
    rivals = {
        "karras": karras(n, sigma_max=top, zero=zero),
        "logsnr": logsnr(n, sigma_max=top, zero=zero),
        "uniform": uniform(n, 0.0 if zero else None),
    }
    nfe = assemble(process, run(grid, method).moves(process)).nfe
    rows = _compare(method, {"tuned": grid, **rivals}, family, Family(process, judge, top, prior))
    return TunedGrid(
        grid, tuple(map(float, best[:-1])), float(np.exp(best[-1])), process.name, method.name, nfe, rows, float(np.exp(start)), search.tried
    )


def _floor(process: Process, top: float) -> float:
    """Lowest level that makes sense on the process."""
    return top * 1e-7 if float(process.sigma_eff(0.0)) == 0.0 else 1.001 * float(process.sigma_eff(1e-5 * process.T))


def _seeds(
    process: Process, method: Method, modes: Spectrum, ends: tuple[float, float], n: int, terms: int
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
    """Least mean of the log error: each law's squares are weighted by one over its last error squared, so that their gradients agree."""

    family: Family
    gaps: Callable[[Array], Array]
    budget: int
    tried: int = 0

    def _gaps(self, x: Array) -> Array:
        self.tried += 1
        return self.gaps(x)

    def _relative(self, gaps: Array) -> Array:
        """Errors in units of the sizes of the laws, none taken for less than a hundredth of the largest: few modes can be met by chance."""
        relative = self.family.errors(gaps) / self.family.size
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
            weight = 1.0 / (self._relative(gaps) * self.family.size)[self.family.owner]
            rounds = min(_ROUNDS, (self.budget - self.tried) // (len(x) + 1))

            def weighted(y: Array, weight: Array = weight) -> Array:
                return weight * self._gaps(y)

            made = least_squares(weighted, np.clip(x, low, high), bounds=(low, high), diff_step=1e-4, x_scale=0.5, max_nfev=rounds)
            new = self._gaps(made.x)
            gain = self._error(gaps) - self._error(new)
            if gain > 0.0:
                gaps, x = new, made.x
            if gain < _GAIN:
                break
        return first, x


def _compare(method: Method, grids: dict[str, Grid], seen: Family, unseen: Family) -> tuple[Comparison, ...]:
    rows = []
    for name, family in (("data", seen), ("judge", unseen)):
        programs = {key: assemble(family.process, run(grid, method).moves(family.process)) for key, grid in grids.items()}
        errors = {key: family.errors(family.gaps(made)) for key, made in programs.items()}
        for i in range(len(family.size)):
            row = {key: float(found[i]) for key, found in errors.items()}
            rows.append(Comparison(f"{name}[{i}]", family is seen, row.pop("tuned"), row))
    return tuple(rows)
