"""What holds for every value, tried on many (Hypothesis)."""

from __future__ import annotations

import tempfile
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import BaseModel, ValidationError

from raylora.config import DatasetConfig, Experiment, Section, TrainingConfig, flatten, set_path
from raylora.config_files import Layer, build_experiment, read_experiment, write_experiment
from raylora.config_optimization import OPTIMIZER_NAMES
from raylora.config_search import HIGHER_IS_BETTER
from raylora.dataset.batches import ImageOrder, Schedule, batch_positions, make_schedule
from raylora.dataset.captions import vary
from raylora.errors import NotInSpaceError
from raylora.search.space import Known, Parameter, SearchSpace, load_space, space_layer
from raylora.training.fit import evaluation_points
from raylora.world import World

MOST = 10**6
SIDES = st.integers(1, 32).map(lambda steps: 64 * steps)
NUMBERS = st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False)
LINE = st.characters(exclude_categories=("Cc", "Cs"))
"""No control characters, and no halves of characters."""
ARGUMENTS = NUMBERS | st.booleans() | st.none() | st.text(max_size=5) | st.lists(NUMBERS, max_size=3).map(tuple)
SPECIAL = {
    "search.storage": st.none() | st.sampled_from(["s3://bucket/run", "gs://bucket", "file:///mnt/shared"]),
    "dataset.resolution": st.tuples(SIDES, SIDES),
    "lora.block_ranks": st.none()
    | st.dictionaries(st.sampled_from(("mid_block", "down_blocks.0")), st.integers(1, 99), min_size=1),
    "search.gpus_per_trial": st.floats(0.1, 1) | st.integers(1, 8).map(float),
    "optimizer.name": st.sampled_from((*OPTIMIZER_NAMES, "torch.optim:RAdam")),
    "optimizer.arguments": st.none() | st.dictionaries(st.sampled_from(("betas", "eps", "d")), ARGUMENTS, min_size=1),
    "search.tradeoffs": st.lists(st.sampled_from(tuple(HIGHER_IS_BETTER)), min_size=1, unique=True).map(tuple),
    "tracking.uri": st.none() | st.text("ab:/.-?=", min_size=1, max_size=20),
    "tracking.register_name": st.none() | st.text("ab c_-.", min_size=1, max_size=9).map(lambda text: f"a{text}"),
    "lr_scheduler.step_rules": st.sampled_from((None, "1:10,0.1:20,0.01", "0.5")),
}
"""Settings whose rule is not in their type."""

tried = settings(max_examples=60)
MAPPINGS = (("lora", "block_ranks"), ("optimizer", "arguments"))
"""Settings that are themselves names with values."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


def bound(rules: list[Any], name: str) -> Any:
    """The value of a rule such as `ge`, None without it."""
    return next((getattr(rule, name) for rule in rules if getattr(rule, name, None) is not None), None)


def numbers(kind: type, rules: list[Any]) -> SearchStrategy[Any]:
    above, below = bound(rules, "gt"), bound(rules, "lt")
    low = above if above is not None else bound(rules, "ge")
    high = below if below is not None else bound(rules, "le")
    low, high = (0 if low is None else low), (MOST if high is None else high)
    if kind is int:
        return st.integers(low + (above is not None), high - (below is not None))
    return st.floats(low, high, exclude_min=above is not None, exclude_max=below is not None)


def values(annotation: Any, rules: list[Any]) -> SearchStrategy[Any]:
    """Valid values of a setting, from its type and its rules."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values(parts[0], [rule for field in annotation.__metadata__ for rule in field.metadata])
    if origin is Literal:
        return st.sampled_from(parts)
    if origin in (Union, types.UnionType):
        return st.one_of(*(values(part, rules) for part in parts))
    if origin is tuple:
        return st.lists(values(parts[0], []), min_size=bound(rules, "min_length") or 0, max_size=4).map(tuple)
    if annotation in (int, float):
        return numbers(annotation, rules)
    if annotation is str:
        return st.text(LINE, min_size=bound(rules, "min_length") or 0, max_size=20)
    return {bool: st.booleans(), type(None): st.none()}[annotation]


def all_values(section: type[BaseModel], prefix: str = "") -> dict[str, SearchStrategy[Any]]:
    """By dotted path, for every setting that there is."""
    found: dict[str, SearchStrategy[Any]] = {}
    for name, field in section.model_fields.items():
        path = prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found |= all_values(field.annotation, f"{path}.")
        else:
            found[path] = SPECIAL[path] if path in SPECIAL else values(field.annotation, list(field.metadata))
    return found


ALL_VALUES = all_values(Experiment)


def consistent(params: dict[str, Any]) -> dict[str, Any]:
    """Without the settings that their neighbours would forbid."""
    forbidden = set()
    schedule = params.get("lr_scheduler.name")
    if schedule != "cosine_with_restarts":
        forbidden.add("lr_scheduler.num_restarts")
    if schedule != "piecewise_constant":
        forbidden.add("lr_scheduler.step_rules")
    elif params.get("lr_scheduler.step_rules") is None:
        forbidden.add("lr_scheduler.name")
    multires = {"loss.multires_noise_iterations", "loss.multires_noise_discount"}
    if not all(params.get(path) for path in multires):
        forbidden |= multires
    return {path: value for path, value in params.items() if path not in forbidden}


RULES_BETWEEN_SETTINGS = ("Prodigy", "polynomial ends at", "so all trials score 0")
"""Words of the refusals that no single value brings on."""


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    params = consistent(draw(st.fixed_dictionaries({}, optional=ALL_VALUES)))
    try:
        return Experiment().with_params(params)
    except ValidationError as error:
        assert any(rule in str(error) for rule in RULES_BETWEEN_SETTINGS), str(error)
        assume(False)
        raise


@tried
@given(experiments())
def test_an_experiment_written_and_read_again_is_the_same(experiment: Experiment) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experiment.yaml"
        write_experiment(experiment, path)
        assert read_experiment(path) == experiment


@tried
@given(experiments())
def test_an_experiment_is_what_its_own_paths_give(experiment: Experiment) -> None:
    assert Experiment().with_params(flatten(experiment.model_dump())) == experiment
    assert build_experiment([Layer("paths", flatten(experiment.model_dump()))]) == experiment


@tried
@given(experiments(), experiments())
def test_the_last_layer_wins(first: Experiment, last: Experiment) -> None:
    """Of settings that are names with values, name by name: a layer adds to those below it."""
    expected = last.model_dump()
    for section, name in MAPPINGS:
        if added := expected[section][name]:
            expected[section][name] = (first.model_dump()[section][name] or {}) | added
    layers = [Layer("first", first.model_dump()), Layer("last", last.model_dump())]
    assert build_experiment(layers) == Experiment.model_validate(expected)


KEYS = st.text(st.characters(exclude_characters="."), min_size=1, max_size=5)
LEAVES = st.one_of(st.integers(), st.text(max_size=5), st.none(), st.lists(st.integers(), max_size=3))
TREES: SearchStrategy[dict[str, Any]] = st.dictionaries(
    KEYS, st.recursive(LEAVES, lambda below: st.dictionaries(KEYS, below, min_size=1, max_size=3), max_leaves=8)
)


@tried
@given(TREES)
def test_set_path_is_the_inverse_of_flatten(tree: dict[str, Any]) -> None:
    rebuilt: dict[str, Any] = {}
    for path, value in flatten(tree).items():
        set_path(rebuilt, path, value)
    assert rebuilt == tree


def bundled(name: str) -> tuple[SearchSpace, Experiment]:
    space = load_space(name)
    return space, build_experiment([space_layer(space)])


@pytest.mark.parametrize("name", ["demo", "sdxl-character"])
@tried
@given(seed=st.integers(0, 2**32 - 1))
def test_a_point_told_to_optuna_comes_back(name: str, seed: int) -> None:
    space, experiment = bundled(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    point = space.suggest(study.ask(), experiment)
    study.enqueue_trial(space.to_optuna(point, experiment))
    assert space.suggest(study.ask(), experiment) == point
    assert experiment.with_params(point)


ALPHA = "lora.alpha"
BOUNDS = st.integers(1, 50) | st.integers(1, 50_000).map(lambda thousandths: thousandths / 1000)
FACTORS: tuple[dict[str, Any], ...] = (
    {},
    {"ratio_of": "lora.rank"},
    {"scale": {"optimizer.name": {"adamw": 0.1}}},
)


@st.composite
def ranges(draw: st.DrawFn) -> Parameter:
    """A range whose bounds are whole or not, with and without a factor."""
    low, high = sorted(draw(st.lists(BOUNDS, min_size=2, max_size=2, unique=True)))
    factors = draw(st.sampled_from(FACTORS))
    return Parameter.model_validate({"low": low, "high": high, "log": draw(st.booleans()), **factors})


def tried_first(space: SearchSpace, point: dict[str, Any]) -> dict[str, Any]:
    """The settings that a study suggests where this point is queued."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(space.to_optuna(point, Experiment()))
    return space.suggest(study.ask(), Experiment())


@tried
@given(parameter=ranges(), seed=st.integers(0, 2**32 - 1))
def test_what_any_range_suggests_comes_back(parameter: Parameter, seed: int) -> None:
    space = SearchSpace(name="any", parameters={ALPHA: parameter})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    point = space.suggest(study.ask(), Experiment())
    assert tried_first(space, point) == point


@tried
@given(parameter=ranges(), value=BOUNDS)
def test_a_first_point_is_tried_as_it_is_or_refused(parameter: Parameter, value: float) -> None:
    space = SearchSpace(name="any", parameters={ALPHA: parameter})
    unscaled = parameter.unscaled(value, Known(Experiment()), ALPHA)
    assert parameter.low is not None and parameter.high is not None
    if parameter.low <= unscaled <= parameter.high and not (parameter.is_whole and unscaled % 1):
        assert tried_first(space, {ALPHA: value}) == {ALPHA: pytest.approx(value, rel=1e-9)}
    else:
        with pytest.raises(NotInSpaceError):
            space.to_optuna({ALPHA: value}, Experiment())


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[int], TrainingConfig, Schedule]:
    folder_repeats = draw(st.lists(st.integers(1, 15), min_size=1, max_size=30))
    training = TrainingConfig(
        repeats=draw(st.none() | st.integers(1, 15)),
        epochs=draw(st.integers(1, 5)),
        max_images=draw(st.none() | st.integers(1, 500)),
        batch_size=draw(st.integers(1, 9)),
        gradient_accumulation=draw(st.integers(1, 5)),
    )
    return folder_repeats, training, make_schedule(folder_repeats, training)


@tried
@given(schedules())
def test_the_images_of_a_run_are_those_of_the_guide(
    given_schedule: tuple[list[int], TrainingConfig, Schedule],
) -> None:
    folder_repeats, training, schedule = given_schedule
    repeats = [training.repeats] * len(folder_repeats) if training.repeats else folder_repeats
    full = sum(repeats) * training.epochs
    assert schedule.images_total == min(full, training.max_images or full)


@tried
@given(schedules())
def test_batches_tile_the_run_exactly(given_schedule: tuple[list[int], TrainingConfig, Schedule]) -> None:
    _, training, schedule = given_schedule
    batches = [batch_positions(step, schedule) for step in range(schedule.micro_steps)]
    assert [position for batch in batches for position in batch] == list(range(schedule.images_total))
    assert all(len(batch) == training.batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= training.batch_size


@tried
@given(schedules())
def test_optimizer_steps_hold_all_batches_and_none_is_empty(
    given_schedule: tuple[list[int], TrainingConfig, Schedule],
) -> None:
    _, training, schedule = given_schedule
    room = schedule.optimizer_steps * training.gradient_accumulation
    assert room - training.gradient_accumulation < schedule.micro_steps <= room


@tried
@given(st.integers(0, 50), st.integers(1, 8))
def test_workers_see_each_image_of_a_batch_once(images: int, workers: int) -> None:
    shares = [World(rank, workers).share(range(images)) for rank in range(workers)]
    assert sorted(position for share in shares for position in share) == list(range(images))


@tried
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(0, 2**32), st.integers(0, 20))
def test_every_epoch_is_a_permutation(repeats: list[int], seed: int, epoch: int) -> None:
    order, length = ImageOrder(repeats, seed), sum(repeats)
    seen = [order[epoch * length + place] for place in range(length)]
    assert sorted(seen) == [image for image, times in enumerate(repeats) for _ in range(times)]


@tried
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=8),
    st.integers(0, 2**32),
    st.lists(st.integers(0, 200), max_size=20),
)
def test_positions_may_be_asked_in_any_order(repeats: list[int], seed: int, positions: list[int]) -> None:
    order = ImageOrder(repeats, seed)
    asked = [order[position] for position in positions]
    assert asked == [ImageOrder(repeats, seed)[position] for position in positions]


TAGS = st.text("abc ", min_size=1, max_size=6).map(str.strip)


@tried
@given(st.lists(TAGS, min_size=1, max_size=8), st.integers(0, 9), st.integers(0, 2**32), st.integers(0, 10**6))
def test_shuffling_keeps_the_tags(tags: list[str], keep_tokens: int, seed: int, position: int) -> None:
    config = DatasetConfig(shuffle_caption=True, keep_tokens=keep_tokens)
    shuffled = vary(",".join(tags), config, (seed, position)).split(", ")
    assert shuffled[:keep_tokens] == tags[:keep_tokens]
    assert sorted(shuffled) == sorted(tags)


@tried
@given(st.integers(1, 5000), st.integers(1, 500), st.floats(1.5, 10))
def test_evaluations_go_up_to_the_end(images_total: int, grace_period: int, reduction_factor: float) -> None:
    points = evaluation_points(images_total, grace_period, reduction_factor)
    assert points == sorted(points)
    assert points[-1] == images_total
    assert points[0] == min(grace_period, images_total)
