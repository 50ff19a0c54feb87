"""Kernels of random processes against mpmath, from B = 1e-8 to long after everything has settled."""

import mpmath as mp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sdekit import Process, clocks


def contraction(k, rank, seed):
    """F = -(D + Q), G G^T = 2 D with D = C C^T of some rank and skew Q."""
    rng = np.random.default_rng([k, rank, seed])
    C = np.zeros((k, k))
    C[:, :rank] = rng.normal(size=(k, rank))
    K = rng.normal(size=(k, k))
    return -(C @ C.T + K - K.T), np.sqrt(2.0) * C, np.diag([0.0, *rng.uniform(0.0, 0.5, k - 1)])


def exact(F, G, S0, B):
    """exp of [[F, N], [0, -F^T]] (Van Loan)."""
    k = len(F)
    with mp.workdps(50 + int(2.0 * np.linalg.norm(F, 2) * B)):
        block = mp.zeros(2 * k)
        N = mp.matrix(G.tolist()) * mp.matrix(G.tolist()).T
        for i in range(k):
            for j in range(k):
                block[i, j], block[i, k + j], block[k + i, k + j] = mp.mpf(F[i, j]) * B, N[i, j] * B, -mp.mpf(F[j, i]) * B
        E = mp.expm(block)
        mean = E[:k, :k]
        cov = E[:k, k:] * mean.T + mean * mp.matrix(S0.tolist()) * mean.T
        return [np.array([[float(m[i, j]) for j in range(k)] for i in range(k)]) for m in (mean, cov)]


@settings(max_examples=40)
@given(k=st.integers(1, 5), rank=st.integers(1, 5), seed=st.integers(0, 10**6), logs=st.floats(-8.0, 1.3))
def test_kernel_of_random_processes(k, rank, seed, logs):
    """Covariance to 1e-12 of its own scales, for four and more blocks times the condition of the scaled covariance."""
    F, G, S0 = contraction(k, min(k, rank), seed)
    B = 10.0**logs
    mean, cov = exact(F, G, S0, B)
    made = Process(F, G, S0, clock=clocks.constant(1.0, 20.0)).kernel(B)
    scale = np.sqrt(np.diag(cov))
    grid = np.outer(scale, scale)
    often = np.linalg.cond(cov / grid) if k >= 4 else 1.0
    assert np.max(np.abs(made.cov - cov) / grid) < 1e-12 * often
    assert np.linalg.norm(made.psi - mean[:, 0]) < 1e-12 * max(np.linalg.norm(mean[:, 0]), 1e-3)
