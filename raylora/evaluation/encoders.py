"""Image encoders: pictures (and prompts, where the encoder knows text) as unit vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPModel, Dinov2Model

from raylora.bundled import DEMO_ENCODER, DEMO_NAME
from raylora.dataset.pixels import Pixels
from raylora.diffusion.hub import is_meant_as_path, read_hub_config
from raylora.errors import ModelError, first_line

BATCH_SIZE = 32


class ImageEncoder(Protocol):
    """Maps pictures to unit vectors whose cosine says how alike they are."""

    def images(self, pixels: Sequence[Pixels]) -> Tensor:
        """Pictures of any sizes to (batch, width), each of length 1, on the CPU."""

    def texts(self, prompts: Sequence[str]) -> Tensor | None:
        """The same for prompts, or None if the encoder knows no text."""


class ClipEncoder:
    """CLIP's projected embeddings (Radford et al. 2021, https://arxiv.org/abs/2103.00020)."""

    def __init__(self, reference: str, device: str = "cpu"):
        self._model = CLIPModel.from_pretrained(reference, dtype=torch.float32, use_safetensors=True).eval().to(device)
        self._processor = AutoImageProcessor.from_pretrained(reference)
        self._tokenizer = AutoTokenizer.from_pretrained(reference)

    @torch.no_grad()
    def images(self, pixels: Sequence[Pixels]) -> Tensor:
        def embed(batch: Tensor) -> Tensor:
            return _pooled(self._model.get_image_features(pixel_values=batch))

        return _embed_all(embed, self._model, self._processor, pixels)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        length = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return normalize(_pooled(self._model.get_text_features(**tokens.to(self._model.device))), dim=-1).cpu()


class Dinov2Encoder:
    """DINOv2's class token (Oquab et al. 2023, https://arxiv.org/abs/2304.07193)."""

    def __init__(self, reference: str, device: str = "cpu"):
        self._model = Dinov2Model.from_pretrained(reference, dtype=torch.float32, use_safetensors=True)
        self._model.eval().to(device)
        self._processor = AutoImageProcessor.from_pretrained(reference)

    @torch.no_grad()
    def images(self, pixels: Sequence[Pixels]) -> Tensor:
        def embed(batch: Tensor) -> Tensor:
            pooled: Tensor = self._model(pixel_values=batch).pooler_output
            return pooled

        return _embed_all(embed, self._model, self._processor, pixels)

    def texts(self, prompts: Sequence[str]) -> None:
        return None


IMAGE_ENCODERS: dict[str, Callable[[str, str], ImageEncoder]] = {"clip": ClipEncoder, "dinov2": Dinov2Encoder}
"""By the `model_type` of the encoder's config.json."""


def check_encoder(reference: str) -> None:
    """Whether a reference can name an encoder; reads no weights.

    Raises:
        ModelError: a folder that isn't there or holds no model.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir():
        if not ((folder / "config.json").is_file() and any(folder.glob("*.safetensors"))):
            raise ModelError(f"evaluation.encoder {reference}: holds no encoder (config.json and .safetensors weights)")
    elif is_meant_as_path(reference):
        raise ModelError(f"evaluation.encoder {reference}: there is no such folder; mend the path, or give a hub id")


def check_encoder_on_hub(reference: str) -> None:
    """Whether the hub has this encoder, if it is to come from there; fetches its configuration and no weights.

    Raises:
        ModelError: no such model, or one of an unknown kind.
    """
    check_encoder(reference)
    if reference != DEMO_NAME and not Path(reference).expanduser().is_dir():
        try:
            kind = str(read_hub_config(reference, "config.json").get("model_type"))
        except ModelError as error:
            raise type(error)(f"evaluation.encoder {error}") from None
        if kind not in IMAGE_ENCODERS:
            raise _unknown_kind(reference, kind)


def _unknown_kind(reference: str, kind: str) -> ModelError:
    known = ", ".join(IMAGE_ENCODERS)
    return ModelError(f"evaluation.encoder {reference}: is a {kind} model; known kinds are {known}")


def load_encoder(reference: str, device: str = "cpu") -> ImageEncoder:
    """An encoder from the hub or a folder; `demo` is the bundled one.

    Raises:
        ModelError: nothing to load, or of a kind that isn't in `IMAGE_ENCODERS`.
    """
    source = str(DEMO_ENCODER) if reference == DEMO_NAME else reference
    try:
        kind = AutoConfig.from_pretrained(source).model_type
        builder = IMAGE_ENCODERS.get(kind)
        encoder = builder(source, device) if builder else None
    except Exception as error:  # transformers and huggingface_hub raise many kinds
        raise ModelError(f"evaluation.encoder {reference}: can't be loaded: {first_line(error)}") from error
    if encoder is None:
        raise _unknown_kind(reference, kind)
    return encoder


def _embed_all(embed: Callable[[Tensor], Tensor], model: Any, processor: Any, pixels: Sequence[Pixels]) -> Tensor:
    """Unit vectors of pictures, a batch at a time, on the CPU."""
    parts = []
    for first in range(0, len(pixels), BATCH_SIZE):
        pictures = [Image.fromarray(picture) for picture in pixels[first : first + BATCH_SIZE]]
        batch = processor(pictures, return_tensors="pt")["pixel_values"]
        parts.append(normalize(embed(batch.to(model.device)), dim=-1).cpu())
    return torch.cat(parts)


def _pooled(features: Any) -> Tensor:
    """transformers 5 wraps projected features in an output object; 4 gives the tensor."""
    pooled: Tensor = getattr(features, "pooler_output", features)
    return pooled
