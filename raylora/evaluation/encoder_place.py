"""Where an image encoder is, told without torch, whose import takes seconds."""

from __future__ import annotations

from pathlib import Path

from raylora.bundled import DEMO_NAME
from raylora.diffusion.hub import cached_folder
from raylora.files import is_folder, resolved
from raylora.own_code import is_own_name

CONFIG_NAME, WEIGHTS = "config.json", ("*.safetensors", "*.bin")
"""What every encoder's folder has, and what its weights may be called."""


def is_at_hand(reference: str) -> bool:
    """Whether an encoder's weights lie on this machine's disk under that name."""
    return reference == DEMO_NAME or is_folder(resolved(Path(reference)))


def place_here(reference: str) -> str | None:
    """What to load an encoder by so that nothing is downloaded; None of one whose weights aren't on this machine."""
    if is_own_name(reference) or is_at_hand(reference):
        return reference
    folder = cached_folder(reference, CONFIG_NAME, WEIGHTS)
    return str(folder) if folder else None
