r"""The factor of the injected noise: the best is $S = \sqrt{v (1 - a_h^2)} / (a_h s)$, below 1 for Heun's legs and above 1 for a shrinking network.

The paper's 1.003 on ImageNet fits a network that removes too much noise.  The default 0 of the released script only contracts.
"""

from itertools import pairwise

import numpy as np

from paper_figures.common import Found, Script
from paper_figures.fields import PROCESS
from sdekit import methods
from sdekit.analysis import contraction
from sdekit.law import Gaussian

LOW, HIGH = 0.0599473, 0.30
DATA = Gaussian([0.0], 0.25)
POINTS = (2, 3, 5, 9)
SHRINK = np.linspace(0.0, 0.02, 21)
CLAIMS = {
    "best_2": (0.96285, 0.96295),
    "best_3": (0.98445, 0.98455),
    "best_5": (0.99545, 0.99555),
    "best_9": (0.99875, 0.99885),
    "largest_gap_to_formula": (0.0, 1e-9),
    "shrink_that_makes_1.003": (1e-4, 0.02),
    "variance_left_after_10_cycles_without_noise": (0.0, 0.06),
}


def formula(points):
    """The best factor, with the gain of Heun's legs written out."""
    levels = np.linspace(HIGH ** (1 / 7), LOW ** (1 / 7), points) ** 7
    gain = 1.0
    for a, b in pairwise(levels):
        ga, gb = a / (0.25 + a * a), b / (0.25 + b * b)
        gain *= 1.0 + (b - a) * (ga + (1.0 + (b - a) * ga) * gb) / 2.0
    return np.sqrt((0.25 + LOW**2) * (1.0 - gain**2)) / (gain * np.sqrt(HIGH**2 - LOW**2)), gain


def made(points, S=1.0, shrink=0.0):
    model = Gaussian([0.0], 0.25 * (1.0 - shrink))
    return contraction.cycle(PROCESS, methods.heun(), (points, LOW, HIGH), DATA, S_noise=S, model=model)


def compute(quick):  # noqa: ARG001
    best = {points: float(made(points).best_noise[0]) for points in POINTS}
    S = np.linspace(0.9, 1.05, 61)
    bias = np.array([[made(points, float(s)).bias for s in S] for points in POINTS])
    wanted = np.array([float(made(9, 1.0, float(shrink)).best_noise[0]) for shrink in SHRINK])
    measured = {f"best_{points}": value for points, value in best.items()}
    measured |= {
        "largest_gap_to_formula": max(abs(value - formula(points)[0]) for points, value in best.items()),
        "shrink_that_makes_1.003": float(np.interp(1.003, wanted, SHRINK)),
        "variance_left_after_10_cycles_without_noise": float(formula(3)[1] ** 20),
    }
    return Found({"S": S, "bias": bias, "points": np.array(POINTS), "shrink": SHRINK, "wanted": wanted}, measured, {"interval": [LOW, HIGH]})


def draw(axes, data):
    left, right = axes
    for points, row in zip(data["points"], data["bias"], strict=True):
        left.semilogy(data["S"], row, markersize=2, label=f"{points} points")
    left.set(xlabel=r"$S_{noise}$", ylabel="W2 that no number of cycles removes", title="N(0, 1/4), [0.06, 0.3], Heun", ylim=(1e-4, None))
    left.legend(fontsize="small")
    right.plot(100.0 * data["shrink"], data["wanted"], markersize=3)
    right.axhline(1.003, color="grey", linestyle=":", label="paper, ImageNet")
    right.axhline(1.0, color="grey", linewidth=0.8)
    right.set(xlabel="variance that the network takes away, %", ylabel=r"best $S_{noise}$", title="9 points")
    right.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
