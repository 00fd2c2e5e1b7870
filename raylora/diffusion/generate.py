"""Pictures from prompts, through diffusers' own pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from raylora.config import SamplingConfig
from raylora.dataset.batches import alike
from raylora.dataset.pixels import Pixels
from raylora.diffusion.base import BaseModel
from raylora.diffusion.encode import decode_latents, encode_prompts
from raylora.errors import TrainingDivergedError


@dataclass(frozen=True)
class Request:
    """One picture to make: the same prompt, seed and size always give the same picture.

    size: width and height in px.
    """

    prompt: str
    seed: int
    size: tuple[int, int]


def requests_of(prompts: Sequence[str], seeds: Sequence[int], sizes: Sequence[tuple[int, int]]) -> list[Request]:
    """Every prompt, at its size, with every seed, prompt by prompt; seeds are shifted so that noises differ."""
    return [
        Request(prompt, seed + 1000 * index, size)
        for index, (prompt, size) in enumerate(zip(prompts, sizes, strict=True))
        for seed in seeds
    ]


@torch.no_grad()
def generate(
    base: BaseModel, requests: Sequence[Request], sampling: SamplingConfig, batch_size: int = 8
) -> list[Pixels]:
    """The pictures of `requests` with whatever adapter is active, each (height, width, 3).

    Args:
        batch_size: how many at once; it changes speed and memory only.

    Raises:
        TrainingDivergedError: they are no numbers.
        ModelError: the VAE makes no numbers of them.
    """
    made: dict[int, Pixels] = {}
    for numbers in alike(request.size for request in requests):
        for first in range(0, len(numbers), batch_size):
            chunk = numbers[first : first + batch_size]
            latents = _denoise(base, [requests[number] for number in chunk], sampling)
            made |= zip(chunk, decode_latents(base, latents, batch_size), strict=True)
    return [made[number] for number in range(len(requests))]


def _denoise(base: BaseModel, requests: Sequence[Request], sampling: SamplingConfig) -> torch.Tensor:
    """Scaled latents of requests of one size."""
    prompts = encode_prompts(base, [request.prompt for request in requests])
    negative = None
    if sampling.guidance_scale > 1:
        negative = encode_prompts(base, [sampling.negative_prompt])[[0] * len(requests)]
        negative = negative.to(base.device, base.dtype)
    base.on_device(base.vae)  # the pipeline takes its device from it
    width, height = requests[0].size
    with torch.autocast(base.device.type, dtype=base.dtype, enabled=base.dtype != torch.float32):
        latents: torch.Tensor = base.pipeline()(
            **base.family.sampling_arguments(prompts.to(base.device, base.dtype), negative),
            width=width,
            height=height,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
            generator=[torch.Generator().manual_seed(request.seed) for request in requests],
            output_type="latent",
        ).images
    return _checked(latents.float(), base)


def _checked(latents: torch.Tensor, base: BaseModel) -> torch.Tensor:
    """The latents, if they are numbers: else a picture would come of them that is black, and scored."""
    if not bool(torch.isfinite(latents).all()):
        raise TrainingDivergedError(
            f"samples are no numbers any more, in {str(base.dtype).removeprefix('torch.')}; the rate is too high, or "
            "the numbers overflow: use training.mixed_precision=bf16"
        )
    return latents
