"""Adaptive runs on a device: one vector comes back in each round of attempts, and nothing else waits."""

from collections import Counter

import numpy as np
import pytest
import torch
from test_trajectory import Deaf
from torch.overrides import TorchFunctionMode

import sdekit as sk
from sdekit import catalogue, control, grids, methods


class Counting(TorchFunctionMode):
    """Counts what brings values back to the host."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in Deaf.BACK:
            self.seen[function] += 1
        return function(*args, **(kwargs or {}))


def denoise(y, sigma):
    level = sigma.reshape(-1, 1)
    return 0.25 / (0.25 + level * level) * y


@pytest.mark.parametrize(
    "made", [control.gotta_go_fast(0.1), control.adaptive(methods.sra(1), 0.2, 0.05), control.adaptive(methods.heun(), 0.05, 0.01, h_init=0.9)]
)
@pytest.mark.parametrize("process", [catalogue.vp(), catalogue.psld()], ids=lambda process: process.name)
def test_errors_are_all_that_comes_back(made, process):
    """Refilled slots, rejections and all; a run that ends at the data looks once more at each sample that leaves."""
    rounds = []
    with Counting() as counting:
        run = sk.sample(
            process, denoise, control=made, grid=grids.times([1.0, 0.05]), n=12, shape=(3,), batch=5, dtype=torch.float64, watch=rounds.append
        )
    assert set(run.status) == {"ok"}
    assert np.sum(run.adapted.rejected) > 0
    assert counting.seen[torch.Tensor.cpu] == len(rounds)
    assert set(counting.seen) <= {torch.Tensor.cpu, torch.Tensor.numpy}
