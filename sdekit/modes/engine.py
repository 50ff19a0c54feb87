"""What the engine runs modes with: legs in step, an executor for coefficients that differ from mode to mode, noise turned into modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._array import like
from ..errors import BadInput
from ..noise import Address, Noise
from ..process import Process
from ..reverse import Leg, Reverse
from ..tableau import ByTerms, Rows, TermTable, by_terms
from .bases import Basis
from .process import shared

Array = NDArray[np.float64]

__all__ = ["ByModes", "Paced", "Turned"]


class Paced(Leg):
    """A leg beside that of ``pace``, the process that steers: all modes are asked at one time, inside a step too.

    Stages that are placed by level fall at other times in modes whose levels move otherwise, where the tables of the method would not hold:
    that is refused.
    """

    def __init__(self, reverse: Reverse, times: Array, pace: Process) -> None:
        super().__init__(reverse, times)
        self._pace = Leg(Reverse(pace), times)

    def _refined(self, clock: str, parts: tuple[float, ...]) -> Array:
        own, pace = super()._refined(clock, parts), self._pace._refined(clock, parts)
        if not np.allclose(own, pace, rtol=1e-9, atol=0.0):
            raise BadInput(
                f"a method with stages placed by level (clock {clock!r}) has no common times on modes with levels of their own: take stages placed"
                " by time, or a method without stages inside a step, such as exponential(2), heun() or exponential_rk(2)"
            )
        return pace


class ByModes(ByTerms):
    """Executor term by term for coefficients that differ from mode to mode."""

    @staticmethod
    def compile(rows: Rows, reference: Any) -> TermTable:
        """The rows in this executor's form; a coefficient that all modes share is a float."""

        def spread(values: Array | float) -> Any:
            return values if isinstance(values, float) else like(values, reference)

        def terms(matrix: Array) -> Any:
            return tuple(tuple((spread(shared(c)), j) for j, c in enumerate(row) if np.any(c)) for row in matrix)

        asks = tuple((terms(ask.argument), spread(ask.level)) for ask in rows.asks)
        return TermTable(asks, terms(rows.out), terms(rows.keep), rows.of_state)

    @staticmethod
    def total(terms: Any, registers: Sequence[Any]) -> Any:
        """``sum c_j r_j``."""
        if all(isinstance(c, float) for c, _ in terms):
            return by_terms(terms, registers)
        first, *rest = (c * registers[j] for c, j in terms)
        return sum(rest, start=first)


@dataclass(frozen=True)
class Turned:
    """Noise drawn on the data's elements and turned into modes: a sample has the same noise in every basis."""

    source: Noise
    basis: Basis

    def draw(self, addresses: Sequence[Address], ids: NDArray[np.int64], shape: tuple[int, ...], like: Any = None) -> Any:
        """Normals of shape (len(addresses), len(ids), *shape)."""
        return self.basis.forward(self.source.draw(addresses, ids, shape, like))
