"""What a picture is about: faces (OpenCV's Haar cascades), else what stands out (its fine-grained saliency)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from cv2.data import haarcascades
from numpy.typing import NDArray
from PIL import Image

from raylora.preparation.crop import Box, Size

LONGEST_SIDE_PX = 640
"""Pictures are looked at in this size: cascades find faces from 24 px on, and salience is a matter of large things."""
SMALLEST_FACE = 1 / 16
"""Of the longest side: smaller finds are leaves and wallpaper more often than faces."""
CASCADES = {"haarcascade_frontalface_alt2.xml": 5, "haarcascade_profileface.xml": 10}
"""Cascades in the order in which they are asked, until one finds something, and in how many neighbouring windows each
has to (`minNeighbors`). OpenCV's own default is 3; the profile's cascade takes corners of cameras for faces at 5."""
HEAD_MARGIN = 0.35
"""Of a face's width, on each side: cascades mark eyes to mouth, a head has hair and chin."""
BLUR = 1 / 80
"""Of the longest side: salience of single hairs grows together."""
TAIL = 0.04
"""Share of what stands out that may lie beyond each side of a subject's box."""


@dataclass(frozen=True)
class Focus:
    """Where a picture's faces are, the largest first, or its subject where none was found."""

    faces: tuple[Box, ...]
    subject: Box | None

    def wanted(self, original: Size) -> list[Box]:
        """What a cut should hold, the most important first: the largest head, all heads; or the subject."""
        if not self.faces:
            return [self.subject] if self.subject else []
        heads = [_with_hair(face, original) for face in self.faces]
        return [heads[0], _around(heads)]


def find_focus(image: Image.Image) -> Focus:
    """Look at a picture in RGB; the same picture always gives the same."""
    scale = min(1.0, LONGEST_SIDE_PX / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    pixels = np.asarray(image.resize(size, Image.Resampling.BOX) if size != image.size else image)
    faces = [_scaled(box, size, image.size) for box in _faces(pixels)]
    if faces:
        return Focus(tuple(faces), None)
    subject = _subject(pixels)
    return Focus((), _scaled(subject, size, image.size) if subject else None)


def _faces(pixels: NDArray[np.uint8]) -> list[Box]:
    """Faces in px of `pixels` (height, width, 3), the largest first."""
    grey = cv2.equalizeHist(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    smallest = max(24, round(max(grey.shape) * SMALLEST_FACE))
    for name, neighbours in CASCADES.items():
        found = _detected(name, neighbours, grey, smallest)
        if not found and "profile" in name:  # it knows faces that look to one side
            mirrored = _detected(name, neighbours, np.ascontiguousarray(grey[:, ::-1]), smallest)
            found = [(grey.shape[1] - box[2], box[1], grey.shape[1] - box[0], box[3]) for box in mirrored]
        if found:
            return sorted(found, key=lambda box: (box[0] - box[2], box))
    return []


def _detected(name: str, neighbours: int, grey: NDArray[Any], smallest: int) -> list[Box]:
    found = _cascade(name).detectMultiScale(
        grey, scaleFactor=1.1, minNeighbors=neighbours, minSize=(smallest, smallest)
    )
    return [(int(x), int(y), int(x + wide), int(y + high)) for x, y, wide, high in found]


@cache
def _cascade(name: str) -> Any:
    """A cascade that OpenCV's package ships; OpenCV 5 ships none, so pyproject.toml asks for 4."""
    return cv2.CascadeClassifier(haarcascades + name)


def _subject(pixels: NDArray[np.uint8]) -> Box | None:
    """The box around nearly all that stands out; None where nothing does."""
    _, salience = cv2.saliency.StaticSaliencyFineGrained.create().computeSaliency(
        cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    )
    smooth = cv2.GaussianBlur(np.asarray(salience, np.float64), (0, 0), max(1.0, max(salience.shape) * BLUR))
    high = np.clip(smooth - smooth.mean() - smooth.std() / 2, 0, None)
    if high.sum() <= 0:
        return None
    (left, right), (top, bottom) = (_stretch(high.sum(axis=axis)) for axis in (0, 1))
    return left, top, right, bottom


def _stretch(mass: NDArray[np.float64]) -> tuple[int, int]:
    """First and last px, the last outside, between the tails."""
    share = np.cumsum(mass) / mass.sum()
    return int(np.searchsorted(share, TAIL)), int(np.searchsorted(share, 1 - TAIL)) + 1


def _scaled(box: Box, seen: Size, original: Size) -> Box:
    """A box of the picture as it was looked at, in px of the picture itself."""
    across, down = original[0] / seen[0], original[1] / seen[1]
    return (
        max(0, int(box[0] * across)),
        max(0, int(box[1] * down)),
        min(original[0], int(np.ceil(box[2] * across))),
        min(original[1], int(np.ceil(box[3] * down))),
    )


def _with_hair(face: Box, original: Size) -> Box:
    margin = round((face[2] - face[0]) * HEAD_MARGIN)
    return (
        max(0, face[0] - margin),
        max(0, face[1] - margin),
        min(original[0], face[2] + margin),
        min(original[1], face[3] + margin),
    )


def _around(boxes: Sequence[Box]) -> Box:
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
