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

VAE_PX = 8 * 512**2
"""The most pixels that a VAE is given at once: at full size in float32 a picture of 1024² takes some GB, of which one
feature map of 256 channels is 1 GiB, and eight of them fit no common GPU."""


def to_tensor(pixels: Pixels) -> Tensor:
    """(batch, height, width, 3) of 0..255 as (batch, 3, height, width) of -1..1, float32."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: Tensor) -> Pixels:
    """The inverse of `to_tensor`, clamped and rounded."""
    scaled = (images.float().clamp(-1, 1) + 1) * 127.5
    result: Pixels = scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return result


def vae_batch(width: int, height: int, batch_size: int) -> int:
    """How many pictures of this size (px) a VAE is given at once, at most `batch_size`."""
    return max(1, min(batch_size, VAE_PX // (width * height)))


def checked_numbers(base: BaseModel, numbers: Tensor, subject: str) -> Tensor:
    """What the VAE made of `subject`, if they are numbers.

    Raises:
        ModelError: they aren't.
    """
    if not bool(torch.isfinite(numbers).all()):
        dtype = base.vae.dtype
        mend = "is its file whole?" if dtype == torch.float32 else "use training.mixed_precision=bf16 or no"
        raise ModelError(f"{subject}: the VAE of {base.reference} overflows in {dtype} and makes no numbers; {mend}")
    return numbers


@torch.no_grad()
def encode_images(base: BaseModel, pixels: Pixels, batch_size: int = 8) -> Tensor:
    """Scaled latents of pictures of one size, (batch, 4, height / f, width / f) in float32 on the CPU.

    The posterior's mean is taken, not a sample: the same picture then always gives the same latents,
    which can be cached, and a held-out loss has no noise of the VAE in it. SD's posteriors are so narrow
    that training loses nothing by it. Whether they are numbers is for the caller to look at (`checked_numbers`).
    """
    vae = base.on_device(base.vae)
    step = vae_batch(pixels.shape[2], pixels.shape[1], batch_size)
    parts = []
    for first in range(0, len(pixels), step):
        chunk = to_tensor(pixels[first : first + step])
        posterior = vae.encode(chunk.to(base.device, vae.dtype)).latent_dist
        parts.append((posterior.mean * vae.config.scaling_factor).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def decode_latents(base: BaseModel, latents: Tensor, batch_size: int = 8) -> Pixels:
    """Pictures of scaled latents of one size: (batch, height, width, 3).

    Raises:
        ModelError: the VAE makes no numbers of them.
    """
    vae = base.on_device(base.vae)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    parts = []
    for chunk in torch.split(latents, vae_batch(factor * latents.shape[3], factor * latents.shape[2], batch_size)):
        scaled = (chunk / vae.config.scaling_factor).to(base.device, vae.dtype)
        parts.append(to_pixels(checked_numbers(base, vae.decode(scaled).sample, "pictures")))
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
