"""How a webui reads a picture's text: its grammar, written from the regular expression that its source documents."""

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
LORA = re.compile(r"<lora:([^:>]+):([^:>]+)>")
"""`re_extra_net` of modules/extra_networks.py, for a LoRA with one weight."""


@dataclass(frozen=True)
class Read:
    """What a webui would fill its fields with."""

    prompt: str
    negative: str
    values: dict[str, str]


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
