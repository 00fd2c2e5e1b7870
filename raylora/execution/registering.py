"""A search's LoRA on its way into MLflow's registry: what is told of it, the model logged, an alias given."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora import __version__
from raylora.config import Experiment, flatten
from raylora.config_files import read_experiment
from raylora.dataset.folder import Picture
from raylora.diffusion.families import INDEX_NAME, resolve_base, save_as_folder
from raylora.diffusion.hub import cached_revision, is_hub_id
from raylora.diffusion.licence import Licence, licence_of
from raylora.errors import RayloraError
from raylora.execution.job import Job
from raylora.execution.model_card import CARD_NAME, Described, facts_of, public_name, write_card
from raylora.execution.outputs import EXPERIMENT_NAME, OutFolder
from raylora.execution.winner import lora_paths
from raylora.redaction import redacted
from raylora.tracking.claims import DIGEST_LENGTH, Claim, Fold, digests, short_digest
from raylora.tracking.entry import ENTRY_NAME, LONGEST_TEXT, Entry, as_tags

if TYPE_CHECKING:
    from raylora.tracking.registry import Placed

JUDGING = (
    "model.family", "model.prediction_type", "model.clip_skip", "dataset.resolution", "dataset.buckets",
    "dataset.max_area_px", "training.mixed_precision", "evaluation.", "sampling.",
)  # fmt: skip
"""Settings that measures and score depend on, whatever is learned: see `search.searchable.WHY_NOT`."""
NOT_JUDGING = ("evaluation.batch_size", "evaluation.encoder", "sampling.prompts")
"""Speed, a place, and prompts that are only looked at."""
REVISION_SHOWN = 12
"""Characters of a commit."""
BASE, ENCODER = "model.base_model", "evaluation.encoder"


def claim_of(job: Job, best: Mapping[str, Any], base: str | None, encoder: str) -> Claim:
    """What a search's score is worth beside another's.

    Args:
        best: of the summary.
        base: digest of the base model's weights; None of one on the hub, which its name tells.
        encoder: the image encoder's `identity`.
    """
    experiment = job.experiment
    flat = flatten(experiment.model_dump(mode="json"))
    judged_by = {path: flat[path] for path in flat if path.startswith(JUDGING) and path not in NOT_JUDGING}
    judged_by |= {BASE: base or experiment.model.base_model, ENCODER: short_digest(encoder)}
    names = {BASE: _named(experiment), ENCODER: public_name(experiment.evaluation.encoder)}
    most, also = experiment.evaluation.max_images, digests(picture.digest for picture in job.regularization)
    folds = [
        Fold(_judges(split.holdout[:most]), digests(picture.digest for picture in split.train) | also)
        for split in job.splits
    ]
    return Claim(float(best["score"]), len(best.get("new_seed_scores", ())), judged_by, folds, names)


def _named(experiment: Experiment) -> str:
    """The base model's name, with the hub's commit where one is known."""
    base = experiment.model.base_model
    assert base is not None
    revision = _revision(base)
    return f"{base}@{revision[:REVISION_SHOWN]}" if revision else public_name(base)


def _revision(base: str) -> str | None:
    return cached_revision(base, INDEX_NAME) if is_hub_id(base) else None


def _judges(pictures: Sequence[Picture]) -> dict[str, str]:
    return {picture.digest[:DIGEST_LENGTH]: short_digest(picture.caption) for picture in pictures}


def describe(out: OutFolder, job: Job, summary: Mapping[str, Any], prompts: Sequence[str] | None = None) -> Described:
    """What the card of `best/` is made of.

    Args:
        prompts: of `best/samples`; left out, the first split's held-out captions.
    """
    experiment = read_experiment(out.best / EXPERIMENT_NAME)
    held_out = {picture.digest for split in job.splits for picture in split.holdout}
    captions = [picture.caption for picture in job.splits[0].holdout[: experiment.evaluation.max_images]]
    return Described(
        name=out.root.name,
        experiment=experiment,
        summary=summary,
        images=len(job.pictures),
        learned=len(job.pictures if summary.get("refit") else job.splits[0].train),  # a trial's, or all of a training's
        digest=job.digest,
        held_out=len(held_out),
        prompts=captions if prompts is None else prompts,
        licence=known_licence(experiment),
    )


def known_licence(experiment: Experiment) -> Licence:
    """The base model's; nothing is known of one that is gone, which is no reason to lose a LoRA."""
    assert experiment.model.base_model is not None
    try:
        return licence_of(experiment.model.base_model, experiment.model.family)
    except RayloraError:
        return Licence()


def write_entry(out: OutFolder, told: Described, claim: Claim | None) -> Entry:
    """The card and what the registry is to be told, written beside each other; the second is not for others' eyes."""
    write_card(out, told)
    entry = entry_of(told, claim)
    entry.write(out.root / ENTRY_NAME)
    return entry


def entry_of(told: Described, claim: Claim | None) -> Entry:
    """What the registry is to be told."""
    return Entry(_tags(told, claim), fitting(facts_of(told)), claim)


def fitting(text: str) -> str:
    """As many sections of a card as a description may hold."""
    while len(text) > LONGEST_TEXT and "\n\n" in text:
        text = text.rpartition("\n\n")[0]
    return text[:LONGEST_TEXT]


def _tags(told: Described, claim: Claim | None) -> dict[str, str]:
    """Short facts by which versions are found and told from each other."""
    best, model = told.best, told.experiment.model
    return as_tags(
        {
            "version": __version__,
            "base_model": redacted(model.base_model or ""),
            "family": model.family,
            "licence": told.licence.name,
            "trigger": told.experiment.dataset.trigger,
            "strength": f"{told.strength:g}",
            "score": None if best["score"] is None else f"{best['score']:.6g}",
            "score_seeds": len(best.get("new_seed_scores", ())),
            "refit": str(bool(told.summary.get("refit"))).lower(),
            "trial": best["trial_id"],
            "images": told.learned,
            "dataset": told.digest,
            "held_out": claim.held_out if claim else None,
            "judged_by": claim.measure if claim else None,
        }
    )


def log_winner(out: OutFolder, uri: str, run_id: str, entry: Entry, as_folder: bool) -> str:
    """Log `best/` to a run as a model; returns its URI.

    Args:
        as_folder: make a folder of a base model that MLflow can't load as it is.
    """
    from raylora.tracking.registry import Handed, log_lora  # MLflow takes seconds, and only the end needs it

    experiment = read_experiment(out.best / EXPERIMENT_NAME)
    base = loadable_base(experiment, base_folder(out) if as_folder else None)
    files = [out.best / CARD_NAME, *sorted((out.best / "samples").glob("s*.png"))]  # the grid has real pictures
    handed = Handed(
        lora=Path(lora_paths(out)["lora_diffusers"]),
        base_model=base,
        size=experiment.dataset.resolution,
        steps=experiment.sampling.steps,
        guidance_scale=experiment.sampling.guidance_scale,
        entry=entry,
        files={file.relative_to(out.best).as_posix(): file for file in files},
        revision=_revision(base),
        is_as_trained=as_folder or not needs_folder(experiment),
    )
    return log_lora(uri, run_id, handed)


def base_folder(out: OutFolder) -> Path:
    """Where a base model lies as MLflow loads it, if it doesn't load it as it is."""
    return out.root / "base_model"


def needs_folder(experiment: Experiment) -> bool:
    """Whether MLflow can't load the base model as it is: no single file, and it doesn't hear of
    `model.prediction_type`."""
    model = experiment.model
    assert model.base_model is not None
    return bool(model.prediction_type) or resolve_base(model.base_model, model.family).endswith(".safetensors")


def loadable_base(experiment: Experiment, folder: Path | None) -> str:
    """The base model's reference; where that needs one and one is given, a folder is made of it."""
    model = experiment.model
    assert model.base_model is not None
    reference = resolve_base(model.base_model, model.family)
    if folder is None or not needs_folder(experiment):
        return reference
    return str(save_as_folder(reference, model, folder))


def how_it_ended(placed: Placed, target: str) -> str | None:
    """A line on an alias that stays where it is, and the command that moves it; None where it moved."""
    if placed.why_not is None:
        return None
    it = placed.registered
    how = shlex.join(["raylora", "promote", target, "--name", it["name"], "--force"])
    return (
        f"the winner is version {it['version']} of {it['name']}, but another stays @champion: {placed.why_not}; "
        f"`{how}` gives it the alias all the same"
    )
