"""Exact analysis of samplers: laws, orders, Wasserstein distances, work against precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

if __name__ != "sdekit.analysis":
    raise ImportError("this folder is the package sdekit.analysis: import it under that name")

from .._lazy import lazily

if TYPE_CHECKING:
    from . import adaptive_plots, bound_plots, bounds, contraction, foreign, plots, switching
    from .adaptive_grids import MeanField, Proportionality, frozen_law, mean_field, proportionality
    from .adaptivity import Loop, control_loop, error_spread, recommended_controller, stability_limit, stationary_law
    from .audits import AuditReport, Audits, audit
    from .blackbox import Level
    from .budgeting import Budget, Sensitivities, budget, error_gain, sensitivity
    from .coupling import Lagged, Meeting, couple, couple_lagged
    from .densities import Box, Density, fokker_planck
    from .distances import Distance, w1_matching, w2_matching, w2_sinkhorn, w2_sliced
    from .exact import ExactLaw, exact_law
    from .families import power_law
    from .guidance import GuidedLaws, guided_within, sample_guided
    from .likelihood import Likelihood, log_likelihood
    from .manifolds import Manifold, ManifoldReport, manifold_error
    from .orders import OrderReport, order
    from .precision import WorkPrecision, work_precision
    from .reaching import Reached, Reaching, nfe_to_reach
    from .residuals import LevelLaws, ScoreError, score_error
    from .restarting import TunedRestart, sweet_spot, tune_restart
    from .shaping import FreeProcess, TunedProcess, tune_process
    from .strong import strong_order
    from .tuning import TunedGrid, tune_grid
    from .wasserstein import w1_exact_1d, w2_exact_1d, w2_gaussian

__all__ = [
    "AuditReport",
    "Audits",
    "Box",
    "Budget",
    "Density",
    "Distance",
    "ExactLaw",
    "FreeProcess",
    "GuidedLaws",
    "Lagged",
    "Level",
    "LevelLaws",
    "Likelihood",
    "Loop",
    "Manifold",
    "ManifoldReport",
    "MeanField",
    "Meeting",
    "OrderReport",
    "Proportionality",
    "Reached",
    "Reaching",
    "ScoreError",
    "Sensitivities",
    "TunedGrid",
    "TunedProcess",
    "TunedRestart",
    "WorkPrecision",
    "adaptive_plots",
    "audit",
    "bound_plots",
    "bounds",
    "budget",
    "budget_plots",
    "contraction",
    "control_loop",
    "couple",
    "couple_lagged",
    "error_gain",
    "error_spread",
    "exact_law",
    "fokker_planck",
    "foreign",
    "frozen_law",
    "guided_within",
    "log_likelihood",
    "manifold_error",
    "mean_field",
    "nfe_to_reach",
    "order",
    "plots",
    "power_law",
    "proportionality",
    "recommended_controller",
    "sample_guided",
    "score_error",
    "sensitivity",
    "stability_limit",
    "stationary_law",
    "strong_order",
    "sweet_spot",
    "switching",
    "tune_grid",
    "tune_process",
    "tune_restart",
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
    "Budget": "budgeting",
    "Density": "densities",
    "Distance": "distances",
    "ExactLaw": "exact",
    "FreeProcess": "shaping",
    "GuidedLaws": "guidance",
    "Lagged": "coupling",
    "Level": "blackbox",
    "LevelLaws": "residuals",
    "Likelihood": "likelihood",
    "Loop": "adaptivity",
    "Manifold": "manifolds",
    "ManifoldReport": "manifolds",
    "Meeting": "coupling",
    "MeanField": "adaptive_grids",
    "OrderReport": "orders",
    "Proportionality": "adaptive_grids",
    "Reached": "reaching",
    "Reaching": "reaching",
    "ScoreError": "residuals",
    "Sensitivities": "budgeting",
    "TunedGrid": "tuning",
    "TunedProcess": "shaping",
    "TunedRestart": "restarting",
    "WorkPrecision": "precision",
    "audit": "audits",
    "budget": "budgeting",
    "control_loop": "adaptivity",
    "error_gain": "budgeting",
    "error_spread": "adaptivity",
    "couple": "coupling",
    "couple_lagged": "coupling",
    "exact_law": "exact",
    "fokker_planck": "densities",
    "frozen_law": "adaptive_grids",
    "guided_within": "guidance",
    "log_likelihood": "likelihood",
    "manifold_error": "manifolds",
    "mean_field": "adaptive_grids",
    "nfe_to_reach": "reaching",
    "order": "orders",
    "power_law": "families",
    "proportionality": "adaptive_grids",
    "recommended_controller": "adaptivity",
    "sample_guided": "guidance",
    "score_error": "residuals",
    "sensitivity": "budgeting",
    "stability_limit": "adaptivity",
    "stationary_law": "adaptivity",
    "strong_order": "strong",
    "sweet_spot": "restarting",
    "tune_grid": "tuning",
    "tune_process": "shaping",
    "tune_restart": "restarting",
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
