"""What tests of samplers in phase space share: a short run beside its normals, and the published measure of a covariance's error."""

import numpy as np
import pytest
from processes import dense_kernel, psld

from sdekit import analysis, denoiser
from sdekit.law import Gaussian, Mixture
from sdekit.noise import METHOD, Address, Addressed
from sdekit.plans import Run
from sdekit.solve import assemble, solve

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])
QUARTER = Gaussian(0.0, 0.25)
TIMES = np.array([0.9, 0.8, 0.73, 0.6])


def named(*things):
    return pytest.mark.parametrize("make", things, ids=lambda m: m.__name__)


def by(methods):
    return pytest.mark.parametrize("method", methods, ids=str)


def run(method, process, slots=0):
    """The state after ``TIMES``, where it started, and the normals of its slots (steps, slots, n, 2)."""
    z = np.random.default_rng(4).normal(size=(process.k, 5, 2))
    made, _ = solve(assemble(process, [Run(method, tuple(TIMES))]), list(z), LAW.denoiser())
    steps = len(TIMES) - 1
    places = [Address(METHOD, 0, i, j) for i in range(steps) for j in range(slots)]
    xi = Addressed(0).draw(places, np.arange(5), (2,)).reshape(steps, slots, 5, 2) if slots else None
    return np.stack(made), z, xi


def score(process, z, t):
    return denoiser.score(process, LAW.denoiser(), np.asarray(z), t)


def times(matrix, z):
    return np.tensordot(matrix, z, axes=1)


def agree(made, expected):
    np.testing.assert_allclose(made, expected, atol=1e-10 * np.max(np.abs(expected)))


def true_cov(process, t, v=0.25):
    psi, S = dense_kernel(process, t)
    return S + v * np.outer(psi, psi)


def error(C, t):
    """|| L^-1 C L^-T - I ||_F on PSLD, against the true covariance L L^T at t."""
    L = np.linalg.cholesky(true_cov(psld(), t))
    return np.linalg.norm(np.linalg.solve(L, np.linalg.solve(L, C).T) - np.eye(2))


def state_cov(method, grid):
    """What a method makes of N(0, .25) on PSLD, from its marginal at the first time."""
    return analysis.exact_law(psld(), method=method, grid=grid, data=QUARTER, start=QUARTER).state_cov
