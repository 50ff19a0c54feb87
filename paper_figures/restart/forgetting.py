"""What is left of an earlier error: of the mean, a cycle of Restart forgets as much as a pass of the SDE; of the weights of modes, by another rate.

Left, N(0, 1/4) on [0.06, 0.3]: the exact flow leaves a = 0.864, the reverse SDE a^2, K cycles a^(K + 1); Heun's legs of two steps leave 0.867 each.
Right, two modes: total variation by the exact operator of a cycle, from weights 0.9 and 0.1; its rate is the second eigenvalue, and the paper's
factor 1 - lambda is no bound on it unless the diameter covers both modes with their spread.
"""

import numpy as np

from paper_figures.common import Found, Script
from paper_figures.fields import PROCESS
from sdekit import methods
from sdekit.analysis import bounds, contraction, switching
from sdekit.law import Gaussian, Mixture

LOW, HIGH, MOST = 0.0599473, 0.30, 20
DATA = Gaussian([0.0], 0.25)
MODES = Mixture([0.5, 0.5], [[1.0], [-1.0]], 0.01)
WIDE = Mixture([0.5, 0.5], [[3.0], [-3.0]], 1.0)
CLAIMS = {
    "ode": (0.86362, 0.86364),
    "sde": (0.74585, 0.74587),
    "heun_cycle": (0.86702, 0.86704),
    "sde_over_one_restart": (1.0 - 1e-12, 1.0 + 1e-12),
    "first_ratio_of_weights": (0.6800, 0.6808),
    "rate_of_weights": (0.7040, 0.7050),
    "paper_factor_wide_modes": (0.5612, 0.5616),
    "rate_wide_modes": (0.6530, 0.6545),
}


def compute(quick):
    ode, sde = (float(contraction.flow_rates(DATA, LOW, HIGH, noise)[0]) for noise in (0.0, 1.0))
    heun = float(contraction.cycle(PROCESS, methods.heun(), (3, LOW, HIGH), DATA).rates[0])
    K = np.arange(MOST + 1)
    bins = 200 if quick else 400
    operator = switching.restart_operator(MODES, 0.06, 1.0, bins)
    found = operator.tv(Mixture([0.9, 0.1], [[1.0], [-1.0]], 0.01), MOST)
    wide = switching.restart_operator(WIDE, 1.0, 4.0, bins).rate
    measured = {
        "ode": ode,
        "sde": sde,
        "heun_cycle": heun,
        "sde_over_one_restart": sde / ode**2,
        "first_ratio_of_weights": float(found[1] / found[0]),
        "rate_of_weights": operator.rate,
        "paper_factor_wide_modes": 1.0 - bounds.overlap(6.0, 1.0, 4.0),
        "rate_wide_modes": wide,
    }
    arrays = {"K": K, "restart": ode ** (K + 1), "heun": heun ** (K + 1), "sde": np.array(sde), "tv": found, "rate": np.array(operator.rate)}
    arrays["paper"] = (1.0 - bounds.overlap(2.0 + 8 * 0.1, 0.06, 1.0)) ** K * found[0]
    return Found(arrays, measured, {"interval": [LOW, HIGH], "modes": "+-1, variance 0.01, [0.06, 1]", "bins": bins})


def draw(axes, data):
    left, right = axes
    left.semilogy(data["K"], data["restart"], label="K cycles, exact flow")
    left.semilogy(data["K"], data["heun"], label="K cycles, two steps of Heun each")
    left.axhline(float(data["sde"]), color="grey", linestyle=":", label="one pass of the SDE")
    left.set(xlabel="cycles K", ylabel="left of an error of the mean", title="N(0, 1/4), [0.06, 0.3]")
    right.semilogy(data["K"], data["tv"], label="exact")
    right.semilogy(
        data["K"], data["tv"][-1] * data["rate"] ** (data["K"] - float(data["K"][-1])), linestyle=":", marker="", label="second eigenvalue"
    )
    right.semilogy(data["K"], data["paper"], linestyle="--", marker="", label="paper's factor, diameter 2.8")
    right.set(xlabel="cycles K", ylabel="total variation", title="weights of two modes, [0.06, 1]")
    for ax in axes:
        ax.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
