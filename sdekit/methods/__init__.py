"""Methods: records whose ``rows`` are the sampler's equation.

A method is chosen as an object, ``sdekit.methods.heun()``; a new one is a function of a :class:`~sdekit.tableau.Step` wrapped in
:class:`Method`, with no loop of its own.
"""

from . import euler as _euler
from . import exponential as _exponential
from . import runge_kutta as _runge_kutta
from ._record import Method, Orders
from .euler import euler, euler_maruyama
from .exponential import ddim, exponential, exponential_rk
from .runge_kutta import heun

__all__ = ["SHIPPED", "Method", "Orders", "ddim", "euler", "euler_maruyama", "exponential", "exponential_rk", "heun"]

SHIPPED = {**_euler.SHIPPED, **_runge_kutta.SHIPPED, **_exponential.SHIPPED}
"""Every shipped method with its usual options, by the name that the command line uses: the tests and the tables go through this."""
