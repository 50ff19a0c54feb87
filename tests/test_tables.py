"""Discrete schedules: their numbers, labels and times, spacings, networks of labels, the rationalised transfer."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from sdekit import BadInput, denoiser, grids, methods, plans, sample, tables
from sdekit.law import Gaussian, Mixture
from sdekit.solve import program, solve

LINEAR = tables.linear()
MIXTURE = Mixture([0.3, 0.7], [-1.0, 0.8], [0.0625, 0.16])
X = np.linspace(-2.0, 2.0, 5)


def test_published_tables():
    abar = LINEAR.abar
    for label, value in ((0, 0.9999), (1, 0.99978009), (100, 0.89514159), (500, 0.077796658), (900, 2.7024452e-4), (980, 5.9037514e-5),
                         (999, 4.0358298e-5)):  # fmt: skip
        assert abar[label] == pytest.approx(value, rel=2e-8)
    scaled = tables.scaled_linear()
    assert (scaled.abar[0], scaled.abar[999]) == pytest.approx((0.99915, 0.0046600985), rel=2e-8)
    assert (scaled.sigma[999], scaled.sigma[0]) == pytest.approx((14.6146, 0.0291672), rel=3e-6)
    cosine = tables.cosine()
    assert (cosine.abar[0], cosine.abar[500], cosine.abar[998]) == pytest.approx((0.99995872, 0.49228517, 2.4287669e-6), rel=2e-8)


@pytest.mark.torch
@pytest.mark.parametrize("make", [tables.linear, tables.scaled_linear, tables.cosine], ids=lambda m: m.__name__)
def test_single_precision_is_torchs(make):
    """The released networks' table: 1 - abar_0 has three digits, abar_T six."""
    torch = pytest.importorskip("torch")
    double, single = make(), make(single=True)
    betas = 1.0 - np.array(double.abar) / np.array([1.0, *double.abar[:-1]])
    if make is tables.linear:
        betas = np.linspace(1e-4, 0.02, 1000)
        lost = (1.0 - single.abar[0]) / (1.0 - double.abar[0]) - 1.0
        assert abs(lost) == pytest.approx(1.7e-4, rel=0.05)
    theirs = (1.0 - torch.from_numpy(betas).float()).cumprod(0).double().numpy()
    np.testing.assert_allclose(single.abar, theirs, rtol=0.0 if make is tables.linear else 3e-7)
    np.testing.assert_allclose(single.abar, double.abar, rtol=2e-5)


@pytest.mark.parametrize("between", ["log", "linear"])
def test_labels_and_times_are_inverse(between):
    table = tables.Table(LINEAR.abar, between)
    labels = np.concatenate([[0, 1, 2, 998, 999], np.random.default_rng(0).uniform(0.0, 999.0, 200)])
    t = table.time(labels)
    np.testing.assert_allclose(table.label(t), labels, atol=1e-8)
    np.testing.assert_allclose(table.process.sigma_eff(table.time(np.arange(1000))), table.sigma, rtol=1e-9)
    np.testing.assert_array_equal(table.label(table.process.time_of(table.process.sigma_eff(table.time(np.arange(1000))))), np.arange(1000))
    psi = table.process.kernel(table.time(500)).psi[0]
    assert psi**2 == pytest.approx(table.abar[500], rel=1e-13)


def test_between_labels():
    low, high = LINEAR.sigma[[12, 13]]
    assert float(LINEAR.process.sigma_eff(LINEAR.time(12.25))) == pytest.approx(low**0.75 * high**0.25, rel=1e-12)
    linear = tables.Table(LINEAR.abar, "linear")
    assert float(linear.process.sigma_eff(linear.time(12.25))) == pytest.approx(0.75 * low + 0.25 * high, rel=1e-12)


def test_spacings():
    assert LINEAR.labels(5) == (800, 600, 400, 200, 0)
    assert LINEAR.labels(5, offset=1) == (801, 601, 401, 201, 1)
    assert LINEAR.labels(5, "trailing") == (999, 799, 599, 399, 199)
    assert LINEAR.labels(5, "linspace") == (999, 749, 500, 250, 0)  # 499.5 and 749.25, 249.75 to the even and the near
    assert LINEAR.labels(7, "trailing") == (999, 856, 713, 570, 428, 285, 142)
    assert LINEAR.labels(30)[:2] == (957, 924)
    assert len(LINEAR.labels(30, "released")) == 31
    assert len(LINEAR.labels(7, "released")) == 8
    assert LINEAR.labels(5, "quadratic") == (800, 450, 200, 50, 0)  # (i / 4)^2 800
    assert LINEAR.labels(50, "quadratic")[-3:] == (2, 1, 0)  # the release has 0 twice
    assert LINEAR.labels(1000) == tuple(range(999, -1, -1))


@pytest.mark.parametrize("single", [False, True])
def test_transfer(single):
    """The spot value, the two other forms, splitting, and float32 arithmetic against float64."""
    keep, add = tables.transfer(LINEAR.abar[500], LINEAR.abar[400])
    assert 1.3 * keep - 0.4 * add == pytest.approx(2.297328206479, abs=1e-12)
    rng = np.random.default_rng(0)
    for A, B in np.sort(rng.uniform(1e-5, 1.0 - 1e-5, (1000, 2)), axis=1):
        keep, add = tables.transfer(A, B)
        np.testing.assert_allclose([keep, add], [np.sqrt(B / A), np.sqrt(1.0 - B) - np.sqrt(B * (1.0 - A) / A)], rtol=1e-9, atol=1e-12)
        C = np.sqrt(A * B)
        (k1, a1), (k2, a2) = tables.transfer(A, C), tables.transfer(C, B)
        np.testing.assert_allclose([k1 * k2, k2 * a1 + a2], [keep, add], rtol=1e-12)
        if single:
            a, b = np.float32(A), np.float32(B)
            one = np.float32(1.0)
            denominator = np.sqrt(a) * (np.sqrt((one - b) * a) + np.sqrt((one - a) * b))
            exact = tables.transfer(float(a), float(b))
            np.testing.assert_allclose([np.sqrt(b / a), (a - b) / denominator], exact, rtol=1e-4)
    assert tables.transfer(0.3, 0.3) == (1.0, 0.0)
    assert tables.transfer(1.0, 1.0) == (1.0, 0.0)
    assert tables.transfer(0.25, 1.0) == pytest.approx((2.0, -np.sqrt(3.0)))


def exact_gauss(x, start, end, mean=0.3, var=0.25):
    return mean * np.sqrt(end) + np.sqrt((var * end + 1 - end) / (var * start + 1 - start)) * (x - mean * np.sqrt(start))


def test_every_method_tends_to_the_exact_map():
    """abar_999 -> 1 takes -2 .. 2 to the five values below; on the whole table in sigma, then to the data."""
    expected = [-0.700968, -0.200961, 0.299047, 0.799055, 1.299062]
    np.testing.assert_allclose(exact_gauss(X, LINEAR.abar[999], 1.0), expected, atol=1e-6)
    top, law = float(LINEAR.time(999)), Gaussian(0.3, 0.25)
    levels = np.geomspace(float(LINEAR.process.sigma_eff(top)), 1e-4, 801)
    for method in (methods.pndm(), methods.prk()):
        grid = grids.sigmas([*levels[1:], 0.0])
        made = sample(LINEAR.process, law.denoiser(), method=method, grid=grid, start=(X[None], top)).x
        np.testing.assert_allclose(made, expected, atol=1.2e-6)


def test_a_network_of_labels():
    """eps, v and x0 of a network that knows labels only; whole labels come back whole, others by the policy asked for."""
    asked = []

    def network(x, label):
        asked.append(label)
        A = np.exp(-float(LINEAR.time(label)))
        return (x - np.sqrt(A) * MIXTURE.denoiser()(x / np.sqrt(A), np.sqrt((1 - A) / A))) / np.sqrt(1 - A)

    labels = LINEAR.labels(20)
    plan = plans.run(LINEAR.grid(labels), methods.plms())
    reference, _ = solve(program(LINEAR.process, plan), [X], MIXTURE.denoiser())
    made, _ = solve(program(LINEAR.process, plan), [X], LINEAR.denoiser(network))
    np.testing.assert_allclose(made[0], reference[0], atol=1e-11)
    assert asked == [labels[0], *labels[1:2], *labels[1:-1]]
    for rounding, label in (("exact", 12.25), ("nearest", 12), ("down", 12)):
        asked.clear()
        LINEAR.denoiser(network, rounding=rounding)(X, float(LINEAR.process.sigma_eff(LINEAR.time(12.25))))
        assert asked == [pytest.approx(label, abs=1e-9)]
        assert isinstance(asked[0], float if rounding == "exact" else int)
    for rounding, label in (("nearest", 13), ("down", 12)):
        LINEAR.denoiser(network, rounding=rounding)(X, float(LINEAR.process.sigma_eff(LINEAR.time(12.75))))
        assert asked[-1] == label
    network.shape = (5,)
    assert LINEAR.denoiser(network).shape == (5,)


def test_pndm_on_a_table():
    """To the exact flow by DOP853, from the first label to label 0: exact weights in sigma gain more the more labels there are."""

    def error(method, n):
        labels = LINEAR.labels(n)
        top, end = (float(LINEAR.process.sigma_eff(LINEAR.time(label))) for label in (labels[0], 0))
        exact = exact_flow(X / np.sqrt(LINEAR.abar[labels[0]]), top, end) * np.sqrt(LINEAR.abar[0])
        made, _ = solve(program(LINEAR.process, plans.run(LINEAR.grid(labels), method)), [X], MIXTURE.denoiser())
        return float(np.max(np.abs(made[0] - exact)))

    for n, gain in ((50, 1.4), (100, 4.0), (200, 20.0)):
        assert gain * error(methods.pndm(clock="sigma"), n) < error(methods.f_pndm(), n)
    assert error(methods.pndm(clock="log"), 50) > 30.0 * error(methods.plms(), 50)  # the last step is a fifth of all in log sigma


def exact_flow(y, top, end):
    denoise = MIXTURE.denoiser()
    return solve_ivp(
        lambda u, v: v - denoise(v, np.exp(u)), np.log([top, end]), y, method="DOP853", rtol=1e-12, atol=1e-13
    ).y[:, -1]  # fmt: skip


def test_a_table_by_hand():
    table = tables.Table((0.9, 0.5, 0.2))
    assert len(table) == 3
    np.testing.assert_allclose(table.time([0, 1, 2]), -np.log([0.9, 0.5, 0.2]), rtol=1e-14)
    assert table == tables.Table((0.9, 0.5, 0.2))
    assert tables.of_betas([0.1, 0.2]).abar == pytest.approx((0.9, 0.72))
    assert isinstance(table.denoiser(lambda x, label: x), denoiser.from_model)
    np.testing.assert_allclose(table.grid([2, 0.5], data=True).times(table.process), [*table.time([2, 0.5]), 0.0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: tables.Table((0.5, 0.9)),
        lambda: tables.Table((0.9,)),
        lambda: tables.Table((1.0, 0.5)),
        lambda: tables.Table((0.9, float("nan"))),
        lambda: tables.Table((0.9, 0.5), "cubic"),
        lambda: tables.of_betas([0.1, 1.0]),
        lambda: tables.of_betas([[0.1, 0.2]]),
        lambda: tables.linear(1),
        lambda: tables.linear(beta_0=-1e-4),
        lambda: LINEAR.time(-1),
        lambda: LINEAR.time(999.5),
        lambda: LINEAR.label(1e-9),
        lambda: LINEAR.labels(0),
        lambda: LINEAR.labels(1001),
        lambda: LINEAR.labels(10, "uniform"),
        lambda: LINEAR.labels(1000, offset=1),
        lambda: LINEAR.labels(10, "trailing", offset=1),
        lambda: LINEAR.grid([0, 10]),
        lambda: LINEAR.denoiser(lambda x, label: x, rounding="up"),
        lambda: LINEAR.denoiser(lambda x, label: x, kind="flow"),
        lambda: LINEAR.denoiser(lambda x, label: x)(X, 1e-3),
    ],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()
