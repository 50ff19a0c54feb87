"""Noise levels that depend on sigma_eff, smooth and with jumps: propagators, noise and weights against DOP853; exact laws; orders."""

from itertools import pairwise

import numpy as np
import pytest
from processes import cld, dense_drift, dense_kernel, edm, psld, vp
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from sdekit import BadInput, Reverse, analysis, grids, methods, plans
from sdekit.law import Gaussian
from sdekit.methods.corrector import Between
from sdekit.methods.exponential import extended
from sdekit.record import to_record
from sdekit.reverse import CLOCKS
from sdekit.solve import program


def hill(sigma):
    return 0.2 + 1.3 * sigma / (1.0 + sigma * sigma)


LEVELS = {"hill": hill, "ER-SDE": extended, "jumps": Between(1.2, 0.35, 2.0)}
TIMES = {"vp": (vp, [0.8, 0.6, 0.45, 0.15]), "cld": (cld, [0.9, 0.6, 0.5, 0.25])}
by_process = pytest.mark.parametrize("name", TIMES)
by_level = pytest.mark.parametrize("level", LEVELS)


def integrated(slope, start, process, noise, ends):
    """``slope(r, X)`` from ``ends[0]`` to ``ends[1]`` by DOP853, piece by piece between the jumps of the noise level."""
    cuts = [float(process.time_of(b)) for b in getattr(noise, "breaks", ())]
    low, high = min(ends), max(ends)
    stops = sorted({low, high, *(c for c in cuts if low < c < high)}, reverse=ends[0] > ends[1])
    X = start
    for a, b in pairwise(stops):
        # the level is read strictly inside the piece, so that its value at the jump does not matter
        inside = (min(a, b) + 1e-12 * (high - low), max(a, b) - 1e-12 * (high - low))

        def flat(r, v, inside=inside):
            return slope(float(np.clip(r, *inside)), v.reshape(start.shape)).ravel()

        X = solve_ivp(flat, (a, b), X.ravel(), method="DOP853", rtol=1e-10, atol=1e-13).y[:, -1].reshape(start.shape)
    return X


def level_at(process, noise, r):
    psi, S = dense_kernel(process, r)
    sigma = (psi @ np.linalg.solve(S, psi)) ** -0.5
    return float(noise(np.asarray(sigma))), sigma, psi, S


def close(found, ref, tolerance):
    np.testing.assert_allclose(found, ref, rtol=0.0, atol=tolerance * np.max(np.abs(ref)))


@by_level
@by_process
def test_step_of_the_reverse_equation(name, level):
    """Gain, covariance of the noise, and weights of data that are 1, u and u^2 in each clock, integrated together from t down to s."""
    (make, times), noise = TIMES[name], LEVELS[level]
    process = make()
    leg = Reverse(process, noise).leg(times)
    t, s, k = times[-2], times[-1], process.k
    flow, GG = leg.flows[-1], process.G @ process.G.T

    def slope(r, X):
        """X = [Phi(r, t), covariance, seven integrals of the data]: all obey the equation from t down to r."""
        lam, sigma, psi, S = level_at(process, noise, r)
        rate = float(process.clock.rate(r))
        A = dense_drift(process, lam, r)
        pull = -0.5 * (1.0 + lam**2) * rate * GG @ np.linalg.solve(S, psi)
        u = [1.0, *(float(on(np.asarray(r), np.asarray(sigma))) ** p for on in CLOCKS.values() for p in (1, 2))]
        P = X[:, k : 2 * k]
        dP = A @ P + P @ A.T - lam**2 * rate * GG
        return np.concatenate([A @ X[:, :k], dP, A @ X[:, 2 * k :] + np.outer(pull, u)], axis=1)

    start = np.concatenate([np.eye(k), np.zeros((k, k + 7))], axis=1)
    found = integrated(slope, start, process, noise, (t, s))
    close(flow.gain, found[:, :k], 1e-8)
    close(flow.chol @ flow.chol.T, found[:, k : 2 * k], 1e-8)
    for j, clock in enumerate(CLOCKS):
        nodes = np.array([leg.points[i].on(clock) for i in (2, 1, 0)])
        w = flow.weights(list(nodes), clock)
        close(w.sum(axis=0), found[:, 2 * k], 1e-8)
        for p in (1, 2):
            close(w.T @ nodes**p, found[:, 2 * k + 2 * j + p], 1e-8)


@by_level
@by_process
def test_step_in_eps(name, level):
    """z = e^{F B} y: the weights of eps that is 1 or u, and the noise, integrated in the unit of the forward mean."""
    (make, times), noise = TIMES[name], LEVELS[level]
    process = make()
    leg = Reverse(process, noise).leg(times)
    t, s, k = times[-2], times[-1], process.k
    flow, GG = leg.epsilon_flows[-1], process.G @ process.G.T
    bottom = float(process.clock.integral(s))

    def slope(r, X):
        """X = [R_r, covariance at s, integral of eps, integral of u eps], from s up to t; R' = A(ODE) R."""
        lam, sigma, _, _ = level_at(process, noise, r)
        rate = float(process.clock.rate(r))
        back = expm(-process.F * (float(process.clock.integral(r)) - bottom))
        w = -0.5 * (1.0 + lam**2) * rate * back @ GG @ np.linalg.inv(X[:, :k]).T
        noisy = lam**2 * rate * back @ GG @ back.T
        return np.concatenate([dense_drift(process, 0.0, r) @ X[:, :k], noisy, w, -np.log(sigma) * w], axis=1)

    start = np.concatenate([leg.roots[-1], np.zeros((k, 3 * k))], axis=1)
    found = integrated(slope, start, process, noise, (s, t))
    nodes = [leg.points[i].u for i in (2, 1)]
    w = flow.weights(nodes)
    close(found[:, :k], leg.roots[-2], 1e-8)
    close(flow.chol @ flow.chol.T, found[:, k : 2 * k], 1e-8)
    close(w.sum(axis=0), found[:, 2 * k : 3 * k], 1e-8)
    close(np.tensordot(nodes, w, axes=1), found[:, 3 * k :], 1e-8)


@by_level
@by_process
def test_true_score(name, level):
    """With the score of N(0, v) data: the propagator by DOP853, and the marginals are kept exactly by gain and noise together."""
    (make, times), noise = TIMES[name], LEVELS[level]
    process, (t, s) = make(), (times[0], times[-1])
    way, v = Reverse(process, noise).propagate([s], [t], 0.1), 0.1
    gain = integrated(lambda r, X: dense_drift(process, level_at(process, noise, r)[0], r, v) @ X, np.eye(process.k), process, noise, (t, s))
    close(way.gain[0], gain, 1e-8)
    low, high = (v * np.outer(psi, psi) + S for psi, S in (dense_kernel(process, r) for r in (s, t)))
    scale = np.sqrt(np.diag(low))
    kept = way.gain[0] @ high @ way.gain[0].T + way.chol[0] @ way.chol[0].T
    np.testing.assert_allclose((kept - low) / np.outer(scale, scale), 0.0, atol=1e-10)


@by_process
def test_point(name):
    """Drift and noise at a time take the level there."""
    make, times = TIMES[name]
    process = make()
    point = Reverse(process, hill).leg(times).points[1]
    lam = float(hill(process.sigma_eff(times[1])))
    rate = float(process.clock.rate(times[1]))
    close(point.pull, 0.5 * (1.0 + lam**2) * rate * process.G @ process.G.T, 1e-13)
    close(point.noise, lam * np.sqrt(rate) * process.G, 1e-13)


@pytest.mark.parametrize("ends", [(5.0, 0.2), (2.01, 0.349)], ids=["far", "near"])
@by_process
def test_a_jump_where_two_steps_meet(name, ends):
    """Where the jumps are times of the grid, each step is that of a constant level; where they are not, steps compose to the same law."""
    process = TIMES[name][0]()
    noise = Between(1.2, 0.35, 2.0)
    edges = process.time_of([ends[0], 2.0, 0.35, ends[1]])
    jumping = Reverse(process, noise).leg(edges)
    for i, lam in enumerate((0.0, 1.2, 0.0)):
        plain = Reverse(process, lam).leg(edges)
        close(jumping.flows[i].gain, plain.flows[i].gain, 1e-12)
        close(jumping.epsilon_flows[i].pull.sum(axis=0), plain.epsilon_flows[i].pull.sum(axis=0), 1e-11)
        np.testing.assert_allclose(jumping.flows[i].chol, plain.flows[i].chol, atol=1e-12)
    whole = Reverse(process, noise).leg(edges[[0, 3]]).flows[0]
    parts = jumping.flows[0].then(jumping.flows[1]).then(jumping.flows[2])
    close(whole.gain, parts.gain, 1e-11)
    close(whole.chol @ whole.chol.T, parts.chol @ parts.chol.T, 1e-11)
    close(whole.weights([1.0, 0.0]), parts.weights([1.0, 0.0]), 1e-11)


@by_level
@pytest.mark.parametrize("make", [vp, psld], ids=lambda m: m.__name__)
def test_weak_order(make, level):
    """Mean and covariance against the exact reverse equation with the same noise level; a jump may fall anywhere in its step."""
    for order, clock in ((1, "log"), (2, "sigma")):
        report = analysis.order(methods.exponential(order, noise=LEVELS[level], clock=clock), make(), steps=(40, 80, 160, 320))
        assert report.kind == "weak"
        assert np.log(report.errors[0] / report.errors[-1]) / np.log(8.0) == pytest.approx(order, abs=0.08), f"{report} {report.slopes}"


def test_exact_law_by_hand():
    """Scalar recursion on EDM for ER-SDE-1, x' = r x + (1 - r) D + sqrt(s'^2 - s^2 r^2) xi with r = phi(s') / phi(s)."""
    levels = np.array([20.0, 6.0, 2.0, 0.7, 0.3, 0.1])
    mean, variance = 0.3, 0.25
    m, P = 0.0, levels[0] ** 2
    for high, low in pairwise(levels):
        r = low * (np.exp(low**0.3) + 10.0) / (high * (np.exp(high**0.3) + 10.0))
        shrink = variance / (variance + high**2)
        a = r + (1.0 - r) * shrink
        m, P = a * m + (1.0 - r) * (1.0 - shrink) * mean, a * a * P + low**2 - (high * r) ** 2
    found = analysis.exact_law(edm(), method=methods.er_sde(1), grid=grids.sigmas(levels), data=Gaussian(mean, variance))
    assert float(found.mean) == pytest.approx(m, rel=1e-11)
    assert float(found.cov) == pytest.approx(P, rel=1e-11)


def test_levels_are_values():
    """Equal levels make equal methods and share programs; they are not written into records as code."""
    one, two = (methods.exponential(2, noise=Between(1.0, 0.1, 2.0)) for _ in range(2))
    assert one == two
    assert one != methods.exponential(2, noise=Between(1.0, 0.1, 3.0))
    assert program(vp(), plans.run(grids.karras(4), one)) is program(vp(), plans.run(grids.karras(4), two))
    with pytest.raises(BadInput, match="user's own"):
        to_record(one)
