"""Guidance and Restart on normal laws: three numbers, closed forms against the guided field integrated, and what mends it."""

import numpy as np
import pytest
from processes import cld, edm, vp
from scipy.integrate import solve_ivp

import sdekit as sk
from sdekit import BadInput, analysis
from sdekit.denoiser import guided
from sdekit.law import Gaussian


def laws(vc, vu, w, mc=0.0, mu=0.0):
    return analysis.GuidedLaws(Gaussian([mc], vc), Gaussian([mu], vu), w)


@pytest.mark.parametrize(
    ("vc", "vu", "w", "restart", "ode", "tilted"), [(0.25, 1.0, 5.0, 0.002055, 0.001142, 0.0655), (0.25, 0.5, 3.0, 0.0724, 0.0676, 0.1313)]
)
def test_three_laws(vc, vu, w, restart, ode, tilted):
    """The fact sheet's numbers for [.1, 2] and T = 80, to the digits given there."""
    made = laws(vc, vu, w)
    assert made.restart(0.1, 2.0).variances[0] == pytest.approx(restart, abs=0.6 * 10.0 ** -len(str(restart)[2:]))
    assert made.flow(0.1, 80.0).variances[0] == pytest.approx(ode, abs=0.6 * 10.0 ** -len(str(ode)[2:]))
    assert made.tilted(0.1).variances[0] == pytest.approx(tilted, abs=0.6 * 10.0 ** -len(str(tilted)[2:]))


@pytest.mark.parametrize(("vc", "vu", "w"), [(0.25, 1.0, 5.0), (0.5, 0.25, 0.7), (0.25, 0.5, 1.0), (0.25, 0.5, 0.0)])
def test_the_flow_is_that_of_the_guided_field(vc, vu, w):
    """Gain and offset by integrating dx/dt = (x - D(x; t)) / t with the guided denoiser itself."""
    made = laws(vc, vu, w, mc=1.0, mu=-0.5)
    denoise = guided(made.conditional.denoiser(), made.unconditional.denoiser(), w)

    def down(x):
        field = lambda t, z: (z - denoise(z[:, None], t)[:, 0]) / t  # noqa: E731
        return solve_ivp(field, (2.0, 0.1), np.atleast_1d(x), method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]

    zero, one = down(np.array([0.0, 1.0]))
    assert made.gain(0.1, 2.0)[0] == pytest.approx(one - zero, rel=1e-8)
    kept = made.restart(0.1, 2.0)
    assert down(kept.mean)[0] == pytest.approx(kept.mean[0], rel=1e-8)
    assert (one - zero) ** 2 * (kept.variances[0] + 4.0 - 0.01) == pytest.approx(kept.variances[0], rel=1e-8)
    flow = made.flow(0.1, 2.0)
    assert flow.mean[0] == pytest.approx(zero, rel=1e-8)
    assert flow.variances[0] == pytest.approx(4.0 * (one - zero) ** 2, rel=1e-8)


def test_equal_covariances_are_kept():
    """Then guidance is only a shift: mean m_u + w (m_c - m_u), the marginal of that law, on any interval, and the tilted density."""
    made = analysis.GuidedLaws(Gaussian([1.0, 0.0], [0.25, 0.5]), Gaussian([0.5, 0.2], [0.25, 0.5]), 4.0)
    for low, high in ((0.1, 2.0), (0.5, 0.7)):
        kept = made.restart(low, high)
        for law in (kept, made.tilted(low)):
            np.testing.assert_allclose(law.mean, [2.5, -0.6], rtol=1e-10)
            np.testing.assert_allclose(law.variances, np.array([0.25, 0.5]) + low**2, rtol=1e-10)


def test_weight_one_is_the_conditional_law():
    made = laws(0.25, 1.0, 1.0, mc=0.3, mu=-1.0)
    for law in (made.restart(0.1, 2.0), made.tilted(0.1), made.flow(0.1, 1e4)):
        np.testing.assert_allclose([law.mean[0], law.variances[0]], [0.3, 0.26], rtol=1e-4)


def test_in_a_shared_basis():
    U = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))[0]
    turned = analysis.GuidedLaws(*(Gaussian(U @ np.array(m), (U * v) @ U.T) for m, v in (([1.0, 0.0], [0.25, 0.1]), ([0.0, 0.5], [1.0, 0.3]))), 3.0)
    plain = analysis.GuidedLaws(Gaussian([1.0, 0.0], [0.25, 0.1]), Gaussian([0.0, 0.5], [1.0, 0.3]), 3.0)
    for name, arguments in (("restart", (0.1, 2.0)), ("flow", (0.1, 80.0)), ("tilted", (0.1,)), ("corrected", (0.1, 0.005))):
        one, other = getattr(turned, name)(*arguments), getattr(plain, name)(*arguments)
        np.testing.assert_allclose(one.mean, U @ other.mean, atol=1e-10)
        np.testing.assert_allclose(one.matrix, U @ other.matrix @ U.T, atol=1e-10)


def test_langevin_steps_keep_the_tilted_law():
    r"""One step of length h: v' = (1 - h/v)^2 v' + 2 h at the law given."""
    made, h = laws(0.25, 1.0, 5.0), 0.01
    kept, v = made.corrected(0.1, h).variances[0], made.tilted(0.1).variances[0]
    assert (1.0 - h / v) ** 2 * kept + 2.0 * h == pytest.approx(kept, rel=1e-12)


# ----------------------------------------------------------------------------------------------------------------- what mends it


def variance(x):
    return float(np.var(x)), 4.0 * float(np.var(x)) * np.sqrt(2.0 / len(x))


@pytest.mark.parametrize("process", [edm(), vp()], ids=["edm", "vp"])
def test_ways_to_mend_it(process):
    """After many cycles on [.1, 2] and then nothing more: guided legs keep Restart's law, conditional ones the conditional, Langevin the tilted."""
    made, n = laws(0.25, 1.0, 5.0), 4000
    pair = made.conditional.denoiser(), made.unconditional.denoiser()
    grid = sk.grids.sigmas([20.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.1])
    plan = sk.plans.restart(grid, [(20, 3, 0.1, 2.0)])
    t = float(process.time_of(0.1))
    scale = float(process.kernel(t).psi[0])

    def run(**options):
        return variance(analysis.sample_guided(process, *pair, 5.0, plan, n=n, **options) / scale)

    plain = run()
    assert plain[0] == pytest.approx(made.restart(0.1, 2.0).variances[0], rel=0.2)
    unguided = run(legs=pair[0])
    assert unguided[0] == pytest.approx(0.26, abs=unguided[1] + 0.01)
    langevin = run(corrector=(30, 1.0))
    assert langevin[0] == pytest.approx(made.corrected(0.1, 0.01).variances[0], abs=langevin[1])
    assert langevin[0] == pytest.approx(made.tilted(0.1).variances[0], rel=0.15)
    partly = run(legs=analysis.guided_within(*pair, 5.0, 0.5, 1.0))
    assert plain[0] < partly[0] < unguided[0]


def test_without_options_it_is_sample():
    made = laws(0.25, 1.0, 3.0)
    pair = made.conditional.denoiser(), made.unconditional.denoiser()
    plan = sk.plans.restart(sk.grids.karras(8), [(3, 2, 0.1, 1.0)])
    own = analysis.sample_guided(edm(), *pair, 3.0, plan, n=20)
    np.testing.assert_allclose(own, sk.sample(edm(), guided(*pair, 3.0), plan=plan, n=20).x, rtol=1e-12)


def test_guided_within():
    pair = Gaussian([0.0], 0.25).denoiser(), Gaussian([0.0], 1.0).denoiser()
    made, y = analysis.guided_within(*pair, 3.0, 0.5, 1.0), np.ones((2, 1))
    for sigma, inside in ((0.49, False), (0.5, True), (1.0, True), (1.01, False)):
        expected = guided(*pair, 3.0)(y, sigma) if inside else pair[0](y, sigma)
        np.testing.assert_array_equal(made(y, sigma), expected)
    assert made.shape == (1,)


@pytest.mark.parametrize(
    "make",
    [
        lambda: analysis.GuidedLaws(Gaussian([0.0], 1.0), Gaussian([0.0, 0.0], 1.0), 2.0),
        lambda: analysis.GuidedLaws(Gaussian([0.0, 0.0], [[1.0, 0.5], [0.5, 1.0]]), Gaussian([0.0, 0.0], [1.0, 2.0]), 2.0),
        lambda: laws(1.0, 0.25, 5.0).tilted(0.1),
        lambda: laws(1.0, 0.25, 5.0).restart(0.1, 2.0),
        lambda: laws(0.25, 1.0, 5.0).corrected(0.1, 0.2),
        lambda: laws(0.25, 1.0, 5.0).gain(2.0, 0.1),
        lambda: analysis.guided_within(None, None, 2.0, 0.1, 1.0),
        lambda: analysis.sample_guided(
            cld(), Gaussian([0.0], 1.0).denoiser(), Gaussian([0.0], 1.0).denoiser(), 2.0, sk.plans.run(sk.grids.karras(4))
        ),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
