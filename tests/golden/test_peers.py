"""The recorded numbers of diffusers and k-diffusion: against pndm.md, against their formulas written out here, and against each other."""

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sdekit.law import Mixture

PEERS = json.loads(Path(__file__).with_name("peers.json").read_text())
CASES = {(case["name"], case["law"]): case for case in PEERS["cases"]}
EULER = {"DDIM", "DPMSolverMultistep dpmsolver++ 1 midpoint", "EulerDiscrete", "euler"}
PLAIN = [name for name, law in CASES if law == "mixture" and name.split(",")[0] in EULER]


def model(case):
    law = PEERS["laws"][case["law"]]
    return Mixture(law["weights"], law["means"], np.square(law["stds"])).denoiser()


def held(name, law="mixture"):
    """A case with its states and normals as arrays."""
    case = CASES[name, law]
    return case, np.array(case["start"]), np.array(case["end"]), [np.array(draw) for draw in case["noise"] or ()]


# pndm.md 8, cases 3 (diffusers PNDM, leading) and 5 (DDIM, abar_end = 1), and the first of P1
@pytest.mark.parametrize(
    ("name", "law", "expected"),
    [
        ("PNDM prk 10", "mixture", (-1.299088, -0.978328, 0.604515, 1.078066, 1.501912)),
        ("PNDM prk 20", "mixture", (-1.349270, -0.985202, 0.571225, 1.098627, 1.536144)),
        ("PNDM prk 50", "mixture", (-1.358830, -0.983160, 0.572451, 1.099045, 1.537130)),
        ("PNDM plms 10", "mixture", (-1.297883, -0.978493, 0.604436, 1.077435, 1.501450)),
        ("PNDM plms 20", "mixture", (-1.349253, -0.985189, 0.571224, 1.098614, 1.536122)),
        ("PNDM prk 10", "gaussian", (-0.684090, -0.193263, 0.297564, 0.788392, 1.279219)),
        ("PNDM prk 20", "gaussian", (-0.702814, -0.202188, 0.298438, 0.799065, 1.299691)),
        ("DDIM leading 10", "mixture", (-1.179523, -0.890434, 0.573407, 0.986102, 1.304246)),
        ("DDIM trailing 20", "mixture", (-1.253162, -0.939828, 0.576991, 1.037520, 1.408700)),
        ("DDIM linspace 10", "mixture", (-1.228440, -0.884694, 0.530539, 0.996434, 1.362187)),
    ],
)
def test_the_cases_of_the_fact_sheet(name, law, expected):
    case = CASES[name, law]
    assert case["x_start"] == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert case["x_end"] == pytest.approx(expected, abs=2e-6)
    assert (case["faulty"] is None) == ("linspace" not in name)


def test_calls_are_those_of_the_fact_sheet():
    for n in (10, 20, 50):
        assert len(CASES[f"PNDM prk {n}", "mixture"]["calls"]) == n + 9
        assert len(CASES[f"PNDM plms {n}", "mixture"]["calls"]) == n + 1
    assert len(CASES["heun, karras 20 to the data", "mixture"]["calls"]) == 2 * 20 + 1
    assert all(math.isfinite(value) for case in PEERS["cases"] for value in case["end"])


@pytest.mark.parametrize("name", PLAIN)
def test_levels_and_states_by_euler_in_sigma(name):
    case, y, end, _ = held(name)
    D = model(case)
    for s, t in pairwise(case["levels"]):
        y = D(y, s) if t == 0.0 else y + (t - s) / s * (y - D(y, s))
    assert y == pytest.approx(end, rel=1e-12, abs=1e-12)
    if "x_end" in case:
        assert case["x_end"] == pytest.approx(end / math.sqrt(1.0 + case["levels"][-1] ** 2), rel=1e-13)


def down_up(s, t, eta=1.0):
    up = min(t, eta * math.sqrt(t * t * (s * s - t * t) / (s * s)))
    return math.sqrt(t * t - up * up), up


@pytest.mark.parametrize(
    ("name", "eta"), [("euler_ancestral, karras 20", 1.0), ("euler_ancestral eta=0.5, log 10", 0.5), ("DDIM eta=1, log 10", 1.0)]
)
def test_noise_of_ancestral_steps(name, eta):
    case, y, end, noise = held(name)
    D = model(case)
    for (s, t), xi in zip(pairwise(case["levels"]), noise, strict=True):
        down, up = down_up(s, t, eta)
        y = y + (down - s) / s * (y - D(y, s)) + up * xi
    assert y == pytest.approx(end, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("name", ["dpmpp_sde, karras 20", "DPMSolverSDE, log 10"])
def test_pieces_of_a_brownian_path(name):
    case, y, end, noise = held(name)
    D, path = model(case), dict(zip(map(tuple, case["pieces"]), noise, strict=True))

    def increment(s, t):
        inside = [(pair, xi) for pair, xi in path.items() if pair[0] <= s * (1 + 1e-9) and pair[1] >= t * (1 - 1e-9)]
        assert sum(high - low for (high, low), _ in inside) == pytest.approx(s - t)
        return sum(math.sqrt(high - low) * xi for (high, low), xi in inside) / math.sqrt(s - t)

    for s, t in pairwise(case["levels"]):
        middle = math.sqrt(s * t)
        old = D(y, s)
        down, up = down_up(s, middle)
        stage = down / s * y + (1.0 - down / s) * old + up * increment(s, middle)
        down, up = down_up(s, t)
        y = down / s * y + (1.0 - down / s) * D(stage, middle) + up * increment(s, t)
    assert y == pytest.approx(end, rel=1e-10, abs=1e-10)


def test_noise_of_churn():
    case, y, end, noise = held("heun churn, karras 20")
    D, told = model(case), case["options"]
    for (s, t), xi in zip(pairwise(case["levels"]), noise, strict=True):
        gamma = min(told["s_churn"] / 20, math.sqrt(2.0) - 1.0) if told["s_tmin"] <= s <= told["s_tmax"] else 0.0
        up = s * (1.0 + gamma)
        y = y + math.sqrt(up * up - s * s) * told["s_noise"] * xi
        d = (y - D(y, up)) / up
        z = y + (t - up) * d
        y = y + (t - up) * 0.5 * (d + (z - D(z, t)) / t)
    assert y == pytest.approx(end, rel=1e-11, abs=1e-11)


# pndm.md 8: identities, here between two libraries or two formulas
@pytest.mark.parametrize("grid", ["log 10", "karras 20"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HeunDiscrete", "heun"),
        ("KDPM2Discrete", "dpm_2"),
        ("LMSDiscrete", "lms"),
        ("DPMSolverMultistep dpmsolver++ 2 midpoint", "dpmpp_2m"),
        ("DPMSolverMultistep dpmsolver 2 heun", "DEISMultistep 2"),
        ("DPMSolverMultistep dpmsolver 1 midpoint", "DEISMultistep 1"),
        ("EulerAncestralDiscrete", "euler_ancestral"),
        ("KDPM2AncestralDiscrete", "dpm_2_ancestral"),
        ("DPMSolverMultistep sde-dpmsolver++ 2 midpoint", "dpmpp_2m_sde"),
        ("DPMSolverMultistep sde-dpmsolver++ 2 heun", "dpmpp_2m_sde heun"),
        ("DDPM", "DDIM eta=1"),
        ("EulerAncestralDiscrete", "DDIM eta=1"),
    ],
)
def test_what_is_the_same_is_the_same(one, other, grid):
    left, right = CASES[f"{one}, {grid}", "mixture"], CASES[f"{other}, {grid}", "mixture"]
    assert left["levels"] == right["levels"]
    assert left["end"] == pytest.approx(right["end"], rel=1e-9, abs=1e-9)


def test_nothing_of_this_machine_is_in_the_file():
    assert set(PEERS) == {"layout", "command", "versions", "laws", "cases"}
    assert PEERS["command"].startswith("python tests/golden/record.py --k-diffusion SAMPLING_PY --commit 4601bf0")
    assert len(CASES) == len(PEERS["cases"])
