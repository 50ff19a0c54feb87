"""Parts of the error against laws that are known, and gains of model errors against perturbed runs."""

import numpy as np
import pytest

import sdekit as sk
from sdekit import BadInput, analysis, catalogue, grids, methods, plans
from sdekit.analysis.budgeting import budget, error_gain, sensitivity
from sdekit.law import Gaussian

DATA = Gaussian([0.2, -0.1, 0.0], [0.25, 0.04, 1e-3])
GRID = grids.karras(9)


def test_parts_bound_the_total_and_stand_alone():
    model = Gaussian([0.25, -0.1, 0.0], [0.2, 0.05, 1e-3])
    made = budget(catalogue.psld(), method=methods.heun(), grid=GRID, data=DATA, model=model)
    assert made.total == analysis.exact_law(catalogue.psld(), method=methods.heun(), grid=GRID, data=DATA, model=model).w2
    assert made.largest == "discretisation"
    assert max(made.parts.values()) - (made.sum - max(made.parts.values())) <= made.total <= made.sum
    exact = np.hypot(*(np.linalg.norm(gap) for gap in (model.mean - DATA.mean, np.sqrt(model.variances) - np.sqrt(DATA.variances))))
    assert made.parts["score"] == pytest.approx(exact, rel=1e-3)  # the exact flow from far up gives the model's own law
    for text in (str(made), made._repr_html_()):
        assert all(word in text for word in ("prior", "discretisation", "score", "end", "total", "heun"))


def test_one_part_alone():
    """Many steps from the exact marginal to level 0.1 and no further: what is left is the noise at that level."""
    grid, one = grids.karras(400, sigma_min=0.1, zero=False), Gaussian(0.0, 0.25)
    made = budget(catalogue.edm(), method=methods.heun(), grid=grid, data=one, start=one)
    assert made.largest == "end"
    assert abs(made.total - (np.sqrt(0.26) - 0.5)) < 2.0 * made.parts["discretisation"] < 1e-4
    assert made.parts["prior"] < 1e-12


def by_hand(sigma, c2, unit):
    """Gains of Euler on the EDM equation: dx/dsigma = (x - D)/sigma, with an error in each D."""
    sigma = np.append(sigma, 0.0)
    gains = []
    for j in range(len(sigma) - 1):
        g = -(sigma[j + 1] - sigma[j]) / sigma[j] * unit(sigma[j])
        for a, b in zip(sigma[j + 1 : -1], sigma[j + 2 :], strict=True):
            g *= 1.0 + (b - a) * a / (c2 + a * a)
        gains.append(g)
    return np.array(gains)


def test_gains_of_euler_by_hand():
    gains, levels = error_gain(catalogue.edm(), method=methods.ddim(), grid=GRID, data=DATA, size=lambda s: 0.3 * s)
    want = catalogue.edm().sigma_eff(GRID.times(catalogue.edm()))[:-1]
    np.testing.assert_allclose(levels, want, rtol=1e-12)
    for m, c2 in enumerate(DATA.variances):
        np.testing.assert_allclose(gains[:, m], by_hand(want, c2, lambda s: 0.3 * s), rtol=1e-9)


@pytest.mark.parametrize("name", ["vp", "psld", "third_order"])
@pytest.mark.parametrize("method", [methods.pndm(), methods.exponential(2), methods.sscs(), methods.dpm_solver_pp_2m()], ids=lambda m: m.name)
def test_gains_are_those_of_a_perturbed_run(name, method):
    process, exact, calls = getattr(catalogue, name)(), DATA.denoiser(), []
    sd = float(np.sqrt(np.mean(DATA.variances)))
    grid = grids.karras(5)
    gains, levels = error_gain(process, method=method, grid=grid, data=DATA)
    errors = np.random.default_rng(0).standard_normal((len(gains), 3))

    def wrong(y, sigma):
        calls.append(sigma)
        return exact(y, sigma) + errors[len(calls) - 1] * sigma * sd / np.hypot(sigma, sd)

    right, moved = (sk.sample(process, model, method=method, grid=grid, n=1, shape=(3,)).x[0] for model in (exact, wrong))
    np.testing.assert_allclose(calls, levels, rtol=1e-12)
    np.testing.assert_allclose(moved - right, np.sum(gains * errors, axis=0), rtol=1e-6, atol=1e-7)


def test_the_table_sums_up_the_gains():
    table = sensitivity([catalogue.vp(), catalogue.edm()], [methods.ddim(), methods.euler_maruyama()], GRID, data=DATA)
    G = error_gain(catalogue.vp(), method=methods.ddim(), grid=GRID, data=DATA)[0]
    row = table["vp", methods.ddim().name]
    assert row.independent == pytest.approx(np.sqrt(np.sum(G**2) / 3), rel=1e-12)
    assert row.common == pytest.approx(np.sqrt(np.mean(G.sum(0) ** 2)), rel=1e-12)
    assert row.common <= row.aligned
    assert row.independent <= row.aligned
    other = table["edm", methods.ddim().name]
    assert other.independent == pytest.approx(row.independent, rel=1e-9)  # DDIM is the same on all one-block processes
    assert len(table.rows) == 4
    assert "euler_maruyama" in str(table)
    with pytest.raises(KeyError):
        table["vp", "no such method"]


def test_moves_without_gains_are_refused():
    with pytest.raises(BadInput, match="not an affine move"):
        error_gain(catalogue.vp(), plan=plans.correct(plans.run(GRID, methods.ddim())), data=DATA)
