"""Reading folders of captioned pictures, and their pixels."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raylora.bundled import DEMO_DATASET
from raylora.dataset.folder import ReadOptions, dataset_digest, named_repeats, read_folder, resolve_dataset
from raylora.dataset.pixels import load_pixels
from raylora.errors import DatasetError
from tests.tiny import make_pictures

ORIENTATION = 0x0112
ROTATED_RIGHT = 6
"""EXIF: the camera was turned, show the picture rotated by 90° clockwise."""


def complaint(folder: Path, options: ReadOptions = ReadOptions()) -> str:
    with pytest.raises(DatasetError) as caught:
        read_folder(folder, options)
    return str(caught.value)


def captions(folder: Path, trigger: str | None = None) -> list[str]:
    return [picture.caption for picture in read_folder(folder, ReadOptions(trigger=trigger))]


def write_metadata(folder: Path, rows: list[dict[str, object]], encoding: str = "utf-8") -> Path:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding=encoding)
    return folder


def rows_for(count: int) -> list[dict[str, object]]:
    return [{"file_name": f"picture_{number:02d}.png", "text": f"number {number}"} for number in range(count)]


def test_plain_folder(tmp_path: Path) -> None:
    pictures = read_folder(make_pictures(tmp_path, 9))
    assert [picture.path.name for picture in pictures] == [f"picture_{number:02d}.png" for number in range(9)]
    assert pictures[3].caption == "sks portrait, red hair, number 3"
    assert {(picture.repeats, picture.folder) for picture in pictures} == {(1, "")}
    assert pictures[3].digest == hashlib.sha256(pictures[3].path.read_bytes()).hexdigest()


def test_kohya_folders_give_repeats_and_are_kept_apart(tmp_path: Path) -> None:
    make_pictures(tmp_path / "10_sks", 5)
    make_pictures(tmp_path / "3_sks hat", 4)
    make_pictures(tmp_path / "notes", 6)
    found = {(picture.folder, picture.repeats) for picture in read_folder(tmp_path)}
    assert found == {("10_sks", 10), ("3_sks hat", 3)}
    assert len(read_folder(tmp_path)) == 9


def test_a_folder_for_no_repeats_is_left_out_as_kohyas_scripts_do(tmp_path: Path) -> None:
    make_pictures(tmp_path / "10_sks", 8)
    make_pictures(tmp_path / "0_rejects", 3)
    told: list[str] = []
    assert {picture.folder for picture in read_folder(tmp_path, warn=told.append)} == {"10_sks"}
    assert told == ["0_rejects/: asks by its name for 0 repeats, so 3 images in it are left out"]
    (tmp_path / "10_sks").rename(tmp_path / "0_sks")
    assert "8 in 0_sks/: by its name for 0 repeats" in complaint(tmp_path)


def test_what_macos_puts_beside_files_is_no_picture(tmp_path: Path) -> None:
    make_pictures(tmp_path, 8)
    (tmp_path / "._picture_00.png").write_bytes(b"\0\5\26\7")
    assert len(read_folder(tmp_path)) == 8


def test_caption_files_may_end_in_caption_and_hold_line_breaks(tmp_path: Path) -> None:
    make_pictures(tmp_path, 8, captions=False)
    for number in range(8):
        (tmp_path / f"picture_{number:02d}.caption").write_bytes(b"\xef\xbb\xbfred  hair,\r\n blue eyes\r\n")
    assert set(captions(tmp_path)) == {"red hair, blue eyes"}


def test_other_kinds_of_pictures_are_read(tmp_path: Path) -> None:
    make_pictures(tmp_path, 8)
    for suffix in (".JPG", ".webp", ".bmp", ".tiff", ".jfif"):
        Image.new("RGB", (64, 64), "red").save(tmp_path / f"other{suffix}")
        (tmp_path / f"other{suffix}").with_suffix(".txt").write_text("red")
    assert len(read_folder(tmp_path)) == 13


def test_imagefolder(tmp_path: Path) -> None:
    write_metadata(make_pictures(tmp_path, 8, captions=False), rows_for(8))
    pictures = read_folder(tmp_path)
    assert [picture.caption for picture in pictures] == [f"number {number}" for number in range(8)]
    assert {(picture.repeats, picture.folder) for picture in pictures} == {(1, "")}


def test_imagefolder_reads_only_what_it_lists(tmp_path: Path) -> None:
    write_metadata(make_pictures(tmp_path, 12), rows_for(9))
    assert len(read_folder(tmp_path)) == 9


def test_imagefolder_may_reach_into_sub_folders_and_call_captions_otherwise(tmp_path: Path) -> None:
    make_pictures(tmp_path / "images", 8, captions=False)
    rows: list[dict[str, object]] = [
        {"file_name": f"images/picture_{number:02d}.png", "prompt": f"number {number}"} for number in range(8)
    ]
    assert captions(write_metadata(tmp_path, rows))[2] == "number 2"


@pytest.mark.parametrize("absolute", [False, True])
def test_imagefolder_must_not_leave_the_folder(tmp_path: Path, absolute: bool) -> None:
    outside = make_pictures(tmp_path / "outside", 1) / "picture_00.png"
    folder = make_pictures(tmp_path / "inside", 8)
    name = str(outside) if absolute else "../outside/picture_00.png"
    message = complaint(write_metadata(folder, [*rows_for(8), {"file_name": name, "text": "x"}]))
    assert "line 9" in message
    assert name in message
    assert "outside the folder" in message


@pytest.mark.parametrize("line", ["{", '{"text": "no file"}', "[1, 2]", '"words"', "null"])
def test_a_bad_line_of_metadata_is_named(tmp_path: Path, line: str) -> None:
    write_metadata(make_pictures(tmp_path, 8), rows_for(8))
    with (tmp_path / "metadata.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"\n\n{line}\n")
    assert f"{tmp_path / 'metadata.jsonl'}, line 10" in complaint(tmp_path)


def test_metadata_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    rows = [{**row, "text": "señora"} for row in rows_for(8)]
    assert "metadata.jsonl" in complaint(write_metadata(make_pictures(tmp_path, 8), rows, encoding="latin-1"))


def test_metadata_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    """JSON allows U+2028 in strings, and captions copied from web pages have it."""
    rows = [{**row, "text": "red hair,\u2028blue eyes"} for row in rows_for(8)]
    assert set(captions(write_metadata(make_pictures(tmp_path, 8), rows))) == {"red hair, blue eyes"}


def test_a_file_that_metadata_names_but_is_not_there(tmp_path: Path) -> None:
    write_metadata(make_pictures(tmp_path, 8), [*rows_for(8), {"file_name": "gone.png", "text": "x"}])
    assert f"{tmp_path / 'metadata.jsonl'}, line 9: names gone.png" in complaint(tmp_path)


def write_csv(folder: Path, *lines: str) -> Path:
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_an_index_may_be_csv(tmp_path: Path) -> None:
    lines = [f'picture_{number:02d}.png,"red hair, number {number}"' for number in range(8)]
    folder = write_csv(make_pictures(tmp_path, 9), "file_name,text", *lines)
    assert captions(folder)[3] == "red hair, number 3"
    assert len(read_folder(folder)) == 8


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["file,text", "picture_00.png,a"], "line 1: expected a column file_name"),
        (["file_name,text", "gone.png,a"], "line 2: names gone.png"),
        (["file_name,text", ",a"], "line 2: expected"),
        (["file_name,text", "../x.png,a"], "line 2: ../x.png lies outside"),
    ],
)
def test_a_bad_csv_index_is_told_with_its_line(tmp_path: Path, lines: list[str], told: str) -> None:
    assert f"{tmp_path / 'metadata.csv'}, {told}" in complaint(write_csv(make_pictures(tmp_path, 8), *lines))


def test_images_that_were_not_looked_for_are_named(tmp_path: Path) -> None:
    make_pictures(tmp_path / "train", 9)
    make_pictures(tmp_path / "10_sks", 2)
    (tmp_path / "notes").mkdir()
    message = complaint(tmp_path)
    assert "2 usable images" in message
    assert "other images: 9 in train/: give that folder, or name it like 10_name" in message


def test_raylora_s_own_sheets_are_not_named(tmp_path: Path) -> None:
    make_pictures(tmp_path / "10_sks", 2)
    make_pictures(tmp_path / "contact_sheet", 1)
    (tmp_path / "manifest.json").write_text('{"raylora": "1.0"}')
    assert "other images" not in complaint(tmp_path)
    (tmp_path / "manifest.json").unlink()
    assert "other images: 1 in contact_sheet/" in complaint(tmp_path)


def test_repeats_that_folders_name(tmp_path: Path) -> None:
    make_pictures(tmp_path / "10_sks", 4)
    make_pictures(tmp_path / "5_hat", 4)
    assert named_repeats(read_folder(tmp_path)) == [10, 5]
    assert named_repeats(read_folder(make_pictures(tmp_path / "plain", 8))) == []


def test_without_captions_the_folders_class_words_serve(tmp_path: Path) -> None:
    make_pictures(tmp_path / "10_sks_woman", 8, captions=False)
    told: list[str] = []
    pictures = read_folder(tmp_path, warn=told.append)
    assert {picture.caption for picture in pictures} == {"sks woman"}
    (warning,) = told
    assert "8 of 8 images have no caption" in warning
    assert "picture_00.png" in warning
    assert "'sks woman'" in warning


def test_without_captions_and_class_words_the_trigger_serves(tmp_path: Path) -> None:
    assert set(captions(make_pictures(tmp_path, 8, captions=False), trigger="sks")) == {"sks"}


def test_an_empty_caption_is_no_caption(tmp_path: Path) -> None:
    make_pictures(tmp_path, 8)
    (tmp_path / "picture_05.txt").write_text(" \n")
    assert captions(tmp_path, trigger="sks")[5] == "sks"


def test_without_any_caption_it_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    make_pictures(tmp_path, 8)
    (tmp_path / "picture_05.txt").unlink()
    message = complaint(tmp_path)
    assert "picture_05.png" in message
    assert "picture_05.txt" in message
    assert "--set dataset.trigger=" in message


def test_a_caption_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    make_pictures(tmp_path, 8)
    (tmp_path / "picture_05.txt").write_bytes("señora".encode("latin-1"))
    assert "picture_05.txt" in complaint(tmp_path)


@pytest.mark.parametrize(
    ("caption", "with_trigger"),
    [
        ("red hair, smile", "sks, red hair, smile"),
        ("a photo of sks, smile", "a photo of sks, smile"),
        ("red hair,sks", "red hair,sks"),
        ("asks a question", "sks, asks a question"),
    ],
)
def test_the_trigger_is_put_first_where_it_lacks(tmp_path: Path, caption: str, with_trigger: str) -> None:
    make_pictures(tmp_path, 8)
    (tmp_path / "picture_00.txt").write_text(caption)
    assert captions(tmp_path, trigger="sks")[0] == with_trigger


def test_a_trigger_of_two_words_is_not_doubled(tmp_path: Path) -> None:
    make_pictures(tmp_path, 8)
    (tmp_path / "picture_00.txt").write_text("ohwx man, red hair")
    assert captions(tmp_path, trigger="ohwx man")[0] == "ohwx man, red hair"


@pytest.mark.parametrize("kind", ["cut", "text", "empty"])
def test_an_unreadable_picture_is_named_with_the_way_on(tmp_path: Path, kind: str) -> None:
    make_pictures(tmp_path, 9)
    bad = tmp_path / "picture_04.png"
    whole = bad.read_bytes()
    bad.write_bytes({"cut": whole[: len(whole) // 2], "text": b"no picture", "empty": b""}[kind])
    message = complaint(tmp_path)
    assert str(bad) in message
    assert "--skip-bad-images" in message


def test_unreadable_pictures_can_be_left_out(tmp_path: Path) -> None:
    make_pictures(tmp_path, 9)
    (tmp_path / "picture_04.png").write_bytes(b"no picture")
    told: list[str] = []
    pictures = read_folder(tmp_path, ReadOptions(skip_bad_images=True), told.append)
    assert len(pictures) == 8
    assert len(told) == 1
    assert "picture_04.png" in told[0]


def test_pictures_left_out_do_not_count(tmp_path: Path) -> None:
    make_pictures(tmp_path, 8)
    (tmp_path / "picture_04.png").write_bytes(b"no picture")
    assert "7 usable images" in complaint(tmp_path, ReadOptions(skip_bad_images=True))


def test_fewer_than_eight_is_an_error_that_counts(tmp_path: Path) -> None:
    message = complaint(make_pictures(tmp_path, 7))
    assert "7 usable images" in message
    assert "at least 8" in message
    assert len(read_folder(tmp_path, ReadOptions(fewest=7))) == 7


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    assert "no such folder" in complaint(tmp_path / "photos")
    (tmp_path / "file").touch()
    assert "no such folder" in complaint(tmp_path / "file")


def test_the_demo_resolves_to_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_dataset("demo") == DEMO_DATASET
    assert resolve_dataset("photos") == tmp_path / "photos"
    assert resolve_dataset("~/photos") == tmp_path / "photos"


def test_the_digest_does_not_depend_on_order_or_place(tmp_path: Path) -> None:
    here = read_folder(make_pictures(tmp_path / "here", 8))
    there = read_folder(make_pictures(tmp_path / "there", 8))
    random.Random(0).shuffle(there)
    assert dataset_digest(here) == dataset_digest(there)


@pytest.mark.parametrize("changed", ["picture", "caption", "repeats", "one fewer"])
def test_the_digest_depends_on_everything_that_is_learned(tmp_path: Path, changed: str) -> None:
    pictures = read_folder(make_pictures(tmp_path / "1_sks", 9).parent)
    before = dataset_digest(pictures)
    if changed == "picture":
        Image.new("RGB", (64, 64)).save(tmp_path / "1_sks" / "picture_00.png")
    elif changed == "caption":
        (tmp_path / "1_sks" / "picture_00.txt").write_text("other words")
    elif changed == "repeats":
        (tmp_path / "1_sks").rename(tmp_path / "2_sks")
    else:
        (tmp_path / "1_sks" / "picture_00.png").unlink()
    assert dataset_digest(read_folder(tmp_path)) != before


def test_pixels_are_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 64), "blue")
    image.paste("red", (0, 0, 64, 32))
    exif = image.getexif()
    exif[ORIENTATION] = ROTATED_RIGHT
    image.save(tmp_path / "turned.png", exif=exif)
    pixels = load_pixels(tmp_path / "turned.png", (64, 64))
    assert tuple(pixels[32, 60]) == (255, 0, 0)
    assert tuple(pixels[32, 4]) == (0, 0, 255)


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((255, 0, 0, 128), (0, 0, 64, 32))
    image.save(tmp_path / "clear.png")
    pixels = load_pixels(tmp_path / "clear.png", (64, 64))
    assert tuple(pixels[50, 10]) == (255, 255, 255)
    assert np.abs(pixels[10, 10].astype(int) - (255, 127, 127)).max() <= 1


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_become_colours(tmp_path: Path, transparent: bool) -> None:
    image = Image.new("P", (64, 64), 0)
    image.putpalette([10, 20, 30, 0, 255, 0])
    image.paste(1, (0, 0, 64, 32))
    options: dict[str, Any] = {"transparency": 0} if transparent else {}
    image.save(tmp_path / "palette.png", **options)
    pixels = load_pixels(tmp_path / "palette.png", (64, 64))
    assert tuple(pixels[10, 10]) == (0, 255, 0)
    assert tuple(pixels[50, 10]) == ((255, 255, 255) if transparent else (10, 20, 30))


@pytest.mark.parametrize(("mode", "value"), [("L", 128), ("LA", (128, 255)), ("1", 1), ("CMYK", (0, 0, 0, 127))])
def test_grey_and_print_colours_become_rgb(tmp_path: Path, mode: str, value: Any) -> None:
    Image.new(mode, (64, 64), value).save(tmp_path / "picture.tiff")
    pixels = load_pixels(tmp_path / "picture.tiff", (64, 64))
    assert pixels.shape == (64, 64, 3)
    assert np.abs(pixels.astype(int) - (255 if mode == "1" else 128)).max() <= 1


def test_sixteen_bit_greys_keep_their_brightness(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64), 128 * 257, dtype=np.uint16)).save(tmp_path / "grey.png")
    assert np.abs(load_pixels(tmp_path / "grey.png", (64, 64)).astype(int) - 128).max() <= 1


def test_greys_of_which_no_one_knows_the_white_are_no_pixels(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64), 252, dtype=np.int32)).save(tmp_path / "grey.tif")
    with pytest.raises(ValueError, match="its greys have 32 bits, and nothing says which is white"):
        load_pixels(tmp_path / "grey.tif", (64, 64))


def test_pixels_cover_the_size_and_are_cut_at_the_centre(tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 100), "white")
    image.paste("black", (100, 0, 200, 100))
    image.save(tmp_path / "wide.png")
    pixels = load_pixels(tmp_path / "wide.png", (64, 128))
    assert pixels.shape == (128, 64, 3)
    assert pixels.dtype == np.uint8
    assert pixels.max() < 10


def test_a_picture_of_the_size_is_left_as_it_is(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 255, (64, 128, 3), dtype=np.uint8)
    Image.fromarray(drawn).save(tmp_path / "exact.png")
    assert np.array_equal(load_pixels(tmp_path / "exact.png", (128, 64)), drawn)
