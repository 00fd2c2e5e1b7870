"""Trains configurations to their end and writes down their curves and costs, measured as trials are."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measures.cases import STYLES
from benchmarks.recorded.configurations import Training, configurations, demo_space
from raylora.config import Experiment
from raylora.dataset.folder import ReadOptions, read_folder
from raylora.dataset.split import split_pictures
from raylora.diffusion.base import BaseModel
from raylora.diffusion.families import load_base
from raylora.diffusion.tensor_cache import TensorCache
from raylora.errors import TrainingDivergedError
from raylora.evaluation.encoders import load_encoder
from raylora.evaluation.scorecard import Evaluator, is_finite
from raylora.execution.node_cache import Material, SharedData, entries_in, make_shared, training_set
from raylora.files import write_atomically
from raylora.training.trainer import Trainer

POINTS = (100, 200, 400, 800, 1200)
"""Images seen at which every training is measured; one that ends before measures its end."""
DIGITS = 5


@dataclass(frozen=True)
class World:
    """A style's pictures, encoded, and what the base model alone reaches on those held out."""

    base: BaseModel
    experiment: Experiment
    shared: SharedData
    evaluator: Evaluator
    cache: TensorCache


def make_world(style: str, cache_folder: Path) -> World:
    """As a search of the demo makes it.

    Args:
        cache_folder: for latents and embeddings, so that each is made once.
    """
    _, experiment = demo_space()
    base, encoder = load_base("demo"), load_encoder("demo")
    pictures = read_folder(STYLES[style].dataset, ReadOptions(trigger=experiment.dataset.trigger))
    split = split_pictures(pictures, experiment.dataset.holdout_fraction)
    shared = make_shared(base, encoder, Material(split.train, split.holdout), experiment, cache_folder)
    return World(base, experiment, shared, shared.evaluator(encoder, experiment), entries_in(cache_folder))


def record(training: Training, world: World) -> dict[str, Any]:
    """The curve of one training: measures by images seen, seconds of processor time for steps and for measuring.

    One whose numbers come to nothing has the points before that, and says so in `failed`.
    """
    params = configurations()[training.number]
    experiment = world.experiment.with_params({**params, "seed": training.seed})
    schedule = world.shared.material.schedule(experiment)
    data = training_set(world.base, world.shared.material, experiment, world.cache)
    points: list[dict[str, Any]] = []
    failed = None
    with closing(Trainer(world.base, data, experiment, schedule)) as trainer:
        try:
            while not trainer.is_done:
                points.append(_next_point(trainer, world))
        except TrainingDivergedError as error:
            failed = str(error)
    return {
        "style": training.style, "number": training.number, "seed": training.seed, "params": params,
        "images_total": schedule.images_total, "failed": failed, "points": [_rounded(point) for point in points],
    }  # fmt: skip


def _next_point(trainer: Trainer, world: World) -> dict[str, Any]:
    began = time.process_time()
    trainer.advance(next((point for point in POINTS if point > trainer.images_seen), trainer.schedule.images_end))
    trained = time.process_time()
    trainer.adapter.activate()
    found = world.evaluator.measure(world.base, world.shared.reference)
    if not is_finite(found.metrics):
        raise TrainingDivergedError(f"a measure stopped being a number at {trainer.images_seen} images")
    return {
        "images_seen": trainer.images_seen,
        **found.metrics,
        "image_scores": found.image_scores,
        "train_loss": trainer.train_loss,
        "train_s": trained - began,
        "measure_s": time.process_time() - trained,
    }


def record_all(work: Path, left: list[Training], stop_at: float) -> None:
    """Record one after the other, in this process, until `stop_at` (of `time.monotonic`); each is a file of its own."""
    torch.set_num_threads(1)
    worlds: dict[str, World] = {}
    for training in left:
        if time.monotonic() > stop_at:
            return
        if training.style not in worlds:
            worlds[training.style] = make_world(training.style, work / "cache")
        write_atomically(work / f"{training.name}.json", json.dumps(record(training, worlds[training.style])).encode())
        print(training.name, flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value
