"""Hooks into optional libraries, checked with these themselves where they are installed."""

import struct

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit.torch import frechet, training
from sdekit.torch.data import digits
from sdekit.torch.features import Moments, inception, kernel_distance
from sdekit.torch.sources import folder, from_dataset

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (12, 8, 8), dtype=np.uint8)


# ---------------------------------------------------------------------------------------------------------------- tensorboard


@pytest.mark.images
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_each_loss_at_once(tmp_path):
    """All steps are on the disk when a step is done, as a run that is killed needs."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log, seen = training.tensorboard(tmp_path / "log"), []

    def watch(step, loss):
        log(step, loss)
        seen.append((step, loss))
        if step in (1, 3):
            events = EventAccumulator(str(tmp_path / "log"))
            events.Reload()
            assert [(e.step, e.value) for e in events.Scalars("loss")] == [(s, pytest.approx(v, rel=1e-6)) for s, v in seen]

    network = {"block_out_channels": [8, 8], "norm_num_groups": 4, "layers_per_block": 1, "attention_head_dim": 4}
    training.train(digits(), tmp_path / "run", steps=3, batch=4, network=network, progress=False, watch=watch)
    assert len(seen) == 3


# ---------------------------------------------------------------------------------------------------------------- torchvision


@pytest.fixture
def vision():
    return pytest.importorskip("torchvision", exc_type=ImportError)


def sorted_pixels(images):
    """Images in an order that does not depend on the split, as bytes."""
    every = np.concatenate([images.train, images.held_out])
    flat = np.round(127.5 * (every + 1.0)).astype(np.uint8).reshape(len(every), -1)
    return flat[np.lexsort(flat.T[::-1])]


def test_mnist_from_its_raw_files(vision, tmp_path):
    """Pillow images, and tensors by ``ToTensor``: the same data."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images, labels = RNG.integers(0, 256, (10, 28, 28), dtype=np.uint8), np.arange(10, dtype=np.uint8)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 10, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 10) + labels.tobytes())
    plain = from_dataset(vision.datasets.MNIST(str(tmp_path)), "mnist")
    tensors = from_dataset(vision.datasets.MNIST(str(tmp_path), transform=vision.transforms.ToTensor()), "mnist")
    assert plain.shape == (1, 28, 28)
    assert plain.classes == 10
    want = images.reshape(10, -1)
    np.testing.assert_array_equal(sorted_pixels(plain), want[np.lexsort(want.T[::-1])])
    np.testing.assert_allclose(tensors.train, plain.train, atol=1e-6)
    np.testing.assert_array_equal(tensors.train_labels, plain.train_labels)


def test_folders_of_images_are_read_alike(vision, tmp_path):
    image = pytest.importorskip("PIL.Image")
    for i, pixels in enumerate(BYTES):
        place = tmp_path / "set" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        image.fromarray(np.stack([pixels, pixels[::-1], 255 - pixels], axis=-1)).save(place / f"{i:02}.png")
    theirs = from_dataset(vision.datasets.ImageFolder(str(tmp_path / "set")), "set")
    ours = folder(tmp_path / "set")
    np.testing.assert_array_equal(theirs.train, ours.train)
    np.testing.assert_array_equal(theirs.train_labels, ours.train_labels)
    np.testing.assert_array_equal(theirs.held_out, ours.held_out)


def test_made_up_data(vision):
    made = from_dataset(vision.datasets.FakeData(size=6, image_size=(3, 4, 5), num_classes=3), "fake")
    want = np.stack([np.moveaxis(np.asarray(image), 2, 0) for image, _ in vision.datasets.FakeData(size=6, image_size=(3, 4, 5))]).reshape(6, -1)
    assert made.shape == (3, 4, 5)
    np.testing.assert_array_equal(sorted_pixels(made), want[np.lexsort(want.T[::-1])])


# -------------------------------------------------------------------------------------------------------------- torch-fidelity


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Inception with weights drawn at random, in the file that torch-fidelity reads."""
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", exc_type=ImportError)

    class Untrained(extractor.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_, **__):
            pass

    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({}, path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Untrained("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
        for module in made.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
    torch.save(made.state_dict(), path)
    return path


def test_distances_in_inception_features_are_theirs(weights):
    fid, kid = (pytest.importorskip(f"torch_fidelity.metric_{name}") for name in ("fid", "kid"))
    images = RNG.integers(0, 256, (10, 3, 16, 16), dtype=np.uint8)
    ours = inception(weights, batch=4)
    made = ours(images / 127.5 - 1.0)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    own = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights))
    theirs = own(torch.from_numpy(images))[0]
    assert made.shape == (10, 2048)
    size = float(theirs.abs().max())
    assert size > 1e-3
    np.testing.assert_allclose(made, theirs.numpy(), rtol=0, atol=1e-5 * size)
    grey = own(torch.from_numpy(images[:1, :1].repeat(3, 1)))[0]
    np.testing.assert_allclose(ours(images[:1, :1] / 127.5 - 1.0), grey, rtol=0, atol=1e-5 * size)
    # distances, in as many features as the images determine
    a, b = (1.0 + RNG.standard_normal((2, 60, 12))) @ RNG.standard_normal((12, 12))
    statistics = [fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    want = fid.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert Moments.of(a).frechet(Moments.of(b)) == pytest.approx(want, rel=1e-8)
    assert frechet(a, b) == pytest.approx(want, rel=1e-8)
    cubic = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_coef0": 1.0}
    assert kernel_distance(a, b) == pytest.approx(kid.kernel_mmd(a, b, **cubic), rel=1e-9)


class Harm:
    def __reduce__(self):
        return (print, ("this was run",))


def test_weights_that_would_run_code_are_refused(weights, tmp_path, capsys):
    torch.save({"Conv2d_1a_3x3.conv.weight": Harm()}, tmp_path / "harm.pth")
    with pytest.raises(sk.BadInput, match="is no file of tensors alone"):
        inception(tmp_path / "harm.pth")
    with pytest.raises(sk.BadInput, match="is no file of tensors alone"):
        inception(tmp_path / "none.pth")
    with pytest.raises(sk.BadInput, match=r"images have shape \(2, 4, 8, 8\)"):
        inception(weights)(np.zeros((2, 4, 8, 8)))
    assert "this was run" not in capsys.readouterr().out
