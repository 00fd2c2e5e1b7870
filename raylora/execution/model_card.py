"""`best/model_card.md`: what a LoRA is, how it was judged and how to use it, as the Hugging Face hub has it.

Beside settings and measures it tells no more of the images than how many they were and a digest of them; the prompts of
the pictures that it shows are captions. None of the real images is among those pictures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raylora import __version__
from raylora.bundled import DEMO_NAME
from raylora.config import Experiment, flatten, shown
from raylora.diffusion.families import FAMILIES
from raylora.diffusion.hub import is_hub_id
from raylora.diffusion.licence import Licence
from raylora.diffusion.prediction import prediction_of
from raylora.evaluation.words import BASE_MEASURES, MEANINGS, MEASURES, measure
from raylora.execution.how_to import HandedOver, lora_name, usages_of
from raylora.execution.outputs import OutFolder, write_text
from raylora.execution.winner import STRENGTHS_NAME
from raylora.redaction import one_line
from raylora.redaction import shown as safe

CARD_NAME = "model_card.md"
MOST_PICTURES = 8
LONGEST_PROMPT = 300
SETTINGS = (
    "lora.rank", "lora.alpha", "optimizer.name", "optimizer.learning_rate", "optimizer.unet_lr",
    "optimizer.text_encoder_lr", "lr_scheduler.name", "training.repeats", "training.epochs", "training.batch_size",
    "training.stop_at", "model.train_text_encoder", "model.clip_skip", "dataset.resolution", "seed",
)  # fmt: skip
"""What is told beside all that was searched."""
HUB_LICENCES = (
    "openrail", "openrail++", "creativeml-openrail-m", "bigscience-openrail-m", "bigcode-openrail-m", "apache-2.0",
    "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "gemma", "unknown", "other",
)  # fmt: skip
"""Of the words that the hub takes as `license`, those that base models have; any other it refuses.

The whole list is at https://huggingface.co/docs/hub/repositories-licenses; `huggingface_hub` 2.4 brings none.
"""
SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$])")
"""Characters that mean something to Markdown amid a line."""


@dataclass(frozen=True)
class Described:
    """All that a card is made of, the pictures aside."""

    name: str
    """The output folder's."""
    experiment: Experiment
    """That of `best/`."""
    summary: Mapping[str, Any]
    """Of the search or training: `best` and `baseline`, as in `summary.json`."""
    images: int
    learned: int
    """How many of them the files were trained on in the end."""
    digest: str
    """Of all images and captions, regularization included; empty where it isn't known any more."""
    held_out: int
    prompts: Sequence[str]
    """Of `best/samples`, in their order; empty where they aren't known."""
    licence: Licence

    @property
    def best(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.summary["best"]
        return found

    @property
    def strength(self) -> float:
        return float(self.best.get("strength", 1))

    @property
    def title(self) -> str:
        """The base model's family."""
        return FAMILIES[self.experiment.model.family].title

    @property
    def base_name(self) -> str:
        """As others may read it."""
        base = self.experiment.model.base_model or ""
        return "raylora’s demo" if base == DEMO_NAME else public_name(base)


def public_name(model: str) -> str:
    """A hub id whole; of a path its last part, since the rest is somebody's disk."""
    return model if is_hub_id(model) else Path(model).name


def facts_of(told: Described) -> str:
    """What a card says without pictures and code, for a place that shows neither.

    Its first line says what it is: of a version's description MLflow's table shows no more.
    """
    return "\n\n".join(_facts(told))


def write_card(out: OutFolder, told: Described) -> None:
    """Write `best/model_card.md`."""
    pictures = sorted((out.best / "samples").glob("sample_*.png"))[:MOST_PICTURES]
    has_strengths = (out.best / "samples" / STRENGTHS_NAME).is_file()
    shown_pictures = [(f"samples/{path.name}", _prompt_at(told, place)) for place, path in enumerate(pictures)]
    facts = _facts(told)
    parts = [
        _front_matter(told, shown_pictures),
        f"# {escaped(told.name)}",
        facts[0],
        _gallery(shown_pictures, has_strengths),
        _how_to_use(told),
        *facts[1:],
    ]
    write_text(out.best / CARD_NAME, "\n\n".join(part for part in parts if part) + "\n")


def _prompt_at(told: Described, place: int) -> str:
    return one_line(safe(told.prompts[place]))[:LONGEST_PROMPT] if place < len(told.prompts) else ""


def _front_matter(told: Described, pictures: Sequence[tuple[str, str]]) -> str:
    base, trigger = told.experiment.model.base_model or "", told.experiment.dataset.trigger
    is_sdxl = told.experiment.model.family == "sdxl"
    kind = ["stable-diffusion-xl"] if is_sdxl else []
    content = {
        **({"base_model": base, "base_model_relation": "adapter"} if is_hub_id(base) else {}),
        **_licence_lines(told.licence),
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["lora", "stable-diffusion", *kind, "text-to-image", "diffusers", "template:sd-lora"],
        **({"instance_prompt": trigger} if trigger else {}),
        "widget": [{"text": prompt or trigger or "-", "output": {"url": url}} for url, prompt in pictures],
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---"


def _licence_lines(licence: Licence) -> dict[str, str]:
    """As the hub has it: a word of `HUB_LICENCES`, or `other` with a name; its link, where one is known."""
    if not licence.name:
        return {"license": "unknown"}
    word = re.sub(r"[^a-z0-9.+-]+", "-", licence.name.lower()).strip("-")
    named = {"license": word} if word in HUB_LICENCES else {"license": "other", "license_name": word}
    return {**named, **({"license_link": licence.link} if licence.link else {})}


def _facts(told: Described) -> list[str]:
    """The sections without pictures, the most needed first."""
    return [_head(told), _measures(told), _settings(told), _data(told), _licence(told)]


def _head(told: Described) -> str:
    trigger, resolution = told.experiment.dataset.trigger, told.experiment.dataset.resolution
    lines = [
        f"A LoRA for {told.title}, trained on {escaped(told.base_name)} with {told.learned} images at "
        f"{resolution[0]}×{resolution[1]} px. {_found_by(told)}",
        f"Trigger word: {code(trigger)}. Strength to begin with: {told.strength:g}."
        if trigger
        else f"No trigger word. Strength to begin with: {told.strength:g}.",
    ]
    return "\n\n".join(lines)


def _found_by(told: Described) -> str:
    best, total = told.best, told.summary["trials"]["total"]
    if best["score"] is None:
        return f"Made by raylora {__version__}; no images were held out, so nothing was measured."
    how = f"Its settings are the best of {total} that raylora {__version__} tried" if total > 1 else \
          f"Made by raylora {__version__}"  # fmt: skip
    seeds = len(best.get("new_seed_scores", ()))
    again = f", the mean of {seeds} training{'s' * (seeds != 1)} with new seeds" if seeds else ""
    return f"{how}: score {best['score']:.3f}{again}."


def _gallery(pictures: Sequence[tuple[str, str]], has_strengths: bool) -> str:
    """The samples, and which prompt each has; nothing without any."""
    if not pictures:
        return ""
    rows = [f"| ![sample]({url}) | {escaped(prompt)} |" for url, prompt in pictures]
    strengths = f"\n\nThe same prompts at strengths 0.4 to 1.2, from above:\n\n![by strength](samples/{STRENGTHS_NAME})"
    return "\n".join(["## Samples", "", "| picture | prompt |", "|---|---|", *rows]) + strengths * has_strengths


def _how_to_use(told: Described) -> str:
    prompt = next((_prompt_at(told, place) for place in range(len(told.prompts))), "")
    prompt = prompt or told.experiment.dataset.trigger or "your prompt"
    prediction = prediction_of(told.experiment.model)
    lora = HandedOver(_with_base_to_fill_in(told), ".", lora_name(told.name), told.strength, prompt, prediction)
    parts = ["## Use it", "In the folder of these files:"]
    for usage in usages_of(lora):
        parts.append(f"### {usage.program}")
        parts += [f"{piece.what}:\n\n{fenced(piece.text)}" for piece in usage.pieces]
        parts += [usage.hint] if usage.hint else []
    return "\n\n".join(parts)


def _with_base_to_fill_in(told: Described) -> Experiment:
    """The settings with a base model that is not at its place on somebody's disk."""
    base = told.experiment.model.base_model or ""
    if is_hub_id(base):
        return told.experiment
    name = "raylora/demo/base" if base == DEMO_NAME else told.base_name
    return told.experiment.with_params({"model.base_model": f"path/to/{name}"})


def _measures(told: Described) -> str:
    """The winner beside the guide's settings and the base model."""
    winner, guide = told.best["metrics"], (told.summary.get("baseline") or {}).get("metrics", {})
    rows = [
        f"| {MEASURES[name]} | {measure(name, winner[name])} | {measure(name, guide.get(name))} | "
        f"{measure(name, BASE_MEASURES.get(name))} | {meaning} |"
        for name, meaning in MEANINGS
        if name in winner
    ]
    if not rows:
        return ""
    head = [
        "## Measures",
        "",
        f"On {told.held_out} images that were held out, by LoRAs that had not seen them. Of one training each, but for "
        "the score above.",
        "",
        "| measure | this LoRA’s settings | guide’s settings | base model | |",
        "|---|---|---|---|---|",
    ]
    refit = "\n\nThe files were trained once more, on all images, and so have seen the held-out ones too."
    return "\n".join([*head, *rows]) + refit * bool(told.summary.get("refit"))


def _settings(told: Described) -> str:
    flat = flatten(told.experiment.model_dump(mode="json"))
    searched = told.best["params"]
    paths = [path for path in dict.fromkeys([*SETTINGS, *searched]) if flat.get(path) is not None]
    rows = [f"| {code(path)} | {escaped(_value(flat[path]))} | {'yes' if path in searched else ''} |" for path in paths]
    return "\n".join(["## Settings", "", "| setting | value | searched |", "|---|---|---|", *rows])


def _value(value: Any) -> str:
    return "×".join(map(str, value)) if isinstance(value, list) else shown(value)


def _data(told: Described) -> str:
    held_out = f", of which {told.held_out} were held out to judge by" if told.held_out else ""
    digest = f" Digest of all images and captions: {code(told.digest)}." if told.digest else ""
    return (
        f"## Data\n\n{told.images} images with captions{held_out}.{digest} Their names and the other captions are not "
        "told here."
    )


def _licence(told: Described) -> str:
    base, licence = told.experiment.model.base_model or "", told.licence
    page = f"[its page](https://huggingface.co/{base})" if is_hub_id(base) else "the base model’s page"
    link = f" ({escaped(licence.link)})" if licence.link else ""
    if licence.name:
        named = (
            f"is given under {code(licence.name)}{link}, as its files say. A LoRA made from it is bound by that too."
        )
    else:
        named = f"names no licence in its files: see {page}. A LoRA made from it is bound by that licence too."
    return f"## Base model and licence\n\n{escaped(told.base_name)} {named}"


def escaped(text: str) -> str:
    """Text amid Markdown that stays text: no formatting, no HTML, no table cells."""
    plain = safe(one_line(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\1", plain)


def code(text: str) -> str:
    """Text between as many backticks as it takes."""
    plain = one_line(safe(text)).replace("|", "¦")
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    space = " " if "`" in plain else ""
    return f"{ticks}{space}{plain}{space}{ticks}"


def fenced(text: str) -> str:
    """Lines of code, whatever is in them."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}\n{safe(text)}\n{fence}"
