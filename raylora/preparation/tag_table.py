"""How often each tag is there, and which a LoRA may as well learn by itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raylora.dataset.folder import has_word
from raylora.preparation.tags import key_of, split_tags

NEARLY_ALL = 0.8
"""Share of captions from which on a tag is a fixed trait: taggers miss some of what all pictures show."""
FEWEST_CAPTIONS = 4
"""Below, every tag is on nearly all of them by chance."""


@dataclass(frozen=True)
class TagCount:
    """One tag in a prepared folder."""

    tag: str
    images: int
    share: float
    """Of all captions."""
    removable: bool
    """Proposed for removal: what nearly every picture shows, the trigger word comes to stand for (the guide's D6)."""


def count_tags(captions: Sequence[str], added: Iterable[str] = (), trigger: str | None = None) -> list[TagCount]:
    """All tags, the commonest first.

    Args:
        added: tags that are there on purpose, and never proposed.
        trigger: neither it nor a tag that has it as a word, such as `sks portrait`, is proposed either.
    """
    counts: dict[str, int] = {}
    spelt: dict[str, str] = {}
    for caption in captions:
        for key, tag in {key_of(tag): tag for tag in split_tags(caption)}.items():
            counts[key] = counts.get(key, 0) + 1
            spelt.setdefault(key, tag)
    on_purpose = {key_of(tag) for tag in added}
    on_purpose |= {key for key in counts if trigger and has_word(key, key_of(trigger))}
    rows = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    return [_counted(spelt[key], images, len(captions), key not in on_purpose) for key, images in rows]


def _counted(tag: str, images: int, captions: int, may_go: bool) -> TagCount:
    share = images / captions
    return TagCount(tag, images, share, may_go and share >= NEARLY_ALL and captions >= FEWEST_CAPTIONS)


def as_csv(counts: Sequence[TagCount]) -> bytes:
    """The table as a file: tag, images, share, and `remove` where that is proposed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["tag", "images", "share", "proposal"])
    for one in counts:
        writer.writerow([one.tag, one.images, f"{one.share:.3f}", "remove" if one.removable else ""])
    return text.getvalue().encode("utf-8", "replace")
