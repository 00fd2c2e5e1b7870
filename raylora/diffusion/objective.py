"""The denoising objective: noise a latent, predict, compare."""

from __future__ import annotations

import torch
from torch import Tensor

from raylora.diffusion.families import BaseModel


def target_of(base: BaseModel, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the U-Net should predict, as its scheduler's `prediction_type` says.

    epsilon: the noise (Ho et al. 2020, eq. 14, https://arxiv.org/abs/2006.11239).
    v_prediction: sqrt(abar) noise - sqrt(1 - abar) x (Salimans & Ho 2022, appendix D, https://arxiv.org/abs/2202.00512).
    """
    if base.noise_scheduler.config.prediction_type == "v_prediction":
        velocity: Tensor = base.noise_scheduler.get_velocity(latents, noise, timesteps)
        return velocity
    return noise


def denoising_losses(base: BaseModel, latents: Tensor, embeddings: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Plain mean squared error of each image, (batch,) in float32.

    Args:
        latents: (batch, 4, height, width), scaled, float32.
        embeddings: (batch, positions, width).
        noise: like `latents`, standard normal.
        timesteps: (batch,) of 0..999.
    """
    noised = base.noise_scheduler.add_noise(latents, noise, timesteps)
    with torch.autocast(base.device.type, dtype=base.dtype, enabled=base.dtype != torch.float32):
        prediction = base.unet(noised.to(base.dtype), timesteps, embeddings.to(base.dtype)).sample
    error = prediction.float() - target_of(base, latents, noise, timesteps)
    losses: Tensor = error.pow(2).mean(dim=(1, 2, 3))
    return losses
