"""Trainer states and adapter weights on disk, written whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from raylora.diffusion.adapters import StateDict
from raylora.errors import OutputError
from raylora.files import write_atomically


def write_state(path: Path, state: dict[str, Any]) -> None:
    """A trainer's whole state, with whatever plain data its owner adds."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote. Only tensors and plain data are read (`weights_only`), never code.

    Raises:
        OutputError: it is something else.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch and pickle raise many kinds, some pages long
        raise no_state(path) from None
    return state


def no_state(path: Path) -> OutputError:
    """Of a file that nothing can go on from."""
    return OutputError(
        f"{path}: is damaged or no state of a training, so nothing can go on from it; delete it to train that from its "
        "beginning, or begin anew with another --out"
    )


def write_weights(path: Path, weights: dict[str, StateDict]) -> None:
    """An adapter's weights in full precision, as `part.key`."""
    flat = {
        f"{part}.{key}": value.cpu().contiguous() for part, tensors in weights.items() for key, value in tensors.items()
    }
    write_atomically(path, save(flat))


def read_weights(path: Path) -> dict[str, StateDict]:
    """What `write_weights` wrote."""
    weights: dict[str, StateDict] = {}
    for name, value in load_file(path).items():
        part, _, key = name.partition(".")
        weights.setdefault(part, {})[key] = value
    return weights
