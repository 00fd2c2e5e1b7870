"""From a picture file to pixels of a wanted size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from raylora.dataset.at_once import Allowance
from raylora.dataset.sharpness import edge_blur_px

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
"""Width and height in px."""
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
WIDE = "I"
"""Pillow's mode of greys in 32 bits, of which nobody says what is white."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""What is read, whatever a file is called. Pillow knows more: it gives PostScript to Ghostscript, which runs it."""
MOST_PIXELS = 2**27
"""134 megapixels, 400 MB in memory and up to four times as much while transparent parts are laid on a ground: more
than cameras have, and no model learns a hundredth of it. A file of kilobytes can declare gigapixels."""
THUMBNAIL_PX = 16
IN_FLIGHT = Allowance(MOST_PIXELS)
"""Of all threads: as many pictures are decoded at once as have no more pixels together than the largest may have."""
Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, MOST_PIXELS)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# The bound is ours, and Pillow would only warn of it. Here and once: threads can't each change the filters and change
# them back.


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture of which only the header was read, and which is not too large to be decoded.

    Of an animation that is its first frame, the only one that is ever decoded.

    Raises:
        ValueError: it is too large.
        Exception: whatever Pillow's plug-ins raise.
    """
    with Image.open(path, formats=FORMATS) as file:
        width, height = file.size
        if width * height > MOST_PIXELS:
            raise ValueError(
                f"{width}x{height} px are {width * height / 1e6:,.0f} megapixels, of at most {MOST_PIXELS / 1e6:.0f}; "
                "make it smaller"
            )
        yield file


def open_rgb(path: Path, ground: str = "white") -> Image.Image:
    """A picture upright (EXIF), in RGB, transparent parts on a ground of a colour that Pillow knows.

    Raises:
        ValueError: it is too large, or has greys in 32 bits.
        Exception: whatever Pillow's plug-ins raise.
    """
    with opened(path) as file:
        return _rgb(file, ground)


def _rgb(file: Image.Image, ground: str = "white") -> Image.Image:
    if file.mode == WIDE:
        raise ValueError("its greys have 32 bits, and nothing says which is white; save it with 8 or 16 bits")
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
    with opened(path) as file, IN_FLIGHT.taken(file.width * file.height):
        image = _rgb(file)
        if image.size != size:
            image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.uint8)


@dataclass(frozen=True)
class Look:
    """What is measured of a picture at the size of `frames.measured_at`."""

    blur_px: float | None
    """Of its sharpest edges (`sharpness.edge_blur_px`); None where it has none."""
    contrast: float
    """Standard deviation of its greys, of 255 levels."""


@dataclass(frozen=True)
class Seen:
    """What is kept of a picture that was decoded once."""

    size: Size
    """Width and height in px, held upright."""
    thumbnail: bytes
    """16x16 RGB pixels of its middle square."""
    look: Look | None = None
    """None where it wasn't wanted."""


def see(path: Path, measured_at: Callable[[Size], Size | None] = lambda _: None) -> Seen:
    """Decode all of a picture.

    Args:
        measured_at: from a picture's size to that at which it is to be measured, if it is.

    Raises:
        ValueError: it is too large.
        Exception: whatever Pillow's plug-ins raise of a file that is no picture, or cut off.
    """
    with opened(path) as file, IN_FLIGHT.taken(file.width * file.height):
        image = _rgb(file)
        thumbnail = ImageOps.fit(image, (THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
        size = measured_at(image.size)
        return Seen(image.size, thumbnail.tobytes(), look_at(image, size) if size else None)


def look_at(image: Image.Image, size: Size) -> Look:
    """Measure a picture scaled and cut to `size`."""
    grey = image.convert("L")
    if grey.size != size:
        grey = ImageOps.fit(grey, size, Image.Resampling.LANCZOS)
    levels = np.asarray(grey, dtype=np.float32)
    return Look(edge_blur_px(levels), float(levels.std()))
