"""How to use a finished LoRA in the programs that load one, with its own file, trigger and strength."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from raylora.bundled import DEMO_BASE, DEMO_NAME
from raylora.config import Experiment
from raylora.execution.outputs import OutFolder
from raylora.files import is_file
from raylora.report.reading import Work

KOHYA_NAME, DIFFUSERS_NAME = "lora.safetensors", "pytorch_lora_weights.safetensors"
"""As `diffusion/lora_file.py` has them, which needs torch."""
WEBUI_LAST = {"sd15": 1, "sdxl": 2}
"""The layer of the text encoder, counted from the last, that a webui and diffusers take without being told."""

COMFYUI_SIGNS, A1111_SIGNS = "()", "\\()[]"
"""What weighs the words of a prompt there, and a backslash before it takes that away."""


@dataclass(frozen=True)
class Piece:
    """Something to copy, and what it is for."""

    what: str
    text: str


@dataclass(frozen=True)
class Usage:
    """A program, and what to give it."""

    program: str
    pieces: Sequence[Piece]
    hint: str = ""


def usages(work: Work) -> list[Usage]:
    """For each program, with the winner's own settings; none while there is no LoRA."""
    if not work.summary or not is_file(work.out.best / KOHYA_NAME):
        return []
    strength = f"{work.summary['best'].get('strength', 1):g}"
    work = replace(work, experiment=_of_winner(work))
    prompt = _prompt(work)
    return [
        Usage("diffusers", [Piece("Python", _diffusers(work, strength, prompt))]),
        _comfyui(work, strength, prompt),
        _a1111(work, strength, prompt),
    ]


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


def lora_name(out: OutFolder) -> str:
    """A name for the file among others: the output folder's, of characters that all programs take."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", out.root.name).strip("_") or "lora"


def _prompt(work: Work) -> str:
    """Of a held-out image, or else the trigger word."""
    caption = next((one.caption for one in work.held_out if one.caption), "")
    return caption or work.experiment.dataset.trigger or "your prompt"


def _copy(work: Work, folder: str) -> Piece:
    source = shlex.quote(str(work.out.best / KOHYA_NAME))
    return Piece("In the program’s folder, in a shell", f"cp {source} {folder}/{lora_name(work.out)}.safetensors")


def _comfyui(work: Work, strength: str, prompt: str) -> Usage:
    clip = strength if work.experiment.model.train_text_encoder else "0"
    node = {
        "class_type": "LoraLoader",
        "inputs": {
            "lora_name": f"{lora_name(work.out)}.safetensors",
            "strength_model": float(strength),
            "strength_clip": float(clip),
        },
    }
    told = json.dumps(node, indent=2)
    return Usage(
        "ComfyUI",
        [
            _copy(work, "models/loras"),
            Piece("Node Load LoRA", told),
            Piece("Prompt", _escaped(COMFYUI_SIGNS, prompt)),
            *_negative(work.experiment, COMFYUI_SIGNS),
        ],
        _clip_skip(work.experiment, "node CLIP Set Last Layer at -{}"),
    )


def _a1111(work: Work, strength: str, prompt: str) -> Usage:
    told = f"{_escaped(A1111_SIGNS, prompt)} <lora:{lora_name(work.out)}:{strength}>"
    return Usage(
        "A1111",
        [_copy(work, "models/Lora"), Piece("Prompt", told), *_negative(work.experiment, A1111_SIGNS)],
        _clip_skip(work.experiment, "Settings, Stable Diffusion, Clip skip: {}"),
    )


def _negative(experiment: Experiment, signs: str) -> list[Piece]:
    told = experiment.sampling.negative_prompt
    return [Piece("Negative prompt", _escaped(signs, told))] if told else []


def _escaped(signs: str, prompt: str) -> str:
    """The prompt where these signs mean themselves, and no weights."""
    return "".join(f"\\{sign}" if sign in signs else sign for sign in prompt)


def _clip_skip(experiment: Experiment, how: str) -> str:
    skip = experiment.model.clip_skip
    return f"Trained with clip skip {skip}: {how.format(skip)}." if skip else ""


def _diffusers(work: Work, strength: str, prompt: str) -> str:
    experiment, name = work.experiment, lora_name(work.out)
    pipeline = "StableDiffusionXLPipeline" if experiment.model.family == "sdxl" else "StableDiffusionPipeline"
    base = experiment.model.base_model or "your base model"
    base = str(DEMO_BASE) if base == DEMO_NAME else base
    load = "from_single_file" if Path(base).suffix == ".safetensors" else "from_pretrained"
    width, height = experiment.dataset.resolution
    sampling = experiment.sampling
    negative = f"negative_prompt={sampling.negative_prompt!r}, " if sampling.negative_prompt else ""
    lines = [
        "import torch",
        f"from diffusers import {pipeline}",
        "",
        'device = "cuda" if torch.cuda.is_available() else "cpu"',
        f"pipe = {pipeline}.{load}({base!r}).to(device)",
        *_prediction(experiment),
        f"pipe.load_lora_weights({str(work.out.best)!r}, weight_name={DIFFUSERS_NAME!r}, adapter_name={name!r})",
        f"pipe.set_adapters({name!r}, {strength})",
        f"image = pipe({prompt!r}, {negative}width={width}, height={height},",
        f"             num_inference_steps={sampling.steps}, guidance_scale={sampling.guidance_scale:g},",
        f"             generator=torch.Generator().manual_seed({sampling.seeds[0]}){_own_layer(experiment)}).images[0]",
        f"image.save({name + '.png'!r})",
    ]
    return "\n".join(lines)


def _prediction(experiment: Experiment) -> list[str]:
    kind = experiment.model.prediction_type
    if kind is None:
        return []
    return [f"pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type={kind!r})"]


def _own_layer(experiment: Experiment) -> str:
    """diffusers counts the layers that are left out, beyond what it does by itself."""
    skip = experiment.model.clip_skip
    more = (skip or 0) - WEBUI_LAST[experiment.model.family]
    return f", clip_skip={more}" if skip and more else ""
