"""A LoRA file after every so many epochs, for who wants to pick by eye."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raylora.config import TrainingConfig
from raylora.dataset.batches import Schedule
from raylora.diffusion.adapters import Adapter

EPOCHS_FOLDER = "epochs"


@dataclass(frozen=True)
class EpochFiles:
    """Where they lie, when they are due, and who writes one.

    Guide T6: 10 epochs saved every 2 give 5 files.
    """

    folder: Path
    schedule: Schedule
    training: TrainingConfig
    write: Callable[[Adapter, Path], None]

    def due(self, since: int, until: int) -> list[int]:
        """Ends of epochs at which a file is due, in images seen: after `since`, up to `until`."""
        if self.training.save_every_epochs is None:
            return []
        step = self.schedule.images_per_epoch * self.training.save_every_epochs
        return list(range((since // step + 1) * step, min(until, self.schedule.images_total) + 1, step))

    def save(self, adapter: Adapter, images: int) -> None:
        """The file of the epoch that ended at `images`; the oldest beyond `keep_last` go."""
        self.write(adapter, self.folder / f"epoch_{images // self.schedule.images_per_epoch:03d}.safetensors")
        if self.training.keep_last is not None:
            by_number = sorted(self.folder.glob("epoch_*.safetensors"), key=lambda path: (len(path.name), path.name))
            for old in by_number[: -self.training.keep_last]:
                old.unlink()
