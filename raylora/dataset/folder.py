"""Read a folder of captioned pictures, in any of the three layouts that people have.

- kohya: sub-folders `10_name/` (repeats and class words), captions in `.txt` or `.caption` files
- plain: pictures with captions beside them
- Hugging Face imagefolder: `metadata.jsonl` or `metadata.csv` with `file_name` and `text`
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from raylora.bundled import DEMO_DATASET, DEMO_NAME
from raylora.dataset.imagefolder import read_index, read_text
from raylora.dataset.pixels import picture_size
from raylora.errors import DatasetError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
CAPTION_SUFFIXES = (".txt", ".caption")
KOHYA_FOLDER = re.compile(r"(\d+)_(.+)")
FEWEST_IMAGES = 8

Warn = Callable[[str], None]


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


@dataclass(frozen=True)
class ReadOptions:
    """How to read a folder; see the fields of the same name in `DatasetConfig`."""

    trigger: str | None = None
    skip_bad_images: bool = False
    fewest: int = FEWEST_IMAGES
    needs_captions: bool = True
    """Off: a picture without a caption has its folder's class words, or none; nobody is warned."""


def resolve_dataset(reference: str) -> Path:
    """`demo` or a path as a folder; `~` is expanded."""
    return DEMO_DATASET if reference == DEMO_NAME else Path(reference).expanduser().resolve()


def read_folder(folder: Path, options: ReadOptions = ReadOptions(), warn: Warn = lambda _: None) -> list[Picture]:
    """All pictures of a folder, in the order of their paths.

    Raises:
        DatasetError: no folder, too few pictures, one that can't be read, one without any caption.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no such folder; give a folder of images with captions")
    found = [picture for picture in _scan(folder) if _is_readable(picture.path, options, warn)]
    if len(found) < options.fewest:
        raise DatasetError(
            f"{folder}: {len(found)} usable images found, at least {options.fewest} are needed; "
            f"looked for {', '.join(sorted(IMAGE_SUFFIXES))} here and in folders named like 10_name"
            f"{_elsewhere(folder, found)}"
        )
    finished = [_finish(picture, options) for picture in found]
    if options.needs_captions:
        _check_captions(found, finished, warn)
    return sorted(finished, key=lambda picture: picture.path)


def named_repeats(pictures: Sequence[Picture]) -> list[int]:
    """The repeats that kohya's folder names ask for, if any asks for more than one."""
    named = dict.fromkeys(picture.repeats for picture in pictures if KOHYA_FOLDER.fullmatch(picture.folder))
    return [] if set(named) == {1} else list(named)


def _scan(folder: Path) -> list[Picture]:
    if listed := read_index(folder):
        return [Picture(path, caption, repeats=1, folder="", digest="") for path, caption in listed]
    pictures = list(_scan_plain(folder, folder_name="", repeats=1))
    for below in _folders_in(folder):
        if match := KOHYA_FOLDER.fullmatch(below.name):
            pictures += _scan_plain(below, folder_name=below.name, repeats=max(1, int(match[1])))
    return pictures


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _elsewhere(folder: Path, found: Sequence[Picture]) -> str:
    """Where images lie that were not looked for."""
    used = {picture.path.parent for picture in found}
    others = {below: sum(1 for _ in _images_in(below)) for below in _folders_in(folder) if below not in used}
    named = [f"{count} in {below.name}/" for below, count in others.items() if count]
    return f"; other images: {', '.join(named)}: give that folder, or name it like 10_name" if named else ""


def _images_in(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _scan_plain(folder: Path, folder_name: str, repeats: int) -> Iterator[Picture]:
    for path in _images_in(folder):
        yield Picture(path, _caption_beside(path), repeats, folder_name, digest="")


def _caption_beside(path: Path) -> str:
    for suffix in CAPTION_SUFFIXES:
        file = path.with_suffix(suffix)
        if file.is_file():
            return " ".join(read_text(file).split())
    return ""


def _is_readable(path: Path, options: ReadOptions, warn: Warn) -> bool:
    """Decode the whole picture: a header alone would let a cut-off file through."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
        return True
    except Exception as error:  # Pillow's plug-ins raise many kinds
        reason = f"{path}: can't be read as an image ({error})"
    if not options.skip_bad_images:
        raise DatasetError(f"{reason}; mend or remove it, or go on without it with --skip-bad-images")
    warn(f"{reason}; left out")
    return False


def _finish(picture: Picture, options: ReadOptions) -> Picture:
    """Give the picture its digest, its size and its final caption."""
    caption = picture.caption or _class_words(picture) or options.trigger or ""
    if options.trigger and not re.search(rf"(?<!\w){re.escape(options.trigger)}(?!\w)", caption):
        caption = f"{options.trigger}, {caption}"
    digest = hashlib.sha256(picture.path.read_bytes()).hexdigest()
    return replace(picture, caption=caption, digest=digest, size=picture_size(picture.path))


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
