"""Pictures for a page: cut out of the grids that a search leaves, made small, and put into the page's own text."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from raylora.evaluation.grid import GAP_PX
from raylora.files import is_file

WHITE = 255
QUALITY = 80
"""Of WebP: half of JPEG's bytes for the same looks, and read by every browser since 2020."""


@dataclass(frozen=True)
class Picture:
    """A small picture with the words that stand for it."""

    uri: Markup
    width: int
    height: int
    alt: str


class Grid:
    """A grid of pictures on the disk, taken apart.

    Args:
        shares_shape: whether all pictures have the size of a cell. Otherwise they stand in the middle of white.
    """

    def __init__(self, image: Image.Image, rows: int, columns: int, shares_shape: bool = True):
        self.image, self.rows, self.columns = image, rows, columns
        self.width, self.height = (image.width - GAP_PX) // columns - GAP_PX, (image.height - GAP_PX) // rows - GAP_PX
        self._shares_shape = shares_shape

    def cell(self, row: int, column: int) -> Image.Image:
        """A picture; where shapes differ, without the white around every picture of its column."""
        whole = self._cell(row, column)
        return whole if self._shares_shape else whole.crop(self._box(column))

    def _cell(self, row: int, column: int) -> Image.Image:
        left = GAP_PX + column * (self.width + GAP_PX)
        top = GAP_PX + row * (self.height + GAP_PX)
        return self.image.crop((left, top, left + self.width, top + self.height))

    def _box(self, column: int) -> tuple[int, int, int, int]:
        """Where there is anything but white in some row of the column."""
        cells = np.stack([np.asarray(self._cell(row, column)) for row in range(self.rows)])
        drawn = (cells != WHITE).any(axis=(0, 3))
        down, across = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
        if not len(down):
            return 0, 0, self.width, self.height
        return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1

    def strip(self, row: int, columns: Sequence[int], side_px: int) -> Image.Image:
        """Some pictures of a row side by side, each within a square of `side_px`."""
        side = min(side_px, max(self.width, self.height))
        cells = [fitted(self.cell(row, column), side) for column in columns]
        high = max(cell.height for cell in cells)
        made = Image.new(
            "RGBA", (sum(cell.width for cell in cells) + GAP_PX * (len(cells) - 1), high)
        )  # the page between
        left = 0
        for cell in cells:
            made.paste(cell, (left, (high - cell.height) // 2))
            left += cell.width + GAP_PX
        return made


def read_grid(path: Path, rows: int, columns: int, shares_shape: bool = True) -> Grid | None:
    """A grid of a file; None where there is none, it can't be read, or it is no grid of that many pictures."""
    if not is_file(path) or rows < 1 or columns < 1:
        return None
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    fits = (image.width - GAP_PX) % columns == 0 and (image.height - GAP_PX) % rows == 0
    return Grid(image, rows, columns, shares_shape) if fits and min(image.size) > 2 * GAP_PX else None


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a picture, of which no more than its head is read; 0 where there is none."""
    if not is_file(path):
        return 0, 0
    try:
        with Image.open(path) as file:
            return file.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0


def pixels_of(path: Path) -> int:
    """How many a picture has."""
    width, height = size_of(path)
    return width * height


def columns_of(path: Path, counts: Sequence[int], step_px: int) -> int:
    """How many pictures stand in a row of a grid: of these counts the one that makes them some multiple of a step wide.

    There is one at most, as the gaps between them add up otherwise; 0 where there is none.
    """
    width = size_of(path)[0] - GAP_PX
    fitting = (count for count in counts if count and width > 0 and width % count == 0)
    return next((count for count in fitting if (width // count - GAP_PX) % step_px == 0), 0)


def fitted(image: Image.Image, side_px: int) -> Image.Image:
    """The picture within a square of that side; never enlarged."""
    if max(image.size) <= side_px:
        return image
    scale = side_px / max(image.size)
    return image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )


def embedded(image: Image.Image, alt: str) -> Picture:
    """The picture as a part of the page."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY)
    code = base64.b64encode(file.getvalue()).decode()
    return Picture(Markup("data:image/webp;base64," + code), image.width, image.height, alt)


def strip_of(
    grid: Grid | None, row: int, most: int, side_px: int, alt: Callable[[int], str], every: int = 1
) -> Picture | None:
    """A row's first pictures as one, if there is such a row.

    Args:
        alt: the words for it, told how many pictures it has.
        every: take only each so many-th.
    """
    if grid is None or row >= grid.rows:
        return None
    columns = range(0, grid.columns, every)[:most]
    return embedded(grid.strip(row, columns, side_px), alt(len(columns)))
