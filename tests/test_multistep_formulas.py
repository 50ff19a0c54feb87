"""Multistep methods and correctors step by step: formulas as their papers print them, on VP and EDM, with a denoiser that is not affine."""

from itertools import pairwise
from math import factorial

import numpy as np
import pytest
from processes import edm, vp

from sdekit import grids, methods, plans
from sdekit.law import Mixture
from sdekit.noise import METHOD, Address, Addressed
from sdekit.plans import Run
from sdekit.solve import assemble, program, solve

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])
VP = vp()
TIMES = np.array([1.0, 0.75, 0.55, 0.45, 0.32, 0.25, 0.2])
m = methods

# ---------------------------------------------------------------------------------------------------------------- formulas on VP


def log_snr_rate(t):
    return 0.1 * t + 9.95 * t * t


def a(t):
    return np.exp(-0.5 * log_snr_rate(t))


def s(t):
    return np.sqrt(-np.expm1(-log_snr_rate(t)))


def rho(t):
    return s(t) / a(t)


def lam(t):
    return -np.log(rho(t))


def D(z, t):
    return LAW.denoiser()(z / a(t), rho(t))


def eps(z, t):
    return (z - a(t) * D(z, t)) / s(t)


def psi(k, z):
    """(e^z - 1) / z, (e^z - 1 - z) / z^2, ...: the series."""
    return float(sum(z**j / factorial(j + k) for j in range(40)))


def lagrange(j, nodes, u):
    return np.prod([(u - n) / (nodes[j] - n) for i, n in enumerate(nodes) if i != j], axis=0)


def gauss(f, low, high, n=40):
    x, w = np.polynomial.legendre.leggauss(n)
    return 0.5 * (high - low) * np.sum(w * f(low + 0.5 * (high - low) * (x + 1.0)))


def differences(f, u):
    """f0, f[01], f[012] of as many values as there are, newest first."""
    out = [f[0]]
    if len(f) > 1:
        out.append((f[0] - f[1]) / (u[0] - u[1]))
    if len(f) > 2:
        out.append((out[1] - (f[1] - f[2]) / (u[1] - u[2])) / (u[0] - u[2]))
    return out


def dpm(order, of, eta, rule):
    """2M with the midpoint coefficient, 3M with f[012] for f'': 4.0, 4.3 and 4.9."""

    def step(z, xi, i, past):
        t, end = TIMES[i], TIMES[i + 1]
        h, H = lam(end) - lam(t), (1.0 + eta) * (lam(end) - lam(t))
        f = [of(z, t), *past][:order]
        d = differences(f, [lam(r) for r in TIMES[i::-1][: len(f)]])
        if of is D:
            base, scale, w = s(end) / s(t) * np.exp(-eta * h) * z + s(end) * np.sqrt(-np.expm1(-2.0 * eta * h)) * xi, a(end) * (1.0 + eta), -H
        else:
            base, scale, w = a(end) / a(t) * z, -s(end), h
        if len(f) == 2 and rule == "midpoint":
            total = a(end) * -np.expm1(-H) if of is D else -s(end) * np.expm1(h)
            return base + total * (f[0] + 0.5 * h * d[1]), f
        derivatives = d if len(f) < 3 else [d[0], d[1] + (lam(t) - lam(TIMES[i - 1])) * d[2], d[2]]
        return base + scale * sum(h ** (k + 1) * psi(k + 1, w) * derivatives[k] for k in range(len(f))), f

    return step


def deis(order, clock):
    """C_j = a_t INT (drho/du) l_j(u) du over the step, in t, rho or lambda: 4.4."""
    u = {"time": lambda t: t, "sigma": rho, "log": lam}[clock]
    slope = {
        "time": lambda t: (0.1 + 19.9 * t) * np.exp(log_snr_rate(t)) / (2.0 * rho(t)),
        "sigma": np.ones_like,
        "log": lambda x: -np.exp(-x),
    }[clock]

    def step(z, xi, i, past):
        t, end = TIMES[i], TIMES[i + 1]
        f = [eps(z, t), *past][:order]
        nodes = [u(r) for r in TIMES[i::-1][: len(f)]]
        C = [a(end) * gauss(lambda x, j=j: slope(x) * lagrange(j, nodes, x), u(t), u(end)) for j in range(len(f))]
        return a(end) / a(t) * z + sum(c * e for c, e in zip(C, f, strict=True)), f

    return step


def er_sde(order, phi, released):
    """4.12 in rho, with quadrature that is good; D' is D[01] as published, or the derivative of the parabola."""

    def step(z, xi, i, past):
        t, end = TIMES[i], TIMES[i + 1]
        low, high, r = rho(end), rho(t), phi(rho(end)) / phi(rho(t))
        f = [D(z, t), *past][:order]
        q = [rho(x) for x in TIMES[i::-1][: len(f)]]
        d = differences(f, q)
        y = r * z / a(t) + (1.0 - r) * f[0] + np.sqrt(low**2 - (high * r) ** 2) * xi
        if len(f) > 1:
            D1 = d[1] + ((q[0] - q[1]) * d[2] if len(f) > 2 and not released else 0.0)
            y = y + (low - high + phi(low) * gauss(lambda x: 1.0 / phi(x), low, high)) * D1
        if len(f) > 2:
            y = y + (0.5 * (low - high) ** 2 + phi(low) * gauss(lambda x: (x - high) / phi(x), low, high)) * 2.0 * d[2]
        return a(end) * y, f

    return step


def one_step(step):
    """All steps with one call each; the answers are the memory."""

    def run(z, xi):
        past = []
        for i in range(len(TIMES) - 1):
            z, past = step(z, xi[i], i, past)
        return z

    return run


def unipc(p, of, kind):
    """4.6: the corrected state is kept, the model is asked at the predicted one; systems solved for rho_m."""

    def increment(x, i, fs, ahead):
        """From corrected ``x`` at TIMES[i] one step down; ``fs`` answers at TIMES[i], TIMES[i - 1], ...; ``ahead`` at the predicted point."""
        t, end = TIMES[i], TIMES[i + 1]
        h = lam(end) - lam(t)
        hh = -h if of is D else h
        B = hh if kind == "bh1" else np.expm1(hh)
        r = [(lam(TIMES[i - n]) - lam(t)) / h for n in range(1, len(fs))]
        d = [(f - fs[0]) / q for f, q in zip(fs[1:], r, strict=True)]
        if ahead is not None:
            r, d = [*r, 1.0], [*d, ahead - fs[0]]
        n = len(r)
        if n == 1:
            weights = [0.5]
        else:
            b = [factorial(k) * hh * psi(k + 1, hh) / B for k in range(1, n + 1)]
            weights = np.linalg.solve(np.array([[q ** (k - 1) for q in r] for k in range(1, n + 1)]), b) if n else []
        whole = s(end) / s(t) * x - a(end) * np.expm1(-h) * fs[0] if of is D else a(end) / a(t) * x - s(end) * np.expm1(h) * fs[0]
        return whole - (a(end) if of is D else s(end)) * B * sum(w * e for w, e in zip(weights, d, strict=True))

    def run(z, xi):
        x, fs = z, []
        for i in range(len(TIMES) - 1):
            new = of(z, TIMES[i])
            if i:
                x = increment(x, i - 1, fs[: min(p, i)], new)
            fs = [new, *fs]
            z = increment(x, i, fs[: min(p, i + 1)], None)
        return z

    return run


def sa_solver(P, C, tau, released=False):
    """4.11 with exact b_j, or the authors' second-order coefficients, which have h^2 / 2 and h / 2 for the linear moment; same xi twice."""

    def update(x, i, fs, times, xi):
        t, end = TIMES[i], TIMES[i + 1]
        h, square = lam(end) - lam(t), tau(0.5 * (t + end)) ** 2
        nodes = [lam(r) for r in times]
        weights = [
            s(end) * (1 + square) * gauss(lambda u, j=j: np.exp(-square * (lam(end) - u) + u) * lagrange(j, nodes, u), lam(t), lam(end))
            for j in range(len(fs))
        ]
        if released and len(fs) == 2:
            linear = (h * (1 + square) - 1 + np.exp(-(1 + square) * h)) / (1 + square) ** 2  # of e^{(1 + tau^2)(u - lam_t)} (u - lam_s)
            more = s(end) * (1 + square) * np.exp(lam(end)) * (0.5 * h * h - linear) / (nodes[0] - nodes[1])
            weights = [weights[0] + more, weights[1] - more]
        mean = s(end) / s(t) * np.exp(-square * h) * x + sum(w * f for w, f in zip(weights, fs, strict=True))
        return mean + s(end) * np.sqrt(-np.expm1(-2.0 * square * h)) * xi

    def run(z, xi):
        x, fs = z, []
        for i in range(len(TIMES) - 1):
            fs = [D(z, TIMES[i]), *fs]
            times = TIMES[i::-1]
            x = update(x, i - 1, fs[:C], times[:C], xi[i - 1]) if i and C else z
            z = update(x, i, fs[:P], times[:P], xi[i])
        return z

    return run


def authors_phi(q):
    return q * (np.exp(q**0.3) + 10.0)


BAND = {"low": float(rho(0.32)), "high": float(rho(0.75))}
FORMULAS = {
    "DPM-Solver++(2M)": (m.dpm_solver_pp_2m(), one_step(dpm(2, D, 0.0, "midpoint"))),
    "SDE-DPM-Solver++(2M)": (m.dpm_solver_pp_2m(noise=1.0), one_step(dpm(2, D, 1.0, "midpoint"))),
    "DPM-Solver(2M)": (m.exponential(2, of="eps", rule="midpoint"), one_step(dpm(2, eps, 0.0, "midpoint"))),
    "DPM-Solver++(3M) as released": (m.dpm_solver_pp_3m(), one_step(dpm(3, D, 0.0, "released"))),
    "SDE-DPM-Solver++(3M) as released": (m.dpm_solver_pp_3m(noise=1.0), one_step(dpm(3, D, 1.0, "released"))),
    "DPM-Solver(3M) as released": (m.exponential(3, of="eps", rule="released"), one_step(dpm(3, eps, 0.0, "released"))),
    **{f"DEIS {clock}AB-{q}": (m.deis(q, clock), one_step(deis(q, clock))) for clock in ("time", "sigma", "log") for q in (2, 3, 4)},
    **{f"UniPC-{p} {kind}": (m.unipc(p, rule=kind), unipc(p, D, kind)) for p in (1, 2, 3) for kind in ("bh1", "bh2")},
    **{f"UniPC-{p} {kind} eps": (m.unipc(p, of="eps", rule=kind), unipc(p, eps, kind)) for p in (1, 2, 3) for kind in ("bh1", "bh2")},
    **{f"SA P{P}C{C}": (m.sa_solver(P, C), sa_solver(P, C, lambda t: 1.0)) for P, C in ((1, 0), (2, 0), (1, 1), (2, 2), (3, 3), (2, 4), (4, 1))},
    "SA P3C3, tau = 0.6": (m.sa_solver(3, 3, tau=0.6), sa_solver(3, 3, lambda t: 0.6)),
    "SA P3C2, tau in a band": (m.sa_solver(3, 2, 0.8, **BAND), sa_solver(3, 2, lambda t: 0.8 * (0.32 < t < 0.75))),
    "SA P2C2 as released": (m.sa_solver(2, 2, rule="released"), sa_solver(2, 2, lambda t: 1.0, released=True)),
    "SA P3C3 as released": (m.sa_solver(3, 3, tau=0.6, rule="released"), sa_solver(3, 3, lambda t: 0.6, released=True)),
    **{f"ER-SDE-{q}": (m.er_sde(q), one_step(er_sde(q, authors_phi, False))) for q in (1, 2, 3)},
    **{f"ER-SDE-{q}, phi = q^2": (m.er_sde(q, 2.0), one_step(er_sde(q, np.square, False))) for q in (1, 2, 3)},
    "ER-SDE-2, phi = q^3": (m.er_sde(2, 3.0), one_step(er_sde(2, lambda q: q**3, False))),
    "ER-SDE-3 as released": (m.er_sde(3, rule="released"), one_step(er_sde(3, authors_phi, True))),
    "ER-SDE-3 as released, phi = q": (m.er_sde(3, 1.0, rule="released"), one_step(er_sde(3, lambda q: q, True))),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name):
    method, by_hand = FORMULAS[name]
    z = np.random.default_rng(2).normal(size=(6, 2))
    xi = Addressed(5).draw([Address(METHOD, 0, i, 0) for i in range(len(TIMES) - 1)], np.arange(6), (2,))
    made, _ = solve(program(VP, plans.run(grids.times(TIMES), method)), [z], LAW.denoiser(), Addressed(5))
    expected = by_hand(z, xi)
    np.testing.assert_allclose(made[0], expected, atol=1e-10 * np.max(np.abs(expected)))


def unip(p, kind):
    """UniP-p without its corrector, by hand on VP: 4.6."""
    return one_step(lambda z, xi, i, past: _unip_step(p, kind, z, i, past))


def _unip_step(p, kind, z, i, past):
    t, end = TIMES[i], TIMES[i + 1]
    h = lam(end) - lam(t)
    f = [D(z, t), *past][:p]
    r = [(lam(TIMES[i - n]) - lam(t)) / h for n in range(1, len(f))]
    B = np.expm1(-h) if kind == "bh2" else -h
    b = [factorial(k) * -h * psi(k + 1, -h) / B for k in range(1, len(r) + 1)]
    weights = [0.5] if len(r) == 1 else np.linalg.solve([[q ** (k - 1) for q in r] for k in range(1, len(r) + 1)], b) if r else []
    change = sum(w * (g - f[0]) / q for w, g, q in zip(weights, f[1:], r, strict=True))
    return s(end) / s(t) * z - a(end) * np.expm1(-h) * f[0] - a(end) * B * change, f


def test_unip_is_dpm_solver_pp():
    """UniP-2/B2 = 2M midpoint; UniP-3 = corrected 3M whatever B is, after the same first steps."""
    z, grid = np.random.default_rng(3).normal(size=(6, 2)), grids.times(TIMES)
    made, _ = solve(program(VP, plans.run(grid, m.dpm_solver_pp_2m())), [z], LAW.denoiser())
    np.testing.assert_allclose(made[0], unip(2, "bh2")(z, np.zeros(6)), atol=1e-11)
    # the published second step of UniP-3 has rho = 1/2: compare the last steps, from one history
    saved = solve(program(VP, plans.run(grid, m.exponential(3))), [z], LAW.denoiser(), save="all")[1].x
    for kind in ("bh1", "bh2"):
        for i in range(2, 6):
            past = [D(saved[i - n], TIMES[i - n]) for n in (1, 2)]
            np.testing.assert_allclose(_unip_step(3, kind, saved[i], i, past)[0], saved[i + 1], atol=1e-11)


def test_unic_1_is_the_trapezium():
    """UniC-1(B2) = (s_t / s_s) x + a_t (1 - e^{-h}) (D_s + D_t) / 2: read off a two-step run whose second step is DDIM."""
    z, (t, mid, end) = np.random.default_rng(4).normal(size=(6, 2)), (0.8, 0.6, 0.5)
    predicted = s(mid) / s(t) * (z - a(t) * D(z, t)) + a(mid) * D(z, t)
    corrected = s(mid) / s(t) * z + a(mid) * (1.0 - rho(mid) / rho(t)) * 0.5 * (D(z, t) + D(predicted, mid))
    expected = s(end) / s(mid) * corrected + a(end) * (1.0 - rho(end) / rho(mid)) * D(predicted, mid)
    made, _ = solve(assemble(VP, [Run(m.unipc(1), (t, mid, end))]), [z], LAW.denoiser())
    np.testing.assert_allclose(made[0], expected, atol=1e-12)


def test_lms_by_four_gauss_points():
    """k-diffusion's LMS on EDM, min(i + 1, 4) nodes in sigma: the integrands are cubic, so that four Gauss points are exact."""
    sigma = np.array([20.0, 11.0, 6.0, 2.0, 1.0, 0.6, 0.2])
    x = start = 20.0 * np.random.default_rng(1).normal(size=(5, 2))
    slopes = []
    for i, (high, low) in enumerate(pairwise(sigma)):
        slopes = [(x - LAW.denoiser()(x, float(high))) / high, *slopes][:4]
        nodes = sigma[i::-1][: len(slopes)]
        x = x + sum(gauss(lambda q, j=j, nodes=nodes: lagrange(j, nodes, q), high, low, 4) * d for j, d in enumerate(slopes))
    made, _ = solve(program(edm(), plans.run(grids.sigmas(sigma), m.lms())), [start], LAW.denoiser())
    np.testing.assert_allclose(made[0], x, atol=1e-11)
