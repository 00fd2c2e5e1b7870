"""How to use a finished LoRA in the programs that load one, with its own file, trigger and strength.

Its report says so with the files where they lie; its model card says so for whoever gets the folder.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raylora.bundled import DEMO_BASE, DEMO_NAME
from raylora.config import Experiment

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


@dataclass(frozen=True)
class HandedOver:
    """A LoRA's files as somebody finds them."""

    experiment: Experiment
    folder: str
    """Where they lie; `.` for who is in that folder."""
    name: str
    """Of its file among others."""
    strength: float
    prompt: str

    @property
    def kohya(self) -> str:
        return str(Path(self.folder) / KOHYA_NAME)


def lora_name(folder: str) -> str:
    """A name for the file among others: the output folder's, of characters that all programs take."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", folder).strip("_") or "lora"


def usages_of(lora: HandedOver) -> list[Usage]:
    """For each program."""
    return [Usage("diffusers", [Piece("Python", _diffusers(lora))]), _comfyui(lora), _a1111(lora)]


def _copy(lora: HandedOver, folder: str) -> Piece:
    source = shlex.quote(lora.kohya)
    return Piece("In the program’s folder, in a shell", f"cp {source} {folder}/{lora.name}.safetensors")


def _comfyui(lora: HandedOver) -> Usage:
    node = {
        "class_type": "LoraLoader",
        "inputs": {
            "lora_name": f"{lora.name}.safetensors",
            "strength_model": float(lora.strength),
            "strength_clip": float(lora.strength if lora.experiment.model.train_text_encoder else 0),
        },
    }
    told = json.dumps(node, indent=2)
    return Usage(
        "ComfyUI",
        [
            _copy(lora, "models/loras"),
            Piece("Node Load LoRA", told),
            Piece("Prompt", _escaped(COMFYUI_SIGNS, lora.prompt)),
            *_negative(lora.experiment, COMFYUI_SIGNS),
        ],
        _clip_skip(lora.experiment, "node CLIP Set Last Layer at -{}"),
    )


def _a1111(lora: HandedOver) -> Usage:
    told = f"{_escaped(A1111_SIGNS, lora.prompt)} <lora:{lora.name}:{lora.strength:g}>"
    return Usage(
        "A1111",
        [_copy(lora, "models/Lora"), Piece("Prompt", told), *_negative(lora.experiment, A1111_SIGNS)],
        _clip_skip(lora.experiment, "Settings, Stable Diffusion, Clip skip: {}"),
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


def _diffusers(lora: HandedOver) -> str:
    experiment, name = lora.experiment, lora.name
    pipeline = "StableDiffusionXLPipeline" if experiment.model.family == "sdxl" else "StableDiffusionPipeline"
    base = experiment.model.base_model or "your base model"
    base = str(DEMO_BASE) if base == DEMO_NAME else base
    load = "from_single_file" if Path(base).suffix == ".safetensors" else "from_pretrained"
    (width, height), sampling = experiment.dataset.resolution, experiment.sampling
    negative = f"negative_prompt={sampling.negative_prompt!r}, " if sampling.negative_prompt else ""
    lines = [
        "import torch",
        f"from diffusers import {pipeline}",
        "",
        'device = "cuda" if torch.cuda.is_available() else "cpu"',
        f"pipe = {pipeline}.{load}({base!r}).to(device)",
        *_prediction(experiment),
        f"pipe.load_lora_weights({lora.folder!r}, weight_name={DIFFUSERS_NAME!r}, adapter_name={name!r})",
        f"pipe.set_adapters({name!r}, {lora.strength:g})",
        f"image = pipe({lora.prompt!r}, {negative}width={width}, height={height},",
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
