"""One picture, cut: where, why so, and the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raylora.config import SIZE_STEP_PX
from raylora.dataset.pixels import WIDE, open_rgb, opened
from raylora.errors import first_line
from raylora.preparation.crop import Box, Size, center_box, choose_size, covers, focus_box, nearest_size, whole_size
from raylora.preparation.settings import PrepareSettings
from raylora.redaction import one_line

RULES = 2
"""Of this module, `crop.py`, `focus.py` and `dataset/pixels.py`: raise it when the same picture and settings give other
cuts or pixels."""
UNKNOWN_WHITE = {
    "F": "has fractions for pixels, and nothing says which is white; save it with 8 or 16 bits",
    WIDE: "has greys in 32 bits, and nothing says which is white; save it with 8 or 16 bits",
}
"""Pillow's modes of pixels that come to no colour by themselves."""
DEEP = "I;16"
"""Begins Pillow's modes of greys in 16 bits."""
FEWEST_DEEP = 2**12
"""Greys that all are below come out nearly black: sensors and scanners put 10 or 12 bits into 16 so."""
OF_TWO_SHOTS = "MPO"
"""Pillow's name of a JPEG with a second view or a preview behind the picture, as phones and cameras write it."""


@dataclass(frozen=True)
class Cut:
    """What becomes of a picture; boxes are in px of the picture held upright."""

    original: Size
    box: Box
    size: Size
    """Of the prepared picture."""
    faces: tuple[Box, ...] = ()
    subject: Box | None = None
    notes: tuple[str, ...] = ()
    """What its owner should know of it."""
    refused: str | None = None
    """Why it is left out, if it is."""

    @property
    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def cut_from_json(content: Mapping[str, Any]) -> Cut:
    """What `Cut.as_json` gave, also after it was a file.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    cut = Cut(
        original=_pair(content["original"]),
        box=_four(content["box"]),
        size=_pair(content["size"]),
        faces=tuple(_four(face) for face in content["faces"]),
        subject=_four(content["subject"]) if content["subject"] else None,
        notes=tuple(map(str, content["notes"])),
        refused=content["refused"],
    )
    if min(*cut.original, *cut.size) < 1:
        raise ValueError("has a picture without pixels")
    return cut


def _pair(numbers: Any) -> Size:
    width, height = map(int, numbers)
    return width, height


def _four(numbers: Any) -> Box:
    left, top, right, bottom = map(int, numbers)
    return left, top, right, bottom


class UnreadableError(Exception):
    """A file that is no picture; the message says why."""


def read_picture(path: Path, background: str) -> tuple[Image.Image, tuple[str, ...]]:
    """A picture upright in RGB, and what was left aside of the file.

    Raises:
        UnreadableError: it is none, is cut off, or has more pixels than are decoded.
    """
    try:
        with opened(path) as file:
            moves = bool(getattr(file, "is_animated", False)) and file.format != OF_TWO_SHOTS
            if fault := UNKNOWN_WHITE.get(file.mode) or _too_dark(file):
                raise UnreadableError(fault)
        return open_rgb(path, background), ("has several frames; the first is taken",) if moves else ()
    except UnreadableError:
        raise
    except Exception as error:  # Pillow's plug-ins raise many kinds
        told = first_line(error).replace(str(path), path.name)  # a manifest says the same wherever it is made
        raise UnreadableError(f"can't be read as an image ({one_line(told)})") from None


def _too_dark(file: Image.Image) -> str | None:
    """Why greys in 16 bits can't be told from black, if they can't."""
    highest = int(np.asarray(file).max()) if file.mode.startswith(DEEP) else 0
    if not 0 < highest < FEWEST_DEEP:
        return None
    return f"uses {highest.bit_length()} of its 16 bits, so it would come out nearly black; save it with 8 bits"


def plan_cut(image: Image.Image, settings: PrepareSettings, notes: tuple[str, ...] = ()) -> Cut:
    """Where a picture in RGB is cut, or why it is left out."""
    if settings.crop == "none":
        return _whole(image.size, nearest_size(image.size, settings.sizes), settings.upscale, notes)
    size = choose_size(image.size, settings.sizes)
    too_small = not covers(image.size, size)
    if too_small and not settings.upscale:
        reason = f"is {_px(image.size)}, smaller than {_px(size)}; --upscale enlarges it"
        return Cut(image.size, center_box(image.size, size), size, notes=notes, refused=reason)
    notes = (*notes, f"is {_px(image.size)}, enlarged for {_px(size)}") if too_small else notes
    if settings.crop == "center":
        return Cut(image.size, center_box(image.size, size), size, notes=notes)
    from raylora.preparation.focus import find_focus

    focus = find_focus(image)
    box = focus_box(image.size, size, focus.wanted(image.size))
    return Cut(image.size, box, size, focus.faces, focus.subject, notes)


def _whole(original: Size, size: Size, upscale: bool, notes: tuple[str, ...]) -> Cut:
    """Nothing cut off: as many px as the size has, or fewer where the picture has fewer."""
    result = whole_size(original, size[0] * size[1], upscale)
    box = (0, 0, *original)
    if min(result) < SIZE_STEP_PX:
        reason = f"is {_px(original)}: its short side comes to {min(result)} px, and {SIZE_STEP_PX} are the fewest"
        return Cut(original, box, result, notes=notes, refused=reason)
    if original[0] * original[1] < size[0] * size[1]:
        told = f"enlarged to {_px(result)}" if upscale else "kept so"
        notes = (*notes, f"is {_px(original)}, fewer px than {_px(size)}; {told}")
    return Cut(original, box, result, notes=notes)


def apply_cut(image: Image.Image, cut: Cut) -> Image.Image:
    """The prepared picture."""
    if cut.box == (0, 0, *cut.size) and image.size == cut.size:
        return image
    return image.resize(cut.size, Image.Resampling.LANCZOS, box=cut.box)


def _px(size: Size) -> str:
    return f"{size[0]}x{size[1]} px"
