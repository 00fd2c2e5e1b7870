"""Pictures that are alike: within a set, and between what is learned and what judges it or stands against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raylora.dataset.alike import Alike, alike_between
from raylora.dataset.findings import Finding, Level, name_below, names
from raylora.dataset.folder import Picture
from raylora.dataset.split import Groups, Split
from raylora.redaction import one_line

NOT_SEEN = "what judges a LoRA must be new to it: scores would praise what it learned by heart"
TAKE_OUT = "take them out of one of the two"


def check_duplicates(pictures: Sequence[Picture], root: Path, groups: Groups) -> list[Finding]:
    """Files that are the same byte by byte, and pictures that are nearly the same in others.

    Args:
        groups: as `near_duplicate_groups` has them.
    """
    members: dict[frozenset[str], list[Picture]] = {}
    for picture in pictures:
        members.setdefault(groups[picture.digest], []).append(picture)
    alike = sorted((group for group in members.values() if len(group) > 1), key=len, reverse=True)
    if not alike:
        return []
    together = [picture for group in alike for picture in group]
    copies = len(together) - len({picture.digest for picture in together})
    exact = f", {copies} of them the same file again" * bool(copies)
    found = f"{len(together)} images are near-duplicates, in {len(alike)} group{'s' * (len(alike) > 1)}{exact}"
    effect = "learned more often than the others, so the LoRA copies them; held out, they count as one"
    mend = "keep the best of each group (to show one more often, say so by a 10_name folder)"
    return [
        Finding("warning", "near-duplicates", found, effect, mend, names(together, root),
                tuple(names(group, root) for group in alike))
    ]  # fmt: skip


def check_against(
    pictures: Sequence[Picture],
    others: Sequence[Picture],
    roots: tuple[Path, Path],
    what: str,
    effect: str = NOT_SEEN,
    mend: str = TAKE_OUT,
) -> list[Finding]:
    """Pictures of the set that another one has too: an error where they are the same, a warning where nearly.

    Args:
        roots: of the set and of the other.
        what: the other set, in words.
        effect: why that is wrong.
    """
    shared = alike_between(pictures, others)
    same, near = ([pair for pair in shared if pair.is_same is wanted] for wanted in (True, False))
    found = []
    if same:
        said = f"{len(same)} of {len(pictures)} images are in {what} too ({_pair(same[0], roots)})"
        found.append(_leakage("error", said, effect, mend, same, roots))
    if near:
        said = f"{len(near)} of {len(pictures)} images are nearly in {what} too ({_pair(near[0], roots)})"
        look = f"look at both: if they are the same, {mend}"
        found.append(_leakage("warning", said, f"if they are the same, {effect}", look, near, roots))
    return found


def _leakage(
    level: Level, found: str, effect: str, mend: str, pairs: Sequence[Alike], roots: tuple[Path, Path]
) -> Finding:
    counterparts = tuple((name_below(pair.ours.path, roots[0]), _there(pair, roots[1])) for pair in pairs)
    return Finding(level, "leakage", found, effect, mend, tuple(ours for ours, _ in counterparts), counterparts)


def _pair(pair: Alike, roots: tuple[Path, Path]) -> str:
    same = "the same as" if pair.ours.digest == pair.theirs.digest else "nearly the same as"
    return f"{name_below(pair.ours.path, roots[0])} is {same} {_there(pair, roots[1])}"


def _there(pair: Alike, root: Path) -> str:
    """The other set's file, with its folder."""
    return f"{one_line(root.name)}/{name_below(pair.theirs.path, root)}"


def check_regularization(
    pictures: Sequence[Picture], regularization: Sequence[Picture], roots: tuple[Path, Path]
) -> list[Finding]:
    """Whether the set is taught as what it is not."""
    effect = "these are taught as the subject and as what it is not"
    return check_against(pictures, regularization, roots, "dataset.regularization", effect)


def check_splits(splits: Sequence[Split], root: Path) -> list[Finding]:
    """Whether a picture that judges is learned, of each split that a file has.

    An earlier search has judged by them, so it is no error.
    """
    for number, split in enumerate(splits):
        what = "the held-out part" if len(splits) == 1 else f"the held-out part of fold {number}"
        mend = "leave --split out for a new split, which keeps them on one side, or remove one of each"
        if found := check_against(split.train, split.holdout, (root, root), what, mend=mend):
            return [replace(finding, level="warning") for finding in found]
    return []


def check_outgrown(own: int, regularization: int) -> list[Finding]:
    """Guide D8: a regularization set is not to be larger than the set.

    Args:
        own: images an epoch, repeats counted.
        regularization: the same of its images.
    """
    if regularization <= own:
        return []
    found = f"dataset.regularization: {regularization} regularization images an epoch and {own} of the set"
    effect = "the LoRA learns more of what the subject is not than of it"
    mend = "the guide advises a smaller set, of 10 to 20 images: remove some, or lower its folders' repeats"
    return [Finding("warning", "regularization", found, effect, mend)]
