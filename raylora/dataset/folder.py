"""Read a folder of captioned pictures, in any of the three layouts that people have.

- kohya: sub-folders `10_name/` (repeats and class words), captions in `.txt` or `.caption` files
- plain: pictures with captions beside them
- Hugging Face imagefolder: `metadata.jsonl` or `metadata.csv` with `file_name` and `text`
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from raylora.bundled import DEMO_DATASET, DEMO_NAME
from raylora.config import DatasetConfig
from raylora.dataset.at_once import at_once
from raylora.dataset.frames import measured_at
from raylora.dataset.imagefolder import IMAGE_SUFFIXES, read_index, read_text
from raylora.dataset.pixels import Look, see
from raylora.dataset.places import (
    FEWEST_REPEATS,
    KOHYA_FOLDER,
    asked_repeats,
    elsewhere,
    folders_in,
    images_in,
    resting_folders,
)
from raylora.errors import CaptionError, DatasetError, first_line
from raylora.files import is_file, is_folder, resolved, sha256_of
from raylora.redaction import is_text, one_line

CAPTION_SUFFIXES = (".txt", ".caption")
FEWEST_IMAGES = 8
MOST_CAPTION_BYTES = 2**16
"""A caption of thousands of words; encoders read seventy-five tokens."""
MOST_REPEATS = 10**6
MANY_REPEATS = 500
"""More are seldom meant: `2024_summer` is a year."""
LEADS_OUT = "is a link that leads out of the folder, so it is not read"

Warn = Callable[[str], None]
Complain = Callable[[CaptionError], None]


@dataclass(frozen=True)
class Picture:
    """One picture and what is known of it."""

    path: Path
    caption: str
    repeats: int
    folder: str
    """The sub-folder it came from, "" at the top; splits are made per folder."""
    digest: str
    """sha256 of the file's bytes, hexadecimal."""
    size: tuple[int, int] = (0, 0)
    """Width and height in px, held upright."""
    thumbnail: bytes = field(default=b"", repr=False, compare=False)
    """16x16 RGB pixels, to tell near-duplicates by."""
    written: str = field(default="", repr=False, compare=False)
    """The caption as its file has it, "" where there is none."""
    look: Look | None = field(default=None, repr=False, compare=False)
    """What was measured of it, where that was wanted."""


@dataclass(frozen=True)
class ReadOptions:
    """How to read a folder; see the fields of the same name in `DatasetConfig`."""

    trigger: str | None = None
    skip_bad_images: bool = False
    fewest: int = FEWEST_IMAGES
    needs_captions: bool = True
    """Off: a picture without a caption has its folder's class words, or none; nobody is warned."""
    measured_for: DatasetConfig | None = None
    """How pictures will be learned, where their blur at that size is wanted; it takes about as long as decoding."""


def resolve_dataset(reference: str) -> Path:
    """`demo` or a path as a folder; `~` is expanded."""
    return DEMO_DATASET if reference == DEMO_NAME else resolved(Path(reference))


def read_folder(folder: Path, options: ReadOptions = ReadOptions(), warn: Warn = lambda _: None) -> list[Picture]:
    """All pictures of a folder, in the order of their paths.

    Raises:
        DatasetError: no folder, too few pictures, one that can't be read, one without any caption.
    """
    check_folder(folder)
    try:
        scanned = scan(folder)
        for name, count in resting_folders(folder).items():
            left = "1 image in it is" if count == 1 else f"{count} images in it are"
            warn(f"{one_line(name)}/: asks by its name for 0 repeats, so {left} left out")
        seen = at_once(lambda picture: looked_at(picture, folder, options.measured_for), scanned)
    except PermissionError as error:
        raise DatasetError(f"{error.filename}: can't be read; let your user read the folder") from None
    found = _usable(scanned, seen, options, warn)
    if len(found) < options.fewest:
        raise DatasetError(
            f"{folder}: {len(found)} usable images found, at least {options.fewest} are needed; "
            f"looked for {', '.join(sorted(IMAGE_SUFFIXES))} here and in folders named like 10_name"
            f"{elsewhere(folder)}"
        )
    finished = [finish(picture, options) for picture in found]
    if options.needs_captions:
        _check_captions(found, finished, warn)
    return sorted(finished, key=lambda picture: picture.path)


def check_folder(folder: Path) -> None:
    """Whether there is such a folder.

    Raises:
        DatasetError: there isn't.
    """
    if not is_folder(folder):
        raise DatasetError(f"{folder}: there is no such folder; give a folder of images with captions")


def named_repeats(pictures: Sequence[Picture]) -> list[int]:
    """The repeats that kohya's folder names ask for, if any asks for more than one."""
    named = dict.fromkeys(picture.repeats for picture in pictures if KOHYA_FOLDER.fullmatch(picture.folder))
    return [] if set(named) == {1} else list(named)


def _raise(error: CaptionError) -> None:
    raise error


def scan(
    folder: Path,
    complain: Complain = _raise,
    suffixes: Collection[str] = IMAGE_SUFFIXES,
    most_repeats: float = MOST_REPEATS,
) -> list[Picture]:
    """All that is called like a picture, with the caption that was written for it; no picture is opened.

    Args:
        complain: told of captions that can't be read, which are then none.
        most_repeats: a sub-folder that asks for more is refused.

    Raises:
        DatasetError: an index or a sub-folder's name can't be read.
        PermissionError: a folder can't be read.
    """
    if listed := read_index(folder, suffixes):
        return [Picture(path, caption, repeats=1, folder="", digest="") for path, caption in listed]
    pictures = list(_scan_plain(folder, folder, complain, suffixes))
    for below in folders_in(folder):
        repeats = asked_repeats(below.name)
        if repeats is not None and repeats >= FEWEST_REPEATS:
            _check_sub_folder(below, folder, repeats, most_repeats)
            found = _scan_plain(below, folder, complain, suffixes)
            pictures += [replace(picture, folder=below.name, repeats=repeats) for picture in found]
    return pictures


def _check_sub_folder(below: Path, folder: Path, repeats: int, most_repeats: float) -> None:
    if not resolved(below).is_relative_to(resolved(folder)):
        raise DatasetError(f"{below}: {LEADS_OUT}; copy it into the folder")
    if repeats > most_repeats:
        raise DatasetError(f"{below}: asks for more than {most_repeats:,} repeats; if that is a date, "
                           f"rename it as to 10_{below.name}")  # fmt: skip


def _scan_plain(below: Path, folder: Path, complain: Complain, suffixes: Collection[str]) -> Iterator[Picture]:
    for path in images_in(below, suffixes):
        caption = ""
        try:
            caption = _caption_beside(path, folder)
        except DatasetError as error:
            complain(CaptionError(path, str(error)))
        yield Picture(path, caption, repeats=1, folder="", digest="")


def _caption_beside(path: Path, folder: Path) -> str:
    """The caption in a picture's text file; none of a picture that is refused for its name."""
    for suffix in CAPTION_SUFFIXES if is_text(path.name) else ():
        file = path.with_suffix(suffix)
        if file.is_symlink() or is_file(file):
            if fault := misplaced(file, folder):
                raise DatasetError(f"{file}: {fault}; put the caption itself there")
            return " ".join(read_text(file, MOST_CAPTION_BYTES).split())
    return ""


def _usable(
    scanned: Sequence[Picture], seen: Sequence[Picture | str], options: ReadOptions, warn: Warn
) -> list[Picture]:
    """Those that `looked_at` found whole; one that isn't is left out, if that was wanted.

    Raises:
        DatasetError: one isn't, and nothing is to be left out.
    """
    for picture, fault in zip(scanned, seen, strict=True):
        if isinstance(fault, str):
            reason = f"{one_line(str(picture.path))}: {fault}"
            if not options.skip_bad_images:
                raise DatasetError(f"{reason}; mend or remove it, or go on without it with --skip-bad-images")
            warn(f"{reason}; left out")
    return [picture for picture in seen if isinstance(picture, Picture)]


def looked_at(picture: Picture, folder: Path, measured_for: DatasetConfig | None = None) -> Picture | str:
    """The picture with its size and thumbnail, or why it is no whole picture inside the folder.

    All of it is decoded, since a header alone would let a cut-off file through.
    """
    if fault := misplaced(picture.path, folder):
        return fault
    try:
        seen = see(picture.path, lambda size: measured_at(size, measured_for) if measured_for else None)
    except Exception as error:  # Pillow's plug-ins raise many kinds
        return f"can't be read as an image ({one_line(first_line(error))})"
    return replace(picture, size=seen.size, thumbnail=seen.thumbnail, look=seen.look)


def misplaced(path: Path, folder: Path) -> str | None:
    """Why a file's name or place can't be, before it is opened: what a link leads to elsewhere is not the dataset's."""
    if not is_text(path.name):
        return "has a name with control characters, or that is no UTF-8"
    if path.is_symlink() and not is_file(path):
        return "is a link that leads to no file"
    if not resolved(path).is_relative_to(resolved(folder)):
        return f"{LEADS_OUT}: copy what it leads to into the folder"
    return None if is_file(path) else "is no ordinary file"


def finish(picture: Picture, options: ReadOptions) -> Picture:
    """Give the picture its digest and its final caption."""
    caption = picture.caption or stand_in(picture, options.trigger)
    if options.trigger and not has_word(caption, options.trigger):
        caption = f"{options.trigger}, {caption}"
    return replace(picture, caption=caption, written=picture.caption, digest=sha256_of(picture.path))


def stand_in(picture: Picture, trigger: str | None) -> str:
    """What serves where a caption is missing: the class words of a kohya folder, else the trigger word."""
    return _class_words(picture) or trigger or ""


def has_word(caption: str, word: str) -> bool:
    """Whether a caption has a trigger word, and not only as a part of another."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", caption) is not None


def _class_words(picture: Picture) -> str:
    """What a kohya folder's name says of its pictures."""
    match = KOHYA_FOLDER.fullmatch(picture.folder)
    return match[2].replace("_", " ") if match else ""


def _check_captions(found: Sequence[Picture], finished: Sequence[Picture], warn: Warn) -> None:
    """One word on all pictures without a caption: an error where nothing serves for it."""
    bare = [after for before, after in zip(found, finished, strict=True) if not before.caption]
    if nameless := [picture for picture in bare if not picture.caption]:
        first, more = nameless[0].path, f" (and {len(nameless) - 1} more)" if len(nameless) > 1 else ""
        raise DatasetError(
            f"{first}{more}: has no caption; write one into {first.with_suffix('.txt').name} beside it, "
            "or give a word for all with --set dataset.trigger=WORD"
        )
    if bare:
        warn(
            f"{len(bare)} of {len(found)} images have no caption, such as {bare[0].path}; "
            f"using {bare[0].caption!r} in its place"
        )


def dataset_digest(pictures: list[Picture]) -> str:
    """One digest of all pictures and captions, independent of their order and place."""
    lines = sorted(f"{picture.digest} {picture.repeats} {picture.caption}" for picture in pictures)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
