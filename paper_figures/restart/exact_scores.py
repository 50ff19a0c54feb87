"""With exact scores Restart does not pay: the same calls spent on steps of the ODE have the smaller error, so the paper's gain needs score error.

Published settings against the ODE of as many calls, on normal laws of several widths and an image-like spectrum; then with a network whose means
are wrong at high levels, where the order turns round.
"""

import numpy as np

from paper_figures.common import Found, Script
from paper_figures.fields import LAW, PROCESS, calls
from sdekit import grids, imperfect, methods, plans
from sdekit.analysis.candidates import judge_of
from sdekit.analysis.families import power_law
from sdekit.law import Gaussian
from sdekit.plans import published

WIDTHS = (0.1, 0.25, 0.5, 1.0)
SHIFTS = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.5])
CLAIMS = {
    "least_ratio_exact": (1.0, np.inf),
    "ratio_exact_image_like_43": (1.0, np.inf),
    "ratio_exact_width_0.5_43": (1.05, np.inf),
    "ratio_shift_0.5_75": (0.0, 0.7),
    "shift_of_equal_error_75": (0.02, 0.3),
}


def ode(plan):
    """The ODE of as many calls."""
    return plans.run(grids.karras((calls(plan) + 1) // 2), methods.exponential_rk(2))


def compute(quick):
    rows = {nfe: row.plan for nfe, row in published.cifar10_vp.items() if not quick or nfe < 100}
    laws = {f"width_{width:g}": Gaussian([0.0], width**2) for width in WIDTHS} | {"image_like": power_law(frequencies=4)}
    ratios = np.empty((len(laws), len(rows)))
    for i, law in enumerate(laws.values()):
        judge = judge_of(PROCESS, law, None)
        ratios[i] = [judge.error(plan.moves(PROCESS)) / judge.error(ode(plan).moves(PROCESS)) for plan in rows.values()]
    wrong = []
    for shift in SHIFTS:
        judge = judge_of(PROCESS, LAW, imperfect.shifted_means(LAW, 0.5 * shift, window=(0.5, 80.0)) if shift else None)
        wrong.append([judge.error(plan.moves(PROCESS)) / judge.error(ode(plan).moves(PROCESS)) for plan in rows.values()])
    wrong = np.array(wrong)
    at = list(rows)
    column = wrong[:, at.index(75)]
    measured = {
        f"ratio_exact_{name}_{nfe}": float(ratios[i, j]) for i, name in enumerate(laws) for j, nfe in enumerate(at)
    } | {"least_ratio_exact": float(ratios.min()), "largest_ratio_exact": float(ratios.max()), "ratio_shift_0.5_75": float(column[-1])}  # fmt: skip
    measured["shift_of_equal_error_75"] = float(np.interp(0.0, -np.log(column), SHIFTS))
    arrays = {"ratios": ratios, "laws": np.array(list(laws)), "calls": np.array(at), "wrong": wrong, "shifts": SHIFTS}
    return Found(arrays, measured, {"laws": len(laws), "settings": len(rows)})


def draw(axes, data):
    left, right = axes
    order = np.argsort(data["calls"])
    for name, row in zip(data["laws"], data["ratios"], strict=True):
        left.loglog(data["calls"][order], row[order], label=str(name).replace("_", " "))
    for j in order:
        right.semilogy(data["shifts"], data["wrong"][:, j], label=f"{data['calls'][j]} calls")
    for ax in axes:
        ax.axhline(1.0, color="grey", linewidth=0.8)
        ax.legend(fontsize="small")
    left.set(xlabel="model calls", ylabel="W2 of Restart over that of the ODE", title="exact scores")
    right.set(xlabel=r"error of the means at $\sigma > 0.5$, in standard deviations", title="64 modes of width 0.5")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
