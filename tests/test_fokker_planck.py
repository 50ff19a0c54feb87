"""Densities on a grid against exact laws: order two, mass to rounding, the right stationary law for true and for false recipes."""

from itertools import pairwise

import numpy as np
import pytest
import sympy as sp
from processes import cld, vp

import sdekit as sk
from sdekit.analysis.densities import Box, _Exponential, fokker_planck, generator
from sdekit.denoiser import score
from sdekit.law import Gaussian, Mixture
from sdekit.reversal import reverse

x, y, z = sp.symbols("x y z", real=True)
MIX = Mixture([0.3, 0.7], [-0.8, 0.5], [0.05, 0.09])


def slopes(errors):
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


def test_mixture_pushed_through_vp():
    """Density and score at given times and between them, successive halvings."""
    process, times, between = vp(), [0.0, 0.1, 0.3], 0.2
    where = np.linspace(-1.5, 1.5, 60)[None]
    densities, scores = [], []
    for cells in (100, 200, 400):
        found = fokker_planck(process, MIX, (-6.0, 6.0, cells), times)
        np.testing.assert_allclose(found.mass, 1.0, atol=2e-12)
        assert np.max(found.edge) < 1e-6
        gaps, points = [], found.box.points()[0]
        for t in (*times[1:], between):
            exact = np.exp(MIX.push(process.kernel(t)).log_density(points))
            gaps.append(np.max(np.abs(found.at(t) - exact)))
        densities.append(gaps)
        scores.append([np.max(np.abs(found.score(where, t) - score(process, MIX.denoiser(), where, t))) for t in (*times[1:], between)])
    assert np.all(np.abs(slopes(densities)[-1] - 2.0) < 0.05)
    assert np.all(np.abs(slopes(scores)[-1] - 2.0) < 0.1)
    assert np.max(densities[-1]) < 3e-4
    assert np.max(scores[-1]) < 6e-3


def test_cld_in_two_dimensions():
    """Noise on the momentum only: the grid moves the data block by advection alone."""
    process, law, start = cld(), Gaussian(0.3, 0.25), 0.05
    where = np.random.default_rng(0).normal(size=(2, 40)) * [[0.5], [0.3]]
    densities, scores = [], []
    for cells in (50, 100):
        found = fokker_planck(process, law.push(process.kernel(start)), [(-5.5, 5.5, cells), (-2.8, 2.8, cells)], [start, 0.15, 0.4])
        np.testing.assert_allclose(found.mass, 1.0, atol=1e-12)
        gaps, ends = [], []
        for t, values in zip(found.times[1:], found.values[1:], strict=True):
            exact = np.exp(law.push(process.kernel(t)).log_density(found.box.points().T))
            gaps.append(np.max(np.abs(values.ravel() - exact)) / np.max(exact))
            ends.append(np.max(np.abs(found.score(where, t) - score(process, law.denoiser(), where, t))))
        densities.append(gaps)
        scores.append(ends)
    assert np.all(np.abs(slopes(densities) - 2.0) < 0.1)
    assert np.all(slopes(scores) > 1.9)
    assert np.max(densities[-1]) < 6e-3


def test_off_diagonal_diffusion_and_circulation():
    """A linear recipe with full D and Q against its kernel."""
    D, Q = sp.Matrix([[2, 1], [1, 1]]) / 2, sp.Matrix([[0, -1], [1, 0]]) / 2
    process = sk.Recipe((x, y), x**2 / 2 + y**2 / 2, D, Q, initial={y: 1}).process()
    law, errors = Gaussian(0.5, 0.5), []
    for cells in (40, 80):
        found = fokker_planck(process, law.push(process.kernel(0.1)), [(-6.0, 6.0, cells), (-6.0, 6.0, cells)], [0.1, 0.5])
        exact = np.exp(law.push(process.kernel(0.5)).log_density(found.box.points().T))
        errors.append(np.max(np.abs(found.values[-1].ravel() - exact)) / np.max(exact))
        np.testing.assert_allclose(found.mass, 1.0, atol=1e-13)
    assert abs(slopes(errors)[0] - 2.0) < 0.1
    assert errors[-1] < 5e-3


STATIONARY = [(x**4 / 4 - x**2, sp.Integer(1)), (x**4 / 4, 1 + x**2 / 3), (x**2 / 2, 1 + x**2), (x**4 + x, 2 + sp.sin(x))]


@pytest.mark.parametrize(("H", "D"), STATIONARY, ids=str)
def test_recipe_is_stationary_to_rounding(H, D):
    recipe = sk.Recipe((x,), H, [[D]], [[0]], clock=sk.clocks.constant(500.0))
    found = fokker_planck(recipe, Gaussian(0.4, 0.2), (-3.0, 3.0, 60), [0.0, 1.0])
    p = np.exp(-np.array([float(H.subs(x, a)) for a in found.box.axes[0]]))
    assert np.max(np.abs(found.L @ p) / (np.abs(found.L) @ p)) < 1e-13  # rounding of steps in H up to 10
    assert np.max(np.abs(found.L.sum(axis=0))) < 1e-14 * np.max(np.abs(found.L))
    p /= np.sum(p) * found.box.volume
    assert np.max(np.abs(found.values[-1] - p)) < 1e-9


def test_false_recipe_goes_to_its_own_law():
    """Without div D the limit is not exp(-H): case 2, H = x^2/2, D = 1 + x^2."""
    wrong = sk.Recipe.from_drift((x,), [-(1 + x**2) * x], [[1 + x**2]], x**2 / 2, clock=sk.clocks.constant(20.0))
    found = fokker_planck(wrong, Gaussian(0.5, 0.1), (-7.0, 7.0, 140), [0.0, 1.0])
    (axis,) = found.box.axes
    true, claimed = np.exp(-(axis**2) / 2) / (1 + axis**2), np.exp(-(axis**2) / 2)
    true, claimed = (p / (np.sum(p) * found.box.volume) for p in (true, claimed))
    assert np.max(np.abs(found.values[-1] - true)) < 1e-8
    assert np.max(np.abs(found.values[-1] - claimed)) > 0.1


def test_two_blocks_relax_to_the_recipe():
    """A nonlinear recipe with state-dependent D and Q: exp(-H) up to the square of the cell."""
    D, Q = sp.Matrix([[8 + x**2, x * y], [x * y, 8 + y**2]]) / 8, (1 + x**2 / 4) * sp.Matrix([[0, -1], [1, 0]]) / 2
    H, errors = x**4 / 8 + x**2 / 4 + y**2 / 2, []
    recipe = sk.Recipe((x, y), H, D, Q, clock=sk.clocks.constant(10.0))
    for cells in (24, 48):
        found = fokker_planck(recipe, Gaussian([0.0, 0.0], [0.8, 1.0]), [(-3.6, 3.6, cells), (-5.0, 5.0, cells)], [0.0, 1.0])
        a, b = found.box.points()
        p = np.exp(-(a**4 / 8 + a**2 / 4 + b**2 / 2))
        errors.append(np.max(np.abs(found.values[-1].ravel() - p / (np.sum(p) * found.box.volume))))
    assert abs(slopes(errors)[0] - 2.0) < 0.2


def test_exponential_is_of_order_nine_and_damps():
    """The scalar stability function: 2^10 a step halving, 1 at 0, small far out."""
    from scipy import sparse

    one = _Exponential(sparse.csc_array([[-1.0]]), True, 1e-10)
    errors = [abs(one.once(h, np.ones(1))[0] - np.exp(-h)) for h in (1.0, 0.5)]
    assert errors[0] < 1e-9
    assert 9.0 < np.log2(errors[0] / errors[1]) < 10.5
    assert abs(one.once(1e6, np.ones(1))[0]) < 1e-5
    assert one.once(1e-12, np.ones(1))[0] == pytest.approx(1.0, abs=1e-11)
    assert one(50.0, np.ones(1))[0] == pytest.approx(np.exp(-50.0), abs=1e-11)


def test_ode_on_the_grid_moves_no_faster_than_the_law():
    """Without diffusion fluxes are central: advection at unit speed, second order."""
    errors = []
    for cells in (100, 200):
        box = Box((-6.0, 6.0, cells))
        L = generator(np.ones_like, lambda z: np.zeros((1, *z.shape)), box)
        p = np.exp(-(box.axes[0] ** 2))
        exact = np.exp(-((box.axes[0] - 0.5) ** 2))
        errors.append(np.max(np.abs(_Exponential(L, True, 1e-10)(0.5, p) - exact)))
    assert abs(slopes(errors)[0] - 2.0) < 0.1


def test_reverse_samples_of_a_nonlinear_recipe():
    """The score of the grid drives the reverse SDE of a double well with state-dependent noise back to the start."""
    recipe = sk.Recipe((x,), x**4 / 4 - x**2, [[1 + x**2 / 4]], [[0]])
    start = Gaussian(0.6, 0.04)
    forward = fokker_planck(recipe, start, (-4.0, 4.0, 160), np.linspace(0.0, 0.5, 101))
    dynamics = reverse(recipe, noise=1).dynamics()
    rng, n = np.random.default_rng(3), 4000
    chance = forward.values[-1] * forward.box.volume
    where = rng.choice(forward.box.axes[0], size=n, p=chance / np.sum(chance))[None] + rng.uniform(-0.5, 0.5, (1, n)) * forward.box.widths[0]
    steps = forward.times[::-1]
    for t, s in pairwise(steps):
        where = dynamics.euler(where, t, t - s, forward.score, rng.normal(size=where.shape))
    assert np.all(np.isfinite(where))
    assert abs(np.mean(where) - 0.6) < 5 * 0.2 / np.sqrt(n) + 0.005
    assert abs(np.var(where) - 0.04) < 5 * 0.04 * np.sqrt(2 / n) + 0.005


def test_score_is_not_made_up():
    found = fokker_planck(vp(), MIX, (-6.0, 6.0, 100), [0.0, 0.05])
    values = found.score(np.array([[0.0, 5.9, 7.0, -9.0]]), 0.05)[0]
    assert np.isfinite(values[0])
    assert np.all(np.isnan(values[1:]))
    event = np.linspace(-1.0, 1.0, 12).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(found.score(event, 0.05).ravel(), found.score(event.reshape(1, -1), 0.05).ravel())


def test_starts_are_the_same():
    box = Box((-6.0, 6.0, 80))
    law = Mixture([0.3, 0.7], [[-0.8], [0.5]], [0.05, 0.09])
    wanted = fokker_planck(vp(), MIX, box, [0.0]).values
    p = np.exp(MIX.log_density(box.points()[0]))
    for start in (law, lambda z: 7.0 * np.exp(MIX.log_density(z[0])), 3.0 * p):
        np.testing.assert_allclose(fokker_planck(vp(), start, box, [0.0]).values, wanted, rtol=1e-13)


def test_parameters_and_clock():
    g = sp.Symbol("g", positive=True)
    recipe = sk.Recipe((x,), x**2 / 2, [[g]], [[0]], clock=sk.clocks.Linear(g, 3 * g), parameters={"g": 0.5})
    plain = sk.Recipe((x,), x**2 / 2, [[2]], [[0]], clock=sk.clocks.linear(2.0, 6.0))
    left = fokker_planck(recipe, MIX, (-6.0, 6.0, 60), [0.0, 0.3], g=2.0)
    right = fokker_planck(plain, MIX, (-6.0, 6.0, 60), [0.0, 0.3])
    np.testing.assert_allclose(left.values, right.values, rtol=1e-13, atol=1e-16)


THREE = sk.Recipe((x, y, z), x**2 + y**2 + z**2, sp.eye(3), sp.zeros(3))
SIDE = (-6.0, 6.0, 20)


@pytest.mark.parametrize(
    ("match", "call"),
    [
        ("3 blocks; a grid can hold one or two", lambda: fokker_planck(THREE, MIX, [SIDE, SIDE], [0.0])),
        ("one or two sides, not 3", lambda: Box(SIDE, SIDE, SIDE)),
        ("the grid has 2 sides", lambda: fokker_planck(vp(), MIX, [SIDE, SIDE], [0.0])),
        ("a side is empty", lambda: Box((1.0, 1.0, 20))),
        ("low, high, cells", lambda: Box((1.0, 2.0))),
        ("cells", lambda: Box((1.0, 2.0, 3))),
        ("must increase", lambda: fokker_planck(vp(), MIX, SIDE, [0.3, 0.1])),
        ("must increase", lambda: fokker_planck(vp(), MIX, SIDE, [0.0, 2.0])),
        ("data of shape", lambda: fokker_planck(cld(), MIX, [SIDE, SIDE], [0.0])),
        ("the start must give", lambda: fokker_planck(vp(), lambda z: z[0], SIDE, [0.0])),
        ("the start must give", lambda: fokker_planck(vp(), np.ones(3), SIDE, [0.0])),
        ("tolerance", lambda: fokker_planck(vp(), MIX, SIDE, [0.0], tolerance=0.0)),
        ("Recipe or a Process", lambda: fokker_planck("vp", MIX, SIDE, [0.0])),
        ("numbers already", lambda: fokker_planck(vp(), MIX, SIDE, [0.0], g=1.0)),
        ("D is negative", lambda: fokker_planck(sk.Recipe((x,), x**2, [[x]], [[0]]), MIX, SIDE, [0.0])),
        ("not finite", lambda: fokker_planck(sk.Recipe((x,), x**2, [[1]], [[0]]), MIX, (-6e200, 6e200, 8), [0.0])),
        ("the times of this density", lambda: fokker_planck(vp(), MIX, SIDE, [0.1, 0.2]).at(0.3)),
        ("first axis", lambda: fokker_planck(vp(), MIX, SIDE, [0.0]).score(np.zeros((2, 3)), 0.0)),
    ],
)
def test_refused(match, call):
    with np.errstate(all="ignore"), pytest.raises(sk.BadInput, match=match):
        call()
