"""Our methods against the recorded runs of diffusers and k-diffusion, wherever their formula is right: sample by sample, with their normals."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from processes import edm

from sdekit import grids, methods, plans
from sdekit.law import Mixture
from sdekit.noise import METHOD
from sdekit.solve import program, solve

PEERS = json.loads(Path(__file__).with_name("peers.json").read_text())
CASES = {(case["name"], case["law"]): case for case in PEERS["cases"]}


def alone(method):
    return partial(plans.run, method=method)


def ancestral(method, eta=1.0):
    return lambda grid: plans.ancestral(plans.run(grid, method), eta)


def churned(method):
    return lambda grid: plans.churn(plans.run(grid, method), 4.0, 0.2, 3.0, 1.003)


exponential = methods.exponential
MULTISTEP = "DPMSolverMultistep"
OURS = {
    "DDIM": alone(methods.ddim()),
    "DDIM eta=1": alone(exponential(1, noise=1.0)),
    "DDPM": alone(exponential(1, noise=1.0)),
    f"{MULTISTEP} dpmsolver++ 1 midpoint": alone(exponential(1)),
    f"{MULTISTEP} dpmsolver++ 2 midpoint": alone(exponential(2, rule="midpoint")),
    f"{MULTISTEP} dpmsolver++ 2 heun": alone(exponential(2)),
    f"{MULTISTEP} dpmsolver 1 midpoint": alone(exponential(1, of="eps")),
    f"{MULTISTEP} dpmsolver 2 midpoint": alone(exponential(2, of="eps", rule="midpoint")),
    f"{MULTISTEP} dpmsolver 2 heun": alone(exponential(2, of="eps")),
    f"{MULTISTEP} sde-dpmsolver++ 1 midpoint": alone(exponential(1, noise=1.0)),
    f"{MULTISTEP} sde-dpmsolver++ 2 midpoint": alone(exponential(2, noise=1.0, rule="midpoint")),
    f"{MULTISTEP} sde-dpmsolver++ 2 heun": alone(exponential(2, noise=1.0)),
    f"{MULTISTEP} sde-dpmsolver 1 midpoint": alone(exponential(1, of="eps", noise=1.0)),
    f"{MULTISTEP} sde-dpmsolver 2 midpoint": alone(exponential(2, of="eps", noise=1.0, rule="midpoint")),
    f"{MULTISTEP} sde-dpmsolver 2 heun": alone(exponential(2, of="eps", noise=1.0)),
    **{f"DEISMultistep {p}": alone(exponential(p, of="eps")) for p in (1, 2, 3)},
    **{f"UniPCMultistep {b} {p}": alone(methods.unipc(p, rule=b)) for p in (1, 2, 3) for b in ("bh1", "bh2")},
    **{f"SASolver {p} tau={tau}": alone(methods.sa_solver(p, p, tau=float(tau), rule="released")) for p in (1, 2, 3) for tau in (0, 1)},
    "IPNDM": alone(methods.ipndm()),
    "PNDM prk": alone(methods.f_pndm("log")),
    "PNDM plms": alone(methods.plms()),
    "EulerDiscrete": alone(methods.euler()),
    "euler": alone(methods.euler()),
    "HeunDiscrete": alone(methods.heun()),
    "heun": alone(methods.heun()),
    "KDPM2Discrete": alone(methods.dpm_2()),
    "dpm_2": alone(methods.dpm_2()),
    "LMSDiscrete": alone(methods.lms(4)),
    "lms": alone(methods.lms(4)),
    "dpmpp_2m": alone(exponential(2, rule="midpoint")),
    "dpmpp_2s": alone(methods.dpm_solver_pp_2s()),
    "dpmpp_2m_sde": alone(exponential(2, noise=1.0, rule="midpoint")),
    "dpmpp_2m_sde heun": alone(exponential(2, noise=1.0)),
    "euler_ancestral": ancestral(methods.ddim()),
    "euler_ancestral eta=0.5": ancestral(methods.ddim(), 0.5),
    "EulerAncestralDiscrete": ancestral(methods.ddim()),
    "dpm_2_ancestral": ancestral(methods.dpm_2()),
    "KDPM2AncestralDiscrete": ancestral(methods.dpm_2()),
    "dpmpp_2s_ancestral": ancestral(methods.dpm_solver_pp_2s()),
    "euler churn": churned(methods.euler()),
    "heun churn": churned(methods.heun()),
    "dpm_2 churn": churned(methods.dpm_2()),
    "dpmpp_sde": alone(methods.dpmpp_sde()),
    "DPMSolverSDE": alone(methods.dpmpp_sde()),
}


class Replay:
    """The recorded normals by the step that they belong to: they draw some in every step, used or not."""

    def __init__(self, draws, steps):
        self.draws, self.each = draws, -(-len(draws or ()) // steps)

    def draw(self, addresses, ids, shape, like=None):
        return np.stack([np.array(self.draws[self.step(a) * self.each + a.slot]) for a in addresses])

    def step(self, address):
        """Moves of a plan number their steps 1 + 2 i (churn) and 2 + 2 i (ancestral)."""
        return address.step if address.stream == METHOD else (address.step - 1) // 2


def known(name):
    return name.split(", ")[0] in OURS and name != "lms, karras 20 to the data"  # theirs integrates its polynomial to 0, ours puts D there


@pytest.mark.parametrize(("name", "law"), [key for key in CASES if known(key[0]) and CASES[key]["faulty"] is None], ids=str)
def test_ours(name, law):
    case, plan = CASES[name, law], OURS[name.split(", ")[0]]
    told = PEERS["laws"][law]
    denoise = Mixture(told["weights"], told["means"], np.square(told["stds"])).denoiser()
    prog = program(edm(), plan(grids.sigmas(case["levels"])))
    made, _ = solve(prog, [np.array(case["start"])], denoise, Replay(case["noise"], len(prog.times) - 1))
    np.testing.assert_allclose(made[0], case["end"], atol=1e-8 * np.max(np.abs(case["start"])))
