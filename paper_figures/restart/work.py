"""Error against model calls with two imperfect networks: the ODE stops early, the SDE goes on slowly, Restart goes as low in a tenth of the calls.

The ODE keeps what the network gets wrong above; noise forgets it.  S_churn = 30 in [0.01, 1] is the SDE that the paper compares with on CIFAR-10; 80
forgets more, and needs as many calls for it.
Restart: the published settings for the VP network, and for EDM's.  The strong network's errors are smaller and so is all that can be gained.
"""

import numpy as np

from paper_figures.common import Found, Script
from paper_figures.fields import NETWORKS, Judge, calls
from sdekit import grids, methods, plans
from sdekit.plans import published

ODE, SDE, LOUD, VANILLA = "ODE, Heun", "improved SDE, S_churn 30", "improved SDE, S_churn 80", "vanilla SDE"
RESTART, RESTART_EDM = "Restart, settings for VP", "Restart, for EDM"
CLAIMS = {
    "weak_restart_75_over_sde_1023": (0.0, 1.0),
    "weak_restart_75_over_loud_sde_127": (0.0, 1.0),
    "weak_restart_75_over_loud_sde_1023": (0.8, 1.2),
    "weak_restart_75_over_ode_plateau": (0.0, 0.7),
    "weak_ode_1023_over_ode_35": (0.85, 1.1),
    "weak_sde_35_over_ode_35": (0.85, 1.1),
    "weak_vanilla_128_over_ode_127": (0.8, 1.0),
    "strong_restart_43_over_ode_plateau": (0.7, 1.0),
    "strong_sde_35_over_ode_35": (1.0, 1.2),
    "strong_restart_75_over_sde_1023": (0.0, 1.0),
}


def families(quick):
    n = (18, 64, 512) if quick else (10, 14, 18, 32, 64, 128, 256, 512)
    heun = methods.exponential_rk(2)
    base = {ODE: [plans.run(grids.karras(k), heun) for k in n]}
    base[VANILLA] = [plans.run(grids.karras(2 * k), methods.euler(noise=1.0)) for k in (n[1:2] if quick else n)]
    base[SDE] = [plans.churn(plan, 30.0, 0.01, 1.0, 1.007) for plan in base[ODE]]
    base[LOUD] = [plans.churn(plan, 80.0, 0.01, 1.0, 1.0) for plan in base[ODE]]
    base[RESTART] = [row.plan for nfe, row in sorted(published.cifar10_vp.items()) if not quick or nfe < 100]
    base[RESTART_EDM] = [published.cifar10_edm[43].plan]
    return base


def compute(quick):
    base, arrays, measured = families(quick), {}, {"sde_calls_over_restart": 1023 / 75}
    count = {kind: np.array([calls(plan) for plan in made]) for kind, made in base.items()}
    for name, model in NETWORKS.items():
        judge = Judge(model)
        at = {}
        for kind, made in base.items():
            errors = np.array([judge.error(plan) for plan in made])
            arrays[f"{name}|{kind}"] = np.stack([count[kind], errors])
            at[kind] = dict(zip(count[kind].tolist(), errors.tolist(), strict=True))
        measured |= {
            f"{name}_restart_75_over_sde_1023": at[RESTART][75] / at[SDE][1023],
            f"{name}_restart_75_over_loud_sde_127": at[RESTART][75] / at[LOUD][127],
            f"{name}_restart_75_over_loud_sde_1023": at[RESTART][75] / at[LOUD][1023],
            f"{name}_restart_75_over_ode_plateau": at[RESTART][75] / at[ODE][1023],
            f"{name}_restart_43_over_ode_plateau": at[RESTART_EDM][43] / at[ODE][1023],
            f"{name}_ode_1023_over_ode_35": at[ODE][1023] / at[ODE][35],
            f"{name}_sde_35_over_ode_35": at[SDE][35] / at[ODE][35],
            f"{name}_vanilla_128_over_ode_127": at[VANILLA][128] / at[ODE][127],
        }
    return Found(arrays, measured, {"S_churn": [30, 80], "S_min": 0.01, "S_max": 1.0, "S_noise": 1.007})


def draw(axes, data):
    for ax, name in zip(axes, NETWORKS, strict=True):
        for kind in (ODE, SDE, LOUD, VANILLA, RESTART, RESTART_EDM):
            count, errors = data[f"{name}|{kind}"]
            ax.loglog(count, errors, label=kind, markersize=5)
        ax.set(xlabel="model calls", title=f"{name} network")
    axes[0].set_ylabel("W2, over the size of the data")
    axes[1].legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
