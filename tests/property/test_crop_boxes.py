"""What holds for every cut of every picture (Hypothesis)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from raylora.preparation.crop import (
    Box,
    Size,
    center_box,
    choose_size,
    covers,
    focus_box,
    largest,
    nearest_size,
    whole_size,
)

SIDES = st.integers(1, 3000)
PICTURES = st.tuples(SIDES, SIDES)
SIZES = st.tuples(*[st.integers(1, 32).map(lambda steps: 64 * steps)] * 2)
tried = settings(max_examples=200)


@st.composite
def pictures_with_boxes(draw: st.DrawFn) -> tuple[Size, list[Box]]:
    """A picture, and boxes inside it."""
    width, height = draw(PICTURES)
    boxes = []
    for _ in range(draw(st.integers(0, 3))):
        left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        boxes.append((left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))))
    return (width, height), boxes


def holds(box: Box, other: Box) -> bool:
    return box[0] <= other[0] and box[1] <= other[1] and box[2] >= other[2] and box[3] >= other[3]


@tried
@given(pictures_with_boxes(), SIZES)
def test_a_cut_is_inside_the_picture_and_as_large_as_its_shape_allows(
    picture: tuple[Size, list[Box]], size: Size
) -> None:
    original, wanted = picture
    for box in (focus_box(original, size, wanted), center_box(original, size)):
        assert holds((0, 0, *original), box)
        wide, high = box[2] - box[0], box[3] - box[1]
        assert (wide, high) == largest(original, size)
        assert wide == original[0] or high == original[1]
        ratio = size[0] / size[1]
        assert abs(wide - high * ratio) <= 0.51 * max(1, ratio) or min(wide, high) == 1


@tried
@given(pictures_with_boxes(), SIZES)
def test_the_first_thing_wanted_is_whole_if_any_cut_could_hold_it(picture: tuple[Size, list[Box]], size: Size) -> None:
    original, wanted = picture
    wide, high = largest(original, size)
    for first in wanted[:1]:
        if first[2] - first[0] <= wide and first[3] - first[1] <= high:
            assert holds(focus_box(original, size, wanted), first)


@tried
@given(pictures_with_boxes(), SIZES)
def test_all_that_is_wanted_is_whole_if_one_cut_could_hold_it(picture: tuple[Size, list[Box]], size: Size) -> None:
    original, wanted = picture
    if not wanted:
        return
    lefts, tops, rights, bottoms = zip(*wanted, strict=True)
    wide, high = largest(original, size)
    if max(rights) - min(lefts) <= wide and max(bottoms) - min(tops) <= high:
        box = focus_box(original, size, wanted)
        assert all(holds(box, one) for one in wanted)


@tried
@given(PICTURES, st.lists(SIZES, min_size=1, max_size=4))
def test_no_size_that_is_covered_fits_a_picture_better_than_the_chosen_one(original: Size, sizes: list[Size]) -> None:
    for choose, rivals in (
        (choose_size, [size for size in sizes if covers(original, size)] or sizes),
        (nearest_size, sizes),
    ):
        chosen = choose(original, sizes)
        assert chosen in rivals
        assert misfit(original, chosen) <= min(misfit(original, size) for size in rivals) * (1 + 1e-6)
        same = [size for size in sizes if size[0] * chosen[1] == size[1] * chosen[0]]
        if any(covers(original, size) for size in same):
            assert covers(original, chosen)


def misfit(original: Size, size: Size) -> float:
    """How many times as wide, or as narrow, one is as the other."""
    ratio, own = original[0] / original[1], size[0] / size[1]
    return max(own / ratio, ratio / own)


@tried
@given(PICTURES, SIZES, st.booleans())
def test_a_whole_picture_keeps_its_shape_within_the_area(original: Size, size: Size, may_grow: bool) -> None:
    area = size[0] * size[1]
    result = whole_size(original, area, may_grow)
    assert result[0] * result[1] <= max(area, max(result))
    scale = max(result[0] / original[0], result[1] / original[1])
    assert may_grow or scale <= 1
    assert (
        all(abs(side - full * scale) <= 1 + scale for side, full in zip(result, original, strict=True)) or 1 in result
    )
