"""Tiny pipelines of the shapes of SD1.5 and SDXL with random weights, and small captioned folders, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from raylora.bundled import DEMO_BASE

WIDTH = 32
SECOND_WIDTH = 48
"""Of SDXL's second text encoder; by their widths single files' encoders are told apart."""


def make_base(folder: Path, **scheduler_options: object) -> Path:
    """Write a diffusers folder of SD1.5's shape: 64x64 px, latents 8x8, about 0.2 M weights in all."""
    torch.manual_seed(0)
    text_encoder = CLIPTextModel(text_config())
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(WIDTH, WIDTH),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=text_encoder,
        tokenizer=AutoTokenizer.from_pretrained(DEMO_BASE / "tokenizer"),
        unet=unet,
        scheduler=scheduler(**scheduler_options),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def make_sdxl(folder: Path, **scheduler_options: object) -> Path:
    """The same of SDXL's shape: two text encoders, pooled embeddings, time ids, transformers of several depths."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=2,
        block_out_channels=(WIDTH, 2 * WIDTH, 2 * WIDTH),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        use_linear_projection=True,
        cross_attention_dim=WIDTH + SECOND_WIDTH,
        attention_head_dim=(2, 2, 4),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=WIDTH + 6 * 8,
        norm_num_groups=8,
    )
    tokenizer = AutoTokenizer.from_pretrained(DEMO_BASE / "tokenizer")
    StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(text_config()),
        text_encoder_2=CLIPTextModelWithProjection(
            text_config(hidden_size=SECOND_WIDTH, projection_dim=WIDTH, hidden_act="gelu")
        ),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=scheduler(**scheduler_options),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def text_config(**more: object) -> CLIPTextConfig:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_BASE / "tokenizer")
    common: dict[str, object] = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    return CLIPTextConfig(**common | more)


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=1.0,
    )


def scheduler(**options: object) -> DDIMScheduler:
    return DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1, **options)


def make_pictures(folder: Path, count: int = 10, size: tuple[int, int] = (64, 64), captions: bool = True) -> Path:
    """Pictures that differ from each other, with captions beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(folder / f"picture_{number:02d}.png")
        if captions:
            (folder / f"picture_{number:02d}.txt").write_text(f"sks portrait, red hair, number {number}")
    return folder
