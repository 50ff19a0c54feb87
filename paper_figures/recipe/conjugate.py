"""Conjugate integrators (lambda-DDIM-I and -II): error against lambda, exact law on N(0, 1/4), PSLD, quadratic steps.

lambda > 0 helps and the best lambda falls with the steps.  Form II is ahead at few of them for a given lambda, not at the best of each form.  With
lambda = 0 and one block both are DDIM.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import analysis, grids, methods
from sdekit.law import Gaussian

STEPS = (20, 50, 100)
CLAIMS = {
    "best_I_20": (1.5, 2.5),
    "best_I_50": (0.4, 0.9),
    "best_I_100": (0.2, 0.45),
    "best_II_20": (0.75, 1.5),
    "best_II_50": (0.4, 0.65),
    "best_II_100": (0.2, 0.35),
    "gain_of_I_20": (2.0, 20.0),
    "I_over_II_20_at_their_best": (0.85, 1.2),
    "I_over_II_20_at_half": (2.1, 2.2),
    "ddim_error": (0.0, 1e-13),
}
LAW = Gaussian(0.0, 0.25)


def whitened(process, lam, form, n):
    kernel = process.kernel(1e-3)
    L = np.linalg.cholesky(kernel.cov + 0.25 * np.outer(kernel.psi, kernel.psi))
    C = analysis.exact_law(process, method=methods.conjugate(lam, form), grid=grids.quadratic(n), data=LAW, start=LAW).state_cov
    return np.linalg.norm(np.linalg.solve(L, np.linalg.solve(L, C).T) - np.eye(2))


def compute(quick):
    lams = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 4.0] if quick else [0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0])
    process = sk.catalogue.psld()
    errors = np.array([[[whitened(process, float(lam), form, n) for lam in lams] for n in STEPS] for form in ("I", "II")])
    measured = {f"best_{form}_{n}": float(lams[np.argmin(errors[i, j])]) for i, form in enumerate(("I", "II")) for j, n in enumerate(STEPS)}
    measured["gain_of_I_20"] = float(errors[0, 0, 0] / np.min(errors[0, 0]))
    measured["I_over_II_20_at_their_best"] = float(np.min(errors[0, 0]) / np.min(errors[1, 0]))
    half = lams.tolist().index(0.5)
    measured["I_over_II_20_at_half"] = float(errors[0, 0, half] / errors[1, 0, half])
    x, one, grid = np.linspace(-2.0, 2.0, 5), sk.catalogue.vp(), grids.quadratic(20)
    ends = [sk.sample(one, LAW.denoiser(), method=m, grid=grid, start=(x[None], 1.0)).x for m in (methods.conjugate(0.0), methods.ddim())]
    measured["ddim_error"] = float(np.max(np.abs(ends[0] - ends[1])))
    return Found({"lams": lams, "steps": np.array(STEPS), "errors": errors}, measured, {"Gamma": 0.01, "start": "the exact marginal"})


def draw(axes, data):
    (ax,) = axes
    for j, (n, colour) in enumerate(zip(data["steps"], ("#0072B2", "#D55E00", "#009E73"), strict=True)):
        for i, (form, line) in enumerate((("I", "o--"), ("II", "s-"))):
            ax.semilogy(data["lams"], data["errors"][i, j], line, color=colour, markersize=4, label=f"{n} steps, form {form}")
    title = r"$\lambda$-DDIM: the best $\lambda$ falls with the number of steps"
    ax.set(xlabel=r"$\lambda$", ylabel="whitened error of the covariance", ylim=(0.05, 20.0), title=title)
    ax.legend(fontsize="small", ncols=2)


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
