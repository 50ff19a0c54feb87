"""Processes that the tests run on, and plain float64 formulas for what they should do."""

import numpy as np
from hypothesis import strategies as st
from scipy.linalg import expm, solve_continuous_lyapunov

from sdekit import Process, clocks


def vp():
    return Process([[-0.5]], [[1.0]], clock=clocks.linear(0.1, 20.0), name="vp")


def edm():
    """``t = sigma``: the rate is 2 t, the integral t^2."""
    return Process([[0.0]], [[1.0]], clock=clocks.linear(0.0, 160.0, 80.0), name="edm")


def ve(low=0.01, high=50.0):
    growth = 2.0 * np.log(high / low)
    clock = clocks.exponential(growth * low**2, growth * high**2)
    return Process([[0.0]], [[1.0]], [[low**2]], clock=clock, name="ve")


def psld(Gamma=0.01, nu=None, M=0.25, start=0.04, beta=8.0, T=1.0):
    """Critically damped unless ``nu`` is given; ``Gamma = 0`` is CLD."""
    nu = Gamma + 4.0 if nu is None else nu
    F = 0.5 * np.array([[-Gamma, 1.0 / M], [-1.0, -nu]])
    G = np.diag([np.sqrt(Gamma), np.sqrt(M * nu)])
    return Process(F, G, np.diag([0.0, start * M]), clock=clocks.constant(beta, T), name=f"psld({Gamma:g},{nu:g})")


def cld():
    return psld(0.0)


def under():
    return psld(0.0, nu=1.0)


def over():
    return psld(0.0, nu=8.0)


def third_order(start=0.04):
    """Critically damped third-order Langevin dynamics, stationary law N(0, I)."""
    g, xi = 2.0 * np.sqrt(2.0), 3.0 * np.sqrt(3.0)
    F = [[0.0, 1.0, 0.0], [-1.0, 0.0, g], [0.0, -g, -xi]]
    return Process(F, np.diag([0.0, 0.0, np.sqrt(2.0 * xi)]), np.diag([0.0, start, start]), clock=clocks.constant(4.0), name="third_order")


def chain(k=5, rate=1.0):
    """Schwarz chain of ``k`` blocks with one eigenvalue, noise on the last block only, no noise at the start."""
    j = np.arange(1, k)
    pull = rate * np.sqrt((k**2 - j**2) / (4.0 * j**2 - 1.0))[::-1]
    F = np.diag(pull, 1) - np.diag(pull, -1)
    F[-1, -1] = -k * rate
    G = np.zeros((k, 1))
    G[-1, 0] = np.sqrt(2.0 * k * rate)
    return Process(F, G, clock=clocks.constant(12.0), name=f"chain({k})")


ALL = [vp, edm, ve, cld, psld, under, over, third_order]
names = [make.__name__ for make in ALL]


def unit(process):
    """The same process in its unit clock, so that times are stretches B."""
    return Process(process.F, process.G, process.S0, clock=clocks.constant(1.0, float(process.clock.integral(process.T))), name=process.name)


def random_stable(seed, k):
    """``F = -(D + Q) S^-1`` with random D > 0, Q skew, S > 0: stationary law N(0, S)."""
    rng = np.random.default_rng(seed)
    root, C, K = (rng.normal(size=(k, k)) for _ in range(3))
    S = root @ root.T / k + 0.3 * np.eye(k)
    D = C @ C.T / k + 0.1 * np.eye(k)
    aux = rng.normal(size=(k, k))
    aux[0] = 0.0
    F = -(D + K - K.T) @ np.linalg.inv(S)
    return Process(F, np.linalg.cholesky(2.0 * D), 0.05 * aux @ aux.T, clock=clocks.linear(0.3, 2.5), name=f"random({seed},{k})")


@st.composite
def stable_processes(draw, blocks=(1, 2, 3, 4)):
    return random_stable(draw(st.integers(0, 10_000)), draw(st.sampled_from(blocks)))


def dense_kernel(process, t):
    """``psi`` and ``S`` by scipy: the stationary form for contractions, the plain integral for one free block."""
    B, F, Q = float(process.clock.integral(t)), process.F, process.G @ process.G.T
    E = expm(F * B)
    if np.all(F == 0.0):
        return E[:, 0], process.S0 + B * Q
    rest = solve_continuous_lyapunov(F, -Q)
    return E[:, 0], rest - E @ (rest - process.S0) @ E.T


def dense_drift(process, noise, t, variance=0.0):
    """Linear part of the reverse equation, dz/dt = A z, for data N(0, variance)."""
    psi, S = dense_kernel(process, t)
    P = S + variance * np.outer(psi, psi)
    c = 0.5 * (1.0 + noise**2)
    return float(process.clock.rate(t)) * (process.F + c * process.G @ process.G.T @ np.linalg.inv(P))
