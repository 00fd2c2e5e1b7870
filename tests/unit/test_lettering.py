"""Words in pictures: which letters the bundled font has, and what stands for others."""

from __future__ import annotations

import pytest

from raylora.bundled import FONT
from raylora.lettering import NO_LETTER, font_of, writable


def drawn(text: str) -> bytes:
    return bytes(font_of(15).getmask(text))


@pytest.mark.parametrize("text", ["señora, niña", "Größe", "zażółć gęślą jaźń", "кот и лиса", "αβγ", "×…’—", "e\u0301"])
def test_letters_are_drawn_as_such(text: str) -> None:
    assert writable(text, font_of(15)) == text
    assert all(drawn(sign) != drawn(NO_LETTER) for sign in text)


def test_letters_that_the_font_lacks_are_told_by_their_numbers() -> None:
    assert writable("a 日本 \U0001f98a", font_of(15)) == r"a \u65e5\u672c \U0001f98a"


def test_the_fonts_licence_lies_beside_it() -> None:
    assert "Bitstream Vera Fonts Copyright" in (FONT.parent / "LICENSE").read_text()
