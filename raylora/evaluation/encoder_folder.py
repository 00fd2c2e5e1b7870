"""An image encoder's folder, looked at before anything of it is loaded: what is missing is told with its mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar

from raylora.diffusion.model_files import is_plain_name, oversized
from raylora.errors import ModelError
from raylora.files import is_file, is_folder, read_mapping, resolved

CONFIG_NAME, WEIGHTS_NAME, INDEX_NAME = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLED_NAMES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
PREPROCESSOR_NAMES = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_NAMES = ("tokenizer.json", "vocab.json")
UNUSED_WEIGHTS = ("logit_scale", "logit_bias", "mask_token")
"""Weights that no embedding depends on: those of the training loss, and of DINOv2's masking."""
DEVICE_WITHOUT_WEIGHTS = "meta"
"""torch's device on which shapes are made and no numbers read."""
AGAIN = "download the model again"


def read_kind(reference: str) -> str:
    """The `model_type` that the configuration in an encoder's folder names.

    Raises:
        ModelError: it isn't there, or its configuration can't be read.
    """
    folder = resolved(Path(reference))
    if is_file(folder):
        raise _wrong(reference, f"is a file; give the folder that holds it with its {CONFIG_NAME}")
    if not is_folder(folder):
        raise _wrong(reference, "there is no such folder; mend the path, or give a hub id")
    kind = _json_of(folder / CONFIG_NAME, reference).get("model_type")
    if not isinstance(kind, str):
        raise _wrong(reference, f"its {CONFIG_NAME} names no model_type, so it is no encoder of transformers; {AGAIN}")
    return kind


def check_files(reference: str, reads_texts: bool) -> None:
    """Whether the folder holds whole weights, preprocessing and, where prompts are read, a tokenizer.

    Raises:
        ModelError: one of them is missing, or weights are cut off.
    """
    folder = resolved(Path(reference))
    for file in _weight_files(folder, reference):
        _check_header(file, reference)
    _check_preprocessing(folder, reference)
    for names in (PREPROCESSOR_NAMES, TOKENIZER_NAMES) if reads_texts else (PREPROCESSOR_NAMES,):
        if not any((folder / name).is_file() for name in names):
            raise _wrong(reference, f"has no {' or '.join(names)}; {AGAIN}")


def _check_preprocessing(folder: Path, reference: str) -> None:
    """Whether pictures are made no larger than encoders take them: each is made so, a batch at a time."""
    for file in (folder / name for name in PREPROCESSOR_NAMES if is_file(folder / name)):
        if size := oversized(_json_of(file, reference)):
            raise _wrong(reference, f"its {file.name} has {size}; {AGAIN}")


def load_whole(reference: str, device: str = "cpu") -> Any:
    """A transformers model in float32, none of whose weights were made up.

    transformers draws those at random that a file lacks, and only logs it: pictures would then be judged by noise.

    Args:
        device: `DEVICE_WITHOUT_WEIGHTS` compares names and shapes alone.

    Raises:
        ModelError: weights are missing, or of another shape than the configuration says.
    """
    disable_progress_bar()
    model, found = AutoModel.from_pretrained(
        reference, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
        ignore_mismatched_sizes=True,
        device_map=device if device == DEVICE_WITHOUT_WEIGHTS else None,
    )  # fmt: skip
    lacking = sorted(name for name in found["missing_keys"] if not name.endswith(UNUSED_WEIGHTS))
    misshapen = sorted(str(entry[0]) for entry in found["mismatched_keys"])
    if wrong := lacking or misshapen:
        fault = "are missing in its weights" if lacking else "have other shapes in its weights"
        raise ModelError(
            f"{len(wrong)} of the {len(model.state_dict())} tensors that its {CONFIG_NAME} asks for {fault}, such as "
            f"{wrong[0]}: they are another model's; {AGAIN}"
        )
    return model


def _weight_files(folder: Path, reference: str) -> list[Path]:
    """The files that transformers would read."""
    if (folder / WEIGHTS_NAME).is_file():
        return [folder / WEIGHTS_NAME]
    if (folder / INDEX_NAME).is_file():
        shards = _json_of(folder / INDEX_NAME, reference).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise _wrong(reference, f"its {INDEX_NAME} names no files; {AGAIN}")
        names = sorted({str(name) for name in shards.values()})
        if elsewhere := [name for name in names if not is_plain_name(name)]:
            raise _wrong(reference, f"its {INDEX_NAME} names {ascii(elsewhere[0])[:100]}, no file beside it; {AGAIN}")
        return [folder / name for name in names]
    if others := sorted(path.name for path in folder.glob("*.safetensors")):
        raise _wrong(reference, f"has no {WEIGHTS_NAME} but {others[0]}; rename it, if it is this model in one file")
    if any((folder / name).is_file() for name in PICKLED_NAMES):
        raise _wrong(
            reference,
            "has pickled weights alone, which can run any code when they are read, so raylora doesn't read them; save "
            f"the model as safetensors (`model.save_pretrained(folder)` of transformers writes {WEIGHTS_NAME})",
        )
    raise _wrong(reference, f"has no {WEIGHTS_NAME}; {AGAIN}")


def _check_header(file: Path, reference: str) -> None:
    """safetensors' header says how long the file is, so one that was cut off shows too."""
    if not is_file(file):
        raise _wrong(reference, f"has no {file.name}, which its {INDEX_NAME} names; {AGAIN}")
    try:
        with safe_open(str(file), framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size
        raise _wrong(reference, f"its {file.name} is cut off or damaged ({size:,} bytes: {error}); {AGAIN}") from None


def _json_of(file: Path, reference: str) -> dict[str, Any]:
    if not is_file(file):
        raise _wrong(reference, f"has no {file.name}; {AGAIN}, or give a hub id")
    try:
        return read_mapping(file)
    except (OSError, ValueError, TypeError):
        raise _wrong(reference, f"its {file.name} can't be read as JSON; {AGAIN}") from None


def _wrong(reference: str, fault: str) -> ModelError:
    return ModelError(f"evaluation.encoder {reference}: {fault}")
