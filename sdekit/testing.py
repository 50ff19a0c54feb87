"""For users' own tests: hypothesis strategies for processes and laws, and assertions on orders and laws.

>>> from hypothesis import given
>>> import sdekit as sk
>>> from sdekit import testing
>>> @given(process=testing.processes(), data=testing.gaussians())
... def test_heun_is_of_order_two(process, data):
...     testing.assert_order(sk.methods.heun(), process, 2, data=data)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import MissingExtra
from .law import Gaussian
from .methods import Method
from .process import Process

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["assert_order", "gaussians", "processes"]


def _strategies() -> Any:
    try:
        from hypothesis import strategies
    except ImportError:
        raise MissingExtra("sdekit.testing", "dev") from None
    return strategies


def processes(max_blocks: int = 2) -> SearchStrategy[Process]:
    """Linear processes with one block (VP-like, any rate) or more (Langevin chains with damping near critical), all with noise on the data."""
    st = _strategies()

    def one(rate: float, noise: float) -> Process:
        return Process([[-rate]], [[noise]], T=4.0, name=f"ou({rate:g}, {noise:g})")

    def two(gamma: float, mass: float, damping: float) -> Process:
        nu = gamma + 2.0 * damping / np.sqrt(mass)
        F = 0.5 * np.array([[-gamma, 1.0 / mass], [-1.0, -nu]])
        G = np.diag(np.sqrt([gamma, mass * nu]))
        return Process(F, G, np.diag([0.0, 0.04 * mass]), T=8.0, name=f"langevin({gamma:g}, {mass:g}, {damping:g})")

    number = st.floats
    single = st.builds(one, number(0.25, 1.5), number(0.5, 2.0))
    if max_blocks < 2:
        return single  # type: ignore[no-any-return]
    double = st.builds(two, number(0.0, 0.3), number(0.2, 0.6), number(0.9, 1.2))
    return st.one_of(single, double)  # type: ignore[no-any-return]


def gaussians(dimension: int = 3) -> SearchStrategy[Gaussian]:
    """Diagonal normal laws with variances between 0.01 and 4."""
    st = _strategies()
    means = st.lists(st.floats(-1.0, 1.0), min_size=dimension, max_size=dimension)
    variances = st.lists(st.floats(0.01, 4.0), min_size=dimension, max_size=dimension)
    return st.builds(Gaussian, means, variances)  # type: ignore[no-any-return]


def assert_order(method: Method, process: Process, at_least: float, **options: Any) -> None:
    """Fail unless the measured order of convergence has settled at ``at_least`` or more (less 0.1); options as for ``analysis.order``.

    Raises
    ------
    AssertionError
        With the table of errors and slopes.
    """
    from .analysis import order

    report = order(method, process, **options)
    rows = "\n".join(f"{n:>6} {e:.3e}" for n, e in zip(report.steps, report.errors, strict=True))
    if not report.interval[0] >= at_least - 0.1:
        raise AssertionError(f"{report}\nwanted at least {at_least:g}; slopes {np.round(report.slopes, 3)}\n{rows}")
