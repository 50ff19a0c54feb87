"""Fewest model calls to an error: found by search, checked against a scan and against a closed form."""

import numpy as np
import pytest
from processes import edm, psld, vp

from sdekit import BadInput, analysis, grids, methods
from sdekit.analysis import nfe_to_reach
from sdekit.law import Gaussian, Mixture

DATA = Gaussian(0.3, 0.25)
METHODS = [methods.ddim(), methods.heun(), methods.exponential(2)]


@pytest.mark.parametrize(("make", "error"), [(vp, 0.02), (psld, 0.1)], ids=["vp", "psld"])
def test_the_search_is_the_scan(make, error):
    """No smaller number of steps reaches the error, and the one found does."""
    table = nfe_to_reach(make(), METHODS, error, data=DATA)
    for method, row in zip(METHODS, table.rows, strict=True):
        errors = {n: analysis.exact_law(make(), method=method, grid=grids.karras(n), data=DATA).w2 for n in range(1, row.steps + 1)}
        assert min(n for n, w2 in errors.items() if w2 <= error) == row.steps
        assert row.w2 == errors[row.steps]
        assert (row.low, row.high) == (row.nfe, row.nfe)
        assert row.nfe == method.nfe(row.steps - 1) + 1
        assert row.before < row.nfe


def test_a_first_order_method_in_closed_form():
    """Euler on EDM for N(0, v): std ratio prod (1 - (s - s') s / (v + s^2)); the fewest steps on a uniform log grid, by that product."""
    v, top, end, error = 0.25, 40.0, 0.1, 0.03

    def w2(n):
        s = np.exp(np.linspace(np.log(top), np.log(end), n + 1))
        return abs(top * np.prod(1.0 - (s[:-1] - s[1:]) * s[:-1] / (v + s[:-1] ** 2)) - np.sqrt(v))

    expected = min(n for n in range(1, 200) if w2(n) <= error)
    table = nfe_to_reach(edm(), [methods.euler()], error, data=Gaussian(0.0, v), grid=lambda n: grids.logsnr(n, end, top))
    assert table.rows[0].nfe == expected


def test_speed_up_and_failure():
    table = nfe_to_reach(vp(), METHODS, 0.01, data=DATA, timing=10)
    ratio, low, high = table.speed_up("exponential(2)", "exponential(1)")
    assert ratio == low == high > 3.0
    assert all(row.seconds > 0.0 for row in table.rows)
    assert "exponential(2)" in str(table)
    assert "exponential(2)" in table._repr_html_()
    short = nfe_to_reach(vp(), METHODS[:1], 1e-5, data=DATA, most=50)
    assert short.rows[0].nfe == 0
    assert short.rows[0].w2 > 1e-5
    with pytest.raises(BadInput, match="did not reach"):
        short.speed_up("exponential(1)", "exponential(1)")
    with pytest.raises(BadInput):
        table.speed_up("exponential(2)", "none")


def test_sampled_errors_have_an_interval():
    law = Mixture([0.3, 0.7], [-0.8, 0.5], [0.01, 0.04])
    row = nfe_to_reach(vp(), [methods.exponential(2)], 0.1, data=law).rows[0]
    assert row.low <= row.nfe <= row.high
    assert row.nfe > 3


@pytest.mark.parametrize("change", [{"error": 0.0}, {"most": 0}, {"data": Mixture([1.0], [[0.0, 0.0]], 1.0)}])
def test_bad_input(change):
    given = {"error": 0.1, "data": DATA, **change}
    with pytest.raises(BadInput):
        nfe_to_reach(vp(), METHODS, given.pop("error"), **given)
