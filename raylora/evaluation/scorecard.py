"""All measures of one evaluation, always on the same cells, and the one score made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from raylora.config import EvaluationConfig, SamplingConfig, ScoreConfig
from raylora.dataset.pixels import Pixels
from raylora.diffusion.base import BaseModel
from raylora.diffusion.encode import decode_all
from raylora.diffusion.generate import Request, generate, requests_of
from raylora.evaluation.encoders import ImageEncoder
from raylora.evaluation.grid import sample_grid
from raylora.evaluation.holdout import grid_losses, make_grid
from raylora.evaluation.similarity import copying, diversity, paired_similarities, paired_similarity, prompt_alignment
from raylora.world import World

NARROWEST_GAIN_SPAN = 0.05
"""Floor under (VAE ceiling - base similarity): cosines nearer than this can't be told apart."""

Metrics = dict[str, float]
Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True)
class ImageSet:
    """Images that measures look at, with all that was cached of them."""

    pixels: Sequence[Pixels]
    """Of each image (height, width, 3)."""
    latents: Sequence[Tensor]
    """Of each image (4, height / f, width / f), scaled."""
    captions: Sequence[str]
    embeddings: Tensor
    """(images, width) unit vectors of the image encoder."""
    time_ids: Tensor
    """(images, 6), see `dataset.frames.Frame.time_ids`."""

    def first(self, count: int) -> ImageSet:
        """The first `count` images."""
        return ImageSet(
            self.pixels[:count],
            self.latents[:count],
            self.captions[:count],
            self.embeddings[:count],
            self.time_ids[:count],
        )

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of each image in px."""
        return [(pixels.shape[1], pixels.shape[0]) for pixels in self.pixels]


@dataclass(frozen=True)
class Reference:
    """What the base model alone reaches on the same cells: the zero of ratio and gain."""

    holdout_loss: float
    sample_similarity: float
    ceiling_similarity: float
    """Similarity of the held-out images' own VAE round trip: the most that the VAE lets through."""

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """The measures of one moment and the pictures they were taken from."""

    metrics: Metrics
    image_scores: list[float]
    """Of each held-out image: the score without copying, of its own cells. Their mean is the score without copying."""
    samples: Sequence[Pixels]
    """images x seeds pictures, image by image."""


class Evaluator:
    """Measures any adapter on the same held-out cells."""

    def __init__(
        self,
        encoder: ImageEncoder,
        holdout: ImageSet,
        train: ImageSet | None,
        evaluation: EvaluationConfig,
        sampling: SamplingConfig,
        prompts: Sequence[str] = (),
    ):
        self._encoder, self._config, self._sampling = encoder, evaluation, sampling
        self.holdout = holdout.first(evaluation.max_images)
        self.train = train
        grid = evaluation.timesteps, evaluation.noises
        self._holdout_grid = make_grid(self.holdout.latents, self.holdout.captions, self.holdout.time_ids, *grid)
        probe = train.first(len(self.holdout.captions)) if train else None
        self._train_grid = make_grid(probe.latents, probe.captions, probe.time_ids, *grid) if probe else None
        self.requests = requests_of(self.holdout.captions, sampling.seeds, self.holdout.sizes)
        self.looks = requests_of(prompts, sampling.seeds, [self.holdout.sizes[0]] * len(prompts))
        """The user's own prompts: for looking at, never measured."""

    def sample(
        self, base: BaseModel, requests: Sequence[Request] | None = None, world: World = World()
    ) -> list[Pixels]:
        """Pictures of the held-out captions (or of other requests) with the active adapter.

        Several workers share the work; each gets all pictures.
        """
        chosen = self.requests if requests is None else requests
        return world.gather(generate(base, world.share(chosen), self._sampling, self._config.batch_size))

    def reference(self, base: BaseModel) -> Reference:
        """Measure the base model; no adapter may be active."""
        return self.look_at_base(base)[0]

    def look_at_base(self, base: BaseModel) -> tuple[Reference, list[Pixels]]:
        """The same, and the samples that it was measured by."""
        samples = self.sample(base)
        round_trip = decode_all(base, self.holdout.latents, self._config.batch_size)
        reference = Reference(
            holdout_loss=float(self._image_losses(base).mean()),
            sample_similarity=paired_similarity(self._encoder.images(samples), self.holdout.embeddings),
            ceiling_similarity=paired_similarity(self._encoder.images(round_trip), self.holdout.embeddings),
        )
        return reference, samples

    def grid(self, samples: Sequence[Pixels]) -> Pixels:
        """The real held-out images above a row of samples for each seed."""
        seeds = len(samples) // len(self.holdout.captions)
        return sample_grid([self.holdout.pixels, *(samples[seed::seeds] for seed in range(seeds))])

    def measure(self, base: BaseModel, reference: Reference, world: World = World()) -> Evaluation:
        """Every measure of the active adapter, the same on every worker. Without training images theirs are missing."""
        losses = self._image_losses(base, world)
        metrics = {"holdout_loss": float(losses.mean())}
        if self._train_grid:
            probe = grid_losses(base, self._train_grid, self._config.batch_size, world)
            metrics["train_probe_loss"] = float(probe.mean())
        samples = self.sample(base, world=world)
        vectors = self._encoder.images(samples)
        similarities = paired_similarities(vectors, self.holdout.embeddings)
        metrics |= self._metrics(metrics["holdout_loss"], float(similarities.mean()), vectors, reference)
        gains = similarity_gain(similarities, reference)
        image_scores = closeness(losses / reference.holdout_loss, gains, self._config.score)
        return Evaluation(metrics, image_scores.tolist(), samples)

    def _image_losses(self, base: BaseModel, world: World = World()) -> Tensor:
        """The held-out loss of each image, (images,)."""
        return grid_losses(base, self._holdout_grid, self._config.batch_size, world).mean(dim=0)

    def _metrics(self, holdout_loss: float, similarity: float, vectors: Tensor, reference: Reference) -> Metrics:
        """What follows from the losses and the samples' embeddings, and the score of all."""
        metrics = {
            "holdout_loss_ratio": holdout_loss / reference.holdout_loss,
            "sample_similarity": similarity,
            "similarity_gain": similarity_gain(similarity, reference),
            "diversity": diversity(vectors),
        }
        prompts = self._encoder.texts([request.prompt for request in self.requests])
        if prompts is not None:
            metrics["prompt_alignment"] = prompt_alignment(vectors, prompts)
        if self.train is not None:
            metrics["copying"] = copying(vectors, self.holdout.embeddings, self.train.embeddings)
        metrics["score"] = score(metrics, self._config.score)
        return metrics


def similarity_gain(similarity: Number, reference: Reference) -> Number:
    """0 for the base model, 1 for the most that the VAE lets through."""
    span = max(reference.ceiling_similarity - reference.sample_similarity, NARROWEST_GAIN_SPAN)
    return (similarity - reference.sample_similarity) / span


def closeness(loss_ratio: Number, gain: Number, weights: ScoreConfig) -> Number:
    """The score's part that rises with nearness to held-out images: 0 for the base model."""
    return weights.w_loss * (1 - loss_ratio) / (1 - weights.ratio_ref) + weights.w_sim * gain


def score(metrics: Mapping[str, float], weights: ScoreConfig) -> float:
    """The one number that trials are compared by; see `ScoreConfig` for the formula. NaN if a measure is."""
    near = closeness(metrics["holdout_loss_ratio"], metrics["similarity_gain"], weights)
    return near - weights.w_copy * float(np.maximum(0.0, metrics.get("copying", 0.0)))


def is_finite(metrics: Mapping[str, float]) -> bool:
    """Whether every measure is a number."""
    return all(math.isfinite(value) for value in metrics.values())
