"""Files that are there whole or not at all, and where those of folds lie."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

STATE_NAME = "state.pt"
"""What a training goes on from."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the place, then move into it: readers see the old file or the new, never half of one.

    Several processes may write the same file at once; the last one's stays. On a full disk the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def fold_folders(folder: Path, folds: int) -> list[Path]:
    """Where the files of each fold lie: below the folder, or in it where there is but one split."""
    return [folder] if folds == 1 else [folder / f"fold_{fold}" for fold in range(folds)]


def first_fold(folder: Path) -> Path:
    """Where the files of the first fold lie, or of the only split."""
    fold = fold_folders(folder, 2)[0]
    return fold if fold.is_dir() else folder
