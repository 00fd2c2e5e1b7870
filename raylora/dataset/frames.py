"""How a picture is cut: to one size for all, or to the aspect-ratio bucket that suits it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from raylora.config import SIZE_STEP_PX, DatasetConfig
from raylora.errors import DatasetError

Size = tuple[int, int]
"""Width and height in px."""
LEAST_MEASURED_PX = 16
"""Of a picture whose own pixels are fewer nothing can be told by its edges."""


@dataclass(frozen=True)
class Frame:
    """A picture of size `original` is scaled until it covers `size`, then cut at its centre."""

    original: Size
    size: Size

    @property
    def scale(self) -> float:
        """How many times the picture is enlarged until it covers its frame; under 1 it is made smaller."""
        (width, height), (wide, high) = self.original, self.size
        return max(wide / width, high / height)

    @property
    def time_ids(self) -> tuple[int, int, int, int, int, int]:
        """SDXL's size conditioning: original height and width, top and left of the cut, height and width of the result.

        (Podell et al. 2023, section 2.2, https://arxiv.org/abs/2307.01952; the order is that of diffusers'
        `StableDiffusionXLPipeline._get_add_time_ids`.)
        """
        (width, height), (wide, high) = self.original, self.size
        top, left = round((height * self.scale - high) / 2), round((width * self.scale - wide) / 2)
        return height, width, max(0, top), max(0, left), high, wide


def frame_of(original: Size, config: DatasetConfig) -> Frame:
    """Where a picture of this size goes.

    Raises:
        DatasetError: buckets are on, and a side is shorter than the smallest bucket's.
    """
    if not config.buckets:
        return Frame(original, config.resolution)
    return Frame(original, choose_bucket(original, config.bucket_area_px))


def learned_at(original: Size, config: DatasetConfig) -> Size | None:
    """The size at which such a picture is learned; None of one that is too small for any bucket."""
    try:
        return frame_of(original, config).size
    except DatasetError:
        return None


def measured_at(original: Size, config: DatasetConfig) -> Size | None:
    """The size at which it is looked at: as it is learned, but with no more pixels than it has of its own."""
    size = learned_at(original, config)
    if size is None:
        return None
    scale = max(1.0, Frame(original, size).scale)
    width, height = (max(LEAST_MEASURED_PX, round(side / scale)) for side in size)
    return width, height


def choose_bucket(original: Size, max_area_px: int) -> Size:
    """The size in multiples of 64, of at most `max_area_px`, that keeps a picture's shape best without enlarging it.

    As in kohya's `BucketManager.select_bucket` with `bucket_no_upscale`, but the nearest shape wins, of equals
    the larger.

    Raises:
        DatasetError: a side is shorter than 64 px.
    """
    width, height = original
    if min(original) < SIZE_STEP_PX:
        raise DatasetError(f"is {width}x{height} px, and a bucket's sides are at least {SIZE_STEP_PX}; remove it")
    scale = min(1.0, math.sqrt(max_area_px / (width * height)))

    def error(size: Size) -> tuple[float, int]:
        return abs(math.log(size[0] / size[1]) - math.log(width / height)), -size[0] * size[1]

    sides = (_multiples_near(width * scale, width), _multiples_near(height * scale, height))
    fitting = [size for size in itertools.product(*sides) if size[0] * size[1] <= max_area_px]
    return min(fitting, key=error) if fitting else _narrow(original, max_area_px)


def _multiples_near(side: float, longest: int) -> list[int]:
    """The multiples of 64 below and above, of those that are possible."""
    below = max(SIZE_STEP_PX, math.floor(side / SIZE_STEP_PX) * SIZE_STEP_PX)
    return [below, below + SIZE_STEP_PX] if below + SIZE_STEP_PX <= longest else [below]


def _narrow(original: Size, max_area_px: int) -> Size:
    """For pictures so long that the short side alone would be under 64."""
    long = max(SIZE_STEP_PX, max_area_px // SIZE_STEP_PX // SIZE_STEP_PX * SIZE_STEP_PX)
    return (long, SIZE_STEP_PX) if original[0] > original[1] else (SIZE_STEP_PX, long)
