"""Record what diffrax and torchsde give with fixed steps: ``integrators.json``, the numbers that our Runge-Kutta methods and steppers are held to.

    python tests/golden/record_integrators.py

Ordinary: the probability-flow ODE of VP (beta 0.1 .. 20) for a mixture, dz/dt = -beta/2 z + beta/2 (z - a D(z/a)) / s^2, from t = 0.9 down to 0.2
in 7 equal steps, by diffrax in float64.  Stochastic: the equations named in the file, with the increments given there, by torchsde in float64; its
srk for diagonal noise is SRID2, another tableau than our SRIW1, and is left out.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchsde

jax.config.update("jax_enable_x64", True)
WEIGHTS, MEANS, STDS = [0.3, 0.7], [-1.0, 0.8], [0.25, 0.4]
TOP, END, STEPS = 0.9, 0.2, 7


def slope(t, z, _):
    beta, B = 0.1 + 19.9 * t, 0.1 * t + 9.95 * t * t
    a, v = jnp.exp(-0.5 * B), -jnp.expm1(-B)
    y, sigma2 = z / a, v / a**2
    total = jnp.array(STDS) ** 2 + sigma2
    gap = y[:, None] - jnp.array(MEANS)
    logs = jnp.log(jnp.array(WEIGHTS)) - 0.5 * jnp.log(total) - 0.5 * gap**2 / total
    share = jax.nn.softmax(logs, axis=1)
    data = jnp.sum(share * (jnp.array(MEANS) + jnp.array(STDS) ** 2 / total * gap), axis=1)
    return -0.5 * beta * z + 0.5 * beta * (z - a * data) / v


def ordinary():
    start = np.linspace(-2.0, 2.0, 5)
    found = {}
    for name, solver in {
        "euler": diffrax.Euler(), "heun": diffrax.Heun(), "midpoint": diffrax.Midpoint(), "ralston": diffrax.Ralston(),
        "bogacki_shampine": diffrax.Bosh3(), "dormand_prince": diffrax.Dopri5(),
    }.items():  # fmt: skip
        term = diffrax.ODETerm(lambda u, z, args: -slope(TOP - u, z, args))  # diffrax runs forwards
        made = diffrax.diffeqsolve(term, solver, 0.0, TOP - END, (TOP - END) / STEPS, jnp.array(start))
        found[name] = np.asarray(made.ys[-1]).tolist()
    return {"start": start.tolist(), "times": np.linspace(TOP, END, STEPS + 1).tolist(), "end": found}


class Given(torchsde.BaseBrownian):
    """Increments as given, over the steps of a fixed grid; their areas too."""

    def __init__(self, times, W, U):
        super().__init__()
        self.times, self.W, self.U = times, torch.tensor(W), torch.tensor(U)

    def __call__(self, ta, tb=None, return_U=False, return_A=False):
        i = int(np.argmin(np.abs(self.times - float(ta))))
        return (self.W[i], self.U[i]) if return_U else self.W[i]

    def __repr__(self):
        return "Given()"

    dtype = torch.float64
    device = torch.device("cpu")

    @property
    def shape(self):
        return self.W.shape[1:]

    levy_area_approximation = "space-time"


class Equation(torch.nn.Module):
    noise_type = "diagonal"

    def __init__(self, sense, additive):
        super().__init__()
        self.sde_type, self.additive = sense, additive
        self.noise_type = "additive" if additive else "diagonal"

    def f(self, t, y):
        return torch.sin(y) - 0.5 * y + 0.3 * t

    def g(self, t, y):
        return torch.full((*y.shape, 1), 0.7, dtype=y.dtype) if self.additive else 0.4 * y + 0.2


def stochastic():
    n, steps = 6, 8
    rng, times = np.random.default_rng(3), np.linspace(0.0, 1.0, steps + 1)
    h = 1.0 / steps
    W = np.sqrt(h) * rng.standard_normal((steps, n, 1))
    U = 0.5 * h * (W + np.sqrt(h / 3.0) * rng.standard_normal((steps, n, 1)))
    start, found = np.linspace(-1.0, 2.0, n)[:, None], {}
    for name, sense, additive, method in (
        ("euler_maruyama", "ito", False, "euler"), ("milstein", "ito", False, "milstein"), ("heun", "stratonovich", False, "heun"),
        ("sra1", "ito", True, "srk"),
    ):  # fmt: skip
        made = torchsde.sdeint(Equation(sense, additive), torch.tensor(start), torch.tensor([0.0, 1.0], dtype=torch.float64), dt=h, method=method,
                               bm=Given(times, W, U))  # fmt: skip
        found[name] = {"sense": sense, "additive": additive, "end": made[-1, :, 0].tolist()}
    return {"times": times.tolist(), "start": start[:, 0].tolist(), "dW": W[..., 0].tolist(), "dZ": U[..., 0].tolist(), "runs": found}


def main():
    versions = {name: importlib.metadata.version(name) for name in ("diffrax", "jax", "torchsde", "torch", "numpy")}
    record = {
        "command": "python tests/golden/record_integrators.py",
        "versions": versions,
        "law": {"weights": WEIGHTS, "means": MEANS, "stds": STDS},
        "ordinary": ordinary(),
        "stochastic": {"equation": "dy = (sin y - y/2 + 0.3 t) dt + (0.4 y + 0.2) dW, or 0.7 dW where additive", **stochastic()},
    }
    Path(__file__).with_name("integrators.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
