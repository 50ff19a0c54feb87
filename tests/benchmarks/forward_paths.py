"""Forward simulation of 16,384 x 2 Ornstein-Uhlenbeck paths over 200 Euler-Maruyama steps: ours beside loops and peers, in one run.

Ours with the library's fast stream in both precisions, and with addressed noise (each sample its own, whatever the batch); loops written by hand in
NumPy and torch; torchsde and diffrax if they are installed.  Least of some repetitions; ratios are ours (fast, float32) over theirs.

    python tests/benchmarks/forward_paths.py [--json FILE] [--repeat N]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sdekit as sk
from sdekit import Process, clocks, noise

N, WIDTH, STEPS, SPREAD = 16_384, 2, 200, 0.7
PROCESS = Process([[-1.0]], [[SPREAD]], clock=clocks.constant(1.0, 1.0))
TIMES = np.linspace(0.0, 1.0, STEPS + 1)


def ours(source: Callable[[], Any], dtype: Any = np.float64) -> Callable[[], Any]:
    start = np.zeros((1, N, WIDTH))
    return lambda: sk.simulate(PROCESS, start=start, times=TIMES, seed=source(), dtype=dtype).z


def torch_loop(dtype: torch.dtype) -> Callable[[], Any]:
    def run() -> torch.Tensor:
        generator, h = torch.Generator().manual_seed(0), 1.0 / STEPS
        x = torch.zeros(N, WIDTH, dtype=dtype)
        for _ in range(STEPS):
            x = x - h * x + SPREAD * h**0.5 * torch.randn(x.shape, generator=generator, dtype=dtype)
        return x

    return run


def numpy_loop() -> Any:
    generator, h = np.random.default_rng(0), 1.0 / STEPS
    x = np.zeros((N, WIDTH))
    for _ in range(STEPS):
        x = x - h * x + SPREAD * np.sqrt(h) * generator.standard_normal(x.shape)
    return x


def by_torchsde() -> Callable[[], Any]:
    import torchsde

    class Ou(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: Any, y: Any) -> Any:
            return -y

        def g(self, t: Any, y: Any) -> Any:
            return torch.full_like(y, SPREAD)

    sde, ts, y0 = Ou(), torch.tensor([0.0, 1.0]), torch.zeros(N, WIDTH)
    return lambda: torchsde.sdeint(sde, y0, ts, dt=1.0 / STEPS, method="euler")[-1]


def by_diffrax() -> Callable[[], Any]:
    import diffrax
    import jax
    import jax.numpy as jnp

    def one(key: Any) -> Any:
        path = diffrax.UnsafeBrownianPath(shape=(WIDTH,), key=key)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, args: -y),
            diffrax.ControlTerm(lambda t, y, args: SPREAD * jnp.eye(WIDTH), path),
        )
        options = {"adjoint": diffrax.DirectAdjoint(), "max_steps": 2 * STEPS}
        made = diffrax.diffeqsolve(terms, diffrax.Euler(), 0.0, 1.0, 1.0 / STEPS, jnp.zeros(WIDTH), **options)
        return made.ys[-1]

    run, keys = jax.jit(jax.vmap(one)), jax.random.split(jax.random.key(0), N)
    return lambda: run(keys).block_until_ready()


def timed(run: Callable[[], Any], repeat: int) -> tuple[float, float]:
    """Milliseconds, the least of ``repeat`` runs after one, and the sample variance at the end."""
    spread, best = float(np.var(np.asarray(run()))), float("inf")
    for _ in range(repeat):
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return 1e3 * best, spread


def main() -> None:
    """Time, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    chosen = parser.parse_args()
    runs: dict[str, Callable[[], Any]] = {
        "sdekit, fast, float32": ours(lambda: noise.Fast(0, "torch"), np.float32),
        "sdekit, fast, float64": ours(lambda: noise.Fast(0, "torch")),
        "sdekit, addressed": ours(lambda: 0),
        "numpy loop, float64": numpy_loop,
        "torch loop, float64": torch_loop(torch.float64),
        "torch loop, float32": torch_loop(torch.float32),
    }
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "torch", "sdekit")}
    for name, make in (("torchsde", by_torchsde), ("diffrax", by_diffrax)):
        try:
            runs[f"{name}, float32"] = make()
            versions[name] = importlib.metadata.version(name)
        except ImportError:
            print(f"{name} is not installed: left out")
    step = np.exp(-2.0)
    exact = SPREAD**2 * (1.0 - (1.0 - 1.0 / STEPS) ** (2 * STEPS)) / (1.0 - (1.0 - 1.0 / STEPS) ** 2) / STEPS
    assert abs(exact - SPREAD**2 * (1.0 - step) / 2.0) < 0.01
    found = {}
    for name, run in runs.items():
        ms, spread = timed(run, chosen.repeat)
        assert abs(spread / exact - 1.0) < 0.05, (name, spread, exact)
        found[name] = ms
    mine = found["sdekit, fast, float32"]
    for name, ms in found.items():
        print(f"{name:<24} {ms:9.1f} ms   ours / theirs {mine / ms:6.2f}")
    if chosen.json:
        record = {"ms": found, "versions": versions, "machine": platform.platform(), "threads": torch.get_num_threads()}
        chosen.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
