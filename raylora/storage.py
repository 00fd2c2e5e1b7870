"""Folders on object storage (`s3://bucket/prefix`, `gs://bucket/prefix`), and on mounted disks (`file:///folder`)."""

from __future__ import annotations

import mmap
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from raylora.errors import StorageError
from raylora.files import write_atomically

SCHEMES = ("s3", "gs", "file")
URI = re.compile(rf"({'|'.join(SCHEMES)})://(.*)", re.DOTALL)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
AT_ONCE = 8
"""Objects on their way at once."""
LONGEST_NAME = 200
"""Bytes of a file's name, with room for what is put around it while it is written."""
Answer = TypeVar("Answer")


def is_uri(reference: str | None) -> bool:
    """Whether a reference names a folder on a storage and not a path."""
    return bool(reference and URI.fullmatch(reference))


def checked_uri(reference: str) -> str:
    """A URI as it stands in settings, without a slash at its end.

    Raises:
        ValueError: it is none, or holds what belongs into the environment.
    """
    match = URI.fullmatch(reference)
    if not match:
        raise ValueError(f"must begin with {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    scheme, place = match[1], match[2].rstrip("/")
    bucket, *prefix = place.split("/")
    if re.search("[@:]", bucket) or re.search("[?#]", place):
        raise ValueError("must hold no credentials and no options; give those in the environment, as AWS_ENDPOINT_URL")
    if not place or (bucket == "") != (scheme == "file"):
        raise ValueError("must name a bucket" if bucket == "" else "must be an absolute path, as in file:///mnt/shared")
    if bucket in (".", "..") or any(part in ("", ".", "..") for part in prefix):
        raise ValueError("must hold no empty part, no `.` and no `..`")
    return f"{scheme}://{place}"


def scratch_place() -> Path:
    """Where this machine keeps copies, made or not: in the folder for temporary files (TMPDIR), of this user alone."""
    return Path(tempfile.gettempdir()) / f"raylora-{os.getuid()}"


def is_foreign(folder: Path) -> bool:
    """Whether somebody else has made a folder, or put a link in its place."""
    return folder.is_symlink() or folder.stat().st_uid != os.getuid()


def scratch() -> Path:
    """The same, made.

    Raises:
        StorageError: somebody else has made it.
    """
    folder = scratch_place()
    folder.mkdir(mode=0o700, exist_ok=True)
    if is_foreign(folder):
        raise StorageError(f"{folder}: belongs to another user; remove it, or set TMPDIR to a folder of your own")
    return folder


def _missing(folder: Path) -> list[Path]:
    """Which folders on the way to it, and itself, are not there, the innermost first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


@dataclass(frozen=True)
class Found:
    """A file on the storage."""

    size: int
    changed_ns: int
    """When it was last written, in ns since 1970; of whole seconds on S3."""

    def is_same(self, path: Path) -> bool:
        """Whether a file here is its copy: a copy is given the same time."""
        try:
            here = path.stat()
        except OSError:
            return False
        return (here.st_size, here.st_mtime_ns) == (self.size, self.changed_ns)


@dataclass(frozen=True)
class Storage:
    """A folder on a storage. Names in it are relative, with slashes; hidden ones (`.name`) are nobody's business.

    Copies have the size and the time of their originals, by which either side knows what has changed: nothing is kept
    beside them that could get out of step. That takes one writer of a file at a time.

    Args:
        uri: as `checked_uri` gives it.
        patience_s: how long to ask again where something fails that may mend itself, as a server that is away.

    All methods raise StorageError: what failed, and how to mend it.
    """

    uri: str
    patience_s: float = 0.0

    @property
    def _scheme(self) -> str:
        return self.uri.partition("://")[0]

    @property
    def _root(self) -> str:
        """As pyarrow has it: `bucket/prefix`, or an absolute path."""
        return self.uri.partition("://")[2]

    @property
    def _filesystem(self) -> Any:
        from raylora.storage_access import filesystem

        return filesystem(self._scheme, self._root.partition("/")[0])

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def check(self) -> None:
        """Write, read back and delete a small file; folders that were made for it go, too."""
        name, content = f".check-{uuid.uuid4().hex}", uuid.uuid4().bytes
        made = _missing(Path(self._root)) if self._scheme == "file" else []
        self.write(name, content)
        try:
            if self.read(name) != content:
                raise StorageError(f"{self.uri}: gives back something else than was written; use another storage")
        finally:
            self.delete(name)
            with suppress(OSError):
                for folder in made:
                    folder.rmdir()

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._look(name) is not None

    def read(self, name: str) -> bytes:
        """A whole file."""

        def ask() -> bytes:
            with self._filesystem.open_input_stream(self._path(name)) as stream:
                return bytes(stream.readall())

        return self._ask(ask, name)

    def write(self, name: str, content: Any) -> None:
        """A file, whole or not at all.

        Args:
            content: bytes, or what pyarrow takes for them.
        """

        def ask() -> None:
            if self._scheme == "file":
                write_atomically(Path(self._path(name)), content)
                return
            with self._filesystem.open_output_stream(self._path(name)) as stream:
                stream.write(content)  # in one go: closing a stream keeps what was written to it, were it half a file

        self._ask(ask, name)

    def delete(self, name: str) -> None:
        """Take a file away, if it is there."""

        def ask() -> None:
            try:
                self._filesystem.delete_file(self._path(name))
            except FileNotFoundError:
                return

        self._ask(ask, name)

    def names(self, may_miss: bool = True) -> list[str]:
        """What lies in it, files and folders, hidden ones left out.

        Args:
            may_miss: whether there may be no such folder, which is as good as an empty one.
        """
        names = (info.path.rpartition("/")[2] for info in self._list("", deep=False, may_miss=may_miss))
        return [name for name in names if not name.startswith(".")]

    def files(self, below: str = "", may_miss: bool = True) -> dict[str, Found]:
        """All files in a folder of it and in its folders, hidden ones left out."""
        from pyarrow import fs  # type: ignore[import-untyped]

        found = {}
        for info in self._list(below, deep=True, may_miss=may_miss):
            name = info.path.removeprefix(f"{self._root}/")
            if info.type == fs.FileType.File and not self._is_hidden(name):
                found[name] = Found(info.size, info.mtime_ns)
        self._check_shape(found)
        return found

    def _list(self, below: str, deep: bool, may_miss: bool) -> list[Any]:
        from pyarrow import fs

        selector = fs.FileSelector(self._path(below), recursive=deep, allow_not_found=may_miss)
        return self._ask(lambda: list(self._filesystem.get_file_info(selector)), below)

    def _is_hidden(self, name: str) -> bool:
        """Names of objects are any text: those that aren't paths below a folder are refused, hidden or not."""
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\0" in part or len(part.encode()) > LONGEST_NAME for part in parts):
            raise StorageError(
                f"{self.uri}: the object named {name!r} can't be a file below a folder; rename or remove it"
            )
        return any(part.startswith(".") for part in parts)

    def _check_shape(self, names: Collection[str]) -> None:
        """Objects may be named as if one was a file and a folder at once."""
        folders = {str(parent) for name in names for parent in Path(name).parents}
        if both := folders & set(names):
            raise StorageError(f"{self.uri}: {min(both)} is an object, and others are below it; rename one of them")

    def pull(
        self, folder: Path, below: str = "", wanted: Callable[[str], bool] = lambda _: True, exactly: bool = False
    ) -> list[str]:
        """Bring what is new in a folder of the storage to the same place below a folder here.

        Args:
            wanted: which files, by name.
            exactly: whether other files there are taken away.

        Returns:
            the names of the files that were brought.
        """
        found = {name: there for name, there in self.files(below).items() if wanted(name)}
        changed = [name for name, there in found.items() if not there.is_same(folder / name)]
        _at_once(lambda name: self._bring(folder, name, found[name]), changed)
        if exactly:
            _remove_others(folder, below, found)
        return changed

    def _bring(self, folder: Path, name: str, there: Found) -> None:
        content = self.read(name)
        if len(content) != there.size:  # written anew since it was listed
            there = self._look(name) or there
            content = self.read(name)
        if len(content) != there.size:
            raise StorageError(f"{self.uri}/{name}: changes while it is read; let one program at a time write there")
        write_atomically(folder / name, content)
        os.utime(folder / name, ns=(there.changed_ns, there.changed_ns))

    def push(self, folder: Path, below: str = "", last: Collection[str] = ()) -> list[str]:
        """Bring what is new in a folder here to the same place on the storage.

        Args:
            last: names of files (without folders) that follow when all others are there, since they speak of them.

        Returns:
            the names of the files that were brought.
        """
        there, here = self.files(below), _files_in(folder, below)
        changed = [name for name in here if name not in there or not there[name].is_same(here[name])]
        late = [name for name in changed if here[name].name in last]
        _at_once(lambda name: self._send(here[name], name), [name for name in changed if name not in late])
        for name in late:
            self._send(here[name], name)
        return changed

    def _send(self, path: Path, name: str) -> None:
        """A file as it stands there now: one that is moved into its place meanwhile keeps its own, newer time."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.write(name, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")
            there = self._look(name)
            if there is None or there.size != size:
                raise StorageError(f"{self.uri}/{name}: is not there as it was written; use another storage")
            os.utime(file.fileno(), ns=(there.changed_ns, there.changed_ns))

    def _look(self, name: str) -> Found | None:
        from pyarrow import fs

        (info,) = self._ask(lambda: self._filesystem.get_file_info([self._path(name)]), name)
        return Found(info.size, info.mtime_ns) if info.type == fs.FileType.File else None

    def _ask(self, ask: Callable[[], Answer], name: str) -> Answer:
        """Do something there, again and again while it may still succeed."""
        deadline, pause_s = time.monotonic() + self.patience_s, FIRST_PAUSE_S
        while True:
            try:
                return ask()
            except OSError as error:
                from raylora.storage_access import reason_of

                reason, is_lasting = reason_of(error, self._scheme)
                if is_lasting or time.monotonic() + pause_s > deadline:
                    where = f"{self.uri}/{name}".rstrip("/") if isinstance(error, FileNotFoundError) else self.uri
                    raise StorageError(f"{where}: {reason}") from None
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _at_once(do: Callable[[str], None], names: Collection[str]) -> None:
    """For each name, some at a time; what fails first is raised, and no further ones are begun."""
    if not names:
        return
    with ThreadPoolExecutor(min(AT_ONCE, len(names))) as pool:
        futures = [pool.submit(do, name) for name in names]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _files_in(folder: Path, below: str) -> dict[str, Path]:
    """The files in a folder here by their names, in an order that is always the same; hidden ones left out."""
    paths = sorted(path for path in (folder / below).rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path for name, path in named.items() if not any(part.startswith(".") for part in name.split("/"))}


def _remove_others(folder: Path, below: str, known: Mapping[str, Found]) -> None:
    for name, path in _files_in(folder, below).items():
        if name not in known:
            path.unlink()
