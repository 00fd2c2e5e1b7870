"""Base models: what a family is, and loading one from a hub id, a folder or a single file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils.logging import disable_progress_bar
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextConfig, CLIPTextModel

from raylora.bundled import DEMO_BASE, DEMO_NAME
from raylora.errors import ModelError, first_line

PICKLED_SUFFIXES = {".ckpt", ".pt", ".pth", ".bin"}
UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
LATENT_CHANNELS = 4
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DTYPES = {"no": torch.float32, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Family:
    """What raylora must know of an architecture that its files don't say."""

    name: str
    unet: Mapping[str, Any]
    """The full-size U-Net's configuration, for predicting file sizes before a model is at hand."""
    text_encoder: Mapping[str, Any]
    kohya_base_version: str
    """`ss_base_model_version` in kohya's metadata."""
    modelspec_architecture: str
    """`modelspec.architecture` of a LoRA for it (Stability AI's ModelSpec 1.0.1)."""


# The U-Net configurations are those published with stable-diffusion-v1-5 and stable-diffusion-xl-base-1.0.
SD15 = Family(
    name="sd15",
    unet={
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "sample_size": 64,
    },
    text_encoder={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    kohya_base_version="sd_v1",
    modelspec_architecture="stable-diffusion-v1/lora",
)
SDXL = Family(
    name="sdxl",
    unet={
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "layers_per_block": 2,
        "sample_size": 128,
    },
    text_encoder={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    kohya_base_version="sdxl_base_v1-0",
    modelspec_architecture="stable-diffusion-xl-v1-base/lora",
)
FAMILIES = {family.name: family for family in (SD15, SDXL)}
TRAINABLE_FAMILIES = {"sd15"}
"""Families whose models can be trained; the others can be planned for."""


@dataclass
class BaseModel:
    """A frozen base model, ready to be shared by any number of adapters."""

    family: Family
    reference: str
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    tokenizer: Any
    noise_scheduler: DDPMScheduler
    sampler: Any
    """The scheduler that the model's own pipeline samples with."""
    active_adapter: str | None = field(default=None)
    """Which adapter is switched on; see `adapters.Adapter.activate`."""

    @property
    def device(self) -> torch.device:
        return torch.device(self.unet.device)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.unet.dtype
        return dtype

    def pipeline(self) -> StableDiffusionPipeline:
        """A diffusers pipeline around these very modules, adapters included."""
        pipe = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=self.sampler.from_config(self.sampler.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe


def resolve_base(reference: str) -> str:
    """`demo`, a path or a hub id as what diffusers loads: an absolute path or a hub id.

    Raises:
        ModelError: a pickled file, a path that isn't there, a file that is no base model.
    """
    if reference == DEMO_NAME:
        return str(DEMO_BASE)
    path = Path(reference).expanduser()
    if path.suffix.lower() in PICKLED_SUFFIXES:
        raise ModelError(
            f"{reference}: pickled checkpoints can run any code when they are read, so raylora doesn't read them; "
            "use the .safetensors file of the same model"
        )
    if path.is_dir():
        _check_folder(path)
        return str(path.resolve())
    if path.is_file():
        _check_single_file(path)
        return str(path.resolve())
    if HUB_ID.fullmatch(reference) and not reference.startswith("."):
        return reference
    raise ModelError(f"{reference}: there is no such base model; give a hub id, a diffusers folder or a .safetensors")


def _check_folder(folder: Path) -> None:
    index = folder / "model_index.json"
    try:
        pipeline_class = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(f"{folder}: is not a diffusers folder (no readable model_index.json)") from None
    if pipeline_class != "StableDiffusionPipeline":
        raise ModelError(f"{folder}: holds a {pipeline_class}; this version trains SD1.5-shaped models only")
    unet = read_component_config(folder, "unet")
    text_encoder = read_component_config(folder, "text_encoder")
    shapes = unet.get("cross_attention_dim"), text_encoder.get("hidden_size")
    if unet.get("in_channels") != LATENT_CHANNELS or shapes[0] != shapes[1]:
        raise ModelError(f"{folder}: its U-Net is not SD1.5-shaped (4 latent channels, one CLIP text encoder)")
    for part in ("unet", "text_encoder", "vae"):
        if not any((folder / part).glob("*.safetensors")):
            raise ModelError(f"{folder / part}: holds no .safetensors weights; download the model again")


def read_component_config(folder: Path, component: str) -> dict[str, Any]:
    """The config.json of a part of a diffusers folder."""
    path = folder / component / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelError(f"{path}: is missing or unreadable; download the model again") from None
    return dict(config)


def _check_single_file(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise ModelError(f"{path}: is not a .safetensors file")
    try:
        with safe_open(str(path), framework="pt") as file:
            keys = set(file.keys())
            channels = file.get_slice(UNET_INPUT).get_shape()[1] if UNET_INPUT in keys else 0
    except SafetensorError as error:
        raise ModelError(f"{path}: is not a readable .safetensors file ({error}); download it again") from None
    if any("lora" in key for key in keys):
        raise ModelError(f"{path}: is a LoRA, not a base model")
    if any(key.startswith("conditioner.embedders.") for key in keys):
        raise ModelError(f"{path}: is an SDXL model; this version trains SD1.5-shaped models only")
    if not any(key.startswith("model.diffusion_model.") for key in keys):
        raise ModelError(f"{path}: is not a Stable Diffusion checkpoint")
    if channels != LATENT_CHANNELS:
        raise ModelError(
            f"{path}: its U-Net takes {channels} and not {LATENT_CHANNELS} latent channels; is it for inpainting?"
        )


def load_base(reference: str, dtype: str = "no", device: str | torch.device = "cpu") -> BaseModel:
    """Load a base model, frozen and in eval mode.

    Args:
        reference: what `resolve_base` takes.
        dtype: `no` (float32), `fp16` or `bf16`, as `training.mixed_precision` has it.

    Raises:
        ModelError: nothing to load, or not SD1.5-shaped.
    """
    resolved = resolve_base(reference)
    disable_progress_bar()
    options: dict[str, Any] = {"dtype": DTYPES[dtype], "safety_checker": None}
    try:
        if resolved.endswith(".safetensors"):
            pipe = StableDiffusionPipeline.from_single_file(resolved, **options)
        else:
            pipe = StableDiffusionPipeline.from_pretrained(resolved, use_safetensors=True, **options)
    except Exception as error:  # diffusers, transformers and huggingface_hub raise many kinds
        raise ModelError(
            f"{reference}: can't be loaded as a Stable Diffusion 1.5 model: {first_line(error)}"
        ) from error
    if (
        pipe.unet.config.in_channels != 4
        or pipe.unet.config.cross_attention_dim != pipe.text_encoder.config.hidden_size
    ):
        raise ModelError(f"{reference}: its U-Net is not SD1.5-shaped (4 latent channels, one CLIP text encoder)")
    for module in (pipe.unet, pipe.text_encoder, pipe.vae):
        module.requires_grad_(False).eval().to(device)
    return BaseModel(
        family=SD15,
        reference=resolved,
        unet=pipe.unet,
        text_encoder=pipe.text_encoder,
        vae=pipe.vae,
        tokenizer=pipe.tokenizer,
        noise_scheduler=DDPMScheduler.from_config(pipe.scheduler.config),
        sampler=pipe.scheduler,
    )


def skeleton(family: Family, reference: str | None) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """U-Net and text encoder without weights (on the meta device): a local folder's own shapes, else the family's."""
    unet_config, text_config = dict(family.unet), dict(family.text_encoder)
    if reference and Path(reference).is_dir():
        unet_config = read_component_config(Path(reference), "unet")
        text_config = read_component_config(Path(reference), "text_encoder")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(unet_config)
        text_encoder = CLIPTextModel(CLIPTextConfig(**text_config))
    return unet, text_encoder
