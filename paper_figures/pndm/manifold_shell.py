"""The norm shell along a trajectory: mean shell ratio normal to a circle in 16 dimensions, 20 uniform steps, VP with exact scores.

The exact flow keeps the ratio; normal to the circle all is linear, so that it is the same for every seed.  On thin data FON and RK4 leave the shell
upwards near the end, and pseudo methods keep it.  On data thicker than the last noise level it is the other way round: pseudo methods collapse the
thickness, and FON is the nearest of all.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import grids, methods
from sdekit.analysis.manifolds import Manifold, manifold_error

METHODS = {"DDIM": methods.ddim(), "F-PNDM": methods.f_pndm(), "FON": methods.fon(), "RK4": methods.runge_kutta("rk4")}
THICKNESS = (1e-3, 2e-2)
CLAIMS = {
    "pseudo_end_thin": (0.95, 1.05),
    "fon_end_thin": (2.6, 3.1),
    "rk4_end_thin": (15.0, 30.0),
    "f_pndm_end_thick": (0.25, 0.5),
    "fon_end_thick": (0.65, 0.95),
}


def compute(quick):
    process = sk.catalogue.vp()
    grid = grids.uniform(20, end=float(process.time_of(0.01)))
    shells = []
    for thickness in THICKNESS:
        circle = Manifold("circle", 16, thickness)
        made = [manifold_error(process, circle, n=10 if quick else 100, tolerance=1e-3, method=method, grid=grid) for method in METHODS.values()]
        shells.append([report.shell / report.shell[0] for report in made])
    shells = np.array(shells)
    measured = {
        "pseudo_end_thin": float(shells[0, 1, -1]),
        "fon_end_thin": float(shells[0, 2, -1]),
        "rk4_end_thin": float(shells[0, 3, -1]),
        "ddim_end_thick": float(shells[1, 0, -1]),
        "f_pndm_end_thick": float(shells[1, 1, -1]),
        "fon_end_thick": float(shells[1, 2, -1]),
    }
    settings = {"shape": "circle", "dimension": 16, "thickness": THICKNESS, "end": "sigma = 0.01", "steps": 20}
    return Found({"sigma": made[0].sigma, "shells": shells, "names": np.array(list(METHODS))}, measured, settings, [0])


def draw(axes, data):
    for ax, shells, thickness in zip(axes, data["shells"], THICKNESS, strict=True):
        for name, row in zip(data["names"], shells, strict=True):
            ax.loglog(data["sigma"], row, markersize=4, label=str(name))
        ax.axhline(1.0, color="grey", linestyle=":")
        ax.invert_xaxis()
        ax.set(xlabel=r"noise level $\sigma$", title=f"thickness {thickness:g}", ylim=(0.2, 30.0))
    axes[0].set_ylabel("shell ratio, 1 under the exact flow")
    axes[0].legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.0, 4.0))
main = SCRIPT.main

if __name__ == "__main__":
    main()
