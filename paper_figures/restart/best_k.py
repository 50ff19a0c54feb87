r"""The number of cycles that the published bound is least at, against the one that is right.

With a part that grows by e a cycle the bound has its least value at $K^* = \ln(B\,TV_0\,\rho / e) / \rho$.  The truth forgets at the operator's
rate and saturates; so does the bound's first term, at a rate that is not the truth's.
"""

import numpy as np

from paper_figures.common import Found, Script
from sdekit.analysis import bounds, switching
from sdekit.law import Mixture

LOW, TOPS = 0.06, (0.6, 1.0, 2.0)
MODES = Mixture([0.5, 0.5], [[1.0], [-1.0]], 0.01)
START = Mixture([0.9, 0.1], [[1.0], [-1.0]], 0.01)
DIAMETER, APART, ADDED = 2.0, 0.4, 0.02
CLAIMS = {
    "bound_k_0.6": (13.85, 13.95),
    "bound_k_1": (7.15, 7.25),
    "bound_k_2": (3.75, 3.85),
    "cycles_to_a_twentieth_0.6": (17, 40),
    "cycles_to_a_twentieth_1": (7, 11),
    "cycles_to_a_twentieth_2": (2, 5),
    "cycles_over_bound_0.6": (2.0, 2.5),
    "cycles_over_bound_2": (0.8, 1.25),
}


def compute(quick):
    highs = np.geomspace(0.4, 4.0, 8 if quick else 25)
    K = np.array([bounds.best_cycles(DIAMETER, APART, ADDED, LOW, high) for high in highs])
    tv, measured = [], {}
    for high in TOPS:
        operator = switching.restart_operator(MODES, LOW, high, 150 if quick else 300)
        found = operator.tv(START, 40)
        tv.append(found)
        measured[f"bound_k_{high:g}"] = bounds.best_cycles(DIAMETER, APART, ADDED, LOW, high)
        measured[f"cycles_to_a_twentieth_{high:g}"] = float(np.argmax(found <= 0.05 * found[0]))
        measured[f"cycles_over_bound_{high:g}"] = measured[f"cycles_to_a_twentieth_{high:g}"] / measured[f"bound_k_{high:g}"]
        measured[f"rate_{high:g}"] = operator.rate
        measured[f"paper_factor_{high:g}"] = 1.0 - bounds.overlap(DIAMETER, LOW, high)
    settings = {"B": DIAMETER, "TV0": APART, "e": ADDED, "modes": "+-1, variance 0.01, start 0.9 and 0.1"}
    return Found({"highs": highs, "K": K, "tv": np.array(tv), "tops": np.array(TOPS)}, measured, settings)


def draw(axes, data):
    left, right = axes
    left.semilogx(data["highs"], data["K"], markersize=3)
    left.set(xlabel=r"$t_{max}$", ylabel=r"$K^*$ of the bound", title=r"least bound, $t_{min} = 0.06$")
    for high, row in zip(data["tops"], data["tv"], strict=True):
        line = right.semilogy(row, markersize=3, label=rf"$t_{{max}}$ = {high:g}")[0]
        at = float(np.interp(high, data["highs"], data["K"]))
        right.axvline(at, color=line.get_color(), linestyle=":")
    right.set(xlabel="cycles K", ylabel="total variation, exact", title="weights of two modes (dotted: least bound)", ylim=(1e-4, 1.0))
    right.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
