"""A user's function as a search space: what it may give, and what is told of one that fails."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from raylora.config import Experiment
from raylora.errors import ConfigError
from raylora.search.own_space import load_function
from raylora.search.space import SearchSpace, check_space, load_space

Point = dict[str, Any]
HERE = __name__
BROKEN_MODULES = {"syntax": "def fn(:", "name": "fn = nothing_of_that_name", "own": "raise RuntimeError('no\\nway')"}


def rank_only(trial: optuna.Trial) -> Point:
    """A space that YAML can't say."""
    return {"lora.rank": 2 ** trial.suggest_int("power", 1, 4)}


def rank_zero(trial: optuna.Trial) -> Point:
    return {"lora.rank": 0 * trial.suggest_int("power", 1, 4)}


def held_out_otherwise(trial: optuna.Trial) -> Point:
    return {"evaluation.noises": trial.suggest_int("noises", 1, 4)}


def failing(trial: optuna.Trial) -> Point:
    return {"lora.rank": [8, 16][trial.suggest_int("which", 2, 3)]}


def silent(trial: optuna.Trial) -> Any:
    trial.suggest_int("power", 1, 4)


def listing(trial: optuna.Trial) -> Any:
    return [("lora.rank", trial.suggest_int("power", 1, 4))]


def numbered(trial: optuna.Trial) -> Any:
    return {8: trial.suggest_int("power", 1, 4)}


def by_numpy(trial: optuna.Trial) -> Any:
    """The configuration takes such a number, and the journal can't keep it."""
    return {"lora.rank": np.int64(trial.suggest_int("rank", 1, 4))}


def late(trial: optuna.Trial) -> Point:
    """Fails after the draws that are checked ahead."""
    if trial.number >= 40:
        raise KeyError("late")
    return {"lora.rank": trial.suggest_int("rank", 1, 4)}


def ranks(space: SearchSpace) -> set[int]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return {space.suggest(study.ask(), Experiment())["lora.rank"] for _ in range(60)}


def refusal(function: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_space(load_space(f"{HERE}:{function}"), Experiment())
    return str(caught.value)


def test_a_function_serves_as_a_space() -> None:
    space = load_space(f"{HERE}:rank_only")
    check_space(space, Experiment())
    assert ranks(space) == {2, 4, 8, 16}


def test_a_function_may_lie_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed script doesn't look there, `python -m raylora` does."""
    monkeypatch.setattr("sys.path", [place for place in sys.path if place])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space_of_my_own.py").write_text("def ranks(trial): return {'lora.rank': trial.suggest_int('r', 2, 4)}")
    assert ranks(load_space("space_of_my_own:ranks")) == {2, 3, 4}


@pytest.mark.parametrize("function", ["rank_zero", "held_out_otherwise"])
def test_a_functions_points_are_checked(function: str) -> None:
    assert function in refusal(function)


@pytest.mark.parametrize("name", ["no.such.module:function", f"{HERE}:nothing", f"{HERE}:HERE", ":x", "x:"])
def test_functions_that_are_none(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        load_space(name)


def test_a_function_needs_its_colon() -> None:
    with pytest.raises(ConfigError, match="expected package"):
        load_function(HERE)


@pytest.mark.parametrize(
    ("kind", "told"), [("syntax", "invalid syntax"), ("name", "'nothing_of_that_name' is not defined"), ("own", "(no)")]
)
def test_a_module_that_fails_is_told(kind: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"broken_by_{kind}.py").write_text(BROKEN_MODULES[kind])
    with pytest.raises(ConfigError) as caught:
        load_space(f"broken_by_{kind}:fn")
    assert f"search space broken_by_{kind}:fn: can't be imported (" in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("failing", "fails (IndexError: list index out of range)"),
        ("silent", "gives None"),
        ("listing", "gives a list"),
        ("numbered", "gives a setting called 8"),
        ("by_numpy", "gives a int64 for lora.rank"),
    ],
)
def test_a_function_that_fails_is_told(function: str, told: str) -> None:
    assert f"search space {HERE}:{function}: {told}" in refusal(function)


def test_a_failure_amid_a_search_is_the_users_too() -> None:
    space = load_space(f"{HERE}:late")
    check_space(space, Experiment())
    with pytest.raises(ConfigError, match=r"late: fails \(KeyError: 'late'\)"):
        ranks(space)
