"""Folders of diffusers, whole, damaged and hostile: the network that was saved, or one clear error and nothing run."""

import json
import pickle
import shutil
import struct
from pathlib import Path

import pytest
import torch

import sdekit as sk
from sdekit.torch import adapters, models
from sdekit.torch.conventions import library
from sdekit.torch.guidance import decoder
from sdekit.torch.pretrained import autoencoder, from_pretrained

pytestmark = pytest.mark.images
UNET = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "attention_head_dim": 4,
}  # fmt: skip
WEIGHTS = "diffusion_pytorch_model.safetensors"


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def unet():
    return seeded(lambda: library().UNet2DModel(**UNET))


@pytest.fixture(scope="module")
def saved(unet, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    library().DDPMPipeline(unet, library().DDPMScheduler(prediction_type="v_prediction", beta_end=0.015)).save_pretrained(path)
    return path


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.fixture(scope="module")
def y():
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def edited(path, **changes):
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, **changes}))


def test_a_pipeline_comes_back(unet, saved, y):
    live = adapters.Diffusers(unet, library().DDPMScheduler(prediction_type="v_prediction", beta_end=0.015))
    for path in (saved, str(saved)):
        read = from_pretrained(path)
        assert (read.kind, read.table, read.shape) == ("v", live.table, (1, 8, 8))
        assert torch.equal(read(y, 1.3), live(y, 1.3))
        assert not any(p.requires_grad for p in read.network.parameters())
        assert not read.network.training
    assert torch.equal(from_pretrained(saved, subfolder="unet")(y, 1.3), live(y, 1.3))
    assert from_pretrained(saved, dtype=torch.float64).dtype == torch.float64
    run = sk.sample(sk.catalogue.psld(), read, method=sk.methods.heun(), grid=sk.grids.karras(3, 0.05, 20.0), n=2)
    assert tuple(run.x.shape) == (2, 1, 8, 8)
    assert run.status == ("ok", "ok")


def test_a_model_alone_needs_a_schedule(unet, tmp_path, y):
    unet.save_pretrained(tmp_path)
    with pytest.raises(sk.BadInput, match=r"no scheduler_config.json.*give scheduler="):
        from_pretrained(tmp_path)
    table = sk.tables.cosine()
    read = from_pretrained(tmp_path, scheduler=table, kind="x0", rounding="nearest")
    assert torch.equal(read(y, 1.3), adapters.Diffusers(unet, table, kind="x0", rounding="nearest")(y, 1.3))
    library().DDIMScheduler(prediction_type="sample").save_pretrained(tmp_path)  # side by side, as in old repositories
    assert from_pretrained(tmp_path).kind == "x0"


def test_half_precision_and_pieces(unet, tmp_path, y):
    seeded(lambda: library().UNet2DModel(**UNET)).half().save_pretrained(tmp_path / "half", variant="fp16")
    unet.save_pretrained(tmp_path / "pieces", max_shard_size="20kB")
    assert len(list((tmp_path / "pieces").glob("*.safetensors"))) > 2
    live = adapters.Diffusers(unet, sk.tables.linear())
    assert torch.equal(from_pretrained(tmp_path / "pieces", scheduler=sk.tables.linear())(y, 1.3), live(y, 1.3))
    half = from_pretrained(tmp_path / "half", scheduler=sk.tables.linear(), variant="fp16")
    assert half.dtype == torch.float32
    assert torch.allclose(half(y, 1.3), live(y, 1.3), atol=2e-2)
    with pytest.raises(sk.BadInput, match=r"does not exist; found diffusion_pytorch_model.fp16.safetensors: give variant"):
        from_pretrained(tmp_path / "half", scheduler=sk.tables.linear())
    index = tmp_path / "pieces" / f"{WEIGHTS}.index.json"
    told = json.loads(index.read_text())
    told["weight_map"] = {key: f"../{name}" for key, name in told["weight_map"].items()}
    index.write_text(json.dumps(told))
    with pytest.raises(sk.BadInput, match="must name safetensors files beside it"):
        from_pretrained(tmp_path / "pieces", scheduler=sk.tables.linear())


def test_a_folder_of_ours(tmp_path):
    shipped = Path(models.__file__).parent / "weights"
    for suffix in (".json", ".safetensors"):
        shutil.copy(shipped / f"digits{suffix}", tmp_path / f"model{suffix}")
    y = torch.ones(1, 1, 8, 8)
    assert torch.equal(from_pretrained(tmp_path)(y, 0.5), models.load("digits")(y, 0.5))


def test_networks_with_conditions(tmp_path):
    sizes = {"num_attention_heads": 2, "attention_head_dim": 4, "in_channels": 2, "out_channels": 4, "num_layers": 1, "sample_size": 4}
    dit = seeded(lambda: library().DiTTransformer2DModel(**sizes, patch_size=2, num_embeds_ada_norm=5, norm_num_groups=2))
    torch.nn.init.constant_(dit.proj_out_2.weight, 0.1)
    dit.save_pretrained(tmp_path / "transformer")
    library().DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    y, classes = torch.ones(2, 2, 4, 4), torch.tensor([1, 4])
    read = from_pretrained(tmp_path, class_labels=classes)
    live = adapters.Diffusers(dit, library().DDPMScheduler(), class_labels=classes)
    assert torch.equal(read(y, 0.7), live(y, 0.7))
    assert not torch.equal(read.given(class_labels=classes[[1, 0]])(y, 0.7), read(y, 0.7))


def test_latents_to_images(tmp_path):
    vae = seeded(lambda: library().AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=2, scaling_factor=0.5))
    vae.save_pretrained(tmp_path / "vae")
    decode = decoder(autoencoder(tmp_path), batch=2)
    latents = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = vae.decode(latents / 0.5).sample
    assert torch.allclose(decode(latents), expected, atol=1e-6)
    assert torch.allclose(decode(latents.numpy()), expected, atol=1e-6)
    assert torch.allclose(decoder(vae, scale=0.25)(latents), vae.decode(latents / 0.25).sample, atol=1e-6)
    with pytest.raises(sk.BadInput, match="unknown _class_name 'AutoencoderKL'"):
        from_pretrained(tmp_path, subfolder="vae")


# ------------------------------------------------------------------------------------------------------------ pickled and hostile


class Bomb:
    def __init__(self, source):
        self.source = source

    def __reduce__(self):
        return (exec, (self.source,))


@pytest.fixture
def bomb(tmp_path):
    """Bytes that would leave a mark if they were unpickled."""
    mark = tmp_path / "mark"
    data = pickle.dumps({"x": Bomb(f"import pathlib; pathlib.Path({str(mark)!r}).touch()")})
    pickle.loads(data)
    assert mark.exists()
    mark.unlink()
    yield data
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".pkl", ".ckpt"])
def test_pickles_are_refused_with_the_way_out(folder, bomb, suffix):
    (folder / "unet" / WEIGHTS).unlink()
    path = folder / "unet" / f"diffusion_pytorch_model{suffix}"
    path.write_bytes(bomb)
    for name in (folder, path):
        with pytest.raises(
            sk.BadInput, match=r"is pickled and may run code, so it is not read; .*save_pretrained\(folder, safe_serialization=True\)"
        ):
            from_pretrained(name)
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(sk.BadInput, match="is pickled"):
        from_pretrained(folder)


def test_a_pickle_beside_the_weights_is_left_alone(folder, bomb, y):
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(bomb)
    (folder / "model.py").write_text("raise SystemExit")
    assert from_pretrained(folder)(y, 1.0).shape == y.shape


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data, bomb: bomb, "is not a safetensors file"),
        (lambda data, bomb: data[:-100], "is not a safetensors file"),
        (lambda data, bomb: data[:4], "is not a safetensors file"),
        (lambda data, bomb: b"", "is not a safetensors file"),
        (lambda data, bomb: struct.pack("<Q", 1 << 60) + data[8:], "is not a safetensors file"),
        (lambda data, bomb: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "is not a safetensors file"),
    ],
)
def test_damaged_weights(folder, bomb, damage, message):
    path = folder / "unet" / WEIGHTS
    path.write_bytes(damage(path.read_bytes(), bomb))
    with pytest.raises(sk.BadInput, match=message):
        from_pretrained(folder)


def test_weights_of_another_network(folder, unet, tmp_path):
    from safetensors.torch import load_file, save_file

    path = folder / "unet" / WEIGHTS
    tensors = load_file(path)
    name = "conv_in.weight"
    flat = tensors[name].reshape(-1)
    for changed, message in (
        ({k: v for k, v in tensors.items() if k != name}, "numbers, the network of config.json"),
        ({**tensors, "more": torch.ones(3)}, "numbers, the network of config.json"),
        ({**{k: v for k, v in tensors.items() if k != name}, "other": flat}, "conv_in.weight"),
        ({**tensors, name: flat}, "conv_in.weight|refuses"),
        ({**tensors, name: tensors[name].to(torch.int64)}, "tensor 'conv_in.weight' has type I64"),
    ):
        save_file(changed, path)
        with pytest.raises(sk.BadInput, match=message):
            from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "os.system"}, "unknown _class_name 'os.system'"),
        ({"_class_name": None}, "unknown _class_name None"),
        ({"_class_name": "AutoModel", "auto_map": {"AutoModel": "model.Evil"}}, "unknown _class_name 'AutoModel'"),
        ({"auto_map": {"AutoModel": "model.Evil"}}, "auto_map is not supported"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config is not supported"),
        ({"layers_per_block": 10**9}, "layers_per_block = 1000000000 must be at most 64 numbers up to 128"),
        ({"block_out_channels": [8, 10**12]}, "block_out_channels = .* up to 65536"),
        ({"block_out_channels": [8] * 1000}, "must be at most 64 numbers"),
        ({"block_out_channels": [32768, 65536]}, "numbers, the network of config.json"),
        ({"attention_head_dim": "x"}, "diffusers refuses it"),
        ({"down_block_types": ["DownBlock2D", "os.system"]}, "diffusers refuses it"),
    ],
)
def test_hostile_configurations(folder, changes, message):
    edited(folder / "unet" / "config.json", **changes)
    with pytest.raises(sk.BadInput, match=message):
        from_pretrained(folder)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 10**5, "\xff"])
def test_configurations_that_are_not_json(folder, text):
    (folder / "unet" / "config.json").write_text(text)
    with pytest.raises(sk.BadInput, match=r"is not JSON|must hold a JSON object"):
        from_pretrained(folder)


def test_broken_schedules(folder):
    path = folder / "scheduler" / "scheduler_config.json"
    edited(path, prediction_type="flow_prediction")
    with pytest.raises(sk.BadInput, match=r"names no betas|unknown prediction_type"):
        from_pretrained(folder)
    path.write_text("no")
    with pytest.raises(sk.BadInput, match="is not JSON"):
        from_pretrained(folder)


def test_names_and_places(tmp_path, folder):
    with pytest.raises(sk.BadInput, match="neither a folder nor the name of a repository"):
        from_pretrained("no such folder")
    with pytest.raises(sk.BadInput, match="neither a folder nor the name of a repository"):
        from_pretrained("../x/y")
    with pytest.raises(sk.BadInput, match=r"no config.json in"):
        from_pretrained(tmp_path / "copy" / "scheduler")
    with pytest.raises(sk.BadInput, match=r"subfolder = '../unet' must lie inside"):
        from_pretrained(folder, subfolder="../unet")
    with pytest.raises(sk.BadInput, match="is a file; give the folder"):
        from_pretrained(folder / "unet" / WEIGHTS)


def test_the_hub(saved, monkeypatch, y):
    """Only configurations and safetensors are asked for; whatever goes wrong there is one error."""
    import huggingface_hub

    asked = {}

    def download(name, **options):
        asked.update(name=name, **options)
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert torch.equal(from_pretrained("owner/name", revision="abc")(y, 1.0), from_pretrained(saved)(y, 1.0))
    assert (asked["name"], asked["revision"]) == ("owner/name", "abc")
    assert all(pattern.endswith(("json", ".safetensors*")) for pattern in asked["allow_patterns"])

    def fail(name, **options):
        raise ConnectionError("no\nroute " + "x" * 1000)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(sk.BadInput, match=r"repository 'owner/name' could not be fetched \(ConnectionError: no route x+\); check name") as caught:
        from_pretrained("owner/name")
    assert len(str(caught.value)) < 500
