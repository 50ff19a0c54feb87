"""The ablations of "Gotta Go Fast" at rtol = 0.01 without weights: calls and exact W2 of Algorithm 1 with one thing changed.

Propagating the improved Euler result costs nothing and is worth a factor; the maximum over the elements costs three to four times the calls; the
value of the step before in the tolerance saves half of them on VE; Lamba's pair is fast because it does not see the error that matters.
"""

from dataclasses import replace

import numpy as np

from paper_figures.common import Found, Script
from paper_figures.replica import ve, vp
from sdekit import methods
from sdekit.analysis.adaptive_grids import embedded

RTOL = 0.01
HEUN, LAMBA = methods.heun(noise=1.0), methods.lamba()
CHANGES = {
    "none": ({}, {}, HEUN),
    "no extrapolation": ({"extrapolate": False}, {}, embedded(HEUN)),
    "maximum": ({}, {"norm": "max"}, HEUN),
    "no previous value": ({}, {"previous": False}, HEUN),
    "Lamba, r = 0.5": ({"lamba_pair": True, "r": 0.5}, {}, LAMBA),
    "... no extrapolation": ({"lamba_pair": True, "r": 0.5, "extrapolate": False}, {}, embedded(LAMBA)),
    "... and maximum": ({"lamba_pair": True, "r": 0.5, "extrapolate": False}, {"norm": "max"}, embedded(LAMBA)),
    "r = 0.5": ({"r": 0.5}, {}, HEUN),
    "r = 2/3": ({"r": 2 / 3}, {}, HEUN),
    "r = 0.8": ({"r": 0.8}, {}, HEUN),
    "r = 1": ({"r": 1.0}, {}, HEUN),
    "theta = 0.8": ({"theta": 0.8}, {}, HEUN),
}
SHORT = ("none", "no extrapolation", "maximum", "no previous value", "Lamba, r = 0.5", "r = 0.5")

CLAIMS = {f"{name}_no extrapolation_calls": (0.98, 1.02) for name in ("vp", "ve")}
CLAIMS |= {"vp_no extrapolation_w2": (8.0, 25.0), "ve_no extrapolation_w2": (4.0, 12.0), "ve_no previous value_calls": (1.8, 2.0)}
CLAIMS |= {f"{name}_r = 0.5_calls": (1.03, 1.10) for name in ("vp", "ve")}
CLAIMS |= {"vp_Lamba, r = 0.5_calls": (0.0, 0.5), "vp_Lamba, r = 0.5_w2": (10.0, 30.0), "ve_Lamba, r = 0.5_calls": (0.0, 0.5)}
CLAIMS |= {f"{name}_maximum_calls": (3.0, 5.0) for name in ("vp", "ve")}


def compute(quick):
    seeds = range(12)
    arrays, measured = {}, {}
    names = SHORT if quick else tuple(CHANGES)
    for name, replica in (("vp", vp()), ("ve", ve())):
        rows = []
        for change in names:
            made, also, method = CHANGES[change]
            few = 4 if quick and (name == "ve" or change == "maximum") else 12  # the medians of W2 on VP need all
            calls, _, times = replica.run(replace(replica.control(RTOL, **made), **also), seeds[:few])
            w2 = [replica.w2(t, method) for t in (times[:1] if quick and change == "maximum" else times)]
            rows.append([np.mean(calls), np.median(w2), np.min(w2), np.max(w2)])
            measured |= {f"{name}_{change}_calls": rows[-1][0] / rows[0][0], f"{name}_{change}_w2": rows[-1][1] / rows[0][1]}
        measured |= {f"{name}_calls": rows[0][0], f"{name}_w2": rows[0][1]}
        arrays[name] = np.array(rows)
    settings = {"d": 3072, "rtol": RTOL, "measured": "calls and W2 over those of Algorithm 1; name_calls and name_w2 are its own"}
    return Found({**arrays, "names": np.array(names)}, measured, settings, list(seeds))


def draw(axes, data):
    place = np.arange(len(data["names"]))
    for shift, name in ((-0.2, "vp"), (0.2, "ve")):
        own = data[name] / data[name][0]
        for ax, column in zip(axes, (0, 1), strict=True):
            ax.barh(place + shift, own[:, column], 0.38, label=name.upper(), left=0.0)
    for ax, title in zip(axes, ("calls over those of Algorithm 1", "exact W2 over that of Algorithm 1"), strict=True):
        ax.axvline(1.0, color="grey", linewidth=0.8)
        ax.set(xscale="log", yticks=place, yticklabels=data["names"] if ax is axes[0] else [], title=title)
        ax.invert_yaxis()
    axes[0].legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(10.0, 4.6))
main = SCRIPT.main

if __name__ == "__main__":
    main()
