"""Training between two measurements: what is written down on the way, and what if the machine is about to go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from raylora.training.epoch_files import EpochFiles
from raylora.training.trainer import Trainer
from raylora.world import World


class Notice(Protocol):
    """Says that this machine is about to go, as a cloud does before it takes a spot instance back."""

    def is_given(self) -> bool:
        """Whether training had better stop here and keep its state. Asked after every step, so it must be quick."""

    def wait(self, world: World) -> None:
        """Return when no worker's machine is about to go any more; most end with their machine while they wait."""


class NoNotice:
    """Where nobody gives notice."""

    def is_given(self) -> bool:
        return False

    def wait(self, world: World) -> None:
        """Nothing to wait for."""


@dataclass(frozen=True)
class Keeping:
    """What is kept while a trainer is moved on.

    Args:
        write_state: writes what training goes on from; called by the first worker alone.
        every: images seen between two states.
    """

    write_state: Callable[[], None]
    every: int
    epoch_files: EpochFiles | None = None
    notice: Notice = NoNotice()
    world: World = World()


def advance_keeping(trainer: Trainer, images: int, keeping: Keeping) -> None:
    """Train to `images` images seen, with a state every so often and a file at the end of each epoch that wants one.

    The state at `images` itself is the caller's, who may have more to add to it. Steps are whole: a file is of the
    step in which its epoch ended, and a step that ended several has one for each. All workers stop where the first
    one writes: the losses between two stops are summed over them together.
    """
    files, world, last = keeping.epoch_files, keeping.world, min(images, trainer.schedule.images_end)
    while trainer.images_seen < last:
        since = trainer.images_seen
        state_at = (since // keeping.every + 1) * keeping.every
        stop_at = min([last, state_at, *(files.due(since, last)[:1] if files else ())])
        trainer.advance(stop_at, keeping.notice.is_given)
        if files is not None and world.is_first:
            for end in files.due(since, trainer.images_seen):
                files.save(trainer.adapter, end)
        is_paused = trainer.images_seen < stop_at
        if world.is_first and trainer.images_seen < last and (is_paused or trainer.images_seen >= state_at):
            keeping.write_state()
        if is_paused:
            keeping.notice.wait(world)
