"""The denoising objective: noise a latent, predict, compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raylora.diffusion.base import BaseModel, Conditioning


@dataclass(frozen=True)
class Cells:
    """Latents of one shape with all that the U-Net is told of them, on the device.

    latents: (batch, 4, height, width), scaled, float32.
    time_ids: (batch, 6), see `dataset.frames.Frame.time_ids`.
    timesteps: (batch,) of 0..999.
    """

    latents: Tensor
    conditioning: Conditioning
    time_ids: Tensor
    timesteps: Tensor


def target_of(base: BaseModel, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the U-Net should predict, as its scheduler's `prediction_type` says.

    epsilon: the noise (Ho et al. 2020, eq. 14, https://arxiv.org/abs/2006.11239).
    v_prediction: sqrt(abar) noise - sqrt(1 - abar) x (Salimans & Ho 2022, appendix D, https://arxiv.org/abs/2202.00512).
    """
    if base.noise_scheduler.config.prediction_type == "v_prediction":
        velocity: Tensor = base.noise_scheduler.get_velocity(latents, noise, timesteps)
        return velocity
    return noise


def predict(base: BaseModel, cells: Cells, noise: Tensor) -> Tensor:
    """The U-Net's prediction for latents with this noise in them, (batch, 4, height, width) in float32."""
    noised = base.noise_scheduler.add_noise(cells.latents, noise, cells.timesteps)
    arguments = base.family.unet_arguments(cells.conditioning.to(base.device, base.dtype), cells.time_ids)
    with torch.autocast(base.device.type, dtype=base.dtype, enabled=base.dtype != torch.float32):
        prediction: Tensor = base.unet(noised.to(base.dtype), cells.timesteps, **arguments).sample
    return prediction.float()


def denoising_losses(base: BaseModel, cells: Cells, noise: Tensor) -> Tensor:
    """Plain mean squared error of each image, (batch,) in float32: what measures use.

    Args:
        noise: like the latents, standard normal.
    """
    error = predict(base, cells, noise) - target_of(base, cells.latents, noise, cells.timesteps)
    return error.pow(2).mean(dim=(1, 2, 3))
