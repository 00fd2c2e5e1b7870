"""Where pictures are cut: one size for all, or buckets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylora.config import DatasetConfig
from raylora.dataset.frames import Frame, Size, choose_bucket, frame_of, measured_at
from raylora.errors import DatasetError

SIDE = st.integers(64, 4000)


@pytest.mark.parametrize(
    ("original", "area", "expected"),
    [
        ((512, 512), 512 * 512, (512, 512)),
        ((3000, 3000), 512 * 512, (512, 512)),
        ((3000, 2000), 512 * 512, (576, 384)),
        ((2000, 3000), 512 * 512, (384, 576)),
        ((1024, 768), 1024 * 1024, (1024, 768)),
        ((1920, 1080), 1024 * 1024, (1344, 768)),
        ((300, 500), 512 * 512, (256, 448)),  # smaller than the target: cut, and not enlarged
        ((6400, 64), 512 * 512, (4096, 64)),
    ],
)
def test_buckets(original: tuple[int, int], area: int, expected: tuple[int, int]) -> None:
    assert choose_bucket(original, area) == expected


@given(SIDE, SIDE, st.sampled_from([256, 512, 768, 1024]))
def test_a_bucket_fits_the_picture_and_the_area(width: int, height: int, side: int) -> None:
    wide, high = choose_bucket((width, height), side * side)
    assert wide % 64 == high % 64 == 0
    assert wide * high <= side * side
    assert wide <= width
    assert high <= height


def test_a_picture_too_small_for_any_bucket_is_refused() -> None:
    with pytest.raises(DatasetError, match="is 63x500 px"):
        choose_bucket((63, 500), 512 * 512)


def test_without_buckets_all_have_the_resolution() -> None:
    assert frame_of((10, 900), DatasetConfig(resolution=(512, 768))).size == (512, 768)
    assert frame_of((800, 1600), DatasetConfig(resolution=(512, 512), buckets=True)).size == (320, 704)
    config = DatasetConfig(resolution=(512, 512), buckets=True, max_area_px=256 * 256)
    assert frame_of((800, 800), config).size == (256, 256)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (Frame((1024, 1024), (1024, 1024)), (1024, 1024, 0, 0, 1024, 1024)),
        (Frame((2048, 1024), (512, 512)), (1024, 2048, 0, 256, 512, 512)),  # scaled to 1024x512, cut at both sides
        (Frame((1000, 3000), (512, 512)), (3000, 1000, 512, 0, 512, 512)),
    ],
)
def test_time_ids_are_original_size_cut_and_size(frame: Frame, expected: tuple[int, ...]) -> None:
    assert frame.time_ids == expected


@pytest.mark.parametrize(
    ("original", "resolution", "measured"),
    [((1000, 800), 512, (512, 512)), ((200, 100), 10**6, (100, 100)), ((200, 100), "64x1000000000", (16, 100))],
)
def test_nothing_is_measured_with_more_pixels_than_it_has(
    original: Size, resolution: int | str, measured: Size
) -> None:
    assert measured_at(original, DatasetConfig.model_validate({"resolution": resolution})) == measured
