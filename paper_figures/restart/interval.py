"""Where and how long: the error over t_min at length 0.3, and over the length from t_min = 0.06, for two networks, with exact errors.

As in the paper, late intervals are the best, and there is a best length: too short a jump forgets nothing, too long a one goes up to levels where
the network is wrong again, and its two steps are too few.
"""

import numpy as np

from paper_figures.common import Found, Script
from paper_figures.fields import NETWORKS, PROCESS, Judge
from sdekit import grids, plans

K = 10
CLAIMS = {
    "best_t_min_weak": (0.0, 0.2),
    "best_t_min_strong": (0.0, 0.2),
    "early_over_none_weak": (0.9, 1.1),
    "best_t_max_weak": (0.15, 0.6),
    "best_t_max_strong": (0.15, 0.6),
    "long_over_best_weak": (1.3, np.inf),
    "long_over_best_strong": (1.3, np.inf),
    "best_over_none_weak": (0.0, 0.8),
    "best_over_none_strong": (0.0, 0.95),
}


def compute(quick):
    lows = np.array([float(t) for t in grids.karras(18).times(PROCESS)[5:-1]][:: 2 if quick else 1])
    highs = np.geomspace(0.09, 5.0, 10 if quick else 24)
    arrays, measured = {"lows": lows, "highs": highs}, {}
    for name, model in NETWORKS.items():
        judge = Judge(model)
        none = judge.error(plans.restart(grids.karras(18), []))
        late = np.array([judge.error(plans.restart(grids.karras(18), [(3, K, low, low + 0.3)])) for low in lows])
        long = np.array([[judge.error(plans.restart(grids.karras(18), [(N, K, 0.06, high)], snap="nearest")) for high in highs] for N in (3, 9)])
        arrays |= {f"{name}_none": np.array(none), f"{name}_late": late, f"{name}_long": long}
        measured |= {
            f"best_t_min_{name}": float(lows[np.argmin(late)]),
            f"best_t_max_{name}": float(highs[np.argmin(long[0])]),
            f"long_over_best_{name}": float(long[0, -1] / long[0].min()),
            f"best_over_none_{name}": float(long[0].min() / none),
            f"early_over_none_{name}": float(late[0] / none),
        }
    lengths = {"longest": float(highs[-1]), "length over t_min": 0.3, "earliest t_min": float(lows[0].round(2))}
    return Found(arrays, measured, {"K": K, "grid": "karras(18)"} | lengths)


def draw(axes, data):
    left, right = axes
    for name, colour in (("weak", "#0072B2"), ("strong", "#D55E00")):
        none = float(data[f"{name}_none"])
        left.semilogx(data["lows"], data[f"{name}_late"] / none, color=colour, markersize=4, label=f"{name} network")
        for row, style in ((0, "-"), (1, ":")):
            label = f"{name}, {(2, 8)[row]} steps"
            right.semilogx(data["highs"], data[f"{name}_long"][row] / none, style, color=colour, markersize=3, label=label)
    for ax in axes:
        ax.axhline(1.0, color="grey", linewidth=0.8)
        ax.legend(fontsize="small")
    left.set(xlabel=r"$t_{min}$", ylabel="W2, in units of that without Restart", title=r"$t_{max} = t_{min} + 0.3$, K = 10")
    right.set(xlabel=r"$t_{max}$", title=r"$t_{min} = 0.06$, K = 10", ylim=(0.3, 3.0))


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
