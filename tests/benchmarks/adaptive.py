"""Adaptive runs: slots that are refilled against batches that wait, and ours against torchsde's and diffrax's adaptive solvers.

    python tests/benchmarks/adaptive.py [--json FILE] [--n N]

(1) The same samples, in slots that take the next one as soon as they are free, and in batches that wait for their slowest; with a model whose cost
is that of its batch, and one whose cost is flat (a GPU that is not full).  (2) The reverse SDE of VP on normal data of 16 elements, from the exact
law at T to time 0.001: relative error of the variance (its Monte-Carlo floor is printed), calls of the score for each sample, seconds, by
tolerance.
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
from typing import Any

import numpy as np

import sdekit as sk

D, VARIANCE, END = 16, 0.25, 1e-3
B0, B1 = 0.1, 20.0  # the clock of VP
VP = sk.catalogue.vp()
LAW = sk.law.Gaussian(np.zeros(D), VARIANCE)
GRID = sk.grids.times([1.0, END])
TOLERANCES = (0.1, 0.03, 0.01)


def exact(t: float) -> float:
    """Variance of an element at time t."""
    kernel = VP.kernel(t)
    return float(kernel.psi[0] ** 2 * VARIANCE + kernel.cov[0, 0])


def row(name: str, tolerance: float, run: Callable[[], tuple[Any, float]]) -> dict[str, Any]:
    """Error, calls and seconds of one run after one that warms up."""
    run()
    begin = time.perf_counter()
    x, calls = run()
    seconds = time.perf_counter() - begin
    error = float(np.mean(np.asarray(x, float) ** 2) / exact(END) - 1.0)
    print(f"  {name:<28} tol {tolerance:<6g} error {error:+8.4f}   {calls:7.1f} calls   {seconds:7.2f} s", flush=True)
    return {"solver": name, "tolerance": tolerance, "error": error, "calls": calls, "seconds": seconds}


def ours(n: int) -> list[dict[str, Any]]:
    """The default pair on a path, and SRA1."""
    rows = []
    for name, make in (
        ("sdekit, improved Euler", lambda tol: sk.control.gotta_go_fast(rtol=tol, atol=tol / 5.0)),
        ("sdekit, SRA1", lambda tol: sk.control.adaptive(sk.methods.sra(), rtol=tol, atol=tol / 5.0)),
    ):
        for tolerance in TOLERANCES:
            control = make(tolerance)

            def run(control: Any = control) -> tuple[Any, float]:
                made = sk.sample(VP, LAW.denoiser(), control=control, grid=GRID, n=n, start=LAW, batch=n)
                return made.x, float(made.nfe.mean())

            rows.append(row(name, tolerance, run))
    return rows


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
            t = 1.0 - float(s)
            beta = B0 + t * (B1 - B0)
            return 0.5 * beta * y - beta * y / exact(t)

        def g(self, s: Any, y: Any) -> Any:
            return torch.full_like(y, (B0 + (1.0 - float(s)) * (B1 - B0)) ** 0.5)

    rows = []
    for tolerance in TOLERANCES:

        def run(tolerance: float = tolerance) -> tuple[Any, float]:
            sde = Reverse()
            start = torch.randn(n, D, dtype=torch.float64) * exact(1.0) ** 0.5
            ends = torch.tensor([0.0, 1.0 - END], dtype=torch.float64)
            made = torchsde.sdeint(sde, start, ends, method="srk", dt=1e-2, adaptive=True, rtol=tolerance, atol=tolerance / 5.0, dt_min=1e-6)
            return made[-1].numpy(), float(sde.calls)

        rows.append(row("torchsde, srk", tolerance, run))
    return rows


def by_diffrax(n: int) -> list[dict[str, Any]]:
    """ShARK and SRA1 on a virtual Brownian tree, with the step-size control that its authors advise for SDEs."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def beta(t: Any) -> Any:
        return B0 + t * (B1 - B0)

    def spread(t: Any) -> Any:
        B = B0 * t + 0.5 * (B1 - B0) * t * t
        return jnp.exp(-B) * VARIANCE - jnp.expm1(-B)

    rows = []
    for name, solver, stages in (("diffrax, ShARK", diffrax.ShARK(), 2), ("diffrax, SRA1", diffrax.SRA1(), 2)):
        for tolerance in TOLERANCES:

            def one(key: Any, start: Any, solver: Any = solver, tolerance: float = tolerance) -> Any:
                path = diffrax.VirtualBrownianTree(0.0, 1.0 - END, tol=2.0**-16, shape=(D,), key=key, levy_area=diffrax.SpaceTimeLevyArea)
                drift = diffrax.ODETerm(lambda s, y, _: 0.5 * beta(1.0 - s) * y - beta(1.0 - s) * y / spread(1.0 - s))
                noise = diffrax.ControlTerm(lambda s, _, __: jnp.sqrt(beta(1.0 - s)) * jnp.eye(D), path)
                made = diffrax.diffeqsolve(
                    diffrax.MultiTerm(drift, noise), solver, 0.0, 1.0 - END, 1e-2, start, adjoint=diffrax.DirectAdjoint(), max_steps=4096,
                    stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance / 5.0, pcoeff=0.1, icoeff=0.3, dtmin=1e-5),
                )  # fmt: skip
                return made.ys[-1], made.stats["num_steps"]

            solve = jax.jit(jax.vmap(one))
            keys = jax.random.split(jax.random.key(0), n)
            start = jax.random.normal(jax.random.key(1), (n, D)) * exact(1.0) ** 0.5

            def run(solve: Any = solve, keys: Any = keys, start: Any = start, stages: int = stages) -> tuple[Any, float]:
                x, steps = solve(keys, start)
                return np.asarray(x), stages * float(np.mean(np.asarray(steps)))

            rows.append(row(name, tolerance, run))
    return rows


def slots(n: int, batch: int) -> list[dict[str, Any]]:
    """Refilled against waiting, for a cost that follows the batch and one that does not."""
    law = sk.law.Mixture([0.5, 0.5], [np.full(4, -1.0), np.full(4, 0.7)], [np.full(4, 1e-3), np.full(4, 0.25)])
    inner, rows = law.denoiser(), []
    control = sk.control.gotta_go_fast(rtol=0.02)
    for cost in ("of the batch", "flat"):
        made = {}
        for refill in (True, False):

            def model(y: Any, sigma: Any, cost: str = cost) -> Any:
                time.sleep(2e-4 * len(y) if cost == "of the batch" else 2e-4 * batch)
                return inner(y, sigma)

            begin = time.perf_counter()
            run = sk.sample(VP, model, control=dataclasses.replace(control, refill=refill), n=n, shape=(4,), batch=batch)
            made[refill] = time.perf_counter() - begin, run
        (fast, one), (slow, two) = made[True], made[False]
        assert np.array_equal(one.x, two.x)
        assert int(one.adapted.calls.sum()) == int(one.nfe.sum()) == int(two.nfe.sum())
        spread = {"mean": float(one.nfe.mean()), "max": int(one.nfe.max())}
        rows.append({"cost": cost, "refilled s": fast, "waiting s": slow, "ratio": slow / fast, "calls": spread,
                     "batches": [len(one.adapted.calls), len(two.adapted.calls)]})  # fmt: skip
        print(f"  cost {cost:<13} waiting / refilled {slow / fast:5.2f}   model batches {len(one.adapted.calls)} against {len(two.adapted.calls)}")
    return rows


def main() -> None:
    """Run, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--n", type=int, default=2000)
    chosen = parser.parse_args()
    found: dict[str, Any] = {"slots": slots(200, 20)}
    print(f"floor of the error: {(2.0 / (chosen.n * D)) ** 0.5:.4f}")
    rows = ours(chosen.n)
    for run in (by_torchsde, by_diffrax):
        try:
            rows += run(chosen.n)
        except ImportError as error:
            print(f"{error}: left out")
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "sdekit", "torchsde", "diffrax") if _there(name)}
    if chosen.json:
        record = {
            "n": chosen.n,
            "floor": (2.0 / (chosen.n * D)) ** 0.5,
            **found,
            "solvers": rows,
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
