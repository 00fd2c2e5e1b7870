"""Every trial scheduler, fed with hand-written results as Tune feeds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from raylora.config import Experiment, LimitsConfig, SearchConfig
from raylora.execution.schedulers import TRIAL_SCHEDULERS
from raylora.search.space import Parameter, SearchSpace
from raylora.search.study import SearchStudy, read_trials
from raylora.tracking.recorder import TrialRecord
from tests.reports import result as report
from tests.reports import same_length

CONFIG = SearchConfig(grace_period=100, reduction_factor=2)
SPACE = SearchSpace(name="small", parameters={"optimizer.unet_lr": Parameter(low=1e-4, high=1e-2, log=True)})


@pytest.fixture
def study(tmp_path: Path) -> SearchStudy:
    """With eight trials under way."""
    found = SearchStudy(tmp_path / "study.journal", SPACE, Experiment(), same_length)
    for _ in range(8):
        found.ask()
    return found


@dataclass(eq=False)
class Trial:
    """What schedulers look at in a Tune trial."""

    number: int
    trial_id: str = ""
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trial_id = f"trial{self.number}"
        self.config = {"number": self.number, "is_baseline": self.number == 0, "went_on_at": 0}


def scheduler_of(name: str, study: SearchStudy, earlier: Sequence[TrialRecord] = ()) -> TrialScheduler:
    scheduler = TRIAL_SCHEDULERS[name](CONFIG, earlier, study)
    scheduler.set_search_properties("best_score", "max")
    return scheduler


def feed(scheduler: TrialScheduler, trial: Trial, images: int, score: float) -> str:
    result = {**report(images, score), "training_iteration": 1}
    return str(scheduler.on_trial_result(None, trial, result))


def begin(scheduler: TrialScheduler, numbers: range) -> list[Trial]:
    trials = [Trial(number) for number in numbers]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    return trials


@pytest.mark.parametrize("name", TRIAL_SCHEDULERS)
def test_the_baseline_is_never_stopped(name: str, study: SearchStudy) -> None:
    scheduler = scheduler_of(name, study)
    baseline, *others = begin(scheduler, range(6))
    for images in (100, 200, 400, 800):
        for trial in others:
            feed(scheduler, trial, images, score=1.0 + trial.number)
        assert feed(scheduler, baseline, images, score=-5.0) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("name", TRIAL_SCHEDULERS)
def test_nothing_is_stopped_before_the_first_rung(name: str, study: SearchStudy) -> None:
    scheduler = scheduler_of(name, study)
    for trial in begin(scheduler, range(1, 6)):
        assert feed(scheduler, trial, 99, score=-float(trial.number)) == TrialScheduler.CONTINUE


@pytest.mark.parametrize(
    ("name", "expected"), [("forecast", "STOP"), ("asha", "STOP"), ("median", "STOP"), ("none", "CONTINUE")]
)
def test_the_weakest_is_stopped(name: str, expected: str, study: SearchStudy) -> None:
    scheduler = scheduler_of(name, study)
    *others, weakest = begin(scheduler, range(6))
    for trial in others:
        assert feed(scheduler, trial, 100, score=1.0 + trial.number) == TrialScheduler.CONTINUE
    assert feed(scheduler, weakest, 100, score=0.0) == expected


def test_asha_counts_the_baselines_scores(study: SearchStudy) -> None:
    scheduler = scheduler_of("asha", study)
    baseline, weaker = begin(scheduler, range(2))
    feed(scheduler, baseline, 100, score=1.0)
    assert feed(scheduler, weaker, 100, score=0.9) == TrialScheduler.STOP


def test_asha_enters_a_shorter_finished_trial_at_later_rungs(study: SearchStudy) -> None:
    """Trial 1 ends for good at 150 images; a longer one must beat it at 200."""
    scheduler = scheduler_of("asha", study)
    short, long = begin(scheduler, range(1, 3))
    feed(scheduler, short, 100, score=0.5)
    scheduler.on_trial_complete(None, short, report(150, 2.0, is_over=True))
    assert feed(scheduler, long, 100, score=0.6) == TrialScheduler.CONTINUE
    assert feed(scheduler, long, 200, score=1.9) == TrialScheduler.STOP


@pytest.mark.parametrize("name", ["asha", "median"])
def test_what_an_interrupted_search_saw_is_remembered(name: str, study: SearchStudy) -> None:
    """Trial 1 ended, trial 2 stood at 100 images: trial 2 is not judged there again, trial 3 must beat both."""
    ended = TrialRecord("t001", 1, {}, False, "", history=[report(100, 0.9), report(150, 0.9, is_over=True)])
    running = TrialRecord("t002", 2, {}, False, "", history=[report(100, 0.5)])
    scheduler = scheduler_of(name, study, [ended, running])
    _, second, third = begin(scheduler, range(1, 4))
    second.config["went_on_at"] = 100
    assert feed(scheduler, second, 100, score=0.5) == TrialScheduler.CONTINUE
    assert feed(scheduler, second, 200, score=0.8) == TrialScheduler.STOP
    assert feed(scheduler, third, 100, score=0.4) == TrialScheduler.STOP


@pytest.mark.parametrize("name", ["asha", "median"])
def test_a_trial_that_was_killed_while_it_was_stopped_is_stopped_again(name: str, study: SearchStudy) -> None:
    """It failed at 200 images and died before Optuna heard of it; resumed, it says all that it has said before."""
    better = TrialRecord("t001", 1, {}, False, "", history=[report(100, 0.3), report(200, 0.9)])
    failed = TrialRecord("t002", 2, {}, False, "", history=[report(100, 0.4), report(200, 0.5)])
    scheduler = scheduler_of(name, study, [better, failed])
    (trial,) = begin(scheduler, range(2, 3))
    trial.config["went_on_at"] = 100
    assert feed(scheduler, trial, 100, score=0.4) == TrialScheduler.CONTINUE
    assert feed(scheduler, trial, 200, score=0.5) == TrialScheduler.STOP
    assert feed(scheduler, trial, 200, score=0.5) == TrialScheduler.STOP


@pytest.mark.parametrize("name", ["asha", "median"])
def test_nobody_is_measured_against_a_trial_over_a_limit(name: str, study: SearchStudy) -> None:
    """Trial 0 is the guide's own and goes on; trial 1 ends itself; one of an interrupted search is known to have."""
    limited = CONFIG.model_copy(update={"limits": LimitsConfig(train_s=5)})
    slow = {**report(100, 9.0), "train_s": 6.0}
    earlier = TrialRecord("t003", 3, {}, False, "", history=[slow, {**slow, "images_seen": 150, "is_over": True}])
    scheduler = TRIAL_SCHEDULERS[name](limited, [earlier], study)
    guide, over, fast = begin(scheduler, range(3))
    for trial in (guide, over):
        assert scheduler.on_trial_result(None, trial, slow) == TrialScheduler.CONTINUE
        scheduler.on_trial_complete(None, trial, {**slow, "images_seen": 150, "is_over": True})
    assert scheduler.on_trial_result(None, fast, {**report(100, 0.1), "train_s": 4.0}) == TrialScheduler.CONTINUE
    assert scheduler.on_trial_result(None, fast, {**report(200, 0.1), "train_s": 4.0}) == TrialScheduler.CONTINUE


def test_a_forecast_stops_who_has_no_chance_and_spares_who_has(study: SearchStudy, tmp_path: Path) -> None:
    """Low rates are bad at all times; once one trial has come to its end, places at rungs count no more."""
    scheduler = scheduler_of("forecast", study)
    rates = {trial.number: trial.params["optimizer.unet_lr"] for trial in read_trials(tmp_path / "study.journal")}
    ordered = sorted(rates, key=lambda number: rates[number])
    trials = {trial.number: trial for trial in begin(scheduler, range(8))}
    trials[0].config["is_baseline"] = False
    best, second, *middle, worst = reversed(ordered)
    for images in (100, 400, 1200):
        feed(scheduler, trials[best], images, score=1.0 + images / 2400)
    for number in middle:
        feed(scheduler, trials[number], 100, score=0.6)
    assert feed(scheduler, trials[second], 100, score=1.04) == TrialScheduler.CONTINUE
    assert feed(scheduler, trials[worst], 100, score=0.3) == TrialScheduler.STOP
