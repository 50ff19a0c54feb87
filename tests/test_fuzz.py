"""A few hundred of the specs of tests/fuzz/fuzz_specs.py, and that the fuzzer sees what it looks for."""

import os
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
import fuzz_specs as fuzz

from sdekit.spec import loads

WATCH = fuzz.Watch()
fuzz_only = pytest.mark.skipif(not hasattr(fuzz.signal, "setitimer"), reason="needs POSIX timers")


@pytest.fixture(autouse=True)
def alarms():
    before = [(s, fuzz.signal.getsignal(s)) for s in (fuzz.signal.SIGALRM, fuzz.signal.SIGPROF)]
    fuzz.alarm()
    yield
    for number, handler in before:
        fuzz.signal.signal(number, handler)


@fuzz_only
@pytest.mark.parametrize("part", range(4))
def test_specs_load_or_are_refused_in_one_line(part, tmp_path):
    stages = set()
    for number in range(100 * part, 100 * part + 100):
        found = fuzz.attempt(fuzz.spec(random.Random(f"ci/{number}")), tmp_path, WATCH, ("load",))
        assert not found.wrong, f"case {number} of seed ci: {found.wrong}"
        stages.add(found.stage)
    assert stages == {"load", "load BadInput"}


@fuzz_only
@pytest.mark.parametrize("kind", fuzz.CLOCKS, ids=lambda c: c[1][:12])
def test_good_specs_pass_all_stages(kind, tmp_path):
    text = fuzz.TEMPLATE.format(**{**fuzz.PLAIN, "kind": kind[0], "clock": kind[1], "H": '"x**2/2 + m**2/2"', "D": '[["1/2", "0"], ["0", "1"]]'})
    fuzz.sk.certify(loads(text))  # imports, which no limit of time is for
    found = fuzz.attempt(text.encode(), tmp_path, WATCH)
    assert (found.stage, found.wrong) == ("process", "")


def forever(path):
    while True:
        pass


@fuzz_only
@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda path: os.system("true"), "side effect: os.system"),
        (lambda path: path.with_name("other").write_text("x"), "side effect: open"),
        (lambda path: os.environ.update(SDEKIT_FUZZ="1"), "side effect: a file or the environment"),
        (lambda path: {}["x"], "KeyError in load"),
        (forever, "more than"),
        (None, "lines"),
        (lambda path: None, ""),
    ],
    ids=range(7),
)
def test_the_fuzzer_sees_what_it_looks_for(act, says, tmp_path, monkeypatch):
    def bad(path):
        if says == "lines":
            raise fuzz.sk.BadInput("two\nlines")
        return act(path)

    monkeypatch.setattr(fuzz, "load", bad)
    monkeypatch.setattr(fuzz, "LIMIT", 0.3)
    monkeypatch.setenv("SDEKIT_FUZZ", "0")
    found = fuzz.attempt(b"", tmp_path, WATCH, ("load",))
    assert says in found.wrong
    assert bool(found.wrong) == bool(says)
