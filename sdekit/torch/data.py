"""Images as arrays, with a split that can be made again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BadInput, MissingExtra, whole
from ..law import Gaussian

Pixels = NDArray[np.float32]
Labels = NDArray[np.int64]

__all__ = ["Images", "digits"]

_TRAIN = 1400  # digits to train on; the other 397 are held out


@dataclass(frozen=True, eq=False, init=False)
class Images:
    """Images scaled to a range, split in a training and a held-out part; the arrays are read-only.

    Attributes
    ----------
    train, held_out : float32 arrays (n, channels, height, width)
    train_labels, held_out_labels : int arrays (n,)
    range : (float, float)
        Smallest and largest value that a pixel may have.
    name : str
    split_seed : int
        Seed of the permutation that made the split.
    order : int array (n,)
        That permutation of the whole set: the training images first.

    Raises
    ------
    BadInput
        For arrays that do not fit together, are empty, or leave the range.
    """

    train: Pixels
    train_labels: Labels
    held_out: Pixels
    held_out_labels: Labels
    order: Labels
    split_seed: int
    name: str
    range: tuple[float, float]

    def __init__(
        self,
        pixels: ArrayLike,
        labels: ArrayLike,
        train: int,
        *,
        split_seed: int = 0,
        name: str = "images",
        range: tuple[float, float] = (-1.0, 1.0),  # noqa: A002
    ) -> None:
        pixels, labels = np.array(pixels, np.float32), np.array(labels, np.int64)
        if pixels.ndim != 4 or labels.shape != pixels.shape[:1]:
            raise BadInput(f"pixels have shape {pixels.shape}, labels {labels.shape}; they must be (n, channels, height, width) and (n,)")
        count = whole("train", train)
        if count >= len(pixels):
            raise BadInput(f"train = {count} leaves nothing held out of {len(pixels)} images; take fewer")
        low, high = float(range[0]), float(range[1])
        if not np.all((pixels >= low) & (pixels <= high)):
            raise BadInput(f"pixels lie in [{np.min(pixels):g}, {np.max(pixels):g}]; they must lie in range = ({low:g}, {high:g}): scale them first")
        seed = whole("split_seed", split_seed, 0)
        order = np.random.default_rng(seed).permutation(len(pixels))
        values: dict[str, Any] = {
            "train": pixels[order[:count]], "train_labels": labels[order[:count]],
            "held_out": pixels[order[count:]], "held_out_labels": labels[order[count:]],
            "order": order, "split_seed": seed, "name": str(name), "range": (low, high),
        }  # fmt: skip
        for key, value in values.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, key, value)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image: (channels, height, width)."""
        return self.train.shape[1:]

    @property
    def spread(self) -> float:
        """Root mean square deviation of the training pixels from their overall mean: ``sigma_data`` of EDM."""
        return float(np.std(self.train, dtype=np.float64))

    @property
    def classes(self) -> int:
        """One more than the largest label."""
        return int(max(self.train_labels.max(), self.held_out_labels.max())) + 1

    def gaussian(self) -> Gaussian:
        """The normal law with the mean and the covariance of the training pixels."""
        flat = self.train.reshape(len(self.train), -1).astype(float)
        return Gaussian(flat.mean(0).reshape(self.shape), np.cov(flat, rowvar=False))

    def as_dict(self) -> dict[str, Any]:
        """What is needed to make the same arrays again: name, range, sizes, seed of the split and sha256 of its permutation and of the pixels."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "range": list(self.range),
            "train": len(self.train),
            "held_out": len(self.held_out),
            "split_seed": self.split_seed,
            "split_sha256": hashlib.sha256(self.order.astype("<i8").tobytes()).hexdigest(),
            "train_sha256": hashlib.sha256(self.train.astype("<f4").tobytes()).hexdigest(),
        }


def digits(split_seed: int = 0) -> Images:
    """scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels in 0..16, scaled to [-1, 1]; 1,400 to train on, 397 held out.

    Parameters
    ----------
    split_seed : int
        The split is ``numpy.random.default_rng(split_seed).permutation(1797)``, the first 1,400 to train.

    Returns
    -------
    Images
        Arrays (n, 1, 8, 8) with labels 0..9.

    Raises
    ------
    MissingExtra
        Without scikit-learn.

    References
    ----------
    E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998 (its test set).
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtra("the digits data set", "images") from None
    data = load_digits()
    return Images(data.images[:, None] / 8.0 - 1.0, data.target, _TRAIN, split_seed=split_seed, name="digits")
