"""How to use a finished LoRA, with its files where they lie."""

from __future__ import annotations

from raylora.execution.how_to import KOHYA_NAME, HandedOver, Usage, lora_name, usages_of
from raylora.files import is_file
from raylora.report.reading import Work


def usages(work: Work) -> list[Usage]:
    """For each program; none while there is no LoRA."""
    if not work.summary or not is_file(work.out.best / KOHYA_NAME):
        return []
    strength = float(work.summary["best"].get("strength", 1))
    name = lora_name(work.out.root.name)
    return usages_of(HandedOver(work.experiment, str(work.out.best), name, strength, _prompt(work)))


def _prompt(work: Work) -> str:
    """Of a held-out image, or else the trigger word."""
    caption = next((one.caption for one in work.held_out if one.caption), "")
    return caption or work.experiment.dataset.trigger or "your prompt"
