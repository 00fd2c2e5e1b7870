"""Pictures that are nearly the same: saved again, made smaller, brighter or paler, mirrored, cut by a hair.

By thumbnails, so that thousands are compared in a second. `docs/dataset-check.md` has the study behind the threshold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylora.dataset.folder import Picture
from raylora.dataset.pixels import THUMBNAIL_PX

MOST_DISTANCE = 0.025
"""Two pictures below are nearly the same. JPEG at quality 50, half the size and contrast 15% lower stay under 0.02; of
different drawings in one pose none is nearer than 0.05, of faces 0.1, of photographs 0.4."""
LEAST_CONTRAST = 8.0
"""Levels of 255: what a thumbnail varies by less is taken for noise."""
ROWS_AT_ONCE = 512

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Alike:
    """Two sets' pictures, pair by pair, that are the same or nearly."""

    ours: Picture
    theirs: Picture


def near_duplicate_groups(pictures: Sequence[Picture]) -> dict[str, frozenset[str]]:
    """For each digest, the digests of its group (itself at least), by single linkage."""
    vectors = _vectors(pictures)
    parent = list(range(len(pictures)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for one, other in _near_pairs(vectors, vectors):
        parent[root(other)] = root(one)
    members: dict[int, set[str]] = defaultdict(set)
    for index, picture in enumerate(pictures):
        members[root(index)].add(picture.digest)
    return {picture.digest: frozenset(members[root(index)]) for index, picture in enumerate(pictures)}


def alike_between(ours: Sequence[Picture], theirs: Sequence[Picture]) -> list[Alike]:
    """For each of our pictures that another set has too, or nearly, one of those."""
    if not ours or not theirs:
        return []
    found: dict[int, int] = {}
    for one, other in _near_pairs(_vectors(ours), _vectors(theirs)):
        found.setdefault(one, other)
    return [Alike(ours[one], theirs[other]) for one, other in sorted(found.items())]


def distances(ours: Vectors, theirs: Vectors) -> Vectors:
    """(ours, theirs): half the mean squared difference of two pictures, or of one and the other's mirror image.

    Where colours differ little in the mean, that is 1 less their correlation: 0 for the same picture, 1 for two that
    have nothing to do with each other.
    """
    straight, mirrored = (_half_mean_square(ours, side) for side in (theirs, _mirrored(theirs)))
    return np.minimum(straight, mirrored)


def normalized(thumbnail: bytes) -> Vectors:
    """A thumbnail as a vector that brightness and contrast hardly change.

    Its mean is taken away and it is divided by the deviation within its colours, so that a cast which a whole set
    shares makes no two pictures alike.
    """
    pixels = np.frombuffer(thumbnail, np.uint8).reshape(THUMBNAIL_PX**2, 3).astype(np.float32)
    contrast = np.sqrt(pixels.var(axis=0).mean())
    vector: Vectors = ((pixels - pixels.mean()) / max(contrast, LEAST_CONTRAST)).reshape(-1)
    return vector


def _vectors(pictures: Sequence[Picture]) -> Vectors:
    return np.stack([normalized(picture.thumbnail) for picture in pictures])


def _mirrored(vectors: Vectors) -> Vectors:
    square = vectors.reshape(len(vectors), THUMBNAIL_PX, THUMBNAIL_PX, 3)
    return np.ascontiguousarray(square[:, :, ::-1]).reshape(len(vectors), -1)


def _half_mean_square(ours: Vectors, theirs: Vectors) -> Vectors:
    squares = (ours**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1) - 2 * ours @ theirs.T
    half_mean: Vectors = np.maximum(squares, 0) / (2 * ours.shape[1])
    return half_mean


def _near_pairs(ours: Vectors, theirs: Vectors) -> Iterator[tuple[int, int]]:
    """Places of pictures that are nearly the same; a few rows of all distances are in memory at once."""
    for first in range(0, len(ours), ROWS_AT_ONCE):
        near = distances(ours[first : first + ROWS_AT_ONCE], theirs) < MOST_DISTANCE
        yield from ((first + int(row), int(column)) for row, column in np.argwhere(near))
