"""Which weights a base model has, wherever it lies: told by a few reads, so that gigabytes need not be."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from raylora.diffusion.families import FAMILIES, resolve_base
from raylora.diffusion.hub import is_hub_id

SAMPLES, SAMPLE_BYTES = 32, 4096
"""Of each file's weights, at equal distances: two trainings of one model differ nearly everywhere."""


def base_digest(reference: str, family: str) -> str | None:
    """sha256 of the names, shapes and a sample of a model's weights; None of a hub id, which names them itself.

    Raises:
        ModelError: there is no such model.
    """
    resolved = resolve_base(reference, family)
    if is_hub_id(resolved):
        return None
    path, digest = Path(resolved), hashlib.sha256()
    parts = (*FAMILIES[family].parts, "vae")
    files = (
        [path] if path.is_file() else [file for part in parts for file in sorted((path / part).glob("*.safetensors"))]
    )
    for file in files:
        digest.update(_sample(file))
    return digest.hexdigest()


def _sample(file: Path) -> bytes:
    """A safetensors file's header without its notes, and some of what follows it.

    https://huggingface.co/docs/safetensors/index#format
    """
    with file.open("rb") as opened:
        (header_bytes,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(header_bytes))
        header.pop("__metadata__", None)
        begin, end = 8 + header_bytes, file.stat().st_size
        found = [json.dumps(header, sort_keys=True).encode()]
        for number in range(SAMPLES):
            opened.seek(begin + (end - begin) * number // SAMPLES)
            found.append(opened.read(SAMPLE_BYTES))
    return b"".join(found)
