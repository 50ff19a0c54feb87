"""PSLD trained natively, with 2C channels in and out, beside PSLD driven by a denoiser that has never seen it: digits, equal steps of training.

For every linear process E[x0 | z_t] = D(y; sigma_eff), so a native network and a denoiser learn the same function: on the empirical law of the
digits the two agree to rounding.  Networks differ by their training alone: each one's error in the same states, how much it errs in the part of the
state's noise that needs no data, and samples by SSCS, Euler-Maruyama and the ODE beside as many held-out digits.  One seed here, three with
more training in ``long.native_psld_digits``.
"""

import tempfile
from pathlib import Path

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script, one_thread, spreads, to_ends
from sdekit import grids, methods, plans

PSLD = sk.catalogue.psld()
LEVELS = np.array([0.1, 0.3, 1.0, 3.0, 10.0])
METHODS = {"SSCS": methods.sscs(), "EM": methods.euler_maruyama(), "ODE": methods.exponential(2)}
NAMES = ("native, eps", "native, edm", "denoiser", "denoiser, shipped")
QUICK = {"steps": 12, "batch": 16, "channels": 16, "calls": 24, "samples": 40, "held out": 100}
FULL = {"steps": 150, "batch": 64, "channels": 32, "calls": 50, "samples": 64, "held out": None}
MEASURES = ("frechet", "precision", "recall", "confidence")
CLAIMS = {
    "identity": (0.0, 1e-13),
    "error_native_eps_over_denoiser": (0.5, 4.0),
    "error_native_edm_over_denoiser": (0.7, 1.5),
    "frechet_denoiser_shipped_sscs": (0.5, 1.7),
}


def identity(images):
    """Largest relative difference between E[x0 | z], summed over all training images in the state's own kernel, and the denoiser at y."""
    data = images.train.reshape(len(images.train), -1).astype(float)
    denoise, rng, worst = sk.law.Empirical(data).denoiser(), np.random.default_rng(0), 0.0
    for level in LEVELS:
        kernel = PSLD.kernel(float(PSLD.time_of(level)))
        z = kernel.sample(data[:10], rng.standard_normal((2, 10, 64)))
        gap = z[:, :, None] - kernel.psi[:, None, None, None] * data
        white = np.linalg.solve(kernel.chol, gap.reshape(2, -1)).reshape(gap.shape)
        cost = 0.5 * np.sum(white**2, axis=(0, 3))
        weight = np.exp(cost.min(1, keepdims=True) - cost)
        direct = weight @ data / weight.sum(1, keepdims=True)
        ours = denoise(np.tensordot(kernel.observe, z, 1), float(kernel.sigma_eff))
        worst = max(worst, float(np.linalg.norm(direct - ours) / np.linalg.norm(direct)))
    return worst


def errors(model, x0):
    """Mean squared errors (levels, 2) on held-out digits: of E[x0 | z], and of the noise across v, which is a function of z alone."""
    import torch

    table = np.zeros((len(LEVELS), 2))
    for i, level in enumerate(LEVELS):
        t = float(PSLD.time_of(level))
        kernel = PSLD.kernel(t)
        normals = np.random.default_rng(i).standard_normal((2, *x0.shape))
        z = kernel.sample(x0, normals)
        y = np.tensordot(kernel.observe, z, 1)
        if isinstance(model, sk.torch.NetworkScore):
            score = model(torch.from_numpy(z), t).numpy()
            data = y + level**2 * np.tensordot(kernel.psi, score, 1)
            across = np.array([-kernel.whitened[1], kernel.whitened[0]]) / np.sqrt(kernel.snr)
            table[i, 1] = np.mean((np.tensordot(across @ kernel.chol.T, score, 1) + np.tensordot(across, normals, 1)) ** 2)
        else:
            data = model(y, level)
        table[i, 0] = np.mean((data - x0) ** 2)
    return table


def models(images, seed, settings, folder):
    """The four, by name."""
    from sdekit.torch import Denoising, LogNormal, Matching, Uniform, load, train

    own = {"steps": settings["steps"], "batch": settings["batch"], "network": {"block_out_channels": [16, settings["channels"]]}}
    losses = (
        Matching(PSLD, images.spread, of="eps", levels=Uniform(1e-5)),
        Matching(PSLD, images.spread, of="edm", levels=LogNormal()),
        Denoising(images.spread),
    )
    for name, loss in zip(NAMES, losses, strict=False):
        yield name, train(images, Path(folder) / name.replace(", ", "_"), loss=loss, progress=False, every=100, seed=seed, **own)
    yield NAMES[-1], load("digits")


def one(images, seed, settings, asked):
    """Errors (4, levels, 2) and what is judged of the samples (4, methods, measures, 2), nan where not ``asked(i, j)``, of one training."""
    error, judged = np.zeros((4, len(LEVELS), 2)), np.full((4, len(METHODS), len(MEASURES), 2), np.nan)
    with tempfile.TemporaryDirectory() as folder:
        for i, (_, model) in enumerate(models(images, seed, settings, folder)):
            error[i] = errors(model, images.held_out[: settings["held out"]].astype(float))
            for j, method in enumerate(METHODS.values()):
                if asked(i, j):
                    plan = plans.run(grids.quadratic(settings["calls"] - 1, end=1e-3), method).then(plans.denoise())
                    found = sk.torch.judge(sk.sample(PSLD, model, plan=plan, n=settings["samples"], seed=seed + 1).x, images)
                    judged[i, j] = [(found[measure].value, found[measure].held_out) for measure in MEASURES]
    return error, judged


def everything(*_):
    """Asks for the samples of all networks by all methods."""
    return True


def measure(seeds, settings, asked=everything):
    """The whole, for some seeds of training and of samples: means and standard errors."""
    images = sk.torch.digits()
    with one_thread():
        made = [one(images, seed, settings, asked) for seed in seeds]
    error, judged = (np.stack(part) for part in zip(*made, strict=True))
    rms = np.sqrt(np.mean(error[:, :, 1:4, 0], axis=2))
    frechet = judged[..., 0, 0] / judged[..., 0, 1]
    found = {
        "error_native_eps_over_denoiser": rms[:, 0] / rms[:, 2],
        "error_native_edm_over_denoiser": rms[:, 1] / rms[:, 2],
        "known_noise_of_native_eps": np.mean(error[:, 0, :, 1], axis=1),
        "known_noise_of_native_edm": np.mean(error[:, 1, :, 1], axis=1),
    }
    for i, name in enumerate(NAMES):
        own = f"frechet_{name.replace(', ', '_')}"
        found |= {f"{own}_{method.lower()}": frechet[:, i, j] for j, method in enumerate(METHODS) if np.all(np.isfinite(frechet[:, i, j]))}
    measured = {"identity": identity(images), "least_frechet_native_eps_em": float(np.min(frechet[:, 0, 1]))} | spreads(found)
    measured = {name: value for name, value in measured.items() if np.isfinite(value)}
    return Found({"levels": LEVELS, "error": error, "judged": judged}, measured, settings | {"grid": "quadratic, denoised at the end"}, list(seeds))


def compute(quick):
    return measure([0], QUICK, lambda i, j: i == 3 and j == 0) if quick else measure([0], FULL)


def draw(axes, data):
    left, right = axes
    error, judged, at = data["error"][..., 0], data["judged"][..., 0, :], np.arange(len(METHODS))
    for i, name in enumerate(NAMES):
        left.loglog(data["levels"], error[:, i].mean(axis=0), label=name)
        ratio = judged[:, i, :, 0] / judged[:, i, :, 1]
        right.errorbar(at + 0.08 * (i - 1.5), ratio.mean(axis=0), to_ends(ratio), linestyle="", label=name)
    right.axhline(1.0, color="grey", linestyle=":")
    right.set_xticks(at, list(METHODS))
    left.set(xlabel=r"$\sigma_{\mathrm{eff}}$", ylabel="error of $E[x_0|z]$ a pixel, held-out digits")
    right.set(ylabel="Frechet distance over that of held-out digits", yscale="log", ylim=(0.5, None))
    left.legend(fontsize="small")
    right.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
