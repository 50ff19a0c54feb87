"""Exact analysis of samplers: laws, orders, Wasserstein distances, work against precision."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if __name__ != "sdekit.analysis":
    raise ImportError("this folder is the package sdekit.analysis: import it under that name")

if TYPE_CHECKING:
    from . import plots
    from .exact import ExactLaw, exact_law
    from .orders import OrderReport, order
    from .precision import WorkPrecision, work_precision
    from .wasserstein import w1_exact_1d, w2_exact_1d, w2_gaussian

__all__ = [
    "ExactLaw",
    "OrderReport",
    "WorkPrecision",
    "exact_law",
    "order",
    "plots",
    "w1_exact_1d",
    "w2_exact_1d",
    "w2_gaussian",
    "work_precision",
]

_HOMES = {
    "ExactLaw": "exact",
    "OrderReport": "orders",
    "WorkPrecision": "precision",
    "exact_law": "exact",
    "order": "orders",
    "w1_exact_1d": "wasserstein",
    "w2_exact_1d": "wasserstein",
    "w2_gaussian": "wasserstein",
    "work_precision": "precision",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'sdekit.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
