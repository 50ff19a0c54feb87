r"""Where the error of a sampler comes from, and what an error of the network does to its samples.

The first question is answered by a chain of laws from the data to the samples, each differing from the one before by one fault (:func:`budget`).  The
second by the engine itself: a run is affine in the model's answers, so an error :math:`e_j` in the answer of call :math:`j` moves the sample by
:math:`G_j e_j`, and the gains :math:`G_j` come out of the same rows, exactly, mode by mode (:func:`sensitivity`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BadInput
from ..grids import Grid
from ..law import Gaussian
from ..methods import Method
from ..plans import Plan
from ..process import Process
from ..sampling import prepare
from ..solve import solve
from ..tableau import Rows
from .exact import exact_law

Array = NDArray[np.float64]

__all__ = ["Budget", "Sensitivities", "Sensitivity", "budget", "error_gain", "sensitivity"]

_HEADS = ("process", "method", "NFE", "independent", "common", "aligned")
_MEANING = {
    "prior": "starting from the prior instead of the exact marginal",
    "discretisation": "steps instead of the exact reverse equation",
    "score": "the model's law instead of that of the data",
    "end": "stopping above level 0, or the one step to the data",
}


@dataclass(frozen=True)
class Budget:
    """The W2 between samples and data, and the parts that it is made of.

    Attributes
    ----------
    process, sampler : str
    nfe : int
    parts : mapping
        ``prior``, ``discretisation``, ``end`` and, where the model has an error, ``score``: W2 between neighbours in the chain of laws.
    total : float
        The W2 between the sampler's law and the data.  Never above the sum of the parts; below it where parts cancel.
    """

    process: str
    sampler: str
    nfe: int
    parts: dict[str, float]
    total: float

    @property
    def sum(self) -> float:
        """Sum of the parts, an upper bound of the total."""
        return float(np.sum(list(self.parts.values())))

    @property
    def largest(self) -> str:
        """The part to work on."""
        return max(self.parts, key=lambda name: self.parts[name])

    def _cells(self) -> list[tuple[str, str, str]]:
        rows = [(name, f"{value:.4g}", _MEANING[name]) for name, value in sorted(self.parts.items(), key=lambda one: -one[1])]
        return [*rows, ("sum", f"{self.sum:.4g}", "bounds the total"), ("total", f"{self.total:.4g}", "W2 of samples and data")]

    def __str__(self) -> str:
        head = f"{self.sampler} on {self.process}, {self.nfe} model calls"
        return "\n".join([head, *(f"  {name:15} {value:>10}  {meaning}" for name, value, meaning in self._cells())])

    def _repr_html_(self) -> str:
        body = "".join(f"<tr><td>{n}</td><td style='text-align:right'>{v}</td><td style='text-align:left'>{m}</td></tr>" for n, v, m in self._cells())
        return f"<table><caption>{self.sampler} on {self.process}, {self.nfe} model calls</caption>{body}</table>"


def budget(
    process: Process,
    *,
    method: Method | None = None,
    grid: Grid | None = None,
    plan: Plan | None = None,
    data: Gaussian,
    model: Gaussian | None = None,
    start: Any = None,
) -> Budget:
    r"""Prior mismatch, discretisation, score error and end of a run, each measured by itself, exactly.

    .. math:: W_2(\text{sampler}, \text{data}) \le \text{end} + \text{prior} + \text{score} + \text{discretisation}.

    Parameters
    ----------
    process, method, grid, plan, data, model, start
        As for :func:`~sdekit.analysis.exact_law`; ``model`` is the law whose denoiser stands for the network.

    Returns
    -------
    Budget

    Raises
    ------
    BadInput
        If a law is not Gaussian, or the plan has a move that is not affine.
    """
    exact = exact_law(process, method=method, grid=grid, plan=plan, data=data, model=model, start=start)
    used = method if plan is None else plan.method
    name = used.name if used is not None else "exponential(2)"
    return Budget(process.name, name, exact.nfe, dict(exact.parts), exact.w2)


class _Silent:
    """A source of no noise: gains do not depend on it."""

    def draw(self, addresses: Sequence[Any], ids: Any, shape: tuple[int, ...], like: Any = None) -> Array:  # noqa: ARG002 - a source's signature
        return np.zeros((len(addresses), len(ids), *shape))


def error_gain(
    process: Process,
    *,
    method: Method | None = None,
    grid: Grid | None = None,
    plan: Plan | None = None,
    data: Gaussian,
    size: Callable[[Array], ArrayLike] | None = None,
) -> tuple[Array, Array]:
    r"""How far an error in each model answer moves the sample: :math:`\partial x / \partial e_j`, for each call ``j`` and mode.

    With :math:`D(y_j; \sigma_j) + s(\sigma_j) e_j` in the place of the answer of call ``j``, on Gaussian data,

    .. math:: x \to x + \sum_j G_j\, e_j .

    Parameters
    ----------
    process, method, grid, plan
        As for :func:`sdekit.sample`.
    data : Gaussian
    size : callable, optional
        :math:`s(\sigma)`, arrays to arrays; :math:`\sigma \sigma_d / \sqrt{\sigma^2 + \sigma_d^2}` when absent, with the data's root mean
        variance :math:`\sigma_d^2`: then ``e`` is an error of EDM's network output, which has unit variance at every level.

    Returns
    -------
    gains : array (calls, d)
        In the eigenbasis of the data.
    sigma : array (calls,)
        Level of each call.

    Raises
    ------
    BadInput
        If the plan has a move that is not affine.
    """
    prog = prepare(process, method, grid, plan)
    for item in prog.items:
        if not isinstance(item.move, Rows):
            raise BadInput(f"{type(item.move).__name__} is not an affine move: its answers have no gains")
    variances = data.variances
    spread = float(np.sqrt(np.mean(variances)))
    levels: list[float] = []

    def model(y: Array, sigma: float) -> Array:
        level = np.array([sigma])
        unit = level * spread / np.hypot(level, spread) if size is None else np.asarray(size(level), float)
        answer = variances / (variances + sigma * sigma) * y
        answer[len(levels)] += unit
        levels.append(float(sigma))
        return answer

    calls = prog.nfe
    blocks, _ = solve(prog, [np.zeros((calls, len(variances))) for _ in range(process.k)], model, _Silent(), np.arange(calls))
    return np.asarray(blocks[0]), np.array(levels)


@dataclass(frozen=True)
class Sensitivity:
    r"""Gains of one sampler, summed up: root mean squares over the modes of the data.

    Attributes
    ----------
    process, method : str
    nfe : int
    independent : float
        :math:`(\mathrm{mean}_m \sum_j G_{jm}^2)^{1/2}`: errors of unit variance, independent from call to call.
    aligned : float
        :math:`(\mathrm{mean}_m (\sum_j |G_{jm}|)^2)^{1/2}`: errors of size one that conspire, an upper bound.
    common : float
        :math:`(\mathrm{mean}_m (\sum_j G_{jm})^2)^{1/2}`: the same error at every call, a bias of the network.
    """

    process: str
    method: str
    nfe: int
    independent: float
    aligned: float
    common: float


@dataclass(frozen=True)
class Sensitivities:
    """The table of :func:`sensitivity`, in the unit of the data."""

    rows: tuple[Sensitivity, ...]

    def __getitem__(self, key: tuple[str, str]) -> Sensitivity:
        """The row of a process and a method, by their names."""
        for row in self.rows:
            if (row.process, row.method) == key:
                return row
        raise KeyError(key)

    def _cells(self) -> list[list[str]]:
        return [[r.process, r.method, str(r.nfe), f"{r.independent:.4g}", f"{r.common:.4g}", f"{r.aligned:.4g}"] for r in self.rows]

    def __str__(self) -> str:
        lines = [list(_HEADS), *self._cells()]
        wide = [max(len(line[j]) for line in lines) for j in range(len(_HEADS))]
        set_ = [[cell.ljust(w) if j < 2 else cell.rjust(w) for j, (cell, w) in enumerate(zip(line, wide, strict=True))] for line in lines]
        return "\n".join("  ".join(line) for line in set_)

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{h}</th>" for h in _HEADS)
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in self._cells())
        return f"<table><caption>W2 for an error of one in the network's output</caption><tr>{heads}</tr>{body}</table>"


def sensitivity(
    processes: Process | Sequence[Process],
    methods: Method | Sequence[Method],
    grid: Grid,
    *,
    data: Gaussian,
    size: Callable[[Array], ArrayLike] | None = None,
) -> Sensitivities:
    r"""d(W2) / d(score error) of processes and methods, exactly: see :class:`Sensitivity` for the three kinds of error.

    Parameters
    ----------
    processes, methods
        One or several of each.
    grid : Grid
    data : Gaussian
    size : callable, optional
        As for :func:`error_gain`.

    Notes
    -----
    Errors that are noise add to the variance: the W2 that they cause is of second order where the sample has variance to spare, and the numbers
    here bound it.  An error that is a bias moves the mean, and ``common`` is its W2.
    """
    rows = []
    for process in [processes] if isinstance(processes, Process) else processes:
        for method in [methods] if isinstance(methods, Method) else methods:
            G = error_gain(process, method=method, grid=grid, data=data, size=size)[0]
            sums = np.sum(G * G, axis=0), np.sum(np.abs(G), axis=0) ** 2, np.sum(G, axis=0) ** 2
            independent, aligned, common = (float(np.sqrt(np.mean(one))) for one in sums)
            rows.append(Sensitivity(process.name, method.name, len(G), independent, aligned, common))
    return Sensitivities(tuple(rows))
