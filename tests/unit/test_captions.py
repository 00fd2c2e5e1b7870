"""Captions as they are learned."""

from __future__ import annotations

from typing import Any

import pytest

from raylora.config import DatasetConfig
from raylora.dataset.captions import varies, vary

TAGS = "sks, red hair, smile, glasses, hat, blue background"


def variants(count: int = 20, caption: str = TAGS, **settings: Any) -> list[str]:
    return [vary(caption, DatasetConfig(**settings), (0, draw)) for draw in range(count)]


def test_a_caption_is_learned_as_written_unless_told_otherwise() -> None:
    assert not varies(DatasetConfig())
    assert variants() == [TAGS] * 20
    assert variants(caption="odd ,, spacing,x") == ["odd ,, spacing,x"] * 20


@pytest.mark.parametrize("keep_tokens", [0, 1, 3])
def test_shuffled_tags_are_the_same_tags_with_the_first_in_place(keep_tokens: int) -> None:
    tags = TAGS.split(", ")
    shuffled = [text.split(", ") for text in variants(shuffle_caption=True, keep_tokens=keep_tokens)]
    assert all(sorted(order) == sorted(tags) for order in shuffled)
    assert all(order[:keep_tokens] == tags[:keep_tokens] for order in shuffled)
    assert all(len({order[place] for order in shuffled}) > 1 for place in range(keep_tokens, len(tags)))


def test_a_caption_varies_by_its_draw_alone() -> None:
    config = DatasetConfig(shuffle_caption=True, tag_dropout=0.3, caption_dropout=0.1)
    assert varies(config)
    assert vary(TAGS, config, (5, 9)) == vary(TAGS, config, (5, 9))
    assert len({vary(TAGS, config, (seed, position)) for seed in range(3) for position in range(3)}) > 5


def test_keeping_more_tags_than_there_are_keeps_all() -> None:
    assert set(variants(shuffle_caption=True, keep_tokens=10)) == {TAGS}
    assert set(variants(caption="a photo of sks", shuffle_caption=True)) == {"a photo of sks"}


def test_as_many_captions_are_dropped_as_asked() -> None:
    dropped = variants(2000, caption_dropout=0.25).count("")
    assert 430 < dropped < 570


def test_as_many_tags_are_dropped_as_asked_and_never_the_kept_ones() -> None:
    thinned = [text.split(", ") for text in variants(1000, tag_dropout=0.4, keep_tokens=2)]
    assert all(tags[:2] == ["sks", "red hair"] for tags in thinned)
    left = sum(len(tags) - 2 for tags in thinned) / 4000
    assert left == pytest.approx(0.6, abs=0.03)
    assert all(tags == sorted(tags, key=TAGS.index) for tags in thinned)  # dropping alone keeps the order
