r"""Langevin chains of any order, critically damped: noise enters the last block and reaches the data through all others.

.. math:: dz_0 = k_{n-1} z_1\,dB, \quad dz_i = (k_{n-i-1} z_{i+1} - k_{n-i} z_{i-1})\,dB, \quad
          dz_{n-1} = (-k_1 z_{n-2} - n a z_{n-1})\,dB + \sqrt{2 n a}\,dW, \qquad k_j^2 = a^2 \frac{n^2 - j^2}{4 j^2 - 1},

leaves ``N(0, I)`` invariant, and has the one eigenvalue ``-a``, in one Jordan block: the couplings are those of Schwarz's form of
:math:`(\lambda + a)^n`.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from ..clocks import constant
from ..errors import BadInput, positive, whole
from ..process import Process
from ..recipe import Recipe
from ..spec import BLOCKS

__all__ = ["chain", "chain_recipe"]

_BETA = {1: 10.0, 2: 7.0, 3: 6.0}  # and 5 beyond: the smallest whole number that leaves at most 1 % of a datum in the state at t = 1


def chain_recipe(n: int, *, beta: float | None = None, T: float = 1.0, start: Any = 0.04, rate: Any = None) -> Recipe:
    """The recipe of :func:`chain`; ``rate`` and ``start`` may be expressions with symbols here, which are then parameters of the recipe."""
    n = whole("n", n)
    if n > BLOCKS:
        raise BadInput(f"n = {n} must be at most {BLOCKS}, the most blocks that a spec file may have")
    if rate is None:
        a = sp.sqrt(2 * n - 3) if n > 1 else sp.S.Half
    else:
        a = rate if isinstance(rate, sp.Expr) else sp.Rational(repr(positive("rate", rate)))
        if not a.is_positive:
            raise BadInput(f"rate = {a} must be positive; a symbol needs the assumption positive=True")
    state = sp.symbols(["x", *(f"m{i}" for i in range(1, n))], real=True)
    Q = sp.zeros(n)
    for i, j in enumerate(range(n - 1, 0, -1)):
        Q[i + 1, i] = a * sp.sqrt(sp.Rational(n**2 - j**2, 4 * j**2 - 1))
        Q[i, i + 1] = -Q[i + 1, i]
    D = sp.diag(*[0] * (n - 1), n * a)
    return Recipe(
        state, sum(z**2 for z in state) / 2, D, Q, constant(_BETA.get(n, 5.0) if beta is None else beta, T),
        initial=dict.fromkeys(state[1:], start), name=f"chain{n}", paper="arXiv:1908.10859",
    )  # fmt: skip


def chain(n: int, *, beta: float | None = None, T: float = 1.0, start: float = 0.04, rate: float | None = None) -> Process:
    r"""The critically damped chain of ``n`` blocks; its ``recipe`` is what :func:`chain_recipe` gives.

    Orders 3 and 4 are the catalogue's ``third_order`` and ``fourth_order``; order 2 is CLD with unit mass, order 1 VP with a constant rate.

    Parameters
    ----------
    n : int
        Blocks, 1 to 8.
    beta : float, optional
        Speed of the clock.  By default the smallest whole number that, with the default rate, leaves at most 1 % of a datum in the state at t = 1.
    T : float
    start : float
        Variance of every auxiliary block at t = 0 (hybrid score matching).
    rate : float, optional
        ``a``.  By default :math:`\sqrt{2 n - 3}`, which couples the data to the next block with strength 1, as in the papers; 1/2 for ``n = 1``.

    Raises
    ------
    BadInput
        For an ``n`` out of range, or numbers that are not positive.

    References
    ----------
    Schwarz 1956 (the form); Mou et al. 2019, arXiv:1908.10859 (order 3).
    """
    return chain_recipe(n, beta=beta, T=T, start=start, rate=rate).process()
