r"""Critical damping, (Gamma - nu)^2 = 4 / M: the spectral gap is largest there, F - a I is nilpotent, and noise in x widens the gap.

At fixed Gamma and M the gap, per unit of the clock, is greatest at nu = Gamma + 2 / sqrt(M) and is then (Gamma + 1 / sqrt(M)) / 2.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script

GAMMAS = (0.0, 0.25, 1.0)
MASS = 0.25
CLAIMS = {
    "best_nu_minus_critical": (-0.011, 0.011),
    "gap_error": (0.0, 1e-12),
    "nilpotent": (0.0, 1e-14),
    "off_critical_nilpotent": (0.1, np.inf),
    "gain_of_gamma_1": (1.49, 1.51),
}


def gap(F):
    """-max Re of the eigenvalues of a 2 x 2 matrix, from trace and determinant."""
    half = 0.5 * np.trace(F)
    return -float(np.real(half + np.emath.sqrt(half**2 - np.linalg.det(F))))


def drift(gamma, nu):
    return sk.catalogue.psld(Gamma=gamma, nu=nu, M=MASS).F


def compute(quick):
    away = np.arange(-1.5, 4.0, 0.5 if quick else 0.05) + 0.0
    gaps = np.array([[gap(drift(gamma, gamma + 4.0 + d)) for d in away] for gamma in GAMMAS])
    critical = [drift(gamma, gamma + 4.0) for gamma in GAMMAS]
    centred = [F - 0.5 * np.trace(F) * np.eye(2) for F in critical]
    off = drift(0.25, 5.0)
    off = off - 0.5 * np.trace(off) * np.eye(2)
    best = [away[np.argmax(row)] for row in gaps]
    measured = {
        "best_nu_minus_critical": float(best[int(np.argmax(np.abs(best)))]),
        "gap_error": max(abs(-0.5 * np.trace(F) - 0.5 * (gamma + 2.0)) for gamma, F in zip(GAMMAS, critical, strict=True)),
        "nilpotent": max(float(np.max(np.abs(N @ N))) for N in centred),
        "off_critical_nilpotent": float(np.max(np.abs(off @ off))),
        "gain_of_gamma_1": float(np.trace(critical[2]) / np.trace(critical[0])),
    }
    return Found({"away": away, "gaps": gaps, "gammas": np.array(GAMMAS)}, measured, {"M": MASS})


def draw(axes, data):
    (ax,) = axes
    for gamma, row in zip(data["gammas"], data["gaps"], strict=True):
        ax.plot(data["away"], row, marker="", label=rf"$\Gamma$ = {gamma:g}")
    ax.axvline(0.0, color="grey", linewidth=0.8)
    ax.annotate("critical", (0.05, float(np.min(data["gaps"]))), color="grey")
    ax.set(xlabel=r"$\nu - (\Gamma + 2/\sqrt{M})$", ylabel="spectral gap, unit clock", title="critical damping has the largest gap")
    ax.legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
