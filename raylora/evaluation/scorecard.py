"""All measures of one evaluation, always on the same cells, and the one score made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from raylora.config import EvaluationConfig, SamplingConfig, ScoreConfig
from raylora.dataset.pixels import Pixels
from raylora.diffusion.encode import decode_latents
from raylora.diffusion.families import BaseModel
from raylora.diffusion.generate import Request, generate, requests_of
from raylora.evaluation.encoders import ImageEncoder
from raylora.evaluation.holdout import grid_losses, make_grid
from raylora.evaluation.similarity import copying, diversity, paired_similarity, prompt_alignment

NARROWEST_GAIN_SPAN = 0.05
"""Floor under (VAE ceiling - base similarity): cosines nearer than this can't be told apart."""

Metrics = dict[str, float]


@dataclass(frozen=True)
class ImageSet:
    """Images that measures look at, with all that was cached of them."""

    pixels: Pixels
    latents: Tensor
    captions: Sequence[str]
    embeddings: Tensor
    """(images, width) unit vectors of the image encoder."""

    def first(self, count: int) -> ImageSet:
        """The first `count` images."""
        return ImageSet(self.pixels[:count], self.latents[:count], self.captions[:count], self.embeddings[:count])


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
    samples: Pixels
    """(images x seeds, height, width, 3), image by image."""


class Model(Protocol):
    """What is measured: a base model with an adapter or without."""

    base: BaseModel

    def activate(self) -> None: ...


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
        self._holdout_grid = make_grid(self.holdout.latents, self.holdout.captions, *grid)
        probe = train.first(len(self.holdout.captions)) if train else None
        self._train_grid = make_grid(probe.latents, probe.captions, *grid) if probe else None
        self.requests = requests_of(self.holdout.captions, sampling.seeds)
        self.looks = requests_of(prompts, sampling.seeds)
        """The user's own prompts: for looking at, never measured."""

    def sample(self, base: BaseModel, requests: Sequence[Request] | None = None) -> Pixels:
        """Pictures of the held-out captions (or of other requests) with the active adapter."""
        height, width = self.holdout.pixels.shape[1:3]
        chosen = self.requests if requests is None else requests
        return generate(base, chosen, self._sampling, (width, height), self._config.batch_size)

    def reference(self, base: BaseModel) -> Reference:
        """Measure the base model; no adapter may be active."""
        round_trip = decode_latents(base, self.holdout.latents, self._config.batch_size)
        return Reference(
            holdout_loss=float(grid_losses(base, self._holdout_grid, self._config.batch_size).mean()),
            sample_similarity=paired_similarity(self._encoder.images(self.sample(base)), self.holdout.embeddings),
            ceiling_similarity=paired_similarity(self._encoder.images(round_trip), self.holdout.embeddings),
        )

    def measure(self, base: BaseModel, reference: Reference) -> Evaluation:
        """Every measure of the active adapter. Without training images theirs are missing."""
        batch_size = self._config.batch_size
        holdout_loss = float(grid_losses(base, self._holdout_grid, batch_size).mean())
        samples = self.sample(base)
        vectors = self._encoder.images(samples)
        similarity = paired_similarity(vectors, self.holdout.embeddings)
        metrics = {
            "holdout_loss": holdout_loss,
            "holdout_loss_ratio": holdout_loss / reference.holdout_loss,
            "sample_similarity": similarity,
            "similarity_gain": similarity_gain(similarity, reference),
            "diversity": diversity(vectors),
        }
        prompts = self._encoder.texts([request.prompt for request in self.requests])
        if prompts is not None:
            metrics["prompt_alignment"] = prompt_alignment(vectors, prompts)
        if self.train is not None and self._train_grid is not None:
            metrics["train_probe_loss"] = float(grid_losses(base, self._train_grid, batch_size).mean())
            metrics["copying"] = copying(vectors, self.holdout.embeddings, self.train.embeddings)
        metrics["score"] = score(metrics, self._config.score)
        return Evaluation(metrics, samples)


def similarity_gain(similarity: float, reference: Reference) -> float:
    """0 for the base model, 1 for the most that the VAE lets through."""
    span = max(reference.ceiling_similarity - reference.sample_similarity, NARROWEST_GAIN_SPAN)
    return (similarity - reference.sample_similarity) / span


def score(metrics: Mapping[str, float], weights: ScoreConfig) -> float:
    """The one number that trials are compared by; see `ScoreConfig` for the formula. NaN if a measure is."""
    return (
        weights.w_loss * (1 - metrics["holdout_loss_ratio"]) / (1 - weights.ratio_ref)
        + weights.w_sim * metrics["similarity_gain"]
        - weights.w_copy * float(np.maximum(0.0, metrics.get("copying", 0.0)))
    )


def is_finite(metrics: Mapping[str, float]) -> bool:
    """Whether every measure is a number."""
    return all(math.isfinite(value) for value in metrics.values())


def sample_grid(rows: Sequence[Pixels], gap_px: int = 2) -> Pixels:
    """Rows of pictures as one picture (height, width, 3), white between them. Shorter rows end in white."""
    height, width = rows[0].shape[1:3]
    columns = max(len(row) for row in rows)
    shape = (len(rows) * (height + gap_px) + gap_px, columns * (width + gap_px) + gap_px, 3)
    grid = np.full(shape, 255, dtype=np.uint8)
    for row_number, row in enumerate(rows):
        for column, picture in enumerate(row):
            top, left = gap_px + row_number * (height + gap_px), gap_px + column * (width + gap_px)
            grid[top : top + height, left : left + width] = picture
    return grid
