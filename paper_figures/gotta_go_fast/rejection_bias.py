"""What a rejected step does to the law: the variance of Algorithm 1's samples over the true one, by what an attempt after a rejection sees.

Independent normal elements and exact scores, so that the law is that of one element and the number of elements d changes the error measure alone.  An
exact Brownian path keeps the law; fresh normals, as published, keep those that made a small error; the same normals again tie the step to the
noise.  Both biases fall like 1/d, as the error of a step turns into a function of time: that rejections are rare and harmless is a fact of large d.
The rate of rejections follows from the controller alone (`sdekit.analysis.adaptivity`).

The third panel is the noise itself: steps of 0.1 that are rejected and halved where their increment exceeds 0.2, variance of the sum over the time.
"""

import numpy as np

import sdekit as sk
from paper_figures.common import COLOURS, Found, Script, slope
from sdekit.analysis.adaptivity import control_loop, error_spread
from sdekit.control import gotta_go_fast
from sdekit.increments import Increments
from sdekit.law import Gaussian
from sdekit.noise import Addressed
from sdekit.pieces import Pieces, Repeated

RTOL, BLOCKS = 0.05, 8
MODES = ("path", "redraw", "retain")
EQUATIONS = {"vp": (sk.catalogue.vp(), 0.25, 0.0078, 1e-3), "ve": (sk.catalogue.ve(), 0.0625, 0.0039, 1e-5)}  # variance, atol, last time
DIMENSIONS = (1, 4, 16, 64, 256)

CLAIMS = {
    "vp_path_1_ratio": (0.9, 1.1),
    "vp_redraw_1_ratio": (2.1, 2.65),
    "vp_retain_1_ratio": (1.22, 1.45),
    "vp_redraw_4_ratio": (1.2, 1.42),
    "ve_path_1_ratio": (0.9, 1.1),
    "ve_redraw_1_ratio": (3.6, 4.6),
    "ve_retain_1_ratio": (1.25, 1.8),
    "vp_redraw_1_rejected": (0.39, 0.49),
    "vp_redraw_64_rejected": (0.17, 0.26),
    "vp_redraw_64_rejected_over_predicted": (0.8, 1.15),
    "path_noise": (0.94, 1.06),
    "redraw_noise": (0.15, 0.21),
    "retain_noise": (0.30, 0.38),
}


def run(name, mode, d, n):
    """Mean square of each sample over the true variance, and the part of attempts that is rejected."""
    process, variance, atol, end = EQUATIONS[name]
    law, kernel = Gaussian(np.zeros(d), variance), process.kernel(end)
    control = gotta_go_fast(RTOL, atol).with_(noise=mode)
    made = sk.sample(process, law.denoiser(), control=control, grid=sk.grids.times([process.T, end]), n=n, batch=n, start=law)
    if set(made.status) != {"ok"}:
        raise RuntimeError(f"{name}, {mode}, d = {d}: {set(made.status)}")
    rejected = made.adapted.rejected.sum() / (made.adapted.rejected.sum() + made.adapted.accepted.sum())
    return np.mean(made.x**2, axis=1) / float(kernel.psi[0] ** 2 * variance + kernel.cov[0, 0]), float(rejected)


def noise_itself(mode, n, end=1.0, first=0.1, bound=0.2):
    """Sums of the accepted increments of each path."""
    ids, reference = np.arange(n), np.empty(0)
    source = Addressed(0)
    if mode == "path":
        path = Pieces(source, ids, (), Increments(1, areas=False), reference)
    else:
        path = Repeated(source, ids, (), 1, reference, retain=mode == "retain")
    t, h, total = np.zeros(n), np.full(n, first), np.zeros(n)
    while np.any(t < end):
        h = np.where((t < end) & (t + h > end - 1e-12), end - t, h)  # a path that is through goes on and is not counted
        move = np.sqrt(h) * path.over(h)[0]
        good = np.abs(move) <= bound
        path.settle(good)
        total, t, h = total + good * (t < end) * move, t + good * h, np.where(good, first, 0.5 * h)
    return total


def compute(quick):
    dimensions = (1, 4, 64) if quick else DIMENSIONS
    arrays, measured = {"dimensions": np.array(dimensions)}, {}
    loop = control_loop(gotta_go_fast(RTOL).controller, 1.5)
    predicted = np.array([loop.rejection(error_spread(d)) for d in dimensions])
    for name in EQUATIONS:
        for mode in MODES:
            rows = []
            for d, rate in zip(dimensions, predicted, strict=True):
                if quick and d > 1 and (name, mode) != ("vp", "redraw"):
                    continue
                n = {1: 1600 if name == "vp" else 1000, 4: 1000, 64: 64}[d] if quick else max(min(50_000 // d, 8000), 128) // BLOCKS * BLOCKS
                squares, rejected = run(name, mode, d, n)
                blocks = squares.reshape(BLOCKS, -1)
                scores = (np.mean(blocks, 1) - 1.0) / (np.std(blocks, 1, ddof=1) / np.sqrt(blocks.shape[1]))
                ratio, error = float(np.mean(squares)), float(np.std(squares, ddof=1) / np.sqrt(n))
                rows.append([ratio, error, np.sqrt(np.mean(scores**2)), rejected])
                key = f"{name}_{mode}_{d}_"
                measured |= {key + "ratio": ratio, key + "z": (ratio - 1.0) / error, key + "block_z": rows[-1][2], key + "rejected": rejected}
                measured[key + "rejected_over_predicted"] = rejected / rate
            arrays[f"{name}_{mode}"] = np.array(rows)
            if mode == "redraw" and not quick:  # over those that stand out of the noise
                measured[f"{name}_bias_falls_as_d_to_the"] = -slope(arrays[f"{name}_{mode}"][[0, 2], 0] - 1.0, arrays["dimensions"][[0, 2]])
    n = 2000 if quick else 20_000
    measured |= {f"predicted_{d}_rejected": float(rate) for d, rate in zip(dimensions, predicted, strict=True)}
    measured |= {f"{mode}_noise": float(np.mean(noise_itself(mode, n) ** 2)) for mode in MODES}
    arrays |= {"predicted": predicted, "noise": np.array([measured[f"{mode}_noise"] for mode in MODES]), "modes": np.array(MODES)}
    settings = {"rtol": RTOL, "equations": {name: {"variance": v, "atol": a, "end": e} for name, (_, v, a, e) in EQUATIONS.items()}, "blocks": BLOCKS,
                "block_z": f"root mean square z-score of {BLOCKS} blocks of samples: 1 where the law is right"}  # fmt: skip
    return Found(arrays, measured, settings, [0])


def draw(axes, data):
    dimensions = data["dimensions"]
    for name, style in (("vp", "-"), ("ve", "--")):
        for i, mode in enumerate(MODES):
            ratio, error, _, rejected = data[f"{name}_{mode}"].T
            at = dimensions[: len(ratio)]
            axes[0].errorbar(at, ratio, 2.0 * error, label=f"{name.upper()}, {mode}", color=COLOURS[i], linestyle=style, capsize=2)
            axes[1].plot(at, rejected, label=f"{name.upper()}, {mode}", color=COLOURS[i], linestyle=style)
    axes[0].axhline(1.0, color="grey", linewidth=0.8, marker="")
    axes[0].set(xscale="log", yscale="log", xlabel="elements d", title="variance over the true one (2 standard errors)")
    axes[0].minorticks_off()
    axes[0].set_yticks([1.0, 1.5, 2.0, 3.0, 4.0], ["1", "1.5", "2", "3", "4"])
    axes[1].plot(dimensions, data["predicted"], color="k", marker="", linestyle=":", label="of the controller alone")
    axes[1].set(xscale="log", xlabel="elements d", title="part of attempts that is rejected")
    axes[2].bar(data["modes"], data["noise"], color=COLOURS[:3])
    axes[2].axhline(1.0, color="grey", linewidth=0.8, marker="")
    axes[2].set(title="variance of the increments over the time")
    for ax in axes[:2]:
        ax.legend(fontsize="x-small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=3, size=(13.0, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
