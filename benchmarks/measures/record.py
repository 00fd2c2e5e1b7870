"""Trains a case and keeps the raw numbers behind all measures: losses of single cells, embeddings of single samples."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from benchmarks.measures.cases import STYLES, Case, Style
from raylora.config import Experiment
from raylora.config_files import build_experiment
from raylora.dataset.folder import Picture, ReadOptions, read_folder
from raylora.dataset.split import split_pictures
from raylora.diffusion.base import BaseModel
from raylora.diffusion.encode import decode_all
from raylora.diffusion.families import load_base
from raylora.diffusion.generate import generate, requests_of
from raylora.diffusion.tensor_cache import TensorCache
from raylora.evaluation.encoders import ImageEncoder, load_encoder
from raylora.evaluation.holdout import FrozenGrid, grid_losses, make_grid
from raylora.evaluation.scorecard import ImageSet
from raylora.execution.node_cache import Material, image_set, training_set
from raylora.files import write_atomically
from raylora.search.space import load_space, space_layer
from raylora.training.trainer import Trainer

POINTS = 9
"""Moments of a training that are measured, at equal shares of its own length."""
TIMESTEPS = (100, 300, 500, 700, 900)
NOISES, SAMPLE_SEEDS = 2, (0, 1)
BATCH_SIZE = 20
FEW = 4

Numbers = dict[str, Tensor]


@dataclass(frozen=True)
class World:
    """Base model, encoder and the pictures of a style, with their cells."""

    base: BaseModel
    encoder: ImageEncoder
    experiment: Experiment
    train: Sequence[Picture]
    holdout: ImageSet
    judge: ImageSet
    learned: ImageSet
    """The training pictures, for what only looks at them."""

    def grid(self, images: ImageSet, noises: int) -> FrozenGrid:
        return make_grid(images.latents, images.captions, images.time_ids, TIMESTEPS, noises)

    def embed_samples(self, images: ImageSet, seeds: Sequence[int]) -> Tensor:
        """(images x seeds, width), image by image, of pictures from the images' captions."""
        requests = requests_of(images.captions, seeds, images.sizes)
        made = generate(self.base, requests, self.experiment.sampling, BATCH_SIZE)
        return self.encoder.images(made)

    def embed_round_trips(self, images: ImageSet) -> Tensor:
        """(images, width) of the pictures as the VAE gives them back: the most that it lets through."""
        return self.encoder.images(decode_all(self.base, images.latents, BATCH_SIZE))


def make_world(style: Style) -> World:
    experiment = baseline()
    base, encoder, nowhere = load_base("demo"), load_encoder("demo"), TensorCache(None)
    split = split_pictures(pictures_of(style.dataset), experiment.dataset.holdout_fraction)

    def images(pictures: Sequence[Picture]) -> ImageSet:
        return image_set(base, encoder, pictures, experiment.dataset, nowhere)

    return World(
        base=base,
        encoder=encoder,
        experiment=experiment,
        train=split.train,
        holdout=images(split.holdout),
        judge=images(pictures_of(style.judge)),
        learned=images(split.train),
    )


def baseline() -> Experiment:
    """The guide's own configuration on the demo."""
    space = load_space("demo")
    return build_experiment([space_layer(space)]).with_params(space.first_points[0])


def pictures_of(folder: Path) -> list[Picture]:
    return read_folder(folder, ReadOptions(trigger="sks"))


def learned_pictures(case: Case, style: Style, own: Sequence[Picture]) -> list[Picture]:
    """What the case trains on: as many pictures as the split has, but for the case of few."""
    if case.learned == "other style":
        other = next(other for other in STYLES.values() if other.name != style.name)
        return pictures_of(other.dataset)[: len(own)]
    if case.learned == "4 pictures":
        return list(own[:FEW])
    if case.learned == "shuffled captions":
        captions = [picture.caption for picture in own]
        moved = captions[1:] + captions[:1]
        return [replace(picture, caption=caption) for picture, caption in zip(own, moved, strict=True)]
    return list(own)


def record(case: Case, style: Style, seed: int, file: Path) -> None:
    """Train, and write the numbers of every moment and of the end; see `moment` and `end`."""
    torch.set_num_threads(1)
    world = make_world(style)
    long = {"training.epochs": 1000, "seed": seed}  # the cap on images is the end, whatever the number of pictures
    experiment = world.experiment.with_params({**long, **case.settings})
    material = Material(learned_pictures(case, style, world.train), ())
    schedule = material.schedule(experiment)
    data = training_set(world.base, material, experiment, TensorCache(None))
    found: list[Numbers] = []
    with closing(Trainer(world.base, data, experiment, schedule)) as trainer:
        for point in range(1, POINTS + 1):
            trainer.advance(schedule.images_total * point // POINTS)
            trainer.adapter.activate()
            found.append({**moment(world), "images_seen": torch.tensor(trainer.images_seen)})
        last = end(world)
    write_atomically(file, save({key: torch.stack([numbers[key] for numbers in found]) for key in found[0]} | last))


def record_base(style: Style, file: Path) -> None:
    """The same numbers of the base model alone, and the embeddings of real pictures and of their VAE round trips."""
    world = make_world(style)
    sets = {"holdout": world.holdout, "judge": world.judge}
    real = {f"{name}_real": images.embeddings for name, images in {**sets, "train": world.learned}.items()}
    trips = {f"{name}_ceiling": world.embed_round_trips(images) for name, images in sets.items()}
    write_atomically(file, save({**moment(world), **end(world), **real, **trips}))


def moment(world: World) -> Numbers:
    """Of the active adapter: `holdout` (draws, images) and `probe` losses, `samples` (images x seeds, width)."""
    probe = world.learned.first(len(world.holdout.captions))
    return {
        "holdout": grid_losses(world.base, world.grid(world.holdout, NOISES), BATCH_SIZE),
        "probe": grid_losses(world.base, world.grid(probe, 1), BATCH_SIZE),
        "samples": world.embed_samples(world.holdout, SAMPLE_SEEDS),
    }


def end(world: World) -> Numbers:
    """The same on the judge's pictures, six times as many: what the moments are held against."""
    return {
        "judge": grid_losses(world.base, world.grid(world.judge, 1), BATCH_SIZE),
        "judge_samples": world.embed_samples(world.judge, SAMPLE_SEEDS[:1]),
    }
