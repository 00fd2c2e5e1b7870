"""Stable Diffusion XL: two CLIP text encoders, a pooled vector of the second, and the picture's sizes.

Podell et al. 2023, https://arxiv.org/abs/2307.01952; must agree with diffusers' `StableDiffusionXLPipeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from raylora.diffusion.base import CLIP_L, BaseModel, Conditioning, Family, clip_states


def _encode(base: BaseModel, prompts: Sequence[str]) -> Conditioning:
    """The states of both encoders side by side, without a final norm, and the second's projected vector."""
    first = clip_states(base, "text_encoder", prompts)
    second = clip_states(base, "text_encoder_2", prompts)
    layers = [states.hidden_states[-base.clip_skip] for states in (first, second)]
    return Conditioning(torch.cat(layers, dim=-1), pooled=second.text_embeds)


def _unet_arguments(conditioning: Conditioning, time_ids: Tensor) -> dict[str, Any]:
    return {
        "encoder_hidden_states": conditioning.embeddings,
        "added_cond_kwargs": {"text_embeds": conditioning.pooled, "time_ids": time_ids},
    }


def _sampling_arguments(prompts: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
    return {
        "prompt_embeds": prompts.embeddings,
        "pooled_prompt_embeds": prompts.pooled,
        "negative_prompt_embeds": None if negative is None else negative.embeddings,
        "negative_pooled_prompt_embeds": None if negative is None else negative.pooled,
    }


SDXL = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    pipeline=StableDiffusionXLPipeline,
    pipeline_arguments={"add_watermarker": False},
    unet={  # as published with stable-diffusion-xl-base-1.0
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
    text_encoders={
        "text_encoder": (CLIPTextModel, CLIP_L),
        "text_encoder_2": (
            CLIPTextModelWithProjection,
            {
                "hidden_size": 1280,
                "intermediate_size": 5120,
                "num_hidden_layers": 32,
                "num_attention_heads": 20,
                "projection_dim": 1280,
                "hidden_act": "gelu",
            },
        ),
    },
    clip_skip=2,
    encode=_encode,
    unet_arguments=_unet_arguments,
    sampling_arguments=_sampling_arguments,
    kohya_base_version="sdxl_base_v1-0",
    modelspec_architecture="stable-diffusion-xl-v1-base/lora",
)
