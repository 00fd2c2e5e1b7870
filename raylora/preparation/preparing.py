"""A folder prepared from its beginning to its end: cut, captioned, written, recorded. What was done stays done."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from raylora.dataset.pixels import open_rgb
from raylora.dataset.places import MANIFEST
from raylora.errors import ConfigError, DatasetError, RayloraError
from raylora.files import is_file, sha256_of, write_atomically
from raylora.preparation.captioning import Captioner
from raylora.preparation.contact_sheet import PER_PAGE, Cell, page, thumbnail
from raylora.preparation.cutting import (
    RULES,
    Cut,
    UnreadableError,
    apply_cut,
    cut_from_json,
    plan_cut,
    read_picture,
)
from raylora.preparation.edited import Edited, caption_file, named
from raylora.preparation.job import Job, sheet_name
from raylora.preparation.manifest import LIBRARIES, USED_FOR, as_bytes, manifest_of, versions
from raylora.preparation.prepared import Done, Prepared
from raylora.preparation.settings import PrepareSettings
from raylora.preparation.sources import LeftOut, Source
from raylora.preparation.tag_table import as_csv
from raylora.preparation.work_folder import TAGS, WorkFolder, digest_of
from raylora.redaction import one_line

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
    work: WorkFolder
    tell: Tell = lambda *_: None
    warn: Warn = lambda _: None
    force: bool = False
    """Replace what an earlier preparation has left."""
    is_dry: bool = False
    """Write nothing. What was done before is looked up all the same."""
    edited: Mapping[str, Edited] = field(default_factory=dict)
    """Those that stay, by the pictures' names; `run` finds them."""

    def run(self) -> Prepared:
        """Everything.

        Raises:
            OutputError: the folder can't be this work's.
            DatasetError: no picture can be used, or a caption can't.
            ModelError: the captioner fails.
            RayloraError: an edit takes too long for what the captioner says.
        """
        if self.is_dry:
            return self._knowing_edited()._checked_and_made()
        with self.work.claimed(self.job.claim(self.force)):
            return self._knowing_edited()._checked_and_made()

    def _knowing_edited(self) -> Preparing:
        """The same, with what was changed by hand in the folder; and that told."""
        digests = {picture.name: picture.digest for picture in self.job.pictures}
        found = self.work.edited(are_kept=True)
        edited = [one for one in found if digests.get(one.source, one.digest) == one.digest]
        for one in found:
            if one not in edited:
                words = one_line(one.caption)
                self.warn(f"{one.file}: what was written there by hand, {words!r}, was of another picture")
        if edited:
            self.warn(f"{named(edited)}: changed by hand, and kept so; remove a file to have it written anew")
        return replace(self, edited={one.source: one for one in edited})

    def _checked_and_made(self) -> Prepared:
        captioner = self._tried()
        if not self.is_dry:
            self.work.begin(self.job.digest, self.job.files, [*self.edited.values()])
        looked_at = self._cut_all()
        done = [one for one in looked_at if isinstance(one, Done) and not one.cut.refused]
        left_out = [*self.job.left_out, *(refusal for one in looked_at if (refusal := _refusal(one)))]
        self._warn_of_sources(left_out)
        found = self._caption_all(done, captioner)
        captions = self._captions(done, found)
        texts = [*captions.values()]
        tags = self.job.count_tags(texts)
        left_out = [*left_out, *self.job.sources.unread]
        edited = {name for name in captions if name in self.edited}
        prepared = Prepared(done, left_out, found, captions, edited, tags)
        return prepared if self.is_dry else self._written(prepared, looked_at)

    def _captions(self, done: Sequence[Done], found: Mapping[str, str]) -> dict[str, str]:
        """By the pictures' names, as they will be written; what is odd of them is told."""
        captions = {one.source.name: self._caption(one.source, found.get(one.source.name)) for one in done}
        sources = [one.source for one in done if one.source.name not in self.edited]
        if bare := [one for one in sources if self.job.takes_words(one, found.get(one.name))]:
            those = "1 image has" if len(bare) == 1 else f"{len(bare)} images have"
            self.warn(f"{those} no caption, such as {one_line(bare[0].name)}; the words of its folder stand in, "
                      f"{one_line(bare[0].words)!r}")  # fmt: skip
        if dropped := [one for one in sources if one.fault]:
            those = (
                "1 caption that can't be read is"
                if len(dropped) == 1
                else f"{len(dropped)} captions that can't be read are"
            )
            self.warn(f"{those} dropped by --existing replace, such as {one_line(dropped[0].name)}'s")
        if empty := [name for name, caption in captions.items() if not caption]:
            are = "1 caption is" if len(empty) == 1 else f"{len(empty)} captions are"
            self.warn(f"{are} empty, such as {one_line(empty[0])}'s; training takes the folder's words in their place")
        return captions

    def _caption(self, source: Source, found: str | None) -> str:
        if source.name in self.edited:
            return self.edited[source.name].caption
        try:
            return self.job.caption(source, found)
        except ConfigError as error:  # what is there already was tried before anything was begun
            if self.is_dry:
                raise
            raise RayloraError(f"{error}; then go on with --force: cuts and captions that are made stay") from None

    def _tried(self) -> Captioner | None:
        """Everything that can fail as a whole, before anything of an earlier preparation is touched.

        Returns:
            the captioner, loaded and tried on a picture, where it will be asked for something.
        """
        kept = [self._cut_before(source, self._cut_key(source)) for source in self.job.pictures]
        self._check_captions(kept)
        source, cut = self._first_usable(kept)
        if self.job.model is None or not any(map(self._needs_words, self.job.pictures, kept)):
            return None
        captioner = self.job.model.load()
        self.job.caption(source, captioner.captions([self._cut_out(source, cut)])[0])
        return captioner

    def _check_captions(self, kept: Sequence[Done | None]) -> None:
        """Whether pictures that can be used have captions that can, and edits that come to an end with them."""
        for source, one in zip(self.job.pictures, kept, strict=True):
            if source.name in self.edited:
                continue
            if (fault := self.job.fault_of(source)) and self._is_usable(source, one):
                raise DatasetError(fault)
            if one and self._asks(source) and (said := self._said_before(one)) is not None:
                self.job.caption(source, said)

    def _is_usable(self, source: Source, one: Done | None) -> bool:
        try:
            return not (one.cut if one else plan_cut(*self._read(source))).refused
        except UnreadableError:
            return False

    def _first_usable(self, kept: Sequence[Done | None]) -> tuple[Source, Cut]:
        faults = [(one.name, one.reason) for one in self.job.left_out]
        for source, one in zip(self.job.pictures, kept, strict=True):
            try:
                cut = one.cut if one else plan_cut(*self._read(source))
            except UnreadableError as error:
                faults.append((source.name, str(error)))
                continue
            if not cut.refused:
                return source, cut
            faults.append((source.name, cut.refused))
        name, reason = faults[0]
        raise DatasetError(f"{self.job.folder}: none of its images can be used; {one_line(name)} {reason}")

    def _needs_words(self, source: Source, kept: Done | None) -> bool:
        """Whether the captioner is going to be asked about it, as far as can be told before it is cut."""
        if not self._asks(source):
            return False
        return kept is None or (not kept.cut.refused and self._said_before(kept) is None)

    def _asks(self, source: Source) -> bool:
        return source.name not in self.edited and self.job.asks(source)

    def _warn_of_sources(self, left_out: Sequence[LeftOut]) -> None:
        """A dry run's result names what is left out, and no warning does so again."""
        for note in self.job.sources.notes:
            self.warn(note)
        for one in () if self.is_dry else left_out:
            self.warn(f"{one_line(one.name)}: {one.reason}; left out")

    def _cut_all(self) -> list[Done | LeftOut]:
        looked_at = []
        for number, source in enumerate(self.job.pictures, 1):
            one = self._cut(source)
            looked_at.append(one)
            for note in one.cut.notes if isinstance(one, Done) else ():
                self.warn(f"{one_line(source.name)}: {note}")
            self.tell("cut", number, len(self.job.pictures))
        return looked_at

    def _cut(self, source: Source) -> Done | LeftOut:
        """A picture cut and written; what was cut so before stays as it is."""
        key = self._cut_key(source)
        if earlier := self._cut_before(source, key):
            return earlier
        try:
            image, settings, notes = self._read(source)
        except UnreadableError as error:
            return LeftOut(source.name, str(error))
        cut = plan_cut(image, settings, notes)
        content = b"" if cut.refused else _png(apply_cut(image, cut))
        digest = _sha256(content) if content else ""
        if not self.is_dry:
            small = thumbnail(image)
            write_atomically(self.work.thumbnail(key), small)
            if content:
                write_atomically(self.work.root / source.target, content)
            self.work.keep(CUTS, key, {"cut": cut.as_json, "digest": digest, "thumbnail": _sha256(small)})
        return Done(source, cut, digest, key)

    def _read(self, source: Source) -> tuple[Image.Image, PrepareSettings, tuple[str, ...]]:
        """What `plan_cut` takes."""
        image, notes = read_picture(source.path, self.job.settings.background)
        return image, self.job.settings, notes

    def _cut_out(self, source: Source, cut: Cut) -> Image.Image:
        return apply_cut(self._read(source)[0], cut)

    def _cut_key(self, source: Source) -> str:
        """Digest of all that a cut depends on; with the target, since its file is what is kept."""
        settings = self.job.settings.model_dump(mode="json", include={"crop", "sizes", "upscale", "background"})
        libraries = versions([*LIBRARIES, *USED_FOR.get(self.job.settings.crop, ())])
        return digest_of([RULES, libraries, source.digest, source.target, settings])

    def _cut_before(self, source: Source, key: str) -> Done | None:
        kept = self.work.recall(CUTS, key)
        if kept is None:
            return None
        try:
            done = Done(source, cut_from_json(kept["cut"]), str(kept["digest"]), key)
            files = {self.work.thumbnail(key): kept["thumbnail"]}
        except (KeyError, TypeError, ValueError):
            return None
        files |= {} if done.cut.refused else {self.work.root / source.target: done.digest}
        return done if all(_holds(path, digest) for path, digest in files.items()) else None

    def _caption_all(self, done: Sequence[Done], captioner: Captioner | None) -> dict[str, str]:
        """What the captioner says of the pictures that it is asked about."""
        asked = [one for one in done if self._asks(one.source)]
        found: dict[str, str] = {}
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
        kept = self.work.recall(CAPTIONS, self._caption_key(one))
        return str(kept["caption"]) if kept and "caption" in kept else None

    def _kept(self, one: Done, caption: str) -> str:
        if not self.is_dry:
            self.work.keep(CAPTIONS, self._caption_key(one), {"caption": caption})
        return caption

    def _caption_key(self, one: Done) -> str:
        assert self.job.model
        libraries = versions([*LIBRARIES, *USED_FOR[self.job.settings.caption]])
        return digest_of([one.digest, self.job.model.identity, libraries])

    def _pixels(self, one: Done) -> Image.Image:
        """The prepared picture again."""
        return self._cut_out(one.source, one.cut) if self.is_dry else open_rgb(self.work.root / one.source.target)

    def _written(self, prepared: Prepared, looked_at: Sequence[Done | LeftOut]) -> Prepared:
        """Captions, tags, sheets and, last, the manifest."""
        for one in prepared.done:
            caption = prepared.captions[one.source.name]
            text = f"{caption}\n".encode("utf-8", "replace")  # an index may hold halves of characters
            write_atomically(self.work.root / caption_file(one.source.target), text)
        write_atomically(self.work.root / TAGS, as_csv(prepared.tags))
        sheets = self._draw_sheets([one for one in looked_at if isinstance(one, Done)])
        written = [name for one in prepared.done for name in (one.source.target, caption_file(one.source.target))]
        files = [*written, TAGS, MANIFEST, *sheets]
        manifest = as_bytes(manifest_of(self.job, prepared))
        self.work.finish(self.job.digest, files, manifest, [*self.edited.values()], self._spared(prepared, files))
        return replace(prepared, sheets=sheets)

    def _spared(self, prepared: Prepared, files: Sequence[str]) -> list[str]:
        """Captions that somebody has changed by hand, of pictures that are no longer prepared."""
        lost = [one for name, one in self.edited.items() if name not in prepared.captions and one.file not in files]
        if lost:
            self.warn(f"{named(lost)}: changed by hand, so they stay, though their images are no longer prepared")
        return [one.file for one in lost]

    def _draw_sheets(self, looked_at: Sequence[Done]) -> list[str]:
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


def _holds(path: Path, digest: object) -> bool:
    return is_file(path) and sha256_of(path) == digest


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
