"""Everything that needs torch: networks, training, the shipped models; and images with their metrics (the extra ``images``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from . import data, features, levels, losses, metrics, models, network, training
    from .data import Images, digits
    from .levels import Importance, LogNormal, Uniform
    from .losses import Classification, Denoising
    from .matching import Matching
    from .metrics import frechet, gaussian_baseline, judge
    from .models import load, names
    from .network import NetworkDenoiser
    from .trained import NetworkClassifier, NetworkScore
    from .training import tensorboard, train
    from .trajectory import Trajectory

__all__ = [
    "Classification",
    "Denoising",
    "Images",
    "Importance",
    "LogNormal",
    "Matching",
    "NetworkClassifier",
    "NetworkDenoiser",
    "NetworkScore",
    "Trajectory",
    "Uniform",
    "data",
    "digits",
    "features",
    "frechet",
    "gaussian_baseline",
    "judge",
    "levels",
    "load",
    "losses",
    "metrics",
    "models",
    "names",
    "network",
    "tensorboard",
    "train",
    "training",
]

_HOMES = {
    "Classification": "losses",
    "Denoising": "losses",
    "Images": "data",
    "Importance": "levels",
    "LogNormal": "levels",
    "Matching": "matching",
    "NetworkClassifier": "trained",
    "NetworkDenoiser": "network",
    "NetworkScore": "trained",
    "Trajectory": "trajectory",
    "Uniform": "levels",
    "digits": "data",
    "frechet": "metrics",
    "gaussian_baseline": "metrics",
    "judge": "metrics",
    "load": "models",
    "names": "models",
    "tensorboard": "training",
    "train": "training",
}

__getattr__, __dir__ = lazily(__name__, __all__, _HOMES)
