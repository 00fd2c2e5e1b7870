"""Any LoRA file, kohya's layout or diffusers', read without its model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from raylora.diffusion.families import FAMILIES
from raylora.diffusion.kohya_names import TEXT_PATH, UNET_PATH, Naming, is_sgm, module_path, naming, text_path
from raylora.diffusion.lora_weights import LoraModule, LoraWeights, magnitude_to_kohya
from raylora.diffusion.places import check_is_file
from raylora.errors import ModelError, UnknownLayerError
from raylora.files import parse_json
from raylora.patience import within

ADAPTER_METADATA = "lora_adapter_metadata"
"""diffusers' key for peft's settings, in JSON (diffusers/loaders/lora_base.py)."""

Tensors = dict[str, Tensor]


class Field(NamedTuple):
    """One tensor of a layer, under the name that its file gives it."""

    key: str
    tensor: Tensor


Layer = dict[str, Field]
"""`down`, `up`, `alpha`; DoRA's `dora_scale` as kohya's layout has it, or its `magnitude` as peft has it."""
Layers = dict[tuple[str, str], Layer]
"""By part and module path."""


@dataclass(frozen=True)
class Pattern:
    """Layers that have an alpha of their own."""

    text: str
    regex: re.Pattern[str] | None
    alpha: float

    def fits(self, module: str) -> bool:
        """Whether it is meant: by its whole path, an ending of it, or the regular expression."""
        is_ending = module == self.text or module.endswith(f".{self.text}")
        return is_ending or (self.regex is not None and self.regex.match(module) is not None)


PLAIN = re.compile(r"[\w.]*")
MOST_MATCH_S = 5.0
"""Of the processor, for all patterns of a file; those of diffusers and peft take milliseconds."""
KOHYA_FIELDS = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "alpha": "alpha",
    "dora_scale": "dora_scale",
}
FORMATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
FP8 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)
"""torch calculates nothing in these; every number of theirs is one of fp16 too."""
DIFFUSERS_KEY = re.compile(
    r"(?P<part>unet|text_encoder_2|text_encoder)\.(?P<path>.+?)"
    r"(?:\.lora_(?P<ab>[AB])\.weight|(?:\.lora|_lora|\.lora_linear_layer)\.(?P<direction>down|up)\.weight"
    r"|\.lora_(?P<magnitude>magnitude)_vector(?:\.weight)?|(?P<alpha>\.alpha))"
)
"""`.lora_A.weight` is peft's; diffusers before 0.25 wrote `_lora.down.weight`, `.lora.down.weight` and, for text
encoders, `.lora_linear_layer.down.weight` (diffusers/utils/state_dict_utils.py)."""
OLD_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}

CROSS_ATTENTION_INPUT = re.compile(r"attn2[._](?:processor[._])?to_[kv].*(?:down|lora_A)\.weight")
CONTEXTS = {768: "sd15", 2048: "sdxl"}
"""Width of the text that a family's U-Net attends to."""
OTHER_CONTEXTS = {1024: "SD 2.x", 1280: "SDXL's refiner"}
SD2_TEXT_WIDTH = 1024
TEXT_INPUT = re.compile(r"(?:lora_te1?_|text_encoder\.).*self_attn[._](?:[qkv]_proj|to_[qkv]).*(?:down|lora_A)\.weight")
SDXL_ONLY = re.compile(
    r"lora_te2_|text_encoder_2\.|.*add_embedding[._]"
    r"|(?:lora_unet_|unet\.)(?:mid_block|(?:down|up)_blocks[._]\d+)[._]attentions[._]\d+[._]transformer_blocks[._][1-9]"
)
"""Keys of what SD1.5 lacks: a second text encoder, the embedding of sizes, a second transformer block in a row."""
SD15_ONLY = re.compile(
    r"(?:lora_unet_|unet\.)(?:(?:down|up)_blocks[._]3|down_blocks[._]0[._]attentions|down_blocks[._]2[._]downsamplers)[._]"
)
"""Keys of what SDXL lacks and SD 2.x has as well: a fourth block, attention in the first."""
TITLES = {"sd15": "SD1.5", "sdxl": "SDXL"}


def read_lora(path: Path, family: str | None = None, unet_config: Mapping[str, Any] | None = None) -> LoraWeights:
    """A LoRA file of any layout.

    Args:
        path: the .safetensors file.
        family: of the base model, `sd15` or `sdxl`; by default what keys, shapes and metadata say.
        unet_config: of the base model; needed only for SGM names of an SDXL whose blocks are not the usual ones.

    Raises:
        ModelError: no file, pickled, not safetensors, no LoRA, weights that are no numbers, a key of no layout, a
            tensor or setting that can't be of its kind, or a LoRA for another base model than the family's.
    """
    tensors, metadata = read_tensors(path)
    told = _told_by_weights(path, tensors, metadata)
    if family:
        _check_told(path, told, family)
    chosen = told or family or _told_by_metadata(path, metadata)
    kohya = any(key.startswith("lora_") for key in tensors)
    layers = (
        _kohya_layers(path, tensors, naming(chosen, unet_config or FAMILIES[chosen].unet))
        if kohya
        else _diffusers_layers(path, tensors)
    )
    config = {} if kohya else _adapter_metadata(path, metadata)
    alphas = _patterned_alphas(path, layers, config)
    parts: dict[str, dict[str, LoraModule]] = {}
    for (part, module), layer in layers.items():
        usual = config if (part, module) not in alphas else {**config, f"{part}.lora_alpha": alphas[part, module]}
        parts.setdefault(part, {})[module] = _module(path, part, module, layer, usual)
    return LoraWeights(chosen, parts, metadata)


def check_family(path: Path, family: str) -> None:
    """Whether a LoRA's file can be for a family, by its weights; many fit both.

    Raises:
        ModelError: it can't.
    """
    _check_told(path, _told_by_weights(path, *read_tensors(path)), family)


def _check_told(path: Path, told: str | None, family: str) -> None:
    if told not in (None, family):
        raise ModelError(f"{path}: is a LoRA for {TITLES[told]}, and the base model is {TITLES[family]}; "
                         "give the LoRA's own with --base-model")  # fmt: skip


def family_of(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The family that a LoRA's file is for, by its weights, else by what it says, else SD1.5.

    Raises:
        ModelError: it is for another kind of model.
    """
    return _told_by_weights(path, tensors, metadata) or _told_by_metadata(path, metadata)


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Everything in a LoRA's file: tensors by key, and its metadata."""
    check_lora_file(path)
    with safe_open(str(path), framework="pt") as file:
        tensors = {key: _in_known_format(path, key, file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    broken = sum(not tensor.isfinite().all() for tensor in tensors.values())
    if broken:
        raise ModelError(
            f"{path}: {broken} of its {len(tensors)} tensors hold something that is no number; "
            "download or train it again"
        )
    return tensors, metadata


def _in_known_format(path: Path, key: str, tensor: Tensor) -> Tensor:
    if tensor.dtype in FP8:
        return tensor.half()
    whole_alpha = key.endswith("alpha") and not (tensor.is_complex() or tensor.is_floating_point())
    if tensor.dtype not in FORMATS and not whole_alpha:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ModelError(f"{path}: {key} is in {kind}; raylora reads LoRAs in fp8, fp16, bf16 and fp32, "
                         "so convert it, or download another version")  # fmt: skip
    return tensor


def check_lora_file(file: Path) -> None:
    """Refuse what is no LoRA in safetensors, before any model is loaded."""
    check_is_file(file)
    try:
        with safe_open(str(file), framework="pt") as opened:
            keys = list(opened.keys())
    except SafetensorError as error:
        raise ModelError(f"{file}: is not a readable .safetensors file ({error})") from None
    if not any("lora" in key for key in keys):
        raise ModelError(f"{file}: holds no LoRA weights")


def _told_by_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str | None:
    """The family by keys and shapes, which go before names that anyone may type; None if they don't tell."""
    if any(SDXL_ONLY.match(key) for key in tensors):
        return "sdxl"
    widths = _widths(tensors, CROSS_ATTENTION_INPUT)
    for width, family in CONTEXTS.items():
        if width in widths:
            return family
    for width, title in OTHER_CONTEXTS.items():
        if width in widths:
            raise _foreign(path, title, f"its U-Net attends to a text {width} numbers wide")
    if SD2_TEXT_WIDTH in _widths(tensors, TEXT_INPUT):
        raise _foreign(path, "SD 2.x", f"its text encoder is {SD2_TEXT_WIDTH} numbers wide")
    if any(is_sgm(key.partition(".")[0]) for key in tensors):
        return "sdxl"
    if any(SD15_ONLY.match(key) for key in tensors):
        _check_not_sd2(path, metadata)
        return "sd15"
    return None


def _told_by_metadata(path: Path, metadata: Mapping[str, str]) -> str:
    """The family by what the file says; SD1.5 if it says nothing that is known."""
    _check_not_sd2(path, metadata)
    base, architecture = metadata.get("ss_base_model_version", ""), metadata.get("modelspec.architecture", "")
    return "sdxl" if "sdxl" in base.lower() or "xl" in architecture.partition("/")[0] else "sd15"


def _check_not_sd2(path: Path, metadata: Mapping[str, str]) -> None:
    base, architecture = metadata.get("ss_base_model_version", ""), metadata.get("modelspec.architecture", "")
    if base.startswith("sd_v2") or architecture.startswith("stable-diffusion-v2"):
        raise _foreign(path, "SD 2.x", f"its metadata say {base or architecture}")


def _foreign(path: Path, title: str, reason: str) -> ModelError:
    known = " and ".join(TITLES.values())
    return ModelError(f"{path}: is a LoRA for {title} ({reason}); raylora knows {known}, so use one for these")


def _widths(tensors: Mapping[str, Tensor], inputs: re.Pattern[str]) -> set[int]:
    """How wide the inputs of the layers are whose `down` has such a key."""
    return {tensor.shape[1] for key, tensor in tensors.items() if tensor.ndim > 1 and inputs.search(key)}


def _kohya_layers(path: Path, tensors: Tensors, names: Naming) -> Layers:
    layers: Layers = {}
    for key, tensor in tensors.items():
        name, _, kind = key.partition(".")
        place = module_path(names, name)
        if place is None or kind not in KOHYA_FIELDS:
            raise _unknown(path, key)
        layers.setdefault(place, {})[KOHYA_FIELDS[kind]] = Field(key, tensor)
    return layers


def _diffusers_layers(path: Path, tensors: Tensors) -> Layers:
    layers: Layers = {}
    for key, tensor in tensors.items():
        found = DIFFUSERS_KEY.fullmatch(key)
        module = _diffusers_path(found["part"], found["path"]) if found else None
        if not found or module is None:
            raise _unknown(path, key)
        low_rank = found["direction"] or {"A": "down", "B": "up", None: None}[found["ab"]]
        kind = low_rank or found["magnitude"] or "alpha"
        layers.setdefault((found["part"], module), {})[kind] = Field(key, tensor)
    return layers


def _diffusers_path(part: str, path: str) -> str | None:
    """The module path of a diffusers key, without what older versions put in between; None if it is no layer's."""
    if part == "unet":
        path = path.replace(".processor.", ".")
        path = f"{path}.0" if path.endswith(".to_out") else path
        return path if UNET_PATH.fullmatch(path) else None
    stem, _, last = path.rpartition(".")
    path = text_path(f"{stem}.{OLD_TEXT_NAMES.get(last, last)}" if stem else last)
    return path if TEXT_PATH.fullmatch(path) else None


def _unknown(path: Path, key: str) -> UnknownLayerError:
    return UnknownLayerError(f"{path}: the key {key} is of no LoRA for SD1.5 or SDXL that raylora knows "
                             "(LoRA and DoRA in kohya's and diffusers' layouts)")  # fmt: skip


def _module(path: Path, part: str, module: str, layer: Layer, config: Mapping[str, Any]) -> LoraModule:
    if not {"down", "up"} <= layer.keys():
        raise ModelError(f"{path}: {part}.{module} lacks one of its two matrices; download the file again")
    down, up = layer["down"].tensor, layer["up"].tensor
    for key, matrix in (layer["down"], layer["up"]):
        if matrix.ndim not in (2, 4) or not matrix.numel():
            raise _misshapen(path, key, matrix, "is no matrix of a LoRA")
    if up.ndim != down.ndim or up.shape[1] != down.shape[0] or up.shape[2:].numel() != 1:
        raise ModelError(f"{path}: {part}.{module} has matrices of {tuple(up.shape)} and {tuple(down.shape)} "
                         f"({layer['up'].key} and {layer['down'].key}), which don't belong together; "
                         "download the file again")  # fmt: skip
    alpha = _alpha_in(path, layer["alpha"]) if "alpha" in layer else _alpha_of(path, part, len(down), config)
    return LoraModule(down, up, alpha, _magnitude(path, layer, down, up))


def _misshapen(path: Path, key: str, tensor: Tensor, what: str) -> ModelError:
    return ModelError(f"{path}: {key} has the shape {tuple(tensor.shape)} and {what}; download the file again")


def _alpha_in(path: Path, field: Field) -> float:
    if field.tensor.numel() != 1:
        raise _misshapen(path, *field, "is not the one number that an alpha is")
    return float(field.tensor)


def _magnitude(path: Path, layer: Layer, down: Tensor, up: Tensor) -> Tensor | None:
    """DoRA's lengths as kohya's layout has them; None of a plain LoRA."""
    field = layer.get("magnitude") or layer.get("dora_scale")
    if field is None:
        return None
    tensor, outputs, inputs = field.tensor, up.shape[0], down.shape[1]
    if "magnitude" in layer:
        if tensor.numel() != outputs:
            raise _misshapen(path, *field, f"is not one length for each of {outputs} outputs")
        return magnitude_to_kohya(tensor, up)
    if (len(tensor) if tensor.ndim else 0, tensor.numel()) not in ((outputs, outputs), (1, inputs)):
        raise _misshapen(path, *field, f"is neither one length for each of {outputs} outputs nor of {inputs} inputs")
    return tensor


def _adapter_metadata(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """peft's settings from diffusers' metadata: `unet.lora_alpha`, `unet.alpha_pattern` and so on; maybe none."""
    try:
        return dict(parse_json(metadata.get(ADAPTER_METADATA, "{}")))
    except (ValueError, TypeError):
        raise ModelError(f"{path}: its {ADAPTER_METADATA} is not readable as JSON; download the file again") from None


def _alpha_of(path: Path, part: str, rank: int, config: Mapping[str, Any]) -> float:
    """A layer's alpha by peft's settings; the rank where there are none, as loaders take it."""
    value = config.get(f"{part}.lora_alpha", rank)
    if not _is_alpha(value):
        raise _unusable(path, f"{part}.lora_alpha", value, "a number")
    # Rank-stabilized LoRA scales by alpha / sqrt(rank) (https://arxiv.org/abs/2312.03732).
    return value * rank**0.5 if config.get(f"{part}.use_rslora") else float(value)


def _is_alpha(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) <= torch.finfo(torch.float32).max


def _patterned_alphas(path: Path, layers: Layers, config: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """The alphas of layers that have one of their own by peft's settings, by part and module path.

    Patterns are endings of a path, or regular expressions, and the first that fits counts (peft/utils/other.py,
    `get_pattern_key`). Whoever made the file wrote them, so all of them together get a few seconds.

    Raises:
        ModelError: they are no patterns, no numbers, or take too long.
    """
    try:
        with within(MOST_MATCH_S):
            patterns = {part: _patterns(path, part, config) for part in {part for part, _ in layers}}
            return {
                (part, module): pattern.alpha
                for part, module in layers
                for pattern in [next((one for one in patterns[part] if one.fits(module)), None)]
                if pattern
            }
    except TimeoutError:
        raise ModelError(f"{path}: the patterns of alphas in its {ADAPTER_METADATA} take over {MOST_MATCH_S:g} s to "
                         "compare with its layers; download another version, or take its alpha_pattern "
                         "out") from None  # fmt: skip


def _patterns(path: Path, part: str, config: Mapping[str, Any]) -> list[Pattern]:
    setting = f"{part}.alpha_pattern"
    told = config.get(setting) or {}
    if not isinstance(told, dict):
        raise _unusable(path, setting, told, "a table of patterns and alphas")
    for alpha in told.values():
        if not _is_alpha(alpha):
            raise _unusable(path, setting, alpha, "a number")
    return [Pattern(text, _compiled(path, setting, text), alpha) for text, alpha in told.items()]


def _compiled(path: Path, setting: str, text: str) -> re.Pattern[str] | None:
    """None of a plain name, for which the comparison of endings is enough."""
    if PLAIN.fullmatch(text):
        return None
    try:
        return re.compile(rf"(.*\.)?({text})$")
    except (re.error, OverflowError, RecursionError, MemoryError):
        raise _unusable(path, setting, text, "a regular expression") from None


def _unusable(path: Path, setting: str, value: object, wanted: str) -> ModelError:
    return ModelError(f"{path}: {setting} in its {ADAPTER_METADATA} is {json.dumps(value)} and not {wanted}; "
                      "correct it, or download the file again")  # fmt: skip
