"""Processes: coefficients, levels and their inverse, the stationary law, the step to the data, and what is refused."""

import numpy as np
import pytest
from processes import ALL, chain, cld, dense_kernel, edm, names, over, psld, random_stable, third_order, ve, vp
from scipy.linalg import solve_continuous_lyapunov

from sdekit import BadInput, Process, clocks

every = pytest.mark.parametrize("make", [*ALL, chain], ids=[*names, "chain"])


@every
def test_level_and_time_are_inverse(make):
    process = make()
    t = process.T * np.append(np.geomspace(1e-4, 0.97, 25), 1.0)
    sigma = process.sigma_eff(t)
    np.testing.assert_allclose(process.sigma_eff(process.time_of(sigma)), sigma, rtol=1e-13)
    # t is as well determined as the last digit of sigma allows
    slope = np.abs(np.gradient(np.log(sigma), np.log(t)))
    np.testing.assert_array_less(np.abs(process.time_of(sigma) / t - 1.0), 2e-13 + 4e-14 / slope)


@pytest.mark.parametrize("make", [vp, edm, cld, psld, over, third_order, chain])
def test_tiny_times(make):
    process = make()
    t = process.T * np.array([1e-12, 1e-9, 1e-6])
    np.testing.assert_allclose(process.time_of(process.sigma_eff(t)), t, rtol=1e-12)


@every
def test_level_increases(make):
    process = make()
    sigma = process.sigma_eff(process.T * np.linspace(0.0, 1.0, 400))
    assert np.all(np.diff(sigma) > 0.0)


@every
def test_ends_of_the_range(make):
    process = make()
    low, high = float(process.sigma_eff(0.0)), float(process.sigma_eff(process.T))
    assert float(process.time_of(high)) == process.T
    assert float(process.time_of(low)) == 0.0
    assert process.time_of([[high, low]]).tolist() == [[process.T, 0.0]]
    for outside in (high * 1.001, -0.1, low * 0.999 if low > 0.0 else -1e-9):
        with pytest.raises(BadInput, match="outside"):
            process.time_of(outside)


def test_level_at_the_start():
    """Zero where the data block starts clean, its own deviation where it starts with noise; correlated noise can be seen through."""
    assert float(cld().sigma_eff(0.0)) == 0.0
    assert float(ve().sigma_eff(0.0)) == pytest.approx(0.01, rel=1e-13)
    S0 = np.array([[0.04, 0.03], [0.03, 0.09]])
    noisy = Process(psld().F, psld().G, S0)
    assert float(noisy.sigma_eff(0.0)) == pytest.approx(np.sqrt(1.0 / np.linalg.inv(S0)[0, 0]), rel=1e-12)
    seen = Process(psld().F, psld().G, np.array([[0.04, 0.06], [0.06, 0.09]]))
    assert float(seen.sigma_eff(0.0)) < 1e-7
    t = np.array([0.01, 0.3, 1.0])
    np.testing.assert_allclose(noisy.time_of(noisy.sigma_eff(t)), t, rtol=1e-10)


def test_closed_forms_of_levels():
    t = np.array([1e-3, 0.2, 0.7, 1.0])
    np.testing.assert_allclose(vp().sigma_eff(t), np.sqrt(np.expm1(0.1 * t + 9.95 * t**2)), rtol=1e-13)
    np.testing.assert_allclose(ve().sigma_eff(t), 0.01 * 5000.0**t, rtol=1e-12)
    np.testing.assert_allclose(edm().sigma_eff(80.0 * t), 80.0 * t, rtol=1e-14)
    small = np.array([1e-8, 1e-7])
    np.testing.assert_allclose(psld(0.0, start=0.0).sigma_eff(small), np.sqrt(1.0 / 3.0) * (8.0 * small) ** 1.5, rtol=1e-5)
    np.testing.assert_allclose(psld(0.25).sigma_eff(small), np.sqrt(0.25 * 8.0 * small), rtol=1e-5)


def test_time_of_a_level_on_vp():
    """The closed inverse t = 2 L / (sqrt(b0^2 + 2 (b1 - b0) L) + b0) with L = log(1 + sigma^2)."""
    sigma = np.array([1e-4, 0.05, 1.0, 80.0])
    L = np.log1p(sigma**2)
    np.testing.assert_allclose(vp().time_of(sigma), 2.0 * L / (np.sqrt(0.01 + 2.0 * 19.9 * L) + 0.1), rtol=1e-13)


def test_drift_and_noise():
    process = Process([[-1.0, 2.0], [0.0, -3.0]], [[1.0], [0.5]], clock=clocks.linear(2.0, 6.0))
    np.testing.assert_allclose(process.drift(0.5), [[-4.0, 8.0], [0.0, -12.0]], rtol=1e-15)
    np.testing.assert_allclose(process.noise([0.0, 0.5])[:, :, 0], [[np.sqrt(2.0), 0.5 * np.sqrt(2.0)], [2.0, 1.0]], rtol=1e-15)


@pytest.mark.parametrize("make", [vp, cld, psld, over, third_order, chain, lambda: random_stable(3, 3)])
def test_stationary_law(make):
    process = make()
    ref = solve_continuous_lyapunov(process.F, -process.G @ process.G.T)
    np.testing.assert_allclose(process.stationary, ref, atol=1e-12 * np.max(np.abs(ref)))
    np.testing.assert_array_equal(process.stationary, process.stationary.T)


@pytest.mark.parametrize("make", [edm, ve])
def test_no_stationary_law(make):
    with pytest.raises(BadInput, match="stationary"):
        make().stationary  # noqa: B018


@pytest.mark.parametrize("make", [cld, psld, third_order, lambda: psld(0.25)])
def test_the_step_to_the_data_is_a_conditional_law(make):
    """z_0 given z_t and x_0, from the joint covariance of the auxiliary blocks at 0 and the state at t."""
    process, t = make(), 0.15
    k = process.k
    gain, chol = process.end(t)
    E = process.transition(0.0, t).mean
    _, S = dense_kernel(process, t)
    cross = process.S0 @ E.T
    K = cross @ np.linalg.inv(S)
    np.testing.assert_allclose(gain, K, atol=1e-10)
    np.testing.assert_allclose(chol @ chol.T, process.S0 - K @ cross.T, atol=1e-12)
    assert np.all(gain[0] == 0.0)
    assert np.all(chol[0] == 0.0)
    assert chol.shape == (k, k)


def test_one_block_ends_at_the_data():
    for make in (vp, edm, ve):
        gain, chol = make().end(0.4)
        assert gain.tolist() == [[0.0]]
        assert chol.tolist() == [[0.0]]


def test_equality_is_mathematical():
    a, b = psld(), psld()
    assert a == b
    assert hash(a) == hash(b)
    renamed = Process(a.F, a.G, a.S0, clock=a.clock, name="other", blocks=("data", "momentum"))
    assert renamed == a
    for other in (psld(0.02), Process(a.F, a.G, clock=a.clock), Process(a.F, a.G, a.S0), Process(a.F, a.G, a.S0, T=0.5, clock=a.clock), "psld"):
        assert a != other


def test_a_process_is_frozen():
    process = vp()
    with pytest.raises(AttributeError):
        process.T = 2.0
    with pytest.raises(ValueError, match="read-only"):
        process.F[0, 0] = 1.0
    F = np.array([[-0.5]])
    made = Process(F, [[1.0]])
    F[0, 0] = 7.0
    assert made.F[0, 0] == -0.5


def test_a_shorter_end_than_the_clock():
    process = Process([[-0.5]], [[1.0]], T=0.5, clock=clocks.linear(0.1, 20.0))
    assert float(process.sigma_eff(0.5)) == pytest.approx(float(vp().sigma_eff(0.5)), rel=1e-15)
    with pytest.raises(BadInput):
        process.kernel(0.6)


def test_names_of_blocks():
    assert vp().blocks == ("x",)
    assert cld().blocks == ("x", "m")
    assert third_order().blocks == ("x", "m", "m2")


@pytest.mark.parametrize("t", [-1e-3, 1.1, [0.5, 2.0], float("nan")])
def test_times_outside(t):
    for method in (vp().kernel, vp().sigma_eff):
        with pytest.raises(BadInput):
            method(t)


def test_transition_backwards():
    with pytest.raises(BadInput, match="must not exceed"):
        vp().transition(0.5, 0.4)
    still = psld().transition(0.3, 0.3)
    np.testing.assert_array_equal(still.mean, np.eye(2))
    np.testing.assert_array_equal(still.cov, np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        (([[1.0, 0.0]], [[1.0]]), {}),
        (([[-1.0]], [[1.0], [1.0]]), {}),
        (([[-1.0]], [1.0, 2.0, 3.0]), {}),
        (([[float("nan")]], [[1.0]]), {}),
        (([[-1.0]], [[float("inf")]]), {}),
        (("F", [[1.0]]), {}),
        (([[-1.0]], [[1.0]], np.eye(2)), {}),
        (([[-1.0]], [[1.0]], [[-0.1]]), {}),
        ((-np.eye(2), np.eye(2), [[1.0, 0.5], [0.2, 1.0]]), {}),
        ((-np.eye(2), np.eye(2), [[1.0, 2.0], [2.0, 1.0]]), {}),
        ((-np.eye(2), np.eye(2), [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), {}),
        (([[-1.0]], [[1.0]]), {"T": 0.0}),
        (([[-1.0]], [[1.0]]), {"T": -1.0}),
        (([[-1.0]], [[1.0]]), {"T": 2.0, "clock": clocks.constant(1.0, 1.0)}),
        (([[-1.0]], [[1.0]]), {"blocks": ("x", "m")}),
        ((-np.eye(2), np.eye(2)), {"blocks": ("x", "x")}),
        (([[-1.0]], [[0.0]]), {}),
        ((-np.eye(2), np.diag([0.0, 1.0])), {}),
        ((-np.eye(2), np.diag([1.0, 0.0])), {}),
    ],
)
def test_bad_input(arguments, keywords):
    with pytest.raises(BadInput):
        Process(*arguments, **keywords)
