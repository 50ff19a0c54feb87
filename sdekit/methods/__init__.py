"""Methods: records whose ``rows`` are the sampler's equation.

A method is chosen as an object, ``sdekit.methods.heun()``; a new one is a function of a :class:`~sdekit.tableau.Step` wrapped in
:class:`Method`, with no loop of its own.
"""

from ._record import Method, Orders
from .euler import euler, euler_maruyama
from .exponential import ddim, exponential, exponential_rk
from .runge_kutta import heun

__all__ = ["Method", "Orders", "ddim", "euler", "euler_maruyama", "exponential", "exponential_rk", "heun"]
