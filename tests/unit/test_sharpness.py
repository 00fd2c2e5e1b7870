"""The blur of a picture's strongest edges."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from raylora.dataset.pixels import look_at
from raylora.dataset.sharpness import edge_blur_px
from tests.drawn import drawn

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


def blur_of(image: Image.Image, side: int) -> float:
    """As it is learned at this size."""
    found = look_at(image, (side, side)).blur_px
    assert found is not None
    return found


def test_a_picture_is_measured_at_the_size_at_which_it_is_learned() -> None:
    soft = drawn(0, (512, 512)).filter(ImageFilter.GaussianBlur(4))
    assert blur_of(soft, 512) > 3
    assert blur_of(soft, 128) < 1.3


def test_a_sharp_subject_may_be_anywhere_in_a_large_picture() -> None:
    """Portraits have it off the centre."""
    image = drawn(0, (768, 768)).filter(ImageFilter.GaussianBlur(6))
    assert blur_of(image, 768) > 4
    image.paste(drawn(1, (120, 400)), (10, 180))
    assert blur_of(image, 768) < 1
