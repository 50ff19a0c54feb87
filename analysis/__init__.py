"""Exact analysis of samplers: laws, orders, Wasserstein distances, work against precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

if __name__ != "sdekit.analysis":
    raise ImportError("this folder is the package sdekit.analysis: import it under that name")

from .._lazy import lazily

if TYPE_CHECKING:
    from . import bound_plots, bounds, contraction, foreign, plots, switching
    from .audits import AuditReport, Audits, audit
    from .blackbox import Level
    from .densities import Box, Density, fokker_planck
    from .distances import Distance, w1_matching, w2_matching, w2_sinkhorn, w2_sliced
    from .exact import ExactLaw, exact_law
    from .families import power_law
    from .likelihood import Likelihood, log_likelihood
    from .manifolds import Manifold, ManifoldReport, manifold_error
    from .orders import OrderReport, order
    from .precision import WorkPrecision, work_precision
    from .reaching import Reached, Reaching, nfe_to_reach
    from .residuals import LevelLaws, ScoreError, score_error
    from .strong import strong_order
    from .tuning import TunedGrid, tune_grid
    from .wasserstein import w1_exact_1d, w2_exact_1d, w2_gaussian

__all__ = [
    "AuditReport",
    "Audits",
    "Box",
    "Density",
    "Distance",
    "ExactLaw",
    "Level",
    "LevelLaws",
    "Likelihood",
    "Manifold",
    "ManifoldReport",
    "OrderReport",
    "Reached",
    "Reaching",
    "ScoreError",
    "TunedGrid",
    "WorkPrecision",
    "audit",
    "bound_plots",
    "bounds",
    "contraction",
    "exact_law",
    "fokker_planck",
    "foreign",
    "log_likelihood",
    "manifold_error",
    "nfe_to_reach",
    "order",
    "plots",
    "power_law",
    "score_error",
    "strong_order",
    "switching",
    "tune_grid",
    "w1_exact_1d",
    "w1_matching",
    "w2_exact_1d",
    "w2_gaussian",
    "w2_matching",
    "w2_sinkhorn",
    "w2_sliced",
    "work_precision",
]

_HOMES = {
    "AuditReport": "audits",
    "Audits": "audits",
    "Box": "densities",
    "Density": "densities",
    "Distance": "distances",
    "ExactLaw": "exact",
    "Level": "blackbox",
    "LevelLaws": "residuals",
    "Likelihood": "likelihood",
    "Manifold": "manifolds",
    "ManifoldReport": "manifolds",
    "OrderReport": "orders",
    "Reached": "reaching",
    "Reaching": "reaching",
    "ScoreError": "residuals",
    "TunedGrid": "tuning",
    "WorkPrecision": "precision",
    "audit": "audits",
    "exact_law": "exact",
    "fokker_planck": "densities",
    "log_likelihood": "likelihood",
    "manifold_error": "manifolds",
    "nfe_to_reach": "reaching",
    "order": "orders",
    "power_law": "families",
    "score_error": "residuals",
    "strong_order": "strong",
    "tune_grid": "tuning",
    "w1_exact_1d": "wasserstein",
    "w1_matching": "distances",
    "w2_exact_1d": "wasserstein",
    "w2_gaussian": "wasserstein",
    "w2_matching": "distances",
    "w2_sinkhorn": "distances",
    "w2_sliced": "distances",
    "work_precision": "precision",
}

__getattr__, __dir__ = lazily(__name__, __all__, _HOMES)
