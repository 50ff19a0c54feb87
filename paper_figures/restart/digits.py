"""Real images: the shipped digits network by the ODE, the SDE, Restart as published, and Restart tuned, at equal model calls.

The published interval is for data of standard deviation 0.5 and goes up with that of the digits.  The tuned plan is that of ``tune_restart`` for the
normal law of the held-out images and the network's own error level by level, found from its residuals there: ``long.digits`` tunes, and samples more;
here its plan for 43 calls is read from its record.
"""

import json
from pathlib import Path

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script, one_thread, spreads, to_ends
from sdekit import grids, methods, plans
from sdekit.record import from_record
from sdekit.torch import features

KINDS = ("ODE", "SDE", "Restart, published", "Restart, tuned")
MEASURES = ("frechet", "kernel", "precision", "recall")
CLAIMS = {
    "frechet_restart_published_over_ode_43": (0.7, 1.3),
    "frechet_restart_tuned_over_ode_43": (0.7, 1.3),
    "precision_restart_published_over_floor_43": (0.8, 1.3),
    "recall_restart_published_over_floor_43": (0.5, 1.2),
}


def plans_of(nfe, tuned, scale):
    """The four, by kind."""
    heun, cycles = methods.exponential_rk(2), {43: 2, 75: 10}[nfe]
    ode = plans.run(grids.karras((nfe + 1) // 2), heun)
    sde = plans.churn(ode, 30.0, 0.01 * scale, scale, 1.007)
    published = plans.restart(grids.karras(18), [(3, cycles, 0.06 * scale, 0.30 * scale)], snap="nearest")
    return dict(zip(KINDS, (ode, sde, published, tuned), strict=True))


def measure(denoise, images, tuned, *, n, seeds, kinds=KINDS, reference=None, repeats=4):
    """Samples of each kind at the calls of the tuned plans, beside the floor of real digits; ``reference`` images of the data at most."""
    real = np.concatenate([images.train, images.held_out])[:reference]
    maps, scale = [features.pixels(), features.classifier(images)], denoise.sigma_data / 0.5
    table = np.zeros((len(kinds), len(tuned), len(seeds), len(maps), len(MEASURES), 2))  # the last: value and floor
    found = {}
    for i, (nfe, own) in enumerate(tuned.items()):
        chosen = plans_of(nfe, own, scale)
        for k, kind in enumerate(kinds):
            judged = []
            for s, seed in enumerate(seeds):
                x = np.asarray(sk.sample(sk.catalogue.edm(), denoise, plan=chosen[kind], n=n, seed=seed).x)
                rows = features.compare(x, real, maps, repeats=repeats).rows
                table[k, i, s] = [[[row["measures"][m][part] for part in ("value", "floor")] for m in MEASURES] for row in rows]
                judged.append(sk.torch.judge(x, images)["confidence"])
            name, ratio = kind.lower().replace(", ", "_"), table[k, i, :, 1, :, 0] / table[k, i, :, 1, :, 1]
            found |= {f"{MEASURES[m]}_{name}_over_floor_{nfe}": ratio[:, m] for m in (0, 2, 3)}
            found[f"confidence_{name}_over_held_out_{nfe}"] = np.array([m.value / m.held_out for m in judged])
            if k:
                found[f"frechet_{name}_over_ode_{nfe}"] = table[k, i, :, 1, 0, 0] / table[0, i, :, 1, 0, 0]
    arrays = {"table": table, "kinds": np.array(kinds), "sizes": np.array(list(tuned)), "measures": np.array(MEASURES)}
    settings = {"samples of each seed": n, "features": [one.name for one in maps], "published": "CIFAR-10 VP, levels times sigma_data / 0.5"}
    return Found(arrays, spreads(found), settings, seeds)


def compute(quick):
    denoise, images = sk.torch.load("digits"), sk.torch.digits()
    record = json.loads((Path(__file__).parent / "long" / "data" / "digits.json").read_text("utf-8"))["settings"]["tuned"]
    tuned = {43: from_record(record["43"])}
    few = {"n": 32, "seeds": [0], "kinds": (KINDS[0], *KINDS[2:]), "reference": 500, "repeats": 3}
    with one_thread():
        return measure(denoise, images, tuned, **(few if quick else {"n": 64, "seeds": [0, 1]}))


def draw(axes, data):
    table, sizes = data["table"], data["sizes"]
    for ax, measure in zip(axes, (0, 2, 3), strict=True):
        for k, kind in enumerate(data["kinds"]):
            ratio = table[k, :, :, 1, measure, 0] / table[k, :, :, 1, measure, 1]
            at = np.arange(len(sizes)) + 0.15 * (k - 1.5)
            ax.errorbar(at, ratio.mean(axis=1), to_ends(ratio.T), linestyle="", label=str(kind))
        ax.axhline(1.0, color="grey", linewidth=0.8)
        ax.set_xticks(range(len(sizes)), [f"{size} calls" for size in sizes])
        ax.set(title=str(data["measures"][measure]), xlim=(-0.6, len(sizes) - 0.4))
    axes[0].set_ylabel("in units of the floor (real digits)")
    axes[0].margins(y=0.35)
    axes[0].legend(fontsize="small", loc="upper left", ncols=2)


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=3, size=(11.0, 4.0))
main = SCRIPT.main

if __name__ == "__main__":
    main()
