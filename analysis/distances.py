"""Wasserstein distances between samples of arrays, each with its finite-sample floor and a confidence interval.

Two samples of one law are not at distance zero: what finite samples of their size have between them is the *floor*, and a distance says
something only where it stands above.  All three distances here are zero on equal samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BadInput, MissingExtra, positive, whole
from ..law import Law
from ..noise import PATH, Address, Addressed
from .wasserstein import partition

Array = NDArray[np.float64]
Metric = Callable[[Array, Array], float]

__all__ = ["Distance", "sliced", "w1_matching", "w2_matching", "w2_sinkhorn", "w2_sliced"]

_ROUNDS = 3000  # most Sinkhorn iterations
_SETTLED = 1e-7  # error of a marginal at which they stop; a hundred times as much is still accepted
_BLUR = 0.25  # of the spread of the second sample
_DEEP = 300.0  # largest cost, in units of epsilon, at which the iterations run without logarithms


@dataclass(frozen=True)
class Distance:
    """A distance between two samples; ``float(distance)`` is its value.

    Attributes
    ----------
    name : str
    value : float
        In the unit of the data.
    floor : float
        Mean distance of two samples of one law, that of the second argument.  From a law: of fresh samples of these sizes.  From a sample: of
        its disjoint halves; they are half as large, so this is an upper bound.
    interval : (float, float)
        For the mean of the value over samples of these sizes, floor included, from the spread of half-samples.
    level : float
        Confidence of the interval.
    sizes : (int, int)
    """

    name: str
    value: float
    floor: float
    interval: tuple[float, float]
    level: float
    sizes: tuple[int, int]

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.name} = {self.value:.4g}, {100.0 * self.level:g}% interval [{low:.4g}, {high:.4g}], floor {self.floor:.4g}, sizes {self.sizes}"

    __repr__ = __str__


def _points(name: str, x: ArrayLike) -> Array:
    try:
        points = np.asarray(x, float)
    except (TypeError, ValueError):
        raise BadInput(f"{name} must be an array of samples, or a law for the second") from None
    if points.ndim < 1 or len(points) < 4 or not np.all(np.isfinite(points)):
        raise BadInput(f"{name} has shape {points.shape}; it must hold at least 4 samples along the first axis, all of them finite")
    return points.reshape(len(points), -1)


def _judged(name: str, metric: Metric, a: ArrayLike, b: ArrayLike | Law, repeats: int, level: float, seed: int) -> Distance:
    """The distance with its floor and interval; ``b`` may be a law, which is then sampled."""
    from scipy.special import ndtri

    left, times = _points("a", a), whole("repeats", repeats, 2)
    if not 0.0 < level < 1.0:
        raise BadInput(f"level = {level!r} must lie between 0 and 1")
    law = b if isinstance(b, Law) else None
    right = _points("b", b.sample(len(left), seed=seed) if isinstance(b, Law) else b)
    if left.shape[1] != right.shape[1]:
        raise BadInput(f"samples have {left.shape[1]} and {right.shape[1]} elements each; they must be of one shape")
    rng = np.random.default_rng(seed)

    def halves(points: Array) -> tuple[Array, Array]:
        order, half = rng.permutation(len(points)), len(points) // 2
        return points[order[:half]], points[order[half : 2 * half]]

    parts = [metric(halves(left)[0], halves(right)[0]) for _ in range(times)]
    if law is None:
        same = [metric(*halves(right)) for _ in range(times)]
    else:
        seeds = rng.integers(1 << 48, size=(times, 2)).tolist()
        same = [metric(*(_points("b", law.sample(len(left), seed=one)) for one in pair)) for pair in seeds]
    value = metric(left, right)
    reach = float(ndtri(0.5 * (1.0 + level)) * np.std(parts, ddof=1))  # half-samples without replacement: their spread is the sample's
    return Distance(name, value, float(np.mean(same)), (max(0.0, value - reach), value + reach), float(level), (len(left), len(right)))


def _frames(d: int, directions: int, seed: int) -> Array:
    """Unit vectors (d, directions) in whole orthonormal frames, each a random rotation."""
    wide = min(d, directions)
    frames = -(-directions // wide)
    xi = Addressed(seed).draw([Address(PATH, slot=255)], np.arange(frames), (d, wide))[0]
    return np.concatenate([np.linalg.qr(frame)[0] for frame in xi], axis=1)[:, :directions]


def sliced(x: Array, y: Array, directions: int, seed: int) -> float:
    """The sliced W2 alone, of samples (n, d) and (m, d)."""
    theta = _frames(x.shape[1], directions, seed)
    x, y = np.sort(x @ theta, axis=0), np.sort(y @ theta, axis=0)
    if len(x) == len(y):
        return float(np.sqrt(np.mean((x - y) ** 2)))
    left, right, widths = partition(len(x), len(y))
    return float(np.sqrt(np.mean(widths @ (x[left] - y[right]) ** 2)))


def w2_sliced(a: ArrayLike, b: ArrayLike | Law, *, directions: int = 128, repeats: int = 20, level: float = 0.95, seed: int = 0) -> Distance:
    r"""Sliced W2: the root mean square, over directions, of the exact W2 between projections.

    .. math:: SW_2^2 = E_\theta\, W_2^2(\theta^T a, \theta^T b), \qquad \sqrt d\, SW_2 \le W_2,

    with equality for a shift by a gap: :math:`SW_2 = |gap| / \sqrt d`; between isotropic normal laws
    :math:`SW_2^2 = |gap|^2 / d + (s_1 - s_2)^2`.

    Parameters
    ----------
    a : array (n, *shape)
    b : array (m, *shape), or Law
        Of any size; a law is sampled as often as ``a``.
    directions : int
        In whole orthonormal frames where there are at least as many as dimensions, so that a shift is seen exactly.
    repeats : int
        Half-samples for the interval, and pairs for the floor.
    level : float
        Of the interval.
    seed : int
        Of directions, law and halves: the same arguments give the same number.

    Raises
    ------
    BadInput
        For samples of different shapes, fewer than 4, or a level outside (0, 1).

    References
    ----------
    Bonneel, Rabin, Peyre and Pfister 2015.
    """
    count = whole("directions", directions)

    return _judged("sliced W2", lambda x, y: sliced(x, y, count, seed), a, b, repeats, level, seed)


def _matching(power: int, a: ArrayLike, b: ArrayLike | Law, repeats: int, level: float, seed: int) -> Distance:
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    if not isinstance(b, Law) and len(np.atleast_1d(np.asarray(a))) != len(np.atleast_1d(np.asarray(b))):
        raise BadInput(f"a matching needs samples of one size, got {len(np.asarray(a))} and {len(np.asarray(b))}; drop some, or use w2_sinkhorn")

    def metric(x: Array, y: Array) -> float:
        cost = cdist(x, y) ** power
        return float(np.mean(cost[linear_sum_assignment(cost)]) ** (1.0 / power))

    return _judged(f"matching W{power}", metric, a, b, repeats, level, seed)


def w1_matching(a: ArrayLike, b: ArrayLike | Law, *, repeats: int = 20, level: float = 0.95, seed: int = 0) -> Distance:
    """Exact W1 between two samples of one size: the mean distance under the best matching.  See :func:`w2_matching`."""
    return _matching(1, a, b, repeats, level, seed)


def w2_matching(a: ArrayLike, b: ArrayLike | Law, *, repeats: int = 20, level: float = 0.95, seed: int = 0) -> Distance:
    """Exact W2 between two samples of one size: the root mean square distance under the best matching.

    Parameters
    ----------
    a, b : arrays (n, *shape); ``b`` may be a Law
        The time grows like n^3: 0.3 s for 2000 against 2000.
    repeats, level, seed
        As for :func:`w2_sliced`.

    Raises
    ------
    BadInput
        For samples of different sizes or shapes.

    Notes
    -----
    In ``d > 2`` dimensions the floor falls only like ``n^(-1/d)``: compare a value with its floor, never with zero.
    """
    return _matching(2, a, b, repeats, level, seed)


def w2_sinkhorn(a: ArrayLike, b: ArrayLike | Law, *, blur: float | None = None, repeats: int = 8, level: float = 0.95, seed: int = 0) -> Distance:
    r"""Root of the Sinkhorn divergence: regularised optimal transport, debiased so that it is zero on equal samples.

    .. math:: S = OT_\epsilon(a, b) - \tfrac12 OT_\epsilon(a, a) - \tfrac12 OT_\epsilon(b, b), \qquad
              OT_\epsilon(a, b) = \min_\pi\; E_\pi |x - y|^2 + \epsilon\, KL(\pi \,|\, a \otimes b), \quad \epsilon = 2\, blur^2.

    ``sqrt(S)`` tends to W2 for ``blur -> 0``, and is the distance of the means for a large one.  Needs POT.

    Parameters
    ----------
    a, b : arrays (n, *shape) and (m, *shape); ``b`` may be a Law
    blur : float, optional
        Length below which differences are smoothed; a quarter of the root mean square distance of ``b`` to its mean when absent.
    repeats, level, seed
        As for :func:`w2_sliced`.

    Raises
    ------
    BadInput
        For samples of different shapes, or a blur so small that the iterations do not settle.
    MissingExtra
        Without POT (the extra ``metrics``).

    References
    ----------
    Feydy, Sejourne, Vialard, Amari, Trouve and Peyre 2019, arXiv:1810.08278; Flamary et al. 2021 (POT).
    """
    try:
        import ot
    except ImportError:
        raise MissingExtra("w2_sinkhorn", "metrics") from None
    from scipy.spatial.distance import cdist

    reference = _points("b", b.sample(256, seed=seed) if isinstance(b, Law) else b)
    width = _BLUR * float(np.sqrt(np.sum(np.var(reference, axis=0)))) if blur is None else blur
    epsilon = 2.0 * positive("blur", width) ** 2

    def transport(x: Array, y: Array) -> float:
        ones = np.full(len(x), 1.0 / len(x)), np.full(len(y), 1.0 / len(y))
        cost = cdist(x, y, "sqeuclidean")
        logs = float(np.max(cost)) > _DEEP * epsilon
        options: dict[str, Any] = {"numItermax": _ROUNDS, "stopThr": _SETTLED, "warn": False, "log": True}
        with np.errstate(over="ignore"):
            log = ot.sinkhorn(*ones, cost, epsilon, method="sinkhorn_log" if logs else "sinkhorn", **options)[1]
        if not log["err"][-1] <= 100.0 * _SETTLED:
            raise BadInput(f"blur = {width:g} is too small for these samples: marginals still err by {log['err'][-1]:.1g} after {_ROUNDS} iterations")
        potentials = (log["log_u"], log["log_v"]) if logs else (np.log(log["u"]), np.log(log["v"]))
        return float(epsilon * (np.mean(potentials[0]) + np.mean(potentials[1]) + np.log(len(x)) + np.log(len(y))))

    def metric(x: Array, y: Array) -> float:
        if x.shape == y.shape and np.array_equal(x, y):
            return 0.0
        gap = np.mean(x, axis=0) - np.mean(y, axis=0)  # the cost of a shift is exact: take it out
        x, y = x - np.mean(x, axis=0), y - np.mean(y, axis=0)
        rest = transport(x, y) - 0.5 * transport(x, x) - 0.5 * transport(y, y)
        return float(np.sqrt(np.sum(gap**2) + max(0.0, rest)))

    return _judged("Sinkhorn W2", metric, a, b, repeats, level, seed)
