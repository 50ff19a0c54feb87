"""Forward simulation: orders against exact paths and exact semigroups, stationary moments against quadrature, and the bias of Euler-Maruyama."""

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
import sympy as sp
from numpy.polynomial.hermite_e import hermegauss
from scipy.integrate import quad
from scipy.linalg import expm, solve_discrete_lyapunov

import sdekit as sk
from sdekit import BadInput, Process, Recipe, clocks, law
from sdekit.equation import CLASSES, SDE, _classify
from sdekit.noise import PATH, Address, Addressed
from sdekit.simulation import METHODS, Span, Stepper, simulate, step

x, y, p, xi = sp.symbols("x y p xi", real=True)
half = sp.Rational(1, 2)
J = sp.Matrix([[0, -1], [1, 0]])


def declared(state, drift, G, **more):
    """A recipe with this drift and this root of 2 D; its H plays no part."""
    G = sp.Matrix(G)
    return Recipe.from_drift(state, drift, G * G.T / 2, sp.Integer(0), **more)


PULL = [sp.sin(y) - sp.sin(x) / 2, sp.cos(x) - sp.sin(y)]
PLANE = {  # smooth, periodic and nonlinear, one for each class of noise
    "additive": declared((x, y), PULL, [[1, 0], [sp.Rational(3, 10), sp.Rational(3, 2)]]),
    "diagonal": declared((x, y), PULL, [[1 + sp.cos(x) / 2, 0], [0, half + sp.sin(y) / 4]]),
    "commutative": declared((x, y), PULL, [[1 + sp.cos(y) / 2, 0], [sp.sin(x) / 2, 0]]),
    "general": declared((x, y), PULL, [[1, 0], [sp.Rational(1, 5), 1 + sp.sin(x) / 2 + sp.cos(y) / 4]]),
}
CLAIMS = [(name, noise) for name, method in METHODS.items() for noise in method.strong]


# what the equation of a recipe is


def test_fields_of_a_recipe():
    a = sp.Symbol("a", positive=True)
    recipe = Recipe((x, y), H=x**4 / 4 + y**2 / 2, D=sp.diag(0, a * (1 + x**2)), Q=(1 + x**2) * J, clock=clocks.constant(3.0))
    sde = SDE.of(recipe, a=2.0)
    X, Y = np.array([[[0.3, -1.2], [2.0, 0.1]], [[0.7, 0.4], [-0.5, 1.1]]])
    assert (sde.k, sde.noise_class, sde.interpretation, sde.blocks) == (2, "commutative", "ito", ("x", "y"))
    # f = -(D + Q) grad H + div(D + Q): div Q = (0, 2 x)
    np.testing.assert_allclose(sde.drift(np.stack([X, Y]), 0.0), [(1 + X**2) * Y, -(1 + X**2) * X**3 - 2 * (1 + X**2) * Y + 2 * X], rtol=1e-14)
    G = sde.noise(np.stack([X, Y]), 0.0)
    np.testing.assert_allclose(G, [[np.zeros((2, 2))], [2.0 * np.sqrt(1 + X**2)]], rtol=1e-14)  # sqrt(2 D), the column of zeros left out
    slope = sde.noise_jacobian(np.stack([X, Y]), 0.0)
    np.testing.assert_allclose(slope[1, 0], [2.0 * X / np.sqrt(1 + X**2), np.zeros((2, 2))], rtol=1e-14)
    assert not slope[0].any()
    bend = [[2 * X * Y, 1 + X**2], [-5 * X**4 - 3 * X**2 - 4 * X * Y + 2, -2 * (1 + X**2)]]
    np.testing.assert_allclose(sde.jacobian(np.stack([X, Y]), 0.0), bend, rtol=1e-13)
    assert sde.clock.rate(0.5) == 3.0


def test_process_and_its_recipe_are_one_equation():
    process = sk.catalogue.psld(Gamma=0.02)
    one, two = SDE.of(process), SDE.of(process.recipe, Gamma=0.02)
    z = np.random.default_rng(0).normal(size=(2, 5, 3))
    assert one.noise_class == two.noise_class == "additive"
    assert SDE.of(one) is one
    for name in ("drift", "noise", "jacobian"):
        np.testing.assert_allclose(getattr(one, name)(z, 0.0), getattr(two, name)(z, 0.0), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(one.S0, two.S0, rtol=1e-14)
    assert float(one.clock.integral(0.7)) == float(two.clock.integral(0.7)) == 5.6


@pytest.mark.parametrize(
    ("G", "noise"),
    [
        ([[1, 0], [2, 3]], "additive"),
        ([[x, 0], [0, 1]], "diagonal"),
        ([[sp.sin(x) ** 2 + sp.cos(x) ** 2, 0], [0, 2]], "additive"),  # constant, though it does not look so
        ([[1 + y**2, 0], [0, 1]], "general"),
        ([[1 + y**2, 0], [0, 0]], "commutative"),  # a single column always commutes
        ([[1 + y**2, 0], [0, 0 * x]], "commutative"),
        ([[x, 0], [y, y]], "commutative"),  # linear, and the two matrices commute
        ([[1, 0], [0, 1 + x**2]], "general"),
        ([[1, 0], [x, 1]], "commutative"),  # the flow of (1, x) and of (0, 1)
    ],
    ids=str,
)
def test_noise_class_is_decided(G, noise):
    assert SDE.of(declared((x, y), [-x, -y], G)).noise_class == noise


def test_noise_class_is_decided_not_read():
    constant = sp.Matrix([[sp.sin(x) ** 2 + sp.cos(x) ** 2, 0], [0, 2]])
    assert _classify((x, y), constant) == "additive"
    assert _classify((x, y), constant * (1 + x**2)) == "general"


def test_clock_takes_the_parameters():
    b, g = sp.symbols("b g", positive=True)
    recipe = Recipe((x,), H=g * x**2 / 2, D=[[1]], Q=[[0]], clock=clocks.Linear(b, 3 * b, sp.Integer(2)), parameters={b: 2 * g})
    sde = SDE.of(recipe, g=0.5)
    assert float(sde.clock.integral(2.0)) == pytest.approx(4.0)
    new = step(sde, [[1.0]], 0.0, 2.0, [[0.0]])
    assert new[0, 0] == pytest.approx(1.0 - 0.5 * 4.0)


def test_root_without_modulus():
    sde = SDE.of(declared((x,), [0 * x], [[2 * x]]))
    np.testing.assert_array_equal(sde.noise(np.array([[-3.0, 2.0]]), 0.0), [[[-6.0, 4.0]]])
    kinked = SDE.of(Recipe.from_drift((x,), [-sp.sign(x)], [[half * (1 + sp.Abs(x))]], sp.Abs(x)))  # no root without a modulus here
    np.testing.assert_allclose(kinked.noise(np.array([[-3.0, 8.0]]), 0.0), [[[2.0, 3.0]]])
    assert np.all(np.isfinite(simulate(kinked, start={"x": 0.5}, n=3, times=[0.0, 0.1, 0.2]).z))


# Ito and Stratonovich


def test_conversion_of_geometric_brownian_motion():
    sde = SDE.of(declared((x,), [x / 2], [[2 * x]]))
    z = np.array([[0.3, -2.0]])
    strat = sde.stratonovich()
    np.testing.assert_allclose(strat.drift(z, 0.0), z / 2 - 2 * z, rtol=1e-14)  # mu - sigma^2 / 2
    np.testing.assert_allclose(strat.jacobian(z, 0.0), [[[-1.5, -1.5]]], rtol=1e-14)
    assert strat.interpretation == "stratonovich"
    assert strat.stratonovich() is strat
    assert sde.ito() is sde


@pytest.mark.parametrize("noise", CLASSES)
def test_conversion_round_trip_is_the_identity(noise):
    sde = SDE.of(PLANE[noise])
    back = sde.stratonovich().ito()
    assert back.symbols == sde.symbols
    assert back.interpretation == "ito"
    z = np.random.default_rng(1).normal(size=(2, 40))
    np.testing.assert_array_equal(back.drift(z, 0.0), sde.drift(z, 0.0))
    # correction of row i: 1/2 sum_jl G_lj d_l G_ij, by finite differences
    e, gain = 1e-5, np.zeros((2, 40))
    for m in range(2):
        shift = e * np.eye(2)[m][:, None]
        gain += 0.5 * np.einsum("ijn,jn->in", (sde.noise(z + shift, 0.0) - sde.noise(z - shift, 0.0)) / (2 * e), sde.noise(z, 0.0)[m])
    np.testing.assert_allclose(sde.stratonovich().drift(z, 0.0), sde.drift(z, 0.0) - gain, atol=1e-9)
    assert (np.max(np.abs(gain)) > 0.05) == (noise != "additive")
    if noise == "additive":
        assert sde.stratonovich().drift is sde.drift


def test_equations_from_functions_convert_too():
    own = SDE.of(PLANE["general"])
    bare = SDE(2, own.drift, own.noise, noise_jacobian=own.noise_jacobian)
    z = np.random.default_rng(2).normal(size=(2, 40))
    np.testing.assert_allclose(bare.stratonovich().drift(z, 0.0), own.stratonovich().drift(z, 0.0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(bare.stratonovich().ito().drift(z, 0.0), own.drift(z, 0.0), rtol=1e-12, atol=1e-14)
    with pytest.raises(BadInput, match="noise_jacobian"):
        SDE(2, own.drift, own.noise).stratonovich()


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


# stationary laws: sampled moments against quadrature


def moments(H, *functions):
    total = quad(lambda v: np.exp(-H(v)), -9.0, 9.0)[0]
    return [quad(lambda v, g=g: g(v) * np.exp(-H(v)), -9.0, 9.0)[0] / total for g in functions]


def close(samples, exact):
    error = samples.std() / np.sqrt(samples.size)
    assert abs(samples.mean() - exact) < 4.0 * error, (samples.mean(), exact, error)


N = 12_000
SQUARE, FOURTH = moments(lambda v: v**4 / 4, lambda v: v**2, lambda v: v**4)


@pytest.mark.parametrize("method", ["sra1", "heun", "trapezoidal"])
def test_underdamped_langevin(method):
    recipe = Recipe((x, p), H=x**4 / 4 + p**2 / 2, D=sp.diag(0, 1), Q=J)
    z = simulate(recipe, start={"x": 0.5, "p": 0.0}, n=N, times=np.linspace(0.0, 9.0, 181), method=method, seed=1).z
    for sample, exact in ((z[0], 0.0), (z[0] ** 2, SQUARE), (z[0] ** 4, FOURTH), (z[1] ** 2, 1.0), (z[1] ** 4, 3.0), (z[0] * z[1], 0.0)):
        close(sample, exact)


def test_thermostat():
    # the acceptance recipe with A = 3/2: xi is normal about A with variance 1, x and p are independent of it
    A, thermo = sp.Rational(3, 2), sp.Matrix([[0, -1, 0], [1, 0, p], [0, -p, 0]])
    recipe = Recipe((x, p, xi), H=x**4 / 4 + p**2 / 2 + (xi - A) ** 2 / 2, D=sp.diag(0, A, 0), Q=thermo)
    assert SDE.of(recipe).noise_class == "additive"
    z = simulate(recipe, start={"x": 0.0, "p": 1.0, "xi": 1.0}, n=N, times=np.linspace(0.0, 24.0, 601), method="sra1", seed=2).z
    pairs = ((z[0] ** 2, SQUARE), (z[1] ** 2, 1.0), (z[1] ** 4, 3.0), (z[2], 1.5), ((z[2] - 1.5) ** 2, 1.0), (z[2] * z[1] ** 2, 1.5))
    for sample, exact in pairs:
        close(sample, exact)


@pytest.mark.parametrize(("method", "steps"), [("euler_maruyama", 800), ("milstein", 800), ("heun", 200), ("trapezoidal", 200), ("sri", 100)])
def test_riemannian_langevin(method, steps):
    # D = 1 / (1 + x^2): Ito read as Stratonovich would give exp(-H) (1 + x^2)^{1/2}, second moment 0.77; a drift without div D 1.01
    recipe = Recipe((x,), H=x**4 / 4, D=[[1 / (1 + x**2)]], Q=[[0]])
    z = simulate(recipe, start={"x": 0.5}, n=N, times=np.linspace(0.0, 6.0, steps + 1), method=method, seed=3).z
    for sample, exact in ((z, 0.0), (z**2, SQUARE), (z**4, FOURTH)):
        close(sample, exact)


@pytest.mark.parametrize("correction", [0, 1])
def test_the_divergence_of_D_decides_the_law(correction):
    # case 2: with 2 x the law is N(0, 1), without it exp(-x^2/2) / (1 + x^2)
    f = -(1 + x**2) * x + 2 * correction * x
    recipe = Recipe.from_drift((x,), [f], [[1 + x**2]], x**2 / 2)
    (exact,) = moments(lambda v: v**2 / 2 + (1 - correction) * np.log1p(v**2), lambda v: v**2)
    z = simulate(recipe, start={"x": 0.5}, n=N, times=np.linspace(0.0, 4.0, 801), method="milstein", seed=4).z
    close(z**2, exact)


def test_circulation_that_depends_on_the_state():
    # Q = (1 + x^2) J, D = diag(0, 1 + x^2): the law stays N(0, 1) x N(0, 1)
    recipe = Recipe((x, p), H=(x**2 + p**2) / 2, D=sp.diag(0, 1 + x**2), Q=(1 + x**2) * J)
    z = simulate(recipe, start={"x": 0.5, "p": 0.0}, n=N, times=np.linspace(0.0, 6.0, 601), method="heun", seed=5).z
    for sample, exact in ((z[0], 0.0), (z[0] ** 2, 1.0), (z[1] ** 2, 1.0), (z[0] * z[1], 0.0)):
        close(sample, exact)


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
