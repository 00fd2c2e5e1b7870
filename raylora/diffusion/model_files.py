"""A diffusers folder's files, looked at before anything is loaded: nothing of them runs code or leads elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from raylora.errors import ModelError, first_line
from raylora.files import exists, is_file, read_mapping

LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
"""Where a pipeline's parts come from: diffusers would import any module that an index names, as from the working
directory. `stable_diffusion` is diffusers' own folder of the safety checker."""
DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS = "diffusion_pytorch_model.safetensors", "model.safetensors"
TOKENIZER_NAMES = ("tokenizer.json", "vocab.json")
MOST_LAYERS, MOST_WIDTH, MOST_BLOCKS = 100, 10**6, 100
"""Beyond any model of these families; a vocabulary counts as a width."""
MOST_INDEX_BYTES = 2**26
MOST_SIDE_PX = 4096
"""Models that look at pictures take 224 to 1,024 px."""
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


def check_weights(folder: Path, name: str) -> None:
    """Whether a part's folder holds whole safetensors weights of this name, in one file or in several beside it.

    Raises:
        ModelError: it doesn't.
    """
    index, others = folder / f"{name}.index.json", sorted(folder.glob("*.safetensors"))
    if is_file(folder / name):
        names = [name]
    elif exists(index):
        names = list(shards_of(index))
    else:
        found = f", but {others[0].name}; rename it if that is this model, or {AGAIN}" if others else f"; {AGAIN}"
        raise ModelError(f"{folder}: holds no {name}{found}")
    for file in sorted({*others, *(folder / each for each in names)}):  # all of them: a model is known by them all
        check_header(file)


def check_tokenizer(folder: Path) -> None:
    """Whether there is a tokenizer.

    Raises:
        ModelError: there is none.
    """
    if not any(is_file(folder / name) for name in TOKENIZER_NAMES):
        raise ModelError(f"{folder}: holds no {' or '.join(TOKENIZER_NAMES)}; {AGAIN}")


def check_sizes(reference: object, config: Mapping[str, Any]) -> None:
    """Whether a part's configuration asks for no more than such models have: layers are made one by one.

    Raises:
        ModelError: it asks for too much.
    """
    for name, value in config.items():
        parts = value if isinstance(value, list) else [value]
        most = MOST_LAYERS if "layers" in name else MOST_WIDTH
        if len(parts) > MOST_BLOCKS or any(isinstance(part, int) and part > most for part in parts):
            raise ModelError(f"{reference}: its configuration has {_short(value)} for {_short(name)}; {AGAIN}")


def oversized(preprocessing: Mapping[str, Any]) -> str | None:
    """The size that a model's preprocessing makes pictures, in words, if it is larger than any model takes them."""
    below = preprocessing.get("image_processor")
    for name, size in {**preprocessing, **(below if isinstance(below, dict) else {})}.items():
        sides = size.values() if isinstance(size, dict) else [size]
        if "size" in name and any(isinstance(side, int) and side > MOST_SIDE_PX for side in sides):
            return f"{_short(size)} px for {name}"
    return None


def shards_of(index: Path) -> Iterator[str]:
    """The files that an index of weights names, each in its own folder.

    Raises:
        ModelError: it can't be read, names none, or one elsewhere.
    """
    try:
        shards = dict(read_mapping(index, MOST_INDEX_BYTES)["weight_map"])
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
        with file.open("rb"), safe_open(str(file), framework="pt"):
            pass
    except PermissionError:
        raise ModelError(f"{file}: can't be read; let your user read it") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: is cut off or no .safetensors file ({first_line(error)}); {AGAIN}") from None


def _short(value: object) -> str:
    return ascii(value)[:100]
