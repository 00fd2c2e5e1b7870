"""Ways to damage a model: its JSON, its safetensors files, and code that nobody may run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.bad_input.kinds import writes

Tensors = dict[str, Any]
Edit = Callable[[Path], object]
"""Something done to a folder."""
EVIL = """
import os

os.system("touch pwned")


class Evil:
    @classmethod
    def from_pretrained(cls, *names, **options):
        return cls()
"""
"""A module that leaves a file when it is imported."""


def all_of(*parts: Edit) -> Edit:
    """One edit after the other."""

    def edit(folder: Path) -> None:
        for part in parts:
            part(folder)

    return edit


class Payload:
    """What a pickle runs when it is read: it leaves a file."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch pwned",)


PICKLED = pickle.dumps(Payload())


def framed(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file that may lie about its header's length."""
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def described(entries: object, body: bytes = b"\0" * 64) -> bytes:
    """A safetensors file of any header."""
    return framed(json.dumps(entries).encode(), body)


def entry(dtype: object = "F32", shape: object = (2, 2), offsets: object = (0, 16)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def each(ending: str, change: Callable[[Any], Any]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {
        key: np.ascontiguousarray(change(value)) if key.endswith(ending) else value for key, value in tensors.items()
    }


def in_json(name: str, change: Callable[[dict[str, Any]], object]) -> Edit:
    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return edit


def in_text(name: str, content: str | bytes) -> Edit:
    return writes(name, content)


def without_files(*names: str) -> Edit:
    def remove(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def in_tensors(name: str, change: Callable[[Tensors], Tensors | None]) -> Edit:
    def edit(folder: Path) -> None:
        tensors = dict(load_file(folder / name))
        save_file(change(tensors) or tensors, folder / name, {"format": "pt"})

    return edit


def cut(name: str) -> Edit:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)
