"""How to use a finished LoRA, with its files where they lie."""

from __future__ import annotations

from pydantic import ValidationError

from raylora.config import Experiment
from raylora.diffusion.places import KOHYA_NAME
from raylora.diffusion.prediction import prediction_of
from raylora.execution.how_to import HandedOver, Usage, lora_name, usages_of
from raylora.files import is_file
from raylora.report.reading import Work


def usages(work: Work) -> list[Usage]:
    """For each program, with the winner's own settings; none while there is no LoRA."""
    if not work.summary or not is_file(work.out.best / KOHYA_NAME):
        return []
    strength = float(work.summary["best"].get("strength", 1))
    name, experiment = lora_name(work.out.root.name), _of_winner(work)
    prediction = prediction_of(experiment.model)
    return usages_of(HandedOver(experiment, str(work.out.best), name, strength, _prompt(work), prediction))


def _of_winner(work: Work) -> Experiment:
    """What all trials share, and what the winner had of what was searched, if this version knows all of it."""
    try:
        return work.experiment.with_params(work.summary["best"]["params"])
    except ValidationError:
        return work.experiment


def what_it_learned(work: Work) -> str:
    """Which LoRA lies in `best/`; empty where an older version didn't say."""
    if work.is_training:
        held_out = ", but those held out, which judge it" if work.state["holds_out"] else ""
        return f"The LoRA in best/ has learned all images{held_out}."
    is_refit = work.summary.get("refit")
    if is_refit is None:
        return ""
    if is_refit:
        return (
            "The LoRA in best/ has learned all images, with the winner’s settings. What is told of it here is of the "
            "winner’s trial, which had not seen those that judge it."
        )
    fold = ", of its first fold" if work.experiment.dataset.folds > 1 else ""
    why = "training on all images failed" if work.experiment.search.refit else "search.refit is off"
    return f"The LoRA in best/ is the winner’s own trial’s{fold}, which has not learned the held-out images: {why}."


def _prompt(work: Work) -> str:
    """Of a held-out image, or else the trigger word."""
    caption = next((one.caption for one in work.held_out if one.caption), "")
    return caption or work.experiment.dataset.trigger or "your prompt"
