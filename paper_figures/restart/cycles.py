r"""How many cycles: the V over K of the paper's ablation, earlier for the stronger network, with exact errors; and a formula for its bottom.

Where errors from above, e_0, and of the cycles' own law, e_inf, are independent in many modes of one rate $\rho$, the mean square
$\rho^{2K} e_0^2 + (1 - \rho^K)^2 e_\infty^2$ is least at $K^* = \ln(1 + e_0^2/e_\infty^2) / |\ln \rho|$: it tends to e_inf, and does not grow
on as the published bound does.  In one mode with errors of opposite sign the bottom is at ``sweet_spot``, and is zero.
"""

import numpy as np

from paper_figures.common import Found, Script
from paper_figures.fields import LAW, NETWORKS, PROCESS, Judge
from sdekit import grids, methods, plans
from sdekit.analysis import contraction, sweet_spot
from sdekit.law import Gaussian

SPAN = (3, 0.06, 0.30)
CLAIMS = {
    "best_k_weak": (18, 26),
    "best_k_strong": (6, 10),
    "formula_weak_over_best": (0.8, 1.25),
    "formula_strong_over_best": (0.8, 1.25),
    "many_over_best_weak": (1.0, 1.1),
    "many_over_best_strong": (1.05, 1.2),
    "sweet_spot_minus_best": (-0.5, 0.5),
}


def plan(K):
    return plans.restart(grids.karras(18), [(SPAN[0], K, *SPAN[1:])], snap="nearest")


def one_mode(most):
    """Means after K cycles from a start too high under a field too low, and where the formula has the least."""
    data, model = Gaussian([0.0], 0.25), Gaussian([-0.05], 0.25)
    made = contraction.cycle(PROCESS, methods.heun(), SPAN, data, model=model)
    law = contraction.marginal(PROCESS, SPAN[1], np.array([0.5]), np.array([0.25]))
    means = np.array([made.after(law, K).mean[0, 0] for K in range(most + 1)])
    return means, sweet_spot(means[0], float(made.stationary.mean[0, 0]), float(made.rates[0]))


def compute(quick):
    K = np.arange(0, 41, 2 if quick else 1)
    rate = float(np.max(contraction.cycle(PROCESS, methods.heun(), (3, 0.0599473, 0.30), Gaussian([0.0], 0.25)).rates))
    arrays, measured = {"K": K}, {}
    for name, model in NETWORKS.items():
        judge = Judge(model)
        errors = np.array([judge.error(plan(int(k))) for k in K])
        none, many = (judge.means(plan(k)) for k in (0, 400))
        gap = none - many  # after K cycles the means are off by rho^K gap + many
        found = float(np.log(-(many @ gap) / (gap @ gap)) / np.log(rate))
        best = int(K[np.argmin(errors)])
        arrays[name], measured[f"best_k_{name}"] = errors, best
        measured[f"formula_{name}_over_best"] = found / best
        measured[f"formula_{name}"] = found
        measured[f"many_over_best_{name}"] = float(errors[-1] / errors.min())
        arrays[f"{name}_formula"] = np.array(found)
    means, spot = one_mode(30)
    measured["sweet_spot_minus_best"] = spot - float(np.argmin(np.abs(means)))
    settings = {"interval": SPAN, "grid": "karras(18)", "many": 40, "modes": LAW.variances.size}
    return Found(arrays | {"means": means, "spot": np.array(spot)}, measured, settings)


def draw(axes, data):
    left, right = axes
    for name, colour in (("weak", "#0072B2"), ("strong", "#D55E00")):
        left.plot(data["K"], data[name] / data[name][0], markersize=3, color=colour, label=f"{name} network")
        left.axvline(float(data[f"{name}_formula"]), color=colour, linestyle=":")
    left.set(xlabel="cycles K", ylabel="W2, in units of that without Restart", title="64 modes, [0.06, 0.30] (dotted: formula)")
    left.legend()
    right.plot(np.arange(len(data["means"])), np.abs(data["means"]), markersize=3)
    right.axvline(float(data["spot"]), color="grey", linestyle=":", label="formula")
    right.set(xlabel="cycles K", ylabel="|error of the mean|", title="one mode, errors of opposite sign")
    right.legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
