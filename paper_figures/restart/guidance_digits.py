"""Guidance with a trained class-conditional network: alignment, quality and diversity over the weight, for DDIM, Heun, DDPM and Restart.

Digits of given classes, at nearly equal calls.  Alignment is the accuracy of the classifier of ``judge``, quality the Frechet distance in its hidden
layer over that of real digits, diversity the recall.  More weight buys alignment for diversity with every sampler.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import grids, methods, plans
from sdekit.denoiser import guided
from sdekit.torch import features
from sdekit.torch.metrics import precision_recall

WEIGHTS = (1.0, 2.0, 4.0)
KINDS = ("DDIM", "Heun", "DDPM", "Restart")
CLAIMS = {
    "accuracy_restart_4": (0.85, 1.0),
    "accuracy_gain_of_weight": (-0.02, 0.3),
    "recall_falls_with_weight": (0.02, 1.0),
}


def samplers(scale):
    """Plans of 23 or 24 steps or calls."""
    made = {"DDIM": plans.run(grids.karras(23), methods.ddim()), "Heun": plans.run(grids.karras(12), methods.exponential_rk(2))}
    made["DDPM"] = plans.ancestral(made["DDIM"])
    made["Restart"] = plans.restart(grids.karras(8), [(3, 2, 0.1 * scale, 0.6 * scale)], method=methods.exponential_rk(2), snap="nearest")
    return made


def compute(quick):
    denoise, images = sk.torch.load("digits_classes"), sk.torch.digits()
    weights, n = (WEIGHTS[::2], 40) if quick else (WEIGHTS, 150)
    labels = np.arange(n) % 10
    space = features.classifier(images)
    own = space(images.train)
    reference, floor = features.Moments.of(own), features.Moments.of(space(images.held_out[:n])).frechet(features.Moments.of(own))
    classify = sk.torch.metrics._classifier(images, 0)
    table = np.empty((len(KINDS), len(weights), 3))
    for j, weight in enumerate(weights):
        model = denoise.given(labels) if weight == 1.0 else guided(denoise.given(labels), denoise.given(None), weight)
        for i, (_, plan) in enumerate(samplers(denoise.sigma_data / 0.5).items()):
            x = np.asarray(sk.sample(sk.catalogue.edm(), model, plan=plan, n=n, seed=0).x)
            made = space(x)
            accuracy = float(np.mean(classify.predict(x.reshape(n, -1)) == labels))
            table[i, j] = accuracy, features.Moments.of(made).frechet(reference) / floor, precision_recall(made, own)[1]
    measured = {
        f"{name}_{kind.lower()}_{weight:g}": float(table[i, j, k])
        for i, kind in enumerate(KINDS)
        for j, weight in enumerate(weights)
        for k, name in enumerate(("accuracy", "frechet", "recall"))
    }
    measured["accuracy_gain_of_weight"] = float(np.mean(table[:, -1, 0] - table[:, 0, 0]))
    measured["recall_falls_with_weight"] = float(np.mean(table[:, 0, 2] - table[:, -1, 2]))
    return Found({"table": table, "weights": np.array(weights), "kinds": np.array(KINDS)}, measured, {"samples": n, "calls": "23 or 24"}, [0])


def draw(axes, data):
    for i, kind in enumerate(data["kinds"]):
        accuracy, frechet, recall = data["table"][i].T
        axes[0].plot(accuracy, frechet, label=str(kind))
        axes[1].plot(accuracy, recall, label=str(kind))
    axes[0].set(
        xlabel="alignment: accuracy", ylabel="Frechet distance over the floor", title=f"weight {', '.join(f'{w:g}' for w in data['weights'])}"
    )
    axes[1].set(xlabel="alignment: accuracy", ylabel="diversity: recall")
    axes[0].legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
