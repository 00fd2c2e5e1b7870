"""A diffusers folder of either family as one file, in the layout of Stability's own code (LDM), as on model sites."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
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


OPEN_CLIP_STEPS = [
    ("text_model.", ""),
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.", "attn."),
    ("embeddings.token_embedding", "token_embedding"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("final_layer_norm", "ln_final"),
]


def write_single_file(folder: Path, path: Path) -> Path:
    """SDXL's layout if the folder has two text encoders, else SD1.5's."""
    unet, vae, text = (_weights(folder, part) for part in ("unet", "vae", "text_encoder"))
    blocks = sgm_blocks(_config(folder, "unet"))
    highest = len(_config(folder, "vae")["up_block_types"]) - 1
    tensors = {f"model.diffusion_model.{_unet_key(key, blocks)}": value for key, value in unet.items()}
    tensors |= {f"first_stage_model.{_vae_key(key, highest)}": value for key, value in vae.items()}
    has_two = (folder / "text_encoder_2").is_dir()
    root = f"{'conditioner.embedders.0' if has_two else 'cond_stage_model'}.transformer.text_model."
    tensors |= {root + key.removeprefix("text_model."): value for key, value in text.items()}
    if has_two:
        second = _open_clip(_weights(folder, "text_encoder_2"))
        tensors |= {f"conditioner.embedders.1.model.{key}": value for key, value in second.items()}
    save_file(tensors, path)
    return path


def _open_clip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's layout: query, key and value in one matrix, the projection the other way round."""
    found = {}
    for key, value in weights.items():
        for ours, theirs in OPEN_CLIP_STEPS:
            key = key.replace(ours, theirs)
        found[key] = value
    found["text_projection"] = found.pop("text_projection.weight").T.contiguous()
    for key in [key for key in found if ".q_proj." in key]:
        parts = [found.pop(key.replace("q_proj", f"{name}_proj")) for name in "qkv"]
        found[key.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    return found


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
