"""Pictures that are nearly the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance, ImageOps

from raylora.bundled import DEMO
from raylora.dataset.alike import alike_between, near_duplicate_groups
from raylora.dataset.folder import Picture, ReadOptions, read_folder
from tests.drawn import draw_set, drawn, put

FEW = ReadOptions(fewest=1, needs_captions=False)


def read(folder: Path) -> list[Picture]:
    return read_folder(folder, FEW)


def as_jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file).convert("RGB")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": as_jpeg,
    "half the size": lambda image: image.resize((64, 64)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.85),
    "mirrored": ImageOps.mirror,
    "mirrored and brighter": lambda image: ImageEnhance.Brightness(ImageOps.mirror(image)).enhance(0.9),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_nearly_the_same(change: str, tmp_path: Path) -> None:
    draw_set(tmp_path, 6)
    put(tmp_path, "changed.png", CHANGES[change](drawn(3)))
    pictures = {picture.path.stem: picture.digest for picture in read(tmp_path)}
    groups = near_duplicate_groups(read(tmp_path))
    assert groups[pictures["changed"]] == {pictures["changed"], pictures["drawn_03"]}
    assert sum(len(group) > 1 for group in set(groups.values())) == 1


def test_different_drawings_in_one_pose_are_not(tmp_path: Path) -> None:
    pictures = [picture for name in ("dataset", "judge") for picture in read(DEMO / name)]
    assert len(pictures) == 104
    assert all(len(group) == 1 for group in near_duplicate_groups(pictures).values())


def test_a_cast_that_a_set_shares_makes_no_two_alike(tmp_path: Path) -> None:
    """The colours of their means would make most of their correlation."""
    for number in range(6):
        pale = ImageEnhance.Contrast(drawn(number)).enhance(0.2)
        put(tmp_path, f"{number}.png", Image.blend(pale, Image.new("RGB", pale.size, (255, 120, 0)), 0.6))
    assert all(len(group) == 1 for group in near_duplicate_groups(read(tmp_path)).values())


def test_plain_pictures_of_different_colours_are_not(tmp_path: Path) -> None:
    for colour in ("red", "green", "blue", "yellow"):
        put(tmp_path, f"{colour}.png", Image.new("RGB", (64, 64), colour))
    assert all(len(group) == 1 for group in near_duplicate_groups(read(tmp_path)).values())


def test_who_is_like_one_of_a_group_belongs_to_it(tmp_path: Path) -> None:
    """Single linkage, by way of the one between them."""
    image = drawn(0)
    for name, share in (("a", 0.0), ("b", 0.12), ("c", 0.24)):
        put(tmp_path, f"{name}.png", Image.blend(image, drawn(1), share))
    first, second, third = read(tmp_path)
    assert alike_between([first], [third]) == []
    groups = near_duplicate_groups([first, second, third])
    assert len(groups[first.digest]) == 3


def test_pairs_between_two_sets(tmp_path: Path) -> None:
    ours, theirs = draw_set(tmp_path / "ours", 6), draw_set(tmp_path / "theirs", 6, seed=50)
    put(theirs, "copy.jpg", drawn(2))
    (pair,) = alike_between(read(ours), read(theirs))
    assert (pair.ours.path.name, pair.theirs.path.name) == ("drawn_02.png", "copy.jpg")
    assert alike_between(read(ours), []) == alike_between([], read(ours)) == []
