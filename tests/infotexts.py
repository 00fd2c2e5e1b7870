"""How a webui reads a picture's text and draws its prompt: its grammar, and what it takes for keys that are missing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""`re_param_code` of A1111's modules/infotext_utils.py, version 1.10."""
LEAST_PAIRS = 3
"""A last line with fewer is taken for a part of the prompt."""
NEGATIVE = "Negative prompt:"
MISSING = {"Clip skip": "1", "RNG": "GPU", "Schedule type": "Automatic"}
"""What `parse_generation_parameters` there takes for keys that a text lacks; Automatic is Karras for DPM++."""
SIGN = re.compile(r"\\(?P<escaped>[()\[\]\\])|(?P<weight>[()\[\]])|\\|(?P<letter>[^\\])", re.S)
"""Of its prompts, as the table above `parse_prompt_attention` in modules/prompt_parser.py has it."""
LORA = re.compile(r"<lora:([^:>]+):([^:>]+)>")
"""`re_extra_net` of modules/extra_networks.py, for a LoRA with one weight."""


@dataclass(frozen=True)
class Read:
    """What a webui would fill its fields with."""

    prompt: str
    negative: str
    values: dict[str, str]

    @property
    def filled(self) -> dict[str, str]:
        """All that it goes by."""
        return MISSING | self.values

    @property
    def words(self) -> tuple[str, str]:
        """What it draws and what it avoids, without the LoRA's tag and without weights."""
        return drawn(LORA.sub("", self.prompt).rstrip()), drawn(self.negative)


def drawn(prompt: str) -> str:
    """The words that are drawn of a prompt in which none may be weighed."""
    found = list(SIGN.finditer(prompt))
    weighed = [sign[0] for sign in found if sign["weight"]]
    assert not weighed, f"{prompt}: {weighed} weigh words"
    return "".join(sign["escaped"] or sign["letter"] or "" for sign in found)


def read_text(text: str) -> Read:
    *lines, last = text.strip().split("\n")
    pairs = PAIR.findall(last)
    if len(pairs) < LEAST_PAIRS:
        lines, pairs = [*lines, last], []
    lines = [line.strip() for line in lines]
    begin = next((place for place, line in enumerate(lines) if line.startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[begin:]).removeprefix(NEGATIVE).strip()
    values = {name: json.loads(value) if value[:1] == '"' else value for name, value in pairs}
    return Read("\n".join(lines[:begin]), negative, values)


def read_picture(path: Path) -> Read:
    with Image.open(path) as picture:
        return read_text(picture.info["parameters"])
