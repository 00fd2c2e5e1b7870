"""MLflow: a parent run for the search, a child run for each trial."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from PIL import Image

from raylora import __version__
from raylora.errors import TrackingError
from raylora.files import first_fold
from raylora.tracking.mlflow_store import REACH_S, artifacts_of, check_active, patience, quieten, reason_of, uploading
from raylora.tracking.recorder import TrialRecord, measures, now_ms

RECORDED_PACKAGES = ("bitsandbytes", "diffusers", "mlflow", "optuna", "peft", "ray", "torch", "transformers")
LONGEST_PARAM = 500
"""Characters; MLflow's own limit is 6,000, but nobody reads those."""
MOST_METRICS_PER_CALL = 1000
"""MLflow's limit of a `log_batch`."""
SILENCE_S = 60
"""How long a store that failed is not asked again while a search runs."""
MOST_FAILURES = 3
PICTURES = {"images": "samples", "prompts": "prompts"}
"""What a trial's files of samples begin with, and what MLflow shows them as."""
THUMBNAIL_PX = 256
Warn = Callable[[str], None]
STATUS = {"finished": "FINISHED", "stopped_early": "FINISHED", "failed": "FAILED"}


class MlflowTracker:
    """Listens to a search and writes it down. Only the driver writes, so one process owns the run map.

    What MLflow has of a trial stands in the trial's record, and whatever happens, MLflow is sent what it lacks. So a
    store that is away for a while costs nothing, even if this process ends before it is back.

    Args:
        uri: absolute tracking URI.
        experiment: name of the MLflow experiment. Where it doesn't exist it is made, with its files beside a sqlite
            file, or wherever a server keeps them.
        warn: told once when the store stops answering.
    """

    def __init__(self, uri: str, experiment: str, warn: Warn = lambda _: None):
        quieten()
        self.uri, self._warn = uri, warn
        self._behind: dict[str, TrialRecord] = {}
        self._running: set[str] = set()
        self._tried: set[str] = set()
        """Trials that may have a run which their records don't name."""
        self._is_told, self._silent_until = False, 0.0
        self._client = MlflowClient(uri)
        self._experiment_id = self._get_or_create(experiment)
        self.parent_run_id = ""

    def _get_or_create(self, name: str) -> str:
        with patience(REACH_S):
            found = self._client.get_experiment_by_name(name)
            if found is not None:
                check_active(found, self.uri)
                return str(found.experiment_id)
            try:
                return str(self._client.create_experiment(name, artifact_location=artifacts_of(self.uri)))
            except MlflowException as error:
                raise TrackingError(f"MLflow experiment {name}: can't be made ({error})") from None

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], run_id: str | None = None) -> None:
        """Open the parent run, or go on with `run_id`.

        Raises:
            TrackingError: it can't be written, as without the right to, or if somebody deleted it.
        """
        try:
            with patience(REACH_S):
                self.parent_run_id = run_id or self._open(name, tags)
                self._client.update_run(self.parent_run_id, status="RUNNING")
                self._log_params(self.parent_run_id, params)
        except MlflowException as error:
            raise TrackingError(
                f"tracking URI {self.uri}: the search's run {run_id or name} can't be written ({reason_of(error)}); "
                "mend that there, or use another store for a new search by --tracking-uri"
            ) from None

    def _open(self, name: str, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(self._experiment_id, run_name=name, tags={**tags, **environment_tags()})
        return str(run.info.run_id)

    def finish(self, metrics: Mapping[str, float], artifacts: Path | None) -> None:
        """Close the parent run with the winner's measures and the files of a folder.

        Each of the three is tried, whatever becomes of the others.
        """
        try:
            self._log_metrics(metrics)
        finally:
            try:
                self._upload(artifacts)
            finally:
                with patience(REACH_S):
                    self._client.set_terminated(self.parent_run_id, status="FINISHED")

    def break_off(self, status: str) -> None:
        """Close every run of a search that ends before its time: its own, and those of trials that were under way.

        The search's own is first, so that a store that is away is asked once. A trial that goes on after a resume has
        its run opened again by `_send`.
        """
        if not self.parent_run_id:
            return
        with patience(REACH_S):
            self._client.set_terminated(self.parent_run_id, status=status)
            self._is_told = True  # what can't be sent any more is no news: this search doesn't go on
            self.catch_up()
            query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.parent_run_id}' and attributes.status = 'RUNNING'"
            for run in self._client.search_runs([self._experiment_id], query):
                self._client.set_terminated(run.info.run_id, status="KILLED")

    def _log_metrics(self, metrics: Mapping[str, float]) -> None:
        if metrics:
            rows = [Metric(key, value, now_ms(), 0) for key, value in metrics.items()]
            with patience(REACH_S):
                self._client.log_batch(self.parent_run_id, metrics=rows)

    def _upload(self, folder: Path | None) -> None:
        if folder:
            with uploading(self._client):
                self._client.log_artifacts(self.parent_run_id, str(folder), artifact_path="best")

    def trial_started(self, trial: TrialRecord) -> None:
        self._hear(trial)

    def trial_reported(self, trial: TrialRecord) -> None:
        self._hear(trial)

    def trial_ended(self, trial: TrialRecord) -> None:
        self._hear(trial)

    def catch_up(self, earlier: Sequence[TrialRecord] = ()) -> None:
        """Send what could not be sent when it happened; gives up after a few failures.

        Args:
            earlier: trials of the same search that another process may not have sent in full.
        """
        for trial in earlier:
            self._tried.add(trial.trial_id)
            self._await(trial)
        failures = 0
        while self._behind and failures < MOST_FAILURES:
            failures += not self._try(next(iter(self._behind.values())))

    def _hear(self, trial: TrialRecord) -> None:
        self._await(trial)
        if time.monotonic() >= self._silent_until:
            self._try(trial)

    def _await(self, trial: TrialRecord) -> None:
        """Put a trial among those to be sent."""
        self._behind[trial.trial_id] = trial

    def _try(self, trial: TrialRecord) -> bool:
        """Send what MLflow lacks of a trial, if MLflow can be written; the search goes on either way."""
        try:
            with patience(REACH_S):
                self._send(trial)
        except Exception as error:  # MLflow, requests and SQLAlchemy raise many kinds
            if not self._is_told:
                self._warn(f"MLflow at {self.uri} can't be written ({reason_of(error)}); the search goes on")
            self._is_told, self._silent_until = True, time.monotonic() + SILENCE_S
            self._tried.add(trial.trial_id)
            self._behind[trial.trial_id] = self._behind.pop(
                trial.trial_id
            )  # the last now, so that it holds up no other
            return False
        del self._behind[trial.trial_id]
        self._is_told = bool(self._behind)
        return True

    def _send(self, trial: TrialRecord) -> None:
        """Each step can be done again without trace, so that the next write of the record may remember it.

        After a trial's end there is none, so this is one.
        """
        if trial.run_id is None:
            trial.run_id = self._make_run(trial)
        if trial.status == "running" and trial.run_id not in self._running:  # closed when the search was broken off
            self._client.update_run(trial.run_id, status="RUNNING")
            self._running.add(trial.run_id)
        while trial.tracked_reports < len(trial.history):
            self._log(trial, trial.run_id, trial.tracked_reports)
            trial.tracked_reports += 1
        if trial.status not in ("running", trial.tracked_status):
            self._end(trial, trial.run_id)
            trial.tracked_status = trial.status
            trial.write()

    def _make_run(self, trial: TrialRecord) -> str:
        """The trial's run with its settings. It may be there already: answers get lost, and processes end."""
        found = self._find_run(trial) if trial.trial_id in self._tried else None
        run_id = found or self._create_run(trial)
        self._log_params(run_id, trial.params)
        return run_id

    def _find_run(self, trial: TrialRecord) -> str | None:
        query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.parent_run_id}' and run_name = '{trial.trial_id}'"
        found = self._client.search_runs([self._experiment_id], query, max_results=1)
        return str(found[0].info.run_id) if found else None

    def _create_run(self, trial: TrialRecord) -> str:
        tags = {
            MLFLOW_PARENT_RUN_ID: self.parent_run_id,
            MLFLOW_RUN_NAME: trial.trial_id,
            MLFLOW_LOGGED_IMAGES: "True",
            "raylora.is_baseline": str(trial.is_baseline),
            **({"raylora.confirms": trial.confirms} if trial.confirms else {}),
        }
        run = self._client.create_run(self._experiment_id, run_name=trial.trial_id, tags=tags)
        self._running.add(str(run.info.run_id))
        return str(run.info.run_id)

    def _log(self, trial: TrialRecord, run_id: str, number: int) -> None:
        """A report, at the time when it was heard of: a point with the same time, step and value is the same point."""
        report, heard = trial.history[number], trial.report_times[number]
        metrics = [Metric(key, value, heard, report["images_seen"]) for key, value in measures(report).items()]
        metrics += [Metric("train_loss_step", loss, heard, seen) for seen, loss in report["train_losses"]]
        for first in range(0, len(metrics), MOST_METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=metrics[first : first + MOST_METRICS_PER_CALL])
        with TemporaryDirectory() as folder:
            if _copy_pictures(first_fold(Path(trial.folder)) / "samples", report["images_seen"], heard, Path(folder)):
                self._client.log_artifacts(run_id, folder, artifact_path="images")

    def _end(self, trial: TrialRecord, run_id: str) -> None:
        tags = [RunTag("raylora.status", trial.status)]
        if trial.stop_reason:
            tags.append(RunTag("raylora.stop_reason", trial.stop_reason[:LONGEST_PARAM]))
        self._client.log_batch(run_id, tags=tags)
        self._client.set_terminated(run_id, status=STATUS[trial.status])

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        rows = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in params.items()]
        self._client.log_batch(run_id, params=rows)


def _copy_pictures(samples: Path, images_seen: int, heard: int, target: Path) -> bool:
    """An evaluation's pictures under the names that MLflow's pages read key, step and time from; False without any.

    `MlflowClient.log_image` gives such names too, but with a random part: the same picture would be there twice.
    """
    pictures = {key: samples / f"{kind}_{images_seen:06d}.png" for kind, key in PICTURES.items()}
    there = {key: path for key, path in pictures.items() if path.is_file()}
    for key, path in there.items():
        name = f"{key}+step+{images_seen}+timestamp+{heard}+raylora"
        shutil.copyfile(path, target / f"{name}.png")
        with Image.open(path) as image:
            image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            image.save(target / f"{name}+compressed.webp")
    return bool(there)


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
