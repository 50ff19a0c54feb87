"""Solvers off the shelf (table of DifferentialEquations.jl): their slowness is that of their error measure, not of the schemes.

That library measures the error of SRA and SOSRA by the *sum* of the stages' drifts, which is of order h, and asks it to be 1 % of the state: so it
bounds how far a step goes, not what it does wrong.  Here the same schemes run with that measure, and with a difference of two results, on the VP
images of the replica.  Its noise part, and limits on how fast steps may grow, are left out; tolerances are the larger of two parts, not their sum.
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from paper_figures.common import Found, Script
from paper_figures.replica import vp
from sdekit import methods
from sdekit.analysis.adaptive_grids import embedded
from sdekit.control import Control, filtered, gotta_go_fast
from sdekit.methods import Method
from sdekit.tableau import Step

EULER = methods.euler_maruyama()
PAPER = {"SOSRA, sum": 5.92, "SRA3, sum": 6.93, "Lamba, atol": 1 / 2, "Lamba, atol and rtol": 1 / 1.27}  # calls over those of Euler-Maruyama


def summed(method):
    """The method, whose embedded result differs by the sum of its stages' drifts times the step."""
    table = dict(method.params)["table"]
    none = (Fraction(0),) * len(table.increment)
    drifts = replace(table, drift=replace(table.drift, b=(Fraction(1),) * len(none)), increment=none, area=none)

    def rows(step):
        made, moved = method.rows(step), method.table(Step(step.leg, step.i), drifts)
        return replace(made, embedded=made.out + moved.out - np.eye(*made.out.shape[-2:]))

    return Method(f"{method} by the sum", rows, noise=method.noise, asks=method.asks, orders=method.orders)


def runs(schemes=("SOSRA", "SRA3")):
    """Name, control and what it propagates."""
    slow, quick = filtered(1.0, 0.9, "i", most=9.0 / 8.0), filtered(1.5, 0.9, "i")
    for name in schemes:
        method = {"SOSRA": methods.sosra, "SRA3": lambda: methods.sra(3)}[name]()
        yield f"{name}, sum", Control(summed(method), 1e-2, 1e-2, slow), method
        yield f"{name}, difference", Control(method, 1e-2, 1e-2, quick), method
    for name, rtol in (("Lamba, atol", 1e-2), ("Lamba, atol and rtol", 1e-3)):
        yield name, gotta_go_fast(rtol, 1e-3, lamba_pair=True, extrapolate=False, r=0.5), embedded(methods.lamba())
    yield "Algorithm 1", gotta_go_fast(1e-2, 0.0078), methods.heun(noise=1.0)


CLAIMS = {
    "SRA3, sum_calls_over_euler": (2.0, 8.0),
    "SRA3, difference_calls_over_euler": (0.1, 0.8),
}


def compute(quick):
    replica, seeds = (vp(512), range(1)) if quick else (vp(), range(4))
    thousand = replica.w2(replica.uniform(1000), EULER)
    made = list(runs(("SRA3",)) if quick else runs())
    rows, measured = [], {"euler_w2": thousand}
    for name, control, method in made:
        calls, rejected, times = replica.run(control, seeds)
        w2 = float(np.median([replica.w2(t, method) for t in (times[:1] if quick else times)]))
        rows.append([np.mean(calls) / 1000.0, w2, PAPER.get(name, np.nan)])
        measured |= {f"{name}_calls_over_euler": rows[-1][0], f"{name}_w2_over_euler": w2 / thousand, f"{name}_rejected": float(np.mean(rejected))}
    arrays = {"names": np.array([name for name, *_ in made]), "rows": np.array(rows), "euler": np.array([thousand])}
    return Found(arrays, measured, {"d": len(replica.variances), "paper": PAPER}, list(seeds))


def draw(axes, data):
    (ax,) = axes
    for name, (calls, w2, paper) in zip(data["names"], data["rows"], strict=True):
        (point,) = ax.loglog([calls], [w2], label=str(name))
        ax.axvline(paper, color=point.get_color(), linestyle=":", linewidth=1, marker="")
    ax.loglog([1.0], data["euler"], "k*", label="Euler-Maruyama, 1000 steps")
    ax.set(xlabel="calls over those of Euler-Maruyama (dotted: the paper's time)", ylabel="exact W2, root mean square", title="VP")
    ax.minorticks_off()
    ax.set_xticks([0.2, 0.5, 1.0, 2.0, 5.0], ["0.2", "0.5", "1", "2", "5"])
    ax.legend(fontsize="x-small")


SCRIPT = Script(__file__, compute, draw, CLAIMS)
main = SCRIPT.main

if __name__ == "__main__":
    main()
