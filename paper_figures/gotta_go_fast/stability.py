"""Two questions that the paper leaves open, in closed form: which law long runs settle at, and what the exponent r of the next step does.

On dx = -lambda x dt + sigma dw with steps u = lambda h, Euler-Maruyama settles at the variance 1 / (1 - u / 2) and the improved Euler result at
(1 - u / 2) / (1 - u / 2 + u^2 / 4) = 1 - u^2 / 4 + ...: both up to u = 2, so extrapolation buys an order and no stability.  As a filter on
log E = k log h + c, the law theta E^-r is stable for r < 2 / k, deadbeat at 1 / k, and has the set-point theta^(1 / r): with k = 3/2 (noise makes the
error) to 2 (drift does) the published r = 0.9 over-corrects but is stable, and r = 1 is at the edge.
"""

import numpy as np

from paper_figures.common import Found, Script
from sdekit import methods
from sdekit.analysis.adaptivity import control_loop, error_spread, stability_limit, stationary_law
from sdekit.control import power

METHODS = {"Euler-Maruyama": methods.euler_maruyama, "improved Euler": lambda: methods.heun(noise=1.0), "Lamba": methods.lamba,
           "SRA1": methods.sra, "SOSRA": methods.sosra}  # fmt: skip
POWERS = (1.5, 2.0)

CLAIMS = {
    "Euler-Maruyama_variance_at_0.5": (1.33332, 1.33335),
    "improved Euler_variance_at_0.5": (0.92307, 0.92309),
    "Euler-Maruyama_limit": (1.999, 2.001),
    "improved Euler_limit": (1.999, 2.001),
    "Euler-Maruyama_bias_order": (0.99, 1.01),
    "improved Euler_bias_order": (1.99, 2.01),
    "most_stable_r_1.5": (1.332, 1.335),
    "most_stable_r_2": (0.999, 1.001),
    "pole_of_0.9_1.5": (-0.351, -0.349),
    "pole_of_0.9_2": (-0.801, -0.799),
    "rejected_256": (0.05, 0.08),
}


def compute(quick):
    u, r = np.linspace(0.02, 2.4, 25 if quick else 120), np.linspace(0.1, 1.3, 25 if quick else 121)
    arrays, measured = {"u": u, "r": r, "names": np.array(list(METHODS))}, {}
    for name, make in METHODS.items():
        method = make()
        arrays[name] = np.array([stationary_law(method, float(v)).variance for v in u])
        bias = [abs(stationary_law(method, v).variance - 1.0) for v in (0.02, 0.01)]
        measured |= {f"{name}_variance_at_0.5": stationary_law(method, 0.5).variance, f"{name}_limit": stability_limit(method)}
        measured[f"{name}_bias_order"] = float(np.log2(bias[0] / bias[1]))
    for k in POWERS:
        loops = [control_loop(power(r=float(v)), k) for v in r]
        arrays[f"poles_{k:g}"] = np.array([loop.poles[0].real for loop in loops])
        arrays[f"rejected_{k:g}"] = np.array([loop.rejection(error_spread(256)) for loop in loops])
        published = control_loop(power(), k)
        measured |= {f"most_stable_r_{k:g}": 0.9 * published.margin, f"pole_of_0.9_{k:g}": float(published.poles[0].real)}
    measured["rejected_256"] = control_loop(power(), 1.5).rejection(error_spread(256))
    measured |= {f"set_point_{v:g}": power(r=v).target for v in (0.5, 0.9)}
    return Found(arrays, measured, {"theta": 0.9})


def draw(axes, data):
    for name in data["names"]:
        axes[0].plot(data["u"], data[name], label=str(name), marker="")
    axes[0].axhline(1.0, color="grey", linewidth=0.8, marker="")
    axes[0].set(ylim=(0.0, 3.0), xlabel=r"step $\lambda h$", title="stationary variance over the true one")
    for k in POWERS:
        axes[1].plot(data["r"], data[f"poles_{k:g}"], label=f"k = {k:g}", marker="")
        axes[2].plot(data["r"], data[f"rejected_{k:g}"], label=f"k = {k:g}", marker="")
    axes[1].axhline(-1.0, color="grey", linewidth=0.8, marker="")
    for ax in axes[1:]:
        ax.axvline(0.9, color="grey", linestyle=":", marker="")
        ax.set(xlabel="exponent r (dotted: published)")
    axes[1].set(title="pole of the control loop: unstable below -1")
    axes[2].set(title="part of attempts rejected, 256 elements", ylim=(0.0, 0.5))
    for ax in axes:
        ax.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=3, size=(13.0, 4.0))
main = SCRIPT.main

if __name__ == "__main__":
    main()
