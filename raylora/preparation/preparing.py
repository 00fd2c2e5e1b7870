"""A folder prepared from its beginning to its end: cut, captioned, written, recorded. What was done stays done."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from raylora.dataset.pixels import open_rgb
from raylora.errors import DatasetError
from raylora.files import is_file, write_atomically
from raylora.preparation.captioning import Captioner
from raylora.preparation.contact_sheet import PER_PAGE, Cell, page, thumbnail
from raylora.preparation.cutting import (
    RULES,
    UnreadableError,
    apply_cut,
    cut_from_json,
    plan_cut,
    read_picture,
)
from raylora.preparation.job import Job, caption_file, sheet_name
from raylora.preparation.manifest import LIBRARIES, USED_FOR, as_bytes, manifest_of, versions
from raylora.preparation.prepared import Done, Prepared
from raylora.preparation.sources import LeftOut, Source
from raylora.preparation.tag_table import as_csv, count_tags
from raylora.preparation.work_folder import MANIFEST, TAGS, WorkFolder, digest_of

AT_ONCE = 8
"""Pictures that a captioner sees together."""
CUTS, CAPTIONS = "cuts", "captions"

Tell = Callable[[str, int, int], None]
"""Told of progress: what is done, how many pictures of how many."""
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Preparing:
    """One run over a job."""

    job: Job
    work: WorkFolder | None
    """None: nothing is written or kept."""
    tell: Tell = lambda *_: None
    warn: Warn = lambda _: None

    def run(self) -> Prepared:
        """Everything; the folder must be claimed.

        Raises:
            DatasetError: no picture can be used.
            ModelError: the captioner fails.
        """
        looked_at = self._cut_all()
        done = [one for one in looked_at if isinstance(one, Done) and not one.cut.refused]
        left_out = [*self.job.left_out, *(refusal for one in looked_at if (refusal := _refusal(one)))]
        for one in left_out:
            self.warn(f"{one.name}: {one.reason}; left out")
        if not done:
            raise DatasetError(
                f"{self.job.folder}: none of its images can be used; {left_out[0].name} {left_out[0].reason}"
            )
        found = self._caption_all(done)
        captions = {one.source.name: self.job.caption(one.source, found.get(one.source.name)) for one in done}
        if bare := [name for name, caption in captions.items() if not caption]:
            are = "1 caption is" if len(bare) == 1 else f"{len(bare)} captions are"
            self.warn(f"{are} empty, such as {bare[0]}'s; training takes the folder's words in their place")
        tags = count_tags(list(captions.values()), [*self.job.edits.add, self.job.edits.trigger or ""])
        prepared = Prepared(done, left_out, found, captions, tags)
        return self._written(prepared, looked_at) if self.work else prepared

    def _cut_all(self) -> list[Done | LeftOut]:
        looked_at = []
        for number, source in enumerate(self.job.pictures, 1):
            one = self._cut(source)
            looked_at.append(one)
            for note in one.cut.notes if isinstance(one, Done) else ():
                self.warn(f"{source.name}: {note}")
            self.tell("cut", number, len(self.job.pictures))
        return looked_at

    def _cut(self, source: Source) -> Done | LeftOut:
        """A picture cut and written; what was cut so before stays as it is."""
        key = self._cut_key(source)
        if earlier := self._cut_before(source, key):
            return earlier
        try:
            image, notes = read_picture(source.path, self.job.settings.background)
        except UnreadableError as error:
            return LeftOut(source.name, str(error))
        cut = plan_cut(image, self.job.settings, notes)
        content = b"" if cut.refused else _png(apply_cut(image, cut))
        digest = _sha256(content) if content else ""
        if self.work:
            write_atomically(self.work.thumbnail(key), thumbnail(image))
            if content:
                write_atomically(self.work.root / source.target, content)
            self.work.keep(CUTS, key, {"cut": cut.as_json, "digest": digest})
        return Done(source, cut, digest, key)

    def _cut_key(self, source: Source) -> str:
        """Digest of all that a cut depends on; with the target, since its file is what is kept."""
        settings = self.job.settings.model_dump(mode="json", include={"crop", "sizes", "upscale", "background"})
        libraries = versions([*LIBRARIES, *USED_FOR.get(self.job.settings.crop, ())])
        return digest_of([RULES, libraries, source.digest, source.target, settings])

    def _cut_before(self, source: Source, key: str) -> Done | None:
        kept = self.work.recall(CUTS, key) if self.work else None
        if self.work is None or kept is None or not is_file(self.work.thumbnail(key)):
            return None
        try:
            done = Done(source, cut_from_json(kept["cut"]), str(kept["digest"]), key)
        except (KeyError, TypeError, ValueError):
            return None
        target = self.work.root / source.target
        is_whole = done.cut.refused or (is_file(target) and _sha256(target.read_bytes()) == done.digest)
        return done if is_whole else None

    def _caption_all(self, done: Sequence[Done]) -> dict[str, str]:
        """What the captioner says of the pictures that it is asked about."""
        asked = [one for one in done if self.job.asks(one.source)]
        found: dict[str, str] = {}
        captioner: Captioner | None = None
        for first in range(0, len(asked), AT_ONCE):
            batch = asked[first : first + AT_ONCE]
            known: Sequence[str | None] = [self._said_before(one) for one in batch]
            if None in known:  # all of a batch again: a model's sums depend on what it sees together
                assert self.job.model
                captioner = captioner or self.job.model.load()
                known = captioner.captions([self._pixels(one) for one in batch])
            for one, text in zip(batch, known, strict=True):
                found[one.source.name] = self._kept(one, text or "")
            self.tell("captioned", first + len(batch), len(asked))
        return found

    def _said_before(self, one: Done) -> str | None:
        kept = self.work.recall(CAPTIONS, self._caption_key(one)) if self.work else None
        return str(kept["caption"]) if kept and "caption" in kept else None

    def _kept(self, one: Done, caption: str) -> str:
        if self.work:
            self.work.keep(CAPTIONS, self._caption_key(one), {"caption": caption})
        return caption

    def _caption_key(self, one: Done) -> str:
        assert self.job.model
        libraries = versions([*LIBRARIES, *USED_FOR[self.job.settings.caption]])
        return digest_of([one.digest, self.job.model.identity, libraries])

    def _pixels(self, one: Done) -> Image.Image:
        """The prepared picture again."""
        if self.work:
            return open_rgb(self.work.root / one.source.target)
        return apply_cut(read_picture(one.source.path, self.job.settings.background)[0], one.cut)

    def _written(self, prepared: Prepared, looked_at: Sequence[Done | LeftOut]) -> Prepared:
        """Captions, tags, sheets and, last, the manifest."""
        assert self.work
        for one in prepared.done:
            caption = prepared.captions[one.source.name]
            text = f"{caption}\n".encode("utf-8", "replace")  # an index may hold halves of characters
            write_atomically(self.work.root / caption_file(one.source.target), text)
        write_atomically(self.work.root / TAGS, as_csv(prepared.tags))
        sheets = self._draw_sheets([one for one in looked_at if isinstance(one, Done)])
        written = [name for one in prepared.done for name in (one.source.target, caption_file(one.source.target))]
        files = [*written, TAGS, MANIFEST, *sheets]
        self.work.finish(self.job.digest, files, as_bytes(manifest_of(self.job, prepared)))
        return replace(prepared, sheets=sheets)

    def _draw_sheets(self, looked_at: Sequence[Done]) -> list[str]:
        assert self.work
        sheets = []
        for number, first in enumerate(range(0, len(looked_at), PER_PAGE)):
            part = looked_at[first : first + PER_PAGE]
            cells = [Cell(one.source.name, self.work.thumbnail(one.key), one.cut) for one in part]
            write_atomically(self.work.root / sheet_name(number), page(cells, first + 1))
            sheets.append(sheet_name(number))
        return sheets


def _refusal(one: Done | LeftOut) -> LeftOut | None:
    """Why a picture is left out, if it is."""
    if isinstance(one, LeftOut):
        return one
    return LeftOut(one.source.name, one.cut.refused) if one.cut.refused else None


def _png(image: Image.Image) -> bytes:
    """Without a loss, and without anything that the source's file said beside its pixels."""
    file = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(file, "PNG")
    return file.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
