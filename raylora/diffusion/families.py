"""Base models: which families there are, and loading a model from a hub id, a folder or a single file."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.utils.logging import disable_progress_bar
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPTextConfig
from transformers.utils.logging import disable_progress_bar as disable_transformers_bar

from raylora.bundled import DEMO_BASE, DEMO_NAME
from raylora.config import ModelConfig
from raylora.diffusion.base import UNET, BaseModel, Family
from raylora.diffusion.hub import is_hub_id, read_hub_config
from raylora.diffusion.memory import is_out_of_memory
from raylora.diffusion.model_files import (
    AGAIN,
    DIFFUSERS_WEIGHTS,
    TRANSFORMERS_WEIGHTS,
    check_parts,
    check_sizes,
    check_tokenizer,
    check_weights,
)
from raylora.diffusion.places import base_place
from raylora.diffusion.prediction import V_MARK, ZERO_SNR_MARK, V, marks_of
from raylora.diffusion.sd15 import SD15
from raylora.diffusion.sdxl import SDXL
from raylora.errors import ConfigError, ModelError, first_line
from raylora.files import is_folder, read_mapping

FAMILIES: dict[str, Family] = {family.name: family for family in (SD15, SDXL)}
SPACES = {"sd15": "realistic or anime", "sdxl": "sdxl-character or sdxl-style"}
"""Bundled search spaces by family, for messages."""

UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
SDXL_TEXT_ENCODERS = ("conditioner.embedders.0.", "conditioner.embedders.1.")
LATENT_CHANNELS = 4
TRAIN_TIMESTEPS = 1000
"""Of both families; the measures' timesteps are given below it."""
PREDICTION_TYPES = ("epsilon", V)
INDEX_NAME, SCHEDULER_NAME = "model_index.json", "scheduler_config.json"
CONVOLUTION_DIMENSIONS = 4
RECOMPILE_LIMIT = 64
"""Of one function by dynamo, which counts all blocks as one function and gives up on it silently: a search compiles
anew for each width of block, mode and rank, and by dynamo's own limit of 8 its second trial would run uncompiled."""
SINGLE_FILE_HINT = "a single file holds weights alone: its configuration and tokenizer come from the hub, once"
DTYPES = {"no": torch.float32, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def resolve_base(reference: str, family: str = SD15.name) -> str:
    """`demo`, a path or a hub id as what diffusers loads: an absolute path or a hub id.

    Raises:
        ModelError: a pickled file, a path that isn't there, a file that is no base model or one of another family.
    """
    if reference == DEMO_NAME:
        _check_family(DEMO_NAME, SD15.name, family)
        return str(DEMO_BASE)
    path = base_place(reference)
    if path is None:
        return reference
    if is_folder(path):
        _check_folder(path, family)
    else:
        _check_single_file(path, family)
    return str(path.resolve())


def check_base_on_hub(reference: str, family: str) -> None:
    """Whether the hub has this base model, if it is to come from there; fetches its index and no weights.

    Raises:
        ModelError: no such model, or one of another family.
    """
    if is_hub_id(resolve_base(reference, family)):
        _check_index(reference, read_hub_config(reference, INDEX_NAME), family)


def _check_family(reference: object, found: str, wanted: str) -> None:
    if found != wanted:
        raise ModelError(
            f"{reference}: is a {FAMILIES[found].title} model, but model.family is {wanted}; "
            f"give --set model.family={found}, or a search space for it: {SPACES[found]}"
        )


def _check_folder(folder: Path, family: str) -> None:
    try:
        index = read_mapping(folder / INDEX_NAME)
    except (OSError, ValueError, TypeError):
        raise ModelError(f"{folder}: is not a diffusers folder (no readable {INDEX_NAME})") from None
    found = _check_index(folder, index, family)
    unet = read_component_config(folder, UNET)
    encoders = {part: read_component_config(folder, part) for part in found.text_encoders}
    for part, config in {UNET: unet, **encoders}.items():
        check_sizes(folder / part, config)
    widths = [encoder.get("hidden_size", 0) for encoder in encoders.values()]
    if unet.get("in_channels") != LATENT_CHANNELS or unet.get("cross_attention_dim") != sum(map(_number, widths)):
        raise ModelError(f"{folder}: {_misshapen(found)}")
    _check_prediction(folder, read_component_config(folder, "scheduler", SCHEDULER_NAME))
    for part in (*found.parts, "vae"):
        check_weights(folder / part, DIFFUSERS_WEIGHTS if part in (UNET, "vae") else TRANSFORMERS_WEIGHTS)
    for part in encoders:
        check_tokenizer(folder / _tokenizer(part))


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _tokenizer(part: str) -> str:
    """The name of a text encoder's tokenizer in a pipeline."""
    return part.replace("text_encoder", "tokenizer")


def _check_index(reference: object, index: dict[str, Any], family: str) -> Family:
    """The family that a pipeline's index names, which must be the wanted one."""
    pipeline_class = index.get("_class_name", "pipeline without a class")
    found = next((known for known in FAMILIES.values() if known.pipeline.__name__ == pipeline_class), None)
    if found is None:
        known = " or ".join(known.title for known in FAMILIES.values())
        raise ModelError(f"{reference}: holds a {pipeline_class}; raylora trains {known} models")
    _check_family(reference, found.name, family)
    encoders = {part: kind.__name__ for part, (kind, _) in found.text_encoders.items()}
    check_parts(reference, index, {UNET: UNet2DConditionModel.__name__, "vae": AutoencoderKL.__name__, **encoders})
    return found


def _check_prediction(reference: object, scheduler: Mapping[str, Any]) -> None:
    """Another kind would be trained as epsilon, without a word."""
    steps = scheduler.get("num_train_timesteps", TRAIN_TIMESTEPS)
    if steps != TRAIN_TIMESTEPS:
        raise ModelError(
            f"{reference}: its {SCHEDULER_NAME} has {steps!a:.50} num_train_timesteps; raylora trains models of "
            f"{TRAIN_TIMESTEPS}, so use another, or correct the file"
        )
    found = scheduler.get("prediction_type", PREDICTION_TYPES[0])
    if found not in PREDICTION_TYPES:
        raise ModelError(
            f"{reference}: its U-Net predicts {found}, as its {SCHEDULER_NAME} says; raylora trains models that "
            f"predict {' or '.join(PREDICTION_TYPES)}, so use another, or correct the file"
        )


def _misshapen(family: Family) -> str:
    encoders = "one CLIP text encoder" if len(family.text_encoders) == 1 else "two CLIP text encoders"
    shape = "SD1.5" if family is SD15 else "SDXL"
    return f"its U-Net is not {shape}-shaped ({LATENT_CHANNELS} latent channels, {encoders})"


def read_component_config(folder: Path, component: str, name: str = "config.json") -> dict[str, Any]:
    """The configuration of a part of a diffusers folder."""
    path = folder / component / name
    try:
        return read_mapping(path)
    except (OSError, ValueError, TypeError):
        raise ModelError(f"{path}: is missing or unreadable; download the model again") from None


def _check_single_file(path: Path, family: str) -> None:
    if path.suffix != ".safetensors":
        raise ModelError(f"{path}: is not a .safetensors file")
    try:
        with safe_open(str(path), framework="pt") as file:
            keys = set(file.keys())
            channels = _inputs(file.get_slice(UNET_INPUT).get_shape()) if UNET_INPUT in keys else 0
    except SafetensorError as error:
        raise ModelError(f"{path}: is not a readable .safetensors file ({error}); download it again") from None
    if any("lora" in key for key in keys):
        raise ModelError(f"{path}: is a LoRA, not a base model")
    if not any(key.startswith("model.diffusion_model.") for key in keys):
        raise ModelError(f"{path}: is not a Stable Diffusion checkpoint")
    if channels != LATENT_CHANNELS:
        raise ModelError(
            f"{path}: its U-Net takes {channels} and not {LATENT_CHANNELS} latent channels; is it for inpainting?"
        )
    found_encoders = [any(key.startswith(prefix) for key in keys) for prefix in SDXL_TEXT_ENCODERS]
    if found_encoders == [True, False]:
        raise ModelError(f"{path}: is an SDXL refiner, which can't be trained alone; use the SDXL base model")
    _check_family(path, SDXL.name if all(found_encoders) else SD15.name, family)


def _inputs(shape: Sequence[int]) -> int:
    """The channels that a convolution of this shape takes; 0 of no convolution."""
    return shape[1] if len(shape) == CONVOLUTION_DIMENSIONS else 0


def load_base(
    reference: str,
    dtype: str = "no",
    device: str | torch.device = "cpu",
    model: ModelConfig = ModelConfig(),
    channels_last: bool = False,
    compile_blocks: bool = False,
    single_file_config: Path | None = None,
) -> BaseModel:
    """Load a base model, frozen and in eval mode.

    Args:
        reference: what `resolve_base` takes.
        dtype: `no` (float32), `fp16` or `bf16`, as `training.mixed_precision` has it.
        model: gives family, clip_skip and prediction_type.
        channels_last: memory format of the U-Net; on GPUs only.
        compile_blocks: compile each kind of repeated U-Net block when it first runs.
        single_file_config: a diffusers folder with the configurations and tokenizers of a single file, which holds
            weights alone; left out, those of the family's own model are taken from the hub.

    Raises:
        ModelError: nothing to load, not of the family's shape, or of a kind that can't be trained.
        ConfigError: clip_skip goes beyond the text encoder's layers.
    """
    family = FAMILIES[model.family]
    pipe = _load_pipeline(reference, family, DTYPES[dtype], single_file_config)
    encoders = {part: getattr(pipe, part) for part in family.text_encoders}
    _check_loaded(reference, pipe, family)
    if not pipe.vae.config.force_upcast:  # SDXL's own overflows in fp16 (huggingface/diffusers#4119)
        pipe.vae.to(DTYPES[dtype])
    for module in (pipe.unet, pipe.vae, *encoders.values()):
        module.requires_grad_(False).eval().to(device)
    _hasten(pipe.unet, channels_last and torch.device(device).type == "cuda", compile_blocks)
    change = _schedule_of(reference, family, model)
    return BaseModel(
        family=family,
        reference=resolve_base(reference, family.name),
        unet=pipe.unet,
        vae=pipe.vae,
        text_encoders=encoders,
        tokenizers={part: getattr(pipe, _tokenizer(part)) for part in encoders},
        noise_scheduler=DDPMScheduler.from_config(pipe.scheduler.config, **change),
        sampler=_sampler(pipe.scheduler, change),
        clip_skip=checked_clip_skip(model.clip_skip or family.clip_skip, encoders),
    )


def _schedule_of(reference: str, family: Family, model: ModelConfig) -> dict[str, Any]:
    """What settings and a single file say of the noise schedule."""
    resolved = resolve_base(reference, family.name)
    marks = marks_of(Path(resolved)) if resolved.endswith(".safetensors") else set()
    kind = model.prediction_type or (V if V_MARK in marks else None)
    change: dict[str, Any] = {"prediction_type": kind} if kind else {}
    return change | ({"rescale_betas_zero_snr": True} if kind == V and ZERO_SNR_MARK in marks else {})


def _sampler(scheduler: Any, change: Mapping[str, Any]) -> Any:
    """The pipeline's own scheduler with what it knows of a change."""
    known = inspect.signature(type(scheduler)).parameters
    return scheduler.from_config(scheduler.config, **{name: value for name, value in change.items() if name in known})


def _check_loaded(reference: str, pipe: Any, family: Family) -> None:
    """What `_check_folder` sees in a folder's files, of a model from wherever."""
    width = sum(getattr(pipe, part).config.hidden_size for part in family.text_encoders)
    if pipe.unet.config.in_channels != LATENT_CHANNELS or pipe.unet.config.cross_attention_dim != width:
        raise ModelError(f"{reference}: {_misshapen(family)}")
    _check_prediction(reference, pipe.scheduler.config)
    scale = pipe.vae.config.scaling_factor
    if not isinstance(scale, int | float) or not 0 < scale < float("inf"):
        raise ModelError(f"{reference}: its VAE's scaling_factor is {scale!a:.50} and no number above 0; {AGAIN}")
    for name in ("vae", *family.parts):
        if lacking := [key for key, weight in getattr(pipe, name).named_parameters() if weight.is_meta]:
            raise ModelError(
                f"{reference}: {len(lacking)} weights of its {name} are missing, such as {lacking[0]}; {AGAIN}"
            )


def _hasten(unet: Any, channels_last: bool, compile_blocks: bool) -> None:
    if channels_last:
        unet.to(memory_format=torch.channels_last)
    if compile_blocks:
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, RECOMPILE_LIMIT)
        unet.compile_repeated_blocks()


def _load_pipeline(reference: str, family: Family, dtype: torch.dtype, config: Path | None = None) -> Any:
    """The pipeline in a number format, but its VAE in float32: rounded weights would round every latent."""
    resolved = resolve_base(reference, family.name)
    is_single = resolved.endswith(".safetensors")
    disable_progress_bar()
    disable_transformers_bar()
    options: dict[str, Any] = {"safety_checker": None} if family is SD15 else {}
    try:
        if is_single:
            options |= {"config": str(config) if config else None, "dtype": dtype}
            if dtype != torch.float32:
                vae = {"config": options["config"], "subfolder": "vae"} if config else {}
                options["vae"] = AutoencoderKL.from_single_file(resolved, dtype=torch.float32, **vae)
            return family.pipeline.from_single_file(resolved, **options)
        options["dtype"] = {"vae": torch.float32, "default": dtype}
        return family.pipeline.from_pretrained(resolved, use_safetensors=True, trust_remote_code=False, **options)
    except Exception as error:  # diffusers, transformers and huggingface_hub raise many kinds
        if is_out_of_memory(error):
            raise
        hint = f"; {SINGLE_FILE_HINT}" if is_single and not config else ""
        raise ModelError(
            f"{reference}: can't be loaded as a {family.title} model: {first_line(error)}{hint}"
        ) from error


def save_as_folder(reference: str, model: ModelConfig, folder: Path, config: Path | None = None) -> Path:
    """A base model as a diffusers folder in fp16 that says what the model predicts, for programs that ask nothing else.

    It is there whole or not at all; one that was there is replaced.

    Args:
        model: as for `load_base`.
        config: of a single file, as for `load_base`.
    """
    family = FAMILIES[model.family]
    pipe = _load_pipeline(reference, family, torch.float16, config)
    pipe.scheduler = _sampler(pipe.scheduler, _schedule_of(reference, family, model))
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        pipe.save_pretrained(beside)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def checked_clip_skip(clip_skip: int, encoders: Mapping[str, Any]) -> int:
    """The layer to use, if all text encoders have it; their weights need not be loaded.

    Raises:
        ConfigError: it goes beyond their layers.
    """
    layers = min(encoder.config.num_hidden_layers for encoder in encoders.values())
    if clip_skip > layers:
        raise ConfigError(f"model.clip_skip {clip_skip}: the text encoder has {layers} layers; give 1 to {layers}")
    return clip_skip


def skeleton(family: Family, reference: str | None) -> dict[str, nn.Module]:
    """Every part without weights (on the meta device): a local folder's own shapes, else the family's."""
    try:
        return _skeleton(family, Path(reference) if reference and is_folder(Path(reference)) else None)
    except ModelError:
        raise
    except Exception as error:  # diffusers, transformers and torch raise many kinds, of shapes that can't be
        raise ModelError(
            f"{reference}: its configuration is of no {family.title} model ({first_line(error)}); {AGAIN}"
        ) from None


def _skeleton(family: Family, local: Path | None) -> dict[str, nn.Module]:
    unet_config = read_component_config(local, UNET) if local else dict(family.unet)
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {UNET: UNet2DConditionModel.from_config(unet_config)}
        for part, (encoder_class, full_size) in family.text_encoders.items():
            config = read_component_config(local, part) if local else dict(full_size)
            parts[part] = encoder_class(CLIPTextConfig(**config))
    return parts
