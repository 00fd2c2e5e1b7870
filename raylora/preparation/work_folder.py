"""The prepared folder: whose files are in it, what was done before, and nothing in it that isn't whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from raylora.dataset.places import MANIFEST
from raylora.errors import OutputError
from raylora.files import exists, is_file, is_folder, read_mapping, resolved, write_atomically
from raylora.preparation.edited import Edited, as_records, edited_since, from_records
from raylora.redaction import is_text

TAGS = "tags.csv"
KEPT = ".prepare"
"""The folder below it with what need not be done again."""
ANOTHER = "give another folder"
LONGEST_NAME = 255
"""Bytes of a file's name, on the usual file systems."""
HALF = re.compile(r"\.(.+)\.\d+\.[0-9a-f]{8}")
"""What `write_atomically` calls a file until it is whole."""


def digest_of(content: object) -> str:
    """sha256 of what JSON can say, hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_same(one: Path, other: Path) -> bool:
    """By name, or as the disk has it: capitals may not matter to it, and a folder may be mounted twice."""
    try:
        return one == other or one.samefile(other)
    except (OSError, ValueError):
        return False


def _lies_in(inner: Path, outer: Path) -> bool:
    return any(_is_same(place, outer) for place in (inner, *inner.parents))


@dataclass(frozen=True)
class Claim:
    """What a preparation wants of its folder."""

    source: Path
    job: str
    """A digest of all that decides the result."""
    files: Collection[str]
    """What it will write, below the folder, with slashes."""
    bytes_needed: int
    force: bool
    """Replace what an earlier preparation has left. Other files always stay."""


@dataclass(frozen=True)
class WorkFolder:
    """Where pictures are prepared. Whoever writes must have it `claimed`."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / MANIFEST

    @property
    def _state(self) -> Path:
        return self.root / KEPT / "state.json"

    def check(self, claim: Claim) -> None:
        """Whether this work may go here; nothing is made.

        Raises:
            OutputError: it can't, or not without `force`.
        """
        self._check_place(claim.source)
        state = self._read_state()
        if not claim.force:
            self._check_unused(state, claim.job)
        own = set(state["files"]) if state else set()
        self._check_in_the_way(own, claim.files)
        free = shutil.disk_usage(self._nearest_place()).free
        replaced = sum(path.stat().st_size for name in own if is_file(path := self.root / name))
        if claim.bytes_needed > free + replaced:
            raise OutputError(f"{self.root}: its disk has {free / 2**30:.1f} GiB, and the pictures may take "
                              f"{claim.bytes_needed / 2**30:.1f}; free some space, or {ANOTHER}")  # fmt: skip

    def _check_place(self, source: Path) -> None:
        source, root = resolved(source), resolved(self.root)
        if _is_same(source, root):
            raise OutputError(f"{self.root}: is the source folder itself, which is never changed; {ANOTHER}")
        if (is_inside := _lies_in(root, source)) or _lies_in(source, root):
            inner, outer = ("it", "the source") if is_inside else ("the source", "it")
            raise OutputError(f"{self.root}: {inner} lies inside {outer}; {ANOTHER}, beside {source}")
        if is_file(self.root):
            raise OutputError(f"{self.root}: is a file; give a folder, new or empty")
        place = self._nearest_place()
        if not is_folder(place):
            raise OutputError(f"{self.root}: goes through {place}, which is no folder; {ANOTHER}")
        if not os.access(place, os.W_OK | os.X_OK):
            raise OutputError(f"{self.root}: can't be made ({place} may not be written to); {ANOTHER}")
        if any(path.is_symlink() and not exists(path) for path in (self.root, *self.root.parents)):
            raise OutputError(f"{self.root}: goes through a link that leads nowhere; {ANOTHER}")

    def _nearest_place(self) -> Path:
        """The folder itself, or where it will be made."""
        return next(place for place in (self.root, *self.root.parents) if exists(place))

    def _check_unused(self, state: Mapping[str, Any] | None, job: str) -> None:
        try:
            is_used = is_folder(self.root) and any(path.name != KEPT for path in self.root.iterdir())
        except OSError as error:
            raise OutputError(f"{self.root}: {error.strerror}; {ANOTHER}") from None
        if state is not None and is_file(self.manifest):
            raise OutputError(f"{self.root}: holds prepared images; do it anew with --force, or {ANOTHER}")
        if state is not None and state["job"] != job:
            raise OutputError(
                f"{self.root}: holds the beginning of another preparation: its settings or images differ; go on with "
                f"those, begin this one with --force, or {ANOTHER}"
            )
        if state is None and is_used:
            raise OutputError(f"{self.root}: is not empty; {ANOTHER}, or let its files stay beside the new ones "
                              "with --force")  # fmt: skip

    def _check_in_the_way(self, own: Collection[str], files: Collection[str]) -> None:
        for folder in sorted({(self.root / name).parent for name in (*files, f"{KEPT}/state.json")}):
            if not self._is_inside(folder):
                raise OutputError(f"{folder}: is a link that leads out of {self.root}; {ANOTHER}")
            if (exists(folder) or folder.is_symlink()) and not is_folder(folder):
                raise OutputError(f"{folder}: is a file where a folder has to be; move it elsewhere, or {ANOTHER}")
        for name in files:
            path = self.root / name
            if is_folder(path) or (name not in own and (path.is_symlink() or exists(path))):
                raise OutputError(f"{path}: is in the way, and no earlier preparation's; move it elsewhere, "
                                  f"or {ANOTHER}")  # fmt: skip

    def _is_inside(self, path: Path) -> bool:
        """Whether it lies in the folder, wherever links and `..` lead."""
        return resolved(path).is_relative_to(resolved(self.root))

    def _read_state(self) -> dict[str, Any] | None:
        """Whose work is in it; None where nobody's, or nobody knows."""
        try:
            state = read_mapping(self._state)
            names = [str(name) for name in state["files"]]
            files = [name for name in names if self._may_be_own(name)]
            return {"job": str(state["job"]), "files": files, "edited": state.get("edited", [])}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _may_be_own(self, name: str) -> bool:
        """A record that came with somebody's folder may name anything; what lies elsewhere is never removed."""
        can_be = is_text(name) and all(len(part.encode()) <= LONGEST_NAME for part in name.split("/"))
        return can_be and self._is_inside((self.root / name).parent)

    def is_whole(self, job: str) -> bool:
        """Whether all that this very job writes is there already."""
        state = self._read_state()
        return (
            state is not None
            and state["job"] == job
            and is_file(self.manifest)
            and all(is_file(self.root / name) for name in state["files"])
        )

    def edited(self, are_kept: bool) -> list[Edited]:
        """Captions that somebody has changed by hand since they were written.

        Raises:
            OutputError: one is to be kept, and can't be read.
        """
        state = self._read_state()
        if state is None:
            return []
        if is_file(self.manifest):
            return edited_since(self.root, self.manifest, state["files"], are_kept)
        return from_records(self.root, state, are_kept)

    @contextmanager
    def claimed(self, claim: Claim) -> Iterator[None]:
        """The folder made, and kept from others while the block lasts.

        Raises:
            OutputError: another process works in it or has been there since it was checked, or it can't be made.
        """
        made = [place for place in (self.root, *self.root.parents) if not exists(place)]
        try:
            (self.root / KEPT).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / KEPT / "lock")
            lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(f"{self.root}: another raylora works in it; wait for it, or {ANOTHER}") from None
        except OSError as error:
            raise OutputError(f"{self.root}: can't be made ({error.strerror}); {ANOTHER}") from None
        try:
            self.check(claim)
            yield
        finally:
            if not is_file(self._state):
                self._leave(made)
            lock.release()

    def _leave(self, made: Iterable[Path]) -> None:
        """Take away what claiming it has made, where nothing was begun."""
        (self.root / KEPT / "lock").unlink(missing_ok=True)
        with suppress(OSError):  # somebody's files are in one of them
            for folder in (self.root / KEPT, *made):
                folder.rmdir()

    def begin(self, job: str, files: Collection[str], edited: Sequence[Edited] = ()) -> None:
        """From here on the folder is this work's: what an earlier one has left is no longer whole.

        Args:
            edited: captions that are to stay, whatever becomes of this work.
        """
        state = self._read_state()
        own = sorted({*files, *(state["files"] if state else ())})
        if state:  # what was edited is known by the manifest alone
            self._write_state(state["job"], state["files"], edited)
        self.manifest.unlink(missing_ok=True)  # which says that all of the rest is there
        self._write_state(job, own, edited)
        self._sweep(own)

    def _write_state(self, job: str, files: Collection[str], edited: Sequence[Edited]) -> None:
        content = {"job": job, "files": sorted(files), "edited": as_records(edited)}
        write_atomically(self._state, json.dumps(content).encode())

    def _sweep(self, files: Collection[str]) -> None:
        """Remove halves that a kill has left beside the places of whole files (`write_atomically`)."""
        whole = {self.root / name for name in files}
        for folder in {path.parent for path in whole}:
            for half in folder.glob(".*"):
                if (match := HALF.fullmatch(half.name)) and half.with_name(match[1]) in whole:
                    half.unlink(missing_ok=True)

    def finish(
        self, job: str, files: Collection[str], manifest: bytes,
        edited: Sequence[Edited] = (), spared: Collection[str] = (),
    ) -> None:  # fmt: skip
        """Take away what earlier preparations had and this one hasn't, and put the manifest there, last of all.

        Args:
            edited: captions as their owner has them, which were written so again.
            spared: files that stay all the same, and are nobody's from now on.
        """
        state = self._read_state()
        for name in set(state["files"] if state else ()) - {*files, *spared}:
            path = self.root / name
            with suppress(FileNotFoundError, NotADirectoryError):
                if not is_folder(path):  # which is somebody else's by now
                    path.unlink()
            with suppress(OSError):  # others' files are in it
                path.parent.rmdir()
        self._write_state(job, files, edited)
        write_atomically(self.manifest, manifest)

    def recall(self, kind: str, key: str) -> dict[str, Any] | None:
        """What was kept of earlier work, if anything was and can be read."""
        try:
            return read_mapping(self._kept(kind, key))
        except (OSError, ValueError):
            return None

    def keep(self, kind: str, key: str, content: Mapping[str, Any]) -> None:
        """Keep work from being done again."""
        write_atomically(self._kept(kind, key), json.dumps(content).encode())

    def _kept(self, kind: str, key: str) -> Path:
        return self.root / KEPT / kind / f"{key}.json"

    def thumbnail(self, key: str) -> Path:
        return self.root / KEPT / "thumbnails" / f"{key}.jpg"
