"""PFGM++: the noise of the published code is not the transition of its kernel; the exact one is, and many extra dimensions hide the difference.

Left, variance of the noise from 0.14 to 0.30 over its exact value, by D: 1 + 2 r_1^2 / (D (r_2^2 - r_1^2)).  Right, D = 3: the characteristic
function of what each kernel adds, against the ratio of those of the perturbed laws; at D = 2048, the paper's, nothing is to be seen.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit.noise import MOVE, Address, Addressed
from sdekit.pfgm import Pfgm

LOW, HIGH = 0.14, 0.30
EXTRA = np.array([3.0, 4.0, 8.0, 16.0, 64.0, 256.0, 2048.0])
K = np.linspace(0.25, 12.0, 40)
CLAIMS = {
    "exact_k5_D3": (0.4065, 0.4071),
    "sampled_exact_gap": (0.0, 0.012),
    "sampled_straight_k5_D3": (0.325, 0.352),
    "straight_excess_D2048": (2.7e-4, 2.9e-4),
    "straight_excess_D3": (0.17, 0.20),
}


def added(D, kernel, n):
    """What the jump adds to the data 0, on the line."""
    plan = Pfgm(D).restart(sk.grids.sigmas([HIGH, LOW]), [(3, 1, LOW, HIGH)], kernel=kernel)
    jump = next(move for move in plan.moves(sk.catalogue.edm()) if not hasattr(move, "times"))
    source = Addressed(0)
    normals = source.draw([Address(MOVE, slot=slot) for slot in range(jump.noises)], np.arange(n), ())
    return np.asarray(jump.apply([np.zeros(n)], None, normals)[0])


def compute(quick):
    n = 40_000 if quick else 200_000
    ratio = LOW**2 / (HIGH**2 - LOW**2)
    excess = 2.0 * ratio / EXTRA
    flow = Pfgm(3.0)
    exact = flow.characteristic(K, HIGH) / flow.characteristic(K, LOW)
    found = np.array([[np.mean(np.cos(k * x)) for k in K] for x in (added(3.0, kernel, n) for kernel in ("exact", "straight"))])
    measured = {
        "exact_k5_D3": float(np.interp(5.0, K, exact)),
        "sampled_exact_gap": float(np.max(np.abs(found[0] - exact))),
        "sampled_straight_k5_D3": float(np.interp(5.0, K, found[1])),
        "straight_excess_D2048": float(excess[-1]),
        "straight_excess_D3": float(excess[0]),
    }
    return Found({"D": EXTRA, "excess": excess, "k": K, "exact": exact, "found": found}, measured, {"interval": [LOW, HIGH], "samples": n}, [0])


def draw(axes, data):
    left, right = axes
    left.loglog(data["D"], data["excess"])
    left.set(xlabel="extra dimensions D", ylabel="relative excess of variance", title="published straight line")
    right.plot(data["k"], data["exact"], marker="", color="black", label="needed")
    for row, name in zip(data["found"], ("exact kernel", "straight line"), strict=True):
        right.plot(data["k"], row, linestyle="", markersize=4, label=name)
    right.set(xlabel="k", ylabel="characteristic function of the noise", title="D = 3, 0.14 to 0.30")
    right.legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
