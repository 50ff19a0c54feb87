"""Known processes as recipes (H, D, Q), each with the verdicts of its certificate; false and degenerate ones beside them.

Stationary is not ergodic: D = 0, and friction without circulation, keep exp(-H) and never reach it.  Sub-VP has no fixed H.
"""

import numpy as np
import sympy as sp
from scipy.integrate import solve_ivp

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import BadInput, Refuted
from sdekit.recipe import Recipe

SHOWN = ("vp", "ve", "edm", "subvp", "flow", "cld", "psld", "third_order", "sghmc", "sgnht", "riemannian")
COLUMNS = ("stationary", "normalisable", "linear", "ergodic", "kernel")
LEVEL = {"PROVED": 4, "SAMPLED": 3, "ASSUMED": 2, "UNDECIDED": 1, "REFUTED": 0, "none": -1}
CLAIMS = {
    "stationary_proved_of_nine": (9, 9),
    "subvp_and_flow_have_a_fixed_law": (0, 0),
    "kernel_error": (0.0, 1e-12),
    "no_noise_stationary": (4, 4),
    "no_noise_ergodic": (0, 0),
    "frozen_data_ergodic": (0, 0),
    "wrong_mass_stationary": (0, 0),
    "without_div_stationary": (0, 0),
}


def extra():
    x, m = sp.symbols("x m", real=True)
    H, rotate = (x**2 + m**2) / 2, sp.Matrix([[0, -1], [1, 0]])
    drift = [2 * m - sp.Rational(1, 200) * x, -x / 2 - sp.Rational(401, 200) * m]
    noise = sp.diag(sp.Rational(1, 200), sp.Rational(401, 200))
    return {
        "no noise": Recipe((x, m), H, sp.zeros(2), rotate),
        "frozen data": Recipe((x, m), H, sp.diag(0, 1), sp.zeros(2)),
        "wrong mass": Recipe.from_drift(state=(x, m), drift=drift, D=noise, H=x**2 / 2 + 2 * m**2),
        "without div D": Recipe.from_drift(state=(x,), drift=[-(1 + x**2) * x], D=sp.Matrix([[1 + x**2]]), H=x**2 / 2),
    }


def kernel_error(process):
    """Largest error of mean and covariance against the moment equations by DOP853, relative to the largest entry of each."""
    k, end = process.k, 0.7 * process.T

    def slope(t, flat):
        psi, S = flat[:k], flat[k:].reshape(k, k)
        F, G = process.drift(t), process.noise(t)
        return np.concatenate([F @ psi, (F @ S + S @ F.T + G @ G.T).ravel()])

    begin = np.concatenate([np.eye(k)[0], np.asarray(process.S0).ravel()])
    made = solve_ivp(slope, (0.0, end), begin, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    kernel = process.kernel(end)
    pairs = ((made[:k], kernel.psi), (made[k:].reshape(k, k), kernel.cov))
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(a))) for a, b in pairs)


def verdicts(recipe):
    if not isinstance(recipe, Recipe):
        return [LEVEL["none"]] * len(COLUMNS)
    claims = dict(sk.certify(recipe).claims())
    return [LEVEL[str(claims[name].verdict)] for name in COLUMNS]


def compute(quick):
    rows = {name: verdicts(sk.catalogue.recipe(name)) for name in SHOWN} | {name: verdicts(recipe) for name, recipe in extra().items()}
    errors = []
    for name in SHOWN[:4] if quick else SHOWN:
        try:
            errors.append(kernel_error(getattr(sk.catalogue, name)()))
        except (BadInput, Refuted):  # not linear: no kernel
            continue
    at = COLUMNS.index
    measured = {
        "stationary_proved_of_nine": sum(rows[name][at("stationary")] == 4 for name in SHOWN if rows[name][0] >= 0),
        "subvp_and_flow_have_a_fixed_law": sum(rows[name][0] >= 0 for name in ("subvp", "flow")),
        "kernel_error": max(errors),
        "no_noise_stationary": rows["no noise"][at("stationary")],
        "no_noise_ergodic": rows["no noise"][at("ergodic")],
        "frozen_data_ergodic": rows["frozen data"][at("ergodic")],
        "wrong_mass_stationary": rows["wrong mass"][at("stationary")],
        "without_div_stationary": rows["without div D"][at("stationary")],
    }
    return Found({"names": np.array(list(rows)), "verdicts": np.array(list(rows.values()))}, measured, {"levels": LEVEL})


def draw(axes, data):
    (ax,) = axes
    ax.grid(visible=False)
    colours = {-1: "#FFFFFF", 0: "#D55E00", 1: "#CCCCCC", 2: "#CCCCCC", 3: "#56B4E9", 4: "#0072B2"}
    words = {value: key.lower() for key, value in LEVEL.items()} | {-1: "no fixed H"}
    for i, row in enumerate(data["verdicts"]):
        for j, value in enumerate(row.tolist()):
            ax.barh(i, 0.96, left=j + 0.02, height=0.9, color=colours[value], edgecolor="#888888", linewidth=0.4)
            ax.text(j + 0.5, i, words[value], ha="center", va="center", fontsize=8, color="white" if value in (0, 4) else "black")
    ax.set_yticks(range(len(data["names"])), [str(name) for name in data["names"]])
    ax.set_xticks(np.arange(len(COLUMNS)) + 0.5, COLUMNS)
    ax.set(xlim=(0, len(COLUMNS)), title="what a certificate says of each recipe")
    ax.invert_yaxis()


SCRIPT = Script(__file__, compute, draw, CLAIMS, size=(7.2, 5.4))
main = SCRIPT.main

if __name__ == "__main__":
    main()
