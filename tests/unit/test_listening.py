"""Records that a kill left untrue: the study had heard of the trial's end, its record not yet."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from raylora.config import Experiment
from raylora.execution.listening import settle
from raylora.execution.losing import cause_of_loss, error_of
from raylora.execution.results import as_result, failure
from raylora.execution.searcher import StudySearcher
from raylora.execution.trial_job import TrialJob
from raylora.search.space import Parameter, SearchSpace
from raylora.search.study import SearchStudy
from raylora.tracking.recorder import TrialRecord, read_record, read_records
from tests import reports
from tests.reports import same_length

SPACE = SearchSpace(name="small", parameters={"lora.rank": Parameter(choices=(2, 4, 8))})


def record(job: TrialJob, number: int, images: int, is_finished: bool = False) -> None:
    """As the listener has left it."""
    trial = TrialRecord(job.trial_id(number), number, {"lora.rank": 2}, False, str(job.folder(number)))
    trial.history = [{"score": 0.5, "images_seen": images, "is_finished": is_finished}]
    trial.write()


def result(images: int, is_over: bool = False) -> dict[str, object]:
    return reports.result(images, 0.5, is_over)


def test_records_of_trials_that_the_study_knows_to_have_ended_are_ended(tmp_path: Path) -> None:
    job, journal = TrialJob(tmp_path, Experiment(), threads=1), tmp_path / "study.journal"
    searcher = StudySearcher(SearchStudy(journal, SPACE, Experiment(), same_length), trials=5)
    searcher.given_up.add(3)
    for number, name in enumerate("abcde"):
        searcher.suggest(name)
        record(job, number, images=100, is_finished=number == 0)
    failed = read_record(job.folder(2))
    failed.stop_reason = "out of GPU memory"  # which it told before it ended
    failed.write()
    searcher.on_trial_complete("a", result(100, is_over=True))
    searcher.on_trial_complete("b", result(100))
    searcher.on_trial_complete("c", as_result(failure("out of GPU memory", breaks_off=False)))
    searcher.on_trial_complete("d", error=True)
    ended = SearchStudy(journal, SPACE, Experiment(), same_length).ended
    changed = settle(read_records(tmp_path / "trials"), job, ended)
    assert [trial.number for trial in changed] == [0, 1, 2, 3]
    assert [(trial.status, trial.stop_reason) for trial in read_records(tmp_path / "trials")] == [
        ("finished", None),
        ("stopped_early", "forecast at 100 images"),
        ("failed", "out of GPU memory"),
        ("failed", "its worker was lost"),
        ("running", None),
    ]
    assert settle(read_records(tmp_path / "trials"), job, ended) == []


@pytest.mark.parametrize(
    ("told", "cause"),
    [
        ("The actor died because its node has died. Node Id: 3c1f", "node"),
        ("Task was killed due to the node running low on memory.", "memory"),
        (
            "Worker exit type: SYSTEM_ERROR … the process was killed by the OOM killer due to high memory usage",
            "worker",
        ),
        ("", "worker"),
    ],
)
def test_the_last_loss_tells_its_cause(told: str, cause: str, tmp_path: Path) -> None:
    """Ray adds one error to the other, and any kill may have been the operating system's."""
    file = tmp_path / "error.txt"
    file.write_text(f"Failure # 1 (occurred at noon)\nits node has died\nFailure # 2 (occurred at one)\n{told}\n")
    assert error_of(SimpleNamespace(error_file=str(file))) == told
    assert cause_of_loss(told) == cause
    assert error_of(SimpleNamespace(error_file=None)) == ""
