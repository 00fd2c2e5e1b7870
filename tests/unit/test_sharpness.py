"""The blur of a picture's strongest edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from raylora.dataset.sharpness import MOST_SIDE_PX, edge_blur_px, picture_blur_px
from tests.drawn import drawn, put

STEP = np.repeat(np.where(np.arange(128) < 64, 40.0, 200.0)[None], 128, axis=0).astype(np.float32)


def levels(image: Image.Image) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.asarray(image.convert("L"), dtype=np.float32)


@pytest.mark.parametrize("deviation", [1.0, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("contrast", [0.2, 1.0])
def test_of_a_step_it_is_the_deviation_that_it_was_blurred_with(deviation: float, contrast: float) -> None:
    measured = edge_blur_px(contrast * gaussian_filter(STEP, deviation))
    assert measured == pytest.approx(deviation, rel=0.01)


def test_a_hard_edge_has_next_to_none() -> None:
    measured = edge_blur_px(STEP)
    assert measured is not None and measured < 0.3


def test_more_blur_measures_more() -> None:
    image = drawn(0, (256, 256))
    found = [edge_blur_px(levels(image.filter(ImageFilter.GaussianBlur(px)))) or 0.0 for px in (0, 1, 2, 3, 5)]
    assert found == sorted(found)
    assert found[0] < 0.5 and found[2] > 1.3


def test_grain_makes_a_blurred_picture_no_sharper() -> None:
    """What the Laplacian's variance would take it for."""
    soft = levels(drawn(0, (256, 256)).filter(ImageFilter.GaussianBlur(3)))
    grainy = soft + np.random.default_rng(0).normal(0, 3, soft.shape).astype(np.float32)
    assert (edge_blur_px(grainy) or 0.0) > 2


def test_a_sharp_subject_before_a_soft_background_is_sharp() -> None:
    image = drawn(0, (256, 256)).filter(ImageFilter.GaussianBlur(6))
    image.paste(drawn(1, (96, 96)), (80, 80))
    measured = edge_blur_px(levels(image))
    assert measured is not None and measured < 1


def test_a_plain_picture_has_no_edges() -> None:
    assert edge_blur_px(np.full((64, 64), 128, np.float32)) is None


def test_a_picture_is_measured_at_the_size_at_which_it_is_learned(tmp_path: Path) -> None:
    path = put(tmp_path, "soft.png", drawn(0, (512, 512)).filter(ImageFilter.GaussianBlur(4)))
    large, small = picture_blur_px(path, (512, 512)), picture_blur_px(path, (128, 128))
    assert large is not None and small is not None
    assert large > 3 and small < 1.3


def test_of_a_large_picture_the_middle_counts(tmp_path: Path) -> None:
    side = MOST_SIDE_PX + 200
    image = drawn(0, (side, side)).filter(ImageFilter.GaussianBlur(3))
    image.paste(drawn(1, (90, 90)), (0, 0))
    measured = picture_blur_px(put(tmp_path, "soft.png", image), (side, side))
    assert measured is not None and measured > 2
