"""The dataset check as a plan tells it, and the image encoder that it is handed."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from raylora.config import Experiment
from raylora.dataset.check import check_training
from raylora.dataset.check_diversity import Embed, Vectors
from raylora.dataset.check_folders import check_repeats
from raylora.dataset.check_sets import check_outgrown
from raylora.dataset.findings import MOST_TOLD, Finding
from raylora.dataset.pixels import Pixels
from raylora.dataset.remote import folder_of
from raylora.diffusion.hub import is_meant_as_path
from raylora.errors import DatasetError
from raylora.evaluation.encoder_place import place_here
from raylora.execution.job import Job

READ_BY_THE_CHECK = (
    "dataset.trigger", "dataset.resolution", "dataset.buckets", "dataset.max_area_px", "dataset.regularization",
    "dataset.skip_bad_images", "dataset.holdout_fraction", "dataset.folds", "training.repeats", "evaluation.encoder",
)  # fmt: skip


def tell_data(job: Job, warn: Callable[[str], None], split_file: Path | None) -> None:
    """Warn of what would spoil the LoRA.

    Args:
        split_file: where the job's splits come from, if they were given.

    Raises:
        DatasetError: images that are learned are on a side where they must not be.
    """
    dataset, plan = job.experiment.dataset, job.plan
    assert dataset.path is not None
    roots = folder_of(dataset.path), folder_of(dataset.regularization or dataset.path)
    own = plan.trial.images_per_epoch - plan.regularization_images
    findings = check_outgrown(own, plan.regularization_images)
    if "training.repeats" not in plan.searched:
        findings += check_repeats(job.pictures, roots[0], job.experiment.training)
    findings += check_training(
        job.pictures, job.regularization, job.splits, roots, dataset, splits_given=split_file is not None
    )
    if errors := [finding for finding in findings if finding.level == "error"]:
        raise DatasetError("; and ".join(error.line for error in errors))
    _warn(findings, check_command(job.experiment, split_file), warn)


def _warn(findings: Sequence[Finding], command: str, warn: Callable[[str], None]) -> None:
    warnings = [finding for finding in findings if finding.level == "warning"]
    for finding in warnings[:MOST_TOLD]:
        warn(finding.short)
    if len(warnings) > MOST_TOLD:
        warn(f"{len(warnings) - MOST_TOLD} more of the data set; `{command}` tells the rest")


def check_command(experiment: Experiment, split_file: Path | None) -> str:
    """The command that tells all of it: with those of the settings that the check reads that aren't the usual ones."""
    plain = Experiment()
    words = ["raylora", "check", str(experiment.dataset.path)]
    for path in READ_BY_THE_CHECK:
        section, name = path.split(".")
        value, usual = (getattr(getattr(one, section), name) for one in (experiment, plain))
        if value != usual:
            words += ["--set", f"{path}={_as_given(value)}"]
    words += ["--split", str(split_file)] if split_file else []
    return shlex.join(words)


def _as_given(value: object) -> str:
    """As `--set` takes it."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def embed_with(encoder: str, downloads: bool) -> Embed | None:
    """An image encoder for the check, loaded; None where it isn't on this machine and nothing is to be downloaded.

    Raises:
        ModelError: there is no such encoder, or it can't be loaded.
    """
    place = place_here(encoder)
    if place is None and not (downloads or is_meant_as_path(encoder)):
        return None
    from raylora.evaluation.encoders import check_encoder, load_encoder  # torch and transformers: seconds
    from raylora.execution.trial import pick_device

    check_encoder(encoder)
    loaded = load_encoder(place or encoder, pick_device())

    def embed(pixels: Sequence[Pixels]) -> Vectors:
        vectors: Vectors = loaded.images(pixels).float().cpu().numpy()
        return vectors

    return embed


def not_compared(encoder: str) -> Finding:
    """That an encoder is missing, so that one look was not taken."""
    return Finding(
        "note",
        "diversity",
        "poses and backgrounds were not compared",
        f"evaluation.encoder {encoder} is not on this machine",
        "--download fetches it once; a folder serves too: --set evaluation.encoder=FOLDER",
    )
