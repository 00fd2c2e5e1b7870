"""Pictures that are nearly the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.hard_pictures import SETS
from raylora.bundled import DEMO
from raylora.dataset import alike
from raylora.dataset.alike import SAME_DISTANCE, alike_between, near_duplicate_groups
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


@pytest.mark.parametrize("name", SETS)
def test_different_things_are_not_however_much_else_is_the_same(name: str, tmp_path: Path) -> None:
    """One ground, one disc, white, black: hardly any of a set are taken for each other, and no two for the same."""
    images = SETS[name]()
    for number, image in enumerate(images):
        put(tmp_path, f"{number:02d}.bmp", image)
    pictures = read(tmp_path)
    assert max(map(len, near_duplicate_groups(pictures).values())) <= 3
    assert all(len(group) == 1 for group in near_duplicate_groups(pictures, SAME_DISTANCE).values())


def test_a_chain_of_likenesses_is_no_group(tmp_path: Path) -> None:
    """Each frame is like those beside it, the first nothing like the last."""
    for number in range(9):
        put(tmp_path, f"{number}.png", Image.blend(drawn(0), drawn(1), number * 0.1))
    pictures = read(tmp_path)
    assert alike_between(pictures[:1], pictures[1:2]) and not alike_between(pictures[:1], pictures[-1:])
    groups = near_duplicate_groups(pictures)
    assert 1 < max(map(len, groups.values())) < 9
    for group in set(groups.values()):
        members = [picture for picture in pictures if picture.digest in group]
        assert any(len(alike_between([one], members)) and len(alike_between(members, [one])) == len(members)
                   for one in members)  # fmt: skip


def test_groups_depend_on_no_order(tmp_path: Path) -> None:
    for number in range(9):
        put(tmp_path, f"{number}.png", Image.blend(drawn(0), drawn(1), number * 0.1))
    pictures = read(tmp_path)
    assert near_duplicate_groups(pictures) == near_duplicate_groups(pictures[::-1])


def test_groups_are_the_same_however_few_are_compared_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        put(tmp_path, f"{number}.png", Image.blend(drawn(0), drawn(1), number * 0.1))
    pictures = read(tmp_path)
    groups, pairs = near_duplicate_groups(pictures), alike_between(pictures, pictures)
    for at_once in ("ROWS_AT_ONCE", "PAIRS_AT_ONCE"):
        with monkeypatch.context() as few:
            few.setattr(alike, at_once, 2)
            assert near_duplicate_groups(pictures) == groups
            assert alike_between(pictures, pictures) == pairs


def test_pairs_between_two_sets(tmp_path: Path) -> None:
    ours, theirs = draw_set(tmp_path / "ours", 6), draw_set(tmp_path / "theirs", 6, seed=50)
    put(theirs, "copy.jpg", drawn(2))
    (pair,) = alike_between(read(ours), read(theirs))
    assert (pair.ours.path.name, pair.theirs.path.name, pair.is_same) == ("drawn_02.png", "copy.jpg", True)
    assert alike_between(read(ours), []) == alike_between([], read(ours)) == []


@pytest.mark.parametrize("turn", list(Image.Transpose))
def test_between_two_sets_a_turned_picture_is_the_same(turn: Image.Transpose, tmp_path: Path) -> None:
    ours = draw_set(tmp_path / "ours", 3)
    put(tmp_path / "theirs", "turned.png", drawn(1).transpose(turn))
    (pair,) = alike_between(read(ours), read(tmp_path / "theirs"))
    assert pair.ours.path.name == "drawn_01.png" and pair.is_same


def test_between_two_sets_the_nearest_counts_and_the_same_file_first(tmp_path: Path) -> None:
    ours = draw_set(tmp_path / "ours", 2)
    put(tmp_path / "theirs", "a.jpg", as_jpeg(drawn(1)))
    put(tmp_path / "theirs", "b.png", drawn(1))
    (pair,) = alike_between(read(ours), read(tmp_path / "theirs"))
    assert (pair.theirs.path.name, pair.distance) == ("b.png", 0)


def test_pictures_of_next_to_no_contrast_are_known_by_their_bytes_alone(tmp_path: Path) -> None:
    ours = put(tmp_path / "ours", "black.png", Image.new("RGB", (64, 64)))
    put(tmp_path / "theirs", "white.png", Image.new("RGB", (64, 64), "white"))
    assert alike_between(read(ours.parent), read(tmp_path / "theirs")) == []
    put(tmp_path / "theirs", "black.png", Image.new("RGB", (64, 64)))
    (pair,) = alike_between(read(ours.parent), read(tmp_path / "theirs"))
    assert pair.is_same and pair.theirs.path.name == "black.png"
