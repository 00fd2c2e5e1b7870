"""Warm starts: what a new search takes from earlier ones, and what its study makes of it."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from raylora.config import Experiment, LimitsConfig
from raylora.search.ranking import by_share
from raylora.search.space import Params, SearchSpace
from raylora.search.study import (
    EARLIER_NAME,
    OPTUNA_SAMPLERS,
    SOURCE_KEY,
    Outcome,
    SearchStudy,
    keep_earlier,
    read_trials,
)
from raylora.search.warm_start import EarlierSearch, Taken, take
from tests.reports import same_length

RATE, RANK, ALPHA, NAME = "optimizer.unet_lr", "lora.rank", "lora.alpha", "optimizer.name"
BASELINE: Params = {NAME: "adamw", RATE: 1e-4, RANK: 16, ALPHA: 8}
PARAMETERS: dict[str, Any] = {
    NAME: {"choices": ["adamw", "lion"]},
    RATE: {"low": 1e-5, "high": 1e-3, "log": True, "scale": {NAME: {"lion": 0.1}}},
    RANK: {"choices": [8, 16]},
    ALPHA: {"ratio_of": RANK, "choices": [0.5, 1.0]},
}


def space_of(**changes: Any) -> SearchSpace:
    """The space above with other parameters; None takes one out."""
    parameters = {**PARAMETERS, **{path.replace("__", "."): change for path, change in changes.items()}}
    kept = {path: parameter for path, parameter in parameters.items() if parameter is not None}
    first = {path: value for path, value in BASELINE.items() if path in kept}
    return SearchSpace.model_validate({"name": "test", "parameters": kept, "first_points": [first]})


SPACE = space_of()


def peak_at(rate: float, params: Params) -> float:
    """Best at one rate, which for Lion is a tenth; always below -100, far from what any other search scores."""
    own = params.get(RATE, 1e-4) * (10 if params.get(NAME) == "lion" else 1)
    return -100 - abs(math.log10(own / rate))


def search(folder: Path, trials: int = 8) -> Path:
    """The journal of a finished search."""
    folder.mkdir(parents=True, exist_ok=True)
    study = SearchStudy(folder / "study.journal", SPACE, Experiment(), same_length)
    for _ in range(trials):
        number, params = study.ask()
        tell(study, number, peak_at(5e-4, params))
    return folder / "study.journal"


def tell(study: SearchStudy, number: int, score: float) -> None:
    study.report(number, 100, score)
    study.tell(number, Outcome.FINISHED, score)


def of(journal: Path, experiment: Experiment | None = None) -> EarlierSearch:
    return EarlierSearch(str(journal.parent), experiment or Experiment(), read_trials(journal))


def by_hand(*points: Params, peak: float = 5e-4) -> EarlierSearch:
    """A search that tried these points."""
    trials = [optuna.trial.create_trial(value=peak_at(peak, point), user_attrs={"params": point}) for point in points]
    return EarlierSearch("earlier", Experiment(), trials)


def random_search(peak: float) -> EarlierSearch:
    """A search of 30 random points that found the best ones at `peak`."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=7))
    return by_hand(*(SPACE.suggest(study.ask(), Experiment()) for _ in range(30)), peak=peak)


def start(journal: Path, taken: Taken | None, space: SearchSpace = SPACE, seed: int = 0) -> SearchStudy:
    if taken:
        keep_earlier(journal, taken.trials)
    return SearchStudy(journal, space, Experiment(seed=seed), same_length)


def rates_of(study: SearchStudy, trials: int, score: float = 0.5) -> list[float]:
    """The rates of AdamW's kind that the search asks for after its first point, each told the same score."""
    rates = []
    for _ in range(1 + trials):
        number, params = study.ask()
        tell(study, number, score)
        rates.append(params[RATE] * (10 if params[NAME] == "lion" else 1))
    return rates[1:]


def distance(rates: list[float], peak: float) -> float:
    return statistics.median(abs(math.log10(rate / peak)) for rate in rates)


@pytest.mark.parametrize("peak", [3e-5, 5e-4])
@pytest.mark.parametrize("compares", [True, False])
def test_proposals_are_near_what_was_good_before(compares: bool, peak: float, tmp_path: Path) -> None:
    """From the first proposal on, without random trials; also where the earlier scores are on a scale far below."""
    taken = take(random_search(peak), SPACE, Experiment(), [] if compares else ["the dataset's pictures"])
    warm, cold = [], []
    for seed in range(6):
        score = -200.0 if compares else 0.5
        warm += rates_of(start(tmp_path / f"warm{seed}", taken, seed=seed), 4, score)
        cold += rates_of(start(tmp_path / f"cold{seed}", None, seed=seed), 4)
    assert distance(warm, peak) < 0.25
    assert distance(cold, peak) > 0.35


@pytest.mark.parametrize(("compares", "leads"), [(True, 5e-4), (False, 2e-5)])
def test_scores_lead_where_they_compare_and_places_elsewhere(compares: bool, leads: float, tmp_path: Path) -> None:
    """Five own trials at 5e-4 that all beat 30 earlier ones, whose best lay at 2e-5."""
    points = [BASELINE | {RATE: rate} for rate in (4e-4, 4.5e-4, 5e-4, 5.5e-4, 6e-4)]
    space = SPACE.model_copy(update={"first_points": tuple(points)})
    taken = take(random_search(2e-5), space, Experiment(), [] if compares else ["the dataset's pictures"])
    rates = []
    for seed in range(5):
        study = start(tmp_path / f"journal{seed}", taken, space, seed)
        rates += rates_of(study, 6)[-2:]
    assert distance(rates, leads) < 0.3


def test_first_points_still_come_first(tmp_path: Path) -> None:
    study = start(tmp_path / "journal", take(random_search(5e-4), SPACE, Experiment()))
    assert study.asked == 0
    assert study.orphans() == []
    assert study.ask() == (0, BASELINE)
    assert study.has_baseline
    assert study.ask()[0] == 1


def test_earlier_trials_are_kept_apart_and_marked(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    study = start(journal, take(of(search(tmp_path / "earlier")), SPACE, Experiment()))
    for _ in range(3):
        tell(study, study.ask()[0], 0.5)
    assert [trial.number for trial in read_trials(journal)] == [0, 1, 2]
    assert len(read_trials(journal, EARLIER_NAME)) == 8
    assert {trial.user_attrs[SOURCE_KEY] for trial in read_trials(journal, EARLIER_NAME)} == {str(tmp_path / "earlier")}


def test_going_on_adds_nothing_twice_and_still_learns(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    study = start(journal, take(random_search(5e-4), SPACE, Experiment()))
    tell(study, study.ask()[0], -200)
    left = study.ask()
    study = SearchStudy(journal, SPACE, Experiment(), same_length)
    assert study.orphans() == [left]
    tell(study, left[0], -200)
    rates = rates_of(study, 6, -200)
    assert len(read_trials(journal, EARLIER_NAME)) == 30
    assert study.asked == 9
    assert distance(rates, 5e-4) < 0.25
    assert len(set(rates)) == 6


def test_what_runs_is_seen_by_the_sampler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TPE counts those that run as bad until they end (the constant liar), so that proposals spread."""
    seen: list[list[FrozenTrial]] = []

    class Watching(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
            seen.append(study.get_trials())

    monkeypatch.setitem(OPTUNA_SAMPLERS, "tpe", lambda _, seed: Watching(seed))
    study = start(tmp_path / "journal", take(by_hand(BASELINE, BASELINE), SPACE, Experiment()))
    tell(study, study.ask()[0], 0.5)
    number, params = study.ask()
    study.ask()
    *ended, running, _asked = seen[-1]
    assert [trial.state.name for trial in ended] == ["COMPLETE"] * 3
    assert running.state is TrialState.RUNNING
    assert SPACE.suggest(optuna.trial.FixedTrial(running.params), Experiment()) == params
    study.tell(number, Outcome.FAILED, None)
    study.ask()
    assert len(seen[-1]) == 5


def test_a_search_is_taken_whole_by_its_own_space(tmp_path: Path) -> None:
    earlier = of(search(tmp_path / "earlier"))
    taken = take(earlier, SPACE, Experiment())
    assert str(taken) == f"8 of 8 trials of {tmp_path / 'earlier'}"
    assert taken.differing == []
    for before, after in zip(earlier.trials, taken.trials, strict=True):
        assert after.params == before.params | {RATE: pytest.approx(before.params[RATE])}
        assert (after.distributions, after.value) == (before.distributions, before.value)


def test_other_bounds_take_what_lies_inside_on_their_own_scale(tmp_path: Path) -> None:
    """Conditions, ratios and scales are the new space's: alpha 4 of rank 16 is a quarter there, Lion's rate a fifth."""
    space = space_of(
        optimizer__unet_lr={"low": 1e-4, "high": 1e-2, "log": True, "scale": {NAME: {"lion": 0.2}}},
        lora__alpha={"ratio_of": RANK, "choices": [0.25, 0.5]},
    )
    taken = take(
        by_hand(
            {NAME: "adamw", RATE: 2e-4, RANK: 16, ALPHA: 4},
            {NAME: "lion", RATE: 4e-5, RANK: 8, ALPHA: 4},
            {NAME: "adamw", RATE: 5e-5, RANK: 16, ALPHA: 8},
            {NAME: "adamw", RATE: 2e-4, RANK: 16, ALPHA: 16},
            {NAME: "adamw", RATE: 2e-4, RANK: 64, ALPHA: 16},
        ),
        space,
        Experiment(),
    )
    assert [trial.params for trial in taken.trials] == [
        {NAME: "adamw", RATE: 2e-4, RANK: 16, f"{ALPHA} / {RANK}": 0.25},
        {NAME: "lion", RATE: pytest.approx(2e-4), RANK: 8, f"{ALPHA} / {RANK}": 0.5},
    ]
    assert taken.left_out == {RATE: 1, ALPHA: 1, RANK: 1}
    assert str(taken) == f"2 of 5 trials of earlier (3 left out: 1 by {RATE}, 1 by {ALPHA}, 1 by {RANK})"
    rates = rates_of(start(tmp_path / "journal", taken, space), 3)
    assert len(rates) == 3


@pytest.mark.parametrize(("high", "taken"), [(0.3, [0.0, 0.15]), (1, [0.0])])
def test_fractions_are_taken_by_a_range_that_searches_them(high: float, taken: list[float]) -> None:
    dropout = "lora.dropout"
    points = [BASELINE | {dropout: value} for value in (0.0, 0.15)]
    trials = take(by_hand(*points), space_of(lora__dropout={"low": 0, "high": high}), Experiment()).trials
    assert [trial.params[dropout] for trial in trials] == taken


def test_a_condition_of_the_new_space_is_kept() -> None:
    restarts = "lr_scheduler.num_restarts"
    space = space_of(
        lr_scheduler__name={"choices": ["cosine", "cosine_with_restarts"]},
        lr_scheduler__num_restarts={"low": 3, "high": 5, "when": {"lr_scheduler.name": "cosine_with_restarts"}},
    )
    taken = take(
        by_hand(
            BASELINE,
            BASELINE | {"lr_scheduler.name": "cosine_with_restarts", restarts: 4},
            BASELINE | {"lr_scheduler.name": "cosine_with_restarts", restarts: 9},
        ),
        space,
        Experiment(),
    )
    assert [trial.params.get(restarts) for trial in taken.trials] == [None, 4]
    assert taken.left_out == {restarts: 1}


def test_what_is_searched_anew_is_taken_at_the_value_it_had() -> None:
    taken = take(by_hand(BASELINE), space_of(lora__dropout={"choices": [0.0, 0.1]}), Experiment())
    assert taken.trials[0].params["lora.dropout"] == 0.0
    assert take(by_hand(BASELINE), space_of(lora__dropout={"choices": [0.1, 0.2]}), Experiment()).trials == []


def test_a_setting_that_no_longer_moves_must_have_its_value() -> None:
    """A rank that stands still now, by hand or because the space leaves it out."""
    points = [BASELINE, BASELINE | {RANK: 8, ALPHA: 4}]
    space = space_of(lora__rank=None)
    experiment = Experiment().with_params({RANK: 8})
    for fixed in ({}, {RANK: "--set"}):
        taken = take(by_hand(*points), space.model_copy(update={"fixed": fixed}), experiment)
        assert [trial.user_attrs["params"][ALPHA] for trial in taken.trials] == [4]
        assert taken.left_out == {RANK: 1}


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_another_optimizer_is_left_out_even_where_neither_searches_it(name: str) -> None:
    point = {path: value for path, value in BASELINE.items() if path != NAME}
    space = space_of(optimizer__name=None)
    taken = take(by_hand(point), space, Experiment().with_params({NAME: name}))
    assert (len(taken.trials), taken.left_out) == ((1, {}) if name == "adamw" else (0, {NAME: 1}))


def test_the_optimizer_is_named_and_not_what_lies_elsewhere_because_of_it() -> None:
    lion = {NAME: "lion", RATE: 5e-6, RANK: 16, ALPHA: 8}
    assert take(by_hand(lion), space_of(optimizer__name=None), Experiment()).left_out == {NAME: 1}


def test_a_setting_fixed_by_hand_must_agree_where_neither_search_moves_it() -> None:
    space = SPACE.model_copy(update={"fixed": {"lora.dropout": "--set"}})
    taken = take(by_hand(BASELINE), space, Experiment().with_params({"lora.dropout": 0.1}))
    assert taken.left_out == {"lora.dropout": 1}


@pytest.mark.parametrize(
    ("path", "value", "differs"),
    [
        ("training.epochs", 20, True),
        ("model.base_model", "elsewhere", True),
        ("evaluation.noises", 3, True),
        ("dataset.resolution", "64x64", True),
        ("seed", 5, False),
        ("search.trials", 99, False),
        ("dataset.path", "moved", False),
        (RANK, 8, False),
    ],
)
def test_what_is_judged_otherwise_is_named(path: str, value: Any, differs: bool) -> None:
    taken = take(by_hand(BASELINE), SPACE, Experiment().with_params({path: value}))
    assert taken.differing == ([path] if differs else [])
    assert len(taken.trials) == 1
    assert taken.trials[0].user_attrs["compares"] is not differs


def test_where_a_search_starts_from_is_no_difference_in_what_it_moves() -> None:
    """The base value of a setting that only the new search moves; every trial has its own."""
    space = space_of(lora__dropout={"choices": [0.0, 0.1]})
    taken = take(by_hand(BASELINE), space, Experiment().with_params({"lora.dropout": 0.1}))
    assert taken.differing == []


def test_trials_without_a_score_are_left_out(tmp_path: Path) -> None:
    journal = search(tmp_path / "earlier", trials=2)
    study = SearchStudy(journal, SPACE, Experiment(), same_length)
    for outcome, score in ((Outcome.STOPPED_EARLY, 0.1), (Outcome.FAILED, None)):
        number, _ = study.ask()
        if score:
            study.report(number, 50, score)
        study.tell(number, outcome, score)
    study.ask()
    taken = take(of(journal), SPACE, Experiment())
    assert [trial.state for trial in taken.trials] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED]
    assert taken.trials[-1].intermediate_values == {50: 0.1}
    assert str(taken).endswith("(2 left out: 2 without a score)")


def test_a_search_by_a_function_is_taken_where_it_proposes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(trial: optuna.Trial) -> Params:
        return {RANK: 2 ** trial.suggest_int("power", 2, 4)}

    monkeypatch.setattr("raylora.search.space.load_function", lambda _: function)
    space = SearchSpace(name="own", function="own:function")
    powers = [
        optuna.trial.create_trial(
            value=0.0,
            params={"power": power},
            distributions={"power": optuna.distributions.IntDistribution(1, 9)},
            user_attrs={"params": {RANK: 2**power}},
        )
        for power in (3, 4, 5)
    ]
    taken = take(EarlierSearch("earlier", Experiment(), powers), space, Experiment())
    assert [trial.params for trial in taken.trials] == [{"power": 3}, {"power": 4}]
    assert taken.left_out == {"own:function": 1}


def test_shares_keep_tpes_order() -> None:
    def ended(score: float, images: int | None = None) -> FrozenTrial:
        state = TrialState.PRUNED if images else TrialState.COMPLETE
        return optuna.trial.create_trial(state=state, value=score, intermediate_values={images or 1000: score})

    group = [ended(0.1), ended(0.9, images=450), ended(5.0, images=150), ended(-3.0), ended(0.2, images=450)]
    running = optuna.trial.create_trial(state=TrialState.RUNNING)
    assert [trial.value for trial in by_share([*group, running], LimitsConfig())] == [0.9, 0.5, 0.1, 0.7, 0.3]
