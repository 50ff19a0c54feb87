"""The command line: results, --json, exit codes, one-line errors, nothing half-written."""

import json
import subprocess
import sys

import numpy as np
import pytest

import sdekit as sk
from sdekit import analysis, catalogue
from sdekit.cli import main
from sdekit.record import from_record

COMMANDS = ["list", "certify", "kernel", "sample", "compare", "order", "train", "report", "audit", "tune"]
FALSE = """
name = "wrong"
state = ["x", "m"]
[recipe]
H = "x**2/2 + m**2/2"
D = [["0", "0"], ["0", "1"]]
drift = ["m", "-x - 2*m"]
"""


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def data(capsys, *arguments):
    code, out, _ = run(capsys, *arguments, "--json")
    return code, json.loads(out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"Example: sdekit {command}" in out


def test_list(capsys):
    assert data(capsys, "list", "processes") == (0, {"processes": catalogue.names()})
    code, found = data(capsys, "list", "methods")
    assert code == 0
    assert {"euler", "heun", "exponential3", "ddim"} <= set(found["methods"])
    found = set(data(capsys, "list", "grids")[1]["grids"])
    assert found >= {"karras", "logsnr", "uniform", "quadratic", "polyexponential", "arctan", "beta", "vp", "ays", "cosine"}


def test_certify(capsys, tmp_path):
    code, found = data(capsys, "certify", "psld")
    assert code == 0
    assert found["claims"]["stationary"]["verdict"] == "PROVED"
    spec = tmp_path / "wrong.toml"
    spec.write_text(FALSE)
    code, found = data(capsys, "certify", spec)
    assert code == 1
    assert found["false"] == ["stationary"]
    assert found["claims"]["stationary"]["witness"]
    code, out, err = run(capsys, "kernel", spec, "--t", "0.5")
    assert (code, out) == (1, "")
    assert err.startswith("error: recipe 'wrong' is false, stationary is REFUTED")


def test_kernel(capsys):
    code, found = data(capsys, "kernel", "psld", "--t", "0.1")
    assert code == 0
    assert found["sigma_eff"] == pytest.approx(0.4205733970240, rel=1e-12)
    assert found["cov"][0][1] == pytest.approx(0.1288251061068, rel=1e-12)
    assert data(capsys, "kernel", "psld", "--t", "1e-3", "-p", "Gamma=0.25")[1]["sigma_eff"] == pytest.approx(4.4748921e-2, rel=1e-7)


def test_order(capsys):
    code, found = data(capsys, "order", "heun", "--process", "vp")
    assert code == 0
    assert found["verdict"] == "confirmed"
    assert found["order"] == pytest.approx(2.0, abs=0.05)


def test_compare(capsys):
    code, found = data(capsys, "compare", "edm", "--methods", "heun", "--nfe", "35,71")
    assert code == 0
    # restart.md A2: output variances .278388 and .256134
    for cell, variance in zip(found["cells"], (0.278388, 0.256134), strict=True):
        assert cell["w2"] == pytest.approx(variance**0.5 - 0.5, abs=1e-6)
        assert cell["exact"] is True


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["certify", "plsd"], "did you mean 'psld'"),
        (["certify", "nothing.toml"], "cannot read the spec file"),
        (["kernel", "psld"], "Missing option '--t'"),
        (["kernel", "psld", "--t", "2"], "must lie in [0, 1]"),
        (["kernel", "psld", "--t", "nan"], "must lie in [0, 1]"),
        (["kernel", "psld", "--t", "0.1", "-p", "Gama=1"], "did you mean 'Gamma'"),
        (["kernel", "psld", "--t", "0.1", "-p", "Gamma"], "NAME=NUMBER"),
        (["kernel", "psld", "--t", "0.1", "-p", "M=-1"], "must be positive"),
        (["order", "huen"], "did you mean 'heun'"),
        (["compare", "vp", "--methods", "heun,eulr"], "did you mean 'euler'"),
        (["compare", "vp", "--nfe", "ten"], "whole numbers"),
        (["compare", "vp", "--methods", "heun", "--nfe", "0"], "nfe = 0"),
        (["compare", "vp", "--data", "dogs"], "unknown data 'dogs'"),
        (["sample", "vp", "--method", "pnmd"], "unknown method 'pnmd'"),
        (["sample", "vp", "--grid", "karas"], "did you mean 'karras'"),
        (["sample", "vp", "--steps", "0"], "--steps"),
        (["train", "psld"], "trained once"),
        (["train", "edm", "--data", "digit"], "did you mean 'digits'"),
        (["list", "proceses"], "did you mean 'processes'"),
        (["certfy", "psld"], "certfy"),
        (["certify", "psld", "--jsn"], "--jsn"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, arguments, says):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize("command", [["sample", "vp"], ["report", "vp"], ["train", "edm"]])
def test_a_folder_that_cannot_be_made_is_refused_before_any_work(capsys, tmp_path, command):
    (tmp_path / "file").write_text("in the way")
    code, _, err = run(capsys, *command, "-o", tmp_path / "file" / "out")
    assert code == 2
    assert "cannot be written" in err
    assert err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.images
def test_sample_writes_samples_a_picture_and_a_manifest(capsys, tmp_path):
    from PIL import Image

    from sdekit.runs import load_samples

    for process in ("psld", "vp"):
        out = tmp_path / process
        code, found = data(capsys, "sample", process, "--model", "digits", "--steps", "8", "--n", "5", "-o", out)
        assert code == 0
        assert found == {"out": str(out), "n": 5, "nfe": 8, "grid": str(out / "grid.png"), "nonfinite": 0}
        assert sorted(path.name for path in out.iterdir()) == ["grid.png", "manifest.json", "samples-0000000.safetensors"]
        x = load_samples(out)
        assert x.shape == (5, 1, 8, 8)
        picture = np.asarray(Image.open(out / "grid.png").convert("L"), float) / 255.0
        assert abs(picture.max() - np.clip(x.max() / 2 + 0.5, 0, 1)) < 0.01
    code, _, err = run(capsys, "sample", "vp", "--steps", "9", "--n", "5", "-o", tmp_path / "vp")
    assert code == 2
    assert "holds another run" in err


@pytest.mark.images
def test_train_goes_on_and_its_model_samples(capsys, tmp_path):
    made = tmp_path / "model"
    code, first = data(capsys, "train", "edm", "--steps", "2", "-o", made)
    assert code == 0
    assert data(capsys, "train", "edm", "--steps", "2", "-o", made) == (0, first)  # nothing was left to do
    code, _, err = run(capsys, "train", "edm", "--steps", "3", "-o", made)
    assert code == 2
    assert "steps = 2" in err
    assert data(capsys, "sample", "vp", "--model", made, "--steps", "2", "--n", "1", "-o", tmp_path / "out")[0] == 0
    with (made / "model.safetensors").open("ab") as file:
        file.write(b"x")
    code, _, err = run(capsys, "sample", "vp", "--model", made, "--n", "1", "-o", tmp_path / "none")
    assert code == 2
    assert "truncated or changed" in err
    assert not (tmp_path / "none").exists()


def test_the_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "sdekit", "list"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "psld" in done.stdout.split()


def test_tune_restart_prints_a_plan_that_runs(capsys):
    command = ["tune", "restart", "edm", "--nfe", "13", "--data", "gaussian", "--covariance", "0.8", "--json"]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    law = sk.law.Gaussian(0.0, 0.25)
    plan = from_record(told["plan"])
    model = sk.law.Gaussian(0.0, 0.2)
    exact = analysis.exact_law(sk.catalogue.edm(), plan=plan, data=law, model=model)
    assert exact.nfe == told["nfe"] <= 13
    assert exact.w2 == pytest.approx(told["error"], rel=1e-6, abs=1e-9)
    assert main(["tune", "everything", "edm"]) == 2
    assert "subject of tune" in capsys.readouterr().err
