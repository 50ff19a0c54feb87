"""All figures, each with its time: ``python -m paper_figures.all [recipe pndm ...] [--quick] [-j 2]``.

``--quick`` makes the same claims in seconds, and writes into temporary folders.  The scripts that took longest go first, so that no core waits
for one of them at the end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from paper_figures.common import ROOT, broken


def scripts() -> list[str]:
    """The scripts as ``folder.name``, by folder."""
    return [f"{path.parent.name}.{path.stem}" for path in sorted(ROOT.glob("*/*.py"))]


def cost(name: str) -> float:
    """Processor seconds of the last full run, as its record says; a new script is the dearest."""
    folder, stem = name.split(".")
    record = ROOT / folder / "data" / f"{stem}.json"
    return float(json.loads(record.read_text("utf-8")).get("seconds", math.inf)) if record.exists() else math.inf


def run(name: str, quick: bool) -> tuple[str, float, list[str]]:
    """The script's name, its seconds and the claims that did not hold."""
    script = importlib.import_module(f"paper_figures.{name}").SCRIPT
    begin = time.perf_counter()
    measured = script.main(["--quick"] if quick else [])
    return name, time.perf_counter() - begin, broken(measured, script.claims)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m paper_figures.all")
    parser.add_argument("folders", nargs="*", help="papers (default: all)")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    given = parser.parse_args()
    chosen = [name for name in scripts() if not given.folders or name.split(".")[0] in given.folders]
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # the scripts run side by side
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        works = {name: pool.submit(run, name, given.quick) for name in sorted(chosen, key=cost, reverse=True)}
        done = [works[name].result() for name in chosen]
    print()
    for name, seconds, wrong in done:
        print(f"{name:<36} {seconds:7.1f} s  {'BROKEN: ' + ', '.join(wrong) if wrong else 'all claims hold'}")
    print(f"{len(done)} figures, {sum(seconds for _, seconds, _ in done):.0f} s on one core")
    if any(wrong for _, _, wrong in done):
        sys.exit(1)


if __name__ == "__main__":
    main()
