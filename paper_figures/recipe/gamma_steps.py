"""Gamma against the errors of few steps: exact W2 of Euler-Maruyama on an image-like spectrum, exact score.

Two errors part: that of the steps, and what is lost by stopping at t = 1e-3, whose level grows with Gamma.  The best Gamma of the steps falls with
the calls, from 0.25 at 50 uniform steps to 0; on quadratic steps it is 0 from 100 calls on: the paper's gain there is not one of the steps.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script, exact_parts
from sdekit import analysis, grids, methods, plans

GAMMAS = np.array([0.0, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.25])
GRIDS = {"uniform": grids.uniform, "quadratic": grids.quadratic}
CLAIMS = {
    "best_gamma_uniform_50": (0.04, 0.25),
    "best_gamma_uniform_250": (0.001, 0.01),
    "best_gamma_quadratic_50": (0.0025, 0.02),
    "best_gamma_quadratic_250": (0.0, 0.0),
    "cld_over_psld_0.01_uniform_50": (1.2, 2.0),
    "end_0": (0.0, 0.001),
    "end_0.01": (0.05, 0.08),
    "end_0.25": (0.4, 0.5),
}


def compute(quick):
    budgets = np.array([50, 250]) if quick else np.array([50, 100, 250, 500, 1000])
    law = analysis.power_law()
    parts = np.zeros((2, len(GAMMAS), len(budgets), 3))
    for i, grid in enumerate(GRIDS.values()):
        for j, gamma in enumerate(GAMMAS):
            process = sk.catalogue.psld(Gamma=gamma)
            for k, n in enumerate(budgets.tolist()):
                plan = plans.run(grid(n - 1, end=1e-3), methods.euler_maruyama()).then(plans.denoise())
                parts[i, j, k] = exact_parts(process, plan, law)
    steps, at = parts[..., 1], {gamma: j for j, gamma in enumerate(GAMMAS.tolist())}
    best = GAMMAS[np.argmin(steps, axis=1)]
    measured = {f"best_gamma_{kind}_{n}": float(best[i, k]) for i, kind in enumerate(GRIDS) for k, n in enumerate(budgets)}
    measured["cld_over_psld_0.01_uniform_50"] = float(steps[0, 0, 0] / steps[0, at[0.01], 0])
    measured |= {f"end_{gamma:g}": float(parts[0, at[gamma], 0, 2]) for gamma in (0.0, 0.01, 0.25)}
    settings = {"data": "variance 0.25 / k^2 in k^2 modes, k = 1..32", "parts": ["whole", "steps", "end"], "end": "denoise at t = 1e-3, counted"}
    return Found({"gammas": GAMMAS, "budgets": budgets, "parts": parts}, measured, settings)


def draw(axes, data):
    for ax, parts, kind in zip(axes, data["parts"], GRIDS, strict=True):
        w2 = parts[..., 1]
        ax.plot(data["gammas"], parts[:, 0, 2], "k:", marker="", label="stopping at t = 0.001")
        for k, n in enumerate(data["budgets"]):
            line = ax.plot(data["gammas"], w2[:, k], markersize=4, label=f"{n} calls")[0]
            best = int(np.argmin(w2[:, k]))
            ax.plot(data["gammas"][best], w2[best, k], "o", color=line.get_color(), markersize=11, markerfacecolor="none")
        ax.set(yscale="log", ylim=(1e-3, 10.0), xlabel=r"$\Gamma$", title=f"{kind} steps")
        ax.set_xscale("symlog", linthresh=2.5e-3)
        ax.set_xlim(-0.1 * 2.5e-3, 0.4)
    axes[0].set_ylabel("exact W2 of the steps, over the size of the data")
    axes[1].legend(fontsize="small", loc="upper left")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.0, 4.0))
main = SCRIPT.main

if __name__ == "__main__":
    main()
