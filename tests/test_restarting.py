"""Restart tuned by exact errors: never above presets or random plans, right about where it helps; the V over K and the noise that has no bias."""

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
from processes import edm, psld

import sdekit as sk
from sdekit import BadInput, analysis, imperfect, methods
from sdekit.analysis.candidates import Common, Exact, judge_of
from sdekit.analysis.restart_search import Choice, Search
from sdekit.law import Gaussian, Mixture

LAW = Gaussian([0.0, 0.1, 0.0, -0.2], [0.25, 0.06, 0.03, 1.0])
ABOVE = imperfect.shifted_means(LAW, 0.5, window=(1.0, 80.0))


@lru_cache
def tuned(model=None, S_noise=None):
    return analysis.tune_restart(edm(), methods.heun(), data=LAW, model=model, nfe=43, S_noise=S_noise, evaluations=240)


# -------------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("process", [edm(), psld()], ids=["edm", "psld"])
@pytest.mark.parametrize("method", [methods.heun(), methods.exponential(2), methods.euler(noise=0.5)], ids=str)
def test_candidates_have_exact_errors(process, method):
    """Maps made once and powered against the law of the whole plan, churn and all."""
    model = Gaussian([0.1, 0.1, 0.0, 0.0], [0.3, 0.05, 0.04, 0.9])
    plan = sk.plans.restart(sk.grids.karras(8, sigma_max=20.0), [(3, 2, 0.3, 1.0)], method=method, snap="nearest", S_noise=1.01, churn=0.02)
    exact = analysis.exact_law(process, plan=plan, data=LAW, model=model).w2
    assert judge_of(process, LAW, model).error(plan.moves(process)) == pytest.approx(exact, rel=1e-11)


def test_candidates_in_a_shared_basis_with_equal_modes():
    U = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    data = Gaussian(np.zeros(4), (U * [0.2, 0.2, 0.2, 1.0]) @ U.T)
    plan = Choice(10, ((3, 2, 0.06, 0.3),)).plan(methods.heun())
    judge = judge_of(edm(), data, None)
    assert judge.error(plan.moves(edm())) == pytest.approx(analysis.exact_law(edm(), plan=plan, data=data).w2, rel=1e-9)
    wrong = imperfect.scaled_covariance(data, [0.5, 0.5, 0.5, 1.2])
    exact = analysis.exact_law(edm(), plan=plan, data=data, model=wrong.law).w2
    assert judge_of(edm(), data, wrong).error(plan.moves(edm())) == pytest.approx(exact, rel=1e-9)


def test_an_error_at_some_levels_by_hand():
    """One mode, Heun in EDM's equation written out, with a shifted mean above level 1."""
    data = Gaussian([0.0], 0.25)
    wrong = imperfect.shifted_means(data, 0.5, window=(1.0, 80.0))
    levels = edm().sigma_eff(sk.grids.karras(12).times(edm()))
    mean, var = 0.0, levels[0] ** 2

    def field(x, t):
        return (x - (0.25 * x + t * t * (0.5 if t >= 1.0 else 0.0)) / (0.25 + t * t)) / t

    for t, s in pairwise(levels):

        def step(x, t=t, s=s):
            euler = x + (s - t) * field(x, t)
            return euler if s == 0.0 else x + 0.5 * (s - t) * (field(x, t) + field(euler, s))

        gain = step(1.0) - step(0.0)
        mean, var = step(mean), gain * gain * var
    found = judge_of(edm(), data, wrong).gaps(Choice(12).plan(methods.heun()).moves(edm()))
    np.testing.assert_allclose(found[:, 0], [mean, np.sqrt(var) - 0.5], rtol=1e-9)


def test_model_found_from_residuals():
    """The surrogate of a trained model's residuals goes in like any other error."""
    made = analysis.score_error(imperfect.scaled_covariance(LAW, 0.7), LAW, [0.05, 0.5, 5.0], n=200).surrogate
    plan = Choice(10, ((3, 2, 0.06, 0.3),)).plan(methods.heun())
    exact = analysis.exact_law(edm(), plan=plan, data=LAW, model=imperfect.scaled_covariance(LAW, 0.7).law).w2
    assert judge_of(edm(), LAW, made).error(plan.moves(edm())) == pytest.approx(exact, rel=1e-7)


# ------------------------------------------------------------------------------------------------------------------ the choice


@pytest.mark.parametrize("model", [None, ABOVE], ids=["exact", "above"])
def test_the_error_is_that_of_the_plan(model):
    made = tuned(model)
    assert made.nfe <= 43
    assert made.exact
    assert judge_of(edm(), LAW, model).error(made.plan.moves(edm())) == pytest.approx(made.error, rel=1e-12)
    np.testing.assert_allclose(np.sqrt(np.sum(made.modes**2)), made.error, rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(np.sum(made.ode_modes**2)), made.ode, rtol=1e-12)
    if model is None:
        exact = analysis.exact_law(edm(), plan=made.plan, data=LAW)
        assert exact.w2 == pytest.approx(made.error, rel=1e-7)
        assert exact.nfe == made.nfe


@pytest.mark.parametrize("model", [None, ABOVE], ids=["exact", "above"])
def test_never_above_a_published_preset(model):
    made = tuned(model)
    judge = judge_of(edm(), LAW, model)
    rows = [*sk.plans.published.cifar10_vp.values(), *sk.plans.published.cifar10_edm.values(), *sk.plans.published.imagenet64_edm.values()]
    fit = [row for row in rows if row.nfe <= 43]
    assert len(fit) == 3
    for row in fit:
        own = [transform for transform in row.plan.transforms if not isinstance(transform, sk.plans.Churn)]
        plan = replace(row.plan, method=methods.heun(), transforms=tuple(own))
        assert made.error <= judge.error(plan.moves(edm())) * (1.0 + 1e-12)
        assert made.error <= judge.error(replace(row.plan, method=methods.heun()).moves(edm()))
    assert len(made.presets) == 3


@pytest.mark.parametrize("model", [None, ABOVE], ids=["exact", "above"])
def test_never_above_a_random_search(model):
    """100 plans at random with one to three intervals within the budget."""
    made = tuned(model)
    search = Search(edm(), methods.heun(), judge_of(edm(), LAW, model), 43, None, 0)
    rng, errors = np.random.default_rng(0), []
    while len(errors) < 100:
        intervals = tuple(
            (int(rng.integers(2, 6)), int(rng.integers(1, 6)), low := float(np.exp(rng.uniform(-4, 1))), low * float(np.exp(rng.uniform(0.3, 3.0))))
            for _ in range(rng.integers(1, 4))
        )
        error = search.error(Choice(int(rng.integers(6, 20)), intervals, float(rng.uniform(0.95, 1.05))))
        if np.isfinite(error):
            errors.append(error)
    assert made.error < min(errors)


def test_restart_beats_both_where_the_field_is_wrong_above():
    """With an error above the interval the ODE keeps it at any number of steps, and the SDE forgets it more slowly."""
    made = tuned(ABOVE)
    assert made.helps
    assert made.error < 0.2 * made.plateau
    assert made.error < 0.9 * made.sde < made.ode
    assert made.reach < 0.05 * made.plateau
    assert "wrong above" in made.explanation
    assert judge_of(edm(), LAW, ABOVE).error(sk.plans.run(sk.grids.karras(400), methods.heun()).moves(edm())) == pytest.approx(made.plateau, rel=0.02)


def test_an_error_everywhere_stays():
    """A wrong mean at all levels is the mean of the law that every cycle keeps: |shift| is what the ODE and Restart come to."""
    made = tuned(imperfect.shifted_means(LAW, 0.5))
    assert made.plateau == pytest.approx(1.0, rel=0.01)  # 0.5 in four elements
    assert made.reach == pytest.approx(made.plateau, rel=0.02)
    assert not made.helps
    assert made.error == pytest.approx(made.ode, rel=0.02)
    assert "cannot help" in made.explanation


def test_with_exact_scores_the_error_is_the_solvers():
    """Many steps of the ODE are right; with the paper's noise, steps are a better use of 43 calls than its restarts."""
    assert "belong into steps" in tuned(None).explanation
    assert tuned(None).plateau < 0.2 * tuned(None).ode
    published = sk.plans.restart(sk.grids.karras(18), [(3, 2, 0.06, 0.3)], method=methods.heun(), snap="nearest")
    same = sk.plans.run(sk.grids.karras(22), methods.heun())
    spent = [analysis.exact_law(edm(), plan=plan, data=Gaussian([0.0], 0.25)) for plan in (published, same)]
    assert spent[0].nfe == spent[1].nfe == 43
    assert spent[0].w2 > 1.05 * spent[1].w2


def test_table():
    made = tuned(ABOVE)
    assert str(made) == repr(made)
    assert str(made).splitlines()[0].startswith(f"Restart in {made.nfe} model calls")
    assert f"{made.sde:.6g}" in str(made)
    assert "<table>" in made._repr_html_()


def test_mixtures_by_samples():
    """The weights of two modes are wrong above the interval: common-noise errors find a plan below the ODE."""
    data = Mixture([0.5, 0.5], [[1.0], [-1.0]], 0.01)
    wrong = imperfect.wrong_weights(data, [0.8, 0.2], window=(1.5, 80.0))
    made = analysis.tune_restart(edm(), methods.heun(), data=data, model=wrong, nfe=19, evaluations=4)
    assert not made.exact
    assert isinstance(judge_of(edm(), data, wrong), Common)
    assert made.helps
    assert made.error < 0.7 * made.ode
    assert made.reach < 0.8 * made.plateau


# -------------------------------------------------------------------------------------------------------------------- formulas


def test_sweet_spot_on_the_exact_recursion():
    """A start 0.5 too high and a field 0.05 too low: the mean after K cycles, by exact laws of restart plans, is least where the formula says."""
    data, model = Gaussian([0.0], 0.25), Gaussian([-0.05], 0.25)
    cycle = analysis.contraction.cycle(edm(), methods.heun(), (3, 0.06, 0.3), data, model=model)
    rate = float(cycle.rates[0])
    end = float(cycle.stationary.mean[0, 0])
    assert end == pytest.approx(-0.05, rel=1e-3)
    grid = sk.grids.sigmas([0.3, 0.15, 0.06])
    means = []
    for K in range(30):
        plan = sk.plans.restart(grid, [(3, K, 0.06, 0.3)], method=methods.heun()) if K else sk.plans.run(grid, methods.heun())
        means.append(float(analysis.exact_law(edm(), plan=plan, data=data, model=model, start=Gaussian([0.5], 0.25)).mean[0]))
    found = analysis.sweet_spot(means[0], end, rate)
    np.testing.assert_allclose(means, end + rate ** np.arange(30) * (means[0] - end), atol=1e-12)
    assert abs(np.argmin(np.abs(means)) - found) <= 0.5
    assert 10.0 < found < 20.0
    assert end + rate**found * (means[0] - end) == pytest.approx(0.0, abs=1e-12)


def test_without_a_sweet_spot():
    assert analysis.sweet_spot(0.1, 0.5, 0.8) == 0.0
    assert analysis.sweet_spot(0.5, 0.1, 0.8) == np.inf
    assert analysis.sweet_spot(1.0, -1.0, 0.5) == pytest.approx(1.0)


@pytest.mark.parametrize(("points", "expected"), [(2, 0.9629), (3, 0.9845), (5, 0.9955), (9, 0.9988)])
def test_noise_without_bias(points, expected):
    r"""S* = sqrt(v (1 - a^2)) / (a s) with the factor of Heun's legs written out; the cycle then keeps v exactly."""
    low, high = 0.0599473, 0.30
    levels = np.linspace(high ** (1 / 7), low ** (1 / 7), points) ** 7
    gain = 1.0
    for a, b in pairwise(levels):
        ga, gb = a / (0.25 + a * a), b / (0.25 + b * b)
        gain *= 1.0 + (b - a) * (ga + (1.0 + (b - a) * ga) * gb) / 2.0
    v, s2 = 0.25 + low**2, high**2 - low**2
    scale = np.sqrt(v * (1.0 - gain**2)) / (gain * np.sqrt(s2))
    assert scale == pytest.approx(expected, abs=6e-5)
    found = analysis.contraction.cycle(edm(), methods.heun(), (points, low, high), Gaussian([0.0], 0.25))
    assert found.best_noise[0] == pytest.approx(scale, rel=1e-9)
    assert gain**2 * (v + scale**2 * s2) == pytest.approx(v, rel=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: analysis.tune_restart(edm(), data=LAW, nfe=5),
        lambda: analysis.tune_restart(edm(), data=[[0.0]]),
        lambda: analysis.tune_restart(edm(), data=LAW, model=3.0),
        lambda: Exact(edm(), LAW, Gaussian(np.zeros(4), np.eye(4) + 0.1)),
        lambda: analysis.sweet_spot(1.0, -1.0, 1.0),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()


def test_neighbours_that_are_no_plan_are_passed_over():
    """Refinement may move ``t_max`` below ``t_min``: that choice is worth nothing, and the search goes on."""
    search = Search(edm(), methods.heun(), judge_of(edm(), LAW, None), 43, None, 30)
    start = Choice(12, ((2, 1, 0.05, 0.051),))
    assert search.error(replace(start, intervals=((2, 1, 0.05, 0.04),))) == np.inf
    best, error = search.refined([start])
    assert error <= search.error(start)
    assert np.isfinite(error)
    assert best.plan(methods.heun()).moves(edm())


def test_churn_may_begin_by_raising_the_level():
    """PSLD reaches levels above the grid's first: a run with churn then starts with a jump, from the prior before it."""
    process, law = sk.catalogue.psld(), Gaussian(np.zeros(2), [0.25, 0.01])
    plan = sk.plans.churn(sk.plans.run(sk.grids.karras(4), methods.heun()), 1.0)
    moves = plan.moves(process)
    assert isinstance(moves[0], sk.plans.Jump)
    found = judge_of(process, law, None).error(moves)
    assert found == pytest.approx(analysis.exact_law(process, plan=plan, data=law).w2, rel=1e-9)
