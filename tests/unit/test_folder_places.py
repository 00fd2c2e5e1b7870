"""Nothing of a dataset leads out of its folder, steers a terminal, or is without end."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from raylora.dataset.folder import ReadOptions, read_folder
from tests.tiny import make_pictures
from tests.unit.test_folder import complaint, rows_for, write_metadata


def test_a_picture_that_is_a_link_to_outside_is_not_read(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 8)
    (folder / "bad.png").symlink_to(make_pictures(tmp_path / "out", 1) / "picture_00.png")
    assert f"{folder / 'bad.png'}: is a link that leads out of the folder" in complaint(folder)
    assert len(read_folder(folder, ReadOptions(skip_bad_images=True))) == 8


def test_a_caption_that_is_a_link_to_outside_is_not_read(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 8)
    (tmp_path / "secret").write_text("hunter2")
    (folder / "picture_00.txt").unlink()
    (folder / "picture_00.txt").symlink_to("../secret")
    told = complaint(folder)
    assert "picture_00.txt: is a link that leads out of the folder" in told
    assert "hunter2" not in told


def test_a_sub_folder_that_is_a_link_to_outside_is_not_read(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 8)
    (folder / "10_bad").symlink_to(make_pictures(tmp_path / "out", 8))
    assert "10_bad: is a link that leads out of the folder" in complaint(folder)


def test_an_index_that_is_a_link_to_outside_is_not_read(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 8)
    write_metadata(tmp_path, rows_for(8))
    (folder / "metadata.jsonl").symlink_to("../metadata.jsonl")
    assert "metadata.jsonl: is a link that leads out of the folder" in complaint(folder)


def test_links_within_a_folder_and_to_it_are_followed(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 8)
    (folder / "ninth.png").symlink_to("picture_00.png")
    (folder / "ninth.txt").symlink_to("picture_00.txt")
    (tmp_path / "link").symlink_to("in")
    assert len(read_folder(tmp_path / "link")) == 9


@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("gone"), lambda path: path.symlink_to(path)]
)
def test_what_is_no_file_is_told_and_not_opened(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(make_pictures(tmp_path, 8) / "bad.png")
    assert re.search(r"bad.png: is (no ordinary file|a link that leads to no file)", complaint(tmp_path))


@pytest.mark.parametrize("name", [b"bad\xff.png", b"bad\nraylora: error: faked.png", b"bad\x1b]0;x\x07.png"])
def test_a_name_that_steers_the_terminal_is_told_in_a_line(tmp_path: Path, name: bytes) -> None:
    make_pictures(tmp_path, 8)
    for suffix in (b"png", b"txt"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name[:-3] + suffix)).write_bytes(b"x")
    told = complaint(tmp_path)
    assert len(read_folder(tmp_path, ReadOptions(skip_bad_images=True))) == 8
    assert "has a name with control characters" in told
    assert "\n" not in told
    assert "\x1b" not in told


@pytest.mark.parametrize(
    "row",
    [
        {"file_name": ["picture_00.png"]},
        {"file_name": "bad\0.png"},
        {"file_name": "a" * 300 + ".png"},
        {"file_name": "metadata.jsonl"},
        {"file_name": "picture_00.png", "text": "the same again"},
        {"file_name": "picture_08.png", "text": ["a", "b"]},
    ],
)
def test_odd_lines_of_metadata_are_named(tmp_path: Path, row: dict[str, object]) -> None:
    write_metadata(make_pictures(tmp_path, 9), [*rows_for(8), row])
    assert "metadata.jsonl, line 9: " in complaint(tmp_path)


def test_metadata_without_end_in_its_depth_is_named(tmp_path: Path) -> None:
    (make_pictures(tmp_path, 8) / "metadata.jsonl").write_text("[" * 100_000)
    assert "metadata.jsonl, line 1: " in complaint(tmp_path)


def test_a_caption_of_megabytes_is_none(tmp_path: Path) -> None:
    (make_pictures(tmp_path, 8) / "picture_00.txt").write_text("a " * 10**6)
    assert "picture_00.txt: can't be read (has 2,000,000 bytes" in complaint(tmp_path)


def test_repeats_have_an_end(tmp_path: Path) -> None:
    make_pictures(tmp_path / ("9" * 200 + "_sks"), 8)
    assert "more than 1,000,000 repeats" in complaint(tmp_path)
