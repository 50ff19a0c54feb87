"""Error of the samples normal and tangential to a circle in 16 dimensions, of thickness 0.02, against model calls, exact scores.

F-PNDM is ahead of DDIM in both kinds of direction; normal to data of this thickness the classical FON is ahead of it: pseudo methods stay on
thin data exactly (``normal_factor``), and treat thicker ones as thin.
"""

from itertools import product

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script, spreads
from sdekit import grids, methods
from sdekit.analysis.manifolds import Manifold, manifold_error

METHODS = {
    "DDIM": methods.ddim(),
    "F-PNDM": methods.f_pndm(),
    "PNDM, exact weights": methods.pndm(clock="time"),
    "FON": methods.fon(),
    "RK4": methods.runge_kutta("rk4"),
}
CLAIMS = {
    "f_pndm_over_ddim_tangential_50": (0.5, 1.0),
    "f_pndm_over_ddim_normal_50": (0.5, 0.9),
    "f_pndm_over_fon_normal_20": (2.0, 6.0),
}


def compute(quick):
    process, circle = sk.catalogue.vp(), Manifold("circle", 16, 0.02)
    steps = [20, 50] if quick else [10, 20, 50, 100]
    seeds, samples = [0] if quick else [0, 1, 2], 10 if quick else 60
    errors = np.zeros((2, len(METHODS), len(steps), len(seeds)))
    calls = np.zeros((len(METHODS), len(steps)))
    for j, method in enumerate(METHODS.values()):
        for (k, n), (s, seed) in product(enumerate(steps), enumerate(seeds)):
            grid = grids.uniform(n, end=float(process.time_of(0.01)))
            report = manifold_error(process, circle, n=samples, tolerance=1e-5, method=method, grid=grid, seed=seed)
            errors[:, j, k, s], calls[j, k] = (report.normal, report.tangential), report.nfe
    at = {n: k for k, n in enumerate(steps)}
    normal, tangential = errors
    measured = {
        "f_pndm_over_ddim_tangential_50": tangential[1, at[50]] / tangential[0, at[50]],
        "f_pndm_over_ddim_normal_50": normal[1, at[50]] / normal[0, at[50]],
        "f_pndm_over_rk4_normal_20": normal[1, at[20]] / normal[4, at[20]],
        "f_pndm_over_fon_normal_20": normal[1, at[20]] / normal[3, at[20]],
        "f_pndm_over_fon_tangential_20": tangential[1, at[20]] / tangential[3, at[20]],
    }
    settings = {"shape": "circle", "dimension": 16, "thickness": 0.02, "end": "sigma = 0.01", "grid": "uniform"}
    arrays = {"calls": calls, "errors": errors.mean(axis=3), "names": np.array(list(METHODS))}
    return Found(arrays, spreads(measured), settings | {"samples of each seed": samples}, seeds)


def draw(axes, data):
    for ax, errors, title in zip(axes, data["errors"], ("normal to the circle's plane", "in its plane"), strict=True):
        for name, calls, row in zip(data["names"], data["calls"], errors, strict=True):
            ax.loglog(calls, row, markersize=4, label=str(name))
        ax.set(xlabel="model calls", title=title)
    axes[0].set_ylabel("root mean square error")
    axes[1].legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.0, 4.0))
main = SCRIPT.main

if __name__ == "__main__":
    main()
