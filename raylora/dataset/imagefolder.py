"""The index of a Hugging Face imagefolder: which pictures there are, and their captions.

`metadata.jsonl` or `metadata.csv` with a `file_name` and, as `text`, `caption` or `prompt`, a caption.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raylora.errors import DatasetError

INDEX_NAMES = ("metadata.jsonl", "metadata.csv")
CAPTION_KEYS = ("text", "caption", "prompt")


def read_index(folder: Path) -> list[tuple[Path, str]]:
    """Pictures and captions as the folder's index has them; nothing where it has none.

    Raises:
        DatasetError: a line that can't be read, or that names a file outside the folder or none at all.
    """
    for name, rows_of in zip(INDEX_NAMES, (_json_rows, _csv_rows), strict=True):
        index = folder / name
        if index.is_file():
            return [_entry(folder, row, where) for row, where in rows_of(index)]
    return []


def read_text(file: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(f"{file}: is not UTF-8 text; save it as UTF-8") from None


def _json_rows(index: Path) -> Iterator[tuple[Any, str]]:
    for number, line in enumerate(read_text(index).split("\n"), 1):
        if line.strip():
            where = f"{index}, line {number}"
            try:
                yield json.loads(line), where
            except ValueError:
                raise DatasetError(_expected(where)) from None


def _csv_rows(index: Path) -> Iterator[tuple[Any, str]]:
    reader = csv.DictReader(io.StringIO(read_text(index), newline=""))
    if "file_name" not in (reader.fieldnames or ()):
        raise DatasetError(f"{index}, line 1: expected a column file_name, and text for the captions")
    try:
        for row in reader:
            yield row, f"{index}, line {reader.line_num}"
    except csv.Error as error:
        raise DatasetError(f"{index}, line {reader.line_num}: is not CSV ({error}); save it anew") from None


def _entry(folder: Path, row: Any, where: str) -> tuple[Path, str]:
    if not isinstance(row, dict) or not row.get("file_name"):
        raise DatasetError(_expected(where))
    name = str(row["file_name"])
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DatasetError(f"{where}: {name} lies outside the folder; move it inside")
    if not path.is_file():
        raise DatasetError(f"{where}: names {name}, and there is no such file; add it, or delete the line")
    caption = next((row[key] for key in CAPTION_KEYS if isinstance(row.get(key), str)), "")
    return path, " ".join(caption.split())


def _expected(where: str) -> str:
    return f'{where}: expected {{"file_name": …, "text": …}}'
