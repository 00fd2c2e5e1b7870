"""Whether MLflow takes what a search would write, found out by writing it and taking it away again."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from raylora.errors import TrackingError
from raylora.tracking.mlflow_store import REACH_S, artifacts_of, check_reachable, patience, reason_of

TRIED = "raylora-doctor"


def try_writing(uri: str, experiment: str) -> str:
    """Make a run with a metric and a small file, and delete all of it; a sqlite file that wasn't there goes too.

    MLflow keeps deleted runs for `mlflow gc`; nobody else sees them.

    Args:
        uri: an absolute tracking URI.
        experiment: the name of the one that a search would write to. If there is none yet, one of another name is
            made and deleted: a deleted one of that name would be in the search's way.

    Returns:
        Where files go.

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


def _write_and_delete(client: MlflowClient, experiment_id: str, folder: Path) -> str:
    run = client.create_run(experiment_id, run_name=TRIED)
    file = folder / f"{TRIED}.txt"
    file.write_text("written and deleted by raylora doctor")
    uri = str(run.info.artifact_uri)
    try:
        client.log_metric(run.info.run_id, TRIED, 1.0)
        client.log_artifact(run.info.run_id, str(file))
        if [found.path for found in client.list_artifacts(run.info.run_id)] != [file.name]:
            raise OSError(f"{uri} doesn't show what was written there")
        get_artifact_repository(uri, tracking_uri=client.tracking_uri).delete_artifacts()
    finally:
        client.delete_run(run.info.run_id)
        _remove_empty(uri)
    return uri.rpartition(f"/{experiment_id}/")[0] or uri


def _remove_empty(uri: str) -> None:
    """Where files go to a folder: the run's own, and its experiment's if that has none but this."""
    folder = Path(urlsplit(uri).path)
    if urlsplit(uri).scheme not in ("", "file"):
        return
    with suppress(OSError):  # up to the first that isn't empty
        for place in (folder, *folder.parents[:2]):
            if place.exists():
                place.rmdir()


@contextmanager
def _experiment(client: MlflowClient, uri: str, name: str) -> Iterator[str]:
    """The experiment of that name, else one that ends with the block."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        yield str(found.experiment_id)
        return
    made = str(client.create_experiment(f"{TRIED}-{uuid.uuid4().hex[:8]}", artifact_location=artifacts_of(uri)))
    try:
        yield made
    finally:
        client.delete_experiment(made)


@contextmanager
def _left_as_it_was(uri: str) -> Iterator[None]:
    """A sqlite file and the folder of its artifacts are taken away after the block if they weren't there before."""
    place = artifacts_of(uri)
    if place is None:
        yield
        return
    file, artifacts = Path(uri.removeprefix("sqlite:///")), Path(place.removeprefix("file://"))
    was_there, had_artifacts = file.exists(), artifacts.exists()
    try:
        yield
    finally:
        if not was_there:
            for name in (file.name, f"{file.name}-wal", f"{file.name}-shm", f"{file.name}-journal"):
                file.with_name(name).unlink(missing_ok=True)
        if not had_artifacts:
            with suppress(OSError):  # somebody else has put something there meanwhile
                artifacts.rmdir()
