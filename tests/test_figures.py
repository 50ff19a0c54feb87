"""Every figure of the papers: the quick form of each script keeps its claims, and so do the committed numbers."""

import json
import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from sdekit.solve import program

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
FIGURES = ROOT / "paper_figures"
SCRIPTS, LONG = sorted(FIGURES.glob("*/*.py")), sorted(FIGURES.glob("*/long/*.py"))


def name_of(path):
    """As ``python -m`` wants it."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def script(path):
    return import_module(name_of(path)).SCRIPT


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Small networks on a shared machine: more threads wait for each other."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_claims_of_the_quick_form(path, tmp_path):
    from paper_figures.common import broken

    if "digits" in path.stem:
        for library in ("torch", "diffusers", "sklearn"):
            pytest.importorskip(library)
    made = script(path)
    measured = made.main(["--quick", "--out", str(tmp_path)])
    assert made.claims
    assert not broken(measured, made.claims), measured
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"{path.stem}.{suffix}").stat().st_size > 5000
    assert measured == made.main(["--draw", "--out", str(tmp_path)])


@pytest.mark.parametrize("path", SCRIPTS + LONG, ids=name_of)
def test_committed_numbers(path):
    """They keep the claims, say how they came about, and the table of the paper names the script."""
    from paper_figures.common import broken

    record = json.loads((path.parent / "data" / f"{path.stem}.json").read_text("utf-8"))
    assert not broken(record["measured"], script(path).claims)
    assert record["command"] == f"python -m {name_of(path)}"
    _, paper, *name = name_of(path).split(".")
    text = (FIGURES / paper / "claims.md").read_text("utf-8")
    assert f"`{'.'.join(name)}`" in text or f"`long.{name[-1]}`" in text
    for suffix in ("png", "pdf"):
        assert path.with_suffix(f".{suffix}").exists()


@pytest.mark.parametrize("path", sorted(FIGURES.glob("*/configs/*.toml")), ids=lambda path: f"{path.parts[-3]}.{path.stem}")
def test_configurations_make_the_published_calls(path):
    """Each builds its sampler; its calls are those it speaks of: in its header, or nine more for three Runge-Kutta steps."""
    large_scale = import_module("paper_figures.large_scale")
    text = path.read_text("utf-8")
    process, plan = large_scale.build(tomllib.loads(text))
    if plan.control is not None:  # each sample has calls of its own
        assert (plan.control.rtol, plan.control.noise) == (float(re.findall(r"rtol (\d\.\d+)", text)[0]), "redraw")
        return
    calls = program(process, plan).nfe
    said = {int(number) for number in re.findall(r"(?<![\w.])(\d+) (?:calls|steps)", text)}
    assert calls in said | {number + 9 for number in said} | {number - 1 for number in said}, (calls, said)


@pytest.mark.parametrize("name", ["recipe/configs/cifar10_sde", "gotta_go_fast/configs/cifar10_ve_02"])
def test_dry_run(tmp_path, name):
    for library in ("torch", "diffusers"):
        pytest.importorskip(library)
    large_scale = import_module("paper_figures.large_scale")
    made = large_scale.main([str(FIGURES / f"{name}.toml"), "--dry-run", "--out", str(tmp_path)])
    assert made.shape == (8, 3, 32, 32)
    assert np.all(np.isfinite(made))
    assert len(np.unique(made[:, 0, 0, 0])) == 8


def test_a_broken_claim_is_seen():
    from paper_figures.common import broken

    claims = {"low": (0.0, 1.0), "missing": (0.0, 1.0), "nan": (0.0, 1.0), "fine": (0.0, 1.0)}
    assert broken({"low": -1e-9, "nan": float("nan"), "fine": 1.0}, claims) == ["low", "missing", "nan"]


def test_spreads_and_bars():
    from paper_figures.common import spreads, to_ends

    assert spreads({"one": [2.0], "two": [1.0, 3.0]}) == {"one": 2.0, "two": 2.0, "two_standard_error": 1.0}
    assert np.array_equal(to_ends(np.array([[1.0, 0.0], [5.0, 0.0], [6.0, 3.0]])), [[3.0, 1.0], [2.0, 2.0]])


def test_the_dearest_goes_first():
    run = import_module("paper_figures.all")
    assert run.cost("recipe.none") > run.cost("restart.toy") > run.cost("recipe.hsm") > 0.0
