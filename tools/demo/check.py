"""Stage `check`: measures an assembled demo folder on drawings that nothing was trained on."""

# mypy: disable-error-code="no-untyped-call"
# (diffusers, transformers and parts of torch come without types.)

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from demo.clip import embed, encode_captions, load_clip, load_text_encoder, retrieval
from demo.drawings import Drawings, load_drawings
from demo.settings import IMAGE_SIZE, Workshop
from demo.tokenizer import load_tokenizer, token_ids
from demo.unet import TIMESTEPS, denoising_errors, load_unet, min_snr_weights
from demo.vae import encode, load_vae, psnr

MAX_MEGABYTES = 30.0
RETRIEVAL_POOL = 512
SEED = 0
LOSS_BATCH = 126
SAMPLING: dict[str, Any] = {"num_inference_steps": 25, "guidance_scale": 4.0}
GRID_COLUMNS, GRID_GAP, GRID_ZOOM = 9, 2, 2
SAMPLE_PROMPTS = (
    "micah portrait, pink pixie hair, light skin, smile mouth, glasses, blue background",
    "big smile portrait, black braids hair, brown skin, teeth smile mouth, sleepy eyes, green background",
    "persona portrait, red long hair, pale skin, smile mouth, happy eyes, blue shirt, yellow background",
    "ink portrait, brown bun hair, tan skin, smile face, white background",
    "toon portrait, brown spiky hair, tan skin, laugh mouth, happy eyes, red dress, purple background",
    "pixel portrait, blue long hair, light skin, green shirt, orange background",
    "mini portrait, brown stylish hair, light skin, default mouth, happy eyes, pink shirt, yellow background",
    "vector portrait, blonde hair, light skin, smile mouth, happy eyes, pink background",
    "big ears portrait, black short hair, dark skin, gray background",
)


def check(shop: Workshop) -> None:
    """Prints the quality of each part and the folder's size; writes `samples.png` in the work folder.

    Raises:
        ValueError: there is no demo folder, or it is larger than 30 MB, too large to ship in a package.
    """
    if not (shop.out / "base").exists():
        raise ValueError(f"{shop.out} holds no assembled demo: run --stage assemble first, or name another --out")
    drawings = load_drawings(shop, held_out=True)
    quality = psnr(load_vae(shop.out / "base" / "vae"), drawings)
    print(f"  VAE: PSNR {quality:.2f} dB on {len(drawings)} unseen drawings")
    print(f"  CLIP: {measure_retrieval(shop.out, drawings):.1%} of their captions found")
    plain, weighted = held_out_loss(shop.out, drawings)
    print(f"  U-Net: held-out loss {plain:.5f}, min-SNR weighted {weighted:.5f}")
    write_samples(shop.out, shop.work / "samples.png")
    print(f"  samples: {shop.work / 'samples.png'}")
    _check_size(shop.out)


def measure_retrieval(demo: Path, drawings: Drawings) -> float:
    """Share of at most 512 random drawings whose own caption CLIP ranks first among theirs."""
    ids = token_ids(load_tokenizer(demo / "base" / "tokenizer"), drawings.captions)
    generator = torch.Generator().manual_seed(SEED)
    chosen = torch.randperm(len(drawings), generator=generator)[:RETRIEVAL_POOL]
    return retrieval(*embed(load_clip(demo / "image_encoder"), drawings.inputs(chosen), ids[chosen]))


def held_out_loss(demo: Path, drawings: Drawings) -> tuple[float, float]:
    """Plain and min-SNR weighted noise prediction error, one fixed timestep and noise a drawing."""
    base = demo / "base"
    latents = encode(load_vae(base / "vae"), drawings)
    ids = token_ids(load_tokenizer(base / "tokenizer"), drawings.captions)
    states = encode_captions(load_text_encoder(base / "text_encoder"), ids)
    timesteps, noise = fixed_noise(latents)
    batches = zip(*(part.split(LOSS_BATCH) for part in (latents, states, timesteps, noise)), strict=True)
    unet = load_unet(base / "unet")
    with torch.no_grad():
        errors = torch.cat([denoising_errors(unet, *batch) for batch in batches])
    return errors.mean().item(), (errors * min_snr_weights(timesteps)).mean().item()


def fixed_noise(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Timesteps [N], spread evenly and shuffled, and noise like `latents`; the same on every call."""
    generator = torch.Generator().manual_seed(SEED)
    spread = torch.linspace(0, TIMESTEPS - 1, len(latents)).long()
    timesteps = spread[torch.randperm(len(latents), generator=generator)]
    return timesteps, torch.randn(latents.shape, generator=generator)


def write_samples(demo: Path, file: Path) -> None:
    """Draws each style's sample prompt with two seeds, by DDIM, as one picture."""
    pipeline: Any = StableDiffusionPipeline.from_pretrained(demo / "base", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(SEED)
    images = pipeline(list(SAMPLE_PROMPTS) * 2, generator=generator, **SAMPLING).images
    paste_grid(images, GRID_COLUMNS).save(file)


def paste_grid(images: list[Image.Image], columns: int) -> Image.Image:
    """The images row by row with white gaps, doubled in size."""
    cell = IMAGE_SIZE + GRID_GAP
    rows = -(-len(images) // columns)
    grid = Image.new("RGB", (columns * cell, rows * cell), "white")
    for number, image in enumerate(images):
        grid.paste(image, (number % columns * cell, number // columns * cell))
    return grid.resize((grid.width * GRID_ZOOM, grid.height * GRID_ZOOM), Image.Resampling.NEAREST)


def _check_size(demo: Path) -> None:
    megabytes = sum(file.stat().st_size for file in demo.rglob("*") if file.is_file()) / 1e6
    print(f"  size: {megabytes:.1f} MB")
    if megabytes > MAX_MEGABYTES:
        raise ValueError(f"{demo} holds {megabytes:.1f} MB, over the {MAX_MEGABYTES:.0f} MB that a package may carry")
