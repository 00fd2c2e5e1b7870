"""How A1111's webui and ComfyUI read a prompt, which raylora reads as it stands."""

from __future__ import annotations

import re

COMFYUI_SIGNS, A1111_SIGNS = "()", "\\()[]"
"""What weighs the words of a prompt there, and a backslash before it takes that away."""
SIGNS = re.compile(
    r"\([^()]*:\s*[+-]?\d*\.?\d+\s*\)"  # (word:1.2)
    r"|\(\([^()]*\)\)"
    r"|\[[^\[\]]*\]"  # [word], [from:to:0.5], [one|other]
    r"|\\[()\[\]]"
    r"|<\w+:[^<>]*>"
    r"|\b(?:BREAK|AND)\b"
)
"""What is no word to a webui (A1111's `modules/prompt_parser.py` and `extra_networks.py`). A word in single brackets is
left out: names of series stand so in captions, and are learned so."""
LOADING = re.compile(r"<(?:lora|lyco|hypernet):", re.I)
"""Begins what loads weights there."""
UNNAMEABLE = re.compile(r"[<>:,\"\x00-\x1f]+")
"""What a name in `<lora:NAME:1>` or in `Lora hashes` can't hold."""


def escaped(signs: str, prompt: str) -> str:
    """The prompt where these signs mean themselves, and no weights."""
    return "".join(f"\\{sign}" if sign in signs else sign for sign in prompt)


def signs_in(prompt: str) -> list[str]:
    """Where a webui would read weights, breaks and the like; each once."""
    return list(dict.fromkeys(found[0] for found in SIGNS.finditer(prompt)))


def tag_name(stem: str) -> str:
    """What a webui calls a LoRA whose file is called so, as far as its tag can hold that."""
    return UNNAMEABLE.sub("_", stem) or "lora"
