"""Any LoRA file, kohya's layout or diffusers', read without its model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from raylora.diffusion.families import FAMILIES, PICKLED_SUFFIXES
from raylora.diffusion.kohya_names import TEXT_PATH, UNET_PATH, Naming, is_sgm, module_path, naming, text_path
from raylora.diffusion.lora_weights import LoraModule, LoraWeights, magnitude_to_kohya
from raylora.errors import ModelError

ADAPTER_METADATA = "lora_adapter_metadata"
"""diffusers' key for peft's settings, in JSON (diffusers/loaders/lora_base.py)."""

Tensors = dict[str, Tensor]
Fields = dict[tuple[str, str], Tensors]
"""(part, module path) → `down`, `up`, `alpha`, `magnitude`."""

KOHYA_FIELDS = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "alpha": "alpha",
    "dora_scale": "magnitude",
}
DIFFUSERS_KEY = re.compile(
    r"(?P<part>unet|text_encoder_2|text_encoder)\.(?P<path>.+?)"
    r"(?:\.lora_(?P<ab>[AB])\.weight|(?:\.lora|_lora|\.lora_linear_layer)\.(?P<direction>down|up)\.weight"
    r"|\.lora_(?P<magnitude>magnitude)_vector(?:\.weight)?|(?P<alpha>\.alpha))"
)
"""`.lora_A.weight` is peft's; diffusers before 0.25 wrote `_lora.down.weight`, `.lora.down.weight` and, for text
encoders, `.lora_linear_layer.down.weight` (diffusers/utils/state_dict_utils.py)."""
OLD_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}

CONTEXT_WIDTHS = {768: "sd15", 1024: "sd2", 2048: "sdxl"}
"""By the width of the text that a U-Net attends to, its architecture."""
OF_SDXL_ALONE = re.compile(
    r"lora_te2_.*|text_encoder_2\..*|.*(?:add_embedding|label_emb|transformer_blocks[._][1-9]).*"
)


def read_lora(path: Path, family: str | None = None, unet_config: Mapping[str, Any] | None = None) -> LoraWeights:
    """A LoRA file of any layout.

    Args:
        path: the .safetensors file.
        family: the base model's, `sd15` or `sdxl`; by default what keys and shapes say, else the metadata.
        unet_config: of the base model; needed only for SGM names of an SDXL whose blocks are not the usual ones.

    Raises:
        ModelError: no file, pickled, not safetensors, no LoRA, weights that are no numbers, tensors that don't belong
            together, a key of no layout, or another architecture than `family`.
    """
    tensors, metadata = read_tensors(path)
    chosen = _family(path, tensors, metadata, family)
    kohya = any(key.startswith("lora_") for key in tensors)
    fields = (
        _kohya_fields(path, tensors, naming(chosen, unet_config or FAMILIES[chosen].unet))
        if kohya
        else _diffusers_fields(path, tensors)
    )
    config = {} if kohya else _adapter_metadata(path, metadata)
    parts: dict[str, dict[str, LoraModule]] = {}
    for (part, module), values in fields.items():
        parts.setdefault(part, {})[module] = _module(path, part, module, values, config)
    return LoraWeights(chosen, parts, metadata)


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Everything in a LoRA's file: tensors by key, and its metadata."""
    check_lora_file(path)
    with safe_open(str(path), framework="pt") as file:
        tensors = {key: _without_fp8(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    broken = sum(not tensor.isfinite().all() for tensor in tensors.values())
    if broken:
        raise ModelError(
            f"{path}: {broken} of its {len(tensors)} tensors hold something that is no number; "
            "download or train it again"
        )
    return tensors, metadata


def check_lora_file(file: Path) -> None:
    """Refuse what is no LoRA in safetensors, before any model is loaded."""
    if file.suffix.lower() in PICKLED_SUFFIXES:
        raise ModelError(f"{file}: pickled files can run any code when they are read; use a .safetensors LoRA")
    if not file.is_file():
        raise ModelError(f"{file}: there is no such LoRA file")
    try:
        with safe_open(str(file), framework="pt") as opened:
            keys = list(opened.keys())
    except SafetensorError as error:
        raise ModelError(f"{file}: is not a readable .safetensors file ({error})") from None
    if not any("lora" in key for key in keys):
        raise ModelError(f"{file}: holds no LoRA weights")


def _without_fp8(tensor: Tensor) -> Tensor:
    """8-bit floats, with which torch can't reckon, in float16, which holds all their values."""
    eight_bits = tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1
    return tensor.to(torch.float16) if eight_bits else tensor


def _family(path: Path, tensors: Tensors, metadata: Mapping[str, str], wanted: str | None) -> str:
    told = family_of(tensors)
    if told not in (None, *FAMILIES):
        raise ModelError(f"{path}: is a LoRA for Stable Diffusion 2; raylora knows those for SD1.5 and SDXL")
    if told and wanted and told != wanted:
        raise ModelError(f"{path}: is a LoRA for {told}, and the base model is of {wanted}; give its own base model")
    return told or wanted or _family_in(metadata)


def family_of(tensors: Mapping[str, Tensor]) -> str | None:
    """`sdxl`, `sd15` or `sd2` where names and shapes tell: metadata may name any model that was trained further."""
    width = _context_width(tensors)
    if width in CONTEXT_WIDTHS:
        return CONTEXT_WIDTHS[width]
    return "sdxl" if any(is_sgm(key.partition(".")[0]) or OF_SDXL_ALONE.fullmatch(key) for key in tensors) else None


def _context_width(tensors: Mapping[str, Tensor]) -> int | None:
    """How wide the text is that the U-Net's cross-attention reads, if the LoRA has it."""
    down = re.compile(r"attn2[._](?:processor[._])?to_k.*(?:down|lora_A)\.weight")
    return next((tensor.shape[-1] for key, tensor in tensors.items() if down.search(key) and tensor.ndim == 2), None)


def _family_in(metadata: Mapping[str, str]) -> str:
    base, architecture = metadata.get("ss_base_model_version", ""), metadata.get("modelspec.architecture", "")
    return "sdxl" if base.startswith("sdxl") or "xl" in architecture.partition("/")[0] else "sd15"


def _kohya_fields(path: Path, tensors: Tensors, names: Naming) -> Fields:
    fields: Fields = {}
    for key, tensor in tensors.items():
        name, _, kind = key.partition(".")
        place = module_path(names, name)
        if place is None or kind not in KOHYA_FIELDS:
            raise _unknown(path, key)
        fields.setdefault(place, {})[KOHYA_FIELDS[kind]] = tensor
    return fields


def _diffusers_fields(path: Path, tensors: Tensors) -> Fields:
    fields: Fields = {}
    for key, tensor in tensors.items():
        found = DIFFUSERS_KEY.fullmatch(key)
        module = _diffusers_path(found["part"], found["path"]) if found else None
        if not found or module is None:
            raise _unknown(path, key)
        low_rank = found["direction"] or {"A": "down", "B": "up", None: None}[found["ab"]]
        kind = low_rank or found["magnitude"] or "alpha"
        fields.setdefault((found["part"], module), {})[kind] = tensor
    for values in fields.values():
        if values.keys() >= {"magnitude", "up"} and values["up"].shape[:1] == (values["magnitude"].numel(),):
            values["magnitude"] = magnitude_to_kohya(values["magnitude"], values["up"])
    return fields


def _diffusers_path(part: str, path: str) -> str | None:
    """The module path of a diffusers key, without what older versions put in between; None if it is no layer's."""
    if part == "unet":
        path = path.replace(".processor.", ".")
        path = f"{path}.0" if path.endswith(".to_out") else path
        return path if UNET_PATH.fullmatch(path) else None
    stem, _, last = path.rpartition(".")
    path = text_path(f"{stem}.{OLD_TEXT_NAMES.get(last, last)}" if stem else last)
    return path if TEXT_PATH.fullmatch(path) else None


def _unknown(path: Path, key: str) -> ModelError:
    return ModelError(f"{path}: the key {key} is of no LoRA for SD1.5 or SDXL that raylora knows "
                      "(LoRA and DoRA in kohya's and diffusers' layouts)")  # fmt: skip


def _module(path: Path, part: str, module: str, values: Tensors, config: Mapping[str, Any]) -> LoraModule:
    if not {"down", "up"} <= values.keys():
        raise ModelError(f"{path}: {part}.{module} lacks one of its two matrices; download the file again")
    down, up, magnitude = values["down"], values["up"], values.get("magnitude")
    if down.ndim < 2 or up.ndim != down.ndim or up.shape[1] != down.shape[0] or not down.numel() * up.numel():
        raise ModelError(f"{path}: {part}.{module} has matrices of {tuple(up.shape)} and {tuple(down.shape)}, "
                         "which don't belong together")  # fmt: skip
    ones = (1,) * (up.ndim - 2)
    if magnitude is not None and magnitude.shape not in ((len(up), 1, *ones), (1, down.shape[1], *ones)):
        raise ModelError(f"{path}: {part}.{module} has a DoRA magnitude of {tuple(magnitude.shape)}, "
                         f"which doesn't belong to its {len(up)} outputs; download the file again")  # fmt: skip
    return LoraModule(down, up, _alpha(path, part, module, values, config), magnitude)


def _alpha(path: Path, part: str, module: str, values: Tensors, config: Mapping[str, Any]) -> float:
    """A layer's own alpha, or by peft's settings, which people edit by hand."""
    try:
        rank = len(values["down"])
        alpha = float(values["alpha"]) if "alpha" in values else _alpha_of(part, module, rank, config)
        if math.isfinite(alpha):
            return alpha
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, re.error):
        pass
    where = "its alpha" if "alpha" in values else f"its {ADAPTER_METADATA}, or what that says of alpha,"
    raise ModelError(f"{path}: {part}.{module}: {where} is no number; download the file again")


def _adapter_metadata(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """peft's settings from diffusers' metadata: `unet.lora_alpha`, `unet.alpha_pattern` and so on; maybe none."""
    try:
        return dict(json.loads(metadata.get(ADAPTER_METADATA, "{}")))
    except (ValueError, TypeError):
        raise ModelError(f"{path}: its {ADAPTER_METADATA} is not readable as JSON; download the file again") from None


def _alpha_of(part: str, module: str, rank: int, config: Mapping[str, Any]) -> float:
    """A layer's alpha by peft's settings; the rank where there are none, as loaders take it.

    peft's patterns are endings of a path, or regular expressions (peft/utils/other.py, `get_pattern_key`).
    """
    patterns: Mapping[str, float] = config.get(f"{part}.alpha_pattern") or {}
    fits = _first_fit(patterns, module)
    alpha = float(patterns[fits] if fits else config.get(f"{part}.lora_alpha", rank))
    # Rank-stabilized LoRA scales by alpha / sqrt(rank) (https://arxiv.org/abs/2312.03732).
    return alpha * rank**0.5 if config.get(f"{part}.use_rslora") else alpha


def _first_fit(patterns: Iterable[str], module: str) -> str | None:
    return next((pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", module)), None)
