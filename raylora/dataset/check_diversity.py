"""Whether one pose or background dominates a data set, as an image encoder sees it.

How alike two pictures are to an encoder depends on the encoder, so the measure is its own: two pictures show the same
if they are as alike as a picture and a tighter cut of its mirror image usually are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raylora.config import DatasetConfig
from raylora.dataset.at_once import at_once
from raylora.dataset.findings import Finding, names
from raylora.dataset.folder import Picture
from raylora.dataset.frames import measured_at
from raylora.dataset.pixels import Pixels, load_pixels
from raylora.dataset.split import Groups

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[Pixels]], Vectors]
"""Pictures (height, width, 3) to (pictures, width) vectors of length 1, by an image encoder."""

MOST_LOOKED_AT = 200
"""Images, spread over the set: a large encoder takes a second for each on a CPU."""
AT_ONCE = 16
TRIED_ON = 24
"""Images that say how alike a picture and its own cut are."""
CUT = 0.8
"""Of each side: as another take of the same scene would be framed."""
USUALLY = 0.75
"""Of the images. The half would miss many of the takes of one scene; see docs/dataset-check.md."""
DOMINATES = 0.5
"""A majority."""
FEWEST = 4


def check_diversity(
    pictures: Sequence[Picture], root: Path, config: DatasetConfig, embed: Embed, groups: Groups
) -> list[Finding]:
    """One picture that most others show again. Near-duplicates count once: they are told by themselves.

    Args:
        groups: as `near_duplicate_groups` has them.
    """
    unique = list({groups[picture.digest]: picture for picture in reversed(pictures)}.values())[::-1]
    looked_at = [unique[place] for place in _spread(len(unique), MOST_LOOKED_AT)]
    if len(looked_at) < FEWEST:
        return []
    vectors, others, tried = _embedded(looked_at, config, embed)
    alike = vectors @ vectors.T >= own_likeness(vectors[tried], others)
    np.fill_diagonal(alike, True)
    most = int(alike.sum(axis=1).argmax())
    same = np.flatnonzero(alike[most])
    if len(same) < DOMINATES * len(looked_at) or len(same) < FEWEST:
        return []
    members = [looked_at[most], *(looked_at[int(place)] for place in same if place != most)]
    found = f"{len(same)} of {len(looked_at)} images show nearly the same as {names(members[:1], root)[0]}"
    effect = "its pose, framing or background becomes a part of what is learned, and hard to prompt away"
    mend = "add images with other poses, light and backgrounds, or keep fewer of these"
    return [Finding("warning", "diversity", found, effect, mend, names(members, root))]


def own_likeness(vectors: Vectors, other_takes: Vectors) -> float:
    """The cosine that a picture and a tighter cut of its mirror image have in three of four cases."""
    return float(np.quantile((vectors * other_takes).sum(axis=1), 1 - USUALLY))


def _spread(count: int, most: int) -> list[int]:
    """Places of at most so many, evenly spread."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, most))}) if count else []


def _embedded(pictures: Sequence[Picture], config: DatasetConfig, embed: Embed) -> tuple[Vectors, Vectors, list[int]]:
    """The pictures' vectors; those of other takes of some, and the places of these. Each picture is decoded once."""
    tried = _spread(len(pictures), TRIED_ON)
    found, others = [], []
    for first in range(0, len(pictures), AT_ONCE):
        chunk = pictures[first : first + AT_ONCE]
        pixels = at_once(lambda picture: _pixels_of(picture, config), chunk)
        found.append(embed(pixels))
        if takes := [_other_take(pixels[place - first]) for place in tried if first <= place < first + len(chunk)]:
            others.append(embed(takes))
    return np.concatenate(found), np.concatenate(others), tried


def _pixels_of(picture: Picture, config: DatasetConfig) -> Pixels:
    """What is learned of it, enlarged by nothing: an encoder takes any size."""
    return load_pixels(picture.path, measured_at(picture.size, config) or picture.size)


def _other_take(pixels: Pixels) -> Pixels:
    """The middle of the mirror image."""
    height, width = pixels.shape[:2]
    top, left = round(height * (1 - CUT) / 2), round(width * (1 - CUT) / 2)
    return np.ascontiguousarray(pixels[top : height - top, left : width - left][:, ::-1])
