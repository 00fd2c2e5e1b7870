"""Stage `assemble`: the demo folder, in the form a user's own base and data set would have."""

# mypy: disable-error-code="no-untyped-call"
# (diffusers, transformers and parts of torch come without types.)

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image

from demo.clip import load_clip, load_text_encoder
from demo.drawings import read_captions, style_folder
from demo.settings import DATASET_SIZE, IMAGE_SIZE, JUDGE_SIZE, NEW_LABEL, NEW_STYLE, Workshop, write_folder
from demo.tokenizer import load_tokenizer
from demo.unet import BETAS, load_unet
from demo.vae import load_vae

MODEL_NAME = "raylora-demo"
READABLE = 0o644
REPEATS = 10  # of the data set's folder, in the notation of kohya's scripts: 10_sks
# What the towers were trained on, for transformers' CLIPImageProcessor: 64 x 64, values in -1...1.
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": IMAGE_SIZE},
    "do_center_crop": True,
    "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "do_convert_rgb": True,
    "resample": int(Image.Resampling.BICUBIC),
}
KOHYA_DATASET, KOHYA_JUDGE = f"{REPEATS}_{NEW_LABEL}", f"1_{NEW_LABEL}"


def assemble(shop: Workshop) -> None:
    """Writes base/, image_encoder/, dataset/ and judge/ under `shop.out`; leaves its other files."""
    shop.out.mkdir(parents=True, exist_ok=True)
    write_folder(shop.out / "base", lambda folder: _write_base(shop, folder))
    write_folder(shop.out / "image_encoder", lambda folder: _write_image_encoder(shop, folder))
    write_sets(style_folder(shop, NEW_STYLE), shop.out)


def load_pipeline_parts(shop: Workshop) -> Any:
    """The finished parts as one StableDiffusionPipeline in float32 (untyped upstream)."""
    return StableDiffusionPipeline(
        vae=load_vae(shop.part("vae")),
        text_encoder=load_text_encoder(shop.part("text_encoder")),
        tokenizer=load_tokenizer(shop.part("tokenizer")),
        unet=load_unet(shop.part("unet")),
        scheduler=DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def write_sets(drawn: Path, out: Path) -> None:
    """Writes out/dataset/ and out/judge/ from a style's drawings, the first ones to learn and the next to judge by."""
    last = DATASET_SIZE + JUDGE_SIZE
    write_folder(out / "dataset", lambda folder: _copy_captioned(drawn, folder / KOHYA_DATASET, 0, DATASET_SIZE))
    write_folder(out / "judge", lambda folder: _copy_captioned(drawn, folder / KOHYA_JUDGE, DATASET_SIZE, last))


def _copy_captioned(drawn: Path, folder: Path, first: int, last: int) -> None:
    """Copies drawings `first` to `last - 1`, each with its caption in a .txt file."""
    folder.mkdir(parents=True)
    for name, caption in read_captions(drawn)[first:last]:
        shutil.copy(drawn / name, folder)
        (folder / name).with_suffix(".txt").write_text(caption + "\n")


def _write_base(shop: Workshop, folder: Path) -> None:
    load_pipeline_parts(shop).to(torch.float16).save_pretrained(folder)
    _tidy(folder)


def _write_image_encoder(shop: Workshop, folder: Path) -> None:
    load_clip(shop.part("clip")).half().save_pretrained(folder)
    load_tokenizer(shop.part("tokenizer")).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")
    _tidy(folder)


def _tidy(folder: Path) -> None:
    """Puts the model's name where diffusers noted the path of a part; lets everyone read the weights."""
    for weights in folder.rglob("*.safetensors"):
        weights.chmod(READABLE)  # safetensors writes them for their owner alone
    for file in folder.rglob("*.json"):
        config = json.loads(file.read_text())
        if "_name_or_path" in config:
            config["_name_or_path"] = MODEL_NAME
            file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
