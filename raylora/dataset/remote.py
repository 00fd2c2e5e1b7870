"""Datasets wherever they lie: on this machine, or on object storage, from where each machine keeps a copy."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from filelock import FileLock

from raylora.dataset.folder import CAPTION_SUFFIXES, Picture, ReadOptions, Warn, read_folder, resolve_dataset
from raylora.dataset.imagefolder import IMAGE_SUFFIXES, INDEX_NAMES
from raylora.errors import DatasetError, StorageError
from raylora.files import resolved
from raylora.redaction import redacted
from raylora.storage import Found, Storage, checked_uri, is_uri, scratch

WANTED_SUFFIXES = IMAGE_SUFFIXES | set(CAPTION_SUFFIXES)
LONGEST = 50
"""Characters of a copy's name: at most four bytes each, of the 255 that a file system takes."""
PATIENCE_S = 30
"""How long to ask a server again that is away."""


def read_dataset(reference: str, options: ReadOptions = ReadOptions(), warn: Warn = lambda _: None) -> list[Picture]:
    """All pictures of `demo`, a folder or a URI: `read_folder`, whose words then name the objects, not their copies.

    Raises:
        DatasetError: as of a folder; or the storage can't be read, or this machine has no room for it.
    """
    if not is_uri(reference):
        return read_folder(resolve_dataset(reference), options, warn)
    copy = fetched(reference)
    with naming_objects(reference):
        return read_folder(copy, options, lambda text: warn(_named(text, reference)))


@contextmanager
def naming_objects(*references: str | None) -> Iterator[None]:
    """Work on the pictures of these datasets, once they are brought: its errors name objects, not their copies.

    Raises:
        DatasetError: what the work has raised, in those words.
    """
    try:
        yield
    except DatasetError as error:
        raise DatasetError(_named(str(error), *references)) from None


def _named(text: str, *references: str | None) -> str:
    for reference in references:
        if reference and is_uri(reference):
            uri = _uri_of(reference)
            text = text.replace(str(copy_of(uri)), uri)
    return text


def fetched(reference: str) -> Path:
    """The folder of `demo`, a folder or a URI, whose objects are brought.

    Raises:
        DatasetError: the storage can't be read, or this machine has no room for it.
    """
    return fetch(_uri_of(reference)) if is_uri(reference) else resolve_dataset(reference)


def _uri_of(reference: str) -> str:
    try:
        return checked_uri(reference)
    except ValueError as error:
        raise DatasetError(f"{redacted(reference)}: {error}") from None


def folder_of(reference: str) -> Path:
    """Where this machine has a dataset, or would have its copy; nothing is brought."""
    return copy_of(checked_uri(reference)) if is_uri(reference) else resolve_dataset(reference)


def fetch(uri: str) -> Path:
    """This machine's copy of a dataset on object storage: what is new there is brought, what is gone there removed.

    Whoever else wants it waits; a copy that was broken off goes on.

    Raises:
        DatasetError: there is nothing, it can't be read, or the disk has no room.
    """
    try:
        copy = copy_of(uri)
        copy.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{copy.parent}.lock"):
            _bring(Storage(uri, PATIENCE_S), copy)
    except StorageError as error:
        raise DatasetError(str(error)) from None
    return copy


def copy_of(uri: str) -> Path:
    """Where this machine keeps its copy, in a folder of the same name: findings name that."""
    return resolved(scratch()) / "datasets" / _key(uri) / PurePosixPath(uri).name[:LONGEST]


def _key(uri: str) -> str:
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


def _bring(storage: Storage, copy: Path) -> None:
    found = {name: there for name, there in storage.files(may_miss=False).items() if is_wanted(name)}
    if not found:
        raise DatasetError(f"{storage.uri}: no images lie there; mend the name, or put them there")
    _check_room(storage.uri, copy, found)
    storage.pull(copy, wanted=is_wanted, exactly=True)


def is_wanted(name: str) -> bool:
    """Whether an object can be a part of a dataset; whatever else lies there isn't brought."""
    path = PurePosixPath(name)
    return path.suffix.lower() in WANTED_SUFFIXES or path.name in INDEX_NAMES


def _check_room(uri: str, copy: Path, found: dict[str, Found]) -> None:
    needed = sum(there.size for name, there in found.items() if not there.is_same(copy / name))
    free = shutil.disk_usage(copy).free
    if needed > free:
        raise DatasetError(
            f"{uri}: its images take {needed / 2**30:.1f} GiB, and {copy.parent.parent} has {free / 2**30:.1f} GiB; "
            "free some space, or set TMPDIR to a folder with more"
        )


def here(picture: Path, references: tuple[str | None, ...]) -> Path:
    """Where this machine has a picture that another one has read, of one of these datasets."""
    for uri in references:
        if uri and is_uri(uri) and (key := _key(uri)) in picture.parts:
            return copy_of(uri).joinpath(*picture.parts[picture.parts.index(key) + 2 :])
    return picture
