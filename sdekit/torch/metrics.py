r"""How good are samples of images: each measure beside the value that as many held-out images get.

One number is not enough: a normal law fitted to the pixels has by construction almost the best Frechet distance in pixel space, and its samples
look like nothing.  So :func:`judge` asks four questions, with a limit each: moments (Frechet), classes (a classifier's class balance and
confidence), support (nearest-neighbour precision and recall), and whether samples are copies (novelty).  Needs scikit-learn, no torch.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._array import to_host
from ..errors import BadInput, MissingExtra, whole
from .data import Images

Array = NDArray[np.float64]

__all__ = ["Judgement", "Measure", "frechet", "gaussian_baseline", "judge", "precision_recall"]

_REPEATS = 10  # subsets of the held-out images, where they are more than the samples
# Limits, as factors of the scale.  A sample of the data itself has 1, give or take its noise.
_AT_MOST = {"frechet": 1.5, "class_balance": 2.0}
_AT_LEAST = {"confidence": 0.95, "precision": 0.8, "recall": 0.8, "novelty": 0.8}
_MEANING = {
    "frechet": "squared 2-Wasserstein distance between normal laws fitted to the pixels of samples and training images",
    "class_balance": "total-variation distance of the classifier's class frequencies to the training images'; its scale is the mean for exact draws",
    "confidence": "mean probability that the classifier gives to its first choice",
    "precision": "share of samples inside the training images' nearest-neighbour balls",
    "recall": "share of training images inside the samples' nearest-neighbour balls",
    "novelty": "median distance of a sample to the nearest training image",
}


@dataclass(frozen=True)
class Measure:
    """One measure of samples.

    Attributes
    ----------
    name, meaning : str
    value : float
        For the samples.
    held_out : float
        For as many held-out images.
    scale : float
        What ``limit`` is a multiple of: ``held_out``, but for the class balance its mean for labels drawn from the training frequencies.
    limit : float
    at_most : bool
        Whether ``limit`` is an upper limit.
    """

    name: str
    value: float
    held_out: float
    scale: float
    limit: float
    at_most: bool
    meaning: str

    @property
    def passed(self) -> bool:
        """Whether the value keeps the limit."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


@dataclass(frozen=True)
class Judgement:
    """What :func:`judge` found.

    Attributes
    ----------
    n : int
        Samples, and held-out images, compared.
    measures : tuple of Measure
    classes : tuple of float
        Share of each class (labels in rising order) among the samples, as the classifier sees them.
    accuracy : float
        Of the classifier, on all held-out images.
    """

    n: int
    measures: tuple[Measure, ...]
    classes: tuple[float, ...]
    accuracy: float

    @property
    def passed(self) -> bool:
        """Whether every measure keeps its limit."""
        return all(measure.passed for measure in self.measures)

    def __getitem__(self, name: str) -> Measure:
        """The measure of that name."""
        for measure in self.measures:
            if measure.name == name:
                return measure
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        measures = {m.name: {**{k: v for k, v in asdict(m).items() if k != "name"}, "passed": m.passed} for m in self.measures}
        return {"n": self.n, "passed": self.passed, "accuracy": self.accuracy, "classes": list(self.classes), "measures": measures}

    def __str__(self) -> str:
        lines = [f"{'measure':14} {'samples':>9} {'held-out':>9} {'limit':>10}"]
        for m in self.measures:
            verdict = "passed" if m.passed else "FAILED"
            lines.append(f"{m.name:14} {m.value:9.4f} {m.held_out:9.4f} {'<=' if m.at_most else '>='}{m.limit:8.4f}  {verdict}")
        return "\n".join(lines)


def _flat(what: str, images: Any) -> Array:
    array = np.asarray(to_host(images), float)
    if array.ndim < 2 or len(array) < 2:
        raise BadInput(f"{what} have shape {array.shape}; at least two images are needed, the first axis counting them")
    if not np.all(np.isfinite(array)):
        raise BadInput(f"{what} hold values that are not finite; leave out samples whose status is not 'ok'")
    return array.reshape(len(array), -1)


def frechet(a: Any, b: Any) -> float:
    r"""Frechet distance in pixel space.

    .. math:: |\mu_a - \mu_b|^2 + \mathrm{tr}\,(C_a + C_b - 2 (C_a^{1/2} C_b C_a^{1/2})^{1/2}),

    which is the *squared* 2-Wasserstein distance between the normal laws with the samples' means and covariances.  FID is this number for the
    activations of an Inception network in the place of pixels (Heusel et al. 2017); the two do not compare.

    Parameters
    ----------
    a, b : arrays (n, *shape) and (m, *shape), on the host or a device

    Returns
    -------
    float
        In squared units of the pixels, summed over them.  It is biased upwards by sampling: compare with held-out data of the same size.

    Raises
    ------
    BadInput
        For fewer than two images, values that are not finite, or different shapes.

    Notes
    -----
    Computed from factors of the covariances by an orthogonal Procrustes problem, so that equal inputs give zero to rounding, and nothing
    imaginary ever appears.

    References
    ----------
    Dowson and Landau 1982; M. Heusel et al., GANs Trained by a Two Time-Scale Update Rule, 2017 (arXiv:1706.08500).
    """
    from ..analysis.wasserstein import w2_factors

    a, b = _flat("the first images", a), _flat("the second images", b)
    if a.shape[1] != b.shape[1]:
        raise BadInput(f"images of {a.shape[1]} and {b.shape[1]} pixels do not compare")
    return w2_factors(a.mean(0) - b.mean(0), _root(a), _root(b)) ** 2


def _root(flat: Array) -> Array:
    """A factor (d, r) of the covariance, from the singular values of the centred data: the covariance itself is not formed."""
    _, sizes, axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    return np.asarray(axes.T * (sizes / np.sqrt(len(flat) - 1.0)))


def precision_recall(samples: Any, reference: Any, *, neighbours: int = 3) -> tuple[float, float]:
    """Nearest-neighbour precision and recall in pixel space.

    The support of a set is taken to be the union of balls around its members, each reaching to the member's k-th nearest neighbour.

    Parameters
    ----------
    samples, reference : arrays (n, *shape) and (m, *shape)
    neighbours : int
        k.

    Returns
    -------
    precision, recall : float
        Share of samples in the reference's support, and of the reference in the samples' support.  Both depend on n and m.

    Raises
    ------
    BadInput
        For values that are not finite, or a set with no more than ``neighbours`` members.

    References
    ----------
    T. Kynkaanniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, 2019 (arXiv:1904.06991).
    """
    a, b = _flat("samples", samples), _flat("reference", reference)
    k = whole("neighbours", neighbours)
    if min(len(a), len(b)) <= k:
        raise BadInput(f"neighbours = {k} needs more than {k} images on both sides; there are {len(a)} and {len(b)}")
    apart = _distances(a, b)
    return float(np.mean((apart <= _radii(b, k)).any(1))), float(np.mean((apart <= _radii(a, k)[:, None]).any(0)))


def _distances(a: Array, b: Array) -> Array:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(a, b))


def _radii(points: Array, k: int) -> Array:
    return np.asarray(np.partition(_distances(points, points), k, axis=1)[:, k])


def gaussian_baseline(images: Images, n: int, *, seed: int = 0) -> Array:
    """``n`` samples (n, *shape) of the normal law with the mean and covariance of the training pixels.

    It is the opponent that a measure has to see through: right in its first two moments, and no image.
    """
    return images.gaussian().sample(whole("n", n), seed=seed)


@lru_cache(maxsize=4)
def _classifier(images: Images, seed: int) -> Any:
    """A network with one hidden layer of 100 units, trained on the training images; kept for the next question about the same ones."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier
    except ImportError:
        raise MissingExtra("the classifier of judge", "images") from None
    model = MLPClassifier((100,), max_iter=400, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(_flat("images", images.train), images.train_labels)


def judge(samples: Any, images: Images, *, neighbours: int = 3, seed: int = 0) -> Judgement:
    """Compare samples with the training images, on the scale of held-out images.

    Parameters
    ----------
    samples : array (n, *shape), on the host or a device
        If there are more than held-out images, the first ones count.
    images : Images
        What the model was trained on.
    neighbours : int
        For precision and recall.
    seed : int
        Of the classifier, and of the subsets of held-out images where there are fewer samples than those.

    Returns
    -------
    Judgement

    Raises
    ------
    BadInput
        For samples of another shape, or not finite.
    MissingExtra
        Without scikit-learn.

    Notes
    -----
    Limits: a Frechet distance of at most 1.5 times that of held-out images; a class balance of at most 2 times the mean for exact draws; a
    confidence of at least 0.95 times, precision, recall and novelty of at least 0.8 times the value for held-out images.
    """
    flat, train, held_out = _flat("samples", samples), _flat("images", images.train), _flat("images", images.held_out)
    if np.shape(samples)[1:] != images.shape:
        raise BadInput(f"samples have shape {tuple(np.shape(samples))}; they must be (n, {str(images.shape)[1:]}")
    n, k = min(len(flat), len(held_out)), whole("neighbours", neighbours)
    if n <= k:
        raise BadInput(f"neighbours = {k} needs more than {k} samples; there are {n}")
    model = _classifier(images, seed)
    shares = np.unique(images.train_labels, return_counts=True)[1] / len(train)
    radii = _radii(train, k)

    def values(part: Array) -> tuple[dict[str, float], Array]:
        belief = model.predict_proba(part)
        classes = np.bincount(np.argmax(belief, axis=1), minlength=len(shares)) / len(part)
        apart = _distances(part, train)
        return {
            "frechet": frechet(part, train),
            "class_balance": float(0.5 * np.sum(np.abs(classes - shares))),
            "confidence": float(np.mean(np.max(belief, axis=1))),
            "precision": float(np.mean((apart <= radii).any(1))),
            "recall": float(np.mean((apart <= _radii(part, k)[:, None]).any(0))),
            "novelty": float(np.median(np.min(apart, axis=1))),
        }, classes

    rng = np.random.default_rng(seed)
    repeats = 1 if n == len(held_out) else _REPEATS
    kept = [values(held_out[rng.permutation(len(held_out))[:n]])[0] for _ in range(repeats)]
    drawn = rng.multinomial(n, shares, size=2000) / n
    exact = float(np.mean(0.5 * np.sum(np.abs(drawn - shares), axis=1)))
    found, classes = values(flat[:n])
    measures = []
    for name, value in found.items():
        held = float(np.mean([one[name] for one in kept]))
        scale = exact if name == "class_balance" else held
        at_most = name in _AT_MOST
        limit = scale * (_AT_MOST if at_most else _AT_LEAST)[name]
        measures.append(Measure(name, value, held, scale, limit, at_most, _MEANING[name]))
    accuracy = float(np.mean(model.predict(held_out) == images.held_out_labels))
    return Judgement(n, tuple(measures), tuple(float(v) for v in classes), accuracy)
