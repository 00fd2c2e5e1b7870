"""Which files of a data set's folder are read, by their names and places; and the pictures that are not."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from raylora.dataset.imagefolder import IMAGE_SUFFIXES, INDEX_NAMES, read_index
from raylora.files import is_file, read_mapping, resolved
from raylora.redaction import one_line

KOHYA_FOLDER = re.compile(r"(\d+)_(.+)")
FEWEST_REPEATS = 1
"""kohya's scripts leave out a folder whose name asks for fewer, and so does raylora."""
SHEETS, MANIFEST = "contact_sheet", "manifest.json"
"""What `raylora prepare` puts beside its pictures: sheets to look at, and its record."""
COMPANION = "._"
"""Begins the names of what macOS puts beside files on other systems' disks: no pictures, whatever their endings."""
OTHER_SUFFIXES = {
    ".gif", ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".psd", ".tga",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf",
}  # fmt: skip
"""Pictures by their names, of kinds that training doesn't read: phones', cameras' and programs' own."""
MOST_COUNTED = 10_000
"""Pictures that aren't read: whoever names a disk's root wants no list of it."""
MOST_PLACES = 5
"""Folders that are named."""
REASONS = {
    "place": "lies in {}, which isn't read",
    "deep": "lies in {}, which isn't read",
    "resting": "lies in {}, whose name asks for 0 repeats",
    "unlisted": "isn't in {}, which lists the images",
    "kind": "is {}, which isn't read; save it as JPEG or PNG",
}
"""Why a picture is left aside; the blank is for its folder, its index or its ending."""
IN_SHORT = {
    "place": "in {}: give that folder, or name it like 10_name",
    "deep": "in {}: give that folder, or move it up and name it like 10_name",
    "resting": "in {}: by its name for 0 repeats",
    "unlisted": "not in {}",
    "kind": "{}: save as JPEG or PNG",
}
"""The same of several, with the mend; a count goes before."""


@dataclass(frozen=True)
class Unread:
    """A picture that nobody reads, of a kind or at a place that is left aside."""

    path: Path
    why: str
    """A key of `REASONS`."""
    what: str
    """Its folder, its index or its ending."""

    @property
    def reason(self) -> str:
        return REASONS[self.why].format(self.what)


def is_companion(name: str) -> bool:
    return name.startswith(COMPANION)


def asked_repeats(name: str) -> int | None:
    """How often a sub-folder's name asks for its pictures; None of a name that isn't kohya's."""
    match = KOHYA_FOLDER.fullmatch(name)
    return int(match[1]) if match else None


def resting_folders(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> dict[str, int]:
    """Sub-folders that ask for no repeats, with how many pictures lie in each; nothing where an index rules.

    Raises:
        PermissionError: the folder itself can't be read.
    """
    if any(is_file(folder / name) for name in INDEX_NAMES):
        return {}
    resting = [below for below in folders_in(folder) if asked_repeats(below.name) == 0 and _may_be_read(below)]
    counts = {below.name: sum(1 for _ in images_in(below, suffixes)) for below in resting}
    return {name: count for name, count in counts.items() if count}


def _may_be_read(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)


def folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def images_in(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> Iterator[Path]:
    """Everything that is called like an image, whatever it is."""
    return (path for path in sorted(folder.iterdir()) if _is_called(path.name, suffixes))


def _is_called(name: str, suffixes: Collection[str]) -> bool:
    return Path(name).suffix.lower() in suffixes and not is_companion(name)


def unread(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> list[Unread]:
    """Pictures at any depth that reading leaves aside, up to `MOST_COUNTED`; not what raylora has drawn itself.

    Args:
        suffixes: what the names of pictures end in that are read.

    Raises:
        DatasetError: the folder's index can't be read.
    """
    listed = {path for path, _ in read_index(folder, suffixes)}
    index = next((name for name in INDEX_NAMES if is_file(folder / name)), "") if listed else ""
    found = (
        _left_aside(path, folder, suffixes, index)
        for path in _pictures_below(folder, {*suffixes, *OTHER_SUFFIXES})
        if not (listed and resolved(path) in listed)
    )
    return list(islice((one for one in found if one), MOST_COUNTED))


def _pictures_below(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _is_sheets(Path(place), name))
        yield from (Path(place) / name for name in sorted(names) if _is_called(name, suffixes))


def _is_sheets(place: Path, name: str) -> bool:
    """Whether it is raylora's own folder of contact sheets."""
    if name != SHEETS:
        return False
    try:
        return "raylora" in read_mapping(place / MANIFEST)
    except (OSError, ValueError):
        return False


def _left_aside(path: Path, folder: Path, suffixes: Collection[str], index: str) -> Unread | None:
    """A picture with why it isn't read, if it isn't."""
    if (kind := path.suffix.lower()) not in suffixes:
        return Unread(path, "kind", kind)
    if index:
        return Unread(path, "unlisted", index)
    where = path.parent.relative_to(folder)
    depth, repeats = len(where.parts), asked_repeats(where.name)
    if depth == 0 or (depth == 1 and repeats):
        return None
    why = "deep" if depth > 1 else "place" if repeats is None else "resting"
    return Unread(path, why, f"{where.as_posix()}/")


def elsewhere(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> str:
    """What a message on too few pictures goes on with: those that were not read, if there are any."""
    told = in_short(unread(folder, suffixes))
    return f"; other images: {one_line(told)}" if told else ""


def in_short(left: Sequence[Unread]) -> str:
    """Pictures that weren't read, counted by why, with the mends; "" of none."""
    told = [_counted(why, Counter(one.what for one in left if one.why == why)) for why in IN_SHORT]
    more = f" (of the first {MOST_COUNTED:,})" if len(left) == MOST_COUNTED else ""
    return "; ".join(filter(None, told)) + more


def _counted(why: str, counts: Counter[str]) -> str:
    """`2 in a/, 1 in b/: …` of those that have one reason."""
    first, _, mend = IN_SHORT[why].partition(":")
    named = [f"{count} {first.format(what)}" for what, count in sorted(counts.items())]
    if len(named) > MOST_PLACES:
        rest = sum(counts.values()) - sum(count for _, count in sorted(counts.items())[:MOST_PLACES])
        named = [*named[:MOST_PLACES], f"{rest} at {len(named) - MOST_PLACES} more places"]
    return f"{', '.join(named)}{f':{mend}' if mend and named else ''}"
