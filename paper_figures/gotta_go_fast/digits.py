"""Real images: the shipped digits network on VP under every mode of adaptive runs, beside fixed grids at the same mean calls.

With 64 elements the bias of rejection is a few percent of a variance, below what 200 samples show: Frechet distances are at the floor, in
no order that means anything, and precision is a little higher with noise than without.  What differs is the calls.  They vary little from sample to
sample: slots that wait for the slowest of 32 cost up to a tenth more, with redrawn noise up to a sixth.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import grids, methods
from sdekit.control import adaptive, gotta_go_fast
from sdekit.slots import schedule
from sdekit.torch import features

ATOL, END, SLOTS = 1.0 / 128.0, 1e-3, 32
MODES = {
    "path": lambda rtol: gotta_go_fast(rtol, ATOL),
    "retain": lambda rtol: gotta_go_fast(rtol, ATOL).with_(noise="retain"),
    "redraw (published)": lambda rtol: gotta_go_fast(rtol, ATOL, published=True),
    "SRA1 pair": lambda rtol: adaptive(methods.sra(1), rtol, ATOL),
    "ODE, Dormand-Prince": lambda rtol: adaptive(methods.runge_kutta("dormand_prince"), rtol, ATOL),
}
FIXED = {"Euler-Maruyama": methods.euler_maruyama(), "DDIM": methods.ddim(), "ODE, Heun": methods.heun()}
MEASURES = ("frechet", "precision", "recall")
CLAIMS = {
    "path_0.1_calls": (80.0, 110.0),
    "redraw (published)_0.1_calls_over_path": (1.05, 1.4),
    "path_0.1_most_over_mean": (1.0, 1.25),
    "path_0.1_waiting": (1.0, 1.25),
    "path_0.1_rejected": (0.1, 0.35),
    "path_0.1_frechet_over_floor": (0.5, 1.5),
    "path_0.1_std_over_data": (0.95, 1.05),
}


def compute(quick):
    denoise, images, process = sk.torch.load("digits"), sk.torch.digits(), sk.catalogue.vp()
    n, tolerances = (32, (0.1,)) if quick else (200, (0.01, 0.02, 0.05, 0.1))
    reference = images.held_out if quick else np.concatenate([images.train, images.held_out])
    maps = [features.pca(images)]
    labels, places, calls, values, measured = [], [], [], [], {}

    def take(name, rtol, run):
        """Keep what a run says and return it."""
        if set(run.status) != {"ok"}:
            raise RuntimeError(f"{name} at {rtol}: {set(run.status)}")
        x = np.asarray(run.x)
        (row,) = features.compare(x, reference, maps, repeats=4).rows
        found = [[*row["measures"][m].values()] for m in MEASURES]
        key = f"{name}_{rtol:g}_"
        measured.update({key + "calls": float(np.mean(run.nfe)), key + "std_over_data": float(np.std(x) / np.std(reference))})
        measured.update({f"{key}{m}_over_floor": value / floor for m, (value, floor, _) in zip(MEASURES, found, strict=True)})
        if not quick:  # its classifier takes longer than all the runs
            judged = sk.torch.judge(x, images)
            measured.update({f"{key}{m}_over_held_out": judged[m].value / judged[m].held_out for m in ("confidence", "novelty")})
        for kept, value in zip((labels, places, calls, values), (name, rtol, np.broadcast_to(run.nfe, n), found), strict=True):
            kept.append(value)
        return measured[key + "calls"], found[0][0]

    for rtol in tolerances:
        own = {}
        for name, mode in MODES.items():
            if rtol < 0.05 and name != "path":  # all agree as the tolerance goes to 0, and these runs are the longest
                continue
            run = sk.sample(process, denoise, control=mode(rtol), n=n, batch=n)
            own[name], key = take(name, rtol, run), f"{name}_{rtol:g}_"
            attempts = run.adapted.accepted.sum() + run.adapted.rejected.sum()
            measured |= {key + "rejected": run.adapted.rejected.sum() / attempts, key + "most_over_mean": run.nfe.max() / run.nfe.mean()}
            together = run.nfe[: n // SLOTS * SLOTS]
            measured[key + "waiting"] = SLOTS * len(schedule(together, SLOTS, refill=False)) / together.sum()
        mean, frechet = own["path"]
        for name, method in FIXED.items():
            if rtol < 0.05:
                continue
            steps = round((mean - 1.0) / method.asks)
            run = sk.sample(process, denoise, method=method, grid=grids.uniform(steps, END), n=n, batch=n)
            measured[f"{name}_{rtol:g}_frechet_over_path"] = take(name, rtol, run)[1] / frechet
        for name in own:
            measured |= {f"{name}_{rtol:g}_calls_over_path": own[name][0] / mean, f"{name}_{rtol:g}_frechet_over_path": own[name][1] / frechet}
    arrays = {"labels": np.array(labels), "rtol": np.array(places), "calls": np.array(calls), "values": np.array(values)}
    settings = {"n": n, "atol": ATOL, "features": "pca, 32 components", "waiting": f"{SLOTS} slots: until the slowest is done, over the mean"}
    return Found({**arrays, "names": np.array([*MODES, *FIXED]), "measures": np.array(MEASURES)}, measured, settings, [0])


def draw(axes, data):
    labels, mean = data["labels"], data["calls"].mean(axis=1)
    shown = np.sort(data["rtol"])[len(data["rtol"]) // 2]
    for name in list(MODES)[:-1]:  # the ODE's samples take 55 calls each
        mine = (labels == name) & (data["rtol"] == shown)
        axes[0].hist(data["calls"][mine].ravel(), bins=20, alpha=0.6, label=name)
    axes[0].set(xlabel="calls of a sample", ylabel="samples", title=f"rtol = {shown:g}")
    axes[0].legend(fontsize="x-small")
    for ax, measure in zip(axes[1:], (0, 1), strict=True):
        value, floor, spread = data["values"][:, measure].T
        for name in data["names"]:
            mine = labels == name
            ax.plot(mean[mine], value[mine], label=str(name), linestyle="")
        ax.axhspan(*(floor.mean() + spread.mean() * np.array([-1.0, 1.0])), color="grey", alpha=0.25, linewidth=0)
        ax.set(xscale="log", xlabel="mean model calls", title=f"{data['measures'][measure]} (band: real digits)")
    axes[1].set_ylim(0.0)
    axes[1].legend(fontsize="x-small", loc="lower right")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=3, size=(12.0, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
