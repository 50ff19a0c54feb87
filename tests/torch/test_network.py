"""The preconditioned network as a denoiser: identities that hold for any weights, and types."""

import numpy as np
import pytest
import torch
from scipy.special import ndtr

import sdekit as sk
from sdekit.torch.losses import Denoising
from sdekit.torch.network import NetworkDenoiser, precondition, raw, unet, unet_config
from sdekit.torch.training import Settings, draw

pytestmark = pytest.mark.images
SHAPE = (1, 8, 8)
SPREAD = 0.75


@pytest.fixture(scope="module")
def denoise():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = unet(unet_config(SHAPE)).eval()
    return NetworkDenoiser(network, SHAPE, SPREAD)


@pytest.fixture(scope="module")
def y():
    return torch.from_numpy(np.random.default_rng(0).standard_normal((3, *SHAPE)))


def test_coefficients_are_those_of_edm():
    for sigma in (1e-4, 0.3, 80.0):
        c_skip, c_out, c_in, _ = precondition(sigma, SPREAD)
        assert c_skip == pytest.approx(SPREAD**2 / (sigma**2 + SPREAD**2), rel=1e-14)
        assert c_out == pytest.approx(sigma * SPREAD / (sigma**2 + SPREAD**2) ** 0.5, rel=1e-14)
        assert c_in**2 * (SPREAD**2 + sigma**2) == pytest.approx(1.0, rel=1e-14)
        # the answer to a target of unit variance has the variance of the data: c_skip^2 (sd^2 + sigma^2) + c_out^2 = sd^2
        assert c_skip**2 * (SPREAD**2 + sigma**2) + c_out**2 == pytest.approx(SPREAD**2, rel=1e-14)
    assert precondition(np.e, SPREAD)[3] == pytest.approx(0.25)
    numbers = precondition(0.3, SPREAD)
    tensors = precondition(torch.tensor([0.3], dtype=torch.float64), SPREAD)
    assert [float(t) for t in tensors] == pytest.approx(list(numbers), rel=1e-14)


def test_no_noise_gives_the_input_back(denoise, y):
    assert torch.equal(denoise(y, 0.0), y)
    assert torch.equal(denoise(y, torch.zeros(3)), y)
    assert torch.allclose(denoise(y, 1e-9), y, rtol=0.0, atol=1e-7)


@pytest.mark.parametrize("sigma", [0.0, 1e-30, 1e-3, 80.0, 250.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_levels_are_finite(denoise, y, sigma, dtype):
    """The answer leaves c_skip y by c_out times what the network says, whose size does not follow sigma."""
    noisy = (y * max(sigma, 1.0)).to(dtype)
    answer = denoise(noisy, sigma)
    c_skip, c_out = precondition(sigma, SPREAD)[:2]
    assert (answer - c_skip * noisy).abs().max() <= 20.0 * c_out + 1e-6
    assert answer.dtype == dtype


def test_answer_is_the_formula(denoise, y):
    sigma = 0.7
    root = (sigma**2 + SPREAD**2) ** 0.5
    with torch.no_grad():
        raw = denoise.network((y / root).float(), torch.full((3,), np.log(sigma) / 4)).sample
    expected = SPREAD**2 / root**2 * y + sigma * SPREAD / root * raw.double()
    assert torch.allclose(denoise(y, sigma), expected, rtol=0.0, atol=1e-6)


def test_levels_per_sample_equal_one_level_at_a_time(denoise, y):
    levels = [0.01, 0.5, 40.0]
    together = denoise(y, torch.tensor(levels, dtype=torch.float64))
    apart = torch.cat([denoise(y[i : i + 1], level) for i, level in enumerate(levels)])
    assert torch.allclose(together, apart, rtol=0.0, atol=1e-5)
    assert not torch.allclose(together, denoise(y, 0.5), rtol=0.0, atol=1e-2)


def test_libraries_and_types(denoise, y):
    for dtype in (np.float32, np.float64):
        host = y.numpy().astype(dtype)
        answer = denoise(host, 0.5)
        assert isinstance(answer, np.ndarray)
        assert answer.dtype == dtype
        assert np.array_equal(answer, denoise(torch.from_numpy(host), 0.5).numpy())
        assert np.allclose(answer, denoise(host, np.full(3, 0.5)), rtol=0.0, atol=1e-6)
    assert denoise(np.zeros((1, *SHAPE), int), 0.5).dtype == np.float64
    assert denoise.dtype == torch.float32
    assert denoise.device.type == "cpu"


def test_sample_takes_shape_device_and_type_from_the_denoiser(denoise):
    run = sk.sample(sk.catalogue.psld(), denoise, method=sk.methods.exponential(2), grid=sk.grids.karras(3), n=2)
    assert isinstance(run.x, torch.Tensor)
    assert run.x.dtype == torch.float32
    assert tuple(run.x.shape) == (2, *SHAPE)
    assert run.status == ("ok", "ok")


def test_wrong_shapes_are_named(denoise, y):
    with pytest.raises(sk.BadInput, match=r"y has shape \(3, 64\).*\(batch, 1, 8, 8\)"):
        denoise(y.reshape(3, 64), 0.5)
    with pytest.raises(sk.BadInput, match=r"sigma has shape \(2,\)"):
        denoise(y, torch.ones(2))
    with pytest.raises(sk.BadInput, match="sigma_data = 0"):
        NetworkDenoiser(denoise.network, SHAPE, 0)


def test_configurations_are_checked():
    with pytest.raises(sk.BadInput, match="unknown argument of the network 'drop_out'; did you mean 'dropout'"):
        unet(unet_config(SHAPE, drop_out=0.1))
    with pytest.raises(sk.BadInput, match="layers_per_block = 1000000000 must be numbers between 0 and 1024"):
        unet(unet_config(SHAPE, layers_per_block=10**9))
    with pytest.raises(sk.BadInput, match="diffusers refuses"):
        unet(unet_config(SHAPE, down_block_types=["AttnDownBlock2D"]))


def test_loss_is_the_weighted_error_of_the_denoiser(denoise, y):
    rng = np.random.default_rng(1)
    x0 = y.float()
    normals = torch.from_numpy(rng.standard_normal((1, *x0.shape))).float()
    sigma = torch.tensor([0.05, 0.8, 20.0])
    objective = Denoising(SPREAD)
    drawn = objective.draw(x0, normals, ndtr((np.log(sigma.double().numpy()) + 1.2) / 1.2))
    with torch.no_grad():
        loss = objective.error(raw(denoise.network, drawn.input, drawn.level), drawn)
    error = (denoise(x0 + sigma.reshape(-1, 1, 1, 1) * normals[0], sigma) - x0).square().flatten(1).mean(1)
    weight = (sigma**2 + SPREAD**2) / (sigma * SPREAD) ** 2
    assert torch.allclose(loss, weight * error, rtol=2e-3)


def test_levels_follow_the_declared_law():
    settings = Settings(batch=1000, log_sigma=(-1.2, 1.2))
    uniforms = np.concatenate([draw(step, 10, SHAPE, settings)[1] for step in range(20)])
    zeros = torch.zeros(len(uniforms), 1)
    logs = 4.0 * Denoising(SPREAD).draw(zeros, zeros[None], uniforms).level.numpy()
    assert np.mean(logs) == pytest.approx(-1.2, abs=0.01)  # stratified: far inside 1.2 / sqrt(20000) * 4
    assert np.std(logs) == pytest.approx(1.2, abs=0.01)
    index, _, normals, _, dropped = draw(3, 10, SHAPE, settings)
    again = draw(3, 10, SHAPE, settings)
    assert set(index) == set(range(10))
    assert np.array_equal(normals, again[2])
    assert not np.array_equal(normals, draw(4, 10, SHAPE, settings)[2])
    assert np.std(normals.astype(float)) == pytest.approx(1.0, abs=0.02)
    assert not dropped.any()
    assert np.mean(draw(3, 10, SHAPE, Settings(batch=1000, label_dropout=0.25))[4]) == pytest.approx(0.25, abs=0.05)


def test_a_class_is_given_to_the_network_and_none_is_the_last(y):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = unet(unet_config(SHAPE, num_class_embeds=4)).eval()
    denoise = NetworkDenoiser(network, SHAPE, SPREAD, classes=3)
    c_skip, c_out, c_in, told = precondition(0.7, SPREAD)

    def formula(labels):
        with torch.no_grad():
            answer = network((c_in * y).float(), torch.full((3,), told), torch.tensor(labels)).sample
        return c_skip * y + c_out * answer.double()

    for made, labels in (
        (denoise, [3, 3, 3]),
        (denoise.given(None), [3, 3, 3]),
        (denoise.given(1), [1, 1, 1]),
        (denoise.given([2, 0, 1]), [2, 0, 1]),
    ):
        assert torch.allclose(made(y, 0.7), formula(labels), rtol=0.0, atol=1e-6)
    assert denoise.label == 3
    for label in (3, -1, 0.5, [[0]]):
        with pytest.raises(sk.BadInput, match="must be an integer, or integers"):
            denoise.given(label)
    with pytest.raises(sk.BadInput, match="2 labels for 3 data"):
        denoise.given([0, 1])(y, 0.7)
    with pytest.raises(sk.BadInput, match="trained without classes"):
        NetworkDenoiser(network, SHAPE, SPREAD).given(1)


def test_gradients_pass_where_they_are_asked_for():
    denoise = sk.torch.load("digits").to(dtype=torch.float64)
    y, way = (torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(2))
    assert not denoise(y, 0.7).requires_grad
    asked = y.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad((denoise(asked, 0.7) * way).sum(), asked)
    h = 1e-5
    numeric = ((denoise(y + h * way, 0.7) - denoise(y - h * way, 0.7)) * way).sum() / (2.0 * h)
    assert float((slope * way).sum()) == pytest.approx(float(numeric), rel=1e-6)
    with torch.no_grad():
        assert not denoise(asked, 0.7).requires_grad


def test_a_digit_is_completed():
    """Given its upper half, the posterior sampler draws lower halves that fit: nearer to the truth than those of other digits."""
    images = sk.torch.digits()
    truth, mask = images.held_out[3], np.zeros((1, 8, 8), bool)
    mask[:, :4] = True
    half = sk.torch.Posterior(sk.torch.load("digits"), mask, np.where(mask, truth, 0.0), spread=0.5)
    made = sk.sample(sk.catalogue.edm(), half, method=sk.methods.ddim(), grid=sk.grids.karras(8, 0.05, 20.0), n=12, dtype=torch.float32).x.numpy()
    assert np.abs(made - truth)[:, mask].max() < 0.3
    gaps = [np.sqrt(np.mean((x - made)[:, ~mask] ** 2)) for x in images.held_out[:200]]
    assert np.mean(np.array(gaps) < gaps[3]) < 0.05
