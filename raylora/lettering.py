"""Words in pictures: the bundled font, and what is written in place of letters that it lacks."""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageFont

from raylora.bundled import FONT

Font = ImageFont.FreeTypeFont
NO_LETTER = "\uffff"
"""Which no font has: it is drawn as the box that stands for whatever is lacking."""


@lru_cache(maxsize=8)
def font_of(size_px: int) -> Font:
    """The bundled font. Pillow's own has ASCII alone, and all else as one and the same box."""
    return ImageFont.truetype(FONT, size_px)


def writable(text: str, font: Font) -> str:
    """The text with each letter that the font lacks by its number, such as \\u65e5, so that all can be told apart."""
    return "".join(sign if sign.isascii() or _has(font, sign) else _numbered(sign) for sign in text)


@lru_cache(maxsize=4096)
def _has(font: Font, sign: str) -> bool:
    return _drawn(font, sign) != _drawn(font, NO_LETTER)


def _drawn(font: Font, sign: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(sign)
    return mask.size, bytes(mask)


def _numbered(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode()
