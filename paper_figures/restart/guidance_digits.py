"""Guidance by a trained network with classes and by a trained classifier: alignment, quality and diversity over the weight, sampler by sampler.

Digits of given classes, at nearly equal calls.  The guides are the denoiser that knows the class (classifier-free), and for Heun and Restart a
classifier of noisy digits beside the denoiser that knows none; exact ones would be the same at every weight.  Alignment is the accuracy of the
classifier of ``judge``, which saw no noise, quality the Frechet distance in its hidden layer over that of real digits, diversity the recall.
At a large weight the 8 steps by which Restart goes down are too coarse by themselves.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import grids, methods, plans
from sdekit.denoiser import guided
from sdekit.torch import features
from sdekit.torch.guidance import Classified
from sdekit.torch.metrics import precision_recall

WEIGHTS = (1.0, 2.0, 4.0)
ROWS = ("DDIM", "Heun", "DDPM", "Restart", "Heun of 8", "Heun, classifier", "Restart, classifier")
NAMES = ("accuracy", "frechet", "recall")
CLAIMS = {
    "accuracy_heun_4": (0.97, 1.0),
    "accuracy_heun_classifier_4": (0.9, 1.0),
    "accuracy_gain_of_weight": (0.0, 0.3),
    "recall_falls_with_weight": (0.02, 1.0),
    "accuracy_restart_over_heun_at_4": (-0.8, -0.1),
    "accuracy_restart_over_its_steps_at_4": (-0.1, 0.4),
}


def samplers(scale):
    """Plans of 23 or 24 steps or calls, and the 8 steps (15 calls) by which Restart goes down."""
    made = {"DDIM": plans.run(grids.karras(23), methods.ddim()), "Heun": plans.run(grids.karras(12), methods.exponential_rk(2))}
    made["DDPM"] = plans.ancestral(made["DDIM"])
    made["Heun of 8"] = plans.run(grids.karras(8), methods.exponential_rk(2))
    made["Restart"] = plans.restart(grids.karras(8), [(3, 2, 0.1 * scale, 0.6 * scale)], method=methods.exponential_rk(2), snap="nearest")
    return made


def guide(kind, labels, weight):
    """The denoiser of given classes at a weight, by either guide; both are the class's own at weight 1."""
    if kind == "classifier":
        return Classified(sk.torch.load("digits"), sk.torch.load("digits_classifier").given(labels), weight)
    denoise = sk.torch.load("digits_classes")
    return denoise.given(labels) if weight == 1.0 else guided(denoise.given(labels), denoise.given(None), weight)


def compute(quick):
    images = sk.torch.digits()
    weights, n, seeds = (WEIGHTS[::2], 40, 1) if quick else (WEIGHTS, 100, 3)
    labels = np.arange(n) % 10
    space = features.classifier(images)
    own = space(images.train)
    reference, floor = features.Moments.of(own), features.Moments.of(space(images.held_out[:n])).frechet(features.Moments.of(own))
    classify, known = sk.torch.metrics._classifier(images, 0), samplers(images.spread / 0.5)
    table = np.empty((seeds, len(ROWS), len(weights), len(NAMES)))
    for seed, i, j in np.ndindex(table.shape[:3]):
        sampler, _, kind = ROWS[i].partition(", ")
        x = np.asarray(sk.sample(sk.catalogue.edm(), guide(kind, labels, weights[j]), plan=known[sampler], n=n, seed=seed).x)
        made = space(x)
        accuracy = float(np.mean(classify.predict(x.reshape(n, -1)) == labels))
        table[seed, i, j] = accuracy, features.Moments.of(made).frechet(reference) / floor, precision_recall(made, own)[1]
    mean = table.mean(0)
    measured = {
        f"{name}_{row.lower().replace(', ', '_').replace(' ', '_')}_{weight:g}": float(mean[i, j, k])
        for i, row in enumerate(ROWS)
        for j, weight in enumerate(weights)
        for k, name in enumerate(NAMES)
    }
    if seeds > 1:
        measured |= {f"error_{name}": float(np.max(table.std(0, ddof=1)[..., k] / np.sqrt(seeds))) for k, name in enumerate(NAMES)}
    fine = [i for i, row in enumerate(ROWS) if row.startswith(("DD", "Heun")) and row != "Heun of 8"]
    measured["accuracy_gain_of_weight"] = float(np.mean(mean[fine, -1, 0] - mean[fine, 0, 0]))
    measured["accuracy_restart_over_heun_at_4"] = float(mean[3, -1, 0] - mean[1, -1, 0])
    measured["accuracy_restart_over_its_steps_at_4"] = float(mean[3, -1, 0] - mean[4, -1, 0])
    measured["recall_falls_with_weight"] = float(np.mean(mean[:, 0, 2] - mean[:, -1, 2]))
    return Found({"table": table, "weights": np.array(weights), "rows": np.array(ROWS)}, measured, {"samples": n, "calls": "23 or 24"}, range(seeds))


def draw(axes, data):
    for i, row in enumerate(data["rows"]):
        accuracy, frechet, recall = data["table"].mean(0)[i].T
        axes[0].plot(accuracy, frechet, label=str(row))
        axes[1].plot(accuracy, recall, label=str(row))
    axes[0].set(
        xlabel="alignment: accuracy", ylabel="Frechet distance over the floor", title=f"weight {', '.join(f'{w:g}' for w in data['weights'])}"
    )
    axes[1].set(xlabel="alignment: accuracy", ylabel="diversity: recall")
    axes[0].legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
