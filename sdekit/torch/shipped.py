"""The models that come with the library, made and judged again.

    python -m sdekit.torch.shipped digits_classes -o ckpt/

A killed run goes on when repeated.  The record of each model holds its settings, what it started from, and what it was measured to do.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import catalogue, grids, methods
from ..errors import unknown
from ..files import write_json
from ..sampling import sample
from .data import Images, digits
from .losses import Classification
from .metrics import _classifier, judge
from .models import load
from .training import train

__all__ = ["LEVELS", "classified", "judged", "main", "make", "runs"]

LEVELS = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 80.0)  # noise at which a classifier is measured
_SMALL = {"block_out_channels": [8, 16], "attention_head_dim": 8, "norm_num_groups": 4}


def runs(images: Images) -> dict[str, dict[str, Any]]:
    """What :func:`~sdekit.torch.train` was given for each model."""
    return {
        "digits": {},
        "digits_classes": {"start": "digits", "label_dropout": 0.1, "steps": 2000},
        "digits_classifier": {"loss": Classification(images.spread, images.classes, (0.3, 1.6)), "network": _SMALL, "steps": 4000},
    }


def judged(denoise: Any, images: Images) -> dict[str, Any]:
    """The judgement of 200 samples without a class and, from a network with classes, of 20 of each class, by PSLD at 18 steps.

    With classes there is also the share of samples that judge's classifier takes for the class asked for; judge itself does not see what was asked.
    """

    def made(model: Any, n: int, seed: int) -> Any:
        return sample(catalogue.psld(), model, method=methods.exponential(2), grid=grids.karras(18), n=n, seed=seed).x

    samples = {"no_class": made(denoise, 200, 3)}
    if denoise.classes is not None:
        samples["each_class"] = np.concatenate([made(denoise.given(label), 20, label) for label in range(denoise.classes)])
    found: dict[str, Any] = {"samples": "200 by psld, exponential(2), karras(18); seeds 0..9 for the classes, 3 without"}
    for name, x in samples.items():
        measures = judge(x, images).measures
        found[name] = {m.name: {"value": m.value, "held_out": m.held_out, "limit": m.limit, "passed": m.passed} for m in measures}
    if "each_class" in samples:
        seen = _classifier(images, 0).predict(samples["each_class"].reshape(len(samples["each_class"]), -1))
        found["accuracy"] = float(np.mean(seen == np.repeat(np.arange(denoise.classes), 20)))
    return found


def classified(classify: Any, images: Images) -> dict[str, Any]:
    """Share of held-out images whose class comes first, and the mean of its log-probability, at each level of noise."""
    x0, labels = images.held_out.astype(float), images.held_out_labels
    rng, found = np.random.default_rng(0), []
    for sigma in LEVELS:
        logs = classify(x0 + sigma * rng.standard_normal(x0.shape), sigma)
        own = logs[np.arange(len(labels)), labels]
        found.append({"sigma": sigma, "accuracy": float(np.mean(np.argmax(logs, 1) == labels)), "log_probability": float(np.mean(own))})
    return {"images": len(labels), "levels": found}


def make(name: str, out: str | os.PathLike[str], *, progress: bool = True) -> Any:
    """Train a model of this name into a folder, and add to its record what it was measured to do.

    Raises
    ------
    BadInput
        For an unknown name, or what :func:`~sdekit.torch.train` refuses.
    """
    images = digits()
    known = runs(images)
    if name not in known:
        raise unknown("model", name, known)
    model = train(images, out, progress=progress, **known[name])
    measure: Callable[[Any, Images], Mapping[str, Any]] = classified if isinstance(known[name].get("loss"), Classification) else judged
    write_json(Path(out) / "model.json", {**model.record, "judged": measure(model, images)})
    return load(out)


def main(given: Sequence[str] | None = None) -> None:
    """Train one model, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m sdekit.torch.shipped", description="Train and judge a model that comes with the library.")
    parser.add_argument("name", choices=list(runs(digits())))
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder; a killed run goes on in it")
    chosen = parser.parse_args(given)
    make(chosen.name, chosen.out)


if __name__ == "__main__":
    main()
