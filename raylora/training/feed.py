"""What a training step learns: pictures, captions, timesteps and noise of each position of the stream.

Everything is a function of (seed, position): a run can stop anywhere and go on, and any number of workers
can share a batch, and each position still brings the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from raylora.config import Experiment
from raylora.dataset.batches import ImageOrder, alike
from raylora.dataset.captions import varies, vary
from raylora.diffusion.base import BaseModel, Conditioning, moved
from raylora.diffusion.encode import encode_prompts
from raylora.diffusion.noise import training_noise
from raylora.diffusion.objective import Cells
from raylora.diffusion.tensor_cache import TensorCache, cached_conditioning

SEED_STRIDE = 0x9E3779B1
"""2^32 over the golden ratio: its multiples lie far from each other (Knuth, TAOCP 3, section 6.4)."""


def stream_seed(seed: int, position: int) -> int:
    """The seed of what a position of a run's stream draws.

    torch's generator of the CPU takes the low 32 bits of a seed and drops the others, so they hold both. The streams of
    seeds that are near to each other, such as those of trials trained again, don't meet for a million positions.
    """
    return (seed * SEED_STRIDE + position) % 2**32


@dataclass(frozen=True)
class TrainingSet:
    """What is learned, an entry per picture."""

    latents: Sequence[Tensor]
    """(4, height, width) each, scaled, on the CPU."""
    captions: Sequence[str]
    repeats: Sequence[int]
    time_ids: Tensor
    """(pictures, 6), see `dataset.frames.Frame.time_ids`."""
    weights: Sequence[float]
    """Of each picture's loss: 1, and for regularization images `dataset.prior_loss_weight`."""
    mirrored: Sequence[Tensor] = ()
    """Latents of the mirrored pictures, if they are learned too."""
    cache: TensorCache = field(default_factory=lambda: TensorCache(None))
    """Where embeddings are kept."""


@dataclass(frozen=True)
class Batch:
    """Pictures of one shape, on the device."""

    cells: Cells
    noise: Tensor
    """What the target is made of, like the latents."""
    noise_in: Tensor
    """What the latents are mixed with; the same unless `loss.input_perturbation` is set."""
    weights: Tensor
    """(batch,)"""


class Feed:
    """Batches by positions of the stream.

    Args:
        embeds_ahead: whether each caption's embedding stays the same, because no text encoder is trained.
    """

    def __init__(self, base: BaseModel, data: TrainingSet, config: Experiment, batch_size: int, embeds_ahead: bool):
        self._base, self._data, self._config = base, data, config
        shapes = [tuple(latent.shape) for latent in data.latents]
        self._order = ImageOrder(data.repeats, config.seed, shapes, batch_size)
        self._undropped = config.dataset.model_copy(update={"caption_dropout": 0.0})
        self._variants = config.dataset.caption_variants if varies(self._undropped) else 1
        self._embedded = self._embed_ahead() if embeds_ahead else None

    def _embed_ahead(self) -> _Embedded:
        """Embeddings of all that `_prompt` may give: every variant of every caption, and the empty one."""
        pictures, variants = range(len(self._data.captions)), range(self._variants)
        prompts = [self._variant(picture, variant) for picture in pictures for variant in variants]
        if self._config.dataset.caption_dropout > 0:
            prompts.append("")
        unique = list(dict.fromkeys(prompts))
        rows = {prompt: row for row, prompt in enumerate(unique)}
        return _Embedded(cached_conditioning(self._base, unique, self._data.cache), rows)

    def _variant(self, picture: int, variant: int) -> str:
        return vary(self._data.captions[picture], self._undropped, (self._config.seed, picture, variant))

    def batches(self, positions: Sequence[int]) -> Iterator[Batch]:
        """The pictures at these positions, those of one shape together."""
        for group in alike(self._data.latents[self._order[position]].shape for position in positions):
            yield self._batch([positions[place] for place in group])

    def _batch(self, positions: Sequence[int]) -> Batch:
        pictures = [self._order[position] for position in positions]
        draws = [self._draw(position, picture) for position, picture in zip(positions, pictures, strict=True)]
        device = self._base.device
        noise = moved(torch.stack([draw.noise for draw in draws]), device)
        perturbs = draws[0].noise_in is not draws[0].noise
        cells = Cells(
            latents=moved(torch.stack([draw.latents for draw in draws]), device),
            conditioning=self._conditioning(pictures, positions),
            time_ids=moved(self._data.time_ids[pictures], device),
            timesteps=moved(torch.cat([draw.timestep for draw in draws]), device),
        )
        return Batch(
            cells=cells,
            noise=noise,
            noise_in=moved(torch.stack([draw.noise_in for draw in draws]), device) if perturbs else noise,
            weights=moved(torch.tensor([self._data.weights[picture] for picture in pictures]), device),
        )

    def _draw(self, position: int, picture: int) -> _Draw:
        generator = torch.Generator().manual_seed(stream_seed(self._config.seed, position))
        steps = self._base.noise_scheduler.config.num_train_timesteps
        timestep = torch.randint(0, steps, (1,), generator=generator)
        latents = self._data.latents[picture]
        noise, noise_in = training_noise(latents.shape, self._config.loss, generator)
        if self._data.mirrored and torch.rand((), generator=generator) < 0.5:
            latents = self._data.mirrored[picture]
        return _Draw(latents, timestep, noise, noise_in)

    def _conditioning(self, pictures: Sequence[int], positions: Sequence[int]) -> Conditioning:
        prompts = [self._prompt(*place) for place in zip(pictures, positions, strict=True)]
        if self._embedded is None:
            return encode_prompts(self._base, prompts)
        chosen = self._embedded.conditioning[[self._embedded.rows[prompt] for prompt in prompts]]
        device = self._base.device
        pooled = None if chosen.pooled is None else moved(chosen.pooled, device)
        return Conditioning(moved(chosen.embeddings, device), pooled)

    def _prompt(self, picture: int, position: int) -> str:
        """The caption as it is learned at a position; dropped as often whether it is embedded ahead or not."""
        dataset, seed = self._config.dataset, self._config.seed
        if self._embedded is None:
            return vary(self._data.captions[picture], dataset, (seed, position))
        rng = np.random.default_rng([seed, position, 2])
        variant = int(rng.integers(self._variants))
        return "" if rng.random() < dataset.caption_dropout else self._variant(picture, variant)


@dataclass(frozen=True)
class _Embedded:
    """Embeddings made ahead."""

    conditioning: Conditioning
    rows: Mapping[str, int]
    """Where in it each prompt lies."""


@dataclass(frozen=True)
class _Draw:
    latents: Tensor
    timestep: Tensor
    noise: Tensor
    noise_in: Tensor
