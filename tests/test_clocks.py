"""Clocks against mpmath: the integral is the integral of the rate, the inverse its inverse, to the last digits at tiny times too."""

import numpy as np
import pytest
import sympy as sp
from mpmath import mp

import sdekit as sk
from sdekit import BadInput, clocks, grids, law


def linear_rate(low, high, T):
    return lambda t: mp.mpf(low) + (mp.mpf(high) - mp.mpf(low)) * t / mp.mpf(T)


def exponential_rate(low, high, T):
    return lambda t: mp.mpf(low) * (mp.mpf(high) / mp.mpf(low)) ** (t / mp.mpf(T))


def cosine_rate(s):
    half = mp.pi / 2 / (1 + mp.mpf(s))
    return lambda t: 2 * half * mp.tan(half * (t + mp.mpf(s)))


CASES = {
    "vp": (clocks.linear(0.1, 20.0), linear_rate(0.1, 20.0, 1.0)),
    "edm": (clocks.linear(0.0, 160.0, 80.0), linear_rate(0.0, 160.0, 80.0)),
    "falling": (clocks.linear(20.0, 0.1, 2.0), linear_rate(20.0, 0.1, 2.0)),
    "constant": (clocks.constant(8.0, 3.0), linear_rate(8.0, 8.0, 3.0)),
    "exponential": (clocks.exponential(1.7e-3, 4.3e4), exponential_rate(1.7e-3, 4.3e4, 1.0)),
    "decaying": (clocks.exponential(5.0, 0.02, 4.0), exponential_rate(5.0, 0.02, 4.0)),
    "cosine": (clocks.cosine(), cosine_rate(0.008)),
    "cosine, other offset": (clocks.cosine(0.05, 0.9), cosine_rate(0.05)),
}
by_clock = pytest.mark.parametrize(("clock", "rate"), CASES.values(), ids=CASES.keys())
PARTS = [1e-14, 1e-9, 1e-5, 1e-3, 0.1, 0.5, 0.9, 0.99]


def close(found, exact, tolerance):
    return abs(mp.mpf(float(found)) - exact) <= tolerance * abs(exact)


@by_clock
def test_rate(clock, rate):
    for part in [0.0, *PARTS, 1.0]:
        t = part * clock.T
        assert close(clock.rate(t), rate(mp.mpf(t)), 1e-12)


@by_clock
def test_integral_is_the_integral_of_the_rate(clock, rate):
    with mp.workdps(40):
        for part in PARTS:
            t = part * clock.T
            assert close(clock.integral(t), mp.quad(rate, [0, mp.mpf(t)]), 1e-13), part
    assert float(clock.integral(0.0)) == 0.0


@by_clock
def test_inverse_is_the_inverse(clock, rate):
    t = clock.T * np.array(PARTS)
    np.testing.assert_allclose(clock.inverse(clock.integral(t)), t, rtol=1e-13)
    assert float(clock.inverse(0.0)) == 0.0
    np.testing.assert_allclose(clock.inverse(clock.integral(clock.T)), clock.T, rtol=1e-12)


@by_clock
def test_inverse_solves_the_integral(clock, rate):
    """Not only a round trip of two functions that could be wrong together."""
    for part in (1e-10, 1e-4, 0.3, 0.9):
        B = part * float(clock.integral(clock.T))
        with mp.workdps(40):
            t = mp.mpf(float(clock.inverse(B)))
            assert abs(B - mp.quad(rate, [0, t])) <= 1e-13 * rate(t) * t  # an error of 1e-13 in t


@by_clock
def test_arrays_and_numbers_agree(clock, rate):
    t = clock.T * np.array(PARTS).reshape(2, -1)
    for function in (clock.rate, clock.integral, clock.inverse):
        at = clock.integral(t) if function == clock.inverse else t
        many = function(at)
        assert many.shape == t.shape
        assert float(function(at[1, 2])) == many[1, 2]


def test_published_values():
    """Kernel coefficients of VP and the cosine schedule."""
    B = float(clocks.linear(0.1, 20.0).integral(1.0))
    assert pytest.approx(10.05, rel=1e-15) == B
    assert np.exp(-B / 2) == pytest.approx(0.006571586495, rel=1e-9)
    assert -np.expm1(-B) == pytest.approx(0.999956814251, rel=1e-11)
    assert np.exp(-clocks.cosine().integral(0.5)) == pytest.approx(0.4938435904, rel=1e-9)


def test_a_level_that_the_clock_never_reaches_has_no_time():
    with np.errstate(invalid="ignore"):
        assert np.isnan(clocks.linear(1.0, 0.0).inverse(0.6))
        assert np.isnan(clocks.exponential(1.0, 0.1).inverse(10.0))


def test_fields_may_be_resolved_later():
    values = {"low": 0.1, "high": 20}
    made = clocks.Linear("low", "high", 1.0).resolve(lambda v: values.get(v, v))
    assert made == clocks.linear(0.1, 20.0)
    assert isinstance(made.beta_max, float)


@pytest.mark.parametrize(
    "make",
    [
        lambda: clocks.linear(-0.1, 20.0),
        lambda: clocks.linear(0.1, -20.0),
        lambda: clocks.linear(0.0, 0.0),
        lambda: clocks.linear(0.1, float("nan")),
        lambda: clocks.linear(0.1, float("inf")),
        lambda: clocks.linear("fast", 1.0),
        lambda: clocks.linear(0.1, 20.0, 0.0),
        lambda: clocks.linear(0.1, 20.0, -1.0),
        lambda: clocks.constant(0.0),
        lambda: clocks.constant(1.0, float("nan")),
        lambda: clocks.exponential(0.0, 1.0),
        lambda: clocks.exponential(1.0, 1.0),
        lambda: clocks.exponential(1.0, 2.0, 0.0),
        lambda: clocks.cosine(0.0),
        lambda: clocks.cosine(-0.1),
        lambda: clocks.cosine(0.008, 1.0),
        lambda: clocks.cosine(0.008, 0.0),
        lambda: clocks.Linear("low", 1.0).resolve(),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()


T_ = sp.Symbol("t")


def ratio(text):
    return sp.Rational(text)


def cosine_formula(s):
    return sp.pi / (1 + s) * sp.tan(sp.pi * (T_ + s) / (2 * (1 + s)))


FORMULAS = {  # the closed forms, once more as formulas
    "vp": ratio("0.1") + ratio("19.9") * T_,
    "edm": 2 * T_,
    "falling": 20 - ratio("9.95") * T_,
    "constant": sp.Integer(8),
    "exponential": ratio("0.0017") * sp.exp(T_ * sp.log(43000 / ratio("0.0017"))),
    "decaying": 5 * sp.exp(-T_ / 4 * sp.log(250)),
    "cosine": cosine_formula(ratio("0.008")),
    "cosine, other offset": cosine_formula(ratio("0.05")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_formula_is_the_closed_form(name):
    """Relative accuracy from 1e-14 T to T, in both directions; B(t) ~ rate(0) t for small t."""
    clock = CASES[name][0]
    made = clocks.expression(FORMULAS[name], T_, clock.T)
    t = clock.T * np.append(np.logspace(-14, 0, 2000)[:-1], 1.0)
    np.testing.assert_allclose(made.integral(t), clock.integral(t), rtol=1e-13, atol=0)
    np.testing.assert_allclose(made.inverse(clock.integral(t)), t, rtol=1e-13, atol=0)
    np.testing.assert_allclose(made.rate(t), clock.rate(t), rtol=1e-13 if clock.T != 0.9999 else 2e-12, atol=0)  # tan next to its pole
    assert float(made.integral(0.0)) == float(made.inverse(0.0)) == 0.0
    assert made.integral(t.reshape(2, -1)).shape == (2, 1000)
    assert np.isnan(made.inverse(1.001 * made.integral(clock.T)))
    assert np.isnan(made.integral([-0.1, 1.001 * clock.T])).all()


@pytest.mark.parametrize(
    "rate",
    [sp.sqrt(T_), T_**5, sp.Abs(T_ - sp.Rational(1, 3)), sp.sign(T_ - sp.Rational(1, 3)) + 1, sp.sqrt(1 - T_), (1 - T_) ** 30, 1 + sp.sin(500 * T_)],
    ids=str,
)
def test_formulas_without_a_smooth_antiderivative(rate):
    clock, exact = clocks.expression(rate, T_), sp.lambdify(T_, rate, "mpmath")
    for t in (1e-8, 0.2, 0.6, 1.0):
        with mp.workdps(60):
            breaks = [mp.mpf(0), *(mp.mpf(1) / 3 for _ in range(t > 0.34)), *(mp.mpf(k) / 100 for k in range(34, int(100 * t), 1)), mp.mpf(t)]
            B = mp.quad(exact, sorted(set(breaks)), maxdegree=10)
        assert close(clock.integral(t), B, 1e-12) if B else float(clock.integral(t)) == 0.0, t


def test_equal_formulas_are_equal_clocks():
    u = sp.Symbol("u", real=True)
    assert clocks.expression(8 * (1 + T_) ** 2, T_) == clocks.expression(8.0 * (1 + u) ** 2, u, 1)
    assert hash(clocks.expression(T_, T_)) == hash(clocks.expression(u, u))
    assert clocks.expression(T_, T_) != clocks.expression(2 * T_, T_)
    assert clocks.expression(T_, T_) != clocks.expression(T_, T_, 2.0)


def test_parameters_of_a_recipe():
    x, beta, end = sp.Symbol("x", real=True), *sp.symbols("beta end", positive=True)
    clock = clocks.expression(beta * (1 + T_) ** 2, T_, end)
    recipe = sk.Recipe((x,), x**2 / 2, [[sp.Rational(1, 2)]], [[0]], clock, parameters={"end": 1})
    assert [s.name for s in recipe.symbols] == ["beta", "end"]  # and not t
    process = recipe.process(beta=8)
    assert process.clock == clocks.expression(8 * (1 + T_) ** 2, T_)
    assert float(process.clock.integral(0.5)) == pytest.approx(8 * (1.5**3 - 1) / 3, rel=1e-14)
    with pytest.raises(BadInput, match="nonnegative on"):
        sk.Recipe((x,), x**2 / 2, [[sp.Rational(1, 2)]], [[0]], clocks.expression(beta - T_, T_)).process(beta=0.5)
    with pytest.raises(BadInput, match="value first"):
        clock.rate(0.5)


def test_samples_with_a_formula_are_those_of_the_closed_form():
    formula = clocks.expression(ratio("0.1") + ratio("19.9") * T_, T_)
    first, second = (sk.Process([[-0.5]], [[1.0]], clock=c) for c in (clocks.linear(0.1, 20.0), formula))
    assert isinstance(second, sk.Process)
    denoise = law.Gaussian([0.5], [0.25]).denoiser()
    a, b = (sk.sample(p, denoise, grid=grids.karras(9), n=4, seed=1).x for p in (first, second))
    np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(
    ("rate", "T", "says"),
    [
        (T_ - sp.Rational(1, 2), 1.0, "nonnegative"), (sp.Integer(0), 1.0, "stand still"), (1 / T_, 1.0, "finite"), (sp.log(T_), 1.0, "finite"),
        (sp.I * T_, 1.0, "not a real"), (1 / (T_ - sp.Rational(1, 3)), 1.0, "nonnegative"), (T_, -1.0, "positive"), (T_, 0.0, "positive"),
        (1 + sp.sin(10**6 * T_), 1.0, "too fast"), (sp.Function("U")(T_), 1.0, "no numeric value"), (sp.zoo, 1.0, "not a real"), (sp.nan, 1.0, "nan"),
        (sp.exp(1000 * T_), 1.0, "finite"), ("t", 1.0, "spec file"), (T_, "1", "spec file"), (T_, float("inf"), "finite"), (None, 1.0, "sympy"),
        (-sp.Integer(1), 1.0, "nonnegative"), (float("nan"), 1.0, "finite"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_formulas(rate, T, says):
    with pytest.raises(BadInput, match=says):
        clocks.expression(rate, T_, T)
    with pytest.raises(BadInput, match="symbol of the time"):
        clocks.expression(1.0, "t")
