"""Plans: the moves that each transform makes, their levels, their cost, and the addresses of their noise."""

from itertools import pairwise

import numpy as np
import pytest
from processes import ALL, cld, edm, names, psld, third_order, ve, vp

from sdekit import BadInput, analysis, grids, law, methods, plans
from sdekit.plans import Jump, Run
from sdekit.solve import program

HEUN = methods.heun()
EDM = edm()
MAIN = grids.karras(18)
IMAGENET = {
    39: (14, [(3, 1, 19.35, 40.79), (3, 1, 1.09, 1.92), (3, 1, 0.06, 0.30)]),
    67: (18, [(5, 1, 19.35, 40.79), (5, 1, 1.09, 1.92), (5, 1, 0.59, 1.09), (5, 1, 0.06, 0.30)]),
    99: (18, [(3, 1, 19.35, 40.79), (4, 1, 1.09, 1.92), (4, 4, 0.59, 1.09), (4, 1, 0.30, 0.59), (4, 4, 0.06, 0.30)]),
    165: (18, [(3, 1, 19.35, 40.79), (4, 1, 1.09, 1.92), (4, 5, 0.59, 1.09), (4, 5, 0.30, 0.59), (4, 10, 0.06, 0.30)]),
    203: (36, [(4, 1, 19.35, 40.79), (4, 1, 1.09, 1.92), (4, 5, 0.59, 1.09), (4, 5, 0.30, 0.59), (6, 6, 0.06, 0.30)]),
    385: (36, [(3, 1, 19.35, 40.79), (6, 1, 1.09, 1.92), (6, 5, 0.59, 1.09), (6, 5, 0.30, 0.59), (6, 20, 0.06, 0.30)]),
    535: (36, [(6, 1, 19.35, 40.79), (6, 1, 1.09, 1.92), (7, 6, 0.59, 1.09), (7, 6, 0.30, 0.59), (7, 25, 0.06, 0.30)]),
    623: (36, [(10, 3, 19.35, 40.79), (10, 3, 1.09, 1.92), (7, 6, 0.59, 1.09), (7, 6, 0.30, 0.59), (7, 25, 0.06, 0.30)]),
}
CIFAR = {
    519: (20, 9, 30, 0.06, 0.20),
    115: (18, 3, 20, 0.06, 0.30),
    75: (18, 3, 10, 0.06, 0.30),
    55: (18, 3, 5, 0.06, 0.30),
    43: (18, 3, 2, 0.06, 0.30),
}


def sigma(process, t):
    return float(process.sigma_eff(t))


def path(plan, process):
    """Levels of all nodes that a trajectory visits."""
    return process.sigma_eff(program(process, plan).times)


def jumps(plan, process=EDM):
    return [move for move in plan.moves(process) if isinstance(move, Jump)]


def addresses(plan, process=EDM):
    return [a for item in program(process, plan).items for a in item.addresses]


@pytest.mark.parametrize(("nfe", "config"), CIFAR.items())
def test_published_cost_on_cifar(nfe, config):
    n, *interval = config
    assert program(EDM, plans.restart(grids.karras(n), [tuple(interval)], method=HEUN, snap="nearest")).nfe == nfe


@pytest.mark.parametrize(("nfe", "config"), IMAGENET.items())
def test_published_cost_on_imagenet(nfe, config):
    n, intervals = config
    assert program(EDM, plans.restart(grids.karras(n), intervals, method=HEUN, snap="nearest")).nfe == nfe
    exact = program(EDM, plans.restart(grids.karras(n), intervals, method=HEUN))
    assert exact.nfe == nfe + 2 * len(intervals)  # each inserted level is one more step


@pytest.mark.parametrize(
    ("n", "want", "near"),
    [(14, 0.06, 0.0421), (14, 1.09, 0.8229), (14, 19.35, 19.946), (20, 0.06, 0.0449), (36, 0.06, 0.0555), (36, 0.30, 0.2675),
     (36, 0.59, 0.5233), (18, 0.06, 0.05995), (5, 16.0, 17.52783), (5, 60.0, 17.52783)],
)  # fmt: skip
def test_published_snapping(n, want, near):
    (jump,) = jumps(plans.restart(grids.karras(n), [(3, 1, want, 79.0)], method=HEUN, snap="nearest"))
    assert sigma(EDM, jump.s) == pytest.approx(near, rel=2e-3)
    assert sigma(EDM, jump.t) == pytest.approx(79.0, rel=1e-12)


@pytest.mark.parametrize("make", ALL[:6], ids=names[:6])
def test_restart_path(make):
    """Down to t_min, K times up to t_max and back through the grid of rho = 7, then on; the same levels on every process."""
    process = make()
    top, low, high = 5.0, 0.06, 0.30
    grid = grids.logsnr(6, 0.02, top)
    visited = path(plans.restart(grid, [(4, 2, low, high)], method=HEUN), process)
    main = np.exp(np.linspace(np.log(top), np.log(0.02), 7))
    cycle = np.linspace(high ** (1 / 7), low ** (1 / 7), 4) ** 7
    expected = [*main[main > low], low, *cycle, *cycle, *main[main < low]]
    np.testing.assert_allclose(visited, expected, rtol=1e-9)


def test_restart_in_any_order_of_intervals():
    a, b = (3, 2, 0.06, 0.30), (4, 1, 1.09, 1.92)
    np.testing.assert_array_equal(path(plans.restart(MAIN, [a, b]), EDM), path(plans.restart(MAIN, [b, a]), EDM))


def test_restart_at_the_data():
    """t_min = 0: the interval fires after the last step, and its own last step goes to the data."""
    visited = path(plans.restart(grids.karras(5), [(3, 1, 0.0, 0.5)], method=HEUN), EDM)
    np.testing.assert_allclose(visited[-4:], [0.0, 0.5, 0.5 * 0.5**7, 0.0], atol=1e-15)


def test_restart_with_no_repetition_is_the_plain_plan_with_one_more_node():
    plan = plans.restart(grids.karras(5), [(3, 0, 0.1, 0.5)], method=HEUN)
    assert not jumps(plan)
    assert len(program(EDM, plan).items) == 6
    assert path(plans.restart(grids.karras(5), [], method=HEUN), EDM).tolist() == path(plans.run(grids.karras(5), HEUN), EDM).tolist()


def test_a_level_of_the_grid_is_not_inserted_twice():
    level = float(EDM.sigma_eff(MAIN.times(EDM)[14]))
    for snap in ("exact", "nearest", "error"):
        assert len(program(EDM, plans.restart(MAIN, [(3, 1, level, 0.3)], snap=snap)).items) == 18 + 3


def test_restart_noise_scale_and_churn():
    plan = plans.restart(MAIN, [(4, 2, 0.06, 0.30)], method=HEUN, S_noise=1.003, churn=0.05, snap="nearest")
    found = jumps(plan)
    assert all(jump.scale == 1.003 for jump in found)
    assert len(found) == 2 * (1 + 3)
    for up in (found[1:4], found[5:]):
        np.testing.assert_allclose([sigma(EDM, j.t) / sigma(EDM, j.s) for j in up], 1.05, rtol=1e-12)


def test_ancestral_levels():
    """sigma_up = min(s', eta sqrt(s'^2 (s^2 - s'^2) / s^2)), sigma_down = sqrt(s'^2 - sigma_up^2); no noise in the step to the data."""
    for eta in (0.4, 1.0):
        moves = plans.ancestral(plans.run(grids.karras(5), HEUN), eta).moves(EDM)
        levels = path(plans.run(grids.karras(5), HEUN), EDM)
        assert [type(m) for m in moves] == [Run, Jump] * 4 + [Run]
        for i, (high, low) in enumerate(pairwise(levels[:-1])):
            up = min(low, eta * np.sqrt(low**2 * (high**2 - low**2) / high**2))
            run, jump = moves[2 * i : 2 * i + 2]
            np.testing.assert_allclose(
                [sigma(EDM, t) for t in (*run.times, jump.s, jump.t)], [high, *([np.sqrt(low**2 - up**2)] * 2), low], rtol=1e-10
            )


def test_ancestral_with_all_noise_jumps_from_the_data():
    """Large eta asks for more noise than the level: each step goes to the data and all of it comes back."""
    moves = plans.ancestral(plans.run(grids.karras(4), HEUN), 3.0).moves(EDM)
    assert [m.times[1] for m in moves if isinstance(m, Run)] == [0.0] * 4


def test_churn_levels():
    """EDM, Algorithm 2: gamma = min(S_churn / N, sqrt 2 - 1) at levels in [S_min, S_max], not above what the process reaches."""
    for amount, gamma in ((1.8, 0.1), (30.0, np.sqrt(2.0) - 1.0)):
        plan = plans.churn(plans.run(MAIN, HEUN), amount, S_min=0.05, S_max=50.0, S_noise=1.007)
        found = jumps(plan)
        levels = path(plans.run(MAIN, HEUN), EDM)
        chosen = levels[(levels >= 0.05) & (levels <= 50.0)]
        np.testing.assert_allclose([sigma(EDM, j.s) for j in found], chosen, rtol=1e-12)
        np.testing.assert_allclose([sigma(EDM, j.t) for j in found], np.minimum(chosen * (1.0 + gamma), 80.0), rtol=1e-12)
        assert {j.scale for j in found} == {1.007}
        assert program(EDM, plan).nfe == 35
    assert not [j for j in jumps(plans.churn(plans.run(MAIN, HEUN), 30.0)) if j.s == 80.0]
    assert plans.churn(plans.run(MAIN, HEUN), 0.0) == plans.run(MAIN, HEUN)


def test_memory_is_kept_where_no_noise_comes_in():
    """A multistep method starts again after each rise of the level, and only there."""
    base = plans.run(MAIN, methods.exponential(2))
    levels = path(base, EDM)
    inside = (levels[:-1] >= 0.05) & (levels[:-1] <= 2.0)
    made = program(EDM, plans.churn(base, 1.8, S_min=0.05, S_max=2.0))
    fresh = [item.fresh for item in made.items if item.t > item.s]
    assert fresh == [bool(i == 0 or inside[i]) for i in range(18)]
    assert plans.churn(base, 1.8, S_min=100.0, S_max=200.0).moves(EDM) == base.moves(EDM)


def test_transforms_keep_the_method_of_each_run():
    """A plan that changes its method half way stays one, also under a transform that leaves both parts alone."""
    high, low = Run(HEUN, (5.0, 2.0, 1.0)), Run(methods.exponential(1, noise=1.0), (1.0, 0.5, 0.2), first=2)
    plan = plans.run(grids.times([5.0, 2.0, 1.0, 0.5, 0.2]), HEUN).then(lambda moves, process: [high, low])
    still = plans.churn(plan, 1.0, S_min=100.0, S_max=200.0)
    assert [str(item.method) for move in still.moves(EDM) for item in [move] * (len(move.times) - 1)] == ["heun"] * 2 + [str(low.method)] * 2
    assert addresses(still) == addresses(plan)


def test_denoise_is_one_more_call():
    plain = plans.run(grids.logsnr(5, 0.1, 5.0), HEUN)
    made = program(EDM, plain.then(plans.denoise()))
    assert made.nfe == program(EDM, plain).nfe + 1
    assert made.times[-1] == 0.0
    after_noise = plans.ancestral(plans.run(grids.logsnr(5, 0.1, 5.0), methods.euler(noise=1.0))).then(plans.denoise())
    assert program(psld(), after_noise).times[-1] == 0.0
    with pytest.raises(BadInput, match="already"):
        program(EDM, plans.run(MAIN, HEUN).then(plans.denoise()))


def test_start_replaces_the_first_times():
    plan = plans.run(grids.times([1.0, 0.6, 0.3]), HEUN)
    assert plan.moves(vp(), 0.5)[0].times == (0.5, 0.3)
    assert plan.moves(vp(), 0.6)[0].times == (0.6, 0.3)
    assert plan.moves(vp())[0].times == (1.0, 0.6, 0.3)
    with pytest.raises(BadInput):
        plan.moves(vp(), 0.3)


def restarted(**options):
    return plans.restart(MAIN, [(3, 2, 0.06, 0.30), (4, 1, 1.09, 1.92)], method=methods.exponential(2, noise=1.0), **options)


COMPOSED = {
    "run": lambda: plans.run(MAIN, methods.exponential(2, noise=1.0)),
    "restart": restarted,
    "restart with churn": lambda: restarted(churn=0.05),
    "ancestral": lambda: plans.ancestral(plans.run(MAIN, HEUN)),
    "churn": lambda: plans.churn(plans.run(MAIN, HEUN), 20.0),
    "churn, ancestral": lambda: plans.ancestral(plans.churn(plans.run(MAIN, HEUN), 20.0)),
    "ancestral, churn": lambda: plans.churn(plans.ancestral(plans.run(MAIN, HEUN)), 20.0),
    "restart, churn": lambda: plans.churn(restarted(), 20.0),
    "restart, ancestral": lambda: plans.ancestral(restarted()),
    "restart with churn, churn": lambda: plans.churn(restarted(churn=0.05), 20.0),
    "ancestral, denoise": lambda: plans.ancestral(plans.run(grids.logsnr(5, 0.1, 5.0), methods.heun(noise=1.0))).then(plans.denoise()),
}


@pytest.mark.parametrize("name", COMPOSED)
@pytest.mark.parametrize("make", [edm, psld], ids=["edm", "psld"])
def test_no_normal_is_used_twice(name, make):
    """Every transform, alone or on another one, draws fresh noise: the exact laws assume it."""
    drawn = addresses(COMPOSED[name](), make())
    assert drawn
    assert len(set(drawn)) == len(drawn)


def test_more_repetitions_do_not_renumber_the_rest():
    """Noise outside the restart interval is the same for K = 1 and K = 5, and the cycles of K = 1 are the first of K = 5."""
    few, many = (
        set(addresses(plans.restart(MAIN, [(3, K, 0.06, 0.30), (4, 1, 1.09, 1.92)], method=methods.exponential(1, noise=1.0)))) for K in (1, 5)
    )
    assert few < many


def test_composed_noise_has_the_law_that_is_claimed():
    """Churn on top of Restart, sampled: the variance of 20,000 samples within 4.5 standard errors of the exact law."""
    from sdekit import sample

    data = law.Gaussian(0.0, 0.25)
    plan = plans.churn(plans.restart(grids.karras(6), [(2, 3, 0.3, 1.5)], method=HEUN), 30.0)
    exact = analysis.exact_law(EDM, plan=plan, data=data)
    x = sample(EDM, data.denoiser(), plan=plan, n=20_000, seed=1).x
    assert abs(np.var(x) - float(exact.cov)) < 4.5 * float(exact.cov) * np.sqrt(2.0 / 20_000)


@pytest.mark.parametrize("make", [edm, ve, cld, third_order])
def test_moves_follow_each_other(make):
    process = make()
    base = plans.run(grids.logsnr(6, 0.05, 5.0), HEUN)
    restarted = plans.restart(grids.logsnr(6, 0.05, 5.0), [(3, 2, 0.1, 0.5)])
    for plan in (base, restarted, plans.churn(base, 3.0), plans.ancestral(base, 0.5), plans.churn(restarted, 3.0), plans.ancestral(restarted, 0.5)):
        made = program(process, plan)
        for before, after in pairwise(made.items):
            assert before.s == after.t
        assert made.times[0] == base.grid.times(process)[0]
        assert made.times[-1] == base.grid.times(process)[-1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: plans.restart(MAIN, [(1, 2, 0.06, 0.3)]),
        lambda: plans.restart(MAIN, [(3, -1, 0.06, 0.3)]),
        lambda: plans.restart(MAIN, [(3, 1024, 0.06, 0.3)]),
        lambda: plans.restart(MAIN, [(3, 2, 0.3, 0.06)]),
        lambda: plans.restart(MAIN, [(3, 2, 0.3, 0.3)]),
        lambda: plans.restart(MAIN, [(3, 2, -0.1, 0.3)]),
        lambda: plans.restart(MAIN, [(3, 2, 0.06)]),
        lambda: plans.restart(MAIN, [(2.5, 2, 0.06, 0.3)]),
        lambda: plans.restart(MAIN, [(3, 2, 0.06, float("inf"))]),
        lambda: plans.restart(MAIN, [(3, 2, 0.06, 0.3)], snap="round"),
        lambda: plans.restart(MAIN, [(3, 2, 0.06, 0.3)], churn=-0.1),
        lambda: plans.restart(MAIN, [(3, 2, 0.06, 0.3)], S_noise=float("nan")),
        lambda: plans.restart(18, [(3, 2, 0.06, 0.3)]),
        lambda: plans.restart(MAIN, [(3, 2, 0.06, 0.3)], method="heun"),
        lambda: plans.restart(MAIN, [(3, 2, 0.06, 0.3)], snap="error").moves(EDM),
        lambda: plans.restart(MAIN, [(3, 2, 0.06, 0.3), (3, 1, 0.06, 0.5)]).moves(EDM),
        lambda: plans.restart(MAIN, [(3, 2, 0.06, 0.3), (3, 1, 0.061, 0.5)], snap="nearest").moves(EDM),
        lambda: plans.restart(MAIN, [(3, 2, 0.0005, 0.3)]).moves(vp()) and plans.restart(grids.logsnr(5), [(3, 2, 0.0005, 0.3)]).moves(vp()),
        lambda: plans.restart(MAIN, [(3, 2, 0.06, 300.0)]).moves(EDM),
        lambda: plans.restart(MAIN, [(3, 2, 0.02, 0.022)], snap="nearest").moves(EDM),
        lambda: plans.ancestral(plans.run(MAIN), 0.0),
        lambda: plans.ancestral(plans.run(MAIN), -1.0),
        lambda: plans.ancestral(plans.run(grids.karras(18)), 1.0).moves(ve()),
        lambda: plans.churn(plans.run(MAIN), -1.0),
        lambda: plans.churn(plans.run(MAIN), 1.0, S_min=2.0, S_max=1.0),
        lambda: plans.churn(plans.run(MAIN), 1.0, S_noise=float("inf")),
        lambda: plans.run("karras"),
        lambda: plans.run(MAIN, "heun"),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
