"""`raylora prepare` on pictures of all kinds and sizes, and the sheets that show what was cut."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.photographs import ASTRONAUT
from tests.preparing import (
    Prepare,
    captions_in,
    make_colours,
    make_photos,
    manifest_in,
)


def make_kind(kind: str, folder: Path) -> None:
    """One picture whose left half is red and whose right half is something else, 128 x 64 px once it is upright."""
    folder.mkdir()
    image = Image.new("RGB", (128, 64), "red")
    image.paste("blue", (64, 0, 128, 64))
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(folder / "a.jpg", exif=exif, quality=100, subsampling=0)
    elif kind == "cmyk":
        image.convert("CMYK").save(folder / "a.jpg", quality=100, subsampling=0)
    elif kind == "palette":
        image.quantize(4).save(folder / "a.png")
    elif kind == "animated":
        image.save(folder / "a.gif", save_all=True, append_images=[Image.new("RGB", (128, 64), "green")])
    elif kind == "two shots":
        more = [Image.new("RGB", (128, 64), "green")]
        image.save(folder / "a.jpg", "MPO", save_all=True, append_images=more, quality=100, subsampling=0)
    elif kind in ("alpha", "greyscale alpha"):
        clear = Image.new("L", (128, 64), 255)
        clear.paste(0, (64, 0, 128, 64))
        image = image if kind == "alpha" else Image.new("L", (128, 64), 0)
        image.putalpha(clear)
        image.save(folder / "a.png")
    elif kind == "clear palette":
        flat = image.quantize(4)
        flat.save(folder / "a.png", transparency=flat.getpixel((127, 0)))
    else:
        grey = np.full((64, 128), 40000 if kind == "16 bits" else 150, np.uint16 if kind == "16 bits" else np.uint8)
        grey[:, :64] = 0
        Image.fromarray(grey).save(folder / "a.png")


@pytest.mark.parametrize(
    ("kind", "left", "right"),
    [
        ("turned", (255, 0, 0), (0, 0, 255)),
        ("cmyk", (255, 0, 0), (0, 0, 255)),
        ("palette", (255, 0, 0), (0, 0, 255)),
        ("animated", (255, 0, 0), (0, 0, 255)),
        ("two shots", (255, 0, 0), (0, 0, 255)),
        ("alpha", (255, 0, 0), (32, 160, 255)),
        ("clear palette", (255, 0, 0), (32, 160, 255)),
        ("greyscale alpha", (0, 0, 0), (32, 160, 255)),
        ("16 bits", (0, 0, 0), (156, 156, 156)),
        ("greyscale", (0, 0, 0), (150, 150, 150)),
    ],
)
def test_pictures_of_all_kinds_become_rgb(
    kind: str, left: tuple[int, ...], right: tuple[int, ...], run_here: Prepare, tmp_path: Path
) -> None:
    make_kind(kind, tmp_path / "in")
    done = run_here("prepare in set --size 128x64 --trigger sks --background #20a0ff")
    assert done.status == 0, done.stderr
    assert ("has several frames; the first is taken" in done.stderr) == (kind == "animated")
    with Image.open(tmp_path / "set" / "10_in" / "a.png") as image:
        assert image.size == (128, 64)
        for x, expected in ((10, left), (117, right)):
            assert np.allclose(image.getpixel((x, 32)), expected, atol=3)


def test_transparent_parts_are_white_if_nothing_is_said(run_here: Prepare, tmp_path: Path) -> None:
    make_kind("alpha", tmp_path / "in")
    assert run_here("prepare in set --size 128x64 --trigger sks").status == 0
    with Image.open(tmp_path / "set" / "10_in" / "a.png") as image:
        assert image.getpixel((117, 32)) == (255, 255, 255)


def test_what_is_no_picture_is_left_out_and_told(
    run_here: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_colours(tmp_path / "in", red="r")
    whole = ASTRONAUT.read_bytes()
    (tmp_path / "in" / "cut_off.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "garbage.jpg").write_bytes(b"garbage")
    (tmp_path / "in" / "outside.png").symlink_to(ASTRONAUT)
    Image.fromarray(np.ones((64, 64), np.float32)).save(tmp_path / "in" / "floats.tif")
    Image.fromarray(np.full((64, 64), 252, np.int32)).save(tmp_path / "in" / "wide.tif")
    Image.fromarray(np.full((64, 64), 2000, np.uint16)).save(tmp_path / "in" / "12_bits.png")
    Image.new("RGB", (200, 200)).save(tmp_path / "in" / "large.png")
    monkeypatch.setattr("raylora.dataset.pixels.MOST_PIXELS", 200 * 200 - 1)
    done = run_here("prepare in set --size 64x64 --trigger sks")
    assert done.status == 0
    reasons = {one["source"]: one["reason"] for one in manifest_in(tmp_path / "set")["left_out"]}
    assert {*reasons} == {
        "cut_off.png", "garbage.jpg", "outside.png", "floats.tif", "wide.tif", "12_bits.png", "large.png"
    }  # fmt: skip
    assert "is a link that leads out of the folder" in reasons["outside.png"]
    assert "fractions" in reasons["floats.tif"]
    assert "has greys in 32 bits, and nothing says which is white" in reasons["wide.tif"]
    assert "uses 11 of its 16 bits, so it would come out nearly black" in reasons["12_bits.png"]
    assert "200x200 px are" in reasons["large.png"]
    assert str(tmp_path) not in json.dumps(reasons)
    assert all(f"{name}: {reason}; left out" in done.stderr for name, reason in reasons.items())
    assert "1 image in" in done.stdout
    assert "7 left out" in done.stdout


def test_a_picture_that_is_too_small_is_left_out_or_enlarged_on_demand(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="r")
    Image.new("RGB", (200, 128)).save(tmp_path / "in" / "large.png")
    (tmp_path / "in" / "large.txt").write_text("large")
    done = run_here("prepare in set --size 128x128")
    assert "red.png: is 64x64 px, smaller than 128x128 px; --upscale enlarges it; left out" in done.stderr
    assert [*captions_in(tmp_path / "set")] == ["large"]
    done = run_here("prepare in grown --size 128x128 --upscale")
    assert "red.png: is 64x64 px, enlarged for 128x128 px" in done.stderr
    with Image.open(tmp_path / "grown" / "10_in" / "red.png") as image:
        assert image.size == (128, 128)


def test_without_a_crop_pictures_are_whole_and_none_grows_unasked(run_here: Prepare, tmp_path: Path) -> None:
    make_photos(tmp_path / "in")
    Image.new("RGB", (100, 80)).save(tmp_path / "in" / "small.png")
    Image.new("RGB", (3000, 80)).save(tmp_path / "in" / "strip.png")
    done = run_here("prepare in set --crop none --size 256x256 --trigger sks")
    sizes = {one["source"]: one["size"] for one in manifest_in(tmp_path / "set")["images"]}
    assert sizes["small.png"] == [100, 80]
    assert sizes["cat.jpg"] == [313, 208]
    assert "small.png: is 100x80 px, fewer px than 256x256 px; kept so" in done.stderr
    assert "strip.png: is 3000x80 px: its short side comes to 41 px, and 64 are the fewest; left out" in done.stderr
    assert "dataset.buckets=true" in done.stdout
    run_here("prepare in grown --crop none --size 256x256 --trigger sks --upscale")
    grown = {one["source"]: one["size"] for one in manifest_in(tmp_path / "grown")["images"]}
    assert grown["small.png"] == [286, 228]


def test_black_in_16_bits_is_black(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="r")
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(tmp_path / "in" / "black.png")
    assert run_here("prepare in set --size 64x64 --trigger sks").status == 0
    assert {*captions_in(tmp_path / "set")} == {"red", "black"}


def test_a_size_that_is_covered_is_better_than_one_that_fits_better(run_here: Prepare, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (140, 180)).save(tmp_path / "in" / "a.png")
    sizes = "--size 128x192 --size 128x128 --trigger sks"
    done = run_here(f"prepare in set {sizes} --crop center")
    assert "left out" not in done.stderr
    assert manifest_in(tmp_path / "set")["images"][0]["size"] == [128, 128]
    assert run_here(f"prepare in whole {sizes} --crop none").status == 0
    assert manifest_in(tmp_path / "whole")["images"][0]["size"] == [138, 177]  # as many px as the nearer shape has
