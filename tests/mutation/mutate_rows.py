"""Break the rows of shipped methods at random and count how many breaks turn a test red.

    python tests/mutation/mutate_rows.py --count 200 --seed 0

A mutant flips the sign of one coefficient of one method, or scales it by 1.1, in the first step of every leg or in all later ones.  The tests that
are parametrised by the method run first; where they stay green, the other tests of methods run too.  Survivors are printed: each is a claim
that nobody checks.  The last line is ``killed K of N``; the exit code is 1 below 95 %.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from sdekit import BadInput, catalogue, grids, methods, plans, solve
from sdekit.methods import Method
from sdekit.tableau import Rows

ROOT = Path(__file__).parents[2]
FIRST = ["tests/order/test_orders.py", "tests/contract"]
ALL = [*FIRST, *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "tests").glob("test_*.py") if "methods" in p.read_text())]


@dataclass(frozen=True)
class Mutant:
    """One coefficient of one method, times a factor."""

    method: str
    start: bool
    part: int
    row: int
    column: int
    factor: float
    shape: tuple[int, ...]

    def of(self, rows: Rows) -> Rows:
        """The rows with the coefficient changed, if they have it."""
        parts = _parts(rows)
        if self.part >= len(parts) or parts[self.part].shape != self.shape:
            return rows
        changed = parts[self.part].copy()
        changed[self.row, self.column] *= self.factor
        asks = len(rows.asks)
        if self.part < asks:
            new = [ask._replace(argument=changed) if i == self.part else ask for i, ask in enumerate(rows.asks)]
            return replace(rows, asks=tuple(new))
        return replace(rows, **{("out", "keep")[self.part - asks]: changed})

    def __str__(self) -> str:
        where = "first step" if self.start else "later steps"
        return f"{self.method}: part {self.part}, row {self.row}, column {self.column} times {self.factor:g} in the {where}"


def _parts(rows: Rows) -> list[np.ndarray]:
    return [*(ask.argument for ask in rows.asks), rows.out, rows.keep]


def _forget() -> None:
    """Programs that were made with other rows."""
    for thing in vars(solve).values():
        if hasattr(thing, "cache_clear"):
            thing.cache_clear()


class Broken:
    """A plugin: the method's rows pass through the mutant, and only tests that may see it are kept."""

    def __init__(self, mutant: Mutant, everything: bool) -> None:
        self.mutant, self.everything = mutant, everything
        self.plain = Method.rows

    def pytest_configure(self) -> None:
        mutant, plain = self.mutant, self.plain

        def rows(self: Method, step: object) -> Rows:
            made = plain(self, step)
            hit = self.name == mutant.method and (step.i == 0) == mutant.start
            return mutant.of(made) if hit else made

        Method.rows = rows
        _forget()

    def pytest_unconfigure(self) -> None:
        Method.rows = self.plain
        _forget()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        def about(item: pytest.Item) -> bool:
            params = getattr(item, "callspec", None)
            return params is not None and any(getattr(v, "name", None) == self.mutant.method for v in params.params.values())

        if not self.everything:
            items[:] = [item for item in items if about(item)]


def mutants(count: int, seed: int) -> list[Mutant]:
    """Random mutants of random shipped methods, on a process of one or two blocks."""
    rng = np.random.default_rng(seed)
    shipped = [make() for make in methods.SHIPPED.values()]
    made: list[Mutant] = []
    while len(made) < count:
        method = shipped[rng.integers(len(shipped))]
        process = [catalogue.vp(), catalogue.psld()][rng.integers(2)]
        try:
            items = solve.program(process, plans.run(grids.logsnr(8, 0.1, 5.0), method)).items
        except BadInput:
            continue
        start = bool(rng.random() < 0.2)
        rows = items[0 if start else 6].move
        parts = _parts(rows)
        part = int(rng.integers(len(parts)))
        places = np.argwhere(parts[part] != 0.0)
        if len(places):
            row, column = places[rng.integers(len(places))]
            factor = -1.0 if rng.random() < 0.5 else 1.1
            made.append(Mutant(method.name, start, part, int(row), int(column), factor, parts[part].shape))
    return made


def red(mutant: Mutant) -> bool:
    """Whether a test fails."""
    for files, everything in ((FIRST, False), (ALL, True)):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            plugins = [Broken(mutant, everything)]
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *(str(ROOT / f) for f in files)], plugins=plugins)
        if code == pytest.ExitCode.TESTS_FAILED:
            return True
    return False


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="only print the mutants")
    chosen = parser.parse_args()
    killed, begin = 0, time.perf_counter()
    todo = mutants(chosen.count, chosen.seed)
    for i, mutant in enumerate(todo):
        if chosen.list:
            print(mutant)
            continue
        dead = red(mutant)
        killed += dead
        print(f"{i + 1:>4}/{len(todo)} {time.perf_counter() - begin:7.0f} s  {'killed  ' if dead else 'SURVIVED'}  {mutant}", flush=True)
    if not chosen.list:
        print(f"killed {killed} of {len(todo)}")
    return int(not chosen.list and killed < 0.95 * len(todo))


if __name__ == "__main__":
    sys.exit(main())
