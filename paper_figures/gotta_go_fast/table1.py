"""Table 1 of "Gotta Go Fast" without weights: calls and exact W2 of Algorithm 1 against fixed grids at the same calls, on normal images.

On VP the adaptive grid is 8 to 12 times better than uniform Euler-Maruyama at its calls, and better than 1000 steps up to rtol = 0.05.  On VE it
is no better: uniform time is uniform in the logarithm of the level already; at rtol = 0.5 it is worse.
"""

import numpy as np

from paper_figures.common import Found, Script
from paper_figures.replica import ve, vp
from sdekit import methods

RTOL = (0.01, 0.02, 0.05, 0.1, 0.5)
PAPER = {"vp": (329, 274, 179, 147, 49), "ve": (738, 490, 271, 170, 52)}  # the mean over batches of the slowest of about 450 images
LISTED = {"vp": (316, 261, 164, 119, 64), "ve": (710, 453, 237, 143, 63)}  # mean of 24 seeds, an independent implementation
EULER, HEUN, FLOW = methods.euler_maruyama(), methods.heun(noise=1.0), methods.heun()
FIXED = {"euler_maruyama": (EULER, 1), "ddim": (methods.ddim(), 1), "ode_heun": (FLOW, 2), "uniform_heun": (HEUN, 2)}

# Quick form: samples whose calls are taken, more where these spread more.
SHORT = {0.01: 3, 0.02: 6, 0.05: 6, 0.1: 6, 0.5: 3}

CLAIMS = {f"{name}_{rtol:g}_calls": (calls * (1 - part), calls * (1 + part))
          for name, listed in LISTED.items() for rtol, calls, part in zip(RTOL[:4], listed, (0.04, 0.04, 0.04, 0.08), strict=False)}  # fmt: skip
CLAIMS |= {f"vp_{rtol:g}_euler_over_adaptive": (5.0, 20.0) for rtol in RTOL[:4]}
CLAIMS |= {f"vp_{rtol:g}_euler_1000_over_adaptive": (1.0, 4.0) for rtol in RTOL[:3]}
CLAIMS |= {f"vp_{rtol:g}_uniform_heun_over_euler": (1.0, 20.0) for rtol in RTOL}
CLAIMS |= {f"ve_{rtol:g}_euler_over_adaptive": (0.5, 2.0) for rtol in RTOL[:4]}
CLAIMS |= {"vp_0.5_w2": (0.02, 0.045), "ve_0.5_euler_over_adaptive": (0.0, 1 / 3)}


def compute(quick):
    seeds = range(6 if quick else 24)
    compared = {name: FIXED[name] for name in (("euler_maruyama", "uniform_heun") if quick else FIXED)}
    arrays, measured = {"rtol": np.array(RTOL)}, {}
    for name, replica in (("vp", vp()), ("ve", ve())):
        rows = []
        thousand = replica.w2(replica.uniform(1000), EULER)
        for rtol in RTOL:
            calls, rejected, times = replica.run(replica.control(rtol), seeds[: SHORT[rtol]] if quick else seeds)
            weighed = (3 if rtol == 0.1 else 1) if quick else len(seeds)
            w2 = np.array([replica.w2(t, HEUN) for t in times[:weighed]])
            mean, own = float(np.mean(calls)), float(np.median(w2))
            fixed = {label: replica.w2(replica.uniform(round(mean / asks)), method) for label, (method, asks) in compared.items()}
            rows.append(
                [mean, np.std(calls), np.min(calls), np.max(calls), np.mean(rejected), own, np.min(w2), np.max(w2), *fixed.values(), thousand]
            )
            key, euler = f"{name}_{rtol:g}_", fixed["euler_maruyama"]
            measured |= {key + "calls": mean, key + "w2": own, key + "euler_over_adaptive": euler / own}
            measured |= {key + "most_calls": float(np.max(calls)), key + "most_over_paper": np.max(calls) / PAPER[name][RTOL.index(rtol)]}
            measured |= {f"{key}{label}_w2": value for label, value in fixed.items()}
            measured |= {key + "uniform_heun_over_euler": fixed["uniform_heun"] / euler, key + "euler_1000_over_adaptive": thousand / own}
        arrays[name] = np.array(rows)
    columns = ["calls", "sd", "least", "most", "rejected", "w2", "w2_least", "w2_most", *compared, "euler_1000"]
    return Found({**arrays, "columns": np.array(columns)}, measured, {"d": 3072, "power": 2, "paper_calls": PAPER}, list(seeds))


def draw(axes, data):
    at = {name: i for i, name in enumerate(data["columns"])}
    for ax, name in zip(axes, ("vp", "ve"), strict=True):
        rows = data[name]
        calls = rows[:, at["calls"]]
        low, high = rows[:, at["w2_least"]], rows[:, at["w2_most"]]
        own = rows[:, at["w2"]]
        ax.errorbar(calls, own, [own - low, high - own], label="Algorithm 1 (median, range)", linewidth=2, capsize=3)
        for column, label in zip(FIXED, ("Euler-Maruyama", "DDIM", "ODE, Heun", "Heun, uniform"), strict=True):
            if column in at:
                ax.plot(calls, rows[:, at[column]], label=label)
        ax.axhline(rows[0, at["euler_1000"]], color="grey", linestyle=":", marker="", label="Euler-Maruyama, 1000 steps")
        for rtol, x, y in zip(data["rtol"], calls, own, strict=True):
            ax.annotate(f"{rtol:g}", (x, y), xytext=(2, -12), textcoords="offset points", fontsize="x-small")
        ax.set(xscale="log", yscale="log", xlabel="model calls", ylabel="exact W2, root mean square", title=name.upper())
    axes[0].legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(10.0, 4.4))
main = SCRIPT.main

if __name__ == "__main__":
    main()
