"""The theorems beside the truth: where they say anything, they order the samplers as the paper says; on data they are vacuous by many orders.

Left, N(0, 1/4) on [0.06, 0.3], a start off by one half, legs of Heun: exact W2 after K cycles, the bound by the one-sided Lipschitz constant, and
the published bound, which grows with K where the truth saturates.  Right, the probability that coupled paths meet, of a diameter: the paper's
lambda for Restart, lambda exp(-U) for the SDE, and the exact probability of a passage that is in its place.
"""

import numpy as np

from paper_figures.common import Found, Script
from paper_figures.fields import PROCESS
from sdekit import methods
from sdekit.analysis import bounds, contraction
from sdekit.law import Gaussian

LOW, HIGH, MOST = 0.0599473, 0.30, 15
DATA, START = Gaussian([0.0], 0.25), Gaussian([0.5], 0.25)
CLAIMS = {
    "lambda": (2.10e-15, 2.12e-15),
    "L0": (3.6316, 3.6318),
    "L1": (2.0579, 2.0581),
    "L2": (0.88234, 0.88236),
    "U": (266.1, 266.3),
    "kappa": (0.86362, 0.86364),
    "published_over_diameter_at_10": (1.0, np.inf),
    "kappa_bound_over_exact_at_10": (1.0, 1.6),
    "exact_at_10_over_start": (0.2, 0.3),
}


def compute(quick):  # noqa: ARG001
    made = contraction.cycle(PROCESS, methods.heun(), (3, LOW, HIGH), DATA)
    K = np.arange(MOST + 1)
    law = contraction.marginal(PROCESS, LOW, START.mean.ravel(), START.variances)
    exact = np.array([made.after(law, int(n)).rows(1).distance(made.target.rows(1)) for n in K])
    each = made.after(made.target, 1).rows(1).distance(made.target.rows(1))
    flow = np.array([bounds.one_sided(DATA, (LOW, HIGH), int(n), start=exact[0], each=each).total for n in K])
    paper = [bounds.restart(DATA, (LOW, HIGH), 2, int(n), start=START) for n in K]
    first, sde = paper[0], bounds.sde(DATA, (LOW, HIGH), 2, start=START)
    B = np.linspace(0.05, 4.665, 60)
    drift = sde["L1"] / LOW
    lam = np.array([bounds.overlap(b, LOW, HIGH) for b in B])
    met = np.array([bounds.passage(b, drift, LOW, HIGH) for b in B])
    loose = np.array([bounds.overlap(b, LOW, HIGH) * np.exp(-b * drift - (drift * HIGH) ** 2) for b in B])
    measured = {"lambda": paper[1]["lambda"], "L0": first["L0"], "L1": first["L1"], "L2": first["L2"], "U": sde["U"]}
    measured |= {
        "kappa": bounds.one_sided(DATA, (LOW, HIGH), 1, start=1.0).kappa,
        "published_over_diameter_at_10": paper[10].published.total / first["B"],
        "kappa_bound_over_exact_at_10": float(flow[10] / exact[10]),
        "exact_at_10_over_start": float(exact[10] / exact[0]),
    }
    arrays = {"K": K, "exact": exact, "flow": flow, "B": B, "lambda": lam, "met": met, "loose": loose, "diameter": np.array(first["B"])}
    arrays |= {"published": np.array([b.published.total for b in paper]), "corrected": np.array([b.corrected.total for b in paper])}
    return Found(arrays, measured, {"interval": [LOW, HIGH], "legs": 2})


def draw(axes, data):
    left, right = axes
    for name, label in (("exact", "exact W2"), ("flow", r"bound by $\kappa$"), ("published", "published"), ("corrected", "corrected")):
        left.semilogy(data["K"], data[name], markersize=3, label=label)
    left.axhline(float(data["diameter"]), color="grey", linewidth=0.8, label="diameter: above, nothing is said")
    left.set(xlabel="cycles K", ylabel=r"distance at $t_{min}$", title="N(0, 1/4), [0.06, 0.3]")
    with np.errstate(divide="ignore"):
        for name, label in (("lambda", r"$\lambda$ (Restart)"), ("met", "passage, exact (SDE)"), ("loose", r"$\lambda e^{-U}$ (SDE)")):
            right.plot(data["B"], np.log10(data[name]), marker="", label=label)
    right.set(xlabel="diameter B", ylabel=r"$\log_{10}$ probability to meet", title="the SDE's drift fights the coupling", ylim=(-120, 2))
    for ax in axes:
        ax.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
