"""Our scheduler in diffusers' pipelines: against theirs where they are right, and against ``sample`` on the same network and noise."""

import json

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit import compatibility
from sdekit.analysis.schedulers import quiet
from sdekit.denoiser import guided
from sdekit.methods import Method
from sdekit.noise import Addressed
from sdekit.record import from_record
from sdekit.torch import adapters
from sdekit.torch.conventions import library, table_of
from sdekit.torch.guidance import Clipped, Thresholded
from sdekit.torch.scheduler import SdekitScheduler, use_in

pytestmark = pytest.mark.images
SHAPE = (1, 8, 8)
BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
GRID = sk.grids.karras(5, 0.02, 100.0)


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval().requires_grad_(False)


UNET = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "attention_head_dim": 4,
}  # fmt: skip


@pytest.fixture
def unet():
    return seeded(lambda: library().UNet2DModel(**UNET))


def scheduler(name, **options):
    return getattr(library(), name)(**{**BETAS, **options})


def pipeline(unet, **options):
    made = library().DDPMPipeline(unet, scheduler("DDPMScheduler", prediction_type="v_prediction", **options))
    made.set_progress_bar_config(disable=True)
    return made


def generators(n):
    return [torch.Generator().manual_seed(i) for i in range(n)]


def images(pipe, n=3, steps=5, generator=None):
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    return pipe(batch_size=n, num_inference_steps=steps, output_type="pt", generator=generator).images


def start(n=3, dtype=None):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=dtype)


def loop(own, unet, x, steps, **ask):
    """The loop of a pipeline; diffusers warns of NumPy 2 in it."""
    with quiet():
        own.set_timesteps(steps)
        x = x * own.init_noise_sigma
        for t in own.timesteps:
            x = own.step(unet(own.scale_model_input(x, t), t).sample, t, x, **ask).prev_sample
    return x


def near(a, b, most=1e-5):
    return float((a - b).abs().max()) <= most * max(1.0, float(b.abs().max()))


def shown(x):
    return (x / 2 + 0.5).clamp(0, 1)


PLANS = {
    "heun": sk.plans.run(GRID, sk.methods.heun()),
    "third order": sk.plans.run(GRID, sk.methods.exponential(3)),
    "with noise": sk.plans.run(GRID, sk.methods.exponential(2, noise=1.0)),
    "unipc": sk.plans.run(GRID, sk.methods.unipc(3)),
    "f_pndm": sk.plans.run(GRID, sk.methods.f_pndm("log")),
    "single step, order 3": sk.plans.run(GRID, sk.methods.dpm_solver(3)),
    "ancestral": sk.plans.ancestral(sk.plans.run(GRID, sk.methods.ddim())),
    "corrected": sk.plans.correct(sk.plans.run(GRID, sk.methods.ddim())),
    "restart": sk.plans.restart(GRID, [(3, 2, 0.06, 0.3)]),
    "ends above the data": sk.plans.run(sk.grids.karras(5, 0.02, 100.0, zero=False)),
    "ends with a call": sk.plans.run(sk.grids.karras(4, 0.02, 100.0, zero=False)).then(sk.plans.denoise()),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_pipeline_is_sample(unet, name):
    """On the process of the network's table, whose state is what the network sees; in float64, since five steps from noise are not stable."""
    plan, unet = PLANS[name], unet.double()
    pipe = use_in(pipeline(unet, clip_sample=False), plan=plan, seed=7)
    made = images(pipe, steps=None)
    denoise = adapters.Diffusers(unet, pipe.scheduler.config)
    process = denoise.table.process
    t = plan.grid.times(process)[0]
    run = sk.sample(process, denoise, plan=plan, start=(start(dtype=torch.float64)[None], t), seed=7)
    assert len(pipe.scheduler.timesteps) == run.nfe[0]
    assert near(made, shown(run.x))
    assert made.std() > 0.05
    assert ((made > 0.0) & (made < 1.0)).float().mean() > 0.1


def test_a_pipeline_on_a_process_of_two_blocks(unet):
    psld = sk.catalogue.psld()
    method = sk.methods.exponential(2, noise=0.5)
    pipe = use_in(pipeline(unet, clip_sample=False), method=method, grid=GRID, process=psld, seed=7)
    own = pipe.scheduler
    own.set_timesteps(5)
    # the blocks at the start have the covariance of the prior: the sample gives psi psi' sigma^2, fresh normals the rest
    t, k = own._prog.items[0].t, psld.kernel(own._prog.items[0].t)

    class Units:
        def draw(self, addresses, ids, shape, like=None):
            return list(torch.eye(2, dtype=torch.float64).reshape(2, 2, 1, 1, 1))

    own._noise = Units()
    given = own._begun(own._prog, torch.ones(2, 1, 1, 1, dtype=torch.float64)).state
    rest = own._begun(own._prog, torch.zeros(2, 1, 1, 1, dtype=torch.float64)).state
    spread = np.stack([block.reshape(2).numpy() for block in rest])
    column = np.array([float((a - b)[0]) for a, b in zip(given, rest, strict=True)])
    level = float(k.sigma_eff)
    prior = np.outer(column, column) * level**2 / (1.0 + level**2) + spread @ spread.T  # the sample taken as the prior's: y = sigma n
    assert prior == pytest.approx(k.cov, rel=1e-10)
    own._noise = Addressed(7)
    begun = own._begun(own._prog, start())
    run = sk.sample(psld, adapters.Diffusers(unet, own.config), method=method, grid=GRID, start=(torch.stack(begun.state), t), seed=7)
    assert near(images(pipe, steps=5), shown(run.x))


@pytest.mark.parametrize("clip", [{"clip_sample": True, "clip_sample_range": 0.4}, {"thresholding": True, "dynamic_thresholding_ratio": 0.5}])
def test_limits_are_those_of_the_pipeline(unet, clip):
    unet = unet.double()
    pipe = use_in(pipeline(unet, **{"clip_sample": False, **clip}), method=sk.methods.heun(), grid=GRID)
    denoise = adapters.Diffusers(unet, pipe.scheduler.config)
    limited = Clipped(denoise, 0.4) if "clip_sample" in clip else Thresholded(denoise, 0.5, 1.0)
    t = GRID.times(denoise.table.process)[0]
    run = sk.sample(denoise.table.process, limited, method=sk.methods.heun(), grid=GRID, start=(start(dtype=torch.float64)[None], t))
    assert near(images(pipe), shown(run.x))
    free = use_in(pipeline(unet, clip_sample=False), method=sk.methods.heun(), grid=GRID)
    assert not near(images(pipe), images(free), 1e-2)


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("limits", [{}, {"clip_sample": False}])
def test_ddpm_is_that_of_diffusers_with_its_own_generators(unet, lists, limits):
    theirs = pipeline(unet, **limits)
    expected = images(theirs, steps=10, generator=generators(3) if lists else None)
    ours = use_in(theirs, method=sk.methods.exponential(1, noise=1.0))
    assert near(images(ours, steps=10, generator=generators(3) if lists else None), expected, 1e-4)


@pytest.mark.parametrize(
    ("name", "options", "method"),
    [
        ("DDIMScheduler", {"clip_sample": False}, sk.methods.ddim()),
        ("DPMSolverMultistepScheduler", {"solver_order": 2}, sk.methods.exponential(2, rule="midpoint")),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, sk.methods.exponential(2, noise=1.0, rule="midpoint")),
        ("EulerDiscreteScheduler", {}, sk.methods.ddim()),
    ],
)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_loops_of_diffusers_where_they_are_right(unet, prediction, name, options, method):
    if (name, prediction) == ("EulerDiscreteScheduler", "sample"):  # not implemented there
        return
    theirs = scheduler(name, prediction_type=prediction, timestep_spacing="trailing", **options)
    expected = loop(theirs, unet, start(), 8, generator=torch.Generator().manual_seed(1))
    ours = SdekitScheduler.from_config(theirs.config, method=method)
    if name == "EulerDiscreteScheduler":  # they start at sigma n, we at the network's scale of n
        assert float(theirs.init_noise_sigma) == pytest.approx(float(theirs.sigmas[0]))
        x = start() * float(theirs.sigmas[0]) / (1.0 + float(theirs.sigmas[0]) ** 2) ** 0.5
    else:
        x = start()
    assert near(loop(ours, unet, x, 8, generator=torch.Generator().manual_seed(1)), expected, 1e-4 if "sde" in str(options) else 2e-5)
    assert [int(t) for t in ours.timesteps] == [int(t) for t in theirs.timesteps]


@pytest.mark.parametrize("skip", [False, True])
def test_pndm_of_diffusers_call_for_call(unet, skip):
    theirs = scheduler("PNDMScheduler", skip_prk_steps=skip)
    expected = loop(theirs, unet, start(), 10)
    table = table_of(theirs)
    plan = compatibility.diffusers_pndm(table, 10, skip_prk=skip)
    denoise = adapters.Diffusers(unet, theirs)
    t = plan.grid.times(table.process)[0]
    assert near(sk.sample(table.process, denoise, plan=plan, start=(start()[None], t)).x, expected)
    ours = SdekitScheduler.from_config(theirs.config, plan=plan)
    assert near(loop(ours, unet, start(), None), expected)
    assert ours.timesteps.tolist() == theirs.timesteps.tolist()


def test_saved_and_loaded(unet, tmp_path):
    for name, plan in (("restart", PLANS["restart"]), ("heun", PLANS["heun"])):
        pipe = use_in(pipeline(unet, clip_sample=True), plan=plan, process=sk.catalogue.psld(), rounding="nearest", seed=3)
        pipe.save_pretrained(tmp_path / name)
        again = library().DDPMPipeline.from_pretrained(tmp_path / name)
        again.set_progress_bar_config(disable=True)
        assert isinstance(again.scheduler, SdekitScheduler)
        assert again.scheduler.process == sk.catalogue.psld()
        assert torch.equal(images(again), images(pipe))
        told = json.loads((tmp_path / name / "scheduler" / "scheduler_config.json").read_text())
        assert from_record(told["plan"]) == plan
        assert told["clip_sample"] is True
        assert SdekitScheduler.from_pretrained(tmp_path / name, subfolder="scheduler").config == again.scheduler.config
    # a scheduler of ours gives way to another, and back
    other = library().DDIMScheduler.from_config(pipe.scheduler.config)
    assert (other.config.beta_end, other.config.clip_sample) == (0.02, True)
    use_in(pipe, method=sk.methods.ddim())
    assert pipe.scheduler.config.plan is None


def test_a_method_of_ones_own_runs_but_is_not_written(unet, tmp_path):
    def rows(step):
        answer = step.ask(step.z, step.here)
        return step.rows(step.z - step.h * step.here.drift(step.z, answer.score))

    own = Method("mine", rows)
    pipe = use_in(pipeline(unet, clip_sample=False), method=own, grid=GRID)
    known = use_in(pipeline(unet, clip_sample=False), method=sk.methods.euler(), grid=GRID)
    assert near(images(pipe), images(known))
    pipe.scheduler.save_pretrained(tmp_path)
    with pytest.raises(sk.BadInput, match="method of this scheduler is the user's own code and was not written"):
        SdekitScheduler.from_pretrained(tmp_path)


def test_samples_do_not_depend_on_the_batch(unet):
    pipe = use_in(pipeline(unet), plan=PLANS["restart"])
    together = images(pipe, generator=generators(3))
    alone = images(pipe, n=1, generator=generators(3)[2])
    assert near(together[2:], alone)
    with pytest.raises(sk.BadInput, match="2 generators for 3 samples"):
        loop(pipe.scheduler, unet, start(), 5, generator=generators(2))


def test_image_to_image_starts_inside(unet):
    own = SdekitScheduler(**BETAS, timestep_spacing="trailing", method=sk.methods.exponential(2))
    own.set_timesteps(8)
    labels = own.timesteps[3:]
    own.set_begin_index(3)
    clean = torch.full((3, *SHAPE), 0.3)
    x = begun = own.add_noise(clean, start(), labels[:1].repeat(3))
    abar = np.array(own.table.abar)[int(labels[0])]
    assert near(begun, abar**0.5 * clean + (1.0 - abar) ** 0.5 * start())
    for t in labels:
        x = own.step(unet(x, t).sample, t, x).prev_sample
    denoise = adapters.Diffusers(unet, own.config)
    grid = own.table.grid(labels.tolist(), data=True)
    run = sk.sample(denoise.table.process, denoise, grid=grid, start=(begun[None], float(own.table.time(int(labels[0])))))
    assert near(x, run.x)
    pndm = SdekitScheduler(**BETAS, method=sk.methods.f_pndm("log"))
    pndm.set_timesteps(8)
    with pytest.raises(sk.BadInput, match="a run from entry 12 makes other calls"):
        pndm.set_begin_index(12)


def test_a_changed_sample_moves_the_state(unet):
    """As inpainting pipelines do: what they put in is where the next step starts."""
    denoise = adapters.Diffusers(unet, BETAS)
    table = denoise.table
    own = SdekitScheduler(**BETAS, method=sk.methods.exponential(1))
    own.set_timesteps(4)
    x = expected = start()
    times = own.table.grid(own.timesteps.tolist(), data=True).times(table.process)
    for i, t in enumerate(own.timesteps):
        x, expected = x.clone(), expected.clone()
        x[..., :4], expected[..., :4] = 0.1 * i, 0.1 * i
        x = own.step(unet(x, t).sample, t, x).prev_sample
        step = sk.grids.times(times[i : i + 2])
        expected = sk.sample(table.process, denoise, method=sk.methods.exponential(1), grid=step, start=(expected[None], times[i])).x
    assert near(x, expected)
    heun = SdekitScheduler(**BETAS, method=sk.methods.heun())
    heun.set_timesteps(4)
    x = heun.step(start(), heun.timesteps[0], start()).prev_sample
    heun.step(start(), heun.timesteps[1], x.clone())  # another tensor with the same values
    heun.set_timesteps(4)
    x = heun.step(start(), heun.timesteps[0], start()).prev_sample
    with pytest.raises(sk.BadInput, match="can be changed between steps only"):
        heun.step(start(), heun.timesteps[1], x + 1.0)


def test_half_precision_outside_single_inside(unet):
    own = SdekitScheduler(**BETAS, method=sk.methods.exponential(3))
    x = start().half()
    whole = loop(own, unet, x.float(), 20)
    own.set_timesteps(20)
    for t in own.timesteps:
        x = own.step(unet(x.float(), t).sample.half(), t, x).prev_sample
        assert x.dtype == torch.float16
    assert near(x.float(), whole, 5e-3)


def test_a_latent_pipeline_with_classes_and_learned_variance():
    """DiT: guidance in the pipeline, channels of a variance, an autoencoder; both halves of the batch are made anew at each step."""
    d = library()
    sizes = {"num_attention_heads": 2, "attention_head_dim": 4, "in_channels": 4, "out_channels": 8, "num_layers": 1, "sample_size": 4}
    dit = seeded(lambda: d.DiTTransformer2DModel(**sizes, patch_size=2, num_embeds_ada_norm=1000, norm_num_groups=2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.nn.init.normal_(dit.proj_out_2.weight, std=0.2)
    vae = seeded(lambda: d.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4))
    pipe = d.DiTPipeline(dit, vae, scheduler("DDIMScheduler", clip_sample=False))
    pipe.set_progress_bar_config(disable=True)

    def made(seed):
        return pipe([1, 2], num_inference_steps=6, guidance_scale=3.0, output_type="np", generator=torch.Generator().manual_seed(seed)).images

    expected = made(0)
    for method in (sk.methods.ddim(), sk.methods.heun()):
        use_in(pipe, method=method)
        assert (np.abs(made(0) - expected).max() < 1e-4) == (method == sk.methods.ddim())
    assert np.abs(made(0) - made(1)).max() > 1e-2


def test_the_loop_of_stable_diffusion():
    """Its order of calls by hand on a conditional U-Net (the pipeline itself needs transformers): guided sampling of both conditions."""
    d = library()
    sizes = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    blocks = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
    unet = seeded(lambda: d.UNet2DConditionModel(**sizes, **blocks, cross_attention_dim=8, attention_head_dim=4))
    told = {**BETAS, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    own = SdekitScheduler(**told, steps_offset=1, method=sk.methods.exponential(2))
    words = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3))  # nothing, something
    own.set_timesteps(6, device="cpu")
    assert own.timesteps.tolist() == [831, 665, 499, 333, 167, 1]
    x = begun = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * own.init_noise_sigma
    for t in own.timesteps:
        twice = own.scale_model_input(torch.cat([x] * 2), t)
        nothing, something = unet(twice, t, encoder_hidden_states=words.repeat_interleave(2, 0)).sample.chunk(2)
        x = own.step(nothing + 7.5 * (something - nothing), t, x, return_dict=False)[0]
    denoise = adapters.Diffusers(unet, own.config)
    both = guided(denoise.given(encoder_hidden_states=words[1:]), denoise.given(encoder_hidden_states=words[:1]), 7.5)
    grid = denoise.table.grid(own.timesteps.tolist(), data=True)
    run = sk.sample(denoise.table.process, both, method=sk.methods.exponential(2), grid=grid, start=(begun[None], float(denoise.table.time(831))))
    assert near(x, run.x, 2e-5)


def test_noise_at_labels():
    own = SdekitScheduler(**BETAS)
    theirs = scheduler("DDPMScheduler")
    clean, labels = start() * 0.3, torch.tensor([0, 500, 999])
    assert near(own.add_noise(clean, start(), labels), theirs.add_noise(clean, start(), labels))
    assert len(own) == len(theirs) == 1000


def test_steps_of_the_grid(unet):
    own = SdekitScheduler(**BETAS, plan=PLANS["restart"])
    for n in (None, 5, 9):
        own.set_timesteps(n)
        assert own.num_inference_steps == (n or 5)
        assert len(own.timesteps) == 2 * ((n or 5) + 1) - 1 + 8
    for method, order in ((sk.methods.heun(), 2), (sk.methods.f_pndm("log"), 1), (sk.methods.dpm_solver(3), 3)):
        own = SdekitScheduler(**BETAS, method=method, grid=GRID)
        own.set_timesteps(6)
        assert own.order == order
    assert loop(SdekitScheduler(**BETAS, method=sk.methods.ddim(), grid=GRID, rounding="nearest"), unet, start(), 3).shape == (3, *SHAPE)
