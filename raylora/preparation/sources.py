"""The pictures of a folder as they are found, and what each will be called when it is prepared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raylora.dataset.folder import MANY_REPEATS, Picture, misplaced, resolve_dataset, scan
from raylora.dataset.imagefolder import IMAGE_SUFFIXES
from raylora.dataset.places import KOHYA_FOLDER, elsewhere, in_short, unread
from raylora.errors import CaptionError, DatasetError
from raylora.files import is_file, is_folder, sha256_of
from raylora.redaction import is_text, one_line
from raylora.storage import is_uri

SUFFIXES = IMAGE_SUFFIXES | {".gif"}
DEFAULT_REPEATS = 10
"""For a folder whose name asks for none; between the guide's 8 for drawings and 15 for photographs."""
LONGEST_NAME = 160
"""Bytes of a prepared file's or folder's name without ending: file systems take 255, and until a file is whole it has a
longer name."""


@dataclass(frozen=True)
class Source:
    """A picture before it is prepared."""

    path: Path
    name: str
    """Below the source folder, with slashes."""
    digest: str
    """sha256 of the file's bytes, hexadecimal."""
    caption: str
    target: str
    """Below the prepared folder, with slashes: `10_name/picture.png`."""
    words: str = ""
    """Those of its `10_name` folder, which serve where there is no caption."""
    fault: str | None = None
    """Why its caption can't be read, if it can't."""


@dataclass(frozen=True)
class LeftOut:
    """A picture that won't be prepared, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Sources:
    """All that a folder holds."""

    folder: Path
    pictures: tuple[Source, ...]
    left_out: tuple[LeftOut, ...]
    unread: tuple[LeftOut, ...] = ()
    """Pictures at places that nobody reads, or of kinds that nobody does."""
    notes: tuple[str, ...] = ()
    """What its owner should know of the folders."""


def find_sources(reference: str, repeats: int | None, say: Callable[[str], None] = lambda _: None) -> Sources:
    """All pictures of a folder in any of the three layouts, `demo` the bundled one, in the order of their names.

    Args:
        repeats: for the prepared folders' names; None: as the source's own names have it.

    Raises:
        DatasetError: no folder, or no pictures in it. A caption that can't be read is its picture's `fault`.
    """
    if is_uri(reference):
        raise DatasetError(f"{reference}: lies on object storage; give a folder on this machine")
    folder = resolve_dataset(reference)
    if not is_folder(folder):
        raise DatasetError(f"{reference}: {'is a file' if is_file(folder) else 'there is no such folder'}; "
                           "give a folder of images")  # fmt: skip
    try:
        faults: dict[Path, str] = {}
        scanned = scan(folder, lambda error: _note_fault(faults, error), SUFFIXES, most_repeats=math.inf)
        found = sorted(scanned, key=lambda picture: picture.path)
        if not found:
            raise DatasetError(f"{folder}: no images found; looked for {', '.join(sorted(SUFFIXES))} here and in "
                               f"folders named like 10_name{elsewhere(folder, SUFFIXES)}")  # fmt: skip
        say(f"reading {len(found)} image{'s' * (len(found) != 1)} in {folder}")
        return _sorted_out(folder, found, repeats, faults)
    except PermissionError as error:
        raise DatasetError(f"{error.filename}: can't be read; let your user read the folder") from None


def _note_fault(faults: dict[Path, str], error: CaptionError) -> None:
    faults[error.picture] = str(error)


def _sorted_out(folder: Path, found: Sequence[Picture], repeats: int | None, faults: Mapping[Path, str]) -> Sources:
    looked_at = [_looked_at(picture, folder) for picture in found]
    good = [one for one in looked_at if isinstance(one, Picture)]
    left_out = [one for one in looked_at if isinstance(one, LeftOut)]
    if not good:
        raise DatasetError(f"{folder}: no image can be used; {one_line(left_out[0].name)} {left_out[0].reason}")
    pictures = [
        Source(
            picture.path, _name(picture.path, folder), picture.digest, picture.caption, target,
            words=_class_words(picture.folder or folder.name), fault=faults.get(picture.path),
        )
        for picture, target in zip(good, _targets(good, folder, repeats), strict=True)
    ]  # fmt: skip
    aside = unread(folder, SUFFIXES)
    notes = [
        *_dates(good, folder, repeats),
        *([f"not read: other images: {one_line(in_short(aside))}"] if aside else []),
    ]
    left = tuple(LeftOut(_name(one.path, folder), one.reason) for one in aside)
    return Sources(folder, tuple(pictures), tuple(left_out), left, tuple(notes))


def _dates(pictures: Sequence[Picture], folder: Path, repeats: int | None) -> Iterator[str]:
    """Numbers that are no repeats."""
    dated = {name for picture in pictures if is_date(name := picture.folder or folder.name)} if repeats is None else {}
    for name in sorted(dated):
        yield f"{one_line(name)}: its number is taken for a date, not for repeats; --repeats says how many"


def _looked_at(picture: Picture, folder: Path) -> Picture | LeftOut:
    """The picture with its digest, or why it can't be one of the folder's."""
    if fault := misplaced(picture.path, folder):
        return LeftOut(_name(picture.path, folder), fault)
    try:
        return replace(picture, digest=sha256_of(picture.path))
    except OSError as error:
        return LeftOut(_name(picture.path, folder), f"can't be read ({error.strerror})")


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _targets(pictures: Sequence[Picture], folder: Path, repeats: int | None) -> list[str]:
    """A name for each prepared picture; no two differ in capitals alone, or in what kind of file they came from."""
    taken: Counter[str] = Counter()
    targets = []
    for picture in pictures:
        below = f"{target_folder(picture.folder, folder.name, repeats)}/{_shortened(picture.path.stem)}"
        name = below
        while taken[name.casefold()]:
            taken[below.casefold()] += 1
            name = f"{below}_{taken[below.casefold()]}"
        taken[name.casefold()] += 1
        targets.append(f"{name}.png")
    return targets


def target_folder(below: str, source: str, repeats: int | None) -> str:
    """`10_name` for pictures of a source's sub-folder, or of the source itself.

    Args:
        below: the sub-folder, "" where the pictures lie in the source itself.
        source: the source folder's own name, which may be of kohya's kind too.
    """
    name = below or source
    match = None if is_date(name) else KOHYA_FOLDER.fullmatch(name)
    own_repeats, words = (int(match[1]), match[2]) if match else (0, name)
    words = _shortened(words) if words.strip() and is_text(words) else "pictures"
    return f"{repeats or own_repeats or DEFAULT_REPEATS}_{words}"


def _class_words(name: str) -> str:
    """What training takes for a caption where there is none: a folder's name behind its repeats, if it has any."""
    match = None if is_date(name) else KOHYA_FOLDER.fullmatch(name)
    return " ".join(match[2].replace("_", " ").split()) if match else ""


def is_date(name: str) -> bool:
    """Whether a folder is called like one of kohya's, but for more repeats than anybody means: `2024_summer`."""
    match = KOHYA_FOLDER.fullmatch(name)
    return match is not None and int(match[1]) > MANY_REPEATS


def _shortened(name: str) -> str:
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")
