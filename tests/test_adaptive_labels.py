"""Adaptive runs on networks of whole labels: what rounding does to the law, against the equation of the rounded network in closed form."""

import numpy as np
import pytest

import sdekit as sk
from sdekit import control, methods, tables
from sdekit.denoiser import from_model

TABLE = tables.linear()
VARIANCE = 0.25


def network(x, label):
    """The exact eps for Gaussian data, at the label that it is told."""
    kernel = TABLE.process.kernel(TABLE.time(label))
    a, s = kernel.psi[..., 0], kernel.chol[..., 0, 0]
    return np.reshape(s / (a * a * VARIANCE + s * s), (-1, *(1,) * (x.ndim - 1))) * x


def stretch(rounding):
    r"""Logarithm of the factor of ``y`` from label 999 to 0: with the label held, :math:`dy/d\sigma = \kappa y / \sqrt{1 + \sigma^2}`."""
    sigma, abar = TABLE.sigma, np.array(TABLE.abar)
    if rounding == "exact":
        return 0.5 * np.log((VARIANCE + sigma[0] ** 2) / (VARIANCE + sigma[-1] ** 2))
    inner = np.sqrt(sigma[1:] * sigma[:-1]) if rounding == "nearest" else sigma[1:]
    kappa = np.sqrt(1.0 - abar) / (abar * VARIANCE + 1.0 - abar)
    return -np.sum(kappa * np.diff(np.arcsinh([sigma[0], *inner, sigma[-1]])))


def run(rounding, method, tolerance, shape=(1,)):
    made = control.adaptive(method, tolerance, tolerance * 1e-2)
    start = (np.full((1, 2, *shape), 1.0) * np.array([1.0, -3.0]).reshape(1, 2, *(1,) * len(shape)), float(TABLE.time(999)))
    return start[0], sk.sample(TABLE.process, TABLE.denoiser(network, rounding=rounding), control=made, grid=TABLE.grid([999, 0]), start=start)


@pytest.mark.parametrize(("rounding", "known", "within"), [("exact", 0.0, 2e-5), ("nearest", -3.44e-5, 2e-4), ("down", 3.002e-3, 2e-4)])
def test_bias_of_rounded_labels(rounding, known, within):
    """Relative error of the variance at tight tolerance: 0 with labels between, -3e-5 with the nearest, 0.30 % with the label below."""
    bias = np.expm1(2.0 * (stretch(rounding) - stretch("exact")))
    assert bias == pytest.approx(known, rel=2e-3, abs=1e-15)
    z, made = run(rounding, methods.heun(), 3e-6)
    assert set(made.status) == {"ok"}
    psi = TABLE.process.kernel(TABLE.time(np.array([999, 0]))).psi[:, 0]
    log = np.log(made.x / z[0] * psi[0] / psi[1])
    np.testing.assert_allclose(np.expm1(2.0 * (log - stretch("exact"))), bias, atol=within)


def test_each_sample_has_its_label():
    """Levels of each sample are asked as one at a time, for every kind of prediction and rounding; whole labels where rounded."""
    y, sigma = np.random.default_rng(0).standard_normal((4, 3, 2)), np.array([0.02, 0.7, 3.3, 40.0])
    for rounding in ("exact", "nearest", "down"):
        denoise = TABLE.denoiser(network, rounding=rounding)
        each = [denoise(y[i : i + 1], float(sigma[i]))[0] for i in range(4)]
        np.testing.assert_allclose(denoise(y, sigma), each, rtol=1e-13)
    for kind in ("x0", "eps", "v", "score"):
        denoise = from_model(lambda x, t: np.reshape(np.sin(t), (-1, 1, 1)) * x, TABLE.process, kind)
        each = [denoise(y[i : i + 1], float(sigma[i]))[0] for i in range(4)]
        np.testing.assert_allclose(denoise(y, sigma), each, rtol=1e-12)
    seen = []
    TABLE.denoiser(lambda x, label: seen.append(label) or x, rounding="down")(y, sigma)
    np.testing.assert_array_equal(seen[0], np.floor(TABLE.label(TABLE.process.time_of(sigma))))


def test_networks_of_torch_get_labels_of_torch():
    torch = pytest.importorskip("torch")
    seen = []

    def told(x, label):
        seen.append(label)
        return x

    y = torch.ones(2, 3, dtype=torch.float64)
    sigma = torch.tensor([0.5, 2.0], dtype=torch.float64)
    TABLE.denoiser(told, rounding="nearest")(y, sigma)
    assert isinstance(seen[0], torch.Tensor)
    np.testing.assert_array_equal(seen[0].numpy(), np.round(TABLE.label(TABLE.process.time_of(sigma.numpy()))))
