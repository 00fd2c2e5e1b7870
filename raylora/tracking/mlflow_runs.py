"""MLflow: a parent run for the search, a child run for each trial."""

from __future__ import annotations

import logging
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment as MlflowExperiment
from mlflow.entities import LifecycleStage, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from PIL import Image

from raylora import __version__
from raylora.errors import TrackingError, first_line
from raylora.tracking.recorder import TrialRecord, measures

DEFAULT_STORE = "mlflow.db"
DEFAULT_ARTIFACTS = "mlartifacts"
RECORDED_PACKAGES = ("bitsandbytes", "diffusers", "mlflow", "optuna", "peft", "ray", "torch", "transformers")
LONGEST_PARAM = 500
"""Characters; MLflow's own limit is 6,000, but nobody reads those."""
MOST_METRICS_PER_CALL = 1000
"""MLflow's limit of a `log_batch`."""
REACH_S = 10
Warn = Callable[[str], None]
STATUS = {"finished": "FINISHED", "stopped_early": "FINISHED", "failed": "FAILED", "running": "RUNNING"}


def tracking_uri(configured: str | None, out: Path) -> str:
    """An absolute tracking URI: the configured one, else a sqlite file in the output folder.

    Raises:
        TrackingError: a URI that MLflow 3 has no store for.
    """
    if configured is None:
        return f"sqlite:///{(out / DEFAULT_STORE).resolve()}"
    if configured.startswith("sqlite:///"):
        return f"sqlite:///{Path(configured.removeprefix('sqlite:///')).expanduser().resolve()}"
    if "://" not in configured:
        raise TrackingError(
            f"tracking URI {configured}: MLflow's file store is deprecated; "
            f"use sqlite:///{configured}.db or the http(s):// address of a server"
        )
    return configured


def _artifacts_of(uri: str) -> str | None:
    """Where a new experiment keeps its files, as MLflow wants it said: beside a sqlite file, and not in `mlruns` of
    whatever the working directory is. A server knows a place of its own."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).parent / DEFAULT_ARTIFACTS).resolve().as_uri()


@contextmanager
def _short_patience() -> Iterator[None]:
    """MLflow asks an absent server for minutes; seconds are enough to tell."""
    wanted = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(REACH_S), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def check_reachable(uri: str, experiment: str | None = None) -> None:
    """Ask the server for its experiments, before any training starts.

    Args:
        experiment: the name of one that is to be written to, if it is known yet.

    Raises:
        TrackingError: no answer, or that experiment was deleted.
    """
    _quieten()
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///"))
        _check_sqlite(file)
        if not file.exists():  # asking would make it
            return
    try:
        with _short_patience():
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
            found = client.get_experiment_by_name(experiment) if experiment else None
    except Exception as error:  # MLflow, requests and SQLAlchemy raise many kinds
        raise TrackingError(
            f"tracking URI {uri}: MLflow can't be reached ({_reason(error)}); start the server, mend the address, "
            "or leave --tracking-uri out to use a file in the output folder"
        ) from None
    if found is not None:
        _check_active(found, uri)


def _check_active(experiment: MlflowExperiment, uri: str) -> None:
    """MLflow finds deleted experiments by their names, but makes no run in them."""
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        raise TrackingError(
            f"tracking URI {uri}: the MLflow experiment {experiment.name} was deleted; restore it "
            f"(`mlflow experiments restore -x {experiment.experiment_id}`), delete it for good (`mlflow gc`), "
            "or give another by --set tracking.experiment=NAME"
        )


def _reason(error: Exception) -> str:
    """What the operating system said, out of requests' long chain of causes; else the first line."""
    told = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    return told[1].strip() if told else "no answer" if "timed out" in str(error) else first_line(error)[:200]


def _check_sqlite(file: Path) -> None:
    """MLflow would try for minutes to open a file in a folder that isn't there."""
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        raise TrackingError(f"tracking URI sqlite:///{file}: {file.parent} can't be written; make it, or name another")


def _quieten() -> None:
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


class MlflowTracker:
    """Listens to a search and writes it down. Only the driver writes, so one process owns the run map.

    Args:
        uri: absolute tracking URI.
        experiment: name of the MLflow experiment. Where it doesn't exist it is made, with its files beside a sqlite
            file, or wherever a server keeps them.
        warn: told once when the store stops answering.
    """

    def __init__(self, uri: str, experiment: str, warn: Warn = lambda _: None):
        _quieten()
        self.uri, self._warn = uri, warn
        self._behind: dict[int, TrialRecord] = {}
        self._client = MlflowClient(uri)
        self._experiment_id = self._get_or_create(experiment)
        self.parent_run_id = ""

    def _get_or_create(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            _check_active(found, self.uri)
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name, artifact_location=_artifacts_of(self.uri)))
        except MlflowException as error:
            raise TrackingError(f"MLflow experiment {name}: can't be made ({error})") from None

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], run_id: str | None = None) -> None:
        """Open the parent run, or go on with `run_id`."""
        if run_id:
            self.parent_run_id = run_id
            self._client.update_run(run_id, status="RUNNING")
            return
        run = self._client.create_run(self._experiment_id, run_name=name, tags={**tags, **environment_tags()})
        self.parent_run_id = run.info.run_id
        self._log_params(self.parent_run_id, params)

    def finish(self, metrics: Mapping[str, float], artifacts: Path | None, status: str = "FINISHED") -> None:
        """Close the parent run with the winner's measures and the files of a folder."""
        now = _now_ms()
        self._client.log_batch(
            self.parent_run_id, metrics=[Metric(key, value, now, 0) for key, value in metrics.items()]
        )
        if artifacts:
            self._client.log_artifacts(self.parent_run_id, str(artifacts), artifact_path="best")
        self._client.set_terminated(self.parent_run_id, status=status)

    def trial_started(self, trial: TrialRecord) -> None:
        self._forgiving(trial, self._begin)

    def trial_reported(self, trial: TrialRecord) -> None:
        self._forgiving(trial, lambda trial: self._log(trial, trial.history[-1]))

    def trial_ended(self, trial: TrialRecord) -> None:
        self._forgiving(trial, self._end)

    def catch_up(self) -> None:
        """Write anew what could not be written when it happened."""
        behind, self._behind = list(self._behind.values()), {}
        for trial in behind:
            self._forgiving(trial, self._write_whole)

    def _forgiving(self, trial: TrialRecord, write: Callable[[TrialRecord], None]) -> None:
        """A server that is away for a while costs no trial: its records are on disk, and are sent again later."""
        try:
            write(trial)
        except Exception as error:  # MLflow, requests and SQLAlchemy raise many kinds
            if not self._behind:
                self._warn(f"MLflow at {self.uri} can't be written ({_reason(error)}); the search goes on")
            self._behind[trial.number] = trial

    def _write_whole(self, trial: TrialRecord) -> None:
        self._begin(trial)
        for report in trial.history:
            self._log(trial, report)
        if trial.status != "running":
            self._end(trial)

    def _begin(self, trial: TrialRecord) -> None:
        if trial.run_id is None:
            tags = {
                MLFLOW_PARENT_RUN_ID: self.parent_run_id,
                MLFLOW_RUN_NAME: trial.trial_id,
                "raylora.is_baseline": str(trial.is_baseline),
            }
            run = self._client.create_run(self._experiment_id, run_name=trial.trial_id, tags=tags)
            trial.run_id = run.info.run_id
            self._log_params(run.info.run_id, trial.params)

    def _log(self, trial: TrialRecord, report: Mapping[str, Any]) -> None:
        self._begin(trial)
        run_id, now, images = str(trial.run_id), _now_ms(), report["images_seen"]
        metrics = [Metric(key, value, now, images) for key, value in measures(report).items()]
        metrics += [Metric("train_loss_step", loss, now, seen) for seen, loss in report["train_losses"]]
        for first in range(0, len(metrics), MOST_METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=metrics[first : first + MOST_METRICS_PER_CALL])
        for kind, key in (("images", "samples"), ("prompts", "prompts")):
            picture = Path(trial.folder) / "samples" / f"{kind}_{images:06d}.png"
            if picture.is_file():
                with Image.open(picture) as image:
                    self._client.log_image(run_id, image, key=key, step=images)

    def _end(self, trial: TrialRecord) -> None:
        self._begin(trial)
        run_id = str(trial.run_id)
        self._client.set_tag(run_id, "raylora.status", trial.status)
        if trial.stop_reason:
            self._client.set_tag(run_id, "raylora.stop_reason", trial.stop_reason[:LONGEST_PARAM])
        self._client.set_terminated(run_id, status=STATUS[trial.status])

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        rows = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in params.items()]
        self._client.log_batch(run_id, params=rows)


def environment_tags() -> dict[str, str]:
    """What the search ran on: package versions, git commit if there is one."""
    tags = {f"version.{name}": version(name) for name in RECORDED_PACKAGES}
    tags |= {"version.raylora": __version__, "version.python": platform.python_version(), "machine": platform.machine()}
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=5)
        tags["git.commit"] = commit.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass  # no git, or not in a repository: nothing to record
    return tags


def _now_ms() -> int:
    return int(time.time() * 1000)


def set_current(uri: str) -> None:
    """Point MLflow's own functions, which know only one store at a time, to this one."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
