"""Each finding of the dataset check, in a set made so that there is one, and none in one that is as it should be."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from raylora.config import Experiment
from raylora.dataset.check import check_dataset, check_training
from raylora.dataset.check_diversity import Vectors
from raylora.dataset.check_sets import check_outgrown
from raylora.dataset.findings import Finding, counted
from raylora.dataset.folder import read_folder
from raylora.dataset.pixels import Pixels
from raylora.dataset.split import Split, split_pictures, write_splits
from raylora.errors import DatasetError
from tests.drawn import draw_set, drawn, put


def look(folder: Path, against: Sequence[Path] = (), split: Path | None = None, **settings: object) -> list[Finding]:
    """What is found at 128 px."""
    params = {"resolution": 128, **settings}
    experiment = Experiment().with_params({f"dataset.{name}": value for name, value in params.items()})
    return check_dataset(str(folder), experiment, [str(one) for one in against], split)


def only(findings: Sequence[Finding], check: str) -> Finding:
    """The one that there is, of this kind."""
    assert [finding.check for finding in findings] == [check], findings
    return findings[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_set(tmp_path / "set")


def test_nothing_is_found_in_a_set_as_it_should_be(folder: Path) -> None:
    assert look(folder) == []
    assert counted([]) == "all is well"


def test_nor_in_kohyas_layout_with_buckets_and_a_regularization_set(tmp_path: Path) -> None:
    draw_set(tmp_path / "set" / "3_sks", 16, (128, 192))
    draw_set(tmp_path / "others", 10, seed=100)
    found = look(tmp_path / "set", buckets=True, regularization=str(tmp_path / "others"), max_area_px=128 * 192)
    assert found == []


def test_pictures_that_cannot_be_read_are_findings_and_stop_nothing(folder: Path) -> None:
    for name in ("drawn_03.png", "drawn_05.png"):
        (folder / name).write_bytes(b"no picture")
    put(folder, "copy.png", drawn(1), "sks, a copy")
    first, few, second = look(folder)
    assert (first.level, first.check, first.files) == ("error", "readable", ("drawn_03.png", "drawn_05.png"))
    assert str(folder) not in first.found
    assert (few.check, second.check) == ("count", "near-duplicates")


def test_a_caption_that_cannot_be_read_is_one_too(folder: Path) -> None:
    (folder / "drawn_03.txt").write_bytes("h\xe9llo".encode("latin-1"))
    unreadable, missing = look(folder)
    assert unreadable.found == "drawn_03.txt: is not UTF-8 text" and unreadable.mend == "save it as UTF-8"
    assert missing.files == ("drawn_03.png",)


def test_too_few_images(tmp_path: Path) -> None:
    assert only(look(draw_set(tmp_path / "seven", 7)), "count").level == "error"
    few = only(look(draw_set(tmp_path / "fifteen", 15)), "count")
    assert few.level == "warning" and few.found == "15 usable images"
    assert look(draw_set(tmp_path / "sixteen", 16)) == []


def test_a_year_that_is_read_as_repeats(tmp_path: Path) -> None:
    for name, seed in (("2024_summer", 0), ("900_winter", 50), ("500_sks", 100)):
        draw_set(tmp_path / "set" / name, 6, seed=seed)
    found = only(look(tmp_path / "set"), "repeats")
    assert found.level == "warning"
    assert found.found == "2024_summer/ asks by its name for 2,024 repeats, and 1 more folder for over 500"
    assert "rename it as to 10_2024_summer" in found.mend
    assert len(found.files) == 12
    experiment = Experiment().with_params({"dataset.resolution": 128, "training.repeats": 10})
    assert check_dataset(str(tmp_path / "set"), experiment) == []


def test_low_resolution(folder: Path) -> None:
    put(folder, "small.png", drawn(50, (64, 80)), "sks, small")
    put(folder, "hardly_small.png", drawn(51, (110, 110)), "sks, hardly small")
    found = only(look(folder), "resolution")
    assert found.files == ("small.png",)
    assert found.found == "1 image smaller than 128x128, the smallest 64x80"
    assert "enlarged up to 2.0 times" in found.effect


def test_low_resolution_with_buckets_that_enlarge_nothing(folder: Path) -> None:
    put(folder, "small.png", drawn(50, (64, 64)), "sks, small")
    put(folder, "tiny.png", drawn(51, (40, 200)), "sks, tiny")
    error, warning = look(folder, buckets=True)
    assert (error.level, error.files) == ("error", ("tiny.png",))
    assert (warning.check, warning.files) == ("resolution", ("small.png",))


def test_much_of_a_picture_cut_away(folder: Path) -> None:
    put(folder, "wide.png", drawn(50, (256, 144)), "sks, wide")
    put(folder, "photo.png", drawn(51, (192, 144)), "sks, four to three")
    found = only(look(folder), "shape")
    assert found.files == ("wide.png",) and "up to 44% is cut away" in found.found
    assert "dataset.buckets=true" in found.mend
    assert look(folder, buckets=True) == []


def test_a_blurred_picture(folder: Path) -> None:
    put(folder, "soft.png", drawn(50).filter(ImageFilter.GaussianBlur(3)), "sks, soft")
    assert only(look(folder), "sharpness").files == ("soft.png",)


def test_a_soft_set_may_be_meant_so(tmp_path: Path) -> None:
    for number in range(16):
        soft = drawn(number).filter(ImageFilter.GaussianBlur(2 + number % 2))
        put(tmp_path, f"{number}.png", soft, f"sks, number {number}")
    found = only(look(tmp_path), "sharpness")
    assert found.level == "note" and found.found.startswith("16 of 16 images are soft")


def test_an_enlarged_picture_is_told_once(folder: Path) -> None:
    """Its blur is that of the enlargement."""
    put(folder, "small.png", drawn(50, (40, 40)), "sks, small")
    assert only(look(folder), "resolution").files == ("small.png",)


def test_near_duplicates_and_copies(folder: Path) -> None:
    put(folder, "again.jpg", drawn(3), "sks, again")
    put(folder, "mirrored.png", ImageOps.mirror(drawn(5)), "sks, mirrored")
    shutil.copy(folder / "drawn_03.png", folder / "copied.png")
    (folder / "copied.txt").write_text("sks, copied")
    found = only(look(folder), "near-duplicates")
    assert found.found == "5 images are near-duplicates, in 2 groups, 1 of them the same file again"
    assert set(found.files) == {"again.jpg", "copied.png", "drawn_03.png", "mirrored.png", "drawn_05.png"}


def test_captions_that_are_missing(folder: Path) -> None:
    for number in range(3):
        (folder / f"drawn_{number:02d}.txt").unlink()
    missing = only(look(folder), "captions")
    assert (missing.level, len(missing.files)) == ("error", 3)
    served = only(look(folder, trigger="sks"), "captions")
    assert served.level == "warning" and "“sks” serves for each" in served.effect


def test_class_words_serve_for_captions(tmp_path: Path) -> None:
    folder = draw_set(tmp_path / "set" / "2_sks person")
    for file in folder.glob("*.txt"):
        file.unlink()
    found = only(look(tmp_path / "set"), "captions")
    assert (found.level, len(found.files)) == ("warning", 16)
    assert "“sks person” serves for each" in found.effect


def test_captions_that_are_all_the_same(folder: Path) -> None:
    for number in range(10):
        (folder / f"drawn_{number:02d}.txt").write_text("sks person\n")
    found = only(look(folder), "captions")
    assert found.found == "10 of 16 captions are all “sks person”" and len(found.files) == 10


@pytest.mark.parametrize("trigger", [None, "sks"])
def test_a_trigger_that_some_captions_lack(trigger: str | None, folder: Path) -> None:
    (folder / "drawn_03.txt").write_text("a sksophone")
    found = only(look(folder, trigger=trigger), "trigger")
    assert found.found == "1 of 16 captions lack “sks”" and found.files == ("drawn_03.png",)
    assert found.level == ("note" if trigger else "warning")


def test_no_word_that_all_captions_begin_with(folder: Path) -> None:
    for number, file in enumerate(sorted(folder.glob("*.txt"))):
        file.write_text(f"a picture of number {number}")
    found = only(look(folder), "trigger")
    assert found.level == "note" and "dataset.trigger=sks" in found.mend


def test_a_set_to_judge_by_that_shares_images(folder: Path, tmp_path: Path) -> None:
    judge = draw_set(tmp_path / "judge", 6, seed=100)
    assert look(folder, [judge]) == []
    put(judge, "known.jpg", ImageEnhance.Brightness(drawn(4)).enhance(0.9))
    found = only(look(folder, [judge]), "leakage")
    assert (found.level, found.files) == ("error", ("drawn_04.png",))
    assert "drawn_04.png is nearly the same as known.jpg there" in found.found


def test_a_regularization_set_that_shares_images(folder: Path, tmp_path: Path) -> None:
    others = draw_set(tmp_path / "others", 6, seed=100)
    shutil.copy(folder / "drawn_04.png", others / "same.png")
    found = only(look(folder, regularization=str(others)), "leakage")
    assert found.level == "error" and "drawn_04.png is the same as same.png there" in found.found


def test_a_regularization_set_that_outgrows_the_set(folder: Path, tmp_path: Path) -> None:
    draw_set(tmp_path / "others" / "2_person", 9, seed=100)
    found = only(look(folder, regularization=str(tmp_path / "others")), "regularization")
    assert "18 regularization images an epoch and 16 of the set" in found.found
    assert check_outgrown(18, 18) == []


def test_a_split_with_near_duplicates_on_both_sides(folder: Path, tmp_path: Path) -> None:
    put(folder, "again.jpg", drawn(3), "sks, again")
    pictures = read_folder(folder)
    apart = [picture for picture in pictures if picture.path.name in ("again.jpg", "drawn_07.png")]
    write_splits([Split(tuple(set(pictures) - set(apart)), tuple(apart))], tmp_path / "apart.json")
    leak, again = look(folder, split=tmp_path / "apart.json")
    assert (leak.check, leak.files, again.check) == ("leakage", ("drawn_03.png",), "near-duplicates")
    write_splits([split_pictures(pictures, 0.25)], tmp_path / "own.json")
    assert only(look(folder, split=tmp_path / "own.json"), "near-duplicates")


@pytest.mark.parametrize("trigger", [None, "sks"])
def test_what_a_training_has_read_is_judged_alike(trigger: str | None, tmp_path: Path) -> None:
    """Missing captions are told by whoever reads; what stands in for them is no caption that all share."""
    folder = draw_set(tmp_path / "set" / "2_person")
    for file in list(folder.glob("*.txt"))[:12]:
        file.unlink()
    put(folder, "soft.png", drawn(50).filter(ImageFilter.GaussianBlur(3)), "sks, soft")
    config = Experiment().with_params({"dataset.resolution": 128}).dataset
    pictures = read_folder(tmp_path / "set")
    assert only(check_training(pictures, [], [], tmp_path / "set", config), "sharpness").level == "warning"


def test_the_worst_comes_first(tmp_path: Path) -> None:
    draw_set(tmp_path, 15)
    (tmp_path / "drawn_03.png").write_bytes(b"no picture")
    put(tmp_path, "soft.png", drawn(50).filter(ImageFilter.GaussianBlur(3)), "a soft one")
    found = look(tmp_path, trigger="sks")
    assert [finding.level for finding in found] == ["error", "warning", "warning", "note"]
    assert counted(found) == "1 error, 2 warnings, 1 note"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no such folder; give a folder of images"):
        look(tmp_path / "nowhere")


def test_findings_for_programs_have_all_files(folder: Path) -> None:
    for number in range(5):
        (folder / f"drawn_{number:02d}.txt").unlink()
    (found,) = look(folder)
    assert found.named == "drawn_00.png, drawn_01.png, drawn_02.png and 2 more"
    assert found.as_dict()["count"] == len(found.as_dict()["files"]) == 5


def mean_colours(pixels: Sequence[Pixels]) -> Vectors:
    """An encoder that sees colours in thirty-six places."""
    places = [np.asarray(Image.fromarray(one).resize((6, 6), Image.Resampling.BOX), np.float32) for one in pixels]
    vectors = np.stack([place.reshape(-1) - place.mean() for place in places])
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def diversity_of(folder: Path) -> list[Finding]:
    experiment = Experiment().with_params({"dataset.resolution": 128})
    found = check_dataset(str(folder), experiment, embed=mean_colours)
    return [finding for finding in found if finding.check == "diversity"]


def test_one_scene_that_most_images_show(folder: Path) -> None:
    """Further apart than near-duplicates are, which count once."""
    assert diversity_of(folder) == []
    scene = drawn(200, (160, 160))
    for number in range(20):
        left, top = number % 5 * 8, number // 5 * 8
        put(folder, f"take_{number:02d}.png", scene.crop((left, top, left + 120, top + 120)), f"sks, take {number}")
    (found,) = diversity_of(folder)
    assert found.level == "warning" and "of 36 images show nearly the same as take_" in found.found
    assert sum(name.startswith("take_") for name in found.files) > 0.9 * len(found.files)


def test_copies_of_a_picture_are_no_scene(folder: Path) -> None:
    for quality in range(60, 90):
        put(folder, f"copy_{quality}.jpg", Image.new("RGB", (1, 1)), f"sks, copy {quality}")
        drawn(3).save(folder / f"copy_{quality}.jpg", quality=quality)
    assert diversity_of(folder) == []
