"""Work against precision: budgets, the three kinds of distance, each against its own route."""

from itertools import pairwise

import numpy as np
import pytest
from processes import edm, psld, vp
from scipy.integrate import solve_ivp

from sdekit import BadInput, analysis, grids, methods, sample
from sdekit.law import Gaussian, Mixture

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])


def test_budgets_and_exact_distances():
    data = Gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.3]])
    chosen = [methods.ddim(), methods.heun(), methods.unipc(2)]
    table = analysis.work_precision(psld(), chosen, (9, 20), data=data)
    steps = {"heun": {9: 5, 20: 10}}
    for cell in table.cells:
        assert cell.steps == steps.get(cell.method, {9: 9, 20: 20})[cell.asked]
        assert cell.nfe == (2 * cell.steps - 1 if cell.method == "heun" else cell.steps) <= cell.asked
        method = next(m for m in chosen if m.name == cell.method)
        assert cell.w2 == analysis.exact_law(psld(), method=method, grid=grids.karras(cell.steps), data=data).w2
        assert cell.exact
    assert str(table).count("exact") == 6
    assert table._repr_html_().count("<td>exact</td>") == 6


def test_paths_against_a_loop_by_hand():
    """Euler on EDM to the data, 128 paths from the exact marginal at 80, against DOP853 of dy/dlog sigma = y - D down to 1e-4."""
    cell = analysis.work_precision(edm(), [methods.euler()], (8,), data=LAW).cells[0]
    levels, D = edm().sigma_eff(grids.karras(8).times(edm())), LAW.denoiser()
    x = start = LAW.sample(128, seed=1) + 80.0 * np.random.default_rng(0).standard_normal((1, 128, 2))[0]
    for s, t in pairwise(levels):
        x = D(x, float(s)) if t == 0.0 else x + (t - s) / s * (x - D(x, float(s)))
    span = np.log([80.0, 1e-4])
    flow = solve_ivp(
        lambda u, y: (y.reshape(-1, 2) - D(y.reshape(-1, 2), float(np.exp(u)))).ravel(), span, start.ravel(), method="DOP853", rtol=1e-10, atol=1e-12
    )
    exact = D(flow.y[:, -1].reshape(-1, 2), 1e-4)
    assert cell.kind == "path"
    assert cell.w2 == pytest.approx(np.sqrt(np.mean(np.sum((x - exact) ** 2, axis=1))), rel=1e-6)
    assert not cell.exact


@pytest.mark.parametrize("make", [vp, psld], ids=lambda m: m.__name__)
def test_path_errors_fall_with_the_order(make):
    """Above the data, where the flow is smooth; the same for one block and two."""
    family = lambda n: grids.logsnr(n, 0.2, 5.0)  # noqa: E731
    cells = analysis.work_precision(make(), [methods.exponential(2)], (80, 160), data=LAW, grid=family).cells
    assert np.log2(cells[0].w2 / cells[1].w2) == pytest.approx(2.0, abs=0.15)


def test_numbers_are_sampled_with_their_floor():
    law = Mixture([0.3, 0.7], [-0.8, 0.5], [0.01, 0.04])
    cell = analysis.work_precision(vp(), [methods.exponential(2)], (20,), data=law).cells[0]
    drawn = sample(vp(), law.denoiser(), method=methods.exponential(2), grid=grids.karras(20), n=20_000, seed=13).x
    assert cell.w2 == analysis.w2_exact_1d(drawn, law.sample(20_000, seed=12))
    assert 0.0 < cell.floor < 0.05
    assert "floor" in cell.described


def test_bad_input():
    with pytest.raises(BadInput, match="noise"):
        analysis.work_precision(vp(), [methods.euler_maruyama()], (5,), data=LAW)
    with pytest.raises(BadInput):
        analysis.work_precision(vp(), [methods.heun()], (0,), data=LAW)
