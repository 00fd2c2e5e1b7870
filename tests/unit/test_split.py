"""Which pictures are held out."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from raylora.bundled import DEMO_DATASET
from raylora.dataset.folder import Picture, read_folder
from raylora.dataset.split import Split, read_splits, split_folds, split_pictures, write_splits
from raylora.errors import DatasetError
from tests.tiny import make_pictures

QUARTER = 0.25


def digests(pictures: tuple[Picture, ...] | list[Picture]) -> set[str]:
    return {picture.digest for picture in pictures}


def sides_of(split: Split, stem: str) -> set[str]:
    """On which sides the pictures of this name lie."""
    sides = {"train": split.train, "holdout": split.holdout}
    return {side for side, pictures in sides.items() for picture in pictures if picture.path.stem == stem}


def add_copies(folder: Path, suffix: str, **options: Any) -> Path:
    """Beside each PNG the same picture in other bytes, with the same caption."""
    for path in sorted(folder.glob("*.png")):
        Image.open(path).save(path.with_suffix(suffix), **options)
    return folder


@pytest.mark.parametrize(("images", "held_out"), [(8, 4), (10, 4), (16, 4), (20, 5), (28, 7), (40, 10)])
def test_a_quarter_is_held_out_but_at_least_four(tmp_path: Path, images: int, held_out: int) -> None:
    split = split_pictures(read_folder(make_pictures(tmp_path, images)), QUARTER)
    assert (len(split.train), len(split.holdout)) == (images - held_out, held_out)


def test_never_more_than_half_of_a_folder_is_held_out(tmp_path: Path) -> None:
    make_pictures(tmp_path / "1_few", 5)
    make_pictures(tmp_path / "1_one", 6, size=(128, 64))
    split = split_pictures(read_folder(tmp_path), QUARTER)
    held = [picture.folder for picture in split.holdout]
    assert (held.count("1_few"), held.count("1_one")) == (2, 3)


def test_those_with_the_lowest_hashes_are_held_out(tmp_path: Path) -> None:
    pictures = read_folder(make_pictures(tmp_path, 20))
    split = split_pictures(pictures, QUARTER)
    assert digests(split.holdout) == set(sorted(digests(pictures))[:5])
    assert digests(split.train) == set(sorted(digests(pictures))[5:])


def test_it_depends_on_neither_order_nor_place(tmp_path: Path) -> None:
    here = read_folder(make_pictures(tmp_path / "here", 12))
    there = read_folder(make_pictures(tmp_path / "there", 12))
    random.Random(0).shuffle(there)
    assert digests(split_pictures(here, QUARTER).holdout) == digests(split_pictures(there, QUARTER).holdout)


def test_the_parts_keep_the_order_of_the_pictures(tmp_path: Path) -> None:
    split = split_pictures(read_folder(make_pictures(tmp_path, 12)), QUARTER)
    for part in (split.train, split.holdout):
        assert list(part) == sorted(part, key=lambda picture: picture.path)


def test_each_folder_gives_its_share(tmp_path: Path) -> None:
    make_pictures(tmp_path / "10_sks", 24)
    make_pictures(tmp_path / "2_hat", 8, size=(128, 64))
    split = split_pictures(read_folder(tmp_path), QUARTER)
    held = [picture.folder for picture in split.holdout]
    assert (held.count("10_sks"), held.count("2_hat")) == (6, 4)


def test_a_larger_fraction_holds_out_more(tmp_path: Path) -> None:
    assert len(split_pictures(read_folder(make_pictures(tmp_path, 20)), 0.5).holdout) == 10


def test_near_duplicates_stay_on_one_side(tmp_path: Path) -> None:
    folder = add_copies(make_pictures(tmp_path, 10), ".jpg", quality=90)
    pictures = read_folder(folder)
    split = split_pictures(pictures, QUARTER)
    assert len(digests(pictures)) == 20
    assert len(split.holdout) == 4
    assert all(len(sides_of(split, f"picture_{number:02d}")) == 1 for number in range(10))


def test_near_duplicates_in_two_folders_stay_on_one_side(tmp_path: Path) -> None:
    make_pictures(tmp_path / "1_a", 20)
    (tmp_path / "1_b").mkdir()
    for number in range(12):
        picture = Image.open(tmp_path / "1_a" / f"picture_{number:02d}.png")
        picture.save(tmp_path / "1_b" / f"picture_{number:02d}.jpg", quality=90)
    split = split_pictures(read_folder(tmp_path), QUARTER)
    assert split.holdout
    assert all(len(sides_of(split, f"picture_{number:02d}")) == 1 for number in range(12))


def test_exact_copies_do_not_make_the_held_out_part_larger(tmp_path: Path) -> None:
    make_pictures(tmp_path, 4)
    for number in range(4):
        for suffix in (".png", ".txt"):
            shutil.copy(tmp_path / f"picture_{number:02d}{suffix}", tmp_path / f"picture_{number + 4:02d}{suffix}")
    split = split_pictures(read_folder(tmp_path), QUARTER)
    assert (len(split.train), len(split.holdout)) == (4, 4)
    assert digests(split.train).isdisjoint(digests(split.holdout))


@pytest.mark.parametrize("other_bytes", [False, True])
def test_a_folder_of_one_picture_in_many_copies_cannot_be_split(tmp_path: Path, other_bytes: bool) -> None:
    picture = Image.open(make_pictures(tmp_path / "one", 1) / "picture_00.png")
    for number in range(8):
        picture.save(tmp_path / f"copy_{number}.jpg", quality=80 + number * other_bytes)
        (tmp_path / f"copy_{number}.txt").write_text("sks")
    with pytest.raises(DatasetError, match=r"0 of the 4 images that were to be held out can be: .* remove near-dup"):
        split_pictures(read_folder(tmp_path), QUARTER)


def test_written_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    pictures = read_folder(make_pictures(tmp_path, 12))
    split = split_pictures(pictures, QUARTER)
    write_splits([split], tmp_path / "split.json")
    assert read_splits(tmp_path / "split.json", pictures) == (split,)


def test_a_split_serves_the_same_pictures_elsewhere(tmp_path: Path) -> None:
    split = split_pictures(read_folder(make_pictures(tmp_path / "here", 12)), 0.5)
    write_splits([split], tmp_path / "split.json")
    (there,) = read_splits(tmp_path / "split.json", read_folder(make_pictures(tmp_path / "there", 12)))
    assert digests(there.holdout) == digests(split.holdout)
    assert len(there.train) == 6


def test_a_split_of_a_changed_dataset_is_refused(tmp_path: Path) -> None:
    split = split_pictures(read_folder(make_pictures(tmp_path, 12)), QUARTER)
    write_splits([split], tmp_path / "split.json")
    Image.new("RGB", (64, 64)).save(split.holdout[0].path)
    split.holdout[1].path.unlink()
    with pytest.raises(DatasetError, match=r"holds out 4 images, of which the dataset lacks 2: .* leave --split out"):
        read_splits(tmp_path / "split.json", read_folder(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"holdout": [1]}', '{"holdout": null}'])
def test_other_files_are_no_splits(tmp_path: Path, content: str) -> None:
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(DatasetError, match="is not a split file"):
        read_splits(tmp_path / "split.json", [])


def copies_and_others(folder: Path, others: int) -> list[Picture]:
    """Eight copies of one picture, and others."""
    make_pictures(folder, others + 1)
    for number in range(7):
        Image.open(folder / "picture_00.png").save(folder / f"copy_{number}.jpg", quality=80 + number)
        (folder / f"copy_{number}.txt").write_text("sks")
    return read_folder(folder)


def test_fewer_held_out_than_wanted_are_told_with_both_numbers(tmp_path: Path) -> None:
    told: list[str] = []
    split = split_pictures(copies_and_others(tmp_path, 2), QUARTER, told.append)
    assert len(split.holdout) == 2
    (warning,) = told
    assert warning.startswith("2 images are held out to judge by, where 4 were wanted: others are near-duplicates")


def test_as_many_as_wanted_are_no_news(tmp_path: Path) -> None:
    split_pictures(read_folder(make_pictures(tmp_path, 12)), QUARTER, pytest.fail)


def test_one_picture_is_too_few_to_judge_by(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"1 of the 4 images that were to be held out can be: .* 2 are needed"):
        split_pictures(copies_and_others(tmp_path, 1), QUARTER)


def test_folders_of_one_picture_each_are_no_copies(tmp_path: Path) -> None:
    for number in range(8):
        make_pictures(tmp_path / f"5_a{number}", 1, size=(64 + 8 * number, 64))
    with pytest.raises(DatasetError, match=r"8 images in 8 folders, of which at most half .* leave 0") as told:
        split_pictures(read_folder(tmp_path), QUARTER)
    assert str(told.value).startswith(f"{tmp_path}: ")
    assert "put images of one subject into one folder" in str(told.value)


def test_a_split_of_other_data_says_so(tmp_path: Path) -> None:
    split = split_pictures(read_folder(make_pictures(tmp_path / "here", 12)), QUARTER)
    write_splits([split], tmp_path / "split.json")
    others = read_folder(make_pictures(tmp_path / "others", 12, size=(128, 64)))
    with pytest.raises(DatasetError, match="is of other data: the dataset has none of the 4 images that it holds out"):
        read_splits(tmp_path / "split.json", others)


def test_a_split_of_one_picture_is_refused(tmp_path: Path) -> None:
    pictures = read_folder(make_pictures(tmp_path, 12))
    write_splits([Split(tuple(pictures[1:]), tuple(pictures[:1]))], tmp_path / "split.json")
    with pytest.raises(DatasetError, match="holds out 1 image, and 2 or more are needed to judge by"):
        read_splits(tmp_path / "split.json", pictures)


def test_a_split_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"split\.json: there is no such file"):
        read_splits(tmp_path / "split.json", [])


def test_the_demo_learns_thirty_and_holds_out_ten() -> None:
    split = split_pictures(read_folder(DEMO_DATASET), QUARTER)
    assert (len(split.train), len(split.holdout)) == (30, 10)
    assert digests(split.train).isdisjoint(digests(split.holdout))


@pytest.mark.parametrize(("images", "folds", "sizes"), [(10, 5, [2] * 5), (12, 5, [3, 3, 2, 2, 2]), (20, 3, [7, 7, 6])])
def test_every_picture_is_held_out_in_one_fold(tmp_path: Path, images: int, folds: int, sizes: list[int]) -> None:
    pictures = read_folder(make_pictures(tmp_path, images))
    splits = split_folds(pictures, folds)
    assert [len(split.holdout) for split in splits] == sizes
    assert sorted(picture.path for split in splits for picture in split.holdout) == [one.path for one in pictures]
    assert all(digests(split.train) == digests(pictures) - digests(split.holdout) for split in splits)


def test_each_folder_gives_its_share_to_every_fold(tmp_path: Path) -> None:
    make_pictures(tmp_path / "10_sks", 12)
    make_pictures(tmp_path / "2_hat", 6, size=(128, 64))
    for split in split_folds(read_folder(tmp_path), 3):
        held = [picture.folder for picture in split.holdout]
        assert (held.count("10_sks"), held.count("2_hat")) == (4, 2)


def test_folds_depend_on_neither_order_nor_place(tmp_path: Path) -> None:
    here = read_folder(make_pictures(tmp_path / "here", 13))
    there = read_folder(make_pictures(tmp_path / "there", 13))
    random.Random(0).shuffle(there)
    assert [digests(split.holdout) for split in split_folds(here, 4)] == [
        digests(split.holdout) for split in split_folds(there, 4)
    ]


def test_near_duplicates_are_held_out_in_the_same_fold(tmp_path: Path) -> None:
    pictures = read_folder(add_copies(make_pictures(tmp_path, 9), ".jpg", quality=90))
    splits = split_folds(pictures, 4)
    assert [len(split.holdout) for split in splits] == [6, 4, 4, 4]
    for number in range(9):
        assert sorted(len(sides_of(split, f"picture_{number:02d}")) for split in splits) == [1] * 4


@pytest.mark.parametrize(("folds", "most"), [(7, 6), (10, 6)])
def test_too_many_folds_are_refused_and_the_most_that_work_named(tmp_path: Path, folds: int, most: int) -> None:
    pictures = read_folder(make_pictures(tmp_path, 13))
    with pytest.raises(DatasetError, match=rf"13 images are too few for {folds} folds .* dataset.folds={most} or less"):
        split_folds(pictures, folds)
    assert len(split_folds(pictures, most)) == most


def test_near_duplicates_count_as_one_where_folds_are_too_many(tmp_path: Path) -> None:
    """One picture in seven copies and three others: two folds hold out seven and three."""
    make_pictures(tmp_path, 4)
    for quality in range(84, 90):
        Image.open(tmp_path / "picture_00.png").save(tmp_path / f"copy_{quality}.jpg", quality=quality)
        (tmp_path / f"copy_{quality}.txt").write_text("sks")
    pictures = read_folder(tmp_path)
    with pytest.raises(DatasetError, match=r"10 images are too few for 3 folds .* dataset.folds=2 or less"):
        split_folds(pictures, 3)
    assert [len(split.holdout) for split in split_folds(pictures, 2)] == [7, 3]


def test_folds_written_and_read_again_are_the_same(tmp_path: Path) -> None:
    pictures = read_folder(make_pictures(tmp_path, 12))
    splits = split_folds(pictures, 3)
    write_splits(splits, tmp_path / "split.json")
    assert read_splits(tmp_path / "split.json", pictures) == splits
