"""Where the noise of the similarity gain comes from: from the samples that it is taken of, or from other LoRAs.

A configuration trained with another seed is another LoRA, and truly a little better or worse; no number of samples
takes that away. The same LoRA sampled with other seeds shows what more samples would.
`python -m benchmarks.measures.noise --work DIR` records it (eight trainings, about ten minutes of an idle core;
finished ones are kept) and splits it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from benchmarks.common import Row, report
from benchmarks.measures.table import AT_END, GAIN, read_trainings, spread
from benchmarks.recorded.configurations import FIRST_STYLE, configurations
from benchmarks.recorded.record import World, make_world
from raylora.config import Experiment
from raylora.diffusion.generate import requests_of
from raylora.evaluation.encoders import ImageEncoder, load_encoder
from raylora.execution.node_cache import training_set
from raylora.files import write_atomically
from raylora.training.trainer import Trainer

CONFIGURATIONS, SEEDS = range(4), (0, 1)
"""The guide's own and the first random ones of the recorded table."""
SAMPLE_SEEDS = tuple(range(8))
RECORDED_SAMPLES = 2
SAMPLES = (1, 2, 4, 8, 1000)
"""Samples an image that the gain's spread is told for; the last stands for any number."""

Array = NDArray[np.float32]


def recording(work: Path, number: int, seed: int) -> Path:
    return work / "noise" / f"{number:03d} {seed}.safetensors"


def record_noise(work: Path) -> None:
    """Train each to its end, in this process, and keep the cosines of its samples, (images, samples an image)."""
    torch.set_num_threads(1)
    wanted = [(number, seed) for number in CONFIGURATIONS for seed in SEEDS]
    left = [one for one in wanted if not recording(work, *one).is_file()]
    if not left:
        return
    world, encoder = make_world(FIRST_STYLE, work / "cache"), load_encoder("demo")
    span = np.array(world.shared.reference.ceiling_similarity - world.shared.reference.sample_similarity)
    for number, seed in left:
        experiment = world.experiment.with_params({**configurations()[number], "seed": seed})
        cosines = _cosines(world, encoder, experiment)
        write_atomically(recording(work, number, seed), save({"cosines": cosines, "span": span}))
        print(f"configuration {number}, seed {seed}", flush=True)


def _cosines(world: World, encoder: ImageEncoder, experiment: Experiment) -> Array:
    """Of the samples of one trained LoRA with their own held-out images, (images, samples an image)."""
    holdout, schedule = world.evaluator.holdout, world.shared.material.schedule(experiment)
    data = training_set(world.base, world.shared.material, experiment, world.cache)
    with closing(Trainer(world.base, data, experiment, schedule)) as trainer:
        trainer.advance(schedule.images_end)
        trainer.adapter.activate()
        requests = requests_of(holdout.captions, SAMPLE_SEEDS, holdout.sizes)
        vectors = encoder.images(world.evaluator.sample(world.base, requests))
    vectors = vectors.view(len(holdout.captions), len(SAMPLE_SEEDS), -1)
    cosines: Array = (vectors * holdout.embeddings[:, None]).sum(dim=-1).numpy()
    return cosines


def split_noise(gains: Sequence[Array]) -> dict[str, float]:
    """Variances between LoRAs of one configuration: `lora`, of all images alike; `image`, of one image, whatever the
    sample; `sample`, of a single sample. What all LoRAs of a configuration share is no noise, the samples' seeds too.

    Args:
        gains: of each configuration (seeds, images, samples an image).
    """
    found = []
    for one in gains:
        seeds, images, samples = one.shape
        apart = (one - one.mean(axis=0)) * sqrt(seeds / (seeds - 1))
        by_image = apart.mean(axis=2)
        sample = float(apart.var(axis=2, ddof=1).mean())
        image = float(by_image.var(axis=1, ddof=1).mean()) - sample / samples
        lora = float((by_image.mean(axis=1) ** 2).mean()) - image / images - sample / images / samples
        found.append((lora, image, sample))
    return dict(zip(("lora", "image", "sample"), np.mean(found, axis=0).tolist(), strict=True))


def spread_by_samples(between: float, within: float, sample: float, images: int) -> list[Row]:
    """What the spread of the similarity gain between seeds, and its ratio, would be with other numbers of samples.

    Args:
        between, within: of the recorded table, which has `RECORDED_SAMPLES` an image.
        sample: variance of the gain from a single sample.
    """
    rows: list[Row] = []
    for samples in SAMPLES:
        then = sqrt(within**2 + sample / images * (1 / samples - 1 / RECORDED_SAMPLES))
        rows.append({"samples an image": samples, "within": then, "ratio": between / then})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="keep recordings here and go on from them")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    record_noise(options.work)
    files = [[load_file(recording(options.work, number, seed)) for seed in SEEDS] for number in CONFIGURATIONS]
    parts = split_noise([np.stack([file["cosines"] / file["span"] for file in members]) for members in files])
    gain = next(row for row in spread(read_trainings()) if (row["measure"], row["at"]) == (GAIN, AT_END))
    images = files[0][0]["cosines"].shape[0]
    by_samples = spread_by_samples(gain["between"], gain["within"], parts["sample"], images)
    rows: list[Row] = [{"table": "variance of the gain", "part": part, "variance": parts[part]} for part in parts]
    report("measures.noise", rows + [{"table": "by samples", **row} for row in by_samples], {}, options.json)


if __name__ == "__main__":
    main()
