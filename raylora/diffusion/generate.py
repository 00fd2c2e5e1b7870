"""Pictures from prompts, through diffusers' own pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raylora.config import SamplingConfig
from raylora.dataset.pixels import Pixels
from raylora.diffusion.families import BaseModel


@dataclass(frozen=True)
class Request:
    """One picture to make: the same prompt and seed always give the same picture."""

    prompt: str
    seed: int


def requests_of(prompts: Sequence[str], seeds: Sequence[int]) -> list[Request]:
    """Every prompt with every seed, prompt by prompt. Seeds are shifted per prompt so that noises differ."""
    return [Request(prompt, seed + 1000 * index) for index, prompt in enumerate(prompts) for seed in seeds]


@torch.no_grad()
def generate(
    base: BaseModel, requests: Sequence[Request], sampling: SamplingConfig, size: tuple[int, int], batch_size: int = 8
) -> Pixels:
    """Pictures of `requests` with whatever adapter is active: (requests, height, width, 3).

    Args:
        size: width and height in px.
        batch_size: how many at once; it changes speed and memory only.
    """
    pipe = base.pipeline()
    parts = []
    for first in range(0, len(requests), batch_size):
        chunk = requests[first : first + batch_size]
        with torch.autocast(base.device.type, dtype=base.dtype, enabled=base.dtype != torch.float32):
            images = pipe(
                prompt=[request.prompt for request in chunk],
                negative_prompt=[sampling.negative_prompt] * len(chunk),
                width=size[0],
                height=size[1],
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance_scale,
                generator=[torch.Generator().manual_seed(request.seed) for request in chunk],
                output_type="np",
            ).images
        parts.append(np.round(np.nan_to_num(images) * 255).astype(np.uint8))
    return np.concatenate(parts)
