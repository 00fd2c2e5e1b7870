"""What is found in single pictures: too few, too small, of odd shapes, blurred, with nothing in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from benchmarks.hard_pictures import SETS
from raylora.config import Experiment
from raylora.dataset.check import check_training
from raylora.dataset.folder import read_folder
from raylora.dataset.split import Split
from tests.dataset_checks import look, only
from tests.drawn import draw_set, drawn, put


def test_too_few_images(tmp_path: Path) -> None:
    assert only(look(draw_set(tmp_path / "seven", 7)), "count").level == "error"
    few = only(look(draw_set(tmp_path / "fifteen", 15)), "count")
    assert few.level == "warning" and few.found == "15 usable images"
    assert few.effect.startswith("4 of them are held out") and "dataset.folds=4" in few.mend
    assert look(draw_set(tmp_path / "sixteen", 16)) == []


def test_few_images_with_folds_are_not_told_to_take_folds(tmp_path: Path) -> None:
    few = only(look(draw_set(tmp_path / "few", 12), folds=3), "count")
    assert "held out" not in few.effect and "folds" not in few.mend


def test_few_images_of_a_training_that_holds_none_out(tmp_path: Path) -> None:
    pictures = read_folder(draw_set(tmp_path, 12))
    config = Experiment().with_params({"dataset.resolution": 128}).dataset
    few = only(check_training(pictures, [], [Split(tuple(pictures), ())], (tmp_path, tmp_path), config), "count")
    assert "held out" not in few.effect and "folds" not in few.mend


def test_as_many_are_said_to_be_held_out_as_are(tmp_path: Path) -> None:
    """Of two folders four each."""
    draw_set(tmp_path / "1_a", 8)
    draw_set(tmp_path / "1_b", 7, seed=50)
    assert only(look(tmp_path), "count").effect.startswith("7 of them are held out")


def test_copies_are_counted_once(tmp_path: Path) -> None:
    draw_set(tmp_path, 12)
    for number in range(6):
        put(tmp_path, f"copy_{number}.jpg", drawn(number), f"sks, copy {number}")
    few, alike = look(tmp_path)
    assert (few.found, alike.check) == ("18 usable images, only 12 of them different", "near-duplicates")


def test_low_resolution(drawn_set: Path) -> None:
    put(drawn_set, "small.png", drawn(50, (64, 80)), "sks, small")
    put(drawn_set, "hardly_small.png", drawn(51, (90, 90)), "sks, hardly small")
    found = only(look(drawn_set), "resolution")
    assert found.files == ("small.png",)
    assert found.found == "1 image smaller than 128x128, the smallest 64x80"
    assert "enlarged up to 2.0 times" in found.effect


def test_low_resolution_with_buckets_that_enlarge_nothing(drawn_set: Path) -> None:
    put(drawn_set, "small.png", drawn(50, (64, 64)), "sks, small")
    put(drawn_set, "tiny.png", drawn(51, (40, 200)), "sks, tiny")
    error, warning = look(drawn_set, buckets=True)
    assert (error.level, error.files) == ("error", ("tiny.png",))
    assert (warning.check, warning.files) == ("resolution", ("small.png",))


def test_an_enlarged_picture_is_told_once(drawn_set: Path) -> None:
    """Its blur is that of the enlargement."""
    put(drawn_set, "small.png", drawn(50, (40, 40)), "sks, small")
    assert only(look(drawn_set), "resolution").files == ("small.png",)


def test_much_of_a_picture_cut_away(drawn_set: Path) -> None:
    put(drawn_set, "wide.png", drawn(50, (256, 144)), "sks, wide")
    put(drawn_set, "photo.png", drawn(51, (216, 144)), "sks, three to two, as cameras have it")
    found = only(look(drawn_set), "shape")
    assert found.files == ("wide.png",) and "up to 44% is cut away" in found.found
    assert "dataset.buckets=true" in found.mend
    assert look(drawn_set, buckets=True) == []


def test_a_blurred_picture(drawn_set: Path) -> None:
    put(drawn_set, "soft.png", drawn(50).filter(ImageFilter.GaussianBlur(3)), "sks, soft")
    assert only(look(drawn_set), "sharpness").files == ("soft.png",)


def test_a_soft_set_may_be_meant_so(tmp_path: Path) -> None:
    for number in range(16):
        soft = drawn(number).filter(ImageFilter.GaussianBlur(2 + number % 2))
        put(tmp_path, f"{number}.png", soft, f"sks, number {number}")
    found = only(look(tmp_path), "sharpness")
    assert found.level == "note" and found.found.startswith("16 of 16 images are soft")


def test_one_that_is_softer_still_is_told_beside_it(tmp_path: Path) -> None:
    for number in range(16):
        blur = 6 if number == 3 else 1.6
        put(tmp_path, f"{number:02d}.png", drawn(number).filter(ImageFilter.GaussianBlur(blur)), f"sks, {number}")
    warning, note = look(tmp_path)
    assert (warning.level, warning.check, warning.files) == ("warning", "sharpness", ("03.png",))
    assert (note.level, note.check) == ("note", "sharpness")


def test_a_picture_with_nothing_in_it(drawn_set: Path) -> None:
    put(drawn_set, "white.png", Image.new("RGB", (128, 128), "white"), "sks, nothing")
    assert only(look(drawn_set), "blank").files == ("white.png",)


@pytest.mark.parametrize("name", ["line art, 1 px", "night skies"])
def test_pictures_with_little_in_them_are_not_blank(name: str, tmp_path: Path) -> None:
    for number, image in enumerate(SETS[name]()):
        put(tmp_path, f"{number:02d}.png", image, f"sks, {number}")
    assert look(tmp_path, resolution=512) == []
