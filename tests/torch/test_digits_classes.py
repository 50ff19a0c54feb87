"""The shipped class-conditional model: its files, what the class tells it, its samples by two processes."""

import numpy as np
import pytest
from test_digits import errors

import sdekit as sk
from sdekit.torch import models, shipped
from sdekit.torch.data import digits
from sdekit.torch.metrics import _classifier, judge

pytestmark = pytest.mark.images


@pytest.fixture(scope="module")
def images():
    return digits()


@pytest.fixture(scope="module")
def denoise():
    return models.load("digits_classes")


def test_it_is_what_its_record_says(denoise, images):
    record = denoise.record
    assert record["data"] == images.as_dict()
    run = shipped.runs(images)["digits_classes"]
    assert (record["settings"]["steps"], record["settings"]["label_dropout"], denoise.classes) == (run["steps"], run["label_dropout"], 10)
    assert record["start"] == {"model": "digits", "sha256": models.load("digits").record["sha256"]}
    assert record["parameters"] == sum(p.numel() for p in denoise.network.parameters())
    assert (models._SHIPPED / "digits_classes.safetensors").stat().st_size < 4_000_000
    assert all(measure["passed"] for part in ("each_class", "no_class") for measure in record["judged"][part].values())


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_the_class_helps_and_another_class_misleads(denoise, images, sigma):
    x0, labels = images.held_out.astype(float), images.held_out_labels
    none, right, wrong = (errors(model, x0, sigma) for model in (denoise, denoise.given(labels), denoise.given((labels + 1) % 10)))
    for better, worse in ((right, none), (none, wrong)):
        gain = worse - better
        assert np.mean(gain) > 4.0 * np.std(gain) / np.sqrt(len(gain))


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0])
def test_without_a_class_it_is_better_than_any_linear_map(denoise, images, sigma):
    x0 = images.held_out.astype(float)
    gain = errors(images.gaussian().denoiser(), x0, sigma) - errors(denoise, x0, sigma)
    assert np.mean(gain) > 4.0 * np.std(gain) / np.sqrt(len(gain))


def test_the_class_takes_away_as_much_error_as_it_holds_information(denoise, images):
    r"""Guo, Shamai and Verdu 2005: :math:`I(c; y) = \frac12 \int E|D - x_0|^2 - E|D_c - x_0|^2 \, d\sigma^{-2}`; with little noise log 10.

    Below a level of 0.3 the image itself tells its class, and nothing is left to gain.  A network that makes little of the class has less than
    log 10 (a third of it, after half the steps at half the rate), one that is poor without it has more (twice, after 900 steps from nothing).
    """
    x0, labels, levels = images.held_out[:200].astype(float), images.held_out_labels[:200], np.geomspace(20.0, 0.2, 10)
    gains = [64.0 * np.mean(errors(denoise, x0, sigma) - errors(denoise.given(labels), x0, sigma)) / sigma**2 for sigma in levels]
    assert np.trapezoid(gains, -np.log(levels)) == pytest.approx(np.log(10.0), rel=0.3)
    assert abs(gains[-1]) < 0.1 * max(gains)


@pytest.mark.parametrize("name", ["edm", "psld"])
def test_samples_of_each_class_are_of_it_and_pass(denoise, images, name):
    labels = np.arange(200) % 10
    run = {"method": sk.methods.exponential(2), "grid": sk.grids.karras(14), "n": 200, "seed": 4}
    made = sk.sample(getattr(sk.catalogue, name)(), denoise.given(labels), **run).x.numpy()
    assert np.mean(_classifier(images, 0).predict(made.reshape(200, -1)) == labels) > 0.93  # of held-out digits it knows 0.97
    verdict = judge(made, images)
    assert verdict.passed, str(verdict)
