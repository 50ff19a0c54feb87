"""Tuned grids: the mesh against closed forms, the W2 against exact laws, and laws that the choice did not see."""

import json

import numpy as np
import pytest
from processes import cld, edm, psld, ve, vp
from scipy.integrate import solve_ivp

from sdekit import BadInput, analysis, grids, methods, sampling
from sdekit.analysis.families import Spectrum, power_law
from sdekit.analysis.tuning import _density
from sdekit.law import Empirical, Gaussian, Mixture
from sdekit.record import from_record, to_record

FAMILY = [power_law(power, scale, 16) for power in (1.5, 2.5) for scale in (0.25, 1.0)]
UNSEEN = [power_law(2.0, 0.5, 16), power_law(1.75, 0.8, 16), power_law(3.0, 0.3, 16)]


def test_power_law():
    law = power_law(2.0, 0.5, 3)
    np.testing.assert_allclose(law.variances, [0.25, *[0.25 / 4] * 4, *[0.25 / 9] * 9], rtol=1e-14)
    assert not np.any(law.mean)


@pytest.mark.parametrize("std", [0.3, 2.0])
def test_the_mesh_for_ddim_is_the_arctan_grid(std):
    r"""For data N(m, v) a step of DDIM errs by :math:`-h^2 a (1 - a) / 2`, :math:`a = \sigma^2 / (v + \sigma^2)`; the density that spreads its root
    evenly is that of :math:`\arctan(\sigma / \sqrt v)`, the grid which Align Your Steps derives from a bound on KL."""
    levels, found = _density(vp(), methods.ddim(), Spectrum.of([Gaussian(0.0, std**2)]), 0.01, 100.0, 96)
    sigma = np.exp(levels)
    formula = std * sigma / (std**2 + sigma**2)
    np.testing.assert_allclose((found - 0.02) / formula, np.mean((found - 0.02) / formula), rtol=0.03)


def test_the_mesh_for_second_order_by_its_formula():
    """One step of the multistep method of order 2 on data N(0, v), written out: the density is the root of order 3 of its error."""
    v, h = 0.25, np.log(1e4) / 96
    levels, found = _density(vp(), methods.exponential(2), Spectrum.of([Gaussian(0.0, v)]), 0.01, 100.0, 96)
    sigma = np.exp(levels)
    defects = []
    for s in sigma:
        past, here, there = s * np.exp(1.5 * h), s * np.exp(0.5 * h), s * np.exp(-0.5 * h)
        y = np.sqrt((v + np.array([past, here, there]) ** 2) / (v + here**2))  # on the exact path, 1 at the start of the step
        data = v / (v + np.array([past, here]) ** 2) * y[:2]
        slope = (data[1] - data[0]) / h
        made = np.exp(-h) * y[1] - np.expm1(-h) * data[1] + (h + np.expm1(-h)) * slope
        defects.append(abs(made / y[2] - 1.0))
    inner = (sigma > 0.05) & (sigma < 20.0)
    cubes, formula = (found[inner] - 0.02) ** 3, np.array(defects)[inner]
    np.testing.assert_allclose(cubes / np.max(cubes), formula / np.max(formula), atol=0.015)


@pytest.mark.parametrize(
    ("make", "method", "end"),
    [(vp, methods.exponential(2), True), (psld, methods.exponential(2, noise=1.0), True), (cld, methods.heun(), False)],
    ids=["vp", "psld", "cld"],
)
def test_w2_is_that_of_the_exact_law(make, method, end):
    """Equal modes are computed once and laws side by side; nothing of that may show.  Laws with means, and with full covariances."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    laws = [power_law(2.0, 0.5, 3), Gaussian([0.4, -1.0, 0.4], [0.3, 0.2, 0.3]), Gaussian(rng.normal(size=4), root @ root.T / 4.0)]
    found = analysis.tune_grid(make(), method, 5, data=laws[:2], judge=laws[2:], end=end, evaluations=12)
    rivals = {"karras": grids.karras(5, zero=end, sigma_max=1e9), "logsnr": grids.logsnr(5, zero=end, sigma_max=1e9)}
    rivals["uniform"] = grids.uniform(5, 0.0 if end else None)
    assert [row.seen for row in found.rows] == [True, True, False]
    for row, law in zip(found.rows, laws, strict=True):
        assert row.error == pytest.approx(analysis.exact_law(make(), method=method, grid=found.grid, data=law).w2, rel=1e-9)
        for name, grid in rivals.items():
            assert row.others[name] == pytest.approx(analysis.exact_law(make(), method=method, grid=grid, data=law).w2, rel=1e-9)
    assert found.nfe == analysis.exact_law(make(), method=method, grid=found.grid, data=laws[0]).nfe


TRAINED = [Mixture([0.5, 0.5], [-0.7, 0.6], [0.02, 0.09]), Mixture([0.3, 0.4, 0.3], [-1.0, 0.2, 0.9], [0.01, 0.1, 0.03])]
OTHERS = [Mixture([0.3, 0.7], [-1.0, 0.8], [0.0625, 0.16]), Mixture([0.6, 0.4], [[-0.5, 0.2], [0.4, -0.6]], [0.04, 0.02])]


def test_errors_on_mixtures_are_those_of_paths():
    """By an independent integrator of the ODE in log sigma, from the same starts, on the variance-preserving process."""
    method = methods.exponential(2)
    found = analysis.tune_grid(vp(), method, 6, data=OTHERS, evaluations=1)
    for row, law in zip(found.rows, OTHERS, strict=True):
        top, denoise = float(vp().sigma_eff(1.0)), law.denoiser()
        psi, noise = vp().kernel(1.0).psi[0], vp().kernel(1.0).chol[0, 0]
        y = noise / psi * np.random.default_rng(0).standard_normal((64, *law.shape))
        exact = solve_ivp(lambda u, flat, law=law, shape=y.shape: flat - law.denoiser()(flat.reshape(shape), np.exp(u)).ravel(), np.log([top, 1e-4]),
                          y.ravel(), method="DOP853", rtol=1e-9, atol=1e-11).y[:, -1].reshape(y.shape)  # fmt: skip
        start = sampling.sample(vp(), denoise, method=method, grid=found.grid, n=64, start=(psi * y[None], 1.0))
        assert row.error == pytest.approx(np.sqrt(np.mean(np.sum((start.x - exact).reshape(64, -1) ** 2, axis=1))), rel=1e-4)


def test_mixtures_transfer():
    found = analysis.tune_grid(vp(), methods.exponential(3), 14, data=TRAINED, judge=OTHERS, evaluations=80)
    assert all(row.error < 0.7 * min(row.others.values()) for row in found.rows)


def test_a_step_of_the_methods_own_to_the_data():
    """Where the model knows no level below 0.05, an own last step in sigma extrapolates to the data; denoising leaves the bias of that level."""
    method = methods.exponential(3, clock="sigma")
    denoised, own = (analysis.tune_grid(vp(), method, 10, data=FAMILY, judge=UNSEEN, sigma_min=0.05, end=end) for end in (True, "method"))
    made = vp().sigma_eff(own.grid.times(vp()))
    assert len(made) == 11
    assert made[-1] == pytest.approx(1e-5 * made[-2], rel=1e-6)
    assert made[-2] >= 0.05 * (1.0 - 1e-9)
    assert all(a.error < 0.8 * b.error for a, b in zip(own.rows, denoised.rows, strict=True))
    assert own.nfe == denoised.nfe == 10


def test_transfer():
    """A grid free in all its eight points, fitted to one law, serves others no better than no tuning; three bends and an end, fitted to a family,
    serve spectra of other powers and scales."""
    method, n = methods.exponential(2), 8
    free = analysis.tune_grid(vp(), method, n, data=[Gaussian([0.0, 0.0], [0.25, 0.04])], judge=UNSEEN, bends=n - 1)
    few = analysis.tune_grid(vp(), method, n, data=FAMILY, judge=UNSEEN)
    assert free.rows[0].error < 1e-3 * free.rows[0].others["logsnr"]
    assert np.mean([np.log(row.error / row.others["logsnr"]) for row in free.rows if not row.seen]) > 0.0
    assert all(row.error < 0.4 * min(row.others.values()) for row in few.rows)
    assert all(ours.error < 0.2 * theirs.error for ours, theirs in zip(few.rows[-3:], free.rows[-3:], strict=True))


def test_the_optimum_is_one_in_every_parameter():
    """The mean logarithm rises on both sides of each parameter, the lowest level among them; and the mesh was far above."""
    method, n = methods.exponential(2), 10
    found = analysis.tune_grid(vp(), method, n, data=FAMILY)

    def error(bends, low):
        grid = grids.bent(n, bends, low, 1e9)
        return np.mean([np.log(analysis.exact_law(vp(), method=method, grid=grid, data=law).w2 / np.sqrt(np.sum(law.variances))) for law in FAMILY])

    here = error(found.bends, found.sigma_min)
    assert found.grid == grids.bent(n, found.bends, found.sigma_min, float(vp().sigma_eff(1.0)))
    assert here < np.log(found.start) - 2.0
    for factor in (0.8, 1.25):
        assert error(found.bends, factor * found.sigma_min) > here
    for step in 0.05 * np.vstack([np.eye(3), -np.eye(3)]):
        assert error(np.add(found.bends, step), found.sigma_min) > here


def test_the_mesh_alone():
    """Without search: for one law and DDIM, whose errors have one sign, as good as the arctan grid of its own scale, and better than the others."""
    law, n = Gaussian(0.0, 0.25), 16
    found = analysis.tune_grid(vp(), methods.ddim(), n, data=[law], evaluations=12)
    assert found.evaluations == 12
    best = min(
        analysis.exact_law(vp(), method=methods.ddim(), grid=grids.arctan(n, low, 1e9, 0.5), data=law).w2 for low in np.geomspace(0.01, 0.3, 20)
    )
    assert found.rows[0].error < 1.1 * best
    assert found.rows[0].error < 0.5 * min(found.rows[0].others.values())


@pytest.mark.parametrize(
    ("make", "method", "n", "end", "gain"),
    [(edm, methods.heun(), 10, True, 0.6), (ve, methods.exponential(2), 10, True, 1.0), (vp, methods.exponential(2, noise=1.0), 10, True, 0.1),
     (vp, methods.exponential(2), 10, False, 0.2), (cld, methods.exponential(2), 12, True, 0.5)],
    ids=["edm", "ve", "noise", "no end", "two blocks"],
)  # fmt: skip
def test_every_process(make, method, n, end, gain):
    found = analysis.tune_grid(make(), method, n, data=FAMILY[1:3], judge=UNSEEN[:1], end=end, evaluations=60)
    assert len(found.grid.times(make())) == n + 1
    assert (found.grid.times(make())[-1] == 0.0) == end
    assert all(row.error < gain * min(row.others.values()) for row in found.rows)


def test_ends_are_kept():
    found = analysis.tune_grid(vp(), methods.exponential(2), 6, data=FAMILY[:2], sigma_min=0.2, sigma_max=20.0, evaluations=40)
    made = vp().sigma_eff(found.grid.times(vp()))
    assert made[0] == pytest.approx(20.0, rel=1e-12)
    assert made[-2] == pytest.approx(0.2, rel=1e-5)  # the best end is below: it stops there
    assert analysis.tune_grid(edm(), methods.ddim(), 6, data=FAMILY[:1], sigma_max=1e9, evaluations=1).grid.times(edm())[0] == 80.0


def test_nothing_is_random_and_evaluations_are_bounded():
    first, second = (analysis.tune_grid(vp(), methods.exponential(2), 6, data=FAMILY[:2], evaluations=40) for _ in range(2))
    assert first == second
    assert first.evaluations <= 40
    assert analysis.tune_grid(vp(), methods.exponential(2), 6, data=FAMILY[:2], evaluations=1).evaluations == 1


def test_the_grid_is_plain_data_and_the_report_is_readable(capsys):
    found = analysis.tune_grid(vp(), methods.exponential(2), 6, data=FAMILY[:2], judge=UNSEEN[:1], evaluations=20)
    assert from_record(json.loads(json.dumps(to_record(found.grid)))) == found.grid
    text = str(found)
    assert "exponential(2) on vp, 6 model calls" in text
    assert text.count("not seen") == 1
    assert f"{found.rows[2].error:.4g}" in text
    assert f"{found.rows[2].others['karras']:.4g}" in found._repr_html_()
    assert capsys.readouterr() == ("", "")
    analysis.tune_grid(vp(), methods.exponential(2), 6, data=FAMILY[:2], evaluations=9, progress=True)
    assert "tune grid" in capsys.readouterr().err


@pytest.mark.parametrize(
    "make",
    [
        lambda: analysis.tune_grid(vp(), methods.ddim(), 1, data=FAMILY),
        lambda: analysis.tune_grid(vp(), methods.ddim(), 8, data=[]),
        lambda: analysis.tune_grid(vp(), methods.euler_maruyama(), 8, data=[Mixture([1.0], [0.0], [1.0])]),
        lambda: analysis.tune_grid(vp(), methods.ddim(), 8, data=[Empirical([[0.0], [1.0]])]),
        lambda: analysis.tune_grid(vp(), methods.ddim(), 8, data=FAMILY, end="data"),
        lambda: analysis.tune_grid(vp(), methods.ddim(), 8, data=FAMILY, judge=[3.0]),
        lambda: analysis.tune_grid(vp(), methods.ddim(), 8, data=[Gaussian(1.0, 0.0)]),
        lambda: analysis.tune_grid(vp(), methods.ddim(), 8, data=FAMILY, bends=-1),
        lambda: analysis.tune_grid(vp(), methods.ddim(), 8, data=FAMILY, evaluations=0),
        lambda: analysis.tune_grid(vp(), methods.ddim(), 8, data=FAMILY, sigma_max=-3.0),
        lambda: analysis.tune_grid(vp(), methods.ddim(), 8, data=FAMILY, sigma_min=60.0),
        lambda: analysis.tune_grid(vp(), methods.heun(), 8, data=FAMILY, end="method"),
        lambda: power_law(0.0),
        lambda: power_law(scale=-1.0),
        lambda: power_law(frequencies=0),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
