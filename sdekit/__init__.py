"""sdekit: declare a diffusion by (H, D, Q); get a proof of its stationary law, its exact kernel, any sampler on any model, and the exact error."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import analysis, catalogue, clocks, denoiser, grids, kernel, law, methods, noise, plans, testing, torch
    from .certificate import Certificate, certify
    from .errors import BadInput, Refuted
    from .process import Process
    from .recipe import Recipe, recover_Q
    from .reverse import Reverse
    from .sampling import sample
    from .spec import load

__all__ = [
    "BadInput",
    "Certificate",
    "Process",
    "Recipe",
    "Refuted",
    "Reverse",
    "__version__",
    "analysis",
    "catalogue",
    "certify",
    "clocks",
    "denoiser",
    "grids",
    "kernel",
    "law",
    "load",
    "methods",
    "noise",
    "plans",
    "recover_Q",
    "sample",
    "testing",
    "torch",
]

# Everything is imported at first use, so that ``import sdekit`` costs no more than NumPy.  Names that are not modules:
_HOMES = {
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


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'sdekit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
