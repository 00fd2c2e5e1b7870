"""Tags taken apart, edited and counted."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from raylora.errors import ConfigError, DatasetError
from raylora.preparation.tag_table import as_csv, count_tags
from raylora.preparation.tags import (
    Edits,
    as_entry,
    distinct,
    parse_replacement,
    parse_tag,
    parse_wanted,
    read_entries,
    split_tags,
)

CAPTION = "1girl, blue_eyes, Long Hair, smile"


def test_without_edits_a_caption_stays_letter_by_letter() -> None:
    assert Edits()("a  dog ,a dog,,") == "a  dog ,a dog,,"


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        (Edits(remove=("Blue Eyes", "long_hair")), "1girl, smile"),
        (Edits(remove=("smile,", " 1girl ")), "blue_eyes, Long Hair"),
        (Edits(remove=("/.* hair/",)), "1girl, blue_eyes, smile"),
        (Edits(remove=("/BLUE EYES|smile/",)), "1girl, Long Hair"),
        (Edits(remove=("/hair/",)), "1girl, blue_eyes, Long Hair, smile"),
        (Edits(add=("grass", "smile")), "1girl, blue_eyes, Long Hair, smile, grass"),
        (Edits(replace=("1girl=woman",)), "woman, blue_eyes, Long Hair, smile"),
        (Edits(replace=("/.*girl/=woman, standing",)), "woman, standing, blue_eyes, Long Hair, smile"),
        (Edits(replace=("smile=1girl",)), "1girl, blue_eyes, Long Hair"),
        (Edits(replace=(r"/(.*)[_ ]hair/=\1 fur, has \g<1> fur",)), "1girl, blue_eyes, Long fur, has Long fur, smile"),
        (Edits(replace=(r"/blue eyes|(no one)/=\1",)), "1girl, Long Hair, smile"),
        (Edits(replace=(r"/sm(il)e/=\\\1\000,x",)), "1girl, blue_eyes, Long Hair, \\il, x"),
        (Edits(replace=(r"smile=\m/",)), r"1girl, blue_eyes, Long Hair, \m/"),
        (Edits(trigger="sks"), "sks, 1girl, blue_eyes, Long Hair, smile"),
        (Edits(trigger="smile"), "smile, 1girl, blue_eyes, Long Hair"),
        (Edits(trigger="sks", replace=("smile=grin",), remove=("grin", "1girl"), add=("1girl",)),
         "sks, blue_eyes, Long Hair, 1girl"),
    ],
)  # fmt: skip
def test_edits(edits: Edits, expected: str) -> None:
    assert edits(CAPTION) == expected


@pytest.mark.parametrize("caption", ["sks", "sks portrait, smile", "sks, smile"])
def test_a_trigger_that_is_first_already_stays(caption: str) -> None:
    assert Edits(trigger="sks")(caption) == caption


def test_a_word_that_only_begins_like_the_trigger_is_none() -> None:
    assert Edits(trigger="sks")("sksy, smile") == "sks, sksy, smile"


def test_an_empty_caption_becomes_the_trigger_alone() -> None:
    assert Edits(trigger="sks")("") == "sks"


@pytest.mark.parametrize("entry", ["/(/", "/a{9999999999}/", "/*/", "a, b", "", " "])
def test_what_names_no_tag_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=rf"^'{re.escape(entry)}' (must be one tag|is no pattern)"):
        parse_wanted(entry)


@pytest.mark.parametrize("entry", ["smile", "=grin", "smile=", "/(/=grin"])
def test_what_is_no_replacement_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"must be OLD=NEW|is no pattern"):
        parse_replacement(entry)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (r"/(.*) hair/=\2 fur", r"^'/\(\.\*\) hair/=\\2 fur': invalid group reference 2"),
        (r"/(.*) hair/=\g<kind> fur", "unknown group name 'kind'"),
        (r"/(.*) hair/=\m/", r"bad escape \\m .* a backslash itself is two"),
    ],
)
def test_a_group_that_a_pattern_has_not_is_told(entry: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_replacement(entry)


@pytest.mark.parametrize("tag", ["/m/", "@artist", "-_-", "blue eyes", "@_@", "a (b)", "//"])
def test_what_a_tag_is_removed_by_means_that_tag_alone(tag: str) -> None:
    (entry,) = read_entries([as_entry(tag)], parse_wanted)
    assert not entry.startswith("-")
    assert [one for one in (tag, "m", "artist", "x") if parse_wanted(entry)(one)] == [tag]


@pytest.mark.parametrize("edits", [Edits(remove=("/(a+)+b/",)), Edits(replace=("/(a+)+b/=c",))])
def test_a_pattern_that_takes_for_ever_is_told(edits: Edits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylora.preparation.tags.MOST_MATCH_S", 0.05)
    with pytest.raises(ConfigError, match=r"/\(a\+\)\+b/: takes over 0.05 s to tell whether it fits 'aaa"):
        edits("hat, " + "a" * 40)
    assert edits("hat, aaa") == "hat, aaa"
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_the_last_equals_sign_divides() -> None:
    replaced = parse_replacement("=_==closed eyes")
    assert replaced("=_=") == ["closed eyes"]
    assert replaced("_==closed eyes") == ["_==closed eyes"]


def test_a_list_file_stands_for_its_lines(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("blue eyes\n\n  /.* hair/  \n", encoding="utf-8")
    entries = ("smile", "blue eyes", "/.* hair/")
    assert read_entries(["smile", f"@{tmp_path / 'list.txt'}"], parse_wanted) == entries


def test_a_list_at_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "list.txt").write_text("smile")
    assert read_entries(["@~/list.txt"], parse_wanted) == ("smile",)


@pytest.mark.parametrize(
    ("parse", "bad"), [(parse_wanted, "/(/"), (parse_wanted, "a, b"), (parse_replacement, "a"), (parse_tag, "a, b")]
)
def test_a_bad_line_of_a_list_is_named(parse: Callable[[str], object], bad: str, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("\n".join([*(f"tag {number}=other" for number in range(49)), "", bad, "last"]))
    with pytest.raises(ConfigError, match=rf"{re.escape(str(file))}, line 51: '{re.escape(bad)}' "):
        read_entries([f"@{file}"], parse)


def test_a_face_of_signs_is_no_list_file() -> None:
    assert read_entries(["@_@"], parse_wanted) == ("@_@",)


def test_a_list_that_is_not_there_is_told() -> None:
    with pytest.raises(DatasetError, match=r"missing\.txt: can't be read"):
        read_entries(["@missing.txt"], parse_wanted)


def test_a_tag_is_known_by_any_spelling() -> None:
    assert distinct(["Blue_Eyes", "smile", "blue eyes"]) == ["Blue_Eyes", "smile"]
    assert split_tags(" a ,, b  c,") == ["a", "b c"]


CAPTIONS = [
    "sks, blue eyes, smile, grass",
    "sks, Blue_Eyes, smile",
    "sks, blue eyes, smile",
    "sks, blue eyes",
    "sks, smile",
]


def test_the_commonest_tags_come_first_and_fixed_traits_are_proposed() -> None:
    rows = [(one.tag, one.images, one.removable) for one in count_tags(CAPTIONS, ["sks"])]
    assert rows == [("sks", 5, False), ("blue eyes", 4, True), ("smile", 4, True), ("grass", 1, False)]


@pytest.mark.parametrize("portrait", ["sks portrait", "SKS_portrait", "portrait of sks"])
def test_no_tag_with_the_trigger_in_it_is_proposed(portrait: str) -> None:
    counts = count_tags([f"{portrait}, sksual, blue eyes"] * 4, trigger="sks")
    assert {one.tag for one in counts if one.removable} == {"sksual", "blue eyes"}


def test_what_was_added_on_purpose_is_not_proposed() -> None:
    assert [one.tag for one in count_tags(CAPTIONS, ["sks", "Smile"]) if one.removable] == ["blue eyes"]


def test_of_a_few_captions_nothing_is_proposed() -> None:
    assert not any(one.removable for one in count_tags(CAPTIONS[:3]))


def test_the_table_is_a_csv() -> None:
    lines = as_csv(count_tags(CAPTIONS, ["sks"])).decode().splitlines()
    assert lines == [
        "tag,images,share,proposal", "sks,5,1.000,", "blue eyes,4,0.800,remove", "smile,4,0.800,remove",
        "grass,1,0.200,",
    ]  # fmt: skip
