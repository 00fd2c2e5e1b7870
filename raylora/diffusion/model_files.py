"""A diffusers folder's files, looked at before anything is loaded: nothing of them runs code or leads elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from raylora.errors import ModelError, first_line
from raylora.files import is_file, read_json

LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
"""Where a pipeline's parts come from: diffusers would import any module that an index names, as from the working
directory. `stable_diffusion` is diffusers' own folder of the safety checker."""
WEIGHTS, INDEX_SUFFIX = "*.safetensors", "*.index.json"
MOST_INDEX_BYTES = 2**26
AGAIN = "download the model again"


def check_parts(reference: object, index: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
    """Whether a pipeline's index names only classes of the libraries that raylora loads with.

    Args:
        index: of `model_index.json`.
        wanted: the class of each part that is trained with.

    Raises:
        ModelError: a part is of another module, or of another class than its kind of model has.
    """
    for name, entry in index.items():
        if name not in wanted and not isinstance(entry, list):
            continue  # a setting of the pipeline
        library, kind = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        if name not in wanted and (library, kind) == (None, None) == tuple(entry):
            continue  # a part that this model lacks
        if library not in LIBRARIES or not isinstance(kind, str) or not kind.isidentifier():
            raise ModelError(
                f"{reference}: its model_index.json has {_short(entry)} for {_short(name)}, and raylora loads parts of "
                f"diffusers and transformers alone: others are code that came with the model; {AGAIN}, or use another"
            )
        if kind != wanted.get(name, kind):
            raise ModelError(
                f"{reference}: its model_index.json has {kind} for {name}, and not {wanted[name]}; {AGAIN}"
            )


def check_weights(folder: Path) -> None:
    """Whether a part's folder holds whole safetensors weights, and no index that names files elsewhere.

    Raises:
        ModelError: it doesn't.
    """
    files = sorted(folder.glob(WEIGHTS))
    if not files:
        raise ModelError(f"{folder}: holds no .safetensors weights; {AGAIN}")
    for index in folder.glob(INDEX_SUFFIX):
        for name in shards_of(index):
            if not is_file(folder / name):
                raise ModelError(f"{index}: names {_short(name)}, and there is no such file; {AGAIN}")
    for file in files:
        check_header(file)


def shards_of(index: Path) -> Iterator[str]:
    """The files that an index of weights names, each in its own folder.

    Raises:
        ModelError: it can't be read, names none, or one elsewhere.
    """
    try:
        shards = dict(dict(read_json(index, MOST_INDEX_BYTES))["weight_map"])
    except (OSError, ValueError, TypeError, KeyError):
        raise ModelError(f"{index}: is no index of weights; {AGAIN}") from None
    if not shards:
        raise ModelError(f"{index}: names no files; {AGAIN}")
    for name in sorted({str(name) for name in shards.values()}):
        if not is_plain_name(name):
            raise ModelError(f"{index}: names {_short(name)}, which is no file beside it; {AGAIN}, or use another")
        yield name


def is_plain_name(name: str) -> bool:
    """Whether a name leads nowhere else than to a file in the same folder."""
    return name not in ("", ".", "..") and not set("/\\\0") & set(name)


def check_header(file: Path) -> None:
    """Whether a safetensors file is whole, as its header has it: weights that were cut off show too.

    Raises:
        ModelError: it isn't.
    """
    try:
        if not is_file(file):
            raise ModelError(f"{file}: is no ordinary file; {AGAIN}")
        with safe_open(str(file), framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: is cut off or no .safetensors file ({first_line(error)}); {AGAIN}") from None


def _short(value: object) -> str:
    return ascii(value)[:100]
