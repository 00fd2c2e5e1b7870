"""Names of layers in LoRA files, over every layer of full-size models, against the rules of those who read them.

The readers' rules are restated here from ComfyUI (comfy/lora.py, comfy/utils.py), A1111 (extensions-builtin/Lora/
networks.py) and Stability's generative-models (sgm/modules/diffusionmodules/openaimodel.py), apart from the package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from raylora.diffusion.families import FAMILIES, skeleton
from raylora.diffusion.kohya_names import Naming, is_sgm, kohya_name, module_path, naming, sgm_blocks, text_path
from raylora.errors import ModelError

LINEAR_HOMES = ("Transformer2DModel",)
CONVOLUTION_HOMES = ("ResnetBlock2D", "Downsample2D", "Upsample2D")
TEXT_HOMES = ("CLIPAttention", "CLIPMLP")
"""sd-scripts' networks/lora.py adapts Linear and Conv2d inside of modules of these classes."""

ATTENTION = {"sd15": [1, 1, 1, 0], "sdxl": [0, 2, 10]}
"""Transformer layers at each resolution, from the finest: `transformer_depth` in ComfyUI's model configurations."""
RESNETS = 2
RESNET_LAYERS = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


@cache
def models(family: str) -> dict[str, nn.Module]:
    """Full-size models without weights."""
    unet, text_encoder, *_ = skeleton(FAMILIES[family], None).values()
    parts: dict[str, nn.Module] = {"unet": unet, "text_encoder": text_encoder}
    if family == "sdxl":
        config = CLIPTextConfig(
            hidden_size=1280,
            intermediate_size=5120,
            num_hidden_layers=32,
            num_attention_heads=20,
            projection_dim=1280,
        )
        with torch.device("meta"):
            parts["text_encoder_2"] = CLIPTextModelWithProjection(config)
    return parts


def layers(model: nn.Module, homes: tuple[str, ...]) -> list[str]:
    """Paths of the layers that sd-scripts adapts."""
    return [
        f"{home}.{path}".rstrip(".")
        for home, block in model.named_modules()
        if type(block).__name__ in homes
        for path, layer in block.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]


@cache
def every_layer(family: str) -> tuple[tuple[str, str], ...]:
    homes = {"unet": LINEAR_HOMES + CONVOLUTION_HOMES}
    return tuple(
        (part, path) for part, model in models(family).items() for path in layers(model, homes.get(part, TEXT_HOMES))
    )


def names_of(family: str) -> Naming:
    return naming(family, FAMILIES[family].unet)


def stability_places(family: str) -> Iterator[tuple[str, str]]:
    """(diffusers' block, Stability's block), found by building the U-Net as openaimodel.py does, in order."""
    depths = ATTENTION[family]
    place = 1
    for level, depth in enumerate(depths):
        for number in range(RESNETS):
            yield f"down_blocks.{level}.resnets.{number}", f"input_blocks.{place}.0"
            if depth:
                yield f"down_blocks.{level}.attentions.{number}", f"input_blocks.{place}.1"
            place += 1
        if level < len(depths) - 1:
            yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{place}.0.op"
            place += 1
    yield from zip(("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
                   ("middle_block.0", "middle_block.1", "middle_block.2"), strict=True)  # fmt: skip
    place = 0
    for level, depth in enumerate(reversed(depths)):
        for number in range(RESNETS + 1):
            inside = [f"up_blocks.{level}.resnets.{number}"]
            inside += [f"up_blocks.{level}.attentions.{number}"] if depth else []
            inside += [f"up_blocks.{level}.upsamplers.0"] if number == RESNETS and level < len(depths) - 1 else []
            yield from ((own, f"output_blocks.{place}.{index}") for index, own in enumerate(inside))
            place += 1


def stability_path(family: str, path: str) -> str:
    """Where Stability's U-Net has a layer of diffusers'."""
    for own, theirs in stability_places(family):
        if path == own:
            return theirs
        if path.startswith(f"{own}."):
            tail = path.removeprefix(f"{own}.")
            return f"{theirs}.{RESNET_LAYERS.get(tail, tail)}"
    raise AssertionError(path)


@cache
def comfyui_unet(family: str) -> dict[str, str]:
    """ComfyUI takes any path of Stability's or of diffusers' U-Net, dots as underscores."""
    targets = [(path, stability_path(family, path)) for part, path in every_layer(family) if part == "unet"]
    return {f"lora_unet_{path.replace('.', '_')}": target for pair in targets for path in pair for target in pair[1:]}


def comfyui_target(family: str, name: str) -> str | None:
    """Where ComfyUI puts a LoRA of this name: a path of Stability's, `text` for one of six layers per CLIP block."""
    prefixes = "te1|te2" if family == "sdxl" else "te|te1"
    layer = "(?:self_attn_(?:[qkv]|out)_proj|mlp_fc[12])"
    text = re.fullmatch(rf"lora_(?:{prefixes})_text_model_encoder_layers_(\d+)_{layer}", name)
    return comfyui_unet(family).get(name) or ("text" if text and int(text[1]) < 32 else None)


def a1111_target(family: str, name: str) -> str:
    """A1111 translates diffusers' names by arithmetic that knows SD1.5's shape; others it takes for Stability's."""
    if found := re.match(r"lora_unet_(down|up)_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", name):
        direction, block, kind, number, tail = found.groups()
        place = int(block) * 3 + int(number) + (direction == "down")
        side = "input" if direction == "down" else "output"
        return f"{side}_blocks_{place}_{int(kind == 'attentions')}_{_a1111_tail(tail)}"
    if found := re.match(r"lora_unet_mid_block_(attentions|resnets)_(\d+)_(.+)", name):
        kind, number, tail = found.groups()
        return f"middle_block_{1 if kind == 'attentions' else int(number) * 2}_{_a1111_tail(tail)}"
    if found := re.match(r"lora_unet_down_blocks_(\d+)_downsamplers_0_conv", name):
        return f"input_blocks_{3 + int(found[1]) * 3}_0_op"
    if found := re.match(r"lora_unet_up_blocks_(\d+)_upsamplers_0_conv", name):
        return f"output_blocks_{2 + int(found[1]) * 3}_{2 if int(found[1]) > 0 else 1}_conv"
    return re.sub(r"^lora_(?:unet|te1?|te2)_", "", name)


def _a1111_tail(tail: str) -> str:
    return {own: theirs.replace(".", "_") for own, theirs in RESNET_LAYERS.items()}.get(tail, tail)


@pytest.mark.parametrize(
    ("family", "part", "homes", "count"),
    [
        ("sd15", "unet", LINEAR_HOMES, 192),
        ("sd15", "unet", LINEAR_HOMES + CONVOLUTION_HOMES, 278),
        ("sd15", "text_encoder", TEXT_HOMES, 72),
        ("sdxl", "unet", LINEAR_HOMES, 722),
        ("sdxl", "unet", LINEAR_HOMES + CONVOLUTION_HOMES, 788),
        ("sdxl", "text_encoder", TEXT_HOMES, 72),
        ("sdxl", "text_encoder_2", TEXT_HOMES, 192),
    ],
)
def test_kohya_counts_as_many_layers(family: str, part: str, homes: tuple[str, ...], count: int) -> None:
    """sd-scripts logs them: "create LoRA for U-Net: 192 modules."; the larger counts are with `conv_dim`."""
    assert len(layers(models(family)[part], homes)) == count


@pytest.mark.parametrize("family", FAMILIES)
def test_no_two_layers_share_a_name(family: str) -> None:
    names = [kohya_name(names_of(family), part, path) for part, path in every_layer(family)]
    assert len(set(names)) == len(names) == {"sd15": 278 + 72, "sdxl": 788 + 72 + 192}[family]
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_leads_back_to_its_layer(family: str) -> None:
    for part, path in every_layer(family):
        name = kohya_name(names_of(family), part, path)
        assert module_path(names_of(family), name) == (part, path if part == "unet" else text_path(path))


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_names_are_read_too(family: str) -> None:
    for part, path in every_layer(family):
        if part == "unet":
            assert module_path(names_of(family), f"lora_unet_{path.replace('.', '_')}") == (part, path)


@pytest.mark.parametrize("family", FAMILIES)
def test_comfyui_finds_every_layer(family: str) -> None:
    for part, path in every_layer(family):
        target = comfyui_target(family, kohya_name(names_of(family), part, path))
        assert target == (stability_path(family, path) if part == "unet" else "text"), path


@pytest.mark.parametrize("family", FAMILIES)
def test_a1111_finds_every_layer(family: str) -> None:
    for part, path in every_layer(family):
        target = a1111_target(family, kohya_name(names_of(family), part, path))
        expected = stability_path(family, path) if part == "unet" else text_path(path)
        assert target == expected.replace(".", "_"), path


def test_a1111_would_lose_sdxls_upsampler_under_diffusers_name() -> None:
    """Why SDXL files use Stability's names."""
    path = "up_blocks.0.upsamplers.0.conv"
    assert a1111_target("sdxl", f"lora_unet_{path.replace('.', '_')}") == "output_blocks_2_1_conv"
    assert stability_path("sdxl", path) == "output_blocks.2.2.conv"


@pytest.mark.parametrize(
    ("family", "part", "path", "name"),
    [
        ("sd15", "unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0",
         "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0"),
        ("sd15", "unet", "mid_block.resnets.1.time_emb_proj", "lora_unet_mid_block_resnets_1_time_emb_proj"),
        ("sd15", "text_encoder", "encoder.layers.3.mlp.fc1", "lora_te_text_model_encoder_layers_3_mlp_fc1"),
        ("sdxl", "unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
         "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"),
        ("sdxl", "unet", "mid_block.attentions.0.proj_in", "lora_unet_middle_block_1_proj_in"),
        ("sdxl", "unet", "up_blocks.1.resnets.2.conv_shortcut", "lora_unet_output_blocks_5_0_skip_connection"),
        ("sdxl", "unet", "down_blocks.1.downsamplers.0.conv", "lora_unet_input_blocks_6_0_op"),
        ("sdxl", "unet", "up_blocks.1.upsamplers.0.conv", "lora_unet_output_blocks_5_2_conv"),
        ("sdxl", "text_encoder", "encoder.layers.0.self_attn.q_proj",
         "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"),
        ("sdxl", "text_encoder_2", "text_model.encoder.layers.31.mlp.fc2",
         "lora_te2_text_model_encoder_layers_31_mlp_fc2"),
    ],
)  # fmt: skip
def test_names_by_hand(family: str, part: str, path: str, name: str) -> None:
    assert kohya_name(names_of(family), part, path) == name


def test_blocks_of_another_shape() -> None:
    """Two blocks of one and two layers, attention in the second alone: as the tests' tiny SDXL, and uneven besides."""
    blocks = sgm_blocks(
        {
            "layers_per_block": [1, 2],
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        }
    )
    assert blocks["down_blocks.0.resnets.0"] == "input_blocks.1.0"
    assert blocks["down_blocks.0.downsamplers.0.conv"] == "input_blocks.2.0.op"
    assert blocks["down_blocks.1.attentions.1"] == "input_blocks.4.1"
    assert blocks["up_blocks.0.attentions.2"] == "output_blocks.2.1"
    assert blocks["up_blocks.0.upsamplers.0.conv"] == "output_blocks.2.2.conv"
    assert blocks["up_blocks.1.resnets.1"] == "output_blocks.4.0"
    assert not {"down_blocks.0.attentions.0", "down_blocks.1.downsamplers.0.conv", "up_blocks.1.resnets.2"} & {*blocks}


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_x",
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn3_to_q",
        "lora_unet_input_blocks_99_1_proj_in",
        "lora_unet_input_blocks_1_1_proj_in",
        "lora_unet_double_blocks_0_img_attn_qkv",
        "lora_te3_text_model_encoder_layers_0_mlp_fc1",
        "lora_te_text_model_encoder_layers_0_mlp_fc3",
        "lora_unet_",
        "lora_unet",
        "unet_conv_in",
        "",
    ],
)
def test_a_name_of_no_layer(name: str) -> None:
    assert module_path(names_of("sdxl"), name) is None


def test_a_layer_that_the_base_model_lacks() -> None:
    with pytest.raises(ModelError, match=r"down_blocks\.0\.attentions\.0\.proj_in.*--base-model"):
        kohya_name(names_of("sdxl"), "unet", "down_blocks.0.attentions.0.proj_in")


@pytest.mark.parametrize("family", FAMILIES)
def test_stabilitys_names_tell_sdxl(family: str) -> None:
    assert {is_sgm(kohya_name(names_of(family), part, path)) for part, path in every_layer(family) if part == "unet"} \
        == {family == "sdxl"}  # fmt: skip
    for path in ("conv_in", "conv_out", "time_embedding.linear_1", "add_embedding.linear_2"):
        name = kohya_name(names_of(family), "unet", path)
        assert is_sgm(name) == (family == "sdxl")
        assert module_path(names_of(family), name) == ("unet", path)
