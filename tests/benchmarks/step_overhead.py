"""Cost of a sampler's step outside the model: ours, a hand-written loop of the same method, and diffusers' schedulers, in one run.

The model returns the same tensor at once, so that what is timed is everything else.  Each figure is the least of many repetitions of a
50-step trajectory, per step, on one thread; ratios are against the hand-written loop of the same method (for diffusers: against ours).  Every other
multistep method is held against a loop with as many multiply-adds.

    python tests/benchmarks/step_overhead.py [--json FILE] [--repeat N]
"""

import argparse
import json
import platform
import time
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

import sdekit as sk
from sdekit.plans import run
from sdekit.solve import program, solve
from sdekit.tableau import ByTerms, Stacked

STEPS = 50
SIZES = {256: (1, 256), 49_152: (1, 3, 128, 128)}
GRID = sk.grids.karras(STEPS, zero=False)


def timed(trajectory, repeat):
    """Microseconds per step: the least of ``repeat`` runs."""
    trajectory()
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        trajectory()
        best = min(best, time.perf_counter() - start)
    return 1e6 * best / STEPS


def ours(method, x, answer, executor):
    """The engine on EDM's process, where the model is asked at the state itself."""
    prog = program(sk.catalogue.edm(), run(GRID, method))

    def model(_, __):
        return answer

    return lambda: solve(prog, [x], model, executor=executor)


def by_hand(order, x, answer):
    """DDIM and DPM-Solver++(2M) as one would write them: Python floats times tensors."""
    sigma = [float(s) for s in sk.catalogue.edm().sigma_eff(GRID.times(sk.catalogue.edm()))]
    table = []
    for i, (high, low) in enumerate(pairwise(sigma)):
        a = low / high
        h = float(np.log(high / low))
        if order == 1 or i == 0:
            table.append((a, 1.0 - a, 0.0))
        else:
            before = float(np.log(sigma[i - 1] / high))
            slope = (h + float(np.expm1(-h))) / before
            table.append((a, 1.0 - a + slope, -slope))

    def model(_, __):
        return answer

    def first():
        z = x
        for (a, b, _), level in zip(table, sigma[:-1], strict=True):
            z = a * z + b * model(z, level)
        return z

    def second():
        z, past = x, x
        for (a, b, c), level in zip(table, sigma[:-1], strict=True):
            data = model(z, level)
            z = a * z + b * data + c * past if c else a * z + b * data
            past = data
        return z

    return first if order == 1 else second


def diffusers(name, x, answer):
    """A scheduler of diffusers, its state made anew for each trajectory outside the timed part of its steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers as library

        options = {"PNDMScheduler": {"skip_prk_steps": True}, "DPMSolverMultistepScheduler": {"solver_order": 2}}.get(name, {})
        scheduler = getattr(library, name)(**options)

    def trajectory():
        scheduler.set_timesteps(STEPS)
        z = x
        for t in scheduler.timesteps:
            z = scheduler.step(answer, t, z).prev_sample
        return z

    def setup():
        scheduler.set_timesteps(STEPS)

    return trajectory, setup


def terms_by_hand(prog, x, answer):
    """A loop that does as many multiply-adds as the method's rows: what any hand-written form of it costs at least."""
    table = []
    for item in prog.items:
        rows = [*(row for ask in item.move.asks for row in ask.argument), *item.move.out, *item.move.keep]
        table.append([row[row != 0.0].tolist() for row in rows])

    def trajectory():
        z = x
        for step in table:
            for row in step:
                if row == [1.0]:
                    continue
                total = row[0] * x
                for c in row[1:]:
                    total.add_(answer, alpha=c)
                z = total
        return z

    return trajectory


def multistep(x, answer, size, repeat):
    """Every shipped method with a memory and one call a step."""
    for name, make in sk.methods.SHIPPED.items():
        method = make()
        if not method.history or method.noisy or method.asks > 1:
            continue
        hand = timed(terms_by_hand(program(sk.catalogue.edm(), run(GRID, method)), x, answer), repeat)
        yield {"size": size, "what": f"{name}, as many terms by hand", "us": hand, "ratio": 1.0, "against": "by hand"}
        for executor in (ByTerms, Stacked):
            found = timed(ours(method, x, answer, executor), repeat)
            yield {"size": size, "what": f"{name}, sdekit {executor.__name__}", "us": found, "ratio": found / hand, "against": "by hand"}


PEERS = {"DDIMScheduler": "DDIM", "PNDMScheduler": "2M", "DPMSolverMultistepScheduler": "2M", "UniPCMultistepScheduler": "2M"}


def measure(repeat):
    rows = []
    methods = {"DDIM": (sk.methods.exponential(1), 1), "2M": (sk.methods.exponential(2), 2)}
    for size, shape in SIZES.items():
        x, answer = torch.randn(shape), torch.randn(shape)
        reference = {}
        for label, (method, order) in methods.items():
            hand = reference[label, "hand"] = timed(by_hand(order, x, answer), repeat)
            rows.append({"size": size, "what": f"{label}, by hand", "us": hand, "ratio": 1.0, "against": "by hand"})
            for executor in (ByTerms, Stacked):
                found = timed(ours(method, x, answer, executor), repeat)
                reference[label, executor.__name__] = found
                rows.append({"size": size, "what": f"{label}, sdekit {executor.__name__}", "us": found, "ratio": found / hand, "against": "by hand"})
        rows += multistep(x, answer, size, repeat)
        for name, label in PEERS.items():
            trajectory, setup = diffusers(name, x, answer)
            found = timed(trajectory, max(3, repeat // 10)) - timed(setup, max(3, repeat // 10))
            mine = reference[label, "ByTerms"]
            rows.append({"size": size, "what": f"diffusers {name}", "us": found, "ratio": found / mine, "against": f"sdekit {label}, ByTerms"})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = measure(options.repeat)
    print(f"torch {torch.__version__}, one thread, {platform.machine()}, {STEPS} steps, microseconds per step outside the model")
    for row in found:
        print(f"{row['size']:>7}  {row['what']:<40} {row['us']:>9.2f} us   {row['ratio']:>7.2f} x {row['against']}")
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, "steps": STEPS, "rows": found}, indent=1) + "\n")
