"""A search whose machines share no disk: its folder on a storage, of which each machine keeps what it works on.

The driver's own output folder stays on its disk, with settings, study and records. What the cluster makes goes to the
storage before anybody hears of it: the encoded images, each trial's samples, states and weights, the winner's files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from raylora.config import Experiment
from raylora.dataset.remote import fetch
from raylora.errors import OutputError, StorageError
from raylora.execution.material import TEXTS_NAME
from raylora.execution.outputs import OutFolder
from raylora.execution.trial_job import TrialJob
from raylora.files import STATE_NAME, fold_folders
from raylora.storage import Storage, is_uri, scratch

MARKER_NAME = "raylora.json"
"""On the storage: which search its folder belongs to."""
LAST = (STATE_NAME, TEXTS_NAME)
"""Files that speak of others, and so follow them."""
PATIENCE_S = 300
"""How long work waits for a storage that is away: well below `search.hang_s`."""


@dataclass(frozen=True)
class Mirror:
    """A search's folder on a storage, and each machine's copy of it. Small, since it travels to every trial."""

    uri: str
    run: str
    """Of this search alone, so that no machine takes the copies of another one for its own."""
    name: str
    """The output folder's name, which stands in the files of a LoRA."""

    @property
    def storage(self) -> Storage:
        return Storage(self.uri, PATIENCE_S)

    @property
    def root(self) -> Path:
        """This machine's copy, laid out like an output folder."""
        return scratch() / "searches" / hashlib.sha256(f"{self.uri} {self.run}".encode()).hexdigest()[:16] / self.name

    def pull(self, below: str, wanted: Callable[[str], bool] = lambda _: True) -> None:
        """Bring a folder to this machine: by the first one here that wants it, while others wait."""
        lock = self.root.parent / f"{below.replace('/', '-')}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            self.storage.pull(self.root, below, wanted)

    def push(self, below: str) -> None:
        """Bring what is new in this machine's copy of a folder to the storage."""
        self.storage.push(self.root, below, LAST)

    def bring(self, out: OutFolder, below: str) -> None:
        """Bring a folder to where users look for it."""
        self.storage.pull(out.root, below)

    def has_cache(self, experiment: Experiment) -> bool:
        """Whether all that trials share is there."""
        places = fold_folders(Path("cache"), experiment.dataset.folds)
        return all(self.storage.has((place / TEXTS_NAME).as_posix()) for place in places)

    def forget(self) -> None:
        """Remove this machine's copy."""
        shutil.rmtree(self.root.parent, ignore_errors=True)


@contextmanager
def claimed(experiment: Experiment, out: OutFolder) -> Iterator[Mirror | None]:
    """The search's folder on `search.storage`, kept from others; none without that setting.

    Work that breaks off before its state is written leaves nothing there.

    Raises:
        OutputError: another search has it, or it can't be used.
    """
    if experiment.search.storage is None:
        yield None
        return
    mirror = Mirror(experiment.search.storage, uuid.uuid4().hex, out.root.name)
    with _told_of_the_setting():
        _check_empty(mirror.uri)
        Storage(mirror.uri).write(MARKER_NAME, json.dumps({"run": mirror.run, "name": mirror.name}).encode())
        _check_own(mirror, f"is empty no more; {_OTHER}")
    try:
        yield mirror
    except BaseException:
        if not out.state_file.is_file():
            with suppress(StorageError):
                Storage(mirror.uri).delete(MARKER_NAME)
        raise


def reopened(experiment: Experiment, state: dict[str, Any], out: OutFolder) -> Mirror | None:
    """The same of a search that goes on.

    Raises:
        OutputError: it holds nothing of this search, can't be used, or the search began otherwise.
    """
    run = state.get("storage_run")
    if run is not None and experiment.search.storage is None:
        raise OutputError(f"{out.experiment}: this search began with search.storage; put back what it was")
    if experiment.search.storage is None:
        return None
    if not isinstance(run, str):
        raise OutputError(f"{out.experiment}: this search began without search.storage; take that out again")
    mirror = Mirror(experiment.search.storage, run, out.root.name)
    with _told_of_the_setting():
        Storage(mirror.uri).check()
        _check_own(mirror, f"holds nothing of the search in {out.root}; put back what was there, or start anew")
    return mirror


def check_storage(experiment: Experiment) -> None:
    """Whether a new search can have its folder on the storage; nothing is left there.

    Raises:
        OutputError: it can't be written, or holds something.
    """
    if experiment.search.storage is not None:
        with _told_of_the_setting():
            Storage(experiment.search.storage).check()
            _check_empty(experiment.search.storage)


_OTHER = "give another folder with --set search.storage=…"


def _check_empty(uri: str) -> None:
    storage = Storage(uri)
    if storage.has(MARKER_NAME):
        raise StorageError(f"{uri}: holds another search, {_marker(storage).get('name')}; {_OTHER}")
    if storage.names():
        raise StorageError(f"{uri}: is not empty; {_OTHER}")


def _check_own(mirror: Mirror, otherwise: str) -> None:
    storage = Storage(mirror.uri)
    if not storage.has(MARKER_NAME) or _marker(storage).get("run") != mirror.run:
        raise StorageError(f"{mirror.uri}: {otherwise}")


def _marker(storage: Storage) -> dict[str, Any]:
    try:
        return dict(json.loads(storage.read(MARKER_NAME)))
    except (ValueError, TypeError):
        return {}


@contextmanager
def _told_of_the_setting() -> Iterator[None]:
    """Before anything has started, it is what was given that is wrong."""
    try:
        yield
    except StorageError as error:
        raise OutputError(f"search.storage {error}") from None


def reach(mirror: Mirror | None, datasets: Sequence[str]) -> str | None:
    """What keeps this machine from the storages that a search works with; None if nothing does."""
    try:
        for uri in datasets:
            Storage(uri).names(may_miss=False)
        if mirror is not None:
            _check_own(mirror, "holds another search, or nothing of this one")
            Storage(mirror.uri).check()
    except StorageError as error:
        return str(error)
    return None


def remote_datasets(experiment: Experiment) -> list[str]:
    """The datasets that lie on object storage."""
    dataset = experiment.dataset
    return [uri for uri in (dataset.path, dataset.regularization) if uri and is_uri(uri)]


@contextmanager
def at_work(
    mirror: Mirror | None,
    out: Path,
    pulls: Sequence[str] = (),
    pushes: Sequence[str] = (),
    wanted: Callable[[str], bool] = lambda _: True,
) -> Iterator[OutFolder]:
    """Where work for the cluster finds the folders that it needs, and leaves those that it makes.

    Args:
        out: the output folder itself, which all machines share where there is no mirror.
        pulls: folders that are brought to this machine before.
        pushes: folders whose new files are on the storage afterwards.
        wanted: which files, by name, are brought here.
    """
    if mirror is None:
        yield OutFolder(out)
        return
    for below in pulls:
        mirror.pull(below, wanted)
    yield OutFolder(mirror.root)
    for below in pushes:
        mirror.push(below)


@contextmanager
def datasets_here(experiment: Experiment) -> Iterator[None]:
    """Work that may read pictures, wherever it runs: remote ones are on this machine while it lasts."""
    for uri in remote_datasets(experiment):
        fetch(uri)
    yield


@contextmanager
def trial_at_work(job: TrialJob, number: int) -> Iterator[TrialJob]:
    """A trial's job as this machine has it, wherever it was before: its folder is here, and kept after each change."""
    folder = _folder_of(job, number)
    with datasets_here(job.experiment), at_work(job.mirror, job.out, ["cache", folder]) as out:
        yield _here(job, out, [folder])


@contextmanager
def refit_at_work(job: TrialJob, is_first: bool) -> Iterator[TrialJob]:
    """The same of the training on all images, and of the files that its first worker leaves."""
    made = ["epochs", "best"] if is_first else []
    pulls = ["cache", "refit", "epochs"]
    with datasets_here(job.experiment), at_work(job.mirror, job.out, pulls, made) as out:
        yield _here(job, out, ["epochs", "refit"])


def _folder_of(job: TrialJob, number: int) -> str:
    return job.folder(number).relative_to(job.out).as_posix()


def _here(job: TrialJob, out: OutFolder, kept: Sequence[str]) -> TrialJob:
    mirror = job.mirror
    if mirror is None:
        return job

    def keep() -> None:
        for below in kept:
            mirror.push(below)

    return replace(job, out=out.root, mirror=None, kept=keep)
