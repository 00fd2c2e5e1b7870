"""Where a picture is cut: pure arithmetic on boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

Size = tuple[int, int]
"""Width and height in px."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in px; the last two are outside."""


def choose_size(original: Size, sizes: Sequence[Size]) -> Size:
    """The size whose shape fits a picture best, of those that it covers, if it covers any.

    Of equal shapes the largest that it covers, else the smallest. A size that it doesn't cover would leave it out, or
    enlarge it, and costs more than a strip that is cut off.
    """
    return nearest_size(original, [size for size in sizes if covers(original, size)] or sizes)


def nearest_size(original: Size, sizes: Sequence[Size]) -> Size:
    """The size whose shape fits a picture best; of equal shapes the largest that it covers, else the smallest."""
    width, height = original

    def misfit(size: Size) -> tuple[float, bool, int]:
        shape = abs(math.log(size[0] / size[1]) - math.log(width / height))
        is_too_large, area = not covers(original, size), size[0] * size[1]
        return round(shape, 9), is_too_large, area if is_too_large else -area

    return min(sizes, key=misfit)


def covers(original: Size, size: Size) -> bool:
    """Whether a picture can be cut to a size without being enlarged."""
    return original[0] >= size[0] and original[1] >= size[1]


def largest(original: Size, shape: Size) -> Size:
    """The largest part of a picture that has a shape, to the pixel."""
    scale = min(original[0] / shape[0], original[1] / shape[1])
    wide, high = (min(full, max(1, round(side * scale))) for full, side in zip(original, shape, strict=True))
    return wide, high


def center_box(original: Size, shape: Size) -> Box:
    """The largest box of a shape, in the middle."""
    wide, high = largest(original, shape)
    left, top = (original[0] - wide) // 2, (original[1] - high) // 2
    return left, top, left + wide, top + high


def focus_box(original: Size, shape: Size, wanted: Sequence[Box]) -> Box:
    """The largest box of a shape that holds what is wanted whole, as far as that is possible.

    Args:
        wanted: the most important first; a later one is held whole where that costs no earlier one. The last one is
            brought as near to the middle as that allows.
    """
    wide, high = largest(original, shape)
    left = _place(original[0], wide, [(box[0], box[2]) for box in wanted])
    top = _place(original[1], high, [(box[1], box[3]) for box in wanted])
    return left, top, left + wide, top + high


def _place(full: int, window: int, wanted: Sequence[tuple[int, int]]) -> int:
    """Where a window begins along one side; `wanted` are stretches of it."""
    first, last = 0, full - window
    middle = last // 2
    for start, end in wanted:
        lowest, highest = max(first, end - window), min(last, start)
        if lowest <= highest:
            first, last = lowest, highest
        middle = (start + end - window) // 2
    return min(max(middle, first), last)


def whole_size(original: Size, area: int, may_grow: bool) -> Size:
    """A picture's size, its shape kept, once it has at most `area` px; exactly that many where it may grow."""
    scale = math.sqrt(area / (original[0] * original[1]))
    scale = scale if may_grow else min(1.0, scale)
    return max(1, math.floor(original[0] * scale + 1e-9)), max(1, math.floor(original[1] * scale + 1e-9))
