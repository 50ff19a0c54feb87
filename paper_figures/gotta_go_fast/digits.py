"""Real images: the shipped digits network on VP under every mode of adaptive runs, beside fixed grids at the same mean calls.

With 64 elements the bias of rejection is a few percent of a variance, below what 900 samples show: Frechet distances are at the floor, in
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
from sdekit.torch.metrics import precision_recall

ATOL, END, SLOTS = 1.0 / 128.0, 1e-3, 32
MODES = {
    "path": lambda rtol: gotta_go_fast(rtol, ATOL),
    "retain": lambda rtol: gotta_go_fast(rtol, ATOL).with_(noise="retain"),
    "redraw (published)": lambda rtol: gotta_go_fast(rtol, ATOL, published=True),
    "SRA1 pair": lambda rtol: adaptive(methods.sra(1), rtol, ATOL),
    "ODE, Dormand-Prince": lambda rtol: adaptive(methods.runge_kutta("dormand_prince"), rtol, ATOL),
}
FIXED = {"Euler-Maruyama": methods.euler_maruyama(), "DDIM": methods.ddim(), "ODE, Heun": methods.heun()}
QUICK = ("path", "redraw (published)")
MEASURES = ("frechet", "precision", "recall")
SIZES = {0.01: 30, 0.02: 30, 0.05: 100, 0.1: 300}  # samples of each seed, by tolerance: 32 million operations a call
CLAIMS = {
    "path_0.1_calls": (80.0, 110.0),
    "redraw (published)_0.1_calls_over_path": (1.05, 1.4),
    "path_0.1_most_over_mean": (1.0, 1.25),
    "path_0.1_waiting": (1.0, 1.25),
    "path_0.1_rejected": (0.1, 0.35),
    "path_0.1_frechet_over_floor": (0.5, 1.5),
    "path_0.1_std_over_data": (0.95, 1.05),
}


class Kept:
    """What runs say, over the seeds, in features of the data; and what as many real digits have among themselves."""

    def __init__(self, images, reference):
        self.features, self.reference, self.floors = features.pca(images), reference, {}
        self.rows, self.calls, self.measured = [], {}, {}

    def measures(self, x, y):
        x, y = self.features(x), self.features(y)
        return np.array([features.Moments.of(x).frechet(features.Moments.of(y)), *precision_recall(x, y)])

    def floor(self, n):
        """Mean and spread over splits of the reference."""
        if n not in self.floors:
            orders = [np.random.default_rng(seed).permutation(len(self.reference)) for seed in range(8)]
            values = [self.measures(self.reference[order[:n]], self.reference[order[n:]]) for order in orders]
            self.floors[n] = np.mean(values, 0), np.std(values, 0, ddof=1)
        return self.floors[n]

    def take(self, name, rtol, runs):
        """One run of each seed; returns their mean calls."""
        if {status for run in runs for status in run.status} != {"ok"}:
            raise RuntimeError(f"{name} at {rtol}: not all samples ended")
        key, x, n = f"{name}_{rtol:g}_", np.stack([np.asarray(run.x) for run in runs]), len(runs[0].x)
        calls, (level, spread) = np.array([np.broadcast_to(run.nfe, n) for run in runs]), self.floor(n)
        values = np.array([self.measures(part, self.reference) for part in x])
        mean, sd = np.mean(values, 0), np.std(values, 0, ddof=min(1, len(runs) - 1))
        self.calls[f"{name} {rtol:g}"] = calls.ravel()
        self.measured |= {key + "calls": float(np.mean(calls)), key + "std_over_data": float(np.std(x) / np.std(self.reference))}
        self.measured |= {f"{key}{m}_over_floor": v for m, v in zip(MEASURES, mean / level, strict=True)}
        self.measured |= {f"{key}{m}_over_floor_sd": v for m, v in zip(MEASURES, sd / level, strict=True)}
        self.rows.append((name, rtol, np.mean(calls), mean / level, sd / level, spread / level))
        return float(np.mean(calls))

    def steps(self, name, rtol, runs):
        """How adaptive runs went: rejections, the slowest sample, and the cost of slots that wait."""
        key, calls, path = f"{name}_{rtol:g}_", self.calls[f"{name} {rtol:g}"], self.calls[f"path {rtol:g}"]
        rejected, accepted = (sum(getattr(run.adapted, part).sum() for run in runs) for part in ("rejected", "accepted"))
        slots = min(SLOTS, len(calls))
        together = calls[: len(calls) // slots * slots]
        waiting = slots * len(schedule(together, slots, refill=False)) / together.sum()
        self.measured |= {key + "rejected": rejected / (rejected + accepted), key + "most_over_mean": np.max(calls) / np.mean(calls)}
        self.measured |= {key + "waiting": waiting, key + "calls_over_path": np.mean(calls) / np.mean(path)}


def compute(quick):
    denoise, images, process = sk.torch.load("digits"), sk.torch.digits(), sk.catalogue.vp()
    sizes, seeds = ({0.1: 12}, range(1)) if quick else (SIZES, range(3))
    kept = Kept(images, images.held_out if quick else np.concatenate([images.train, images.held_out]))
    for rtol, n in sizes.items():
        names = QUICK if quick else [*MODES, *FIXED] if rtol >= 0.05 else ("path",)  # as the tolerance goes to 0 all agree
        mean = 0.0
        for name in names:
            if name in FIXED:
                method = FIXED[name]
                how = {"method": method, "grid": grids.uniform(round((mean - 1.0) / method.asks), END)}
            else:
                how = {"control": MODES[name](rtol)}
            runs = [sk.sample(process, denoise, n=n, batch=n, seed=seed, **how) for seed in seeds]
            calls = kept.take(name, rtol, runs)
            mean = calls if name == "path" else mean
            if name in MODES:
                kept.steps(name, rtol, runs)
    columns = zip(("labels", "rtol", "calls", "mean", "sd", "floor_sd"), zip(*kept.rows, strict=True), strict=True)
    arrays = {name: np.array(values) for name, values in columns} | {f"calls {name}": values for name, values in kept.calls.items()}
    settings = {"n": {f"{rtol:g}": n for rtol, n in sizes.items()}, "atol": ATOL, "features": "pca, 32 components",
                "sd": "over the seeds", "waiting": f"{SLOTS} slots: until the slowest is done, over the mean"}  # fmt: skip
    return Found({**arrays, "measures": np.array(MEASURES)}, kept.measured, settings, list(seeds))


def draw(axes, data):
    labels, rtol = data["labels"], np.max(data["rtol"])
    for name in list(MODES)[:-1]:  # the ODE's samples take 43 calls each
        if f"calls {name} {rtol:g}" in data:
            axes[0].hist(data[f"calls {name} {rtol:g}"], bins=20, alpha=0.6, label=name)
    axes[0].set(xlabel="calls of a sample", ylabel="samples", title=f"rtol = {rtol:g}")
    axes[0].legend(fontsize="x-small")
    for ax, measure in zip(axes[1:], (0, 1), strict=True):
        for name in dict.fromkeys(labels.tolist()):
            mine = (labels == name) & (data["rtol"] >= min(0.05, rtol))
            ax.errorbar(data["calls"][mine], data["mean"][mine, measure], data["sd"][mine, measure], label=name, linestyle="", capsize=2)
        spread = np.max(data["floor_sd"][:, measure])
        ax.axhspan(1.0 - spread, 1.0 + spread, color="grey", alpha=0.25, linewidth=0)
        ax.set(xscale="log", xlabel="mean model calls", title=f"{data['measures'][measure]} over real digits' (band: theirs)")
        ax.minorticks_off()
        ax.set_xticks([50, 100, 150], ["50", "100", "150"])
    axes[1].set_ylim(0.5, 1.6)
    axes[1].legend(fontsize="x-small", loc="upper left", ncols=2)


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=3, size=(12.0, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
