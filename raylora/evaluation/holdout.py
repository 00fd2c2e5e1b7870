"""Denoising loss over a frozen grid of cells: image x timestep x noise.

The grid depends on the images alone, so it is the same for every trial. It is the plain unweighted MSE
whatever loss a trial trains with, and dropout and shuffling are off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raylora.dataset.batches import alike
from raylora.diffusion.base import BaseModel, Conditioning
from raylora.diffusion.encode import encode_prompts
from raylora.diffusion.objective import Cells, denoising_losses
from raylora.world import World

GRID_SEED = 20_240
"""Seeds the frozen noises. It must never follow a trial's seed."""


@dataclass(frozen=True)
class FrozenGrid:
    """Cells in a fixed order: for each timestep and noise draw, every image."""

    latents: Sequence[Tensor]
    """Of each image (4, height, width), scaled."""
    captions: Sequence[str]
    time_ids: Tensor
    """(images, 6), see `dataset.frames.Frame.time_ids`."""
    timesteps: Tensor
    """(draws,)"""
    noise: Sequence[Sequence[Tensor]]
    """For each draw, for each image, like its latents."""


def make_grid(
    latents: Sequence[Tensor], captions: Sequence[str], time_ids: Tensor, timesteps: Sequence[int], noises: int
) -> FrozenGrid:
    """A grid of len(timesteps) x noises draws over all images."""
    draws = torch.tensor([timestep for timestep in timesteps for _ in range(noises)])
    generator = torch.Generator().manual_seed(GRID_SEED)
    noise = [[torch.randn(latent.shape, generator=generator) for latent in latents] for _ in draws]
    return FrozenGrid(latents, captions, time_ids, draws, noise)


@torch.no_grad()
def grid_losses(base: BaseModel, grid: FrozenGrid, batch_size: int, world: World = World()) -> Tensor:
    """The loss of each cell with whatever adapter is active, (draws, images), float32 on the CPU.

    Several workers share the cells; each gets all losses.
    """
    conditioning = encode_prompts(base, grid.captions)
    draws, images = len(grid.timesteps), len(grid.latents)
    losses = torch.zeros(draws, images, device=base.device)
    for draw, image in map(torch.tensor, world.share(_batches(grid, batch_size))):
        losses[draw, image] = _losses(base, grid, conditioning, draw, image)
    world.sum([losses])
    return losses.cpu()


def _batches(grid: FrozenGrid, batch_size: int) -> list[tuple[list[int], list[int]]]:
    """Cells of one shape in batches: draws, and images."""
    batches = []
    for group in alike(latent.shape for latent in grid.latents):
        cells = [(draw, image) for draw in range(len(grid.timesteps)) for image in group]
        for first in range(0, len(cells), batch_size):
            draw, image = zip(*cells[first : first + batch_size], strict=True)
            batches.append((list(draw), list(image)))
    return batches


def _losses(base: BaseModel, grid: FrozenGrid, conditioning: Conditioning, draw: Tensor, image: Tensor) -> Tensor:
    noise = [grid.noise[d][i] for d, i in zip(draw.tolist(), image.tolist(), strict=True)]
    cells = Cells(
        latents=torch.stack([grid.latents[i] for i in image.tolist()]).to(base.device),
        conditioning=conditioning[image.to(base.device)],
        time_ids=grid.time_ids[image].to(base.device),
        timesteps=grid.timesteps[draw].to(base.device),
    )
    return denoising_losses(base, cells, torch.stack(noise).to(base.device))
