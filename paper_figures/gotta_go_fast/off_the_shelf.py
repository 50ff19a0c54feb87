"""Solvers off the shelf (table of DifferentialEquations.jl): their slowness is that of their error measure, not of the schemes.

That library measures the error of SRA and SRI schemes by the *sum* of the stages' drifts, which is of order h, and asks it to be 1 % of the state: so
it bounds how far a step goes, not what it does wrong.  Here the same schemes run with that measure, and with a difference of two results, on the VP
images of the replica.  Its noise part, and limits on how fast steps may grow, are left out; tolerances are the larger of two parts, not their sum.

RKMil measures its noise part by ``dW^3 (f - g)^2 / (6 h)`` where arrays are returned, as from Python: the drift stands where a difference of
diffusions should.  That is of order ``h^(1/2)``.  How many steps that takes follows from where it meets the tolerance along the exact law.  ISSEM's
measure, ``h^2 J f / 2``, is that of Lamba; what it costs is the solve in each step.
"""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
from scipy.fft import idct

from paper_figures.common import Found, Script
from paper_figures.replica import vp
from sdekit import methods
from sdekit.analysis.adaptive_grids import embedded
from sdekit.control import Control, filtered, gotta_go_fast
from sdekit.methods import Method, Orders
from sdekit.reverse import points
from sdekit.tableau import Step

EULER, HEUN = methods.euler_maruyama(), methods.heun(noise=1.0)
PAPER = {"SOSRA, sum": 5.92, "SRA3, sum": 6.93, "SOSRI, sum": 8.57, "Euler-Heun": 1.86, "Lamba, atol": 1 / 2, "Lamba, atol and rtol": 1 / 1.27,
         "Lamba Euler-Heun": 1 / 1.75}  # calls over those of Euler-Maruyama  # fmt: skip

# SOSRI (Rackauckas and Nie 2020) where the diffusion is a function of time: its terms in I_11 and I_111 cancel to second order and are left out.
SOSRI_DRIFT = [[], [-0.04199224421316468], [2.842612915017106, -2.0527723684000727], [4.338237071435815, -2.8895936137439793, 2.3017575594644466]]
SOSRI_AREA = [[], [-0.21641093549612528], [1.5336352863679572, 0.26066223492647056], [-1.0536037558179159, 1.7015284721089472, -0.20725685784180017]]
SOSRI_AT = [0.0, 0.26204282091330466, 0.0587987483202273, 0.7589103606838851]
SOSRI_RESULT = [1.140099274172029, -0.6401334255743456, 0.4736296532772559, 0.026404498125060714]
SOSRI_BETA = [-1.8453464565104432, 2.688764531100726, -0.2523866501071323, 0.40896857551684956]
SOSRI_GAMMA = [2.8453464565104425, -2.688764531100725, 0.2523866501071322, -0.40896857551684945]


def summed(method):
    """The method, whose embedded result differs by the sum of its stages' drifts times the step."""
    table = dict(method.params)["table"]
    none = (Fraction(0),) * len(table.increment)
    drifts = replace(table, drift=replace(table.drift, b=(Fraction(1),) * len(none)), increment=none, area=none)

    def rows(step):
        made, moved = method.rows(step), method.table(Step(step.leg, step.i), drifts)
        return replace(made, embedded=made.out + moved.out - np.eye(*made.out.shape[-2:]))

    return Method(f"{method} by the sum", rows, noise=method.noise, asks=method.asks, orders=method.orders)


def _sosri(step):
    """Nodes lie outside the step: 0.04 of it before, 3.75 of it from its start; they are kept in the process's time."""
    process, reverse = step.leg.reverse.process, step.leg.reverse
    at = np.array([*(sum(row) for row in SOSRI_DRIFT), *SOSRI_AT])
    times = step.leg.times[step.i] - at.reshape(-1, *(1,) * np.ndim(step.leg.times[step.i])) * (step.leg.times[step.i] - step.leg.times[step.i + 1])
    times = np.clip(times, 1e-6 * process.T, process.T)
    nodes = points(reverse, times, process.kernel(times))
    first, second = step.noise(1), step.noise(1)
    increment, area = np.sqrt(step.h) * first, 0.5 * np.sqrt(step.h) * (first + second / np.sqrt(3.0))
    spreads, slopes = [node.noise for node in nodes[4:]], []
    for node, row, spread in zip(nodes[:4], SOSRI_DRIFT, SOSRI_AREA, strict=True):
        z = step.z + sum(-step.h * a * slope + b * g @ area for a, b, slope, g in zip(row, spread, slopes, spreads, strict=False))
        slopes.append(node.drift(z, step.ask(z, node).score))
    out = step.z - step.h * sum(a * slope for a, slope in zip(SOSRI_RESULT, slopes, strict=True))
    out = out + sum(g @ (b * increment + c * area) for g, b, c in zip(spreads, SOSRI_BETA, SOSRI_GAMMA, strict=True))
    return step.rows(out, embedded=out - step.h * sum(slopes))


def _lamba_heun(step):
    """The stochastic Heun step; its error is measured by the drift at the Euler step without noise."""
    slope, normals = step.here.drift(step.z, step.ask(step.z, step.here).score), np.sqrt(step.h) * step.noise(1)
    quiet = step.z - step.h * slope
    guess = quiet + step.here.noise @ normals
    after, still = (step.there.drift(z, step.ask(z, step.there).score) for z in (guess, quiet))
    out = step.z - 0.5 * step.h * (slope + after) + 0.5 * (step.here.noise + step.there.noise) @ normals
    return step.rows(out, embedded=out - 0.5 * step.h * (still - slope))


STRONG = Orders(weak=2, strong=1.5)
SOSRI = Method("SOSRI by the sum", _sosri, noise=1.0, asks=4, orders=STRONG)
LAMBA_HEUN = Method("Lamba's pair about Heun", _lamba_heun, noise=1.0, asks=3, orders=HEUN.orders)


def runs(schemes=("SOSRA", "SRA3")):
    """Name, control and what it propagates."""
    slow, quick = filtered(1.0, 0.9, "i", most=9.0 / 8.0), filtered(1.5, 0.9, "i")
    for name in schemes:
        method = {"SOSRA": methods.sosra, "SRA3": lambda: methods.sra(3)}[name]()
        yield f"{name}, sum", Control(summed(method), 1e-2, 1e-2, slow), method
        yield f"{name}, difference", Control(method, 1e-2, 1e-2, quick), method
    yield "SOSRI, sum", Control(SOSRI, 1e-2, 1e-2, slow), SOSRI
    for name, rtol, atol in (("Lamba, default", 1e-2, 1e-2), ("Lamba, atol", 1e-2, 1e-3), ("Lamba, atol and rtol", 1e-3, 1e-3)):
        yield name, gotta_go_fast(rtol, atol, lamba_pair=True, extrapolate=False, r=0.5), embedded(methods.lamba())
    yield "Lamba Euler-Heun", Control(LAMBA_HEUN, 1e-2, 1e-3, filtered(2.0, 0.9, "i")), LAMBA_HEUN
    yield "Algorithm 1", gotta_go_fast(1e-2, 0.0078), HEUN


def along(replica, length, count=400):
    """Times of the steps whose length at the exact marginals is ``length(drift, its derivative times it, x, g, normals)``, and their number."""
    rng, process = np.random.default_rng(0), replica.process
    times = np.geomspace(process.T, replica.t_end, count)
    rate = []
    for t in times:
        c, spread, g = slopes(replica, t)
        modes = spread * rng.standard_normal(replica.shape)
        x, drift, turned = (idct(v, norm="ortho") for v in (modes, c * modes, c * c * modes))
        rate.append(1.0 / length(drift, turned, x, g, rng.standard_normal(replica.shape)))
    gone = np.append(0.0, np.cumsum(-np.diff(times) * 0.5 * (np.array(rate[1:]) + rate[:-1])))
    return times, gone


def slopes(replica, t):
    """Coefficients of the reverse drift, standard deviations of the modes and g at time ``t``."""
    kernel, process = replica.process.kernel(t), replica.process
    g = float(process.noise(t)[0, 0])
    variance = float(kernel.psi[0]) ** 2 * replica.variances + float(kernel.cov[0, 0])
    return float(process.drift(t)[0, 0]) + g * g / variance, np.sqrt(variance), g


def rms(values):
    return float(np.sqrt(np.mean(values**2)))


def milstein(drift, _, x, g, normals):
    """Step at which RKMil's noise part meets 1 %: ``sqrt(h) z^3 (f - g)^2 / 6``, the drift of the library's time being minus ours."""
    return rms(normals**3 * (-drift - g) ** 2 / 6.0 / (0.01 * (1.0 + np.abs(x)))) ** -2


def split_step(_, turned, x, __, ___):
    """Step at which ISSEM's ``h^2 J f / 2`` meets 1 %."""
    return np.sqrt(2.0 / rms(turned / (0.01 * (1.0 + np.abs(x)))))


def implicit(replica, times):
    """ISSEM with an exact solve, drift by the trapezoidal rule: W2, and the matrix products that conjugate gradients take to 1 % of the tolerance."""
    prior = replica.process.kernel(replica.process.T).cov[0, 0]
    v, products, rng = np.full(replica.shape, float(prior)), 0, np.random.default_rng(0)
    for t, s in pairwise(times):
        (now, _, g), (then, spread, _) = slopes(replica, t), slopes(replica, s)
        A = 1.0 + 0.5 * (t - s) * then
        v = ((1.0 - 0.5 * (t - s) * now) / A) ** 2 * v + (t - s) * g * g
        right = spread * A * rng.standard_normal(replica.shape)
        x, residual, way = np.zeros_like(right), right, right
        while rms(x - right / A) > 1e-4 * (1.0 + rms(right / A)):
            square, moved = residual @ residual, A * way
            step = square / (way @ moved)
            x, residual, products = x + step * way, residual - step * moved, products + 1
            way = residual + residual @ residual / square * way
    return rms(np.sqrt(v) - slopes(replica, times[-1])[1]), products


CLAIMS = {
    "SRA3, sum_calls_over_euler": (2.0, 8.0),
    "SRA3, difference_calls_over_euler": (0.1, 0.8),
    "Euler-Heun_calls_over_euler": (1.999, 2.001),
    "RKMil_steps": (1e6, float("inf")),
    "Euler-Heun_w2_over_euler": (0.03, 0.5),
    "Lamba, default_w2_over_euler": (5.0, 40.0),
    "Lamba, atol_w2_over_euler": (5.0, 40.0),
    "Lamba, atol and rtol_w2_over_euler": (2.0, 15.0),
    "Lamba Euler-Heun_calls_over_euler": (0.1, 0.5),
    "Lamba Euler-Heun_w2_over_euler": (0.4, 1.2),
    "ISSEM_steps": (30.0, 1000.0),
    "ISSEM_w2_over_euler": (3.0, 40.0),
}


def compute(quick):
    replica, seeds = (vp(512), range(1)) if quick else (vp(), range(4))
    thousand = replica.w2(replica.uniform(1000), EULER)
    made = [(name, *rest) for name, *rest in runs(("SRA3",)) if name != "SOSRI, sum"] if quick else list(runs())
    rows, measured = [], {"euler_w2": thousand}
    for name, control, method in made:
        calls, rejected, times = replica.run(control, seeds)
        w2 = float(np.median([replica.w2(t, method) for t in (times[:1] if quick else times)]))
        rows.append([np.mean(calls) / 1000.0, w2, PAPER.get(name, np.nan)])
        measured[f"{name}_rejected"] = float(np.mean(rejected))
        if name == "SOSRI, sum":  # nodes past the last time, as parts of all calls
            measured["SOSRI_past_the_end"] = float(np.mean([np.mean(t[:-1] + 3.750401 * np.diff(t) < replica.t_end) / 4.0 for t in times]))
    rows.append([2.0, replica.w2(replica.uniform(1000), HEUN), PAPER["Euler-Heun"]])
    places, gone = along(replica, split_step)
    grid = np.interp(np.linspace(0.0, gone[-1], round(gone[-1]) + 1), gone, places)
    w2, products = implicit(replica, grid)
    rows.append([(2 * (len(grid) - 1) + products) / 1000.0, w2, np.nan])
    names = [*(name for name, *_ in made), "Euler-Heun", "ISSEM"]
    for name, (calls, w2, _) in zip(names, rows, strict=True):
        measured |= {f"{name}_calls_over_euler": float(calls), f"{name}_w2_over_euler": w2 / thousand}
    measured |= {"ISSEM_steps": len(grid) - 1.0, "ISSEM_products": float(products), "RKMil_steps": float(along(replica, milstein)[1][-1])}
    measured["ISSEM_calls_with_differences"] = (len(grid) - 1.0) * (len(replica.variances) + 1)
    arrays = {"names": np.array(names), "rows": np.array(rows), "euler": np.array([thousand])}
    return Found(arrays, measured, {"d": len(replica.variances), "euler_steps": 1000, "paper": PAPER}, list(seeds))


def draw(axes, data):
    (ax,) = axes
    for i, (name, (calls, w2, paper)) in enumerate(zip(data["names"], data["rows"], strict=True)):
        (point,) = ax.loglog([calls], [w2], label=str(name), fillstyle="full" if i < 8 else "none")
        if np.isfinite(paper):
            ax.axvline(paper, color=point.get_color(), linestyle=":", linewidth=1, marker="")
    ax.loglog([1.0], data["euler"], "k*", label="Euler-Maruyama, 1000 steps")
    ax.set(xlabel="calls over those of Euler-Maruyama (dotted: the paper's time)", ylabel="exact W2, root mean square", title="VP")
    ax.minorticks_off()
    ax.set_xticks([0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
    ax.legend(fontsize="x-small", ncols=2)


SCRIPT = Script(__file__, compute, draw, CLAIMS, size=(7.2, 5.0))
main = SCRIPT.main

if __name__ == "__main__":
    main()
