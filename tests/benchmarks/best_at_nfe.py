"""The best that 10, 20 and 50 model calls can do: our methods on tuned grids, and the deterministic schedulers of diffusers on their own.

The process is the usual linear variance-preserving one with 1000 labels; all start at its highest level, from the exact law there (or, where a
scheduler's grid starts lower, there): the mismatch of the prior is common to all.  The model is the exact
denoiser of normal data with image-like spectra (every sampler is then affine in each mode, and its W2 to the data exact), or of mixtures (the
root mean square distance of 64 paths to the exact flow).  We choose method and grid once, on a family of laws, and are judged on others.  Of
diffusers every combination of options runs, and the best for each law is taken with hindsight.  "labels" allows no level below that of the
first label; "any" allows all, and diffusers' grids down to 0.002 where a scheduler has that option.  Left out: schedulers with noise, and
iPNDM, whose process is another.

    python tests/benchmarks/best_at_nfe.py [--json FILE] [--only spectra|mixtures]
"""

import argparse
import json
import platform
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import solve_ivp

import sdekit as sk
from sdekit import analysis
from sdekit.analysis import power_law
from sdekit.errors import BadInput
from sdekit.law import Gaussian, Mixture
from sdekit.record import to_record

BUDGETS = (10, 20, 50)
LABELS = np.sqrt(1.0 / np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000)) - 1.0)  # sigma of each label
CLOCK = sk.clocks.linear(0.1, 2.0 * float(np.log1p(LABELS[-1] ** 2)) - 0.1)
PROCESS = sk.Process([[-0.5]], [[1.0]], clock=CLOCK, name="vp from the highest label")


def pixels(side, power, variance):
    """The spectrum of square images of pixels with a given mean variance: that of the wave (i, j) falls as ``(1 + i^2 + j^2)^(-power / 2)``."""
    wave = np.arange(side) ** 2
    spectrum = (1.0 + wave[:, None] + wave).ravel() ** (-0.5 * power)
    return Gaussian(np.zeros(side**2), spectrum * variance * side**2 / np.sum(spectrum))


FAMILY = {
    "spectra": [
        *(power_law(power, scale, top) for power, scale, top in product((1.5, 2.5), (0.3, 1.0), (16, 48))),
        *(pixels(side, power, variance) for side, power, variance in product((8, 24), (2.0, 3.0), (0.1, 0.4))),
    ],
    "mixtures": [
        Mixture([0.5, 0.5], [-0.7, 0.6], [0.02, 0.09]), Mixture([0.3, 0.4, 0.3], [-1.0, 0.2, 0.9], [0.01, 0.1, 0.03]),
        Mixture([0.25, 0.75], [-0.5, 1.0], [0.2, 0.05]), Mixture([0.4, 0.35, 0.25], [-0.8, 0.0, 0.7], [0.005, 0.02, 0.04]),
    ],
}  # fmt: skip


def centred(flat):
    """The normal law with the covariance of rows of pixels, around 0: a mean would leave the same error of the prior in every sampler."""
    return Gaussian(np.zeros(flat.shape[1]), np.cov(flat, rowvar=False))


def patches(side=8):
    """Grey patches of scikit-learn's two photographs, in [-1, 1]."""
    from sklearn.datasets import load_sample_images

    pieces = []
    for image in load_sample_images().images:
        grey = image.mean(axis=2) / 127.5 - 1.0
        rows, columns = (n // side for n in grey.shape)
        pieces.append(grey[: rows * side, : columns * side].reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side * side))
    return np.concatenate(pieces)


def judges(kind, measured=True):
    """Laws that nothing was chosen on: spectra of other powers, scales and lengths, two measured ones; other mixtures."""
    if kind == "mixtures":
        return {
            "0.3 N(-1, 0.25^2) + 0.7 N(0.8, 0.4^2)": Mixture([0.3, 0.7], [-1.0, 0.8], [0.0625, 0.16]),
            "0.2 N(-0.9, 0.1^2) + 0.5 N(0.1, 0.2^2) + 0.3 N(0.8, 0.05^2)": Mixture([0.2, 0.5, 0.3], [-0.9, 0.1, 0.8], [0.01, 0.04, 0.0025]),
        }
    sizes = ((2.0, 0.5, 32), (1.8, 0.7, 24), (2.3, 0.4, 32), (3.0, 0.5, 32), (1.6, 1.5, 40))
    found = {f"k^-{p:g}, scale {s:g}, {k} frequencies": power_law(p, s, k) for p, s, k in sizes}
    if measured:
        from sdekit.torch.data import digits

        found |= {
            "digits": centred(digits().train.reshape(1400, -1).astype(float)),
            "patches": centred(patches()),
            "larger patches": centred(patches(12)),
        }
    return found


def steps_for(method, budget, end):
    """The most steps whose calls do not exceed the budget; 0 if there are none."""
    return max((n for n in range(2, budget + 1) if (method.nfe(n) if end == "method" else method.nfe(n - 1) + 1) <= budget), default=0)


def ours(kind, budget, inside, laws):
    """What is best on the family, in three looks, each longer and at fewer: end, result.  ``laws`` are only reported on."""
    floor = float(LABELS[0]) if inside else 0.0
    field = [(make(), end) for make in sk.methods.SHIPPED.values() for end in ((True, "method") if inside else (True,))]
    for evaluations, count, judge in ((14, len(field), []), (80, 10, []), (300, 4, laws)):
        found = []
        for method, end in field[:count]:
            n = steps_for(method, budget, end)
            if n < 2 or (method.noisy and kind == "mixtures"):
                continue
            try:
                made = analysis.tune_grid(
                    PROCESS, method, n, data=FAMILY[kind], judge=judge, end=end, bends=4, sigma_min=floor, prior=False, evaluations=evaluations
                )  # fmt: skip
            except BadInput:  # a method that does not fit the process
                continue
            error = float(np.mean(np.log([row.error for row in made.rows if row.seen])))
            if np.isfinite(error):
                found.append((error, method, end, made))
        found.sort(key=lambda entry: entry[0])
        field = [(method, end) for _, method, end, _ in found]
    return found[0]


# --- diffusers ------------------------------------------------------------------------------------------------------------------------------

SIGMAS = [{"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True}]
SPACED = [{"timestep_spacing": name} for name in ("linspace", "leading", "trailing")]
LOWER = [{"lower_order_final": flag} for flag in (True, False)]
FINAL = [{"final_sigmas_type": name} for name in ("zero", "sigma_min")]
TYPES = [{"solver_type": name} for name in ("midpoint", "heun")]
WIDE = {"sigma_min": 0.002, "sigma_max": float(LABELS[-1])}
IN_SIGMA = {"EulerDiscrete", "HeunDiscrete", "KDPM2Discrete", "LMSDiscrete"}


def each(*choices):
    """All combinations of lists of options."""
    return [{key: value for part in parts for key, value in part.items()} for parts in product(*choices)]


def orders(*values):
    return [{"solver_order": value} for value in values]


def schedulers():
    """(class, options, whether its levels are those of the labels)."""
    plus = each([{"algorithm_type": "dpmsolver++"}], orders(1, 2, 3), FINAL, TYPES)
    eps = each([{"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}], orders(1, 2, 3), TYPES)
    multi = each([*plus, *eps], LOWER, [{"euler_at_final": flag} for flag in (True, False)])
    unipc = each(orders(1, 2, 3), LOWER, [{"predict_x0": flag} for flag in (True, False)], FINAL)
    one = [{"set_alpha_to_one": flag} for flag in (True, False)]
    sa = each([{"predictor_order": p, "corrector_order": c} for p, c in product((2, 3, 4), (0, 2, 3, 4))])
    table = {
        **{name: each([*SIGMAS, {}], SPACED) for name in IN_SIGMA},
        "DDIM": each(SPACED, one, [{"clip_sample": False}]),
        "PNDM": each(SPACED, one, [{"skip_prk_steps": True}, {"skip_prk_steps": False}]),
        "DPMSolverMultistep": each(multi, [*SIGMAS, {"use_lu_lambdas": True}, *SPACED]),
        "DPMSolverSinglestep": each([*each([{"algorithm_type": "dpmsolver++"}], orders(1, 2, 3), FINAL, TYPES), *eps], [{}, *SIGMAS], LOWER),
        "UniPCMultistep": each(unipc, [*SIGMAS, *SPACED]),
        "SASolver": each(sa, [*SIGMAS, *SPACED]),
        "DEISMultistep": each(orders(1, 2, 3), LOWER, [*SIGMAS, *SPACED]),
    }
    for name, chosen in table.items():
        for options in chosen:
            yield name, options, True
    edm = [{**WIDE, "sigma_schedule": name} for name in ("karras", "exponential")]
    wide = {
        "EDMEuler": edm, "EDMDPMSolverMultistep": each(edm, orders(1, 2, 3), LOWER, TYPES), "EulerDiscrete": each([WIDE], SIGMAS),
        "UniPCMultistep": each([WIDE], orders(1, 2, 3), LOWER, SIGMAS),
    }  # fmt: skip
    for name, chosen in wide.items():
        for options in chosen:
            yield name, options, False


def ready(name, options, budget):
    """The scheduler with as many steps as the budget allows."""
    import diffusers

    betas = {} if name.startswith("EDM") else {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    extra = {"tau_func": lambda _: 0.0} if name == "SASolver" else {}
    for steps in range(budget, 0, -1):
        scheduler = getattr(diffusers, f"{name}Scheduler")(**betas, **options, **extra)
        scheduler.set_timesteps(steps)
        if len(scheduler.timesteps) <= budget:
            return scheduler
    raise ValueError("no number of steps is within the budget")


def level(scheduler, i, label):
    """The level of the state that goes into call ``i``: the model is told the truth, not the rounded label."""
    if not hasattr(scheduler, "sigmas"):
        return float(np.sqrt(1.0 / float(scheduler.alphas_cumprod[int(label)]) - 1.0))
    if hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order:
        return float(scheduler.sigmas_interpol[scheduler.step_index])
    return float(scheduler.sigmas[i])


def end_of(name, scheduler, start, denoise):
    """Where the scheduler takes ``start(sigma)``, data with noise of its first level (..., n); ``denoise(y, sigma)`` on such arrays."""
    scheduler.set_timesteps(scheduler.num_inference_steps)
    scheduler.scale_model_input(torch.zeros(1, dtype=torch.float64), scheduler.timesteps[0])
    first = level(scheduler, 0, scheduler.timesteps[0])
    x = torch.tensor(start(first))[..., None, None] * (1.0 if name in IN_SIGMA or name.startswith("EDM") else (1.0 + first**2) ** -0.5)
    for i, label in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, label)  # some count their steps here
        sigma = level(scheduler, i, label)
        y = x if name in IN_SIGMA or name.startswith("EDM") else x * (1.0 + sigma**2) ** 0.5
        data = torch.tensor(denoise(y[..., 0, 0].numpy(), sigma))[..., None, None]
        whole = sigma**2 + 0.25
        answer = (data - 0.25 / whole * y) / (0.5 * sigma / whole**0.5) if name.startswith("EDM") else (y - data) / sigma
        x = scheduler.step(answer, label, x, return_dict=False)[0].double()
    return x[..., 0, 0].numpy()


def spectra_errors(laws):
    """A function from a scheduler to its W2 on each law: all modes in one batch, a row from 0 and a row from 1."""
    spectrum = analysis.families.Spectrum.of(list(laws.values()))
    mean, v = spectrum.mean, spectrum.variances

    def errors(name, scheduler):
        offset, whole = end_of(name, scheduler, lambda s: np.stack([mean, mean + np.sqrt(v + s**2)]), lambda y, s: mean + v / (v + s**2) * (y - mean))
        return spectrum.sums((offset - mean) ** 2 + (np.abs(whole - offset) - np.sqrt(v)) ** 2)

    return errors


def mixture_errors(laws):
    """A function from a scheduler to the errors of its paths; the exact flow is ``dy / d log sigma = y - D``."""
    y = LABELS[-1] * np.random.default_rng(0).standard_normal(64)
    span, settings = np.log([LABELS[-1], 1e-5]), {"method": "DOP853", "rtol": 1e-10, "atol": 1e-12, "dense_output": True}
    flows = {key: solve_ivp(lambda u, y, law=law: y - law.denoiser()(y, np.exp(u)), span, y, **settings) for key, law in laws.items()}

    def errors(name, scheduler):
        found = []
        for key, law in laws.items():
            made = end_of(name, scheduler, lambda s, key=key: flows[key].sol(min(np.log(s), span[0])), law.denoiser())
            found.append(np.sqrt(np.mean((made - flows[key].y[:, -1]) ** 2)))
        return np.array(found)

    return errors


FAULTS = (ValueError, IndexError, NotImplementedError, AssertionError, ZeroDivisionError, AttributeError, UnboundLocalError, TypeError, RuntimeError)


def theirs(budget, errors):
    """(class, options, whether inside the labels, calls, errors) of every scheduler that comes to an end."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, options, inside in schedulers():
            try:
                scheduler = ready(name, options, budget)
                found = errors(name, scheduler)
            except FAULTS:  # options that exclude each other, grids with equal levels
                continue
            if np.all(np.isfinite(found)):
                yield name, options, inside, len(scheduler.timesteps), found


def measure(kind):
    """One entry for each budget and choice of levels."""
    laws = judges(kind)
    errors = (spectra_errors if kind == "spectra" else mixture_errors)(laws)
    for budget in BUDGETS:
        peers = list(theirs(budget, errors))
        for inside in (True, False):
            family, method, end, made = ours(kind, budget, inside, list(laws.values()))
            rows = []
            for i, (law, row) in enumerate(zip(laws, [row for row in made.rows if not row.seen], strict=True)):
                best = min((peer for peer in peers if peer[2] or not inside), key=lambda peer, i=i: peer[4][i])
                their = float(best[4][i])
                peer = {"scheduler": best[0], "options": best[1], "calls": best[3]}
                rows.append({"law": law, "ours": row.error, "diffusers": their, "ratio": row.error / their, "best of diffusers": peer})
            yield {
                "kind": kind, "nfe": budget, "levels": "labels" if inside else "any", "method": str(method), "end": end, "calls": made.nfe,
                "sigma_min": made.sigma_min, "bends": made.bends, "family error": float(np.exp(family)), "schedulers": len(peers),
                "records": {"method": to_record(method), "grid": to_record(made.grid)}, "rows": rows,
            }  # fmt: skip


def show(entry):
    """Print one entry."""
    print(f"{entry['kind']}, {entry['nfe']} calls, levels: {entry['levels']}: {entry['method']} down to {entry['sigma_min']:.3g}, end {entry['end']}")
    for row in entry["rows"]:
        peer = row["best of diffusers"]
        options = ", ".join(f"{key}={value}" for key, value in peer["options"].items())
        print(f"  {row['law']:<62} {row['ours']:>10.3g} {row['diffusers']:>10.3g} {row['ratio']:>9.3g}   {peer['scheduler']}({options})", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=list(FAMILY))
    chosen = parser.parse_args()
    import diffusers as library

    made = []
    for kind in [chosen.only] if chosen.only else FAMILY:
        for entry in measure(kind):
            show(entry)
            made.append(entry)
    if chosen.json:
        about = {"diffusers": library.__version__, "torch": torch.__version__, "machine": platform.machine(), "sdekit": sk.__version__}
        chosen.json.write_text(json.dumps({**about, "entries": made}, indent=1) + "\n")
