"""Captions in a prepared folder that somebody has changed by hand since they were written: work that stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from raylora.dataset.folder import MOST_CAPTION_BYTES
from raylora.dataset.imagefolder import read_text
from raylora.errors import DatasetError, OutputError
from raylora.files import is_file, read_mapping

MOST_NAMED = 20
"""Files in one message."""


@dataclass(frozen=True)
class Edited:
    """A caption as its owner has it."""

    source: str
    """The picture's name below the source folder."""
    digest: str
    """The picture's, as in the manifest."""
    file: str
    """The caption's own, below the prepared folder."""
    caption: str


def caption_file(target: str) -> str:
    return f"{target.removesuffix('.png')}.txt"


def edited_since(root: Path, manifest: Path, own: Sequence[str], are_kept: bool) -> list[Edited]:
    """Captions that are no longer what a manifest recorded, and those that it recorded as edited.

    One whose file is gone is nobody's work.

    Args:
        own: files that are the preparation's: a record that came from elsewhere may name anything.
        are_kept: off, they are only to be named, and one that can't be read is "".

    Raises:
        OutputError: one can't be read.
    """
    found = []
    for source, digest, file, recorded, is_edited in _recorded(manifest):
        if file in own and is_file(root / file):
            now = _read(root / file, are_kept)
            if is_edited or now != " ".join(recorded.split()):
                found.append(Edited(source, digest, file, now))
    return found


def _recorded(manifest: Path) -> Iterator[tuple[str, str, str, str, bool]]:
    """Picture, digest, caption file, caption, and whether that was edited before; of what is no manifest nothing."""
    try:
        images = list(read_mapping(manifest)["images"])
        entries = [
            (
                str(one["source"]),
                str(one["source_sha256"]),
                caption_file(str(one["file"])),
                str(one["caption"]),
                one.get("caption_edited") is True,
            )
            for one in images
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    yield from entries


def _read(file: Path, must_be: bool) -> str:
    """As training reads it."""
    try:
        return " ".join(read_text(file, MOST_CAPTION_BYTES).split())
    except DatasetError as error:
        if not must_be:
            return ""
        raise OutputError(f"{error}, or remove it to have it written anew") from None


def as_records(edited: Sequence[Edited]) -> list[dict[str, str]]:
    """For the folder's state, where they outlast the manifest while it is done anew."""
    return [asdict(one) for one in edited]


def from_records(root: Path, state: Mapping[str, Any], are_kept: bool) -> list[Edited]:
    """What `as_records` gave, with what was edited once more since then.

    Raises:
        OutputError: one can't be read.
    """
    try:
        kept = [Edited(*(str(one[key]) for key in ("source", "digest", "file", "caption"))) for one in state["edited"]]
    except (KeyError, TypeError):
        return []
    return [
        replace(one, caption=_read(root / one.file, are_kept))
        if one.file in state["files"] and is_file(root / one.file)
        else one
        for one in kept
    ]


def named(edited: Sequence[Edited]) -> str:
    """`3 captions (10_a/b.txt, …)`."""
    files = ", ".join(one.file for one in edited[:MOST_NAMED])
    more = f", and {len(edited) - MOST_NAMED} more" if len(edited) > MOST_NAMED else ""
    return f"{len(edited)} caption{'s' * (len(edited) != 1)} ({files}{more})"
