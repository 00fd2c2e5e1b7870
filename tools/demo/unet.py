"""Stage `unet`: the denoiser of the latents [4, 16, 16], guided by captions [32, 128]."""

# mypy: disable-error-code="no-untyped-call"
# (diffusers, transformers and parts of torch come without types.)

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from demo.clip import WIDTH, encode_captions, load_text_encoder
from demo.drawings import load_drawings
from demo.loop import LossOfStep, train
from demo.settings import IMAGE_SIZE, Round, Workshop, write_folder
from demo.tokenizer import load_tokenizer, token_ids
from demo.vae import encode, load_vae

# Stable Diffusion's own noise schedule, 1,000 steps (Rombach et al. 2022).
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NOISE: Any = DDPMScheduler(**BETAS, clip_sample=False)
TIMESTEPS = 1000
# Gamma of min-SNR weighting (Hang et al. 2023, section 3.4 advises 5).
MIN_SNR_GAMMA = 5.0
# Share of captions left empty, for classifier-free guidance (Ho & Salimans 2022, table 1: 10 to 20%).
EMPTY_SHARE = 0.1


def train_unet(shop: Workshop) -> None:
    """Trains both rounds on the training drawings' latents and writes the U-Net's folder."""
    latents, states = _training_pairs(shop)
    torch.manual_seed(shop.recipe.unet[0].seed)
    unet: Any = new_unet().to(memory_format=torch.channels_last)
    for number, plan in enumerate(shop.recipe.unet, 1):
        loss_of = _batch_loss(latents, states, plan)
        unet = train(unet, plan, loss_of, shop.checkpoint(f"unet-{number}"), shop.recipe.save_every)
    write_folder(shop.part("unet"), lambda folder: unet.save_pretrained(folder))


def new_unet() -> Any:
    """An untrained denoiser of 6.7 million parameters, attending to captions at 8x8 and 4x4."""
    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 4,
        layers_per_block=1,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def load_unet(folder: Path) -> Any:
    """The finished U-Net in float32, for inference."""
    return UNet2DConditionModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)


def denoising_errors(unet: Any, latents: Tensor, states: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted noise for each sample, [B].

    Shapes: latents and noise [B, 4, 16, 16], states [B, 32, 128], timesteps int64 [B].
    """
    noisy = NOISE.add_noise(latents, noise, timesteps).contiguous(memory_format=torch.channels_last)
    predicted: Tensor = unet(noisy, timesteps, states).sample
    return (predicted - noise).pow(2).mean((1, 2, 3))


def min_snr_weights(timesteps: Tensor) -> Tensor:
    """min(SNR, gamma) / SNR for each timestep, [B]: Hang et al. 2023, for predicted noise."""
    alphas: Tensor = NOISE.alphas_cumprod[timesteps]
    ratio = alphas / (1 - alphas)
    return ratio.clamp(max=MIN_SNR_GAMMA) / ratio


def _training_pairs(shop: Workshop) -> tuple[Tensor, Tensor]:
    """Latents [N, 4, 16, 16] and hidden states [N + 1, 32, 128]; the last state is the empty caption's."""
    drawings = load_drawings(shop, held_out=False)
    latents = encode(load_vae(shop.part("vae")), drawings)
    ids = token_ids(load_tokenizer(shop.part("tokenizer")), [*drawings.captions, ""])
    return latents, encode_captions(load_text_encoder(shop.part("text_encoder")), ids)


def _batch_loss(latents: Tensor, states: Tensor, plan: Round) -> LossOfStep:
    empty = torch.tensor(len(states) - 1)

    def loss_of(unet: nn.Module, _step: int) -> Tensor:
        chosen = torch.randint(0, len(latents), (plan.batch,))
        described = torch.where(torch.rand(plan.batch) < EMPTY_SHARE, empty, chosen)
        timesteps = torch.randint(0, TIMESTEPS, (plan.batch,))
        noise = torch.randn(plan.batch, *latents.shape[1:])
        errors = denoising_errors(unet, latents[chosen], states[described], timesteps, noise)
        return (errors * min_snr_weights(timesteps)).mean()

    return loss_of
