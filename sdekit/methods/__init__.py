"""Methods: records whose ``rows`` are the sampler's equation.

A method is chosen as an object, ``sdekit.methods.heun()``; a new one is a function of a :class:`~sdekit.tableau.Step` wrapped in
:class:`Method`, with no loop of its own.
"""

from collections.abc import Callable

from . import conjugate as _conjugate
from . import corrector as _corrector
from . import dpm as _dpm
from . import euler as _euler
from . import exponential as _exponential
from . import pndm as _pndm
from . import runge_kutta as _runge_kutta
from . import splitting as _splitting
from . import sra as _sra
from ._record import Method, Orders
from .conjugate import conjugate
from .corrector import sa_solver, unipc
from .dpm import dpm_2, dpm_solver, dpm_solver_pp_2s, dpmpp_sde, seeds
from .euler import euler, euler_maruyama, reverse_diffusion
from .exponential import ddim, deis, dpm_solver_pp_2m, dpm_solver_pp_3m, er_sde, exponential, exponential_rk, lms
from .pndm import f_pndm, fon, ipndm, plms, pndm, prk, pseudo_improved_euler, s_pndm
from .runge_kutta import heun, lamba, rho_rk, runge_kutta
from .splitting import splitting, sscs
from .sra import sosra, sra

__all__ = [
    "SHIPPED", "Method", "Orders", "conjugate", "ddim", "deis", "dpm_2", "dpm_solver", "dpm_solver_pp_2m", "dpm_solver_pp_2s",
    "dpm_solver_pp_3m", "dpmpp_sde", "er_sde", "euler", "euler_maruyama", "exponential", "exponential_rk", "f_pndm", "fon", "heun", "ipndm",
    "lamba", "lms", "plms", "pndm", "prk", "pseudo_improved_euler", "reverse_diffusion", "rho_rk", "runge_kutta", "s_pndm", "sa_solver", "seeds",
    "sosra", "splitting", "sra", "sscs", "unipc",
]  # fmt: skip

SHIPPED: dict[str, Callable[[], Method]] = {
    **_euler.SHIPPED,
    **_runge_kutta.SHIPPED,
    **_exponential.SHIPPED,
    **_pndm.SHIPPED,
    **_corrector.SHIPPED,
    **_dpm.SHIPPED,
    **_sra.SHIPPED,
    **_conjugate.SHIPPED,
    **_splitting.SHIPPED,
}
"""Every shipped method with its usual options, by the name that the command line uses: the tests and the tables go through this."""
