"""Two processes side by side."""

import numpy as np
import pytest

import sdekit as sk
from sdekit import clocks


def test_the_same_mathematics_under_two_names():
    found = sk.catalogue.psld(Gamma=0.0, nu=4.0).compare(sk.catalogue.cld())
    assert found.same
    assert found.verdict == "psld and cld are the same mathematics under two names"
    for one, two in found.columns.values():
        np.testing.assert_array_equal(one, two)


def test_the_same_name_with_other_mathematics_is_shown_as_such():
    other = sk.catalogue.recipe("vp").process(T=0.5)
    found = sk.catalogue.vp().compare(other)
    assert not found.same
    assert found.verdict.startswith("two processes are called vp, and are not the same mathematics: T")
    assert "two processes" in str(found)
    assert "<table>" in found._repr_html_()


def test_columns_are_the_kernels():
    a, b = sk.catalogue.psld(), sk.catalogue.edm()
    found = a.compare(b)
    for i, process in enumerate((a, b)):
        for j, share in enumerate(found.shares):
            k = process.kernel(share * process.T)
            assert found.columns["mean"][i, j] == pytest.approx(k.psi[0], rel=1e-14)
            assert found.columns["std"][i, j] == pytest.approx(np.sqrt(k.cov[0, 0]), rel=1e-14)
            assert found.columns["snr"][i, j] == pytest.approx(float(process.sigma_eff(share * process.T)) ** -2, rel=1e-12)
    np.testing.assert_allclose(found.stationary[0], np.diag([1.0, 0.25]), atol=1e-14)
    assert found.stationary[1] is None
    assert found.as_dict()["names"] == ["psld", "edm"]


def test_equal_levels_are_seen():
    """VP and VE in the clock in which their levels are equal: sigma^2 = e^B - 1."""
    vp = sk.Process([[-0.5]], [[1.0]], clock=clocks.constant(3.0), name="vp")
    same = sk.Process([[0.0]], [[1.0]], clock=clocks.exponential(3.0, 3.0 * np.exp(3.0)), name="ve")
    assert "their levels agree" in vp.compare(same).verdict
    assert "their levels agree" not in vp.compare(sk.catalogue.edm()).verdict


def test_bad_input():
    with pytest.raises(sk.BadInput, match="Process"):
        sk.catalogue.vp().compare(3)
