r"""Which process? Parameters of a family chosen for a family of data laws, a sampler, its calls and an error of the network, by exact errors.

The error of a candidate on one law is

.. math:: E^2 = W_2^2 + \epsilon^2 \sum_{j,m} G_{jm}^2,

the exact W2 of the sampler driven by the exact denoiser, and the mean square shift that independent errors of size :math:`\epsilon` in the network's
outputs cause (:func:`~sdekit.analysis.error_gain`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..clocks import Clock, linear
from ..errors import BadInput, finite, positive, unknown, whole
from ..grids import Grid
from ..law import Gaussian
from ..methods import Method
from ..process import Process
from .budgeting import error_gain
from .exact import exact_law

Array = NDArray[np.float64]

__all__ = ["FreeProcess", "TunedProcess", "tune_process"]

_FAR = 1e9  # the error of a candidate that is no process


@dataclass(frozen=True)
class FreeProcess:
    r"""Every linear process of ``k`` blocks with a stationary law, as a family: :math:`D = C C^T` and :math:`Q = K - K^T` free.

    In coordinates in which the stationary law is ``N(0, I)`` (scales of the auxiliary blocks are a gauge: they change nothing in the data block),

    .. math:: F = -(D + Q), \qquad G G^T = 2 D, \qquad \mathrm{tr}\, D = budget,

    with ``C`` lower triangular and ``K`` upper triangular.  Called with entries ``c11, c21, c22, ...`` (before the scaling to the budget; missing
    ones are 0) and ``k12, ...`` it gives a :class:`~sdekit.Process`.

    Parameters
    ----------
    k : int
    budget : float
        The trace of D in the unit clock.
    clock : Clock, optional
        ``linear(8, 8)`` when absent, that of PSLD.
    start : float
        Variance of the auxiliary blocks at time 0, in units of their stationary variance.

    Raises
    ------
    BadInput
        For values out of range; when called, for entries that are none, or all 0 in C.
    """

    k: int = 2
    budget: float = 2.01
    clock: Clock = field(default_factory=lambda: linear(8.0, 8.0))
    start: float = 0.04

    def __post_init__(self) -> None:
        whole("k", self.k, 1)
        positive("budget", self.budget)
        if finite("start", self.start) < 0.0:
            raise BadInput(f"start = {self.start!r} must be nonnegative")

    @property
    def names(self) -> tuple[str, ...]:
        """The entries: those of C, then those of K."""
        pairs = [(i, j) for i in range(1, self.k + 1) for j in range(1, i + 1)]
        return (*(f"c{i}{j}" for i, j in pairs), *(f"k{j}{i}" for i, j in pairs if i != j))

    def __call__(self, **entries: float) -> Process:
        """The process of these entries."""
        C, K = np.zeros((self.k, self.k)), np.zeros((self.k, self.k))
        for name, value in entries.items():
            if name not in self.names:
                raise unknown("entry", name, self.names)
            (C if name[0] == "c" else K)[int(name[1]) - 1, int(name[2]) - 1] = finite(name, value)
        size = float(np.sum(C * C))
        if size == 0.0:
            raise BadInput("all entries of C are 0: a process needs noise; give c11 or another one")
        C *= np.sqrt(self.budget / size)
        S0 = np.diag([0.0, *[self.start] * (self.k - 1)])
        return Process(-(C @ C.T + K - K.T), np.sqrt(2.0) * C, S0, clock=self.clock, name="free")


@dataclass(frozen=True, eq=False)
class TunedProcess:
    """What :func:`tune_process` found.

    Attributes
    ----------
    process : Process
    parameters : mapping
    error : float
        Root mean square, over the laws, of the error relative to the law's standard deviation (both summed over elements).
    rows : tuple of (name, seen, unseen)
        The same for the tuned process and for the baseline, on the laws that were tuned on and on those that were not (nan without any).
    evaluations : int
        Candidates tried.
    """

    process: Process
    parameters: dict[str, float]
    error: float
    rows: tuple[tuple[str, float, float], ...]
    evaluations: int
    judge: Callable[..., float] = field(repr=False)
    baseline: dict[str, float] = field(default_factory=dict)

    def scan(self, name: str, values: ArrayLike) -> Array:
        """Errors as one parameter varies and the others keep their tuned values.

        Raises
        ------
        BadInput
            For a name that is not tuned.
        """
        if name not in self.parameters:
            raise unknown("parameter", name, self.parameters)
        return np.array([self.judge(**{**self.parameters, name: float(value)}) for value in np.asarray(values, float)])

    def __str__(self) -> str:
        chosen = ", ".join(f"{name} = {value:.4g}" for name, value in self.parameters.items())
        lines = [f"{chosen}   ({self.evaluations} candidates)", f"  {'':10} {'tuned on':>10} {'unseen':>10}"]
        return "\n".join([*lines, *(f"  {name:10} {seen:10.4g} {unseen:10.4g}" for name, seen, unseen in self.rows)])

    def _repr_html_(self) -> str:
        body = "".join(f"<tr><td>{n}</td><td>{a:.4g}</td><td>{b:.4g}</td></tr>" for n, a, b in self.rows)
        chosen = ", ".join(f"{name} = {value:.4g}" for name, value in self.parameters.items())
        return f"<table><caption>{chosen}</caption><tr><th></th><th>tuned on</th><th>unseen</th></tr>{body}</table>"


def tune_process(
    make: Callable[..., Process],
    bounds: Mapping[str, tuple[float, float]],
    *,
    data: Gaussian | Sequence[Gaussian],
    method: Method,
    grid: Grid,
    score_error: float = 0.0,
    unseen: Sequence[Gaussian] = (),
    baseline: Mapping[str, float] | None = None,
    evaluations: int = 120,
    seed: int = 0,
) -> TunedProcess:
    """Parameters of a process for a data spectrum, a sampler with its calls, and a network's error.

    Parameters
    ----------
    make : callable
        ``make(**parameters)`` to a Process: ``sdekit.catalogue.psld``, a recipe's ``process``, a :class:`FreeProcess`.
    bounds : mapping
        Lowest and highest value of each parameter; searched in the logarithm where both are positive.
    data : Gaussian, or several
        Such as :func:`~sdekit.analysis.power_law`.
    method, grid
        Of the sampler; the grid says how many calls.
    score_error : float
        Root mean square error of the network's output, in EDM's parametrisation (unit variance), independent from call to call.
    unseen : sequence of Gaussian
        Laws to judge on that were not tuned on.
    baseline : mapping, optional
        The paper's choice, to compare with: ``make``'s own defaults when absent.
    evaluations : int
        Candidates at most.
    seed : int
        Of the scan that the search starts with.

    Returns
    -------
    TunedProcess

    Raises
    ------
    BadInput
        For bounds out of order, or if no candidate is a process.

    Notes
    -----
    Processes whose kernel is singular, and other candidates that are refused, count as infinitely bad.
    """
    from scipy.optimize import minimize
    from scipy.stats import qmc

    laws, others = ([data] if isinstance(data, Gaussian) else list(data)), list(unseen)
    names, box = list(bounds), np.array([[finite(f"bounds of {n}", v) for v in pair] for n, pair in bounds.items()])
    if not names or np.any(box[:, 0] >= box[:, 1]):
        raise BadInput(f"bounds = {dict(bounds)!r} must give at least one parameter, the lowest value before the highest")
    error, budget = finite("score_error", score_error), whole("evaluations", evaluations, 4)
    logs = np.all(box > 0.0, axis=1)
    low, high = (np.where(logs, np.log(np.where(logs, end, 1.0)), end) for end in box.T)

    def over(family: Sequence[Gaussian], process: Process) -> float:
        squares = []
        for law in family:
            found = exact_law(process, method=method, grid=grid, data=law).w2 ** 2
            if error:
                found += error**2 * float(np.sum(error_gain(process, method=method, grid=grid, data=law)[0] ** 2))
            squares.append(found / np.sum(law.variances))
        return float(np.sqrt(np.mean(squares)))

    def judge(**parameters: float) -> float:
        return over(laws, make(**parameters))

    def parameters(u: Array) -> dict[str, float]:
        x = np.clip(low + np.clip(u, 0.0, 1.0) * (high - low), low, high)
        return {n: float(np.exp(v) if log else v) for n, v, log in zip(names, x, logs, strict=True)}

    tried: list[tuple[float, tuple[float, ...]]] = []

    def cost(u: Array) -> float:
        try:
            found = judge(**parameters(u))
        except (BadInput, np.linalg.LinAlgError):
            found = _FAR
        found = found if np.isfinite(found) else _FAR
        tried.append((found, tuple(u)))
        return float(np.log(found)) + float(np.sum((u - np.clip(u, 0.0, 1.0)) ** 2))

    scan = max(2, budget // 3)
    for point in qmc.Sobol(len(names), rng=seed).random(1 << (scan - 1).bit_length())[:scan]:
        cost(point)
    while len(tried) < budget:
        before = len(tried)
        begin = np.array(sorted(tried)[0 if before == scan else min(2, len(tried) - 1)][1])
        minimize(cost, begin, method="Nelder-Mead", options={"maxfev": max(2, (budget - before + 1) // 2), "initial_simplex": _simplex(begin)})
    best, where = min(tried)
    if best >= _FAR:
        raise BadInput(f"no candidate within bounds = {dict(bounds)!r} is a process that this sampler can run; widen them")
    chosen = parameters(np.array(where))
    known = dict(baseline or {})
    both: list[tuple[str, Any]] = [("tuned", make(**chosen)), ("baseline", make(**known))]
    rows = tuple((name, over(laws, process), over(others, process) if others else float("nan")) for name, process in both)
    return TunedProcess(both[0][1], chosen, rows[0][1], rows, len(tried), judge, known)


def _simplex(begin: Array, size: float = 0.1) -> Array:
    """The point and one neighbour for each coordinate, inwards."""
    steps = np.where(begin > 0.5, -size, size)
    return np.vstack([begin, begin + np.diag(steps)])
