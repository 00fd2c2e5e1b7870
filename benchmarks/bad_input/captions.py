"""Captions, indexes of image folders, and folders that are none."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from benchmarks.bad_input.kinds import FINE, PLAN, REFUSED, TRAIN, Kind, Make, both, links, writes

CAPTION, INDEX, TABLE = "pictures/picture_00.txt", "pictures/metadata.jsonl", "pictures/metadata.csv"
LONG = "a" * 300


def _caption(content: bytes | str) -> Make:
    return both(lambda folder: (folder / CAPTION).unlink(), writes(CAPTION, content))


def _caption_folder(folder: Path) -> None:
    (folder / CAPTION).unlink()
    (folder / CAPTION).mkdir()


def _caption_pipe(folder: Path) -> None:
    (folder / CAPTION).unlink()
    os.mkfifo(folder / CAPTION)


def captions() -> list[Kind]:
    """One caption is odd, of pictures that are fine. An image without a caption needs a word for all."""
    lines = "\n".join(f"tag {number}" for number in range(100_000))
    link = both(lambda folder: (folder / CAPTION).unlink(), links(CAPTION, "../../outside/secret.txt"))
    told = ("picture_00",)
    table: list[tuple[str, str, Make, int, tuple[str, ...]]] = [
        ("binary", PLAN, _caption(bytes(range(256)) * 10), REFUSED, told),
        ("latin-1", PLAN, _caption("sks, h\xe9llo".encode("latin-1")), REFUSED, told),
        ("utf-16", PLAN, _caption("sks, hello".encode("utf-16")), REFUSED, told),
        ("overlong utf-8", PLAN, _caption(b"sks \xc0\xaf"), REFUSED, told),
        ("utf-8 surrogates", PLAN, _caption(b"sks \xed\xa0\x80"), REFUSED, told),
        ("byte order mark", TRAIN, _caption(b"\xef\xbb\xbfsks"), FINE, ()),
        ("NUL", TRAIN, _caption("sks\0, portrait"), FINE, ()),
        ("NULs alone", TRAIN, _caption("\0" * 100), FINE, ()),
        ("empty", PLAN, _caption(""), REFUSED, told),
        ("blanks alone", PLAN, _caption(" \t\n\u00a0\u2003 \r\n"), REFUSED, told),
        ("10 MB", PLAN, _caption("sks, " * 2_000_000), REFUSED, told),
        ("50 MB in one word", PLAN, _caption("a" * 50_000_000), REFUSED, told),
        ("100,000 lines", PLAN, _caption(lines), REFUSED, told),
        ("commas alone", TRAIN, _caption("," * 1000), FINE, ()),
        ("control characters", TRAIN, _caption("sks \x1b[31m\x07\x08 red"), FINE, ()),
        ("weights and networks", TRAIN, _caption("(sks:1.5), <lora:x:1>, BREAK, {a|b}, __wild__"), FINE, ()),
        ("emoji and scripts", TRAIN, _caption("sks 😈 悪い плохо \u202eabc" * 20), FINE, ()),
        ("a folder", PLAN, _caption_folder, REFUSED, told),
        ("a pipe", PLAN, _caption_pipe, REFUSED, told),
        ("a link to outside", PLAN, link, REFUSED, told),
        (
            "a link to a device",
            PLAN,
            both(lambda folder: (folder / CAPTION).unlink(), links(CAPTION, "/dev/zero")),
            REFUSED,
            told,
        ),
        ("of a caption file and a txt", TRAIN, writes("pictures/picture_00.caption", b"\xff"), FINE, ()),
    ]
    return [Kind(f"caption/{what}", line, make, status, tells) for what, line, make, status, tells in table]


def _rows(*bad: object) -> str:
    good = [{"file_name": f"picture_{number:02d}.png", "text": f"sks {number}"} for number in range(8)]
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in (*good, *bad))


def _row(name: object) -> str:
    return _rows({"file_name": name, "text": "bad"})


def indexes() -> list[Kind]:
    """`metadata.jsonl` with one odd line after eight good ones."""
    where = ("metadata.jsonl, line 9",)
    deep = '{"file_name": ' + "[" * 100_000 + "]" * 100_000 + "}"
    refused: dict[str, object] = {
        "up and out": _row("../../etc/passwd"),
        "beside": _row("../../outside/picture_00.png"),
        "absolute": _row("/etc/passwd"),
        "absolute and a picture": _row("SANDBOX/outside/picture_00.png"),
        "home": _row("~/bad.png"),
        "out and in again": _row("../pictures/../../outside/picture_00.png"),
        "with backslashes": _row("..\\..\\bad.png"),
        "as file://": _row("file:///etc/passwd"),
        "as https://": _row("https://example.com/bad.png"),
        "NUL": _row("bad\0.png"),
        "too long": _row(LONG + ".png"),
        "far too long": _row("a/" * 5000 + "bad.png"),
        "lone surrogate": _rows('{"file_name": "bad\\ud800.png"}'),
        "the folder itself": _row("."),
        "a sub-folder": _row("10_more"),
        "a link to outside": _row("bad_link.png"),
        "a link that loops": _row("bad_loop.png"),
        "a pipe": _row("bad_pipe.png"),
        "the index itself": _row("metadata.jsonl"),
        "a number": _row(5),
        "a list": _row(["picture_00.png"]),
        "a table": _row({"path": "picture_00.png"}),
        "null": _row(None),
        "empty": _row(""),
        "missing": _rows({"text": "bad"}),
        "other keys": _rows({"image": "picture_00.png", "caption": "bad"}),
        "a list as a line": _rows([1, 2]),
        "a number as a line": _rows("5"),
        "not-a-number as a line": _rows("NaN"),
        "no JSON": _rows("{file_name: picture_00.png}"),
        "cut off": _rows('{"file_name": "pict'),
        "single quotes": _rows("{'file_name': 'picture_00.png'}"),
        "two in a line": _rows('{"file_name": "picture_00.png"} {"file_name": "picture_01.png"}'),
        "100,000 deep": _rows(deep),
        "a number of 10,000 digits": _rows('{"file_name": "picture_00.png", "size": ' + "9" * 10_000 + "}"),
        "the same again": _rows({"file_name": "picture_00.png", "text": "another"}),
        "the same by another path": _rows({"file_name": "./10_more/../picture_00.png", "text": "another"}),
        "a caption that is no text": _rows({"file_name": "bad.png", "text": ["a", "b"]}),
    }

    def make(text: object) -> Make:
        def furnish(folder: Path) -> None:
            pictures = folder / "pictures"
            (pictures / "10_more").mkdir()
            (pictures / "bad_link.png").symlink_to("../../outside/picture_00.png")
            (pictures / "bad_loop.png").symlink_to("bad_loop.png")
            os.mkfifo(pictures / "bad_pipe.png")
            shutil.copy(pictures / "picture_00.png", pictures / "bad.png")
            writes(INDEX, str(text).replace("SANDBOX", str(folder.parent)))(folder)

        return furnish

    return [Kind(f"index/{what}", PLAN, make(text), REFUSED, where) for what, text in refused.items()]


def whole_indexes() -> list[Kind]:
    """The file itself is odd."""
    table = "file_name,text\n" + "".join(f"picture_{number:02d}.png,sks {number}\n" for number in range(8))
    files: list[tuple[str, str, bytes | str, int, tuple[str, ...]]] = [
        ("binary", INDEX, b"\xff\xfe\0", REFUSED, ("metadata.jsonl",)),
        ("empty", INDEX, "", FINE, ()),
        ("blank lines", INDEX, "\n\n\n", FINE, ()),
        ("a JSON list", INDEX, "[\n" + _rows().replace("\n", ",\n") + "\n]", REFUSED, ("line 1",)),
        ("byte order mark", INDEX, "\ufeff" + _rows(), FINE, ()),
        ("Windows' line ends", INDEX, _rows().replace("\n", "\r\n"), FINE, ()),
        ("one picture alone", INDEX, '{"file_name": "picture_00.png", "text": "a"}', REFUSED, ("1 usable images",)),
        ("100,000 lines of nothing", INDEX, "{}\n" * 100_000, REFUSED, ("line 1",)),
        ("table: NULs", TABLE, table + "bad\0.png,a\n", REFUSED, ("metadata.csv",)),
        ("table: no such column", TABLE, "image,text\nbad.png,a\n", REFUSED, ("metadata.csv, line 1", "file_name")),
        ("table: empty", TABLE, "", REFUSED, ("metadata.csv",)),
        ("table: binary", TABLE, b"\x89PNG\r\n\x1a\n\0\xff", REFUSED, ("metadata.csv",)),
        ("table: a field of 200 KB", TABLE, table + "bad.png," + "a" * 200_000, REFUSED, ("metadata.csv",)),
        ("table: a first line of 200 KB", TABLE, "file_name," + "a" * 200_000 + "\n", REFUSED, ("metadata.csv",)),
        ("table: an open quote", TABLE, table + 'picture_00.png,"a\n', REFUSED, ("metadata.csv",)),
        ("table: too many fields", TABLE, table.replace(",sks 3", ",sks,3,x"), FINE, ()),
        ("table: too few fields", TABLE, table + "bad.png\n", REFUSED, ("metadata.csv, line 10",)),
        ("table: semicolons", TABLE, table.replace(",", ";"), REFUSED, ("metadata.csv, line 1",)),
        ("table: up and out", TABLE, table + "../../outside/picture_00.png,a\n", REFUSED, ("outside the folder",)),
        ("table: the column twice", TABLE, table.replace("file_name,text", "file_name,file_name"), REFUSED, ("csv",)),
    ]
    line = {FINE: TRAIN, REFUSED: PLAN}
    return [
        Kind(f"index file/{what}", line[status], writes(name, content), status, tells)
        for what, name, content, status, tells in files
    ]


def _only(name: str) -> Make:
    """The pictures moved into a sub-folder."""

    def make(folder: Path) -> None:
        (folder / "pictures").rename(folder / "moved")
        (folder / "pictures").mkdir()
        (folder / "moved").rename(folder / "pictures" / name)

    return make


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder / "pictures")
    (folder / "pictures").mkdir()


def _archive(folder: Path) -> None:
    shutil.make_archive(str(folder / "bad"), "zip", folder / "pictures")


def folders() -> list[Kind]:
    """Folders that hold nothing, too much, or not what they should."""
    in_place = both(_archive, _emptied, lambda folder: (folder / "bad.zip").rename(folder / "pictures" / "bad.zip"))
    copies = both(*(writes(f"pictures/copy_{n}.txt", "sks") for n in range(3)))
    deep = both(_emptied, lambda folder: (folder / "pictures" / "/".join("a" * 200)).mkdir(parents=True))
    table: list[tuple[str, str, Make, int, tuple[str, ...]]] = [
        ("empty", PLAN, _emptied, REFUSED, ("0 usable images",)),
        ("pictures in a sub-folder of no repeats", PLAN, _only("bad"), REFUSED, ("bad/",)),
        ("0 repeats", PLAN, _only("0_bad"), REFUSED, ("0_bad",)),
        ("less than 0 repeats", PLAN, _only("-1_bad"), REFUSED, ("-1_bad",)),
        ("10^11 repeats", PLAN, _only("99999999999_bad"), REFUSED, ("99999999999_bad",)),
        ("10^240 repeats", PLAN, _only("9" * 240 + "_bad"), REFUSED, ("999",)),
        ("repeats in other digits", TRAIN, _only("１０_bad"), FINE, ()),
        ("repeats as a superscript", PLAN, _only("²_bad"), REFUSED, ("²_bad",)),
        ("an archive in it", TRAIN, both(_archive, lambda f: (f / "bad.zip").rename(f / "pictures/bad.zip")), FINE, ()),
        ("an archive alone", PLAN, in_place, REFUSED, ("0 usable images",)),
        ("an archive as the folder", f"{PLAN} --dataset bad.zip", _archive, REFUSED, ("bad.zip",)),
        ("a picture as the folder", f"{PLAN} --dataset pictures/picture_00.png", copies, REFUSED, ("picture_00.png",)),
        ("captions without pictures", TRAIN, copies, FINE, ()),
        ("200 folders deep", PLAN, deep, REFUSED, ("0 usable images",)),
        ("a link that loops", f"{PLAN} --dataset bad", links("bad", "bad"), REFUSED, ("bad",)),
        (
            "two links that loop",
            f"{PLAN} --dataset bad/x",
            both(links("bad", "worse"), links("worse", "bad")),
            REFUSED,
            ("bad",),
        ),
        ("a link to the folder", f"{TRAIN} --dataset bad", links("bad", "pictures"), FINE, ()),
        (
            "regularization by a link that loops",
            f"{PLAN} --set dataset.regularization=bad",
            links("bad", "bad"),
            REFUSED,
            ("bad",),
        ),
        ("regularization by a file", f"{PLAN} --set dataset.regularization=good.yaml", copies, REFUSED, ("good.yaml",)),
        (
            "system files",
            TRAIN,
            both(
                writes("pictures/Thumbs.db", b"\xd0\xcf"),
                writes("pictures/.DS_Store", b"\0"),
                writes("pictures/desktop.ini", "x"),
                writes("pictures/__MACOSX/._a.png", b"\0"),
            ),
            FINE,
            (),
        ),
        ("a Mac's shadow of a picture", TRAIN, writes("pictures/._bad.png", b"\0\5\x16\7"), FINE, ()),
    ]
    return [Kind(f"folder/{what}", line, make, status, tells) for what, line, make, status, tells in table]


def kinds() -> list[Kind]:
    """All of them."""
    return [*captions(), *indexes(), *whole_indexes(), *folders()]
