"""Laws of all stable linear processes: semigroup, positivity, monotone levels, and one denoiser for every process."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from processes import dense_kernel, stable_processes
from scipy.stats import multivariate_normal

from sdekit import Process, Reverse, denoiser
from sdekit.law import Gaussian, Mixture

parts = st.floats(1e-4, 1.0)


def scaled(matrix, scale):
    return matrix / np.outer(scale, scale)


@given(stable_processes(), parts)
def test_kernel_is_a_law(process, part):
    """Positive definite, with the Lyapunov form of the covariance, below the stationary one plus the start."""
    t = part * process.T
    kernel = process.kernel(t)
    assert np.all(np.diagonal(kernel.chol) > 0.0)
    assert np.all(np.triu(kernel.chol, 1) == 0.0)
    psi, S = dense_kernel(process, t)
    size = np.sqrt(np.diag(process.stationary))
    np.testing.assert_allclose(scaled(kernel.cov, size), scaled(S, size), atol=1e-11)
    np.testing.assert_allclose(kernel.psi, psi, atol=1e-11 * np.linalg.norm(psi))
    np.testing.assert_allclose(float(kernel.det), np.prod(np.linalg.svd(kernel.chol, compute_uv=False)) ** 2, rtol=1e-9)


@given(stable_processes(), st.lists(parts, min_size=3, max_size=3, unique=True))
def test_semigroup(process, chosen):
    a, b, c = sorted(p * process.T for p in chosen)
    once, twice = process.transition(a, c), process.transition(a, b).then(process.transition(b, c))
    size = np.sqrt(np.diag(process.stationary))
    np.testing.assert_allclose(twice.mean, once.mean, atol=1e-11 * max(1.0, np.max(np.abs(once.mean))))
    np.testing.assert_allclose(scaled(twice.cov, size), scaled(once.cov, size), atol=1e-11)
    direct, moved = process.kernel(c), process.kernel(a).then(once)
    np.testing.assert_allclose(scaled(moved.cov, size), scaled(direct.cov, size), atol=1e-11)
    np.testing.assert_allclose(moved.psi, direct.psi, atol=1e-11 * max(1.0, np.max(np.abs(once.mean))))


@given(stable_processes())
def test_the_stationary_law_stays(process):
    law = process.stationary
    step = process.transition(0.2 * process.T, 0.7 * process.T)
    size = np.sqrt(np.diag(law))
    np.testing.assert_allclose(scaled(step.mean @ law @ step.mean.T + step.cov, size), scaled(law, size), atol=1e-10)


@given(stable_processes(), st.lists(parts, min_size=4, max_size=4, unique=True))
def test_levels_increase_and_invert(process, chosen):
    t = np.sort(chosen) * process.T
    assume(np.all(np.diff(t) > 1e-9 * t[:-1]))
    sigma = process.sigma_eff(t)
    assert np.all(np.diff(sigma) > 0.0)
    # the slope of log sigma says how well a level determines its time
    kernel = process.kernel(t)
    pull = process.G.T @ np.linalg.solve(kernel.cov, kernel.psi[..., None])
    slope = 0.5 * process.clock.rate(t) * t * np.sum(pull[..., 0] ** 2, axis=-1) * sigma**2
    np.testing.assert_array_less(np.abs(process.time_of(sigma) / t - 1.0), 1e-12 + 1e-13 / slope)


@given(stable_processes(), st.floats(0.02, 0.5), st.floats(0.55, 1.0), st.floats(0.0, 2.5), st.floats(0.0, 4.0))
def test_exact_reverse_keeps_the_marginals(process, low, high, noise, variance):
    """Whatever the noise level: P_s from P_t, for data of any variance."""
    s, t = low * process.T, high * process.T
    way = Reverse(process, noise).propagate([s], [t], variance)
    P = [k.cov + variance * np.outer(k.psi, k.psi) for k in (process.kernel(s), process.kernel(t))]
    size = np.sqrt(np.diag(P[0]))
    found = way.gain[0] @ P[1] @ way.gain[0].T + way.chol[0] @ way.chol[0].T
    np.testing.assert_allclose(scaled(found, size), scaled(P[0], size), atol=1e-9)


@given(stable_processes(), st.floats(0.02, 0.5), st.floats(0.55, 1.0), st.floats(0.55, 1.0), st.floats(0.0, 1.5))
def test_reverse_propagators_compose(process, low, middle, high, noise):
    s, r, t = low * process.T, 0.5 * (low + middle) * process.T, (0.5 * (low + middle) + 0.5 * high * (1.0 - 0.5 * (low + middle))) * process.T
    reverse = Reverse(process, noise)
    once, (first, second) = reverse.propagate([s], [t]).gain[0], reverse.propagate([s, r], [r, t]).gain
    np.testing.assert_allclose(first @ second, once, atol=1e-9 * np.max(np.abs(first)) * np.max(np.abs(second)))


@given(stable_processes(), st.floats(0.01, 0.5), st.floats(0.55, 1.0))
def test_posterior_is_bayes_rule(process, low, high):
    """The joint law of (z_s, z_t) given x_0 has the right blocks: C + K S_t K^T = S_s, K S_t = S_s E^T."""
    s, t = low * process.T, high * process.T
    kernel, step, end = process.kernel(s), process.transition(s, t), process.kernel(t)
    gain, chol = kernel.posterior(step)
    size = np.sqrt(np.diag(kernel.cov))
    np.testing.assert_allclose(scaled(chol @ chol.T + gain @ end.cov @ gain.T, size), scaled(kernel.cov, size), atol=1e-10)
    np.testing.assert_allclose(gain @ end.cov, kernel.cov @ step.mean.T, atol=1e-10 * np.max(kernel.cov))


@given(stable_processes(), st.floats(0.02, 1.0), st.integers(0, 10_000))
def test_one_denoiser_gives_the_score_of_the_whole_state(process, part, seed):
    """-S^-1 (z - psi D(y; sigma_eff)) is the score of the pushed mixture, full covariances, two elements."""
    rng = np.random.default_rng(seed)
    t, k = part * process.T, process.k
    roots = rng.normal(size=(3, 2, 2))
    covs = roots @ np.swapaxes(roots, -1, -2) / 2.0 + 0.1 * np.eye(2)
    weights, means = rng.dirichlet(np.ones(3)), rng.normal(size=(3, 2))
    law = Mixture(weights, means, covs)
    psi, S = dense_kernel(process, t)
    z = np.multiply.outer(psi, law.sample(4, seed=seed)) + np.tensordot(np.linalg.cholesky(S), rng.normal(size=(k, 4, 2)), axes=1)
    flat = np.moveaxis(z, 1, 0).reshape(4, 2 * k)
    places = [np.kron(psi, m) for m in means]
    spreads = [np.kron(np.outer(psi, psi), C) + np.kron(S, np.eye(2)) for C in covs]
    logs = np.stack([np.log(w) + multivariate_normal.logpdf(flat, m, P) for w, m, P in zip(weights, places, spreads, strict=True)])
    share = np.exp(logs - logs.max(axis=0))
    share /= share.sum(axis=0)
    expected = -sum(r[:, None] * np.linalg.solve(P, (flat - m).T).T for r, m, P in zip(share, places, spreads, strict=True))
    found = np.moveaxis(denoiser.score(process, law.denoiser(), z, t), 0, 1).reshape(4, 2 * k)
    np.testing.assert_allclose(found, expected, atol=1e-9 * np.max(np.abs(expected)))
    logged = law.push(process.kernel(t)).log_density(np.moveaxis(z, 1, 0).reshape(4, *((2,) if k == 1 else (k, 2))))
    np.testing.assert_allclose(logged, np.log(np.sum(np.exp(logs), axis=0)), rtol=1e-8, atol=1e-8)


@given(stable_processes(blocks=(2, 3)), st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_coordinates_of_auxiliary_blocks_do_not_matter(process, seed, part):
    """A change of variables among the auxiliary blocks changes neither the level nor what the data see of a transition."""
    k = process.k
    rng = np.random.default_rng(seed)
    T = np.eye(k)
    T[1:, 1:] = np.linalg.qr(rng.normal(size=(k - 1, k - 1)))[0] * rng.uniform(0.5, 2.0, size=k - 1)
    inverse = np.linalg.inv(T)
    other = Process(T @ process.F @ inverse, T @ process.G, T @ process.S0 @ T.T, clock=process.clock)
    t = part * process.T
    np.testing.assert_allclose(other.sigma_eff(t), process.sigma_eff(t), rtol=1e-9)
    np.testing.assert_allclose(other.kernel(t).cov[0, 0], process.kernel(t).cov[0, 0], rtol=1e-10)
    flows = [Reverse(p, 0.5).leg([t, 0.5 * t]).flows[0] for p in (process, other)]
    np.testing.assert_allclose(flows[1].gain, T @ flows[0].gain @ inverse, atol=1e-8 * np.max(np.abs(flows[1].gain)))


@given(stable_processes(), st.floats(0.05, 1.0), st.floats(0.05, 3.0))
def test_gaussian_data_have_the_affine_denoiser(process, part, variance):
    """E[x_0 | z_t] by conditioning the joint Gaussian of (x_0, z_t) is D at the observation."""
    t = part * process.T
    psi, S = dense_kernel(process, t)
    z = np.random.default_rng(0).normal(size=(process.k, 3))
    direct = 0.4 + variance * psi @ np.linalg.solve(S + variance * np.outer(psi, psi), z - 0.4 * psi[:, None])
    kernel = process.kernel(t)
    y = kernel.observe @ z
    found = Gaussian(0.4, variance).denoiser()(y, float(kernel.sigma_eff))
    np.testing.assert_allclose(found, direct, atol=1e-9 * max(1.0, np.max(np.abs(direct))))
