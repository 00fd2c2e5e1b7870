"""Whether MLflow takes what a search would write, found out by writing it and taking it away again."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from raylora.errors import TrackingError
from raylora.tracking.mlflow_store import REACH_S, check_reachable, make_experiment, one_try, patience, reason_of

TRIED = "raylora-doctor"


@dataclass(frozen=True)
class Written:
    """How writing went."""

    place: str
    """Where files go."""
    left: str | None = None
    """The file that stays, since the artifact store deletes nothing, which a search doesn't need."""
    reason: str | None = None
    """What the store said to that, if anything."""


def try_writing(uri: str, experiment: str) -> Written:
    """Make a run with a metric and a small file, and delete all of it; a sqlite file that wasn't there goes too.

    MLflow keeps deleted runs for `mlflow gc`; nobody else sees them. Some artifact stores can't delete, or not with
    everybody's rights: there the file stays.

    Args:
        uri: an absolute tracking URI.
        experiment: the name of the one that a search would write to. If there is none yet, one of another name is
            made and deleted: a deleted one of that name would be in the search's way.

    Raises:
        TrackingError: no answer, a deleted experiment, or something can't be written.
    """
    check_reachable(uri, experiment)
    with _left_as_it_was(uri), tempfile.TemporaryDirectory() as folder, chdir(folder), patience(REACH_S):
        client = MlflowClient(uri)
        try:
            with _experiment(client, uri, experiment) as experiment_id:
                return _write_and_delete(client, experiment_id, Path(folder))
        except Exception as error:  # MLflow, its stores and clouds raise many kinds
            raise TrackingError(
                f"tracking URI {uri}: MLflow can be reached, but not written ({reason_of(error)}); let your user write "
                "runs and artifacts there, and give this machine what its artifact store asks for"
            ) from None


def _write_and_delete(client: MlflowClient, experiment_id: str, folder: Path) -> Written:
    with one_try():
        run = client.create_run(experiment_id, run_name=TRIED)
    uri, run_id = str(run.info.artifact_uri), run.info.run_id
    file = folder / f"{TRIED}.txt"
    file.write_text("written and deleted by raylora doctor")
    made = _not_there(uri)
    try:
        client.log_metric(run_id, TRIED, 1.0)
        client.log_artifact(run_id, str(file))
        if not _is_there(client, run_id, file.name):
            raise OSError(f"{uri} doesn't show what was written there")
        is_gone, reason = _delete(client, uri, run_id, file.name)
    finally:
        client.delete_run(run_id)
        for place in made:
            with suppress(OSError):  # somebody else has put something there meanwhile
                place.rmdir()
    root = uri.partition(f"/{run_id}/")[0]
    return Written(root) if is_gone else Written(root, f"{uri}/{file.name}", reason)


def _is_there(client: MlflowClient, run_id: str, name: str) -> bool:
    return [found.path for found in client.list_artifacts(run_id)] == [name]


def _delete(client: MlflowClient, uri: str, run_id: str, name: str) -> tuple[bool, str | None]:
    """Whether a run's file could be deleted, and what kept it there: several of MLflow's artifact stores raise, others
    do nothing and don't say so."""
    try:
        get_artifact_repository(uri, tracking_uri=client.tracking_uri).delete_artifacts()
    except Exception as error:  # of all kinds of clouds
        return False, reason_of(error)
    try:
        return not _is_there(client, run_id, name), None
    except Exception:  # it has shown the file before: now there is no such folder
        return True, None


def _not_there(uri: str) -> list[Path]:
    """The folders that writing to it makes, the deepest first; none where it isn't one of this machine."""
    parts = urlsplit(uri)
    folder = Path(unquote(parts.path))
    return [] if parts.scheme not in ("", "file") else [at for at in (folder, *folder.parents) if not at.exists()]


@contextmanager
def _experiment(client: MlflowClient, uri: str, name: str) -> Iterator[str]:
    """The experiment of that name, else one that ends with the block."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        yield str(found.experiment_id)
        return
    made = make_experiment(client, uri, f"{TRIED}-{uuid.uuid4().hex[:8]}")
    try:
        yield made
    finally:
        client.delete_experiment(made)


@contextmanager
def _left_as_it_was(uri: str) -> Iterator[None]:
    """A sqlite file that wasn't there before the block is taken away after it."""
    file = Path(uri.removeprefix("sqlite:///"))
    is_made = uri.startswith("sqlite:///") and not file.exists()
    try:
        yield
    finally:
        for ending in ("", "-wal", "-shm", "-journal") if is_made else ():
            file.with_name(f"{file.name}{ending}").unlink(missing_ok=True)
