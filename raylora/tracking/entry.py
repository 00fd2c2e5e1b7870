"""What the registry keeps of a LoRA beside its files: tags, a text, and what its score is worth beside others'."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raylora.files import read_mapping, write_atomically
from raylora.tracking.claims import Claim, read_claim

ENTRY_NAME = "registry.json"
"""In an output folder, and in the model's artifacts below `ENTRY_FOLDER`: digests are too long for tags."""
ENTRY_FOLDER = "raylora"
TAG = "raylora."
"""Begins the name of every tag."""
STRENGTH_TAG = f"{TAG}strength"
LONGEST_TAG = 500
LONGEST_TEXT = 5000
"""Characters of a version's description, by MLflow's databases (`store/model_registry/dbmodels/models.py`)."""


@dataclass(frozen=True)
class Entry:
    """One LoRA's."""

    tags: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    """Its model card without pictures, of at most `LONGEST_TEXT` characters."""
    claim: Claim | None = None

    def write(self, file: Path) -> None:
        claim = self.claim.as_dict() if self.claim else None
        told = {"tags": dict(self.tags), "text": self.text, "claim": claim}
        write_atomically(file, json.dumps(told, indent=1, ensure_ascii=False).encode())


def read_entry(file: Path) -> Entry:
    """What `Entry.write` wrote; a claim that can't be read is none.

    Raises:
        OSError, ValueError, TypeError, KeyError, AttributeError: it isn't there or is damaged.
    """
    told = read_mapping(file)
    tags = {str(name): str(value) for name, value in told["tags"].items()}
    return Entry(tags, str(told["text"]), _claim(told["claim"]))


def _claim(told: Any) -> Claim | None:
    try:
        return read_claim(told) if told else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def as_tags(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts by short names as MLflow's tags; those without a value are left out."""
    said = {name: str(value) for name, value in facts.items() if value not in (None, "")}
    return {f"{TAG}{name}": value[:LONGEST_TAG] for name, value in said.items()}
