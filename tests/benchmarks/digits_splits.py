"""Digits over ten splits: a model trained on each, sampled by EDM and by PSLD, judged beside held-out digits and a fitted normal law.

    python tests/benchmarks/digits_splits.py --work out/digits_splits

Training takes five to six minutes a split on two cores.  What is done is kept in the work folder, so that a run that was stopped goes on; the
result is digits_splits.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import sdekit as sk
from sdekit.files import write_json
from sdekit.torch import Images, digits, frechet, gaussian_baseline, judge, train

RESULT = Path(__file__).with_suffix(".json")
STEPS = 36  # model calls of a sample
SAMPLES = 1400  # as many as training digits; judged are the first 397, as many as held-out digits


def judged(x: Any, images: Images) -> dict[str, Any]:
    """What ``judge`` says, and the Frechet distance to held-out digits beside that of as many training digits."""
    value, floor = frechet(x, images.held_out), frechet(images.train, images.held_out)
    return {**judge(x, images).as_dict(), "to_held_out": {"value": value, "floor": floor, "ratio": value / floor, "passed": value <= 1.5 * floor}}


def one_split(seed: int, work: Path) -> dict[str, Any]:
    """Everything about one split, from its file if it was done before."""
    path = work / f"split-{seed}"
    done = path / "result.json"
    if done.exists():
        return dict(json.loads(done.read_text("utf-8")))
    images = digits(split_seed=seed)
    denoise = train(images, path, seed=seed)
    runs: dict[str, Any] = {}
    for process in (sk.catalogue.edm(), sk.catalogue.psld()):
        run = sk.sample(process, denoise, method=sk.methods.exponential(2), grid=sk.grids.karras(STEPS), n=SAMPLES, seed=1000 + seed)
        if set(run.status) != {"ok"}:
            raise SystemExit(f"split {seed}: {process.name} made samples that are not finite")
        runs[process.name] = {"nfe": int(run.nfe[0]), **judged(run.x, images)}
    runs["gaussian"] = judged(gaussian_baseline(images, SAMPLES, seed=1000 + seed), images)
    record = {key: denoise.record[key] for key in ("parameters", "sha256", "settings", "loss", "seconds")}
    result = {"split_seed": seed, "sample_seed": 1000 + seed, "model": record, "data": images.as_dict(), "runs": runs}
    write_json(done, result)
    return result


def summary(splits: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, least and largest value of each measure over the splits, relative to its scale, and in how many splits its limit was kept."""
    made: dict[str, Any] = {}
    for run in splits[0]["runs"]:
        rows: dict[str, Any] = {"passed": sum(split["runs"][run]["passed"] for split in splits)}
        for name in splits[0]["runs"][run]["measures"]:
            cells = [split["runs"][run]["measures"][name] for split in splits]
            values, held = np.array([c["value"] for c in cells]), np.array([c["held_out"] for c in cells])
            ratio = values / np.array([c["scale"] for c in cells])
            rows[name] = {
                "value": float(values.mean()), "held_out": float(held.mean()),
                "ratio": {"mean": float(ratio.mean()), "min": float(ratio.min()), "max": float(ratio.max())},
                "passed": sum(c["passed"] for c in cells),
            }  # fmt: skip
        far = [split["runs"][run]["to_held_out"] for split in splits]
        ratio = np.array([one["ratio"] for one in far])
        rows["to_held_out"] = {
            "ratio": {"mean": float(ratio.mean()), "min": float(ratio.min()), "max": float(ratio.max())}, "passed": sum(one["passed"] for one in far),
        }  # fmt: skip
        made[run] = rows
    return made


def main() -> None:
    """Run what is left and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/digits_splits"), help="folder for models and results of each split")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--only", type=int, nargs="+", help="do these splits and write no result: several processes can share the work")
    arguments = parser.parse_args()
    chosen = range(arguments.splits) if arguments.only is None else arguments.only
    splits = [one_split(seed, arguments.work) for seed in tqdm(chosen, desc="splits")]
    if arguments.only is not None:
        return
    names = ("numpy", "scipy", "torch", "diffusers", "scikit-learn")
    write_json(RESULT, {
        "format": "sdekit.benchmark/1",
        "command": f"python tests/benchmarks/digits_splits.py --splits {arguments.splits}",
        "sampler": {"method": "exponential(2)", "grid": f"karras({STEPS})", "n": SAMPLES, "processes": ["edm", "psld"]},
        "versions": {"sdekit": sk.__version__, "python": platform.python_version(), **{name: version(name) for name in names}},
        "machine": {"cpus": os.cpu_count(), "threads": torch.get_num_threads(), "architecture": platform.machine()},
        "summary": summary(splits),
        "splits": splits,
    })  # fmt: skip
    sys.stdout.write(json.dumps(summary(splits), indent=1) + "\n")


if __name__ == "__main__":
    main()
