r"""How well images fit their prompts, and how they please: cosines of CLIP's embeddings, and a linear head on them.

The score of an image and its prompt is :math:`\cos(u, v) = u^T v`, with ``u`` and ``v`` CLIP's embeddings of both at unit length.  Papers print it
as it is, or times 100, or :math:`2.5 \max(\cos, 0)`.  It says little alone: put the mean beside that of the same images with other prompts.

>>> model = Clip("clip-vit-large-patch14")                       # a folder that transformers wrote
>>> fit = model.scores(images, prompts)
>>> chance = model.scores(images, prompts[1:] + prompts[:1])
>>> pleasing = aesthetic(model, "sac+logos+ava1-l14-linearMSE.safetensors")(images)
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._array import to_host
from ..errors import BadInput, MissingExtra, whole
from ..files import read_bytes
from .features import Features, as_rgb

try:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load as from_safetensors
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

Array = NDArray[np.float64]

__all__ = ["Clip", "aesthetic"]


class Clip:
    """A CLIP network with its tokenizer and its own preparation of images.

    Parameters
    ----------
    folder : path
        That ``save_pretrained`` of transformers wrote: model, tokenizer and image processor.  Weights are safetensors; nothing is fetched.
    batch : int
        Images, or prompts, at once.
    device : optional

    Raises
    ------
    BadInput
        For a folder without such files.
    MissingExtra
        Without transformers.

    References
    ----------
    Radford et al. 2021, arXiv:2103.00020; Hessel et al. 2021, CLIPScore, arXiv:2104.08718.
    """

    def __init__(self, folder: str | os.PathLike[str], *, batch: int = 64, device: Any = "cpu") -> None:
        try:
            from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel
        except ImportError:
            raise MissingExtra("CLIP scores", "clip") from None
        self.folder, self.batch, self.device = Path(folder), whole("batch", batch), device
        if not self.folder.is_dir():
            raise BadInput(f"{str(folder)!r} is not a folder; give one with a CLIP model, its tokenizer and its image processor")
        try:
            model = CLIPModel.from_pretrained(self.folder, use_safetensors=True, local_files_only=True)
            self._words = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            self._prepare = AutoImageProcessor.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise BadInput(f"{str(folder)!r} is no folder of CLIP: {' '.join(str(error).split())[:160]}") from None
        self._model = model.requires_grad_(False).eval().to(device)

    def images(self, images: Any) -> Array:
        """Embeddings (n, f) of unit length, of images (n, 3 or 1, height, width) in [-1, 1].

        Raises
        ------
        BadInput
            For arrays of another form.
        """
        pixels = as_rgb(to_host(images)).transpose(0, 2, 3, 1)

        def embed(part: NDArray[np.uint8]) -> torch.Tensor:
            ready = self._prepare(images=list(part), return_tensors="pt", input_data_format="channels_last")["pixel_values"].to(self.device)
            made: torch.Tensor = self._model.visual_projection(self._model.vision_model(pixel_values=ready).pooler_output)
            return made

        return self._each(embed, pixels)

    def texts(self, prompts: Sequence[str]) -> Array:
        """Embeddings (n, f) of unit length; prompts beyond the model's length are cut."""

        def embed(part: Sequence[str]) -> torch.Tensor:
            ready = self._words(list(part), padding=True, truncation=True, return_tensors="pt").to(self.device)
            pooled = self._model.text_model(input_ids=ready["input_ids"], attention_mask=ready["attention_mask"]).pooler_output
            made: torch.Tensor = self._model.text_projection(pooled)
            return made

        return self._each(embed, prompts)

    def scores(self, images: Any, prompts: Sequence[str]) -> Array:
        """Cosine (n,) of each image and its prompt.

        Raises
        ------
        BadInput
            Unless there is a prompt for each image.
        """
        if isinstance(prompts, str) or len(prompts) != len(images):
            raise BadInput(f"{len(images)} images need as many prompts, in a list")
        return np.asarray(np.sum(self.images(images) * self.texts(prompts), axis=1))

    @property
    def features(self) -> Features:
        """The embeddings of images as features, for :func:`~sdekit.torch.features.compare`."""
        return Features("clip", self.images, {"folder": self.folder.name, "range": [-1.0, 1.0]})

    def _each(self, embed: Any, inputs: Any) -> Array:
        with torch.no_grad():
            parts = [embed(inputs[i : i + self.batch]).double().cpu().numpy() for i in range(0, len(inputs), self.batch)]
        made = np.concatenate(parts)
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True))


def aesthetic(model: Clip, weights: str | os.PathLike[str]) -> Features:
    r"""A head of linear layers on CLIP's embeddings, one number an image: :math:`w_m(\dots(w_1 u + b_1)\dots) + b_m`.

    So are the two LAION predictors: one layer in the first, five in the second (``sac+logos+ava1-l14-linearMSE``, for ViT-L/14), with nothing but
    dropout between them.

    Parameters
    ----------
    model : Clip
    weights : path
        A safetensors file with a ``weight`` and a ``bias`` for each layer, such as ``layers.0.weight``, in the order of the numbers in their names.

    Returns
    -------
    Features
        With one feature; ``float(...(images).mean())`` is what papers print.

    Raises
    ------
    BadInput
        For another file, or layers that do not follow each other from the model's embedding to one number.

    References
    ----------
    Schuhmann et al. 2022, LAION-5B, arXiv:2210.08402.
    """
    path = Path(weights)
    try:
        tensors = from_safetensors(read_bytes(path))
    except SafetensorError as error:
        raise BadInput(f"{str(path)!r} is not a safetensors file ({str(error).splitlines()[0]}); write the head's state_dict as one") from None
    names = sorted((name for name in tensors if name.endswith("weight")), key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    sizes = [model._model.config.projection_dim, *(len(tensors[name]) for name in names)]
    zero = torch.zeros(1)
    layers = [tuple(tensors.get(key, zero).double().numpy() for key in (name, name.removesuffix("weight") + "bias")) for name in names]
    if not names or sizes[-1] != 1 or any(weight.shape != (b, a) for (weight, _), a, b in zip(layers, sizes, sizes[1:], strict=False)):
        found = ", ".join(f"{name} {tuple(tensors[name].shape)}" for name in names)
        raise BadInput(f"{str(path)!r} holds [{found}]: layers must lead from the {sizes[0]} numbers of this CLIP model to one")

    def score(images: Any) -> Array:
        made = model.images(images)
        for weight, bias in layers:
            made = made @ weight.T + bias
        return made

    return Features("aesthetic", score, {"head": path.name, **model.features.settings})
