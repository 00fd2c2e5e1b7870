"""What `raylora check` meets: it tells of bad pictures and captions as its answer, and refuses what is no data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.bad_input import captions, images, places
from benchmarks.bad_input import image_bytes as made
from benchmarks.bad_input.kinds import FAILED, FINE, REFUSED, Kind, both, mode, writes

CHECK = "check pictures --set dataset.resolution=64"
TOO_FEW = (
    "empty",
    "pictures in a sub-folder of no repeats",
    "less than 0 repeats",
    "repeats as a superscript",
    "an archive alone",
    "200 folders deep",
    "0 repeats",
)
"""Folders in which there is an error, but nothing that stops the look."""


def _as_checked(kinds: Sequence[Kind], statuses: dict[str, int], found: str = "") -> list[Kind]:
    """What training refuses or takes, given to `check`.

    Args:
        statuses: of those, by the end of their names, that end otherwise than there.
        found: what the answer names where there is an error in it.
    """
    checked = []
    for kind in kinds:
        status = statuses.get(kind.name.partition("/")[2], kind.status)
        tells, finds = (kind.tells if status == REFUSED else ()), ((found,) if status == FAILED and found else ())
        checked.append(
            replace(kind, name=f"check, {kind.name}", command=CHECK, status=status, tells=tells, finds=finds)
        )
    return checked


def pictures() -> list[Kind]:
    """Every bad picture is an error that is named; odd ones may have warnings."""
    files = {
        **{f"damaged image/{what}": (file, FAILED) for what, file in images.damaged().items()},
        **{
            f"image bomb/{what}": (file, FINE if what in images.BOMBS_FINE else FAILED)
            for what, file in images.bombs().items()
        },
        **{f"odd image/{what}": (file, FINE) for what, file in images.odd().items()},
    }
    found = [
        Kind(f"check, {what}", CHECK, images.captioned(*file), status, finds=("bad",) if status == FAILED else ())
        for what, (file, status) in files.items()
    ]
    for what, (make, status) in images.PLACES.items():
        is_told = status == REFUSED and not what.startswith("a sub-folder")
        finds = ("bad",) if is_told else ()
        found.append(Kind(f"check, odd place/{what}", CHECK, make, FAILED if is_told else status, finds=finds))
    found += [
        Kind(f"check, odd name/{what}", CHECK, images.named(name), FAILED if what in images.BAD_NAMES else FINE)
        for what, name in images.NAMES.items()
    ]
    forbidden = both(images.captioned("bad.png", made.png()), mode("pictures/bad.png", 0))
    return [
        *(replace(kind, finds=kind.finds or ("error",)) if kind.status == FAILED else kind for kind in found),
        Kind("check, rights/no right to read", CHECK, forbidden, FAILED, finds=("bad.png",), as_nobody=True),
        Kind("check, rights/no right to list", CHECK, mode("pictures", 0), tells=("pictures",), as_nobody=True),
    ]


def texts() -> list[Kind]:
    """A caption that can't be read is an error in the answer; an index or a folder that can't be is refused."""
    bad = {kind.name.partition("/")[2]: FAILED for kind in captions.captions() if kind.status == REFUSED}
    whole = {"one picture alone": FAILED}
    few = dict.fromkeys(TOO_FEW, FAILED)
    folders = [kind for kind in captions.folders() if "--dataset" not in kind.command and "regular" not in kind.name]
    return [
        *_as_checked(captions.captions(), bad, "error"),
        *_as_checked(captions.indexes(), {}),
        *_as_checked(captions.whole_indexes(), whole, "error"),
        *_as_checked(folders, few, "error"),
    ]


def sets() -> list[Kind]:
    """Other sets, splits and settings beside the one that is looked at."""
    odd = [kind for kind in places.splits() if kind.name.startswith("split/")]
    found = [replace(kind, name=f"check, {kind.name}", command=_split_line(kind)) for kind in odd]
    lines = {
        "against nothing": "--against missing",
        "against a file": "--against good.yaml",
        "against a device": "--against /dev/zero",
        "regularization of nothing": "--set dataset.regularization=missing",
        "a size of no kind": "--set dataset.resolution=large",
        "an encoder of nothing": "--set evaluation.encoder=./missing",
        "an encoder that is a file": "--set evaluation.encoder=./good.yaml",
        "a space of nothing": "--space missing",
        "a setting of nothing": "--set dataset.rezolution=64",
    }
    found += [Kind(f"check, {what}", f"{CHECK} {words}") for what, words in lines.items()]
    found.append(Kind("check, a size of a million", f"{CHECK[:-2]}1000000 --set evaluation.encoder=demo", status=FINE))
    found.append(
        Kind("check, against a folder without images", f"{CHECK} --against .", status=FAILED, finds=("error",))
    )
    names = ("''", "missing", "good.txt", "/dev/null", "a" * 5000, "s3://", "bad.yaml", "~nobody-at-all/x")
    broken = both(writes("bad.yaml", "dataset: ["), writes("good.txt", "no folder"))
    return [*found, *(Kind(f"check as/{name[:20]}", f"check {name}", broken) for name in names)]


def _split_line(kind: Kind) -> str:
    return f"{CHECK} --split {kind.command.partition('--split ')[2]}"


def kinds() -> list[Kind]:
    """All of them."""
    return [*pictures(), *texts(), *sets()]
