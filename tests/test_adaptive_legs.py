"""Restart with adaptive legs: the paths of fine fixed legs, legs that end where they should, noise by leg, and what refuses them."""

from dataclasses import replace

import numpy as np
import pytest

import sdekit as sk
from sdekit import BadInput, analysis, catalogue, control, grids, methods, plans
from sdekit.law import Gaussian, Mixture
from sdekit.plans import Jump, Run

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])
MAIN = grids.sigmas([8.0, 1.0, 0.05])
INTERVALS = [(3, 2, 0.3, 1.5), (4, 1, 0.06, 0.2)]
TIGHT = control.adaptive(methods.runge_kutta("dormand_prince"), 1e-7, 1e-7)
LOOSE = control.adaptive(methods.heun(1.0), 0.05, 0.01)


@pytest.mark.parametrize("name", ["vp", "psld"])
def test_tight_legs_are_fine_legs(name):
    """The ODE: sample by sample the result of fixed legs of a hundred steps, since jumps draw the same normals."""
    process = getattr(catalogue, name)()
    levels = np.exp(np.linspace(np.log(8.0), np.log(0.05), 121))
    fine = [(100, K, low, high) for _, K, low, high in INTERVALS]
    fixed = plans.restart(grids.sigmas(levels), fine, method=methods.runge_kutta("dormand_prince"))
    want = sk.sample(process, LAW.denoiser(), plan=fixed, n=6, seed=4)
    run = sk.sample(process, LAW.denoiser(), plan=plans.restart(MAIN, INTERVALS, method=TIGHT), n=6, seed=4)
    assert set(run.status) == {"ok"}
    np.testing.assert_allclose(run.state, want.state, atol=3e-6)
    assert np.all(run.nfe < want.nfe / 2)


def test_legs_end_where_they_should():
    """Times of each sample: through every t_min, up by the jumps, and never across; calls are those of the model."""
    process, sizes = catalogue.vp(), []

    def counting(y, sigma):
        sizes.append(len(y))
        return LAW.denoiser()(y, sigma)

    plan = plans.restart(MAIN, INTERVALS, method=LOOSE)
    run = sk.sample(process, counting, plan=plan, n=5, shape=(2,), batch=3, seed=1)
    moves = plan.moves(process)
    ends = [move.times[-1] for move in moves if isinstance(move, Run)]
    for times in run.adapted.times:
        starts = np.flatnonzero(np.diff(times, prepend=np.inf, append=np.inf) >= 0.0)
        starts = np.unique([0, *starts[:-1]])
        legs = np.split(times, starts[1:])
        seen = [leg[-1] for leg in legs]
        assert [t for t in seen if t in ends] == seen
    assert sum(isinstance(move, Jump) for move in moves) == 3
    np.testing.assert_array_equal(run.adapted.t, np.full(5, ends[-1]))
    assert sum(sizes) == np.sum(run.nfe) == np.sum(run.adapted.calls)
    assert max(sizes) <= 3
    assert len(set(run.nfe.tolist())) > 1


def test_noise_belongs_to_its_leg():
    """Every normal of a run has an address of its own; another K leaves what comes before alone, and samples stand alone."""
    process, drawn = catalogue.vp(), []

    class Seen(sk.noise.Addressed):
        def words(self, addresses, steps, ids):
            drawn.extend((*a._replace(step=int(step)), int(i)) for a in addresses for step, i in zip(steps, ids, strict=True))
            return super().words(addresses, steps, ids)

    plan = plans.restart(MAIN, INTERVALS, method=LOOSE)
    run = sk.sample(process, LAW.denoiser(), plan=plan, n=4, seed=Seen(2))
    assert len(set(drawn)) == len(drawn) > 50
    assert {address[1] for address in drawn} == {0, 1, 2, 1025}
    few = sk.sample(process, LAW.denoiser(), plan=plan, ids=[3, 1], seed=2, batch=1)
    np.testing.assert_allclose(few.state, run.state[:, [3, 1]], rtol=1e-9)
    seen = [[], []]
    for store, K in zip(seen, (1, 2), strict=True):
        made = plans.restart(MAIN, [(3, K, 0.3, 1.5)], method=LOOSE)
        sk.sample(process, LAW.denoiser(), plan=made, n=3, seed=2, watch=lambda event, store=store: store.append(event.state[0].copy()))
    for one, two in zip(seen[0][:3], seen[1][:3], strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(seen[1][4], seen[1][2])


@pytest.mark.parametrize("used", [LOOSE, control.adaptive(methods.heun(), 0.02, 0.005)])
def test_restart_keeps_the_law(used):
    """Gaussian data, eight cycles, from the exact marginal: mean and variance at t_min within 4.5 standard errors."""
    law, process, n = Gaussian([0.3], [0.25]), catalogue.vp(), 2000
    run = sk.sample(process, law.denoiser(), plan=plans.restart(grids.sigmas([2.0, 0.3]), [(3, 8, 0.3, 1.5)], method=used), n=n, seed=3, start=law)
    kernel = process.kernel(float(process.time_of(0.3)))
    mean, var = float(kernel.psi[0]) * 0.3, float(kernel.psi[0]) ** 2 * 0.25 + float(kernel.cov[0, 0])
    assert abs(np.mean(run.x) - mean) < 4.5 * np.sqrt(var / n)
    assert abs(np.var(run.x) / var - 1.0) < 4.5 * np.sqrt(2.0 / n) + 0.01


def test_to_the_data_and_back():
    """Legs from t_min = 0 end at the data, in one call; a leg without a time before the data is refused."""
    process, law = catalogue.edm(), Gaussian([0.3], [0.25])
    plan = plans.restart(grids.karras(6), [(4, 2, 0.0, 0.5)], method=LOOSE)
    run = sk.sample(process, law.denoiser(), plan=plan, n=3)
    assert set(run.status) == {"ok"}
    assert np.all(run.adapted.t == 0.0)
    levels = process.sigma_eff(run.adapted.times[0])
    assert np.sum(np.isclose(levels, 0.5)) >= 2
    with pytest.raises(BadInput, match="needs a time before"):
        sk.sample(process, law.denoiser(), plan=plans.restart(grids.karras(6), [(2, 1, 0.0, 0.5)], method=LOOSE), n=3)


def test_what_stops_in_a_leg_stays_there():
    process = catalogue.vp()
    run = sk.sample(process, LAW.denoiser(), plan=plans.restart(MAIN, INTERVALS, method=replace(LOOSE, nfe=12)), n=6, seed=1)
    stopped = np.array([status == "budget" for status in run.status])
    assert np.any(stopped)
    assert np.all(run.adapted.t[stopped] > plans.run(MAIN).moves(process)[0].times[-1])


def test_what_refuses_adaptive_legs():
    plan, process, law = plans.restart(MAIN, INTERVALS, method=LOOSE), catalogue.vp(), Gaussian(0.3, 0.25)
    with pytest.raises(BadInput, match="adaptive legs"):
        analysis.exact_law(process, plan=plan, data=law)
    with pytest.raises(BadInput, match="churn = "):
        plans.restart(MAIN, INTERVALS, method=LOOSE, churn=0.1)
    with pytest.raises(BadInput, match="give neither"):
        sk.sample(process, law.denoiser(), plan=plan, n=2, save="all")
