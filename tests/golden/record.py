"""Record what the right samplers of diffusers and k-diffusion give on exact models: ``peers.json``, the numbers that our methods are held to.

    python tests/golden/record.py --k-diffusion SAMPLING_PY --commit HASH

SAMPLING_PY is the file k_diffusion/sampling.py of a checkout at HASH; nothing of it is kept.  Both libraries compute in float64 here.  The
layout of the file is told at its top (``LAYOUT`` below).
"""

import argparse
import importlib.metadata
import importlib.util
import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import torch

from sdekit.analysis.schedulers import BrownianPath, laboratory, library, quiet

LAYOUT = [
    "data: laws of one number, weights, means, stds; the model is their exact posterior mean D(y; sigma)",
    "levels: sigma = s/a of every accepted state, first to last; a step goes from one to the next; 0 is the data",
    "calls: sigma at which the model was asked, in order; null where just once at each level but the last",
    "start, end: states as y = x/a, one number for each sample (variance preserving or not makes no difference to y)",
    "x_start, x_end: the same states as the sampler held them, x = a y with a = 1/sqrt(1 + sigma^2), where it is variance preserving",
    "noise: the normals of each draw, in order, one for each sample; null without",
    "pieces: for each draw the two levels between which it is a normal increment of one Brownian path in sigma; a longer increment is the sum of",
    "  its pieces sqrt(s - t) xi over sqrt(s_first - t_last); null where a draw stands alone",
    "PNDM: its last level appears once, though it is asked there and stays (the last call is wasted); prk asks at the middle label of a step,",
    "  which on explicit levels is their geometric mean",
    "faulty: why the numbers are not those of the formula; null where they are",
    "options: of the constructor and of step (diffusers), or of the function (k-diffusion)",
]
LAWS = {
    "gaussian": {"weights": [1.0], "means": [0.3], "stds": [0.5]},
    "mixture": {"weights": [0.3, 0.7], "means": [-1.0, 0.8], "stds": [0.25, 0.4]},
}
SCALED = ("Euler", "Heun", "KDPM2", "LMS", "DPMSolverSDE")  # their state is y
KINDS = {"eps": "epsilon", "v": "v_prediction"}


def exactly(sigmas):
    """Levels that float32 holds: the libraries store them so."""
    return np.asarray(sigmas).astype(np.float32).astype(float)


GRIDS = {
    "log 10": exactly(np.geomspace(5.0, 0.1, 11)),
    "karras 20": exactly((20 ** (1 / 7) + np.linspace(0, 1, 21) * (0.05 ** (1 / 7) - 20 ** (1 / 7))) ** 7),
}


class Exact:
    """The exact model of a law: notes the levels at which it is asked."""

    def __init__(self, law):
        self.weights, self.means, self.stds = (np.array(LAWS[law][name]) for name in ("weights", "means", "stds"))
        self.calls = []

    def denoise(self, y, sigma):
        self.calls.append(float(sigma))
        total = self.stds**2 + sigma**2
        gap = y[..., None] - self.means
        logs = np.log(self.weights) - 0.5 * (gap**2 / total + np.log(total))
        share = np.exp(logs - logs.max(-1, keepdims=True))
        return np.sum(share * (self.means + self.stds**2 / total * gap), -1) / np.sum(share, -1)

    def preserving(self, x, sigma, kind="eps"):
        """The answer to a state x = a y."""
        a = 1.0 / math.sqrt(1.0 + sigma * sigma)
        D = self.denoise(x / a, sigma)
        eps = (x / a - D) / sigma
        return eps if kind == "eps" else a * (eps - sigma * D)


class Normals:
    """Normals that are kept."""

    def __init__(self, size):
        self.rng, self.size, self.drawn = np.random.default_rng(0), size, []

    def __call__(self, *_):
        self.drawn.append(self.rng.standard_normal(self.size))
        return torch.from_numpy(self.drawn[-1]).reshape(-1, 1, 1)


class Pieces(BrownianPath):
    """A Brownian path whose pieces are kept with their ends."""

    def __init__(self, sigmas, normals):
        super().__init__(np.asarray(sigmas), normals)
        self.ends = []

    def piece(self, k):
        self.ends.append([float(self.nodes[k + 1]), float(self.nodes[k])])
        return super().piece(k)


def case(name, peer, law, levels, y, end, model, normals, options, scale=None, pieces=None, faulty=None):
    """One record; ``scale`` gives x = a y at a level."""
    plain = len(model.calls) == len(levels) - 1 and np.allclose(model.calls, levels[:-1], rtol=1e-12, atol=0.0)
    record = {
        "name": name, "peer": peer, "law": law, "options": options, "levels": [float(s) for s in levels], "calls": None if plain else model.calls,
        "start": y.tolist(), "end": end.tolist(), "noise": [draw.tolist() for draw in normals.drawn] or None,
        "pieces": pieces.ends if pieces is not None else None, "faulty": faulty,
    }  # fmt: skip
    if scale is not None:
        record |= {"x_start": (scale(levels[0]) * y).tolist(), "x_end": (scale(levels[-1]) * end).tolist()}
    return record


def preserving(sigma):
    return 1.0 / math.sqrt(1.0 + sigma * sigma)


def trained(sigmas, midpoints=False):
    """Options of a scheduler that is trained on just these levels (and, for PRK, one between neighbours)."""
    table = np.asarray(sigmas)[::-1]
    if midpoints:
        table = exactly(np.sort(np.concatenate([table, np.sqrt(table[1:] * table[:-1])])))
    products = 1.0 / (1.0 + table**2)
    return table, {"trained_betas": 1.0 - products / np.append(1.0, products[:-1]), "num_train_timesteps": len(table)}


def scheduler(name, n, options):
    with quiet(), laboratory()(None):
        made = getattr(library(), f"{name}Scheduler")(**options)
        made.set_timesteps(n)
    return made


def run(made, law, y, scaled, sigma_of, kind="eps", drop=0, ask=None):
    """A scheduler's loop on the states y at its first level; the final states as it holds them."""
    model, normals, pieces = Exact(law), Normals(len(y)), None
    first = sigma_of(float(made.timesteps[0]))
    with laboratory()(normals):
        if hasattr(made, "noise_sampler"):
            made.noise_sampler = pieces = Pieces(made.sigmas.numpy(), normals)
        x = torch.from_numpy(y * (1.0 if scaled else preserving(first))).reshape(-1, 1, 1)
        for label in made.timesteps[: len(made.timesteps) - drop]:
            held = made.scale_model_input(x, label).numpy().ravel()
            answer = model.preserving(held, sigma_of(float(label)), kind)
            x = made.step(torch.from_numpy(answer).reshape(x.shape), label, x, **(ask or {})).prev_sample
    return x.numpy().ravel(), model, normals, pieces


def tables():
    """The schedulers with a thousand training levels, linear betas, on their own sub-sequences: problems P1 and P2."""
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    wanted = [("DDIM", {"clip_sample": False}, f"leading {n}", n, None) for n in (10, 20, 50)]
    wanted += [("DDIM", {"clip_sample": False, "timestep_spacing": "trailing"}, "trailing 20", 20, None)]
    wanted += [("DDIM", {"clip_sample": False, "timestep_spacing": "linspace"}, "linspace 10", 10, "steps by a stride of 100, labels are 111 apart")]
    wanted += [("PNDM", {}, f"prk {n}", n, None) for n in (10, 20, 50)]
    wanted += [("PNDM", {"skip_prk_steps": True}, f"plms {n}", n, None) for n in (10, 20, 50)]
    for law in LAWS:
        for name, options, title, n, faulty in wanted:
            made = scheduler(name, n, options)
            products = made.alphas_cumprod.numpy()
            table = np.sqrt((1.0 - products) / products)
            labels = made._timesteps[::-1] if name == "PNDM" else made.timesteps.numpy()
            levels = [*table[labels.astype(int)], *([] if name == "PNDM" else [0.0])]
            y = x / preserving(levels[0])
            end, *ran, _ = run(made, law, y, False, lambda label, table=table: table[int(label)])
            end = end / preserving(levels[-1])
            yield case(f"{name} {title}", "diffusers", law, levels, y, end, *ran, options, preserving, faulty=faulty)


def formulas():
    """Right formulas of diffusers on explicit levels: (name, scheduler, options, arguments of ``run``)."""
    inside = {"lower_order_final": False, "final_sigmas_type": "sigma_min"}
    yield "DDIM", "DDIM", {"clip_sample": False, "steps_offset": 1}, {}
    yield "DDIM eta=1", "DDIM", {"clip_sample": False, "steps_offset": 1}, {"ask": {"eta": 1.0}}
    yield "DDPM", "DDPM", {"clip_sample": False}, {"drop": 1}
    yield "PNDM prk", "PNDM", {"steps_offset": 2}, {}
    yield "PNDM plms", "PNDM", {"steps_offset": 1, "skip_prk_steps": True}, {}
    yield "IPNDM", "IPNDM", {}, {"kind": "v"}
    for algorithm in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"):
        for order, kind in ((1, "midpoint"), (2, "midpoint"), (2, "heun")):
            options = {"algorithm_type": algorithm, "solver_order": order, "solver_type": kind, **inside}
            yield f"DPMSolverMultistep {algorithm} {order} {kind}", "DPMSolverMultistep", options, {}
    for algorithm in ("dpmsolver++", "dpmsolver"):
        for order, kind in ((2, "midpoint"), (2, "heun"), (3, "midpoint"), (3, "heun")):
            options = {"algorithm_type": algorithm, "solver_order": order, "solver_type": kind, **inside}
            yield f"DPMSolverSinglestep {algorithm} {order} {kind}", "DPMSolverSinglestep", options, {}
    for order in (1, 2, 3):
        yield f"DEISMultistep {order}", "DEISMultistep", {"solver_order": order, "lower_order_final": False}, {}
        for kind in ("bh1", "bh2"):
            yield f"UniPCMultistep {kind} {order}", "UniPCMultistep", {"solver_order": order, "solver_type": kind, **inside}, {}
        for tau in (0.0, 1.0):
            yield (
                f"SASolver {order} tau={tau:g}",
                "SASolver",
                {"predictor_order": order, "corrector_order": order, "tau": tau, "lower_order_final": False},
                {},
            )
    for name in ("EulerDiscrete", "HeunDiscrete", "KDPM2Discrete", "LMSDiscrete", "EulerAncestralDiscrete", "KDPM2AncestralDiscrete", "DPMSolverSDE"):
        yield name, name, {}, {"drop": 1}


def explicit():
    for grid, sigmas in GRIDS.items():
        y = sigmas[0] * np.linspace(-2.0, 2.0, 5)
        for title, name, options, how in formulas():
            thirds = options.get("solver_order") == 3 and name == "DPMSolverSinglestep"
            levels = sigmas[: len(sigmas) - (len(sigmas) - 1) % 3] if thirds else sigmas
            table, given = trained(levels, midpoints=title == "PNDM prk")
            n = len(levels) - 1
            given |= {"prediction_type": KINDS[how.get("kind", "eps")], **options}
            if "tau" in options:
                given["tau_func"] = lambda _, tau=given.pop("tau"): tau  # noqa: B008
            if name == "IPNDM":
                given = {"num_train_timesteps": n, "trained_betas": np.sqrt(1.0 - 1.0 / (1.0 + levels**2))}

            def sigma_of(label, table=table, angle=name == "IPNDM"):
                return math.tan(label * math.pi / 2) if angle else math.exp(np.interp(label, np.arange(len(table)), np.log(table)))

            scaled = name.startswith(SCALED)
            for law in LAWS if grid == "log 10" else ["mixture"]:
                made = scheduler(name, n + how.get("drop", 0), given)
                end, model, normals, pieces = run(made, law, y, scaled, sigma_of, **how)
                a = 1.0 if scaled else preserving(levels[-1])
                scale = None if scaled else preserving
                told = {**options, **how.get("ask", {})}
                yield case(f"{title}, {grid}", "diffusers", law, levels, y, end / a, model, normals, told, scale, pieces)


def sampling(path):
    """The module at ``path``, without the rest of its package."""
    package, utils = types.ModuleType("peer"), types.ModuleType("peer.utils")
    utils.append_dims = lambda x, ndim: x.reshape(x.shape + (1,) * (ndim - x.ndim))
    package.utils, package.__path__ = utils, []
    solver = types.ModuleType("torchdiffeq")
    solver.odeint = None  # for likelihoods only
    sys.modules |= {"peer": package, "peer.utils": utils, "torchdiffeq": solver}
    spec = importlib.util.spec_from_file_location("peer.sampling", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def karras(module):
    """The right samplers of k-diffusion on explicit levels, to the data too: the problem in the variance exploding coordinate."""
    alone = ["euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_2m_sde", "dpmpp_sde"]
    wanted = [(name, name, {}) for name in ("euler", "heun", "dpm_2", "lms", "dpmpp_2m", *alone)]
    wanted += [("dpmpp_2s", "dpmpp_2s_ancestral", {"eta": 0.0}), ("dpmpp_2m_sde heun", "dpmpp_2m_sde", {"solver_type": "heun"})]
    wanted += [("euler_ancestral eta=0.5", "euler_ancestral", {"eta": 0.5})]
    churn = {"s_churn": 4.0, "s_tmin": 0.2, "s_tmax": 3.0, "s_noise": 1.003}
    wanted += [(f"{name} churn", name, churn) for name in ("euler", "heun", "dpm_2")]
    for grid, sigmas in {**GRIDS, "karras 20 to the data": np.append(GRIDS["karras 20"], 0.0)}.items():
        y = sigmas[0] * np.linspace(-2.0, 2.0, 5)
        for title, name, options in wanted:
            model, normals = Exact("mixture"), Normals(len(y))
            pieces = Pieces(sigmas, normals) if name == "dpmpp_sde" else None
            given = {**options, **({"noise_sampler": pieces or normals} if name in alone else {})}

            def asked(x, sigma, model=model):
                return torch.from_numpy(model.denoise(x.numpy().ravel(), float(sigma[0]))).reshape(x.shape)

            with laboratory()(normals):
                start = torch.from_numpy(y).reshape(-1, 1, 1)
                end = getattr(module, f"sample_{name}")(asked, start, torch.from_numpy(sigmas), disable=True, **given).numpy().ravel()
            yield case(f"{title}, {grid}", "k-diffusion", "mixture", sigmas, y, end, model, normals, options, pieces=pieces)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k-diffusion", required=True, type=Path, metavar="SAMPLING_PY")
    parser.add_argument("--commit", required=True, metavar="HASH")
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).with_name("peers.json"))
    given = parser.parse_args()
    head = {
        "layout": LAYOUT,
        "command": f"python tests/golden/record.py --k-diffusion SAMPLING_PY --commit {given.commit}",
        "versions": {name: importlib.metadata.version(name) for name in ("diffusers", "torch", "numpy", "scipy")} | {"k-diffusion": given.commit},
        "laws": LAWS,
    }
    cases = [*tables(), *explicit(), *karras(sampling(given.k_diffusion))]
    lines = ",\n".join("  " + json.dumps(record) for record in cases)
    given.out.write_text(json.dumps(head, indent=1)[:-2] + ',\n "cases": [\n' + lines + "\n ]\n}\n")


if __name__ == "__main__":
    main()
