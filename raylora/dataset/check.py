"""`raylora check` and the part of it that a plan tells: everything in a data set that would spoil a LoRA."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from raylora.config import DatasetConfig, Experiment
from raylora.dataset.batches import own_repeats
from raylora.dataset.check_captions import check_captions, check_same, check_trigger
from raylora.dataset.check_diversity import Embed, check_diversity
from raylora.dataset.check_folders import check_repeats
from raylora.dataset.check_pictures import check_pictures
from raylora.dataset.check_sets import (
    check_against,
    check_duplicates,
    check_outgrown,
    check_regularization,
    check_splits,
)
from raylora.dataset.findings import Finding, by_level, name_below
from raylora.dataset.folder import Picture, stand_in
from raylora.dataset.split import Split, read_splits
from raylora.dataset.survey import Fault, Survey, survey


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
    return check_survey(survey(reference, experiment.dataset.trigger), experiment, against, split_file, embed)


def check_survey(
    seen: Survey,
    experiment: Experiment,
    against: Sequence[str] = (),
    split_file: Path | None = None,
    embed: Embed | None = None,
) -> list[Finding]:
    """The same of a data set that was read already."""
    config, root, pictures = experiment.dataset, seen.root, seen.pictures
    splits = read_splits(split_file, list(pictures)) if split_file else ()
    findings = [
        *_unreadable(seen.faults, root),
        *(_caption_fault(fault, root) for fault in seen.caption_faults),
        *check_images(pictures, root, config),
        *check_repeats(pictures, root, experiment.training),
        *check_captions(pictures, seen.written, root, config.trigger),
        *check_splits(splits, root),
        *_check_others(pictures, root, against),
        *_check_regularization(pictures, root, experiment),
    ]
    if embed is not None:
        findings += check_diversity(pictures, root, config, embed)
    return by_level(findings)


def check_images(pictures: Sequence[Picture], root: Path, config: DatasetConfig) -> list[Finding]:
    """What can be said of the images alone."""
    return [*check_pictures(pictures, root, config), *check_duplicates(pictures, root)]


def check_training(
    pictures: Sequence[Picture],
    regularization: Sequence[Picture],
    splits: Sequence[Split],
    root: Path,
    config: DatasetConfig,
) -> list[Finding]:
    """The same of what a search or a training has read, but for what reading has told already and an encoder tells."""
    captioned = [
        (picture, picture.caption) for picture in pictures if picture.caption != stand_in(picture, config.trigger)
    ]
    return by_level([
        *check_regularization(pictures, regularization, root),
        *check_splits(splits, root),
        *check_images(pictures, root, config),
        *check_same(captioned, root),
        *check_trigger(captioned, root, config.trigger),
    ])  # fmt: skip


def _unreadable(faults: Sequence[Fault], root: Path) -> list[Finding]:
    """Each kind of fault by itself."""
    by_reason: dict[str, list[str]] = {}
    for fault in faults:
        by_reason.setdefault(fault.reason, []).append(name_below(fault.path, root))
    return [
        Finding(
            "error",
            "readable",
            f"{len(files)} file{'s' * (len(files) != 1)} {reason}",
            "no training begins with them",
            "mend or remove them, or train with --skip-bad-images",
            tuple(files),
        )
        for reason, files in by_reason.items()
    ]


def _caption_fault(fault: str, root: Path) -> Finding:
    """A message of the reader's, whose last part is its mend."""
    found, _, mend = fault.replace(f"{root}{os.sep}", "").rpartition("; ")
    return Finding("error", "captions", found, "no training begins with it", mend)


def _check_others(pictures: Sequence[Picture], root: Path, against: Sequence[str]) -> list[Finding]:
    found: list[Finding] = []
    for reference in against:
        found += check_against(pictures, survey(reference).pictures, root, reference)
    return found


def _check_regularization(pictures: Sequence[Picture], root: Path, experiment: Experiment) -> list[Finding]:
    reference = experiment.dataset.regularization
    if reference is None:
        return []
    other = survey(reference)
    own = sum(own_repeats([picture.repeats for picture in pictures], experiment.training))
    return [
        *_unreadable(other.faults, other.root),
        *check_regularization(pictures, other.pictures, root),
        *check_outgrown(own, sum(picture.repeats for picture in other.pictures)),
    ]
