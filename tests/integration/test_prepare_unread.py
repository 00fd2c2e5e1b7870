"""Pictures that nobody reads, for their kind or their place, are told and recorded; raylora's own sheets are none."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.preparing import Prepare, captions_in, make_colours, manifest_in


def aside(folder: Path) -> dict[str, str]:
    return {one["source"]: one["reason"] for one in manifest_in(folder)["left_out"]}


def test_of_a_mixed_folder_all_that_is_not_read_is_told_once(run_here: Prepare, tmp_path: Path) -> None:
    root = make_colours(tmp_path / "in", red="r")
    for place in ("2023/summer", "10_k", "10_k/sub", "gifs", "0_rejects", ".hidden"):
        make_colours(root / place, red="r")
    (root / "gifs" / "red.png").rename(root / "gifs" / "red.gif")
    for name in ("b.HEIC", "c.avif"):
        (root / name).write_bytes(b"picture")
    Image.new("RGB", (64, 64)).save(root / "d.jfif", "JPEG")
    done = run_here("prepare in set --size 64x64 --trigger sks")
    assert done.status == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "not read" in line]
    assert line == (
        "warning: not read: other images: 1 in gifs/: give that folder, or name it like 10_name; "
        "1 in 10_k/sub/, 1 in 2023/summer/: give that folder, or move it up and name it like 10_name; "
        "1 in 0_rejects/: by its name for 0 repeats; 1 .avif, 1 .heic: save as JPEG or PNG"
    )
    assert {one["file"] for one in manifest_in(tmp_path / "set")["images"]} == {
        "10_in/red.png", "10_in/d.png", "10_k/red.png",
    }  # fmt: skip
    left = aside(tmp_path / "set")
    assert {*left} == {
        "b.HEIC", "c.avif", "2023/summer/red.png", "10_k/sub/red.png", "gifs/red.gif", "0_rejects/red.png",
    }  # fmt: skip
    assert left["b.HEIC"] == "is .heic, which isn't read; save it as JPEG or PNG"
    assert left["0_rejects/red.png"] == "lies in 0_rejects/, whose name asks for 0 repeats"
    assert "6 left out" in done.stdout


def test_a_folder_with_images_further_down_alone_says_where_they_are(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in" / "2023" / "summer", red="r")
    (tmp_path / "in" / "a.heic").write_bytes(b"picture")
    told = run_here("prepare in set")
    assert told.status == 2
    assert "1 in 2023/summer/: give that folder" in told.stderr
    assert "1 .heic: save as JPEG or PNG" in told.stderr


def test_what_an_index_does_not_list_is_told(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="", blue="", lime="")
    (tmp_path / "in" / "metadata.jsonl").write_text(json.dumps({"file_name": "red.png", "text": "r"}))
    done = run_here("prepare in set --size 64x64")
    assert "not read: other images: 2 not in metadata.jsonl" in done.stderr
    assert aside(tmp_path / "set")["blue.png"] == "isn't in metadata.jsonl, which lists the images"


def test_many_folders_are_not_all_named(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="r")
    for number in range(7):
        make_colours(tmp_path / "in" / f"more {number}", red="r", blue="b")
    assert "2 in more 4/, 4 at 2 more places: give that folder" in run_here("prepare in set --size 64x64").stderr


def test_companions_of_files_are_no_pictures(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="r")
    (tmp_path / "in" / "._red.png").write_bytes(b"\0\5\26\7")
    (tmp_path / "in" / "more").mkdir()
    (tmp_path / "in" / "more" / "._a.png").write_bytes(b"\0\5\26\7")
    done = run_here("prepare in set --size 64x64")
    assert done.status == 0, done.stderr
    assert "warning" not in done.stderr
    assert captions_in(tmp_path / "set") == {"red": "r\n"}


def test_a_prepared_folders_own_sheets_are_no_images(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="r", blue="b")
    done = run_here("prepare in set --size 64x64")
    assert "error: 2 usable images; add different images, at best 16 or more\n" in done.stdout
    assert "contact_sheet" not in run_here("check set --set dataset.resolution=64x64").stdout
    again = run_here("prepare set again --size 64x64")
    assert again.status == 0, again.stderr
    assert "contact_sheet" not in again.stderr
    (tmp_path / "set" / "manifest.json").write_text("{}")  # somebody else's folder that is called so
    assert "1 in contact_sheet/" in run_here("prepare set other --size 64x64").stderr


def test_a_folder_for_no_repeats_that_is_named_itself_is_prepared(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "0_rejects", red="r")
    assert run_here("prepare 0_rejects set --size 64x64").status == 0
    assert [one["file"] for one in manifest_in(tmp_path / "set")["images"]] == ["10_rejects/red.png"]
