"""Pictures to latents, prompts to embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from raylora.dataset.batches import alike
from raylora.dataset.pixels import Pixels
from raylora.diffusion.base import BaseModel, Conditioning, join
from raylora.errors import ModelError


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
    """Scaled latents of pictures of one size, (batch, 4, height / f, width / f) in float32 on the CPU.

    The posterior's mean is taken, not a sample: the same picture then always gives the same latents,
    which can be cached, and a held-out loss has no noise of the VAE in it. SD's posteriors are so narrow
    that training loses nothing by it.
    """
    vae = base.on_device(base.vae)
    parts = []
    for chunk in torch.split(to_tensor(pixels), batch_size):
        posterior = vae.encode(chunk.to(base.device, vae.dtype)).latent_dist
        parts.append((posterior.mean * vae.config.scaling_factor).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def decode_latents(base: BaseModel, latents: Tensor, batch_size: int = 8) -> Pixels:
    """Pictures of scaled latents of one size: (batch, height, width, 3)."""
    vae = base.on_device(base.vae)
    parts = []
    for chunk in torch.split(latents, batch_size):
        scaled = (chunk / vae.config.scaling_factor).to(base.device, vae.dtype)
        images = vae.decode(scaled).sample
        if not bool(torch.isfinite(images).all()):
            mend = "use training.mixed_precision=bf16 or no"
            raise ModelError(f"{base.reference}: its VAE overflows in {vae.dtype}; {mend}")
        parts.append(to_pixels(images))
    return np.concatenate(parts)


def decode_all(base: BaseModel, latents: Sequence[Tensor], batch_size: int = 8) -> list[Pixels]:
    """Pictures of scaled latents (4, height / f, width / f) of any sizes."""
    pictures: dict[int, Pixels] = {}
    for group in alike(latent.shape for latent in latents):
        decoded = decode_latents(base, torch.stack([latents[index] for index in group]), batch_size)
        pictures |= zip(group, decoded, strict=True)
    return [pictures[index] for index in range(len(latents))]


def encode_prompts(base: BaseModel, prompts: Sequence[str], batch_size: int = 32) -> Conditioning:
    """What the U-Net is told of prompts, as the family's own pipeline makes it.

    Gradients flow if a text encoder is being trained. Prompts longer than the positions are cut.
    """
    chunks = [prompts[first : first + batch_size] for first in range(0, len(prompts), batch_size)]
    return join(base.family.encode(base, chunk) for chunk in chunks)
