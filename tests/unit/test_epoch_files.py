"""When a file of an epoch is due, and which are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raylora.config import TrainingConfig
from raylora.dataset.batches import Schedule
from raylora.training.epoch_files import EpochFiles

ADAPTER: Any = None


def make_files(folder: Path, epochs: int = 1000, **training: int) -> EpochFiles:
    schedule = Schedule(images_per_epoch=10, images_total=10 * epochs, batch_size=4, gradient_accumulation=1)
    return EpochFiles(folder, schedule, TrainingConfig(**training), lambda _, path: path.touch())


@pytest.mark.parametrize(("since", "until", "due"), [
    (0, 9, []), (0, 10, [10]), (10, 20, [20]), (9, 30, [10, 20, 30]), (28, 1000, [30, 40]),
])  # fmt: skip
def test_files_are_due_at_the_ends_of_epochs(since: int, until: int, due: list[int], tmp_path: Path) -> None:
    assert make_files(tmp_path, epochs=4, save_every_epochs=1).due(since, until) == due


def test_none_is_due_unless_asked_for(tmp_path: Path) -> None:
    assert make_files(tmp_path).due(0, 1000) == []


def test_the_last_are_kept_by_number(tmp_path: Path) -> None:
    """epoch_1000 comes after epoch_998, not before."""
    files = make_files(tmp_path, epochs=2000, save_every_epochs=1, keep_last=2)
    for epoch in (997, 998, 999, 1000, 1001):
        files.save(ADAPTER, 10 * epoch)
    assert {path.stem for path in tmp_path.iterdir()} == {"epoch_1000", "epoch_1001"}
