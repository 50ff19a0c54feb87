"""The order of SSCS: 1 in its published form, 2 with a second-order splitting step centred in time.

Whitened error of the exact covariance at t = 0.05 on N(0, 1/4) and PSLD, uniform steps.  A symmetric composition has order 2 only if each of its
parts has.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script, slope
from sdekit import analysis, grids, methods
from sdekit.law import Gaussian

METHODS = {
    "Euler-Maruyama": methods.euler_maruyama(),
    "SSCS, published": methods.sscs(),
    "SSCS, order 2": methods.sscs(order=2),
    "SSCS, order 2, one call": methods.sscs(order=2, multistep=True),
}
CLAIMS = {
    "slope_euler_maruyama": (0.9, 1.1),
    "slope_sscs": (0.9, 1.1),
    "slope_sscs_order_2": (1.9, 2.1),
    "slope_sscs_order_2_one_call": (1.85, 2.15),
    "em_over_sscs_400": (4.6, 4.7),
    "sscs_order_2_400": (3.54e-4, 3.56e-4),
}
LAW = Gaussian(0.0, 0.25)


def whitened(process, method, n, end=0.05):
    kernel = process.kernel(end)
    L = np.linalg.cholesky(kernel.cov + 0.25 * np.outer(kernel.psi, kernel.psi))
    C = analysis.exact_law(process, method=method, grid=grids.uniform(n, end=end), data=LAW, start=LAW).state_cov
    return np.linalg.norm(np.linalg.solve(L, np.linalg.solve(L, C).T) - np.eye(2))


def compute(quick):
    process, steps = sk.catalogue.psld(), np.array([200, 400] if quick else [50, 100, 200, 400, 800, 1600])
    errors = np.array([[whitened(process, method, int(n)) for n in steps] for method in METHODS.values()])
    at = steps.tolist().index(400)
    names = ("euler_maruyama", "sscs", "sscs_order_2", "sscs_order_2_one_call")
    measured = {f"slope_{name}": slope(row, steps) for name, row in zip(names, errors, strict=True)}
    measured |= {"em_over_sscs_400": float(errors[0, at] / errors[1, at]), "sscs_order_2_400": float(errors[2, at])}
    return Found({"steps": steps, "errors": errors, "names": np.array(list(METHODS))}, measured, {"Gamma": 0.01, "end": 0.05})


def draw(axes, data):
    (ax,) = axes
    for name, row in zip(data["names"], data["errors"], strict=True):
        ax.loglog(data["steps"], row, label=f"{name}: slope {slope(row, data['steps']):.2f}")
    ax.set(xlabel="steps", ylabel="whitened error of the covariance", title="SSCS as published has weak order 1")
    ax.legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
