"""From a picture file to pixels of a wanted size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]
ORIENTATION_TAG = 0x0112
LAST_ORIENTATION = 8
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each orientation upright; the same as in Pillow's `ImageOps.exif_transpose`, which fails on
EXIF that is damaged."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""What is read, whatever a file is called. Pillow knows more: it gives PostScript to Ghostscript, which runs it."""
MOST_PIXELS = 2**27
"""134 megapixels, 400 MB in memory: more than cameras have, and no model learns a hundredth of it. A file of kilobytes
can declare gigapixels."""
THUMBNAIL_PX = 16


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture of which only the header was read, and which is not too large to be decoded.

    Of an animation that is its first frame, the only one that is ever decoded.

    Raises:
        ValueError: it is too large.
        Exception: whatever Pillow's plug-ins raise.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound is ours, and lower than its error's
        file = Image.open(path, formats=FORMATS)
    with file:
        width, height = file.size
        if width * height > MOST_PIXELS:
            raise ValueError(
                f"{width}x{height} px are {width * height / 1e6:,.0f} megapixels, of at most {MOST_PIXELS / 1e6:.0f}; "
                "make it smaller"
            )
        yield file


def open_rgb(path: Path, ground: str = "white") -> Image.Image:
    """A picture upright (EXIF), in RGB, transparent parts on a ground of a colour that Pillow knows."""
    with opened(path) as file:
        image = _upright(file)
    if image.mode.startswith("I"):  # 16-bit greys; Pillow's own conversion cuts them at 255
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        below = Image.new("RGBA", image.size, ground)
        image = Image.alpha_composite(below, image)
    return image.convert("RGB")


def _orientation(file: Image.Image) -> int:
    """As EXIF has it; 1, upright, where that makes no sense."""
    try:
        found = file.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # Pillow's reader of EXIF raises many kinds
        return 1
    return found if isinstance(found, int) and 1 <= found <= LAST_ORIENTATION else 1


def _upright(file: Image.Image) -> Image.Image:
    file.load()  # and turn it, of a TIFF, so that nothing is left to turn
    turn = TURNS.get(_orientation(file))
    return file.transpose(turn) if turn is not None else file.copy()


def load_pixels(path: Path, size: tuple[int, int]) -> Pixels:
    """A picture scaled to cover `size` = (width, height) px and cut at its centre: (height, width, 3)."""
    image = open_rgb(path)
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.uint8)


@dataclass(frozen=True)
class Seen:
    """What is kept of a picture that was decoded once."""

    size: tuple[int, int]
    """Width and height in px, held upright."""
    thumbnail: bytes
    """16x16 RGB pixels of its middle square."""


def see(path: Path) -> Seen:
    """Decode all of a picture.

    Raises:
        ValueError: it is too large.
        Exception: whatever Pillow's plug-ins raise of a file that is no picture, or cut off.
    """
    image = open_rgb(path)
    thumbnail = ImageOps.fit(image, (THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return Seen(image.size, thumbnail.tobytes())
