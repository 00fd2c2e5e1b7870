"""Under which licence a base model is given, as far as its own files say."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from raylora.diffusion.families import INDEX_NAME, resolve_base
from raylora.diffusion.hub import hub_file, is_hub_id
from raylora.errors import ModelError
from raylora.files import MOST_TEXT_BYTES, is_folder, read_mapping, read_ordinary
from raylora.redaction import one_line
from raylora.yaml_text import load_yaml

HUB_CARD_NAME = "README.md"
FENCE = "---"
"""A line of it begins the YAML of a model card, and the next one ends it: https://huggingface.co/docs/hub/model-cards"""
LICENCE_KEY = "modelspec.license"
"""Of a single file's metadata: https://github.com/Stability-AI/ModelSpec"""
LONGEST = 200


@dataclass(frozen=True)
class Licence:
    """A licence by its name, such as `creativeml-openrail-m`; no name where nothing is known."""

    name: str = ""
    link: str = ""


def licence_of(reference: str, family: str) -> Licence:
    """The licence that a base model's files name: its model card's, its index's, or a single file's metadata.

    Of a model on the hub the card is fetched, a few kB, if it isn't here; where that can't be, nothing is known.

    Raises:
        ModelError: there is no such model.
    """
    resolved = resolve_base(reference, family)
    if is_hub_id(resolved):
        with suppress(ModelError):
            return _of_card(hub_file(resolved, HUB_CARD_NAME))
        return Licence()
    if is_folder(Path(resolved)):
        told = _of_card(Path(resolved) / HUB_CARD_NAME)
        return told if told.name else _of_index(Path(resolved))
    return _of_file(Path(resolved))


def _of_card(file: Path) -> Licence:
    """What the YAML at the top of a model card says."""
    try:
        lines = read_ordinary(file, MOST_TEXT_BYTES).decode("utf-8-sig").splitlines()
        end = lines.index(FENCE, 1)
        told = load_yaml("\n".join(lines[1:end])) if lines[0] == FENCE else None
    except (OSError, ValueError, IndexError):
        return Licence()
    return _named(told) if isinstance(told, dict) else Licence()


def _named(told: dict[str, Any]) -> Licence:
    """`other` is no name: then there is one of its own."""
    name = _text(told.get("license"))
    own = _text(told.get("license_name"))
    return Licence(own if own and name in ("", "other") else name, _text(told.get("license_link")))


def _of_index(folder: Path) -> Licence:
    try:
        return _named(read_mapping(folder / INDEX_NAME))
    except (OSError, ValueError):
        return Licence()


def _of_file(file: Path) -> Licence:
    try:
        with safe_open(str(file), framework="pt") as opened:
            return Licence(_text((opened.metadata() or {}).get(LICENCE_KEY)))
    except (OSError, SafetensorError):
        return Licence()


def _text(value: object) -> str:
    """A short text in one line; of several the first."""
    if isinstance(value, list):
        value = value[0] if value else ""
    return one_line(value.strip())[:LONGEST] if isinstance(value, str) else ""
