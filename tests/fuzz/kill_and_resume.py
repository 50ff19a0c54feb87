"""Kill runs at random moments and let them go on: nothing that a manifest lists may be lost or wrong.

    python tests/fuzz/kill_and_resume.py --times 20

Sampling (two workers) is killed with -9 after a random time, resumed by one to three workers, and so on; after each kill every listed shard must be
there with its checksum, and at the end the samples must be those of a run that nobody killed.  Training is treated the same: at the end the weights
must be those of a run in one go, bit for bit.  The exit code is 1 if anything is lost.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sdekit.runs import load_samples

SAMPLE = ["sample", "psld", "--method", "sscs", "--steps", "10", "--n", "2560", "--seed", "3", "--json"]
TRAIN = ["train", "edm", "--data", "digits", "--steps", "30", "--seed", "1", "--json"]


def start(command: list[str], out: Path, size: int = 1) -> list[subprocess.Popen[bytes]]:
    """One process for each worker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return [
        subprocess.Popen([sys.executable, "-m", "sdekit", *command, "-o", str(out)], env={**common, "RANK": str(r), "LOCAL_RANK": str(r)}, **quiet)  # type: ignore[call-overload]
        for r in range(size)
    ]


def killed(command: list[str], out: Path, after: float, size: int = 1) -> bool:
    """Run for some seconds, then kill -9; whether it had ended before."""
    processes = start(command, out, size)
    deadline = time.monotonic() + after
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(0.01)
    ended = all(process.poll() == 0 for process in processes)
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
    return ended


def whole(out: Path) -> str:
    """What is wrong with the listed shards, if anything."""
    for listed in out.glob("manifest*.json"):
        for name, entry in json.loads(listed.read_text())["shards"].items():
            if not (out / name).exists():
                return f"{name} is listed and gone"
            if hashlib.sha256((out / name).read_bytes()).hexdigest() != entry["sha256"]:
                return f"{name} is listed with another checksum"
    return ""


def main() -> int:
    """Kill and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    draw, bad = random.Random(chosen.seed), 0
    with tempfile.TemporaryDirectory() as base:
        folders = {name: Path(base) / name for name in ("samples", "samples, one go", "model", "model, one go")}
        lengths = {}
        for name, command in (("samples", SAMPLE), ("model", TRAIN)):
            begin = time.monotonic()
            assert killed(command, folders[f"{name}, one go"], 3600.0), f"{command} does not end well"
            lengths[name] = time.monotonic() - begin
        for i in range(chosen.times):
            size, after = draw.randint(1, 3), draw.uniform(0.2, 0.9) * lengths["samples"]
            ended = killed(SAMPLE, folders["samples"], after, size)
            fault = whole(folders["samples"])
            bad += bool(fault)
            print(f"sampling, kill {i + 1:2}: {size} workers, {after:5.1f} s{', had ended' if ended else ''}: {fault or 'whole'}", flush=True)
        for i in range(chosen.times):
            after = draw.uniform(0.2, 0.9) * lengths["model"]
            ended = killed(TRAIN, folders["model"], after)
            print(f"training, kill {i + 1:2}: {after:5.1f} s{', had ended' if ended else ''}", flush=True)
        for name, command in (("samples", SAMPLE), ("model", TRAIN)):
            assert killed(command, folders[name], 3600.0), f"{command} does not go on"
        pairs = [folders["samples"], folders["samples, one go"]]
        gap = float(np.abs(np.subtract(*map(load_samples, pairs))).max())
        weights = [(folders[name] / "model.safetensors").read_bytes() for name in ("model", "model, one go")]
        print(f"samples differ by at most {gap:.2g}; weights are {'equal' if weights[0] == weights[1] else 'NOT equal'}")
        return int(bad > 0 or gap > 1e-5 or weights[0] != weights[1])


if __name__ == "__main__":
    sys.exit(main())
