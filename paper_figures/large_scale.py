"""Headline numbers that need trained weights and a GPU: one configuration each, sampled and measured by one runner.

    python -m paper_figures.large_scale paper_figures/pndm/configs/celeba64.toml weights/ --out samples/ --reference images.npy
    python -m paper_figures.large_scale paper_figures/pndm/configs/celeba64.toml --dry-run

``weights/`` is a folder that diffusers' ``save_pretrained`` wrote (safetensors), of a network trained on the configuration's data; any
denoiser drives any process, so PSLD needs no weights of its own.  Samples go to ``--out`` in shards and a killed run goes on where it was.
With ``--reference``, an array (n, channels, height, width) in [-1, 1] of the data, and torch-fidelity, FID is printed beside the paper's.
``--dry-run`` puts a tiny random network of the same shape in the place of the weights, and takes 8 samples in few steps.
Calls of adaptive runs are in the manifest of each shard, as their mean over its samples; the paper's are those of the slowest in a batch.
"""

from __future__ import annotations

import argparse
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import sdekit as sk
from sdekit.plans import Plan
from sdekit.process import Process
from sdekit.record import FORMAT, from_record
from sdekit.runs import load_samples, sample_to

FEW = 6  # steps of a dry run


def build(config: Mapping[str, Any], dry: bool = False) -> tuple[Process, Plan]:
    """The process and the plan of a configuration; a dry run has few steps, or a loose tolerance."""
    named = dict(config["process"])
    table = named.pop("table", None)
    process = getattr(sk.tables, table)().process if table else getattr(sk.catalogue, named.pop("name"))(**named)
    grid = {"kind": "grid", **config["grid"]}
    if "control" in config:  # steps of each sample's own between the first and the last time of the grid
        control = sk.control.gotta_go_fast(**config["control"] | ({"rtol": 0.5} if dry else {}))
        plan = sk.plans.run(from_record({"format": FORMAT, **grid}), control)
        return process, plan.then(sk.plans.denoise()) if config["denoise"] else plan
    transforms = [{"kind": "transform", **transform} for transform in config.get("transforms", [])]
    if dry:
        grid["n"] = FEW
        transforms = [entry | ({"intervals": entry["intervals"][:1]} if "intervals" in entry else {}) for entry in transforms]
    plan = from_record({"format": FORMAT, "kind": "plan", "grid": grid, "method": {"kind": "method", **config["method"]}, "transforms": transforms})
    if "pfgm" in config:
        plan = sk.pfgm.Pfgm(config["pfgm"]).plan(plan)
    return process, plan.then(sk.plans.denoise()) if config["denoise"] else plan


def write_tiny(folder: Path, shape: tuple[int, ...]) -> Path:
    """A random U-Net of the data's shape with the usual schedule, as ``save_pretrained`` writes both."""
    import torch
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    channels, height, width = shape
    blocks = {"block_out_channels": (8, 8), "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    UNet2DModel(
        sample_size=(height, width), in_channels=channels, out_channels=channels, layers_per_block=1, norm_num_groups=4, **blocks
    ).save_pretrained(folder / "unet")
    DDPMScheduler().save_pretrained(folder / "scheduler")
    return folder


def fid(samples: np.ndarray[Any, Any], reference: np.ndarray[Any, Any]) -> float:
    """The Frechet distance in Inception activations."""
    from sdekit.torch.features import Moments, inception

    features = inception()
    return Moments.of(features(samples)).frechet(Moments.of(features(reference)))


def main(argv: list[str] | None = None) -> np.ndarray[Any, Any]:
    parser = argparse.ArgumentParser(prog="python -m paper_figures.large_scale")
    parser.add_argument("config", type=Path)
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args(argv)
    if not given.dry_run and (given.weights is None or given.out is None):
        parser.error("give the folder of the weights and --out, or --dry-run")
    from sdekit.torch.pretrained import from_pretrained

    config = tomllib.loads(given.config.read_text("utf-8"))
    out = given.out or Path(tempfile.mkdtemp())
    shape, n = tuple(config["shape"]), 8 if given.dry_run else config["samples"]
    weights = write_tiny(Path(tempfile.mkdtemp()), shape) if given.dry_run else given.weights
    denoise = from_pretrained(weights, device=given.device, rounding="nearest")  # processes go beyond the levels of its table
    if denoise.shape != shape:
        parser.error(f"the network denoises data of shape {denoise.shape}, the configuration's have {shape}")
    process, plan = build(config, given.dry_run)
    settings = {"config": given.config.name, "dry run": given.dry_run}
    start = sk.pfgm.Pfgm(config["pfgm"]).prior(shape) if "pfgm" in config else None
    classes = 1 if given.dry_run else config.get("classes", 1)
    made = []
    for label in range(classes):  # each class has a folder of its own
        folder, model = (out, denoise) if classes == 1 else (out / f"class-{label}", denoise.given(class_labels=label))
        sample_to(folder, process, model, plan, n=n // classes, seed=config["seed"] + label, settings=settings, start=start)
        made.append(load_samples(folder))
    low, high = config.get("range", (-1.0, 1.0))  # of the network's data
    samples = 2.0 * (np.concatenate(made) - low) / (high - low) - 1.0
    print(f"{config['claim']}: {len(samples)} samples of shape {shape} in {out}; the paper's FID is {config['fid']}")
    if given.reference:
        print(f"FID {fid(samples, np.load(given.reference, allow_pickle=False)):.3f}")
    return samples


if __name__ == "__main__":
    main()
