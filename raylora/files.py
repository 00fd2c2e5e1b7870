"""Files: there whole or not at all, such as may be read, what tells their content; and where those of folds lie."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

MOST_TEXT_BYTES = 2**20
"""Of settings, which are kilobytes: a megabyte of YAML takes seconds to read."""
MOST_JSON_BYTES = 2**28
"""Of what raylora itself has written: a record of a long trial is some megabytes."""

STATE_NAME = "state.pt"
"""What a training goes on from."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the place, then move into it: readers see the old file or the new, never half of one.

    Several processes may write the same file at once; the last one's stays. On a full disk the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_ordinary(path: Path, most_bytes: int) -> bytes:
    """All of a file; none of a pipe or a device, which may have no end, nor of a file that is too large.

    Raises:
        OSError: it can't be read, or is no such file.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # without waiting for whoever writes to a pipe
    except ValueError:
        raise OSError(errno.EINVAL, "is no path that a system can have", str(path)) from None
    with os.fdopen(number, "rb") as file:
        found = os.fstat(number)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is a pipe or a device and no ordinary file", str(path))
        if found.st_size > most_bytes:
            raise OSError(errno.EFBIG, f"has {found.st_size:,} bytes, and {most_bytes:,} are the most", str(path))
        return file.read()


def sha256_of(path: Path, begin: int = 0) -> str:
    """sha256 of a file's bytes, or of those from a place on, hexadecimal; the file may be larger than the memory.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        file.seek(begin)
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, most_bytes: int = MOST_JSON_BYTES) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it can't be read.
        ValueError: it is no JSON.
    """
    return parse_json(read_ordinary(path, most_bytes).decode("utf-8-sig"))


def read_mapping(path: Path, most_bytes: int = MOST_JSON_BYTES) -> dict[str, Any]:
    """What a JSON file holds that is a table of names.

    Raises:
        OSError: it can't be read.
        ValueError: it is no such file.
    """
    content = read_json(path, most_bytes)
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__} and no table")
    return content


def parse_json(text: str) -> Any:
    """What JSON says.

    Raises:
        ValueError: it is none, or is nested without end.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deep") from None


def is_file(path: Path) -> bool:
    """Whether there is such an ordinary file; not where a path is too long, in a circle, or has no place at all.

    `Path.is_file` raises what it doesn't expect before Python 3.14.
    """
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """The same of whatever may be at a path."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """The same of a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def expanded(path: Path) -> Path:
    """The path with `~` expanded; as it stands where there is no such user, of whom `Path.expanduser` raises."""
    with suppress(RuntimeError):
        return path.expanduser()
    return path


def resolved(path: Path) -> Path:
    """The absolute path, `~` expanded and links followed as far as they lead anywhere.

    `Path.resolve` raises RuntimeError of links in a circle.
    """
    path = expanded(path)
    try:
        return path.resolve()
    except (RuntimeError, OSError, ValueError):
        return path.absolute()


def fold_folders(folder: Path, folds: int) -> list[Path]:
    """Where the files of each fold lie: below the folder, or in it where there is but one split."""
    return [folder] if folds == 1 else [folder / f"fold_{fold}" for fold in range(folds)]


def first_fold(folder: Path) -> Path:
    """Where the files of the first fold lie, or of the only split."""
    fold = fold_folders(folder, 2)[0]
    return fold if fold.is_dir() else folder
