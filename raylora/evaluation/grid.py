"""Pictures side by side in one: how samples are kept for people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raylora.dataset.pixels import Pixels

GAP_PX = 2
"""White between a grid's pictures."""


def sample_grid(rows: Sequence[Sequence[Pixels]], gap_px: int = GAP_PX) -> Pixels:
    """Rows of pictures as one picture (height, width, 3), white between them.

    Every cell has the size of the largest picture; smaller ones stand in its middle. Shorter rows end in white.
    """
    high = max(picture.shape[0] for row in rows for picture in row)
    wide = max(picture.shape[1] for row in rows for picture in row)
    columns = max(len(row) for row in rows)
    shape = (len(rows) * (high + gap_px) + gap_px, columns * (wide + gap_px) + gap_px, 3)
    grid = np.full(shape, 255, dtype=np.uint8)
    for row_number, row in enumerate(rows):
        for column, picture in enumerate(row):
            height, width = picture.shape[:2]
            top = gap_px + row_number * (high + gap_px) + (high - height) // 2
            left = gap_px + column * (wide + gap_px) + (wide - width) // 2
            grid[top : top + height, left : left + width] = picture
    return grid
