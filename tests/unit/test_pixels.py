"""Pictures are bounded before they are decoded, and stand upright."""

from __future__ import annotations

import struct
import threading
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raylora.dataset import pixels
from raylora.dataset.at_once import Allowance
from raylora.dataset.pixels import MOST_PIXELS, load_pixels, open_rgb, opened, see

ORIENTATION = 0x0112


def declaring(width: int, height: int) -> bytes:
    """A PNG of a declared size, of which not a byte of pixels is there."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((header, 13), (b"IDAT", 0))
    parts = [struct.pack(">I", size) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk, size in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [12_000, 50_000])
def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path, side: int) -> None:
    """Also where Pillow alone would only warn."""
    assert side**2 > MOST_PIXELS
    (tmp_path / "bomb.png").write_bytes(declaring(side, side))
    for read in (see, open_rgb, lambda path: load_pixels(path, (64, 64))):
        with pytest.raises(Exception, match=r"megapixels|exceeds limit"):
            read(tmp_path / "bomb.png")


def test_pictures_within_the_bound_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own bound was lower. Nobody is warned, and no filter of warnings is changed, which threads share."""
    (tmp_path / "large.png").write_bytes(declaring(11_000, 12_000))
    assert MOST_PIXELS >= 11_000 * 12_000
    open_image = Image.open
    seen: list[object] = []

    def watched(*args: Any, **options: Any) -> Image.Image:
        seen.append(list(warnings.filters))
        return open_image(*args, **options)

    monkeypatch.setattr(Image, "open", watched)
    warnings.simplefilter("error")
    before = list(warnings.filters)
    with opened(tmp_path / "large.png") as file:
        assert file.size == (11_000, 12_000)
    assert seen == [before]


def test_each_frame_of_an_animation_is_no_more_than_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert load_pixels(tmp_path / "moving.webp", (10, 10))[0, 0].tolist() == [255, 0, 0]
    monkeypatch.setattr(pixels, "MOST_PIXELS", 99)
    with pytest.raises(ValueError, match="10x10 px"):
        load_pixels(tmp_path / "moving.webp", (10, 10))


def test_postscript_is_not_run(tmp_path: Path) -> None:
    """Pillow would give it to Ghostscript."""
    (tmp_path / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(OSError, match="cannot identify"), opened(tmp_path / "page.png"):
        pass


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_a_picture_stands_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    """As `ImageOps.exif_transpose` has it; a TIFF's header has the turned size already."""
    image = Image.fromarray(np.arange(40 * 24, dtype=np.uint8).reshape(24, 40) // 4 * 4).convert("RGB")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"tiffinfo": {ORIENTATION: orientation}} if suffix == "tif" else {"exif": exif}
    path = tmp_path / f"turned.{suffix}"
    image.save(path, **options)
    from PIL import ImageOps

    with Image.open(path) as file:
        expected = ImageOps.exif_transpose(file).convert("RGB")
    assert open_rgb(path).size == see(path).size == ((24, 40) if orientation >= 5 else (40, 24))
    assert np.array_equal(np.asarray(open_rgb(path)), np.asarray(expected))


@pytest.mark.parametrize("content", [b"garbage", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04left\0\0\0\0"])
def test_exif_that_makes_no_sense_turns_nothing(tmp_path: Path, content: bytes) -> None:
    Image.new("RGB", (8, 4)).save(tmp_path / "odd.jpg", exif=b"Exif\0\0" + content)
    assert see(tmp_path / "odd.jpg").size == open_rgb(tmp_path / "odd.jpg").size == (8, 4)


def test_no_more_pixels_are_decoded_at_once_than_the_largest_picture_may_have() -> None:
    allowance, lock = Allowance(10), threading.Lock()
    inside: list[int] = []
    most: list[int] = []

    def work(amount: int) -> None:
        with allowance.taken(amount):
            with lock:
                inside.append(min(amount, 10))
                most.append(sum(inside))
            time.sleep(0.001)
            with lock:
                inside.remove(min(amount, 10))

    threads = [threading.Thread(target=work, args=(amount,)) for amount in (4, 6, 99, 3, 10, 5, 5) * 10]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 70 and max(most) <= 10


def test_a_picture_waits_for_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "picture.png")
    taken: list[int] = []

    class Watched(Allowance):
        def taken(self, amount: int) -> Any:
            taken.append(amount)
            return super().taken(amount)

    monkeypatch.setattr(pixels, "IN_FLIGHT", Watched(1000))
    see(tmp_path / "picture.png")
    load_pixels(tmp_path / "picture.png", (10, 10))
    assert taken == [600, 600]
