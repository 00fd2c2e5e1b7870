"""What `against_diffusers` trains: base models, pictures and lengths.

`demo` has trained weights, so its losses mean something, but a VAE and text encoder small beside its U-Net. `sd15`
has the published shapes of Stable Diffusion 1.5 with random weights, so its times have the proportions of a real run.

The peer draws latents from the VAE's posterior, raylora takes its mean. For SD's narrow posteriors that is the same,
but the demo's VAE has a standard deviation of 0.33 beside 0.78 of the means, and the measure is on means. So that both
learn the same, the VAEs here keep their means and have posteriors without width.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPTextModel

from benchmarks.gpu_step import text_config
from raylora.bundled import DEMO_BASE, DEMO_DATASET, DEMO_JUDGE
from raylora.dataset.folder import FEWEST_IMAGES, ReadOptions, read_folder
from raylora.diffusion.sd15 import SD15

NO_WIDTH = -30.0
"""Where diffusers cuts the logarithms of variances."""


@dataclass(frozen=True)
class Case:
    """One comparison.

    pictures, judged: how many are trained on, and how many judge; noises: draws of each judged picture and timestep.
    epochs, quick_epochs: how often each picture is seen.
    rate: learning rate of both; for full-size shapes the peer's default.
    """

    name: str
    write_base: Callable[[Path], None]
    resolution: int
    pictures: int
    judged: int
    noises: int
    batch_size: int
    epochs: int
    quick_epochs: int
    rate: float
    seeds: tuple[int, ...]

    @property
    def steps_per_epoch(self) -> int:
        return self.pictures // self.batch_size


def write_demo(folder: Path) -> None:
    """The demo's base model, its VAE's posteriors without width."""
    shutil.copytree(DEMO_BASE, folder)
    _narrow_posteriors(folder)


def write_sd15(folder: Path) -> None:
    """Stable Diffusion 1.5 with random weights, 4 GB."""
    torch.manual_seed(0)
    _, text = SD15.text_encoders["text_encoder"]
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        text_encoder=CLIPTextModel(text_config(text)),
        tokenizer=AutoTokenizer.from_pretrained(DEMO_BASE / "tokenizer"),
        unet=UNet2DConditionModel.from_config(SD15.unet),
        scheduler=DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        **SD15.pipeline_arguments,
    ).save_pretrained(folder)
    _narrow_posteriors(folder)


def _narrow_posteriors(folder: Path) -> None:
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for name, value in (("quant_conv.weight", 0.0), ("quant_conv.bias", NO_WIDTH)):
        weights[name][weights[name].shape[0] // 2 :] = value  # means come first, then logarithms of variances
    save_file(weights, file, metadata={"format": "pt"})


def write_pictures(source: Path, folder: Path, count: int, side: int) -> None:
    """The first pictures of a folder of the demo, enlarged, with their captions as `datasets` and raylora read them."""
    folder.mkdir(parents=True)
    lines = []
    for picture in read_folder(source, ReadOptions(trigger="sks"))[:count]:
        with Image.open(picture.path) as image:
            image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC).save(folder / picture.path.name)
        lines.append(json.dumps({"file_name": picture.path.name, "text": picture.caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_case(case: Case, folder: Path) -> None:
    """`base`, `images` and `judge` of a case."""
    case.write_base(folder / "base")
    write_pictures(DEMO_DATASET, folder / "images", case.pictures, case.resolution)
    write_pictures(DEMO_JUDGE, folder / "judge", max(case.judged, FEWEST_IMAGES), case.resolution)


CASES = {
    case.name: case
    for case in (
        Case("demo", write_demo, 64, 40, 64, 2, batch_size=4, epochs=20, quick_epochs=5, rate=1e-3, seeds=(0, 1, 2)),
        Case("sd15", write_sd15, 256, 8, 4, 1, batch_size=1, epochs=6, quick_epochs=2, rate=1e-4, seeds=(0,)),
    )
}
