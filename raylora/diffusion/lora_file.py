"""LoRA files: kohya's layout for A1111 and ComfyUI, diffusers' layout for diffusers.

kohya's keys must agree with sd-scripts' networks/lora.py: `lora_unet_` or `lora_te_`, the module's path with
underscores, then `.lora_down.weight`, `.lora_up.weight` and the scalar `.alpha`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from raylora import __version__
from raylora.diffusion.adapters import Adapter, StateDict, tuner_layers
from raylora.diffusion.base import BaseModel
from raylora.diffusion.families import DTYPES, PICKLED_SUFFIXES
from raylora.errors import ModelError
from raylora.files import write_atomically

KOHYA_NAME = "lora.safetensors"
DIFFUSERS_NAME = "pytorch_lora_weights.safetensors"
KOHYA_PREFIX = {"unet": "lora_unet", "text_encoder": "lora_te"}
HEADER_LENGTH_BYTES = 8


@dataclass(frozen=True)
class LoraCard:
    """What a LoRA file says about itself in its metadata."""

    title: str
    resolution: tuple[int, int]
    train_images: int
    save_precision: str = "fp16"
    trigger: str | None = None
    tag_frequency: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def kohya_tensors(adapter: Adapter, precision: str) -> StateDict:
    """The adapter's weights under kohya's names."""
    tensors: StateDict = {}
    for part, weights in adapter.state_dict().items():
        for key, value in weights.items():
            module, _, kind = key.rpartition(".lora_")
            name = f"{KOHYA_PREFIX[part]}_{_file_path(part, module).replace('.', '_')}"
            direction = "lora_down" if kind.startswith("A") else "lora_up"
            tensors[f"{name}.{direction}.weight"] = value.to(DTYPES[precision]).contiguous().cpu()
            tensors[f"{name}.alpha"] = torch.tensor(float(adapter.config.alpha), dtype=DTYPES[precision])
    return tensors


def _file_path(part: str, module: str) -> str:
    """transformers 5 dropped `text_model.` from CLIPTextModel's paths; files keep it."""
    if part == "text_encoder" and not module.startswith("text_model."):
        return f"text_model.{module}"
    return module


def write_kohya(adapter: Adapter, path: Path, card: LoraCard) -> None:
    """One file that A1111, ComfyUI and diffusers load. Written whole or not at all."""
    tensors = kohya_tensors(adapter, card.save_precision)
    metadata = kohya_metadata(adapter, card)
    content = save(tensors, metadata)
    header_bytes = int.from_bytes(content[:HEADER_LENGTH_BYTES], "little")
    digest = hashlib.sha256(content[HEADER_LENGTH_BYTES + header_bytes :]).hexdigest()
    content = save(tensors, metadata | {"sshs_model_hash": digest, "modelspec.hash_sha256": f"0x{digest}"})
    write_atomically(path, content)


def kohya_metadata(adapter: Adapter, card: LoraCard) -> dict[str, str]:
    """Strings that loaders read: kohya's `ss_` and Stability AI's ModelSpec 1.0.1."""
    family = adapter.base.family
    width, height = card.resolution
    metadata = {
        "ss_v2": "False",
        "ss_base_model_version": family.kohya_base_version,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(adapter.config.rank),
        "ss_network_alpha": str(adapter.config.alpha),
        "ss_network_args": "{}",
        "ss_output_name": card.title,
        "ss_resolution": f"({width}, {height})",
        "ss_clip_skip": "None",
        "ss_num_train_images": str(card.train_images),
        "ss_tag_frequency": json.dumps(card.tag_frequency),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": family.modelspec_architecture,
        "modelspec.implementation": "diffusers",
        "modelspec.title": card.title,
        "modelspec.resolution": f"{width}x{height}",
        "raylora_version": __version__,
    }
    if card.trigger:
        metadata["modelspec.trigger_phrase"] = card.trigger
    return metadata


def write_diffusers(adapter: Adapter, folder: Path, precision: str) -> None:
    """diffusers' own layout, with the adapter's metadata: without it, alpha would be read as the rank."""
    layers, metadata = {}, {}
    for part, weights in adapter.state_dict().items():
        layers[part] = {
            _file_path(part, key): value.to(DTYPES[precision]).contiguous() for key, value in weights.items()
        }
        config = adapter.peft_configs[part]
        metadata[part] = {
            "r": config.r,
            "lora_alpha": config.lora_alpha,
            "target_modules": sorted(config.target_modules or ()),
        }
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=layers["unet"],
        text_encoder_lora_layers=layers.get("text_encoder"),
        unet_lora_adapter_metadata=metadata["unet"],
        text_encoder_lora_adapter_metadata=metadata.get("text_encoder"),
    )


def load_lora(base: BaseModel, path: Path) -> None:
    """Put any LoRA file or folder onto a base model through diffusers' own loader; it becomes active.

    Raises:
        ModelError: no file, pickled, no LoRA, or one for another architecture.
    """
    file = lora_file_in(path)
    check_lora_file(file)
    mend = "it was trained for another architecture; give its own base model with --base-model"
    logging.disable(logging.ERROR)  # diffusers lists every tensor that doesn't fit
    try:
        base.pipeline().load_lora_weights(str(file.parent), weight_name=file.name)
    except Exception as error:  # peft and diffusers raise many kinds
        raise ModelError(f"{file}: does not fit the base model {base.reference}; {mend}") from error
    finally:
        logging.disable(logging.NOTSET)
    if not tuner_layers(base.unet) and not tuner_layers(base.text_encoder):
        raise ModelError(
            f"{file}: does not fit the base model {base.reference}, which none of its weights belongs to; {mend}"
        )


def lora_file_in(path: Path) -> Path:
    """The file itself, or the LoRA in an output folder, in its `best/`, or in a folder that diffusers wrote."""
    places = (path / "best" / KOHYA_NAME, path / KOHYA_NAME, path / DIFFUSERS_NAME) if path.is_dir() else ()
    return next((place for place in places if place.is_file()), path)


def check_lora_file(file: Path) -> None:
    """Refuse what is no LoRA in safetensors, before any model is loaded."""
    if file.suffix.lower() in PICKLED_SUFFIXES:
        raise ModelError(f"{file}: pickled files can run any code when they are read; use a .safetensors LoRA")
    if not file.is_file():
        raise ModelError(f"{file}: there is no such LoRA file")
    try:
        with safe_open(str(file), framework="pt") as opened:
            keys = list(opened.keys())
    except SafetensorError as error:
        raise ModelError(f"{file}: is not a readable .safetensors file ({error})") from None
    if not any("lora" in key for key in keys):
        raise ModelError(f"{file}: holds no LoRA weights")
