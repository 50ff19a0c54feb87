"""Measured orders of the PNDM family, as released and with exact weights, on VP with exact scores of four normal laws at once.

All published forms have order 2 though they use four gradients: the weights are those of a grid uniform in sigma.  The midpoint in sigma, or exact
weights with a start as accurate, give order 4 at the same cost.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import analysis, grids, methods, plans
from sdekit.solve import program

METHODS = {
    "DDIM": (methods.ddim(), 1),
    "S-PNDM": (methods.s_pndm(), 2),
    "F-PNDM": (methods.f_pndm(), 2),
    "PLMS": (methods.plms(), 2),
    "iPNDM": (methods.ipndm(), 2),
    "PRK, midpoint in time": (methods.prk("time"), 2),
    "PRK, midpoint in sigma": (methods.prk("sigma"), 4),
    "PNDM, exact weights": (methods.pndm(), 4),
}
CLAIMS = {f"order: {name}": (order - 0.2, order + 0.25) for name, (_, order) in METHODS.items()} | {"calls beyond the steps, exact weights": (2, 2)}


def compute(quick):
    process, steps = sk.catalogue.vp(), (40, 80, 160) if quick else (10, 20, 40, 80, 160, 320)
    reports = {name: analysis.order(method, process, steps=steps) for name, (method, _) in METHODS.items()}
    errors = np.array([report.errors for report in reports.values()])
    measured = {f"order: {name}": report.order for name, report in reports.items()}
    measured["calls beyond the steps, exact weights"] = float(program(process, plans.run(grids.uniform(40), methods.pndm())).nfe - 40)
    window = next(iter(reports.values())).window
    return Found(
        {"steps": np.array(steps), "errors": errors, "names": np.array(list(METHODS))}, measured, {"levels": list(window), "grid": "log level"}
    )


def draw(axes, data):
    (ax,) = axes
    for name, row in zip(data["names"], data["errors"], strict=True):
        slope = np.log(row[-2] / row[-1]) / np.log(data["steps"][-1] / data["steps"][-2])
        ax.loglog(data["steps"], row, markersize=4, label=f"{name}: {slope:.2f}")
    ax.set(xlabel="steps", ylabel="error of the map", title="published weights have order 2, exact ones order 4")
    ax.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, size=(6.4, 4.8))
main = SCRIPT.main

if __name__ == "__main__":
    main()
