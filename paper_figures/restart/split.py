"""The error in two, as in the theorems: what is left of that made above, and what the sampler adds; the ODE, the SDE and Restart, with exact errors.

Left, N(0, 1/4) in 64 elements from level 1 on: a start whose means are off by 0.5, a network whose means are off by 0.05, and samplers of at most
64 calls.  Right, two modes on the line whose weights are wrong above 1.5, by samples: W1 after a whole run of 75 calls.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script, spreads, to_ends
from paper_figures.fields import LAW, PROCESS, calls
from sdekit import grids, imperfect, methods, plans
from sdekit.analysis import contraction, w1_exact_1d
from sdekit.law import Gaussian, Mixture

TOP, LOW, MOST = 1.0, 0.06, 64
WRONG = Gaussian(LAW.mean + 0.05, LAW.cov)
START = Gaussian(LAW.mean + 0.5, LAW.cov)
MODES = Mixture([0.5, 0.5], [[1.0], [-1.0]], 0.01)
CLAIMS = {
    "least_contracted_ode_over_restart": (10.0, np.inf),
    "least_contracted_sde_over_restart": (1.0, np.inf),
    "median_sde_over_restart_at_equal_additional": (0.8, 1.25),
    "total_restart_over_sde": (0.6, 1.0),
    "total_restart_over_ode": (0.0, 0.5),
    "mixture_restart_over_ode": (0.0, 0.7),
    "mixture_sde_over_ode": (0.0, 0.9),
}
HEUN = methods.exponential_rk(2)


def main_grid(n):
    return grids.karras(n, sigma_max=TOP)


def samplers(quick):
    """Plans by kind, all from level 1 to the data."""
    n = (8, 16, 32) if quick else (4, 6, 8, 12, 16, 24, 32)
    cycles = (1, 5, 10) if quick else (1, 2, 3, 5, 7, 10, 15)
    noises = (0.5, 1.0, 1.5)
    return {
        "ODE": [plans.run(main_grid(k), HEUN) for k in n],
        "SDE, churn": [plans.churn(plans.run(main_grid(k), HEUN), S) for k in n for S in (1.0, 3.0, 10.0, 30.0)],
        "SDE, vanilla": [plans.run(main_grid(2 * k), methods.euler(noise=noise)) for k in n for noise in noises],
        "Restart": [plans.restart(main_grid(k), [(N, K, LOW, high)]) for k in (6, 10) for N in (2, 3, 5) for K in cycles for high in (0.3, 0.6, 1.0)],
    }


def compute(quick):
    arrays, least, kinds = {}, {}, samplers(quick)
    for kind, made in kinds.items():
        fit = [plan for plan in made if calls(plan) <= MOST]
        found = [contraction.error_split(PROCESS, plan, TOP, data=LAW, model=WRONG, start=START) for plan in fit]
        arrays[kind] = np.array([[calls(plan), s.total, s.contracted, s.additional] for plan, s in zip(fit, found, strict=True)])
        least[kind] = arrays[kind][:, 2].min()
    restart, sde = arrays["Restart"], np.concatenate([arrays["SDE, churn"], arrays["SDE, vanilla"]])
    at = np.linspace(max(restart[:, 3].min(), sde[:, 3].min()) + 0.02, 0.5, 12)
    ratios = [sde[sde[:, 3] <= a][:, 2].min() / restart[restart[:, 3] <= a][:, 2].min() for a in at]
    measured = {
        "least_contracted_ode_over_restart": least["ODE"] / least["Restart"],
        "least_contracted_sde_over_restart": min(least["SDE, churn"], least["SDE, vanilla"]) / least["Restart"],
        "median_sde_over_restart_at_equal_additional": float(np.median(ratios)),
        "least_sde_over_restart_at_equal_additional": min(ratios),
        "total_restart_over_sde": float(restart[:, 1].min() / sde[:, 1].min()),
        "total_restart_over_ode": float(restart[:, 1].min() / arrays["ODE"][:, 1].min()),
    }
    wrong = imperfect.wrong_weights(MODES, [0.9, 0.1], window=(1.5, 80.0))
    n = 2000 if quick else 10_000
    truth, seeds = MODES.sample(50_000, seed=101).ravel(), [0] if quick else [0, 1, 2]
    chosen = {
        "ode": plans.run(grids.karras(38), HEUN),
        "sde": plans.churn(plans.run(grids.karras(38), HEUN), 30.0, 0.01, 2.0),
        "restart": plans.restart(grids.karras(18), [(3, 10, LOW, 1.0)], snap="nearest"),
    }
    rows = [[*(sk.sample(PROCESS, wrong, plan=p, n=n, seed=seed).x for p in chosen.values()), MODES.sample(n, seed=seed)] for seed in seeds]
    w1 = np.array([[float(w1_exact_1d(np.ravel(x), truth)) for x in row] for row in rows])
    measured |= spreads({f"mixture_{name}_over_ode": w1[:, i] / w1[:, 0] for i, name in enumerate((*chosen, "floor")) if i})
    settings = {"level": TOP, "most calls": MOST, "samples of each seed": n, "modes": "weights 0.9 and 0.1 above 1.5, 75 calls"}
    return Found(arrays | {"w1": w1, "names": np.array([*chosen, "floor"])}, measured, settings, seeds)


def draw(axes, data):
    left, right = axes
    for kind in ("ODE", "SDE, churn", "SDE, vanilla", "Restart"):
        left.loglog(data[kind][:, 3], data[kind][:, 2], linestyle="", markersize=4, label=kind)
    left.set(xlabel="additional error", ylabel="contracted error", title="W2, at most 64 calls")
    left.legend(fontsize="small")
    right.bar(data["names"], data["w1"].mean(axis=0), yerr=to_ends(data["w1"]), color=["#0072B2", "#D55E00", "#CC79A7", "#7F7F7F"])
    right.set(ylabel="W1", title="two modes, wrong weights above 1.5, 75 calls")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
