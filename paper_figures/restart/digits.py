"""Real images: the shipped digits network by the ODE, the SDE, Restart as published, and Restart tuned, at equal model calls.

The published interval is for data of standard deviation 0.5 and goes up with that of the digits.  The tuned plan is that of ``tune_restart`` for the
normal law of the held-out images and the network's own error level by level, found from its residuals there.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import analysis, grids, methods, plans
from sdekit.law import Gaussian
from sdekit.torch import features

KINDS = ("ODE", "SDE", "Restart, published", "Restart, tuned")
MEASURES = ("frechet", "kernel", "precision", "recall")
CLAIMS = {
    "frechet_restart_published_over_ode_43": (0.7, 1.3),
    "frechet_restart_tuned_over_ode_43": (0.7, 1.3),
    "precision_restart_published_over_floor_43": (0.8, 1.3),
    "recall_restart_published_over_floor_43": (0.5, 1.2),
}


def tuned(denoise, images, nfe, levels, evaluations):
    """The plan, and what the search says of it."""
    error = analysis.score_error(denoise, images.held_out, np.geomspace(0.02, 10.0, levels))
    law = Gaussian(images.held_out.mean(0, dtype=float), np.cov(images.held_out.reshape(len(images.held_out), -1).T.astype(float)))
    return analysis.tune_restart(sk.catalogue.edm(), data=law, model=error.surrogate, nfe=nfe, S_noise=1.0, evaluations=evaluations)


def compute(quick):
    denoise, images = sk.torch.load("digits"), sk.torch.digits()
    process, heun, scale = sk.catalogue.edm(), methods.exponential_rk(2), denoise.sigma_data / 0.5
    sizes, n, seeds = ((43,), 48, [0]) if quick else ((43, 75), 250, [0, 1, 2])
    maps = [features.pixels(), features.classifier(images)]
    reference = np.concatenate([images.train, images.held_out])
    rows, made, measured = {}, {}, {}
    for nfe in sizes:
        interval = (3, {43: 2, 75: 10}[nfe], 0.06 * scale, 0.30 * scale)
        found = tuned(denoise, images, nfe, *((4, 5) if quick else (10, 240)))
        own = [plans.run(grids.karras((nfe + 1) // 2), heun)]
        own += [plans.churn(own[0], 30.0, 0.01 * scale, scale, 1.007), plans.restart(grids.karras(18), [interval], snap="nearest"), found.plan]
        measured |= {f"surrogate_{name}_{nfe}": value for name, value in (("tuned", found.error), ("ode", found.ode), ("sde", found.sde))}
        for kind, plan in zip(KINDS, own, strict=True):
            for seed in seeds:
                run = sk.sample(process, denoise, plan=plan, n=n, seed=seed)
                made[kind, nfe, seed] = x = np.asarray(run.x)
                own_rows = features.compare(x, reference, maps, repeats=4).rows
                rows[kind, nfe, seed] = [[list(row["measures"][m].values()) for m in MEASURES] for row in own_rows]
    table = np.array([[[rows[kind, nfe, seed] for seed in seeds] for nfe in sizes] for kind in KINDS])  # kind, calls, seed, map, measure, value
    mean = table.mean(axis=2)
    for i, nfe in enumerate(sizes):
        for k, kind in enumerate(KINDS):
            name = kind.lower().replace(", ", "_")
            measured[f"frechet_{name}_over_ode_{nfe}"] = float(mean[k, i, 1, 0, 0] / mean[0, i, 1, 0, 0])
            measured[f"frechet_{name}_over_floor_{nfe}"] = float(mean[k, i, 1, 0, 0] / mean[k, i, 1, 0, 1])
            measured[f"precision_{name}_over_floor_{nfe}"] = float(mean[k, i, 1, 2, 0] / mean[k, i, 1, 2, 1])
            measured[f"recall_{name}_over_floor_{nfe}"] = float(mean[k, i, 1, 3, 0] / mean[k, i, 1, 3, 1])
            judged = [sk.torch.judge(made[kind, nfe, seed], images)["confidence"] for seed in seeds]
            measured[f"confidence_{name}_over_held_out_{nfe}"] = float(np.mean([m.value / m.held_out for m in judged]))
            spread = table[k, i, :, 1, 0, 0] / table[0, i, :, 1, 0, 0]
            measured[f"frechet_{name}_over_ode_{nfe}_standard_error"] = float(spread.std(ddof=1) / np.sqrt(len(seeds))) if len(seeds) > 1 else 0.0
    arrays = {"table": table, "kinds": np.array(KINDS), "sizes": np.array(sizes), "measures": np.array(MEASURES)}
    settings = {"samples of each seed": n, "features": [one.name for one in maps], "published": "CIFAR-10 VP, levels times sigma_data / 0.5"}
    return Found(arrays, measured, settings, seeds)


def draw(axes, data):
    table, sizes = data["table"], data["sizes"]
    for ax, measure in zip(axes, (0, 2, 3), strict=True):
        for k, kind in enumerate(data["kinds"]):
            ratio = table[k, :, :, 1, measure, 0] / table[k, :, :, 1, measure, 1]
            at = np.arange(len(sizes)) + 0.15 * (k - 1.5)
            ax.errorbar(at, ratio.mean(axis=1), ratio.std(axis=1), linestyle="", label=str(kind))
        ax.axhline(1.0, color="grey", linewidth=0.8)
        ax.set_xticks(range(len(sizes)), [f"{size} calls" for size in sizes])
        ax.set(title=str(data["measures"][measure]), xlim=(-0.6, len(sizes) - 0.4))
    axes[0].set_ylabel("in units of the floor (real digits)")
    axes[0].legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=3, size=(11.0, 4.0))
main = SCRIPT.main

if __name__ == "__main__":
    main()
