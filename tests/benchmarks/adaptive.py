"""Adaptive runs: slots that are refilled against batches that wait, and ours against torchsde's and diffrax's adaptive solvers.

    python tests/benchmarks/adaptive.py [--json FILE] [--n N]

(1) The same samples, in slots that take the next one as soon as they are free, and in batches that wait for their slowest; with a model whose cost
is that of its batch, and one whose cost is flat (a GPU that is not full).  (2) The reverse SDE of VP on normal data of 16 elements, from the exact
law at T to time 0.001, by tolerance: calls of the score for each sample, seconds of the processor, and the strong error: the root mean square
distance to the exact solution on the run's own Brownian path, over the standard deviation at the end.  The drift is linear, so that this solution is
known from increments and areas over fine pieces of the path.  Calls and seconds at equal errors are read between tolerances.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np

import sdekit as sk
from sdekit.brownian import Cell, split
from sdekit.increments import Increments, Law
from sdekit.pieces import Pieces

D, VARIANCE, END = 16, 0.25, 1e-3
B0, B1 = 0.1, 20.0  # the clock of VP
VP = sk.catalogue.vp()
LAW = sk.law.Gaussian(np.zeros(D), VARIANCE)
GRID = sk.grids.times([1.0, END])
FINE = 2048  # pieces of the path for the peers' solutions
HALVINGS = 3  # of each of our steps
LEVELS = (0.04, 0.01, 0.003)  # errors at which solvers are compared
BASE = "sdekit, SRA1"


def beta(s: Any) -> Any:
    """The clock's rate at the time ``s`` that a reverse run has gone."""
    return B0 + (1.0 - s) * (B1 - B0)


def law(s: Any) -> tuple[Any, Any]:
    """Coefficient of the data and variance of an element there."""
    t = 1.0 - s
    square = B0 * t + 0.5 * (B1 - B0) * t * t
    return np.exp(-0.5 * square), VARIANCE * np.exp(-square) - np.expm1(-square)


def follow(x: Any, s: Any, h: Any, cell: Cell) -> Any:
    """The exact solution over [s, s + h] but for terms of the path beyond its increment and area: ``int w dW = mean(w) W - slope(w) h H``."""
    end_scale, end = law(s + h)

    def gain(u: Any) -> Any:
        scale, variance = law(u)
        return scale / end_scale * end / variance

    first, middle, last = (gain(u) * np.sqrt(beta(u)) for u in (s, s + 0.5 * h, s + h))
    return gain(s) * x + (first + 4.0 * middle + last) / 6.0 * cell.W - (last - first) * cell.H


def row(name: str, tolerance: float, run: Callable[[], tuple[Any, float]], error: Callable[[Any], float]) -> dict[str, Any]:
    """Error, calls and the processor's seconds, the least of three runs after one that warms up."""
    run()
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        x, calls = run()
        seconds.append(time.process_time() - begin)
    found = error(x) / float(np.sqrt(law(1.0 - END)[1]))
    print(f"  {name:<24} tol {tolerance:<6g} strong error {found:8.5f}   {calls:7.1f} calls   {min(seconds):7.2f} s", flush=True)
    return {"solver": name, "tolerance": tolerance, "error": found, "calls": calls, "seconds": min(seconds)}


def distance(x: Any, y: Any) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean((np.asarray(x, float) - np.asarray(y, float)) ** 2)))


class Recorded(Pieces):
    """Pieces of paths that write down what accepted steps saw: ids, lengths, increments and areas."""

    log: ClassVar[list[tuple[Any, Any, Any, Any]]] = []

    def __init__(self, noise: Any, ids: Any, shape: Any, law: Law, reference: Any, **place: Any) -> None:
        super().__init__(noise, ids, shape, Increments(law.channels, areas=True), reference, **place)
        self._wanted = law.kinds * law.channels

    def plan(self, nodes: Any, load: Any) -> None:
        """Remember the lengths."""
        super().plan(nodes, load)
        self._asked = self.ids.copy(), nodes[0] - nodes[-1]

    def made(self) -> list[Any]:
        """The increments, and the areas if they are asked for."""
        found = super().made()
        root = np.sqrt(self._asked[1])[:, None]
        self._seen = (*self._asked, root * found[0], root / np.sqrt(12.0) * found[1])
        return found[: self._wanted]

    def settle(self, accepted: Any) -> None:
        """Write the accepted steps down."""
        self.log.append(tuple(part[accepted] for part in self._seen))  # type: ignore[arg-type]
        super().settle(accepted)


def on_its_path(start: Any) -> Any:
    """The solution on the recorded paths: each step in eighths, which are drawn by their exact law."""
    x, s, rng = start.copy(), np.zeros(len(start)), np.random.default_rng(0)
    for who, h, W, H in Recorded.log:
        parts = [(h[:, None], Cell(W, H))]
        for _ in range(HALVINGS):
            halves = [(0.5 * length, split(cell, 0.5 * length, 0.5 * length, rng.standard_normal((2, *W.shape)))) for length, cell in parts]
            parts = [(length, cell) for length, pair in halves for cell in pair]
        for length, cell in parts:
            x[who] = follow(x[who], s[who, None], length, cell)
            s[who] += length[:, 0]
    if not np.allclose(s, 1.0 - END):
        raise RuntimeError("the recorded steps do not reach the end")
    return x


def ours(n: int) -> list[dict[str, Any]]:
    """The default pair on a path, and SRA1."""
    rows, begin = [], np.sqrt(law(0.0)[1]) * np.random.default_rng(1).standard_normal((1, n, D))
    for name, make in (
        ("sdekit, improved Euler", lambda tol: sk.control.gotta_go_fast(rtol=tol, atol=tol / 5.0)),
        (BASE, lambda tol: sk.control.adaptive(sk.methods.sra(), rtol=tol, atol=tol / 5.0)),
    ):
        for tolerance in (0.3, 0.1, 0.03, 0.01):
            control = make(tolerance)

            def run(control: Any = control) -> tuple[Any, float]:
                made = sk.sample(VP, LAW.denoiser(), control=control, grid=GRID, n=n, start=(begin, 1.0), batch=n)
                return made.x, float(made.nfe.mean())

            def error(x: Any, run: Any = run, same: bool = name == BASE) -> float:
                Recorded.log.clear()
                with mock.patch("sdekit.adaptive.Pieces", Recorded):
                    again = run()[0]
                if same and not np.array_equal(again, x):  # without areas the same seed has other increments
                    raise RuntimeError("the recorded run is another one")
                return distance(again, on_its_path(begin[0]))

            rows.append(row(name, tolerance, run, error))
    return rows


def on_fine_pieces(start: Any, cells: Callable[[float, float], Cell]) -> Any:
    """The solution on a path that can be asked over any interval."""
    grid = np.linspace(0.0, 1.0 - END, FINE + 1)
    for s, u in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
        start = follow(start, s, u - s, cells(s, u))
    return start


def by_torchsde(n: int) -> list[dict[str, Any]]:
    """Additive noise, SRK with step doubling; one step for the whole batch."""
    import torch
    import torchsde

    class Reverse(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def f(self, s: Any, y: Any) -> Any:
            self.calls += 1
            return beta(float(s)) * (0.5 - 1.0 / law(float(s))[1]) * y

        def g(self, s: Any, y: Any) -> Any:
            return torch.full_like(y, beta(float(s)) ** 0.5)

    rows, ends = [], torch.tensor([0.0, 1.0 - END], dtype=torch.float64)
    begin = law(0.0)[1] ** 0.5 * torch.randn(n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for tolerance in (0.3, 0.1, 0.03, 0.01, 0.003):
        paths = []

        def run(tolerance: float = tolerance, paths: list[Any] = paths) -> tuple[Any, float]:
            sde = Reverse()
            path = torchsde.BrownianInterval(0.0, 1.0 - END, (n, D), torch.float64, entropy=0, levy_area_approximation="space-time")
            paths.append(path)
            tolerances = {"rtol": tolerance, "atol": tolerance / 5.0, "dt_min": 1e-6}
            made = torchsde.sdeint(sde, begin, ends, bm=path, method="srk", dt=1e-2, adaptive=True, **tolerances)
            return made[-1].numpy(), float(sde.calls)

        def error(x: Any, paths: list[Any] = paths) -> float:
            def cells(s: float, u: float) -> Cell:
                W, U = (part.numpy() for part in paths[-1](s, u, return_U=True))  # the path that the run has seen, asked once more
                return Cell(W, U / (u - s) - 0.5 * W)

            return distance(x, on_fine_pieces(begin.numpy(), cells))

        rows.append(row("torchsde, srk", tolerance, run, error))
    return rows


def by_diffrax(n: int) -> list[dict[str, Any]]:
    """ShARK and SRA1 on a virtual Brownian tree, with the step-size control that its authors advise for SDEs."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def spread(s: Any) -> Any:
        t = 1.0 - s
        B = B0 * t + 0.5 * (B1 - B0) * t * t
        return jnp.exp(-B) * VARIANCE - jnp.expm1(-B)

    def tree(key: Any) -> Any:
        return diffrax.VirtualBrownianTree(0.0, 1.0 - END, tol=2.0**-16, shape=(D,), key=key, levy_area=diffrax.SpaceTimeLevyArea)

    keys = jax.random.split(jax.random.key(0), n)
    begin = jax.random.normal(jax.random.key(1), (n, D)) * law(0.0)[1] ** 0.5
    asked = jax.jit(jax.vmap(lambda key, s, u: tree(key).evaluate(s, u, use_levy=True), (0, None, None)))

    def cells(s: float, u: float) -> Cell:
        found = asked(keys, s, u)
        return Cell(np.asarray(found.W), np.asarray(found.H))

    rows, exact = [], on_fine_pieces(np.asarray(begin), cells)
    for name, solver, stages in (("diffrax, ShARK", diffrax.ShARK(), 2), ("diffrax, SRA1", diffrax.SRA1(), 2)):
        for tolerance in (0.3, 0.1, 0.03, 0.01):

            def one(key: Any, start: Any, solver: Any = solver, tolerance: float = tolerance) -> Any:
                drift = diffrax.ODETerm(lambda s, y, _: beta(s) * (0.5 - 1.0 / spread(s)) * y)
                noise = diffrax.ControlTerm(lambda s, _, __: jnp.sqrt(beta(s)) * jnp.eye(D), tree(key))
                made = diffrax.diffeqsolve(
                    diffrax.MultiTerm(drift, noise), solver, 0.0, 1.0 - END, 1e-2, start, adjoint=diffrax.DirectAdjoint(), max_steps=4096,
                    stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance / 5.0, pcoeff=0.1, icoeff=0.3, dtmin=1e-5),
                )  # fmt: skip
                return made.ys[-1], made.stats["num_steps"]

            solve = jax.jit(jax.vmap(one))

            def run(solve: Any = solve, stages: int = stages) -> tuple[Any, float]:
                x, steps = solve(keys, begin)
                return np.asarray(x), stages * float(np.mean(np.asarray(steps)))

            rows.append(row(name, tolerance, run, lambda x: distance(x, exact)))
    return rows


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls and seconds of each solver at equal errors, on straight lines between logarithms, and over those of our SRA1."""
    made: list[dict[str, Any]] = []
    base: dict[str, float] = {}
    for level in LEVELS:
        for name in sorted({row["solver"] for row in rows}, key=lambda name: (name != BASE, name)):
            mine = sorted((row["error"], row["calls"], row["seconds"]) for row in rows if row["solver"] == name)
            errors, calls, seconds = np.log(np.array(mine)).T
            if not errors[0] <= np.log(level) <= errors[-1]:
                print(f"  error {level:<6g} {name:<24} outside of the tolerances")
                continue
            found = {what: float(np.exp(np.interp(np.log(level), errors, value))) for what, value in (("calls", calls), ("seconds", seconds))}
            base = found if name == BASE else base
            made.append({"error": level, "solver": name, **found, **{f"{what} over {BASE}": found[what] / base[what] for what in found}})
            print(
                f"  error {level:<6g} {name:<24} {found['calls']:7.1f} calls ({found['calls'] / base['calls']:5.2f})   "
                f"{found['seconds']:7.2f} s ({found['seconds'] / base['seconds']:5.2f})"
            )
    return made


def slots(n: int, batch: int) -> list[dict[str, Any]]:
    """Refilled against waiting, for a cost that follows the batch and one that does not: 0.2 ms a sample, charged, beside the run's own seconds."""
    law = sk.law.Mixture([0.5, 0.5], [np.full(4, -1.0), np.full(4, 0.7)], [np.full(4, 1e-3), np.full(4, 0.25)])
    control, runs, own, rows = sk.control.gotta_go_fast(rtol=0.02), {}, {}, []
    for refill in (True, False):
        begin = time.process_time()
        runs[refill] = sk.sample(VP, law.denoiser(), control=dataclasses.replace(control, refill=refill), n=n, batch=batch)
        own[refill] = time.process_time() - begin
    one, two = runs[True], runs[False]
    assert np.array_equal(one.x, two.x)
    assert int(one.adapted.calls.sum()) == int(one.nfe.sum()) == int(two.nfe.sum())
    spread = {"mean": float(one.nfe.mean()), "max": int(one.nfe.max())}
    for cost in ("of the batch", "flat"):
        charged = {
            refill: 2e-4 * float(np.sum(run.adapted.calls if cost[0] == "o" else batch * len(run.adapted.calls))) for refill, run in runs.items()
        }
        ratio = charged[False] / charged[True]
        rows.append({"cost": cost, "model s": list(charged.values()), "own s": list(own.values()), "ratio": ratio, "calls": spread,
                     "batches": [len(one.adapted.calls), len(two.adapted.calls)]})  # fmt: skip
        print(f"  cost {cost:<13} waiting / refilled {ratio:5.2f}   model batches {len(one.adapted.calls)} against {len(two.adapted.calls)}")
    return rows


def main() -> None:
    """Run, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--n", type=int, default=500)
    chosen = parser.parse_args()
    found: dict[str, Any] = {"slots": slots(200, 20)}
    rows = ours(chosen.n)
    for run in (by_torchsde, by_diffrax):
        try:
            rows += run(chosen.n)
        except ImportError as error:
            print(f"{error}: left out")
    equal = compared(rows)
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "sdekit", "torchsde", "diffrax") if _there(name)}
    if chosen.json:
        record = {
            "n": chosen.n,
            **found,
            "solvers": rows,
            "equal errors": equal,
            "versions": versions,
            "machine": platform.platform(),
        }
        chosen.json.write_text(json.dumps(record, indent=1) + "\n")


def _there(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
