"""PNDM against DDIM with a trained network: distance of the shipped digit model's samples from the model's own exact flow.

Each run starts from the same noise on the linear table of 1000 labels; the reference is PNDM with exact weights and many steps down to the same
last level.  At 10 steps the ratio differs much between starts: a few digits that change their shape decide it.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script, one_thread, spreads, to_ends
from sdekit import grids, methods, tables

LAST = 0.02
METHODS = {"DDIM": methods.ddim(), "PLMS": methods.plms(), "PNDM, exact weights": methods.pndm()}
CLAIMS = {"plms_10_over_ddim_10": (0.0, 0.7), "plms_20_over_ddim_20": (0.0, 0.5)}


def compute(quick):
    denoise, process, n = sk.torch.load("digits"), tables.linear().process, 2 if quick else 8
    few, many, seeds = ([10, 20], [10, 20], [0]) if quick else ([10, 20, 50], [10, 20, 50, 100, 250], [0, 1, 2])
    pairs = [(name, k) for name in METHODS for k in (many if name == "DDIM" else few) if not quick or "exact" not in name]

    def ends(method, count, seed):
        run = sk.sample(process, denoise, method=method, grid=grids.logsnr(count, LAST, 150.0), n=n, seed=seed, dtype="float64")
        return np.asarray(run.x), int(run.nfe[0])

    errors, calls = np.zeros((len(seeds), len(pairs))), np.zeros(len(pairs))
    with one_thread():
        for s, seed in enumerate(seeds):
            reference, _ = ends(methods.pndm(), 30 if quick else 200, seed)
            for i, (name, k) in enumerate(pairs):
                x, calls[i] = ends(METHODS[name], k, seed)
                errors[s, i] = np.sqrt(np.mean((x - reference) ** 2))
    at = {pair: errors[:, i] for i, pair in enumerate(pairs)}
    found = {f"{name}_{k}": error for (name, k), error in at.items()}
    found |= {f"plms_{k}_over_ddim_{n}": at["PLMS", k] / at["DDIM", n] for k, n in ((10, 10), (20, 20), (50, 50), (50, 250)) if n in many}
    arrays = {"names": np.array([name for name, _ in pairs]), "calls": calls, "errors": errors}
    return Found(arrays, spreads(found), {"samples of each seed": n, "last level": LAST, "grid": "log level"}, seeds)


def draw(axes, data):
    (ax,) = axes
    for name in dict.fromkeys(data["names"].tolist()):
        own = data["names"] == name
        ax.errorbar(data["calls"][own], data["errors"][:, own].mean(axis=0), to_ends(data["errors"][:, own]), label=name, capsize=3)
    ax.set(xscale="log", yscale="log", xlabel="model calls", ylabel="root mean square error of a pixel")
    ax.set(title="digits: distance from the network's own exact flow, 3 seeds")
    ax.legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
