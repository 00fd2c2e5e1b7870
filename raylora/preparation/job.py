"""What is to be prepared, and everything wrong with it, told before anything is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from raylora import __version__
from raylora.dataset.check_captions import likely_trigger
from raylora.dataset.places import MANIFEST, SHEETS
from raylora.preparation.captioning import CaptionModel, find_model
from raylora.preparation.contact_sheet import PER_PAGE
from raylora.preparation.edited import caption_file
from raylora.preparation.settings import PrepareSettings
from raylora.preparation.sources import LeftOut, Source, Sources, find_sources
from raylora.preparation.tag_table import TagCount, count_tags
from raylora.preparation.tags import Edits, distinct, split_tags
from raylora.preparation.work_folder import TAGS, Claim, digest_of
from raylora.redaction import cleared


@dataclass(frozen=True)
class Job:
    """Pictures, settings and, where captions are written, a model."""

    settings: PrepareSettings
    sources: Sources
    model: CaptionModel | None

    @property
    def folder(self) -> Path:
        """The source folder."""
        return self.sources.folder

    @property
    def pictures(self) -> Sequence[Source]:
        return self.sources.pictures

    @property
    def left_out(self) -> Sequence[LeftOut]:
        """What was no picture from the start."""
        return self.sources.left_out

    @cached_property
    def edits(self) -> Edits:
        return Edits(self.settings.replace, self.settings.remove, self.settings.add, self.settings.trigger)

    @cached_property
    def digest(self) -> str:
        """Of all that decides the result."""
        sources = [(one.name, one.digest, one.caption, one.target, one.words) for one in self.pictures]
        model = self.model.identity if self.model else None
        return digest_of([__version__, self.settings.model_dump(mode="json"), sources, model])

    @property
    def files(self) -> list[str]:
        """All that may be written, below the prepared folder."""
        pages = -(-len(self.pictures) // PER_PAGE)
        names = [name for picture in self.pictures for name in (picture.target, caption_file(picture.target))]
        return [*names, TAGS, MANIFEST, *(sheet_name(page) for page in range(pages))]

    @property
    def most_bytes(self) -> int:
        """That the prepared pictures can take: PNGs are no larger than their pixels."""
        return len(self.pictures) * 3 * max(math.prod(size) for size in self.settings.sizes)

    def claim(self, force: bool) -> Claim:
        """What it wants of its folder."""
        return Claim(self.folder, self.digest, self.files, self.most_bytes, force)

    def asks(self, source: Source) -> bool:
        """Whether the captioner is asked for a caption."""
        return self.model is not None and not (source.caption and self.settings.existing == "keep")

    def has_own(self, source: Source) -> bool:
        """Whether a caption is there that stays."""
        return bool(source.caption) and self.settings.existing != "replace"

    def caption(self, source: Source, found: str | None) -> str:
        """The caption that is written.

        Args:
            found: what the captioner says; None where it wasn't asked.
        """
        before, found_text = cleared(source.caption), cleared(found or "")
        if self.settings.existing == "extend":
            words = ", ".join(distinct(split_tags(before) + split_tags(found_text)))
        else:
            words = before if self.settings.existing == "keep" and found is None else found_text
        return self.edits(words or cleared(source.words))

    def count_tags(self, captions: Sequence[str]) -> list[TagCount]:
        """The table of tags, in which those that are there because somebody wants them aren't proposed for removal."""
        guessed = [] if self.edits.trigger else [likely_trigger(captions) or ""]
        return count_tags(captions, [*self.edits.add, *guessed], self.edits.trigger)

    def takes_words(self, source: Source, found: str | None) -> bool:
        """Whether its folder's words are its caption, since there is no other."""
        return bool(source.words) and not self.has_own(source) and not found

    def fault_of(self, source: Source) -> str | None:
        """Why no caption can be written for it, with the mend; None where one can.

        Of a picture that is left out it doesn't matter.
        """
        if source.fault and self.settings.existing != "replace":
            return source.fault
        if self.has_own(source) or source.words or self.model or self.settings.trigger is not None or self.settings.add:
            return None
        fault = "loses its caption by --existing replace" if source.caption else "has no caption"
        count = sum(not (self.has_own(one) or one.words) for one in self.pictures)
        those = f" ({count} such images)" if count > 1 else ""
        return (
            f"{source.path}: {fault}{those}; have captions written with --caption tags or --caption blip, or give a "
            "word for all with --trigger WORD"
        )


def sheet_name(page: int) -> str:
    return f"{SHEETS}/page_{page + 1}.png"


def plan_job(reference: str, settings: PrepareSettings, say: Callable[[str], None] = lambda _: None) -> Job:
    """A checked job: pictures found, the captioner's model at hand.

    Args:
        reference: a folder, or `demo`.

    Raises:
        UserError: something is wrong with the folder, the edits or the model. `Job.fault_of` tells of captions.
    """
    sources = find_sources(reference, settings.repeats, say)
    job = Job(settings, sources, find_model(settings, say))
    for picture in job.pictures:
        job.caption(picture, None)  # a pattern that takes too long is told now
    return job
