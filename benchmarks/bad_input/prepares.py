"""What `raylora prepare` meets: odd pictures and captions, targets, options, records. Models are in captioners.py."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.bad_input import captioners, captions, images, places
from benchmarks.bad_input import image_bytes as made
from benchmarks.bad_input.edits import Edit, cut, in_json, in_text, without_files
from benchmarks.bad_input.kinds import FINE, REFUSED, Kind, Make, both, links, mode, nothing, writes

OUT = "out --size 64x64"
PREPARE = f"prepare pictures {OUT} --trigger sks"
AGAIN = f"prepare pictures {OUT} --trigger abc --force"
STATE, MANIFEST = ".prepare/state.json", "manifest.json"
SLOW = "/(a+)+b/"
"""Takes twice as long for each `a` more."""


def as_prepared(kinds: Sequence[Kind], statuses: dict[str, int], command: str = PREPARE) -> list[Kind]:
    """What another command meets, given to `prepare`.

    Args:
        statuses: of those, by the end of their names, that end otherwise than there.
    """
    found = []
    for kind in kinds:
        what = kind.name.partition("/")[2]
        status = statuses.get(what, kind.status)
        tells = kind.tells if status == REFUSED else ()
        found.append(replace(kind, name=f"prepare, {kind.name}", command=command, status=status, tells=tells))
    return found


def pictures() -> list[Kind]:
    """Bad ones are left out, since there are good ones; odd ones are enlarged, so that each is looked at."""
    files = {
        **{f"damaged image/{what}": file for what, file in images.damaged().items()},
        **{f"image bomb/{what}": file for what, file in images.bombs().items()},
    }
    found = [Kind(f"prepare, {what}", PREPARE, images.captioned(*file), FINE) for what, file in files.items()]
    found += [
        Kind(f"prepare, odd image/{what}", f"{PREPARE} --upscale", images.captioned(*file), FINE)
        for what, file in images.odd().items()
    ]
    found += [
        Kind(
            f"prepare, odd place/{what}",
            PREPARE,
            make,
            REFUSED if what.endswith("to outside") and "sub" in what else FINE,
        )
        for what, (make, _) in images.PLACES.items()
    ]
    found += [
        Kind(f"prepare, odd name/{what}", PREPARE, images.named(name), FINE) for what, name in images.NAMES.items()
    ]
    strip = images.captioned("bad.png", made.png(60_000, 1))
    forbidden = both(images.captioned("bad.png", made.png()), mode("pictures/bad.png", 0))
    return [
        *found,
        Kind("prepare, odd image/60000x1, uncut", f"{PREPARE} --crop none --upscale", strip, FINE),
        Kind("prepare, odd image/60000x1, centred", f"{PREPARE} --crop center --upscale", strip, FINE),
        Kind("prepare, rights/no right to read one", PREPARE, forbidden, FINE, as_nobody=True),
        Kind("prepare, rights/no right to read any", PREPARE, _all_forbidden, tells=("can't be read",), as_nobody=True),
        Kind("prepare, rights/no right to list", PREPARE, mode("pictures", 0), tells=("pictures",), as_nobody=True),
        Kind("prepare, damaged image/all of them", PREPARE, _all_bad, tells=("none of its images can be used",)),
    ]


def _all_forbidden(folder: Path) -> None:
    for path in (folder / "pictures").glob("*.png"):
        path.chmod(0)


def _all_bad(folder: Path) -> None:
    for path in (folder / "pictures").glob("*.png"):
        path.write_bytes(b"no picture")


FOLDERS = {
    "pictures in a sub-folder of no repeats": REFUSED,
    "10^11 repeats": FINE,
    "10^240 repeats": FINE,
}
"""A sub-folder called by a date is a good one here."""
NOT_OURS = ("dataset", "regularization", "archive as", "picture as", "link that loops", "links that loop", "a link to")


def texts() -> list[Kind]:
    """Captions, indexes and folders, as training meets them too; one usable image is enough."""
    empty = dict.fromkeys(("empty", "blanks alone", "a folder", "a pipe"), FINE)
    folders = [kind for kind in captions.folders() if not any(word in kind.command + kind.name for word in NOT_OURS)]
    folders = [replace(kind, tells=()) if kind.name.endswith(("/empty", "deep", "alone")) else kind for kind in folders]
    return [
        *as_prepared(captions.captions(), empty),
        *as_prepared(captions.indexes(), {}),
        *as_prepared(captions.whole_indexes(), {"one picture alone": FINE}),
        *as_prepared(folders, FOLDERS),
        Kind(
            "prepare, folder/called by a year",
            f"prepare 2024_summer {OUT} --trigger sks",
            _renamed("2024_summer"),
            FINE,
        ),
        Kind("prepare, folder/called by a line break", f"prepare 'a\nb' {OUT} --trigger sks", _renamed("a\nb"), FINE),
        Kind(
            "prepare, folder/called by 250 letters",
            f"prepare {'a' * 250} {OUT} --trigger sks",
            _renamed("a" * 250),
            FINE,
        ),
        Kind("prepare, folder/demo", f"prepare demo {OUT}", status=FINE),
        *(
            Kind(f"prepare, source/{name}"[:60], f"prepare '{name}' {OUT} --trigger sks")
            for name in ("", "missing", "good.yaml", "/dev/null", "a" * 5000, "s3://bucket/bad", "~nobody-at-all/x")
        ),
    ]


def _renamed(name: str) -> Make:
    return lambda folder: (folder / "pictures").rename(folder / name)


def _inside(folder: Path) -> None:
    (folder / "pictures" / "deep").mkdir()


def targets() -> list[Kind]:
    """Where the prepared folder should be: as searches meet it, and in, around or beside the source."""
    line = "prepare pictures {} --size 64x64 --trigger sks --dry-run"
    found = [
        replace(kind, name=f"prepare, {kind.name}", command=line.format(kind.command.partition("--out ")[2]))
        for kind in places.outs()
    ]
    full = writes("out/mine.txt", "mine")
    nested: list[tuple[str, str, Make, tuple[str, ...]]] = [
        ("the source", "pictures", nothing, ("is the source folder itself",)),
        ("the source by another path", "pictures/../pictures", nothing, ("is the source folder itself",)),
        ("the source by a link", "bad", links("bad", "pictures"), ("is the source folder itself",)),
        ("in the source", "pictures/out", nothing, ("lies inside the source",)),
        ("in the source by a link", "bad/deep/out", both(_inside, links("bad", "pictures")), ("lies inside",)),
        ("around the source", ".", nothing, ("the source lies inside it",)),
    ]
    found += [
        Kind(f"prepare, target/{what}", f"prepare pictures {place} --size 64x64 --trigger sks", make, tells=tells)
        for what, place, make, tells in nested
    ]
    forced = f"{PREPARE} --force"
    in_the_way: list[tuple[str, Make, int]] = [
        ("files of others", full, FINE),
        ("a file where a folder has to be", writes("out/10_pictures", "mine"), REFUSED),
        ("a folder where a file has to be", writes("out/manifest.json/mine", "mine"), REFUSED),
        ("another's picture", writes("out/10_pictures/picture_00.png", "mine"), REFUSED),
        ("a folder that is a link to outside", both(full, links("out/10_pictures", "../../outside")), REFUSED),
        ("a record that is a link to outside", both(full, links("out/.prepare", "../../outside")), REFUSED),
        ("a file for the record", writes("out/.prepare", "mine"), REFUSED),
        ("another's broken index", writes("out/metadata.jsonl", "{"), FINE),
        ("another's broken picture", writes("out/bad.png", "mine"), FINE),
        ("another's dated folder", writes("out/20240101_x/bad.png", "mine"), FINE),
    ]
    found += [Kind(f"prepare, forced/{what}", forced, make, status) for what, make, status in in_the_way]
    closed = both(full, mode("out", 0o555))
    return [
        *found,
        Kind("prepare, target/not empty", PREPARE, full, tells=("is not empty", "--force")),
        Kind("prepare, target/no right to write", forced, closed, tells=("can't be made",), as_nobody=True),
    ]


def _prepared(edit: Edit) -> Make:
    """A prepared folder as `out`, with something changed in it."""

    def make(folder: Path) -> None:
        edit(Path(shutil.copytree(folder.parent.parent / "shared" / "prepared", folder / "out")))

    return make


def _kept(kind: str, change: Callable[[dict[str, object]], object]) -> Edit:
    """Every record of a kind changed."""

    def edit(out: Path) -> None:
        for path in sorted((out / ".prepare" / kind).iterdir()):
            in_json(path.name, change)(path.parent)

    return edit


def _no_size(record: dict[str, object]) -> None:
    cut_of = record["cut"]
    assert isinstance(cut_of, dict)
    cut_of["original"] = [0, 0]


def _all(kind: str, content: bytes) -> Edit:
    return lambda out: [path.write_bytes(content) for path in (out / ".prepare" / kind).iterdir()]


def _fifo(name: str) -> Edit:
    def edit(out: Path) -> None:
        (out / name).unlink()
        os.mkfifo(out / name)

    return edit


def _listed(*names: str) -> Edit:
    return in_json(STATE, lambda state: state["files"].extend(names))


SECRET = "../../outside/secret.png"
OUTSIDE = {"source": "picture_00.png", "file": "../../outside/secret.txt", "caption": "sks"}
"""What a record may say that came with somebody's folder."""


def _begun(change: Callable[[dict[str, object]], object]) -> Edit:
    """A beginning, whose record alone knows of captions that were changed by hand."""

    def edit(out: Path) -> None:
        in_json(STATE, change)(out)
        without_files(MANIFEST)(out)

    return edit


def records() -> list[Kind]:
    """An earlier preparation that something has been at; without its record its files are somebody else's."""
    table: list[tuple[str, Edit, int]] = [
        ("nothing", nothing, FINE),
        ("record: broken", in_text(STATE, "{"), REFUSED),
        ("record: deep", in_text(STATE, "[" * 100_000), REFUSED),
        ("record: a list", in_text(STATE, "[]"), REFUSED),
        ("record: files of no kind", in_json(STATE, lambda state: state.update(files=5)), REFUSED),
        ("record: a pipe", _fifo(STATE), REFUSED),
        ("record: names files outside", _listed("../good.yaml", "../../outside/secret.txt", "/etc/passwd"), FINE),
        ("record: names a file's child", _listed("tags.csv/bad"), FINE),
        ("record: names 5,000 letters", _listed("a" * 5000, "\0", "..", ".", ""), FINE),
        ("cuts: broken", _all("cuts", b"{"), FINE),
        ("cuts: of nothing", _all("cuts", b"{}"), FINE),
        ("cuts: of no size", _kept("cuts", _no_size), FINE),
        ("captions: broken", _all("captions", b"[1]"), FINE),
        ("captions: of no kind", _kept("captions", lambda kept: kept.update(caption=[5])), FINE),
        ("thumbnails: broken", _all("thumbnails", b"no picture"), FINE),
        ("pictures: broken", in_text("10_pictures/picture_00.png", "no picture"), FINE),
        ("pictures: a pipe", _fifo("10_pictures/picture_00.png"), FINE),
        ("record: edited captions of no kind", _begun(lambda state: state.update(edited=[5, {}])), FINE),
        ("record: edited captions outside", _begun(lambda state: state.update(edited=[OUTSIDE])), FINE),
        ("manifest: gone", without_files(MANIFEST), FINE),
        ("manifest: images of no kind", in_json(MANIFEST, lambda told: told.update(images=[5, {}])), FINE),
        (
            "manifest: names a caption outside",
            in_json(MANIFEST, lambda told: told["images"][0].update(file=SECRET)),
            FINE,
        ),
    ]
    found = [Kind(f"prepare again/{what}", AGAIN, _prepared(edit), status) for what, edit, status in table]
    unforced = AGAIN.replace(" --force", "")
    begun = _prepared(without_files(MANIFEST))
    return [
        *found,
        Kind("prepare again/not forced", unforced, _prepared(nothing), tells=("--force",)),
        Kind("prepare again/a beginning of other settings", unforced, begun, tells=("beginning of another",)),
        Kind("prepare again/all pictures gone bad", AGAIN, both(_prepared(nothing), _all_bad)),
    ]


def manifests() -> list[Kind]:
    """What `--like` names."""
    texts = {
        "empty": "",
        "binary": b"\0\1\xff",
        "a list": "[]",
        "deep": "[" * 100_000,
        "of nothing": "{}",
        "settings that are a list": '{"settings": [1, 2]}',
        "settings of no kind": '{"settings": {"sizes": "large", "threshold": {}, "remove": 5}}',
        "unknown settings": '{"settings": {"colour": 1}}',
        "another version's": '{"raylora": "99.0", "settings": {"colour": 1}}',
        "a number of 5,000 digits": '{"settings": {"repeats": ' + "9" * 5000 + "}}",
        "a slow pattern": json.dumps({"settings": {"remove": [SLOW], "trigger": "sks", "crop": "centre"}}),
        "a model anywhere": '{"settings": {"caption": "tags", "caption_model": "/etc/passwd"}}',
    }
    line = f"{PREPARE} --like bad.json"
    found = [Kind(f"prepare like/{what}", line, writes("bad.json", text)) for what, text in texts.items()]
    odd: list[tuple[str, Make]] = [
        ("missing", nothing),
        ("a folder", lambda folder: (folder / "bad.json").mkdir()),
        ("a pipe", lambda folder: os.mkfifo(folder / "bad.json")),
        ("an endless device", links("bad.json", "/dev/zero")),
        ("a link that loops", links("bad.json", "bad.json")),
    ]
    found += [Kind(f"prepare like/{what}", line, make, tells=("bad.json",)) for what, make in odd]
    return [*found, Kind("prepare like/cut off", f"{PREPARE} --like out/manifest.json", _prepared(cut(MANIFEST)))]


OPTIONS: dict[str, tuple[str, ...]] = {
    "--size 500x512": ("512x512",),
    "--size 64x64x64": ("--size",),
    "--size 64x": ("--size",),
    "--size 99999999999x64": ("--size",),
    "--size -64x64": ("--size",),
    "--crop middle": ("'focus'", "'middle'"),
    "--background pinkish": ("--background",),
    "--background 'hsl(999,1%)'": ("--background",),
    f"--background {'a' * 5000}": ("--background",),
    "--caption clip": ("'blip'",),
    "--caption-model @TAGGER@": ("--caption",),
    "--threshold 0.5": ("--caption tags",),
    "--caption tags --caption-model @TAGGER@ --threshold 1.01": ("at most 1",),
    "--caption tags --caption-model @TAGGER@ --threshold -0.01": ("at least 0",),
    "--caption tags --caption-model @TAGGER@ --threshold nan": ("--threshold",),
    "--caption tags --caption-model @TAGGER@ --threshold 1e400": ("--threshold",),
    "--caption tags --caption-model @TAGGER@ --character-threshold 2": ("at most 1",),
    "--threshold high": ("--threshold",),
    "--existing merge": ("'keep'",),
    "--existing extend": ("--caption tags",),
    "--remove '/(/'": ("--remove", "'/(/'"),
    "--remove '/*/'": ("--remove",),
    "--remove '/a{9999999999}/'": ("--remove",),
    f"--remove '/{'(' * 5000}{')' * 5000}/'": ("--remove",),
    "--remove 'a, b'": ("--remove",),
    "--remove @missing.txt": ("missing.txt",),
    "--remove @/dev/zero": ("/dev/zero",),
    "--remove @pictures/picture_00.png": ("picture_00.png",),
    f"--remove '{SLOW}'": ("takes over 1 s", "repeats within repeats"),
    f"--replace '{SLOW}=b'": ("takes over 1 s",),
    "--replace hat": ("OLD=NEW",),
    "--replace '/(/=hat'": ("--replace",),
    "--add 'a, b'": ("--add",),
    "--add '\udcff'": ("--add",),
    "--trigger ''": ("--trigger",),
    "--trigger 'a, b'": ("--trigger", "commas"),
    "--trigger ','": ("--trigger",),
    "--trigger 'a\nb'": ("--trigger",),
    "--repeats 0": ("at least 1",),
    "--repeats 99999999999": ("at most",),
    "--repeats many": ("--repeats",),
    "--nonsense": ("--nonsense",),
}
FINE_OPTIONS = (
    "--trigger '{sks}'",
    "--trigger '$(touch pwned) `touch pwned`'",
    "--trigger '<lora:x:1>'",
    "--trigger on",
    "--trigger 😈",
    "--remove '/(?:(?:(?:a{1000}){1000}){1000}){1000}/'",
    "--remove @lists.txt",
    "--add __wild__ --replace '=_==shut eyes'",
    "--size 64x64 --size 64x64 --size 128x64 --upscale",
    "--background rgb(1,2,3)",
)


def _long_caption(folder: Path) -> None:
    """Slow patterns need it, and a list of 50,000 tags."""
    (folder / "pictures" / "picture_00.txt").write_text("a" * 60)
    (folder / "lists.txt").write_text("\n".join(f"tag {number}" for number in range(50_000)))


def options() -> list[Kind]:
    """What a command line may say."""
    line = "prepare pictures out --size 64x64"
    found = [
        Kind(f"prepare option/{ascii(words)[:70]}", f"{line} {words}", _long_caption, tells=tells)
        for words, tells in OPTIONS.items()
    ]
    return found + [
        Kind(f"prepare option/{ascii(words)[:70]}, fine", f"{line} {words}", _long_caption, FINE)
        for words in FINE_OPTIONS
    ]


def kinds() -> list[Kind]:
    """All of them."""
    parts = (pictures, texts, targets, records, manifests, options, captioners.kinds)
    return [kind for part in parts for kind in part()]
