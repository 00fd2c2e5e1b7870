"""A diffusers folder of SD1.5's shape as one file, in the layout of Stability's own code (LDM), as on model sites."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from raylora.diffusion.kohya_names import sgm_blocks

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
VAE_STEPS = [
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
]


def write_single_file(folder: Path, path: Path) -> Path:
    unet, vae, text = (_weights(folder, part) for part in ("unet", "vae", "text_encoder"))
    blocks = sgm_blocks(_config(folder, "unet"))
    highest = len(_config(folder, "vae")["up_block_types"]) - 1
    tensors = {f"model.diffusion_model.{_unet_key(key, blocks)}": value for key, value in unet.items()}
    tensors |= {f"first_stage_model.{_vae_key(key, highest)}": value for key, value in vae.items()}
    root = "cond_stage_model.transformer.text_model."
    tensors |= {root + key.removeprefix("text_model."): value for key, value in text.items()}
    save_file(tensors, path)
    return path


def _config(folder: Path, part: str) -> dict[str, list[str]]:
    return dict(json.loads((folder / part / "config.json").read_text()))


def _weights(folder: Path, part: str) -> dict[str, Tensor]:
    (file,) = (folder / part).glob("*.safetensors")
    return load_file(file)


def _unet_key(key: str, blocks: dict[str, str]) -> str:
    if key.startswith("conv_norm_out."):
        return key.replace("conv_norm_out", "out.0")
    block = next(block for block in blocks if key.startswith(f"{block}."))
    rest = key.removeprefix(f"{block}.")
    layer, _, last = rest.rpartition(".")
    return f"{blocks[block]}.{RESNET.get(layer, layer)}.{last}".replace("..", ".")


def _vae_key(key: str, highest: int) -> str:
    """The decoder's blocks are numbered from the finest on."""
    for found, wanted in VAE_STEPS:
        key = re.sub(found, wanted, key)
    key = re.sub(r"up_blocks\.(\d)\.resnets", lambda found: f"up.{highest - int(found[1])}.block", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{highest - int(found[1])}.upsample", key)
    if ".attn_1." in key:
        head, _, layer = key.partition(".attn_1.")
        name, _, last = layer.rpartition(".")
        key = f"{head}.attn_1.{VAE_ATTENTION[name]}.{last}"
    return key
