"""Choices that are no plain values (lists, dicts, null), from a file to Optuna and back; and what can't be searched."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import optuna
import pytest

from raylora.config import Experiment, field_paths
from raylora.errors import ConfigError
from raylora.execution.outputs import write_trials_csv
from raylora.request import search_wanted, training_wanted
from raylora.search.importance import importance
from raylora.search.searchable import SEARCHABLE, WHY_NOT, fault_of
from raylora.search.space import SearchSpace, check_space, load_space
from raylora.search.study import Outcome, SearchStudy, keep_earlier, read_trials
from raylora.search.warm_start import EarlierSearch, take
from raylora.tracking.recorder import TrialRecord
from tests.reports import same_length
from tests.unit.test_pinning import request
from tests.unit.test_space import complaint, write

TEXT = """
parameters:
  lora.targets: {choices: [[attention], [attention, feed_forward]]}
  lora.block_ranks: {choices: [null, {mid_block: 8}, {down_blocks.1: 4, mid_block: 8}]}
  loss.snr_gamma: {choices: [null, 5]}
  training.ema_decay: {choices: [null, 0.99], when: {lora.targets: [[attention]]}}
  optimizer.loraplus_ratio: {choices: [null, 16]}
  optimizer.arguments: {choices: [null, {betas: [0.9, 0.99]}]}
first_points:
  - {lora.targets: [attention, feed_forward], lora.block_ranks: null, loss.snr_gamma: null,
     optimizer.loraplus_ratio: null, optimizer.arguments: {betas: [0.9, 0.99]}}
"""
GUIDES = {
    "lora.targets": ["attention", "feed_forward"],
    "lora.block_ranks": None,
    "loss.snr_gamma": None,
    "optimizer.loraplus_ratio": None,
    "optimizer.arguments": {"betas": [0.9, 0.99]},
}
TRIALS = 16


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    return load_space(write(tmp_path, TEXT))


def searched(space: SearchSpace, journal: Path) -> list[dict[str, Any]]:
    """A whole search of nothing but settings: the narrower LoRA is the better one."""
    study, points = SearchStudy(journal, space, Experiment(), same_length), []
    for _ in range(TRIALS):
        number, params = study.ask()
        score = 1.0 if params["lora.targets"] == ["attention"] else 0.0
        study.report(number, 8, score)
        study.tell(number, Outcome.FINISHED, score)
        points.append(params)
    return points


def test_every_choice_reaches_the_configuration(space: SearchSpace) -> None:
    tried = check_space(space, Experiment())
    assert {one.lora.targets for one in tried} == {("attention",), ("attention", "feed_forward")}
    assert {str(one.lora.block_ranks) for one in tried} == {
        "None", "{'mid_block': 8}", "{'down_blocks.1': 4, 'mid_block': 8}"
    }  # fmt: skip
    assert {one.loss.snr_gamma for one in tried} == {None, 5}
    assert {one.training.ema_decay for one in tried if one.lora.targets == ("attention",)} == {None, 0.99}
    assert {one.training.ema_decay for one in tried if one.lora.targets != ("attention",)} == {None}
    assert {str(one.optimizer.arguments) for one in tried} == {"None", "{'betas': (0.9, 0.99)}"}


def test_a_study_keeps_them_and_begins_with_the_first_point(space: SearchSpace, tmp_path: Path) -> None:
    points = searched(space, tmp_path / "study.journal")
    assert points[0] == GUIDES
    kept = read_trials(tmp_path / "study.journal")
    assert [trial.user_attrs["params"] for trial in kept] == points
    assert kept[0].params["lora.targets"] == '["attention", "feed_forward"]'
    assert kept[0].params["loss.snr_gamma"] is None


def test_importance_tells_them_in_words(space: SearchSpace, tmp_path: Path) -> None:
    searched(space, tmp_path / "study.journal")
    found = {one.setting: one for one in importance(read_trials(tmp_path / "study.journal"))}
    assert found["lora.targets"].verdict == "matters"
    assert found["lora.targets"].best.startswith('["attention"] in ')


def test_a_warm_start_takes_them(space: SearchSpace, tmp_path: Path) -> None:
    points = searched(space, tmp_path / "study.journal")
    earlier = EarlierSearch("before", Experiment(), read_trials(tmp_path / "study.journal"))
    taken = take(earlier, space, Experiment())
    assert not taken.left_out
    assert taken.differing == []
    assert [trial.user_attrs["params"] for trial in taken.trials] == points
    keep_earlier(tmp_path / "new.journal", taken.trials)
    again = searched(space, tmp_path / "new.journal")
    assert sum(point["lora.targets"] == ["attention"] for point in again) > TRIALS / 2


def test_a_warm_start_sees_blocks_that_were_set_by_hand(space: SearchSpace, tmp_path: Path) -> None:
    searched(space, tmp_path / "study.journal")
    fixed = Experiment().with_params({"lora.block_ranks": {"mid_block": 8}})
    left = search_wanted(request("lora.block_ranks={mid_block: 8}"), space)
    assert left.space is not None
    trials = read_trials(tmp_path / "study.journal")
    taken = take(EarlierSearch("before", Experiment(), trials), left.space, fixed)
    with_block = [one for one in trials if one.user_attrs["params"]["lora.block_ranks"] == {"mid_block": 8}]
    assert len(taken.trials) == len(with_block) > 0
    assert taken.differing == []


def test_what_is_set_by_hand_is_not_searched(space: SearchSpace) -> None:
    wanted = search_wanted(request("lora.block_ranks.mid_block=4", "lora.targets=[attention]"), space)
    assert wanted.space is not None
    assert set(wanted.space.fixed) == {"lora.block_ranks", "lora.targets"}
    tried = check_space(wanted.space, wanted.experiment)
    assert all(one.lora.block_ranks == {"mid_block": 4} for one in tried)
    assert wanted.space.first_points[0]["training.ema_decay"] is None


def test_one_training_takes_the_first_point(space: SearchSpace) -> None:
    experiment = training_wanted(request(), space).experiment
    assert experiment.lora.targets == ("attention", "feed_forward")
    assert experiment.optimizer.arguments == {"betas": (0.9, 0.99)}


def test_a_table_tells_null_from_what_was_not_searched(tmp_path: Path) -> None:
    records = [
        TrialRecord("t000", 0, GUIDES, is_baseline=True, folder="", status="failed"),
        TrialRecord("t001", 1, {"loss.snr_gamma": 5}, is_baseline=False, folder="", status="failed"),
    ]
    write_trials_csv(tmp_path / "trials.csv", records, Experiment())
    first, second = csv.DictReader((tmp_path / "trials.csv").open())
    assert first["loss.snr_gamma"] == "null"
    assert first["lora.targets"] == '["attention", "feed_forward"]'
    assert (second["loss.snr_gamma"], second["lora.targets"]) == ("5", "")


@pytest.mark.parametrize("value", ["2024-01-01", ".nan", "{a: .inf}"])
def test_what_json_cannot_keep_is_refused(tmp_path: Path, value: str) -> None:
    message = complaint(write(tmp_path, f"parameters: {{optimizer.arguments: {{choices: [null, {value}]}}}}"))
    assert "parameters → optimizer.arguments → choices → 1: " in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("parameter", "told"),
    [
        ("{low: few, high: 9}", "parameters → lora.rank → low: must be a number"),
        ("{low: 1, high: [2]}", "parameters → lora.rank → high: must be a number"),
        ("{choices: 5}", "parameters → lora.rank → choices: must be a list in brackets, such as [1, 2]"),
        ("{choices: [4, 8], when: 5}", "parameters → lora.rank → when: must be settings of its own"),
        ("{choices: [4, 8], scale: {lora.use_dora: {a: b}}}", "scale → lora.use_dora → a: must be a number"),
    ],
)
def test_a_wrong_value_is_one_line_without_pydantics_own_names(tmp_path: Path, parameter: str, told: str) -> None:
    message = complaint(write(tmp_path, f"parameters: {{lora.rank: {parameter}}}"))
    assert told in message
    assert len(message.splitlines()) == 1
    assert not any(name in message for name in ("function-", "bool", "→ int", "→ float"))


def test_every_setting_may_be_searched_or_has_a_reason_why_not() -> None:
    for path in field_paths():
        reasons = [reason for beginning, reason in WHY_NOT.items() if path.startswith(beginning)]
        assert len(reasons) == (not path.startswith(SEARCHABLE)), path
        assert fault_of(path) == (f"can't be searched: {reasons[0]}" if reasons else None)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("lora.rnak", "there is no such setting; did you mean lora.rank?"),
        ("quality", "there is no such setting; what can be searched: lora.…, optimizer.…"),
        ("lora", "is a section; search a setting in it, such as lora.rank"),
        ("dataset.regularization", "can't be searched: its pictures are read and encoded once"),
        ("training.mixed_precision", "can't be searched: the base model is rounded to it"),
    ],
)
def test_a_path_that_cannot_be_searched_is_told_why(tmp_path: Path, path: str, told: str) -> None:
    assert f"parameters: {path}: {told}" in complaint(write(tmp_path, f"parameters: {{{path}: {{choices: [1, 2]}}}}"))


def misspelling(trial: optuna.Trial) -> dict[str, Any]:
    return {"lroa.rank": trial.suggest_int("rank", 1, 4)}


def test_a_functions_misspelt_path_is_no_measure() -> None:
    with pytest.raises(ConfigError, match=r"lroa\.rank: there is no such setting; did you mean lora\.rank"):
        check_space(load_space(f"{__name__}:misspelling"), Experiment())


def test_a_misspelt_path_in_a_first_point_is_named(tmp_path: Path) -> None:
    text = "parameters: {lora.rank: {choices: [8, 16]}}\nfirst_points: [{lora.rnak: 8}]\n"
    message = complaint(write(tmp_path, text))
    assert message.endswith("first_points → 0: lora.rnak: there is no such setting; did you mean lora.rank?")


def test_a_first_point_of_what_is_not_searched_is_named_before_what_it_lacks(tmp_path: Path) -> None:
    text = "parameters: {lora.rank: {choices: [8, 16]}}\nfirst_points: [{lora.alpha: 8}]\n"
    with pytest.raises(ConfigError, match=r"a first point sets lora\.alpha, which is not searched"):
        check_space(load_space(write(tmp_path, text)), Experiment())


def test_a_ratio_of_a_setting_without_a_value_names_file_and_parameter(tmp_path: Path) -> None:
    text = "parameters: {optimizer.text_encoder_lr: {ratio_of: optimizer.unet_lr, choices: [0.5, 1]}}"
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        check_space(load_space(file), Experiment())
    assert str(caught.value).startswith(
        f"search space mine ({file}): optimizer.text_encoder_lr: is a ratio of optimizer.unet_lr, which must be a "
        "number and is null; set it"
    )
