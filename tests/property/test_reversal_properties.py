"""All reverse dynamics of random processes keep the marginals: in moments where these are Gaussian, on a grid where they are not."""

import numpy as np
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import stable_processes
from scipy.integrate import solve_ivp

import sdekit as sk
from sdekit.analysis.densities import fokker_planck, generator
from sdekit.denoiser import score
from sdekit.law import Gaussian
from sdekit.reversal import reverse

eighths = st.integers(-12, 12).map(lambda n: sp.Rational(n, 8))
LAW = Gaussian(0.4, 0.3)


@st.composite
def reversals(draw):
    """A random process with random D' = C C^T (any rank) and Q'."""
    process = draw(stable_processes(blocks=(1, 2, 3)))
    k = process.k
    C, K = (sp.Matrix(k, k, draw(st.lists(eighths, min_size=k * k, max_size=k * k))) for _ in range(2))
    return process, reverse(process, C * C.T, K - K.T).dynamics()


def affine(dynamics, t, score):
    """Matrix, offset and noise covariance of the reverse dynamics with a linear score."""
    z = np.concatenate([np.zeros((dynamics.k, 1)), np.eye(dynamics.k)], axis=1)
    drift = dynamics.drift(z, t, score)
    L = dynamics.noise(z, t)[..., 0]
    return drift[:, 1:] - drift[:, :1], drift[:, 0], L @ L.T


def marginal(process, t):
    kernel = process.kernel(t)
    return kernel.psi * float(LAW.mean), kernel.cov + float(LAW.cov) * np.outer(kernel.psi, kernel.psi)


@given(reversals(), st.floats(0.05, 1.0))
def test_moments_run_backwards(pair, part):
    process, dynamics = pair
    t = part * process.T
    mean, P = marginal(process, t)
    A, b, N = affine(dynamics, t, lambda z, t: -np.linalg.solve(P, z - mean[:, None]))
    F, G = process.drift(t), process.noise(t)
    terms = [A @ P, F @ P, N, G @ G.T, (A + F) @ P]
    # the score multiplies by P^-1, so rounding grows with the condition of P
    rounding = 1e-13 * max(1.0, 1e-2 * np.linalg.cond(P))
    assert np.linalg.norm(A @ P + P @ A.T + N + F @ P + P @ F.T + G @ G.T) <= rounding * sum(np.linalg.norm(term) for term in terms)
    assert np.linalg.norm(A @ mean + b + F @ mean) <= rounding * (np.linalg.norm(A) * np.linalg.norm(mean) + np.linalg.norm(b))


@given(reversals(), st.floats(0.1, 0.6))
@settings(max_examples=8)
def test_marginals_come_back(pair, part):
    process, dynamics = pair
    k, T, t = process.k, process.T, part * process.T

    def slope(tau, flat):
        A, b, N = affine(dynamics, T - tau, lambda z, t: score(process, LAW.denoiser(), z, t))
        mean, P = flat[:k], flat[k:].reshape(k, k)
        return np.concatenate([A @ mean + b, (A @ P + P @ A.T + N).ravel()])

    mean, P = marginal(process, T)
    found = solve_ivp(slope, (0.0, T - t), np.concatenate([mean, P.ravel()]), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    mean, P = marginal(process, t)
    np.testing.assert_allclose(found[:k], mean, atol=1e-9)
    np.testing.assert_allclose(found[k:].reshape(k, k), P, atol=1e-9)


def unmoved(recipe, D1, Q1, start, sides, cells, t=0.4):
    """Sum of the reverse and the forward operator on the density at t, over the latter: 0 but for the grid."""
    density = fokker_planck(recipe, start, [(low, high, cells) for low, high in sides], [0.0, t])
    dynamics = reverse(recipe, D1, Q1).dynamics()
    p = density.values[-1].ravel()
    forward = float(recipe.clock.rate(t)) * (density.L @ p)
    # where the density is too small for a score nothing moves either
    back = generator(lambda z: np.nan_to_num(dynamics.drift(z, t, density.score)), lambda z: dynamics.diffusion(z, t), density.box)
    return np.sum(np.abs(back @ p + forward)) / np.sum(np.abs(forward))


positive = st.integers(1, 8).map(lambda n: sp.Rational(n, 8))
x, y = sp.symbols("x y", real=True)


@given(positive, eighths, positive, positive, positive)
@settings(max_examples=8)
def test_nonlinear_recipe_with_state_dependent_noise(quartic, tilt, spread, other, level):
    """Wells of any shape, D and D' functions of the state: second order in the grid, so nothing is left in the limit."""
    recipe = sk.Recipe((x,), quartic * x**4 - x**2 + tilt * x / 2, [[1 + spread * x**2]], [[0]], clock=sk.clocks.linear(0.5, 2.0))
    start = Gaussian(0.3, 0.1)
    edge = float(min(3.0, 1.2 + 1.6 / float(quartic) ** 0.5))
    coarse, fine = (unmoved(recipe, [[level + other * x**2]], None, start, [(-edge, edge)], n) for n in (100, 200))
    assert fine < 1e-2
    assert 1.9 < np.log2(coarse / fine) < 2.1


def test_two_blocks_with_state_dependent_circulation():
    D = sp.Matrix([[8 + x**2, x * y], [x * y, 8 + y**2]]) / 8
    recipe = sk.Recipe((x, y), x**4 / 8 + x**2 / 4 + y**2 / 2, D, (1 + x**2 / 4) * sp.Matrix([[0, -1], [1, 0]]) / 2)
    start = Gaussian([0.3, -0.2], [0.5, 0.6])
    D1 = sp.Matrix([[1, x / 4], [x / 4, sp.Rational(1, 2) + x**2 / 8]])
    Q1 = (y + x**2 / 2) * sp.Matrix([[0, 1], [-1, 0]])
    errors = [unmoved(recipe, D1, Q1, start, [(-3.6, 3.6), (-4.5, 4.5)], n) for n in (48, 96)]
    assert errors[1] < 0.05
    assert np.log2(errors[0] / errors[1]) > 1.9
