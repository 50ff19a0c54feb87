"""Forward steps of improved Euler and steps by error control: fixed grids by exact recursions, whole runs against laws and against their own path."""

from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
from equations import PLANE, declared, x
from numpy.polynomial.hermite_e import hermegauss
from scipy.linalg import solve_discrete_lyapunov

from sdekit import BadInput, Process, Recipe, clocks, control, simulate
from sdekit.equation import SDE
from sdekit.forward import improved
from sdekit.increments import Increments
from sdekit.methods import heun, sra
from sdekit.noise import Addressed
from sdekit.pieces import Pieces
from sdekit.simulation import step

MU, SIGMA, START = 1.01, 0.87, 0.5
GBM = declared((x,), [sp.Rational(101, 100) * x], [[sp.Rational(87, 100) * x]])
NODES, WEIGHTS = hermegauss(30)
WEIGHTS = WEIGHTS / np.sum(WEIGHTS)
FAST = control.gotta_go_fast(0.05, 0.01)
ITO, STRATONOVICH = START * np.exp(MU), START * np.exp(MU + SIGMA**2 / 2)


def factors(h, method):
    """What a step of geometric Brownian motion multiplies by, at the nodes of a quadrature over the increment."""
    dW = np.sqrt(h) * NODES[None]
    return step(GBM, np.ones_like(dW), 0.0, h, dW, np.zeros_like(dW), method=method)[0]


@pytest.mark.parametrize(("method", "known"), [("euler_maruyama", 0.14135), ("milstein", 0.0476842)])
def test_strong_error_on_geometric_brownian_motion_exactly(method, known):
    """The root mean square over paths, N = 64: moments of a product of independent factors."""
    N, h = 64, 1.0 / 64
    made, true = factors(h, method), np.exp((MU - SIGMA**2 / 2) * h + SIGMA * np.sqrt(h) * NODES)
    square, cross, exact = (float(WEIGHTS @ v) ** N for v in (made**2, made * true, true**2))
    assert START * np.sqrt(square - 2.0 * cross + exact) == pytest.approx(known, rel=4e-6)


@pytest.mark.parametrize(("sign", "limit", "ratio"), [(0.0, 2.0043, 2.0), (1.0, 1.3728, 4.0)])
def test_signs_choose_the_solution(sign, limit, ratio):
    """Means of fixed steps by quadrature: those of S = 0 go to Stratonovich's 2.0043 with h, those of S = +-1 to Ito's 1.3728 with its square."""
    sde, errors = SDE.of(GBM), []
    for N in (64, 128):
        h = 1.0 / N
        dW = np.sqrt(h) * NODES[None]
        mean = np.mean([WEIGHTS @ improved(sde, np.ones_like(dW), 0.0, h, h, dW, s * np.ones_like(dW))[0][0] for s in (-sign, sign)])
        errors.append(START * mean**N - (ITO if sign else STRATONOVICH))
    assert pytest.approx(ITO if sign else STRATONOVICH, abs=6e-5) == limit
    assert abs(errors[1]) < 0.02
    assert errors[0] / errors[1] == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize(("method", "known"), [("euler_maruyama", 4 / 3), ("heun", 12 / 13), ("roberts", 12 / 13)])
def test_stationary_variance_of_fixed_steps(method, known):
    """Ornstein and Uhlenbeck at a step of half the relaxation time: EM 1.3333, improved Euler 0.9231 times the true variance."""
    process, one, nil = Process([[-1.0]], [[np.sqrt(2.0)]]), [[1.0]], [[0.0]]
    A, b = (step(process, z, 0.0, 0.5, dW, nil, method=method) for z, dW in ((one, nil), (nil, np.sqrt(0.5) * np.array(one))))
    assert solve_discrete_lyapunov(A, b @ b.T)[0, 0] == pytest.approx(known, rel=1e-12)


def test_a_fixed_sign_loses_half_an_order():
    """Why signs are drawn: with S = 1 always, the mean of x' = -x with noise x/2 is off by the root of the step (the drift's slope times S)."""
    sde = SDE(1, lambda z, _: -z, lambda z, _: 0.5 + 0.0 * z[None], "diagonal")
    errors = {}
    for signs in ((1.0,), (-1.0, 1.0)):
        errors[signs] = []
        for N in (64, 256):
            dW = NODES[None] / np.sqrt(N)
            b = np.mean([WEIGHTS @ improved(sde, 0.0 * dW, 0.0, 1 / N, 1 / N, dW, s * np.ones_like(dW))[0][0] for s in signs])
            errors[signs].append(abs(b) * N)
    assert errors[(1.0,)][0] / errors[(1.0,)][1] == pytest.approx(2.0, rel=1e-6)
    assert max(errors[(-1.0, 1.0)]) < 1e-12


@pytest.mark.parametrize(("method", "sense", "mean"), [("roberts", "ito", ITO), ("heun", "ito", ITO), ("roberts", "stratonovich", STRATONOVICH)])
def test_adaptive_mean_of_geometric_brownian_motion(method, sense, mean):
    """Within 4 standard errors, rejections and all; both formulas, either sense."""
    n = 4000
    sde = replace(SDE.of(GBM), interpretation=sense)
    run = simulate(sde, start={"x": START}, n=n, times=[0.0, 1.0], control=FAST, method=method, seed=3)
    assert set(run.status) == {"ok"}
    assert np.sum(run.adapted.rejected) > 0.03 * np.sum(run.adapted.accepted)
    assert abs(np.mean(run.z) - mean) < 4.0 * mean * np.sqrt(np.expm1(SIGMA**2) / n)
    assert np.all(run.adapted.t == 1.0)


@pytest.mark.parametrize("method", ["roberts", "heun"])
def test_adaptive_steps_follow_their_path(method):
    """The first attempt is the whole interval, so that the path's end is known; distances to its exact solution fall as the tolerance does."""
    n, errors = 200, []
    W = Pieces(Addressed(5), np.arange(n), (), Increments(1, method == "roberts"), np.empty(0)).over(np.ones(n))[0]
    exact = START * np.exp((MU - SIGMA**2 / 2) + SIGMA * W)
    for tolerance in (1e-1, 1e-2):
        made = control.adaptive(heun(1.0), tolerance, tolerance, k=1.0, h_init=1.0)
        run = simulate(GBM, start={"x": START}, n=n, times=[0.0, 1.0], control=made, seed=5, method=method)
        assert np.mean(run.adapted.rejected) > 0.5 * np.mean(run.adapted.accepted)
        errors.append(np.median(np.abs(run.z[0] / exact - 1.0)))
    assert errors[1] < 0.02
    assert 4.0 < errors[0] / errors[1] < 25.0


@pytest.mark.parametrize(("noise", "low", "high"), [("path", 0.94, 1.08), ("retain", 0.7, 0.86), ("redraw", 0.55, 0.7)])
def test_law_under_rejection(noise, low, high):
    """Means of geometric Brownian motion over Ito's: a path keeps it, kept or fresh normals after a rejection lose a fifth and two fifths of it."""
    made = replace(control.gotta_go_fast(0.0, 0.05), noise=noise)
    run = simulate(GBM, start={"x": START}, n=3000, times=[0.0, 1.0], control=made, seed=7)
    assert low < np.mean(run.z) / ITO < high  # the standard error is 0.019


def test_published_error_is_the_root_of_the_step():
    """Compared with z + K1, signs and all: steps go with the square of the tolerance, and not with its first power as against Euler and Maruyama."""
    counts = {}
    for published in (False, True):
        steps = []
        for atol in (0.2, 0.1):
            made = control.gotta_go_fast(0.0, atol, published=published)
            steps.append(np.mean(simulate(GBM, start={"x": START}, n=200, times=[0.0, 1.0], control=made, seed=1).adapted.accepted))
        counts[published] = steps
    assert counts[True][0] > 4.0 * counts[False][0]
    assert counts[True][1] / counts[True][0] > 3.0
    assert counts[False][1] / counts[False][0] < 2.0


def test_kept_noise_keeps_its_signs():
    """All that an attempt after a rejection sees is scaled, signs and increments, and so is K1 without a drift."""
    seen = []

    def noise(z, t):
        return 1.0 + 0.5 * np.sin(z[None])

    def drift(z, t):
        seen.append(z[0].copy())
        return 0.0 * z

    sde = SDE(1, drift, noise, "diagonal")
    made = replace(control.adaptive(heun(1.0), 0.0, 1e-6, h_init=1.0), noise="retain", nfe=6)
    simulate(sde, start={"z0": 1.0}, n=5, times=[0.0, 1.0], control=made, seed=2)
    first, second = seen[2] - 1.0, seen[4] - 1.0  # seen[0] is that of the check of shapes
    np.testing.assert_array_equal(np.sign(first), np.sign(second))
    np.testing.assert_allclose(second / first, (second / first)[0] * np.ones(5), rtol=1e-9)


def test_samples_stand_alone_and_visit_the_times():
    """The same samples among others, at the times asked for too; a clock and noise that depend on time."""

    def noise(z, t):
        return (0.5 + t) * (1.0 + 0.3 * np.cos(z[None]))

    sde = SDE(1, lambda z, t: -z * (1.0 + t), noise, "diagonal", clock=clocks.linear(1.0, 3.0))
    times, start = [0.1, 0.4, 0.45, 0.9], np.linspace(-1.0, 1.0, 6).reshape(1, 6, 1) * np.ones(2)
    run = simulate(sde, start=start, times=times, control=FAST, seed=1, save="all")
    few = simulate(sde, start=start[:, :2], times=times, control=FAST, seed=1, save=[0.4, 0.9])
    np.testing.assert_array_equal(few.z, run.z[:, :2])
    np.testing.assert_array_equal(few.saved.state, run.saved.state[[1, 3], :, :2])
    np.testing.assert_array_equal(run.saved.state[0], start)
    np.testing.assert_array_equal(run.saved.state[3], run.z)
    assert np.all(run.adapted.accepted > 3)


def test_time_of_a_recipe_is_each_samples_own():
    """Without noise the steps integrate dx/dB = B: x = B^2/2 exactly, for steps of any lengths."""
    B = sp.Symbol("t", real=True)
    recipe = Recipe.from_drift((x,), [B], sp.Matrix([[0]]), sp.Integer(0), time=B)
    run = simulate(recipe, start={"x": np.array([0.0, 5.0, 100.0])}, times=[0.0, 0.8], control=control.adaptive(heun(0.0), 0.1, 1e-3))
    np.testing.assert_allclose(run.z[0], np.array([0.0, 5.0, 100.0]) + 0.32, rtol=1e-12)


def test_limits_and_statuses():
    cubic = declared((x,), [x**3], [[sp.Rational(1, 10)]])
    start = np.array([[0.1, 50.0, -0.2]])
    run = simulate(cubic, start=start, times=[0.0, 0.5], control=FAST, seed=4)
    assert run.status[0] == run.status[2] == "ok"
    assert run.status[1] in ("h_min", "nonfinite")
    assert 0.0 < run.adapted.t[1] < 2e-3  # x' = x^3 from 50 is infinite after 1 / 5000
    alone = simulate(cubic, start=start[:, :1], times=[0.0, 0.5], control=FAST, seed=4)
    np.testing.assert_array_equal(alone.z, run.z[:, :1])
    assert simulate(cubic, start=start, times=[0.0, 0.5], control=replace(FAST, nfe=4), seed=4).status == ("budget",) * 3
    assert simulate(cubic, start=start, times=[0.0, 0.5], control=replace(FAST, seconds=1e-9), seed=4).status == ("budget",) * 3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"control": control.adaptive(sra())}, "must be heun"),
        ({"control": control.gotta_go_fast(lamba_pair=True)}, "must be heun"),
        ({"control": replace(FAST, estimate="drift")}, "leave estimate"),
        ({"method": "milstein"}, "steps of roberts or heun, not milstein"),
        ({"control": 0.1}, "must be a Control"),
        ({"source": PLANE["general"], "start": np.zeros((2, 2))}, "this noise is general"),
    ],
)
def test_bad_input(change, text):
    how = {"source": GBM, "start": np.zeros((1, 2)), "times": [0.0, 1.0], "control": FAST, **change}
    with pytest.raises(BadInput, match=text):
        simulate(how.pop("source"), **how)


def test_columns_that_act_together_are_refused():
    sde = SDE(2, lambda z, _: -z, lambda z, _: np.stack([np.stack([z[0], z[0]]), np.stack([z[1], -z[1]])]), "commutative")
    for how in ({"method": "roberts"}, {"control": FAST}):
        with pytest.raises(BadInput, match="2 that act together"):
            simulate(sde, start=np.ones((2, 3)), times=[0.0, 1.0], **how)
