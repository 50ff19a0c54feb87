"""Staying on the manifold, exactly: growth of a direction normal to the data, numerical over exact, on VP with uniform steps in time.

Pseudo methods are exact there, to rounding, on every grid; classical methods in (x, t) are not, and those of high order are unstable near the end.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import grids, methods, plans
from sdekit.solve import program, solve

METHODS = {
    "Euler": methods.euler(),
    "Heun": methods.heun(),
    "RK4": methods.runge_kutta("rk4"),
    "FON": methods.fon(),
    "DDIM": methods.ddim(),
    "S-PNDM": methods.s_pndm(),
    "F-PNDM": methods.f_pndm(),
    "PNDM, exact weights": methods.pndm(clock="time"),
}
CLAIMS = {
    "euler_20": (2.187, 2.188),
    "rk4_20": (-4.06, -4.04),
    "heun_20": (-16.3, -16.1),
    "fon_20": (1.636, 1.637),
    "fon_100": (1.299, 1.301),
    "pseudo_error": (0.0, 1e-11),
}


def factor(process, method, n):
    """On data at 0 the denoiser is 0: one number goes through."""
    made = program(process, plans.run(grids.uniform(n), method))
    kernel = process.kernel(made.times[[0, -1]])
    exact = float(kernel.chol[1, 0, 0] / kernel.chol[0, 0, 0])
    return float(solve(made, [np.ones((1, 1))], lambda y, _: 0.0 * y)[0][0][0, 0]) / exact


def compute(quick):
    process, steps = sk.catalogue.vp(), np.array([20, 100] if quick else [10, 14, 20, 30, 50, 70, 100, 150, 200])
    made = np.array([[factor(process, method, int(n)) for n in steps] for method in METHODS.values()])
    measured = {f"{name.lower()}_{n}": made[i, k] for i, name in enumerate(("Euler", "Heun", "RK4", "FON")) for k, n in enumerate(steps.tolist())}
    measured["pseudo_error"] = np.max(np.abs(made[4:] - 1.0))
    settings = {"times": "uniform, 1 to 1e-3", "process": "VP, beta 0.1 to 20"}
    return Found({"steps": steps, "factors": made, "names": np.array(list(METHODS))}, {k: float(v) for k, v in measured.items()}, settings)


def draw(axes, data):
    (ax,) = axes
    for name, row in zip(data["names"], data["factors"], strict=True):
        pseudo = "DDIM" in str(name) or "PNDM" in str(name)
        ax.plot(data["steps"], row, "k-" if pseudo else "-", marker="" if pseudo else "o", markersize=4, label=str(name))
    ax.set(xscale="log", xlabel="steps", ylabel="numerical over exact growth", title="normal to the data: pseudo methods are exact (black)")
    ax.set_yscale("symlog", linthresh=2.0)
    ax.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
