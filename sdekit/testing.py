"""For users' own tests: hypothesis strategies for processes, laws, grids and methods, and assertions on orders and laws.

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

from . import grids as _grids
from .errors import BadInput, MissingExtra
from .law import Gaussian, Mixture
from .methods import SHIPPED, Method
from .process import Process

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["assert_law", "assert_marginal", "assert_order", "gaussians", "grids", "methods", "mixtures", "processes"]


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


def mixtures(dimension: int = 2, parts: int = 2) -> SearchStrategy[Mixture]:
    """Mixtures of ``parts`` diagonal normal laws with weights between 0.1 and 0.9 before they are normalised."""
    st = _strategies()

    def made(weights: list[float], means: list[list[float]], variances: list[list[float]]) -> Mixture:
        return Mixture(np.array(weights) / np.sum(weights), means, variances)

    def table(low: float, high: float) -> Any:
        return st.lists(st.lists(st.floats(low, high), min_size=dimension, max_size=dimension), min_size=parts, max_size=parts)

    weights = st.lists(st.floats(0.1, 0.9), min_size=parts, max_size=parts)
    return st.builds(made, weights, table(-1.0, 1.0), table(0.02, 1.0))  # type: ignore[no-any-return]


def grids(n: int = 20, low: float = 0.1, high: float = 5.0) -> SearchStrategy[_grids.Grid]:
    """Grids of ``n`` steps between two levels: Karras with any power, or uniform in ``log sigma_eff``."""
    st = _strategies()
    karras = st.builds(lambda rho: _grids.karras(n, low, high, rho, zero=False), st.floats(1.0, 10.0))
    return st.one_of(karras, st.just(_grids.logsnr(n, low, high)))  # type: ignore[no-any-return]


def methods(noisy: bool | None = None) -> SearchStrategy[Method]:
    """The shipped methods, all of them or those with (or without) noise."""
    every = [make() for make in SHIPPED.values()]
    return _strategies().sampled_from([m for m in every if noisy is None or m.noisy == noisy])  # type: ignore[no-any-return]


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


def assert_law(process: Process, at_most: float, *, data: Gaussian, **options: Any) -> None:
    """Fail unless the sampler's exact W2 distance to Gaussian data is at most ``at_most``; options as for ``analysis.exact_law``.

    Raises
    ------
    AssertionError
        With the distance and its parts: prior, discretisation, end (and score, if ``model`` is another law).
    """
    from .analysis import exact_law

    law = exact_law(process, data=data, **options)
    if not law.w2 <= at_most:
        parts = ", ".join(f"{name} {value:.3e}" for name, value in law.parts.items())
        raise AssertionError(f"W2 = {law.w2:.6g} with {law.nfe} model calls on {process.name}, wanted at most {at_most:g}; parts: {parts}")


def assert_marginal(state: Any, process: Process, t: float, data: Gaussian | Mixture, *, errors: float = 5.0) -> None:
    r"""Fail unless samples of the state have the moments of the exact marginal at ``t``, within so many standard errors.

    Means :math:`\psi \mu` and covariances :math:`S \otimes I + \psi\psi^T \otimes C` over all blocks and elements.

    Parameters
    ----------
    state : array (k, n, *shape)
        Independent samples, from any simulator or sampler.
    process : Process
    t : float
    data : Gaussian or Mixture
    errors : float
        With m moments a right sampler fails with probability about ``m * erfc(errors / sqrt 2)``.

    Raises
    ------
    AssertionError
        With the worst moment.
    BadInput
        If the state does not have the process's blocks and the data's shape.
    """
    z = np.asarray(state, float)
    if z.ndim < 2 or z.shape[0] != process.k or z.shape[2:] != tuple(data.shape):
        raise BadInput(f"state has shape {z.shape}; it must be ({process.k}, n, *{tuple(data.shape)})")
    kernel, n = process.kernel(t), z.shape[1]
    flat = np.moveaxis(z, 1, 0).reshape(n, -1)
    d = flat.shape[1] // process.k
    mean = np.kron(kernel.psi, data.mean.reshape(-1))
    cov = np.kron(kernel.cov, np.eye(d)) + np.kron(np.outer(kernel.psi, kernel.psi), data.matrix)
    gap = flat - mean
    found = gap.T @ gap / n
    spread = np.sqrt(np.maximum(np.square(gap).T @ np.square(gap) / n - found**2, 1e-300) / n)
    for what, z_scores in (("mean", np.mean(gap, axis=0) / np.sqrt(np.diag(cov) / n)), ("covariance", (found - cov) / spread)):
        worst = float(np.max(np.abs(z_scores)))
        if not worst <= errors:
            where = np.unravel_index(int(np.argmax(np.abs(z_scores))), z_scores.shape)
            place = tuple(f"{process.blocks[i // d]}[{i % d}]" for i in where)
            raise AssertionError(
                f"the {what} of {', '.join(place)} at t = {t:g} is {worst:.1f} standard errors off the exact marginal of {process.name}"
            )
