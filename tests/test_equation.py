"""Equations of recipes: fields, noise classes, Ito and Stratonovich."""

import numpy as np
import pytest
import sympy as sp
from equations import PLANE, J, declared, half, x, y

import sdekit as sk
from sdekit import BadInput, Recipe, clocks
from sdekit.equation import CLASSES, SDE, _classify
from sdekit.simulation import simulate, step

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
