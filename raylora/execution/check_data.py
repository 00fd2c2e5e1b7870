"""The dataset check as a plan tells it, and the image encoder that it is handed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def tell_data(job: Job, warn: Callable[[str], None]) -> None:
    """Warn of what would spoil the LoRA.

    Raises:
        DatasetError: images that are learned are on a side where they must not be.
    """
    dataset, plan = job.experiment.dataset, job.plan
    assert dataset.path is not None
    own = plan.trial.images_per_epoch - plan.regularization_images
    findings = check_outgrown(own, plan.regularization_images)
    if "training.repeats" not in plan.searched:
        findings += check_repeats(job.pictures, folder_of(dataset.path), job.experiment.training)
    findings += check_training(job.pictures, job.regularization, job.splits, folder_of(dataset.path), dataset)
    if errors := [finding for finding in findings if finding.level == "error"]:
        raise DatasetError("; and ".join(error.line for error in errors))
    _warn(findings, dataset.path, warn)


def _warn(findings: Sequence[Finding], reference: str, warn: Callable[[str], None]) -> None:
    warnings = [finding for finding in findings if finding.level == "warning"]
    for finding in warnings[:MOST_TOLD]:
        warn(finding.short)
    if len(warnings) > MOST_TOLD:
        warn(f"{len(warnings) - MOST_TOLD} more of the data set; `raylora check {reference}` tells the rest")


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
