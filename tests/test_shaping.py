"""Tuned processes: the family of all linear processes holds those of the catalogue, and the search finds minima that a scan shows."""

import numpy as np
import pytest

from sdekit import BadInput, analysis, catalogue, grids, methods
from sdekit.analysis.shaping import FreeProcess, tune_process
from sdekit.law import Gaussian

DETAIL = Gaussian([0.0, 0.0, 0.0], [0.25, 1e-2, 1e-4])
EM = methods.euler_maruyama()


def test_psld_is_one_of_the_free_processes():
    """In units of its stationary deviation the momentum has D = nu/2 and Q = 1/(2 sqrt(M))."""
    Gamma, M = 0.02, 0.25
    nu = Gamma + 2.0 / np.sqrt(M)
    free = FreeProcess(budget=0.5 * (Gamma + nu))(c11=np.sqrt(Gamma), c22=np.sqrt(nu), k12=-0.5 / np.sqrt(M))
    paper, t = catalogue.psld(Gamma=Gamma), np.array([0.01, 0.2, 1.0])
    np.testing.assert_allclose(free.sigma_eff(t), paper.sigma_eff(t), rtol=1e-12)
    scale = np.diag([1.0, 1.0 / np.sqrt(M)])
    np.testing.assert_allclose(free.kernel(t).cov, scale @ paper.kernel(t).cov @ scale, rtol=1e-10)


def test_every_free_process_keeps_the_unit_normal_law():
    family = FreeProcess(3)
    assert family.names == ("c11", "c21", "c22", "c31", "c32", "c33", "k12", "k13", "k23")
    made = family(**dict(zip(family.names, np.random.default_rng(0).standard_normal(9), strict=True)))
    np.testing.assert_allclose(made.F + made.F.T + made.G @ made.G.T, np.zeros((3, 3)), atol=1e-14)
    assert np.trace(made.G @ made.G.T) / 2.0 == pytest.approx(family.budget)


def test_the_minimum_is_that_of_a_scan_and_beats_the_paper():
    grid = grids.uniform(40, 1e-3)
    tuned = tune_process(catalogue.psld, {"Gamma": (1e-3, 0.3)}, data=DETAIL, method=EM, grid=grid, evaluations=24, baseline={"Gamma": 0.01})
    values = np.geomspace(1e-3, 0.3, 13)
    scanned = tuned.scan("Gamma", values)
    assert tuned.error <= scanned.min() * (1.0 + 1e-3)
    (_, seen, _), (_, paper, nothing) = tuned.rows
    assert seen == pytest.approx(tuned.error)
    assert seen < paper
    assert np.isnan(nothing)
    exact = analysis.exact_law(catalogue.psld(**tuned.parameters), method=EM, grid=grid, data=DETAIL).w2
    assert tuned.error == pytest.approx(exact / np.sqrt(np.sum(DETAIL.variances)), rel=1e-9)
    assert f"{tuned.parameters['Gamma']:.4g}" in str(tuned)


def test_an_error_of_the_network_moves_the_choice():
    """With an error in every call, what counts is how far the process carries it; the objective is the sum of the two squares."""
    grid, where = grids.uniform(30, 1e-3), {"Gamma": (1e-3, 0.3)}
    tuned = tune_process(catalogue.psld, where, data=DETAIL, method=EM, grid=grid, score_error=0.3, evaluations=9, unseen=[DETAIL])
    process = catalogue.psld(**tuned.parameters)
    gains = analysis.error_gain(process, method=EM, grid=grid, data=DETAIL)[0]
    w2 = analysis.exact_law(process, method=EM, grid=grid, data=DETAIL).w2
    want = np.sqrt((w2**2 + 0.09 * np.sum(gains**2)) / np.sum(DETAIL.variances))
    assert tuned.error == pytest.approx(want, rel=1e-9)
    assert tuned.rows[0][2] == pytest.approx(tuned.error)


def test_a_free_search_is_better_than_psld_which_it_contains():
    grid, family = grids.uniform(25, 1e-3), FreeProcess(budget=2.02)
    paper = {"c11": 0.1, "c22": 2.0, "k12": -1.0}
    where = {"c11": (0.01, 1.0), "c22": (0.5, 3.0), "k12": (-2.0, -0.3)}
    tuned = tune_process(family, where, data=DETAIL, method=EM, grid=grid, evaluations=40, baseline=paper)
    assert tuned.rows[0][1] < tuned.rows[1][1]
    psld = analysis.exact_law(catalogue.psld(), method=EM, grid=grid, data=DETAIL).w2 / np.sqrt(np.sum(DETAIL.variances))
    assert tuned.rows[1][1] == pytest.approx(psld, rel=0.05)  # the entries above are PSLD's, rounded
    assert 40 <= tuned.evaluations <= 45


def test_bad_input():
    with pytest.raises(BadInput, match="lowest value before the highest"):
        tune_process(catalogue.psld, {"Gamma": (0.3, 0.1)}, data=DETAIL, method=EM, grid=grids.uniform(4))
    with pytest.raises(BadInput, match="c11 or another"):
        FreeProcess()(k12=1.0)
    with pytest.raises(BadInput, match="unknown entry 'c12'"):
        FreeProcess()(c12=1.0)
    with pytest.raises(BadInput, match="no candidate"):
        tune_process(FreeProcess(), {"k12": (0.5, 1.0)}, data=DETAIL, method=EM, grid=grids.uniform(4), evaluations=4)


def test_plots_show_the_numbers():
    from sdekit.analysis import budget_plots

    grid = grids.karras(6)
    made = [analysis.budget(catalogue.vp(), method=method, grid=grid, data=DETAIL) for method in (methods.ddim(), methods.heun())]
    bars = budget_plots.budgets(made)
    assert [patch.get_height() for patch in bars.patches[:2]] == [one.parts["prior"] for one in made]
    assert list(bars.lines[0].get_ydata()) == [one.total for one in made]
    table = analysis.sensitivity(catalogue.vp(), [methods.ddim()], grid, data=DETAIL)
    assert budget_plots.sensitivities(table).patches[0].get_height() == table.rows[0].independent
    tuned = tune_process(
        catalogue.psld, {"Gamma": (0.01, 0.1)}, data=DETAIL, method=methods.ddim(), grid=grid, evaluations=4, baseline={"Gamma": 0.02}
    )
    shown = budget_plots.scan(tuned, "Gamma", [0.01, 0.05])
    assert list(shown.lines[0].get_ydata()) == list(tuned.scan("Gamma", [0.01, 0.05]))
    assert shown.lines[2].get_xdata()[0] == 0.02
    from matplotlib import pyplot as plt

    plt.close("all")
