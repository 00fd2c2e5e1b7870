"""MLflow is written to by a process beside the driver, and either may be killed: real processes, a real store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from raylora.tracking.recorder import TrialRecord, read_record, read_records
from raylora.tracking.sender import MOST_STARTS, MlflowSender
from tests.integration.test_tracking import STEPS, assert_all_there_once, begin, search
from tests.integration.test_tracking_end import refusing, statuses


class Told:
    """A sender, told of changes as those tests tell a tracker."""

    rest_s = None

    def __init__(self, sender: MlflowSender):
        self._sender = sender

    def hear(self, folder: Path) -> None:
        self._sender.trial_reported(read_record(folder))


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    return tmp_path / "trials"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def sender(uri: str, trials: Path, told: list[str]) -> Iterator[MlflowSender]:
    with MlflowSender(uri, "raylora", [trials], told.append) as sender:
        sender.start("search", {}, {})
        yield sender


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_what_it_is_told_of_is_sent(sender: MlflowSender, trials: Path, told: list[str]) -> None:
    search(Told(sender), trials)
    sender.catch_up()
    assert_all_there_once(sender.uri, sender.parent_run_id, trials)
    sender.break_off("KILLED")
    assert set(statuses(sender.uri).values()) == {"KILLED", "FINISHED", "FAILED"}
    assert told == []


def test_nothing_is_made_before_the_search_starts(tmp_path: Path) -> None:
    """An output folder that is not empty is refused, and the store may lie in it."""
    out = tmp_path / "out"
    out.mkdir()
    with MlflowSender(f"sqlite:///{out / 'mlflow.db'}", "raylora", [out / "trials"], print) as sender:
        sender.check()
        assert list(out.iterdir()) == []


def test_a_run_is_made_once_though_the_process_ends_before_it_says_so(
    uri: str, trials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MlflowSender(uri, "raylora", [trials], print) as sender:
        answer, lost = sender._answer, list[object]()

        def answer_but_once(number: int) -> object:
            told = answer(number)
            if not lost:
                lost.append(told)
                kill(sender._process)
                raise EOFError
            return told

        monkeypatch.setattr(sender, "_answer", answer_but_once)
        sender.start("search", {}, {})
        assert lost == [(sender._experiment_id, sender.parent_run_id)]
    assert len(MlflowClient(uri).search_runs([sender._experiment_id])) == 1


def test_a_store_that_is_away_gets_everything_later_and_is_told_of_once(
    sender: MlflowSender, trials: Path, told: list[str]
) -> None:
    with refusing(sender.uri, "INSERT ON runs"):
        search(Told(sender), trials)
        sender.catch_up()
    assert len(told) == 1 and "the search goes on" in told[0]
    sender.catch_up()
    assert_all_there_once(sender.uri, sender.parent_run_id, trials)


def test_a_successor_sends_what_a_killed_one_has_not(sender: MlflowSender, trials: Path, told: list[str]) -> None:
    """It is killed before the search, so that all of it is sent by a process that was told of its rest alone."""
    records = [begin(number, trials) for number in range(3)]
    for number, step in enumerate(STEPS):
        if number in (1, 4):
            kill(sender._process)
        for trial in records:
            step(trial, Told(sender))
    sender.catch_up()
    assert_all_there_once(sender.uri, sender.parent_run_id, trials)
    assert told == []


def test_one_that_ends_again_and_again_is_told_of_once_and_costs_no_trial(
    sender: MlflowSender, trials: Path, told: list[str]
) -> None:
    trial = begin(0, trials)
    trial.write()
    for _ in range(MOST_STARTS + 2):
        kill(sender._process)
        sender.trial_reported(trial)
    assert len(told) == 1 and "the search goes on" in told[0]


DRIVER = """
import sys, time
from pathlib import Path
from raylora.tracking.sender import MlflowSender
from tests.integration.test_sender import Told
from tests.integration.test_tracking import STEPS, begin
uri, trials = sys.argv[1], Path(sys.argv[2])
sender = MlflowSender(uri, "raylora", [trials], print)
sender.start("search", {}, {})
print(sender._process.pid, sender.parent_run_id, flush=True)
records = [begin(number, trials) for number in range(3)]
for step in STEPS[:3]:
    for trial in records:
        step(trial, Told(sender))
print("told", flush=True)
time.sleep(600)
"""


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_it_does_not_outlive_its_driver_and_the_next_one_sends_the_rest(uri: str, trials: Path) -> None:
    command = [sys.executable, "-c", DRIVER, uri, str(trials)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        pid, run_id = driver.stdout.readline().split()
        assert driver.stdout.readline() == "told\n"
        os.kill(driver.pid, signal.SIGKILL)
    deadline = time.monotonic() + 300
    while runs(int(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with MlflowSender(uri, "raylora", [trials], print) as resumed:
        resumed.check()
        resumed.start("search", {}, {}, run_id=run_id)
        records: list[TrialRecord] = read_records(trials)
        for step in STEPS[3:]:
            for trial in records:
                step(trial, Told(resumed))
        resumed.catch_up()
    assert_all_there_once(uri, run_id, trials)
