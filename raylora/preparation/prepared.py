"""What came of preparing a folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from raylora.preparation.cutting import Cut
from raylora.preparation.sources import LeftOut, Source
from raylora.preparation.tag_table import TagCount


@dataclass(frozen=True)
class Done:
    """A picture that was cut."""

    source: Source
    cut: Cut
    digest: str
    """sha256 of the prepared picture's file, as it would be where none is written; "" of one that is left out."""
    key: str
    """What its cut is known by in `WorkFolder`."""


@dataclass(frozen=True)
class Prepared:
    """What came of it all."""

    done: Sequence[Done]
    left_out: Sequence[LeftOut]
    found: Mapping[str, str] = field(default_factory=dict)
    """What the captioner said, by the pictures' names."""
    captions: Mapping[str, str] = field(default_factory=dict)
    """As written, by the pictures' names."""
    edited: Collection[str] = ()
    """Pictures by their names, whose captions somebody has changed by hand in the prepared folder."""
    tags: Sequence[TagCount] = ()
    sheets: Sequence[str] = ()
    """Below the folder."""
