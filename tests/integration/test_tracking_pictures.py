"""Pictures of trials that lie on a storage: where that is away, MLflow lacks them and nothing else."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from raylora.storage import Storage
from raylora.tracking.mlflow_runs import TRACKED_NAME, MlflowTracker, Tracked
from raylora.tracking.recorder import TrialRecord
from raylora.tracking.stored import SILENCE_S, Stored
from tests.integration.test_tracking import begin, end, next_process, pictures, points, report, tell, tracked
from tests.s3 import BUCKET, S3
from tests.s3 import s3 as s3
from tests.s3 import s3_of_module as s3_of_module

NOWHERE = "http://127.0.0.1:9"
REPORTED = 2


@pytest.fixture
def stored(s3: S3, tmp_path: Path) -> Stored:
    return Stored(f"s3://{BUCKET}/{uuid.uuid4().hex}", tmp_path / "out")


@pytest.fixture
def trials(stored: Stored) -> list[TrialRecord]:
    """Two that will have the pictures of their reports on the storage alone."""
    found = [begin(number, stored.root / "trials") for number in range(2)]
    for trial in found:
        for number in range(REPORTED):
            for kind in ("images", "prompts"):
                file = Path(trial.folder) / "samples" / f"{kind}_{8 * (number + 1):06d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (300, 100)).save(file)
    Storage(stored.uri).push(stored.root)
    shutil.rmtree(stored.root)
    return found


@pytest.fixture
def told() -> list[str]:
    """What is warned of."""
    return []


@pytest.fixture
def tracker(uri: str, stored: Stored, told: list[str]) -> MlflowTracker:
    tracker = MlflowTracker(uri, "raylora", told.append, stored)
    tracker.start("search", {}, {})
    return tracker


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders for which the storage was asked."""
    asked: list[Path] = []
    bring = Stored.bring_samples

    def counted(stored: Stored, folder: Path, images_seen: int) -> None:
        asked.append(folder)
        bring(stored, folder, images_seen)

    monkeypatch.setattr(Stored, "bring_samples", counted)
    return asked


def learn(trial: TrialRecord, tracker: MlflowTracker) -> None:
    """All its reports and its end."""
    for number in range(REPORTED):
        trial.hear(report(8 * (number + 1)))
        tell(trial, tracker)
    end(trial, tracker)


@pytest.mark.parametrize("is_same_process", [True, False])
def test_a_storage_that_is_away_puts_off_pictures_alone(
    is_same_process: bool, tracker: MlflowTracker, told: list[str], uri: str, stored: Stored,
    trials: list[TrialRecord], asked: list[Path], s3: S3, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    client = MlflowClient(uri, uri)
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", NOWHERE)
        for trial in trials:
            learn(trial, tracker)
    assert asked == [Path(trials[0].folder)]
    assert tracker.rest_s is not None and 0 < tracker.rest_s <= SILENCE_S
    [warning] = told
    assert "pictures" in warning and "nothing answers" in warning and uri not in warning
    for trial in trials:
        assert [(seen, score) for seen, score, _ in points(client, trial, "score")] == [(8, 0.08), (16, 0.16)]
        assert client.get_run(str(tracked(trial).run_id)).info.status in ("FINISHED", "FAILED")
        assert pictures(client, trial) == []
    sends = tracker if is_same_process else next_process(tracker, stored.root / "trials", stored)
    sends.catch_up()
    assert sends.rest_s is None and len(told) == 1
    for trial in trials:
        assert [picture[:2] for picture in pictures(client, trial)] == [
            (key, seen) for key in ("prompts", "samples") for seen in (8, 8, 16, 16)
        ]


def test_a_storage_that_is_back_is_told_of_when_it_goes_again(
    tracker: MlflowTracker, told: list[str], trials: list[TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    for trial in trials:
        with monkeypatch.context() as away:
            away.setenv("AWS_ENDPOINT_URL", NOWHERE)
            learn(trial, tracker)
        tracker.catch_up()
    assert len(told) == 2


def test_what_is_put_off_goes_by_itself_once_the_storage_may_be_asked_again(
    tracker: MlflowTracker, uri: str, trials: list[TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", NOWHERE)
        learn(trials[0], tracker)
    tracker._samples.ask_again()  # as a minute later
    while tracker.rest_s == 0:
        tracker.send_next()
    assert tracker.rest_s is None
    assert len(pictures(MlflowClient(uri, uri), trials[0])) == 4 * REPORTED


def test_a_search_that_breaks_off_waits_for_no_storage(
    tracker: MlflowTracker, trials: list[TrialRecord], asked: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)
    learn(trials[0], tracker)
    asked.clear()
    tracker.break_off("KILLED")
    assert asked == []


def test_a_disk_without_room_for_pictures_is_no_fault_of_mlflow(
    tracker: MlflowTracker, told: list[str], trials: list[TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:

    def is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Stored, "bring_samples", is_full)
    learn(trials[0], tracker)
    assert tracked(trials[0]).status == "finished"
    (line,) = told
    assert line.startswith("MLflow lacks trials' pictures for now (") and "No space left" in line


def test_what_an_older_version_has_sent_had_its_pictures(tmp_path: Path) -> None:
    (tmp_path / TRACKED_NAME).write_text('{"run_id": "a", "reports": 3, "status": "running"}')
    assert Tracked.read(tmp_path) == Tracked("a", reports=3, pictures=3)
