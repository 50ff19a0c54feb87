"""Everything that needs torch: networks, training, the shipped models; and images with their metrics (the extra ``images``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from . import data, metrics, models, network, training
    from .data import Images, digits
    from .metrics import frechet, gaussian_baseline, judge
    from .models import load, names
    from .network import NetworkDenoiser
    from .training import train
    from .trajectory import Trajectory

__all__ = [
    "Images",
    "NetworkDenoiser",
    "Trajectory",
    "data",
    "digits",
    "frechet",
    "gaussian_baseline",
    "judge",
    "load",
    "metrics",
    "models",
    "names",
    "network",
    "train",
    "training",
]

_HOMES = {
    "Images": "data",
    "NetworkDenoiser": "network",
    "Trajectory": "trajectory",
    "digits": "data",
    "frechet": "metrics",
    "gaussian_baseline": "metrics",
    "judge": "metrics",
    "load": "models",
    "names": "models",
    "train": "training",
}

__getattr__, __dir__ = lazily(__name__, __all__, _HOMES)
