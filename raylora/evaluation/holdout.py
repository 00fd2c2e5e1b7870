"""Denoising loss over a frozen grid of cells: image x timestep x noise.

The grid depends on the images alone, so it is the same for every trial. It is the plain unweighted MSE
whatever loss a trial trains with, and dropout and shuffling are off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raylora.diffusion.encode import encode_prompts
from raylora.diffusion.families import BaseModel
from raylora.diffusion.objective import denoising_losses

GRID_SEED = 20_240
"""Seeds the frozen noises. It must never follow a trial's seed."""


@dataclass(frozen=True)
class FrozenGrid:
    """Cells in a fixed order: for each timestep and noise draw, every image."""

    latents: Tensor
    """(images, 4, height, width), scaled."""
    captions: Sequence[str]
    timesteps: Tensor
    """(draws,)"""
    noise: Tensor
    """(draws, images, 4, height, width)"""


def make_grid(latents: Tensor, captions: Sequence[str], timesteps: Sequence[int], noises: int) -> FrozenGrid:
    """A grid of len(timesteps) x noises draws over all images."""
    draws = torch.tensor([timestep for timestep in timesteps for _ in range(noises)])
    generator = torch.Generator().manual_seed(GRID_SEED)
    noise = torch.randn((len(draws), *latents.shape), generator=generator)
    return FrozenGrid(latents, captions, draws, noise)


@torch.no_grad()
def grid_losses(base: BaseModel, grid: FrozenGrid, batch_size: int) -> Tensor:
    """The loss of each cell with whatever adapter is active, (draws, images), float32 on the CPU."""
    embeddings = torch.cat(
        [
            encode_prompts(base, list(grid.captions[i : i + batch_size]))
            for i in range(0, len(grid.captions), batch_size)
        ]
    )
    draws, images = grid.noise.shape[:2]
    cells = [(draw, image) for draw in range(draws) for image in range(images)]
    losses = []
    for first in range(0, len(cells), batch_size):
        draw, image = map(torch.tensor, zip(*cells[first : first + batch_size], strict=True))
        losses.append(
            denoising_losses(
                base,
                latents=grid.latents[image].to(base.device),
                embeddings=embeddings[image.to(base.device)],
                noise=grid.noise[draw, image].to(base.device),
                timesteps=grid.timesteps[draw].to(base.device),
            ).cpu()
        )
    return torch.cat(losses).reshape(draws, images)
