r"""Brownian paths as functions of time: the same path for every grid, tolerance and order of questions.

A :class:`Path` gives :math:`W(t)` and :math:`Z(t) = \int_0^t W\,du` at any time, each sample's a pure function of (seed, sample, t).  It is a dyadic
tree of pairs (increment ``W``, area ``H``), :math:`\int_0^h W\,du = h (W/2 + H)`, ``H`` independent of ``W`` with variance :math:`h/12`; a cell is
split by the exact conditional law of its two parts (Foster, Lyons and Oberhauser 2020, arXiv:1904.06998), so that coarse and fine
grids see one path: strong errors, coupled levels of a multilevel estimate, and steps that are tried, rejected and tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._array import like as like_
from .errors import BadInput, positive, whole
from .noise import METHOD, PATH, Address, Noise, as_ids, as_noise

Array = NDArray[np.float64]

__all__ = ["Cell", "Coupled", "Path", "Walk", "join", "split"]

_DEPTH = 31  # levels of the tree: cells of end / 2^31
_CELLS = 256  # kept for the next questions


class Cell(NamedTuple):
    """What a path does over an interval: its increment, and its area ``H`` (see the module)."""

    W: Array
    H: Array


def split(cell: Cell, left: float | Array, right: float | Array, normals: Array) -> tuple[Cell, Cell]:
    r"""The two parts of ``cell``, of lengths ``left`` and ``right``, by their exact conditional law.

    With :math:`h = l + r`, :math:`v = \frac12 \sqrt{lr / (l^3 + r^3)}`, :math:`a = v l^2/h`, :math:`b = v r^2/h`, :math:`c = v/\sqrt3`,
    :math:`d = 2 (a l + b r)/h`:

    .. math:: W_l = \tfrac lh W + \tfrac{6lr}{h^2} H + d X_1, \quad H_l = \tfrac{l^2}{h^2} H - a X_1 + c r X_2, \quad
              H_r = \tfrac{r^2}{h^2} H - b X_1 - c l X_2, \quad W_r = W - W_l.

    Parameters
    ----------
    cell : Cell
    left, right : float, or arrays that broadcast with the cell
        Positive lengths.
    normals : array (2, ...)
        :math:`X_1, X_2`, each of the shape of ``cell.W``.
    """
    h = left + right
    p, q = left / h, right / h
    v = 0.5 * np.sqrt(p * q / (p**3 + q**3) / h)
    a, b, c = v * p * left, v * q * right, v / np.sqrt(3.0)
    one, two = normals
    W = p * cell.W + 6.0 * p * q * cell.H + 2.0 * (a * p + b * q) * one
    return Cell(W, p * p * cell.H - a * one + c * right * two), Cell(cell.W - W, q * q * cell.H - b * one - c * left * two)


def join(first: Cell, second: Cell, left: float, right: float) -> Cell:
    r"""Two cells of lengths ``left`` and ``right``, one after the other, as one: areas do not add, integrals do.

    .. math:: W = W_1 + W_2, \qquad h (\tfrac12 W + H) = l (\tfrac12 W_1 + H_1) + r (\tfrac12 W_2 + H_2) + r W_1 .
    """
    h = left + right
    area = (left * first.H + right * second.H + 0.5 * (right * first.W - left * second.W)) / h
    return Cell(first.W + second.W, area)


class Path:
    """Brownian paths of ``width`` channels over [0, end].

    Parameters
    ----------
    end : float
    width : int
        Channels: columns of the noise matrix.
    seed : int or Noise
    ids : sequence of int
        Sample ids: each has a path of its own, whatever its neighbours.
    shape : tuple of int
        Shape of one datum: each element has a path of its own.

    Raises
    ------
    BadInput
        For an ``end`` that is not positive, or bad ids.

    Notes
    -----
    Two times that differ by less than ``end / 2^31`` see each the right law, but not jointly.
    """

    def __init__(self, end: float, width: int = 1, *, seed: int | Noise = 0, ids: ArrayLike = (0,), shape: tuple[int, ...] = ()) -> None:
        self.end, self.width = positive("end", end), whole("width", width)
        self.ids, self.shape = as_ids(ids), tuple(shape)
        self._noise = as_noise(seed)
        self._parts = lru_cache(maxsize=_CELLS)(self._split)

    def _normals(self, level: int, index: int) -> Array:
        slots = [Address(PATH, 1 + level, index, slot) for slot in range(2 * self.width)]
        drawn: Any = self._noise.draw(slots, self.ids, self.shape)
        return np.asarray(drawn.reshape(2, self.width, *drawn.shape[1:]))

    def _split(self, level: int, index: int) -> tuple[Cell, Cell]:
        """The halves of cell ``index`` of a level."""
        half = self.end * 2.0 ** -(level + 1)
        return split(self._cell(level, index), half, half, self._normals(level + 1, index))

    def _cell(self, level: int, index: int) -> Cell:
        if level > 0:
            return self._parts(level - 1, index // 2)[index % 2]
        one, two = self._normals(0, 0)
        return Cell(np.sqrt(self.end) * one, np.sqrt(self.end / 12.0) * two)

    def at(self, t: float) -> tuple[Array, Array]:
        r""":math:`W(t)` and :math:`\int_0^t W\,du`, each (width, n, *shape).

        Raises
        ------
        BadInput
            If ``t`` lies outside [0, end].
        """
        if not 0.0 <= t <= self.end * (1.0 + 1e-12):
            raise BadInput(f"t = {t!r} must lie in [0, {self.end:g}], the span of the path")
        zero = np.zeros((self.width, len(self.ids), *self.shape))
        before, start, level, index, rest = Cell(zero, zero), 0.0, 0, 0, min(t, self.end)
        while rest > 0.0:
            length = self.end * 2.0**-level
            if rest >= length:
                cell, part = self._cell(level, index), length
            elif level < _DEPTH:
                level, index = level + 1, 2 * index
                half = 0.5 * length
                if rest < half:
                    continue
                cell, part, index = self._cell(level, index), half, index + 1
            else:
                cell = split(self._cell(level, index), rest, length - rest, self._normals(_DEPTH + 1, index))[0]
                part = rest
            before = cell if start == 0.0 else join(before, cell, start, part)
            start, rest = start + part, rest - part
        return before.W, t * (0.5 * before.W + before.H)

    def over(self, s: float, t: float) -> tuple[Array, Array]:
        r""":math:`W(t) - W(s)` and :math:`\int_s^t (W(u) - W(s))\,du`, each (width, n, *shape), for ``s < t``."""
        if not s < t:
            raise BadInput(f"the path is asked over [{s!r}, {t!r}]; the first time must be the smaller")
        (low, below), (high, above) = self.at(s), self.at(t)
        return high - low, above - below - (t - s) * low


class Walk:
    """Brownian paths that are known at given times only, made of independent pieces: for nested grids, and far cheaper than a :class:`Path`.

    Parameters
    ----------
    times : increasing sequence of float
        The finest grid.
    width, seed, ids, shape
        As for :class:`Path`.

    Raises
    ------
    BadInput
        For times that do not increase, or bad ids.
    """

    def __init__(self, times: ArrayLike, width: int = 1, *, seed: int | Noise = 0, ids: ArrayLike = (0,), shape: tuple[int, ...] = ()) -> None:
        self.times, self.width, self.ids, self.shape = np.asarray(times, float), whole("width", width), as_ids(ids), tuple(shape)
        h = np.diff(self.times)
        if self.times.ndim != 1 or len(h) < 1 or not np.all(h > 0.0):
            raise BadInput("times of a walk must be at least two numbers that increase")
        drawn = as_noise(seed).draw([Address(PATH, 0, i, slot) for i in range(len(h)) for slot in range(2 * self.width)], self.ids, self.shape)
        one, two = np.moveaxis(drawn.reshape(len(h), 2, self.width, *drawn.shape[1:]), 1, 0)
        h = h.reshape(-1, *(1,) * (one.ndim - 1))
        W = np.sqrt(h) * one
        self._W = np.concatenate([np.zeros_like(W[:1]), np.cumsum(W, axis=0)])
        Z = 0.5 * h * (W + np.sqrt(h / 3.0) * two) + h * self._W[:-1]
        self._Z = np.concatenate([np.zeros_like(Z[:1]), np.cumsum(Z, axis=0)])

    def over(self, s: float, t: float) -> tuple[Array, Array]:
        r""":math:`W(t) - W(s)` and :math:`\int_s^t (W(u) - W(s))\,du`, each (width, n, *shape), between two of the times.

        Raises
        ------
        BadInput
            For a time that is not among those of the walk.
        """
        i, j = (int(np.argmin(np.abs(self.times - v))) for v in (s, t))
        near = 1e-9 * (self.times[-1] - self.times[0])
        if abs(self.times[i] - s) > near or abs(self.times[j] - t) > near or j <= i:
            raise BadInput(f"[{s!r}, {t!r}] does not lie between times of the walk")
        return self._W[j] - self._W[i], self._Z[j] - self._Z[i] - (self.times[j] - self.times[i]) * self._W[i]


class Coupled:
    r"""A source of noise that reads its method normals off a path, so that runs on other grids follow the same one.

    For methods whose normals are increments, or increments and then areas (``euler``, ``heun``, ``sra``), in the time of the process.  The reverse
    run's own clock starts at its first time: step ``i`` from ``times[i]`` to ``times[i + 1]`` covers :math:`[t_0 - t_i, t_0 - t_{i+1}]` of the path.

    Parameters
    ----------
    path : Path or Walk
        With as many channels as the process's noise has columns.
    times : decreasing sequence of float
        The run's times.
    seed : int or Noise
        Everything else, such as the prior.
    """

    def __init__(self, path: Path | Walk, times: ArrayLike, *, seed: int | Noise = 0) -> None:
        self.path, self.times, self._rest = path, np.asarray(times, float), as_noise(seed)

    def draw(self, addresses: Sequence[Address], ids: NDArray[np.int64], shape: tuple[int, ...], like: Any = None) -> Any:
        """Normals of shape (len(addresses), len(ids), *shape).

        Raises
        ------
        BadInput
            For samples that the path does not have, or a normal that is neither an increment nor an area.
        """
        if not np.array_equal(np.asarray(ids), self.path.ids) or tuple(shape) != self.path.shape:
            raise BadInput("a coupled run must draw the samples of its path: the same ids, in one batch, and the same shape")
        own = [a for a in addresses if a.stream == METHOD]
        rest = iter(self._rest.draw([a for a in addresses if a.stream != METHOD], ids, shape) if len(own) < len(addresses) else ())
        return like_(np.stack([self._normal(a) if a.stream == METHOD else next(rest) for a in addresses]), like)

    def _normal(self, address: Address) -> Array:
        kind, channel = divmod(address.slot, self.path.width)
        if kind > 1 or address.leg:
            raise BadInput(f"normal {address} is neither an increment nor an area of a path with {self.path.width} channels")
        s, t = self.times[0] - self.times[address.step : address.step + 2]
        dW, dZ = self.path.over(float(s), float(t))
        h = t - s
        one = dW[channel] / np.sqrt(h)
        return np.asarray(one if kind == 0 else np.sqrt(3.0) * (2.0 * dZ[channel] / h**1.5 - one))
