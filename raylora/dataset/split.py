"""Which pictures are held out to judge trials, the same for every trial and every machine."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raylora.config import DatasetConfig
from raylora.dataset.alike import SAME_DISTANCE, near_duplicate_groups
from raylora.dataset.folder import Picture, Warn
from raylora.errors import DatasetError
from raylora.files import exists, read_json, write_atomically

FEWEST_HELD_OUT = 4
FEWEST_TO_JUDGE = 2
"""Held-out images of a split or a fold: fewer say nothing of their spread."""
BOTH_SIDES = (
    "nearly all images look alike, so that near-duplicates are both learned and held out, and scores praise what was "
    "learned by heart; add images that differ more"
)
Groups = dict[str, frozenset[str]]
"""Of each digest those that stay on its side."""


@dataclass(frozen=True)
class Split:
    """A dataset in two parts: what trials learn and what judges them."""

    train: tuple[Picture, ...]
    holdout: tuple[Picture, ...]


def split_as(config: DatasetConfig, pictures: list[Picture], warn: Warn = lambda _: None) -> tuple[Split, ...]:
    """One split or one for each fold, as the settings want it.

    Raises:
        DatasetError: too few images can be held out.
    """
    if config.folds > 1:
        return split_folds(pictures, config.folds, warn)
    return (split_pictures(pictures, config.holdout_fraction, warn),)


def split_pictures(pictures: list[Picture], fraction: float, warn: Warn = lambda _: None) -> Split:
    """Per folder, hold out the images with the lowest content hashes, near-duplicates on one side.

    At least 4 images are held out of a folder, but never more than half of it. Where near-duplicates leave next to
    nothing to hold out, only images that are the same beyond doubt stay together.

    Args:
        warn: told where fewer can be held out than are wanted, or where near-duplicates are on both sides.

    Raises:
        DatasetError: fewer than 2 images can be held out, which measures need.
    """
    split, wanted = _hold_out(pictures, near_duplicate_groups(pictures), fraction)
    if len(split.holdout) < FEWEST_TO_JUDGE:
        split, _ = _hold_out(pictures, near_duplicate_groups(pictures, SAME_DISTANCE), fraction)
        if len(split.holdout) < FEWEST_TO_JUDGE:
            raise DatasetError(_too_few(pictures, len(split.holdout), wanted))
        warn(BOTH_SIDES)
    elif len(split.holdout) < wanted:
        warn(
            f"{len(split.holdout)} images are held out to judge by, where {wanted} were wanted: others are "
            "near-duplicates, which stay on one side; remove these, or add different images"
        )
    return split


def _hold_out(pictures: list[Picture], groups: Groups, fraction: float) -> tuple[Split, int]:
    """The split that keeps these groups together, and how many images it was to hold out."""
    held: set[str] = set()
    wanted = 0
    for members in _by_folder(pictures).values():
        share = min(max(FEWEST_HELD_OUT, round(len(members) * fraction)), len(members) // 2)
        held |= _choose(members, groups, share)
        wanted += share
    return _part(pictures, held), wanted


def _too_few(pictures: list[Picture], got: int, wanted: int) -> str:
    """Why next to nothing can be held out, and what would help."""
    if wanted < FEWEST_TO_JUDGE:
        first, folders = pictures[0], len(_by_folder(pictures))
        return (
            f"{first.path.parent.parent if first.folder else first.path.parent}: {len(pictures)} images in {folders} "
            f"folders, of which at most half is held out each, leave {wanted} to judge by, and {FEWEST_TO_JUDGE} are "
            "needed; put images of one subject into one folder"
        )
    return (
        f"{pictures[0].path.parent}: {got} of the {wanted} images that were to be held out can be: the others are so "
        f"alike that they stay on one side, and {FEWEST_TO_JUDGE} are needed to judge by; remove near-duplicates and "
        "add different images"
    )


def split_folds(pictures: list[Picture], folds: int, warn: Warn = lambda _: None) -> tuple[Split, ...]:
    """As many splits as `folds`: each picture is held out in exactly one of them, near-duplicates together.

    Args:
        warn: told where only images that are the same beyond doubt can be kept together.

    Raises:
        DatasetError: a fold would hold out fewer than 2 images.
    """
    parts = _deal(pictures, near_duplicate_groups(pictures), folds)
    if len(parts[-1]) < FEWEST_TO_JUDGE:
        groups = near_duplicate_groups(pictures, SAME_DISTANCE)
        parts = _deal(pictures, groups, folds)
        if len(parts[-1]) < FEWEST_TO_JUDGE:
            raise DatasetError(_too_many_folds(pictures, groups, folds))
        warn(BOTH_SIDES)
    return tuple(_part(pictures, {picture.digest for picture in part}) for part in parts)


def _too_many_folds(pictures: list[Picture], groups: Groups, folds: int) -> str:
    """Why there can't be so many, and how many there can be."""
    most = max(fewer for fewer in range(1, folds) if len(_deal(pictures, groups, fewer)[-1]) >= FEWEST_TO_JUDGE)
    return (
        f"{pictures[0].path.parent}: {len(pictures)} images are too few for {folds} folds that hold out "
        f"{FEWEST_TO_JUDGE} or more each, near-duplicates together; set dataset.folds={most}"
        f"{' or less' * (most > 1)}, or add different images"
    )


def _deal(pictures: list[Picture], groups: Groups, folds: int) -> list[list[Picture]]:
    """The pictures in parts of about one size, the largest first: groups of near-duplicates, the largest first, then
    single pictures folder by folder in the order of their hashes, each to the smallest part so far.
    """
    members: dict[frozenset[str], list[Picture]] = defaultdict(list)
    for picture in pictures:
        members[groups[picture.digest]].append(picture)
    first = {group: min(group) for group in members}
    folder = {group: min(picture.folder for picture in those) for group, those in members.items()}
    parts: list[list[Picture]] = [[] for _ in range(folds)]
    for group in sorted(members, key=lambda group: (-len(members[group]), folder[group], first[group])):
        min(parts, key=len).extend(members[group])
    return sorted(parts, key=len, reverse=True)


def _by_folder(pictures: list[Picture]) -> dict[str, list[Picture]]:
    folders: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        folders[picture.folder].append(picture)
    return folders


def _choose(members: list[Picture], groups: Groups, wanted: int) -> set[str]:
    """Whole groups in the order of the lowest hash in them, as long as they fit."""
    copies = Counter(picture.digest for picture in members)
    held: set[str] = set()
    for digest in sorted(copies):
        group = groups[digest]
        size = sum(copies[member] for member in held | group)
        if digest not in held and group <= set(copies) and size <= wanted:
            held |= group
    return held


def _part(pictures: list[Picture], held: set[str]) -> Split:
    return Split(
        train=tuple(picture for picture in pictures if picture.digest not in held),
        holdout=tuple(picture for picture in pictures if picture.digest in held),
    )


def write_splits(splits: Sequence[Split], path: Path) -> None:
    """`split.json`: the held-out images by name and digest, with their captions, of one split or of each fold."""
    parts = [_written(split) for split in splits]
    content = parts[0] if len(parts) == 1 else {"folds": parts}
    write_atomically(path, json.dumps(content, indent=2).encode())


def _written(split: Split) -> dict[str, object]:
    rows = [
        {"file": picture.path.name, "digest": picture.digest, "caption": picture.caption} for picture in split.holdout
    ]
    return {"holdout": rows, "train_images": len(split.train)}


def read_splits(path: Path, pictures: list[Picture]) -> tuple[Split, ...]:
    """The same splits of the same pictures: one, or one for each fold, which may overlap.

    Raises:
        DatasetError: no split file, one of other pictures, or one that holds out too few.
    """
    check_split_file(path)
    try:
        return tuple(_taken_again(held, path, pictures) for held, _ in digests_of_split(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise DatasetError(f"{path}: is not a split file; give the split.json of an output folder") from None


def check_split_file(path: Path) -> None:
    """Whether there is such a file.

    Raises:
        DatasetError: there isn't.
    """
    if not exists(path):
        raise DatasetError(f"{path}: there is no such file; give the split.json of an output folder, or leave it out")


def digests_of_split(path: Path) -> list[tuple[set[str], int]]:
    """What a split file says, split by split: the digests of the held-out images, and how many are learned.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError: it is none.
    """
    content = read_json(path)
    parts = dict(content).get("folds", [content])
    if not parts:
        raise ValueError("no folds")
    return [({str(row["digest"]) for row in part["holdout"]}, int(part.get("train_images", 0))) for part in parts]


def _taken_again(held: set[str], path: Path, pictures: list[Picture]) -> Split:
    missing = held - {picture.digest for picture in pictures}
    if missing and missing == held:
        raise DatasetError(
            f"{path}: is of other data: the dataset has none of the {len(held)} images that it holds out; "
            "give the data set that it was made of, or leave --split out"
        )
    if missing:
        raise DatasetError(
            f"{path}: holds out {len(held)} images, of which the dataset lacks {len(missing)}: they have changed or "
            "are gone; put them back, or leave --split out for a new split"
        )
    split = _part(pictures, held)
    if not split.train:
        raise DatasetError(f"{path}: leaves nothing to learn; hold out a part")
    if len(split.holdout) < FEWEST_TO_JUDGE:
        raise DatasetError(
            f"{path}: holds out {len(split.holdout)} image{'s' * (len(split.holdout) != 1)}, and {FEWEST_TO_JUDGE} or "
            "more are needed to judge by; hold out more, or leave --split out"
        )
    return split
