"""The process: which linear process each mode follows, and the rows of all modes out of those of each process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._array import like
from ..errors import BadInput, finite
from ..kernel import Kernel
from ..process import Process
from ..tableau import Ask, Rows
from .bases import Basis
from .laws import Denoiser

Array = NDArray[np.float64]

__all__ = ["Modes", "shared"]


def shared(values: Array) -> Array | float:
    """``values``, or their one value as a float."""
    first = values.flat[0]
    return float(first) if np.all(values == first) else values


@dataclass(frozen=True, eq=False, init=False)
class Modes:
    r"""A process of its own for each mode of ``basis``: :math:`c_j / r_j` follows ``processes[index[j]]``, with ``r`` the ``scale``.

    So mode ``j`` has kernel :math:`N(\psi c_j, r_j^2 S)` and level :math:`r_j \sigma_{eff}(t)`.  The first process steers: levels of grids, of
    restarts and of churn are its ``sigma_eff``, at scale 1.  A jump up in time is exact in each mode.

    Parameters
    ----------
    processes : Process or sequence of Process
        The different ones, with the same number of blocks, noise columns and ``T``.
    basis : Basis
    index : array of int, broadcastable to ``basis.shape``, optional
        Which process each mode follows.  When absent there must be one process, or one for each mode (equal ones are put together).
    scale : number or array, broadcastable to ``basis.shape``
        Unit of each mode, positive.  Modes that differ in scale only cost nothing.

    Raises
    ------
    BadInput
        For processes that do not fit together, or arrays that do not fit the basis.
    """

    processes: tuple[Process, ...]
    basis: Basis
    index: NDArray[np.int64]
    scale: Array
    name: str

    def __init__(
        self, processes: Process | Sequence[Process], basis: Basis, index: ArrayLike | None = None, scale: ArrayLike = 1.0, *, name: str = ""
    ) -> None:
        given = (processes,) if isinstance(processes, Process) else tuple(processes)
        if not given or not all(isinstance(p, Process) for p in given) or not isinstance(basis, Basis):
            raise BadInput("Modes needs processes, such as [sdekit.catalogue.vp()], and a basis, such as sdekit.modes.dct((8, 8))")
        first = given[0]
        for p in given:
            if (p.k, p.T, p.noise(p.T).shape) != (first.k, first.T, first.noise(first.T).shape):
                raise BadInput(f"processes {first.name!r} and {p.name!r} must have the same number of blocks and noise columns, and the same T")
        where, unit = _places(given, basis.shape, index), np.array(scale, float)
        if not np.all(np.isfinite(unit)) or np.min(unit) <= 0.0:
            raise BadInput("scale must be positive and finite")
        try:
            where, unit = np.broadcast_arrays(where, unit)
            np.broadcast_to(unit, basis.shape)
        except ValueError:
            raise BadInput(f"index and scale have shapes {where.shape} and {unit.shape}; they must broadcast to the data's {basis.shape}") from None
        table = {p: i for i, p in enumerate(dict.fromkeys(given))}
        values = {
            "processes": tuple(table), "basis": basis, "index": np.array([table[p] for p in given])[where], "scale": unit,
            "name": name or f"{first.name} in modes",
        }  # fmt: skip
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @property
    def reference(self) -> Process:
        """The process that steers."""
        return self.processes[0]

    @property
    def k(self) -> int:
        """Number of blocks."""
        return self.reference.k

    @property
    def T(self) -> float:
        """End of the forward process."""
        return self.reference.T

    @property
    def flat(self) -> Modes:
        """The same for data as vectors (d,)."""
        index, scale = (np.broadcast_to(v, self.basis.shape).ravel() for v in (self.index, self.scale))
        return Modes(self.processes, self.basis.flat, index, scale, name=self.name)

    def within(self, t: ArrayLike) -> Array:
        """``t`` as an array, if all of it lies in [0, T]."""
        return self.reference.within(t)

    def kernel(self, t: float) -> Kernel:
        """``p(c_t | c_0)`` at one time, with the modes as leading axes: psi (*modes, k), chol (*modes, k, k)."""
        each = [p.kernel(finite("t", t)) for p in self.processes]
        psi, chol = np.stack([kernel.psi for kernel in each]), np.stack([kernel.chol for kernel in each])
        return Kernel(psi[self.index], chol[self.index] * self.scale[..., None, None])

    @property
    def stationary(self) -> Array:
        """Covariances of the stationary laws, (*modes, k, k)."""
        return np.asarray(np.stack([p.stationary for p in self.processes])[self.index] * self.scale[..., None, None] ** 2)

    def levels(self, t: float) -> Array:
        """The level of each mode at one time, of the data's shape: what ``denoise(y, sigmas)`` gets."""
        each = np.array([float(p.sigma_eff(t)) for p in self.processes])
        return np.array(np.broadcast_to(each[self.index] * self.scale, self.basis.shape))

    def denoiser(self, law: Any) -> Denoiser:
        """The exact denoiser of ``law`` under this process's noise: see :class:`Denoiser`."""
        return Denoiser(law, self.basis)

    def times(self, coefficient: Any, x: Any) -> Any:
        """``U diag(coefficient) U^T x`` for x (n, *shape)."""
        c = shared(coefficient)
        return c * x if isinstance(c, float) else self.basis.backward(like(c, x) * self.basis.forward(x))

    def join(self, each: Sequence[Any]) -> Rows:
        """The rows of all modes out of those of each process: coefficients (registers, registers, *modes)."""
        first = each[0]
        if not isinstance(first, Rows):
            raise BadInput(f"{type(first).__name__} acts on the state by code of its own, which knows no modes: leave it out, or use one Process")
        unit = np.ones((first.out.shape[1], *self.scale.shape))
        begin = first.k + first.memory
        unit[begin : begin + first.noises] = self.scale
        if first.of_state:
            unit[begin + first.noises :] = self.scale**2  # a score has the inverse unit

        def joined(parts: Sequence[Array]) -> Array:
            return np.asarray(np.stack(parts, axis=-1)[..., self.index] * unit)

        asks = []
        for same in zip(*(rows.asks for rows in each), strict=True):
            level = np.array([ask.level for ask in same])[self.index] * (1.0 if first.of_state else self.scale)
            asks.append(Ask(joined([ask.argument for ask in same]), shared(level)))
        second = None if first.embedded is None else joined([rows.embedded for rows in each])
        out, keep = joined([rows.out for rows in each]), joined([rows.keep for rows in each])
        return Rows(first.k, first.memory, first.noises, first.answers, tuple(asks), out, keep, second, first.of_state)

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """What it is, without its names."""
        return (self.processes, self.basis, self.index.tobytes(), self.scale.tobytes(), self.scale.shape)

    def __getattr__(self, name: str) -> Any:
        raise _Missing(f"a process of modes has no {name!r}: what is one number for a process differs from mode to mode; see levels(t), reference")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Modes) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Modes({self.name!r}, {len(self.processes)} processes on data of shape {self.basis.shape}, T={self.T:g})"


class _Missing(BadInput, AttributeError):
    """An attribute of processes that processes of modes lack."""


def _places(given: tuple[Process, ...], shape: tuple[int, ...], index: ArrayLike | None) -> NDArray[np.int64]:
    if index is None:
        d = int(np.prod(shape))
        if len(given) not in {1, d}:
            raise BadInput(f"{len(given)} processes for {d} modes: give an index that says which process each mode follows")
        return np.zeros((), np.int64) if len(given) == 1 else np.arange(d).reshape(shape)
    where = np.array(index)
    if where.dtype.kind not in "iu" or where.min() < 0 or where.max() >= len(given):
        raise BadInput(f"index must hold whole numbers from 0 to {len(given) - 1}, the number of a process for each mode")
    return where.astype(np.int64)
