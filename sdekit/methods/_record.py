"""The record of a method: its rows and its claims."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

from ..propagation import Loudness
from ..tableau import Rows, Step

__all__ = ["Method", "Orders", "constructor"]


@dataclass(frozen=True)
class Orders:
    """Claimed orders of convergence on smooth grids away from the end; None: no claim.  The order tests are generated from these.

    Attributes
    ----------
    ode : float or None
        Of the state, for the probability-flow ODE, with the method's own start-up, for every process.
    one_block : float or None
        The same for processes with one block, where it is higher.
    exact_start : float or None
        The same as ``ode``, started from exact past values (multistep methods).
    weak : float or None
        Of means and covariances, with noise.
    strong : float or None
        Of the state on the same Brownian path, in root mean square (methods whose normals are increments and areas).
    """

    ode: float | None = None
    one_block: float | None = None
    exact_start: float | None = None
    weak: float | None = None
    strong: float | None = None


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
    noise : float or callable
        Noise level of the reverse equation that it discretises: 0 is the ODE, 1 the reverse SDE; a function of ``sigma_eff`` if it varies.
    asks : int
        Model calls of a full step.
    start : tuple of int
        Model calls of the first steps of a leg, where they differ.
    history : int
        Steps until the memory is full.
    orders : Orders
        Claims, each tested.
    exact_noise : tuple or None
        ``(of, parts)`` where the normals are those of the exact noise of the step with "data" or "eps" in its drift, cut by stages at these parts of
        it in log level: so adaptive steps know which functionals of a Brownian path they are.
    reference : str
    origin : tuple or None
        The shipped constructor and its arguments, for records; None for the user's own.
    """

    name: str
    table: Callable[..., Rows]
    params: tuple[tuple[str, Any], ...] = ()
    noise: Loudness = 0.0
    asks: int = 1
    start: tuple[int, ...] = ()
    history: int = 0
    orders: Orders = Orders()
    exact_noise: tuple[str, tuple[float, ...]] | None = None
    reference: str = ""
    origin: tuple[str, tuple[tuple[str, Any], ...]] | None = field(default=None, compare=False, repr=False)

    @property
    def noisy(self) -> bool:
        """Whether it draws noise."""
        return callable(self.noise) or self.noise > 0.0

    def nfe(self, steps: int) -> int:
        """Model calls of a leg of ``steps`` full steps; a step to the data is one call more."""
        first = self.start[:steps]
        return sum(first) + self.asks * (steps - len(first))

    def rows(self, step: Step) -> Rows:
        """The coefficients of one step."""
        return self.table(step, **dict(self.params))

    def __str__(self) -> str:
        return self.name


def constructor(make: Callable[..., Method]) -> Callable[..., Method]:
    """A shipped method's function, whose methods remember the arguments that made them."""
    signature = inspect.signature(make)

    @wraps(make)
    def made(*args: Any, **kwargs: Any) -> Method:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        return replace(make(*args, **kwargs), origin=(make.__name__, tuple(given.arguments.items())))

    return made
