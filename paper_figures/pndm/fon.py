"""FON, the classical fourth-order baseline: order 4 as intended, none as released, and what each is worth where there is nothing to leave.

Error of the map on VP with normal data of four variances: the released form takes its derivative over one training index and stops converging.
With full-support data and exact scores the intended FON is as good as F-PNDM: PNDM's advantage lives in the directions normal to the data.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script, slope
from sdekit import analysis, methods

METHODS = {
    "DDIM": methods.ddim(),
    "F-PNDM": methods.f_pndm(),
    "FON, intended": methods.fon(),
    "FON, released": methods.fon(released=True),
    "PNDM, exact weights": methods.pndm(),
}
CLAIMS = {"order_fon": (3.7, 4.3), "order_fon_released": (-0.3, 0.5), "f_pndm_over_fon_160": (1.0, np.inf)}


def compute(quick):
    process, steps = sk.catalogue.vp(), (80, 160, 320) if quick else (10, 20, 40, 80, 160, 320)
    errors = np.array([analysis.order(method, process, steps=steps).errors for method in METHODS.values()])
    at = steps.index(160)
    measured = {
        "order_fon": slope(errors[2], np.array(steps)),
        "order_fon_released": slope(errors[3], np.array(steps)),
        "f_pndm_over_fon_160": float(errors[1, at] / errors[2, at]),
    }
    return Found({"steps": np.array(steps), "errors": errors, "names": np.array(list(METHODS))}, measured, {"levels": [5.0, 0.1]})


def draw(axes, data):
    (ax,) = axes
    for name, row in zip(data["names"], data["errors"], strict=True):
        ax.loglog(data["steps"], row, label=str(name))
    ax.set(xlabel="steps", ylabel="error of the map", title="the released FON does not converge, the intended one has order 4")
    ax.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
