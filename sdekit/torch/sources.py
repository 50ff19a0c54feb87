"""Where images come from: photographs in patches, folders, ``.npz`` files, data sets of other libraries; all become ``Images``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._array import is_torch, to_host
from ..errors import BadInput, MissingExtra, finite, whole
from .data import Images

__all__ = ["folder", "from_dataset", "from_npz", "patches"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_BYTES = (0.0, 255.0)


def patches(size: int = 32, split_seed: int = 0) -> Images:
    """Patches of scikit-learn's two sample photographs (427 x 640, RGB), side by side without overlap, scaled to [-1, 1].

    A fifth is held out.  Patches of one photograph resemble each other: held-out ones are unseen, not from unseen photographs.

    Parameters
    ----------
    size : int
        Pixels of a side; 32 gives 520 patches.
    split_seed : int

    Returns
    -------
    Images
        Arrays (n, 3, size, size); the label is the photograph, 0 or 1.

    Raises
    ------
    BadInput
        If a photograph does not hold two patches of that size.
    MissingExtra
        Without scikit-learn and Pillow.
    """
    size = whole("size", size)
    if size > 320:
        raise BadInput(f"size = {size} must be at most 320: a photograph has 427 x 640 pixels")
    try:
        from sklearn.datasets import load_sample_images

        photographs = load_sample_images().images
    except ImportError:
        raise MissingExtra("the sample photographs", "images") from None
    parts, labels = [], []
    for label, photograph in enumerate(photographs):
        high, wide = (length // size for length in photograph.shape[:2])
        cut = photograph[: high * size, : wide * size].reshape(high, size, wide, size, 3).transpose(0, 2, 4, 1, 3)
        parts.append(cut.reshape(-1, 3, size, size))
        labels += [label] * len(parts[-1])
    return _images(np.concatenate(parts), labels, _BYTES, 0.2, split_seed, f"patches{size}")


def folder(path: str | os.PathLike[str], *, size: int | None = None, held_out: float = 0.2, split_seed: int = 0) -> Images:
    """Images of a folder; where it has subfolders, each is a class, in alphabetical order.

    Parameters
    ----------
    path : path
        With PNG, JPEG, BMP or WebP files, in it or one level below.
    size : int, optional
        Cut to the central square and scale to this side; when absent all must have one size already.
    held_out : float
        Share that is not trained on.
    split_seed : int

    Returns
    -------
    Images
        Grey (n, 1, height, width) if every file is grey, else RGB (n, 3, height, width), scaled to [-1, 1].

    Raises
    ------
    BadInput
        If there is no image, a file cannot be read, or sizes differ.
    MissingExtra
        Without Pillow.
    """
    root = Path(path)
    if not root.is_dir():
        raise BadInput(f"{str(root)!r} is not a folder; give one with image files")
    found = sorted(file for pattern in ("*", "*/*") for file in root.glob(pattern) if file.suffix.lower() in _SUFFIXES)
    names = sorted({file.parent.name for file in found if file.parent != root})
    loose = [file for file in found if file.parent == root]
    if not found:
        raise BadInput(f"{str(root)!r} holds no image ({', '.join(_SUFFIXES)}), nor do its subfolders")
    if names and loose:
        raise BadInput(f"{str(root)!r} holds {loose[0].name!r} beside the subfolders {names[:3]}: put every image into its class, or none")
    read = [_read(file, None if size is None else whole("size", size)) for file in found]
    if not all(grey for _, grey in read):
        read = [(np.repeat(pixels, 3, axis=0) if grey else pixels, False) for pixels, grey in read]
    for file, (pixels, _) in zip(found, read, strict=True):
        if pixels.shape != read[0][0].shape:
            sizes = f"{pixels.shape[2]} x {pixels.shape[1]}, {found[0].name!r} {read[0][0].shape[2]} x {read[0][0].shape[1]}"
            raise BadInput(f"{str(file)!r} has {sizes} pixels; all must have one size: give size to cut and scale them")
    labels = [names.index(file.parent.name) if names else 0 for file in found]
    return _images(np.stack([pixels for pixels, _ in read]), labels, _BYTES, held_out, split_seed, root.resolve().name)


def _read(file: Path, size: int | None) -> tuple[NDArray[Any], bool]:
    """Pixels (channels, height, width) of a file, and whether it is grey."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise MissingExtra("reading image files", "images") from None
    try:
        with Image.open(file) as opened:
            grey = opened.mode in {"1", "L", "LA"}
            image = opened.convert("L" if grey else "RGB")
            image = image if size is None else ImageOps.fit(image, (size, size))
            pixels = np.asarray(image)
    except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput(f"{str(file)!r} cannot be read as an image: {' '.join(str(error).split())[:120]}") from None
    return (pixels[None] if grey else np.moveaxis(pixels, 2, 0)), grey


def from_npz(
    path: str | os.PathLike[str],
    *,
    range: tuple[float, float] | None = None,  # noqa: A002
    held_out: float = 0.2,
    split_seed: int = 0,
) -> Images:
    """Images of an ``.npz`` file with ``images`` (n, height, width) or (n, height, width, channels) and, if there are classes, ``labels`` (n,).

    Parameters
    ----------
    path : path
    range : (float, float), optional
        Values that become -1 and 1; (0, 255) for bytes, needed for other types.
    held_out, split_seed
        As for :func:`folder`.

    Raises
    ------
    BadInput
        If the file cannot be read, or its arrays are not of that form.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as file:
            if "images" not in file:
                raise BadInput(f"{str(path)!r} holds {sorted(file)}; it must hold 'images'")
            pixels = file["images"]
            labels = file["labels"] if "labels" in file else np.zeros(len(pixels), np.int64)
    except BadInput:
        raise
    except Exception as error:  # a damaged archive raises errors of four libraries
        raise BadInput(f"{str(path)!r} cannot be read as .npz without pickles: {' '.join(str(error).split())[:120]}") from None
    if pixels.ndim not in (3, 4):
        raise BadInput(f"{str(path)!r}: images have shape {pixels.shape}; they must be (n, height, width) or (n, height, width, channels)")
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    return _images(np.moveaxis(pixels, 3, 1), labels, _limits(pixels, range), held_out, split_seed, Path(path).stem)


def from_dataset(
    dataset: Iterable[tuple[Any, Any]],
    name: str,
    *,
    range: tuple[float, float] | None = None,  # noqa: A002
    held_out: float = 0.2,
    split_seed: int = 0,
) -> Images:
    """Images of any iterable of (image, label), such as a data set of torchvision.

    Parameters
    ----------
    dataset : iterable
        Pillow images or arrays (height, width) or (height, width, channels), bytes; or tensors (channels, height, width).
    name : str
    range : (float, float), optional
        Values that become -1 and 1; (0, 255) for bytes, (0, 1) for floating tensors (as torchvision makes them), needed for other types.
    held_out, split_seed
        As for :func:`folder`.

    Raises
    ------
    BadInput
        If there are fewer than two images, their shapes differ, or their range is not known.
    """
    parts, labels = [], []
    for image, label in dataset:
        pixels = to_host(image) if is_torch(image) else np.asarray(image)
        if not is_torch(image):
            pixels = np.moveaxis(pixels[..., None] if pixels.ndim == 2 else pixels, -1, 0)
        elif range is None and pixels.dtype.kind == "f":
            range = (0.0, 1.0)  # noqa: A001
        parts.append(pixels)
        labels.append(int(label))
    if len(parts) < 2 or len({part.shape for part in parts}) > 1:
        raise BadInput(
            f"the data set has {len(parts)} images of shapes {sorted({part.shape for part in parts})[:3]}; at least two of one shape are needed"
        )
    pixels = np.stack(parts)
    return _images(pixels, labels, _limits(pixels, range), held_out, split_seed, name)


def _limits(pixels: NDArray[Any], given: tuple[float, float] | None) -> tuple[float, float]:
    if given is not None:
        low, high = finite("range", given[0]), finite("range", given[1])
        if high <= low:
            raise BadInput(f"range = {given!r} must rise")
        return low, high
    if pixels.dtype != np.uint8:
        raise BadInput(f"images have type {pixels.dtype}: say what values they range over, range=(low, high)")
    return _BYTES


def _images(pixels: NDArray[Any], labels: Any, limits: tuple[float, float], held_out: float, split_seed: int, name: str) -> Images:
    """Scaled from ``limits`` to [-1, 1] and split."""
    if not 0.0 < finite("held_out", held_out) < 1.0:
        raise BadInput(f"held_out = {held_out!r} must lie in (0, 1)")
    low, high = limits
    if pixels.size and not (np.min(pixels) >= low and np.max(pixels) <= high):
        raise BadInput(f"values lie in [{np.min(pixels):g}, {np.max(pixels):g}], outside the range ({low:g}, {high:g})")
    scaled = (pixels.astype(np.float64) - low) * (2.0 / (high - low)) - 1.0
    count = max(1, len(pixels) - max(1, round(held_out * len(pixels))))
    return Images(np.clip(scaled, -1.0, 1.0), labels, count, split_seed=split_seed, name=name)
