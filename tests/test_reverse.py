"""The reverse equations against scipy: propagators by DOP853, weights and noise by adaptive quadrature of the variation-of-constants formula."""

import numpy as np
import pytest
from processes import cld, dense_drift, dense_kernel, edm, over, psld, random_stable, third_order, under, ve, vp
from scipy.integrate import quad_vec, solve_ivp
from scipy.linalg import expm

from sdekit import BadInput, Reverse
from sdekit.reverse import lagrange

# processes, with the earliest part of T where scipy's difference of covariances keeps enough digits to be an oracle
CASES = {"vp": (vp, 0.05), "edm": (edm, 0.01), "ve": (ve, 0.3), "cld": (cld, 0.1), "psld": (psld, 0.1), "under": (under, 0.15), "over": (over, 0.1),
         "third order": (third_order, 0.25)}  # fmt: skip
by_process = pytest.mark.parametrize("name", CASES)


def adjoint(process, noise, s, t, variance=0.0):
    """``r -> Phi(s, r)`` by dX/dr = -X A(r), X(s) = 1."""
    k = process.k

    def slope(r, flat):
        return -(flat.reshape(k, k) @ dense_drift(process, noise, r, variance)).ravel()

    made = solve_ivp(slope, (s, t), np.eye(k).ravel(), method="DOP853", rtol=1e-12, atol=1e-15, dense_output=True)
    return lambda r: made.sol(r).reshape(k, k)


def close(found, ref, tolerance):
    np.testing.assert_allclose(found, ref, rtol=0.0, atol=tolerance * np.max(np.abs(ref)))


@pytest.mark.parametrize("noise", [0.0, 0.6, 1.0, 1.7])
@by_process
def test_propagator(name, noise):
    make, first = CASES[name]
    process = make()
    for s, t in process.T * np.array([[first, 0.9], [0.5, 0.53]]):
        found = Reverse(process, noise).propagate([s], [t])
        close(found.gain[0], adjoint(process, noise, s, t)(t), 1e-8)


@pytest.mark.parametrize("variance", [0.04, 1.0])
@by_process
def test_propagator_of_the_true_score(name, variance):
    make, first = CASES[name]
    process = make()
    s, t = first * process.T, 0.8 * process.T
    found = Reverse(process, 1.0).propagate([s], [t], variance)
    close(found.gain[0], adjoint(process, 1.0, s, t, variance)(t), 1e-8)


@pytest.mark.parametrize(("seed", "k"), [(258, 2), (0, 3), (44, 3), (0, 4), (240, 4)])
def test_propagator_of_random_processes(seed, k):
    """One long step of processes that nobody tuned."""
    process = random_stable(seed, k)
    s, t = 0.03, 1.0
    found = Reverse(process).propagate([s], [t]).gain[0]
    close(found, adjoint(process, 0.0, s, t)(t), 1e-8)


@pytest.mark.parametrize("noise", [0.0, 2.0, 5.0, 10.0])
@pytest.mark.parametrize("make", [vp, edm, ve])
def test_propagator_of_one_block_in_closed_form(make, noise):
    """Phi(s, t) = psi_s / psi_t (sigma_s / sigma_t)^(1 + lambda^2), whitened: (sigma_s / sigma_t)^(lambda^2)."""
    process = make()
    s, t = process.T * np.array([0.5, 0.1, 0.2, 1e-3]), process.T * np.array([0.8, 0.9, 0.21, 1.0])
    found = Reverse(process, noise).propagate(s, t).ends[:, 0, 0]
    np.testing.assert_allclose(found, (process.sigma_eff(s) / process.sigma_eff(t)) ** (noise**2), atol=1e-10)


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0, 3.0])
@by_process
def test_exact_reverse_keeps_the_marginals(name, noise):
    """The covariance of Gaussian data, and of a point, is carried from t to s by gain and noise together."""
    process = CASES[name][0]()
    s, t = process.T * np.array([1e-3, 0.1, 0.3, 1e-3]), process.T * np.array([1e-2, 0.9, 0.31, 1.0])
    for v in (0.0, 0.04, 1.0):
        way = Reverse(process, noise).propagate(s, t, v)
        low, high = (k.cov + v * k.psi[:, :, None] * k.psi[:, None, :] for k in (process.kernel(s), process.kernel(t)))
        found = way.gain @ high @ np.swapaxes(way.gain, -1, -2) + way.chol @ np.swapaxes(way.chol, -1, -2)
        scale = np.sqrt(np.einsum("nii->ni", low))
        np.testing.assert_allclose((found - low) / (scale[:, :, None] * scale[:, None, :]), 0.0, atol=1e-11)


@pytest.mark.parametrize("noise", [0.0, 1.0, 1.4])
@by_process
def test_data_weights_against_adaptive_quadrature(name, noise):
    """Data that are a polynomial of degree 0, 1, 2 in u: the integral of c Phi(s, r) G G^T S^-1 psi D(u_r) from s to t."""
    make, first = CASES[name]
    process = make()
    times = process.T * np.array([0.95, 0.75, 0.6, max(first, 0.35)])
    leg = Reverse(process, noise).leg(times)
    s, t = times[-1], times[-2]
    phi = adjoint(process, noise, s, t)
    c = 0.5 * (1.0 + noise**2)

    def pull(r):
        psi, S = dense_kernel(process, r)
        u = 0.5 * np.log(psi @ np.linalg.solve(S, psi))
        w = c * float(process.clock.rate(r)) * phi(r) @ process.G @ process.G.T @ np.linalg.solve(S, psi)
        return np.outer([1.0, u, u * u], w)

    ref, _ = quad_vec(pull, s, t, epsrel=1e-11)
    nodes = [leg.points[i].u for i in (2, 1, 0)]
    flow = leg.flows[2]
    for degree in range(3):
        for count in range(degree + 1, 4):
            found = flow.weights(nodes[:count]).T @ np.array(nodes[:count]) ** degree
            close(found, ref[degree], 1e-8)


@pytest.mark.parametrize("noise", [0.6, 1.0, 1.4])
@by_process
def test_noise_against_adaptive_quadrature(name, noise):
    make, first = CASES[name]
    process = make()
    s, t = max(first, 0.3) * process.T, 0.7 * process.T
    phi = adjoint(process, noise, s, t)

    def spread(r):
        root = phi(r) @ process.G
        return noise**2 * float(process.clock.rate(r)) * root @ root.T

    ref, _ = quad_vec(spread, s, t, epsrel=1e-11)
    flow = Reverse(process, noise).leg([t, s]).flows[0]
    assert np.all(np.triu(flow.chol, 1) == 0.0)
    scale = np.sqrt(np.diag(ref))
    np.testing.assert_allclose(flow.chol @ flow.chol.T / np.outer(scale, scale), ref / np.outer(scale, scale), atol=1e-8)


@by_process
def test_the_sde_step_is_the_posterior(name):
    """With noise 1 the step given x_0 is Bayes' rule: gain K, noise C, and the data enter by psi_s - K psi_t."""
    process = CASES[name][0]()
    for s, t in process.T * np.array([[1e-4, 2e-4], [1e-3, 0.5], [0.3, 1.0]]):
        flow = Reverse(process, 1.0).leg([t, s]).flows[0]
        low, high = process.kernel(s), process.kernel(t)
        gain, chol = low.posterior(process.transition(s, t))
        rows = np.sqrt(np.diag(low.cov))
        scale = rows[:, None] / np.sqrt(np.diag(high.cov))
        np.testing.assert_allclose(flow.gain / scale, gain / scale, atol=1e-10)
        np.testing.assert_allclose((flow.chol @ flow.chol.T - chol @ chol.T) / np.outer(rows, rows), 0.0, atol=1e-11)
        gap = np.linalg.solve(low.chol, flow.weights([0.0])[0] - (low.psi - gain @ high.psi))
        np.testing.assert_allclose(gap * float(low.sigma_eff), 0.0, atol=1e-12)  # in units of the signal


@by_process
def test_constant_data_reproduce_their_point_mass(name):
    for noise in (0.0, 0.8):
        process = CASES[name][0]()
        times = process.T * np.array([1.0, 0.4, 0.1, 1e-2, 1e-3])
        leg = Reverse(process, noise).leg(times)
        for i, flow in enumerate(leg.flows):
            nodes = [leg.points[j].u for j in range(i, max(-1, i - 3), -1)]
            close(flow.weights(nodes).sum(axis=0), leg.points[i + 1].psi - flow.gain @ leg.points[i].psi, 1e-10)


@by_process
def test_root_is_rotation_free(name):
    """R = L O has R R^T = S, is carried by the exact flow of a point mass, and obeys R' = (F + G G^T S^-1 / 2) R."""
    make, first = CASES[name]
    process = make()
    t, h = 0.6 * process.T, 2e-4 * process.T
    times = np.array([process.T, t + h, t + 0.5 * h, t, t - 0.5 * h, t - h, first * process.T])
    leg = Reverse(process).leg(times)
    roots = np.stack(leg.roots)
    np.testing.assert_array_equal(roots, leg.kernel.chol @ np.stack(leg.turns))
    np.testing.assert_allclose(leg.turns @ np.swapaxes(leg.turns, -1, -2), np.broadcast_to(np.eye(process.k), roots.shape), atol=1e-12)
    close(roots[-1], adjoint(process, 0.0, times[-1], t)(t) @ roots[3], 1e-8)
    slope = (4.0 * (roots[2] - roots[4]) / h - (roots[1] - roots[5]) / (2.0 * h)) / 3.0
    close(slope, dense_drift(process, 0.0, t) @ roots[3], 1e-7)


@pytest.mark.parametrize("noise", [0.0, 1.0])
@by_process
def test_epsilon_weights_against_adaptive_quadrature(name, noise):
    """-c times the integral of e^{-F (B_r - B_s)} G G^T R_r^-T eps(u_r), and the exact noise of e^{-F B}."""
    make, first = CASES[name]
    process = make()
    times = process.T * np.array([0.9, 0.7, 0.6, max(first, 0.4)])
    leg = Reverse(process, noise).leg(times)
    s, t = times[-1], times[-2]
    bottom = float(process.clock.integral(s))
    root_s = leg.roots[-1]
    phi = adjoint(process, 0.0, s, t)
    c = 0.5 * (1.0 + noise**2)

    def parts(r):
        psi, S = dense_kernel(process, r)
        u = 0.5 * np.log(psi @ np.linalg.solve(S, psi))
        root = np.linalg.solve(phi(r), root_s)  # R_s = Phi(s, r) R_r
        back = expm(-process.F * (float(process.clock.integral(r)) - bottom))
        rate = float(process.clock.rate(r))
        w = -c * rate * back @ process.G @ process.G.T @ np.linalg.inv(root).T
        spread = noise**2 * rate * back @ process.G @ process.G.T @ back.T
        return np.stack([w, u * w, u * u * w, spread])

    ref, _ = quad_vec(parts, s, t, epsrel=1e-11)
    nodes = [leg.points[i].u for i in (2, 1, 0)]
    flow = leg.epsilon_flows[2]
    for degree in range(3):
        for count in range(degree + 1, 4):
            found = np.tensordot(np.array(nodes[:count]) ** degree, flow.weights(nodes[:count]), axes=1)
            close(found, ref[degree], 1e-8)
    close(flow.back, expm(-process.F * (float(process.clock.integral(t)) - bottom)), 1e-11)
    close(flow.chol @ flow.chol.T, ref[3], 1e-9)
    if noise == 0.0:
        close(flow.whole, ref[0], 1e-8)


@by_process
def test_points_are_the_equation(name):
    """Drift, noise, observation, and both ways between denoised data and score, by scipy's kernel."""
    make, first = CASES[name]
    process, t = make(), max(0.5, first) * make().T
    noise = 0.7
    psi, S = dense_kernel(process, t)
    point = Reverse(process, noise).leg([t, 0.5 * t]).points[0]
    rng = np.random.default_rng(0)
    z, D, score = rng.normal(size=(process.k, 4)), rng.normal(size=(1, 4)), rng.normal(size=(process.k, 4))
    rate = float(process.clock.rate(t))
    close(point.drift(z, score), rate * (process.F @ z - 0.5 * (1.0 + noise**2) * process.G @ process.G.T @ score), 1e-12)
    exact = -np.linalg.solve(S, z - psi[:, None] * D)
    close(point.score(z, D), exact, 1e-9)
    close(point.drift(z, exact), dense_drift(process, noise, t) @ (z - psi[:, None] * D) + process.drift(t) @ psi[:, None] * D, 1e-9)
    snr = psi @ np.linalg.solve(S, psi)
    close(point.data(z, exact), D, 1e-9)
    close(point.data(z, score), (psi @ np.linalg.solve(S, z) + psi @ score)[None] / snr, 1e-9)
    close(point.noise, noise * np.sqrt(rate) * process.G, 1e-14)
    assert point.sigma == pytest.approx(snr**-0.5, rel=1e-9)
    assert point.u == pytest.approx(0.5 * np.log(snr), abs=1e-9)
    close(point.observe[0], np.linalg.solve(S, psi) / snr, 1e-9)


def test_lagrange_basis():
    nodes, u = [0.3, -1.0, 2.0], np.linspace(-2.0, 3.0, 7)
    basis = lagrange(nodes, u)
    np.testing.assert_allclose(lagrange(nodes, np.array(nodes)), np.eye(3), atol=1e-15)
    np.testing.assert_allclose(np.array([1.0, 2.0, -3.0]) @ basis, np.polyval(np.polyfit(nodes, [1.0, 2.0, -3.0], 2), u), rtol=1e-11)


@pytest.mark.parametrize("noise", [-0.1, 1e3, float("nan"), float("inf"), "one"])
def test_bad_noise(noise):
    with pytest.raises(BadInput):
        Reverse(vp(), noise)


@pytest.mark.parametrize("times", [[1.0], [0.5, 0.5], [0.5, 0.6], [], [[1.0, 0.5]], [1.0, float("nan")]])
def test_bad_times(times):
    with pytest.raises(BadInput):
        Reverse(vp()).leg(times)
