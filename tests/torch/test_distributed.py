"""Several workers: the same noise and samples whatever their number, and nothing that is listed is lost when they are killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from sdekit import BadInput, catalogue, control, grids, plans, sample
from sdekit.cli import main
from sdekit.runs import load_samples
from sdekit.torch import load
from sdekit.torch.distributed import world

COMMAND = ["-m", "sdekit", "sample", "psld", "--method", "sscs", "--steps", "3", "--n", "1300", "--seed", "3", "--json"]


def workers(out, size, command=COMMAND):
    """What torchrun does: as many processes, each told its rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *command, "-o", str(out)], env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE
        )
        for rank in range(size)
    ]


def finished(processes):
    told = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return told


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    assert main([*COMMAND[2:], "-o", str(out)]) == 0
    return out


def same(out, alone):
    np.testing.assert_allclose(load_samples(out), load_samples(alone), rtol=0, atol=1e-5)
    ours, theirs = (json.loads((folder / "manifest.json").read_text()) for folder in (out, alone))
    assert ours["run"] == theirs["run"]
    assert {name: entry["n"] for name, entry in ours["shards"].items()} == {name: entry["n"] for name, entry in theirs["shards"].items()}
    assert not list(out.glob("manifest-*"))
    x = load_samples(out).astype(float)
    for made in (ours["statistics"], theirs["statistics"]):
        assert made["n"] == 1300
        assert made["mean"] == pytest.approx(x.mean(), rel=1e-6)
        assert made["mean_square"] == pytest.approx(np.mean(x * x), rel=1e-6)


def test_two_workers_killed_and_resumed_by_three(tmp_path, alone):
    first = workers(tmp_path, 2)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("samples-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in first:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    listed = [json.loads(path.read_text())["shards"] for path in tmp_path.glob("manifest*.json")]
    before = {name: (tmp_path / name).stat().st_mtime_ns for shards in listed for name in shards}
    told = finished(workers(tmp_path, 3))
    assert [bool(text) for text in told] == [True, False, False]  # the first speaks for all
    assert json.loads(told[0])["n"] == 1300
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
    same(tmp_path, alone)


def test_a_world_that_nobody_started(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BadInput, match="start them with torchrun"), world():
        pass


def test_prepared_for_a_run():
    denoise, y = load("digits"), torch.randn(3, 1, 8, 8)
    want = denoise(y, 0.7)
    assert load("digits").prepared("cpu", "float64").dtype == torch.float64
    half = load("digits").prepared(None, "bfloat16")(y, 0.7)
    assert half.dtype == torch.float32
    assert 1e-5 < float((half - want).abs().max()) < 0.1
    with pytest.raises(BadInput, match="precision"):
        denoise.prepared(None, "int8")
    with pytest.raises(BadInput, match="device"):
        denoise.prepared("cuda:77")


def test_adaptive_samples_in_a_folder(tmp_path, capsys):
    """Each sample its own calls; the run goes on where it was, and another tolerance is another run."""
    command = ["sample", "vp", "--rtol", "0.1", "--n", "6", "--json", "-o", str(tmp_path)]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    want = sample(catalogue.vp(), load("digits"), plan=plans.run(grids.karras(20), control.gotta_go_fast(rtol=0.1)), n=6)
    np.testing.assert_allclose(load_samples(tmp_path), want.x.numpy(), atol=1e-6)
    assert told["nfe"] == pytest.approx(want.nfe.mean(), abs=0.06)
    assert main(command) == 0
    assert main(["sample", "vp", "--rtol", "0.2", "--n", "6", "-o", str(tmp_path)]) == 2
    assert "control was" in capsys.readouterr().err
