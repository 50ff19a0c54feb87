"""What a trajectory costs beside its network calls, and the fused update beside a copy: on a GPU, or on the CPU for its figures.

    python tests/benchmarks/device.py --device cuda --json tests/benchmarks/device.json      (on a GPU; about two minutes)
    python tests/benchmarks/device.py --device cpu --n 16 --size 16

Five questions.  (1) Overhead: the time of a run over that of as many bare calls of the same network, for ``sample`` and for a recorded
``Trajectory``; target under 2 %.  (2) Waits: a run under torch's synchronisation check, which raises at the first one (GPU only).  (3) The linear
combination: bytes read and written in a second, beside those of a copy on the device; target at least 80 %.  (4) Noise: an update with two normals
made inside its kernel, beside the same with normals that lie in memory, and with those drawn before it.  (5) Images in a second, beside diffusers'
own loop with the same network, method and calls.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sdekit as sk
from sdekit import grids, methods, plans
from sdekit.noise import METHOD, Address, Addressed, lines_of
from sdekit.torch.network import NetworkDenoiser, unet, unet_config
from sdekit.torch.trajectory import Trajectory, _Unmade
from sdekit.torch.trajectory import _combine as by_hand
from sdekit.torch.trajectory import _fused as compiled

STEPS = 20


def timed(run: Callable[[], Any], device: torch.device, repeat: int) -> float:
    """Seconds of the fastest of some runs, after two."""
    best = float("inf")
    for i in range(repeat + 2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i > 1:
            best = min(best, time.perf_counter() - begin)
    return best


def network(size: int, channels: int, device: torch.device, dtype: torch.dtype) -> NetworkDenoiser:
    """A U-Net with random weights."""
    config = unet_config((3, size, size), block_out_channels=[channels, 2 * channels], norm_num_groups=8)
    return NetworkDenoiser(unet(config).requires_grad_(False).eval(), (3, size, size), 0.5).to(device, dtype)


def runs(denoise: NetworkDenoiser, n: int, graph: bool, repeat: int) -> dict[str, Any]:
    """Overhead and images a second of some plans."""
    device, out = denoise.device, {}
    y = torch.randn((n, *denoise.shape), device=device)

    def calls(count: int) -> None:
        with torch.no_grad():
            for _ in range(count):
                denoise(y, 1.0)

    cases = {
        "dpm++2m": plans.run(grids.karras(STEPS), methods.dpm_solver_pp_2m()),
        "euler-maruyama": plans.run(grids.karras(STEPS), methods.euler_maruyama()),
        "heun, restart": plans.restart(grids.karras(STEPS // 2), [(3, 2, 0.06, 0.3)], method=methods.heun()),
    }
    for name, plan in cases.items():
        process = sk.catalogue.edm()
        whole = timed(lambda plan=plan, p=process: sk.sample(p, denoise, plan=plan, n=n, dtype=torch.float32), device, repeat)
        recorded = Trajectory(process, denoise, plan=plan, n=n, dtype=torch.float32, compiled=graph)
        again = timed(recorded, device, repeat)
        bare = timed(lambda count=recorded.program.nfe: calls(count), device, repeat)  # as many in a row: the fastest single call is faster
        out[name] = {"nfe": recorded.program.nfe, "bare s": bare, "sample / bare": whole / bare, "trajectory / bare": again / bare,
                     "images / s": n / min(whole, again)}  # fmt: skip
        print(f"  {name:<16} {recorded.program.nfe:3} calls   sample {whole / bare:6.3f} x   trajectory {again / bare:6.3f} x bare calls")
    return out


def waits(denoise: NetworkDenoiser, n: int) -> int | None:
    """Synchronisations inside a fixed-grid run: 0, or the check raises; None without a GPU."""
    if denoise.device.type != "cuda":
        return None
    plan = plans.run(grids.karras(STEPS), methods.euler_maruyama())
    run = Trajectory(sk.catalogue.psld(), denoise, plan=plan, n=n, dtype=torch.float32)
    source = run._fill(np.arange(n), Addressed(0))
    run._run(source)  # tables go up once
    torch.cuda.set_sync_debug_mode("error")
    try:
        run._run(source)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return 0


def bandwidth(device: torch.device, elements: int, repeat: int) -> dict[str, float]:
    """Bytes a second of a combination of five registers into two, over those of a copy."""
    registers = [torch.randn(elements, device=device) for _ in range(5)]
    matrix, there = torch.randn(2, 5, device=device), torch.empty(elements, device=device)
    copy = 2 * elements * 4 / timed(lambda: there.copy_(registers[0]), device, 10 * repeat)
    found = {"copy, GB/s": copy / 1e9}
    for name, combine in (("fused", compiled), ("term by term", by_hand), ("matrix product", None)):
        stacked = torch.stack(registers)
        run = (lambda stacked=stacked: matrix @ stacked) if combine is None else (lambda combine=combine: combine(matrix, registers))
        found[f"{name} / copy"] = 7 * elements * 4 / timed(run, device, 10 * repeat) / copy
    return found


def noise(device: torch.device, elements: int, repeat: int) -> dict[str, float]:
    """Seconds of an update of two blocks from three registers and two normals, and its bytes a second where it reads no normals."""
    n, size = max(1, elements // 3072), 3072
    addresses, ids, source = [Address(METHOD, 0, 5, slot) for slot in (0, 1)], np.arange(n), Addressed((3 << 32) + 7)
    registers = [torch.randn(n, size, device=device) for _ in range(3)]
    key, who = torch.tensor([7, 3], device=device), torch.arange(n, device=device)
    words = torch.from_numpy(lines_of(addresses).astype(np.int64)).to(device)
    unmade = [_Unmade(line, key, who, (size,)) for line in words.unbind()]
    matrix = torch.randn(2, 5, device=device)

    def drawn() -> torch.Tensor:
        return source.draw(addresses, ids, (size,), registers[0])

    there = drawn()
    apart = float((compiled(matrix, [*registers, *unmade])[0] - compiled(matrix, [*registers, *there])[0]).abs().max())
    assert apart < 1e-4, f"normals made inside differ by {apart:g} from those drawn before"
    inside = timed(lambda: compiled(matrix, [*registers, *unmade]), device, 2 * repeat)
    read = timed(lambda: compiled(matrix, [*registers, *there]), device, 2 * repeat)
    before = timed(drawn, device, repeat)
    return {
        "elements": n * size, "inside, s": inside, "inside, GB/s": 5 * n * size * 4 / inside / 1e9, "read, s": read,
        "drawn and read, s": before + read, "buffer of the normals, bytes a step": 2 * n * size * 4,
    }  # fmt: skip


def diffusers(denoise: NetworkDenoiser, n: int, repeat: int) -> float:
    """Images a second of diffusers' DPM-Solver++ 2M with the same network and calls."""
    from diffusers import EDMDPMSolverMultistepScheduler as Scheduler

    def loop() -> Any:
        scheduler = Scheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)
        scheduler.set_timesteps(STEPS, device=denoise.device)
        x = torch.randn((n, *denoise.shape), device=denoise.device) * scheduler.init_noise_sigma
        with torch.no_grad():
            for t in scheduler.timesteps:
                told = t.expand(n).to(denoise.dtype)
                answer = denoise.network(scheduler.scale_model_input(x, t).to(denoise.dtype), told).sample.float()
                x = scheduler.step(answer, t, x).prev_sample
        return x

    return n / timed(loop, denoise.device, repeat)


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--elements", type=int, default=1 << 26)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    device, gpu = torch.device(chosen.device), chosen.device.startswith("cuda")
    denoise = network(chosen.size, chosen.channels, device, torch.bfloat16 if gpu else torch.float32)
    print(
        f"{chosen.n} images of {chosen.size} x {chosen.size}, {STEPS} steps, on {torch.cuda.get_device_name(device) if gpu else platform.processor()}"
    )
    found: dict[str, Any] = {"runs": runs(denoise, chosen.n, gpu, chosen.repeat), "waits": waits(denoise, chosen.n)}
    print(f"  waits for the device inside a run: {found['waits']}")
    found["bandwidth"] = bandwidth(device, chosen.elements, chosen.repeat)
    found["noise"] = noise(device, chosen.elements, chosen.repeat)
    print("  update with noise: " + ", ".join(f"{key} {value:.4g}" for key, value in found["noise"].items()))
    found["diffusers, images / s"] = diffusers(denoise, chosen.n, chosen.repeat)
    print(f"  images / s: diffusers {found['diffusers, images / s']:.1f}, ours {found['runs']['dpm++2m']['images / s']:.1f}")
    print("  " + ", ".join(f"{key} {value:.2f}" for key, value in found["bandwidth"].items()))
    if chosen.json:
        chosen.json.write_text(json.dumps({**vars(chosen), "json": str(chosen.json.name), "torch": torch.__version__, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
