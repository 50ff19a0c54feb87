"""Inpainting by overwriting the known part at each level is not sampling from the conditional law, however many steps.

Two correlated normals (variance 1/4, correlation 0.8), the first known to be 1/2: the other has mean 0.4 and variance 0.09.  The moments of
Euler-Maruyama on PSLD with the known block overwritten by a draw of the kernel at each step are computed exactly.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import grids

COV = 0.25 * np.array([[1.0, 0.8], [0.8, 1.0]])
KNOWN = 0.5
CLAIMS = {"mean": (0.24, 0.26), "variance": (0.12, 0.13), "moved_by_more_steps": (0.0, 0.005), "conditional_mean": (0.395, 0.405)}


def overwritten(process, n):
    """Mean and variance of the unknown x: states (x1, m1, x2, m2), the first pair drawn anew from the kernel before each step."""
    times = grids.uniform(n).times(process)
    kernel, eye = process.kernel(times), np.eye(2)
    mean = np.zeros(4)
    cov = np.kron(eye, kernel.cov[0])
    for i in range(n):
        psi, S = kernel.psi[i], kernel.cov[i]
        mean[:2], cov[:2, :2], cov[:2, 2:], cov[2:, :2] = psi * KNOWN, S, 0.0, 0.0
        matrix, spread = step(process, times[i], times[i] - times[i + 1], np.kron(COV, np.outer(psi, psi)) + np.kron(eye, S))
        mean, cov = matrix @ mean, matrix @ cov @ matrix.T + spread
    return mean[2], cov[2, 2]


def step(process, t, h, marginal):
    """Euler-Maruyama on the reverse SDE with the exact score of the joint law: matrix and covariance of the noise."""
    F, G = (np.kron(np.eye(2), part) for part in (process.drift(t), process.noise(t)))
    return np.eye(4) - h * F - h * G @ G.T @ np.linalg.inv(marginal), h * G @ G.T


def conditional(process, n):
    """The same steps with the score of the conditional law of the unknown x."""
    times = grids.uniform(n).times(process)
    kernel, (m, v) = process.kernel(times), (0.8 * KNOWN, 0.25 * (1.0 - 0.8**2))
    mean, cov = np.zeros(2), kernel.cov[0]
    for i in range(n):
        h, psi = times[i] - times[i + 1], kernel.psi[i]
        G, pull = process.noise(times[i]), np.linalg.inv(kernel.cov[i] + v * np.outer(psi, psi))
        matrix = np.eye(2) - h * process.drift(times[i]) - h * G @ G.T @ pull
        mean, cov = matrix @ mean + h * G @ G.T @ pull @ psi * m, matrix @ cov @ matrix.T + h * G @ G.T
    return mean[0], cov[0, 0]


def compute(quick):
    process, steps = sk.catalogue.psld(), np.array([500, 1000] if quick else [100, 200, 500, 1000, 2000])
    moments = np.array([[overwritten(process, int(n)), conditional(process, int(n))] for n in steps])
    at = steps.tolist().index(1000)
    measured = {
        "mean": moments[at, 0, 0],
        "variance": moments[at, 0, 1],
        "moved_by_more_steps": abs(moments[-1, 0, 0] - moments[at - 1, 0, 0]),
        "conditional_mean": moments[at, 1, 0],
        "conditional_variance": moments[at, 1, 1],
    }
    settings = {"Gamma": 0.01, "exact": [0.4, 0.09], "steps": steps.tolist()}
    return Found({"steps": steps, "moments": moments}, {k: float(v) for k, v in measured.items()}, settings)


def draw(axes, data):
    (ax,) = axes
    for i, name in enumerate(("known part overwritten", "conditional score")):
        ax.semilogx(data["steps"], data["moments"][:, i, 0], label=f"mean, {name}")
    ax.axhline(0.4, color="grey", linestyle=":", label="exact")
    ax.set(xlabel="steps", ylabel="mean of the unknown value", ylim=(0.0, 0.5), title="overwriting does not tend to the conditional law")
    ax.legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
