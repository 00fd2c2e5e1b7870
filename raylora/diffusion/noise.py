"""Training noise: plain Gaussian noise and the departures from it that a configuration asks for.

One image at a time, from a generator on the CPU, so that an image's noise depends on its generator alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from raylora.config import LossConfig

Shape = Sequence[int]
"""(channels, height, width) of an image's latents."""


def training_noise(shape: Shape, config: LossConfig, generator: Generator) -> tuple[Tensor, Tensor]:
    """An image's noise, and the noise that its latents are mixed with; both of `shape`, float32, on the CPU.

    The first is what the target is made of. They are one tensor unless `input_perturbation` is set. The plain noise
    is drawn first, so the options change what is added to it and never its own draw.
    """
    noise = torch.randn(shape, generator=generator)
    if config.noise_offset:
        noise = offset_noise(noise, config.noise_offset, generator)
    if config.multires_noise_iterations:
        assert config.multires_noise_discount is not None, "the configuration checks it"
        noise = multires_noise(noise, config.multires_noise_iterations, config.multires_noise_discount, generator)
    if config.input_perturbation:
        return noise, perturbed_noise(noise, config.input_perturbation, generator)
    return noise, noise


def offset_noise(noise: Tensor, offset: float, generator: Generator) -> Tensor:
    """noise + offset · N(0, 1) with one draw per channel (Guttenberg 2023, "Diffusion with Offset Noise",
    https://www.crosslabs.org/blog/diffusion-with-offset-noise).

    Plain noise hardly changes an image's mean, so the model keeps it, and can make nothing very dark or bright.
    """
    return noise + offset * torch.randn((noise.shape[0], 1, 1), generator=generator)


def multires_noise(noise: Tensor, iterations: int, discount: float, generator: Generator) -> Tensor:
    """noise + Σᵢ discountⁱ · upsampled N(0, 1) of an rᵢⁱ times lower resolution, divided by its standard deviation.

    "Multi-Resolution Noise for Diffusion Model Training" (Whitaker 2023, https://wandb.ai/johnowhitaker/multires_noise),
    in the variant of kohya's `pyramid_noise_like`: rᵢ is uniform in [2, 4), level 0 has the full resolution, and a
    level with a side of 1 is the last. The standard deviation is this image's own, where kohya takes the batch's.
    """
    channels, height, width = noise.shape
    for level in range(iterations):
        shrink = (2 + 2 * float(torch.rand((), generator=generator))) ** level
        size = max(1, int(height / shrink)), max(1, int(width / shrink))
        coarse = torch.randn((1, channels, *size), generator=generator)
        noise = noise + discount**level * _upsampled(coarse, (height, width))
        if 1 in size:
            break
    return noise / noise.std()


def _upsampled(coarse: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, channels, h, w) → (channels, *size), bilinear."""
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)[0]


def perturbed_noise(noise: Tensor, gamma: float, generator: Generator) -> Tensor:
    """noise + gamma · N(0, 1), for the U-Net's input alone: the target stays `noise` (Ning et al. 2023, algorithm 2,
    https://arxiv.org/abs/2301.11706). It shows the model inputs as imprecise as its own samples will be."""
    return noise + gamma * torch.randn(noise.shape, generator=generator)
