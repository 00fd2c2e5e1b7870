"""What the names of a data set's folders ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raylora.config import TrainingConfig
from raylora.dataset.findings import Finding, names
from raylora.dataset.folder import MANY_REPEATS, Picture
from raylora.dataset.places import resting_folders
from raylora.redaction import one_line


def check_repeats(pictures: Sequence[Picture], root: Path, training: TrainingConfig) -> list[Finding]:
    """A year that kohya's trainers read as repeats, and so does raylora, unless settings say how many there are."""
    many = [picture for picture in pictures if picture.repeats > MANY_REPEATS]
    if training.repeats is not None or not many:
        return []
    first, *others = sorted({picture.folder: picture.repeats for picture in many}.items(), key=lambda one: -one[1])
    more = f", and {len(others)} more folder{'s' * (len(others) > 1)} for over {MANY_REPEATS}" * bool(others)
    name = one_line(first[0])
    return [
        Finding("warning", "repeats", f"{name}/ asks by its name for {first[1]:,} repeats{more}",
                "each of its images is learned so often in an epoch",
                f"if that is a date, rename it as to 10_{name}, or --set training.repeats=10", names(many, root))
    ]  # fmt: skip


def check_resting(root: Path) -> list[Finding]:
    """Folders that kohya's trainers leave out by their names, and so does raylora."""
    return [
        Finding("note", "repeats", f"{one_line(name)}/ asks by its name for 0 repeats",
                f"the {count} image{'s' * (count != 1)} in it {'are' if count != 1 else 'is'} not learned",
                "if they should be, write how often in place of the 0")
        for name, count in resting_folders(root).items()
    ]  # fmt: skip
