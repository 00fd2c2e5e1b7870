"""Pictures that are alike: within a set, and between what is learned and what judges it or stands against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raylora.dataset.alike import alike_between, near_duplicate_groups
from raylora.dataset.findings import Finding, names
from raylora.dataset.folder import Picture
from raylora.dataset.split import Split

NOT_SEEN = "what judges a LoRA must be new to it: scores would praise what it learned by heart"


def check_duplicates(pictures: Sequence[Picture], root: Path) -> list[Finding]:
    """Files that are the same byte by byte, and pictures that are nearly the same in others."""
    if not pictures:
        return []
    groups: dict[frozenset[str], list[Picture]] = {}
    by_digest = near_duplicate_groups(pictures)
    for picture in pictures:
        groups.setdefault(by_digest[picture.digest], []).append(picture)
    alike = sorted((members for members in groups.values() if len(members) > 1), key=len, reverse=True)
    if not alike:
        return []
    together = [picture for members in alike for picture in members]
    copies = len(together) - len({picture.digest for picture in together})
    exact = f", {copies} of them the same file again" * bool(copies)
    found = f"{len(together)} images are near-duplicates, in {len(alike)} group{'s' * (len(alike) > 1)}{exact}"
    effect = "learned more often than the others, so the LoRA copies them; held out, they count as one"
    mend = "keep the best of each group (to show one more often, say so by a 10_name folder)"
    return [Finding("warning", "near-duplicates", found, effect, mend, names(together, root))]


def check_against(
    pictures: Sequence[Picture], others: Sequence[Picture], root: Path, what: str, effect: str = NOT_SEEN
) -> list[Finding]:
    """Pictures of the set that another one has too.

    Args:
        what: the other set, in words.
        effect: why that is wrong.
    """
    shared = alike_between(pictures, others)
    if not shared:
        return []
    one = shared[0]
    same = "the same as" if one.ours.digest == one.theirs.digest else "nearly the same as"
    found = (
        f"{len(shared)} of {len(pictures)} images are in {what} too, or nearly "
        f"({names([one.ours], root)[0]} is {same} {one.theirs.path.name} there)"
    )
    mend = "take them out of one of the two"
    return [Finding("error", "leakage", found, effect, mend, names((pair.ours for pair in shared), root))]


def check_regularization(pictures: Sequence[Picture], regularization: Sequence[Picture], root: Path) -> list[Finding]:
    """Whether the set is taught as what it is not."""
    effect = "these are taught as the subject and as what it is not"
    return check_against(pictures, regularization, root, "dataset.regularization", effect)


def check_splits(splits: Sequence[Split], root: Path) -> list[Finding]:
    """Whether no picture that judges is learned, of each split; raylora's own have each on one side."""
    for number, split in enumerate(splits):
        what = "the held-out part" if len(splits) == 1 else f"the held-out part of fold {number}"
        if found := check_against(split.train, split.holdout, root, what):
            return found
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
