"""How many steps a run has, and which pictures each step learns: pure arithmetic on indices.

Everything is a function of (seed, position), so a run can stop anywhere, go on elsewhere, or be
shared by any number of workers and still see the same batches.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylora.config import TrainingConfig


@dataclass(frozen=True)
class Schedule:
    """The length of a run. Guide T2: steps = images x repeats x epochs / batch."""

    images_per_epoch: int
    images_total: int
    batch_size: int
    gradient_accumulation: int
    stop_at: int | None = None

    @property
    def images_end(self) -> int:
        """Where training stops: the schedule's end, unless `training.stop_at` lies before it."""
        return min(self.images_total, self.stop_at or self.images_total)

    @property
    def micro_steps(self) -> int:
        """Forward-backward passes; the last may hold fewer images."""
        return math.ceil(self.images_total / self.batch_size)

    @property
    def optimizer_steps(self) -> int:
        return math.ceil(self.micro_steps / self.gradient_accumulation)


def make_schedule(
    folder_repeats: Sequence[int], training: TrainingConfig, regularization_repeats: Sequence[int] = ()
) -> Schedule:
    """The schedule of training on images with these repeats; `max_images` shortens it and the LR schedule with it.

    Args:
        regularization_repeats: of each regularization image; `training.repeats` doesn't touch them.
    """
    per_epoch = sum(own_repeats(folder_repeats, training)) + sum(regularization_repeats)
    total = per_epoch * training.epochs
    if training.max_images is not None:
        total = min(total, training.max_images)
    return Schedule(per_epoch, total, training.batch_size, training.gradient_accumulation, training.stop_at)


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


def alike(keys: Iterable[Hashable]) -> list[list[int]]:
    """Places of equal keys together, in the order of each key's first."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        groups[key].append(place)
    return list(groups.values())


class ImageOrder:
    """The endless stream of picture indices: per epoch, every picture `repeats` times, shuffled.

    Pictures of one shape come together: all batches of an epoch but the last few hold one shape each. The few
    hold what doesn't fill a batch, and are not padded or doubled, so that an epoch is exactly its images.

    Args:
        repeats: of each picture.
        shapes: of each picture, anything that can be compared; left out, all are alike.
        batch_size: consecutive positions that are learned together, from position 0 on.
    """

    def __init__(self, repeats: Sequence[int], seed: int, shapes: Sequence[Hashable] = (), batch_size: int = 1):
        self._entries = np.repeat(np.arange(len(repeats)), repeats)
        self._shapes, self._batch_size = shapes, batch_size
        self._seed = seed
        self._epoch = -1
        self._shuffled = self._entries

    def __getitem__(self, position: int) -> int:
        """The index of the picture at a position, 0 being the first image seen."""
        epoch, place = divmod(position, len(self._entries))
        if epoch != self._epoch:
            self._shuffled, self._epoch = self._shuffle(epoch), epoch
        return int(self._shuffled[place])

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self._seed, epoch])
        entries = rng.permutation(self._entries)
        if len(set(self._shapes)) < 2:
            return entries
        batches, loose = self._by_shape(entries)
        order = rng.permutation(len(batches))
        begun = -epoch * len(entries) % self._batch_size  # of the last epoch's last batch, this much is missing
        while len(loose) < begun and len(order):
            loose, order = loose + batches[order[-1]], order[:-1]
        whole = [picture for index in order for picture in batches[index]]
        return np.array(loose[:begun] + whole + loose[begun:], dtype=np.int64)

    def _by_shape(self, entries: NDArray[np.int64]) -> tuple[list[list[int]], list[int]]:
        """Whole batches of one shape, and what is left over."""
        batches: list[list[int]] = []
        loose: list[int] = []
        for places in alike(self._shapes[picture] for picture in entries):
            group = entries[places].tolist()
            whole = len(group) // self._batch_size * self._batch_size
            batches += [group[first : first + self._batch_size] for first in range(0, whole, self._batch_size)]
            loose += group[whole:]
        return batches, loose


def batch_positions(micro_step: int, schedule: Schedule) -> range:
    """Positions in the stream of the images of a micro step; the last batch is cut at `images_total`."""
    first = micro_step * schedule.batch_size
    return range(first, min(first + schedule.batch_size, schedule.images_total))
