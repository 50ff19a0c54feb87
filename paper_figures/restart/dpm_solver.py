"""Few calls: Restart with DPM-Solver-3 as published against the solver alone at as many calls, on VP, with exact errors.

16 to 36 calls is where the paper compares.  The published t_min of 0.06 is 0.0105 in truth, the last level of the grid.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from paper_figures.fields import LAW, NETWORKS
from sdekit import methods, plans
from sdekit.analysis.candidates import judge_of
from sdekit.plans import published
from sdekit.solve import program

VP = sk.catalogue.vp()
CLAIMS = {
    "weak_restart_over_solver_27": (0.5, 1.0),
    "weak_restart_over_solver_24": (0.5, 1.0),
    "strong_restart_over_solver_27": (1.0, 1.3),
    "strong_restart_over_solver_24": (0.4, 0.7),
    "exact_restart_over_solver_24": (0.4, 0.7),
    "exact_restart_over_solver_27": (1.0, 1.4),
}


def alone(steps):
    """DPM-Solver-3 with the published finish."""
    return plans.run(sk.grids.vp(steps), methods.dpm_solver(3)).then(plans.finish(methods.dpm_solver(2, rule="published")))


def compute(quick):
    solver = [alone(n) for n in ((5, 7, 10) if quick else range(4, 14))]
    restart = [row.plan for row in published.cifar10_vp_dpm_solver.values()]
    arrays, measured = {}, {}
    arrays["solver_calls"], arrays["restart_calls"] = (np.array([program(VP, plan).nfe for plan in own]) for own in (solver, restart))
    for name, model in {"exact": None, **NETWORKS}.items():
        judge, size = judge_of(VP, LAW, model), np.sqrt(np.sum(LAW.variances))
        errors = [np.array([judge.error(plan.moves(VP)) for plan in own]) / size for own in (solver, restart)]
        arrays[f"{name}_solver"], arrays[f"{name}_restart"] = errors
        order = np.argsort(arrays["solver_calls"])
        same = np.exp(np.interp(np.log(arrays["restart_calls"]), np.log(arrays["solver_calls"][order]), np.log(errors[0][order])))
        measured |= {f"{name}_restart_over_solver_{nfe}": float(r) for nfe, r in zip(arrays["restart_calls"], errors[1] / same, strict=True)}
    return Found(arrays, measured, {"process": "VP", "solver": "DPM-Solver-3, second-last step of order 2, then the data"})


def draw(axes, data):
    for ax, name in zip(axes, ("exact", *NETWORKS), strict=True):
        ax.semilogy(data["solver_calls"], data[f"{name}_solver"], label="DPM-Solver-3")
        ax.semilogy(data["restart_calls"], data[f"{name}_restart"], linestyle="", label="Restart, published")
        ax.set(xlabel="model calls", title="exact scores" if name == "exact" else f"{name} network")
    axes[0].set_ylabel("W2, over the size of the data")
    axes[0].legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=3, size=(11.0, 4.0))
main = SCRIPT.main

if __name__ == "__main__":
    main()
