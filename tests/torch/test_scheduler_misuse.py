"""Misuse of our scheduler: each mistake is named, with its way out."""

import pytest
import torch

import sdekit as sk
from sdekit.torch.conventions import library
from sdekit.torch.scheduler import SdekitScheduler, use_in

pytestmark = pytest.mark.images
BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def start():
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SdekitScheduler(plan=sk.plans.run(sk.grids.karras(5)), method=sk.methods.heun()), "either a plan, or a method and a grid"),
        (lambda: SdekitScheduler(rounding="up"), "unknown rounding 'up'"),
        (lambda: SdekitScheduler(process=sk.modes.blurring(sk.catalogue.cosine(), (1, 8, 8))), "another noise level in each mode"),
        (lambda: SdekitScheduler(prediction_type="flow"), "unknown prediction_type 'flow'"),
        (lambda: SdekitScheduler(method={"format": "sdekit.record/1", "kind": "method", "name": "os"}), "record.name: unknown name .*os"),
        (lambda: SdekitScheduler().set_timesteps(), "num_inference_steps = None needs a grid"),
        (lambda: SdekitScheduler().set_timesteps(1001), "more than the 1000 labels"),
        (lambda: SdekitScheduler(grid=sk.grids.sigmas([3.0, 1.0])).set_timesteps(5), "num_inference_steps = 5, but the grid has 1 given steps"),
        (lambda: SdekitScheduler(grid=sk.grids.karras(5)).set_timesteps(5), "sigma = 0.002 lies outside the levels"),
        (lambda: SdekitScheduler().step(start(), 999, start()), "call set_timesteps before step"),
        (lambda: use_in(library().DDPMPipeline(torch.nn.Identity(), library().FlowMatchEulerDiscreteScheduler())), "names no betas"),
        (lambda: use_in(object()), "pipeline = object has no scheduler"),
    ],
)
def test_misuse_is_named(make, message):
    with pytest.raises(sk.BadInput, match=message):
        make()


def test_calls_out_of_order():
    own = SdekitScheduler(**BETAS, method=sk.methods.ddim())
    own.set_timesteps(2)
    with pytest.raises(sk.BadInput, match="timestep = 0, but call 0 of this run is at 500"):
        own.step(start(), own.timesteps[1], start())
    with pytest.raises(sk.BadInput, match="answers with 3 channels to data of 1"):
        own.step(start().repeat(1, 3, 1, 1), 500, start())
    own.set_timesteps(2)
    x = start()
    for t in own.timesteps:
        x = own.step(x, t, x).prev_sample
    with pytest.raises(sk.BadInput, match="all 2 model calls of this run were made"):
        own.step(x, 0, x)
