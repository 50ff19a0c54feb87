"""sdekit: declare a diffusion by (H, D, Q); get a proof of its stationary law, its exact kernel, any sampler on any model, and the exact error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import lazily

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import (
        analysis,
        catalogue,
        clocks,
        compatibility,
        control,
        denoiser,
        grids,
        imperfect,
        kernel,
        law,
        methods,
        modes,
        noise,
        pfgm,
        plans,
        reversal,
        semilinear,
        sweeps,
        tables,
        testing,
        torch,
    )
    from .certificate import Certificate, certify
    from .completeness import recover_Q
    from .errors import BadInput, Refuted
    from .process import Process
    from .recipe import Recipe
    from .reverse import Reverse
    from .sampling import sample
    from .simulation import simulate
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
    "brownian",
    "catalogue",
    "certify",
    "clocks",
    "compatibility",
    "control",
    "denoiser",
    "grids",
    "imperfect",
    "invert",
    "kernel",
    "law",
    "load",
    "methods",
    "modes",
    "noise",
    "parallel",
    "pfgm",
    "plans",
    "recover_Q",
    "reversal",
    "sample",
    "semilinear",
    "simulate",
    "sweeps",
    "tables",
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
    "invert": "inversion",
    "load": "spec",
    "recover_Q": "completeness",
    "sample": "sampling",
    "simulate": "simulation",
}

__getattr__, __dir__ = lazily(__name__, __all__, _HOMES)
