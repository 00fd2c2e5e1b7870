"""`raylora check` and the part of it that a plan tells: everything in a data set that would spoil a LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raylora.config import DatasetConfig, Experiment
from raylora.dataset.alike import near_duplicate_groups
from raylora.dataset.batches import own_repeats
from raylora.dataset.check_captions import check_captions, check_written
from raylora.dataset.check_diversity import Embed, check_diversity
from raylora.dataset.check_faults import tell_caption_faults, tell_faults
from raylora.dataset.check_folders import check_repeats, check_resting
from raylora.dataset.check_pictures import check_misfits, check_pictures
from raylora.dataset.check_sets import (
    check_against,
    check_duplicates,
    check_outgrown,
    check_regularization,
    check_splits,
)
from raylora.dataset.findings import Finding, by_level
from raylora.dataset.folder import FEWEST_IMAGES, Picture
from raylora.dataset.places import elsewhere
from raylora.dataset.split import Groups, Split, read_splits, split_as
from raylora.dataset.survey import Survey, damaged_pictures, survey
from raylora.errors import DatasetError
from raylora.files import is_file
from raylora.redaction import one_line, redacted


def check_dataset(
    reference: str,
    experiment: Experiment = Experiment(),
    against: Sequence[str] = (),
    split_file: Path | None = None,
    embed: Embed | None = None,
) -> list[Finding]:
    """Look at a data set and at what stands beside it; the worst findings come first.

    Args:
        reference: `demo`, a folder or a URI.
        experiment: its dataset section says at which size images are learned, the trigger word and the regularization
            set.
        against: further sets of which none of its images may be, such as those that judge.
        split_file: `split.json` of an output folder.
        embed: an image encoder, to see whether one pose or background dominates; without one that isn't looked at.

    Raises:
        DatasetError: a folder isn't there, or can't be read as a whole.
    """
    return check_survey(
        survey(reference, experiment.dataset.trigger, experiment.dataset), experiment, against, split_file, embed
    )


def check_survey(
    seen: Survey,
    experiment: Experiment,
    against: Sequence[str] = (),
    split_file: Path | None = None,
    embed: Embed | None = None,
) -> list[Finding]:
    """The same of a data set that was read already."""
    config, root, pictures = experiment.dataset, seen.root, seen.pictures
    groups = near_duplicate_groups(pictures)
    splits, findings = _splits_as_a_search_has_them(seen, config, split_file)
    unreadable = {fault.picture for fault in seen.caption_faults if fault.picture}
    findings = [
        *tell_faults(seen.faults, root, config.skip_bad_images),
        *tell_caption_faults(seen.caption_faults, root),
        *findings,
        *(check_splits(splits, root) if split_file else ()),
        *_check_others(pictures, root, against),
        *_check_regularization(seen, splits, experiment),
        *check_images(pictures, root, config, groups, splits),
        *check_repeats(pictures, root, experiment.training),
        *check_resting(root),
        *check_captions(pictures, root, config.trigger, unreadable),
    ]
    if embed is not None:
        findings += check_diversity(pictures, root, config, embed, groups)
    return by_level(findings)


def check_images(
    pictures: Sequence[Picture], root: Path, config: DatasetConfig, groups: Groups, splits: Sequence[Split]
) -> list[Finding]:
    """What can be said of the images alone."""
    return [
        *check_pictures(pictures, root, config, groups, splits),
        *check_duplicates(pictures, root, groups),
    ]  # fmt: skip


def check_training(
    pictures: Sequence[Picture],
    regularization: Sequence[Picture],
    splits: Sequence[Split],
    roots: tuple[Path, Path],
    config: DatasetConfig,
    splits_given: bool = False,
) -> list[Finding]:
    """The same of what a search or a training has read, but for what reading has told already and an encoder tells.

    Args:
        roots: the data set's folder and that of the regularization images.
        splits_given: whether the splits are a file's; raylora's own need no look.
    """
    root = roots[0]
    return by_level([
        *check_regularization(pictures, regularization, roots),
        *(check_splits(splits, root) if splits_given else ()),
        *check_images(pictures, root, config, near_duplicate_groups(pictures), splits),
        *check_written(pictures, root, config.trigger),
    ])  # fmt: skip


def _splits_as_a_search_has_them(
    seen: Survey, config: DatasetConfig, file: Path | None
) -> tuple[tuple[Split, ...], list[Finding]]:
    """Of a file or newly made; and why there can be none, where that isn't told by itself.

    Raises:
        DatasetError: there is no such file, or it is of other data.
    """
    pictures = list(seen.pictures)
    if file is not None:
        return _splits_of(file, seen)
    if len(pictures) < FEWEST_IMAGES:
        return (), []
    told: list[str] = []
    try:
        splits = split_as(config, pictures, told.append)
    except DatasetError as error:
        return (), [_told(error, "split", "a search judges by held-out images, so none begins")]
    warned = (warning.rpartition("; ") for warning in told)
    effect = "scores are less sure than they could be"
    return splits, [Finding("warning", "split", found, effect, mend) for found, _, mend in warned]


def _splits_of(file: Path, seen: Survey) -> tuple[tuple[Split, ...], list[Finding]]:
    """Damaged pictures are known by their bytes. What they leave of a split is looked at all the same."""
    damaged = damaged_pictures(seen.faults)
    try:
        splits = read_splits(file, [*seen.pictures, *damaged])
    except DatasetError as error:
        if not seen.faults or not is_file(file):
            raise
        return (), [_told(error, "split", "no search begins with this split")]
    whole = set(seen.pictures)
    return tuple(
        Split(*(tuple(picture for picture in part if picture in whole) for part in (split.train, split.holdout)))
        for split in splits
    ), []


def _told(error: DatasetError, check: str, effect: str) -> Finding:
    """A message of the splits' as a finding; its last part is the mend, and its first a place."""
    found, _, mend = str(error).rpartition("; ")
    return Finding("error", check, one_line(found.partition(": ")[2] or found), effect, mend)


def _check_others(pictures: Sequence[Picture], root: Path, against: Sequence[str]) -> list[Finding]:
    """Against whatever of the other sets can be read; what can't is told, since it was compared with nothing."""
    found: list[Finding] = []
    for reference in against:
        other = survey(reference)
        what = one_line(redacted(reference))
        if not other.pictures:
            mend = f"give the folder that its images lie in{elsewhere(other.root)}"
            found.append(Finding("error", "against", f"{what} has no usable image", "nothing was compared", mend))
        faults = tell_faults(other.faults, other.root, False)
        found += [
            replace(fault, found=f"{what}: {fault.found}", effect="they were compared with nothing",
                    mend="mend or remove them")
            for fault in faults
        ]  # fmt: skip
        found += check_against(pictures, other.pictures, (root, other.root), what)
    return found


def _check_regularization(seen: Survey, splits: Sequence[Split], experiment: Experiment) -> list[Finding]:
    config = experiment.dataset
    if config.regularization is None:
        return []
    other = survey(config.regularization)
    name = "dataset.regularization"
    faults = [
        *tell_faults(other.faults, other.root, config.skip_bad_images),
        *tell_caption_faults(other.caption_faults, other.root),
    ]
    found = [replace(fault, found=f"{name}: {fault.found}") for fault in faults]
    if not other.pictures:
        mend = f"give a folder of images, or leave it out{elsewhere(other.root)}"
        found.append(Finding("error", "regularization", f"{name} has no usable image", "no training begins", mend))
    learned = splits[0].train if splits else seen.pictures
    own = sum(own_repeats([picture.repeats for picture in learned], experiment.training))
    return [
        *found,
        *check_misfits(other.pictures, other.root, config, of=f"{name}: "),
        *check_regularization(seen.pictures, other.pictures, (seen.root, other.root)),
        *check_outgrown(own, sum(picture.repeats for picture in other.pictures)),
    ]
