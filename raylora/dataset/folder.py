"""Read a folder of captioned pictures, in any of the three layouts that people have.

- kohya: sub-folders `10_name/` (repeats and class words), captions in `.txt` or `.caption` files
- plain: pictures with captions beside them
- Hugging Face imagefolder: `metadata.jsonl` with `file_name` and `text`
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from raylora.bundled import DEMO_DATASET, DEMO_NAME
from raylora.dataset.pixels import picture_size
from raylora.errors import DatasetError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
CAPTION_SUFFIXES = (".txt", ".caption")
CAPTION_KEYS = ("text", "caption", "prompt")
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
        )
    return [_finish(picture, options, warn) for picture in found]


def _scan(folder: Path) -> list[Picture]:
    if (folder / "metadata.jsonl").is_file():
        return list(_scan_imagefolder(folder))
    pictures = list(_scan_plain(folder, folder_name="", repeats=1))
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        if match := KOHYA_FOLDER.fullmatch(below.name):
            pictures += _scan_plain(below, folder_name=below.name, repeats=max(1, int(match[1])))
    return pictures


def _scan_plain(folder: Path, folder_name: str, repeats: int) -> Iterator[Picture]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            yield Picture(path, _caption_beside(path), repeats, folder_name, digest="")


def _caption_beside(path: Path) -> str:
    for suffix in CAPTION_SUFFIXES:
        file = path.with_suffix(suffix)
        if file.is_file():
            return " ".join(_read_text(file).split())
    return ""


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(f"{file}: is not UTF-8 text; save it as UTF-8") from None


def _scan_imagefolder(folder: Path) -> Iterator[Picture]:
    index = folder / "metadata.jsonl"
    for number, line in enumerate(_read_text(index).split("\n"), 1):
        if line.strip():
            name, caption = _read_metadata_line(line, where=f"{index}, line {number}")
            path = (folder / name).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise DatasetError(f"{index}, line {number}: {name} lies outside the folder; move it inside")
            yield Picture(path, caption, repeats=1, folder="", digest="")


def _read_metadata_line(line: str, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
        name = row["file_name"]
    except (ValueError, KeyError, TypeError):
        raise DatasetError(f'{where}: expected {{"file_name": …, "text": …}}') from None
    caption = next((row[key] for key in CAPTION_KEYS if isinstance(row.get(key), str)), "")
    return str(name), " ".join(caption.split())


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


def _finish(picture: Picture, options: ReadOptions, warn: Warn) -> Picture:
    """Give the picture its digest, its size and its final caption."""
    caption = picture.caption
    if not caption:
        caption = _class_words(picture) or options.trigger or ""
        if options.needs_captions:
            _check_fallback(picture, caption, warn)
    if options.trigger and not re.search(rf"(?<!\w){re.escape(options.trigger)}(?!\w)", caption):
        caption = f"{options.trigger}, {caption}"
    digest = hashlib.sha256(picture.path.read_bytes()).hexdigest()
    return replace(picture, caption=caption, digest=digest, size=picture_size(picture.path))


def _class_words(picture: Picture) -> str:
    """What a kohya folder's name says of its pictures."""
    match = KOHYA_FOLDER.fullmatch(picture.folder)
    return match[2].replace("_", " ") if match else ""


def _check_fallback(picture: Picture, caption: str, warn: Warn) -> None:
    if not caption:
        raise DatasetError(
            f"{picture.path}: has no caption; write one into {picture.path.with_suffix('.txt').name} beside it, "
            "or give a word for all with --set dataset.trigger=WORD"
        )
    warn(f"{picture.path}: has no caption; using {caption!r}")


def dataset_digest(pictures: list[Picture]) -> str:
    """One digest of all pictures and captions, independent of their order and place."""
    lines = sorted(f"{picture.digest} {picture.repeats} {picture.caption}" for picture in pictures)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
