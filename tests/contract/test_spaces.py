"""Every bundled search space: it loads, it gives valid settings, and it starts from the guide's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import optuna
import pytest

from raylora.bundled import DEMO_DATASET, search_spaces
from raylora.config import Experiment, flatten
from raylora.config_files import build_experiment
from raylora.dataset.folder import read_folder
from raylora.execution.node_cache import Material
from raylora.execution.plan import make_plan
from raylora.request import Request, search_wanted
from raylora.search.space import Parameter, SearchSpace, check_space, load_space, space_layer

DEMO_PICTURES = read_folder(DEMO_DATASET)
SPACES = sorted(search_spaces())
DRAWS = 200

GUIDES: dict[str, dict[str, Any]] = {
    "realistic": {
        "model.family": "sd15",
        "model.train_text_encoder": True,
        "dataset.resolution": (512, 512),
        "dataset.shuffle_caption": True,
        "lora.rank": 64,
        "lora.alpha": 32,
        "optimizer.name": "adamw8bit",
        "optimizer.unet_lr": 1e-4,
        "optimizer.text_encoder_lr": 5e-5,
        "lr_scheduler.name": "cosine",
        "training.repeats": 15,
        "training.epochs": 10,
        "training.mixed_precision": "fp16",
        "training.save_precision": "fp16",
    },
    "anime": {
        "model.family": "sd15",
        "model.train_text_encoder": True,
        "dataset.resolution": (512, 512),
        "dataset.shuffle_caption": True,
        "lora.rank": 16,
        "lora.alpha": 8,
        "optimizer.name": "adamw8bit",
        "optimizer.unet_lr": 1e-4,
        "optimizer.text_encoder_lr": 5e-5,
        "lr_scheduler.name": "cosine",
        "training.repeats": 8,
        "training.epochs": 20,
        "training.mixed_precision": "fp16",
    },
    "sdxl-character": {
        "model.family": "sdxl",
        "model.train_text_encoder": False,
        "dataset.resolution": (1024, 1024),
        "lora.rank": 8,
        "lora.alpha": 4,
        "optimizer.name": "adamw",
        "optimizer.unet_lr": 2e-4,
        "lr_scheduler.name": "constant",
        "training.repeats": 10,
        "training.epochs": 10,
    },
    "demo": {
        "model.base_model": "demo",
        "dataset.path": "demo",
        "evaluation.encoder": "demo",
        "model.train_text_encoder": True,
        "optimizer.unet_lr": 1e-3,
        "optimizer.text_encoder_lr": 5e-4,
        "lr_scheduler.name": "cosine",
    },
}
"""The demo's rate is moved to its tiny model's own scale."""
RANKS = {"realistic": {64, 128}, "anime": {8, 16, 32}, "sdxl-character": {8}, "sdxl-style": {16, 32}}


def load(name: str) -> tuple[SearchSpace, Experiment]:
    space = load_space(name)
    return space, build_experiment([space_layer(space)])


def draws(name: str) -> list[Experiment]:
    """Configurations of random points."""
    space, experiment = load(name)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [experiment.with_params(space.suggest(study.ask(), experiment)) for _ in range(DRAWS)]


def test_the_guides_presets_are_bundled() -> None:
    assert {"realistic", "anime", "sdxl-character", "sdxl-style", "demo"} <= set(SPACES)


@pytest.mark.parametrize("name", SPACES)
def test_every_space_gives_valid_settings(name: str) -> None:
    space, experiment = load(name)
    check_space(space, experiment)
    assert space.name == name
    assert space.description
    assert space.first_points
    assert experiment.search.trials > experiment.search.startup_trials


@pytest.mark.parametrize("name", SPACES)
def test_every_first_point_names_all_that_is_searched_there(name: str) -> None:
    """So that the baseline doesn't depend on defaults."""
    space, experiment = load(name)
    params = space.to_optuna(space.first_points[0], experiment)
    study = optuna.create_study()
    study.enqueue_trial(params)
    assert space.suggest(study.ask(), experiment) == space.first_points[0]


@pytest.mark.parametrize("name", sorted(GUIDES))
def test_the_first_point_is_the_guides_own(name: str) -> None:
    space, experiment = load(name)
    settings = flatten(experiment.with_params(space.first_points[0]).model_dump())
    assert {path: settings[path] for path in GUIDES[name]} == GUIDES[name]


@pytest.mark.parametrize("name", SPACES)
def test_the_first_point_breaks_no_rule_of_the_guide(name: str) -> None:
    space, experiment = load(name)
    first = experiment.with_params(space.first_points[0])
    assert first.warnings() == []
    assert first.lora.alpha == first.lora.rank / 2


@pytest.mark.parametrize("name", SPACES)
def test_no_point_breaks_a_rule_of_the_guide(name: str) -> None:
    for drawn in draws(name):
        assert drawn.lora.alpha <= drawn.lora.rank
        assert drawn.warnings() == []


@pytest.mark.parametrize("name", sorted(RANKS))
def test_the_guides_ranks_are_searched(name: str) -> None:
    assert RANKS[name] <= {drawn.lora.rank for drawn in draws(name)}


@pytest.mark.parametrize("name", SPACES)
def test_lions_rates_are_a_tenth_of_adamws(name: str) -> None:
    parameter = load(name)[0].parameters["optimizer.unet_lr"]
    rates = [drawn.optimizer.unet_rate for drawn in draws(name) if drawn.optimizer.name == "lion"]
    assert parameter.low is not None
    assert parameter.high is not None
    assert all(parameter.low / 10 <= rate <= parameter.high / 10 for rate in rates)
    assert bool(rates) == ("lion" in (load(name)[0].parameters["optimizer.name"].choices or ()))


@pytest.mark.parametrize("name", SPACES)
def test_prodigys_rate_is_one(name: str) -> None:
    rates = [drawn.optimizer.unet_rate for drawn in draws(name) if drawn.optimizer.name == "prodigy"]
    assert set(rates) <= {1.0}
    assert bool(rates) == name.startswith("sdxl")


@pytest.mark.parametrize("name", SPACES)
def test_the_text_encoders_rate_is_a_half_to_a_tenth_of_the_unets_or_it_is_not_trained(name: str) -> None:
    for drawn in draws(name):
        rates = drawn.optimizer
        share = rates.text_encoder_rate / rates.unet_rate
        assert not drawn.model.train_text_encoder or 0.1 - 1e-9 <= share <= 0.5 + 1e-9


@pytest.mark.parametrize("name", SPACES)
def test_restarts_are_three_to_five(name: str) -> None:
    restarts = [d.lr_scheduler.num_restarts for d in draws(name) if d.lr_scheduler.name == "cosine_with_restarts"]
    assert set(restarts) == (set() if name.startswith("sdxl") else {3, 4, 5})


def other_value(parameter: Parameter, point: dict[str, Any], path: str) -> Any:
    """A value of the parameter that the first point doesn't have."""
    if parameter.choices and parameter.ratio_of is None:
        return next(choice for choice in parameter.choices if choice != point.get(path))
    return 0.8 * point[path] if path in point else parameter.high


def cases() -> Iterator[tuple[str, str]]:
    yield from ((name, path) for name in SPACES for path in load_space(name).parameters)


@pytest.mark.parametrize(("name", "path"), list(cases()))
def test_any_searched_setting_can_be_set_by_hand(name: str, path: str) -> None:
    """The plan of a dry run works: the first point keeps its ratios beside it."""
    space = load_space(name)
    value = other_value(space.parameters[path], space.first_points[0], path)
    extra = ["lr_scheduler.name=cosine_with_restarts"] if path == "lr_scheduler.num_restarts" else []
    options = {"dataset.path": "demo", "model.base_model": "nobody/sdxl" if name.startswith("sdxl") else "demo"}
    wanted = search_wanted(Request(None, options, [f"{path}={value}", *extra]), space)
    assert wanted.space is not None
    check_space(wanted.space, wanted.experiment)
    plan = make_plan(wanted.experiment, wanted.space, [Material(DEMO_PICTURES, DEMO_PICTURES[:4])])
    assert any(label == "Fixed by --set: " and path in text for label, text in plan.lines())
    assert flatten(plan.experiment.model_dump())[path] == pytest.approx(value)
