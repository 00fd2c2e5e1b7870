"""Captions and tags that `raylora prepare` writes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from raylora.dataset.folder import ReadOptions, read_folder
from tests.drawn import drawn, put
from tests.preparing import (
    COLOURS,
    Prepare,
    captions_in,
    make_colours,
    manifest_in,
)


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
    options: str, red: str, blue: str, run_here: Prepare, tmp_path: Path, models: Path
) -> None:
    make_colours(tmp_path / "in", red="old words, red background", blue="")
    model = f"--caption-model {models / 'tagger'}" if "tags" in options else ""
    done = run_here(f"prepare in set --size 64x64 --trigger sks {options} {model}")
    assert done.status == 0, done.stderr
    expected = {"red": f"sks, {red}", "blue": f"sks, {blue}"}
    assert captions_in(tmp_path / "set") == {name: f"{text.rstrip(', ')}\n" for name, text in expected.items()}


def test_sentences_are_written_by_blip(run_here: Prepare, tmp_path: Path, models: Path) -> None:
    make_colours(tmp_path / "in", **dict.fromkeys(COLOURS, ""))
    done = run_here(f"prepare in set --size 64x64 --caption blip --caption-model {models / 'blip'} --trigger sks")
    assert done.status == 0, done.stderr
    captions = captions_in(tmp_path / "set")
    assert len(captions) == len(COLOURS) > 8  # more than one batch
    images = manifest_in(tmp_path / "set")["images"]
    found = {Path(one["source"]).stem: one["caption_found"] for one in images}
    assert captions == {name: f"sks, {text}\n" if text else "sks\n" for name, text in found.items()}
    assert len({*captions.values()}) > 3
    assert manifest_in(tmp_path / "set")["captioner"]["captioner"] == "blip"


def test_captions_are_of_what_is_cut_and_not_of_what_is_cut_off(
    run_here: Prepare, tmp_path: Path, models: Path
) -> None:
    (tmp_path / "in").mkdir()
    image = Image.new("RGB", (256, 64), "blue")
    image.paste("red", (96, 0, 160, 64))
    image.save(tmp_path / "in" / "a.png")
    run_here(f"prepare in set --size 64x64 --crop center --caption tags --caption-model {models / 'tagger'}")
    assert "red background" in captions_in(tmp_path / "set")["a"]
    assert "blue" not in captions_in(tmp_path / "set")["a"]


def test_tags_are_edited_by_name_list_and_pattern(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="1girl, blue_eyes, long hair, red hair, smile, hat", blue="1girl, hat")
    (tmp_path / "unwanted.txt").write_text("Blue Eyes\n/.* hair/\n")
    done = run_here("prepare in set --size 64x64 --trigger sks --remove @unwanted.txt --remove smile --add grass "
               "--replace 1girl=woman")  # fmt: skip
    assert done.status == 0, done.stderr
    assert captions_in(tmp_path / "set") == {"red": "sks, woman, hat, grass\n", "blue": "sks, woman, hat, grass\n"}
    assert manifest_in(tmp_path / "set")["settings"]["remove"] == ["Blue Eyes", "/.* hair/", "smile"]


def test_tags_are_counted_and_fixed_traits_proposed(run_here: Prepare, tmp_path: Path) -> None:
    captions = {colour: f"1girl, blue eyes, {colour}" for colour in COLOURS[:5]}
    make_colours(tmp_path / "in", **captions)
    done = run_here("prepare in set --size 64x64 --trigger sks --add grass")
    with (tmp_path / "set" / "tags.csv").open() as file:
        rows = {row["tag"]: row for row in csv.DictReader(file)}
    assert rows["blue eyes"] == {"tag": "blue eyes", "images": "5", "share": "1.000", "proposal": "remove"}
    assert [rows[tag]["proposal"] for tag in ("sks", "grass", "red")] == ["", "", ""]
    assert "again with --force --remove 1girl --remove 'blue eyes'" in done.stdout
    done = run_here("prepare in set --size 64x64 --trigger sks --add grass --remove 1girl --remove 'blue eyes' --force")
    assert done.status == 0, done.stderr
    assert captions_in(tmp_path / "set")["red"] == "sks, red, grass\n"
    assert "--remove" not in done.stdout


def test_a_caption_that_comes_to_nothing_is_told(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="hat", blue="hat, grass")
    done = run_here("prepare in set --size 64x64 --remove hat")
    assert "1 caption is empty, such as red.png's" in done.stderr
    assert "2 captions are empty" in run_here("prepare in bare --size 64x64 --remove hat --remove grass").stderr


def test_an_image_without_a_caption_gets_the_words_of_its_folder_as_in_training(
    run_here: Prepare, tmp_path: Path
) -> None:
    make_colours(tmp_path / "in" / "10_red_dog", red="", blue="a blue dog")
    put(tmp_path / "in", "top.png", drawn(1, (64, 64)), "at the top")
    learned = read_folder(tmp_path / "in", ReadOptions(trigger="ohwx", fewest=1))
    done = run_here("prepare in set --size 64x64 --trigger ohwx")
    assert done.status == 0, done.stderr
    told = "1 image has no caption, such as 10_red_dog/red.png; the words of its folder stand in, 'red dog'"
    assert told in done.stderr
    assert captions_in(tmp_path / "set") == {picture.path.stem: f"{picture.caption}\n" for picture in learned}
    assert captions_in(tmp_path / "set")["red"] == "ohwx, red dog\n"
    assert run_here("prepare in/10_red_dog bare --size 64x64").status == 0  # where nobody gives a trigger
    assert captions_in(tmp_path / "bare") == {"red": "red dog\n", "blue": "a blue dog\n"}
    assert run_here("prepare in/10_red_dog words --size 64x64 --existing replace").status == 0
    assert {*captions_in(tmp_path / "words").values()} == {"red dog\n"}


def test_what_a_captioner_was_not_asked_for_is_counted(run_here: Prepare, tmp_path: Path, models: Path) -> None:
    make_colours(tmp_path / "in", red="hat", blue="grass", lime="")
    line = f"--size 64x64 --trigger sks --caption tags --caption-model {models / 'tagger'}"
    told = f"1 by {models / 'tagger'}, 2 that were there"
    for more in ("--dry-run", ""):
        lines = run_here(f"prepare in set {line} {more}").stdout.splitlines()
        assert f"Captions:      {told} (--existing replace or extend asks for them too)" in lines
    assert f"Captions:      3 by {models / 'tagger'}\n" in run_here(f"prepare in all {line} --existing replace").stdout


def test_many_fixed_traits_are_left_to_the_table(run_here: Prepare, tmp_path: Path) -> None:
    tags = [f"tag {number}" for number in range(11)]
    make_colours(tmp_path / "in", **{colour: ", ".join(tags) for colour in COLOURS[:4]})
    done = run_here("prepare in set --size 64x64 --trigger sks")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("Fixed traits?")]
    assert "11 tags are on nearly all images: tags.csv has `remove` behind them" in line
    assert "put these into a file, one a line, and again with --force --remove @FILE" in line
    assert "--remove 'tag 1'" not in line


@pytest.mark.parametrize(("option", "first"), [("--trigger sks", ""), ("", "--remove 'sks portrait' ")])
def test_the_trigger_is_not_proposed_for_removal_amid_a_tag(
    run_here: Prepare, tmp_path: Path, option: str, first: str
) -> None:
    """A first word may be none: `blonde`, say, of blonde hair."""
    make_colours(tmp_path / "in", **dict.fromkeys(COLOURS[:4], "sks portrait, thin nose"))
    for _ in ("done", "told again"):
        done = run_here(f"prepare in set --size 64x64 {option}")
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("Fixed traits?")]
        assert line.endswith(f"--force {first}--remove 'thin nose'")


def test_what_is_proposed_can_be_pasted(run_here: Prepare, tmp_path: Path) -> None:
    long = "l" * 2500
    make_colours(tmp_path / "in", **dict.fromkeys(COLOURS[:4], f"/m/, @artist, -_-, {long}, m, it's"))
    done = run_here("prepare in set --size 64x64 --trigger sks --remove m")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("Fixed traits?")]
    options = line[line.index("--force") :]
    assert long in options
    assert run_here(f"prepare in set --size 64x64 --trigger sks --remove m {options}").status == 0
    assert {*captions_in(tmp_path / "set").values()} == {"sks\n"}


def test_groups_of_a_pattern_are_written_into_captions(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="red hair, hat")
    assert run_here(r"prepare in set --size 64x64 --replace '/(.*) hair/=\1 fur'").status == 0
    assert captions_in(tmp_path / "set") == {"red": "red fur, hat\n"}


def test_captions_are_judged_once_images_are_read(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="hat")
    Image.new("RGB", (9, 9)).save(tmp_path / "in" / "small.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "in" / "odd.png")
    (tmp_path / "in" / "odd.txt").write_bytes(b"\xe9")
    done = run_here("prepare in set --size 64x64")
    assert done.status == 0, done.stderr
    assert captions_in(tmp_path / "set") == {"red": "hat\n"}
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "odd.png")
    assert "odd.txt: is not UTF-8 text" in run_here("prepare in other --size 64x64").stderr
    assert not (tmp_path / "other").exists()


def test_a_caption_that_is_to_be_dropped_need_not_be_readable(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="hat")
    (tmp_path / "in" / "red.txt").write_bytes(b"\xe9")
    done = run_here("prepare in set --size 64x64 --trigger sks --existing replace")
    assert done.status == 0, done.stderr
    assert "1 caption that can't be read is dropped by --existing replace, such as red.png's" in done.stderr
    assert captions_in(tmp_path / "set") == {"red": "sks\n"}


def test_drawings_and_photographs_go_to_spaces_of_their_own(run_here: Prepare, tmp_path: Path, models: Path) -> None:
    make_colours(tmp_path / "in", red="hat")
    line = f"prepare in set --size 64x64 --caption tags --caption-model {models / 'tagger'}"
    assert "--space anime " in run_here(line).stdout
    assert "--space realistic " in run_here("prepare in photos --size 64x64").stdout
