r"""Distances between sets of images in the features of your choice, each beside its floor: what as many images of the data have among themselves.

A Frechet distance needs means and covariances only, and these can be streamed: :class:`Moments` takes batch after batch in float64, merges with
others, and adds up over workers by one sum, so that no set of samples has to be held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._array import to_host
from ..errors import BadInput, MissingExtra, whole
from ..runs import World
from .data import Images
from .metrics import _classifier, precision_recall

Array = NDArray[np.float64]

__all__ = ["FeatureDistances", "Features", "Moments", "as_rgb", "classifier", "compare", "inception", "kernel_distance", "pca", "pixels"]

_LEAST = 8


@dataclass(frozen=True, eq=False)
class Features:
    """A map from images to vectors, with what it was made from.

    Attributes
    ----------
    name : str
    function : callable
        Arrays (n, *shape) to (n, f).
    settings : mapping
        Recorded beside every distance.
    """

    name: str
    function: Callable[[Array], Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, images: Any) -> Array:
        """Features (n, f) in float64.

        Raises
        ------
        BadInput
            For images or features that are not finite.
        """
        host = np.asarray(to_host(images), float)
        made = np.asarray(to_host(self.function(host)), float).reshape(len(host), -1)
        if not np.all(np.isfinite(made)):
            raise BadInput(f"features {self.name!r} are not finite; leave out samples whose status is not 'ok'")
        return made


def pixels() -> Features:
    """The pixels themselves."""
    return Features("pixels", lambda x: x.reshape(len(x), -1))


def pca(images: Images, components: int = 32) -> Features:
    """The first principal components of the training images, in units of the pixels.

    Raises
    ------
    BadInput
        For more components than the training images have.
    """
    flat = np.asarray(images.train, float).reshape(len(images.train), -1)
    k, mean = whole("components", components), flat.mean(0)
    if k > min(flat.shape):
        raise BadInput(f"components = {k} must be at most {min(flat.shape)}, the rank that {len(flat)} images of {flat.shape[1]} pixels can have")
    axes = np.linalg.svd(flat - mean, full_matrices=False)[2][:k].T
    return Features("pca", lambda x: (x.reshape(len(x), -1) - mean) @ axes, {"components": k})


def classifier(images: Images, seed: int = 0) -> Features:
    """Activations of the hidden layer of a small classifier that was trained on the training images (that of :func:`~sdekit.torch.judge`).

    Raises
    ------
    MissingExtra
        Without scikit-learn.
    """
    model = _classifier(images, seed)

    def hidden(x: Array) -> Array:
        return np.asarray(np.maximum(x.reshape(len(x), -1) @ model.coefs_[0] + model.intercepts_[0], 0.0))

    return Features("classifier", hidden, {"units": len(model.intercepts_[0]), "seed": seed})


def inception(weights: str | Path | None = None, batch: int = 64) -> Features:
    """The 2048 activations of FID's Inception network, by torch-fidelity: distances in them are FID and KID.

    Parameters
    ----------
    weights : path, optional
        Of the network's weights, a state_dict as torch writes it; it must hold tensors and nothing else, for torch-fidelity unpickles it.  When
        absent, torch-fidelity takes its own from its cache, or fetches them.
    batch : int

    Raises
    ------
    BadInput
        For a file of weights that is missing, damaged, or holds more than tensors; at a call, for images of another form than (n, 3 or 1, height,
        width); grey ones get three equal channels.
    MissingExtra
        Without torch-fidelity.
    """
    try:
        import torch
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Network
    except ImportError:
        raise MissingExtra("Inception features", "inception") from None
    if weights is not None:
        try:
            torch.load(weights, map_location="cpu", weights_only=True)
        except Exception as error:  # of the disk, of the archive, or of pickles that do more
            raise BadInput(f"{str(weights)!r} is no file of tensors alone: {' '.join(str(error).split())[:120]}") from None
    network = Network("inception-v3-compat", ["2048"], feature_extractor_weights_path=None if weights is None else str(weights))

    def activations(x: Array) -> Array:
        bytes_ = torch.from_numpy(as_rgb(x))
        with torch.no_grad():
            return np.concatenate([network(part)[0].cpu().numpy() for part in torch.split(bytes_, batch)])

    return Features("inception", activations, {"network": "inception-v3-compat", "layer": 2048, "range": [-1.0, 1.0]})


def as_rgb(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Images (n, 3 or 1, height, width) in [-1, 1] as bytes (n, 3, height, width).

    Raises
    ------
    BadInput
        For arrays of another form.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise BadInput(f"images have shape {images.shape}; they must be (n, 3, height, width), or (n, 1, height, width) for grey ones")
    made = np.clip(np.round(127.5 * (images + 1.0)), 0, 255).astype(np.uint8)
    return np.repeat(made, 3 // images.shape[1], axis=1)


class Moments:
    """Number, mean and scatter of vectors, in float64, batch after batch.

    Parameters
    ----------
    size : int
        Elements of a vector.
    """

    def __init__(self, size: int) -> None:
        self.n, self.mean, self.scatter = 0, np.zeros(whole("size", size)), np.zeros((size, size))

    @classmethod
    def of(cls, vectors: Array) -> Moments:
        """Those of one set (n, f)."""
        made = cls(vectors.shape[1])
        made.update(vectors)
        return made

    def update(self, vectors: Array) -> None:
        """Take in vectors (n, f)."""
        vectors = np.asarray(vectors, float)
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise BadInput(f"vectors have shape {vectors.shape}; they must be (n, {len(self.mean)})")
        if len(vectors):
            mean = vectors.mean(0)
            self._join(len(vectors), mean, (vectors - mean).T @ (vectors - mean))

    def merge(self, other: Moments) -> None:
        """Take in what another has seen."""
        self._join(other.n, other.mean, other.scatter)

    def _join(self, n: int, mean: Array, scatter: Array) -> None:
        total, gap = self.n + n, mean - self.mean
        if total:
            self.scatter = self.scatter + scatter + np.outer(gap, gap) * (self.n * n / total)
            self.mean = self.mean + gap * (n / total)
            self.n = total

    def over(self, world: World) -> Moments:
        """Those of all workers together: one sum over them."""
        first = self.n * self.mean
        sums = world.total(np.concatenate([[self.n], first, (self.scatter + np.outer(first, self.mean)).ravel()]))
        made, f = Moments(len(self.mean)), len(self.mean)
        made.n = round(float(sums[0]))
        made.mean = sums[1 : 1 + f] / max(made.n, 1)
        made.scatter = sums[1 + f :].reshape(f, f) - made.n * np.outer(made.mean, made.mean)
        return made

    @property
    def cov(self) -> Array:
        """The covariance (divided by n - 1)."""
        if self.n < 2:
            raise BadInput(f"{self.n} vectors have no covariance; at least two are needed")
        return np.asarray(self.scatter / (self.n - 1.0))

    def frechet(self, other: Moments) -> float:
        r"""Frechet distance :math:`|\mu_a - \mu_b|^2 + \mathrm{tr}(C_a + C_b - 2 (C_a^{1/2} C_b C_a^{1/2})^{1/2})`: a squared W2."""
        from ..analysis.wasserstein import w2_factors

        return w2_factors(self.mean - other.mean, _root(self.cov), _root(other.cov)) ** 2


def _root(cov: Array) -> Array:
    values, vectors = np.linalg.eigh(cov)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def kernel_distance(a: Array, b: Array) -> float:
    r"""Squared maximum mean discrepancy for the kernel :math:`(x^T y / f + 1)^3`, the estimate without bias: KID where features are Inception's.

    Parameters
    ----------
    a, b : arrays (n, f) and (m, f)

    Returns
    -------
    float
        Zero on average for sets of one law, and then as often negative as positive.

    References
    ----------
    M. Binkowski et al., Demystifying MMD GANs, 2018 (arXiv:1801.01401).
    """
    n, m, f = len(a), len(b), a.shape[1]
    if min(n, m) < 2:
        raise BadInput(f"a kernel distance needs at least two vectors on both sides; there are {n} and {m}")

    def kernel(x: Array, y: Array) -> Array:
        return np.asarray((x @ y.T / f + 1.0) ** 3)

    own = [(kernel(x, x).sum() - np.trace(kernel(x, x))) / (len(x) * (len(x) - 1.0)) for x in (a, b)]
    return float(own[0] + own[1] - 2.0 * kernel(a, b).mean())


@dataclass(frozen=True)
class FeatureDistances:
    """What :func:`compare` found.

    Attributes
    ----------
    sizes : (int, int)
        Samples and images of the data.
    rows : tuple of dict
        For each feature map: ``features``, ``settings``, and for each measure its ``value``, and its ``floor``: mean and standard deviation of
        the same measure between as many images of the data and the rest of them.
    """

    sizes: tuple[int, int]
    rows: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{'features':12} {'measure':10} {'value':>11} {'floor':>11} {'+-':>9}   ({self.sizes[0]} samples, {self.sizes[1]} images)"]
        for row in self.rows:
            for name, found in row["measures"].items():
                lines.append(f"{row['features']:12} {name:10} {found['value']:11.5g} {found['floor']:11.5g} {found['spread']:9.2g}")
        return "\n".join(lines)


def compare(
    samples: Any, reference: Any, features: Sequence[Features] | None = None, *, neighbours: int = 3, repeats: int = 10, seed: int = 0
) -> FeatureDistances:
    """Frechet, kernel and sliced distances, precision and recall of samples to images of the data, with their floors.

    Parameters
    ----------
    samples, reference : arrays (n, *shape) and (m, *shape)
    features : sequence of Features, optional
        :func:`pixels` when absent.
    neighbours : int
        For precision and recall.
    repeats : int
        Splits of the reference for the floor.
    seed : int
        Of the splits and the directions.

    Raises
    ------
    BadInput
        For sets of different shapes, too few of them, or values that are not finite.

    Notes
    -----
    The floor compares ``min(n, m / 2)`` images of the reference with the rest: its sizes are a little less favourable than those of the samples.
    """
    from ..analysis.distances import sliced

    shapes = [tuple(np.shape(x)[1:]) for x in (samples, reference)]
    sizes = (len(samples), len(reference))
    if shapes[0] != shapes[1] or min(sizes[0], sizes[1] // 2) < max(_LEAST, neighbours + 1):
        raise BadInput(
            f"{sizes[0]} samples of shape {shapes[0]} and {sizes[1]} images of shape {shapes[1]} do not compare; give sets of one shape, at least"
            f" {max(_LEAST, neighbours + 1)} samples and twice as many images"
        )

    def measures(x: Array, y: Array) -> dict[str, float]:
        precision, recall = precision_recall(x, y, neighbours=neighbours)
        return {
            "frechet": Moments.of(x).frechet(Moments.of(y)), "kernel": kernel_distance(x, y), "sliced": sliced(x, y, 128, seed),
            "precision": precision, "recall": recall,
        }  # fmt: skip

    rows = []
    for one in features or (pixels(),):
        x, y = one(samples), one(reference)
        rng, part = np.random.default_rng(seed), min(len(x), len(y) // 2)
        orders = [rng.permutation(len(y)) for _ in range(whole("repeats", repeats, 2))]
        floors = [measures(y[order[:part]], y[order[part:]]) for order in orders]
        found = {
            name: {"value": value, "floor": float(np.mean([f[name] for f in floors])), "spread": float(np.std([f[name] for f in floors], ddof=1))}
            for name, value in measures(x, y).items()
        }
        rows.append({"features": one.name, "settings": dict(one.settings), "measures": found})
    return FeatureDistances(sizes, tuple(rows))
