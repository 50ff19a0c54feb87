"""Training can be killed at any moment and ends with the same bits; what is damaged or different is refused in one line."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit.torch import training
from sdekit.torch.data import digits
from sdekit.torch.models import load

pytestmark = pytest.mark.images
SMALL = {"block_out_channels": [8, 8], "attention_head_dim": 4, "norm_num_groups": 4, "dropout": 0.1}
RUN = {"network": SMALL, "steps": 10, "batch": 4, "every": 4, "warm_up": 2, "progress": False}


class Stopped(Exception):
    pass


def stop_at(last):
    def watch(step, loss):
        if step == last:
            raise Stopped

    return watch


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def images():
    return digits()


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    training.train(images, folder, **RUN)
    return folder


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of the finished run that a test may damage."""
    return shutil.copytree(whole, tmp_path / "run")


def test_no_global_state_is_touched(images, tmp_path):
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    training.train(images, tmp_path, **{**RUN, "steps": 2})
    assert torch.equal(torch.randn(3), expected)


def test_the_result_is_complete(whole, images):
    denoise = load(whole)
    record = denoise.record
    assert sorted(path.name for path in whole.iterdir()) == ["checkpoint-00000010.safetensors", "checkpoint.json", "model.json", "model.safetensors"]
    assert record["sha256"] == weights(whole)
    assert record["parameters"] == sum(p.numel() for p in denoise.network.parameters())
    assert record["sigma_data"] == pytest.approx(np.std(images.train.astype(float)), rel=1e-12)
    assert record["data"]["split_seed"] == 0
    assert record["data"]["range"] == [-1.0, 1.0]
    assert record["settings"]["steps"] == 10
    assert {"loss", "seconds", "versions", "network"} <= set(record)
    assert tuple(denoise(images.held_out[:2], 0.5).shape) == (2, 1, 8, 8)


@pytest.mark.parametrize("last", [3, 4, 9])
def test_stopped_and_resumed_is_bitwise_the_same(whole, images, tmp_path, last):
    with pytest.raises(Stopped):
        training.train(images, tmp_path, **RUN, watch=stop_at(last))
    assert not (tmp_path / "model.json").exists()
    steps = []
    training.train(images, tmp_path, **RUN, watch=lambda step, loss: steps.append(step))
    assert steps == list(range(last // 4 * 4 + 1, 11))
    assert weights(tmp_path) == weights(whole)


def test_killed_and_resumed_is_bitwise_the_same(whole, images, tmp_path):
    program = (
        "import os, signal, sys\n"
        "import torch\n"
        "from sdekit.torch import digits, train\n"
        "torch.set_num_threads(1)\n"
        f"run = {RUN!r}\n"
        "train(digits(), sys.argv[1], watch=lambda step, loss: os.kill(os.getpid(), signal.SIGKILL) if step == 6 else None, **run)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert json.loads((tmp_path / "checkpoint.json").read_text())["step"] == 4
    training.train(images, tmp_path, **RUN)
    assert weights(tmp_path) == weights(whole)


def test_killed_between_tensors_and_record_goes_on_from_the_checkpoint_before(whole, images, tmp_path, monkeypatch):
    def killed(path, record):
        if record["step"] == 8:
            raise Stopped
        return write_json(path, record)

    write_json = training.write_json
    monkeypatch.setattr(training, "write_json", killed)
    with pytest.raises(Stopped):
        training.train(images, tmp_path, **RUN)
    monkeypatch.undo()
    assert json.loads((tmp_path / "checkpoint.json").read_text())["step"] == 4
    training.train(images, tmp_path, **RUN)
    assert weights(tmp_path) == weights(whole)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1


def test_a_full_disk_leaves_the_checkpoint_before(whole, images, tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        training.train(images, tmp_path, **RUN, watch=stop_at(5))
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(sk.BadInput, match="cannot be written: No space left on device"):
        training.train(images, tmp_path, **RUN)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    training.train(images, tmp_path, **RUN)
    assert weights(tmp_path) == weights(whole)


def test_another_run_is_refused_by_name(finished, images):
    for change, message in (
        ({"seed": 3}, "seed = 0, this one has 3"),
        ({"rate": 0.5}, "rate = 0.002, this one has 0.5"),
        ({"network": {**SMALL, "dropout": 0.0}}, "dropout = 0.1, this one has 0.0"),
    ):
        with pytest.raises(sk.BadInput, match=message) as caught:
            training.train(images, finished, **{**RUN, **change})
        assert "\n" not in str(caught.value)
    with pytest.raises(sk.BadInput, match=r"split_seed|split_sha256|train_sha256"):
        training.train(digits(1), finished, **RUN)


def test_starting_anew_replaces(finished, images):
    training.train(images, finished, **{**RUN, "seed": 3, "steps": 2}, resume=False)
    record = load(finished).record
    assert (record["settings"]["seed"], record["settings"]["steps"]) == (3, 2)


def test_a_finished_run_is_not_trained_again(finished, images, whole):
    (finished / "model.json").unlink()
    training.train(images, finished, **RUN, watch=stop_at(10))
    assert weights(finished) == weights(whole)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "not json", "no entry"])
@pytest.mark.parametrize("kind", ["checkpoint", "model"])
def test_damaged_files_are_named(finished, images, kind, damage):
    name = "checkpoint-00000010" if kind == "checkpoint" else "model"
    tensors, record = finished / f"{name}.safetensors", finished / f"{kind}.json"
    if damage == "truncated":
        tensors.write_bytes(tensors.read_bytes()[:-100])
    elif damage == "flipped":
        data = bytearray(tensors.read_bytes())
        data[-10] ^= 1
        tensors.write_bytes(data)
    elif damage == "missing":
        tensors.unlink()
    elif damage == "not json":
        record.write_text(record.read_text()[:50])
    else:
        record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "sha256"}))
    read = {"model": lambda: load(finished), "checkpoint": lambda: training.train(images, finished, **RUN)}[kind]
    with pytest.raises(sk.BadInput, match=kind) as caught:
        read()
    assert "\n" not in str(caught.value)


def test_weights_have_to_fit_the_network(finished):
    record = json.loads((finished / "model.json").read_text())
    for network, message in (
        ({"block_out_channels": [16, 16]}, "tensor .* needs"),
        ({"layers_per_block": 2}, "lacks tensor"),
        ({"act_fn": 3}, "diffusers refuses"),
        ({"in_channels": 2}, r"shape = \[1, 8, 8\] does not fit"),
        ({"sample_size": 8}, "does not fit"),
    ):
        (finished / "model.json").write_text(json.dumps({**record, "network": {**record["network"], **network}}))
        with pytest.raises(sk.BadInput, match=message):
            load(finished)
    (finished / "model.json").write_text(json.dumps({**record, "format": "other/1"}))
    with pytest.raises(sk.BadInput, match="has format 'other/1'"):
        load(finished)


def test_nothing_is_unpickled(finished):
    torch.save({"a": torch.zeros(1)}, finished / "model.safetensors")
    record = json.loads((finished / "model.json").read_text())
    (finished / "model.json").write_text(json.dumps({**record, "sha256": weights(finished)}))
    with pytest.raises(sk.BadInput, match="is not a safetensors file"):
        load(finished)


def test_a_folder_that_cannot_be_made(images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(sk.BadInput, match="cannot be written"):
        training.train(images, tmp_path / "file" / "out", **RUN)


def test_a_loss_that_is_not_finite_is_no_result(images, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "loss_of", lambda network, x0, *rest: x0.new_full((len(x0),), torch.nan).requires_grad_())
    with pytest.raises(sk.BadInput, match=r"the loss is nan at step 1; .* start anew with rate below 0\.002"):
        training.train(images, tmp_path, **RUN)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_checked(images, tmp_path):
    for wrong, message in (
        ({"steps": 0}, "steps = 0 must be an integer >= 1"),
        ({"rate": -1.0}, "rate = -1.0 must be positive"),
        ({"averaging": 1.0}, "averaging = 1.0"),
        ({"stpes": 3}, "unknown setting of train 'stpes'; did you mean 'steps'"),
        ({"every": 0}, "every = 0"),
    ):
        with pytest.raises(sk.BadInput, match=message):
            training.train(images, tmp_path, **{**RUN, **wrong})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(sk.BadInput, match="must be Images"):
        training.train(images.train, tmp_path)
    assert replace(training.Settings(), steps=7).steps == 7


def test_rate_rises_and_falls():
    settings = training.Settings(steps=1000, rate=0.01, warm_up=10)
    rates = [settings.rate_at(step) for step in range(1000)]
    assert rates[0] < 0.002
    assert max(rates) == pytest.approx(0.01, rel=1e-3)
    assert 0.0 < rates[-1] < 1e-6
    assert settings.forgetting_at(0) == 0.1
    assert settings.forgetting_at(10**6) == settings.averaging
