"""LoRA files: kohya's layout for A1111 and ComfyUI, diffusers' layout for diffusers.

kohya's keys must agree with sd-scripts' networks/lora.py: a name as in kohya_names.py, then `.lora_down.weight`,
`.lora_up.weight` and the scalar `.alpha`; with DoRA also `.dora_scale`, which LyCORIS brought and ComfyUI reads, one
length per output. A1111 takes any `dora_scale` for lengths per input, and diffusers drops it from kohya's layout; it
also forgets alphas of attention layers that differ from the others' (see `load_lora`). For diffusers there is its own
layout.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from raylora import __version__
from raylora.config import Experiment
from raylora.diffusion.adapters import Adapter, StateDict, count_trained, tuner_layers
from raylora.diffusion.base import BaseModel
from raylora.diffusion.families import DTYPES, FAMILIES
from raylora.diffusion.kohya_names import TEXT_ROOT, Naming, kohya_name, naming
from raylora.diffusion.lora_reading import ADAPTER_METADATA, check_lora_file, read_lora
from raylora.diffusion.lora_weights import (
    LoraModule,
    LoraWeights,
    from_peft,
    magnitude_to_peft,
    most_common,
    only_value,
    with_one_alpha,
)
from raylora.diffusion.memory import is_out_of_memory
from raylora.diffusion.places import DIFFUSERS_NAME, lora_file_in
from raylora.errors import ModelError, UnknownLayerError
from raylora.files import parse_json, sha256_of, write_atomically

HEADER_LENGTH_BYTES = 8
HASHES = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")
"""Metadata about the very bytes of a file: not to be carried over to another."""
SHA256 = re.compile("[0-9a-f]{64}")
VARIES = "Dynamic"
"""What sd-scripts' networks/resize_lora.py writes for a rank or alpha that is not the same in all layers."""


@dataclass(frozen=True)
class LoraCard:
    """What a LoRA file says about itself in its metadata."""

    title: str
    resolution: tuple[int, int]
    train_images: int
    save_precision: str = "fp16"
    trigger: str | None = None
    tag_frequency: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    clip_skip: int | None = None
    """Which layer of the text encoder was read, counted from the last; None says the last."""


def write_kohya(adapter: Adapter, path: Path, card: LoraCard) -> None:
    """One file that A1111, ComfyUI and diffusers load. Written whole or not at all."""
    names = naming(adapter.base.family.name, adapter.base.unet.config)
    save_kohya(with_one_alpha(weights_of(adapter, card_metadata(card))), names, path, card.save_precision)


def write_diffusers(adapter: Adapter, folder: Path, precision: str, card: LoraCard | None = None) -> None:
    """diffusers' own layout, as `DIFFUSERS_NAME` in a folder; with a card, its file says what kohya's does."""
    metadata = card_metadata(card) if card else {}
    save_diffusers(weights_of(adapter, metadata), folder / DIFFUSERS_NAME, precision)


def weights_of(adapter: Adapter, metadata: Mapping[str, str] | None = None) -> LoraWeights:
    """What an adapter holds, apart from its model; every layer's alpha as peft has it."""
    alphas = {
        part: {
            path: float(layer.lora_alpha[adapter.name])
            for path, layer in adapter.module(part).named_modules()
            if adapter.name in getattr(layer, "lora_alpha", {})
        }
        for part in adapter.peft_configs
    }
    return from_peft(adapter.base.family.name, adapter.state_dict(), alphas, metadata)


def lora_bytes(parts: Mapping[str, nn.Module], experiment: Experiment) -> int:
    """Size of a LoRA file: its numbers in `training.save_precision`, without a header of a few per cent.

    Args:
        parts: the base model's; their weights need not be loaded.
    """
    count = count_trained(parts, experiment.lora, experiment.model.train_text_encoder)
    return count * DTYPES[experiment.training.save_precision].itemsize


def save_kohya(weights: LoraWeights, names: Naming, path: Path, precision: str | None = None) -> None:
    """Write a LoRA in kohya's layout.

    Args:
        weights: the LoRA.
        names: how its model's layers are called.
        path: the file.
        precision: `fp16`, `bf16` or `fp32`; by default every tensor keeps its format.
    """
    tensors = kohya_tensors(weights, names, precision)
    metadata = kept_metadata(weights) | network_metadata(weights)
    content = save(tensors, metadata)
    header_bytes = int.from_bytes(content[:HEADER_LENGTH_BYTES], "little")
    digest = hashlib.sha256(content[HEADER_LENGTH_BYTES + header_bytes :]).hexdigest()
    content = save(tensors, metadata | {"sshs_model_hash": digest, "modelspec.hash_sha256": f"0x{digest}"})
    write_atomically(path, content)


def kohya_tensors(weights: LoraWeights, names: Naming, precision: str | None = None) -> StateDict:
    """A LoRA's tensors under kohya's names.

    Raises:
        ModelError: a U-Net layer that the base model doesn't have, or a number too large for the format.
    """
    tensors: StateDict = {}
    alphas: StateDict = {}
    for part, path, module in weights.modules():
        name = kohya_name(names, part, path)
        tensors[f"{name}.lora_down.weight"] = module.down
        tensors[f"{name}.lora_up.weight"] = module.up
        if module.magnitude is not None:
            tensors[f"{name}.dora_scale"] = module.magnitude
        alphas[f"{name}.alpha"] = _alpha_tensor(module.alpha, DTYPES[precision] if precision else module.down.dtype)
    return {key: _cast(key, tensor, precision) for key, tensor in tensors.items()} | alphas


def _cast(key: str, tensor: Tensor, precision: str | None) -> Tensor:
    """A tensor as a file has it; without a precision it keeps its format."""
    cast = tensor.to(device="cpu", dtype=DTYPES[precision] if precision else tensor.dtype).contiguous()
    if cast.dtype != tensor.dtype and tensor.isfinite().all() and not cast.isfinite().all():
        raise ModelError(
            f"{key} holds {float(tensor.abs().max()):.3g}, more than {precision} can hold "
            f"({torch.finfo(cast.dtype).max:.3g}); use bf16 or fp32 (--save-precision, or training.save_precision)"
        )
    return cast


def _alpha_tensor(alpha: float, dtype: torch.dtype) -> Tensor:
    """A scalar in the matrices' format as kohya has it, but in float32 where that would round it."""
    value = torch.tensor(alpha, dtype=dtype)
    return value if value.item() == alpha else torch.tensor(alpha, dtype=torch.float32)


def save_diffusers(weights: LoraWeights, path: Path, precision: str | None = None) -> None:
    """Write a LoRA in diffusers' layout, with peft's settings: without them, alpha would be read as the rank.

    Raises:
        ModelError: DoRA of a kind that peft lacks: one length per input, or only on some layers; or a number too large
            for the format.
    """
    metadata = kept_metadata(weights) | network_metadata(weights) | {"format": "pt"}
    settings = {f"{part}.{key}": value for part, modules in weights.parts.items()
                for key, value in peft_settings(part, modules).items()}  # fmt: skip
    content = save(diffusers_tensors(weights, precision), metadata | {ADAPTER_METADATA: json.dumps(settings)})
    write_atomically(path, content)


def diffusers_tensors(weights: LoraWeights, precision: str | None = None) -> StateDict:
    """A LoRA's tensors under diffusers' names: `<part>.<module>.lora_A.weight`, `.lora_B.weight`, DoRA's magnitude.

    peft's own key for the magnitude ends without `.weight` and peft reads both; transformers 5 loads it into a text
    encoder only with it.
    """
    tensors: StateDict = {}
    for part, path, module in weights.modules():
        tensors[f"{part}.{path}.lora_A.weight"] = module.down
        tensors[f"{part}.{path}.lora_B.weight"] = module.up
        if module.magnitude is not None:
            _check_peft_has(part, path, module)
            tensors[f"{part}.{path}.lora_magnitude_vector.weight"] = magnitude_to_peft(module)
    return {key: _cast(key, tensor, precision) for key, tensor in tensors.items()}


def _check_peft_has(part: str, path: str, module: LoraModule) -> None:
    if not module.per_output:
        raise ModelError(f"{part}.{path} is a DoRA with one length per input, as LyCORIS trains them; "
                         "diffusers' layout has only lengths per output")  # fmt: skip


def peft_settings(part: str, modules: Mapping[str, LoraModule]) -> dict[str, Any]:
    """The settings with which peft rebuilds a part's LoRA: the commonest rank and alpha, and who differs from them.

    Text encoders' layers are named without `text_model.`: peft compares endings, so that fits every version of
    transformers.
    """
    paths = {path: path if part == "unet" else path.removeprefix(TEXT_ROOT) for path in modules}
    rank = int(most_common(module.rank for module in modules.values()))
    alpha = most_common(module.alpha for module in modules.values())
    dora = {module.magnitude is not None for module in modules.values()}
    if len(dora) > 1:
        raise ModelError(f"only some layers of the {part} have a DoRA magnitude; diffusers' layout has all or none")
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {paths[path]: module.rank for path, module in modules.items() if module.rank != rank},
        "alpha_pattern": {paths[path]: module.alpha for path, module in modules.items() if module.alpha != alpha},
        "target_modules": sorted(paths.values()),
        "use_dora": True in dora,
    }


def card_metadata(card: LoraCard) -> dict[str, str]:
    """What training knows: strings that loaders read, kohya's `ss_` and Stability AI's ModelSpec 1.0.1."""
    width, height = card.resolution
    metadata = {
        "ss_output_name": card.title,
        "ss_resolution": f"({width}, {height})",
        "ss_clip_skip": str(card.clip_skip),
        "ss_num_train_images": str(card.train_images),
        "ss_tag_frequency": json.dumps(card.tag_frequency),
        "modelspec.implementation": "diffusers",
        "modelspec.title": card.title,
        "modelspec.resolution": f"{width}x{height}",
    }
    return metadata | ({"modelspec.trigger_phrase": card.trigger} if card.trigger else {})


def network_metadata(weights: LoraWeights) -> dict[str, str]:
    """What the weights themselves say, for kohya's `ss_network_` keys and ModelSpec's architecture.

    `ss_network_dim` and `ss_network_alpha` are of linear layers and 1×1 convolutions; those of wider convolutions are
    `conv_dim` and `conv_alpha` among `ss_network_args`, as sd-scripts takes them.
    """
    family = FAMILIES[weights.family]
    modules = [module for _, _, module in weights.modules()]
    plain = [module for module in modules if not module.spatial] or modules
    spatial = [module for module in modules if module.spatial]
    arguments = _arguments(weights.metadata.get("ss_network_args", ""))
    if spatial:
        arguments["conv_dim"] = _in_words(module.rank for module in spatial)
        arguments["conv_alpha"] = _in_words(module.alpha for module in spatial)
    return {
        "ss_v2": "False",
        "ss_base_model_version": weights.metadata.get("ss_base_model_version", family.kohya_base_version),
        "ss_network_module": weights.metadata.get("ss_network_module", "networks.lora"),
        "ss_network_dim": _in_words(module.rank for module in plain),
        "ss_network_alpha": _in_words(module.alpha for module in plain),
        "ss_network_args": json.dumps(arguments),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": weights.metadata.get("modelspec.architecture", family.modelspec_architecture),
        "raylora_version": __version__,
    }


def _in_words(values: Iterable[float]) -> str:
    value = only_value(values)
    return VARIES if value is None else str(value)


def _arguments(text: str) -> dict[str, Any]:
    """kohya's network arguments so far; a file may hold anything there."""
    try:
        arguments = parse_json(text or "{}")
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}


def kept_metadata(weights: LoraWeights) -> dict[str, str]:
    """What a LoRA's file said, without what holds for that one file alone."""
    gone = {*HASHES, ADAPTER_METADATA, "format"}
    return {key: value for key, value in weights.metadata.items() if key not in gone}


def with_comment(weights: LoraWeights, comment: str) -> LoraWeights:
    """A word on how a file came to be, before earlier ones, where sd-scripts' tools leave theirs."""
    earlier = weights.metadata.get("ss_training_comment", "")
    joined = f"{comment}; {earlier}" if earlier and earlier != "None" else comment
    return replace(weights, metadata={**weights.metadata, "ss_training_comment": joined})


def webui_hash(path: Path) -> str:
    """What A1111's webui knows a LoRA by: sha256 of all that follows the header, as kohya's `sshs_model_hash` has it.

    The metadata's own word counts, as there (`extensions-builtin/Lora/network.py`, `NetworkOnDisk`).
    """
    with safe_open(str(path), framework="pt") as opened:
        told = (opened.metadata() or {}).get("sshs_model_hash", "")
    if SHA256.fullmatch(told):
        return str(told)
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(HEADER_LENGTH_BYTES), "little")
    return sha256_of(path, HEADER_LENGTH_BYTES + header_bytes)


def load_lora(base: BaseModel, path: Path) -> None:
    """Put any LoRA file or folder onto a base model; it becomes active.

    It goes through diffusers' own loader and layout, whatever the file's, because diffusers 0.42.1 reads kohya's layout
    with two losses: it drops `dora_scale`, and attention layers whose alpha is not the commonest get that one
    (`get_peft_kwargs` looks for them under untranslated names).

    Raises:
        ModelError: no file, pickled, no LoRA, or one for another architecture.
    """
    file = lora_file_in(path)
    check_lora_file(file)
    mend = "it was trained for another architecture; give its own base model with --base-model"
    misfit = f"{file}: does not fit the base model {base.reference}"
    try:
        weights = read_lora(file, unet_config=base.unet.config)
    except UnknownLayerError as error:
        raise ModelError(f"{misfit}: {str(error).removeprefix(f'{file}: ')}; or {mend}") from None
    if weights.family != base.family.name and weights.family == "sdxl":  # `sd15` may be a guess
        raise ModelError(f"{misfit}; {mend}")
    logging.disable(logging.ERROR)  # diffusers lists every tensor that doesn't fit
    try:
        with tempfile.TemporaryDirectory(prefix="raylora-") as folder:
            save_diffusers(weights, Path(folder) / DIFFUSERS_NAME)
            base.pipeline().load_lora_weights(folder, weight_name=DIFFUSERS_NAME)
    except ModelError:
        raise
    except Exception as error:  # peft and diffusers raise many kinds
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{misfit}; {mend}") from error
    finally:
        logging.disable(logging.NOTSET)
    parts = (part for part in base.pipeline().components.values() if isinstance(part, nn.Module))
    placed, layers = sum(len(tuner_layers(part)) for part in parts), sum(1 for _ in weights.modules())
    if not placed:
        raise ModelError(f"{misfit}, which none of its weights belongs to; {mend}")
    if placed < layers:
        raise ModelError(f"{misfit}, which has {placed} of its {layers} layers; {mend}")
