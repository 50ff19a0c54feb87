"""Gamma against the errors of few steps: exact W2 of Euler-Maruyama on an image-like spectrum, exact score.

Uniform steps: the fewer the calls, the larger the best Gamma, and it falls from 0.25 at 50 calls to 0.0025 at
1000.  Quadratic steps: from 0.02 at 50 calls to 0 at 500: with exact scores the paper's gain there is not one of discretisation.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script, exact_w2
from sdekit import analysis, grids, methods, plans

GAMMAS = np.array([0.0, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.25])
GRIDS = {"uniform": grids.uniform, "quadratic": grids.quadratic}
CLAIMS = {
    "best_gamma_uniform_50": (0.04, 0.25),
    "best_gamma_uniform_250": (0.005, 0.04),
    "best_gamma_quadratic_50": (0.005, 0.04),
    "best_gamma_quadratic_250": (0.0, 0.0025),
    "cld_over_psld_0.01_uniform_50": (1.2, 2.0),
    "psld_0.25_over_cld_quadratic_250": (10.0, 100.0),
}


def compute(quick):
    budgets = np.array([50, 250]) if quick else np.array([50, 100, 250, 500, 1000])
    law = analysis.power_law()
    w2 = np.zeros((2, len(GAMMAS), len(budgets)))
    for i, grid in enumerate(GRIDS.values()):
        for j, gamma in enumerate(GAMMAS):
            process = sk.catalogue.psld(Gamma=gamma)
            for k, n in enumerate(budgets.tolist()):
                plan = plans.run(grid(n - 1, end=1e-3), methods.euler_maruyama()).then(plans.denoise())
                w2[i, j, k] = exact_w2(process, plan, law)
    best = GAMMAS[np.argmin(w2, axis=1)]
    measured = {f"best_gamma_{kind}_{n}": float(best[i, k]) for i, kind in enumerate(GRIDS) for k, n in enumerate(budgets)}
    at = {(gamma, n): (j, k) for j, gamma in enumerate(GAMMAS) for k, n in enumerate(budgets)}
    measured["cld_over_psld_0.01_uniform_50"] = float(w2[0][at[0.0, 50]] / w2[0][at[0.01, 50]])
    measured["psld_0.25_over_cld_quadratic_250"] = float(w2[1][at[0.25, 250]] / w2[1][at[0.0, 250]])
    size = float(np.sqrt(np.sum(law.variances)))
    settings = {"data": "variance 0.25 / k^2 in k^2 modes, k = 1..32", "size of the data": size, "end": "denoise at t = 1e-3, counted"}
    return Found({"gammas": GAMMAS, "budgets": budgets, "w2": w2 / size}, measured, settings)


def draw(axes, data):
    for ax, w2, kind in zip(axes, data["w2"], GRIDS, strict=True):
        for k, n in enumerate(data["budgets"]):
            line = ax.plot(data["gammas"], w2[:, k], markersize=4, label=f"{n} calls")[0]
            best = int(np.argmin(w2[:, k]))
            ax.plot(data["gammas"][best], w2[best, k], "o", color=line.get_color(), markersize=11, markerfacecolor="none")
        ax.set(yscale="log", xlabel=r"$\Gamma$", title=f"{kind} steps")
        ax.set_xscale("symlog", linthresh=2.5e-3)
    axes[0].set_ylabel("exact W2 over the size of the data")
    axes[0].legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.0, 4.0))
main = SCRIPT.main

if __name__ == "__main__":
    main()
