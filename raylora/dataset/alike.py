"""Pictures that are nearly the same: saved again, made smaller, brighter or paler, mirrored, cut by a hair.

By thumbnails, so that thousands are compared in seconds. `docs/dataset-check.md` has the study behind the thresholds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from raylora.dataset.folder import Picture
from raylora.dataset.pixels import THUMBNAIL_PX

MOST_DISTANCE = 0.07
"""Two pictures below are nearly the same. JPEG at quality 50, half the size and contrast 15% lower stay under it;
different things of a third of the width on one ground are at 0.18 or more."""
SAME_DISTANCE = 0.01
"""Below, they are one picture: mirrored, or saved again at a JPEG quality of 90. Different things of a seventh of the
width on one ground are at 0.0104 or more."""
LEAST_CONTRAST = 2.0
"""Levels of 255: where a thumbnail varies by less, rounding is a good part of it, and nothing can be told by it."""
BLOCK_PX = 2
"""Side of the places that are compared, in px of a thumbnail: an eighth of its width."""
ROWS_AT_ONCE, PAIRS_AT_ONCE = 256, 2**14

Vectors = NDArray[np.float32]
Turn = Callable[[Vectors], Vectors]


def _turn(images: Vectors, quarters: int, mirrored: bool) -> Vectors:
    """Of (images, height, width, 3): each mirrored or not, then turned."""
    return np.rot90(images[:, :, ::-1] if mirrored else images, quarters, axes=(1, 2))


TURNS: tuple[Turn, ...] = tuple(
    partial(_turn, quarters=quarters, mirrored=mirrored) for quarters in range(4) for mirrored in (False, True)
)
MIRRORS = TURNS[:2]
"""A picture as it is, and its mirror image."""


@dataclass(frozen=True)
class Alike:
    """Two sets' pictures, pair by pair, that are the same or nearly."""

    ours: Picture
    theirs: Picture
    distance: float
    """0 of files that are the same byte by byte."""

    @property
    def is_same(self) -> bool:
        """Whether it is one picture beyond doubt."""
        return self.distance < SAME_DISTANCE


def near_duplicate_groups(pictures: Sequence[Picture], most: float = MOST_DISTANCE) -> dict[str, frozenset[str]]:
    """For each digest, the digests of its group (itself at least): one picture and what is nearly the same as it.

    The picture with the most such goes first and takes all that no other has (star clustering: Aslam, Pelekhov and Rus
    2004, "The Star Clustering Algorithm"), so that no chain joins pictures which have nothing in common.
    """
    if not pictures:
        return {}
    by_digest = {picture.digest: picture for picture in pictures}
    digests = sorted(by_digest)
    members: dict[int, set[str]] = defaultdict(set)
    leaders = _leaders(_vectors([by_digest[digest] for digest in digests]), most)
    for digest, leader in zip(digests, leaders, strict=True):
        members[int(leader)].add(digest)
    return {digest: frozenset(group) for group in members.values() for digest in group}


def alike_between(ours: Sequence[Picture], theirs: Sequence[Picture]) -> list[Alike]:
    """For each of our pictures that another set has too, or nearly, and turned any way, the nearest of those."""
    if not ours or not theirs:
        return []
    known = {picture.digest: place for place, picture in reversed(list(enumerate(theirs)))}
    vectors, others = _vectors(ours), _vectors(theirs)
    pairs = []
    for first in range(0, len(ours), ROWS_AT_ONCE):
        found = distances(vectors[first : first + ROWS_AT_ONCE], others, MOST_DISTANCE, TURNS)
        for picture, row in zip(ours[first : first + ROWS_AT_ONCE], found, strict=True):
            nearest = known.get(picture.digest, int(row.argmin()))
            distance = 0.0 if picture.digest in known else float(row[nearest])
            pairs.append(Alike(picture, theirs[nearest], distance))
    return [pair for pair in pairs if pair.distance < MOST_DISTANCE]


def distances(ours: Vectors, theirs: Vectors, most: float = np.inf, turns: Sequence[Turn] = MIRRORS) -> Vectors:
    """(ours, theirs): half the mean squared difference of two pictures in the place where they differ most.

    A place is 2x2 px of the thumbnails, of 64; so another thing on the same ground is another picture, however little
    of it the thing takes up. 0 is the same picture; about 4 have two that have nothing to do with each other.

    Args:
        most: what is further apart in the mean of all places isn't looked at closely; it may be infinitely far.
        turns: of these the one counts in which they are nearest.
    """
    nearest = np.full((len(ours), len(theirs)), np.inf, np.float32)
    for turn in turns:
        others = _turned(theirs, turn)
        rows, columns = np.nonzero(_half_mean_square(ours, others) < most)  # no place differs by less than the mean
        for first in range(0, len(rows), PAIRS_AT_ONCE):
            pairs = rows[first : first + PAIRS_AT_ONCE], columns[first : first + PAIRS_AT_ONCE]
            nearest[pairs] = np.minimum(nearest[pairs], _most_in_a_place(ours[pairs[0]], others[pairs[1]]))
    return nearest


def normalized(thumbnail: bytes) -> Vectors:
    """A thumbnail as a vector that brightness and contrast hardly change; of no numbers where nothing can be told.

    Its mean is taken away and it is divided by the deviation within its colours, so that a cast which a whole set
    shares makes no two pictures alike.
    """
    pixels = np.frombuffer(thumbnail, np.uint8).reshape(THUMBNAIL_PX**2, 3).astype(np.float32)
    contrast = np.sqrt(pixels.var(axis=0).mean())
    if contrast < LEAST_CONTRAST:
        return np.full(pixels.size, np.nan, np.float32)
    vector: Vectors = ((pixels - pixels.mean()) / contrast).reshape(-1)
    return vector


def _vectors(pictures: Sequence[Picture]) -> Vectors:
    return np.stack([normalized(picture.thumbnail) for picture in pictures])


def _leaders(vectors: Vectors, most: float) -> NDArray[np.int64]:
    """Whose group each belongs to."""
    leaders = np.full(len(vectors), -1)
    ones, others = _near_pairs(vectors, most)
    counts = np.bincount(ones, minlength=len(vectors))
    bounds = np.concatenate([[0], np.cumsum(counts)])
    for place in np.argsort(-counts, kind="stable"):
        if leaders[place] < 0:
            near = others[bounds[place] : bounds[place + 1]]
            leaders[near[leaders[near] < 0]] = place
            leaders[place] = place
    return leaders


def _near_pairs(vectors: Vectors, most: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both pictures of each pair that is near, in both orders, by the first one; each pair is compared once."""
    ones, others = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first in range(0, len(vectors), ROWS_AT_ONCE):
        rows, columns = np.nonzero(distances(vectors[first : first + ROWS_AT_ONCE], vectors[first:], most) < most)
        is_later = columns >= ROWS_AT_ONCE
        ones += [first + rows, first + columns[is_later]]
        others += [first + columns, first + rows[is_later]]
    order = np.argsort(np.concatenate(ones), kind="stable")
    return np.concatenate(ones)[order], np.concatenate(others)[order]


def _turned(vectors: Vectors, turn: Turn) -> Vectors:
    images = turn(vectors.reshape(len(vectors), THUMBNAIL_PX, THUMBNAIL_PX, 3))
    return np.ascontiguousarray(images).reshape(vectors.shape)


def _half_mean_square(ours: Vectors, theirs: Vectors) -> Vectors:
    squares = (ours**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1) - 2 * ours @ theirs.T
    half_mean: Vectors = np.maximum(squares, 0) / (2 * ours.shape[1])
    return half_mean


def _most_in_a_place(ours: Vectors, theirs: Vectors) -> Vectors:
    """Of pairs, one of ours and one of theirs each."""
    across = THUMBNAIL_PX // BLOCK_PX
    squares = ((ours - theirs) ** 2).reshape(len(ours), across, BLOCK_PX, across, BLOCK_PX * 3)
    most: Vectors = squares.mean(axis=(2, 4)).max(axis=(1, 2)) / 2
    return most
