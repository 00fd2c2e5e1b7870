"""Where base models and LoRA files lie; without torch, so that a mistyped path is told at once."""

from __future__ import annotations

from pathlib import Path

from raylora.bundled import DEMO_BASE, DEMO_NAME
from raylora.diffusion.hub import is_hub_id, is_meant_as_path
from raylora.errors import ModelError
from raylora.files import exists, is_file, is_folder, resolved

KOHYA_NAME = "lora.safetensors"
DIFFUSERS_NAME = "pytorch_lora_weights.safetensors"
PICKLED_SUFFIXES = {".ckpt", ".pt", ".pth", ".bin"}


def base_place(reference: str) -> Path | None:
    """Where a base model lies on this machine; None of one on the hub.

    Raises:
        ModelError: a pickled file, or a path that isn't there.
    """
    if reference == DEMO_NAME:
        return DEMO_BASE
    path = resolved(Path(reference)) if reference.startswith("~") else Path(reference)
    if path.suffix.lower() in PICKLED_SUFFIXES:
        raise ModelError(
            f"{reference}: pickled checkpoints can run any code when they are read, so raylora doesn't read them; "
            "use the .safetensors file of the same model"
        )
    if is_folder(path) or is_file(path):
        return path
    if is_hub_id(reference):
        return None
    missing = "file or folder" if is_meant_as_path(reference) else "base model"
    raise ModelError(
        f"{reference}: there is no such {missing}; give a hub id, a diffusers folder or a .safetensors file"
    )


def lora_file_in(path: Path) -> Path:
    """The file itself, or the LoRA in an output folder, in its `best/`, or in a folder that diffusers wrote."""
    places = (path / "best" / KOHYA_NAME, path / KOHYA_NAME, path / DIFFUSERS_NAME) if is_folder(path) else ()
    return next((place for place in places if is_file(place)), path)


def check_lora_place(lora: Path) -> None:
    """Whether a LoRA may be at a path.

    Raises:
        ModelError: nothing is there, or a folder without one.
    """
    if not exists(lora):
        raise ModelError(f"{lora}: there is no such LoRA file or folder; mend the path")
    if is_folder(lora_file_in(lora)):
        raise ModelError(
            f"{lora}: holds no LoRA (looked for {KOHYA_NAME} in it and in best/, and {DIFFUSERS_NAME}); "
            "give the file itself, or the output folder of finished work"
        )


def check_is_file(lora: Path) -> None:
    """Whether there is such a file, of a kind that may be read.

    Raises:
        ModelError: there isn't.
    """
    if lora.suffix.lower() in PICKLED_SUFFIXES:
        raise ModelError(f"{lora}: pickled files can run any code when they are read; use a .safetensors LoRA")
    if not is_file(lora):
        raise ModelError(f"{lora}: there is no such LoRA file")
