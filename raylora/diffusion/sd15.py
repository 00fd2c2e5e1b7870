"""Stable Diffusion 1.x: one CLIP text encoder, whose last layer's states go through its final norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPTextModel

from raylora.diffusion.base import CLIP_L, BaseModel, Conditioning, Family, clip_states


def _encode(base: BaseModel, prompts: Sequence[str]) -> Conditioning:
    """As A1111 does it: the final norm follows whichever layer is taken (`opts.CLIP_stop_at_last_layers`)."""
    states = clip_states(base, "text_encoder", prompts)
    if base.clip_skip == 1:
        return Conditioning(states.last_hidden_state)
    return Conditioning(base.text_encoder.final_layer_norm(states.hidden_states[-base.clip_skip]))


def _unet_arguments(conditioning: Conditioning, time_ids: Tensor) -> dict[str, Any]:
    return {"encoder_hidden_states": conditioning.embeddings}


def _sampling_arguments(prompts: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
    return {
        "prompt_embeds": prompts.embeddings,
        "negative_prompt_embeds": None if negative is None else negative.embeddings,
    }


SD15 = Family(
    name="sd15",
    title="Stable Diffusion 1.5",
    pipeline=StableDiffusionPipeline,
    pipeline_arguments={"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    unet={  # as published with stable-diffusion-v1-5
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "sample_size": 64,
    },
    text_encoders={"text_encoder": (CLIPTextModel, CLIP_L)},
    clip_skip=1,
    encode=_encode,
    unet_arguments=_unet_arguments,
    sampling_arguments=_sampling_arguments,
    kohya_base_version="sd_v1",
    modelspec_architecture="stable-diffusion-v1/lora",
)
