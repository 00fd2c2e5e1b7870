"""How a picture was made, written into its PNG as A1111's webui does, so that webuis and sites read it back.

The text is the chunk `parameters`: prompt, `Negative prompt: …`, and a last line of `name: value` pairs; a value with a
comma, a colon or a line end stands in quotes, as in JSON (`modules/processing.py`, `create_infotext`, and
`modules/infotext_utils.py`, `quote` and `parse_generation_parameters`, of version 1.10).

The picture is of the prompt as it stands, so the text has it with brackets escaped, as that picture's prompt must be
written for a webui. The webui's other way, `Emphasis: None`, is known to A1111 from 1.9 on and to Forge alone, and
leaves `[from:to:0.5]` in force; escapes are read by all versions, and by ComfyUI those of round brackets, the only ones
that it weighs by.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from raylora import __version__
from raylora.dataset.pixels import Pixels
from raylora.diffusion.webui import A1111_SIGNS, escaped

CHUNK = "parameters"
QUOTED = (",", ":", "\n")
SAMPLERS = {
    "DDIMScheduler": "DDIM",
    "PNDMScheduler": "PLMS",
    "EulerDiscreteScheduler": "Euler",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "HeunDiscreteScheduler": "Heun",
    "LMSDiscreteScheduler": "LMS",
    "UniPCMultistepScheduler": "UniPC",
}
"""diffusers' samplers by the webui's names; another keeps its own."""
DPM = "DPMSolverMultistepScheduler"
DPM_SAMPLERS = {
    ("dpmsolver++", 2): "DPM++ 2M",
    ("sde-dpmsolver++", 2): "DPM++ 2M SDE",
    ("sde-dpmsolver++", 3): "DPM++ 3M SDE",
}
"""The same of one class that is several of the webui's, by algorithm and order."""
SCHEDULES = {"use_karras_sigmas": "Karras", "use_exponential_sigmas": "Exponential", "use_beta_sigmas": "Beta"}
"""The webui's names of schedules (`modules/sd_schedulers.py`), by the setting of diffusers that takes them."""
SPACINGS = {"linspace": "Uniform", "leading": "DDIM", "trailing": "SGM Uniform"}
"""The same by `timestep_spacing`: which timesteps are taken where no setting says otherwise."""
SPACED = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler")
"""Samplers that go by it; the webui's DDIM, PLMS and UniPC have but one schedule."""


@dataclass(frozen=True)
class Recipe:
    """All that a picture depends on, beside base model and LoRA.

    size: width and height in px.
    """

    prompt: str
    negative_prompt: str
    seed: int
    size: tuple[int, int]
    steps: int
    guidance_scale: float
    strength: float


@dataclass(frozen=True)
class Origin:
    """The models that a picture is made with, as a webui knows them."""

    lora_name: str
    lora_hash: str
    """The first 12 hexadecimal digits, see `lora_file.webui_hash`."""
    model: str
    model_hash: str | None
    """The first 10 digits of the file's sha256; None of a folder, for which a webui has no hash."""
    sampler: str
    """The class of diffusers' scheduler."""
    sampler_config: Mapping[str, Any]
    """Its settings."""
    clip_skip: int | None
    """Where it is not the family's own."""


def infotext(recipe: Recipe, origin: Origin) -> str:
    """The text of a picture's chunk. At strength 0 the picture is the base model's, and no LoRA is named."""
    lora = f" <lora:{origin.lora_name}:{recipe.strength:g}>" if recipe.strength else ""
    negative = escaped(
        A1111_SIGNS, recipe.negative_prompt
    )  # an empty one too: ComfyUI opens no picture without the line
    lines = [f"{escaped(A1111_SIGNS, recipe.prompt)}{lora}", f"Negative prompt: {negative}"]
    told = ", ".join(f"{name}: {quoted(value)}" for name, value in _parameters(recipe, origin).items())
    return "\n".join([*lines, told])


def _parameters(recipe: Recipe, origin: Origin) -> Mapping[str, Any]:
    """What is known of the picture, in the webui's order; what it would guess otherwise, too."""
    width, height = recipe.size
    zero_snr = origin.sampler_config.get("rescale_betas_zero_snr")
    values = {
        "Steps": recipe.steps,
        "Sampler": sampler_name(origin.sampler, origin.sampler_config),
        "Schedule type": schedule_type(origin.sampler, origin.sampler_config),
        "CFG scale": f"{recipe.guidance_scale:g}",
        "Seed": recipe.seed,
        "Size": f"{width}x{height}",
        "Model hash": origin.model_hash,
        "Model": origin.model,
        "Clip skip": origin.clip_skip,
        "Noise Schedule": "Zero Terminal SNR" if zero_snr else None,
        "RNG": "CPU",
        "Lora hashes": f"{origin.lora_name}: {origin.lora_hash}" if recipe.strength else None,
        "Version": f"raylora {__version__}",
    }
    return {name: value for name, value in values.items() if value is not None}


def sampler_name(sampler: str, config: Mapping[str, Any]) -> str:
    """The webui's name of a scheduler of diffusers with these settings."""
    if sampler == DPM:
        kind = config.get("algorithm_type", "dpmsolver++"), config.get("solver_order", 2)
        return DPM_SAMPLERS.get(kind, sampler)
    return SAMPLERS.get(sampler, sampler)


def schedule_type(sampler: str, config: Mapping[str, Any]) -> str | None:
    """The webui's name of the noise levels that it takes, the nearest one; None where the webui has no choice.

    Without a name the webui takes its own, which for DPM++ is Karras.
    """
    told = next((name for setting, name in SCHEDULES.items() if config.get(setting)), None)
    if told is None and sampler in SPACED:
        return SPACINGS.get(config.get("timestep_spacing", "linspace"))
    return "SGM Uniform" if told is None and sampler == DPM else told  # which leaves the last timestep out, as DPM does


def quoted(value: object) -> str:
    """A value as it stands in the last line."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in QUOTED) else text


def png(pixels: Pixels, text: str) -> bytes:
    """A picture (height, width, 3) as a PNG file with its text."""
    chunks, file = PngInfo(), io.BytesIO()
    chunks.add_text(CHUNK, text)
    Image.fromarray(pixels).save(file, "PNG", pnginfo=chunks)
    return file.getvalue()
