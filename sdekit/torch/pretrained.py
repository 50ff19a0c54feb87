"""Networks of diffusers out of folders and from the hub: safetensors and JSON only, checked before use."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInput, MissingExtra, unknown
from ..files import read_bytes
from . import models
from .adapters import Diffusers
from .conventions import library

try:
    import torch
    from safetensors import SafetensorError, safe_open
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

__all__ = ["autoencoder", "from_pretrained"]

_NETWORKS = ("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel", "Transformer2DModel", "PixArtTransformer2DModel", "UNet1DModel")
_AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "VQModel")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_WEIGHTS = "diffusion_pytorch_model"
_FOLDERS = ("unet", "transformer")
_FLOATS = ("F16", "BF16", "F32", "F64")
_LARGEST, _LONGEST, _LAYERS = 1 << 16, 64, 128  # of numbers, lists and layers in a configuration: a damaged one must not fill the memory
_PATTERNS = [*(f"{place}{name}" for place in ("", "*/") for name in ("config.json", "scheduler_config.json", f"{_WEIGHTS}*.safetensors*"))]


def from_pretrained(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    scheduler: Any = None,
    device: Any = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Any:
    """A network of diffusers as a denoiser.

    Parameters
    ----------
    name : str or path
        A folder that ``save_pretrained`` of a pipeline or a model wrote, one that :func:`sdekit.torch.train` wrote, or a repository on the hub,
        ``"owner/name"``; of that only configurations and safetensors are fetched.
    revision : str, optional
        On the hub; a commit hash makes the result reproducible.
    subfolder : str, optional
        Where the network is; ``unet`` or ``transformer`` of a pipeline when absent.
    variant : str, optional
        As in diffusers, such as ``"fp16"``.
    scheduler : scheduler or mapping, optional
        What the network was trained on, where no ``scheduler_config.json`` says it.
    device, dtype : optional
        Of the network; the CPU and float32 when absent.
    **options
        ``kind``, ``rounding`` and conditions of :class:`~sdekit.torch.adapters.Diffusers`.

    Returns
    -------
    Diffusers (or NetworkDenoiser for a folder of ``train``)

    Raises
    ------
    BadInput
        For pickled weights, which are never read; for files that are missing or damaged or do not belong together; for a hub that does not
        answer.
    MissingExtra
        Without torch, safetensors or diffusers.
    """
    folder = _folder(name, revision)
    if subfolder is None and (folder / "model.json").is_file():
        return models.load(folder, device=device)
    home = _home(folder, subfolder)
    config = _config(home / "config.json")
    network = _network(home, config, _NETWORKS, variant).to(device=device, dtype=dtype)
    return Diffusers(network, _scheduler(folder, home) if scheduler is None else scheduler, **options)


def autoencoder(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    subfolder: str | None = "vae",
    variant: str | None = None,
    device: Any = None,
    dtype: torch.dtype | None = None,
) -> torch.nn.Module:
    """The autoencoder of a latent pipeline, read as carefully as :func:`from_pretrained` reads; see :func:`sdekit.torch.guidance.decoder`."""
    home = _home(_folder(name, revision), subfolder)
    return _network(home, _config(home / "config.json"), _AUTOENCODERS, variant).to(device=device, dtype=dtype)


def _folder(name: str | os.PathLike[str], revision: str | None) -> Path:
    path = Path(name)
    if path.suffix in _PICKLES:
        raise _pickled(path)
    if path.is_dir():
        return path
    if path.exists():
        raise BadInput(f"{str(path)!r} is a file; give the folder that it is in, with its config.json")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(name)):
        raise BadInput(f"{str(name)!r} is neither a folder nor the name of a repository, owner/name")
    library()
    from huggingface_hub import snapshot_download

    try:
        return Path(str(snapshot_download(str(name), revision=revision, allow_patterns=_PATTERNS)))
    except Exception as error:  # of the network, of the hub, or of the disk: there is no common class
        reason = " ".join(str(error).split())[:200]
        raise BadInput(
            f"repository {str(name)!r} could not be fetched ({type(error).__name__}: {reason}); check name, revision and connection, or give a folder"
        ) from None


def _home(folder: Path, subfolder: str | None) -> Path:
    """The folder of the network itself."""
    if subfolder is not None:
        if Path(subfolder).is_absolute() or ".." in Path(subfolder).parts:
            raise BadInput(f"subfolder = {subfolder!r} must lie inside the folder")
        places = [folder / subfolder]
    else:
        places = [folder, *(folder / inner for inner in _FOLDERS)]
    for place in places:
        if (place / "config.json").is_file():
            return place
    for place in places:
        for path in sorted(place.glob("*")):
            if path.suffix in _PICKLES:
                raise _pickled(path)
    raise BadInput(
        f"no config.json in {', '.join(repr(str(place)) for place in places)}; give the folder that save_pretrained wrote, or subfolder=..."
    )


def _pickled(path: Path) -> BadInput:
    how = "load it with the code that wrote it, where you trust it, and write model.save_pretrained(folder, safe_serialization=True)"
    return BadInput(f"{str(path)!r} is pickled and may run code, so it is not read; {how}, or wrap the live network by sdekit.torch.adapters")


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        raise BadInput(f"{str(path)!r} is not JSON: it is damaged; copy it again") from None
    if not isinstance(config, dict):
        raise BadInput(f"{str(path)!r} must hold a JSON object; copy it again")
    return config


def _sane(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse what could fill memory or bring in code."""
    for key in ("quantization_config", "auto_map"):
        if key in config:
            raise BadInput(f"{str(path)!r}: {key} is not supported; load the network by its own code and wrap it by sdekit.torch.adapters")
    for key, value in config.items():
        entries = value if isinstance(value, list | tuple) else [value]
        most = _LAYERS if "layers" in key else _LARGEST
        flat = [number for entry in entries for number in (entry if isinstance(entry, list) else [entry])]
        wrong = [number for number in flat if isinstance(number, int | float) and not abs(number) <= most]
        if wrong or len(flat) > _LONGEST:
            raise BadInput(f"{str(path)!r}: {key} = {str(value)[:80]} must be at most {_LONGEST} numbers up to {most}: it is damaged; copy it again")


def _weights(home: Path, variant: str | None) -> list[Path]:
    """The files of the weights, each looked at from outside."""
    stem = _WEIGHTS if variant is None else f"{_WEIGHTS}.{variant}"
    index = home / f"{_WEIGHTS}.safetensors.index{'' if variant is None else f'.{variant}'}.json"
    if index.is_file():
        parts = _config(index).get("weight_map")
        names = sorted({str(part) for part in parts.values()}) if isinstance(parts, dict) else []
        if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
            raise BadInput(f"{str(index)!r} must name safetensors files beside it: it is damaged; copy it again")
        return [home / name for name in names]
    single = home / f"{stem}.safetensors"
    if not single.is_file():
        for path in sorted(home.glob("*")):
            if path.suffix in _PICKLES:
                raise _pickled(path)
        found = sorted(path.name for path in home.glob("*.safetensors"))
        hint = f"; found {', '.join(found)}: give variant=..." if found else ""
        raise BadInput(f"{str(single)!r} does not exist{hint}; copy the folder again")
    return [single]


def _count(paths: list[Path]) -> int:
    """How many numbers the files hold, from their headers.

    Raises
    ------
    BadInput
        For a file that is missing, damaged, or holds something else than floats.
    """
    total = 0
    for path in paths:
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118  (it is not a mapping)
                    part = file.get_slice(name)
                    if part.get_dtype() not in _FLOATS:
                        raise BadInput(f"{str(path)!r}: tensor {name!r} has type {part.get_dtype()}; known: {', '.join(_FLOATS)}")
                    total += int(torch.Size(part.get_shape()).numel())
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{str(path)!r} is not a safetensors file: {str(error).splitlines()[0]}; copy it again") from None
    return total


def _network(home: Path, config: Mapping[str, Any], known: tuple[str, ...], variant: str | None) -> torch.nn.Module:
    path = home / "config.json"
    kind = config.get("_class_name")
    if kind not in known:
        hint = "load it by its own code and wrap it by sdekit.torch.adapters"
        raise BadInput(f"{str(path)!r}: {unknown('_class_name', kind, known)}; {hint}")
    _sane(path, config)
    held = _count(_weights(home, variant))
    cls = getattr(library(), str(kind))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.device("meta"):
                wanted = sum(tensor.numel() for tensor in cls.from_config(dict(config)).state_dict().values())
            if held != wanted:
                raise BadInput(f"{str(home)!r}: the weights hold {held} numbers, the network of config.json {wanted}: they are of different networks")
            network, told = cls.from_pretrained(home, use_safetensors=True, local_files_only=True, variant=variant, output_loading_info=True)
    except BadInput:
        raise
    except Exception as error:  # there is no end to what another library raises for damaged files
        raise BadInput(f"{str(home)!r}: diffusers refuses it: {' '.join(str(error).split())[:300]}") from None
    strange = [*told["missing_keys"], *told["unexpected_keys"], *told["mismatched_keys"]]
    if strange:
        raise BadInput(
            f"{str(home)!r}: the weights do not fit the network of config.json, for example {strange[0]!r}; use files that belong together"
        )
    made: torch.nn.Module = network.requires_grad_(False).eval()
    return made


def _scheduler(folder: Path, home: Path) -> dict[str, Any]:
    for path in (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json", home / "scheduler_config.json"):
        if path.is_file():
            return _config(path)
    raise BadInput(f"no scheduler_config.json in {str(folder)!r}; give scheduler=..., what the network was trained on")
