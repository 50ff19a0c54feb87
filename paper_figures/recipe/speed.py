"""Speed against quality: Euler-Maruyama, SSCS and the ODE on VP, CLD and PSLD, exact W2 of the steps, image-like spectrum, exact score.

What stopping at t = 1e-3 loses is apart, since it is the same for all methods.  PSLD is ahead of CLD, and SSCS of Euler-Maruyama, where calls are
few; VP is ahead of PSLD at 50 calls, as in the paper's own table.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script, exact_parts
from sdekit import analysis, grids, methods, plans

PROCESSES = {"VP": sk.catalogue.vp, "CLD": lambda: sk.catalogue.psld(Gamma=0.0), "PSLD": lambda: sk.catalogue.psld(Gamma=0.01)}
METHODS = {"EM": methods.euler_maruyama, "SSCS": methods.sscs, "ODE": methods.heun}
GRIDS = {"uniform": grids.uniform, "quadratic": grids.quadratic}
CLAIMS = {
    "cld_over_psld_em_uniform_50": (1.2, 2.0),
    "cld_over_psld_em_quadratic_50": (1.05, 1.5),
    "cld_over_psld_em_quadratic_250": (0.5, 0.9),
    "cld_over_psld_sscs_uniform_50": (1.5, 3.0),
    "cld_over_psld_sscs_quadratic_250": (2.0, 4.0),
    "em_over_sscs_psld_uniform_100": (2.0, 4.0),
    "em_over_sscs_psld_quadratic_50": (1.2, 2.0),
    "em_over_sscs_psld_quadratic_250": (0.8, 1.0),
    "vp_over_psld_em_uniform_50": (0.6, 0.95),
    "vp_over_psld_em_quadratic_50": (0.8, 0.99),
}


def compute(quick):
    budgets = np.array([50, 100, 250]) if quick else np.array([30, 50, 100, 250, 500, 1000])
    law = analysis.power_law()
    w2 = np.full((2, 3, 3, len(budgets)), np.nan)
    for j, make in enumerate(PROCESSES.values()):
        process = make()
        for k, method in enumerate(METHODS.values()):
            made = method()
            for i, grid in enumerate(GRIDS.values()):
                for b, n in enumerate(budgets.tolist()):
                    plan = plans.run(grid((n - 1) // made.asks, end=1e-3), made).then(plans.denoise())
                    w2[i, j, k, b] = exact_parts(process, plan, law)[1]
    at = {n: b for b, n in enumerate(budgets.tolist())}
    measured = {}
    for kind, i in (("uniform", 0), ("quadratic", 1)):
        for n in (50, 100, 250):
            measured[f"cld_over_psld_em_{kind}_{n}"] = w2[i, 1, 0, at[n]] / w2[i, 2, 0, at[n]]
            measured[f"cld_over_psld_sscs_{kind}_{n}"] = w2[i, 1, 1, at[n]] / w2[i, 2, 1, at[n]]
            measured[f"em_over_sscs_psld_{kind}_{n}"] = w2[i, 2, 0, at[n]] / w2[i, 2, 1, at[n]]
            measured[f"vp_over_psld_em_{kind}_{n}"] = w2[i, 0, 0, at[n]] / w2[i, 2, 0, at[n]]
    measured = {name: float(value) for name, value in measured.items()}
    settings = {"data": "variance 0.25 / k^2 in k^2 modes, k = 1..32", "ODE": "Heun in (z, t)", "end": "denoise at t = 1e-3, counted"}
    return Found({"budgets": budgets, "w2": w2}, measured, settings)


def draw(axes, data):
    for ax, (kind, i) in zip(axes, (("uniform", 0), ("quadratic", 1)), strict=True):
        for j, (process, colour) in enumerate(zip(PROCESSES, ("#7F7F7F", "#D55E00", "#0072B2"), strict=True)):
            for k, (method, line) in enumerate(zip(METHODS, ("o-", "s--", "^:"), strict=True)):
                ax.loglog(data["budgets"], data["w2"][i, j, k], line, color=colour, markersize=4, label=f"{process}, {method}")
        ax.set(xlabel="model calls", title=f"{kind} steps", ylim=(1e-4, 1e2))
    axes[0].set_ylabel("exact W2 of the steps, over the size of the data")
    axes[1].legend(fontsize="small", ncols=3, loc="upper right")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(10.0, 4.4))
main = SCRIPT.main

if __name__ == "__main__":
    main()
