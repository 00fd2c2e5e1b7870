"""What a model's layers are called in LoRA files of kohya's layout.

A name is the part's prefix and the module's path with underscores (sd-scripts, networks/lora.py, `create_modules`).
SD1.5 files name the U-Net's layers as diffusers does. SDXL files name them as Stability's own code does (SGM), because
sd-scripts trains SDXL on that U-Net (library/sdxl_original_unet.py); A1111's translation of diffusers' names fails
for SDXL's upsamplers. Text encoders keep `text_model.`, which transformers 5 dropped from CLIPTextModel's paths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raylora.errors import ModelError

PREFIXES: Mapping[str, Mapping[str, str]] = {
    "sd15": {"unet": "lora_unet", "text_encoder": "lora_te"},
    "sdxl": {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"},
}
"""By family: what names of a part begin with."""
PARTS_OF_PREFIX = {
    "lora_unet": "unet",
    "lora_te": "text_encoder",
    "lora_te1": "text_encoder",
    "lora_te2": "text_encoder_2",
}
"""The other way, for any family: diffusers' own converter writes `lora_te1` for SD1.5 too."""

TEXT_ROOT = "text_model."
TEXT_PATH = re.compile(
    r"text_model\.encoder\.layers\.\d+\.(?:self_attn\.(?:[qkv]_proj|out_proj)|mlp\.fc[12])|text_projection"
)
UNET_PATH = re.compile(
    r"(?:(?:down|up)_blocks\.\d+|mid_block)\.(?:"
    r"attentions\.\d+\.(?:proj_in|proj_out|"
    r"transformer_blocks\.\d+\.(?:attn[12]\.(?:to_[qkv]|to_out\.0)|ff\.net\.(?:0\.proj|2)))"
    r"|resnets\.\d+\.(?:conv1|conv2|time_emb_proj|conv_shortcut)"
    r"|(?:down|up)samplers\.0\.conv)"
    r"|conv_in|conv_out|(?:time|add)_embedding\.linear_[12]"
)
"""Every layer of a UNet2DConditionModel that can carry a LoRA, by its path in diffusers."""

TOKEN = re.compile(
    r"(?:down|up|transformer|input|output)_blocks|mid(?:dle)?_block|to_(?:q|k|v|out)|proj_(?:in|out)|(?:q|k|v|out)_proj"
    r"|conv_(?:shortcut|in|out)|time_emb_proj|time_embedding|time_embed|add_embedding|label_emb|linear_[12]"
    r"|(?:in|emb|out)_layers|skip_connection|text_(?:model|projection)|self_attn|[a-z]+\d*|\d+"
)
"""A step of a path, of either tongue, as it stands in a name: an underscore inside of one is no dot."""

RESNET_TO_SGM = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
RESNET_FROM_SGM = {sgm: own for own, sgm in RESNET_TO_SGM.items()}
STEMS_TO_SGM = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
MID_TO_SGM = {
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
BLOCK = re.compile(r"(?:(?:down|up)_blocks\.\d+|mid_block)\.(?:resnets|attentions)\.\d+")
SGM_BLOCK = re.compile(r"(?:(?:input|output)_blocks\.\d+|middle_block)\.\d+")


@dataclass(frozen=True)
class Naming:
    """How one model's layers are called: the prefixes of its parts, its U-Net's blocks in SGM's words."""

    prefixes: Mapping[str, str]
    to_sgm: Mapping[str, str]
    """Blocks and single layers of the U-Net, diffusers' path to SGM's; empty where files use diffusers' names."""
    from_sgm: Mapping[str, str]


def naming(family: str, unet_config: Mapping[str, Any]) -> Naming:
    """The names of a family's model whose U-Net has this configuration (diffusers' config.json)."""
    to_sgm = sgm_blocks(unet_config)
    return Naming(
        prefixes=PREFIXES[family],
        to_sgm=to_sgm if family == "sdxl" else {},
        from_sgm={sgm: own for own, sgm in to_sgm.items()},
    )


def sgm_blocks(unet_config: Mapping[str, Any]) -> dict[str, str]:
    """Blocks and single layers of a U-Net, from diffusers' path to SGM's.

    SGM numbers resnets through: down block b of n layers takes input_blocks.(1 + (n + 1) b + i), its downsampler
    closing it; up blocks have n + 1 resnets and the upsampler shares the last one's place. In a place, 0 is the resnet,
    1 the attention if there is one, and the upsampler comes last. (`make_unet_conversion_map` in sd-scripts has the
    same for full-size SDXL.)
    """
    down, up = unet_config.get("down_block_types", ()), unet_config.get("up_block_types", ())
    layers = _per_block(unet_config.get("layers_per_block", 2), len(down))
    return STEMS_TO_SGM | MID_TO_SGM | _input_blocks(down, layers) | _output_blocks(up, layers[::-1])


def _per_block(layers: int | list[int] | tuple[int, ...], blocks: int) -> list[int]:
    return [layers] * blocks if isinstance(layers, int) else list(layers)


def _input_blocks(types: tuple[str, ...], layers: list[int]) -> dict[str, str]:
    names, place = {}, 1
    for block, (kind, count) in enumerate(zip(types, layers, strict=True)):
        for layer in range(count):
            names[f"down_blocks.{block}.resnets.{layer}"] = f"input_blocks.{place + layer}.0"
            if "Attn" in kind:
                names[f"down_blocks.{block}.attentions.{layer}"] = f"input_blocks.{place + layer}.1"
        if block < len(types) - 1:
            names[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{place + count}.0.op"
        place += count + 1
    return names


def _output_blocks(types: tuple[str, ...], layers: list[int]) -> dict[str, str]:
    names, place = {}, 0
    for block, (kind, count) in enumerate(zip(types, layers, strict=True)):
        attends = "Attn" in kind
        for layer in range(count + 1):
            names[f"up_blocks.{block}.resnets.{layer}"] = f"output_blocks.{place + layer}.0"
            if attends:
                names[f"up_blocks.{block}.attentions.{layer}"] = f"output_blocks.{place + layer}.1"
        if block < len(types) - 1:
            names[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{place + count}.{1 + attends}.conv"
        place += count + 1
    return names


def kohya_name(names: Naming, part: str, path: str) -> str:
    """The name of the module at a path of a part; a text encoder's path with or without `text_model.`.

    Raises:
        ModelError: the U-Net has no such block, so that it has no SGM name.
    """
    if part != "unet":
        inside = text_path(path)
    elif names.to_sgm:
        inside = _to_sgm(names, path)
    else:
        inside = path
    return f"{names.prefixes[part]}_{inside.replace('.', '_')}"


def text_path(path: str) -> str:
    """A text encoder's module path as files have it, with `text_model.`."""
    return path if path.startswith((TEXT_ROOT, "text_projection")) else TEXT_ROOT + path


def _to_sgm(names: Naming, path: str) -> str:
    if path in names.to_sgm:
        return names.to_sgm[path]
    block = BLOCK.match(path)
    if not block or block.group() not in names.to_sgm:
        raise ModelError(
            f"{path}: the base model's U-Net has no such layer; name the LoRA's own base with --base-model"
        )
    tail = path[block.end() + 1 :]
    return f"{names.to_sgm[block.group()]}.{RESNET_TO_SGM.get(tail, tail)}"


def module_path(names: Naming, name: str) -> tuple[str, str] | None:
    """Part and module path of a name, SGM's or diffusers'; None for a name that is no layer's."""
    prefix, _, inside = name.partition("_")[2].partition("_")
    part = PARTS_OF_PREFIX.get(f"lora_{prefix}") if name.startswith("lora_") else None
    dotted = _dotted(inside)
    if part is None or dotted is None:
        return None
    path = _from_sgm(names, dotted) if part == "unet" else dotted
    grammar = UNET_PATH if part == "unet" else TEXT_PATH
    return (part, path) if grammar.fullmatch(path) else None


def _dotted(inside: str) -> str | None:
    """Dots back in place of the underscores that were dots: those inside of a known word stay."""
    tokens = TOKEN.findall(inside)
    return ".".join(tokens) if "_".join(tokens) == inside else None


def _from_sgm(names: Naming, dotted: str) -> str:
    if dotted in names.from_sgm:
        return names.from_sgm[dotted]
    block = SGM_BLOCK.match(dotted)
    if not block or block.group() not in names.from_sgm:
        return dotted
    tail = dotted[block.end() + 1 :]
    return f"{names.from_sgm[block.group()]}.{RESNET_FROM_SGM.get(tail, tail)}"


def is_sgm(name: str) -> bool:
    """Whether a U-Net layer's name is SGM's, as SDXL files have them."""
    return bool(re.match(r"lora_unet_(?:input_blocks|middle_block|output_blocks|time_embed_|label_emb|out_2$)", name))
