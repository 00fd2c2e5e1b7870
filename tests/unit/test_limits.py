"""Limits on what trials cost: who breaks one, what the searcher learns of it, and who may still win."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from raylora.config import Experiment, LimitsConfig
from raylora.errors import RayloraError
from raylora.execution.cluster import Share
from raylora.execution.conclude import conclude
from raylora.execution.confirm import best_trials, candidates, confirmations
from raylora.execution.listening import RayListener
from raylora.execution.outputs import OutFolder
from raylora.execution.results import REPORT, as_result
from raylora.execution.searcher import StudySearcher
from raylora.execution.trial import TrialJob
from raylora.execution.underway import Search
from raylora.search.limits import excess, in_words, over_limits
from raylora.search.ranking import COSTS_KEY, by_share
from raylora.search.space import SearchSpace
from raylora.search.study import Outcome, SearchStudy, keep_earlier, read_trials
from raylora.search.warm_start import EarlierSearch, take
from raylora.tracking.recorder import Listeners, Status, TrialRecord, read_records
from tests import reports
from tests.reports import same_length

LIMITS = LimitsConfig(lora_mb=2, train_s=600)
RATE = "optimizer.unet_lr"
SPACE = SearchSpace.model_validate(
    {"name": "rates", "parameters": {RATE: {"low": 1e-5, "high": 1e-3, "log": True}, "lora.rank": {"choices": [4, 8]}}}
)
LIMITED = Experiment().with_params({"search.limits.train_s": 600})


def test_what_is_over_its_limit_is_found_and_told() -> None:
    report = {"score": 0.5, "lora_mb": 3.0, "train_s": 600.0, "peak_memory_gib": 99.0}
    assert over_limits(LIMITS, report) == {"lora_mb": 3.0}
    assert excess(LIMITS, report) == pytest.approx(0.5)
    both = {"lora_mb": 3.0, "train_s": 912.25}
    assert in_words(LIMITS, over_limits(LIMITS, both)) == "lora_mb 3 > 2, train_s 912.2 > 600"
    assert excess(LIMITS, both) == pytest.approx(0.5 + 312.25 / 600)
    assert over_limits(LimitsConfig(), report) == {}
    assert excess(LIMITS, {}) == 0


def result(images: int, score: float, train_s: float, is_over: bool = False) -> dict[str, Any]:
    return reports.result(images, score, is_over, train_s=train_s)


def test_trials_that_broke_a_limit_are_stopped_and_none_of_them_failed(tmp_path: Path) -> None:
    """One over time at a rung, others not trained for their size; and the baseline, that has come to its end."""
    journal = tmp_path / "study.journal"
    searcher = StudySearcher(SearchStudy(journal, SPACE, LIMITED, same_length), trials=20)
    searcher.given_up.add(9)
    for name in map(str, range(20)):
        assert isinstance(searcher.suggest(name), dict)
    searcher.on_trial_complete("0", result(150, 0.5, 700.0))
    searcher.on_trial_complete("1", result(900, 0.6, 800.0, is_over=True))
    for number in range(2, 9):
        refused = {"images_seen": 0, "best_score": -math.inf, "is_over": False, "lora_mb": 9.0}
        searcher.on_trial_result(str(number), refused)
        searcher.on_trial_complete(str(number), refused)
    stopped, finished, refused_one, *_ = read_trials(journal)
    assert (stopped.state, stopped.user_attrs[COSTS_KEY]) == (TrialState.PRUNED, {"train_s": 700.0})
    assert (finished.state, finished.value) == (TrialState.COMPLETE, 0.6)
    assert (refused_one.state, refused_one.intermediate_values) == (TrialState.PRUNED, {})
    study = SearchStudy(journal, SPACE, LIMITED, same_length)
    assert not study.is_hopeless
    searcher.on_trial_complete("9", {}, error=True)
    assert read_trials(journal)[9].state == TrialState.FAIL


def slow_above(params: dict[str, Any]) -> dict[str, float]:
    """Rates above 1e-4 take too long, and more the higher they are."""
    return {"train_s": 600 * (1 + max(0.0, math.log10(params[RATE]) + 4))}


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("limited", [False, True], ids=["free", "limited"])
def test_the_searcher_learns_to_avoid_what_costs_too_much(limited: bool, warm: bool, tmp_path: Path) -> None:
    """The score rises with the rate; reopened half way, as by a resume, and with or without an earlier search."""
    journal, experiment = tmp_path / "study.journal", LIMITED if limited else Experiment()
    if warm:
        keep_earlier(journal, taken_trials(experiment))
    for _ in range(2):
        study = SearchStudy(journal, SPACE, experiment, same_length)
        for _ in range(15):
            number, params = study.ask()
            score, costs = math.log10(params[RATE]), slow_above(params)
            study.report(number, 1200, score)
            study.learn(number, *reports.result(1200, score, **costs)[REPORT])
            study.tell(number, Outcome.FINISHED, score, costs)
    rates = [trial.params[RATE] for trial in read_trials(journal)[-12:]]
    assert (statistics.median(rates) > 2e-4) != limited


def taken_trials(experiment: Experiment) -> list[optuna.trial.FrozenTrial]:
    """What an earlier search of the same space tells a new one."""
    trials = []
    for exponent in (-5, -4.5, -4.2, -3.8, -3.4, -3.0):
        point = {RATE: 10**exponent, "lora.rank": 4}
        trials.append(ended(point, score=exponent, costs=slow_above(point)))
    found = take(EarlierSearch("before", Experiment(), trials), SPACE, experiment)
    assert not found.left_out
    assert [trial.user_attrs[COSTS_KEY] for trial in found.trials] == [trial.user_attrs[COSTS_KEY] for trial in trials]
    return found.trials


def ended(point: dict[str, Any], score: float | None, costs: dict[str, float]) -> optuna.trial.FrozenTrial:
    state = TrialState.PRUNED if score is None else TrialState.COMPLETE
    return create_trial(state=state, value=score, user_attrs={"params": point, COSTS_KEY: costs})


def test_a_trial_that_was_too_large_to_be_trained_tells_only_where_it_still_is(tmp_path: Path) -> None:
    earlier = EarlierSearch("before", Experiment(), [ended({RATE: 1e-4, "lora.rank": 8}, None, {"lora_mb": 9.0})])
    for limit, count in ((8.0, 1), (None, 0), (10.0, 0)):
        experiment = Experiment().with_params({"search.limits.lora_mb": limit})
        assert len(take(earlier, SPACE, experiment).trials) == count


def test_in_one_order_those_over_a_limit_come_last_by_how_far_they_went() -> None:
    costs = (700.0, 100.0, 1200.0, 600.0)
    group = [ended({}, score, {"train_s": cost}) for score, cost in zip((9.0, 1.0, 9.5, 2.0), costs, strict=True)]
    assert [trial.value for trial in by_share(group, LIMITS)] == [0.375, 0.625, 0.125, 0.875]
    assert [trial.value for trial in by_share(group, LimitsConfig())] == [0.625, 0.125, 0.875, 0.375]


def trial(number: int, score: float | None, over: dict[str, float], status: Status = "stopped_early") -> TrialRecord:
    losses = {"holdout_loss": 0.1, "holdout_loss_ratio": 0.9}
    history = [] if score is None else [{"score": score, "images_seen": 100, **losses}]
    return TrialRecord(f"t{number:03d}", number, {}, number == 0, "", status, history=history, over_limits=over)


def test_a_trial_that_broke_a_limit_is_neither_trained_again_nor_the_winner() -> None:
    """But the guide's own is trained again, to be compared with."""
    guide, fast, slow = trial(0, 3.0, {"train_s": 700.0}), trial(1, 1.0, {}), trial(2, 2.0, {"train_s": 800.0})
    trials = [guide, fast, slow]
    assert best_trials(trials, 9) == [fast]
    wanted = confirmations(trials, Experiment().with_params({"search.confirm_seeds": 1}))
    assert [config["confirms"] for config in wanted] == ["t001", "t000"]
    again = [TrialRecord("c", 0, {}, False, "", "finished", confirms=one.trial_id, history=one.history)
             for one in (fast, guide)]  # fmt: skip
    assert [one.trial.trial_id for one in candidates(trials, again)] == ["t001", "t000"]
    assert candidates([guide, slow], []) == []
    assert confirmations([guide, slow], Experiment()) == []


def test_a_search_of_which_no_trial_kept_the_limits_says_how_near_it_came(tmp_path: Path) -> None:
    out = OutFolder(tmp_path / "out")
    out.root.mkdir()
    out.space.write_text("")
    out.write_state("running", tracking_uri="", parent_run_id="", wall_s=0.0)
    experiment = Experiment().with_params({"search.limits": {"train_s": 600, "lora_mb": 2}})
    job = cast(Any, SimpleNamespace(experiment=experiment))
    search = Search(job, out, cast(Any, None), Listeners([]), print, Share(1, 0.0, 1, 1))
    trials = [
        trial(0, 1.0, {"train_s": 1200.0}),
        trial(1, None, {"lora_mb": 2.5}),
        TrialRecord("t002", 2, {}, False, "", "failed", "out of memory"),
    ]
    with pytest.raises(RayloraError) as told, out.working() as wall_s:
        conclude(search, trials, [], False, wall_s)
    assert told.value.exit_status == 1
    assert str(told.value) == (
        "no trial came to a result; 2 of 3 trials broke search.limits; the nearest, t001, has lora_mb 2.5 > 2; the "
        "others failed: out of memory. There is nothing to go on with: raise the limit, or search settings that cost "
        "less, and start anew with another --out"
    )


def test_records_say_which_limit_a_trial_broke_and_that_it_was_stopped(tmp_path: Path) -> None:
    """At its last image, without any training, and by the guide's own, which goes on."""
    job = TrialJob(tmp_path, LIMITED.with_params({"search.limits.lora_mb": 2}), threads=1)
    listener = RayListener(job, Listeners([]), set(), print)
    end = {**result(900, 0.5, 700.0), "score": 0.5, "is_finished": True, "stop_reason": None}
    untrained = {"images_seen": 0, "best_score": -math.inf, "lora_mb": 9.0, "stop_reason": "limit: lora_mb 9 > 2"}
    results = [end, {**end, "stop_reason": "limit: train_s 700 > 600"}, untrained]
    for number, latest in enumerate(results):
        config = {"number": number, "params": {}, "is_baseline": number == 0}
        told = SimpleNamespace(config=config, run_metadata=SimpleNamespace(last_result={}),
                               placement_group_factory=None,
                               temporary_state=SimpleNamespace(ray_actor=None))  # fmt: skip
        listener.on_trial_start(0, [], told)
        listener.on_trial_result(0, [], told, as_result(latest))
        assert read_records(tmp_path / "trials")[number].over_limits  # on disk before any end is told of
        listener.on_trial_complete(0, [], told)
    found = [(one.status, one.stop_reason, one.over_limits) for one in read_records(tmp_path / "trials")]
    assert found == [
        ("finished", None, {"train_s": 700.0}),
        ("stopped_early", "limit: train_s 700 > 600", {"train_s": 700.0}),
        ("stopped_early", "limit: lora_mb 9 > 2", {"lora_mb": 9.0}),
    ]
    assert [len(one.history) for one in read_records(tmp_path / "trials")] == [1, 1, 0]
