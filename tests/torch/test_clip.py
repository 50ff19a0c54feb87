"""CLIP and aesthetic scores on a tiny network with random weights, against its own forward pass and against sums by hand."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import sdekit as sk
from sdekit.torch.clip import Clip, aesthetic
from sdekit.torch.features import compare

transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")
pytestmark = [pytest.mark.images, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")]
IMAGES = np.random.default_rng(0).uniform(-1.0, 1.0, (5, 3, 24, 20))
PROMPTS = ["a cat", "dog", "the moon and the stars over the sea", "", "dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What ``save_pretrained`` writes: model, tokenizer, image processor."""
    base = tmp_path_factory.mktemp("clip")
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (base / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (base / "merges.txt").write_text("#version: 0.2\n")
    tokens = transformers.CLIPTokenizer(str(base / "vocab.json"), str(base / "merges.txt"), model_max_length=12)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": len(words), "max_position_embeddings": 12}
    text |= {"bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id}
    config = transformers.CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 16, "patch_size": 8}, projection_dim=6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.CLIPModel(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    processor = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    for part in (model, tokens, processor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})):
        part.save_pretrained(base / "model")
    return base / "model"


@pytest.fixture(scope="module")
def clip(folder):
    return Clip(folder, batch=2)


def by_hand(folder):
    """Embeddings out of the whole model's forward pass, on pictures prepared one by one."""
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokens, processor = transformers.CLIPTokenizer.from_pretrained(folder), transformers.AutoImageProcessor.from_pretrained(folder)
    images, texts = [], []
    for image, prompt in zip(IMAGES, PROMPTS, strict=True):
        picture = Image.fromarray(np.round(127.5 * (np.moveaxis(image, 0, 2) + 1.0)).astype(np.uint8))
        with torch.no_grad():
            made = model(**tokens([prompt], truncation=True, return_tensors="pt"), **processor(picture, return_tensors="pt"))
        images.append(made.image_embeds[0].double().numpy())
        texts.append(made.text_embeds[0].double().numpy())
    return np.array(images), np.array(texts)


def test_scores_are_cosines(folder, clip):
    images, texts = by_hand(folder)
    cosines = np.sum(images * texts, axis=1) / (np.linalg.norm(images, axis=1) * np.linalg.norm(texts, axis=1))
    assert np.ptp(cosines) > 0.1
    np.testing.assert_allclose(clip.scores(IMAGES, PROMPTS), cosines, atol=2e-6)
    np.testing.assert_allclose(clip.scores(torch.from_numpy(IMAGES), PROMPTS), cosines, atol=2e-6)
    np.testing.assert_allclose(clip.texts(PROMPTS)[4], clip.texts(PROMPTS)[1], atol=2e-6)  # padding and batches change nothing
    np.testing.assert_allclose(np.linalg.norm(clip.images(IMAGES), axis=1), 1.0, rtol=1e-12)


def test_grey_images_have_three_equal_channels(clip):
    np.testing.assert_allclose(clip.images(IMAGES[:, :1]), clip.images(IMAGES[:, :1].repeat(3, axis=1)), atol=1e-12)


def test_pictures_are_prepared_as_the_checkpoint_says(clip):
    """Shorter side to 16 by Pillow's cubic, central square, and the mean and spread of CLIP's data."""
    seen = []
    hook = clip._model.vision_model.register_forward_pre_hook(lambda _, __, given: seen.append(given["pixel_values"]), with_kwargs=True)
    clip.images(IMAGES[:1])
    hook.remove()
    picture = Image.fromarray(np.round(127.5 * (np.moveaxis(IMAGES[0], 0, 2) + 1.0)).astype(np.uint8))
    small = np.asarray(picture.resize((16, 19), Image.Resampling.BICUBIC))[1:17] / 255.0
    want = (small - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    assert np.abs(seen[0][0].numpy() - np.moveaxis(want, 2, 0)).max() < 0.03  # a byte is 0.015


def test_aesthetic_heads(clip, tmp_path):
    """One layer, and five with nothing between, under the names of the published files; in the order of the numbers, not of the letters."""
    rng, u = np.random.default_rng(1), clip.images(IMAGES)
    w, b = rng.standard_normal((1, 6)), rng.standard_normal(1)
    save_file({"weight": torch.from_numpy(w), "bias": torch.from_numpy(b)}, tmp_path / "one.safetensors")
    np.testing.assert_allclose(aesthetic(clip, tmp_path / "one.safetensors")(IMAGES), u @ w.T + b, atol=1e-5)
    sizes, places, tensors, want = (6, 5, 4, 3, 2, 1), (0, 2, 4, 6, 10), {}, u
    for i, j, place in zip(sizes, sizes[1:], places, strict=False):
        w, b = rng.standard_normal((j, i)), rng.standard_normal(j)
        tensors |= {f"layers.{place}.weight": torch.from_numpy(w), f"layers.{place}.bias": torch.from_numpy(b)}
        want = want @ w.T + b
    save_file(tensors, tmp_path / "five.safetensors")
    made = aesthetic(clip, tmp_path / "five.safetensors")
    np.testing.assert_allclose(made(IMAGES), want, rtol=1e-5, atol=1e-5)
    assert made.settings == {"head": "five.safetensors", "folder": "model", "range": [-1.0, 1.0]}


def test_distances_in_embeddings(clip):
    rng = np.random.default_rng(2)
    found = compare(rng.uniform(-1.0, 1.0, (12, 3, 16, 16)), rng.uniform(-1.0, 1.0, (24, 3, 16, 16)), [clip.features], repeats=2)
    assert found.rows[0]["features"] == "clip"
    assert found.rows[0]["measures"]["frechet"]["value"] < 1.0


def test_bad_input(clip, folder, tmp_path, monkeypatch):
    with pytest.raises(sk.BadInput, match="5 images need as many prompts"):
        clip.scores(IMAGES, PROMPTS[:2])
    with pytest.raises(sk.BadInput, match="5 images need as many prompts"):
        clip.scores(IMAGES, "a cat")
    with pytest.raises(sk.BadInput, match=r"images have shape \(3, 24, 20\)"):
        clip.images(IMAGES[0])
    with pytest.raises(sk.BadInput, match="is not a folder"):
        Clip(tmp_path / "none")
    with pytest.raises(sk.BadInput, match="is no folder of CLIP"):
        Clip(tmp_path)
    save_file({"weight": torch.zeros(1, 7), "bias": torch.zeros(1)}, tmp_path / "wide.safetensors")
    with pytest.raises(sk.BadInput, match=r"holds \[weight \(1, 7\)\]: layers must lead from the 6 numbers"):
        aesthetic(clip, tmp_path / "wide.safetensors")
    (tmp_path / "head.pth").write_bytes(b"no tensors")
    with pytest.raises(sk.BadInput, match="is not a safetensors file"):
        aesthetic(clip, tmp_path / "head.pth")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match=r"sdekit\[clip\]"):
        Clip(folder)
