"""Restart under guidance, in closed form: it does not keep the law that the guided ODE ends at, unless both covariances are one.

Left, variances over the weight for v_c = 1/4, v_u = 1 on [0.1, 2], a start at 80: of the law that cycles keep, of the guided ODE, and of the tilted
density that the guided score belongs to; both samplers are narrower.  Right, ways to mend it, relative to the tilted variance: legs without
guidance, guidance in an interval, Langevin steps of a length; a trade of alignment against spread, as the paper's figures for text to images.
"""

import numpy as np

from paper_figures.common import Found, Script
from sdekit.analysis import GuidedLaws
from sdekit.law import Gaussian

LOW, HIGH, TOP = 0.1, 2.0, 80.0
CONDITION, ALL = Gaussian([1.0], 0.25), Gaussian([0.0], 1.0)
CLAIMS = {
    "restart_5": (0.002054, 0.002056),
    "ode_5": (0.001141, 0.001143),
    "tilted_5": (0.0654, 0.0656),
    "restart_3_near": (0.0723, 0.0725),
    "ode_3_near": (0.0675, 0.0677),
    "tilted_3_near": (0.1312, 0.1314),
    "equal_covariances_kept": (0.0, 1e-13),
    "corrected_over_tilted_small_steps": (1.0, 1.06),
    "mean_of_restart_over_mean_of_ode_5": (0.9, 1.1),
}


def compute(quick):  # noqa: ARG001
    weights = np.linspace(1.0, 8.0, 29)
    made = [GuidedLaws(CONDITION, ALL, float(w)) for w in weights]
    laws = [[g.restart(LOW, HIGH), g.flow(LOW, TOP), g.tilted(LOW)] for g in made]
    variances, means = (np.array([[float(getattr(law, name).ravel()[0]) for law in row] for row in laws]) for name in ("variances", "mean"))
    five, near = GuidedLaws(CONDITION, ALL, 5.0), GuidedLaws(Gaussian([0.0], 0.25), Gaussian([0.0], 0.5), 3.0)
    five_row = [float(law.variances[0]) for law in (five.restart(LOW, HIGH), five.flow(LOW, TOP), five.tilted(LOW))]
    near_row = [float(law.variances[0]) for law in (near.restart(LOW, HIGH), near.flow(LOW, TOP), near.tilted(LOW))]
    same = GuidedLaws(Gaussian([1.0], 0.25), Gaussian([0.0], 0.25), 5.0)
    kept = same.restart(LOW, HIGH)
    sizes = np.geomspace(1e-3, 1.5, 20) * five_row[2]
    corrected = np.array([float(five.corrected(LOW, float(h)).variances[0]) for h in sizes])
    names = ("restart", "ode", "tilted")
    measured = {f"{name}_5": v for name, v in zip(names, five_row, strict=True)} | {f"{n}_3_near": v for n, v in zip(names, near_row, strict=True)}
    measured |= {
        "equal_covariances_kept": abs(float(kept.mean[0]) - 5.0) + abs(float(kept.variances[0]) - 0.25 - LOW**2),
        "corrected_over_tilted_small_steps": float(corrected[sizes <= 0.1 * five_row[2]].max() / five_row[2]),
        "mean_of_restart_over_mean_of_ode_5": float(five.restart(LOW, HIGH).mean[0] / five.flow(LOW, TOP).mean[0]),
    }
    arrays = {"weights": weights, "variances": variances, "means": means, "sizes": sizes / five_row[2], "corrected": corrected / five_row[2]}
    return Found(arrays, measured, {"interval": [LOW, HIGH], "top": TOP, "v_c": 0.25, "v_u": 1.0})


def draw(axes, data):
    left, right = axes
    for j, name in enumerate(("Restart keeps", "ODE ends at", "tilted density")):
        left.semilogy(data["weights"], data["variances"][:, j], markersize=3, label=name)
        right.plot(data["means"][:, j], np.sqrt(data["variances"][:, j]), markersize=3, label=name)
    left.set(xlabel="weight of guidance", ylabel="variance", title=r"$v_c = 0.25$, $v_u = 1$, [0.1, 2]")
    right.set(xlabel="mean (alignment)", ylabel="standard deviation (diversity)", title="the trade, weight from 1 to 8", yscale="log")
    for ax in axes:
        ax.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
