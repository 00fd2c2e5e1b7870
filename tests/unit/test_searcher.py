"""Optuna plugged into Ray's interface, called as Tune calls it."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from raylora.config import Experiment
from raylora.execution.results import REPORT, as_result
from raylora.execution.searcher import StudySearcher
from raylora.search.space import Parameter, SearchSpace
from raylora.search.study import STUDY_NAME, SearchStudy, storage_of
from tests.reports import result, same_length

SPACE = SearchSpace(
    name="small", parameters={"lora.rank": Parameter(choices=(2, 4, 8))}, first_points=({"lora.rank": 4},)
)


def open_study(folder: Path) -> SearchStudy:
    return SearchStudy(folder / "study.journal", SPACE, Experiment(), same_length)


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "study.journal")))
    return optuna.load_study(study_name=STUDY_NAME, storage=storage).trials


def test_hands_out_the_first_point_first_and_then_no_more_than_asked(tmp_path: Path) -> None:
    searcher = StudySearcher(open_study(tmp_path), trials=2, given_up=set())
    assert searcher.suggest("a") == {"number": 0, "params": {"lora.rank": 4}, "is_baseline": True, "went_on_at": 0}
    second = searcher.suggest("b")
    assert isinstance(second, dict)
    assert second["number"] == 1
    assert not second["is_baseline"]
    assert searcher.suggest("c") is None  # one of them may come back
    for name in "ab":
        searcher.on_trial_complete(name, result(1200, 0.9, is_over=True))
    assert searcher.suggest("c") == "FINISHED"


def test_what_tune_ends_for_a_lost_worker_is_handed_out_again(tmp_path: Path) -> None:
    """Unless its listener has given it up."""
    given_up = set[int]()
    searcher = StudySearcher(open_study(tmp_path), trials=2, given_up=given_up)
    first = searcher.suggest("a")
    assert isinstance(first, dict)
    searcher.suggest("b")
    searcher.on_trial_result("a", result(150, 0.5))
    searcher.on_trial_complete("a", error=True)
    assert trials_of(tmp_path)[0].state == TrialState.RUNNING
    assert searcher.suggest("c") == {**first, "went_on_at": 150}
    given_up.add(0)
    searcher.on_trial_complete("c", error=True)
    assert trials_of(tmp_path)[0].state == TrialState.FAIL
    searcher.on_trial_complete("b", result(1200, 0.9, is_over=True))
    assert searcher.suggest("d") == "FINISHED"


def test_the_report_that_ends_a_trial_is_kept(tmp_path: Path) -> None:
    """Tune calls on_trial_complete, and not on_trial_result, with the report at which a trial is stopped."""
    searcher = StudySearcher(open_study(tmp_path), trials=3, given_up={2})
    for name in "abc":
        searcher.suggest(name)
    searcher.on_trial_complete("a", result(150, 0.5))
    searcher.on_trial_result("b", result(150, 0.6))
    searcher.on_trial_complete("b", result(1200, 0.9, is_over=True))
    searcher.on_trial_complete("c", error=True)
    stopped, finished, failed = trials_of(tmp_path)
    assert (stopped.state, stopped.intermediate_values) == (TrialState.PRUNED, {150: 0.5})
    assert (finished.state, finished.value) == (TrialState.COMPLETE, 0.9)
    assert finished.intermediate_values == {150: 0.6, 1200: 0.9}
    assert failed.state == TrialState.FAIL


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_fails_the_trial(score: float, tmp_path: Path) -> None:
    searcher = StudySearcher(open_study(tmp_path), trials=1, given_up=set())
    searcher.suggest("a")
    searcher.on_trial_complete("a", result(150, score, is_over=True))
    assert trials_of(tmp_path)[0].state == TrialState.FAIL


@pytest.mark.parametrize("measured", [False, True])
def test_it_gives_up_where_one_trial_after_the_other_fails(measured: bool, tmp_path: Path) -> None:
    searcher = StudySearcher(open_study(tmp_path), trials=9, given_up=set(range(9)))
    running = searcher.suggest("running")
    if measured:
        searcher.on_trial_result("running", result(150, 0.5))
    for number in range(Experiment().search.max_failures):
        assert isinstance(searcher.suggest(str(number)), dict)
        searcher.on_trial_complete(str(number), error=True)
    assert (searcher.suggest("next") == "FINISHED") != measured
    resumed = StudySearcher(open_study(tmp_path), trials=9, given_up=set()).suggest("resumed")
    assert resumed == ({**running, "went_on_at": 150} if isinstance(running, dict) and measured else "FINISHED")


def test_a_new_searcher_hands_out_what_an_earlier_one_left_running(tmp_path: Path) -> None:
    first = StudySearcher(open_study(tmp_path), trials=4, given_up=set())
    configs = [first.suggest(name) for name in "abc"]
    first.on_trial_complete("a", result(1200, 0.9, is_over=True))
    later = StudySearcher(open_study(tmp_path), trials=4, given_up=set())
    assert [later.suggest("d"), later.suggest("e")] == configs[1:]
    last = later.suggest("f")
    assert isinstance(last, dict)
    assert last["number"] == 3
    assert later.suggest("g") is None


def test_a_trial_that_was_killed_while_it_was_asked_is_neither_lost_nor_counted_twice(tmp_path: Path) -> None:
    open_study(tmp_path)
    optuna.load_study(study_name=STUDY_NAME, storage=storage_of(tmp_path / "study.journal")).ask()
    searcher = StudySearcher(open_study(tmp_path), trials=3, given_up=set())
    baseline, *others = [searcher.suggest(name) for name in "abc"]
    assert baseline == {"number": 0, "params": {"lora.rank": 4}, "is_baseline": True, "went_on_at": 0}
    assert [isinstance(other, dict) and other["is_baseline"] for other in others] == [False, False]
    assert searcher.suggest("d") is None


def test_a_trial_that_goes_on_after_a_kill_brings_how_far_it_was_let_go(tmp_path: Path) -> None:
    """A report at which it is stopped reaches the searcher with its end alone, and that was never told."""
    first = StudySearcher(open_study(tmp_path), trials=2, given_up=set())
    first.suggest("a")
    first.on_trial_result("a", result(150, 0.5))
    first.on_trial_result("a", result(300, 0.5))
    resumed = StudySearcher(open_study(tmp_path), trials=2, given_up=set()).suggest("b")
    assert isinstance(resumed, dict)
    assert (resumed["number"], resumed["went_on_at"]) == (0, 300)


def test_tune_is_told_bare_what_is_decided_by_and_all_else_in_a_list() -> None:
    """It keeps statistics of each bare number of each trial."""
    bare = {"images_seen": 150, "best_score": 0.5, "is_over": False, "train_s": 2.0, "lora_mb": 1.0}
    report = {**bare, "holdout_loss": 0.1, "train_losses": [(4, 0.2)]}
    told = as_result(report)
    assert told.pop(REPORT) == [report]
    assert told == bare
