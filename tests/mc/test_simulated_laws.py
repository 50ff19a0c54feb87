"""Forward simulation: sampled stationary moments against quadrature."""

import numpy as np
import pytest
import sympy as sp
from scipy.integrate import quad

from sdekit import Recipe
from sdekit.equation import SDE
from sdekit.simulation import simulate

x, y, p, xi = sp.symbols("x y p xi", real=True)
half = sp.Rational(1, 2)
J = sp.Matrix([[0, -1], [1, 0]])


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
