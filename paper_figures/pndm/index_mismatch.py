"""The released code asks the network at label i about a state with the noise of label i + 1: what that costs.

Normal data N(0.3, 1/4), exact scores, linear schedule.  From 20 steps on the mismatch is the larger part of the released F-PNDM's error.
"""

import numpy as np

from paper_figures.common import Found, Script
from paper_figures.pndm.headline import path_error
from sdekit import compatibility, tables
from sdekit.law import Gaussian

LAW = Gaussian([0.3], 0.25)
CLAIMS = {
    "released_50": (4.0e-3, 5.0e-3),
    "aligned_50": (2.5e-4, 4e-4),
    "released_over_aligned_50": (10.0, 20.0),
    "released_over_aligned_20": (2.5, 5.0),
}


def compute(quick):
    table = tables.linear()
    steps = [20, 50] if quick else [10, 20, 50, 100, 250]
    plans = (compatibility.pndm_repository, compatibility.diffusers_pndm)
    made = np.array([[path_error(table, plan(table, n), LAW)[0] for n in steps] for plan in plans])
    measured = {f"{name}_{n}": float(made[i, k]) for i, name in enumerate(("released", "aligned")) for k, n in enumerate(steps)}
    measured |= {f"released_over_aligned_{n}": float(made[0, k] / made[1, k]) for k, n in enumerate(steps)}
    return Found({"steps": np.array(steps), "errors": made}, measured, {"data": "N(0.3, 0.25)", "schedule": "linear, T = 1000"})


def draw(axes, data):
    (ax,) = axes
    for row, name in zip(data["errors"], ("as released: label i, noise of i + 1", "aligned"), strict=True):
        ax.loglog(data["steps"], row, label=name)
    ax.set(xlabel="steps", ylabel="largest error of a path", title="F-PNDM: labels that do not fit the noise")
    ax.legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
