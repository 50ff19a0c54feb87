"""The tables of claims say what the committed data say: each row names a script with bounds, its verdict is one of four, its numbers are measured.

A number in the columns "ours" and "verdict" is a measured one to the digits quoted, or a setting; after "below" or "within" it is a bound that the
script holds.  Code in backticks is not read, nor are exponents.
"""

import json
import math
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("torch")  # of some scripts
ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "paper_figures"
sys.path.insert(0, str(ROOT))
COLUMNS = ["claim", "paper", "ours", "verdict", "command"]
VERDICT = re.compile(r"(reproduced|sharpened|refuted|needs large-scale training)(?!\w)")
NUMBER = re.compile(r"(below |within )?(?<![\w.^+-])(-?\d+(?:\.\d+)?(?:e-?\d+)?)(?!\.?\w)( ?%)?")
LARGE_SCALE = "python -m paper_figures.large_scale"


def rows_of(text):
    """The rows of all tables with our columns, as dictionaries."""
    found, ours = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells == COLUMNS:
            ours = True
        elif not cells:
            ours = False
        elif ours and set(line) - set("|-"):
            found.append(dict(zip(COLUMNS, cells, strict=True)))
    return found


ROWS = [(path.parent.name, row) for path in sorted(FIGURES.glob("*/claims.md")) for row in rows_of(path.read_text("utf-8"))]
OURS = [(folder, row) for folder, row in ROWS if row["command"] != f"`{LARGE_SCALE}`"]
names = [f"{folder}-{row['claim'][:40]}" for folder, row in OURS]


def unit(text):
    """The last digit of a number as written."""
    mantissa, _, exponent = text.partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def near(value, text, percent):
    """Whether ``value`` is ``text`` to the digits quoted."""
    scale = 0.01 if percent else 1.0
    return abs(value - scale * float(text)) <= 0.5000001 * scale * unit(text)


def spoken(record):
    """Numbers of the settings: in their values, in the names of what is measured, and how many seeds."""
    text = json.dumps(record["settings"]) + " ".join(record["measured"])
    return {float(number) for number in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", text)} | {float(len(record["seeds"]))}


def records(folder, command):
    """The record of each script of a row."""
    for name in re.findall(r"`([\w.]+)`", command):
        path = FIGURES / folder / f"{name.replace('.', '/')}.py"
        assert path.exists(), f"{path} is not there"
        record = json.loads((path.parent / "data" / f"{path.stem}.json").read_text("utf-8"))
        yield record, import_module(f"paper_figures.{folder}.{name}").SCRIPT.claims


def unfounded(folder, row):
    """The numbers of a row that no script measured, bounds or was set to, and whether any of the others has bounds."""
    made, missing, bounded = list(records(folder, row["command"])), [], False
    assert made, "no script is named"
    for how, text, percent in NUMBER.findall(re.sub(r"`[^`]*`", "", f"{row['ours']}; {row['verdict']}")):
        if how:
            found = [bound for _, claims in made for pair in claims.values() for bound in pair if math.isfinite(bound) and near(bound, text, percent)]
            bounded |= bool(found)
        else:
            found = [name for record, _ in made for name, value in record["measured"].items() if near(value, text, percent)]
            bounded |= any(name in claims for name in found for _, claims in made)
            found = found or [number for record, _ in made for number in spoken(record) if near(number, text, percent)]
        if not found:
            missing.append(f"{how}{text}{percent}")
    return missing, bounded


@pytest.mark.parametrize(("folder", "row"), OURS, ids=names)
def test_numbers_are_those_of_the_data(folder, row):
    missing, bounded = unfounded(folder, row)
    assert not missing, f"{row['claim']}: not in the data: {', '.join(missing)}"
    assert bounded, f"{row['claim']}: none of its numbers has bounds"


@pytest.mark.parametrize("folder", ["gotta_go_fast", "pndm", "recipe", "restart"])
def test_verdicts_are_four(folder):
    verdicts = [row["verdict"] for own, row in ROWS if own == folder]
    assert len(verdicts) > 10
    assert [verdict for verdict in verdicts if not VERDICT.match(verdict)] == []


def test_what_needs_training_has_its_configuration():
    rows = [(folder, row["verdict"]) for folder, row in ROWS if row["command"] == f"`{LARGE_SCALE}`"]
    found = [(folder, name) for folder, verdict in rows for name in re.findall(r"`(configs/[^`]+)`", verdict)]
    assert {folder for folder, _ in found} >= {"gotta_go_fast", "pndm", "recipe", "restart"}
    assert [name for folder, name in found if not (FIGURES / folder / name).exists()] == []


def test_a_wrong_number_is_seen():
    row = {
        "claim": "",
        "verdict": "",
        "command": "`sigma_eff`",
        "ours": "levels 6.8e-4 and 0.0449 at Gamma = 0.25, slope 1.49, `7.77`, below 0.045, below 0.046",
    }
    assert unfounded("recipe", row) == (["0.0449", "1.49", "below 0.046"], True)
    row["ours"] = "at 7 %"
    assert unfounded("recipe", row) == (["7 %"], False)
