r"""How a linear process moves in its own clock: :math:`dz = F(s) z\,ds + G(s)\,dW`, with constant or with varying ``F`` and ``G``.

Constant ones have the closed form of :func:`sdekit.kernel.flow`.  Varying ones need not commute with themselves at other times, so that
:math:`\exp \int F` would be wrong: they go through panels of Gauss collocation (order 16), as fine towards 0 as numbers go, each refined until
its two halves agree, and composed as factors (Chapman-Kolmogorov), so that no covariance is ever a difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import BadInput
from .kernel import Transition, flow, gauss, triangular

Array = NDArray[np.float64]
Moving = Callable[[float], ArrayLike]

__all__ = ["Motion", "Uniform", "Varying", "collocation"]

_NODES = 8
_FIRST = 2.0**-50  # the first panel, as a part of the end
_TURN = 0.5  # most that |F| may add up to over a panel
_AGREE = 2e-14
_HALVINGS = 10


@cache
def collocation(m: int = _NODES) -> tuple[Array, Array, Array]:
    """Gauss nodes, weights and the matrix of integrals of the Lagrange basis from 0 to each node, on [0, 1]."""
    nodes, weights = gauss(m)
    powers = nodes[:, None] ** np.arange(m)
    until = nodes[:, None] ** np.arange(1, m + 1) / np.arange(1, m + 1)
    return nodes, weights, until @ np.linalg.inv(powers)


class Motion(Protocol):
    """What a process needs to know of its blocks, in its own clock."""

    def drift(self, s: ArrayLike) -> Array:
        """``F`` at ``s``, (..., k, k)."""
        ...

    def noise(self, s: ArrayLike) -> Array:
        """``G`` at ``s``, (..., k, q)."""
        ...

    def transition(self, low: Array, high: Array) -> Transition:
        """From ``low`` to ``high``."""
        ...

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is."""
        ...


@dataclass(frozen=True, eq=False)
class Uniform:
    """Constant ``F`` (k, k) and ``G`` (k, q)."""

    F: Array
    G: Array

    def drift(self, s: ArrayLike) -> Array:
        """``F`` at ``s``, (..., k, k)."""
        return np.broadcast_to(self.F, (*np.shape(s), *self.F.shape))

    def noise(self, s: ArrayLike) -> Array:
        """``G`` at ``s``, (..., k, q)."""
        return np.broadcast_to(self.G, (*np.shape(s), *self.G.shape))

    def transition(self, low: Array, high: Array) -> Transition:
        """From ``low`` to ``high``."""
        return Transition(*flow(self.F, self.G, np.maximum(high - low, 0.0)))

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is."""
        return (self.F.tobytes(), self.G.tobytes(), self.F.shape, self.G.shape)


class Varying:
    """``F`` and ``G``, at least one of them a function of the clock ``s`` in [0, end]: a number to a matrix.

    Raises
    ------
    BadInput
        For values that are not finite matrices of one shape, or a function that is not smooth enough to be integrated to rounding.
    """

    def __init__(self, F: Moving | Array, G: Moving | Array, k: int, end: float) -> None:
        self.F, self.G, self.k, self.end = F, G, k, end

    def drift(self, s: ArrayLike) -> Array:
        """``F`` at ``s``, (..., k, k)."""
        return self._values("F", self.F, np.asarray(s, float))

    def noise(self, s: ArrayLike) -> Array:
        """``G`` at ``s``, (..., k, q)."""
        return self._values("G", self.G, np.asarray(s, float))

    def _values(self, name: str, part: Moving | Array, s: Array) -> Array:
        if isinstance(part, np.ndarray):
            return np.broadcast_to(part, (*s.shape, *part.shape))
        found = np.array([part(v) for v in s.ravel().tolist()], float)
        found = found.reshape(len(found), 1, 1) if found.ndim == 1 else found
        columns = self.k if name == "F" else found.shape[-1]
        if found.ndim != 3 or found.shape[1:] != (self.k, columns) or not np.all(np.isfinite(found)):
            raise BadInput(f"{name} must be a finite matrix with {self.k} rows{' and columns' * (name == 'F')} at every B in [0, {self.end:g}]")
        return found.reshape(*s.shape, *found.shape[1:])

    def _panel(self, low: Array, high: Array) -> Transition:
        """Collocation over [low, high], arrays (n,), each short."""
        nodes, weights, until = collocation()
        n, k, m = len(low), self.k, _NODES
        h = (high - low)[:, None]
        at = low[:, None] + h * nodes
        A = h[..., None, None] * self.drift(at)
        system = -np.einsum("qj,njab->nqajb", until, A).reshape(n, m * k, m * k)
        system[:, np.arange(m * k), np.arange(m * k)] += 1.0
        X = np.linalg.solve(system, np.broadcast_to(np.tile(np.eye(k), (m, 1)), (n, m * k, k))).reshape(n, m, k, k)
        end = np.eye(k) + np.einsum("q,nqab,nqbc->nac", weights, A, X)
        G = self.noise(at)
        columns = np.sqrt(h * weights)[..., None, None] * (end[:, None] @ np.linalg.solve(X, G))
        return Transition(end, triangular(np.swapaxes(columns, 1, 2).reshape(n, k, m * G.shape[-1])))

    @cached_property
    def _mesh(self) -> tuple[Array, Transition, Transition]:
        """Breaks (p + 1,), the transitions over the panels between them, and those from 0 to each break."""
        breaks = [0.0, *(self.end * _FIRST * 2.0 ** np.arange(round(-np.log2(_FIRST)) + 1)).tolist()]
        low, high = np.array(breaks[:-1]), np.array(breaks[1:])
        done: list[tuple[Array, Array]] = []
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            whole, parts = self._panel(low, high), self._panel(low, middle).then(self._panel(middle, high))
            size = np.max(np.abs(self.drift(np.stack([low, middle, high]))), axis=(0, -2, -1)) * self.k * (high - low)
            scale = np.sqrt(np.einsum("nii->ni", parts.cov))
            grid = scale[:, :, None] * scale[:, None, :]
            apart = np.max(np.divide(np.abs(whole.cov - parts.cov), grid, out=np.zeros_like(grid), where=grid > 0.0), axis=(-2, -1))
            apart = np.maximum(apart, np.max(np.abs(whole.mean - parts.mean), axis=(-2, -1)))
            good = (size <= _TURN) & (apart <= _AGREE * self.k * 10.0)
            done.append((low[good], high[good]))
            low, high = np.concatenate([low[~good], middle[~good]]), np.concatenate([middle[~good], high[~good]])
            if not len(low):
                break
        else:
            raise BadInput(f"F or G is not smooth near {low[0]:g}: it cannot be integrated to rounding; give smooth functions, or split the process")
        bottoms = np.sort(np.concatenate([a for a, _ in done]))
        edges = np.append(bottoms, self.end)
        panels = self._panel(edges[:-1], edges[1:])
        total = Transition(np.eye(self.k)[None], np.zeros((1, self.k, self.k)))
        means, factors = [total.mean[0]], [total.chol[0]]
        for p in range(len(bottoms)):
            total = total.then(Transition(panels.mean[p : p + 1], panels.chol[p : p + 1]))
            means.append(total.mean[0])
            factors.append(total.chol[0])
        return edges, panels, Transition(np.stack(means), np.stack(factors))

    def transition(self, low: Array, high: Array) -> Transition:
        """From ``low`` to ``high``."""
        shape = np.broadcast_shapes(np.shape(low), np.shape(high))
        a, b = (np.minimum(np.broadcast_to(v, shape).ravel(), self.end) for v in (low, high))
        edges, panels, whole = self._mesh
        first, last = (np.clip(np.searchsorted(edges, v, side="right") - 1, 0, len(edges) - 2) for v in (a, b))
        start = np.where(a == 0.0, edges[last], np.minimum(b, edges[first + 1]))  # reached in one go
        made = self._panel(a, np.where(a == 0.0, a, start))
        zero = a == 0.0
        mean, chol = np.where(zero[:, None, None], whole.mean[last], made.mean), np.where(zero[:, None, None], whole.chol[last], made.chol)
        made = Transition(mean, chol)
        for p in range(int(np.min(first, initial=0)), int(np.max(last, initial=0))):
            inside = ~zero & (edges[p] >= start) & (edges[p + 1] <= b)
            if np.any(inside):
                longer = Transition(made.mean[inside], made.chol[inside]).then(Transition(panels.mean[p], panels.chol[p]))
                made.mean[inside], made.chol[inside] = longer.mean, longer.chol
        rest = np.where(zero, start, np.maximum(start, np.minimum(edges[last], b)))
        made = made.then(self._panel(rest, np.maximum(b, rest)))
        return Transition(made.mean.reshape(*shape, self.k, self.k), made.chol.reshape(*shape, self.k, self.k))

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is: the functions themselves."""
        parts = (part.tobytes() if isinstance(part, np.ndarray) else part for part in (self.F, self.G))
        return (*parts, self.k, self.end)
