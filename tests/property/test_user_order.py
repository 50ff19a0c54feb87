"""Convergence orders as a user's own property tests: any process, any data."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sdekit as sk
from sdekit import testing
from sdekit.methods import Method, Orders

FINE = (40, 80, 160, 320)


@settings(max_examples=15)
@given(process=testing.processes(), data=testing.gaussians())
def test_heun_is_of_order_two(process, data):
    testing.assert_order(sk.methods.heun(), process, 2, data=data, steps=FINE)


@settings(max_examples=10)
@given(process=testing.processes(), data=testing.gaussians(), order=st.integers(1, 3))
def test_multistep_methods_have_their_order_from_exact_start_values(process, data, order):
    testing.assert_order(sk.methods.exponential(order), process, order, data=data, start="exact", steps=FINE)


def _lopsided(step):
    """A method of one's own: Heun with 0.4 and 0.6 in the place of its halves."""
    first = step.here.drift(step.z, step.ask(step.z, step.here).score)
    second = step.there.drift(step.z - step.h * first, step.ask(step.z - step.h * first, step.there).score)
    return step.rows(step.z - step.h * (0.4 * first + 0.6 * second))


def test_a_wrong_weight_does_not_pass():
    """0.4 and 0.6 in the place of Heun's halves: consistent, and only of order one."""
    broken = Method("broken", _lopsided, asks=2, orders=Orders(ode=2))
    with pytest.raises(AssertionError, match="refuted"):
        testing.assert_order(broken, sk.catalogue.vp(), 2, steps=FINE)
    testing.assert_order(broken, sk.catalogue.vp(), 1, steps=FINE)
