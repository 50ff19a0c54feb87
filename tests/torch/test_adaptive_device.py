"""Adaptive runs on a device: one block goes up and one vector comes back in each round of attempts, and nothing else."""

from collections import Counter

import numpy as np
import pytest
import torch
from test_trajectory import Deaf
from torch.overrides import TorchFunctionMode

import sdekit as sk
from sdekit import _array, catalogue, control, grids, methods
from sdekit.torch.random import normals_each


class Counting(TorchFunctionMode):
    """Counts what brings values back to the host, and what takes some to the device."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.back, self.there = Counter(), 0

        def counted(host, device, upload=_array.upload):
            self.there += 1
            return upload(host, device)

        monkeypatch.setattr(_array, "upload", counted)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in Deaf.BACK:
            self.back[function] += 1
        if function in {torch.Tensor.__getitem__, torch.Tensor.__setitem__}:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.there += sum(isinstance(i, np.ndarray | list) for i in index)
        return function(*args, **(kwargs or {}))


class OnDevice(sk.noise.Addressed):
    """The device's normals, on this device."""

    def at(self, words, there, size, like=None):
        return normals_each(self.seed, there, size, like)


def denoise(y, sigma):
    level = sigma.reshape(-1, 1)
    return 0.25 / (0.25 + level * level) * y


@pytest.mark.parametrize(
    "made", [control.gotta_go_fast(0.1), control.adaptive(methods.sra(1), 0.2, 0.05), control.adaptive(methods.heun(), 0.05, 0.01, h_init=0.9)]
)
@pytest.mark.parametrize("process", [catalogue.vp(), catalogue.psld()], ids=lambda process: process.name)
def test_one_block_up_and_one_vector_down(process, made, monkeypatch):
    """Refilled slots, rejections, samples that leave for the data and a time to visit; beside it the last step's coefficients go up, once."""
    rounds = []
    start = torch.randn((process.k, 12, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 1.0
    grid = grids.times([1.0, 0.05, 0.0])
    with Counting(monkeypatch) as counting:
        run = sk.sample(
            process, denoise, control=made, grid=grid, start=start, batch=5, seed=OnDevice(3), save=[0.5], watch=lambda event: rounds.append(event.t)
        )
    assert set(run.status) == {"ok"}
    assert np.sum(run.adapted.rejected) > 0
    assert counting.back[torch.Tensor.cpu] == len(rounds) - 1
    assert set(counting.back) <= {torch.Tensor.cpu, torch.Tensor.numpy}
    assert counting.there == len(rounds) + 1
    host = sk.sample(process, denoise, control=made, grid=grid, start=(start[0].numpy(), 1.0), seed=3, batch=12, save=[0.5])
    np.testing.assert_allclose(run.state.numpy(), host.state, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(run.nfe, host.nfe)
