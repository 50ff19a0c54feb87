"""Sampling into a folder: the same numbers as in memory, a kill loses nothing that was listed, damage is seen, another run is refused."""

import json

import numpy as np
import pytest

from sdekit import BadInput, grids, methods, plans, sample
from sdekit.catalogue import psld, vp
from sdekit.law import Mixture
from sdekit.runs import load_samples, sample_to

pytest.importorskip("safetensors")

LAW = Mixture([0.3, 0.7], [[-1.0, 0.2], [0.8, -0.4]], [[0.0625, 0.3], [0.16, 0.05]])
PLAN = plans.run(grids.karras(6), methods.euler_maruyama())
PSLD = psld()


HOSTILE = [
    json.dumps({"format": "sdekit.samples/1", "run": [], "shards": shards}) for shards in (None, [1], {"../x": {"n": 1, "sha256": ""}}, {"x": 1})
]


def to(out, n=10, process=PSLD, plan=PLAN, **options):
    return sample_to(out, process, LAW.denoiser(), plan, n=n, shard=4, **options)


def files(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_shards_hold_what_sample_gives(tmp_path):
    manifest = to(tmp_path, seed=5)
    assert [entry["n"] for entry in manifest["shards"].values()] == [4, 4, 2]
    np.testing.assert_array_equal(load_samples(tmp_path), sample(PSLD, LAW.denoiser(), plan=PLAN, n=10, seed=5).x)
    assert manifest["run"]["nfe"] == 6
    assert json.loads((tmp_path / "manifest.json").read_text()) == manifest


@pytest.mark.parametrize("at", [0, 3, 7, 15])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, at):
    """Killed in the first, second and third shard: what was listed is not drawn again."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    to(whole)
    calls = []

    def kill(first, event):
        calls.append(first)
        if len(calls) > at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        to(killed, watch=kill)
    listed = json.loads((killed / "manifest.json").read_text())["shards"]
    before = {name: (killed / name).stat().st_mtime_ns for name in listed}
    drawn = []
    to(killed, watch=lambda first, event: drawn.append(first))
    assert files(killed) == files(whole)
    assert {name: (killed / name).stat().st_mtime_ns for name in before} == before
    assert min(drawn) == 4 * len(before)


def test_more_samples_keep_the_first_ones(tmp_path):
    to(tmp_path, n=8)
    first, drawn = load_samples(tmp_path), []
    to(tmp_path, n=12, watch=lambda at, event: drawn.append(at))
    assert set(drawn) == {8}
    np.testing.assert_array_equal(load_samples(tmp_path)[:8], first)
    assert len(load_samples(tmp_path)) == 12


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1]), None], ids=["cut", "bit", "gone"])
def test_a_damaged_shard_is_refused_and_drawn_again(tmp_path, damage):
    to(tmp_path)
    before = files(tmp_path)
    path = tmp_path / "samples-0000004.safetensors"
    path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match="samples-0000004"):
        load_samples(tmp_path)
    drawn = []
    to(tmp_path, watch=lambda first, event: drawn.append(first))
    assert set(drawn) == {4}
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "seed was 0, now 1"),
        ({"plan": plans.run(grids.karras(6), methods.euler())}, "method was"),
        ({"plan": plans.run(grids.karras(7), methods.euler_maruyama())}, "grid was"),
        ({"process": vp()}, "process was"),
        ({"settings": {"model": "other"}}, "model was"),
    ],
)
def test_another_run_is_refused(tmp_path, change, says):
    to(tmp_path)
    before = files(tmp_path)
    with pytest.raises(BadInput, match=says):
        to(tmp_path, **change)
    assert files(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other"}', "[" * 100_000, *HOSTILE])
def test_a_damaged_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    for act in (to, load_samples):
        with pytest.raises(BadInput, match=r"manifest|another run"):
            act(tmp_path)
    assert (tmp_path / "manifest.json").read_text() == text


def test_samples_that_are_not_finite_are_listed(tmp_path):
    def broken(y, sigma):
        return np.where(np.arange(len(y))[:, None] == 1, np.nan, LAW.denoiser()(y, sigma))

    broken.shape = (2,)
    manifest = sample_to(tmp_path, PSLD, broken, PLAN, n=3, shard=2)
    assert [entry["nonfinite"] for entry in manifest["shards"].values()] == [[1], []]
