"""sdekit: declare a diffusion by (H, D, Q); get a proof of its stationary law, its exact kernel, any sampler on any model, and the exact error."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names are imported at first use, so that ``import sdekit`` costs no more than NumPy.
_MODULES = ("analysis", "catalogue", "clocks", "denoiser", "grids", "kernel", "law", "methods", "noise", "plans", "testing", "torch")
_NAMES = {
    "BadInput": "errors",
    "Certificate": "certificate",
    "Process": "process",
    "Recipe": "recipe",
    "Refuted": "errors",
    "Reverse": "reverse",
    "certify": "certificate",
    "load": "spec",
    "recover_Q": "recipe",
    "sample": "sampling",
}

__all__ = [*_MODULES, *_NAMES, "__version__"]

if TYPE_CHECKING:
    from . import analysis, catalogue, clocks, denoiser, grids, kernel, law, methods, noise, plans, testing, torch
    from .certificate import Certificate, certify
    from .errors import BadInput, Refuted
    from .process import Process
    from .recipe import Recipe, recover_Q
    from .reverse import Reverse
    from .sampling import sample
    from .spec import load


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module 'sdekit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
