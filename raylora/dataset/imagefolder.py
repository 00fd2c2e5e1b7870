"""The index of a Hugging Face imagefolder: which pictures there are, and their captions.

`metadata.jsonl` or `metadata.csv` with a `file_name` and, as `text`, `caption` or `prompt`, a caption.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from raylora.errors import DatasetError
from raylora.files import is_file, parse_json, read_ordinary, resolved
from raylora.redaction import one_line

INDEX_NAMES = ("metadata.jsonl", "metadata.csv")
CAPTION_KEYS = ("text", "caption", "prompt")
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff"}
LONGEST_QUOTE = 100
MOST_INDEX_BYTES = 2**28
"""Of an index: a kilobyte for each of a quarter of a million pictures."""


def read_index(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> list[tuple[Path, str]]:
    """Pictures and captions as the folder's index has them; nothing where it has none.

    Args:
        suffixes: what pictures' names may end in.

    Raises:
        DatasetError: a line that can't be read, or that names a file outside the folder or none at all.
    """
    for name, rows_of in zip(INDEX_NAMES, (_json_rows, _csv_rows), strict=True):
        index = folder / name
        if is_file(index):
            if not resolved(index).is_relative_to(resolved(folder)):
                raise DatasetError(f"{index}: is a link that leads out of the folder; put the file itself there")
            return _entries(folder, rows_of(index), suffixes)
    return []


def _entries(folder: Path, rows: Iterable[tuple[Any, str]], suffixes: Collection[str]) -> list[tuple[Path, str]]:
    """Each row's picture, which no other row may name."""
    found: dict[Path, str] = {}
    for row, where in rows:
        path, caption = _entry(folder, row, where, suffixes)
        if path in found:
            raise DatasetError(f"{where}: names {one_line(path.name)}, as a line before it does; delete one of them")
        found[path] = caption
    return list(found.items())


def read_text(file: Path, most_bytes: int = MOST_INDEX_BYTES) -> str:
    """A text file in UTF-8, with or without a byte order mark.

    Raises:
        DatasetError: it is none, can't be read, or is larger than a text of its kind.
    """
    try:
        return read_ordinary(file, most_bytes).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(f"{file}: is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise DatasetError(f"{file}: can't be read ({error.strerror}); mend or remove it") from None


def _json_rows(index: Path) -> Iterator[tuple[Any, str]]:
    for number, line in enumerate(read_text(index).split("\n"), 1):
        if line.strip():
            where = f"{index}, line {number}"
            try:
                yield parse_json(line), where
            except ValueError:
                raise DatasetError(_expected(where)) from None


def _csv_rows(index: Path) -> Iterator[tuple[Any, str]]:
    reader = csv.DictReader(io.StringIO(read_text(index), newline=""))
    try:
        if (reader.fieldnames or []).count("file_name") != 1:
            raise DatasetError(f"{index}, line 1: expected a column file_name, and text for the captions")
        for row in reader:
            yield row, f"{index}, line {reader.line_num}"
    except csv.Error as error:
        raise DatasetError(f"{index}, line {reader.line_num}: is not CSV ({error}); save it anew") from None


def _entry(folder: Path, row: Any, where: str, suffixes: Collection[str]) -> tuple[Path, str]:
    if not isinstance(row, dict) or not row.get("file_name") or any(_is_no_text(row.get(key)) for key in CAPTION_KEYS):
        raise DatasetError(_expected(where))
    name = row["file_name"]
    shown = one_line(str(name))[:LONGEST_QUOTE]
    if not isinstance(name, str):
        raise DatasetError(f"{_expected(where)}, and file_name is {shown}")
    path = resolved(folder / name)
    if not path.is_relative_to(resolved(folder)):
        raise DatasetError(f"{where}: {shown} lies outside the folder; move it inside")
    if not is_file(path):
        raise DatasetError(f"{where}: names {shown}, and there is no such file; add it, or delete the line")
    if path.suffix.lower() not in suffixes:
        raise DatasetError(f"{where}: names {shown}, which is no image by its name; delete the line")
    caption = next((row[key] for key in CAPTION_KEYS if isinstance(row.get(key), str)), "")
    return path, " ".join(caption.split())


def _is_no_text(caption: object) -> bool:
    return caption is not None and not isinstance(caption, str)


def _expected(where: str) -> str:
    return f'{where}: expected {{"file_name": …, "text": …}}'
