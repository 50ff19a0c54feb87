"""Everything that needs torch: networks, training, the shipped models; other libraries' networks and pipelines; and images with their metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from . import (
        adapters,
        clip,
        conditional,
        data,
        exports,
        features,
        guidance,
        levels,
        losses,
        metrics,
        models,
        network,
        pretrained,
        scheduler,
        states,
        training,
    )
    from .conditional import Posterior, imputed
    from .data import Images, digits
    from .levels import Importance, LogNormal, Uniform
    from .losses import Classification, Denoising
    from .matching import Matching
    from .metrics import frechet, gaussian_baseline, judge
    from .models import load, names
    from .network import NetworkDenoiser
    from .pretrained import from_pretrained
    from .scheduler import SdekitScheduler, use_in
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
    "Posterior",
    "SdekitScheduler",
    "Trajectory",
    "Uniform",
    "adapters",
    "clip",
    "conditional",
    "data",
    "digits",
    "exports",
    "features",
    "frechet",
    "from_pretrained",
    "gaussian_baseline",
    "guidance",
    "imputed",
    "judge",
    "levels",
    "load",
    "losses",
    "metrics",
    "models",
    "names",
    "network",
    "pretrained",
    "scheduler",
    "states",
    "tensorboard",
    "train",
    "training",
    "use_in",
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
    "Posterior": "conditional",
    "SdekitScheduler": "scheduler",
    "Trajectory": "trajectory",
    "Uniform": "levels",
    "digits": "data",
    "frechet": "metrics",
    "from_pretrained": "pretrained",
    "gaussian_baseline": "metrics",
    "imputed": "conditional",
    "judge": "metrics",
    "load": "models",
    "names": "models",
    "tensorboard": "training",
    "train": "training",
    "use_in": "scheduler",
}

__getattr__, __dir__ = lazily(__name__, __all__, _HOMES)
