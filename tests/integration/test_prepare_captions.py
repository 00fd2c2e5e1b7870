"""Captions and tags that `raylora prepare` writes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from tests.caption_models import make_blip, make_tagger
from tests.preparing import (
    COLOURS,
    Prepare,
    captions_in,
    command_line,
    make_colours,
    manifest_in,
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prepare:
    return command_line(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`models/blip` and `models/tagger`."""
    place = tmp_path_factory.mktemp("models")
    make_blip(place / "blip")
    make_tagger(place / "tagger")
    return place


@pytest.mark.parametrize(
    ("options", "red", "blue"),
    [
        ("", "old words, red background", ""),
        ("--caption tags --threshold 0.8", "old words, red background", "some name (series), blue background, >_<"),
        ("--caption tags --threshold 0.8 --existing replace", "some name (series), red background, >_<",
         "some name (series), blue background, >_<"),
        ("--caption tags --threshold 0.8 --existing extend", "old words, red background, some name (series), >_<",
         "some name (series), blue background, >_<"),
        ("--existing replace", "", ""),
        ("--caption tags --threshold 0.95 --character-threshold 1 --existing replace", "red background",
         "blue background"),
    ],
)  # fmt: skip
def test_captions_that_are_there_and_those_that_are_found(
    options: str, red: str, blue: str, run: Prepare, tmp_path: Path, models: Path
) -> None:
    make_colours(tmp_path / "in", red="old words, red background", blue="")
    model = f"--caption-model {models / 'tagger'}" if "tags" in options else ""
    done = run(f"prepare in set --size 64x64 --trigger sks {options} {model}")
    assert done.status == 0, done.stderr
    expected = {"red": f"sks, {red}", "blue": f"sks, {blue}"}
    assert captions_in(tmp_path / "set") == {name: f"{text.rstrip(', ')}\n" for name, text in expected.items()}


def test_sentences_are_written_by_blip(run: Prepare, tmp_path: Path, models: Path) -> None:
    make_colours(tmp_path / "in", **dict.fromkeys(COLOURS, ""))
    done = run(f"prepare in set --size 64x64 --caption blip --caption-model {models / 'blip'} --trigger sks")
    assert done.status == 0, done.stderr
    captions = captions_in(tmp_path / "set")
    assert len(captions) == len(COLOURS) > 8  # more than one batch
    images = manifest_in(tmp_path / "set")["images"]
    found = {Path(one["source"]).stem: one["caption_found"] for one in images}
    assert captions == {name: f"sks, {text}\n" if text else "sks\n" for name, text in found.items()}
    assert len({*captions.values()}) > 3
    assert manifest_in(tmp_path / "set")["captioner"]["captioner"] == "blip"


def test_captions_are_of_what_is_cut_and_not_of_what_is_cut_off(run: Prepare, tmp_path: Path, models: Path) -> None:
    (tmp_path / "in").mkdir()
    image = Image.new("RGB", (256, 64), "blue")
    image.paste("red", (96, 0, 160, 64))
    image.save(tmp_path / "in" / "a.png")
    run(f"prepare in set --size 64x64 --crop center --caption tags --caption-model {models / 'tagger'}")
    assert "red background" in captions_in(tmp_path / "set")["a"]
    assert "blue" not in captions_in(tmp_path / "set")["a"]


def test_tags_are_edited_by_name_list_and_pattern(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="1girl, blue_eyes, long hair, red hair, smile, hat", blue="1girl, hat")
    (tmp_path / "unwanted.txt").write_text("Blue Eyes\n/.* hair/\n")
    done = run("prepare in set --size 64x64 --trigger sks --remove @unwanted.txt --remove smile --add grass "
               "--replace 1girl=woman")  # fmt: skip
    assert done.status == 0, done.stderr
    assert captions_in(tmp_path / "set") == {"red": "sks, woman, hat, grass\n", "blue": "sks, woman, hat, grass\n"}
    assert manifest_in(tmp_path / "set")["settings"]["remove"] == ["Blue Eyes", "/.* hair/", "smile"]


def test_tags_are_counted_and_fixed_traits_proposed(run: Prepare, tmp_path: Path) -> None:
    captions = {colour: f"1girl, blue eyes, {colour}" for colour in COLOURS[:5]}
    make_colours(tmp_path / "in", **captions)
    done = run("prepare in set --size 64x64 --trigger sks --add grass")
    with (tmp_path / "set" / "tags.csv").open() as file:
        rows = {row["tag"]: row for row in csv.DictReader(file)}
    assert rows["blue eyes"] == {"tag": "blue eyes", "images": "5", "share": "1.000", "proposal": "remove"}
    assert [rows[tag]["proposal"] for tag in ("sks", "grass", "red")] == ["", "", ""]
    assert "again with --force --remove 1girl --remove 'blue eyes'" in done.stdout
    done = run("prepare in set --size 64x64 --trigger sks --add grass --remove 1girl --remove 'blue eyes' --force")
    assert done.status == 0, done.stderr
    assert captions_in(tmp_path / "set")["red"] == "sks, red, grass\n"
    assert "--remove" not in done.stdout


def test_a_caption_that_comes_to_nothing_is_told(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="hat", blue="hat, grass")
    done = run("prepare in set --size 64x64 --remove hat")
    assert "1 caption is empty, such as red.png's" in done.stderr
    assert "2 captions are empty" in run("prepare in bare --size 64x64 --remove hat --remove grass").stderr
