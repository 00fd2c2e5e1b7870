"""What MLflow shows of a search that ends before its time, and of it when it goes on: real stores, no training."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from mlflow import MlflowClient

from raylora.config import Experiment
from raylora.errors import RayloraError
from raylora.execution import tuner
from raylora.execution.checked_job import checked_job
from raylora.execution.cluster import Share
from raylora.execution.job import Job
from raylora.execution.outputs import OutFolder
from raylora.execution.searcher import StudySearcher
from raylora.execution.tuner import ready, tune_job
from raylora.execution.underway import Search
from raylora.search.space import Parameter, SearchSpace
from raylora.tracking.mlflow_runs import MlflowTracker
from raylora.tracking.recorder import Listeners, TrialRecord, read_records
from tests import reports
from tests.integration.test_tracking import (
    Flaky,
    assert_all_there_once,
    begin,
    end,
    evaluate,
    next_process,
    report,
    tell,
)

SPACE = SearchSpace(name="small", parameters={"lora.rank": Parameter(choices=(2, 4))})
NOBODY = Listeners([])
FULL = OSError(errno.ENOSPC, "full")


def statuses(uri: str) -> dict[str, str]:
    """Of every run in the store, by name."""
    client = MlflowClient(uri)
    experiments = [found.experiment_id for found in client.search_experiments()]
    return {run.info.run_name: run.info.status for run in client.search_runs(experiments)}


@contextmanager
def refusing(uri: str, change: str) -> Iterator[None]:
    """While the block lasts, the store refuses a change, such as `INSERT ON params`."""
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)) as store:
        store.execute(f"CREATE TRIGGER away BEFORE {change} BEGIN SELECT RAISE(ABORT, 'away'); END")
        try:
            yield
        finally:
            store.execute("DROP TRIGGER away")


def resumed(tracker: MlflowTracker, trials: Path) -> tuple[MlflowTracker, list[TrialRecord]]:
    """The tracker of the next process, and the records that it finds."""
    again = next_process(tracker, trials)
    again.catch_up()
    return again, read_records(trials)


def test_a_broken_off_search_leaves_no_run_running_and_goes_on(tracker: MlflowTracker, tmp_path: Path) -> None:
    trials = tmp_path / "trials"
    records = [begin(number, trials) for number in range(3)]
    for trial in records:
        tell(trial, tracker)
        evaluate(trial, tracker)
    end(records[0], tracker)
    tracker.break_off("KILLED")
    broken_off = {"search": "KILLED", "t000": "FINISHED", "t001": "KILLED", "t002": "KILLED"}
    assert statuses(tracker.uri) == broken_off
    again, records = resumed(tracker, trials)
    assert statuses(tracker.uri) == {**broken_off, "search": "RUNNING", "t001": "RUNNING", "t002": "RUNNING"}
    again.break_off("FAILED")
    assert statuses(tracker.uri) == {**broken_off, "search": "FAILED"}
    again, records = resumed(tracker, trials)
    for trial in records[1:]:
        evaluate(trial, again)
        end(trial, again)
    assert_all_there_once(tracker.uri, tracker.parent_run_id, trials)


def test_a_trial_whose_end_mlflow_missed_was_not_killed(tracker: MlflowTracker, tmp_path: Path) -> None:
    trial, client = begin(0, tmp_path), tracker._client
    tell(trial, tracker)
    tracker._client = Flaky(client, 1, is_answer_lost=False)
    end(trial, tracker)
    tracker._client = client
    tracker.break_off("KILLED")
    assert statuses(tracker.uri) == {"search": "KILLED", "t000": "FINISHED"}


@pytest.fixture
def job(tiny_experiment: Experiment, uri: str) -> Job:
    return checked_job(tiny_experiment.with_params({"tracking.uri": uri}), SPACE, None, print)


@pytest.fixture
def start(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A new search in `out`, without a cluster."""

    @contextmanager
    def no_cluster(*arguments: object) -> Iterator[Share]:
        yield Share(1, 0.0, 1, 1)

    monkeypatch.setattr(tuner, "_cluster", no_cluster)
    return lambda: tune_job(ready(job, OutFolder(tmp_path / "out")), NOBODY, print)


def failing(error: BaseException) -> Callable[..., Any]:
    def call(*arguments: object, **more: object) -> None:
        raise error

    return call


def test_a_search_that_cannot_begin_leaves_neither_folder_nor_running_run(
    start: Callable[[], Any], uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusing(uri, "INSERT ON params"), pytest.raises(RayloraError, match="out can't be written"):
        start()
    assert (statuses(uri), (tmp_path / "out").exists()) == ({"out": "FAILED"}, False)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="full"):
        patched.setattr(OutFolder, "write_state", failing(FULL))
        start()
    assert set(statuses(uri).values()) == {"FAILED"}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "KILLED"), (ValueError("why"), "FAILED")])
def test_what_breaks_a_search_off_is_told_and_its_runs_end(
    error: BaseException, status: str, start: Callable[[], Any], uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_and_break_off(search: Search) -> None:
        trial = begin(0, search.out.trials)
        trial.write()
        search.tracker.trial_started(trial)
        raise error

    monkeypatch.setattr(tuner, "_search", begin_and_break_off)
    with pytest.raises(type(error)) as raised:
        start()
    assert raised.value is error
    assert statuses(uri) == {"out": status, "t000": "KILLED"}


def test_a_store_that_is_away_too_does_not_hide_what_broke_the_search_off(
    start: Callable[[], Any], uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(search: Search) -> None:
        away.enter_context(refusing(uri, "UPDATE ON runs"))
        raise ValueError("why")

    monkeypatch.setattr(tuner, "_search", break_off)
    with ExitStack() as away, pytest.raises(ValueError, match="why"):
        start()
    assert statuses(uri) == {"out": "RUNNING"}


def test_a_resume_ends_the_run_of_a_trial_whose_end_its_record_missed(
    start: Callable[[], Any], uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the study and the record; before anything is trained, whoever looks on hears, and MLflow too."""
    told: list[str] = []
    out = OutFolder(tmp_path / "out")

    def killed(search: Search, *more: Any) -> None:
        searcher = cast(StudySearcher, more[1])
        searcher.suggest("a")
        trial = begin(0, out.trials)
        trial.hear(report(8, best_score=0.5, is_finished=True))
        trial.write()
        search.tracker.trial_reported(trial)
        searcher.on_trial_complete("a", reports.result(8, 0.5, is_over=True))
        raise KeyboardInterrupt

    def looked_at(search: Search, *more: Any) -> None:
        search.tracker.catch_up()
        told.append(statuses(uri)["t000"])
        raise KeyboardInterrupt

    class Onlooker(Listeners):
        def trial_ended(self, trial: TrialRecord) -> None:
            told.append(f"{trial.trial_id} {trial.status}")

    monkeypatch.setattr(tuner, "is_shared", lambda *_: True)
    for round_of, begin_or_resume in (
        (killed, start),
        (looked_at, lambda: tuner.resume_job(out.root, Onlooker([]), print)),
    ):
        monkeypatch.setattr(tuner, "run_round", round_of)
        with pytest.raises(KeyboardInterrupt):
            begin_or_resume()
    assert told == ["t000 finished", "FINISHED"]
    assert [record.status for record in read_records(out.trials)] == ["finished"]
