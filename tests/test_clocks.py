"""Clocks against mpmath: the integral is the integral of the rate, the inverse its inverse, to the last digits at tiny times too."""

import numpy as np
import pytest
from mpmath import mp

from sdekit import BadInput, clocks


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
