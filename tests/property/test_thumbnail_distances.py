"""What holds of the distance between any two thumbnails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylora.dataset.alike import Vectors, distances, normalized
from raylora.dataset.pixels import THUMBNAIL_PX

SHAPE = (THUMBNAIL_PX, THUMBNAIL_PX, 3)
SEEDS = st.integers(0, 2**32 - 1)


def levels(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Of 60 to 180: with room to be brighter."""
    return np.random.default_rng(seed).integers(60, 180, SHAPE, dtype=np.uint8)


def vector(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Vectors:
    return normalized(pixels.tobytes())[None]


@given(SEEDS, SEEDS)
def test_it_is_the_same_both_ways_and_never_below_none(one: int, other: int) -> None:
    first, second = vector(levels(one)), vector(levels(other))
    there, back = distances(first, second).item(), distances(second, first).item()
    assert there >= 0
    assert there == pytest.approx(back, abs=1e-4)


@given(SEEDS)
def test_a_picture_is_at_no_distance_from_its_mirror_image(seed: int) -> None:
    pixels = levels(seed)
    assert distances(vector(pixels), vector(np.ascontiguousarray(pixels[:, ::-1]))).item() == pytest.approx(0, abs=1e-4)


@given(SEEDS, st.integers(-60, 60), st.floats(0.5, 1.4))
def test_brightness_and_contrast_hardly_change_it(seed: int, brighter: int, contrast: float) -> None:
    pixels = levels(seed)
    changed = np.clip((pixels.astype(np.float64) - 120) * contrast + 120 + brighter, 0, 255).astype(np.uint8)
    assert distances(vector(pixels), vector(changed)).item() < 0.01
