"""From a picture file to pixels of a wanted size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]
ORIENTATION_TAG = 0x0112
FIRST_TURNED = 5
"""EXIF orientations 5 to 8 swap width and height (CIPA DC-008, tag 0x0112)."""


def open_rgb(path: Path) -> Image.Image:
    """A picture upright (EXIF), in RGB, transparent parts on white."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # 16-bit greys; Pillow's own conversion cuts them at 255
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in px of a picture held upright, from its header alone."""
    with Image.open(path) as file:
        width, height = file.size
        turned = file.getexif().get(ORIENTATION_TAG, 1) >= FIRST_TURNED
    return (height, width) if turned else (width, height)


def load_pixels(path: Path, size: tuple[int, int]) -> Pixels:
    """A picture scaled to cover `size` = (width, height) px and cut at its centre: (height, width, 3)."""
    image = open_rgb(path)
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.uint8)
