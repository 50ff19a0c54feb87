"""Equations that tests of simulation share."""

import sympy as sp

from sdekit import Recipe

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
