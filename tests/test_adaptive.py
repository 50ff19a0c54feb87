"""Adaptive runs: the law under rejection, independence of slots and neighbours, counts of calls, statuses, and ODE pairs against their peers."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import sdekit as sk
from sdekit import catalogue, control, grids, methods
from sdekit.law import Mixture

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])
FAST = control.gotta_go_fast(0.1)
SHORT = grids.times([1.0, 0.05, 0.0])


def isotropic(variance):
    def denoise(y, sigma):
        level = np.reshape(sigma, (-1, *(1,) * (y.ndim - 1)))
        return variance / (variance + level**2) * y

    return denoise


def ratio(mode, d, n, process, std, atol):
    """Variance of the run over the true one at the last time, by moments about zero, and its standard error for normal samples."""
    made = replace(control.gotta_go_fast(0.05, atol, published=mode != "path"), noise=mode)
    grid = grids.times([1.0, 1e-3 if process.sigma_eff(0.0) == 0.0 else 1e-5])
    run = sk.sample(process, isotropic(std**2), control=made, grid=grid, n=n, shape=(d,), seed=5)
    assert set(run.status) == {"ok"}
    kernel = process.kernel(grid.times(process)[-1])
    true = float(kernel.psi[0] ** 2 * std**2 + kernel.cov[0, 0])
    return np.mean(run.x**2) / true, np.sqrt(2.0 / (n * d)), run


@pytest.mark.parametrize(("mode", "known"), [("path", 1.0), ("redraw", 2.33), ("retain", 1.35)])
def test_law_under_rejection_in_one_dimension(mode, known):
    """VP, data of deviation 0.5, rtol 0.05: within 4 standard errors (and the 0.05 to which the biased numbers are known)."""
    found, spread, _ = ratio(mode, 1, 1500, catalogue.vp(), 0.5, 0.0078)
    assert abs(found - known) < 4.0 * known * spread + (0.05 if known > 1.0 else 0.0)


@pytest.mark.parametrize("mode", ["path", "redraw", "retain"])
def test_law_under_rejection_in_many_dimensions(mode):
    found, spread, run = ratio(mode, 256, 32, catalogue.vp(), 0.5, 0.0078)
    assert abs(found - 1.0) < max(0.02, 3.0 * spread)
    assert 0.02 < np.sum(run.adapted.rejected) / np.sum(run.adapted.rejected + run.adapted.accepted) < 0.12


@pytest.mark.parametrize(("mode", "known"), [("path", 0.97), ("retain", 1.58)])
def test_law_under_rejection_on_ve(mode, known):
    found, spread, _ = ratio(mode, 1, 1000, catalogue.ve(), 0.25, 0.0039)
    assert abs(found - known) < 4.0 * known * spread + 0.13


def drawn(**changes):
    how = {"ids": np.arange(20), **{key: changes.pop(key) for key in ("ids", "batch", "dtype", "start") if key in changes}}
    process = changes.pop("process", catalogue.psld())
    return sk.sample(process, LAW.denoiser(), control=replace(FAST, **changes), grid=SHORT, seed=3, **how)


REFERENCE = drawn(batch=64)


@pytest.mark.parametrize(
    "changes", [{"batch": 1, "ids": np.array([4, 0])}, {"batch": 7}, {"batch": 7, "refill": False}, {"ids": np.arange(20)[::-1], "batch": 5}]
)
def test_samples_do_not_depend_on_slots(changes):
    """Batches of 1, 7 and 64, refilled or static, other neighbours, another order: the same samples, bit for bit, and the same calls."""
    run = drawn(**changes)
    np.testing.assert_array_equal(run.state, REFERENCE.state[:, run.ids])
    np.testing.assert_array_equal(run.nfe, REFERENCE.nfe[run.ids])
    assert all(np.array_equal(times, REFERENCE.adapted.times[i]) for i, times in zip(run.ids, run.adapted.times, strict=True))
    assert np.sum(run.adapted.calls) == np.sum(run.nfe)
    assert np.max(run.adapted.calls) <= changes.get("batch", 64)


def test_calls_are_counted_where_they_are_made():
    """A rejection makes the first call of its step once; the published run repeats it; both call once for the data."""
    seen = []

    def counting(y, sigma):
        seen.append((len(y), np.shape(sigma)))
        return LAW.denoiser()(y, sigma)

    run = sk.sample(catalogue.vp(), counting, control=FAST, n=9, shape=(2,), batch=4)
    made = run.adapted
    np.testing.assert_array_equal(run.nfe, 2 * made.accepted + made.rejected + 1)
    assert made.calls.tolist() == [n for n, _ in seen]
    assert all(shape == (n,) for n, shape in seen)
    assert np.all(made.t == 0.0)
    assert np.sum(made.rejected) > 0
    static = sk.sample(catalogue.vp(), LAW.denoiser(), control=replace(FAST, refill=False), n=9, batch=4)
    np.testing.assert_array_equal(static.x, run.x)
    assert len(static.adapted.calls) > len(made.calls)
    old = sk.sample(catalogue.vp(), LAW.denoiser(), control=control.gotta_go_fast(0.05, published=True), n=9)
    np.testing.assert_array_equal(old.nfe, 2 * (old.adapted.accepted + old.adapted.rejected) + 1)


def test_accepted_times_are_the_grid_of_the_sample():
    """The ODE on each sample's own accepted times makes the sample again; samples in slots that are filled again, and some that stop."""
    made = control.adaptive(methods.heun(), 0.02)
    run = sk.sample(catalogue.vp(), LAW.denoiser(), control=made, n=7, batch=3, grid=SHORT, seed=2)
    assert {len(times) - 1 for times in run.adapted.times} == set(run.adapted.accepted.tolist())
    assert run.adapted.rejected.sum() > 0
    assert len(set(run.adapted.accepted.tolist())) > 1
    for i, times in enumerate(run.adapted.times):
        grid = grids.times([*times, 0.0])
        again = sk.sample(catalogue.vp(), LAW.denoiser(), method=methods.heun(), grid=grid, ids=[i], seed=2)
        np.testing.assert_allclose(again.x[0], run.x[i], atol=1e-9)
    short = sk.sample(catalogue.vp(), LAW.denoiser(), control=replace(made, nfe=12), n=3, grid=SHORT, seed=2)
    assert [times[-1] for times in short.adapted.times] == short.adapted.t.tolist()


def test_last_stage_serves_the_next_step():
    """Dormand and Prince: six calls an attempt and one at the start; the data come from the last answer."""
    run = sk.sample(catalogue.vp(), LAW.denoiser(), control=control.adaptive(methods.runge_kutta("dormand_prince"), 1e-4, 1e-5), n=3)
    np.testing.assert_array_equal(run.nfe, 6 * (run.adapted.accepted + run.adapted.rejected) + 1)


def test_a_bad_sample_does_not_stop_the_others():
    """Not-a-number wherever y > 3 at low levels: those samples are flagged and finite, the others as without it."""

    def broken(y, sigma):
        level = np.reshape(sigma, (-1, 1))
        return np.where((np.abs(y) > 0.9) & (level < 0.5), np.nan, LAW.denoiser()(y, sigma))

    run = sk.sample(catalogue.psld(), broken, control=FAST, grid=SHORT, n=20, shape=(2,), seed=3, batch=7)
    bad = np.array([s == "nonfinite" for s in run.status])
    assert 0 < np.sum(bad) < 20
    assert np.all(np.isfinite(run.state))
    np.testing.assert_array_equal(run.state[:, ~bad], REFERENCE.state[:, ~bad])
    assert np.all(run.adapted.t[bad] >= 0.05)


def test_a_score_that_is_infinite_at_one_time():
    def wall(y, sigma):
        return np.where(np.reshape(sigma, (-1, 1)) < 0.5, np.inf, 0.5 * y)

    run = sk.sample(catalogue.vp(), wall, control=FAST, n=5, shape=(2,))
    assert run.status == ("nonfinite",) * 5
    assert np.all(np.isfinite(run.x))
    assert np.all(catalogue.vp().sigma_eff(run.adapted.t) >= 0.5)


def test_limits_are_statuses():
    """A budget of calls, of time, and a smallest step: samples keep what they have, and nothing loops."""
    few = drawn(nfe=40, batch=6)
    assert set(few.status) == {"budget"}
    assert np.all((few.nfe <= 40) & (few.nfe >= 37))
    assert np.all((few.adapted.t > 0.0) & (few.adapted.t < 1.0))
    assert np.all(np.any(few.state != 0.0, axis=(0, 2)))
    assert set(drawn(seconds=1e-9, batch=6).status) == {"budget"}
    tight = drawn(rtol=0.0, atol=1e-12, h_min=1e-4)
    assert set(tight.status) == {"h_min"}
    assert np.all(np.isfinite(tight.state))


def test_torch_is_numpy():
    """Over the first 40 calls: controls amplify rounding from step to step, so that long runs of few elements agree in law alone."""
    torch = pytest.importorskip("torch")
    run, known = drawn(dtype=torch.float64, nfe=40), drawn(nfe=40)
    np.testing.assert_allclose(run.state.numpy(), known.state, rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(run.nfe, known.nfe)
    assert np.max(np.abs(run.adapted.t - known.adapted.t)) < 1e-10


def test_a_model_of_the_whole_state():
    """The exact score of the state gives what the denoiser gives; it is asked with one time for each sample."""
    process, denoise = catalogue.psld(), LAW.denoiser()

    def score(z, t):
        kernel = process.kernel(np.asarray(t))
        y = np.einsum("nk,kn...->n...", kernel.observe, z)
        gap = z - np.einsum("nk,n...->kn...", kernel.psi, denoise(y, kernel.sigma_eff))
        return -np.einsum("nkl,ln...->kn...", np.linalg.inv(kernel.cov), gap)

    run = sk.sample(process, sk.denoiser.StateScore(score, (2,)), control=replace(FAST, nfe=40), grid=SHORT, n=20, seed=3)
    np.testing.assert_allclose(run.state, drawn(nfe=40).state, rtol=1e-6, atol=1e-7)


ODE = {
    "heun": methods.heun(),
    "bogacki_shampine": methods.runge_kutta("bogacki_shampine"),
    "dormand_prince": methods.runge_kutta("dormand_prince"),
    "dpm_12": methods.dpm_solver(2),
    "dpm_23": methods.dpm_solver(3),
    "rho_rk": methods.rho_rk("bogacki_shampine"),
    "exponential_rk": methods.exponential_rk(2),
}
START = 0.8 * np.random.default_rng(1).standard_normal((2, 6, 2))


def solution(process, z, times):
    """By scipy: Dormand and Prince's eighth-order method at 1e-11."""

    def slope(t, flat):
        z = flat.reshape(process.k, -1, 2)
        pull = 0.5 * process.noise(t) @ process.noise(t).T
        drift = np.tensordot(process.drift(t), z, 1) - np.tensordot(pull, sk.denoiser.score(process, LAW.denoiser(), z, t), 1)
        return drift.ravel()

    return solve_ivp(slope, times, z.ravel(), method="DOP853", rtol=1e-11, atol=1e-11).y[:, -1].reshape(z.shape)


TRUTH = {name: solution(getattr(catalogue, name)(), START[:k], (0.9, 0.05)) for name, k in (("vp", 1), ("psld", 2))}


@pytest.mark.parametrize(
    ("process", "name", "tolerances", "known"),
    [
        *(("vp", name, (1e-2, 1e-4), 3e-3) for name in ODE),
        ("psld", "heun", (1e-2, 1e-3), 6e-3),
        ("psld", "bogacki_shampine", (1e-2, 1e-4), 3e-3),
        ("psld", "dormand_prince", (1e-2, 1e-4), 3e-3),
        ("psld", "dpm_12", (1e-1, 1e-2), 3e-2),
    ],
)
def test_ode_error_follows_the_tolerance(process, name, tolerances, known):
    """The error falls with the tolerance, by nearly as much, to a few times it; the solution is scipy's."""
    made = getattr(catalogue, process)()
    z = START[: made.k]
    errors = []
    for rtol in tolerances:
        run = sk.sample(made, LAW.denoiser(), control=control.adaptive(ODE[name], rtol, rtol), grid=grids.times([0.9, 0.05]), start=(z, 0.9))
        assert set(run.status) == {"ok"}
        errors.append(np.max(np.abs(run.state - TRUTH[process])))
    assert errors[1] < known
    assert 0.4 < np.log10(errors[0] / errors[1]) / np.log10(tolerances[0] / tolerances[1]) < 1.3


def test_dormand_prince_is_scipys_solution():
    run = sk.sample(
        catalogue.vp(),
        LAW.denoiser(),
        control=control.adaptive(ODE["dormand_prince"], 1e-9, 1e-9),
        grid=grids.times([0.9, 0.05]),
        start=(START[:1], 0.9),
    )
    np.testing.assert_allclose(run.state, TRUTH["vp"], atol=3e-8)


@pytest.mark.parametrize(("name", "method"), [("vp", methods.sra(1)), ("psld", methods.heun(1.0))], ids=str)
def test_processes_agree_in_law(name, method):
    """Mean and covariance of the mixture from every process, within 4.5 standard errors."""
    n = 500
    run = sk.sample(getattr(catalogue, name)(), LAW.denoiser(), control=control.adaptive(method, 0.1, 0.01), n=n, seed=2, batch=n)
    assert set(run.status) == {"ok"}
    exact = LAW.sample(400_000, seed=9)
    mean, cov = np.mean(exact, axis=0), np.cov(exact.T)
    gap = (run.x - mean).T
    assert np.max(np.abs(np.mean(gap, axis=1)) / np.sqrt(np.diag(cov) / n)) < 4.5
    squares = np.einsum("in,jn->ijn", gap, gap)
    spread = np.sqrt(np.var(np.einsum("ni,nj->ijn", exact - mean, exact - mean), axis=-1) / n)
    assert np.max(np.abs(np.mean(squares, axis=-1) - cov) / spread) < 4.5


@pytest.mark.parametrize("made", [FAST, control.adaptive(methods.heun(), 0.02)], ids=["path", "ode"])
def test_times_to_visit(made):
    """Saved states are those of a run that ends there; steps are cut there and go on as planned; the law of what follows is as it was."""
    run = sk.sample(catalogue.psld(), LAW.denoiser(), control=made, grid=SHORT, n=9, batch=4, seed=3, save=[0.3, 1.0, 0.6])
    np.testing.assert_array_equal(run.saved.times, [1.0, 0.6, 0.3])
    for t, state in zip(run.saved.times[1:], run.saved.state[1:], strict=True):
        assert all(t in times for times in run.adapted.times)
        visits = [other for other in run.saved.times if other > t]
        short = sk.sample(catalogue.psld(), LAW.denoiser(), control=made, grid=grids.times([1.0, t]), n=9, seed=3, save=visits)
        np.testing.assert_allclose(short.state, state, rtol=1e-9, atol=1e-12)
    begin = sk.sampling.begin_at(catalogue.psld(), 1.0, None, run.ids, (2,), sk.noise.Addressed(3), np.empty(0))
    np.testing.assert_array_equal(run.saved.state[0], begin)


def test_a_step_cut_at_a_visit_does_not_make_the_next_one_small():
    """Visits that leave 2 % of a step: the step after the cut is no smaller than 0.9 times the one before it."""
    made = control.adaptive(methods.heun(), 0.02)
    plain = sk.sample(catalogue.psld(), LAW.denoiser(), control=made, grid=SHORT, n=1, seed=3).adapted.times[0]
    visit = 0.98 * plain[8] + 0.02 * plain[9]
    times = sk.sample(catalogue.psld(), LAW.denoiser(), control=made, grid=SHORT, n=1, seed=3, save=[visit]).adapted.times[0]
    np.testing.assert_array_equal(times[:9], plain[:9])
    assert times[9] == visit
    assert times[9] - times[10] > 0.9 * (plain[7] - plain[8])


def test_a_sample_that_stops_keeps_what_it_had():
    run = drawn_with_save(nfe=30)
    for t, state in zip(run.saved.times, run.saved.state, strict=True):
        stopped = run.adapted.t > t
        assert np.any(stopped)
        np.testing.assert_array_equal(state[:, stopped], run.state[:, stopped])
    assert set(drawn_with_save(seconds=1e-9).status) == {"budget"}
    with pytest.raises(sk.BadInput, match=r"save: t = 2 must lie in \[0.05, 1\]"):
        sk.sample(catalogue.psld(), LAW.denoiser(), control=FAST, grid=SHORT, n=2, save=[2.0])
    with pytest.raises(sk.BadInput, match="times of its own"):
        sk.sample(catalogue.psld(), LAW.denoiser(), control=FAST, grid=SHORT, n=2, save="all")


def drawn_with_save(**changes):
    return sk.sample(catalogue.psld(), LAW.denoiser(), control=replace(FAST, **changes), grid=SHORT, n=9, batch=4, seed=3, save=[0.6, 0.3])
