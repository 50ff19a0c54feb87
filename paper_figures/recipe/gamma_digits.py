"""Gamma with a trained network: digits from PSLD at several Gamma, by the shipped denoiser, judged against held-out digits.

The denoiser has seen no process: it is asked at sigma_eff(t).  With the last noise level fixed by t = 1e-3, Gamma = 0.25 stops at sigma = 0.045;
the final denoising step repairs what is lost, so that on digits Gamma hardly matters: moments and support pass for all that take enough steps.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script, one_thread, spreads, to_ends
from sdekit import grids, methods, plans

GAMMAS = (0.0, 0.005, 0.01, 0.02, 0.25)
NAMES = ("frechet", "precision", "recall", "confidence")
STEPS = 40
CLAIMS = {
    "frechet_over_held_out_0.01": (0.5, 1.6),
    "precision_over_held_out_0.01": (0.7, 1.3),
    "recall_over_held_out_0.01": (0.5, 1.4),
    "frechet_gamma_0_over_0.01": (0.8, 1.25),
    "frechet_gamma_0.25_over_0.01": (0.8, 1.25),
}


def compute(quick):
    denoise, images = sk.torch.load("digits"), sk.torch.digits()
    gammas, n, steps, seeds = ((0.0, 0.01, 0.25), 48, 24, [0]) if quick else (GAMMAS, 128, STEPS, [0, 1, 2])
    plan = plans.run(grids.quadratic(steps - 1, end=1e-3), methods.euler_maruyama()).then(plans.denoise())
    ratio = np.zeros((len(seeds), len(gammas), len(NAMES)))
    with one_thread():
        for s, i in np.ndindex(ratio.shape[:2]):
            x = sk.sample(sk.catalogue.psld(Gamma=gammas[i]), denoise, plan=plan, n=n, seed=seeds[s]).x
            found = sk.torch.judge(x, images)
            ratio[s, i] = [found[name].value / found[name].held_out for name in NAMES]
    measured = {f"{name}_over_held_out_{gamma:g}": ratio[:, i, j] for i, gamma in enumerate(gammas) for j, name in enumerate(NAMES)}
    paper = gammas.index(0.01)
    measured |= {f"frechet_gamma_{gamma:g}_over_0.01": ratio[:, i, 0] / ratio[:, paper, 0] for i, gamma in enumerate(gammas) if i != paper}
    settings = {"samples of each seed": n, "calls": steps, "grid": "quadratic", "method": "Euler-Maruyama, denoised at the end", "pixels": [8, 8]}
    return Found({"gammas": np.array(gammas), "names": np.array(NAMES), "ratio": ratio}, spreads(measured), settings, seeds)


def draw(axes, data):
    (ax,) = axes
    for j, name in enumerate(data["names"]):
        ax.errorbar(data["gammas"], data["ratio"][:, :, j].mean(axis=0), to_ends(data["ratio"][:, :, j]), label=str(name), capsize=3)
    ax.axhline(1.0, color="grey", linestyle=":")
    ax.set_xscale("symlog", linthresh=2.5e-3)
    ax.set_xlim(-0.1 * 2.5e-3, 0.4)
    ax.set(xlabel=r"$\Gamma$", ylabel="in units of held-out digits", ylim=(0.5, 1.5), title=f"digits from PSLD, {STEPS} calls, 3 seeds")
    ax.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
