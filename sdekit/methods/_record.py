"""The record of a method: its rows and its claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..tableau import Rows, Step

__all__ = ["Method", "Orders"]


@dataclass(frozen=True)
class Orders:
    """Claimed orders of convergence on smooth grids away from the end; None: no claim.  The order tests are generated from these.

    Attributes
    ----------
    ode : float or None
        Of the state, for the probability-flow ODE, with the method's own start-up.
    exact_start : float or None
        The same, started from exact past values (multistep methods).
    weak : float or None
        Of means and covariances, with noise.
    """

    ode: float | None = None
    exact_start: float | None = None
    weak: float | None = None


@dataclass(frozen=True)
class Method:
    """A fixed-grid sampler.

    Attributes
    ----------
    name : str
        What the equation is called in its reference.
    table : callable
        ``table(step, **params) -> Rows``.
    params : tuple of (name, value)
        Keywords of ``table``; part of the method's identity.
    noise : float
        Noise level of the reverse equation that it discretises: 0 is the ODE, 1 the reverse SDE.
    asks : int
        Model calls of a full step.
    orders : Orders
        Claims, each tested.
    reference : str
    """

    name: str
    table: Callable[..., Rows]
    params: tuple[tuple[str, Any], ...] = ()
    noise: float = 0.0
    asks: int = 1
    orders: Orders = Orders()
    reference: str = ""

    def rows(self, step: Step) -> Rows:
        """The coefficients of one step."""
        return self.table(step, **dict(self.params))

    def __str__(self) -> str:
        return self.name
