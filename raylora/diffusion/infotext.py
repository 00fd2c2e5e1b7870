"""How a picture was made, written into its PNG as A1111's webui does, so that webuis and sites read it back.

The text is the chunk `parameters`: prompt, `Negative prompt: …`, and a last line of `name: value` pairs; a value with a
comma, a colon or a line end stands in quotes, as in JSON (`modules/processing.py`, `create_infotext`, and
`modules/infotext_utils.py`, `quote` and `parse_generation_parameters`, of version 1.10).
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

CHUNK = "parameters"
QUOTED = (",", ":", "\n")
SAMPLERS = {
    "DDIMScheduler": "DDIM",
    "PNDMScheduler": "PLMS",
    "EulerDiscreteScheduler": "Euler",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "HeunDiscreteScheduler": "Heun",
    "LMSDiscreteScheduler": "LMS",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "UniPCMultistepScheduler": "UniPC",
}
"""diffusers' samplers by the webui's names; another keeps its own."""


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
    clip_skip: int | None
    """Where it is not the family's own."""


def infotext(recipe: Recipe, origin: Origin) -> str:
    """The text of a picture's chunk. At strength 0 the picture is the base model's, and no LoRA is named."""
    lora = f" <lora:{origin.lora_name}:{recipe.strength:g}>" if recipe.strength else ""
    lines = [f"{recipe.prompt}{lora}"]
    if recipe.negative_prompt:
        lines.append(f"Negative prompt: {recipe.negative_prompt}")
    told = ", ".join(f"{name}: {quoted(value)}" for name, value in _parameters(recipe, origin).items())
    return "\n".join([*lines, told])


def _parameters(recipe: Recipe, origin: Origin) -> Mapping[str, Any]:
    """What is known of the picture, in the webui's order."""
    width, height = recipe.size
    values = {
        "Steps": recipe.steps,
        "Sampler": SAMPLERS.get(origin.sampler, origin.sampler),
        "CFG scale": f"{recipe.guidance_scale:g}",
        "Seed": recipe.seed,
        "Size": f"{width}x{height}",
        "Model hash": origin.model_hash,
        "Model": origin.model,
        "Clip skip": origin.clip_skip,
        "Lora hashes": f"{origin.lora_name}: {origin.lora_hash}" if recipe.strength else None,
        "Version": f"raylora {__version__}",
    }
    return {name: value for name, value in values.items() if value is not None}


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
