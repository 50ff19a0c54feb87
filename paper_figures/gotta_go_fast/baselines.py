"""The baselines of "Gotta Go Fast" with their published settings, on normal images: calls and exact W2 of each.

Uniform times from 1 to the end, N = 1000 points, one call more that denoises (not part of W2 here, which is taken at the last time).  The Langevin
corrector's length is its value in the limit of many elements; RK45 is scipy's, on the whole batch as one state (as published) and on each sample.
"""

from functools import cache
from itertools import pairwise

import numpy as np
from scipy.integrate import solve_ivp

from paper_figures.common import Found, Script
from paper_figures.replica import ve, vp
from sdekit import methods
from sdekit.methods import Method

N = 1000
SNR = {"vp": 0.01, "ve": 0.16}  # the fork's best on VP; Song et al. took 0.16 for both


def _ancestral(step, preserving):
    law = step.leg.reverse.process.transition(step.s, step.t)
    score, fresh = step.ask(step.z, step.here).score, law.chol @ step.noise(1)
    if preserving:
        return step.rows((step.z + law.cov @ score) / law.mean[0, 0] + fresh)
    return step.rows(step.z + law.cov @ score + step.there.chol / step.here.chol[0, 0] @ fresh)


def ancestral(preserving):
    """DDPM's step with the larger of its two variances on VP; SMLD's on VE."""
    return Method("ancestral", _ancestral, (("preserving", preserving),), noise=1.0)


FIXED = {
    "Euler-Maruyama": lambda _: methods.euler_maruyama(),
    "reverse diffusion": lambda _: methods.reverse_diffusion(),
    "ancestral": lambda name: ancestral(name == "vp"),
    "DDIM": lambda _: methods.ddim(),
}
TWO_CALLS = {"stochastic Heun": methods.heun(noise=1.0), "SRA1": methods.sra(1), "ODE, Heun": methods.heun()}


def corrected(replica, times, snr, steps=1):
    """W2 of reverse diffusion with Langevin steps before each of its steps: the variances of the modes, the corrector's length by their mean."""
    variances, count = replica._groups
    kernel = replica.process.kernel(times)
    scale, level = kernel.psi[:, 0] ** 2, kernel.cov[:, 0, 0]
    v = np.full_like(variances, level[0])
    for i, (t, s) in enumerate(pairwise(times)):
        true = scale[i] * variances + level[i]
        alpha = replica.process.transition(s, t).mean[0, 0] ** 2
        for _ in range(steps):
            length = 2.0 * alpha * snr**2 / np.average(v / true**2, weights=count)
            v = (1.0 - length / true) ** 2 * v + 2.0 * length
        law = replica.process.transition(s, t)
        mean, added = law.mean[0, 0], law.cov[0, 0]
        v = (2.0 - mean - added / true) ** 2 * v + added
    true = scale[-1] * variances + level[-1]
    return float(np.sqrt(np.average((np.sqrt(v) - np.sqrt(true)) ** 2, weights=count)))


def rk45(replica, samples, together, tolerance=1e-5):
    """Calls of scipy's RK45 on the probability flow, for the batch as one state or for each sample; and the accepted times of the last."""
    process = replica.process
    rng = np.random.default_rng(0)
    start = replica.mean + float(process.kernel(process.T).chol[0, 0]) * rng.standard_normal((samples, *replica.shape))

    @cache
    def at(t):
        kernel, G = process.kernel(t), process.noise(t)
        return float(process.drift(t)[0, 0]), float(G[0, 0] ** 2), kernel.psi[0], float(kernel.cov[0, 0]), float(kernel.sigma_eff)

    def slope(t, flat):
        f, square, psi, cov, sigma = at(t)
        x = flat.reshape(-1, *replica.shape)
        return (f * x + 0.5 * square * (x - psi * replica(x / psi, sigma)) / cov).ravel()

    calls, times = [], None
    for part in [start] if together else start:
        found = solve_ivp(slope, (process.T, replica.t_end), part.ravel(), method="RK45", rtol=tolerance, atol=tolerance)
        calls.append(found.nfev)
        times = found.t
    return np.array(calls), times


CLAIMS = {
    "vp_Euler-Maruyama_w2": (2.65e-3, 2.81e-3),
    "ve_Euler-Maruyama_w2": (2.1e-4, 2.3e-4),
    "vp_SRA1_w2": (2.6e-4, 2.9e-4),
    "vp_reverse diffusion + Langevin_calls": (1999, 1999),
    "ve_reverse diffusion + Langevin_w2": (3.5e-4, 5e-4),
    "vp_RK45, each sample_calls": (120, 160),
    "ve_RK45, each sample_calls": (110, 190),
}


def compute(quick):
    samples = 4 if quick else 16
    arrays, measured = {}, {}
    for name, replica in (("vp", vp()), ("ve", ve())):
        times = replica.uniform(N - 1)
        rows = {label: (N, replica.w2(times, make(name))) for label, make in FIXED.items()}
        rows["reverse diffusion + Langevin"] = (2 * N - 1, corrected(replica, times, SNR[name]))
        rows |= {label: (N + 1, replica.w2(replica.uniform(N // 2), method)) for label, method in TWO_CALLS.items()}
        for label, together in (("RK45, whole batch", True), ("RK45, each sample", False)):
            calls, accepted = rk45(replica, samples, together)
            rows[label] = (float(np.mean(calls)) + 1.0, replica.w2(accepted, methods.runge_kutta("dormand_prince")))
            measured[f"{name}_{label}_spread"] = float(np.ptp(calls))
        measured |= {
            f"{name}_{label}_{what}": float(value) for label, pair in rows.items() for what, value in zip(("calls", "w2"), pair, strict=True)
        }
        arrays |= {name: np.array(list(rows.values())), "names": np.array(list(rows))}
    return Found(arrays, measured, {"d": 3072, "N": N, "snr": SNR, "rk45": "rtol = atol = 1e-5", "samples": samples}, [0])


def draw(axes, data):
    for ax, name in zip(axes, ("vp", "ve"), strict=True):
        for label, (calls, w2) in zip(data["names"], data[name], strict=True):
            ax.loglog([calls], [w2], label=str(label))
        ax.set(xlabel="model calls", ylabel="exact W2, root mean square", title=name.upper())
    axes[0].legend(fontsize="x-small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(10.0, 4.4))
main = SCRIPT.main

if __name__ == "__main__":
    main()
