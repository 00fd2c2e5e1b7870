"""Sheets show each picture with its cut, faces and subject where they are."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, ImageColor

from raylora.preparation.contact_sheet import (
    CELL_PX,
    CUT_COLOUR,
    FACE_COLOUR,
    GAP_PX,
    SUBJECT_COLOUR,
    TEXT_PX,
    Cell,
    page,
    thumbnail,
)
from raylora.preparation.crop import Box
from raylora.preparation.cutting import Cut

CUT, FACE, SUBJECT = (120, 0, 360, 240), (200, 60, 260, 120), (160, 40, 330, 200)
TOP_OF_PICTURE = GAP_PX + TEXT_PX + (CELL_PX - 120) // 2
"""On the sheet, of a picture that is twice as wide as high."""


def shown(tmp_path: Path, cut: Cut) -> Image.Image:
    """A grey picture of 480 x 240 px as a sheet shows it: half as large."""
    file = tmp_path / "small.jpg"
    file.write_bytes(thumbnail(Image.new("RGB", (480, 240), (100, 100, 100))))
    with Image.open(io.BytesIO(page([Cell("a.png", file, cut)], 1))) as sheet:
        return sheet.convert("RGB").crop((GAP_PX, TOP_OF_PICTURE, GAP_PX + 240, TOP_OF_PICTURE + 120))


@pytest.mark.parametrize(
    ("box", "colour"),
    [(CUT, CUT_COLOUR), (FACE, FACE_COLOUR), (SUBJECT, SUBJECT_COLOUR)],
    ids=["cut", "face", "subject"],
)
def test_boxes_are_drawn_where_they_are(box: Box, colour: str, tmp_path: Path) -> None:
    image = shown(tmp_path, Cut((480, 240), CUT, (64, 64), faces=(FACE,), subject=SUBJECT))
    left, top, right, bottom = (side // 2 for side in box)
    middle = ((left + right) // 2, (top + bottom) // 2)
    edges = [(left, middle[1]), (right - 1, middle[1]), (middle[0], top), (middle[0], bottom - 1)]
    assert {image.getpixel(place) for place in edges} == {ImageColor.getrgb(colour)}


def test_what_is_cut_off_is_dark(tmp_path: Path) -> None:
    image = shown(tmp_path, Cut((480, 240), CUT, (64, 64)))
    assert image.getpixel((120, 60)) == (100, 100, 100)
    assert image.getpixel((30, 60)) == image.getpixel((210, 60)) == (45, 45, 45)


def test_what_is_left_out_is_dark_and_has_no_boxes(tmp_path: Path) -> None:
    image = shown(tmp_path, Cut((480, 240), CUT, (64, 64), faces=(FACE,), refused="is too small"))
    assert image.getcolors(2**24) == [(240 * 120, (45, 45, 45))]
