"""Expressions as functions: against mpmath through sympy, shared parts once, torch, and what is refused."""

import numpy as np
import pytest
import sympy as sp

from sdekit import BadInput
from sdekit.numeric import numeric

x, y = sp.symbols("x y", real=True)
CASES = [
    x + y - 2, x * y / 3, x**3, x**-1, (1 + x**2) ** -2, sp.sqrt(1 + x**2), (2 + x**2) ** sp.Rational(-1, 2), (1 + y**2) ** sp.Rational(5, 3),
    sp.exp(-x * y), sp.exp(2), sp.log(2 + x**2), sp.sin(x), sp.cos(y), sp.tan(x / 3), sp.sinh(x), sp.cosh(x), sp.tanh(x * y), sp.Abs(x - y),
    sp.sign(x), sp.atan(x), sp.asin(x / 9), sp.acos(y / 9), (2 + sp.cos(x)) ** y, sp.pi * x, sp.Integer(7),
]  # fmt: skip


@pytest.mark.parametrize("expression", CASES, ids=str)
def test_value(expression):
    points = np.array([[0.3, -1.2], [-0.7, 2.1], [1.9, 0.4]])
    (found,) = numeric((x, y), [expression])(*points.T)
    exact = [float(expression.subs({x: sp.Float(a, 30), y: sp.Float(b, 30)}).evalf(30)) for a, b in points]
    np.testing.assert_allclose(np.broadcast_to(found, 3), exact, rtol=1e-14, atol=1e-15)


def test_torch_agrees():
    torch = pytest.importorskip("torch")
    values = np.array([0.3, -0.7, 1.9]), np.array([-1.2, 2.1, 0.4])
    run = numeric((x, y), CASES)
    for host, device in zip(run(*values), run(*(torch.from_numpy(v) for v in values)), strict=True):
        np.testing.assert_allclose(np.asarray(device), host, rtol=1e-14, atol=1e-15)


def test_shared_parts_are_computed_once():
    calls = []

    class Spy(np.ndarray):
        def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
            calls.append(ufunc.__name__)
            return getattr(ufunc, method)(*(np.asarray(i) for i in inputs), **kwargs)

    numeric((x,), [sp.exp(x) + 1, sp.exp(x) ** 2 * 3, sp.sin(sp.exp(x))])(np.array([1.0]).view(Spy))
    assert calls.count("exp") <= 2  # exp(x) and exp(2 x)


@pytest.mark.parametrize("make", [lambda: sp.Symbol("z"), lambda: sp.Function("U")(x), lambda: sp.Function("U")(x).diff(x), lambda: sp.gamma(x)])
def test_what_has_no_value_is_refused(make):
    with pytest.raises(BadInput):
        numeric((x, y), [make()])


def test_wrong_number_of_values():
    with pytest.raises(BadInput, match="1 values for 2 symbols"):
        numeric((x, y), [x])(1.0)
