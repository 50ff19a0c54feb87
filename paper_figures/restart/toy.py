"""The synthetic experiment of Restart (Xu et al. 2023, section 5.1 and appendix C.5), smaller: errors contracted and added, by exact matching.

Data: points of .3 N(a, I) + .7 N(-a, I) in R^4, a = (3, 3, 3, 3), taken to R^20 by a random matrix, each coordinate scaled to variance 1.
Models: the exact score of these points with waves of known size added, and a small network.  Outside the window [1, 1.5] a first-order ODE;
inside it the ODE, the SDE with several strengths of noise, or Restart.  total = W1(samples, data), contracted = W1(samples, the same sampler from
the exact law at 1.5), additional = W1(that, data).  The floor is W1 between the data and as many drawn from them.

The window is where the paper has it, and so are its first-order methods; 200 points for its 2000, and fewer settings; ``long.toy`` has 400 and twenty
seeds.  Restart and the SDE both contract more than the ODE; which of the two contracts more is not told apart.  The additional error may fall below
the floor, since its start holds each datum once.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

import sdekit as sk
from paper_figures.common import COLOURS, Found, Script, one_thread
from sdekit import grids, imperfect, methods
from sdekit.law import Empirical
from sdekit.noise import Addressed
from sdekit.plans import Jump, Run
from sdekit.solve import assemble, solve

LOW, HIGH = 1.0, 1.5
EPS = 1.0  # of the injected error, of at most this size at every level
KINDS = ("ODE", "SDE", "Restart")
MODELS = ("perturbed", "network")
PROCESS = sk.catalogue.edm()
CLAIMS = {
    "contracted_perturbed": (0.7, 0.99),
    "contracted_network": (0.7, 0.99),
    "added_perturbed": (1.0, 1.8),
    "added_network": (1.0, 1.3),
    "total_perturbed": (0.8, 1.0),
    "total_network": (0.9, 1.01),
    "total_sde_perturbed": (0.8, 1.0),
    "total_sde_network": (0.9, 1.05),
}


def points(n: int, seed: int) -> np.ndarray:
    """The data set."""
    rng = np.random.default_rng(seed)
    a = np.where(rng.uniform(size=(n, 1)) < 0.3, 3.0, -3.0) * np.ones(4)
    made = (a + rng.standard_normal((n, 4))) @ rng.standard_normal((4, 20))
    return made / np.std(made, axis=0)


def network(x: np.ndarray, steps: int, seed: int):
    """A network of four layers of width 64 in EDM's preconditioning, trained by denoising."""
    import torch

    torch.manual_seed(seed)
    layers = [torch.nn.Linear(21, 64), torch.nn.SiLU()]
    for _ in range(2):
        layers += [torch.nn.Linear(64, 64), torch.nn.SiLU()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(64, 20))
    data, optimiser = torch.as_tensor(x, dtype=torch.float32), torch.optim.Adam(net.parameters(), 1e-3)

    def denoised(y, sigma):
        total = sigma**2 + 1.0
        told = 0.25 * torch.log(sigma) * torch.ones_like(y[:, :1])
        return y / total + sigma / total**0.5 * net(torch.cat([y / total**0.5, told], dim=1))

    for _ in range(steps):
        x0 = data[torch.randint(len(data), (256,))]
        sigma = torch.exp(1.2 * torch.randn(256, 1))
        gap = denoised(x0 + sigma * torch.randn_like(x0), sigma) - x0
        loss = torch.mean((sigma**2 + 1.0) / sigma**2 * gap**2)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def denoise(y, sigma):
        with torch.no_grad():
            made = denoised(torch.as_tensor(y, dtype=torch.float32), torch.tensor(float(sigma)))
        return made.numpy().astype(float)

    return denoise


def window(kind: str, setting: tuple) -> list:
    """The moves from level HIGH to LOW."""
    if kind == "Restart":
        first, steps, cycles = setting
        down, back = (tuple(np.linspace(HIGH, LOW, count + 1)) for count in (first, steps))
        legs = [move for leg in range(1, cycles + 1) for move in (Jump(LOW, HIGH, 1.0, leg), Run(methods.euler(), back, leg))]
        return [Run(methods.euler(), down, 5000), *legs]
    steps, noise = setting
    return [Run(methods.euler(noise=noise), tuple(np.linspace(HIGH, LOW, steps + 1)), 5000)]


def settings(quick: bool) -> list[tuple[str, tuple]]:
    """What is tried in the window: (steps, noise), or (steps at first, steps back, cycles)."""
    if quick:
        return [("ODE", (10, 0.0)), ("SDE", (10, 1.0)), ("SDE", (20, 2.0)), ("Restart", (10, 3, 4)), ("Restart", (10, 4, 10))]
    ode = [("ODE", (n, 0.0)) for n in (10, 40, 160)]
    sde = [("SDE", (n, float(np.sqrt(beta)))) for n in (10, 40, 160) for beta in (0.5, 1.0, 2.0, 4.0)]
    return [*ode, *sde, *(("Restart", (10, n, K)) for n in (2, 4, 8) for K in (2, 5, 10, 20))]


def w1(a: np.ndarray, b: np.ndarray) -> float:
    """Exact W1 by matching."""
    cost = cdist(a, b)
    return float(np.mean(cost[linear_sum_assignment(cost)]))


def advance(moves: list, x: np.ndarray, denoise, seed: int) -> np.ndarray:
    """The samples after some moves."""
    return solve(assemble(PROCESS, moves), [x], denoise, Addressed(seed))[0][0]


def one(n: int, seed: int, quick: bool) -> dict[str, np.ndarray]:
    """Errors (models, settings, 3), calls in the window, and the floor, for one seed."""
    x = points(n, seed)
    rng = np.random.default_rng(100 + seed)
    data = Empirical(x)
    models = imperfect.fourier(data, EPS, waves=4, frequency=1.5, seed=seed), network(x, 600 if quick else 4000, seed)
    above = Run(methods.euler(), tuple(grids.karras(12, sigma_min=HIGH, zero=False).times(PROCESS)), 6000)
    below = Run(methods.euler(), (*grids.karras(12, sigma_min=0.02, sigma_max=LOW, zero=False).times(PROCESS), 0.0), 7000)
    errors = []
    for denoise in models:
        starts = advance([above], 80.0 * rng.standard_normal(x.shape), denoise, seed), x + HIGH * rng.standard_normal(x.shape)
        rows = []
        for kind, setting in settings(quick):
            p, q = (advance([*window(kind, setting), below], start, denoise, seed + 1 + i) for i, start in enumerate(starts))
            rows.append([w1(p, x), w1(p, q), w1(q, x)])
        errors.append(rows)
    calls = [assemble(PROCESS, window(*choice)).nfe for choice in settings(quick)]
    eps = models[0].eps(1.2), float(np.sqrt(np.mean(np.sum((models[1](x + 1.2 * (z := rng.standard_normal(x.shape)), 1.2)
          - data.denoiser()(x + 1.2 * z, 1.2)) ** 2, axis=1)))) / 1.2  # fmt: skip
    return {"errors": np.array(errors), "calls": np.array(calls), "floor": np.array(w1(x[rng.integers(n, size=n)], x)), "eps": np.array(eps)}


def gaps(kinds: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Restart against the SDE for mean errors (settings, 3): least contracted and total error, and contracted error at equal additional error."""
    ode, sde, own = (found[kinds == kind] for kind in KINDS)
    begin, end = max(own[:, 2].min(), sde[:, 2].min()), max(part[np.argmin(part[:, 1]), 2] for part in (own, sde))
    at = np.linspace(begin, max(begin, end), 9)
    least = [np.mean([part[part[:, 2] <= a][:, 1].min() for a in at]) for part in (own, sde)]
    return {
        "contracted_restart_minus_sde": own[:, 1].min() - sde[:, 1].min(),
        "frontier_restart_minus_sde": least[0] - least[1],
        "total_restart_minus_sde": own[:, 0].min() - sde[:, 0].min(),
        "contracted_restart_minus_ode": own[:, 1].min() - ode[:, 1].min(),
        "contracted_sde_minus_ode": sde[:, 1].min() - ode[:, 1].min(),
        "total_restart_minus_ode": own[:, 0].min() - ode[:, 0].min(),
    }


def measure(kinds: np.ndarray, errors: np.ndarray) -> dict[str, float]:
    """Least errors in units of the ODE's, and the gaps between Restart and the SDE with standard errors by the jackknife over seeds."""
    measured: dict[str, float] = {}
    for name, each in zip(MODELS, np.swapaxes(errors, 0, 1), strict=True):
        found = each.mean(axis=0)
        ode, own, sde = found[kinds == "ODE"][0], found[kinds == "Restart"], found[kinds == "SDE"]
        best = own[np.argmin(own[:, 1])]
        measured |= {
            f"contracted_{name}": best[1] / ode[1],
            f"added_{name}": best[2] / ode[2],
            f"total_{name}": np.min(own[:, 0]) / ode[0],
            f"total_sde_{name}": np.min(sde[:, 0]) / ode[0],
        }
        without = [gaps(kinds, np.delete(each, i, axis=0).mean(axis=0)) for i in range(len(each))]
        for key, value in gaps(kinds, found).items():
            row = np.array([one[key] for one in without])
            measured[f"{key}_{name}"] = value
            measured[f"{key}_{name}_standard_error"] = float(np.sqrt(np.mean((row - row.mean()) ** 2) * (len(row) - 1)))
    return measured


def measured_with(seeds: list[int], n: int, quick: bool) -> Found:
    """The experiment with some seeds, of ``n`` points each."""
    with one_thread():
        found = [one(n, seed, quick) for seed in seeds]
    made = {name: np.stack([each[name] for each in found]) for name in ("errors", "floor", "eps")}
    kinds = np.array([kind for kind, _ in settings(quick)])
    record = {"points": n, "window": [LOW, HIGH], "eps": EPS, "tried": [[kind, list(setting)] for kind, setting in settings(quick)]}
    return Found({"kinds": kinds, "calls": found[0]["calls"], **made}, measure(kinds, made["errors"]), record, seeds)


def compute(quick):
    return measured_with([0, 1], 100, True) if quick else measured_with([0, 1, 2, 3, 4], 200, False)


def frontier(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of the points that have the least ``y`` of all with no larger ``x``."""
    order = np.lexsort((y, x))
    return order[y[order] <= np.minimum.accumulate(y[order])]


def draw(axes, data):
    kinds, calls, floor = data["kinds"], data["calls"], float(data["floor"].mean())
    errors = data["errors"].mean(axis=0)
    against = data["errors"] - data["errors"][:, :, :1]  # the matrix of each seed moves all errors together: bars are of the gap to the ODE
    spread = against.std(axis=0) / np.sqrt(len(against))
    for name, found, wide, pair in zip(MODELS, errors, spread, (axes[:2], axes[2:]), strict=True):
        for kind, colour in zip(KINDS, COLOURS, strict=False):
            here = kinds == kind
            own, bars = found[here], wide[here]
            for ax, x, y, dy in ((pair[0], own[:, 2], own[:, 1], bars[:, 1]), (pair[1], calls[here], own[:, 0], bars[:, 0])):
                ax.errorbar(x, y, dy, fmt="o", color=colour, markersize=4, alpha=0.5)
                best = frontier(x, y)
                ax.plot(x[best], y[best], "-", marker="", color=colour, label=kind)
        pair[0].set(xlabel="additional error", ylabel="contracted error", title=f"{name} score")
        pair[1].set(xlabel="model calls in the window", ylabel="total error", xscale="log", title=f"{name} score, floor {floor:.2f}")
    axes[0].legend()


SCRIPT = Script(__file__, compute, draw, CLAIMS, panels=4, size=(15.0, 4.0))
main = SCRIPT.main

if __name__ == "__main__":
    main()
