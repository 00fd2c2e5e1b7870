"""The configuration and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from raylora.config import Experiment, field_paths, flatten, set_path
from raylora.config_files import (
    Layer,
    build_experiment,
    nearest,
    parse_assignments,
    read_experiment,
    read_yaml,
    write_experiment,
)
from raylora.errors import ConfigError, UserError


def build(*layers: tuple[str, dict[str, Any]]) -> Experiment:
    return build_experiment(Layer(source, settings) for source, settings in layers)


def complaint(*layers: tuple[str, dict[str, Any]]) -> str:
    with pytest.raises(ConfigError) as caught:
        build(*layers)
    return str(caught.value)


def setting(*assignments: str) -> Experiment:
    return build_experiment([parse_assignments(assignments)])


def test_defaults_are_the_guides() -> None:
    experiment = Experiment()
    assert (experiment.lora.rank, experiment.lora.alpha) == (16, 8.0)
    assert experiment.dataset.resolution == (512, 512)
    assert experiment.optimizer.learning_rate == 1e-4
    assert experiment.lr_scheduler.name == "cosine"
    assert experiment.training.save_precision == "fp16"
    assert experiment.warnings() == []


def test_parts_without_a_rate_of_their_own_take_the_general_one() -> None:
    rates = setting("optimizer.learning_rate=2e-4", "optimizer.text_encoder_lr=5e-5").optimizer
    assert (rates.unet_rate, rates.text_encoder_rate) == (2e-4, 5e-5)


@pytest.mark.parametrize("path", ["seed", "lora", "lora.rank", "evaluation.score.w_sim"])
def test_it_is_frozen(path: str) -> None:
    *sections, field = path.split(".")
    section: Any = Experiment()
    for name in sections:
        section = getattr(section, name)
    with pytest.raises(ValidationError):
        setattr(section, field, getattr(section, field))


def test_with_params_leaves_the_original_and_the_rest_alone() -> None:
    experiment = Experiment()
    trial = experiment.with_params({"lora.rank": 4, "optimizer.unet_lr": 2e-4})
    assert (trial.lora.rank, trial.optimizer.unet_lr) == (4, 2e-4)
    assert trial.lora.alpha == experiment.lora.alpha
    assert experiment == Experiment()


@pytest.mark.parametrize("params", [{"lora.rnak": 4}, {"lora.rank": 0}, {"lora.rank": "many"}, {"lora": 4}])
def test_with_params_refuses(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Experiment().with_params(params)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("512x768", (512, 768)),
        ("768 X 512", (768, 512)),
        ("512", (512, 512)),
        (512, (512, 512)),
        ([512, 768], (512, 768)),
        ([640], (640, 640)),
    ],
)
def test_sizes(written: object, read: tuple[int, int]) -> None:
    assert build(("file", {"dataset": {"resolution": written}})).dataset.resolution == read


@pytest.mark.parametrize(("side", "nearest_side"), [(500, 512), (540, 512), (550, 576), (10, 64)])
def test_a_size_that_is_no_multiple_of_64_names_the_nearest_size(side: int, nearest_side: int) -> None:
    message = complaint(("file", {"dataset": {"resolution": [512, side]}}))
    assert "multiples of 64" in message
    assert f"use 512x{nearest_side}" in message


@pytest.mark.parametrize("size", ["512x", "axb", "1x2x3", 0, -64, "512x0", 512.5, None])
def test_sizes_that_are_none(size: object) -> None:
    assert "dataset" in complaint(("file", {"dataset": {"resolution": size}}))


def test_a_wrong_size_is_told_by_field_and_value() -> None:
    message = complaint(("file", {"dataset": {"path": "photos", "resolution": "500x512"}}))
    assert "file: dataset.resolution:" in message
    assert "500x512" in message or "500" in message.partition("(found")[2]
    assert "photos" not in message


def test_a_wrong_size_is_told_with_the_source_it_came_from() -> None:
    message = complaint(("file", {"dataset": {"path": "photos"}}), ("--set", {"dataset": {"resolution": 500}}))
    assert message.startswith("--set: dataset")


def test_an_unknown_key_in_yaml_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("lora: {rnak: 8}\n")
    with pytest.raises(ConfigError) as caught:
        read_experiment(file)
    assert str(caught.value) == f"{file}: lora.rnak: there is no such setting; did you mean lora.rank?"


def test_an_unknown_key_in_set_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^--set: optimizer\.unet_rl: .*did you mean optimizer\.unet_lr\?$"):
        setting("optimizer.unet_rl=1e-4")


def test_a_setting_without_its_section_names_the_whole_path() -> None:
    assert "did you mean lora.rank?" in complaint(("file", {"rank": 8}))


def test_nearest_is_silent_when_nothing_is_near() -> None:
    assert nearest("zzzzzzzz", field_paths()) == ""


def test_all_errors_are_told_at_once_with_source_field_and_value() -> None:
    lines = complaint(
        ("file", {"lora": {"rnak": 3, "rank": 0}, "evaluation": {"timesteps": [5, 1000]}}),
        ("--set", {"training": {"epochs": "many"}}),
    ).splitlines()
    assert len(lines) == 4
    assert any(line.startswith("file: lora.rnak: ") for line in lines)
    assert any(line.startswith("file: lora.rank: ") and "(found 0)" in line for line in lines)
    assert any(line.startswith("file: evaluation.timesteps: ") and "(found 1000)" in line for line in lines)
    assert any(line.startswith("--set: training.epochs: ") and "(found 'many')" in line for line in lines)


def test_an_error_names_the_layer_that_won() -> None:
    message = complaint(("file", {"lora": {"rank": 8}}), ("--set", {"lora": {"rank": 0}}))
    assert message.startswith("--set: lora.rank")


def test_later_layers_win_and_others_stay() -> None:
    experiment = build(("space", {"lora": {"rank": 8, "alpha": 2}}), ("--set", {"lora": {"rank": 4}}))
    assert (experiment.lora.rank, experiment.lora.alpha) == (4, 2.0)


def test_numbers_that_are_none_are_refused() -> None:
    for text in (".nan", ".inf", "-1", "0"):
        with pytest.raises(ConfigError, match=r"optimizer\.unet_lr"):
            setting(f"optimizer.unet_lr={text}")


def test_alpha_above_rank_warns_and_rank_zero_is_an_error() -> None:
    (warning,) = setting("lora.rank=8", "lora.alpha=16").warnings()
    assert "lora.alpha 16" in warning
    assert "lora.rank 8" in warning
    assert setting("lora.rank=8", "lora.alpha=8").warnings() == []
    with pytest.raises(ConfigError, match=r"lora\.rank"):
        setting("lora.rank=0")


def test_prodigy_needs_one_rate_for_all_parts() -> None:
    rates = {"name": "prodigy", "unet_lr": 1.0, "text_encoder_lr": 0.5}
    message = complaint(("file", {"optimizer": rates}))
    assert "Prodigy" in message
    assert "set both to 1" in message


def test_prodigys_rates_may_differ_if_the_text_encoder_is_not_trained() -> None:
    alone = setting("optimizer.name=prodigy", "optimizer.unet_lr=1", "model.train_text_encoder=false")
    assert alone.warnings() == []


def test_prodigy_expects_a_rate_of_one() -> None:
    assert setting("optimizer.name=prodigy", "optimizer.learning_rate=1").warnings() == []
    (warning,) = setting("optimizer.name=prodigy").warnings()
    assert "Prodigy" in warning
    assert "0.0001" in warning


def test_the_prodigy_rule_names_the_file_it_was_broken_in() -> None:
    rates = {"name": "prodigy", "unet_lr": 1.0, "text_encoder_lr": 0.5}
    assert complaint(("job.yaml", {"optimizer": rates})).startswith("job.yaml: optimizer")


def test_field_paths_are_the_leaves_of_the_tree() -> None:
    paths = field_paths()
    assert set(paths) == set(flatten(Experiment().model_dump()))
    assert len(paths) == len(set(paths))
    assert {"seed", "lora.rank", "evaluation.score.w_sim"} <= set(paths)


def test_flatten_and_set_path() -> None:
    tree: dict[str, Any] = {}
    set_path(tree, "a.b.c", 1)
    set_path(tree, "a.d", 2)
    assert tree == {"a": {"b": {"c": 1}, "d": 2}}
    assert flatten(tree) == {"a.b.c": 1, "a.d": 2}


def test_set_path_puts_a_section_where_a_value_was() -> None:
    tree: dict[str, Any] = {"a": 1}
    set_path(tree, "a.b", 2)
    assert tree == {"a": {"b": 2}}


def test_written_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    experiment = setting(
        "seed=7",
        "dataset.resolution=512x768",
        "dataset.trigger='no'",
        "optimizer.unet_lr=3e-5",
        "lora.targets=[attention]",
        "training.mixed_precision='no'",
        "sampling.prompts=['{trigger}, señora: 100%', 'two\\nlines']",
        "evaluation.score.w_copy=0.25",
    )
    write_experiment(experiment, tmp_path / "experiment.yaml")
    assert read_experiment(tmp_path / "experiment.yaml") == experiment


def test_the_default_precision_can_be_written_without_quotes() -> None:
    """YAML 1.1 reads a bare `no` as false."""
    assert setting("training.mixed_precision=no").training.mixed_precision == "no"


def test_dotted_keys_serve_in_files_too(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("lora.rank: 4\nlora: {alpha: 2}\n")
    lora = read_experiment(tmp_path / "job.yaml").lora
    assert (lora.rank, lora.alpha) == (4, 2.0)


def test_rates_may_be_written_as_1e_minus_4(tmp_path: Path) -> None:
    """PyYAML reads `1e-4` as a string."""
    (tmp_path / "job.yaml").write_text("optimizer: {unet_lr: 1e-4}\n")
    assert read_experiment(tmp_path / "job.yaml").optimizer.unet_lr == 1e-4
    assert setting("optimizer.unet_lr=2e-4").optimizer.unet_lr == 2e-4


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("# nothing yet\n")
    assert read_experiment(tmp_path / "job.yaml") == Experiment()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"lora: {rank: 8", "valid YAML"),
        (b"- lora\n- rank\n", "found list"),
        (b"just words", "found str"),
        (b"1: {rank: 8}", "expected `section:`"),
        (b"lora: \xff\xfe\xfa", "can't be read"),
        (b"dataset: {trigger: 2024-02-30}", "YAML"),
    ],
)
def test_files_that_are_no_settings(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert told in str(caught.value)


@pytest.mark.parametrize("folder", [True, False])
def test_a_file_that_is_not_there(tmp_path: Path, folder: bool) -> None:
    path = tmp_path if folder else tmp_path / "job.yaml"
    with pytest.raises(ConfigError, match=str(path)):
        read_yaml(path)


@pytest.mark.parametrize("text", ["lora.rank", "=8", " =8", "", "lora.rank={8", "dataset.trigger=2024-13-45"])
def test_assignments_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set "):
        parse_assignments([text])


def test_assignments_may_hold_equals_signs_and_mappings() -> None:
    layer = parse_assignments(["dataset.trigger=a=b", "lora={rank: 4, alpha: 2}"])
    assert layer.settings == {"dataset": {"trigger": "a=b"}, "lora": {"rank": 4, "alpha": 2}}


def test_user_errors_have_status_2() -> None:
    assert (ConfigError.exit_status, UserError.exit_status) == (2, 2)


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("lora.rank=0", "lora.rank: must be at least 1 (found 0)"),
        ("lora.rank=1.5", "lora.rank: must be a whole number (found 1.5)"),
        ("lora.rank=true", "lora.rank: must be a whole number (found True)"),
        ("lora.block_ranks={mid_block: true}", "lora.block_ranks.mid_block: must be a whole number (found True)"),
        ("optimizer.unet_lr=false", "optimizer.unet_lr: must be a number (found False)"),
        ("training.tf32=3", "training.tf32: must be true or false (found 3)"),
        ("dataset.path=5", "dataset.path: must be text; put it in quotes (found 5)"),
        ("dataset.resolution=500x700", "both sides must be multiples of 64; use 512x704 (found '500x700')"),
        ("dataset.resolution=64x64x64", "must be a width and a height such as 512x768"),
        ("lora=3", "lora: is a section; set lora.rank=… (found 3)"),
        ("evaluation.score=3", "evaluation.score: is a section; set evaluation.score.w_loss=… (found 3)"),
        ("evaluation.timesteps=[1000]", "evaluation.timesteps: must be below 1000 (found 1000)"),
        ("lora.targets=[]", "lora.targets: must have 1 or more entries (found [])"),
        ("seed=99999999999", "seed: must be below 2147483648 (found 99999999999)"),
        ("optimiser.name=lion", "optimiser: there is no such setting; did you mean optimizer?"),
    ],
)
def test_errors_are_in_words_and_one_line(assignment: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        setting(assignment)
    assert str(caught.value).startswith("--set: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["lora:\n", "evaluation: {score: }\n", "lora:\ntraining:\n"])
def test_a_section_with_nothing_below_sets_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "job.yaml").write_text(content)
    assert read_experiment(tmp_path / "job.yaml") == Experiment()


@pytest.mark.parametrize("section", [None, {"name": "lion"}])
def test_a_misspelt_section_names_the_nearest(section: object) -> None:
    assert complaint(("file", {"optimiser": section})).endswith("did you mean optimizer?")


@pytest.mark.parametrize(
    ("alone", "needed"),
    [
        ("dataset.max_area_px=65536", "dataset.buckets=true"),
        ("dataset.keep_tokens=2", "dataset.tag_dropout=0.1"),
        ("dataset.caption_variants=3", "dataset.shuffle_caption=true"),
        ("dataset.prior_loss_weight=0.5", "dataset.regularization=faces"),
        ("training.keep_last=2", "training.save_every_epochs=1"),
        ("loss.huber_c=0.2", "loss.type=huber"),
    ],
)
def test_a_setting_that_nothing_asks_for_is_told(alone: str, needed: str) -> None:
    (warning,) = setting(alone).warnings()
    assert warning.startswith(f"{alone.split('=')[0]} has no effect without ")
    assert needed.split("=")[0] in warning
    assert setting(alone, needed).warnings() == []
