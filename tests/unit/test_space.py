"""Search spaces: what is suggested, its inverse, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from raylora.config import Experiment
from raylora.config_files import build_experiment
from raylora.errors import ConfigError
from raylora.search.space import SearchSpace, check_space, load_space, optuna_name, space_layer

Point = dict[str, Any]

MANY = 60
"""Draws in which every choice of a small space comes up."""

RATES = {
    "optimizer.name": {"choices": ["adamw", "lion", "prodigy"]},
    "optimizer.unet_lr": {
        "low": 1e-5,
        "high": 1e-3,
        "log": True,
        "scale": {"optimizer.name": {"lion": 0.1}},
        "when": {"optimizer.name": ["adamw", "lion"]},
        "otherwise": 1.0,
    },
    "lora.rank": {"choices": [8, 16]},
    "lora.alpha": {"ratio_of": "lora.rank", "choices": [0.25, 0.5, 1]},
    "lr_scheduler.name": {"choices": ["cosine", "cosine_with_restarts"]},
    "lr_scheduler.num_restarts": {"low": 3, "high": 5, "when": {"lr_scheduler.name": "cosine_with_restarts"}},
}
GUIDES: Point = {
    "optimizer.name": "lion",
    "optimizer.unet_lr": 1e-5,
    "lora.rank": 16,
    "lora.alpha": 8,
    "lr_scheduler.name": "cosine",
}
NO_TEXT = Experiment().with_params({"model.train_text_encoder": False})


def space_of(parameters: dict[str, Any], *first_points: Point, **more: Any) -> SearchSpace:
    return SearchSpace.model_validate({"name": "test", "parameters": parameters, "first_points": first_points, **more})


def draws(space: SearchSpace, count: int = MANY, experiment: Experiment = NO_TEXT) -> list[tuple[Point, Point]]:
    """Points as the settings get them and as Optuna knows them."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(count)]
    return [(space.suggest(trial, experiment), trial.params) for trial in trials]


def points(space: SearchSpace, experiment: Experiment = NO_TEXT) -> list[Point]:
    return [point for point, _ in draws(space, experiment=experiment)]


def write(folder: Path, text: str) -> str:
    (folder / "mine.yaml").write_text(text)
    return str(folder / "mine.yaml")


def complaint(reference: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_space(reference)
    return str(caught.value)


def refusal(space: SearchSpace, experiment: Experiment = NO_TEXT) -> str:
    with pytest.raises(ConfigError) as caught:
        check_space(space, experiment)
    return str(caught.value)


def test_a_condition_searches_only_where_it_holds() -> None:
    for point in points(space_of(RATES)):
        assert ("lr_scheduler.num_restarts" in point) == (point["lr_scheduler.name"] == "cosine_with_restarts")


def test_elsewhere_the_value_is_the_other_one() -> None:
    rates = {point["optimizer.name"]: point["optimizer.unet_lr"] for point in points(space_of(RATES))}
    assert rates["prodigy"] == 1.0
    assert rates["adamw"] < 0.001


def test_a_condition_may_be_on_the_experiments_own_settings() -> None:
    space = space_of({"lora.rank": {"choices": [4], "when": {"model.family": "sdxl"}, "otherwise": 32}})
    sdxl = Experiment().with_params({"model.family": "sdxl"})
    assert points(space, sdxl)[0] == {"lora.rank": 4}
    assert points(space, Experiment())[0] == {"lora.rank": 32}


def test_a_ratio_is_a_share_of_the_other_value() -> None:
    for point, params in draws(space_of(RATES)):
        assert point["lora.alpha"] == params["lora.alpha / lora.rank"] * point["lora.rank"]
        assert point["lora.alpha"] <= point["lora.rank"]


def test_a_ratio_may_be_of_the_experiments_own_value() -> None:
    space = space_of({"lora.alpha": {"ratio_of": "lora.rank", "choices": [0.5]}})
    assert points(space, Experiment().with_params({"lora.rank": 64}))[0] == {"lora.alpha": 32.0}


def test_lions_rate_is_scaled_and_optuna_sees_the_unscaled() -> None:
    for point, params in draws(space_of(RATES)):
        if point["optimizer.name"] != "prodigy":
            factor = 0.1 if point["optimizer.name"] == "lion" else 1.0
            assert point["optimizer.unet_lr"] == pytest.approx(factor * params["optimizer.unet_lr"], rel=1e-9)
            assert 1e-5 <= params["optimizer.unet_lr"] <= 1e-3


def test_whole_bounds_give_whole_numbers_and_both_ends() -> None:
    drawn = {point["lora.rank"] for point in points(space_of({"lora.rank": {"low": 3, "high": 5}}))}
    assert drawn == {3, 4, 5}
    assert all(isinstance(rank, int) for rank in drawn)


def test_a_log_scale_spreads_over_the_decades() -> None:
    space = space_of({"optimizer.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}})
    drawn = [point["optimizer.learning_rate"] for point in points(space)]
    assert sum(rate < 1e-3 for rate in drawn) > MANY / 4


def test_optunas_parameters_are_the_inverse_of_suggest() -> None:
    space = space_of(RATES)
    for point, params in draws(space):
        back = space.to_optuna(point, NO_TEXT)
        assert list(back) == list(params)
        for name, value in params.items():
            assert back[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-9))


def test_a_first_point_is_suggested_in_its_own_values() -> None:
    space = space_of(RATES, GUIDES)
    study = optuna.create_study()
    study.enqueue_trial(space.to_optuna(GUIDES, NO_TEXT))
    assert space.suggest(study.ask(), NO_TEXT) == GUIDES


def test_first_points_in_optunas_terms() -> None:
    params = space_of(RATES).to_optuna(GUIDES, NO_TEXT)
    assert params["optimizer.unet_lr"] == pytest.approx(1e-4)
    assert params["lora.alpha / lora.rank"] == 0.5
    assert "lr_scheduler.num_restarts" not in params


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"optimizer.unet_lr": 1e-3}, ["optimizer.unet_lr", "outside"]),
        ({"optimizer.unet_lr": 1e-8}, ["optimizer.unet_lr", "outside"]),
        ({"lora.rank": 12}, ["lora.rank", "12", "not among [8, 16]"]),
        ({"lora.alpha": 12}, ["lora.alpha", "not among"]),
        ({"optimizer.name": "sgd"}, ["optimizer.name", "'sgd'", "not among"]),
        ({"training.epochs": 5}, ["training.epochs", "not searched"]),
        ({"lr_scheduler.name": "cosine_with_restarts"}, ["no lr_scheduler.num_restarts"]),
        ({"lr_scheduler.name": "cosine_with_restarts", "lr_scheduler.num_restarts": 9}, ["num_restarts", "outside"]),
        ({"optimizer.unet_lr": "fast"}, ["optimizer.unet_lr", "fast"]),
        ({"lora.alpha": "half"}, ["lora.alpha", "half"]),
        ({"lora.alpha": None}, ["lora.alpha", "None"]),
    ],
)
def test_first_points_that_are_refused(wrong: Point, told: list[str]) -> None:
    message = refusal(space_of(RATES, {**GUIDES, **wrong}))
    assert "search space test" in message
    assert all(part in message for part in told)


@pytest.mark.parametrize(
    ("path", "bounds", "value"),
    [("lora.dropout", {"low": 0, "high": 0.3}, 0.15), ("lora.alpha", {"low": 4, "high": 32.0}, 8.5)],
)
def test_one_whole_bound_searches_fractions_and_takes_them(path: str, bounds: dict[str, Any], value: float) -> None:
    space = space_of({path: bounds}, {path: value})
    check_space(space, NO_TEXT)
    assert space.to_optuna({path: value}, NO_TEXT) == {path: value}


def test_a_fraction_of_whole_numbers_is_refused() -> None:
    whole = {"lora.alpha": {"low": 4, "high": 32}}
    message = refusal(space_of(whole, {"lora.alpha": 8.5}))
    assert "lora.alpha" in message and "8.5" in message and "write low as 4.0" in message
    params = space_of(whole).to_optuna({"lora.alpha": 8.0}, NO_TEXT)
    assert isinstance(params["lora.alpha"], int)


def test_a_first_point_must_name_every_searched_setting() -> None:
    assert "no lora.rank" in refusal(space_of({"lora.rank": {"choices": [8]}}, {}))


def test_draws_that_give_no_configuration_are_refused() -> None:
    message = refusal(space_of({"lora.rank": {"low": 0, "high": 1}}))
    assert "lora.rank" in message
    assert "(found 0)" in message
    assert "search space test" in message


def test_a_draw_may_break_a_rule_of_several_settings() -> None:
    prodigy = space_of({"optimizer.name": {"choices": ["prodigy"]}, "optimizer.unet_lr": {"low": 0.5, "high": 2.0}})
    assert "Prodigy" in refusal(prodigy, Experiment())
    check_space(prodigy, NO_TEXT)


def test_a_ratio_of_a_setting_without_a_value_is_refused() -> None:
    space = space_of({"optimizer.text_encoder_lr": {"ratio_of": "optimizer.unet_lr", "choices": [0.5]}})
    check_space(space, Experiment().with_params({"optimizer.unet_lr": 1e-4}))
    assert "optimizer.unet_lr" in refusal(space)


def test_what_the_other_value_is_holds_for_ratios_in_first_points_too() -> None:
    ratio = {"optimizer.text_encoder_lr": {"ratio_of": "optimizer.unet_lr", "choices": [0.5]}}
    space = space_of(
        {"optimizer.name": RATES["optimizer.name"], "optimizer.unet_lr": RATES["optimizer.unet_lr"]} | ratio
    )
    params = space.to_optuna({"optimizer.name": "prodigy", "optimizer.text_encoder_lr": 0.5}, NO_TEXT)
    assert params == {"optimizer.name": "prodigy", "optimizer.text_encoder_lr / optimizer.unet_lr": 0.5}


@pytest.mark.parametrize(
    ("parameter", "told"),
    [
        ({}, "either low and high or a list of choices"),
        ({"low": 1}, "either low and high or a list of choices"),
        ({"low": 1, "high": 2, "choices": [1]}, "either low and high or a list of choices"),
        ({"choices": []}, "either low and high or a list of choices"),
        ({"low": 2, "high": 1}, "low 2 must be below high 1"),
        ({"low": 0, "high": 1, "log": True}, "log scale needs low above 0"),
    ],
)
def test_parameters_that_are_refused(tmp_path: Path, parameter: dict[str, Any], told: str) -> None:
    message = complaint(write(tmp_path, f"parameters: {{lora.rank: {parameter}}}"))
    assert told in message
    assert message.startswith(f"{tmp_path / 'mine.yaml'}: parameters → lora.rank")


def test_an_unknown_path_names_the_nearest(tmp_path: Path) -> None:
    message = complaint(write(tmp_path, "parameters: {lora.rnak: {choices: [8]}}"))
    assert message.startswith(str(tmp_path / "mine.yaml"))
    assert "lora.rnak: there is no such setting; did you mean lora.rank?" in message


@pytest.mark.parametrize(
    "path",
    ["evaluation.noises", "dataset.path", "seed", "search.trials", "search.limits.train_s", "dataset.resolution"],
)
def test_what_would_change_the_measures_cannot_be_searched(tmp_path: Path, path: str) -> None:
    assert f"{path}: can't be searched" in complaint(write(tmp_path, f"parameters: {{{path}: {{choices: [1]}}}}"))


def test_what_a_parameter_mentions_stands_above_it(tmp_path: Path) -> None:
    above = "parameters:\n  lora.rank: {choices: [8]}\n  lora.alpha: {ratio_of: lora.rank, choices: [1]}\n"
    below = "parameters:\n  lora.alpha: {ratio_of: lora.rank, choices: [1]}\n  lora.rank: {choices: [8]}\n"
    assert list(load_space(write(tmp_path, above)).parameters) == ["lora.rank", "lora.alpha"]
    assert "mentions lora.rank, which must stand above it" in complaint(write(tmp_path, below))


@pytest.mark.parametrize("mention", ["ratio_of: lora.rnak", "when: {lora.rnak: 8}", "scale: {lora.rnak: {lion: 0.1}}"])
def test_what_a_parameter_mentions_must_exist(tmp_path: Path, mention: str) -> None:
    message = complaint(write(tmp_path, f"parameters: {{lora.alpha: {{choices: [1], {mention}}}}}"))
    assert "mentions lora.rnak, which doesn't exist; did you mean lora.rank?" in message


def test_all_errors_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    lines = complaint(write(tmp_path, "first_point: []\nparameters: {lora.rank: {low: 1, hihg: 2}}")).splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{tmp_path / 'mine.yaml'}: ") for line in lines)
    assert any("hihg: there is no such key; did you mean high?" in line for line in lines)
    assert any("first_point: there is no such key; did you mean first_points?" in line for line in lines)


@pytest.mark.parametrize("text", ["parameters: [", "- lora.rank", "parameters: 5"])
def test_a_bad_file_is_told_by_its_name(tmp_path: Path, text: str) -> None:
    assert complaint(write(tmp_path, text)).startswith(f"{tmp_path / 'mine.yaml'}: ")


def test_an_unknown_space_names_the_bundled_ones_and_the_nearest() -> None:
    message = complaint("realistc")
    assert "anime, demo, realistic" in message
    assert "did you mean realistic?" in message


def test_numbers_in_files_may_be_written_as_1e_minus_4(tmp_path: Path) -> None:
    """PyYAML reads `1e-4` as a string."""
    text = """
      parameters:
        optimizer.unet_lr: {choices: [1e-4, 1e-3]}
        lora.alpha: {ratio_of: lora.rank, choices: [1e-1]}
      first_points:
        - {optimizer.unet_lr: 1.0e-4, lora.alpha: 1.6}
    """
    check_space(load_space(write(tmp_path, text)), Experiment())


def test_a_file_without_a_name_is_called_as_the_file(tmp_path: Path) -> None:
    assert load_space(write(tmp_path, "parameters: {lora.rank: {choices: [8]}}")).name == "mine"


def test_a_spaces_own_settings_are_a_layer_that_names_it() -> None:
    space = space_of({}, experiment={"lora": {"rnak": 8}})
    with pytest.raises(ConfigError, match=r"^search space test: lora\.rnak: .* did you mean lora\.rank"):
        build_experiment([space_layer(space)])


def test_ratios_are_named_as_such() -> None:
    parameters = space_of(RATES).parameters
    assert optuna_name("lora.alpha", parameters["lora.alpha"]) == "lora.alpha / lora.rank"
    assert optuna_name("lora.rank", parameters["lora.rank"]) == "lora.rank"
