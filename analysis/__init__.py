"""Exact analysis of samplers: laws, orders, Wasserstein distances, work against precision."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if __name__ != "sdekit.analysis":
    raise ImportError("this folder is the package sdekit.analysis: import it under that name")

_NAMES = {
    "ExactLaw": "exact",
    "OrderReport": "order",
    "WorkPrecision": "precision",
    "exact_law": "exact",
    "order": "order",
    "w1_exact_1d": "wasserstein",
    "w2_exact_1d": "wasserstein",
    "w2_gaussian": "wasserstein",
    "w2_matching": "wasserstein",
    "w2_sliced": "wasserstein",
    "work_precision": "precision",
}
_MODULES = ("plots",)

__all__ = [*_NAMES, *_MODULES]

if TYPE_CHECKING:
    from . import plots
    from .exact import ExactLaw, exact_law
    from .order import OrderReport, order
    from .precision import WorkPrecision, work_precision
    from .wasserstein import w1_exact_1d, w2_exact_1d, w2_gaussian, w2_matching, w2_sliced


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
        globals()[name] = value  # a function may share its module's name (order): the function wins
        return value
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'sdekit.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
