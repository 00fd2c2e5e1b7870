"""MLflow: a parent run for the search, a child run for each trial."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
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
from raylora.files import first_fold, write_atomically
from raylora.tracking.mlflow_store import (
    REACH_S,
    check_active,
    check_reachable,
    make_experiment,
    one_try,
    patience,
    quieten,
    reason_of,
    uploading,
)
from raylora.tracking.recorder import RECORD_NAME, Status, TrialRecord, measures, now_ms, read_record
from raylora.tracking.stored import Samples, Stored

RECORDED_PACKAGES = ("bitsandbytes", "diffusers", "mlflow", "optuna", "peft", "ray", "torch", "transformers")
LONGEST_PARAM = 500
"""Characters; MLflow's own limit is 6,000, but nobody reads those."""
MOST_METRICS_PER_CALL = 1000
"""MLflow's limit of a `log_batch`."""
MARK_TAG = "raylora.mark"
"""By which a search finds its run again where MLflow's answer was lost."""
SILENCE_S = 60
"""How long a store that failed is not asked again while a search runs."""
MOST_FAILURES = 3
TRACKED_NAME = "mlflow.json"
"""Beside a trial's record: `Tracked`."""
PICTURES = {"images": "samples", "prompts": "prompts"}
"""What a trial's files of samples begin with, and what MLflow shows them as."""
THUMBNAIL_PX = 256
Warn = Callable[[str], None]
STATUS = {"finished": "FINISHED", "stopped_early": "FINISHED", "failed": "FAILED"}


@dataclass
class Tracked:
    """What MLflow has of a trial."""

    run_id: str | None = None
    """Its run, once that has the settings."""
    reports: int = 0
    pictures: int = 0
    """Of how many reports: fewer than it has, where the storage that they lie on is away."""
    status: Status = "running"

    @staticmethod
    def read(folder: Path) -> Tracked:
        """As it stands in the trial's folder; nothing where MLflow has nothing."""
        file = folder / TRACKED_NAME
        if not file.is_file():
            return Tracked()
        kept = json.loads(file.read_text(encoding="utf-8"))
        return Tracked(**{"pictures": kept["reports"], **kept})  # an older version sent them with each report

    def write(self, folder: Path) -> None:
        write_atomically(folder / TRACKED_NAME, json.dumps(vars(self)).encode())


class MlflowTracker:
    """Sends MLflow what it lacks of a search's trials, out of their records on disk.

    What MLflow has of a trial stands beside the trial's record, so a store that is away for a while costs nothing, even
    if this process ends before it is back. One process at a time does this for a search, so nothing is sent by two.

    Args:
        uri: absolute tracking URI.
        experiment: name of the MLflow experiment. Where it doesn't exist it is made, with its files beside a sqlite
            file, or wherever a server keeps them.
        warn: told once when the store stops answering, or the storage of samples.
        stored: where trials' samples are, if not in their folders.
    """

    def __init__(self, uri: str, experiment: str, warn: Warn = lambda _: None, stored: Stored | None = None):
        quieten()
        self.uri, self._experiment, self._warn, self._samples = uri, experiment, warn, Samples(stored, warn)
        self._behind: dict[Path, None] = {}
        """Folders of trials that MLflow may lack something of, in the order in which that is sent."""
        self._put_off: dict[Path, None] = {}
        """Those of which it lacks pictures alone, since their storage is away."""
        self._running: set[str] = set()
        self._tried: set[Path] = set()
        """Trials that may have a run which nothing beside their records names."""
        self._is_told, self._silent_until = False, 0.0
        self.experiment_id = self.parent_run_id = ""

    @cached_property
    def _client(self) -> MlflowClient:
        """Made when it is first needed: it makes a sqlite file, in an output folder that may not be claimed yet."""
        return MlflowClient(self.uri)

    def check(self) -> None:
        """Ask the store whether it is there.

        Raises:
            TrackingError: it isn't.
        """
        check_reachable(self.uri)

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], run_id: str | None = None) -> None:
        """Open the parent run, or go on with `run_id`.

        Raises:
            TrackingError: it can't be written, as without the right to, or if somebody deleted it or its experiment.
        """
        try:
            with patience(REACH_S):
                self.experiment_id = self._get_or_create(self._experiment)
                self.parent_run_id = run_id or self._open(name, tags)
                self._client.update_run(self.parent_run_id, status="RUNNING")
                self._log_params(self.parent_run_id, params)
        except MlflowException as error:
            raise TrackingError(
                f"tracking URI {self.uri}: the search's run {run_id or name} can't be written ({reason_of(error)}); "
                "mend that there, or use another store for a new search by --tracking-uri"
            ) from None

    def go_on(self, experiment_id: str, parent_run_id: str) -> None:
        """Take over from a process that has started and is gone; the store may be away just now."""
        self.experiment_id, self.parent_run_id = experiment_id, parent_run_id

    def _get_or_create(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            check_active(found, self.uri)
            return str(found.experiment_id)
        try:
            return make_experiment(self._client, self.uri, name)
        except MlflowException as error:
            raise TrackingError(f"MLflow experiment {name}: can't be made ({error})") from None

    def _open(self, name: str, tags: Mapping[str, str]) -> str:
        """A run that is made once: it is looked for by a tag of its own where the answer didn't come, and only then
        asked for again."""
        mark = uuid.uuid4().hex
        every = {**tags, **environment_tags(), MARK_TAG: mark}
        try:
            return self._ask_for_run(name, every)
        except MlflowException:
            return self._run_with(f"tags.`{MARK_TAG}` = '{mark}'") or self._ask_for_run(name, every)

    def _ask_for_run(self, name: str, tags: Mapping[str, str]) -> str:
        """Asked for once: where it fails, it may have been made all the same."""
        with one_try():
            run = self._client.create_run(self.experiment_id, run_name=name, tags=dict(tags))
        return str(run.info.run_id)

    def _run_with(self, query: str) -> str | None:
        found = self._client.search_runs([self.experiment_id], query, max_results=1)
        return str(found[0].info.run_id) if found else None

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
        its run opened again by `_send_rest`.
        """
        if not self.parent_run_id:
            return
        with patience(REACH_S):
            self._client.set_terminated(self.parent_run_id, status=status)
            self._is_told = True  # what can't be sent any more is no news: this search doesn't go on
            self._send_all()
            query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.parent_run_id}' and attributes.status = 'RUNNING'"
            for run in self._client.search_runs([self.experiment_id], query):
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

    def hear(self, folder: Path) -> None:
        """The record of a trial has changed."""
        self._behind.setdefault(folder)

    def look_through(self, places: Sequence[Path]) -> None:
        """Take up all trials in these folders, of which another process may not have sent everything."""
        for file in sorted(file for place in places for file in place.glob(f"*/{RECORD_NAME}")):
            self._tried.add(file.parent)
            self.hear(file.parent)

    @property
    def rest_s(self) -> float | None:
        """How long there is nothing to send: None until something is heard of, 0 if there is something."""
        if self._behind:
            return max(0.0, self._silent_until - time.monotonic())
        return self._samples.rest_s if self._put_off else None

    def catch_up(self) -> None:
        """Send everything that MLflow lacks; gives up after a few failures."""
        self._samples.ask_again()
        self._take_up_pictures()
        self._send_all()

    def _send_all(self) -> None:
        failures = 0
        while self._behind and failures < MOST_FAILURES:
            failures += not self.send_next()

    def _take_up_pictures(self) -> None:
        self._behind |= self._put_off
        self._put_off.clear()

    def send_next(self) -> bool:
        """Send what MLflow lacks of the next trial, if MLflow can be written; the search goes on either way."""
        if not self._behind:
            self._take_up_pictures()
        folder = next(iter(self._behind))
        del self._behind[folder]
        try:
            with patience(REACH_S):
                self._send(read_record(folder))
        except Exception as error:  # MLflow, requests and SQLAlchemy raise many kinds
            if not self._is_told:
                self._warn(f"MLflow at {self.uri} can't be written ({reason_of(error)}); the search goes on")
            self._is_told, self._silent_until = True, time.monotonic() + SILENCE_S
            self._tried.add(folder)
            self.hear(folder)  # the last now, so that it holds up no other
            return False
        self._is_told = bool(self._behind)
        return True

    def _send(self, trial: TrialRecord) -> None:
        """Each step can be done again without trace: what a kill leaves unwritten of them is sent once more."""
        folder = Path(trial.folder)
        tracked = Tracked.read(folder)
        before = Tracked(**vars(tracked))
        try:
            self._send_rest(trial, tracked)
        finally:
            if tracked != before:
                tracked.write(folder)

    def _send_rest(self, trial: TrialRecord, tracked: Tracked) -> None:
        if tracked.run_id is None:
            tracked.run_id = self._make_run(trial)
        if trial.status == "running" and tracked.run_id not in self._running:  # closed when the search was broken off
            self._client.update_run(tracked.run_id, status="RUNNING")
            self._running.add(tracked.run_id)
        while tracked.reports < len(trial.history):
            self._log(trial, tracked.run_id, tracked.reports)
            tracked.reports += 1
        self._send_pictures(trial, tracked)
        if trial.status not in ("running", tracked.status):
            self._end(trial, tracked.run_id)
            tracked.status = trial.status
            self._running.discard(tracked.run_id)

    def _make_run(self, trial: TrialRecord) -> str:
        """The trial's run with its settings. It may be there already: answers get lost, and processes end."""
        found = self._find_run(trial) if Path(trial.folder) in self._tried else None
        run_id = found or self._create_run(trial)
        self._log_params(run_id, trial.params)
        return run_id

    def _find_run(self, trial: TrialRecord) -> str | None:
        return self._run_with(
            f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.parent_run_id}' and run_name = '{trial.trial_id}'"
        )

    def _create_run(self, trial: TrialRecord) -> str:
        tags = {
            MLFLOW_PARENT_RUN_ID: self.parent_run_id,
            MLFLOW_RUN_NAME: trial.trial_id,
            MLFLOW_LOGGED_IMAGES: "True",
            "raylora.is_baseline": str(trial.is_baseline),
            **({"raylora.confirms": trial.confirms} if trial.confirms else {}),
        }
        run_id = self._ask_for_run(trial.trial_id, tags)
        self._running.add(run_id)
        return run_id

    def _log(self, trial: TrialRecord, run_id: str, number: int) -> None:
        """A report, at the time when it was heard of: a point with the same time, step and value is the same point."""
        report, heard = trial.history[number], trial.report_times[number]
        metrics = [Metric(key, value, heard, report["images_seen"]) for key, value in measures(report).items()]
        metrics += [Metric("train_loss_step", loss, heard, seen) for seen, loss in report["train_losses"]]
        tags = _node_of(trial)
        for first in range(0, len(metrics), MOST_METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=metrics[first : first + MOST_METRICS_PER_CALL], tags=tags)

    def _send_pictures(self, trial: TrialRecord, tracked: Tracked) -> None:
        """Those of reports that MLflow has. Where they can't be had they wait, and nothing else waits for them."""
        assert tracked.run_id is not None
        while tracked.pictures < tracked.reports:
            seen, heard = trial.history[tracked.pictures]["images_seen"], trial.report_times[tracked.pictures]
            if not self._samples.bring(Path(trial.folder), seen):
                self._put_off.setdefault(Path(trial.folder))
                return
            with TemporaryDirectory() as folder:
                if _copy_pictures(first_fold(Path(trial.folder)) / "samples", seen, heard, Path(folder)):
                    self._client.log_artifacts(tracked.run_id, folder, artifact_path="images")
            tracked.pictures += 1

    def _end(self, trial: TrialRecord, run_id: str) -> None:
        tags = [RunTag("raylora.status", trial.status), *_node_of(trial)]
        if trial.stop_reason:
            tags.append(RunTag("raylora.stop_reason", trial.stop_reason[:LONGEST_PARAM]))
        self._client.log_batch(run_id, tags=tags)
        self._client.set_terminated(run_id, status=STATUS[trial.status])

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        rows = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in params.items()]
        self._client.log_batch(run_id, params=rows)


def _node_of(trial: TrialRecord) -> list[RunTag]:
    """Where it runs, as far as is known: the machine to look at when trials fail or are slow."""
    return [RunTag("raylora.node", trial.node)] if trial.node else []


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
    tags = {}
    for name in RECORDED_PACKAGES:
        with suppress(PackageNotFoundError):  # not every machine has a build of bitsandbytes
            tags[f"version.{name}"] = version(name)
    tags |= {"version.raylora": __version__, "version.python": platform.python_version(), "machine": platform.machine()}
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=5)
        tags["git.commit"] = commit.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass  # no git, or not in a repository: nothing to record
    return tags
