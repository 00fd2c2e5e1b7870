"""Pictures alike within a set, and between what is learned, held out, judged by and regularized with."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

from benchmarks.hard_pictures import studio
from raylora.dataset.check_sets import check_outgrown
from raylora.dataset.folder import read_folder
from raylora.dataset.split import Split, split_folds, split_pictures, write_splits
from tests.dataset_checks import look, only
from tests.drawn import draw_set, drawn, put


def test_near_duplicates_and_copies(drawn_set: Path) -> None:
    put(drawn_set, "again.jpg", drawn(3), "sks, again")
    put(drawn_set, "mirrored.png", ImageOps.mirror(drawn(5)), "sks, mirrored")
    shutil.copy(drawn_set / "drawn_03.png", drawn_set / "copied.png")
    (drawn_set / "copied.txt").write_text("sks, copied")
    found = only(look(drawn_set), "near-duplicates")
    assert found.found == "5 images are near-duplicates, in 2 groups, 1 of them the same file again"
    groups = [{"again.jpg", "copied.png", "drawn_03.png"}, {"mirrored.png", "drawn_05.png"}]
    assert [set(group) for group in found.as_dict()["groups"]] == groups
    assert found.named == "again.jpg = copied.png = drawn_03.png, drawn_05.png = mirrored.png"


def test_things_on_one_ground_can_be_searched_with(tmp_path: Path) -> None:
    """Which are alike but for a tenth of the picture; regularization images of other things on it are no leakage."""
    for folder, seed in (("set", 0), ("others", 1)):
        for number, image in enumerate(studio(0.3, seed, 16 if folder == "set" else 10)):
            put(tmp_path / folder, f"{number:02d}.png", image, f"sks, {number}")
    assert look(tmp_path / "set", regularization=str(tmp_path / "others"), resolution=256) == []
    pictures = read_folder(tmp_path / "set")
    assert len(split_pictures(pictures, 0.25).holdout) == 4
    assert len(split_folds(pictures, 4)) == 4


def test_a_set_to_judge_by_that_shares_images(drawn_set: Path, tmp_path: Path) -> None:
    judge = draw_set(tmp_path / "judge", 6, seed=100)
    assert look(drawn_set, [judge]) == []
    put(judge, "known.jpg", ImageEnhance.Brightness(drawn(4)).enhance(0.9))
    found = only(look(drawn_set, [judge]), "leakage")
    assert (found.level, found.files) == ("error", ("drawn_04.png",))
    assert "drawn_04.png is nearly the same as judge/known.jpg" in found.found
    assert found.groups == (("drawn_04.png", "judge/known.jpg"),)


def test_a_set_to_judge_by_that_has_nearly_an_image_is_warned_of(drawn_set: Path, tmp_path: Path) -> None:
    """Whether it is the same one, a person must say."""
    judge = draw_set(tmp_path / "judge", 6, seed=100)
    put(judge, "like.png", Image.blend(drawn(4), drawn(70), 0.14))
    found = only(look(drawn_set, [judge]), "leakage")
    assert (found.level, found.groups) == ("warning", (("drawn_04.png", "judge/like.png"),))
    assert "look at both" in found.mend


def test_a_set_to_judge_by_that_cannot_be_read_gives_no_assurance(drawn_set: Path, tmp_path: Path) -> None:
    nested = draw_set(tmp_path / "judge" / "photos", 5, seed=100)
    found = only(look(drawn_set, [nested.parent]), "against")
    assert found.level == "error" and "5 in photos/" in found.mend
    (nested / "drawn_00.png").write_bytes((drawn_set / "drawn_00.png").read_bytes()[:200])
    damaged = only(look(drawn_set, [nested]), "readable")
    assert damaged.level == "error" and damaged.found.startswith(f"{nested}: 1 file")
    assert (damaged.files, damaged.effect) == (("drawn_00.png",), "they were compared with nothing")


def test_a_regularization_set_that_no_training_can_use(drawn_set: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = only(look(drawn_set, regularization=str(tmp_path / "empty")), "regularization")
    assert (found.level, found.found) == ("error", "dataset.regularization has no usable image")
    others = draw_set(tmp_path / "others", 3, seed=100)
    (others / "drawn_00.txt").write_bytes("h\xe9llo".encode("latin-1"))
    put(others, "tiny.png", drawn(120, (40, 200)))
    captions, small = look(drawn_set, regularization=str(others), buckets=True)
    assert (captions.level, captions.files) == ("error", ("drawn_00.txt",))
    assert (small.level, small.files) == ("error", ("tiny.png",))
    assert captions.found.startswith("dataset.regularization: ") and small.found.startswith("dataset.regularization: ")


def test_a_regularization_set_that_shares_images(drawn_set: Path, tmp_path: Path) -> None:
    others = draw_set(tmp_path / "others", 6, seed=100)
    shutil.copy(drawn_set / "drawn_04.png", others / "same.png")
    found = only(look(drawn_set, regularization=str(others)), "leakage")
    assert found.level == "error" and "drawn_04.png is the same as others/same.png" in found.found


def test_a_regularization_set_that_outgrows_the_set(drawn_set: Path, tmp_path: Path) -> None:
    draw_set(tmp_path / "others" / "2_person", 9, seed=100)
    found = only(look(drawn_set, regularization=str(tmp_path / "others")), "regularization")
    assert "18 regularization images an epoch and 12 of the set" in found.found  # 4 are held out
    assert check_outgrown(18, 18) == []


def test_what_a_search_would_refuse_to_split_is_an_error(tmp_path: Path) -> None:
    for quality in range(80, 96):
        draw_set(tmp_path, 1)
        drawn(0).save(tmp_path / f"copy_{quality}.jpg", quality=quality)
        (tmp_path / f"copy_{quality}.txt").write_text(f"sks, {quality}")
    found = look(tmp_path)
    assert [(one.level, one.check) for one in found[:2]] == [("error", "split"), ("warning", "count")]
    assert "stay on one side" in found[0].found


def test_a_damaged_held_out_image_hides_nothing(drawn_set: Path, tmp_path: Path) -> None:
    split = split_pictures(read_folder(drawn_set), 0.25)
    write_splits([split], tmp_path / "split.json")
    held = split.holdout[0].path
    held.write_bytes(held.read_bytes()[:200])
    (drawn_set / split.train[0].path.with_suffix(".txt").name).write_text("another thing")
    readable, lacks, few, trigger = look(drawn_set, split=tmp_path / "split.json")
    assert (readable.check, readable.files) == ("readable", (held.name,))
    assert (lacks.level, lacks.check) == ("error", "split") and "of which the dataset lacks 1" in lacks.found
    assert (few.check, trigger.check) == ("count", "trigger")


def test_a_split_with_near_duplicates_on_both_sides(drawn_set: Path, tmp_path: Path) -> None:
    put(drawn_set, "again.jpg", drawn(3), "sks, again")
    pictures = read_folder(drawn_set)
    apart = [picture for picture in pictures if picture.path.name in ("again.jpg", "drawn_07.png")]
    write_splits([Split(tuple(set(pictures) - set(apart)), tuple(apart))], tmp_path / "apart.json")
    leak, again = look(drawn_set, split=tmp_path / "apart.json")
    assert (leak.check, leak.files, again.check) == ("leakage", ("drawn_03.png",), "near-duplicates")
    assert leak.level == "warning" and "leave --split out" in leak.mend
    write_splits([split_pictures(pictures, 0.25)], tmp_path / "own.json")
    assert only(look(drawn_set, split=tmp_path / "own.json"), "near-duplicates")
