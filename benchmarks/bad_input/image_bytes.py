"""Pictures as bytes, good ones and such as no program of good will writes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(kind: str = "RGB", size: tuple[int, int] = (96, 80)) -> Image.Image:
    """Noise in a mode of Pillow's."""
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(kind)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002 - Pillow's word
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def array(values: np.ndarray[Any, Any], format: str) -> bytes:  # noqa: A002
    """A picture of any numbers as the bytes of a file."""
    return saved(Image.fromarray(values), format)


def chunk(kind: bytes, content: bytes, length: int | None = None, crc: int | None = None) -> bytes:
    """A chunk of a PNG, which may lie about its length and checksum."""
    checked = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content) if length is None else length) + kind + content + struct.pack(">I", checked)


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG's IHDR."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def png(width: int = 80, height: int = 80, more: bytes = b"", data: bytes | None = None, **shape: int) -> bytes:
    """A PNG of any declared size, with other chunks before its pixels."""
    rows = data if data is not None else b"\0" * (height * (1 + 3 * width))
    return SIGNATURE + header(width, height, **shape) + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """So many zero bytes, packed by zlib without ever being there as a whole."""
    packer, block = zlib.compressobj(9), b"\0" * 2**20
    parts = [packer.compress(block) for _ in range(count // len(block))]
    return b"".join([*parts, packer.compress(b"\0" * (count % len(block))), packer.flush()])


def png_bomb(width: int, height: int) -> bytes:
    """A whole and valid PNG of white pixels, one bit each: megabytes of file, gigabytes of picture."""
    data = zeros(height * (1 + (width + 7) // 8))
    return SIGNATURE + header(width, height, depth=1, colour=0) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def gif(width: int, height: int, frame: tuple[int, int] = (1, 1)) -> bytes:
    """A GIF of a declared canvas, with one frame of a declared size and a pixel of data."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return screen + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02D\x01\0;"


def webp(width: int, height: int) -> bytes:
    """A WebP whose extended header declares a size, around a small picture."""
    small = saved(picture(), "WEBP", lossless=True)[12:]
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas + small
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(width: int, height: int) -> bytes:
    """A BMP of a declared size without pixels."""
    return (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    )


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG that declares another size than it has."""
    whole = bytearray(saved(picture(), "JPEG"))
    place = whole.index(b"\xff\xc0")
    whole[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(whole)


def tiff(**changes: Any) -> bytes:
    """A TIFF with single tags set by number, as `t256=2**31`."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in changes.items():
        tags[int(name[1:])] = value
    return saved(picture(), "TIFF", tiffinfo=tags)


def tiff_declaring(width: int, height: int, strip: int = 8) -> bytes:
    """A TIFF header alone, of a declared size, its pixels at a declared place."""
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, strip),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, 1),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + directory + b"\0\0\0\0"


def looping_tiff() -> bytes:
    """A TIFF whose directory names itself as the next one."""
    whole = bytearray(tiff_declaring(8, 8) + b"\0" * 64)
    whole[-68:-64] = struct.pack("<I", 8)
    return bytes(whole)


def exif(orientation: bytes) -> bytes:
    """EXIF with an orientation entry of these twelve bytes."""
    return b"MM\0*\0\0\0\x08\0\x01" + orientation + b"\0\0\0\0"


def orientation(kind: int, count: int, value: bytes) -> bytes:
    """A directory entry for the orientation, of any type and count."""
    return struct.pack(">HHI", 0x0112, kind, count) + value.ljust(4, b"\0")


def jpeg_with_exif(content: bytes) -> bytes:
    """A JPEG with these bytes as its EXIF."""
    return saved(picture(), "JPEG", exif=b"Exif\0\0" + content)


def frames(count: int, size: tuple[int, int] = (80, 80)) -> Iterator[Image.Image]:
    """Frames of an animation."""
    return (Image.new("RGB", size, (number % 256, 0, 0)) for number in range(count))


def animated(format: str, count: int = 5) -> bytes:  # noqa: A002
    """An animation."""
    first, *rest = frames(count)
    return saved(first, format, save_all=True, append_images=rest)
