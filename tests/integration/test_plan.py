"""What is told before anything starts: the plan of a dry run, warnings, help."""

from __future__ import annotations

from pathlib import Path

import pytest

from raylora import __version__
from tests.bad_world import Run

OUT = "--out out"

WARNINGS = [
    ("train good.yaml --set lora.alpha=8", "lora.alpha 8 is above lora.rank 4"),
    ("train good.yaml --set optimizer.name=prodigy", "Prodigy expects every rate at 1"),
    ("train good.yaml --dataset uncaptioned --set dataset.trigger=sks", "picture_07.png: has no caption; using 'sks'"),
    ("train good.yaml --dataset class_words", "picture_00.png: has no caption; using 'sks person'"),
    ("train good.yaml --dataset unreadable --skip-bad-images", "picture_03.png: can't be read as an image"),
    ("train good.yaml --dataset cut_off --set dataset.skip_bad_images=true", "picture_03.png: can't be read"),
    ("tune good.yaml --dataset unreadable --skip-bad-images", "picture_03.png: can't be read as an image"),
]


@pytest.mark.parametrize(("line", "fragment"), [pytest.param(*case, id=case[0]) for case in WARNINGS])
def test_it_is_warned_of(line: str, fragment: str, run: Run) -> None:
    result = run(f"{line} --dry-run")
    assert result.status == 0
    warnings = [text for text in result.stderr.splitlines() if text.startswith("warning: ")]
    assert any(fragment in text for text in warnings)
    assert "Images " in result.stderr


def test_a_skipped_picture_is_not_counted(run: Run) -> None:
    assert (
        "8 = 4 to learn + 4 held out" in run("train good.yaml --dataset unreadable --skip-bad-images --dry-run").stderr
    )


@pytest.mark.parametrize("line", ["train good.yaml", "tune good.yaml --space small.yaml"])
def test_a_dry_run_prints_the_arithmetic(line: str, run: Run) -> None:
    result = run(f"{line} --dry-run --set training.epochs=10 --set training.batch_size=1")
    assert result.status == 0
    assert "20 = 15 to learn + 5 held out" in result.stderr
    trial, refit = (text for text in result.stderr.splitlines() if " epochs = " in text)
    assert "15 images × " in trial and "= 1,500 images; ÷ batch 1 = 1,500 steps" in trial
    assert "20 images × " in refit and "= 2,000 images; ÷ batch 1 = 2,000 steps" in refit


def test_a_dry_run_divides_by_the_batch(run: Run) -> None:
    assert "1,500 images; ÷ batch 4 = 375 steps" in run("train good.yaml --dry-run --set training.batch_size=4").stderr


def test_a_dry_run_of_a_search_tells_its_rungs_and_its_first_point(run: Run) -> None:
    told = run("tune good.yaml --dry-run --space realistic --trials 7 --set search.grace_period=500").stderr
    assert "7 trials of realistic: tpe + asha" in told
    assert "500, 1,000, 2,000, 2,250 images seen" in told
    assert "unet_lr 0.0001" in told and "optimizer adamw8bit" in told and "lr_scheduler cosine" in told


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
        ("", "--version --help tune resume train evaluate"),
        ("tune", "--demo --dataset --base-model --space --trials --set --out --tracking-uri --register --address "
                 "--gpus-per-trial --split --skip-bad-images --dry-run --json"),
        ("resume", "--address --json"),
        ("train", "--demo --dataset --base-model --space --set --out --holdout --split --skip-bad-images --dry-run "
                  "--json"),
        ("evaluate", "--dataset --base-model --train-dataset --set --skip-bad-images --json"),
    ],
)  # fmt: skip
def test_help_names_every_option(command: str, options: str, run: Run) -> None:
    result = run(f"{command} --help")
    assert result.status == 0
    words = set(result.stdout.replace(",", " ").split())
    assert set(options.split()) <= words


def test_version(run: Run) -> None:
    result = run("--version")
    assert (result.status, result.stdout) == (0, f"raylora {__version__}\n")
