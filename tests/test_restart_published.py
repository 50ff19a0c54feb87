"""Restart: published settings and numbers, the variant of latent diffusion by its formulas, guidance."""

from itertools import pairwise

import numpy as np
import pytest
from processes import edm, psld, vp

from sdekit import BadInput, analysis, compatibility, denoiser, grids, methods, plans, record, sample, tables
from sdekit.analysis.exact import true_map
from sdekit.law import Gaussian
from sdekit.noise import MOVE, Address, Addressed
from sdekit.plans import Jump, published
from sdekit.solve import program

EDM, VP = edm(), vp()
QUARTER = Gaussian(0.0, 0.25)
ROWS = {
    f"{name} {nfe}": row
    for name in ("cifar10_vp", "cifar10_vp_dpm_solver", "cifar10_edm", "cifar10_pfgmpp", "imagenet64_edm")
    for nfe, row in getattr(published, name).items()
}


def test_every_row_is_there():
    assert list(published.cifar10_vp) == [519, 115, 75, 55, 43]
    assert list(published.cifar10_vp_dpm_solver) == [27, 24, 21, 18]
    assert list(published.imagenet64_edm) == [39, 67, 99, 165, 203, 385, 535, 623]
    assert list(published.cifar10_edm) == list(published.cifar10_pfgmpp) == [43]
    fids = {43: 2.70, 55: 2.45, 75: 2.27, 115: 2.21, 519: 2.11}
    assert {nfe: row.fid for nfe, row in published.cifar10_vp.items()} == fids
    with pytest.raises(TypeError):
        published.cifar10_vp[43] = None


@pytest.mark.parametrize("name", ROWS)
def test_calls_of_each_row(name):
    """Counted at the model, on VP, which reaches all of their grids."""
    row, calls = ROWS[name], []

    def model(y, sigma):
        calls.append(sigma)
        return y / (1.0 + sigma**2)

    run = sample(VP, model, plan=row.plan, n=1, shape=())
    assert len(calls) == run.nfe[0] == row.nfe == int(name.split()[1])
    assert np.isfinite(run.x).all()
    assert record.from_record(record.to_record(row.plan)) == row.plan


def test_published_grid():
    levels = [80.0, 57.586, 40.786, 28.375, 19.352, 12.910, 8.401, 5.315, 3.257, 1.923, 1.088, 0.5853, 0.2964, 0.1395, 0.05995, 0.0229, 0.0075]
    np.testing.assert_allclose(EDM.sigma_eff(grids.karras(18).times(EDM)), [*levels, 0.002, 0.0], rtol=4e-3)


@pytest.mark.parametrize(
    ("grid", "process", "want", "near"),
    [
        *((grids.karras(n), EDM, want, near) for n, pairs in {
            14: [(0.06, 0.0421), (1.09, 0.8229), (19.35, 19.946)],
            20: [(0.06, 0.0449)],
            36: [(0.06, 0.0555), (0.30, 0.2675), (0.59, 0.5233), (1.09, 0.9654), (19.35, 20.239)],
            18: [(0.06, 0.05995), (0.14, 0.1395), (0.30, 0.2964), (0.59, 0.5853), (1.09, 1.088), (19.35, 19.352)],
        }.items() for want, near in pairs),
        (grids.karras(18, 0.02), EDM, 0.06, 0.0481),  # VE's range
        *((grids.vp(n), VP, 0.06, 0.01049) for n in (5, 6, 7, 8)),
    ],
)  # fmt: skip
def test_published_snapping(grid, process, want, near):
    (jump,) = (m for m in plans.restart(grid, [(3, 1, want, 79.0)], snap="nearest").moves(process) if isinstance(m, Jump))
    assert float(process.sigma_eff(jump.s)) == pytest.approx(near, rel=2e-3)
    assert float(process.sigma_eff(jump.t)) == pytest.approx(79.0, rel=1e-10)


def test_dpm_solver_row():
    """Order 3, then 2, then the data, with the way back in order 3 before the last step."""
    prog = program(VP, published.cifar10_vp_dpm_solver[27].plan)
    assert [len(item.move.asks) for item in prog.items] == [3] * 6 + [2, 0, 3, 3, 1]
    ends = VP.sigma_eff(prog.times[[0, 7, 8, 10, 11]])
    np.testing.assert_allclose(ends, [152.17, 0.01049, 0.3, 0.01049, 0.0], rtol=1e-3, atol=1e-15)


def test_imagenet_rows_churn_in_their_window():
    """gamma = .05 in the ways back at levels in [.01, 1], S_noise 1.003 everywhere."""
    for row in published.imagenet64_edm.values():
        up = [m for m in row.plan.moves(EDM) if isinstance(m, Jump)]
        churned = np.array([EDM.sigma_eff([m.s, m.t]) for m in up if m.step > 0])
        np.testing.assert_allclose(churned[:, 1] / churned[:, 0], 1.05, rtol=1e-10)
        assert churned[:, 0].max() <= 1.0
        assert {m.scale for m in up} == {1.003}
    (interval,) = [i for i in published.imagenet64_edm[67].plan.transforms[0].intervals if i[2] == 0.06]
    assert interval == (5, 1, 0.06, 0.30)
    assert len(churned) == sum(K * (N - 1) for N, K, low, _ in row.plan.transforms[0].intervals if low < 0.5) + 6 * _below_one(36)


def _below_one(n):
    """Levels of the way back [.59, 1.09] in 7 points that start at 1 at most, from the snapped t_min."""
    levels = EDM.sigma_eff(grids.karras(n).times(EDM))
    low = levels[np.argmin(np.abs(levels - 0.59))]
    return int(np.sum(np.linspace(1.09 ** (1 / 7), low ** (1 / 7), 7)[:-1] ** 7 <= 1.0))


@pytest.mark.parametrize(("nfe", "variance"), [(43, 0.269498), (55, 0.262853), (75, 0.259124), (115, 0.258014)])
def test_exact_variance_of_the_published_rows(nfe, variance):
    """K = 2, 5, 10, 20 on N(0, 1/4): the fact sheet's linear recursion."""
    plan = published.cifar10_vp[nfe].plan
    assert float(analysis.exact_law(EDM, plan=plan, data=QUARTER).cov) == pytest.approx(variance, abs=6e-7)
    assert float(analysis.exact_law(VP, plan=plan, data=QUARTER).cov) == pytest.approx(variance, abs=6e-7)  # the same levels, the same map


def test_sampled_variance_of_a_published_row():
    x = sample(EDM, QUARTER.denoiser(), plan=published.cifar10_vp[43].plan, n=20_000, seed=5).x
    assert abs(np.mean(x**2) - 0.269498) < 4.0 * 0.269498 * np.sqrt(2.0 / 20_000)


def test_a_short_cycle_is_a_langevin_step():
    """t_max^2 = t_min^2 + 2h: the exact cycle is x + h grad log p + sqrt(2h) xi up to O(h^2) in x and O(h^(3/2)) in the noise."""
    low, v, gaps = 0.3, 0.25 + 0.09, []
    for h in (1e-3, 2.5e-4):
        plan = plans.restart(grids.sigmas([1.0, low]), [(2, 1, low, np.sqrt(low**2 + 2 * h))])
        cycle = true_map(EDM, plan.moves(EDM)[1:], np.zeros(1), np.array([0.25]))
        keep, noise = float(cycle.matrix[0, 0, 0]), float(np.linalg.norm(cycle.noise[0]))
        assert keep == pytest.approx(1.0 / np.sqrt(1.0 + 2.0 * h / v), rel=1e-10)
        gaps.append([abs(keep - (1.0 - h / v)), abs(noise - np.sqrt(2.0 * h))])
    np.testing.assert_allclose(np.log(np.divide(*gaps)) / np.log(4.0), [2.0, 1.5], atol=0.02)


# ---------------------------------------------------------------------------------------------------------------- latent diffusion

TABLE = tables.scaled_linear()
ABAR = np.array(TABLE.abar)
MAIN = [*range(958, 0, -33), 0]
WAYS = {
    2: {5: [914, 776, 639, 502, 364], 18: [934, 899, 864, 828, 793]},
    3: {29: [673, 598, 524, 449, 374, 300, 225, 150, 76, 1]},
    5: {29: [562, 500, 437, 375, 313, 250, 188, 126, 63, 1]},
    8: {29: [562, 500, 437, 375, 313, 250, 188, 126, 63, 1]},
}


def steps_by_hand(weight):
    """(label, label, Heun or not, cycle) of every step, main and in between, as the fact sheet has them; ways by the label they end at."""
    ways = {way[-1]: way for way in WAYS.get(weight, {}).values()}
    for t, s in pairwise(MAIN):
        yield t, s, False, None
        for cycle in range(2 if s in ways else 0):
            yield s, ways[s][0], False, cycle
            yield from ((a, b, b > 1, None) for a, b in pairwise(ways[s]))


def by_hand(weight, model, x, normals):
    """In x, with eps = (x - sqrt(abar) D) / sqrt(1 - abar)."""
    asked = []

    def eps(x, label):
        asked.append(label)
        a, s = np.sqrt(ABAR[label]), np.sqrt(1.0 - ABAR[label])
        return (x - a * model(x / a, s / a)) / s

    def ddim(x, e, t, s):
        start = (x - np.sqrt(1.0 - ABAR[t]) * e) / np.sqrt(ABAR[t])
        return np.sqrt(ABAR[s]) * start + np.sqrt(1.0 - ABAR[s]) * e

    draws = iter(normals)
    for t, s, heun, cycle in steps_by_hand(weight):
        if cycle is not None:
            ratio = ABAR[s] / ABAR[t]
            x = np.sqrt(ratio) * x + np.sqrt(1.0 - ratio) * next(draws)
            continue
        e = eps(x, t)
        x = ddim(x, 0.5 * e + 0.5 * eps(ddim(x, e, t, s), s) if heun else e, t, s)
    return x, asked


def intervals(weight):
    return [] if weight is None else published.stable_diffusion[weight]


@pytest.mark.parametrize(
    ("weight", "calls", "variance"), [(None, 30, 0.216570), (8, 64, 0.215260), (5, 64, 0.215260), (3, 64, 0.208463), (2, 62, 0.223312)]
)
def test_published_latent_diffusion(weight, calls, variance):
    plan = compatibility.diffusers_restart(TABLE, intervals(weight))
    exact = analysis.exact_law(TABLE.process, plan=plan, data=QUARTER, start="stationary")
    assert exact.nfe == calls
    assert float(exact.cov) == pytest.approx(variance, abs=6e-7)


@pytest.mark.parametrize("weight", [None, 2, 3, 8])
def test_latent_diffusion_by_hand(weight):
    """The same states from the same noise, and the same labels, as the released formulas; the network gets whole labels."""
    asked = []

    def network(x, label):
        asked.append(label)
        a, s = np.sqrt(ABAR[label]), np.sqrt(1.0 - ABAR[label])
        return (x - a * LAW.denoiser()(x / a, s / a)) / s

    plan = compatibility.diffusers_restart(TABLE, intervals(weight))
    begin = np.linspace(-2.0, 2.0, 5)
    moves = [m for m in plan.moves(TABLE.process) if isinstance(m, Jump)]
    normals = Addressed(3).draw([Address(MOVE, m.leg, m.step, 0) for m in moves], np.arange(5), ())
    want, labels = by_hand(weight, LAW.denoiser(), begin, normals)
    start = begin[None], float(TABLE.time(958))
    made = sample(TABLE.process, TABLE.denoiser(network, rounding="nearest"), plan=plan, start=start, seed=3)
    np.testing.assert_allclose(made.x, want, atol=1e-10)
    assert asked == labels


LAW = Gaussian(0.3, 0.25)


def test_latent_diffusion_is_heun_in_the_level():
    """The interval of weight 8 in sigma space, on x / sqrt(abar): Euler on the main labels, Heun on the way back but for its last step."""
    level = np.sqrt((1.0 - ABAR) / ABAR)
    plan = compatibility.diffusers_restart(TABLE, intervals(8))
    begin = np.linspace(-2.0, 2.0, 5)
    moves = [m for m in plan.moves(TABLE.process) if isinstance(m, Jump)]
    draws = iter(Addressed(3).draw([Address(MOVE, m.leg, m.step, 0) for m in moves], np.arange(5), ()))
    y, model = begin / np.sqrt(ABAR[958]), LAW.denoiser()
    for t, s, heun, cycle in steps_by_hand(8):
        if cycle is not None:
            y = y + np.sqrt(level[s] ** 2 - level[t] ** 2) * next(draws)
            continue
        d = (y - model(y, level[t])) / level[t]
        there = y + (level[s] - level[t]) * d
        y = y + (level[s] - level[t]) * 0.5 * (d + (there - model(there, level[s])) / level[s]) if heun else there
    made = sample(TABLE.process, model, plan=plan, start=(begin[None], float(TABLE.time(958))), seed=3)
    np.testing.assert_allclose(made.x / np.sqrt(ABAR[0]), y, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: compatibility.diffusers_restart(TABLE, [(5, 1, 11.6, 13.0)]), "moves to the first label 958"),
        (lambda: compatibility.diffusers_restart(TABLE, [(5, 1, 1.0, 9.0), (5, 1, 1.05, 5.0)]), "same label 364"),
        (lambda: compatibility.diffusers_restart(TABLE, [(50, 1, 1.0, 1.05)]), "use fewer points"),
        (lambda: compatibility.diffusers_restart(TABLE, [(2, 1, 0.12, 0.15)]), "widen it"),
        (lambda: compatibility.diffusers_restart(TABLE, [(1, 1, 0.1, 2.0)]), "N_restart = 1"),
        (lambda: compatibility.diffusers_restart(TABLE, intervals(8)).moves(tables.linear().process), "run it on table.process"),
        (lambda: compatibility.diffusers_restart(TABLE, intervals(8), n=2000), "n = 2000"),
    ],
)
def test_latent_diffusion_bad_input(make, match):
    with pytest.raises(BadInput, match=match):
        make()


# ---------------------------------------------------------------------------------------------------------------- guidance


def test_guidance_is_the_mixture_of_eps():
    """eps_u + w (eps_c - eps_u) at one evaluation, D_u + w (D_c - D_u) in the library: one state; one call counted, two made."""
    cond, free = Gaussian(1.0, 0.25), Gaussian(0.0, 1.0)
    calls = []

    def counted(law):
        inner = law.denoiser()

        def model(y, sigma):
            calls.append(law)
            return inner(y, sigma)

        model.shape = law.shape
        return model

    def network(x, label):
        a, s = np.sqrt(ABAR[label]), np.sqrt(1.0 - ABAR[label])
        e_c, e_u = ((x - a * law.denoiser()(x / a, s / a)) / s for law in (cond, free))
        return e_u + 7.5 * (e_c - e_u)

    network.shape = ()
    plan = compatibility.diffusers_restart(TABLE, intervals(8))
    made = sample(TABLE.process, denoiser.guided(counted(cond), counted(free), 7.5), plan=plan, n=4)
    same = sample(TABLE.process, TABLE.denoiser(network, rounding="nearest"), plan=plan, n=4)
    np.testing.assert_allclose(made.x, same.x, atol=1e-9)
    assert set(made.nfe) == {64}
    assert len(calls) == 128


def test_guidance_ends():
    y = np.linspace(-1.0, 1.0, 5)
    cond, free = Gaussian(1.0, 0.25).denoiser(), Gaussian(0.0, 1.0).denoiser()
    np.testing.assert_allclose(denoiser.guided(cond, free, 1.0)(y, 0.7), cond(y, 0.7), rtol=1e-14)
    np.testing.assert_array_equal(denoiser.guided(cond, free, 0.0)(y, 0.7), free(y, 0.7))


@pytest.mark.parametrize(
    ("inner", "outer", "weight", "low", "expected"),
    [(0.25, 1.0, 5.0, 0.1, 0.002055), (0.25, 0.5, 3.0, 0.1, 0.0724), (0.25, 0.25, 4.0, 0.1, 0.26)],
)
def test_what_guided_restart_leaves_unchanged(inner, outer, weight, low, expected):
    """The stationary variance a_w^2 s^2 / (1 - a_w^2) at .1 of cycles up to 2, with a_w from the fine flow; equal variances keep the law."""
    model = denoiser.guided(Gaussian(0.0, inner).denoiser(), Gaussian(0.0, outer).denoiser(), weight)
    grid = grids.karras(400, sigma_min=low, sigma_max=2.0, zero=False)
    gain = float(sample(EDM, model, method=methods.heun(), grid=grid, start=(np.ones((1, 1)), 2.0)).x[0])
    a_w = ((inner + low**2) / (inner + 4.0)) ** (weight / 2) * ((outer + low**2) / (outer + 4.0)) ** ((1.0 - weight) / 2)
    assert gain == pytest.approx(a_w, rel=1e-3)
    assert a_w**2 * (4.0 - low**2) / (1.0 - a_w**2) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: denoiser.guided(LAW.denoiser(), None, 2.0),
        lambda: denoiser.guided(denoiser.StateScore(lambda z, t: z), LAW.denoiser(), 2.0),
        lambda: denoiser.guided(LAW.denoiser(), Gaussian([0.0], 1.0).denoiser(), 2.0),
        lambda: denoiser.guided(LAW.denoiser(), LAW.denoiser(), float("nan")),
    ],
)
def test_guidance_bad_input(make):
    with pytest.raises(BadInput):
        make()


def test_published_settings_on_other_processes():
    """The same levels and calls on two blocks."""
    row = published.cifar10_edm[43]
    made, same = program(psld(), row.plan), program(EDM, row.plan)
    assert made.nfe == 43
    top = psld().sigma_eff(psld().T)
    levels = psld().sigma_eff(made.times)
    assert levels[0] == pytest.approx(min(80.0, float(top)), rel=1e-9)
    if top >= 80.0:
        np.testing.assert_allclose(levels, EDM.sigma_eff(same.times), rtol=1e-7, atol=1e-12)
