"""The shipped model: its files, its error beside the best linear denoiser, and its samples."""

import hashlib
import json

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit.torch import models
from sdekit.torch.data import digits
from sdekit.torch.metrics import judge

pytestmark = pytest.mark.images


@pytest.fixture(scope="module")
def images():
    return digits()


@pytest.fixture(scope="module")
def denoise():
    return models.load("digits")


def errors(denoise, x0, sigma):
    """Mean squared error of each image's pixels at a level, always with the same noise."""
    y = x0 + sigma * np.random.default_rng(1).standard_normal(x0.shape)
    return np.mean((np.asarray(denoise(y, sigma)) - x0).reshape(len(x0), -1) ** 2, axis=1)


def test_files_belong_together_and_are_small(denoise, images):
    folder = models._SHIPPED
    record = json.loads((folder / "digits.json").read_text())
    data = (folder / "digits.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == record["sha256"]
    assert len(data) < 4_000_000
    assert record["parameters"] == sum(p.numel() for p in denoise.network.parameters())
    assert record["data"] == images.as_dict()
    assert record["sigma_data"] == denoise.sigma_data == pytest.approx(images.spread, rel=1e-12)
    assert not any(p.requires_grad for p in denoise.network.parameters())


def test_it_was_made_by_the_default_settings(denoise, images):
    from dataclasses import asdict

    from sdekit.torch.network import unet_config
    from sdekit.torch.training import Settings

    assert denoise.record["settings"] == json.loads(json.dumps(asdict(Settings())))
    assert denoise.record["network"] == unet_config(images.shape)


def test_names_are_known_or_suggested(tmp_path):
    assert "digits" in models.names()
    with pytest.raises(sk.BadInput, match="unknown model 'digitz'; did you mean 'digits'"):
        models.load("digitz")
    with pytest.raises(sk.BadInput, match="is not a folder"):
        models.load(tmp_path / "nowhere")
    with pytest.raises(sk.BadInput, match=r"model\.json' does not exist; give a folder that train\(\) wrote"):
        models.load(tmp_path)


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.5, 1.0, 2.0])
def test_it_denoises_held_out_digits_better_than_any_linear_map(denoise, images, sigma):
    x0 = images.held_out.astype(float)
    found = errors(denoise, x0, sigma)
    gain = errors(images.gaussian().denoiser(), x0, sigma) - found
    assert np.mean(gain) > 4.0 * np.std(gain) / np.sqrt(len(gain))
    assert np.mean(found) < min(sigma**2, images.spread**2)
    assert np.mean(found) < 1.4 * np.mean(errors(denoise, images.train[:397].astype(float), sigma))  # it has not learnt them by heart


def test_at_the_highest_levels_it_answers_the_mean(denoise, images):
    x0 = images.held_out.astype(float)
    for sigma in (20.0, 80.0):
        assert np.mean(errors(denoise, x0, sigma)) < 1.1 * np.mean((x0 - images.train.mean(0)) ** 2)


@pytest.mark.parametrize("name", ["edm", "psld"])
def test_samples_of_one_denoiser_by_two_processes_pass(denoise, images, name):
    process = getattr(sk.catalogue, name)()
    run = sk.sample(process, denoise, method=sk.methods.exponential(2), grid=sk.grids.karras(20), n=200, seed=3)
    assert set(run.status) == {"ok"}
    assert isinstance(run.x, torch.Tensor)
    verdict = judge(run.x, images)
    assert verdict.passed, str(verdict)
