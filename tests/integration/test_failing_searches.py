"""Searches that fail on the driver's side, on a real cluster with trials that only report."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray
import torch
from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import WorkerGroupError
from ray.tune.execution.experiment_state import _ExperimentCheckpointManager
from ray.tune.schedulers import FIFOScheduler

from raylora.config import Experiment
from raylora.errors import RayloraError, TrainingDivergedError
from raylora.execution import listening, losing, rounds
from raylora.execution.cluster import Share, connected
from raylora.execution.handing_out import ListSearcher
from raylora.execution.outputs import OutFolder
from raylora.execution.results import REPORT, as_result
from raylora.execution.rounds import run_round, taking_turns
from raylora.execution.trial_job import HALVED
from raylora.execution.underway import MOST_STARTS, Search, _is_death
from raylora.execution.workers import most_telling
from raylora.tracking.recorder import Listeners, TrialRecord
from raylora.tracking.sender import MlflowSender

OUT_OF_MEMORY = "out of GPU memory; lower training.batch_size"
FULL = OSError(errno.ENOSPC, "full", "trial.json")


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with connected(None, with_state_api=False):
        yield


@pytest.fixture
def search(tiny_experiment: Experiment, tmp_path: Path, empty_store: Path) -> Iterator[Search]:
    out = OutFolder(tmp_path / "out")
    out.root.mkdir()
    out.space.write_text("")
    job = cast(Any, SimpleNamespace(experiment=tiny_experiment))
    uri = f"sqlite:///{shutil.copy(empty_store, out.root)}"
    with MlflowSender(uri, "raylora", [out.trials], print) as tracker:
        tracker.start("out", {}, {})
        out.write_state("running", tracking_uri=tracker.uri, parent_run_id=tracker.parent_run_id)
        yield Search(job, out, tracker, Listeners([]), print, Share(1, 0.0, 1, 1))


def reports_once(search: Search, job: object) -> Any:
    def trainable(config: dict[str, Any]) -> None:
        report = {"best_score": 0.5, "score": 0.5, "images_seen": 8, "is_finished": True, "train_losses": []}
        tune.report(as_result({**report, "stop_reason": None, "is_over": True}))

    return tune.with_resources(trainable, {"cpu": 1})


def test_tune_takes_no_snapshots_and_drops_what_it_keeps_of_ended_trials(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either takes time and memory of a driver with a thousand trials."""
    periods: list[float] = []
    begin = _ExperimentCheckpointManager.__init__

    def spied(manager: Any, **arguments: Any) -> None:
        begin(manager, **arguments)
        periods.append(manager._checkpoint_period)

    monkeypatch.setattr(_ExperimentCheckpointManager, "__init__", spied)
    monkeypatch.setattr(rounds, "_trainable", reports_once)
    configs = [{"number": number, "params": {}, "is_baseline": False} for number in range(2)]
    run_round(search, search.trial_job(), ListSearcher(configs))
    assert min(periods) > 10**6
    (last,) = (search.out.ray / "trials").glob("experiment_state-*.json")
    kept = [json.loads(trial[1]) for trial in json.loads(last.read_text())["trial_data"]]
    assert [(trial["metric_analysis"], trial["metric_n_steps"]) for trial in kept] == [({}, {})] * 2
    assert [{REPORT, "config"} & set(trial["last_result"]) for trial in kept] == [set()] * 2


class StopsAll(FIFOScheduler):  # type: ignore[misc]  # Ray ships no types
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return str(FIFOScheduler.STOP)


def test_a_process_that_clears_away_slowly_loses_no_trial(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray reuses it for the next trial, and drops that one if it has to wait for too long."""

    def slow(search: Search, job: object) -> Any:
        def trainable(config: dict[str, Any]) -> None:
            os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "1"
            report = {"best_score": 0.5, "score": 0.5, "is_finished": False, "train_losses": []}
            try:
                for images in (8, 16):
                    tune.report(as_result({**report, "images_seen": images, "stop_reason": None, "is_over": True}))
            finally:
                time.sleep(5)

        return tune.with_resources(taking_turns(trainable), {"cpu": 1})

    monkeypatch.setattr(rounds, "_trainable", slow)
    configs = [{"number": number, "params": {}, "is_baseline": False, "went_on_at": 0} for number in range(2)]
    records = run_round(search, search.trial_job(), ListSearcher(configs), StopsAll())
    assert [record.status for record in records] == ["stopped_early"] * 2
    assert any(record.losses for record in records)


def test_a_trial_whose_process_ray_kills_for_memory_goes_on_with_half_the_images(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process ends, and the error is that of Ray's memory monitor, at which Tune would break the search off."""
    begun, get = tmp_path / "begun", ray.get

    def told_of_memory(*arguments: Any, **more: Any) -> Any:
        try:
            return get(*arguments, **more)
        except RayActorError:
            raise OutOfMemoryError("1 worker(s) were killed due to the node running low on memory.") from None

    def dies_once(search: Search, job: object) -> Any:
        def trainable(config: dict[str, Any]) -> None:
            if not begun.exists():
                begun.touch()
                os._exit(1)
            report = {"best_score": 0.5, "score": 0.5, "images_seen": 8, "is_finished": True, "train_losses": []}
            tune.report(as_result({**report, "stop_reason": None, "is_over": HALVED in config}))

        return tune.with_resources(trainable, {"cpu": 1})

    monkeypatch.setattr(rounds, "_trainable", dies_once)
    monkeypatch.setattr(ray, "get", told_of_memory)
    config = {"number": 0, "params": {}, "is_baseline": False, "went_on_at": 0}
    (record,) = run_round(search, search.trial_job(), ListSearcher([config]))
    assert (record.status, record.losses) == ("finished", ["memory"])
    assert record.last and record.last["is_over"]


def test_a_trial_that_ends_every_process_is_given_up_and_no_other_with_it(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = tmp_path / "starts"

    def deadly(search: Search, job: object) -> Any:
        def trainable(config: dict[str, Any]) -> None:
            if config["number"] == 0:
                with starts.open("a") as file:
                    file.write("x")
                os._exit(1)
            report = {"best_score": 0.5, "score": 0.5, "images_seen": 8, "is_finished": True, "train_losses": []}
            tune.report(as_result({**report, "stop_reason": None, "is_over": True}))

        return tune.with_resources(trainable, {"cpu": 1})

    monkeypatch.setattr(rounds, "_trainable", deadly)
    monkeypatch.setattr(losing, "MOST_LOSSES", 2)
    monkeypatch.setattr(listening, "MOST_LOSSES", 2)
    told: list[str] = []
    configs = [{"number": number, "params": {}, "is_baseline": False, "went_on_at": 0} for number in range(2)]
    failed, finished = run_round(replace(search, say=told.append), search.trial_job(), ListSearcher(configs))
    assert (failed.status, failed.losses, finished.status) == ("failed", ["worker"] * 2, "finished")
    assert failed.stop_reason == f"its worker was lost 2 times, the last time: {failed.last_loss}"
    assert any(words in failed.last_loss for words in ("worker process has died", "is unavailable"))
    assert starts.read_text() == "xx"
    losses = [line.rpartition("; ")[2] for line in told if "lost its worker" in line]  # Ray may be waited for too
    assert losses == ["it goes on from its last state", "it is given up"]


def fails_when(status: str, error: Exception) -> Callable[[TrialRecord], None]:
    """Instead of `TrialRecord.write`: fails when a record with a report has this status, and whatever comes then."""
    write, failed = TrialRecord.write, list[str]()

    def call(record: TrialRecord) -> None:
        if failed or (record.status == status and record.history):
            failed.append(record.status)
            raise error
        write(record)

    return call


def broken_off(search: Search, status: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> Exception:
    """What the user is told of a search whose disk, or raylora itself, fails amid a round."""
    monkeypatch.setattr(rounds, "_trainable", reports_once)
    monkeypatch.setattr(TrialRecord, "write", fails_when(status, error))
    config = {"number": 0, "params": {}, "is_baseline": True}
    with pytest.raises(Exception) as raised, search.out.working():
        run_round(search, search.trial_job(), ListSearcher([config]))
    return raised.value


@pytest.mark.parametrize("status", ["running", "finished"])
def test_a_disk_that_is_full_amid_a_round_is_told_as_such(
    status: str, search: Search, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = broken_off(search, status, FULL, monkeypatch)
    assert isinstance(told, RayloraError)
    how = f"free some space, then go on by `raylora resume {search.out.root}`"
    assert str(told) == f"No space left on device: trial.json; {how}"
    assert json.loads(search.out.state_file.read_text())["state"] == "failed"
    assert [record for record in caplog.records if record.name.startswith(("ray", "root"))] == []


def test_a_fault_of_raylora_itself_comes_through_as_it_is(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    error = KeyError("number")
    assert broken_off(search, "running", error, monkeypatch) is error


def fail_of(search: Search, error: Exception) -> RayloraError:
    """What is told of work on the cluster that fails with this error."""

    def work() -> None:
        raise error

    with pytest.raises(RayloraError) as raised:
        search.run_in_cluster(work, "works")
    return raised.value


def test_work_that_fails_on_the_cluster_is_told_in_a_line(search: Search) -> None:
    long = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
    assert str(fail_of(search, long)).startswith(OUT_OF_MEMORY)
    assert str(fail_of(search, ValueError("one\ntwo"))) == "ValueError: one two"
    assert isinstance(fail_of(search, TrainingDivergedError("the loss is nan")), TrainingDivergedError)


def test_of_several_workers_the_first_one_tells_why(search: Search) -> None:
    long = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
    of_workers = WorkerGroupError("[Rank 1]\nTraceback …", {1: long})
    assert str(fail_of(search, most_telling(of_workers))).startswith(OUT_OF_MEMORY)
    diverged = WorkerGroupError("[Rank 0]\nTraceback …", {0: TrainingDivergedError("the loss is nan")})
    assert str(fail_of(search, most_telling(diverged))) == "the loss is nan"


def dies(log: Path, times: int) -> Callable[[], int]:
    """Work whose process dies the first few times."""

    def work() -> int:
        with log.open("a") as starts:
            starts.write("x")
        if len(log.read_text()) <= times:
            os._exit(1)
        return len(log.read_text())

    return work


def test_work_whose_process_dies_is_done_again_and_what_fails_is_not(search: Search, tmp_path: Path) -> None:
    told: list[str] = []
    search = replace(search, say=told.append)
    assert search.run_in_cluster(dies(tmp_path / "some", MOST_STARTS - 1), "works") == MOST_STARTS
    assert len(told) == MOST_STARTS - 1
    assert all(line.startswith("The process that works died, and is started again: ") for line in told)
    with pytest.raises(RayloraError, match="the process that works died, as when memory runs out"):
        search.run_in_cluster(dies(tmp_path / "all", MOST_STARTS), "works")
    tries = tmp_path / "tries"

    def fail() -> None:
        with tries.open("a") as starts:
            starts.write("x")
        raise ValueError("wrong")

    with pytest.raises(RayloraError, match="wrong"):
        search.run_in_cluster(fail, "works")
    assert tries.read_text() == "x"


def test_what_its_next_start_is_to_do_otherwise_is_done_then(search: Search, tmp_path: Path) -> None:
    """And what such a process has to say reaches whoever runs the search, from any of its threads."""

    def again() -> str:
        from raylora.execution.notes import leave_note

        thread = Thread(target=leave_note, args=["a machine is about to go"])
        thread.start()
        thread.join()
        return "otherwise"

    told: list[str] = []
    search = replace(search, say=told.append)
    assert search.run_in_cluster(lambda: os._exit(1), "works", again=again) == "otherwise"
    assert told[1:] == ["a machine is about to go"]


def test_of_several_workers_one_that_died_is_no_failure_of_the_work() -> None:
    died = ray.exceptions.ActorDiedError()
    group = WorkerGroupError("…", {0: RuntimeError("connection closed by peer"), 1: died})
    assert _is_death(ray.exceptions.RayTaskError("work", "…", most_telling(group)))
    failed = most_telling(WorkerGroupError("…", {0: RuntimeError("nan")}))
    assert not _is_death(ray.exceptions.RayTaskError("work", "…", failed))
