r"""Hybrid score matching and the weight l_t = 1 / l_22 of the momentum's noise near the data.

The paper keeps CLD's statement that HSM bounds l_t.  With Gamma = 0 it diverges like t^(-1/2), as for DSM (smaller by sqrt(4/3)); what bounded it
in the code is 1e-9 added to the variances.  With Gamma > 0 and a momentum of positive variance the limit is 1 / sqrt(gamma M) = 10.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script

CLAIMS = {
    "slope_cld_hsm": (-0.51, -0.49),
    "dsm_over_hsm_cld": (1.15, 1.16),
    "cld_hsm_at_1e-5": (193.7, 193.8),
    "cld_hsm_at_1e-5_with_eps": (11.1, 11.2),
    "psld_hsm_at_1e-7": (9.9, 10.01),
}
CASES = {"CLD, DSM": (0.0, 0.0), "CLD, HSM": (0.0, 0.04), "PSLD, DSM": (0.01, 0.0), "PSLD, HSM": (0.01, 0.04)}


def process(gamma, start):
    recipe = sk.catalogue.recipe("psld")
    return recipe.process(Gamma=gamma, initial={"m": start * 0.25})


def weight(kernel, eps=0.0):
    """1 / l_22 = sqrt(S_xx / det S); ``eps`` is added to both variances, as in the released code."""
    S = kernel.cov
    det = kernel.det + eps * (S[..., 0, 0] + S[..., 1, 1]) + eps**2
    return np.sqrt((S[..., 0, 0] + eps) / det)


def compute(quick):
    t = np.geomspace(1e-7, 1.0, 29 if quick else 141)
    made = {name: weight(process(*case).kernel(t)) for name, case in CASES.items()}
    made["CLD, HSM, 1e-9 added"] = weight(process(0.0, 0.04).kernel(t), 1e-9)
    at = process(0.0, 0.04).kernel(1e-5)
    slope = np.log(made["CLD, HSM"][1] / made["CLD, HSM"][0]) / np.log(t[1] / t[0])
    measured = {
        "slope_cld_hsm": float(slope),
        "dsm_over_hsm_cld": float(made["CLD, DSM"][0] / made["CLD, HSM"][0]),
        "cld_hsm_at_1e-5": float(weight(at)),
        "cld_hsm_at_1e-5_with_eps": float(weight(at, 1e-9)),
        "psld_hsm_at_1e-7": float(made["PSLD, HSM"][0]),
    }
    arrays = {"t": t, "names": np.array(list(made)), "weights": np.array(list(made.values()))}
    return Found(arrays, measured, {"M": 0.25, "gamma": 0.04, "Gamma": 0.01, "added": 1e-9})


def draw(axes, data):
    (ax,) = axes
    for name, row, line in zip(data["names"], data["weights"], ("--", "-", "--", "-", ":"), strict=True):
        ax.loglog(data["t"], row, line, marker="", color="#D55E00" if "CLD" in str(name) else "#0072B2", label=str(name))
    ax.set(xlabel="t", ylabel=r"$\ell_t = 1/l_{22}$", title=r"HSM bounds $\ell_t$ only where $\Gamma > 0$")
    ax.legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
