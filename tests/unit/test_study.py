"""The Optuna study and its journal."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from raylora.config import Experiment
from raylora.search import study as study_room
from raylora.search.space import SearchSpace
from raylora.search.study import PARAMS_KEY, STUDY_NAME, Outcome, SearchStudy, drop_torn_line, storage_of
from tests.reports import same_length

RATE = "optimizer.unet_lr"
BASELINE = {"optimizer.unet_lr": 1e-4, "lora.rank": 16, "lora.alpha": 8}
SECOND = {"optimizer.unet_lr": 3e-4, "lora.rank": 8, "lora.alpha": 8}
SPACE = SearchSpace.model_validate(
    {
        "name": "test",
        "parameters": {
            "optimizer.unet_lr": {"low": 1e-5, "high": 1e-3, "log": True},
            "lora.rank": {"choices": [8, 16]},
            "lora.alpha": {"ratio_of": "lora.rank", "choices": [0.5, 1.0]},
        },
        "first_points": [BASELINE, SECOND],
    }
)


def open_study(journal: Path, optuna_sampler: str = "tpe") -> SearchStudy:
    return SearchStudy(journal, SPACE, Experiment().with_params({"search.optuna_sampler": optuna_sampler}), same_length)


def stored(journal: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials as any other program finds them in the journal."""
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(study_name=STUDY_NAME, storage=storage).get_trials()


def finish(study: SearchStudy, number: int, score: float = 0.5) -> None:
    study.report(number, 100, score)
    study.tell(number, Outcome.FINISHED, score)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


def test_first_points_come_first_and_exactly(journal: Path) -> None:
    study = open_study(journal)
    assert study.ask() == (0, BASELINE)
    assert study.ask() == (1, SECOND)
    number, params = study.ask()
    assert number == 2
    assert params not in (BASELINE, SECOND)


def test_outcomes_are_kept_as_optunas_states(journal: Path) -> None:
    study = open_study(journal)
    for _ in range(3):
        study.ask()
    for images, score in ((200, 0.1), (400, 0.3), (1500, 0.4)):
        study.report(0, images, score)
    study.report(1, 200, 0.05)
    study.tell(0, Outcome.FINISHED, 0.4)
    study.tell(1, Outcome.STOPPED_EARLY, 0.05)
    study.tell(2, Outcome.FAILED, None)
    trials = stored(journal)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    assert [trial.value for trial in trials] == [0.4, 0.05, None]
    assert trials[0].intermediate_values == {200: 0.1, 400: 0.3, 1500: 0.4}
    assert trials[1].intermediate_values == {200: 0.05}


def test_the_settings_of_each_trial_are_kept_in_their_own_values(journal: Path) -> None:
    study = open_study(journal)
    given = [study.ask()[1] for _ in range(3)]
    assert [trial.user_attrs[PARAMS_KEY] for trial in stored(journal)] == given


def test_it_searches_for_the_highest_score(journal: Path) -> None:
    open_study(journal)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    assert optuna.load_study(study_name=STUDY_NAME, storage=storage).direction.name == "MAXIMIZE"


def test_reopening_does_not_queue_first_points_twice(journal: Path) -> None:
    study = open_study(journal)
    number, _ = study.ask()
    finish(study, number)
    study = open_study(journal)
    assert study.ask() == (1, SECOND)
    assert study.ask()[1] not in (BASELINE, SECOND)
    assert [trial.number for trial in stored(journal)] == [0, 1, 2]


@pytest.mark.parametrize("optuna_sampler", ["tpe", "random"])
def test_reopening_does_not_try_the_same_points_again(journal: Path, optuna_sampler: str) -> None:
    tried: list[dict[str, Any]] = []
    for _ in range(2):
        study = open_study(journal, optuna_sampler)
        for _ in range(4):
            number, params = study.ask()
            finish(study, number)
            tried.append(params)
    rates = {params["optimizer.unet_lr"] for params in tried}
    assert len(rates) == len(tried)


def test_asked_counts_what_was_begun_and_not_what_waits(journal: Path) -> None:
    study = open_study(journal)
    assert study.asked == 0
    number, _ = study.ask()
    assert study.asked == 1
    study.tell(number, Outcome.FAILED, None)
    assert study.asked == 1
    assert open_study(journal).asked == 1


def test_a_study_that_is_opened_reads_its_journal_once(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a thousand trials takes half a second of processor time."""
    opened: list[Path] = []
    monkeypatch.setattr(study_room, "storage_of", lambda file: (opened.append(file), storage_of(file))[1])
    study = open_study(journal)
    for outcome in Outcome:
        study.tell(study.ask()[0], outcome, 0.5)
    assert study.ended == dict(enumerate(Outcome))
    assert opened == [journal]


def test_what_a_dead_search_left_running_is_found_and_can_be_told(journal: Path) -> None:
    dead = open_study(journal)
    finish(dead, dead.ask()[0])
    left = [dead.ask() for _ in range(3)]
    dead.report(2, 200, 0.2)
    study = open_study(journal)
    assert study.orphans() == left
    study.report(2, 400, 0.6)
    study.tell(1, Outcome.STOPPED_EARLY, 0.1)
    study.tell(2, Outcome.FINISHED, 0.6)
    trials = stored(journal)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "COMPLETE", "RUNNING"]
    assert trials[2].intermediate_values == {200: 0.2, 400: 0.6}
    assert open_study(journal).orphans() == left[2:]


def test_a_resumed_trial_may_say_its_last_word_again(journal: Path) -> None:
    dead = open_study(journal)
    number, _ = dead.ask()
    dead.report(number, 200, 0.2)
    study = open_study(journal)
    study.orphans()
    study.report(number, 200, 0.2)
    study.tell(number, Outcome.FINISHED, 0.2)
    assert stored(journal)[0].intermediate_values == {200: 0.2}


def test_a_finished_search_leaves_no_orphans(journal: Path) -> None:
    study = open_study(journal)
    assert study.orphans() == []
    finish(study, study.ask()[0])
    assert open_study(journal).orphans() == []


def die_amid_ask(journal: Path) -> None:
    """Killed between Optuna's trial and its settings."""
    open_study(journal)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    optuna.load_study(study_name=STUDY_NAME, storage=storage).ask().suggest_float(RATE, 1e-5, 1e-3, log=True)


@pytest.mark.parametrize("begun", [0, 3])
def test_a_trial_that_died_before_its_settings_were_kept_begins_all_the_same(journal: Path, begun: int) -> None:
    """A first point is tried, though it died, and what was drawn at random stays as it was drawn."""
    study = open_study(journal)
    for _ in range(begun):
        finish(study, study.ask()[0])
    die_amid_ask(journal)
    drawn = stored(journal)[begun].params[RATE]
    study = open_study(journal)
    ((number, params),) = study.orphans()
    assert (number, params[RATE]) == (begun, drawn)
    assert params == BASELINE if begun == 0 else set(params) == set(BASELINE)
    finish(study, number)
    assert study.asked == begun + 1
    assert stored(journal)[begun].user_attrs[PARAMS_KEY] == params


@pytest.mark.parametrize("torn", [b'{"op_code":5,"wor', b"\0\0\0", b'{"op_code":'])
def test_a_line_that_a_full_disk_cut_off_is_dropped(journal: Path, torn: bytes) -> None:
    """Optuna would append to it, and nobody could read the journal any more."""
    study = open_study(journal)
    finish(study, study.ask()[0])
    whole = journal.read_bytes()
    journal.write_bytes(whole + torn)
    study = open_study(journal)
    assert study.ask() == (1, SECOND)
    assert journal.read_bytes().startswith(whole)
    assert open_study(journal).orphans() == [(1, SECOND)]
    assert [trial.state.name for trial in stored(journal)] == ["COMPLETE", "RUNNING"]


def test_a_whole_journal_is_left_as_it_is(journal: Path) -> None:
    open_study(journal).ask()
    whole = journal.read_bytes()
    drop_torn_line(journal)
    assert journal.read_bytes() == whole


@pytest.mark.parametrize(("sign", "better"), [(-1, "low"), (1, "high")])
def test_scores_lead_the_search_to_the_better_rates(journal: Path, sign: int, better: str) -> None:
    study = open_study(journal)
    for _ in range(30):
        number, params = study.ask()
        finish(study, number, sign * math.log10(params["optimizer.unet_lr"]))
    rates = [trial.user_attrs[PARAMS_KEY]["optimizer.unet_lr"] for trial in stored(journal)[-12:]]
    middle = 1e-4
    assert statistics.median(rates) < middle / 2 if better == "low" else statistics.median(rates) > middle * 2


def test_the_same_seed_asks_the_same(tmp_path: Path) -> None:
    asked = []
    for name in ("one", "two"):
        study = open_study(tmp_path / name)
        for _ in range(10):
            number, params = study.ask()
            finish(study, number, params["lora.rank"])
            asked.append(params)
    assert asked[:10] == asked[10:]
