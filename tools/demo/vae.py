"""Stage `vae`: the autoencoder between pictures [3, 64, 64] and latents [4, 16, 16]."""

# mypy: disable-error-code="no-untyped-call"
# (diffusers, transformers and parts of torch come without types.)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from demo.drawings import Drawings, load_drawings
from demo.loop import LossOfStep, train
from demo.settings import IMAGE_SIZE, Round, Workshop, write_folder

PICTURE_RANGE = 2.0  # pictures lie in -1...1
EDGE_WEIGHT = 0.5  # weight of the differences between neighbouring pixels: flat drawings live by their edges
ENCODE_BATCH = 128


@dataclass(frozen=True)
class LossTerms:
    """Weights beside the absolute error and the edges; `mirror` flips every second batch."""

    kl: float
    squared: float
    mirror: bool


# The second round refines: less noise in the latents, large errors punished more.
LOSS_OF_ROUND = (
    LossTerms(kl=1e-5, squared=0.0, mirror=False),
    LossTerms(kl=3e-6, squared=1.0, mirror=True),
)


def train_vae(shop: Workshop) -> None:
    """Trains both rounds, measures the latents' scale and writes the VAE's folder."""
    drawings = load_drawings(shop, held_out=False)
    torch.manual_seed(shop.recipe.vae[0].seed)
    vae: Any = new_vae().to(memory_format=torch.channels_last)
    for number, (plan, terms) in enumerate(zip(shop.recipe.vae, LOSS_OF_ROUND, strict=True), 1):
        loss_of = _batch_loss(drawings, plan, terms)
        vae = train(vae, plan, loss_of, shop.checkpoint(f"vae-{number}"), shop.recipe.save_every)
    vae.register_to_config(scaling_factor=1 / encode(vae, drawings, scaling=1.0).std().item())
    write_folder(shop.part("vae"), lambda folder: vae.save_pretrained(folder))


def new_vae() -> Any:
    """An untrained AutoencoderKL of 0.68 million parameters (untyped upstream)."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
    )


def load_vae(folder: Path) -> Any:
    """The finished VAE in float32, for inference."""
    return AutoencoderKL.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)


def encode(vae: Any, drawings: Drawings, scaling: float | None = None) -> Tensor:
    """Means of all drawings' latents, float [N, 4, 16, 16], times the VAE's scaling factor.

    The mean, not a sample: the posterior is as wide as 0.38 of the latents' deviation.
    """
    factor = vae.config.scaling_factor if scaling is None else scaling
    starts = range(0, len(drawings), ENCODE_BATCH)
    with torch.no_grad():
        batches = [vae.encode(drawings.inputs(slice(s, s + ENCODE_BATCH))).latent_dist.mean for s in starts]
    return torch.cat(batches) * factor


def psnr(vae: Any, drawings: Drawings) -> float:
    """Peak signal-to-noise ratio of decoded means over all the drawings, in dB."""
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(drawings), ENCODE_BATCH):
            pictures = drawings.inputs(slice(start, start + ENCODE_BATCH))
            decoded = vae.decode(vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)
            total += functional.mse_loss(decoded, pictures, reduction="sum").item()
    mean = torch.tensor(total / drawings.pictures.numel())
    return float(10 * torch.log10(PICTURE_RANGE**2 / mean))


def _batch_loss(drawings: Drawings, plan: Round, terms: LossTerms) -> LossOfStep:
    def loss_of(vae: nn.Module, step: int) -> Tensor:
        pictures = drawings.inputs(torch.randint(0, len(drawings), (plan.batch,)))
        if terms.mirror and step % 2:
            pictures = pictures.flip(-1)
        return reconstruction_loss(vae, pictures.contiguous(memory_format=torch.channels_last), terms)

    return loss_of


def reconstruction_loss(vae: Any, pictures: Tensor, terms: LossTerms) -> Tensor:
    """Absolute, squared and edge errors of the decoded sample, and the posterior's KL; a scalar."""
    posterior = vae.encode(pictures).latent_dist
    decoded = vae.decode(posterior.sample()).sample
    loss = functional.l1_loss(decoded, pictures) + EDGE_WEIGHT * _edge_error(decoded, pictures)
    loss = loss + terms.squared * functional.mse_loss(decoded, pictures)
    total: Tensor = loss + terms.kl * posterior.kl().mean()
    return total


def _edge_error(decoded: Tensor, pictures: Tensor) -> Tensor:
    """Absolute error of the horizontal and vertical differences between neighbouring pixels."""
    across = functional.l1_loss(decoded.diff(dim=-1), pictures.diff(dim=-1))
    return across + functional.l1_loss(decoded.diff(dim=-2), pictures.diff(dim=-2))
