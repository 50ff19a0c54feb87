"""Is a score that is wrong off the data's shell what spoils classical methods?  Mostly not.

The exact score normal to the data is multiplied by 1 + c (R - 1), R the shell ratio: wrong only off the shell.  Pseudo methods never leave it and do
not notice; FON's excess noise is there for c = 0 and changes by a quarter at most.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import grids, methods

STEPS = (20, 50, 100)
CLAIMS = {"fon_20_exact_score": (1.63, 1.65), "largest_change_of_fon": (0.05, 0.26), "pseudo_error": (0.0, 1e-8)}


def ratio(process, method, n, c):
    """Growth of the norm over the exact one, for a start on the shell in 16 dimensions of which all are normal to the data, a point."""
    grid = grids.uniform(n)
    kernel = process.kernel(grid.times(process)[[0, -1]])
    start = kernel.chol[0, 0, 0] * np.ones((1, 1, 16))

    def denoise(y, sigma):
        return -c * (np.mean(y**2, axis=-1, keepdims=True) / sigma**2 - 1.0) * y

    x = sk.sample(process, denoise, method=method, grid=grid, start=(start, process.T)).x
    return float(np.sqrt(np.mean(x**2)) / kernel.chol[1, 0, 0])


def compute(quick):
    process, slopes = sk.catalogue.vp(), np.array([-0.6, 0.0, 0.6] if quick else np.linspace(-0.6, 0.6, 13).round(12))
    fon = np.array([[ratio(process, methods.fon(), n, float(c)) for c in slopes] for n in STEPS])
    pseudo = np.array([[ratio(process, methods.f_pndm(), n, float(c)) for c in slopes] for n in STEPS])
    exact = fon[:, len(slopes) // 2]
    measured = {
        "fon_20_exact_score": float(exact[0]),
        "excess_of_fon_20": float(exact[0] - 1.0),
        "largest_change_of_fon": float(np.max(np.abs(fon / exact[:, None] - 1.0))),
        "pseudo_error": float(np.max(np.abs(pseudo - 1.0))),
    }
    settings = {"process": "VP", "grid": "uniform", "c": slopes.tolist(), "steps": STEPS}
    return Found({"c": slopes, "fon": fon, "pseudo": pseudo, "steps": np.array(STEPS)}, measured, settings)


def draw(axes, data):
    (ax,) = axes
    for n, row in zip(data["steps"], data["fon"], strict=True):
        ax.plot(data["c"], row, label=f"FON, {n} steps")
    ax.plot(data["c"], data["pseudo"][0], "k-", marker="", label="F-PNDM, 20 steps")
    ax.set(xlabel="error c of the score off the shell", ylabel="normal spread over the exact one", title="the excess is the integrator's own")
    ax.legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
