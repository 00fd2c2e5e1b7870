"""A data set read to its end for the check: what can't be read is told and left out, and stops nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from raylora.dataset.at_once import at_once
from raylora.dataset.folder import Picture, ReadOptions, finish, looked_at, scan
from raylora.dataset.remote import fetched
from raylora.errors import DatasetError
from raylora.files import is_folder


@dataclass(frozen=True)
class Fault:
    """A file that can't be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Survey:
    """All that a folder holds, in the order of the paths."""

    root: Path
    pictures: tuple[Picture, ...]
    """Those that can be read, as training would have them."""
    written: tuple[str, ...]
    """Their captions as they were written, without class words or trigger."""
    faults: tuple[Fault, ...]
    """Pictures that can't be read."""
    caption_faults: tuple[str, ...]
    """Captions that can't, and the mend."""


def survey(reference: str, trigger: str | None = None) -> Survey:
    """Read `demo`, a folder or a URI; several pictures are decoded at once.

    Raises:
        DatasetError: there is no such folder, or its index, a sub-folder or the storage can't be read.
    """
    root = fetched(reference)
    if not is_folder(root):
        raise DatasetError(f"{root}: there is no such folder; give a folder of images with captions")
    wrong_captions: list[str] = []
    try:
        found = sorted(
            scan(root, complain=lambda error: wrong_captions.append(str(error))), key=lambda picture: picture.path
        )
        seen = at_once(lambda picture: _read(picture, root, trigger), found)
    except PermissionError as error:
        raise DatasetError(f"{error.filename}: can't be read; let your user read the folder") from None
    return Survey(
        root=root,
        pictures=tuple(after for after in seen if isinstance(after, Picture)),
        written=tuple(
            before.caption for before, after in zip(found, seen, strict=True) if isinstance(after, Picture)
        ),
        faults=tuple(
            Fault(before.path, after) for before, after in zip(found, seen, strict=True) if isinstance(after, str)
        ),
        caption_faults=tuple(wrong_captions),
    )  # fmt: skip


def _read(picture: Picture, root: Path, trigger: str | None) -> Picture | str:
    seen = looked_at(picture, root)
    if isinstance(seen, str):
        return seen.replace(f" {str(picture.path)!r}", "")  # Pillow names the file
    return finish(seen, ReadOptions(trigger=trigger))
