"""Training can be killed at any moment and ends with the same bits; what is damaged or different is refused in one line."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit.torch import checkpoint, training
from sdekit.torch.data import digits
from sdekit.torch.group import share
from sdekit.torch.levels import Importance
from sdekit.torch.losses import Classification, Denoising
from sdekit.torch.matching import Matching
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


def test_killed_again_and_again_and_resumed_is_bitwise_the_same(whole, images, tmp_path):
    """kill -9 before the first checkpoint, at one, and between two, in one folder; each time by a child of one program."""
    program = (
        "import os, signal, sys\n"
        "import torch\n"
        "from sdekit.torch import digits, train\n"
        "torch.set_num_threads(1)\n"
        "images = digits()\n"
        f"run = {RUN!r}\n"
        "for last in (2, 4, 6, 9):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        train(images, sys.argv[1], watch=lambda step, _: step == last and os.kill(os.getpid(), signal.SIGKILL), **run)\n"
        "    print(os.waitpid(child, 0)[1], open(sys.argv[1] + '/checkpoint.json').read().split('step\": ')[1][0] if last > 2 else 0)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, timeout=300, check=False, text=True)
    assert ended.stdout.split("\n")[:4] == [f"{int(signal.SIGKILL)} {step}" for step in (0, 4, 4, 8)], ended.stderr
    training.train(images, tmp_path, **RUN)
    assert weights(tmp_path) == weights(whole)


def test_killed_between_tensors_and_record_goes_on_from_the_checkpoint_before(whole, images, tmp_path, monkeypatch):
    def killed(path, record):
        if record["step"] == 8:
            raise Stopped
        return write_json(path, record)

    write_json = checkpoint.write_json
    monkeypatch.setattr(checkpoint, "write_json", killed)
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
    monkeypatch.setattr(Denoising, "error", lambda self, answer, drawn: torch.nan * answer.flatten(1).mean(1))
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
        ({"precision": "float16"}, "unknown precision 'float16'; did you mean"),
        ({"label_dropout": 1.5}, "label_dropout = 1.5 must lie in"),
        ({"label_dropout": 0.1, "loss": Classification(0.7, 10)}, "label_dropout goes with a denoiser, not with Classification"),
        ({"log_sigma": (0.0, 1.0), "loss": Denoising(0.7)}, "leave log_sigma out"),
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


@pytest.mark.parametrize("extra", ["psld", "classifier", "classes"])
def test_every_kind_of_network_is_trained_resumed_and_read(images, tmp_path, extra):
    psld = sk.catalogue.psld()
    changes = {
        "psld": {"loss": Matching(psld, images.spread, of="eps", weighting="likelihood", start="given", levels=Importance())},
        "classifier": {"loss": Classification(images.spread, 10)},
        "classes": {"label_dropout": 0.5},
    }[extra]
    run = {**RUN, **changes, "steps": 6}
    made = training.train(images, tmp_path / "whole", **run)
    with pytest.raises(Stopped):
        training.train(images, tmp_path / "cut", **run, watch=stop_at(5))
    training.train(images, tmp_path / "cut", **run)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    parameters = dict(made.network.named_parameters())
    if extra == "psld":
        assert (made.network.config.in_channels, made.network.config.out_channels) == (2, 2)
        assert sk.sample(psld, made, method=sk.methods.sscs(), grid=sk.grids.karras(3), n=2).status == ("ok", "ok")
        with pytest.raises(sk.BadInput, match="weighting = 'likelihood', this one has 'eps'"):
            training.train(images, tmp_path / "cut", **{**run, "loss": replace(run["loss"], weighting="eps")})
    elif extra == "classifier":
        assert torch.allclose(made(torch.zeros(2, 1, 8, 8), 0.5).exp().sum(1), torch.ones(2))
    else:
        assert len(parameters["class_embedding.weight"]) == 11
        assert not torch.equal(made.given(1)(torch.zeros(1, 1, 8, 8), 0.5), made(torch.zeros(1, 1, 8, 8), 0.5))


def test_label_dropout_trains_the_class_none(images, tmp_path):
    """Only rows of the embedding that were seen move; all labels left out move only the last."""
    moved = {}
    for dropped in (0.0, 1.0):
        made = training.train(images, tmp_path / str(dropped), **{**RUN, "steps": 2, "label_dropout": dropped})
        state = checkpoint.State(made.record["network"], 0, "cpu")
        moved[dropped] = (made.network.class_embedding.weight - state.network.class_embedding.weight).abs().amax(1) > 0.0
    assert not moved[0.0][-1]
    assert moved[0.0][:-1].any()
    assert moved[1.0].nonzero().tolist() == [[10]]


def test_low_precision_is_near_and_keeps_the_weights_whole(images, tmp_path):
    """bfloat16 in the network's products: the first loss within 2 %, the gradient another, the weights still float32."""
    losses = {}
    for precision in ("float32", "bfloat16"):
        found = []
        run = {**RUN, "steps": 2, "precision": precision}
        made = training.train(images, tmp_path / precision, **run, watch=lambda _, loss, to=found: to.append(loss))
        losses[precision] = found[0]
        assert made.dtype == torch.float32
    assert losses["float32"] != losses["bfloat16"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_two_processes_are_one_on_the_joint_batch(images, tmp_path):
    """torchrun's variables, Gloo: with dropout off the weights agree to rounding, while a part of the batch alone gives others."""
    quiet = {**RUN, "network": {**SMALL, "dropout": 0.0}, "steps": 3, "every": 2, "rate": 1e-4, "warm_up": 0}
    program = (
        f"import sys\nimport torch\nfrom sdekit.torch import digits, train\ntorch.set_num_threads(1)\ntrain(digits(), sys.argv[1], **{quiet!r})\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in (0, 1):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-c", program, str(tmp_path / "two")]
        started.append(subprocess.Popen(command, env={**os.environ, **place}, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    one = training.train(images, tmp_path / "one", **quiet)
    two, part = load(tmp_path / "two"), training.train(images, tmp_path / "part", **{**quiet, "batch": 2})
    start = checkpoint.State(one.record["network"], 0, "cpu").network

    def apart(a, b):
        pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
        return sum(float((left - right).square().sum()) for left, right in pairs) ** 0.5

    assert two.record["loss"] == pytest.approx(one.record["loss"], rel=1e-5)
    assert apart(two.network, one.network) < 0.02 * apart(one.network, start)
    assert apart(part.network, one.network) > 0.2 * apart(one.network, start)


def test_parts_of_a_batch():
    workers = [types.SimpleNamespace(rank=rank, size=3) for rank in range(3)]
    assert [share(6, worker) for worker in workers] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    with pytest.raises(sk.BadInput, match="batch = 4 must be a multiple of 3"):
        share(4, workers[0])


def test_tensorboard_writes_each_loss(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"sdekit\[tensorboard\]"):
        training.tensorboard(tmp_path)
    rows, library = [], types.ModuleType("torch.utils.tensorboard")

    class SummaryWriter:
        def __init__(self, folder):
            assert folder == str(tmp_path / "log")

        def add_scalar(self, *row):
            rows.append(row)

        def flush(self):
            pass

    library.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", library)
    training.train(images, tmp_path / "run", **{**RUN, "steps": 3}, watch=training.tensorboard(tmp_path / "log"))
    assert [(name, step) for name, _, step in rows] == [("loss", 1), ("loss", 2), ("loss", 3)]
    assert all(loss > 0.0 for _, loss, _ in rows)


def test_the_command_line_trains_on_folders_classes_and_states(tmp_path, capsys):
    from PIL import Image

    from sdekit.cli import main

    for i in range(6):
        (tmp_path / "photos" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 8, 3), 40 * i, np.uint8)).save(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png")
    common = ["--data", str(tmp_path / "photos"), "--size", "8", "--steps", "1", "--batch", "2", "--json"]
    assert main(["train", "edm", *common, "--classes", "--precision", "bfloat16", "-o", str(tmp_path / "classes")]) == 0
    made = load(tmp_path / "classes")
    assert (made.classes, made.shape, made.record["settings"]["precision"]) == (2, (3, 8, 8), "bfloat16")
    assert main(["train", "psld", "--native", "--param", "Gamma=0.02", *common, "-o", str(tmp_path / "psld")]) == 0
    assert load(tmp_path / "psld").process.compare(sk.catalogue.psld(Gamma=0.02)).same
    sample = ["--model", str(tmp_path / "psld"), "--method", "euler", "--steps", "2", "--n", "1", "--json", "-o", str(tmp_path / "out")]
    assert main(["sample", "psld", "--param", "Gamma=0.02", *sample]) == 0
    capsys.readouterr()
    assert main(["sample", "psld", *sample]) == 2
    assert "was trained on another psld" in capsys.readouterr().err


def test_a_run_that_starts_from_a_model_is_at_first_that_model(whole, images, tmp_path):
    """A class embedding of zeros changes nothing; with a rate of almost zero every class, and none, is denoised as by the model."""
    y = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    run = {**RUN, "steps": 1, "rate": 1e-12, "label_dropout": 0.5}
    made = training.train(images, tmp_path / "still", **run, start=whole)
    for label in (None, 3):
        assert torch.allclose(made.given(label)(y, 0.7), load(whole)(y, 0.7), atol=1e-6)
    assert made.record["start"] == {"model": whole.name, "sha256": weights(whole)}
    assert not torch.allclose(training.train(images, tmp_path / "anew", **run)(y, 0.7), load(whole)(y, 0.7), atol=1e-2)


def test_a_run_that_starts_from_a_model_is_resumed_as_such(whole, images, tmp_path):
    run = {**RUN, "label_dropout": 0.5, "start": whole}
    training.train(images, tmp_path / "once", **run)
    with pytest.raises(Stopped):
        training.train(images, tmp_path / "cut", **run, watch=stop_at(5))
    with pytest.raises(sk.BadInput, match="holds a run with model = 'whole0', this one has None"):
        training.train(images, tmp_path / "cut", **{**run, "start": None})
    training.train(images, tmp_path / "cut", **run)
    assert weights(tmp_path / "cut") == weights(tmp_path / "once")
    with pytest.raises(sk.BadInput, match=r"start = 'digits': its network has attention_head_dim = 16, this one has 4; they must be equal"):
        training.train(images, tmp_path / "other", **{**run, "start": "digits"})
    with pytest.raises(sk.BadInput, match="num_class_embeds = 11, this one has None"):
        training.train(images, tmp_path / "other", **RUN, start=tmp_path / "once")
