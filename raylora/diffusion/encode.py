"""Pictures to latents, prompts to embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from raylora.dataset.pixels import Pixels
from raylora.diffusion.families import BaseModel


def to_tensor(pixels: Pixels) -> Tensor:
    """(batch, height, width, 3) of 0..255 as (batch, 3, height, width) of -1..1, float32."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: Tensor) -> Pixels:
    """The inverse of `to_tensor`, clamped and rounded."""
    scaled = (images.float().clamp(-1, 1) + 1) * 127.5
    result: Pixels = scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return result


@torch.no_grad()
def encode_images(base: BaseModel, pixels: Pixels, batch_size: int = 8) -> Tensor:
    """Scaled latents of pictures, (batch, 4, height / f, width / f) in float32 on the CPU.

    The posterior's mean is taken, not a sample: the same picture then always gives the same latents,
    which can be cached, and a held-out loss has no noise of the VAE in it. SD's posteriors are so narrow
    that training loses nothing by it.
    """
    parts = []
    for chunk in torch.split(to_tensor(pixels), batch_size):
        posterior = base.vae.encode(chunk.to(base.device, base.vae.dtype)).latent_dist
        parts.append((posterior.mean * base.vae.config.scaling_factor).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def decode_latents(base: BaseModel, latents: Tensor, batch_size: int = 8) -> Pixels:
    """Pictures of scaled latents: (batch, height, width, 3)."""
    parts = []
    for chunk in torch.split(latents, batch_size):
        scaled = (chunk / base.vae.config.scaling_factor).to(base.device, base.vae.dtype)
        parts.append(to_pixels(base.vae.decode(scaled).sample))
    return np.concatenate(parts)


def encode_prompts(base: BaseModel, prompts: Sequence[str]) -> Tensor:
    """Embeddings of prompts, (batch, positions, width), as StableDiffusionPipeline.encode_prompt makes them.

    Gradients flow if the text encoder is being trained. Prompts longer than the positions are cut.
    """
    tokens = base.tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=base.tokenizer.model_max_length,
        return_tensors="pt",
    )
    embeddings: Tensor = base.text_encoder(tokens.input_ids.to(base.device))[0]
    return embeddings
