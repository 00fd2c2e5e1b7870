"""Which settings mattered: searches with a known truth, and ones that can't tell."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from raylora.cli_output import what_mattered
from raylora.config import Experiment
from raylora.execution import conclude
from raylora.execution.conclude import what_mattered as summed_up
from raylora.execution.outputs import OutFolder
from raylora.search.importance import FEWEST_TRIALS, PLANTED, Importance, credited_scores, importance
from raylora.search.space import SearchSpace
from raylora.search.study import PARAMS_KEY, Outcome, SearchStudy, read_trials
from tests.reports import same_length

RATE, OPTIMIZER, RANK, SCHEDULE, RESTARTS = (
    "optimizer.unet_lr", "optimizer.name", "lora.rank", "lr_scheduler.name", "lr_scheduler.num_restarts",
)  # fmt: skip
SPACE: dict[str, BaseDistribution] = {
    RATE: FloatDistribution(1e-5, 1e-3, log=True),
    OPTIMIZER: CategoricalDistribution(("adamw", "lion", "prodigy")),
    RANK: CategoricalDistribution((4, 8, 16, 32)),
    "training.repeats": IntDistribution(2, 8),
    SCHEDULE: CategoricalDistribution(("cosine", "constant")),
}
Truth = Callable[[dict[str, Any], np.random.Generator], float]


def drawn(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[rng.integers(len(distribution.choices))]
    if isinstance(distribution, IntDistribution):
        return int(rng.integers(distribution.low, distribution.high + 1))
    assert isinstance(distribution, FloatDistribution)
    return float(np.exp(rng.uniform(math.log(distribution.low), math.log(distribution.high))))


def trial(number: int, params: dict[str, Any], value: float | None, **more: Any) -> FrozenTrial:
    """A trial of `SPACE`, finished unless it says otherwise."""
    space = more.pop("space", SPACE)
    more.setdefault("state", TrialState.COMPLETE)
    frozen = create_trial(params=params, distributions={name: space[name] for name in params}, value=value, **more)
    frozen.number = number
    return frozen


def search(truth: Truth, trials: int, seed: int = 0, space: dict[str, BaseDistribution] = SPACE) -> list[FrozenTrial]:
    """A random search on a known truth."""
    rng = np.random.default_rng(seed)
    points = [{name: drawn(distribution, rng) for name, distribution in space.items()} for _ in range(trials)]
    return [trial(number, point, truth(point, rng), space=space) for number, point in enumerate(points)]


def verdicts(found: list[Importance]) -> dict[str, str]:
    return {one.setting: one.verdict for one in found}


def only_the_rate(params: dict[str, Any], rng: np.random.Generator) -> float:
    return float(math.log10(params[RATE]) + rng.normal(scale=0.2))


def noise(params: dict[str, Any], rng: np.random.Generator) -> float:
    return float(rng.normal())


def always_one(params: dict[str, Any], rng: np.random.Generator) -> float:
    return 1.0


def rate_and_optimizer(params: dict[str, Any], rng: np.random.Generator) -> float:
    return float(math.log10(params[RATE]) + (params[OPTIMIZER] == "lion") + rng.normal(scale=0.2))


def test_the_one_setting_that_matters_is_found_and_the_others_hardly_do() -> None:
    first, *others = importance(search(only_the_rate, 60))
    assert (first.setting, first.verdict) == (RATE, "matters")
    assert first.share is not None and first.low <= first.share <= first.high
    assert first.low > 0.5
    assert {one.verdict for one in others} == {"hardly matters"}


def test_the_best_values_of_a_setting_that_matters_are_told() -> None:
    trials = search(only_the_rate, 40)
    best = sorted(trials, key=lambda one: -(one.value or 0.0))[:10]
    rates = [one.params[RATE] for one in best]
    first, *others = importance(trials)
    assert first.best == f"{min(rates):.3g} to {max(rates):.3g} in the best 10 trials"
    assert {one.best for one in others} == {""}


def test_the_best_values_are_those_that_trials_were_configured_with() -> None:
    """Lion gets a tenth of the rate that Optuna sees; Lion's users want Lion's rate."""
    trials = search(only_the_rate, 40)
    for one in trials:
        one.user_attrs[PARAMS_KEY] = {RATE: one.params[RATE] / 10}
    highest = max(one.params[RATE] for one in trials)
    assert f"to {highest / 10:.3g} in" in importance(trials)[0].best


def test_a_rate_is_seen_on_its_own_scale() -> None:
    """Below a tenth of the upper bound, a half of a log range, lies a tenth of a linear one."""
    trials = search(lambda params, rng: float(params[RATE] > 1e-4) + rng.normal(scale=0.1), 60)
    assert (importance(trials)[0].share or 0.0) > 0.9


def test_two_settings_that_matter_are_found() -> None:
    found = importance(search(rate_and_optimizer, 60))
    assert {one.setting for one in found if one.verdict == "matters"} == {RATE, OPTIMIZER}
    optimizer = next(one for one in found if one.setting == OPTIMIZER)
    assert optimizer.best.startswith("lion in ")


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_claimed_of_noise(seed: int) -> None:
    found = importance(search(noise, 14, seed), seed)
    assert {one.verdict for one in found} == {"can't tell"}
    assert all(one.low == 0 and one.high >= PLANTED for one in found)


def test_a_setting_that_was_hardly_varied_is_not_called_unimportant() -> None:
    """One trial in sixty with another optimizer says nothing of optimizers, nor do sixty with the same."""
    trials = search(only_the_rate, 60)
    for one in trials:
        one.params[OPTIMIZER], one.params[SCHEDULE] = "adamw", "cosine"
    trials[7].params[OPTIMIZER] = "lion"
    told = verdicts(importance(trials))
    assert told[OPTIMIZER] == told[SCHEDULE] == "can't tell"
    assert told[RATE] == "matters"


@pytest.mark.parametrize("trials", [0, 1, 3, FEWEST_TRIALS - 1])
def test_few_trials_cannot_tell(trials: int) -> None:
    found = importance(search(only_the_rate, trials))
    assert found == [Importance(name, None, 0.0, 1.0, "can't tell") for name in (SPACE if trials else [])]


def test_settings_with_one_value_and_those_fixed_by_hand_are_not_in_it() -> None:
    space = {**SPACE, "lora.dropout": CategoricalDistribution((0.1,))}
    found = importance(search(only_the_rate, 20, space=space), leave_out={RANK: "--set"})
    assert {one.setting for one in found} == set(SPACE) - {RANK}


def test_conditional_settings_count_where_they_were_searched() -> None:
    """Restarts exist with one schedule alone, and decide the score there."""
    space = {**SPACE, RESTARTS: IntDistribution(3, 5)}
    trials = search(noise, 80, space=space)
    for one in trials:
        if one.params[SCHEDULE] == "constant":
            del one.params[RESTARTS], one._distributions[RESTARTS]
        one.value = (one.params.get(RESTARTS, 4) - 4) + 0.1 * (one.value or 0.0)
    told = verdicts(importance(trials))
    assert told[RESTARTS] == "matters"
    assert told[SCHEDULE] != "matters"


def test_failed_and_unfinished_trials_do_not_count() -> None:
    trials = search(only_the_rate, 12)
    lost = [
        trial(12, trials[0].params, None, state=TrialState.FAIL, intermediate_values={100: math.nan}),
        trial(13, trials[1].params, None, state=TrialState.RUNNING, intermediate_values={100: 9.0}),
        trial(14, trials[2].params, None, state=TrialState.PRUNED),
        trial(15, trials[3].params, None, state=TrialState.PRUNED, intermediate_values={100: math.nan}),
    ]
    assert importance([*trials, *lost]) == importance(trials)


def test_trials_stopped_early_are_credited_with_what_others_gained() -> None:
    def ended(number: int, state: TrialState, curve: dict[int, float]) -> FrozenTrial:
        value = max(curve.values()) if state is TrialState.COMPLETE else None
        return trial(number, {RANK: 8}, value, state=state, intermediate_values=curve)

    scores = credited_scores(
        [
            ended(0, TrialState.COMPLETE, {100: 0.2, 300: 0.5, 900: 0.6}),
            ended(1, TrialState.COMPLETE, {100: 0.4, 300: 0.5, 900: 0.8}),
            ended(2, TrialState.COMPLETE, {200: 0.1}),
            ended(3, TrialState.PRUNED, {100: 0.1}),
            ended(4, TrialState.PRUNED, {100: 0.1, 300: 0.3}),
        ]
    )
    assert scores == pytest.approx({0: 0.6, 1: 0.8, 2: 0.1, 3: 0.1 + 0.4, 4: 0.3 + (0.1 + 0.3 + 0.0) / 3})


def test_being_stopped_is_no_effect_of_a_setting() -> None:
    """Scores double on the way; those with one schedule were all stopped halfway, and are no worse for it."""
    trials = search(only_the_rate, 60)
    for at, one in enumerate(trials):
        end = 5 + (one.value or 0.0)
        stopped = one.params[SCHEDULE] == "constant"
        curve = {100: end / 2} if stopped else {100: end / 2, 200: end}
        state = TrialState.PRUNED if stopped else TrialState.COMPLETE
        trials[at] = trial(at, one.params, None if stopped else end, state=state, intermediate_values=curve)
    told = verdicts(importance(trials))
    assert told[RATE] == "matters"
    assert told[SCHEDULE] == "hardly matters"


def test_one_diverged_trial_does_not_hide_what_matters() -> None:
    trials = search(only_the_rate, 30)
    trials[3].value = -1e6
    assert verdicts(importance(trials))[RATE] == "matters"


def test_equal_scores_claim_nothing() -> None:
    assert "matters" not in verdicts(importance(search(always_one, 20))).values()


def test_a_setting_whose_kind_changes_between_trials_is_no_error() -> None:
    """Users' own functions may do so."""
    wide, other = {**SPACE, RATE: FloatDistribution(1e-6, 1e-2, log=True)}, {**SPACE, RATE: IntDistribution(1, 2)}
    trials = [*search(noise, 8), *search(noise, 8, 1, wide), *search(noise, 8, 2, other)]
    for number, one in enumerate(trials):
        one.number = number
    assert {one.setting for one in importance(trials)} == set(SPACE)


def test_the_same_seed_says_the_same() -> None:
    trials = search(only_the_rate, 12)
    said = importance(trials, 1)
    assert importance(trials, 1) == said
    assert importance(trials, 2) != said


def test_a_real_search_is_read_from_its_journal(tmp_path: Path) -> None:
    space = SearchSpace.model_validate(
        {
            "name": "test",
            "parameters": {
                RATE: {"low": 1e-5, "high": 1e-3, "log": True},
                RANK: {"choices": [8, 16]},
                "lora.alpha": {"ratio_of": RANK, "choices": [0.5, 1.0]},
            },
        }
    )
    study = SearchStudy(tmp_path / "study.journal", space, Experiment(), same_length)
    for _ in range(30):
        number, params = study.ask()
        study.report(number, 100, math.log10(params[RATE]))
        study.tell(number, Outcome.FINISHED, math.log10(params[RATE]))
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    told = verdicts(importance(read_trials(tmp_path / "study.journal")))
    assert set(told) == {RATE, RANK, f"lora.alpha / {RANK}"}
    assert [name for name, verdict in told.items() if verdict == "matters"] == [RATE]


def a_search(out: Path, told: list[str], space: SearchSpace = SearchSpace(name="test")) -> Any:
    """As much of a search as the look back over it needs."""
    job = SimpleNamespace(experiment=Experiment(), space=space)
    return SimpleNamespace(out=OutFolder(out), job=job, say=told.append)


def test_a_summary_gets_plain_values(tmp_path: Path) -> None:
    space = SearchSpace.model_validate({"name": "test", "parameters": {RATE: {"low": 1e-5, "high": 1e-3}}})
    study = SearchStudy(tmp_path / "study.journal", space, Experiment(), same_length)
    study.tell(study.ask()[0], Outcome.FINISHED, 0.5)
    told: list[str] = []
    found = {"setting": RATE, "share": None, "low": 0.0, "high": 1.0, "verdict": "can't tell", "best": ""}
    assert json.loads(json.dumps(summed_up(a_search(tmp_path, told, space)))) == [found]
    assert told == []


def test_a_look_back_that_fails_costs_no_search_its_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[Importance]:
        raise KeyError("a choice that no trial had")

    told: list[str] = []
    monkeypatch.setattr(conclude, "importance", fail)
    assert summed_up(a_search(tmp_path, told)) == []
    assert len(told) == 1 and told[0].startswith("warning: which settings mattered can't be told (")


def test_the_line_that_is_printed() -> None:
    found = [
        Importance(RATE, 0.62, 0.4, 0.8, "matters", "0.0001 to 0.0003 in the best 4 trials"),
        Importance(f"lora.alpha / {RANK}", 0.1, 0.0, 0.2, "can't tell"),
        Importance(SCHEDULE, 0.05, 0.0, 0.2, "can't tell"),
        Importance(RANK, 0.01, 0.0, 0.2, "hardly matters"),
    ]
    line = what_mattered([vars(one) for one in found], 14)
    assert line == (
        "unet_lr (62%: 0.0001 to 0.0003 in the best 4 trials); hardly matters: rank; "
        "can't tell: alpha / rank, lr_scheduler (14 trials)"
    )
    assert what_mattered([vars(found[1])], 14) == "nothing for sure; can't tell: alpha / rank (14 trials)"
    assert what_mattered([vars(Importance(RATE, None, 0.0, 1.0, "can't tell"))], 3) == "too few trials to tell (3)"
