"""Restart: its moves on every process, what it leaves unchanged, and what it refuses."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import cld, edm, psld, third_order, ve, vp

from sdekit import BadInput, analysis, catalogue, grids, methods, plans, sample
from sdekit.analysis.exact import marginal, probe, true_map
from sdekit.law import Gaussian
from sdekit.plans import Jump, Run
from sdekit.solve import assemble, program

EDM, DATA = edm(), Gaussian(0.3, 0.25)
MAIN = grids.karras(18)
PROCESSES = {"vp": vp(), "edm": EDM, "ve": ve(), "cld": cld(), "psld": psld(), "third": third_order(), "flow": catalogue.flow()}
MEAN, VARIANCE = np.array([0.3]), np.array([0.25])


def path(plan, process):
    return process.sigma_eff(program(process, plan).times)


def level(i, n=18):
    """Level number ``i`` of EDM's grid, by its formula."""
    return (80.0 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80.0 ** (1 / 7))) ** 7


# ---------------------------------------------------------------------------------------------------------------- moves


@st.composite
def cases(draw):
    """Levels of a grid from 8 to 0.05 and intervals with different t_min in between, overlapping as they come."""
    lows = draw(st.lists(st.floats(0.06, 6.0), min_size=1, max_size=4, unique_by=lambda v: round(v, 3)))
    made = []
    for low in lows:
        high = low * draw(st.floats(1.05, 20.0))
        made.append((draw(st.integers(2, 6)), draw(st.integers(0, 3)), low, min(high, 8.0)))
    return draw(st.integers(1, 8)), made


def expected(n, intervals):
    """The levels of a run and its calls, by the algorithm as written."""
    main = np.exp(np.linspace(np.log(8.0), np.log(0.05), n + 1))
    nodes = {low: (N, K, high) for N, K, low, high in intervals}
    stops = sorted([*main, *nodes], reverse=True)
    visited = [8.0]
    for level in stops[1:]:
        visited.append(level)
        if level in nodes:
            N, K, high = nodes[level]
            visited += K * [(high ** (1 / 7) + j / (N - 1) * (level ** (1 / 7) - high ** (1 / 7))) ** 7 for j in range(N)]
    return visited, 2 * (len(stops) - 1) + sum(2 * K * (N - 1) for N, K, _, _ in intervals)


@settings(max_examples=15, deadline=None)
@given(cases(), st.sampled_from(sorted(PROCESSES)))
def test_levels_and_calls_on_every_process(case, name):
    n, intervals = case
    process = PROCESSES[name]
    plan = plans.restart(grids.logsnr(n, 0.05, 8.0), intervals, method=methods.exponential_rk(2))
    levels, calls = expected(n, intervals)
    made = program(process, plan)
    np.testing.assert_allclose(process.sigma_eff(made.times), levels, rtol=1e-8)
    assert made.nfe == calls == plans.restart_nfe(n + len(intervals), intervals, data=False)
    for before, after in pairwise(made.items):
        assert before.s == after.t


@settings(max_examples=10, deadline=None)
@given(cases(), st.sampled_from(sorted(PROCESSES)))
def test_the_exact_flow_keeps_the_law(case, name):
    """With every run of steps replaced by the exact flow the law at the end is the marginal there, however intervals overlap."""
    n, intervals = case
    process = PROCESSES[name]
    plan = plans.restart(grids.logsnr(n, 0.05, 8.0), intervals)
    moves = plan.moves(process)
    start, end = (float(process.time_of(v)) for v in (8.0, 0.05))
    got = true_map(process, moves, MEAN, VARIANCE).push(marginal(process, start, MEAN, VARIANCE))
    want = marginal(process, moves[-1].times[-1], MEAN, VARIANCE)
    assert moves[-1].times[-1] == pytest.approx(end, rel=1e-9)
    np.testing.assert_allclose(got.mean, want.mean, rtol=1e-7, atol=1e-9)
    covs = [np.einsum("ijd,kjd->ikd", law.factor, law.factor)[..., 0] for law in (got, want)]
    size = np.sqrt(np.diag(covs[1]))
    np.testing.assert_allclose(covs[0] / np.outer(size, size), covs[1] / np.outer(size, size), atol=2e-8)


@pytest.mark.parametrize("name", ["vp", "psld", "third"])
def test_finer_ways_back_add_less_error(name):
    """The change of W2 by three cycles falls with the square of the steps of an order-2 method."""
    process, main = PROCESSES[name], grids.logsnr(60, 0.2, 1.0)
    law = {"data": DATA, "start": DATA}
    change = []
    for N in (9, 17, 33):
        covs = [analysis.exact_law(process, plan=plans.restart(main, [(N, K, 0.2, 1.0)]), **law).cov for K in (0, 3)]
        change.append(abs(float(covs[1] - covs[0])))
    assert change[0] > 3.4 * change[1] > 3.4**2 * change[2] / 1.1


def test_intervals_may_overlap_and_nest():
    """Each fires once, when the main run gets to it: the outer way back passes the inner t_min and nothing happens."""
    outer, inner = (4, 2, 0.3, 3.0), (3, 1, 0.1, 4.0)
    levels = path(plans.restart(grids.logsnr(3, 0.1, 5.0), [inner, outer]), EDM)
    ways = [np.linspace(high ** (1 / 7), low ** (1 / 7), N) ** 7 for N, _, low, high in (outer, inner)]
    main = np.exp(np.linspace(np.log(5.0), np.log(0.1), 4))
    np.testing.assert_allclose(levels, [*main[:3], 0.3, *ways[0], *ways[0], main[3], *ways[1]], rtol=1e-12)


def test_order_of_the_list_does_not_matter():
    a, b = (3, 2, 0.06, 0.30), (4, 1, 1.09, 1.92)
    made = [sample(EDM, DATA.denoiser(), plan=plans.restart(MAIN, order), n=5).x for order in ([a, b], [b, a])]
    np.testing.assert_array_equal(*made)


def test_no_interval_is_the_plain_run():
    """Bit for bit, and so is an interval that never repeats, where no level comes in."""
    plain = sample(EDM, DATA.denoiser(), plan=plans.run(MAIN, methods.heun()), n=7).x
    for intervals in ([], [(3, 0, 0.06, 0.3)]):
        made = sample(EDM, DATA.denoiser(), plan=plans.restart(MAIN, intervals, method=methods.heun(), snap="nearest"), n=7)
        np.testing.assert_array_equal(made.x, plain)
        assert set(made.nfe) == {35}


@pytest.mark.parametrize("method", [methods.exponential(3), methods.plms(), methods.unipc(), methods.exponential(2, noise=1.0)], ids=str)
def test_each_way_back_starts_with_an_empty_memory(method):
    """From the state after the noise, the way back is what the method does alone."""
    plan = plans.restart(grids.logsnr(6, 0.1, 5.0), [(6, 2, 0.3, 2.0)], method=method)
    prog = program(EDM, plan)
    run = sample(EDM, DATA.denoiser(), plan=plan, n=3, save="all")
    moves, at = list(prog.moves), 0
    for move in moves:
        if isinstance(move, Run) and move.leg > 0:
            alone = plans.run(grids.times(move.times), method).then(lambda _, __, move=move: [move])
            begin = run.saved.state[at]
            made = sample(EDM, DATA.denoiser(), plan=alone, start=(begin, move.times[0]))
            np.testing.assert_array_equal(made.state, run.saved.state[at + len(move.times) - 1])
        at += 1 if isinstance(move, Jump) else len(move.times) - 1
    assert at == len(prog.items)


# ---------------------------------------------------------------------------------------------------------------- the data


def test_restart_from_the_data():
    """t_min = 0: after the last step, and the way back ends in one call; Heun's calls are 2 (N - 1) - 1 a cycle."""
    intervals = [(5, 3, 0.0, 0.5)]
    prog = program(EDM, plans.restart(MAIN, intervals, method=methods.heun()))
    assert prog.nfe == 35 + 3 * (2 * 4 - 1) == plans.restart_nfe(18, intervals)
    assert [len(item.move.asks) for item in prog.items[-5:]] == [0, 2, 2, 2, 1]
    np.testing.assert_allclose(EDM.sigma_eff(prog.times[-5:]), [0.5 * (1.0 - j / 4) ** 7 for j in range(5)], atol=1e-15)
    assert plans.restart_nfe(18, [(5, 3, 0.06, 0.5)]) == 35 + 3 * 2 * 4
    assert plans.restart_nfe(8, [(3, 1, 0.06, 0.5)], asks=3) == 22 + 6


def test_nearest_may_be_the_data():
    """The appended 0 is a level as the others; 0.0005 is nearer to it than to 0.002."""
    (jump,) = (m for m in plans.restart(MAIN, [(3, 1, 0.0005, 0.5)], method=methods.heun(), snap="nearest").moves(EDM) if isinstance(m, Jump))
    assert jump.s == 0.0


@pytest.mark.parametrize("name", PROCESSES)
def test_noise_from_the_data_is_the_kernel(name):
    """Whatever the other blocks hold after the step to the data, the state after the noise has the marginal law."""
    process = PROCESSES[name]
    t = float(process.time_of(0.7))
    made = probe(assemble(process, [Jump(0.0, t)]), MEAN, VARIANCE)
    kernel = process.kernel(t)
    np.testing.assert_allclose(made.matrix[..., 0], np.outer(kernel.psi, np.eye(process.k)[0]), atol=1e-15)
    np.testing.assert_allclose(made.noise[..., 0] @ made.noise[..., 0].T, kernel.cov, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["edm", "ve", "psld", "third"])
def test_cycles_from_the_data_keep_its_law(name):
    """What is left of the error falls with the square of the steps of the way back."""
    process, gaps = PROCESSES[name], []
    for N in (40, 120):
        made = analysis.exact_law(process, plan=plans.restart(grids.karras(60, sigma_max=5.0), [(N, 3, 0.0, 1.0)]), data=DATA, start=DATA)
        assert float(made.mean) == pytest.approx(0.3, abs=1e-6)
        gaps.append(abs(float(made.cov) - 0.25))
    assert gaps[1] < max(gaps[0] / 6.0, 3e-4)


# ---------------------------------------------------------------------------------------------------------------- options


def test_levels_above_the_grid():
    """t_max may be above the first level of the grid, where the process goes that far."""
    levels = path(plans.restart(grids.karras(5, sigma_max=10.0), [(3, 1, 1.0, 60.0)]), vp())
    assert levels.max() == pytest.approx(60.0)
    with pytest.raises(BadInput, match="t_max = 100 is above 80, the highest level of process 'edm'"):
        program(EDM, plans.restart(grids.karras(5, sigma_max=10.0), [(3, 1, 1.0, 100.0)]))


def test_churn_window():
    """gamma acts on the steps of the ways back that start inside [S_min, S_max]."""
    plan = plans.restart(MAIN, [(5, 1, 0.06, 0.30), (5, 1, 1.09, 1.92)], S_noise=1.003, churn=0.05, S_min=0.01, S_max=1.0, snap="nearest")
    up = [m for m in plan.moves(EDM) if isinstance(m, Jump)]
    churned = [EDM.sigma_eff([m.s, m.t]) for m in up if m.step > 0]
    low = level(14)
    way = np.linspace(0.3 ** (1 / 7), low ** (1 / 7), 5)[:4] ** 7
    np.testing.assert_allclose(churned, [[s, 1.05 * s] for s in way], rtol=1e-12)
    assert {m.scale for m in up} == {1.003}
    assert program(EDM, plan).nfe == 35 + 2 * 8


def test_a_plan_as_base():
    """The main run may change its method on the way; ways back use the first one."""
    main = plans.run(grids.logsnr(4, 0.1, 5.0), methods.dpm_solver(3)).then(plans.finish(methods.dpm_solver(2), methods.ddim()))
    plan = plans.restart(main, [(3, 2, 0.2, 1.0)])
    asks = [len(item.move.asks) for item in program(EDM, plan).items]
    assert asks == [3, 3, 2, 1, 0, 3, 3, 0, 3, 3, 1]  # the third level is 0.266, so 0.2 is inside the step by DDIM
    assert plans.restart(plans.run(MAIN, methods.heun()), [(3, 2, 0.06, 0.3)]) == plans.restart(MAIN, [(3, 2, 0.06, 0.3)], method=methods.heun())
    noisy = plans.run(grids.logsnr(4, 0.1, 5.0), methods.euler_maruyama()).then(plans.finish(methods.euler_maruyama()))
    addresses = [a for item in program(EDM, plans.restart(noisy, [(3, 2, 1.0, 2.0)])).items for a in item.addresses]
    assert len(set(addresses)) == len(addresses) == 5 + 2 * 3


def test_snapping_is_relative():
    """A level far below the grid's last is another level than the data."""
    levels = path(plans.restart(MAIN, [(2, 1, 1e-8, 0.1)]), EDM)
    assert levels[-2] == pytest.approx(1e-8, rel=1e-9)


FIRST = [(3, 2, 0.06, 0.30)]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: plans.restart(MAIN, [(1, 2, 0.06, 0.3)]), "N_restart = 1 must be an integer >= 2"),
        (lambda: plans.restart(MAIN, [(3, -1, 0.06, 0.3)]), "K = -1"),
        (lambda: plans.restart(MAIN, [(3, 2, 0.3, 0.06)]), "needs 0 <= t_min < t_max"),
        (lambda: plans.restart(MAIN, [(3, 2, -0.1, 0.06)]), "needs 0 <= t_min < t_max"),
        (lambda: plans.restart(MAIN, [(3, 2, float("nan"), 0.06)]), "t_min = nan must be finite"),
        (lambda: plans.restart(MAIN, (3, 2, 0.06, 0.3)), r"restart interval 3 must be \(N_restart, K, t_min, t_max\)"),
        (lambda: plans.restart(MAIN, {0.06: [3, 2, 0.3]}), "must be a list of"),
        (lambda: plans.restart(MAIN, 3), "must be a list of"),
        (lambda: plans.restart(MAIN, ["abcd"]), "must be"),
        (lambda: plans.restart(MAIN, [(2, 1, 0.06 + 1e-4 * i, 0.5) for i in range(1024)]), "1024 restart intervals are too many"),
        (lambda: plans.restart(MAIN, FIRST, churn=0.1, S_min=2.0, S_max=1.0), "S_min <= S_max"),
        (lambda: plans.restart(MAIN, FIRST, churn=0.1, S_min=float("nan")), "S_min <= S_max"),
        (lambda: plans.restart(plans.run(MAIN), FIRST, method=methods.heun()), "has a method already"),
        (lambda: plans.restart(plans.churn(plans.run(MAIN), 3.0), FIRST).moves(EDM), "before the transforms that add noise"),
        (lambda: plans.restart(MAIN, [(3, 1, 80.0, 81.0)]).moves(vp()), "t_min = 80 must be below 80"),
        (lambda: plans.restart(MAIN, [(3, 1, 90.0, 100.0)], snap="nearest").moves(vp()), "t_min = 90 must be below 80"),
        (lambda: plans.restart(MAIN, [(3, 1, 0.06, 81.0)]).moves(EDM), "t_max = 81 is above 80"),
        (lambda: plans.restart(grids.logsnr(5, 0.1, 5.0), [(3, 1, 0.0, 1.0)]).moves(EDM), "t_min = 0 is below 0.1, the level that the run ends at"),
        (lambda: plans.restart(grids.logsnr(5, 0.1, 5.0), [(3, 1, 0.05, 1.0)]).moves(EDM), "t_min = 0.05 is below 0.1"),
        (lambda: plans.restart(MAIN, [(3, 1, 0.005, 1.0)]).moves(ve()), "t_min = 0.005 is below 0.01"),
        (lambda: plans.restart(MAIN, FIRST, snap="error").moves(EDM), "t_min = 0.06 is not a level of the grid"),
        (lambda: plans.restart(MAIN, [*FIRST, (4, 1, 0.07, 0.5)], snap="nearest").moves(EDM), "two restart intervals fall on the same level 0.0599"),
        (lambda: plans.restart(MAIN, [*FIRST, (4, 1, 0.06 * (1 + 1e-12), 0.5)]).moves(EDM), "two restart intervals fall on the same level"),
        (lambda: plans.restart(MAIN, [(3, 1, 0.02, 0.022)], snap="nearest").moves(EDM), "t_max = 0.022 is not above t_min = 0.0229"),
        (lambda: plans.restart(MAIN, [(3, 1, 0.06, 0.06 * (1 + 1e-12))]).moves(EDM), "is not above"),
        (lambda: plans.restart_nfe(0, []), "steps = 0"),
    ],
)  # fmt: skip
def test_every_interval_that_cannot_fire_is_refused(make, match):
    with pytest.raises(BadInput, match=match):
        make()
