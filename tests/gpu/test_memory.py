"""A batch that a GPU has no room for is learned in halves, and teaches the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import torch

from raylora.config import Experiment
from raylora.dataset.batches import Schedule
from raylora.diffusion.base import BaseModel
from raylora.diffusion.families import load_base
from raylora.errors import RayloraError
from raylora.execution.attempt import halving
from raylora.execution.trial_job import HALVED
from raylora.training.feed import TrainingSet
from raylora.training.trainer import Trainer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

BATCH, SIDE = 16, 64
"""Latents of 64x64, as of pictures of 512x512, make activations the most of the memory even of a tiny model."""


@pytest.fixture
def base(tiny_experiment: Experiment) -> BaseModel:
    return load_base(str(tiny_experiment.model.base_model), "no", "cuda")


def losses(base: BaseModel, experiment: Experiment, most_at_once: int | None) -> list[float]:
    data = TrainingSet(
        latents=list(torch.randn(BATCH, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(0))),
        captions=["sks"] * BATCH,
        repeats=[1] * BATCH,
        time_ids=torch.tensor([[512, 512, 0, 0, 512, 512]] * BATCH),
        weights=[1.0] * BATCH,
    )
    made = Trainer(base, data, experiment, Schedule(BATCH, 3 * BATCH, BATCH, 1), most_at_once=most_at_once)
    with closing(made) as trainer:
        trainer.advance(3 * BATCH)
        return [loss for _, loss in trainer.losses]


def peak_of(base: BaseModel, experiment: Experiment, most_at_once: int) -> tuple[list[float], int]:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return losses(base, experiment, most_at_once), torch.cuda.max_memory_reserved()


@pytest.fixture
def _uncapped() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("_uncapped")
def test_half_the_images_at_once_fit_where_all_do_not(base: BaseModel, tiny_experiment: Experiment) -> None:
    straight, whole = peak_of(base, tiny_experiment, BATCH)
    _, half = peak_of(base, tiny_experiment, BATCH // 2)
    assert half < 0.8 * whole
    torch.cuda.empty_cache()
    room = (half + whole) / 2 / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(room)
    told: list[dict[str, Any]] = []
    learned: list[float] = []

    def work(config: dict[str, Any]) -> None:
        told.append(config)
        learned[:] = losses(base, tiny_experiment, BATCH // 2 if config.get(HALVED) else None)

    halving({}, work)
    assert told == [{}, {HALVED: True}]
    assert learned == pytest.approx(straight, rel=1e-3)

    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(half / 2 / torch.cuda.get_device_properties(0).total_memory)
    with pytest.raises(RayloraError, match=r"out of GPU memory; lower training.batch_size .*too many, too"):
        halving({}, work)
