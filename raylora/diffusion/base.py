"""A base model and its family: what the rest of the house needs to know of an architecture, and nothing more.

A family is one file (`sd15.py`, `sdxl.py`) and an entry in `families.FAMILIES`; no loop asks which one it has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

UNET = "unet"
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
PARTS = (UNET, *TEXT_ENCODERS)
"""Every part that can carry a LoRA; a family's model has some of them."""

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
"""Of CLIP ViT-L/14's text tower, which both families have."""

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Conditioning:
    """What the U-Net is told of prompts."""

    embeddings: Tensor
    """(batch, positions, width)"""
    pooled: Tensor | None = None
    """(batch, width) of one vector per prompt, where the family has it."""

    def __getitem__(self, rows: Any) -> Conditioning:
        return Conditioning(self.embeddings[rows], None if self.pooled is None else self.pooled[rows])

    def to(self, device: torch.device, dtype: torch.dtype) -> Conditioning:
        """Moved without waiting, where the source is pinned."""
        pooled = None if self.pooled is None else self.pooled.to(device, dtype, non_blocking=True)
        return Conditioning(self.embeddings.to(device, dtype, non_blocking=True), pooled)


def join(conditionings: Iterable[Conditioning]) -> Conditioning:
    """Several batches as one."""
    parts = list(conditionings)
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return Conditioning(torch.cat([part.embeddings for part in parts]), torch.cat(pooled) if pooled else None)


@dataclass(frozen=True)
class Family:
    """What raylora must know of an architecture that a model's files don't say."""

    name: str
    title: str
    pipeline: type[DiffusionPipeline]
    pipeline_arguments: Mapping[str, Any]
    """What the pipeline's constructor wants beyond the model's parts."""
    unet: Mapping[str, Any]
    """The full-size U-Net's configuration, for predicting file sizes before a model is at hand."""
    text_encoders: Mapping[str, tuple[type[nn.Module], Mapping[str, Any]]]
    """By part: class and full-size configuration of each text encoder."""
    clip_skip: int
    """The text encoders' layer that it was trained with, counted from the last, which is 1."""
    encode: Callable[[BaseModel, Sequence[str]], Conditioning]
    """Prompts to conditioning, at the base model's own `clip_skip`; gradients flow."""
    unet_arguments: Callable[[Conditioning, Tensor], dict[str, Any]]
    """Conditioning and time ids (batch, 6), see `dataset.frames.Frame.time_ids`, as arguments of the U-Net."""
    sampling_arguments: Callable[[Conditioning, Conditioning | None], dict[str, Any]]
    """Conditioning of prompts and negative prompts as arguments of the pipeline."""
    kohya_base_version: str
    """`ss_base_model_version` in kohya's metadata."""
    modelspec_architecture: str
    """`modelspec.architecture` of a LoRA for it (Stability AI's ModelSpec 1.0.1)."""

    @property
    def parts(self) -> tuple[str, ...]:
        return (UNET, *self.text_encoders)


@dataclass
class BaseModel:
    """A frozen base model, ready to be shared by any number of adapters."""

    family: Family
    reference: str
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: Mapping[str, Any]
    tokenizers: Mapping[str, Any]
    """By the same parts as the text encoders."""
    noise_scheduler: DDPMScheduler
    sampler: Any
    """The scheduler that the model's own pipeline samples with."""
    clip_skip: int
    active_adapter: str | None = field(default=None)
    """Which adapter is switched on; see `adapters.Adapter.activate`."""

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Every part that can carry a LoRA."""
        return {UNET: self.unet, **self.text_encoders}

    @property
    def text_encoder(self) -> Any:
        return self.text_encoders[TEXT_ENCODERS[0]]

    @property
    def tokenizer(self) -> Any:
        return self.tokenizers[TEXT_ENCODERS[0]]

    @property
    def device(self) -> torch.device:
        """Where the U-Net is. diffusers' own `device` and `dtype` walk all modules, which a step would do ten times."""
        return _first_weight(self.unet).device

    @property
    def dtype(self) -> torch.dtype:
        """The U-Net's number format; its first layer carries no LoRA."""
        return _first_weight(self.unet).dtype

    def on_device(self, module: Module) -> Module:
        """The module beside the U-Net; where `park` had put it away, it comes back."""
        if _first_weight(module).device != self.device:
            module.to(self.device)
        return module

    def park(self, kept: Iterable[str] = ()) -> None:
        """Put the VAE and the text encoders that aren't `kept` out of the device's memory, until they are asked for."""
        if self.device.type == "cpu":
            return
        for module in (self.vae, *(encoder for part, encoder in self.text_encoders.items() if part not in kept)):
            if _first_weight(module).device == self.device:
                module.to("cpu")

    @cached_property
    def latents_digest(self) -> str:
        """sha256 of all that latents depend on: the VAE's encoder and scale. Some VAEs differ in the decoder alone."""
        parts = [part for part in (self.vae.encoder, self.vae.quant_conv) if part is not None]
        made_by = [digest_of(part) for part in parts], self.vae.config.scaling_factor
        return hashlib.sha256(f"{made_by}".encode()).hexdigest()

    @cached_property
    def text_digest(self) -> str:
        """sha256 of the text encoders' weights, as loaded, and of the layer that is used."""
        digests = [digest_of(encoder) for encoder in self.text_encoders.values()]
        return hashlib.sha256(f"{digests} {self.clip_skip}".encode()).hexdigest()

    def pipeline(self) -> Any:
        """A diffusers pipeline around these very modules, adapters included."""
        tokenizers = {
            part.replace("text_encoder", "tokenizer"): tokenizer for part, tokenizer in self.tokenizers.items()
        }
        pipe: Any = self.family.pipeline(
            vae=self.vae,
            unet=self.unet,
            scheduler=self.sampler.from_config(self.sampler.config),
            **self.text_encoders,
            **tokenizers,
            **self.family.pipeline_arguments,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe


def _first_weight(module: nn.Module) -> nn.Parameter:
    return next(module.parameters())


def digest_of(module: nn.Module) -> str:
    """sha256 over the names and bytes of a module's weights, adapters left out."""
    digest = hashlib.sha256()
    for name, weight in module.state_dict().items():
        if ".lora_" not in name:
            digest.update(name.replace(".base_layer", "").encode())
            digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def clip_states(base: BaseModel, part: str, prompts: Sequence[str]) -> Any:
    """One CLIP text encoder's output, with all hidden states. Prompts longer than its positions are cut."""
    tokenizer, encoder = base.tokenizers[part], base.on_device(base.text_encoders[part])
    tokens = torch.stack([_token_ids(tokenizer, prompt) for prompt in prompts])
    return encoder(moved(tokens, base.device), output_hidden_states=True)


@lru_cache(maxsize=4096)
def _token_ids(tokenizer: Any, prompt: str) -> Tensor:
    """(positions,) of one prompt. Kept, since a trained text encoder reads the same captions again and again."""
    tokens = tokenizer(
        prompt, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    ids: Tensor = tokens.input_ids[0]
    return ids


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copied to the device; to a GPU from pinned memory, so that neither side waits for the other."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
