"""PNDM against DDIM with a trained network: distance of the shipped digit model's samples from the model's own exact flow.

Each run starts from the same noise on the linear table of 1000 labels; the reference is PNDM with exact weights and many steps down to the same
last level.  The speed-up is that of the paper; with a real network its error, not that of the steps, decides long before.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import grids, methods, tables

LAST = 0.02
CLAIMS = {"plms_10_over_ddim_20": (0.0, 0.95), "plms_10_over_ddim_10": (0.0, 0.55)}


def compute(quick):
    denoise, process, n = sk.torch.load("digits"), tables.linear().process, 2 if quick else 8
    few, many = ([10], [10, 20]) if quick else ([10, 20, 50], [10, 20, 50, 100, 250])
    steps = {"DDIM": many, "PLMS": few} | ({} if quick else {"PNDM, exact weights": few})
    made = {"DDIM": methods.ddim(), "PLMS": methods.plms(), "PNDM, exact weights": methods.pndm()}

    def ends(method, count):
        run = sk.sample(process, denoise, method=method, grid=grids.logsnr(count, LAST, 150.0), n=n, seed=0, dtype="float64")
        return np.asarray(run.x), int(run.nfe[0])

    reference, _ = ends(methods.pndm(), 30 if quick else 200)
    rows = [(name, k, *ends(made[name], k)) for name, counts in steps.items() for k in counts]
    errors = [float(np.sqrt(np.mean((x - reference) ** 2))) for _, _, x, _ in rows]
    at = {(name, k): error for (name, k, _, _), error in zip(rows, errors, strict=True)}
    measured = {f"{name}_{k}": error for (name, k), error in at.items()}
    measured["plms_10_over_ddim_20"] = at["PLMS", 10] / at["DDIM", 20]
    measured["plms_10_over_ddim_10"] = at["PLMS", 10] / at["DDIM", 10]
    arrays = {"names": np.array([row[0] for row in rows]), "calls": np.array([row[3] for row in rows]), "errors": np.array(errors)}
    return Found(arrays, measured, {"samples": n, "last level": LAST, "grid": "log level"}, [0])


def draw(axes, data):
    (ax,) = axes
    for name in dict.fromkeys(data["names"].tolist()):
        own = data["names"] == name
        ax.loglog(data["calls"][own], data["errors"][own], label=name)
    ax.set(xlabel="model calls", ylabel="root mean square error of a pixel", title="digits: distance from the network's own exact flow")
    ax.legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
