"""Where pictures are cut, by hand-made cases; what holds for every case is in tests/property/test_crop_boxes.py."""

from __future__ import annotations

import pytest

from raylora.preparation.crop import Size, center_box, choose_size, focus_box, nearest_size, whole_size

SIZES = ((512, 512), (512, 768), (768, 512))


@pytest.mark.parametrize(
    ("original", "size"),
    [((600, 600), (512, 512)), ((1000, 1500), (512, 768)), ((3000, 2000), (768, 512)), ((5000, 512), (768, 512))],
)
def test_a_picture_goes_to_the_size_of_its_shape(original: Size, size: Size) -> None:
    assert choose_size(original, SIZES) == size


@pytest.mark.parametrize(("side", "expected"), [(2000, 1024), (1000, 768), (600, 512), (100, 512)])
def test_of_equal_shapes_the_largest_that_needs_no_enlarging(side: int, expected: int) -> None:
    assert choose_size((side, side), ((512, 512), (1024, 1024), (768, 768))) == (expected, expected)


def test_a_size_that_is_covered_goes_before_one_whose_shape_is_nearer() -> None:
    assert choose_size((600, 760), SIZES) == (512, 512)
    assert nearest_size((600, 760), SIZES) == (512, 768)
    assert choose_size((400, 600), SIZES) == (512, 768)  # where none is covered


def test_the_middle_is_the_middle() -> None:
    assert center_box((1000, 500), (512, 512)) == (250, 0, 750, 500)
    assert center_box((500, 1000), (512, 768)) == (0, 125, 500, 875)


def test_what_is_wanted_is_brought_to_the_middle_as_far_as_the_picture_goes() -> None:
    assert focus_box((1000, 500), (64, 64), [(600, 100, 700, 200)]) == (400, 0, 900, 500)
    assert focus_box((1000, 500), (64, 64), [(950, 100, 1000, 200)]) == (500, 0, 1000, 500)


def test_without_anything_wanted_it_is_the_middle() -> None:
    assert focus_box((1000, 500), (64, 64), []) == center_box((1000, 500), (64, 64))


def test_the_most_important_is_whole_where_not_all_can_be() -> None:
    first, all_of_them = (0, 0, 100, 100), (0, 0, 900, 100)
    assert focus_box((1000, 500), (64, 64), [first, all_of_them]) == (0, 0, 500, 500)


def test_what_is_too_large_is_cut_on_both_sides_alike() -> None:
    assert focus_box((1000, 500), (64, 64), [(200, 0, 900, 500)]) == (300, 0, 800, 500)


def test_a_whole_picture_has_at_most_the_area_and_grows_only_if_it_may() -> None:
    assert whole_size((2000, 1000), 512 * 512, may_grow=False) == (724, 362)
    assert whole_size((200, 100), 512 * 512, may_grow=False) == (200, 100)
    assert whole_size((200, 100), 512 * 512, may_grow=True) == (724, 362)
    assert whole_size((512, 512), 512 * 512, may_grow=True) == (512, 512)
