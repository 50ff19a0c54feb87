"""Gamma with a trained network: digits from PSLD at several Gamma, by the shipped denoiser, judged against held-out digits.

The denoiser has seen no process: it is asked at sigma_eff(t).  With the last noise level fixed by t = 1e-3, Gamma = 0.25 stops at sigma = 0.045;
the final denoising step repairs what is lost, so that on digits Gamma hardly matters: moments and support pass for all that take enough steps.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import grids, methods, plans

GAMMAS = (0.0, 0.005, 0.01, 0.02, 0.25)
STEPS = 40
CLAIMS = {"frechet_over_held_out_0.01": (0.5, 1.6), "precision_over_held_out_0.01": (0.7, 1.3), "recall_over_held_out_0.01": (0.5, 1.4)}


def compute(quick):
    denoise, images = sk.torch.load("digits"), sk.torch.digits()
    gammas, n = ((0.01,), 48) if quick else (GAMMAS, 128)
    names = ("frechet", "precision", "recall", "confidence")
    table = np.zeros((len(gammas), len(names), 2))
    for i, gamma in enumerate(gammas):
        plan = plans.run(grids.quadratic((20 if quick else STEPS) - 1, end=1e-3), methods.euler_maruyama()).then(plans.denoise())
        x = sk.sample(sk.catalogue.psld(Gamma=gamma), denoise, plan=plan, n=n, seed=0).x
        found = sk.torch.judge(x, images)
        table[i] = [(found[name].value, found[name].held_out) for name in names]
    measured = {
        f"{name}_over_held_out_{gamma:g}": float(table[i, j, 0] / table[i, j, 1]) for i, gamma in enumerate(gammas) for j, name in enumerate(names)
    }
    settings = {"samples": n, "calls": 20 if quick else STEPS, "grid": "quadratic", "method": "Euler-Maruyama, denoised at the end"}
    return Found({"gammas": np.array(gammas), "names": np.array(names), "table": table}, measured, settings, [0])


def draw(axes, data):
    (ax,) = axes
    for j, name in enumerate(data["names"]):
        ax.plot(data["gammas"], data["table"][:, j, 0] / data["table"][:, j, 1], label=str(name))
    ax.axhline(1.0, color="grey", linestyle=":")
    ax.set_xscale("symlog", linthresh=2.5e-3)
    ax.set_xlim(-0.1 * 2.5e-3, 0.4)
    ax.set(xlabel=r"$\Gamma$", ylabel="in units of held-out digits", ylim=(0.0, 2.5), title=f"digits from PSLD, {STEPS} calls of one denoiser")
    ax.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
