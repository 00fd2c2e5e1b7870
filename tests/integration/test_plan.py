"""What is told before anything starts: the plan of a dry run, warnings, help."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from raylora import __version__
from raylora.bundled import search_spaces
from raylora.config import Experiment
from raylora.execution.checked_job import checked_job
from raylora.execution.plan import Plan
from raylora.search.space import SearchSpace, load_space
from tests.bad_world import Run

OUT = "--out out"

WARNINGS = [
    ("train good.yaml --set lora.alpha=8", "lora.alpha 8 is above lora.rank 4"),
    ("train good.yaml --set optimizer.name=prodigy", "Prodigy expects every rate at 1"),
    ("train good.yaml --dataset uncaptioned --set dataset.trigger=sks", "8 of 8 images have no caption"),
    ("train good.yaml --dataset class_words", "using 'sks person' in its place"),
    ("train good.yaml --dataset unreadable --skip-bad-images", "picture_03.png: can't be read as an image"),
    ("train good.yaml --dataset cut_off --set dataset.skip_bad_images=true", "picture_03.png: can't be read"),
    ("tune good.yaml --dataset unreadable --skip-bad-images", "picture_03.png: can't be read as an image"),
    ("tune good.yaml --space small.yaml --set lora.alpha=8", "lora.alpha 8 is above lora.rank 4"),
    ("tune good.yaml --space realistic", "the folders' names say 10 repeats; the space searches training.repeats"),
    ("tune good.yaml --set optimizer.learning_rate=1e-5", "--set: optimizer.learning_rate has no effect"),
    ("tune good.yaml --gpus-per-trial 2 --set training.batch_size=1", "a batch of 1 keeps only 1 of them busy"),
    (
        "tune good.yaml --set dataset.folds=4 --set dataset.holdout_fraction=0.3",
        "--set: dataset.holdout_fraction has no",
    ),
    (
        "tune good.yaml --space realistic --set search.limits.lora_mb=0.01",
        "search.limits.lora_mb: the first point's LoRA file is over the limit (lora_mb 0.0",
    ),
    ("tune good.yaml --base-model nobody/nothing", "nobody/nothing: there is no such path here"),
]


@pytest.mark.parametrize(("line", "fragment"), [pytest.param(*case, id=case[0]) for case in WARNINGS])
def test_it_is_warned_of(line: str, fragment: str, run: Run) -> None:
    result = run(f"{line} --dry-run")
    assert result.status == 0
    warnings = [text for text in result.stderr.splitlines() if text.startswith("warning: ")]
    assert sum(fragment in text for text in warnings) == 1
    assert "Images " in result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "tune --demo --set search.limits.lora_mb=9",
        "tune good.yaml --space realistic --set training.repeats=null",
        "tune good.yaml --space realistic --dataset seven_more",
        "tune --demo",
        "tune good.yaml --space realistic --dataset seven_more --set dataset.folds=4",
        "train good.yaml --set dataset.folds=4",
        "tune good.yaml --gpus-per-trial 2 --set training.batch_size=2 --set training.repeats=null",
        "tune good.yaml --space realistic --set lora.rank=32 --set lora.alpha=16 --set training.repeats=3",
    ],
)
def test_nothing_is_warned_of(line: str, run: Run) -> None:
    result = run(f"{line} --dry-run")
    assert result.status == 0
    assert "warning" not in result.stderr


def plan_of(experiment: Experiment, space: SearchSpace | None = None, **settings: Any) -> Plan:
    params = {path.replace("__", "."): value for path, value in settings.items()}
    return checked_job(experiment.with_params(params), space, None, lambda _: None).plan


def test_the_disk_has_room_for_files_of_epochs(tiny_experiment: Experiment) -> None:
    """Of each trial and of the refit; the set has 4 epochs."""
    plain = plan_of(tiny_experiment)
    for every, last, files in ((1, None, 4), (2, None, 2), (3, None, 1), (1, 3, 3)):
        saving = {"training__save_every_epochs": every, "training__keep_last": last}
        assert plan_of(tiny_experiment, **saving).disk.files - plain.disk.files == files * plain.lora_bytes
    space = load_space("demo").model_copy(update={"parameters": {}, "first_points": ()})
    saved = plan_of(tiny_experiment, space, training__save_every_epochs=1, search__trials=5).disk.files
    assert saved - plan_of(tiny_experiment, space).disk.files == (5 + 1) * 4 * plain.lora_bytes


def test_a_plan_stops_the_refit_where_it_will_stop(tiny_experiment: Experiment) -> None:
    """At the same share of the schedule, which is longer on all images."""
    plan = plan_of(tiny_experiment, training__stop_at=6)
    trial, refit = plan.trial, plan.refit
    assert refit.images_total > trial.images_total
    assert (trial.images_end, refit.images_end) == (6, round(6 * refit.images_total / trial.images_total))


def test_a_skipped_picture_is_not_counted(run: Run) -> None:
    assert (
        "8 = 4 to learn + 4 held out" in run("tune good.yaml --dataset unreadable --skip-bad-images --dry-run").stderr
    )


def lines_of(told: str) -> dict[str, str]:
    """The plan by its labels."""
    return {line[:12].strip(): line[12:] for line in told.splitlines()}


def test_the_disk_has_room_for_every_folds_lora(tiny_experiment: Experiment) -> None:
    """Of 5 trials and 4 × 2 with new seeds, and for one refit; pictures of all that is held out, by turns."""
    space = load_space("demo").model_copy(update={"parameters": {}, "first_points": ()})
    settings = {"search__trials": 5, "training__save_every_epochs": 4, "search__grace_period": 100}
    one, three = (plan_of(tiny_experiment, space, **settings, dataset__folds=folds).disk for folds in (1, 3))
    assert three.trials * (5 + 8 + 1) == one.trials * (3 * (5 + 8) + 1)
    assert three.grids == one.grids * 12 / 4
    lora = plan_of(tiny_experiment).lora_bytes
    assert one.files == 4 * lora + 6 * lora and three.files == 4 * lora + 16 * lora


LONGER = "--dry-run --set training.epochs=10 --set training.batch_size=1"


def test_a_dry_run_of_a_search_prints_the_arithmetic(run: Run) -> None:
    told = run(f"tune good.yaml --space small.yaml {LONGER}").stderr
    plan = lines_of(told)
    assert plan["Images"] == "20 = 15 to learn + 5 held out"
    assert plan["Judge"] == "demo"
    assert plan["Disk"].startswith("up to ") and "samples" in plan["Disk"]
    assert plan["Output"].endswith("/out/small")
    assert "then the best 3 trials once more, with 2 new seeds each, for as many images as were best" in told
    assert re.search(r"^(CPU|\d+ GPU).*; \d+ trials? at once$", plan["Device"])
    trial, refit = (text for text in told.splitlines() if " epochs = " in text)
    assert "a trial: the folders' repeats of 15 images" in trial and "= 1,500 images; ÷ batch 1 = 1,500 steps" in trial
    assert (
        "then the winner on all images, up to: the folders' repeats of 20" in refit
        and "= 2,000 images; ÷ batch 1 = 2,000 steps" in refit
    )


def test_a_dry_run_tells_what_folds_cost(run: Run) -> None:
    told = run(f"tune good.yaml --space small.yaml {LONGER} --set dataset.folds=4").stderr
    plan = lines_of(told)
    assert plan["Images"] == "20 = 15 to learn + 5 held out"
    assert plan["Folds"] == "4: each trial trains 4 LoRAs, 4 times the compute"
    assert plan["Steps"].startswith("a trial, each fold: the folders' repeats of 15 images")
    plan = lines_of(run(f"tune good.yaml --space small.yaml {LONGER} --set dataset.folds=3").stderr)
    assert plan["Images"] == "20 = 13 to 14 to learn + 6 to 7 held out"
    assert plan["Folds"].endswith("; all as long as the shortest")
    assert "of 13 images" in plan["Steps"] and "= 1,300 images" in plan["Steps"]
    assert "Folds" not in lines_of(run(f"train good.yaml {LONGER} --set dataset.folds=3").stderr)


@pytest.mark.parametrize(
    ("option", "images", "steps"), [("", "20", "2,000"), ("--holdout", "20 = 15 to learn + 5 held out", "1,500")]
)
def test_a_dry_run_of_a_training_tells_what_will_run(option: str, images: str, steps: str, run: Run) -> None:
    told = run(f"train good.yaml {option} {LONGER} --set optimizer.text_encoder_lr=5e-5").stderr
    plan = lines_of(told)
    assert plan["Images"] == images
    assert plan["Steps"].endswith(f"= {steps} steps")
    assert told.count(" epochs = ") == 1
    assert plan["Settings"] == (
        "rank 4, alpha 4, optimizer adamw, unet_lr 0.0001, text_encoder_lr 5e-05, lr_scheduler cosine"
    )
    assert ("Judge" in plan) == bool(option)
    assert plan["Output"].endswith("/out/train")
    assert "trial" not in plan["Steps"]


def test_a_search_takes_the_space_that_fits_the_base_model(run: Run) -> None:
    assert " trials of realistic: " in run("tune good.yaml --dry-run").stderr
    assert " trials of demo: " in run("tune good.yaml --dry-run --set model.base_model=demo").stderr


def test_training_on_all_images_needs_no_judge(run: Run) -> None:
    absent = "--dry-run --set evaluation.encoder=nobody/clip --base-model nobody/base"
    told = {line: run(f"{line} {absent}").stderr for line in ("train good.yaml", "train good.yaml --holdout")}
    assert "nobody/base: " in told["train good.yaml"] and "nobody/clip: " not in told["train good.yaml"]
    assert "nobody/base: " in told["train good.yaml --holdout"] and "nobody/clip: " in told["train good.yaml --holdout"]


def test_training_on_all_images_needs_no_split(run: Run) -> None:
    assert run("train good.yaml --dataset copies --dry-run").status == 0


def test_repeats_in_place_of_the_folders_are_told(run: Run) -> None:
    assert "20 images × 3 repeats (not the folders' 10)" in run(
        "train good.yaml --dry-run --set training.repeats=3"
    ).stderr  # fmt: skip


def test_a_dry_run_divides_by_the_batch(run: Run) -> None:
    assert "2,000 images; ÷ batch 4 = 500 steps" in run("train good.yaml --dry-run --set training.batch_size=4").stderr


def test_a_dry_run_of_a_search_tells_its_rungs_and_its_first_point(run: Run) -> None:
    told = run("tune good.yaml --dry-run --space realistic --trials 7 --set search.grace_period=500").stderr
    assert "7 trials of realistic: proposed and stopped by forecast" in told
    assert "500, 1,000, 2,000, 2,250 images seen" in told
    assert "unet_lr 0.0001" in told and "optimizer adamw8bit" in told and "lr_scheduler cosine" in told


def test_a_dry_run_tells_the_limits(run: Run) -> None:
    line = "tune good.yaml --dry-run --space small.yaml"
    plan = lines_of(run(f"{line} --set search.limits.train_s=600 --set search.limits.lora_mb=1.5").stderr)
    assert plan["Limits"] == "lora_mb 1.5, train_s 600"
    assert "Limits" not in lines_of(run(line).stderr)


def test_a_dry_run_tells_what_was_set_by_hand(run: Run) -> None:
    told = run("tune good.yaml --dry-run --space realistic --set training.repeats=3").stderr
    assert "Fixed by good.yaml: lora.rank 4, lora.alpha 4" in told
    assert "Fixed by --set: training.repeats 3" in told
    (searched,) = (line for line in told.splitlines() if line.startswith("Searched"))
    assert "lora.rank" not in searched


def test_a_dry_run_plans_sdxl(run: Run) -> None:
    result = run("tune good.yaml --dry-run --space sdxl-character --base-model sdxl_base --set dataset.resolution=64")
    assert result.status == 0
    assert "20 trials of sdxl-character" in result.stderr


@pytest.mark.parametrize("command", ["tune", "train"])
def test_a_dry_run_writes_nothing(command: str, run: Run, bad_world: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in bad_world.rglob("*")}
    assert run(f"{command} good.yaml --dry-run {OUT}").status == 0
    assert {path: path.stat().st_mtime_ns for path in bad_world.rglob("*")} == before
    assert list(tmp_path.iterdir()) == []


def test_a_format_named_no_can_be_given_as_it_is_documented(run: Run) -> None:
    """YAML reads a bare `no` as false; the documentation names the value so."""
    assert run("train good.yaml --dry-run --set training.mixed_precision=no").status == 0


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("", "--version --help tune resume train evaluate generate submit jobs"),
        ("tune", "--demo --dataset --base-model --space --trials --set --out --tracking-uri --register --address "
                 "--gpus-per-trial --split --warm-start --skip-bad-images --dry-run --json"),
        ("resume", "--address --json"),
        ("submit", "--address --working-dir --wait --no-wait --env --gpus"),
        ("jobs", "list status logs stop"),
        ("train", "--demo --dataset --base-model --space --set --out --holdout --split --skip-bad-images --dry-run "
                  "--json"),
        ("evaluate", "--dataset --base-model --train-dataset --set --skip-bad-images --json"),
        ("generate", "--prompt --prompts --negative-prompt --seed --count --strength --steps --guidance-scale --size "
                     "--out --grid --batch-size --base-model --tracking-uri --set --json"),
    ],
)  # fmt: skip
def test_help_names_every_option(command: str, options: str, run: Run) -> None:
    result = run(f"{command} --help")
    assert result.status == 0
    words = set(result.stdout.replace(",", " ").split())
    assert set(options.split()) <= words


def test_help_names_every_space(run: Run) -> None:
    words = set(re.findall(r"[\w-]+", run("tune --help").stdout))
    assert set(search_spaces()) <= words


def test_version(run: Run) -> None:
    result = run("--version")
    assert (result.status, result.stdout) == (0, f"raylora {__version__}\n")
