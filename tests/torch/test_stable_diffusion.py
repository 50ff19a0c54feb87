"""A Stable Diffusion pipeline with tiny random networks, saved to a folder and loaded again: our scheduler in it, with guidance, and Restart."""

import json

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit.torch.scheduler import SdekitScheduler, use_in

transformers = pytest.importorskip("transformers")
diffusers = pytest.importorskip("diffusers")
pytestmark = [pytest.mark.images, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")]
BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tokenizer(folder):
    """Letters, and nothing merged."""
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("tiny")
    words = tokenizer(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",), "mid_block_type": None}
        unet = diffusers.UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
            attention_head_dim=4, **blocks,
        )  # fmt: skip
        vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=8)
        text = transformers.CLIPTextModel(transformers.CLIPTextConfig(
            vocab_size=len(words), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=8,
            bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
        ))  # fmt: skip
    scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    made = diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=words, unet=unet, scheduler=scheduler, safety_checker=None, feature_extractor=None,
        image_encoder=None, requires_safety_checker=False,
    )  # fmt: skip
    made.save_pretrained(base / "pipeline")
    return base / "pipeline"


def loaded(folder):
    made = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def latents(pipeline, **options):
    generators = [torch.Generator().manual_seed(i) for i in (1, 2)]
    return pipeline(["a cat", "dog"], guidance_scale=3.0, generator=generators, output_type="latent", height=8, width=8, **options).images


def test_our_ddim_is_theirs(folder):
    """Text, guidance and lists of generators as they are; DDIM over the same labels, the last of them 0."""
    theirs = loaded(folder)
    theirs.scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=True, steps_offset=1)
    ours = use_in(loaded(folder), method=sk.methods.ddim())
    want, made = latents(theirs, num_inference_steps=8), latents(ours, num_inference_steps=8)
    assert ours.scheduler.timesteps.tolist() == theirs.scheduler.timesteps.tolist()
    np.testing.assert_allclose(made, want, atol=1e-4 * float(np.abs(want).max()))


def test_restart_survives_the_folder(folder, tmp_path):
    """A plan in the pipeline, written as a record, comes back and gives the same latents; calls are those of the plan."""
    plan = sk.plans.restart(sk.grids.karras(6, 0.05, 14.0), [(3, 2, 0.2, 2.0)], method=sk.methods.ddim())
    ours = use_in(loaded(folder), plan=plan, seed=5)
    calls = []
    hook = ours.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    made = latents(ours, num_inference_steps=6)
    hook.remove()
    assert len(calls) == len(ours.scheduler.timesteps) == 7 + 2 * 2  # one step more for the level that is put in, two cycles of two steps
    ours.save_pretrained(tmp_path)
    again = loaded(tmp_path)
    assert isinstance(again.scheduler, SdekitScheduler)
    np.testing.assert_array_equal(latents(again, num_inference_steps=6), made)
