"""Contact sheets: each source with its cut drawn in, so that a look tells whether all went well."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from raylora.lettering import Font, font_of, writable
from raylora.preparation.crop import Box
from raylora.preparation.cutting import Cut
from raylora.redaction import one_line

COLUMNS, ROWS = 5, 6
PER_PAGE = COLUMNS * ROWS
CELL_PX, TEXT_PX, GAP_PX = 240, 34, 12
FONT_PX, LINE_PX = 13, 3
CUT_COLOUR, FACE_COLOUR, SUBJECT_COLOUR, LEFT_OUT_COLOUR = "#00d060", "#ff3030", "#ffb000", "#ff3030"
GROUND, INK, SHADE = "#202020", "#f0f0f0", 0.45
LEGEND = ((CUT_COLOUR, "cut"), (FACE_COLOUR, "face"), (SUBJECT_COLOUR, "subject"))


@dataclass(frozen=True)
class Cell:
    """One picture on a sheet."""

    name: str
    thumbnail: Path
    cut: Cut


def thumbnail(image: Image.Image) -> bytes:
    """A small JPEG of a picture in RGB."""
    small = image.copy()
    small.thumbnail((CELL_PX, CELL_PX), Image.Resampling.BOX)
    return _bytes(small, "JPEG", quality=90)


def page(cells: Sequence[Cell], first: int) -> bytes:
    """A PNG with up to `PER_PAGE` pictures, numbered from `first` on."""
    rows = -(-len(cells) // COLUMNS)
    width = COLUMNS * (CELL_PX + GAP_PX) + GAP_PX
    sheet = Image.new("RGB", (width, GAP_PX + TEXT_PX + rows * (CELL_PX + TEXT_PX + GAP_PX)), GROUND)
    pen, font = ImageDraw.Draw(sheet), font_of(FONT_PX)
    _legend(pen, font)
    for index, cell in enumerate(cells):
        left = GAP_PX + index % COLUMNS * (CELL_PX + GAP_PX)
        top = GAP_PX + TEXT_PX + index // COLUMNS * (CELL_PX + TEXT_PX + GAP_PX)
        picture = _drawn(cell)
        sheet.paste(picture, (left + (CELL_PX - picture.width) // 2, top + (CELL_PX - picture.height) // 2))
        for line, (text, colour) in enumerate(_words(cell, first + index)):
            pen.text((left, top + CELL_PX + 2 + line * (FONT_PX + 2)), _fitting(text, font), colour, font=font)
    return _bytes(sheet, "PNG")


def _legend(pen: ImageDraw.ImageDraw, font: Font) -> None:
    left = GAP_PX
    for colour, text in LEGEND:
        pen.rectangle((left, GAP_PX + 2, left + FONT_PX, GAP_PX + 2 + FONT_PX), outline=colour, width=LINE_PX)
        pen.text((left + FONT_PX + 6, GAP_PX), text, INK, font=font)
        left += 100


def _words(cell: Cell, number: int) -> list[tuple[str, str]]:
    """Two lines below a picture, with their colours."""
    (width, height), (wide, high) = cell.cut.original, cell.cut.size
    if cell.cut.refused:
        return [(f"{number} {one_line(cell.name)}", INK), (f"left out: {cell.cut.refused}", LEFT_OUT_COLOUR)]
    return [(f"{number} {one_line(cell.name)}", INK), (f"{width}x{height} to {wide}x{high}", INK)]


def _fitting(text: str, font: Font) -> str:
    """The text, or as much of it as a cell has room for."""
    fitting = text = writable(text, font)
    while font.getlength(fitting) > CELL_PX:
        text = text[:-1]
        fitting = f"{text}…"
    return fitting


def _drawn(cell: Cell) -> Image.Image:
    with Image.open(cell.thumbnail, formats=["JPEG"]) as file:
        small = file.convert("RGB")
    shaded = Image.blend(Image.new("RGB", small.size), small, SHADE)
    if cell.cut.refused:
        return shaded
    scale = small.width / cell.cut.original[0], small.height / cell.cut.original[1]
    inside = _scaled(cell.cut.box, scale, small)
    shaded.paste(small.crop(inside), inside[:2])
    pen = ImageDraw.Draw(shaded)
    subjects = [cell.cut.subject] if cell.cut.subject else []
    for boxes, colour in (([cell.cut.box], CUT_COLOUR), (subjects, SUBJECT_COLOUR), (cell.cut.faces, FACE_COLOUR)):
        for left, top, right, bottom in (_scaled(box, scale, small) for box in boxes):
            pen.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=LINE_PX)
    return shaded


def _scaled(box: Box, scale: tuple[float, float], small: Image.Image) -> Box:
    """A box on a thumbnail, inside it and not empty."""
    left, top = (int(side * factor) for side, factor in zip(box[:2], scale, strict=True))
    right, bottom = (round(side * factor) for side, factor in zip(box[2:], scale, strict=True))
    left, top = min(left, small.width - 1), min(top, small.height - 1)
    return left, top, max(left + 1, min(right, small.width)), max(top + 1, min(bottom, small.height))


def _bytes(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
