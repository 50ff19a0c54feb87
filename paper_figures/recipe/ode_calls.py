"""Calls of an adaptive ODE solver on CLD, PSLD and VP: RK45 on the probability-flow ODE, exact score, 20 starts on an image-like spectrum.

PSLD needs fewer calls than CLD, by a few percent only: far less than the paper's 280 against 228, which are of trained networks.
"""

import numpy as np
from scipy.integrate import solve_ivp

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import analysis
from sdekit.denoiser import score

PROCESSES = {
    "CLD": lambda: sk.catalogue.psld(Gamma=0.0),
    "PSLD 0.01": sk.catalogue.psld,
    "PSLD 0.02": lambda: sk.catalogue.psld(Gamma=0.02),
    "VP": sk.catalogue.vp,
}
CLAIMS = {"cld_over_psld_0.02": (1.0, 1.1), "standard_error_of_the_ratio": (0.0, 0.03)}


def calls(process, model, shape, tol, seeds):
    made = []
    for seed in seeds:
        z = process.kernel(1.0).chol @ np.random.default_rng(seed).standard_normal((process.k, *shape))

        def slope(t, flat, z=z):
            G, state = process.noise(t), flat.reshape(z.shape)
            drift = process.drift(t) @ state - 0.5 * G @ G.T @ score(process, model, state[:, None], t)[:, 0]
            return drift.ravel()

        made.append(solve_ivp(slope, (1.0, 1e-3), z.ravel(), method="RK45", rtol=tol, atol=tol).nfev)
    return np.array(made, float)


def compute(quick):
    law = analysis.power_law(frequencies=8)
    tolerances, seeds = (1e-4,) if quick else (1e-3, 1e-4, 1e-5), range(8 if quick else 20)
    made = np.array([[calls(make(), law.denoiser(), law.shape, tol, seeds) for tol in tolerances] for make in PROCESSES.values()])
    mean, at = made.mean(axis=2), -1
    spread = made.std(axis=2, ddof=1) / np.sqrt(made.shape[2])
    ratio = mean[0, at] / mean[2, at]
    measured = {
        "cld_over_psld_0.02": ratio,
        "cld_over_psld_0.01": mean[0, at] / mean[1, at],
        "standard_error_of_the_ratio": ratio * np.hypot(spread[0, at] / mean[0, at], spread[2, at] / mean[2, at]),
        **{f"calls_{name}": mean[i, at] for i, name in enumerate(PROCESSES)},
    }
    arrays = {"tolerances": np.array(tolerances), "mean": mean, "spread": spread, "names": np.array(list(PROCESSES))}
    settings = {"data": "variance 0.25 / k^2 in k^2 modes, k = 1..8", "times": [1.0, 1e-3], "ratios at": tolerances[at]}
    return Found(arrays, {k: float(v) for k, v in measured.items()}, settings, list(seeds))


def draw(axes, data):
    (ax,) = axes
    for name, mean, spread in zip(data["names"], data["mean"], data["spread"], strict=True):
        ax.errorbar(data["tolerances"], mean, 2.0 * spread, capsize=3, label=str(name))
    ax.set(xscale="log", xlabel="tolerance", ylabel="model calls", title="RK45 on the probability-flow ODE")
    ax.legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
