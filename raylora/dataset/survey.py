"""A data set read to its end for the check: what can't be read is told and left out, and stops nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raylora.config import DatasetConfig
from raylora.dataset.at_once import at_once
from raylora.dataset.folder import CAPTION_SUFFIXES, Picture, ReadOptions, check_folder, finish, looked_at, scan
from raylora.dataset.remote import fetched, naming_objects
from raylora.errors import CaptionError, DatasetError
from raylora.files import is_file, sha256_of


@dataclass(frozen=True)
class Fault:
    """A file that can't be used, and why."""

    path: Path
    reason: str
    mend: str = "mend or remove them, or train with --skip-bad-images"
    picture: Path | None = None
    """Whose caption it is, of a caption."""


@dataclass(frozen=True)
class Survey:
    """All that a folder holds, in the order of the paths."""

    root: Path
    pictures: tuple[Picture, ...]
    """Those that can be read, as training would have them."""
    faults: tuple[Fault, ...]
    """Pictures that can't be read."""
    caption_faults: tuple[Fault, ...]
    """Captions that can't."""


def survey(reference: str, trigger: str | None = None, measured_for: DatasetConfig | None = None) -> Survey:
    """Read `demo`, a folder or a URI; several pictures are decoded at once.

    Args:
        measured_for: how pictures will be learned, where their blur at that size is wanted.

    Raises:
        DatasetError: there is no such folder, or its index, a sub-folder or the storage can't be read.
    """
    root = fetched(reference)
    with naming_objects(reference):
        return _survey_of(root, trigger, measured_for)


def _survey_of(root: Path, trigger: str | None, measured_for: DatasetConfig | None) -> Survey:
    check_folder(root)
    wrong_captions: list[Fault] = []
    try:
        found = sorted(
            scan(root, complain=lambda error: wrong_captions.append(_caption_fault(error))),
            key=lambda picture: picture.path,
        )
        seen = at_once(lambda picture: _read(picture, root, trigger, measured_for), found)
    except PermissionError as error:
        raise DatasetError(f"{error.filename}: can't be read; let your user read the folder") from None
    return Survey(
        root=root,
        pictures=tuple(after for after in seen if isinstance(after, Picture)),
        faults=tuple(
            Fault(before.path, after) for before, after in zip(found, seen, strict=True) if isinstance(after, str)
        ),
        caption_faults=tuple(wrong_captions),
    )  # fmt: skip


def damaged_pictures(faults: Sequence[Fault]) -> list[Picture]:
    """Pictures that can't be decoded, known by their bytes alone; not what has no bytes that may be read."""
    return [Picture(fault.path, "", 1, "", digest) for fault in faults if (digest := _digest(fault))]


def _digest(fault: Fault) -> str | None:
    if fault.path.is_symlink() or not is_file(fault.path):
        return None
    try:
        return sha256_of(fault.path)
    except OSError:
        return None


def _caption_fault(error: CaptionError) -> Fault:
    """A message of the reader's: a file, what is wrong, and last its mend."""
    found, _, mend = str(error).rpartition("; ")
    file = next(
        (file for suffix in CAPTION_SUFFIXES if found.startswith(f"{(file := error.picture.with_suffix(suffix))}: ")),
        error.picture,
    )
    return Fault(file, found.removeprefix(f"{file}: "), mend, error.picture)


def _read(picture: Picture, root: Path, trigger: str | None, measured_for: DatasetConfig | None) -> Picture | str:
    seen = looked_at(picture, root, measured_for)
    if isinstance(seen, str):
        return seen.replace(f" {str(picture.path)!r}", "")  # Pillow names the file
    return finish(seen, ReadOptions(trigger=trigger))
