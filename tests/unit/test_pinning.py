"""What is set by hand is not searched, and first points keep their ratios."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raylora.errors import ConfigError
from raylora.execution.checked_job import checked_job
from raylora.request import Request, Wanted, read_request, search_wanted, training_wanted
from raylora.search.pinning import pin
from raylora.search.space import SearchSpace, check_space, load_space
from tests.unit.test_space import GUIDES, NO_TEXT, RATES, points, space_of


def request(*assignments: str, file: Path | None = None, **options: Any) -> Request:
    given = {"dataset.path": "demo", "model.base_model": "demo"}
    return Request(file, given | {name.replace("__", "."): value for name, value in options.items()}, assignments)


def write(folder: Path, text: str) -> Path:
    (folder / "exp.yaml").write_text(text)
    return folder / "exp.yaml"


def searched(wanted: Wanted) -> SearchSpace:
    assert wanted.space is not None
    check_space(wanted.space, wanted.experiment)
    return wanted.space


def test_what_a_file_sets_is_not_searched(tmp_path: Path) -> None:
    wanted = search_wanted(request(file=write(tmp_path, "lora: {rank: 4}")), load_space("realistic"))
    space = searched(wanted)
    assert wanted.experiment.lora.rank == 4
    assert "lora.rank" not in space.parameters
    assert space.fixed == {"lora.rank": str(tmp_path / "exp.yaml")}
    assert all("lora.rank" not in point for point in points(space, wanted.experiment))


def test_the_later_of_file_and_set_wins(tmp_path: Path) -> None:
    wanted = search_wanted(request("lora.rank=8", file=write(tmp_path, "lora: {rank: 4}")), load_space("realistic"))
    assert wanted.experiment.lora.rank == 8
    assert searched(wanted).fixed == {"lora.rank": "--set"}


def test_null_is_a_value_too() -> None:
    wanted = search_wanted(request("training.repeats=null"), load_space("realistic"))
    assert "training.repeats" not in searched(wanted).parameters
    assert wanted.experiment.training.repeats is None


def test_an_empty_section_fixes_nothing(tmp_path: Path) -> None:
    wanted = search_wanted(request(file=write(tmp_path, "lora:\ntraining: {repeats: 3}\n")), load_space("realistic"))
    assert set(searched(wanted).fixed) == {"training.repeats"}


def test_options_fix_nothing() -> None:
    assert searched(search_wanted(request(search__trials=3), load_space("realistic"))).fixed == {}


def test_a_file_that_sets_everything_leaves_nothing_to_search(tmp_path: Path) -> None:
    """Such as best/experiment.yaml of an earlier search; `num_restarts`, which it lacks, is another schedule's."""
    file = write(tmp_path, """
        lora: {rank: 8, alpha: 4}
        optimizer: {name: adamw, unet_lr: 1.0e-4, text_encoder_lr: 1.0e-5}
        training: {repeats: 3}
        lr_scheduler: {name: cosine}
    """)  # fmt: skip
    with pytest.raises(ConfigError, match="nothing to search") as caught:
        search_wanted(request(file=file), load_space("realistic"))
    for fragment in (str(file), "realistic", "delete the lines", "--space", "raylora train"):
        assert fragment in str(caught.value)


def test_set_alone_may_leave_nothing_to_search_too() -> None:
    with pytest.raises(ConfigError, match="what --set sets leaves nothing to search; leave out"):
        search_wanted(request("lora.rank=8"), space_of({"lora.rank": {"choices": [4, 8]}}))


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("lora.rank=8", "lora.alpha", 4),
        ("optimizer.unet_lr=2e-4", "optimizer.text_encoder_lr", 1e-4),
        ("optimizer.name=lion", "optimizer.unet_lr", 1e-5),
        ("optimizer.name=lion", "optimizer.text_encoder_lr", 5e-6),
        ("lr_scheduler.name=cosine_with_restarts", "lr_scheduler.num_restarts", 3),
    ],
)
def test_a_first_point_keeps_its_ratios(assignment: str, path: str, value: float) -> None:
    (point,) = searched(search_wanted(request(assignment), load_space("realistic"))).first_points
    assert point[path] == pytest.approx(value)


def test_a_ratio_of_what_the_space_fixes_is_kept_too() -> None:
    space = space_of(
        {"lora.alpha": {"ratio_of": "lora.rank", "choices": [0.5, 1]}}, {"lora.alpha": 8}, experiment={"lora.rank": 16}
    )
    (point,) = searched(search_wanted(request("lora.rank=8"), space)).first_points
    assert point == {"lora.alpha": 4}


def test_a_condition_that_no_longer_holds_leaves_the_first_point() -> None:
    wanted = search_wanted(request("optimizer.name=prodigy"), load_space("sdxl-character"))
    (point,) = searched(wanted).first_points
    assert point["optimizer.unet_lr"] == 1.0
    assert "optimizer.unet_lr" not in searched(wanted).searched(wanted.experiment)


def test_an_incomplete_first_point_is_still_told() -> None:
    space = pin(space_of(RATES, {"optimizer.name": "lion"}), {"lora.rank": "--set"}, NO_TEXT)
    with pytest.raises(ConfigError, match=r"no optimizer\.unet_lr"):
        check_space(space, NO_TEXT)


def test_first_points_that_become_one_are_tried_once() -> None:
    space = space_of(RATES, GUIDES, {**GUIDES, "lora.rank": 8, "lora.alpha": 4})
    assert len(pin(space, {"lora.rank": "--set"}, NO_TEXT.with_params({"lora.rank": 8})).first_points) == 1


def test_a_functions_points_leave_out_what_is_fixed() -> None:
    wanted = search_wanted(request("lora.rank=8"), load_space("tests.unit.test_own_space:rank_only"))
    assert wanted.space is not None
    assert points(wanted.space, wanted.experiment)[0] == {}
    with pytest.raises(ConfigError, match=r"nothing to search, since it gives no settings .* beside what --set set"):
        check_space(wanted.space, wanted.experiment)


def test_training_takes_the_first_points_ratio() -> None:
    wanted = training_wanted(request("lora.rank=8"), load_space("anime"))
    assert (wanted.experiment.lora.rank, wanted.experiment.lora.alpha) == (8, 4)
    assert wanted.experiment.training.repeats == 8
    assert wanted.space is None


def test_errors_name_the_option() -> None:
    with pytest.raises(ConfigError, match=r"^--gpus-per-trial: search\.gpus_per_trial: .*1\.5"):
        read_request(request(search__gpus_per_trial=1.5))


def test_what_has_no_default_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        training_wanted(Request(None, {}, ()), None)
    assert "--base-model" in str(caught.value) and "--dataset" in str(caught.value)


@pytest.mark.parametrize("space", ["realistic", "sdxl-character"])
def test_a_rate_that_no_part_listens_to_is_told(space: str) -> None:
    (warning,) = search_wanted(request("optimizer.learning_rate=1e-5"), load_space(space)).warnings
    assert "--set: optimizer.learning_rate has no effect" in warning
    assert "searched; set optimizer.unet_lr" in warning
    assert ("text_encoder_lr" in warning) == (space == "realistic")
    (warning,) = training_wanted(request("optimizer.learning_rate=1e-5"), load_space(space)).warnings
    assert "set; set optimizer.unet_lr" in warning


def test_a_rate_that_some_part_listens_to_is_not(tmp_path: Path) -> None:
    unet = load_space("sdxl-character")
    text_too = request("optimizer.learning_rate=1e-5", "model.train_text_encoder=true")
    assert search_wanted(text_too, unet).warnings == []
    winner = write(tmp_path, "optimizer: {learning_rate: 1.0e-4, unet_lr: 1.0e-4, text_encoder_lr: 5.0e-5}")
    assert training_wanted(request(file=winner), None).warnings == []


def test_what_the_points_of_a_search_are_warned_of_is_told_once() -> None:
    """Prodigy's draws keep a rate that was set by hand, each with a number of its own."""
    wanted = search_wanted(request("model.train_text_encoder=false", "lora.alpha=64"), space_of({
        "optimizer.name": {"choices": ["adamw", "prodigy"]},
        "optimizer.unet_lr": {"low": 1e-4, "high": 1e-2},
        "lora.rank": {"low": 2, "high": 60},
    }))  # fmt: skip
    told: list[str] = []
    checked_job(wanted.experiment, wanted.space, None, told.append)
    assert sum("is above lora.rank" in warning for warning in told) == 1
    assert sum("Prodigy expects every rate at 1" in warning for warning in told) == 1


def test_a_space_is_the_same_after_it_was_kept_for_resume(tmp_path: Path) -> None:
    space = searched(search_wanted(request("lora.rank=8"), load_space("realistic")))
    kept = yaml.safe_dump(space.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    (tmp_path / "space.yaml").write_text(kept)
    assert load_space(str(tmp_path / "space.yaml")).model_dump() == space.model_dump()
