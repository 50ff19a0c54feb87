"""Plans whose last steps have methods of their own; DPM-Solver-fast."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import BadInput, whole
from ..grids import logsnr
from ..methods import Method, dpm_solver
from ..process import Process
from ._moves import Move, Plan, Run, Transform, cut, run

__all__ = ["Finish", "dpm_fast", "finish"]


@dataclass(frozen=True)
class Finish:
    methods: tuple[Method, ...]

    def __call__(self, moves: list[Move], _: Process) -> list[Move]:
        *before, last = moves
        if not isinstance(last, Run):
            raise BadInput("finish() is for plans that end with steps of a method; let it come before the transform that ends otherwise")
        steps = len(last.times) - 1 - int(last.times[-1] == 0.0)
        own = max(0, steps - len(self.methods))
        methods = [*[last.method] * (own > 0 or steps == 0), *self.methods[len(self.methods) - steps + own :]]
        return [*before, *(replace(piece, method=m) for piece, m in zip(cut(last, range(own, steps)), methods, strict=True))]


def finish(*methods: Method) -> Transform:
    """The last steps by ``methods``, one each and each with an empty memory; a step to the data comes after them and stays as it is.

    Raises
    ------
    BadInput
        Unless methods are given.
    """
    if not methods or not all(isinstance(method, Method) for method in methods):
        raise BadInput(f"methods = {methods!r} must be methods, such as sdekit.methods.ddim(), one for each of the last steps")
    return Finish(methods)


def dpm_fast(nfe: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Plan:
    r"""DPM-Solver-fast: ``nfe`` model calls in :math:`\lfloor nfe / 3 \rfloor + 1` steps uniform in the log level, of order 3 and less at the end.

    The last orders are 2, 1 if 3 divides ``nfe``, else the remainder.

    Parameters
    ----------
    nfe : int
        At least 1.
    sigma_min, sigma_max : float
        As for :func:`sdekit.grids.logsnr`; the plan ends at ``sigma_min``.

    References
    ----------
    Lu et al. 2022, arXiv:2206.00927, section 3.4.
    """
    orders = ((2, 1), (1,), (2,))[whole("nfe", nfe) % 3]
    plan = run(logsnr(nfe // 3 + 1, sigma_min, sigma_max), dpm_solver(3))
    return plan.then(finish(*(dpm_solver(order, rule="published") for order in orders)))
