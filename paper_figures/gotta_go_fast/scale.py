"""256 x 256 images without weights: calls and exact W2 of Algorithm 1 on VE with the top levels of FFHQ (348) and LSUN-Church (380).

One sample of 196,608 elements a tolerance.  Calls follow the logarithm of the top level, not the size of the image.  The ODE keeps the mismatch of
the prior, which the noise forgets.  W2 of a single grid differs by up to ten times from sample to sample: its ratios to Euler-Maruyama are
recorded, and no bound holds them.
"""

import numpy as np

from paper_figures.common import Found, Script
from paper_figures.gotta_go_fast.baselines import rk45
from paper_figures.replica import ve
from sdekit import methods

TOPS = (348.0, 380.0)
RTOL = (0.01, 0.02, 0.05, 0.1)
PAPER = {380.0: (1104, 1030, 648, 201), 348.0: (1020, 643, 336, 198)}
EULER, HEUN = methods.euler_maruyama(), methods.heun(noise=1.0)

CLAIMS = {f"348_{rtol:g}_calls": (0.75 * calls, 1.25 * calls) for rtol, calls in zip(RTOL[2:], PAPER[348.0][2:], strict=True)}
CLAIMS |= {"348_0.1_adaptive_over_euler": (1.0, float("inf")), "348_ode_over_euler_2000": (5.0, float("inf"))}


def compute(quick):
    d, tops, tolerances = (12288, TOPS[:1], RTOL[2:]) if quick else (196_608, TOPS, RTOL)
    arrays, measured = {"tops": np.array(tops), "rtol": np.array(tolerances)}, {}
    for top in tops:
        replica, rows = ve(d, top), []
        for rtol in tolerances:
            calls, rejected, times = replica.run(replica.control(rtol), [0])
            fixed = replica.w2(replica.uniform(int(calls[0])), EULER)
            rows.append([calls[0], rejected[0], replica.w2(times[0], HEUN), fixed])
            measured |= {f"{top:g}_{rtol:g}_calls": float(calls[0]), f"{top:g}_{rtol:g}_adaptive_over_euler": rows[-1][2] / fixed}
        flow, accepted = rk45(replica, 1, together=False)
        ends = [flow[0], replica.w2(accepted, methods.runge_kutta("dormand_prince")), replica.w2(replica.uniform(2000), EULER)]
        measured |= {f"{top:g}_ode_calls": float(flow[0]), f"{top:g}_ode_over_euler_2000": ends[1] / ends[2]}
        arrays |= {f"adaptive_{top:g}": np.array(rows, float), f"others_{top:g}": np.array(ends, float)}
    ratios = [value for name, value in measured.items() if name.endswith("adaptive_over_euler")]
    measured["adaptive_over_euler_mean"] = float(np.exp(np.mean(np.log(ratios))))
    return Found(arrays, measured, {"d": d, "power": 2, "paper_calls": {f"{top:g}": calls for top, calls in PAPER.items()}}, [0])


def draw(axes, data):
    for ax, top in zip(axes, data["tops"], strict=False):
        rows, (flow, flow_w2, euler) = data[f"adaptive_{top:g}"], data[f"others_{top:g}"]
        ax.loglog(rows[:, 0], rows[:, 2], label="Algorithm 1")
        ax.loglog(rows[:, 0], rows[:, 3], label="Euler-Maruyama, same calls")
        ax.loglog([flow], [flow_w2], label="ODE, RK45")
        ax.loglog([2000], [euler], label="Euler-Maruyama, 2000")
        for rtol, row in zip(data["rtol"], rows, strict=True):
            ax.annotate(f"{rtol:g}", (row[0], row[2]), xytext=(2, 6), textcoords="offset points", fontsize="x-small")
        ax.set(xlabel="model calls", ylabel="exact W2, root mean square", title=rf"VE, $\sigma_{{max}}$ = {top:g}")
        ax.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(10.0, 4.4))
main = SCRIPT.main

if __name__ == "__main__":
    main()
