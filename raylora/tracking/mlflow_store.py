"""Where MLflow keeps what it is told, whether that can be reached, and how long it may take to answer."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment as MlflowExperiment
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.utils.logging_utils import MLFLOW_LOGGING_STREAM
from sqlalchemy import create_engine, make_url

from raylora.errors import TrackingError, first_line
from raylora.files import is_file, is_folder, resolved

DATABASES = {
    "postgresql": (5432, "connect_timeout"),
    "mysql": (3306, "connect_timeout"),
    "mssql": (1433, "timeout"),
}
"""Those that MLflow has stores for: the port that each listens on, and its drivers' word for how long to wait."""
SQLITE = "sqlite:///"
DEFAULT_STORE = "mlflow.db"
DEFAULT_ARTIFACTS = "mlartifacts"
REACH_S = 10
"""How long a small call may take: Tune's loop waits for it."""
UPLOAD_S = 120
"""The same for the winner's files, which nothing waits for; MLflow's own default for every call."""
TRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
BARS = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"


def tracking_uri(configured: str | None, out: Path) -> str:
    """An absolute tracking URI: the configured one, else a sqlite file in the output folder.

    Raises:
        TrackingError: a URI that MLflow 3 has no store for.
    """
    if configured is None:
        return f"sqlite:///{resolved(out / DEFAULT_STORE)}"
    if configured.startswith("sqlite:///"):
        return f"sqlite:///{resolved(Path(configured.removeprefix('sqlite:///')))}"
    if configured.lower().startswith("sqlite:"):
        raise TrackingError(f"tracking URI {configured}: names no file; give sqlite:/// and the path of one")
    if "://" not in configured:
        raise TrackingError(
            f"tracking URI {configured}: MLflow's file store is deprecated; "
            f"use sqlite:///{configured}.db or the http(s):// address of a server"
        )
    return configured


def artifacts_of(uri: str) -> str | None:
    """Where a new experiment keeps its files, as MLflow wants it said: beside a sqlite file, and not in `mlruns` of
    whatever the working directory is. A server knows a place of its own."""
    file = store_file(uri)
    return (file.parent / DEFAULT_ARTIFACTS).resolve().as_uri() if file else None


def store_file(uri: str) -> Path | None:
    """The file of a sqlite store; None of any other."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


@contextmanager
def patience(seconds: int) -> Iterator[None]:
    """By itself MLflow asks an absent server for minutes; within the block each call gets two tries of so long."""
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
        TRIES: "1",
        "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    }
    with _environment(wanted):
        yield


@contextmanager
def one_try() -> Iterator[None]:
    """Within `patience`, for what makes something: were only the answer lost, a second try would make it twice."""
    with _environment({TRIES: "0"}):
        yield


def make_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """The id of a new experiment, or of the one of that name that is there all the same: made by another search just
    now, or by a try of ours whose answer was lost.

    Raises:
        MlflowException: there is none.
    """
    try:
        return str(client.create_experiment(name, artifact_location=artifacts_of(uri)))
    except MlflowException:
        if found := client.get_experiment_by_name(name):
            return str(found.experiment_id)
        raise


@contextmanager
def without_news() -> Iterator[None]:
    """MLflow draws a bar for each file, and prints what it has registered, whatever its loggers may say."""
    before, MLFLOW_LOGGING_STREAM.enabled = MLFLOW_LOGGING_STREAM.enabled, False
    try:
        with _environment({BARS: "false"}):
            yield
    finally:
        MLFLOW_LOGGING_STREAM.enabled = before


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """MLflow's settings are variables, which it reads at each call."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def uploading(client: MlflowClient) -> Iterator[None]:
    """Files get more time than small calls, but only a store that answers at all gets files."""
    with patience(REACH_S):
        client.search_experiments(max_results=1)
    with patience(UPLOAD_S), without_news():
        yield


def check_reachable(uri: str, experiment: str | None = None) -> None:
    """Ask the server for its experiments, before any training starts.

    Args:
        experiment: the name of one that is to be written to, if it is known yet.

    Raises:
        TrackingError: no answer, or that experiment was deleted.
    """
    quieten()
    if file := store_file(uri):
        _check_sqlite(file)
        if not file.exists():  # asking would make it
            return
    try:
        if uri.startswith(tuple(DATABASES)):
            _check_database(uri)
        with patience(REACH_S):
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
            found = client.get_experiment_by_name(experiment) if experiment else None
    except Exception as error:  # MLflow, requests and SQLAlchemy raise many kinds
        raise TrackingError(
            f"tracking URI {uri}: MLflow can't be reached ({reason_of(error)}); start the server, mend the address, "
            "or leave --tracking-uri out to use a file in the output folder"
        ) from None
    if found is not None:
        check_active(found, uri)


def check_active(experiment: MlflowExperiment, uri: str) -> None:
    """MLflow finds deleted experiments by their names, but makes no run in them."""
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        raise TrackingError(
            f"tracking URI {uri}: the MLflow experiment {experiment.name} was deleted; restore it "
            f"(`mlflow experiments restore -x {experiment.experiment_id}`), delete it for good (`mlflow gc`), "
            "or give another by --set tracking.experiment=NAME"
        )


def reason_of(error: Exception) -> str:
    """What the operating system said, out of requests' long chain of causes; else the first line."""
    told = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    return told[1].strip() if told else "no answer" if "timed out" in str(error) else first_line(error)[:200]


def _check_sqlite(file: Path) -> None:
    """MLflow would try for minutes to open a file in a folder that isn't there."""
    if is_folder(file):
        raise TrackingError(f"tracking URI sqlite:///{file}: is a folder; give the path of a file in it")
    try:
        if not is_file(file):
            TemporaryFile(dir=file.parent).close()
        elif not os.access(file, os.W_OK) or not os.access(file.parent, os.W_OK):
            raise PermissionError
    except OSError:
        raise TrackingError(
            f"tracking URI sqlite:///{file}: {file.parent} can't be written; make it, or name another"
        ) from None


def _check_database(uri: str) -> None:
    """Connect to a database once: MLflow itself tries for an hour, with whatever is wrong.

    Raises:
        Exception: what SQLAlchemy and its drivers raise.
    """
    found = make_url(uri)
    port, time_limit = DATABASES[found.get_backend_name()]
    socket.create_connection((found.host or "localhost", found.port or port), timeout=REACH_S).close()
    engine = create_engine(found, connect_args={time_limit: REACH_S})
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def quieten() -> None:
    """Leave MLflow's own news out. It prints where runs of a server can be seen, also between the lines of `--json`.

    What it tells its makers of each call is left out too, as with Ray, unless somebody wants it: it takes a tenth of
    the call's time.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def set_current(uri: str) -> None:
    """Point MLflow's own functions, which know only one store at a time, to this one."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
