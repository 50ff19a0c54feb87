r"""Gamma against the errors of a learned score: how much of them reaches the samples, for detail of three sizes.

Linearised about N(0, v), the reverse equation carries an error e(t) of the predicted noise to t = 1e-3 as the integral of
Psi(1e-3, t) 2 D L_t^{-T} e(t).  For errors white in log t the root mean square in x has an interior least value at the paper's Gamma = 0.005 where
the detail has standard deviation 0.01; finer detail wants less, coarser more, and the probability-flow ODE wants none.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script

GAMMAS = np.array([0.0, 5e-4, 1e-3, 3e-3, 5e-3, 7e-3, 1e-2, 2e-2, 4e-2, 8e-2, 0.25])
DETAILS = np.array([1e-3, 1e-2, 1e-1])
CLAIMS = {
    "best_gamma_sde_detail_0.001": (0.0, 0.0),
    "best_gamma_sde_detail_0.01": (0.003, 0.007),
    "best_gamma_sde_detail_0.1": (0.08, 0.25),
    "best_gamma_ode_detail_0.01": (0.0, 0.0),
    "gain_sde_gamma_0": (0.0197, 0.0200),
    "gain_sde_gamma_0.005": (0.0157, 0.0159),
    "gain_sde_gamma_0.01": (0.0162, 0.0164),
    "gain_sde_gamma_0.25": (0.047, 0.048),
}


def gains(gamma, noise, panels):
    """Root mean square in x at t = 1e-3 of an error white in log t, for each detail."""
    process = sk.catalogue.psld(Gamma=gamma)
    t = np.geomspace(1e-3, 1.0, panels + 1)
    steps = np.asarray(sk.Reverse(process, noise).propagate(t[:-1], t[1:], DETAILS**2).gain)  # (details, panels, 2, 2)
    G, chol = np.stack([process.noise(at) for at in t]), process.kernel(t).chol
    pull = 0.5 * (1.0 + noise**2) * G @ np.swapaxes(G, 1, 2) @ np.swapaxes(np.linalg.inv(chol), 1, 2)
    rows = np.zeros((panels + 1, len(DETAILS), 2))
    rows[0, :, 0] = 1.0
    for i in range(panels):
        rows[i + 1] = np.einsum("dj,djk->dk", rows[i], steps[:, i])
    density = np.sum(np.einsum("idj,ijk->idk", rows, pull) ** 2, axis=-1) * t[:, None] ** 2
    return np.sqrt(np.trapezoid(density, np.log(t), axis=0))


def compute(quick):
    panels = 200 if quick else 400
    made = np.array([[gains(gamma, noise, panels) for gamma in GAMMAS] for noise in (1.0, 0.0)])
    best = GAMMAS[np.argmin(made, axis=1)]
    measured = {
        f"best_gamma_{kind}_detail_{detail:g}": float(best[i, j]) for i, kind in enumerate(("sde", "ode")) for j, detail in enumerate(DETAILS)
    }
    measured |= {f"gain_sde_gamma_{gamma:g}": float(made[0, list(GAMMAS).index(gamma), 1]) for gamma in (0.0, 0.005, 0.01, 0.25)}
    return Found({"gammas": GAMMAS, "details": DETAILS, "gains": made}, measured, {"panels": panels, "t_eps": 1e-3})


def draw(axes, data):
    for ax, made, kind in zip(axes, data["gains"], ("reverse SDE", "probability-flow ODE"), strict=True):
        for j, detail in enumerate(data["details"]):
            relative = made[:, j] / made[0, j]
            line = ax.plot(data["gammas"], relative, markersize=4, label=f"detail of size {detail:g}")[0]
            best = int(np.argmin(relative))
            ax.plot(data["gammas"][best], relative[best], "o", color=line.get_color(), markersize=11, markerfacecolor="none")
        ax.set(yscale="log", xlabel=r"$\Gamma$", title=kind)
        ax.set_xscale("symlog", linthresh=5e-4)
        ax.set_xlim(-0.1 * 5e-4, 0.4)
        ax.legend(fontsize="small")
    axes[0].set_ylabel(r"error in $x$, in units of that at $\Gamma = 0$")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.0, 4.0))
main = SCRIPT.main

if __name__ == "__main__":
    main()
