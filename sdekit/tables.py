r"""Discrete schedules: a table of :math:`\bar\alpha` over training labels, as a process in continuous time.

The process of a table is VP in the clock :math:`B = -\log\bar\alpha`, whose rate is constant, so that time itself is ``B``:
:math:`\bar\alpha = e^{-t}`, :math:`\sigma_{eff} = \sqrt{e^t - 1}`.  Labels, also those between two training steps, are times, and a network of
labels is a denoiser.

>>> import sdekit as sk
>>> table = sk.tables.linear()
>>> table.labels(10)
(900, 800, 700, 600, 500, 400, 300, 200, 100, 0)
>>> plan = sk.plans.run(table.grid(table.labels(20, "trailing"), data=True), sk.methods.pndm(clock="sigma"))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import grids
from .denoiser import from_model
from .errors import BadInput, positive, unknown, whole
from .grids import Grid
from .process import Process

Array = NDArray[np.float64]

__all__ = ["Table", "cosine", "linear", "of_betas", "scaled_linear", "transfer"]

_SPACINGS = ("leading", "trailing", "linspace", "quadratic", "released")
_NEAR = 1e-6  # a label this near to a whole one is that one: a time went through sigma and back


def transfer(start: float, end: float) -> tuple[float, float]:
    r"""Coefficients of ``x`` and ``e`` in the transfer from :math:`A = \bar\alpha` ``start`` to :math:`B` = ``end``, free of cancellation.

    .. math:: \phi(x, e) = \sqrt{B/A}\, x - \frac{B - A}{\sqrt A\, (\sqrt{(1-B) A} + \sqrt{(1-A) B})}\, e

    References
    ----------
    Liu, Ren, Lin and Zhao 2022, arXiv:2202.09778, eq. 11.
    """
    A, B = start, end
    if A == B:
        return 1.0, 0.0
    return float(np.sqrt(B / A)), float((A - B) / (np.sqrt(A) * (np.sqrt((1.0 - B) * A) + np.sqrt((1.0 - A) * B))))


@dataclass(frozen=True)
class Table:
    r"""A schedule of training: :math:`\bar\alpha` at the labels 0, 1, ...

    Parameters
    ----------
    abar : tuple of float
        Strictly decreasing in (0, 1).
    between : {"log", "linear"}
        What is interpolated between labels: the logarithm of :math:`\sigma = \sqrt{(1 - \bar\alpha)/\bar\alpha}`, as in k-diffusion, or sigma
        itself, as in diffusers.

    Raises
    ------
    BadInput
        For a table that does not decrease, or another rule.
    """

    abar: tuple[float, ...]
    between: str = "log"

    def __post_init__(self) -> None:
        if self.between not in ("log", "linear"):
            raise unknown("rule between labels", self.between, ["log", "linear"])
        values = np.array([1.0, *self.abar, 0.0])
        wrong = np.flatnonzero(~(np.diff(values) < 0.0))
        if len(self.abar) < 2 or len(wrong):
            at = f": abar[{min(int(wrong[0]), len(self.abar) - 1)}] breaks it" if len(wrong) else ""
            raise BadInput(f"abar must hold at least two values that decrease strictly inside (0, 1){at}")

    def __len__(self) -> int:
        return len(self.abar)

    @cached_property
    def sigma(self) -> Array:
        r""":math:`\sqrt{(1 - \bar\alpha)/\bar\alpha}` at the labels."""
        abar = np.array(self.abar)
        return np.asarray(np.sqrt((1.0 - abar) / abar))

    @cached_property
    def process(self) -> Process:
        r"""VP in the clock :math:`-\log\bar\alpha`, up to the last label."""
        return Process([[-0.5]], [[1.0]], T=-float(np.log(self.abar[-1])), name=f"table of {len(self)}")

    def time(self, label: ArrayLike) -> Array:
        """Times of labels in ``[0, len - 1]``, whole or not.

        Raises
        ------
        BadInput
            For a label outside the table.
        """
        at = np.asarray(label, float)
        last = len(self) - 1
        if not np.all((at >= 0.0) & (at <= last)):
            raise BadInput(f"label = {at} must lie in [0, {last}]")
        low = np.minimum(np.floor(at), last - 1).astype(int)
        level, part = self._level, at - low
        between = level[low] + part * (level[low + 1] - level[low])
        sigma = np.exp(between) if self.between == "log" else between
        return np.asarray(np.where(part == 0.0, self._times[low], np.where(part == 1.0, self._times[low + 1], np.log1p(sigma**2))))

    def label(self, t: ArrayLike) -> Array:
        """Labels of times: the inverse of :meth:`time`.

        Raises
        ------
        BadInput
            For a time before that of label 0 or after that of the last.
        """
        t = np.asarray(t, float)
        first, last = self._times[[0, -1]]
        if not np.all((t >= first * (1.0 - _NEAR)) & (t <= last * (1.0 + _NEAR))):
            raise BadInput(f"t = {t} lies outside the table, whose labels are the times from {first:g} to {last:g}; end the grid at label 0")
        sigma = np.sqrt(np.expm1(t))
        found = np.interp(np.log(sigma) if self.between == "log" else sigma, self._level, np.arange(len(self)))
        return np.asarray(np.where(np.abs(found - np.round(found)) < _NEAR, np.round(found), found))

    @cached_property
    def _level(self) -> Array:
        return np.asarray(np.log(self.sigma) if self.between == "log" else self.sigma)

    @cached_property
    def _times(self) -> Array:
        return np.asarray(-np.log(np.array(self.abar)))

    def labels(self, n: int, spacing: str = "leading", offset: int = 0) -> tuple[int, ...]:
        r"""A sub-sequence of ``n`` labels, from noise to data.

        Parameters
        ----------
        n : int
        spacing : str
            With T labels: ``leading`` is ``i (T // n) + offset``, ``trailing`` is ``round(T - i T/n) - 1``, ``linspace`` runs from 0 to ``T - 1``,
            ``quadratic`` is DDIM's :math:`\lfloor(i \sqrt{0.8 T}/(n-1))^2\rfloor` without its repeated labels, and ``released`` is that of the PNDM
            repository: all multiples of ``T // n``, which are more than ``n`` where ``n`` does not divide T.
        offset : int
            Added to leading labels (1 for latent diffusion).

        Raises
        ------
        BadInput
            For more labels than the table has.
        """
        T = len(self)
        if whole("n", n) > T:
            raise BadInput(f"n = {n} is more than the {T} labels of the table")
        if spacing not in _SPACINGS:
            raise unknown("spacing", spacing, _SPACINGS)
        if offset and spacing != "leading":
            raise BadInput(f"offset = {offset} belongs to leading labels, not to {spacing!r}")
        if spacing == "leading":
            made = np.arange(n) * (T // n) + whole("offset", offset, 0)
        elif spacing == "trailing":
            made = np.round(np.arange(T, 0, -(T / n)))[::-1] - 1
        elif spacing == "linspace":
            made = np.round(np.linspace(0, T - 1, n))
        elif spacing == "quadratic":
            made = np.unique((np.linspace(0.0, np.sqrt(0.8 * T), n) ** 2).astype(int))
        else:
            made = np.arange(0, T, T // n)
        if made[-1] >= T:
            raise BadInput(f"offset = {offset} puts the first of {n} labels at {made[-1]}, beyond the last label {T - 1}; use a smaller one")
        return tuple(int(label) for label in made[::-1])

    def grid(self, labels: Sequence[float], data: bool = False) -> Grid:
        r"""The times of ``labels``, whole or not, from noise to data; with ``data`` then 0, where :math:`\bar\alpha = 1`."""
        made = self.time(np.asarray(labels, float)).tolist()
        return grids.times([*made, 0.0] if data else made)

    def denoiser(self, network: Callable[[Any, Any], Any], kind: str = "eps", rounding: str = "exact") -> from_model:
        """The denoiser out of a network of labels, ``network(x, label)``.

        Parameters
        ----------
        network : callable
            It gets a number, or where each sample has a level of its own an array (n,) of ``x``'s library.
        kind : {"eps", "x0", "v", "score"}
            What it predicts.
        rounding : {"exact", "nearest", "down"}
            Label that it gets for a level between two: the fractional one, the nearest whole one, or the whole one below.  The last is a model of
            other levels than it is asked for: with steps that do not end on labels its bias stays, however fine they are.

        Raises
        ------
        BadInput
            For another kind or rounding, and when it is called at a level outside the table.
        """
        ways: dict[str, Callable[[Any], Any]] = {"exact": np.asarray, "nearest": np.round, "down": np.floor}
        if rounding not in ways:
            raise unknown("rounding", rounding, ways)

        def model(x: Any, _: Any, label: Any) -> Any:
            return network(x, label if np.ndim(label) or rounding == "exact" else int(label))

        model.told = lambda t: (ways[rounding](self.label(t)),)  # type: ignore[attr-defined]
        for name in ("shape", "device", "dtype"):
            if hasattr(network, name):
                setattr(model, name, getattr(network, name))
        return from_model(model, self.process, kind)


def of_betas(betas: ArrayLike, single: bool = False) -> Table:
    r"""The table :math:`\bar\alpha_i = \prod_{j \le i} (1 - \beta_j)`.

    Parameters
    ----------
    betas : array
        In (0, 1), at least two.
    single : bool
        With the digits of the released networks, which torch makes: alphas in float32, their products in float64, rounded to float32.
        :math:`1 - \bar\alpha_0` then has three digits.

    Raises
    ------
    BadInput
        For a beta outside (0, 1).
    """
    values = np.asarray(betas, float)
    if values.ndim != 1 or len(values) < 2 or not np.all((values > 0.0) & (values < 1.0)):
        raise BadInput("betas must be a list of at least two numbers in (0, 1)")
    if not single:
        return Table(tuple(np.cumprod(1.0 - values).tolist()))
    alphas = np.float32(1.0) - values.astype(np.float32)
    return Table(tuple(np.cumprod(alphas.astype(float)).astype(np.float32).astype(float).tolist()))


def linear(T: int = 1000, beta_0: float = 1e-4, beta_1: float = 0.02, single: bool = False) -> Table:
    """Betas linear from ``beta_0`` to ``beta_1`` (Ho, Jain and Abbeel 2020)."""
    return of_betas(np.linspace(positive("beta_0", beta_0), positive("beta_1", beta_1), whole("T", T, 2)), single)


def scaled_linear(T: int = 1000, beta_0: float = 0.00085, beta_1: float = 0.012, single: bool = False) -> Table:
    """Roots of beta linear, "quad" in the PNDM repository; the defaults are latent diffusion's."""
    return of_betas(np.linspace(np.sqrt(positive("beta_0", beta_0)), np.sqrt(positive("beta_1", beta_1)), whole("T", T, 2)) ** 2, single)


def cosine(T: int = 1000, s: float = 0.008, most: float = 0.999, single: bool = False) -> Table:
    r""":math:`\beta_i = \min(1 - f_{i+1}/f_i, \beta_{max})`, :math:`f_i = \cos^2\frac{\pi (i/T + s)}{2 (1 + s)}` (Nichol and Dhariwal 2021)."""
    f = np.cos((np.arange(whole("T", T, 2) + 1) / T + positive("s", s)) / (1.0 + s) * (np.pi / 2.0)) ** 2
    return of_betas(np.minimum(1.0 - f[1:] / f[:-1], positive("most", most)), single)
