"""`raylora check` as it is used, and what a search's plan tells of its data set."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance, ImageFilter

from raylora.dataset.folder import read_folder
from raylora.dataset.split import Split, write_splits
from raylora.request import Request, read_request
from tests.bad_world import Run
from tests.drawn import draw_set, drawn, put

AT_128 = "--set dataset.resolution=128"
PLAN = "tune good.yaml --space small.yaml --out out --dry-run --set dataset.resolution=128"


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """A set with one thing of each kind wrong that is no error."""
    folder = draw_set(tmp_path / "spoilt")
    put(folder, "small.png", drawn(50, (48, 60)), "sks, small")
    put(folder, "wide.png", drawn(51, (256, 128)), "sks, wide")
    put(folder, "soft [bold].png", drawn(52).filter(ImageFilter.GaussianBlur(3)), "sks, soft")
    put(folder, "again.jpg", drawn(3), "sks, again")
    (folder / "drawn_05.txt").write_text("a cat")
    return folder


def test_the_demos_drawings_are_as_they_should_be(run: Run) -> None:
    """Forty different ones, all sharp, captioned and as large as they are learned; its encoder sees no scene twice."""
    result = run("check demo")
    assert (result.status, result.stdout) == (0, "40 images, learned at 64x64\nall is well\n")


def test_a_table_that_fits_eighty_columns(run: Run, spoilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = run(f"check {spoilt} {AT_128} --set evaluation.encoder=demo")
    assert result.status == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "20 images, learned at 128x128"
    assert lines[-1] == "5 warnings"
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith(" warning") for line in lines) == 5
    for words in ("small.png", "wide.png", "soft [bold].png", "again.jpg", "drawn_05.png", "→ replace or remove them"):
        assert words in result.stdout


def test_json_for_programs(run: Run, spoilt: Path) -> None:
    (spoilt / "drawn_07.png").write_bytes(b"no picture")
    result = run(f"check {spoilt} {AT_128} --json")
    found = json.loads(result.stdout)
    assert result.status == 1
    assert (found["images"], found["resolution"]) == (19, [128, 128])
    assert (found["errors"], found["warnings"], found["notes"]) == (1, 5, 1)
    first = found["findings"][0]
    assert (first["level"], first["check"], first["files"]) == ("error", "readable", ["drawn_07.png"])
    assert {finding["check"]: finding["files"] for finding in found["findings"]}["sharpness"] == ["soft [bold].png"]


def test_without_its_encoder_one_look_is_not_taken_and_the_way_is_told(run: Run, tmp_path: Path) -> None:
    result = run(f"check {draw_set(tmp_path / 'set')} {AT_128}")
    assert result.status == 0
    assert "poses and backgrounds were not compared" in result.stdout
    assert "--download fetches it once" in result.stdout
    assert result.stdout.endswith("\n1 note\n")


def test_an_encoder_in_a_folder_sees_a_scene_that_dominates(run: Run, tmp_path: Path) -> None:
    """The demo's, as a folder of one's own would be."""
    from raylora.bundled import DEMO_DATASET, DEMO_ENCODER

    scene = Image.open(next(DEMO_DATASET.rglob("adventurer-3.png"))).convert("RGB")
    for number in range(16):
        left, top = number % 4, number // 4
        take = scene.rotate(number % 5 * 3 - 6).crop((left, top, left + 58, top + 58))
        put(
            tmp_path / "set", f"{number}.png", ImageEnhance.Brightness(take).enhance(0.8 + number / 40), f"sks {number}"
        )
    result = run(f"check {tmp_path / 'set'} --set dataset.resolution=64 --set evaluation.encoder={DEMO_ENCODER}")
    assert "images show nearly the same as" in result.stdout


def test_settings_from_an_experiment_file_and_a_space(run: Run, tmp_path: Path) -> None:
    assert run("check good.yaml").stdout.startswith("20 images, learned at 64x64\n")
    folder = draw_set(tmp_path / "set")
    assert "learned at 1024x1024" in run(f"check {folder} --space sdxl-character").stdout
    buckets = run(f"check {folder} {AT_128} --set dataset.buckets=true --set evaluation.encoder=demo").stdout
    assert buckets == "16 images, learned in buckets of about 128x128\nall is well\n"


def test_leakage_is_an_error(run: Run, tmp_path: Path) -> None:
    folder, judge = draw_set(tmp_path / "set"), draw_set(tmp_path / "judge", 9, seed=100)
    put(judge, "known.jpg", drawn(2))
    for option in (f"--against {judge}", f"--set dataset.regularization={judge}"):
        result = run(f"check {folder} {AT_128} {option} --set evaluation.encoder=demo")
        assert result.status == 1
        assert "1 of 16 images are in" in result.stdout and "known.jpg" in result.stdout
        assert result.stdout.endswith("\n1 error\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("check nowhere", ("nowhere", "there is no such folder")),
        ("check pictures --against nowhere", ("nowhere", "there is no such folder")),
        ("check pictures --split nowhere.json", ("nowhere.json", "there is no such file")),
        ("check no_dataset.yaml", ("no_dataset.yaml", "names no dataset")),
        ("check indexed", ("metadata.jsonl, line 2", "expected")),
        ("check pictures --set dataset.resolution=100", ("dataset.resolution", "128x128")),
        ("check pictures --set evaluation.encoder=./nowhere", ("evaluation.encoder", "no such folder")),
        ("check pictures --space nowhere", ("nowhere",)),
    ],
)
def test_wrong_input(line: str, words: tuple[str, ...], run: Run) -> None:
    result = run(line)
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr.count("raylora: error: ") == 1
    assert all(word in result.stderr for word in words)


def test_a_plan_warns_of_what_is_wrong_with_the_set(run: Run, spoilt: Path) -> None:
    """Short, at most a handful, and where the rest is told."""
    result = run(f"{PLAN} --dataset {spoilt}")
    assert result.status == 0
    told = [line.removeprefix("warning: ") for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert [line.split()[:3] for line in told[:4]] == [
        ["1", "image", "smaller"], ["1", "image", "of"], ["1", "image", "blurred"], ["2", "images", "are"],
    ]  # fmt: skip
    (rest,) = told[4:]
    command = re.fullmatch(r"1 more of the data set; `raylora (.*)` tells the rest", rest)
    assert command and "--set dataset.resolution=128x128" in command[1]
    assert "5 warnings" in run(command[1]).stdout


def test_a_year_that_is_read_as_repeats_is_told_where_it_counts(run: Run, tmp_path: Path) -> None:
    draw_set(tmp_path / "set" / "2024_summer")
    told = (
        "warning: 2024_summer/ asks by its name for 2,024 repeats, such as 2024_summer/drawn_00.png; if that is a date"
    )
    line = f"train good.yaml --dry-run --dataset {tmp_path / 'set'} {AT_128}"
    assert told in run(line).stderr
    assert "2,024 repeats" not in run(f"{line} --set training.repeats=3").stderr


def test_a_training_warns_too(run: Run, spoilt: Path) -> None:
    line = f"train good.yaml --dry-run --dataset {spoilt} {AT_128}"
    assert "warning: 1 image blurred by" in run(line).stderr


@pytest.mark.parametrize("command", [PLAN, f"train good.yaml --out out {AT_128}"])
def test_regularization_images_of_the_set_stop_it_before_anything_is_written(
    command: str, run: Run, tmp_path: Path
) -> None:
    folder, others = draw_set(tmp_path / "set"), draw_set(tmp_path / "others", 9, seed=100)
    put(others, "known.jpg", drawn(2))
    result = run(f"{command} --dataset {folder} --set dataset.regularization={others}")
    assert result.status == 2
    assert (
        "1 of 16 images are in dataset.regularization too (drawn_02.png is nearly the same as others/known.jpg)"
        in result.stderr
    )
    assert not (tmp_path / "out").exists()


def leaking_split(tmp_path: Path) -> Path:
    """Of a set with a JPEG copy, which is held out while its original is learned."""
    folder = draw_set(tmp_path / "set")
    put(folder, "again.jpg", drawn(3), "sks, again")
    pictures = read_folder(folder)
    apart = tuple(picture for picture in pictures if picture.path.name in ("again.jpg", "drawn_07.png"))
    write_splits([Split(tuple(set(pictures) - set(apart)), apart)], tmp_path / "apart.json")
    return folder


def test_a_split_with_near_duplicates_on_both_sides_is_warned_of(run: Run, tmp_path: Path) -> None:
    """An earlier version has written such, and its searches are to be compared with."""
    folder = leaking_split(tmp_path)
    result = run(f"{PLAN} --dataset {folder} --split {tmp_path / 'apart.json'}")
    assert result.status == 0
    assert "warning: 1 of 15 images are in the held-out part too (drawn_03.png is nearly" in result.stderr
    assert "leave --split out" in result.stderr


def test_what_a_training_began_with_is_not_judged_again(run: Run, tmp_path: Path) -> None:
    """Before regularization images were compared, it could begin with one of its own."""
    from raylora.execution.checked_job import checked_job

    folder, others = draw_set(tmp_path / "set"), draw_set(tmp_path / "others", 9, seed=100)
    put(others, "known.jpg", drawn(2))
    line = f"train good.yaml --dry-run {AT_128} --dataset {folder} --set dataset.regularization={others}"
    assert run(line).status == 2
    params = {"dataset.path": str(folder), "dataset.regularization": str(others), "dataset.resolution": 128}
    experiment = read_request(Request(Path("good.yaml"), {}, [])).with_params(params)
    told: list[str] = []
    job = checked_job(experiment, None, None, told.append, holds_out=False, goes_on=True)
    assert len(job.regularization) == 10
    assert not any("regularization" in line for line in told)


def test_raylora_holds_near_duplicates_out_together(run: Run, tmp_path: Path) -> None:
    folder = draw_set(tmp_path / "set")
    put(folder, "again.jpg", drawn(3), "sks, again")
    for folds in (1, 4):
        result = run(f"{PLAN} --dataset {folder} --set dataset.folds={folds}")
        assert result.status == 0
        assert "warning: 2 images are near-duplicates, in 1 group, such as again.jpg" in result.stderr
