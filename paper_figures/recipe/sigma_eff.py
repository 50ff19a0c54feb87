"""sigma_eff over t for several Gamma (A Complete Recipe / PSLD): Gamma sets the smallest noise level.

With Gamma = 0 (CLD) the level falls like t^(3/2), with Gamma > 0 like sqrt(Gamma beta t): at t = 1e-3 that is 7e-4 (wasteful), 9e-3 for the
paper's Gamma = 0.01 (like VP), 4.5e-2 for 0.25 (which loses fine detail).
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script

GAMMAS = (0.0, 0.005, 0.01, 0.02, 0.25)
CLAIMS = {
    "psld_0": (6.7e-4, 6.8e-4),
    "psld_0.01": (8.9e-3, 9.0e-3),
    "psld_0.25": (4.4e-2, 4.5e-2),
    "slope_0": (1.45, 1.55),
    "slope_0.01": (0.49, 0.52),
}


def compute(quick):
    t = np.geomspace(1e-5, 1.0, 31 if quick else 121)
    processes = {f"psld_{gamma:g}": sk.catalogue.psld(Gamma=gamma) for gamma in GAMMAS} | {"vp": sk.catalogue.vp()}
    measured = {name: float(process.sigma_eff(1e-3)) for name, process in processes.items()}
    for gamma in (0.0, 0.01):
        low, high = processes[f"psld_{gamma:g}"].sigma_eff([1e-5, 2e-5])
        measured[f"slope_{gamma:g}"] = float(np.log2(high / low))
    levels = np.array([process.sigma_eff(t) for process in processes.values()])
    settings = {"psld": {"M": 0.25, "nu": "Gamma + 4", "beta": 8, "T": 1, "initial": {"m": "0.04 M"}}, "vp": {"beta": [0.1, 20]}}
    return Found({"t": t, "names": np.array(list(processes)), "levels": levels}, measured, settings)


def draw(axes, data):
    (ax,) = axes
    for name, level in zip(data["names"], data["levels"], strict=True):
        label = "VP" if name == "vp" else rf"$\Gamma$ = {name.split('_')[1]}"
        ax.loglog(data["t"], level, "k--" if name == "vp" else "-", marker="", label=label)
    ax.axvline(1e-3, color="grey", linewidth=0.8)
    ax.annotate(r"$t_\epsilon = 10^{-3}$", (1.1e-3, 30), color="grey")
    title = r"PSLD: $\Gamma$ sets the smallest noise level ($M^{-1} = 4$, $\nu = \Gamma + 4$, $\beta = 8$)"
    ax.set(xlabel="t", ylabel=r"$\sigma_{\mathrm{eff}}(t)$", title=title)
    ax.legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
