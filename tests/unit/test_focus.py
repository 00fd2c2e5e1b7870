"""Faces and subjects found in real photographs, and cuts that keep them whole where a cut in the middle doesn't."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from raylora.preparation.crop import Box, center_box, focus_box
from raylora.preparation.focus import find_focus
from tests.photographs import (
    ASTRONAUT,
    ASTRONAUTS_FACE,
    CAMERAMAN,
    CAMERAMANS_FACE,
    CAT,
    DRAWING,
    FLOWER,
    off_center_face,
    off_center_flower,
    opened_rgb,
)

SQUARE = (512, 512)


def holds(box: Box, other: Box) -> bool:
    return box[0] <= other[0] and box[1] <= other[1] and box[2] >= other[2] and box[3] >= other[3]


def test_a_face_is_found_where_it_is() -> None:
    found = find_focus(opened_rgb(ASTRONAUT))
    assert len(found.faces) == 1
    assert holds(found.faces[0], ASTRONAUTS_FACE)
    assert found.subject is None


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_face_in_profile_is_found_whichever_way_it_looks(mirrored: bool) -> None:
    image, (left, top, right, bottom) = opened_rgb(CAMERAMAN), CAMERAMANS_FACE
    face = (image.width - right, top, image.width - left, bottom) if mirrored else CAMERAMANS_FACE
    found = find_focus(ImageOps.mirror(image) if mirrored else image)
    assert len(found.faces) == 1
    assert holds(found.faces[0], face)


@pytest.mark.parametrize("scale", [0.5, 3])
def test_boxes_are_in_px_of_the_picture_itself(scale: float) -> None:
    image = opened_rgb(ASTRONAUT)
    found = find_focus(image.resize((round(image.width * scale), round(image.height * scale))))
    left, top, right, bottom = (side / scale for side in found.faces[0])
    assert holds((round(left) - 3, round(top) - 3, round(right) + 3, round(bottom) + 3), ASTRONAUTS_FACE)
    assert right - left < 150


def test_several_faces_come_the_largest_first() -> None:
    image = opened_rgb(ASTRONAUT).crop((100, 0, 350, 250))
    both = Image.new("RGB", (600, 300), "gray")
    both.paste(image.resize((150, 150)), (20, 20))
    both.paste(image, (300, 20))
    faces = find_focus(both).faces
    assert len(faces) == 2
    assert faces[0][0] > 300 > faces[1][2]


@pytest.mark.parametrize("path", [CAT, FLOWER, DRAWING], ids=lambda path: path.stem)
def test_where_there_is_no_face_there_is_a_subject(path: object) -> None:
    found = find_focus(opened_rgb(path))  # type: ignore[arg-type]
    assert found.faces == ()
    assert found.subject is not None


def test_a_plain_picture_has_no_subject() -> None:
    assert find_focus(Image.new("RGB", (300, 200), "white")).wanted((300, 200)) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (2000, 2)])
def test_odd_shapes_are_looked_at_too(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    found = find_focus(Image.fromarray(pixels))
    assert all(holds((0, 0, *size), box) for box in found.wanted(size))


def test_focus_keeps_a_face_that_the_middle_cuts() -> None:
    image = off_center_face()
    found = find_focus(image)
    assert not holds(center_box(image.size, SQUARE), found.faces[0])
    assert holds(focus_box(image.size, SQUARE, found.wanted(image.size)), found.faces[0])


def test_focus_keeps_a_subject_that_the_middle_cuts() -> None:
    image, flower = off_center_flower(), (64, 20, 300, 230)
    found = find_focus(image)
    assert not holds(center_box(image.size, SQUARE), flower)
    assert holds(focus_box(image.size, SQUARE, found.wanted(image.size)), flower)
