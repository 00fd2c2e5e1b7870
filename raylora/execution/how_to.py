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
from raylora.diffusion.places import DIFFUSERS_NAME, KOHYA_NAME
from raylora.diffusion.prediction import Prediction, V
from raylora.diffusion.webui import A1111_SIGNS, COMFYUI_SIGNS, escaped

WEBUI_LAST = {"sd15": 1, "sdxl": 2}
"""The layer of the text encoder, counted from the last, that a webui and diffusers take without being told."""


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
    prediction: Prediction
    """Of the base model."""

    @property
    def kohya(self) -> str:
        return str(Path(self.folder) / KOHYA_NAME)


def lora_name(folder: str) -> str:
    """A name for a copy of the file among others: the output folder's, of characters that all programs take."""
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
            Piece("Prompt", escaped(COMFYUI_SIGNS, lora.prompt)),
            *_negative(lora.experiment, COMFYUI_SIGNS),
        ],
        _hint(_clip_skip(lora.experiment, "node CLIP Set Last Layer at -{}"), _v_in_comfyui(lora)),
    )


def _a1111(lora: HandedOver) -> Usage:
    told = f"{escaped(A1111_SIGNS, lora.prompt)} <lora:{lora.name}:{lora.strength:g}>"
    return Usage(
        "A1111",
        [_copy(lora, "models/Lora"), Piece("Prompt", told), *_negative(lora.experiment, A1111_SIGNS)],
        _hint(_clip_skip(lora.experiment, "Settings, Stable Diffusion, Clip skip: {}"), _v_in_a1111(lora.prediction)),
    )


def _hint(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _v_in_comfyui(lora: HandedOver) -> str:
    """ComfyUI makes noise with a model that it takes for another kind; marks it reads in SDXL's files alone."""
    prediction, reads_marks = lora.prediction, lora.experiment.model.family == "sdxl"
    if not prediction.is_v or (prediction.is_marked and reads_marks):
        return ""
    zero_snr = ", zsnr true" if prediction.zero_snr else ""
    unless = ", unless the checkpoint is marked v_pred" if reads_marks else ""
    return (
        f"The base model predicts v: put node ModelSamplingDiscrete (sampling {V}{zero_snr}) behind Load LoRA{unless}."
    )


def _v_in_a1111(prediction: Prediction) -> str:
    """The same of A1111 and what was made of it, of which not all read marks."""
    if not prediction.is_v:
        return ""
    zero_snr = "; Settings, Sampler parameters, Noise schedule: Zero Terminal SNR" if prediction.zero_snr else ""
    return (
        "The base model predicts v: lay beside the checkpoint a .yaml of its name for v-prediction models, unless the "
        f"webui reads the mark v_pred in it{zero_snr}."
    )


def _negative(experiment: Experiment, signs: str) -> list[Piece]:
    told = experiment.sampling.negative_prompt
    return [Piece("Negative prompt", escaped(signs, told))] if told else []


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
    half = "bfloat16" if experiment.training.mixed_precision == "bf16" else "float16"
    lines = [
        "import torch",
        f"from diffusers import {pipeline}",
        "",
        f'device, dtype = ("cuda", torch.{half}) if torch.cuda.is_available() else ("cpu", torch.float32)',
        f"pipe = {pipeline}.{load}({base!r}, torch_dtype=dtype).to(device)",
        *_prediction(lora),
        f"pipe.load_lora_weights({lora.folder!r}, weight_name={DIFFUSERS_NAME!r}, adapter_name={name!r})",
        f"pipe.set_adapters({name!r}, {lora.strength:g})",
        # without a negative prompt SDXL's pipeline takes zeros, where samples were made with an empty one
        f"image = pipe({lora.prompt!r}, negative_prompt={sampling.negative_prompt!r}, width={width}, height={height},",
        f"             num_inference_steps={sampling.steps}, guidance_scale={sampling.guidance_scale:g},",
        f"             generator=torch.Generator().manual_seed({sampling.seeds[0]}){_own_layer(experiment)}).images[0]",
        f"image.save({name + '.png'!r})",
    ]
    return "\n".join(lines)


def _prediction(lora: HandedOver) -> list[str]:
    """What diffusers isn't told by the files: settings, and a single file's marks."""
    told = lora.prediction
    kind = V if told.is_v and told.is_marked else lora.experiment.model.prediction_type
    if kind is None:
        return []
    zero_snr = ", rescale_betas_zero_snr=True" if told.is_marked and told.zero_snr else ""
    config = f"pipe.scheduler.config, prediction_type={kind!r}{zero_snr}"
    return [f"pipe.scheduler = type(pipe.scheduler).from_config({config})"]


def _own_layer(experiment: Experiment) -> str:
    """diffusers counts the layers that are left out, beyond what it does by itself."""
    skip = experiment.model.clip_skip
    more = (skip or 0) - WEBUI_LAST[experiment.model.family]
    return f", clip_skip={more}" if skip and more else ""
