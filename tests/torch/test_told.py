"""Models whose samples each have a level of their own: what they are told beside it is made on the host, goes up with the round, and is right."""

import numpy as np
import pytest
import torch
from test_adaptive_device import Counting, OnDevice

import sdekit as sk
from sdekit import catalogue, control, grids, methods, tables
from sdekit.denoiser import guided
from sdekit.torch import exports, states
from sdekit.torch.adapters import Diffusers, ScoreSDE
from sdekit.torch.guidance import Clipped, Thresholded
from sdekit.torch.matching import Matching
from sdekit.torch.trained import NetworkScore

PSLD, VP, TABLE = catalogue.psld(), catalogue.vp(), tables.linear()
V = 0.25  # variance of each element of the data
GRID = grids.times([1.0, 0.05, 0.0])
SIGMAS = torch.from_numpy(TABLE.sigma)


def wide(c, x):
    return c.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


def exact(y, sigma):
    level = wide(sigma, y) if torch.is_tensor(sigma) and sigma.ndim else float(sigma)
    return V / (V + level * level) * y


def eps(x, label):
    """The noise that a network of labels says, its level by interpolation of the logarithm, on the device."""
    low = label.double().floor().clamp(max=len(SIGMAS) - 2).long()
    part = label - low
    sigma = wide(torch.exp((1 - part) * SIGMAS[low].log() + part * SIGMAS[low + 1].log()), x)
    y = x * (1 + sigma * sigma) ** 0.5
    return (y - V / (V + sigma * sigma) * y) / sigma


def score_vp(x, t):
    """With beta from 0.1 to 20."""
    abar = wide(torch.exp(-(0.1 * t + 0.5 * 19.9 * t * t)), x)
    return -x / (abar * V + 1 - abar)


LABELS = Diffusers(eps, TABLE)
MODELS = {
    "diffusers": LABELS,
    "score_sde": ScoreSDE(score_vp, VP),
    "table": TABLE.denoiser(eps),
    "guided": guided(TABLE.denoiser(eps), LABELS, 3.0),
    "clipped": Clipped(ScoreSDE(score_vp, VP), 1e9),
    "guided_twice": Clipped(guided(exact, LABELS, -1.0), 1e9),
}


@pytest.mark.parametrize("name", MODELS)
def test_nothing_but_the_block_goes_up(name, monkeypatch):
    """The samples are those of the denoiser, and what the model is told costs no copy of its own."""
    rounds = []
    with Counting(monkeypatch) as counting:
        start = torch.randn((1, 9, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 1.0
        how = {"control": control.gotta_go_fast(0.3), "grid": GRID, "start": start, "batch": 4, "seed": OnDevice(3)}
        run = sk.sample(VP, MODELS[name], watch=lambda event: rounds.append(event.t), **how)
        assert set(run.status) == {"ok"}
        assert counting.back[torch.Tensor.cpu] == len(rounds) - 1
        assert counting.there == len(rounds) + 1
    native = sk.sample(VP, exact, **how)
    np.testing.assert_allclose(run.state, native.state, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(run.nfe, native.nfe)


def test_thresholds_hand_on_what_is_told():
    y, sigma = torch.linspace(-2.0, 2.0, 12, dtype=torch.float64).reshape(4, 3), torch.tensor([0.1, 0.5, 2.0, 9.0], dtype=torch.float64)
    model = Thresholded(LABELS, 1.0)
    told = [torch.from_numpy(v) for v in model.told(sigma.numpy())]
    assert torch.equal(model(y, sigma, *told), model(y, sigma))
    assert not torch.allclose(model(y, sigma, told[0] + 30.0), model(y, sigma))


def gaussian(z, t):
    """Score of the state for Gaussian data at one time, z (2, ...), and its covariance."""
    kernel = PSLD.kernel(t)
    cov = kernel.cov + V * np.outer(kernel.psi, kernel.psi)
    return -torch.tensordot(torch.from_numpy(np.linalg.inv(cov)), z, dims=1), kernel.cov


def native_network(mode, predicts):
    def one(z, t):
        own, S = gaussian(torch.stack(z.chunk(2, dim=0)), t)
        if predicts == "eps":
            upper = np.linalg.cholesky(S[::-1, ::-1])[::-1, ::-1]
            own = -torch.tensordot(torch.from_numpy((upper if mode == "score_x" else np.linalg.cholesky(S)).T.copy()), own, dims=1)
        return torch.cat(list(own)) if mode == "both" else own[0 if mode == "score_x" else 1]

    return lambda z, t: torch.stack([one(sample, float(when)) for sample, when in zip(z, t, strict=True)])


STATES = {f"{mode} {predicts}": states.psld(native_network(mode, predicts), PSLD, mode, predicts=predicts, shape=(3,))
          for mode in ("both", "score_x", "score_m") for predicts in ("eps", "score")}  # fmt: skip
STATES["exported"] = exports.to_state_score(exact, PSLD)
STATES["exported labels"] = exports.to_state_score(LABELS, PSLD)


@pytest.mark.parametrize("name", STATES)
def test_networks_of_the_state_at_times_of_their_own(name):
    """The exact score at each sample's time, also with the maps made before."""
    z, t = torch.randn((2, 4, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(1)), np.array([0.02, 0.9, 0.3, 0.1])
    want = torch.stack([gaussian(z[:, i], when)[0] for i, when in enumerate(t)], dim=1)
    model = STATES[name]
    told = [torch.from_numpy(np.array(v)) for v in model.told(t)]
    for made in (model(z, torch.from_numpy(t), *told), model(z, torch.from_numpy(t))):
        torch.testing.assert_close(made, want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model(z[:, :1], 0.02), want[:, :1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["both eps", "score_m score", "exported labels"])
def test_adaptive_steps_on_networks_of_the_state(name, monkeypatch):
    """Those of the denoiser."""
    start = torch.randn((2, 6, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 0.8
    how = {
        "control": control.adaptive(methods.heun(), 0.05, 0.01),
        "grid": grids.times([0.8, 0.05, 0.0]),
        "start": start,
        "batch": 4,
        "seed": OnDevice(3),
    }
    native = sk.sample(PSLD, exact, **how)
    rounds = []
    with Counting(monkeypatch) as counting:
        run = sk.sample(PSLD, STATES["exported"], watch=lambda event: rounds.append(event.t), **how)
        assert counting.there == len(rounds) + 1
        assert counting.back[torch.Tensor.cpu] == len(rounds) - 1
    np.testing.assert_allclose(run.state, native.state, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(sk.sample(PSLD, STATES[name], **how).state, native.state, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("of", ["score", "eps", "mixed", "data", "edm"])
def test_trained_networks_at_times_of_their_own(of):
    """Each sample as alone at its time; the network's answer depends on its input and on what it is told."""
    loss = Matching(PSLD, 0.5, of=of)
    model = NetworkScore(_Answer(loss.blocks), (3,), loss)
    z, t = torch.randn((2, 4, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(1)), np.array([0.02, 0.9, 0.3, 0.1])
    alone = torch.cat([model(z[:, i : i + 1], float(when)) for i, when in enumerate(t)], dim=1)
    told = [torch.from_numpy(v) for v in model.told(t)]
    for made in (model(z, torch.from_numpy(t)), model(z, torch.from_numpy(t), *told)):
        torch.testing.assert_close(made, alone, rtol=1e-12, atol=1e-12)
    run = sk.sample(PSLD, model, control=control.adaptive(methods.heun(), 0.05, 0.01), grid=GRID, n=3, dtype=torch.float64)
    assert set(run.status) == {"ok"}
    np.testing.assert_allclose(_along(model, run), run.state, rtol=1e-7, atol=1e-9)


class _Answer(torch.nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.blocks, self.scale = blocks, torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, x, level):
        return self.scale * torch.tanh(x[:, : self.blocks * 3] + wide(level, x))


def _along(model, run):
    """Each sample again, by fixed steps at its own accepted times."""
    again = [
        sk.sample(PSLD, model, method=methods.heun(), grid=grids.times([*times, 0.0]), ids=[i], dtype=torch.float64).state
        for i, times in enumerate(run.adapted.times)
    ]
    return torch.cat(again, dim=1)
