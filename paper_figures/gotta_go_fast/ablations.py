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
    "of the sample": ({}, {"scale": "sample"}, HEUN),  # the tolerance is of the root mean square of the sample, not of each element
}
# Quick form: samples whose calls and whose W2 are taken.  Those of Algorithm 1 on VP spread most, so that its median is of all twelve.
SHORT = {"none": (12, 12), "no extrapolation": (3, 3), "maximum": (1, 0), "no previous value": (2, 0), "Lamba, r = 0.5": (3, 3), "r = 0.5": (3, 0),
         "of the sample": (2, 0)}  # fmt: skip

CLAIMS = {f"{name}_no extrapolation_calls": (0.98, 1.02) for name in ("vp", "ve")}
CLAIMS |= {"vp_no extrapolation_w2": (8.0, 25.0), "ve_no extrapolation_w2": (4.0, 12.0), "ve_no previous value_calls": (1.8, 2.0)}
CLAIMS |= {f"{name}_r = 0.5_calls": (1.03, 1.10) for name in ("vp", "ve")}
CLAIMS |= {"vp_Lamba, r = 0.5_calls": (0.0, 0.5), "vp_Lamba, r = 0.5_w2": (10.0, 30.0), "ve_Lamba, r = 0.5_calls": (0.0, 0.5)}
CLAIMS |= {"vp_of the sample_calls": (0.9, 1.02), "ve_of the sample_calls": (0.55, 0.7)}
CLAIMS |= {f"{name}_maximum_calls": (3.0, 5.0) for name in ("vp", "ve")}


def compute(quick):
    seeds = range(12)
    arrays, measured = {}, {}
    for name, replica in (("vp", vp()), ("ve", ve())):
        rows, base = [], np.empty(0)
        for change in SHORT if quick else CHANGES:
            made, also, method = CHANGES[change]
            runs, weighed = SHORT[change] if quick else (12, 12)
            if quick and name == "ve":
                runs, weighed = min(runs, 3), min(weighed, 2)
            calls, _, times = replica.run(replace(replica.control(RTOL, **made), **also), seeds[:runs])
            w2 = [replica.w2(t, method) for t in times[:weighed]] or [np.nan]
            base = base if len(base) else calls
            rows.append([np.mean(calls), np.median(w2), np.min(w2), np.max(w2)])
            measured[f"{name}_{change}_calls"] = rows[-1][0] / np.mean(base[:runs])
            measured |= {f"{name}_{change}_w2": rows[-1][1] / rows[0][1]} if weighed else {}
        measured |= {f"{name}_calls": rows[0][0], f"{name}_w2": rows[0][1]}
        arrays[name] = np.array(rows)
    names = np.array(list(SHORT if quick else CHANGES))
    settings = {"d": 3072, "rtol": RTOL, "measured": "calls and W2 over those of Algorithm 1; name_calls and name_w2 are its own"}
    return Found({**arrays, "names": names}, measured, settings, list(seeds))


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
