"""The record of a prepared folder: enough to do it again, and to see what was done to each picture."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from raylora import __version__
from raylora.preparation.job import Job
from raylora.preparation.prepared import Done, Prepared

LIBRARIES = ("pillow", "numpy")
USED_FOR = {
    "focus": ("opencv-contrib-python-headless",),
    "blip": ("torch", "transformers"),
    "tags": ("onnxruntime",),
}
"""By the setting that needs them."""


def manifest_of(job: Job, prepared: Prepared) -> dict[str, Any]:
    """All of it as JSON can say it. No time is in it, and no place but that of a captioner's folder, where
    one is named: the same work gives the same bytes."""
    model = job.model
    captioner = {"model": model.reference, **model.identity} if model else None
    return {
        "raylora": __version__,
        "libraries": _libraries(job),
        "settings": job.settings.model_dump(mode="json"),
        "captioner": captioner,
        "source": job.folder.name,
        "images": [_image(one, prepared) for one in prepared.done],
        "left_out": [{"source": one.name, "reason": one.reason} for one in prepared.left_out],
    }


def _image(one: Done, prepared: Prepared) -> dict[str, Any]:
    source, cut = one.source, one.cut
    return {
        "source": source.name,
        "source_sha256": source.digest,
        "source_size": cut.original,
        "faces": cut.faces,
        "subject": cut.subject,
        "box": cut.box,
        "size": cut.size,
        "notes": cut.notes,
        "file": source.target,
        "file_sha256": one.digest,
        "caption_before": source.caption,
        "caption_found": prepared.found.get(source.name),
        "caption": prepared.captions[source.name],
        "caption_edited": source.name in prepared.edited,
    }


def _libraries(job: Job) -> dict[str, str]:
    """Versions of what had a hand in it."""
    return versions([*LIBRARIES, *USED_FOR.get(job.settings.crop, ()), *USED_FOR.get(job.settings.caption, ())])


def versions(names: Iterable[str]) -> dict[str, str]:
    """Of those packages that are installed under these names."""
    return {name: found for name in names if (found := _version(name))}


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def as_bytes(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
