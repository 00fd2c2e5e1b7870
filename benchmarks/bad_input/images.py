"""Damaged, hostile and odd pictures in a folder of good ones."""

from __future__ import annotations

import os
import socket
import stat
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.bad_input import image_bytes as made
from benchmarks.bad_input.kinds import FINE, PLAN, REFUSED, TRAIN, Kind, Make, both, links, mode, writes

FOLDER = "pictures"
CAPTION = writes(f"{FOLDER}/bad.txt", "sks, bad")
PACKED = zlib.compress
BOMB = made.zeros(300 * 2**20)
"""Packed: 300 KB."""
NOISE = np.random.default_rng(0).random((80, 80))


def captioned(name: str, content: bytes) -> Make:
    return both(CAPTION, writes(f"{FOLDER}/{name}", content))


def damaged() -> dict[str, tuple[str, bytes]]:
    """Files that hold no whole picture, or one of which nobody knows the white."""
    png, jpeg, webp = (made.saved(made.picture(), kind) for kind in ("PNG", "JPEG", "WEBP"))
    ihdr, idat = len(made.SIGNATURE) + 8, png.index(b"IDAT")
    return {
        "empty": ("bad.png", b""),
        "zero bytes alone": ("bad.png", b"\0" * 5000),
        "text": ("bad.png", b"no picture"),
        "cut off png": ("bad.png", png[: len(png) // 2]),
        "cut off jpeg": ("bad.jpg", jpeg[: len(jpeg) // 2]),
        "cut off webp": ("bad.webp", webp[: len(webp) // 2]),
        "cut off tiff": ("bad.tif", made.tiff()[:200]),
        "header alone": ("bad.png", png[:33]),
        "signature alone": ("bad.png", made.SIGNATURE),
        "error page": ("bad.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
        "svg": ("bad.png", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
        "zip": ("bad.png", b"PK\x03\x04" + b"\0" * 100),
        "program": ("bad.png", b"\x7fELF" + b"\0" * 500),
        "postscript": ("bad.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n"),
        "git-lfs pointer": ("bad.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"),
        "header's checksum": ("bad.png", png[:ihdr] + b"\0\0\0\1" + png[ihdr + 4 :]),
        "pixels' checksum": ("bad.png", png[: idat + 9] + b"\xff" + png[idat + 10 :]),
        "no pixels": ("bad.png", made.SIGNATURE + made.header(9, 9) + made.chunk(b"IEND", b"")),
        "no width": ("bad.png", made.png(0, 9)),
        "a chunk of 4 GiB": ("bad.png", made.SIGNATURE + made.header(9, 9) + made.chunk(b"IDAT", b"x", 2**32 - 1)),
        "jpeg without a picture": ("bad.jpg", b"\xff\xd8\xff\xd9"),
        "broken float tiff": ("bad.tif", made.array(NOISE.astype(np.float32), "TIFF")[:3000]),
        "32-bit integers": ("bad.tif", made.array((NOISE * 2**31).astype(np.int32) - 2**30, "TIFF")),
        "a tiff of strips beyond the file": ("bad.tif", made.tiff_declaring(80, 80, strip=2**31)),
    }


def bombs() -> dict[str, tuple[str, bytes]]:
    """Small files that would be gigabytes in memory."""
    many = b"".join(made.chunk(b"tEXt", b"k%d\0v" % number) for number in range(20_000))
    return {
        "png of 2.5 gigapixels declared": ("bad.png", made.png(50_000, 50_000, data=b"\0")),
        "png of 900 megapixels": ("bad.png", made.png_bomb(30_000, 30_000)),
        "png of 130 megapixels": ("bad.png", made.png_bomb(13_000, 10_000)),
        "png of 144 megapixels": ("bad.png", made.png_bomb(12_000, 12_000)),
        "png of 2^31 by 2^31": ("bad.png", made.png(2**31 - 1, 2**31 - 1, data=b"\0")),
        "gif canvas": ("bad.png", made.gif(65_535, 65_535)),
        "gif frame beyond its canvas": ("bad.png", made.gif(80, 80, frame=(65_535, 65_535))),
        "webp canvas": ("bad.webp", made.webp(16_384, 16_384)),
        "bmp": ("bad.bmp", made.bmp(100_000, 100_000)),
        "tiff": ("bad.tif", made.tiff_declaring(2**31 - 1, 2**31 - 1)),
        "jpeg": ("bad.jpg", made.jpeg_of(65_500, 65_500)),
        "iCCP of 300 MiB": ("bad.png", made.png(more=made.chunk(b"iCCP", b"p\0\0" + BOMB))),
        "zTXt of 300 MiB": ("bad.png", made.png(more=made.chunk(b"zTXt", b"k\0\0" + BOMB))),
        "iTXt of 300 MiB": ("bad.png", made.png(more=made.chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB))),
        "20,000 texts": ("bad.png", made.png(more=many)),
    }


BOMBS_FINE = ("20,000 texts", "png of 130 megapixels")
"""Just within the bounds."""


def odd() -> dict[str, tuple[str, bytes]]:
    """Pictures that are unusual, and fine."""
    grey16 = (NOISE * 65535).astype(np.uint16)
    floats = NOISE.astype(np.float32)
    broken_floats = floats.copy()
    broken_floats[::2] = np.nan
    broken_floats[1::4] = np.inf
    whole = made.saved(made.picture(), "PNG")
    return {
        "jpeg called png": ("bad.png", made.saved(made.picture(), "JPEG")),
        "png called jpg": ("bad.jpg", whole),
        "fewer rows than declared": ("bad.png", made.png(80, 80, data=b"\0" * 241)),
        "a palette without colours": ("bad.png", made.png(9, 9, data=b"\0" * 90, colour=3)),
        "capitals": ("bad.PNG", whole),
        "garbage at the end": ("bad.png", whole + b"garbage" * 100),
        "no end": ("bad.png", whole[:-12]),
        "cmyk jpeg": ("bad.jpg", made.saved(made.picture("CMYK"), "JPEG")),
        "grey": ("bad.png", made.saved(made.picture("L"), "PNG")),
        "one bit": ("bad.png", made.saved(made.picture("1"), "PNG")),
        "palette": ("bad.png", made.saved(made.picture("P"), "PNG")),
        "palette with a clear colour": ("bad.png", made.saved(made.picture("P"), "PNG", transparency=0)),
        "palette with alphas": ("bad.png", made.saved(made.picture("P"), "PNG", transparency=bytes(range(256)))),
        "grey with alpha": ("bad.png", made.saved(made.picture("LA"), "PNG")),
        "all transparent": ("bad.png", made.array(np.zeros((80, 80, 4), np.uint8), "PNG")),
        "16-bit grey": ("bad.png", made.array(grey16, "PNG")),
        "16-bit grey tiff, big-endian": ("bad.tif", made.array(grey16.astype(">u2"), "TIFF")),
        "16-bit colours": ("bad.png", made.png(80, 80, depth=16, data=b"\0" * 80 * 481)),
        "floats": ("bad.tif", made.array(floats, "TIFF")),
        "floats that are no numbers": ("bad.tif", made.array(broken_floats, "TIFF")),
        "lab": ("bad.tif", made.saved(made.picture("LAB"), "TIFF")),
        "ycbcr": ("bad.tif", made.saved(made.picture("YCbCr"), "TIFF")),
        "lzw": ("bad.tif", made.saved(made.picture(), "TIFF", compression="tiff_lzw")),
        "a tiff whose directory names itself": ("bad.tif", made.looping_tiff()),
        "pages": ("bad.tif", made.animated("TIFF")),
        "animated png": ("bad.png", made.animated("PNG")),
        "animated webp": ("bad.webp", made.animated("WEBP")),
        "animated gif called png": ("bad.png", made.animated("GIF")),
        "1x1": ("bad.png", made.png(1, 1)),
        "60000x1": ("bad.png", made.png(60_000, 1)),
        "1x60000": ("bad.png", made.png(1, 60_000)),
        "upside-down bmp": ("bad.bmp", made.bmp(4, -4) + b"\0" * 48),
        "exif of 10 MB": ("bad.png", made.png(more=made.chunk(b"eXIf", b"MM\0*\0\0\0\x08" + b"\0" * 10**7))),
        "exif that is none": ("bad.png", made.png(more=made.chunk(b"eXIf", b"garbage"))),
        "cut off exif": ("bad.jpg", made.jpeg_with_exif(b"MM\0*\0\0\0\x08\0\x09")),
        "exif that names itself": ("bad.jpg", made.jpeg_with_exif(made.exif(b"\x87\x69\0\4\0\0\0\1\0\0\0\x08"))),
        "orientation as text": ("bad.jpg", made.jpeg_with_exif(made.exif(made.orientation(2, 4, b"left")))),
        "several orientations": ("bad.jpg", made.jpeg_with_exif(made.exif(made.orientation(3, 2, b"\0\6\0\6")))),
        "orientation as a fraction": ("bad.jpg", made.jpeg_with_exif(made.exif(made.orientation(5, 1, b"\0\0\0\x08")))),
        "orientation 99": ("bad.jpg", made.jpeg_with_exif(made.exif(made.orientation(3, 1, b"\0\x63")))),
        "orientation 6": ("bad.jpg", made.jpeg_with_exif(made.exif(made.orientation(3, 1, b"\0\6")))),
        "broken icc": ("bad.png", made.png(more=made.chunk(b"iCCP", b"p\0\0" + PACKED(b"garbage")))),
        "broken xmp": ("bad.png", made.png(more=made.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x"))),
    }


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / FOLDER / "bad.png")


def _device(folder: Path) -> None:
    try:
        os.mknod(folder / FOLDER / "bad.png", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:  # root alone may
        os.mkfifo(folder / FOLDER / "bad.png")


def _socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        here = Path.cwd()
        os.chdir(folder / FOLDER)  # the whole path may be too long for a socket's name
        opened.bind("bad.png")
        os.chdir(here)


def named(name: bytes) -> Make:
    """A good picture of an odd name, with its caption."""

    def make(folder: Path) -> None:
        path = os.fsencode(folder / FOLDER) + b"/" + name
        Path(os.fsdecode(path + b".png")).write_bytes(made.saved(made.picture(), "PNG"))
        Path(os.fsdecode(path + b".txt")).write_text("sks, bad")

    return make


PLACES: dict[str, tuple[Make, int]] = {
    "a link to outside": (links(f"{FOLDER}/bad.png", "../../outside/picture_00.png"), REFUSED),
    "a link to a file elsewhere": (links(f"{FOLDER}/bad.png", "/etc/passwd"), REFUSED),
    "a link to /dev/zero": (links(f"{FOLDER}/bad.png", "/dev/zero"), REFUSED),
    "a link that loops": (links(f"{FOLDER}/bad.png", "bad.png"), REFUSED),
    "a link to nothing": (links(f"{FOLDER}/bad.png", "gone.png"), REFUSED),
    "a link inside": (both(links(f"{FOLDER}/bad.png", "picture_00.png"), CAPTION), FINE),
    "a sub-folder that is a link to outside": (links(f"{FOLDER}/10_bad", "../../outside"), REFUSED),
    "a sub-folder that is a link to its parent": (links(f"{FOLDER}/10_bad", "."), FINE),
    "a pipe": (_fifo, REFUSED),
    "a socket": (_socket, REFUSED),
    "a device": (_device, REFUSED),
    "a folder": (lambda folder: (folder / FOLDER / "bad.png").mkdir(), REFUSED),
}
NAMES = {
    "no UTF-8": b"bad\xff\xfe",
    "of 250 bytes": b"bad" + b"x" * 243,
    "with a line break": b"bad\nname",
    "that steers the terminal": b"bad\x1b]0;title\x07\x1b[31m",
    "with shell's signs": b"bad $(touch pwned) `touch pwned` ; 'x' \"y\"",
    "like an option": b"--bad",
    "with a percent sign": b"bad%s%n{0}",
    "in another script": "плохо-悪い-😈-\u202ebad".encode(),
    "with a space at its end": b"bad ",
}
BAD_NAMES = {"no UTF-8": b"bad\xff", "with a line break": b"bad\nname", "that steers the terminal": b"bad\x1b]0;x\x07"}


def _unreadable_named(name: bytes) -> Make:
    def make(folder: Path) -> None:
        Path(os.fsdecode(os.fsencode(folder / FOLDER) + b"/" + name + b".png")).write_bytes(b"no picture")

    return make


def kinds() -> list[Kind]:
    """All of them; fine ones are trained on, so that they are read in every way that there is."""
    found = [
        Kind(f"damaged image/{what}", PLAN, captioned(*file), REFUSED, ("bad",)) for what, file in damaged().items()
    ]
    for what, file in bombs().items():
        status = FINE if what in BOMBS_FINE else REFUSED
        found.append(Kind(f"image bomb/{what}", TRAIN, captioned(*file), status, ("bad",)))
    found += [Kind(f"odd image/{what}", TRAIN, captioned(*file), FINE) for what, file in odd().items()]
    found += [Kind(f"odd place/{what}", TRAIN, make, status, ("bad",)) for what, (make, status) in PLACES.items()]
    found += [
        Kind(f"odd name/{what}", TRAIN, named(name), REFUSED if what in BAD_NAMES else FINE)
        for what, name in NAMES.items()
    ]
    found += [
        Kind(f"bad file, odd name/{what}", PLAN, _unreadable_named(name), REFUSED, ("bad",))
        for what, name in BAD_NAMES.items()
    ]
    return found + _with_options()


def _with_options() -> list[Kind]:
    one_bad = captioned("bad.png", b"no picture")
    forbidden = both(captioned("bad.png", made.png()), mode(f"{FOLDER}/bad.png", 0))
    buckets = f"{PLAN} --set dataset.buckets=true"
    many: Callable[[int], Make] = lambda count: both(  # noqa: E731
        *(writes(f"{FOLDER}/bad_{number}.png", b"no picture") for number in range(count))
    )
    return [
        Kind("skipped/one", f"{TRAIN} --skip-bad-images", one_bad, FINE),
        Kind("skipped/more than good ones", f"{TRAIN} --skip-bad-images", many(50), FINE),
        Kind("skipped/a pipe", f"{TRAIN} --skip-bad-images", _fifo, FINE),
        Kind("skipped/a bomb", f"{TRAIN} --skip-bad-images", captioned("bad.png", made.png_bomb(30_000, 30_000)), FINE),
        Kind("skipped/a link to outside", f"{TRAIN} --skip-bad-images", PLACES["a link to outside"][0], FINE),
        Kind("buckets/1x1", buckets, captioned("bad.png", made.png(1, 1)), REFUSED, ("bad.png", "1x1")),
        Kind("buckets/60000x1", buckets, captioned("bad.png", made.png(60_000, 1)), REFUSED, ("bad.png",)),
        Kind("buckets/60000x64", buckets, captioned("bad.png", made.png(60_000, 64)), FINE),
        Kind("rights/no right to read", PLAN, forbidden, REFUSED, ("bad.png",), as_nobody=True),
        Kind("rights/no right to list", PLAN, mode(FOLDER, 0), REFUSED, (FOLDER,), as_nobody=True),
        Kind("rights/no right to enter", PLAN, mode(FOLDER, 0o444), REFUSED, (FOLDER,), as_nobody=True),
    ]
