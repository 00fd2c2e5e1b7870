"""One scene that most images of a set show, as an image encoder sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from raylora.config import Experiment
from raylora.dataset.check import check_dataset
from raylora.dataset.check_diversity import Vectors
from raylora.dataset.findings import Finding
from raylora.dataset.pixels import Pixels
from tests.drawn import drawn, put


def mean_colours(pixels: Sequence[Pixels]) -> Vectors:
    """An encoder that sees colours in thirty-six places."""
    places = [np.asarray(Image.fromarray(one).resize((6, 6), Image.Resampling.BOX), np.float32) for one in pixels]
    vectors = np.stack([place.reshape(-1) - place.mean() for place in places])
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def diversity_of(folder: Path) -> list[Finding]:
    experiment = Experiment().with_params({"dataset.resolution": 128})
    found = check_dataset(str(folder), experiment, embed=mean_colours)
    return [finding for finding in found if finding.check == "diversity"]


def test_one_scene_that_most_images_show(drawn_set: Path) -> None:
    """Further apart than near-duplicates are, which count once."""
    assert diversity_of(drawn_set) == []
    scene = drawn(200, (160, 160))
    for number in range(20):
        left, top = number % 5 * 8, number // 5 * 8
        put(drawn_set, f"take_{number:02d}.png", scene.crop((left, top, left + 120, top + 120)), f"sks, take {number}")
    (found,) = diversity_of(drawn_set)
    assert found.level == "warning" and "of 36 images show nearly the same as take_" in found.found
    assert sum(name.startswith("take_") for name in found.files) > 0.9 * len(found.files)


def test_copies_of_a_picture_are_no_scene(drawn_set: Path) -> None:
    for quality in range(60, 90):
        put(drawn_set, f"copy_{quality}.jpg", Image.new("RGB", (1, 1)), f"sks, copy {quality}")
        drawn(3).save(drawn_set / f"copy_{quality}.jpg", quality=quality)
    assert diversity_of(drawn_set) == []


def test_no_picture_is_enlarged_for_it(drawn_set: Path) -> None:
    """At a resolution of a million one alone would take all memory."""
    sizes: set[tuple[int, ...]] = set()

    def embed(pixels: Sequence[Pixels]) -> Vectors:
        sizes.update(one.shape[:2] for one in pixels)
        return mean_colours(pixels)

    check_dataset(str(drawn_set), Experiment().with_params({"dataset.resolution": 2048}), embed=embed)
    widest = max(max(Image.open(path).size) for path in drawn_set.glob("*.png"))
    assert sizes and max(map(max, sizes)) <= widest
