r"""Linear processes whose instantaneous law moves, so that no ``H`` is theirs: sub-VP, flow matching.

.. math:: dz = \beta(t) F(B) z\,dt + \sqrt{\beta(t)}\, G(B)\,dW .

They have kernels and samplers like every linear process, but no stationary law to certify.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from .blocks import blocks_of
from .clocks import Clock
from .numeric import numeric
from .process import Process
from .recipe import initial_of, parameter_values, starting

__all__ = ["Moving"]


@dataclass(frozen=True, init=False)
class Moving:
    """A linear process by ``F(B)`` and ``G(B)``, expressions in the unit clock and in parameters.

    Attributes
    ----------
    state : tuple of Symbol
        The blocks, the data block first.
    F, G : matrices (k, k), (k, q)
    clock : Clock
    time : Symbol
        The unit clock in ``F`` and ``G``.
    """

    state: tuple[sp.Symbol, ...]
    F: sp.ImmutableMatrix
    G: sp.ImmutableMatrix
    clock: Clock
    time: sp.Symbol
    initial: tuple[tuple[sp.Symbol, sp.Expr], ...]
    parameters: tuple[tuple[str, Any], ...]
    name: str
    paper: str

    def __init__(
        self, state: tuple[sp.Symbol, ...], F: sp.ImmutableMatrix, G: sp.ImmutableMatrix, clock: Clock, time: sp.Symbol, *,
        initial: Mapping[Any, Any], parameters: Mapping[str, Any], name: str, paper: str = "",
    ) -> None:  # fmt: skip
        start = initial_of(blocks_of(state), initial)
        values = {"state": state, "F": F, "G": G, "clock": clock, "time": time, "initial": start, "parameters": tuple(parameters.items()),
                  "name": name, "paper": paper}  # fmt: skip
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @property
    def symbols(self) -> tuple[sp.Symbol, ...]:
        """The parameters, by name."""
        clock = [value for value in vars(self.clock).values() if isinstance(value, sp.Expr)]
        parts = [*self.F, *self.G, *(value for _, value in self.initial), *clock]
        return tuple(sorted(set().union(*(part.free_symbols for part in parts)) - {self.time}, key=lambda s: str(s.name)))

    def process(self, *, initial: Mapping[Any, Any] | None = None, T: float | None = None, limit: float = 20.0, **values: Any) -> Process:  # noqa: ARG002 - nothing to check
        """The process with numbers in the place of the parameters; arguments and errors as for :meth:`sdekit.Recipe.process`."""
        put = parameter_values(self, values)
        start = self.initial if initial is None else initial_of(blocks_of(self.state), initial)
        k, q = self.F.shape[0], self.G.shape[1]
        drift, noise = (numeric((self.time,), [entry.subs(put) for entry in matrix]) for matrix in (self.F, self.G))
        by_name = {s.name: v for s, v in put.items()}
        clock = self.clock.resolve(lambda v: v.subs({s: by_name[s.name] for s in v.free_symbols}) if isinstance(v, sp.Expr) else v)  # type: ignore[attr-defined]

        def F(B: float) -> Any:
            return np.array(drift(B), float).reshape(k, k)

        def G(B: float) -> Any:
            return np.array(noise(B), float).reshape(k, q)

        S0 = starting(self.state, tuple((z, value.subs(put)) for z, value in start))
        return Process(F, G, S0, T, clock=clock, blocks=tuple(z.name for z in self.state), name=self.name)

    def _repr_latex_(self) -> str:
        return f"$$F = {sp.latex(self.F)}, \\quad G = {sp.latex(self.G)}$$"
