"""Conditions that can never hold, spaces with nothing to search, and what a plan says of settings that drop out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raylora.config import Experiment
from raylora.errors import ConfigError
from raylora.search.pinning import pin
from raylora.search.space import SearchSpace, check_space, load_space
from tests.unit.test_own_space import HERE
from tests.unit.test_pinning import request, search_wanted
from tests.unit.test_space import RATES, complaint, space_of, write

NAMES = "lr_scheduler.name: {choices: [cosine, cosine_with_restarts, constant]}"
RESTARTS = "lr_scheduler.num_restarts: {low: 3, high: 5, when: {lr_scheduler.name: cosine_with_restarts}}"


def parameters(*lines: str) -> str:
    return "parameters:\n" + "".join(f"  {line}\n" for line in lines)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("lora.dropout: {choices: [0, 0.1], when: {lr_scheduler.name: cosin}}",
         "when → lr_scheduler.name: cosin is no value of it, which must be 'constant',"),
        ("lora.dropout: {choices: [0, 0.1], when: {lr_scheduler.name: cosin}}", "did you mean cosine?"),
        ("lora.dropout: {choices: [0, 0.1], when: {lr_scheduler.name: linear}}",
         "it is never linear, but cosine or cosine_with_restarts or constant"),
        ("lora.dropout: {choices: [0, 0.1], when: {model.family: sdlx}}", "must be 'sd15' or 'sdxl'; did you mean"),
        ("lora.dropout: {choices: [0, 0.1], when: {lora.use_dora: 7}}", "7 is no value of it, which must be true or f"),
        ("lora.dropout: {choices: [0, 0.1], when: {lora.rank: 4}}", "it is never 4, but 8 to 32"),
        ("lora.dropout: {choices: [0, 0.1], when: {lora.rank: 8.5}}", "8.5 is no value of it, which must be a whole"),
        ("lora.dropout: {choices: [0, 0.1], when: {lora.rank: [8, 64]}}", "it is never 64"),
        ("lora.dropout: {choices: [0, 0.1], when: {lora.rank: []}}", "is empty, and so never holds"),
        ("lora.dropout: {choices: [0, 0.1], when: {lr_scheduler.num_restarts: 9}}", "it is never 9, but 3 to 5"),
        ("optimizer.unet_lr: {low: 1.0e-5, high: 1.0e-3, scale: {lr_scheduler.name: {cosin: 0.1}}}",
         "optimizer.unet_lr: scale → lr_scheduler.name: cosin is no value of it"),
        ("optimizer.unet_lr: {low: 1.0e-5, high: 1.0e-3, scale: {lr_scheduler.name: {linear: 0.1}}}",
         "it is never linear"),
        ("lora.dropout: {choices: [0, 0.1], when: {lr_scheduler.name: constant, lr_scheduler.num_restarts: 4}}",
         "lora.dropout: is never searched, since no combination of values meets all of its conditions on"),
        ("lora.dropout: {choices: [0, 0.1], otherwise: 0.2}", "and there is no `when`; add one"),
    ],
)  # fmt: skip
def test_a_condition_that_never_holds_is_refused(tmp_path: Path, line: str, told: str) -> None:
    message = complaint(write(tmp_path, parameters("lora.rank: {low: 8, high: 32}", NAMES, RESTARTS, line)))
    assert told in message
    assert message.startswith(f"{tmp_path / 'mine.yaml'}: parameters")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    [
        "lora.dropout: {choices: [0, 0.1], when: {lr_scheduler.num_restarts: 4}}",
        "lora.dropout: {choices: [0, 0.1], when: {lr_scheduler.num_restarts: null}}",
        "lora.dropout: {choices: [0, 0.1], when: {model.family: sdxl}}",
        "lora.dropout: {choices: [0, 0.1], when: {model.family: sdxl, lr_scheduler.name: [cosine, constant]}}",
        "lora.dropout: {choices: [0, 0.1], when: {lora.alpha: 4}}",
        "optimizer.unet_lr: {low: 1.0e-5, high: 1.0e-3, scale: {lora.rank: {'8': 0.5}}}",
    ],
)
def test_a_condition_that_may_hold_is_taken(tmp_path: Path, line: str) -> None:
    ratio = "lora.alpha: {ratio_of: lora.rank, choices: [0.5]}"
    load_space(write(tmp_path, parameters("lora.rank: {low: 8, high: 32}", ratio, NAMES, RESTARTS, line)))


def test_more_combinations_than_can_be_tried_are_taken_at_their_word(tmp_path: Path) -> None:
    tags = ("shuffle_caption", "random_flip")
    lines = [f"dataset.{tag}: {{choices: [true, false]}}" for tag in tags] + ["lora.rank: {low: 1, high: 1024}"]
    when = f"{{lora.rank: {list(range(1, 1025))}, dataset.shuffle_caption: true, dataset.random_flip: true}}"
    lines.append(f"lora.dropout: {{choices: [0, 0.1], when: {when}}}")
    space = load_space(write(tmp_path, parameters(*lines)))
    assert "lora.dropout" in space.searched(Experiment())


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({}, "names no parameters"),
        ({"lora.rank": {"choices": [8]}}, "names only lora.rank, where it has one value"),
        ({"lora.rank": {"choices": [8, 8.0]}}, "names only lora.rank, where it has one value"),
        ({"lora.rank": {"choices": [4, 8], "when": {"model.family": "sdxl"}}},
         "names only lora.rank, where model.family is sd15"),
    ],
    ids=["empty", "one choice", "twice the same", "another family"],
)  # fmt: skip
def test_a_space_of_which_every_trial_is_the_same_is_refused(space: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pin(space_of(space), {}, Experiment())
    assert str(caught.value).startswith(f"search space test: has nothing to search, since it {told}; ")
    assert "raylora train" in str(caught.value)


def nothing(trial: Any) -> dict[str, Any]:
    trial.suggest_float("unheard", 0, 1)
    return {}


def constant(trial: Any) -> dict[str, Any]:
    return {"lora.rank": 8}


@pytest.mark.parametrize(("function", "told"), [("nothing", "gives no settings"), ("constant", "{'lora.rank': 8}")])
def test_a_function_that_always_gives_the_same_is_refused(function: str, told: str) -> None:
    space = load_space(f"{__name__}:{function}")
    with pytest.raises(ConfigError, match="has nothing to search") as caught:
        check_space(space, Experiment())
    assert told in str(caught.value)


def test_a_function_that_varies_is_taken() -> None:
    check_space(load_space(f"{HERE}:rank_only"), Experiment())


def test_one_value_alone_still_holds_for_every_trial() -> None:
    space = pin(space_of({"lora.rank": {"choices": [8]}, "lora.dropout": {"choices": [0, 0.1]}}), {}, Experiment())
    assert space.searched(Experiment()) == ["lora.dropout"]
    assert space.unsearched(Experiment()) == {"lora.rank": "it has one value"}
    assert all(tried.lora.rank == 8 for tried in check_space(space, Experiment()))


def test_what_drops_out_because_of_what_was_set_is_told() -> None:
    wanted = search_wanted(request("lr_scheduler.name=cosine"), load_space("realistic"))
    assert wanted.space is not None
    reason = wanted.space.unsearched(wanted.experiment)["lr_scheduler.num_restarts"]
    assert reason == "lr_scheduler.name is cosine by --set"


def test_a_chain_of_conditions_drops_out_together() -> None:
    chain = {**RATES, "lora.dropout": {"choices": [0, 0.1], "when": {"lr_scheduler.num_restarts": 4}}}
    cosine = Experiment().with_params({"lr_scheduler.name": "cosine"})
    left: SearchSpace = pin(space_of(chain), {"lr_scheduler.name": "--set"}, cosine)
    assert "lora.dropout" not in left.searched(cosine)
    assert left.unsearched(cosine)["lora.dropout"] == "lr_scheduler.num_restarts never has the value for it"
