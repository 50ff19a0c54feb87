"""Sweeps: results by what they are of, kept over kills and failures, the same in one process and in several."""

import json

import numpy as np
import pytest

import sdekit as sk
from sdekit import BadInput, analysis
from sdekit.record import to_record
from sdekit.sweeps import sweep

CALLS = []


def w2(method, n, variance):
    CALLS.append(n)
    law = sk.law.Gaussian(0.0, variance)
    return {"w2": analysis.exact_law(sk.catalogue.vp(), method=method, grid=sk.grids.karras(n), data=law).w2, "n": np.arange(n)[:2]}


def root(x):
    if x == 3:
        raise KeyboardInterrupt
    if x < 0:
        raise ValueError("no root")
    return x**0.5


POINTS = [{"method": m, "n": n, "variance": 0.25} for m in (sk.methods.ddim(), sk.methods.heun()) for n in (5, 8)]


def test_results_are_found_again_by_what_they_are_of(tmp_path):
    CALLS.clear()
    rows = sweep(w2, POINTS, tmp_path)
    assert all(row.fresh and not row.error for row in rows)
    assert CALLS == [5, 8, 5, 8]
    again = sweep(w2, [*reversed(POINTS), {**POINTS[0], "variance": 0.3}], tmp_path)
    assert CALLS == [5, 8, 5, 8, 5]  # only the new point
    assert [row.result for row in reversed(again[:4])] == [row.result for row in rows]
    exact = analysis.exact_law(sk.catalogue.vp(), method=sk.methods.heun(), grid=sk.grids.karras(8), data=sk.law.Gaussian(0.0, 0.25)).w2
    assert rows[3].result == {"w2": exact, "n": [0, 1]}
    record = json.loads((tmp_path / f"{rows[3].key}.json").read_text())
    assert record["point"] == {"method": to_record(sk.methods.heun()), "n": 8, "variance": 0.25}


def test_a_killed_sweep_goes_on_and_a_failure_is_tried_again(tmp_path):
    seen = []
    with pytest.raises(KeyboardInterrupt):
        sweep(root, [{"x": 4}, {"x": -1}, {"x": 3}, {"x": 9}], tmp_path, watch=seen.append)
    assert [(row.result, row.error) for row in seen] == [(2.0, ""), (None, "ValueError: no root")]
    rows = sweep(root, [{"x": 4}, {"x": -1}, {"x": 9}], tmp_path)
    assert [(row.result, row.fresh) for row in rows] == [(2.0, False), (None, True), (3.0, True)]


def test_several_processes(tmp_path):
    pytest.importorskip("joblib")
    points = [{"x": float(x)} for x in (1, 4, 16)]
    rows = sweep(root, points, tmp_path, jobs=2)
    assert [row.result for row in rows] == [1.0, 2.0, 4.0]
    assert not any(row.fresh for row in sweep(root, points, tmp_path, jobs=2))


def test_bad_input(tmp_path):
    with pytest.raises(BadInput, match="equal"):
        sweep(root, [{"x": 1}, {"x": 1}], tmp_path)
    with pytest.raises(BadInput, match="cannot be written down"):
        sweep(root, [{"x": object()}], tmp_path)
    row = sweep(root, [{"x": 25}], tmp_path)[0]
    (tmp_path / f"{row.key}.json").write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        sweep(root, [{"x": 25}], tmp_path)
