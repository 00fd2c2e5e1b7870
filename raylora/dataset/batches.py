"""How many steps a run has, and which pictures each step learns: pure arithmetic on indices.

Everything is a function of (seed, position), so a run can stop anywhere, go on elsewhere, or be
shared by any number of workers and still see the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from raylora.config import TrainingConfig


@dataclass(frozen=True)
class Schedule:
    """The length of a run. Guide T2: steps = images x repeats x epochs / batch."""

    images_per_epoch: int
    images_total: int
    batch_size: int
    gradient_accumulation: int

    @property
    def micro_steps(self) -> int:
        """Forward-backward passes; the last may hold fewer images."""
        return math.ceil(self.images_total / self.batch_size)

    @property
    def optimizer_steps(self) -> int:
        return math.ceil(self.micro_steps / self.gradient_accumulation)


def make_schedule(folder_repeats: Sequence[int], training: TrainingConfig) -> Schedule:
    """The schedule of training on images with these repeats; `max_images` shortens it and the LR schedule with it."""
    per_epoch = sum(own_repeats(folder_repeats, training))
    total = per_epoch * training.epochs
    if training.max_images is not None:
        total = min(total, training.max_images)
    return Schedule(per_epoch, total, training.batch_size, training.gradient_accumulation)


def own_repeats(folder_repeats: Sequence[int], training: TrainingConfig) -> list[int]:
    """`training.repeats` for every image if it is set, else what their folders' names say."""
    return [training.repeats or repeats for repeats in folder_repeats]


def rungs(grace_period: int, reduction_factor: float) -> Iterator[int]:
    """Where trials are measured, in images seen, without end: grace_period x reduction_factor^k, all different.

    As in successive halving (Li et al. 2020, https://arxiv.org/abs/1810.05934), the same for every trial.
    """
    rung = float(grace_period)
    while True:
        yield round(rung)
        rung = max(rung * reduction_factor, round(rung) + 1.0)


class ImageOrder:
    """The endless stream of picture indices: per epoch, every picture `repeats` times, shuffled."""

    def __init__(self, repeats: Sequence[int], seed: int):
        self._entries = np.repeat(np.arange(len(repeats)), repeats)
        self._seed = seed
        self._epoch = -1
        self._shuffled = self._entries

    def __getitem__(self, position: int) -> int:
        """The index of the picture at a position, 0 being the first image seen."""
        epoch, place = divmod(position, len(self._entries))
        if epoch != self._epoch:
            self._shuffled = np.random.default_rng([self._seed, epoch]).permutation(self._entries)
            self._epoch = epoch
        return int(self._shuffled[place])


def batch_positions(micro_step: int, schedule: Schedule) -> range:
    """Positions in the stream of the images of a micro step; the last batch is cut at `images_total`."""
    first = micro_step * schedule.batch_size
    return range(first, min(first + schedule.batch_size, schedule.images_total))


def shuffle_tags(caption: str, keep_tokens: int, seed: int, position: int) -> str:
    """Comma-separated tags in a new order, the first `keep_tokens` in place."""
    tags = [tag.strip() for tag in caption.split(",")]
    kept, loose = tags[:keep_tokens], tags[keep_tokens:]
    order = np.random.default_rng([seed, position, 1]).permutation(len(loose))
    return ", ".join(kept + [loose[index] for index in order])
