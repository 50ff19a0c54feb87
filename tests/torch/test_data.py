"""Sources of images: known pixels come out where and as they should, with classes, range and split; what is wrong is named."""

import numpy as np
import pytest
import torch
from PIL import Image

import sdekit as sk
from sdekit.torch.sources import folder, from_dataset, from_npz, patches

pytestmark = pytest.mark.images


def back(images):
    """All pixels in the order of the source, as bytes."""
    joined = np.concatenate([images.train, images.held_out]).astype(float)
    out = np.empty_like(joined)
    out[images.order] = joined
    return (out + 1.0) * 127.5


def source_labels(images):
    out = np.empty(len(images.order), int)
    out[images.order] = np.concatenate([images.train_labels, images.held_out_labels])
    return out


def test_patches_are_cut_from_the_photographs():
    from sklearn.datasets import load_sample_images

    images, photographs = patches(), load_sample_images().images
    assert images.shape == (3, 32, 32)
    assert (len(images.train), len(images.held_out), images.name, images.range) == (416, 104, "patches32", (-1.0, 1.0))
    found = back(images)
    for patch, (photograph, row, column) in ((0, (0, 0, 0)), (21, (0, 1, 1)), (260 + 259, (1, 12, 19))):
        cut = photographs[photograph][32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
        np.testing.assert_allclose(found[patch], np.moveaxis(cut, 2, 0), atol=1e-4)
    assert source_labels(images).tolist() == [0] * 260 + [1] * 260
    assert images.classes == 2
    assert patches(64, 1).shape == (3, 64, 64)
    with pytest.raises(sk.BadInput, match="size = 400 must be at most 320"):
        patches(400)


@pytest.fixture
def bytes_():
    return np.random.default_rng(0).integers(0, 256, (10, 4, 6, 3), dtype=np.uint8)


def write(path, pixels, names):
    for pixel, name in zip(pixels, names, strict=True):
        (path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixel).save(path / name)


def test_a_folder_of_classes(tmp_path, bytes_):
    names = [f"{kind}/{i}.png" for kind in ("ant", "bee") for i in range(5)]
    write(tmp_path, bytes_, names)
    images = folder(tmp_path)
    np.testing.assert_allclose(back(images), np.moveaxis(bytes_, 3, 1), atol=1e-4)
    assert source_labels(images).tolist() == [0] * 5 + [1] * 5
    assert (len(images.train), len(images.held_out)) == (8, 2)
    assert images.as_dict() == folder(tmp_path).as_dict() != folder(tmp_path, split_seed=1).as_dict()
    write(tmp_path, bytes_[:1], ["loose.png"])
    with pytest.raises(sk.BadInput, match=r"holds 'loose.png' beside the subfolders \['ant', 'bee'\]"):
        folder(tmp_path)


def test_grey_stays_grey_and_sizes_are_made_one(tmp_path, bytes_):
    write(tmp_path, bytes_[..., 0], [f"{i}.png" for i in range(10)])
    assert folder(tmp_path).shape == (1, 4, 6)
    cut = folder(tmp_path, size=4)  # the central square; no scaling is left to do
    np.testing.assert_allclose(back(cut)[:, 0], bytes_[:, :, 1:5, 0], atol=1e-4)
    write(tmp_path, bytes_[:1, :3], ["a.png"])
    with pytest.raises(sk.BadInput, match=r"a\.png' has 6 x 3, '0\.png' 6 x 4 pixels; all must have one size"):
        folder(tmp_path)
    mixed = folder(tmp_path, size=3)
    assert mixed.shape == (3, 3, 3)


def test_folders_that_cannot_be_read(tmp_path, bytes_):
    with pytest.raises(sk.BadInput, match="is not a folder"):
        folder(tmp_path / "none")
    with pytest.raises(sk.BadInput, match="holds no image"):
        folder(tmp_path)
    write(tmp_path, bytes_[:3], ["0.png", "1.png", "2.png"])
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    with pytest.raises(sk.BadInput, match=r"1\.png' cannot be read as an image"):
        folder(tmp_path)
    (tmp_path / "1.png").unlink()
    for share in (0.0, 1.0):
        with pytest.raises(sk.BadInput, match="held_out"):
            folder(tmp_path, held_out=share)


def test_npz(tmp_path, bytes_):
    path = tmp_path / "set.npz"
    np.savez(path, images=bytes_, labels=np.arange(10) % 3)
    images = from_npz(path)
    np.testing.assert_allclose(back(images), np.moveaxis(bytes_, 3, 1), atol=1e-4)
    assert source_labels(images).tolist() == [0, 1, 2] * 3 + [0]
    assert images.name == "set"
    np.savez(path, images=bytes_[..., 0] / 51.0)  # 0 .. 5
    with pytest.raises(sk.BadInput, match=r"type float64: say what values they range over"):
        from_npz(path)
    np.testing.assert_allclose(back(from_npz(path, range=(0.0, 5.0)))[:, 0], bytes_[..., 0], atol=1e-4)
    assert not source_labels(from_npz(path, range=(0.0, 5.0))).any()
    with pytest.raises(sk.BadInput, match=r"values lie in .* outside the range \(0, 1\)"):
        from_npz(path, range=(0.0, 1.0))
    np.savez(path, pictures=bytes_)
    with pytest.raises(sk.BadInput, match=r"holds \['pictures'\]; it must hold 'images'"):
        from_npz(path)
    np.savez(path, images=np.array([{}], dtype=object))
    with pytest.raises(sk.BadInput, match=r"cannot be read as \.npz without pickles"):
        from_npz(path)
    path.write_bytes(b"PK" + b"0" * 40)
    with pytest.raises(sk.BadInput, match="cannot be read"):
        from_npz(path)
    with pytest.raises(sk.BadInput, match="cannot be read"):
        from_npz(tmp_path / "none.npz")


def test_data_sets_of_other_libraries(bytes_):
    chw = np.moveaxis(bytes_, 3, 1)
    forms = {
        "pillow": [(Image.fromarray(pixels), i % 2) for i, pixels in enumerate(bytes_)],
        "tensors": [(torch.from_numpy(pixels / 255.0).float(), i % 2) for i, pixels in enumerate(chw)],
        "bytes": [(torch.from_numpy(pixels.copy()), torch.tensor(i % 2)) for i, pixels in enumerate(chw)],
    }
    for name, pairs in forms.items():
        images = from_dataset(pairs, name)
        np.testing.assert_allclose(back(images), chw, atol=1e-4)
        assert source_labels(images).tolist() == [0, 1] * 5
        assert images.name == name
    with pytest.raises(sk.BadInput, match="has 1 images"):
        from_dataset(forms["bytes"][:1], "one")
    with pytest.raises(sk.BadInput, match="type int64: say what values"):
        from_dataset([(np.zeros((2, 2), int), 0)] * 3, "ints")
    with pytest.raises(sk.BadInput, match="must rise"):
        from_dataset(forms["bytes"], "r", range=(1.0, 1.0))
