"""Forward simulation: orders against exact paths and exact semigroups, and the bias of Euler-Maruyama."""

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
import sympy as sp
from equations import PLANE, J, declared, p, x
from numpy.polynomial.hermite_e import hermegauss
from scipy.linalg import expm, solve_discrete_lyapunov

import sdekit as sk
from sdekit import BadInput, Process, Recipe, clocks, law
from sdekit.equation import CLASSES, SDE
from sdekit.noise import PATH, Address, Addressed
from sdekit.simulation import METHODS, Span, Stepper, simulate, step

CLAIMS = [(name, noise) for name, method in METHODS.items() for noise in method.strong]


# one step


def affine(source, t, s, method):
    """The exact map z -> A z + N xi of a step with additive noise and linear drift, from basis vectors."""
    sde = SDE.of(source)
    h = float(sde.clock.integral(s) - sde.clock.integral(t))
    q = sde.noise(np.zeros((sde.k, 1)), t).shape[1]
    A = step(source, np.eye(sde.k), t, s, np.zeros((q, sde.k)), np.zeros((q, sde.k)), method=method)
    none = np.zeros((sde.k, q))
    one, two = np.sqrt(h) * np.eye(q), np.zeros((q, q))
    area = [(one, 0.5 * h * one), (two, 0.5 * h * np.sqrt(h / 3.0) * np.eye(q))]
    return A, np.hstack([step(source, none, t, s, dW, dZ, method=method) for dW, dZ in area])


def test_forward_bias_of_euler_maruyama():
    # case 13
    A, N = affine(Process([[-0.5]], [[1.0]]), 0.0, 0.1, "euler_maruyama")
    assert solve_discrete_lyapunov(A, N @ N.T)[0, 0] == pytest.approx(1.0 / (1.0 - 0.1 / 4.0), rel=1e-12)
    A, N = affine(sk.catalogue.psld(Gamma=0.01), 0.0, 0.01, "euler_maruyama")
    P = solve_discrete_lyapunov(A, N @ N.T)
    np.testing.assert_allclose(P[[0, 0, 1], [0, 1, 1]], [1.04347728, -0.02250721, 0.28257975], atol=6e-9)
    assert np.max(np.abs(np.linalg.eigvals(A))) == pytest.approx(0.9196, abs=1e-12)


def test_linear_maps_of_the_methods():
    F, h = np.array([[-0.3, 2.0], [-1.0, -1.5]]), 0.2
    process, eye = Process(F, np.diag([0.0, 1.3]), clock=clocks.constant(2.0)), np.eye(2)
    G, Z = h * F, np.linalg.inv
    maps = {
        "euler_maruyama": eye + G, "milstein": eye + G, "heun": eye + G + G @ G / 2, "sra1": eye + G + G @ G / 2,
        "trapezoidal": Z(eye - G / 2) @ (eye + G / 2), "implicit_euler": Z(eye - G),
    }  # fmt: skip
    noises = {"heun": eye + G / 2, "trapezoidal": Z(eye - G / 2), "implicit_euler": Z(eye - G)}
    for method, expected in maps.items():
        A, N = affine(process, 0.0, h / 2, method)
        np.testing.assert_allclose(A, expected, rtol=1e-12, atol=1e-15)
        if method != "sra1":
            np.testing.assert_allclose(N[:, 0], noises.get(method, eye) @ [0.0, 1.3 * np.sqrt(h)], rtol=1e-12, atol=1e-15)


def test_stages_read_the_clock():
    # f = G = B(t) from B = 0: the exact values are h^2/2 and int B dW = h dW - dZ; B(t) = t + t^2 here
    clock = clocks.linear(1.0, 3.0)

    def field(shape):
        return lambda z, t: np.full((*shape, *z.shape[1:]), float(clock.integral(t)))

    dW, dZ, h = np.array([[0.7, -0.2]]), np.array([[0.05, 0.3]]), float(clock.integral(0.4))
    for method, noise in (("sra1", "additive"), ("sri", "diagonal")):
        sde = SDE(1, field((1,)), field((1, 1)), noise, clock=clock)
        np.testing.assert_allclose(step(sde, np.zeros((1, 2)), 0.0, 0.4, dW, dZ, method=method), h**2 / 2 + h * dW - dZ, rtol=1e-13)
    sde = SDE(1, field((1,)), field((1, 1)), "additive", jacobian=lambda z, t: np.zeros((1, 1, *z.shape[1:])), clock=clock)
    for method, part, gain in (("euler_maruyama", 0.0, 0.0), ("heun", 0.5, 0.5), ("trapezoidal", 0.5, 0.0), ("implicit_euler", 1.0, 0.0)):
        found = step(sde, np.zeros((1, 2)), 0.0, 0.4, dW, method=method)
        np.testing.assert_allclose(found, part * h**2 + gain * h * dW, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("method", "theta"), [("trapezoidal", 0.5), ("implicit_euler", 1.0)])
def test_implicit_steps_solve_their_equation(method, theta):
    recipe = Recipe((x, p), H=x**4 / 4 + p**2 / 2, D=sp.diag(0, 1), Q=J)
    z, dW, h = np.array([[1.5, -2.0], [0.4, 3.0]]), np.array([[0.3, -0.8]]), 0.3
    new = step(recipe, z, 0.0, h, dW, method=method)

    def f(z):
        return np.stack([z[1], -z[1] - z[0] ** 3])

    np.testing.assert_allclose(new, z + h * ((1 - theta) * f(z) + theta * f(new)) + np.sqrt(2) * np.stack([0 * dW[0], dW[0]]), rtol=1e-12)


def test_implicit_step_without_solution_says_so():
    recipe = declared((x,), [x**2], [[1]])  # y = 1 + y^2 has no real solution
    with pytest.raises(ArithmeticError, match="Newton did not converge"):
        step(recipe, np.array([[1.0]]), 0.0, 1.0, np.zeros((1, 1)), method="implicit_euler")


# strong orders


def slope(levels, errors):
    return -np.polyfit(np.log2(levels), np.log2(errors), 1)[0]


@pytest.mark.parametrize("method", [name for name, noise in CLAIMS if noise == "additive"])
def test_strong_order_on_ornstein_uhlenbeck_exactly(method):
    # The error z - X is Gaussian.  Its variance by recursion over (z, X), driven by (dW, dZ, int e^{-(h-u)} dW_u): no Monte Carlo.
    process = Process([[-1.0]], [[1.0]], clock=clocks.linear(1.0, 3.0))
    levels, errors, one, nil = [32, 64, 128, 256], [], [[1.0]], [[0.0]]
    for N in levels:
        P = np.ones((2, 2))
        for t, s in pairwise(np.linspace(0.0, 1.0, N + 1)):
            h = float(process.clock.integral(s) - process.clock.integral(t))
            R, a, b = (step(process, z, t, s, dW, dZ, method=method)[0, 0] for z, dW, dZ in ((one, nil, nil), (nil, one, nil), (nil, nil, one)))
            E = np.exp(-h)
            C = np.array([[h, h**2 / 2, 1 - E], [h**2 / 2, h**3 / 3, 1 - (1 + h) * E], [1 - E, 1 - (1 + h) * E, (1 - E**2) / 2]])
            M, gain = np.diag([R, E]), np.array([[a, b, 0.0], [0.0, 0.0, 1.0]])
            P = M @ P @ M.T + gain @ C @ gain.T
        errors.append(np.sqrt(P[0, 0] - 2 * P[0, 1] + P[1, 1]))
    # on a linear drift SRA1 gains half an order: what limits it to 1.5 is the curvature of the drift
    assert slope(levels, errors) == pytest.approx(2.0 if method == "sra1" else METHODS[method].strong["additive"], abs=0.04)


def coarsened(dW, dZ, h, N):
    """Increments and areas of ``N`` steps from those of finer ones of length ``h``."""
    w, a = dW.reshape(N, -1, *dW.shape[1:]), dZ.reshape(N, -1, *dZ.shape[1:])
    return w.sum(1), (a + h * (np.cumsum(w, 1) - w)).sum(1)


def fine_path(steps, q, n, T=1.0, seed=0):
    h, rng = T / steps, np.random.default_rng(seed)
    dW = np.sqrt(h) * rng.standard_normal((steps, q, n))
    return dW, 0.5 * h * (dW + np.sqrt(h / 3.0) * rng.standard_normal((steps, q, n))), h


def follow(source, z, path, N, method, T=1.0):
    for i, (w, a) in enumerate(zip(*coarsened(*path, N), strict=True)):
        z = step(source, z, i * T / N, (i + 1) * T / N, w, a, method=method)
    return z


def test_coarse_increments_have_their_law():
    dW, dZ = coarsened(*fine_path(64, 1, 40_000), 4)
    h, n = 0.25, dW.size
    for found, expected in (((dW**2), h), ((dZ**2), h**3 / 3), ((dW * dZ), h**2 / 2)):
        assert abs(found.mean() - expected) < 5.0 * found.std() / np.sqrt(n)


@pytest.mark.parametrize("method", [name for name, noise in CLAIMS if noise == "diagonal"])
def test_strong_order_on_geometric_brownian_motion(method):
    mu, sigma, levels = 0.4, 0.8, [16, 32, 64, 128]
    sde, path = SDE.of(declared((x,), [x * 2 / 5], [[x * 4 / 5]])), fine_path(128, 1, 4000)
    exact = np.exp((mu - sigma**2 / 2) + sigma * path[0].sum(0))  # the path of the Ito equation
    errors = [np.sqrt(np.mean((follow(sde, np.ones((1, 4000)), path, N, method) - exact) ** 2)) for N in levels]
    assert slope(levels, errors) == pytest.approx(METHODS[method].strong["diagonal"], abs=0.12)


REFERENCE = {"additive": "sra1", "diagonal": "sri", "commutative": "milstein", "general": "euler_maruyama"}


@pytest.mark.parametrize("noise", CLASSES)
def test_strong_order_on_coupled_paths(noise):
    sde, n, levels = SDE.of(PLANE[noise]), 600, [16, 32, 64]
    assert sde.noise_class == noise
    path = fine_path(1024, len(sde.symbols[2][0, :]), n)
    exact = follow(sde, np.full((2, n), 0.3), path, 1024, REFERENCE[noise])
    for method, claim in METHODS.items():
        if noise in claim.strong:
            errors = [np.sqrt(np.mean((follow(sde, np.full((2, n), 0.3), path, N, method) - exact) ** 2)) for N in levels]
            assert slope(levels, errors) == pytest.approx(claim.strong[noise], abs=0.12), (method, errors)


# weak orders: the transition matrix of a step in Fourier modes against the semigroup of the generator; no Monte Carlo


def modes(points, m):
    """Trigonometric interpolation from ``m`` (odd) equidistant nodes to points, one matrix row for each."""
    grid, freq = 2 * np.pi * np.arange(m) / m, np.fft.fftfreq(m, 1.0 / m)
    return np.real(np.exp(1j * np.multiply.outer(points, freq)) @ np.exp(-1j * np.outer(freq, grid))) / m


def weak_errors(recipe, method, levels, m, nodes=8, T=0.5):
    sde = SDE.of(recipe)
    k, grid, freq = sde.k, 2 * np.pi * np.arange(m) / m, np.fft.fftfreq(m, 1.0 / m)
    z = np.stack([part.ravel() for part in np.meshgrid(*[grid] * k, indexing="ij")])
    line = np.real(np.fft.ifft(1j * freq[:, None] * np.fft.fft(np.eye(m), axis=0), axis=0))
    slopes = [reduce(np.kron, [line if i == j else np.eye(m) for j in range(k)]) for i in range(k)]
    f, G = sde.drift(z, 0.0), sde.noise(z, 0.0)
    D = 0.5 * np.einsum("iqn,jqn->ijn", G, G)
    L = sum(f[i][:, None] * slopes[i] for i in range(k)) + sum(D[i, j][:, None] * slopes[i] @ slopes[j] for i in range(k) for j in range(k))
    u = np.cos(z[0]) + np.sin(2 * z[-1]) + np.cos(z[0] - z[-1])
    exact = expm(L * T) @ u
    q = G.shape[1]
    at, weight = hermegauss(nodes)
    count = 2 * q if METHODS[method].area else q
    normals = np.stack([part.ravel() for part in np.meshgrid(*[at] * count, indexing="ij")])
    weights = reduce(np.multiply.outer, [weight / np.sqrt(2 * np.pi)] * count).ravel()
    errors = []
    for N in levels:
        h = T / N
        P = np.zeros((m**k, m**k))
        for xi_, w in zip(normals.T, weights, strict=True):
            dW = np.sqrt(h) * np.repeat(xi_[:q, None], m**k, axis=1)
            dZ = 0.5 * h * (dW + np.sqrt(h / 3.0) * xi_[q:, None]) if count > q else None
            new = step(sde, z, 0.0, h, dW, dZ, method=method)
            rows = [modes(block, m) for block in new]
            P += w * reduce(lambda a, b: np.einsum("na,nb->nab", a, b).reshape(len(a), -1), rows)
        errors.append(np.max(np.abs(np.linalg.matrix_power(P, N) @ u - exact)))
    return errors


CIRCLE = {
    "additive": declared((x,), [sp.sin(x) + sp.cos(2 * x) / 2], [[sp.Rational(7, 10)]]),
    "diagonal": declared((x,), [sp.sin(x) + sp.cos(2 * x) / 2], [[1 + sp.cos(x) / 2]]),
}


@pytest.mark.parametrize(("method", "noise"), CLAIMS)
def test_weak_order_exactly(method, noise):
    far = method == "sri"  # its order shows late: 1.9 at first
    levels = [256, 512, 1024] if far else [16, 32, 64] if noise in CIRCLE else [16, 32]
    errors = weak_errors(CIRCLE[noise], method, levels, 41, 12) if noise in CIRCLE else weak_errors(PLANE[noise], method, levels, 15, 6)
    assert slope(levels, errors) == pytest.approx(METHODS[method].weak[noise], abs=0.08), errors


# whole runs


def recorder(seen, area):
    def advance(sde, z, span, dW, dZ):
        seen.append((span, dW, dZ))
        return z + span.h * sde.drift(z, span.t) + np.einsum("ij...,j...->i...", sde.noise(z, span.t), dW)

    return Stepper("recorder", advance, dict.fromkeys(CLASSES, 0.5), {}, "this test", area=area)


def test_increments_of_a_run():
    process, seen, n, times = Process([[-1.0]], [[1.0]], clock=clocks.linear(1.0, 9.0)), [], 20_000, [0.0, 0.1, 0.4, 1.0]
    simulate(process, start={"x": 0.0}, n=n, times=times, method=recorder(seen, True), seed=3)
    assert [span.h for span, _, _ in seen] == pytest.approx(np.diff(np.array(times) + 4.0 * np.array(times) ** 2), rel=1e-14)
    assert [(span.t, span.s) for span, _, _ in seen] == [(0.0, 0.1), (0.1, 0.4), (0.4, 1.0)]
    for i, (span, dW, dZ) in enumerate(seen):
        h = span.h
        xi_ = Addressed(3).draw([Address(PATH, 0, i, 0)], np.arange(n), ())
        np.testing.assert_array_equal(dW, np.sqrt(h) * xi_)
        for found, expected in (((dW**2), h), ((dZ**2), h**3 / 3), ((dW * dZ), h**2 / 2), (dW, 0.0), (dZ, 0.0)):
            assert abs(found.mean() - expected) < 5.0 * found.std() / np.sqrt(n)
    first, second = seen[0][1].ravel(), seen[1][1].ravel()
    assert abs(np.mean(first * second)) < 5.0 * np.sqrt(seen[0][0].h * seen[1][0].h / n)


def test_a_run_is_its_steps(monkeypatch):
    recipe = PLANE["general"]
    start = np.random.default_rng(4).normal(size=(2, 6, 2, 3))
    times, seen = np.linspace(0.0, 0.7, 8), []
    z = start
    simulate(recipe, start=start, times=times, method=recorder(seen, False), seed=9)
    for (t, s), (_, dW, _) in zip(pairwise(times), seen, strict=True):
        z = step(recipe, z, t, s, dW, method="heun")
    runs = simulate(recipe, start=start, times=times, method="heun", seed=9, save=[0.0, 0.3, 0.7])
    np.testing.assert_allclose(runs.z, z, rtol=1e-13)  # all methods get the same path
    np.testing.assert_array_equal(runs.times, times)
    np.testing.assert_allclose(runs.saved.times, [0.0, 0.3, 0.7], rtol=1e-12)
    np.testing.assert_array_equal(runs.saved.state[0], start)
    np.testing.assert_array_equal(runs.saved.state[2], runs.z)
    assert runs.status == ("ok",) * 6
    middle = simulate(recipe, start=start, times=times[:4], method="heun", seed=9).z
    np.testing.assert_array_equal(runs.saved.state[1], middle)
    fewer = simulate(recipe, start=start[:, :2], times=times, method="heun", seed=9).z
    np.testing.assert_array_equal(fewer, runs.z[:, :2])  # a sample does not depend on its batch
    assert np.max(np.abs(simulate(recipe, start=start, times=times, method="heun", seed=8).z - runs.z)) > 0.1
    monkeypatch.setitem(simulate.__globals__, "_AHEAD", 150)
    np.testing.assert_array_equal(simulate(recipe, start=start, times=times, method="heun", seed=9).z, runs.z)


def test_mean_of_a_run_follows_the_clock():
    # without noise the run is the product of (1 - dB), exactly
    sde = SDE(1, lambda z, t: -z, lambda z, t: np.zeros((1, 1, *z.shape[1:])), "additive", clock=clocks.cosine())
    times = np.linspace(0.0, 0.9, 10)
    z = simulate(sde, start={"z0": 2.0}, n=4, times=times).z
    np.testing.assert_allclose(z[0], 2.0 * np.prod(1.0 - np.diff(sde.clock.integral(times))), rtol=1e-12)


def test_starts():
    recipe = Recipe((x, p), H=x**2 / 2 + p**2, D=sp.diag(0, 1), Q=J, initial={p: 0.09})
    times, n = [0.0, 1e-9], 20_000
    z = simulate(recipe, start=law.Gaussian([1.0, -2.0], 0.25), n=n, times=times).z
    assert z.shape == (2, n, 2)
    se = 5.0 / np.sqrt(n)
    np.testing.assert_allclose(z.mean(1), [[1.0, -2.0], [0.0, 0.0]], atol=0.5 * se)
    np.testing.assert_allclose(z.var(1), [[0.25, 0.25], [0.09, 0.09]], atol=0.25 * 1.5 * se)
    assert abs(np.mean(z[0, :, 0] * z[1, :, 0])) < 0.15 * se
    full = Process([[-1.0, 1.0], [-1.0, -1.0]], [[0.0], [1.0]], [[0.04, 0.03], [0.03, 0.09]])
    z = simulate(full, start=law.Gaussian([0.0], 0.0), n=n, times=times).z[..., 0]
    np.testing.assert_allclose(np.cov(z), [[0.04, 0.03], [0.03, 0.09]], atol=0.09 * 1.5 * se)
    np.testing.assert_allclose(simulate(recipe, start={x: np.arange(3.0), "p": 5.0}, times=times).z, [[0, 1, 2], [5, 5, 5]], atol=1e-3)


def test_what_overflows_is_named_and_disturbs_no_one():
    recipe = declared((x,), [x**3], [[sp.Rational(1, 10)]])
    start = np.array([[0.1, 50.0, -0.2]])
    run = simulate(recipe, start=start, times=np.linspace(0.0, 1.0, 21))
    assert run.status == ("ok", "nonfinite", "ok")
    calm = simulate(recipe, start=np.array([[0.1, 0.0, -0.2]]), times=np.linspace(0.0, 1.0, 21))
    np.testing.assert_array_equal(run.z[:, [0, 2]], calm.z[:, [0, 2]])


def test_implicit_methods_are_stable_where_explicit_ones_are_not():
    stiff, times = declared((x,), [-1000 * x], [[1]]), np.linspace(0.0, 10.0, 101)
    assert simulate(stiff, start={"x": 1.0}, n=1, times=times).z[0, 0] > 1e100
    z = simulate(stiff, start={"x": 1.0}, n=4000, times=times, method="implicit_euler").z
    h = 0.1  # stationary variance h / ((1 + 1000 h)^2 - 1)
    assert z.var() == pytest.approx(h / ((1.0 + 1000.0 * h) ** 2 - 1.0), rel=5.0 * np.sqrt(2.0 / 4000))


# errors that teach

SCALAR = Recipe((x,), H=x**2 / 2, D=[[1]], Q=[[0]])
GO = {"start": np.zeros((1, 3)), "times": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("source", "change", "text"),
    [
        (SCALAR, {"method": "milstien"}, "did you mean 'milstein'"),
        (PLANE["general"], {"method": "milstein"}, "milstein is for additive or diagonal or commutative noise, and this noise is general"),
        (PLANE["diagonal"], {"method": "sra1"}, "noise is diagonal; use euler_maruyama, milstein"),
        (PLANE["additive"], {"method": "sri"}, "this noise is additive"),
        (SCALAR, {"times": [0.0, 1.0, 1.0]}, "increase"),
        (SCALAR, {"times": [0.0]}, "at least two"),
        (Process([[-0.5]], [[1.0]], clock=clocks.cosine()), {"times": [0.0, 1.0]}, "span of the clock"),
        (SCALAR, {"start": np.zeros((2, 3))}, r"must be finite, of shape \(1, n, \*event\)"),
        (SCALAR, {"start": np.zeros((1, 3)), "n": 4}, r"shape \(1, 4, \*event\)"),
        (SCALAR, {"start": np.full((1, 3), np.nan)}, "finite"),
        (SCALAR, {"start": {"y": 1.0}, "n": 2}, "unknown block 'y'"),
        (PLANE["additive"], {"start": {"x": 1.0}, "n": 2}, "no value for block 'y'"),
        (SCALAR, {"start": {"x": 1.0}}, "or numbers and n"),
        (SCALAR, {"start": law.Gaussian([0.0], 1.0)}, "give n"),
        (SCALAR, {"save": [0.5]}, "not a time of the trajectory"),
        (SCALAR, {"seed": -1}, "seed"),
        (SCALAR, {"Gamma": 1.0}, "unknown parameter 'Gamma'"),
        (sk.catalogue.vp(), {"Gamma": 1.0}, "Gamma is a parameter"),
        ("vp", {}, "give a Recipe, a Process or an SDE"),
        (Recipe((x,), H=sp.Function("U")(x), D=[[1]], Q=[[0]]), {}, "unspecified function"),
        (Recipe((x,), H=x**2, D=[[-1]], Q=[[0]]), {}, "positive semidefinite"),
        (SDE(1, lambda z, t: z, lambda z, t: np.ones(z.shape)), {}, "noise must have shapes"),
        (SDE(1, lambda z, t: -z, lambda z, t: z[None], "diagonal"), {"method": "milstein"}, "needs the noise_jacobian"),
        (SDE(1, lambda z, t: -z, lambda z, t: z[None], "diagonal"), {"method": "trapezoidal"}, "needs the jacobian"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input(source, change, text):
    with pytest.raises(BadInput, match=text):
        simulate(source, **{**GO, **change})


def test_bad_equations_and_steps():
    with pytest.raises(BadInput, match="unknown noise class"):
        SDE(1, np.negative, np.negative, "diagnoal")
    with pytest.raises(BadInput, match="unknown interpretation"):
        SDE(1, np.negative, np.negative, interpretation="Ito")
    with pytest.raises(BadInput, match="needs dZ"):
        step(SCALAR, np.zeros((1, 1)), 0.0, 1.0, np.zeros((1, 1)), method="sra1")
    assert Span(0.0, 1.0, 1.0, clocks.constant()).at(0.25) == 0.25


def test_single_precision():
    """The state stays float32 for every kind of equation, and is the float64 run to its rounding."""
    times, quiet = np.linspace(0.0, 0.5, 11), law.Gaussian(0.3, 0.25)
    for source, method in ((sk.catalogue.psld(), "euler_maruyama"), (sk.catalogue.recipe("sgnht"), "heun"), (sk.catalogue.psld(), "trapezoidal")):
        start = quiet if isinstance(source, Process) else {"x": 0.3, "p": 0.1, "xi": 1.0}
        single, double = (simulate(source, start=start, times=times, n=50, method=method, dtype=kind).z for kind in (np.float32, np.float64))
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, atol=2e-5)
    with pytest.raises(BadInput):
        simulate(Process([[-1.0]], [[1.0]]), start=quiet, times=times, n=2, dtype=np.int64)
