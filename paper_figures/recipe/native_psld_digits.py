"""PSLD trained natively, with 2C channels in and out, beside PSLD driven by a denoiser that has never seen it: digits, equal steps of training.

For every linear process E[x0 | z_t] = D(y; sigma_eff), so a native network and a denoiser learn the same function: on the empirical law of the
digits the two agree to rounding.  Networks differ by their training alone: each one's error in the same states, how much it errs in the part of the
state's noise that needs no data, and samples by SSCS, Euler-Maruyama and the ODE beside as many held-out digits.
"""

import tempfile
from pathlib import Path

import numpy as np

import sdekit as sk
from paper_figures.common import Found, Script
from sdekit import grids, methods, plans

PSLD = sk.catalogue.psld()
LEVELS = np.array([0.1, 0.3, 1.0, 3.0, 10.0])
METHODS = {"SSCS": methods.sscs(), "Euler-Maruyama": methods.euler_maruyama(), "ODE": methods.exponential(2)}
NAMES = ("native, eps", "native, edm", "denoiser", "denoiser, shipped")
MEASURES = ("frechet", "precision", "recall", "confidence")
CLAIMS = {
    "identity": (0.0, 1e-10),
    "error_native_eps_over_denoiser": (0.5, 4.0),
    "error_native_edm_over_denoiser": (0.7, 1.5),
    "shipped_sscs_frechet_over_held_out": (0.5, 1.7),
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


def errors(model, images):
    """Mean squared errors (levels, 2) on held-out digits: of E[x0 | z], and of the noise across v, which is a function of z alone."""
    import torch

    x0, table = images.held_out.astype(float), np.zeros((len(LEVELS), 2))
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


def budget_of(quick):
    """Steps and images of each training."""
    return {"steps": 12, "batch": 16} if quick else {"steps": 500, "batch": 64}


def models(images, quick, folder):
    """The four, by name."""
    from sdekit.torch import Denoising, LogNormal, Matching, Uniform, load, train

    budget = {**budget_of(quick), "network": {"block_out_channels": [16, 16] if quick else [16, 32]}}
    losses = (
        Matching(PSLD, images.spread, of="eps", levels=Uniform(1e-5)),
        Matching(PSLD, images.spread, of="edm", levels=LogNormal()),
        Denoising(images.spread),
    )
    for name, loss in zip(NAMES, losses, strict=False):
        yield name, train(images, Path(folder) / name.replace(", ", "_"), loss=loss, progress=False, every=100, **budget)
    yield NAMES[-1], load("digits")


def compute(quick):
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of small networks more threads wait for each other
    try:
        with threadpool_limits(1):
            return on_one_thread(quick)
    finally:
        torch.set_num_threads(before)


def on_one_thread(quick):
    images = sk.torch.digits()
    calls, n = (24, 40) if quick else (50, 100)
    error, judged = np.zeros((4, len(LEVELS), 2)), np.zeros((4, len(METHODS), len(MEASURES), 2))
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, model) in enumerate(models(images, quick, folder)):
            error[i] = errors(model, images)
            for j, method in enumerate(METHODS.values()):
                if quick and (i < 3 or j > 0):
                    continue
                plan = plans.run(grids.quadratic(calls - 1, end=1e-3), method).then(plans.denoise())
                found = sk.torch.judge(sk.sample(PSLD, model, plan=plan, n=n, seed=1).x, images)
                judged[i, j] = [(found[measure].value, found[measure].held_out) for measure in MEASURES]
                print(name, list(METHODS)[j], found, sep="\n", flush=True)
    rms = np.sqrt(np.mean(error[:, 1:4, 0], axis=1))
    measured = {
        "identity": identity(images),
        "error_native_eps_over_denoiser": rms[0] / rms[2],
        "error_native_edm_over_denoiser": rms[1] / rms[2],
        "shipped_sscs_frechet_over_held_out": judged[3, 0, 0, 0] / judged[3, 0, 0, 1],
        "known_noise_of_native_eps": float(np.mean(error[0, :, 1])),
        "known_noise_of_native_edm": float(np.mean(error[1, :, 1])),
    }
    settings = {**budget_of(quick), "calls": calls, "samples": n, "grid": "quadratic, denoised at the end"}
    return Found({"levels": LEVELS, "error": error, "judged": judged}, measured, settings, [0, 1])


def draw(axes, data):
    left, right = axes
    for i, name in enumerate(NAMES):
        left.loglog(data["levels"], data["error"][i, :, 0], label=name)
        right.plot(list(METHODS), data["judged"][i, :, 0, 0], label=name)
    right.axhline(data["judged"][3, 0, 0, 1], color="grey", linestyle=":", label="held-out digits")
    left.set(xlabel=r"$\sigma_{\mathrm{eff}}$", ylabel="error of $E[x_0|z]$ a pixel, held-out digits")
    right.set(ylabel="Frechet distance in pixel space", yscale="symlog", ylim=(0.0, 1e4))
    left.legend(fontsize="small")
    right.legend(fontsize="small")


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
