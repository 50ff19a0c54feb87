"""Strong orders of the samplers that say they have one, on paths coupled over grids."""

import numpy as np
import pytest
from processes import edm, psld, vp

from sdekit import BadInput, Process, analysis, grids, methods, plans
from sdekit.brownian import Coupled, Path, Walk
from sdekit.law import Gaussian
from sdekit.methods import Method, Orders
from sdekit.noise import METHOD, PRIOR, Address, Addressed
from sdekit.solve import program, solve

STRONG = [m for m in (make() for make in methods.SHIPPED.values()) if m.orders.strong is not None]


@pytest.mark.parametrize("method", STRONG, ids=str)
@pytest.mark.parametrize("make", [vp, psld], ids=lambda m: m.__name__)
def test_claim(method, make):
    report = analysis.strong_order(method, make())
    assert report.claimed == method.orders.strong
    assert np.mean(report.slopes) > report.claimed - 0.1, f"{report} {report.slopes}"
    assert np.mean(report.slopes) < report.claimed + 0.6  # the drift is not linear, but nearly


def no_area(step):
    """SRA1 that takes the increment's half for the area: its two noises are no longer of one path."""
    h, here, there = step.h, step.here, step.there
    g, xi, _ = here.noise, *(step.noise(step.here.noise.shape[1]) for _ in range(2))
    slope = here.drift(step.z, step.ask(step.z, here).score)
    middle = step.stages("time", 0.75).point(1)
    at = step.z - 0.75 * h * slope + 0.75 * np.sqrt(h) * there.noise @ xi
    again = middle.drift(at, step.ask(at, middle).score)
    return step.rows(step.z - h / 3.0 * (slope + 2.0 * again) + np.sqrt(h) * 0.5 * (g + there.noise) @ xi)


def test_a_method_without_the_area_is_of_order_one():
    broken = Method("no area", no_area, noise=1.0, asks=2, orders=Orders(strong=1.5))
    report = analysis.strong_order(broken, vp())
    assert report.slopes[-1] == pytest.approx(1.0, abs=0.15)
    assert report.verdict == "refuted"


def test_coupled_normals_are_read_off_the_path():
    """Increments over sqrt(h), and areas as I10 = h^(3/2) (xi1 + xi2 / sqrt 3) / 2; all else from its own source; by a path and by a walk."""
    times, ids = np.array([1.0, 0.7, 0.2]), np.arange(3)
    for path in (Path(1.0, 2, seed=5, ids=ids, shape=(4,)), Walk([0.0, 0.3, 0.5, 0.8], 2, seed=5, ids=ids, shape=(4,))):
        source = Coupled(path, times, seed=9)
        drawn = source.draw([Address(METHOD, 0, 1, 1), Address(PRIOR), Address(METHOD, 0, 1, 3)], ids, (4,))
        dW, dZ = path.over(*(times[0] - times[1:]))
        np.testing.assert_allclose(drawn[0], dW[1] / np.sqrt(0.5), rtol=1e-9)
        np.testing.assert_array_equal(drawn[1], Addressed(9).draw([Address(PRIOR)], ids, (4,))[0])
        np.testing.assert_allclose(0.5**1.5 / 2.0 * (drawn[0] + drawn[2] / np.sqrt(3.0)), dZ[1], rtol=1e-9)
        with pytest.raises(BadInput):
            source.draw([Address(METHOD, 0, 1, 4)], ids, (4,))
        with pytest.raises(BadInput):
            source.draw([Address(METHOD)], ids[:2], (4,))


def test_a_walk_has_the_law_of_a_path():
    """Pieces over joined steps: variances h, h^3 / 3 and covariance h^2 / 2 from 20,000 walks."""
    walk = Walk([0.0, 0.2, 0.5, 1.3], seed=1, ids=np.arange(20_000))
    for s, t in ((0.0, 1.3), (0.2, 1.3), (0.2, 0.5)):
        (W, Z), h = walk.over(s, t), t - s
        assert np.mean(W**2) == pytest.approx(h, rel=0.05)
        assert np.mean(Z**2) == pytest.approx(h**3 / 3.0, rel=0.05)
        assert np.mean(W * Z) == pytest.approx(h**2 / 2.0, rel=0.06)
    for bad in ((0.0, 0.4), (0.5, 0.2)):
        with pytest.raises(BadInput):
            walk.over(*bad)
    with pytest.raises(BadInput):
        Walk([0.0, 0.0])


def test_noise_alone_is_followed_exactly():
    """F = 0 and a model that pulls nothing: Euler-Maruyama is z + W(t), whatever the grid."""
    process, ids = Process([[0.0]], [[1.0]], T=1.0), np.arange(4)
    path = Path(1.0, seed=2, ids=ids)
    for n in (1, 7, 32):
        prog = program(process, plans.run(grids.times(np.linspace(1.0, 0.25, n + 1)), methods.euler_maruyama()))
        made, _ = solve(prog, [np.zeros(4)], lambda y, sigma: y, Coupled(path, prog.times), ids)
        np.testing.assert_allclose(made[0], path.at(0.75)[0][0], atol=1e-13)


def test_bad_input():
    with pytest.raises(BadInput):
        analysis.strong_order(methods.ddim(), vp(), steps=(4, 8), paths=2)
    with pytest.raises(BadInput):
        analysis.strong_order(methods.euler_maruyama(), edm(), data=Gaussian(0.0, 1.0), paths=0)
