"""LoRA files that others wrote, or that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from raylora.diffusion.export import Export, export_lora
from raylora.diffusion.lora_reading import read_lora
from raylora.errors import ModelError
from tests.lora_models import kohya_file, only


def test_without_alpha_the_rank_is_alpha(tmp_path: Path) -> None:
    assert only(read_lora(kohya_file(tmp_path / "old.safetensors", alpha=None))).alpha == 4


@pytest.mark.parametrize(
    ("unet", "text"),
    [
        ("attn1.processor.to_out_lora.{}.weight", "self_attn.to_out_lora.{}.weight"),
        ("attn1.to_out.0.lora.{}.weight", "self_attn.out_proj.lora_linear_layer.{}.weight"),
        ("attn1.to_out.0.lora_{}.weight", "self_attn.out_proj.lora_{}.weight"),
    ],
    ids=["0.17", "0.23", "0.25"],
)
def test_older_layouts_of_diffusers(unet: str, text: str, tmp_path: Path) -> None:
    words = ("A", "B") if "lora_{}" in unet else ("down", "up")
    tensors = {}
    for word, shape in zip(words, ((4, 32), (32, 4)), strict=True):
        tensors[f"unet.mid_block.attentions.0.transformer_blocks.0.{unet.format(word)}"] = torch.randn(*shape)
        tensors[f"text_encoder.text_model.encoder.layers.0.{text.format(word)}"] = torch.randn(*shape)
    save_file(tensors, tmp_path / "lora.safetensors")
    weights = read_lora(tmp_path / "lora.safetensors")
    assert [*weights.parts["unet"]] == ["mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"]
    assert [*weights.parts["text_encoder"]] == ["text_model.encoder.layers.0.self_attn.out_proj"]
    assert {module.alpha for _, _, module in weights.modules()} == {4}


def test_alphas_of_diffusers_layout(tmp_path: Path) -> None:
    """Alpha tensors go before peft's settings; a pattern goes before the common alpha; rank-stabilized scales too."""
    layer = "unet.mid_block.attentions.0.proj_{}"
    tensors = {layer.format(way) + f".lora_{ab}.weight": torch.randn(*shape)
               for way in ("in", "out") for ab, shape in (("A", (4, 32)), ("B", (32, 4)))}  # fmt: skip
    settings = {"unet.lora_alpha": 6, "unet.alpha_pattern": {"proj_out": 1}, "unet.use_rslora": True}
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(settings)})
    alphas = {inside: module.alpha for _, inside, module in read_lora(path).modules()}
    assert alphas == {"mid_block.attentions.0.proj_in": 12, "mid_block.attentions.0.proj_out": 2}
    save_file(tensors | {layer.format("in") + ".alpha": torch.tensor(5.0)}, path, {})
    assert {module.alpha for _, _, module in read_lora(path).modules()} == {5, 4}


@pytest.mark.parametrize("shape", [(32, 1), (1, 32)])
def test_a_dora_by_inputs_stays_in_kohyas_layout(shape: tuple[int, int], tmp_path: Path) -> None:
    file = kohya_file(tmp_path / "dora.safetensors", dora_scale=torch.rand(shape))
    export_lora(Export(file, "kohya", tmp_path / "again.safetensors"))
    again, first = load_file(tmp_path / "again.safetensors"), load_file(file)
    assert all(torch.equal(again[key], tensor) for key, tensor in first.items())
    wanted = Export(file, "diffusers", tmp_path / "diffusers.safetensors")
    if shape == (32, 1):
        assert export_lora(wanted).layers == 1
    else:
        with pytest.raises(ModelError, match="one length per input"):
            export_lora(wanted)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("lora_unet_mid_block_attentions_0_proj_in.lora_mid.weight", "lora_mid"),
        ("lora_unet_double_blocks_0_img_mod.lora_up.weight", "double_blocks"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a", "hada_w1_a"),
        ("embedding.lora", "embedding"),
    ],
)
def test_an_unknown_key_is_named(key: str, reason: str, tmp_path: Path) -> None:
    save_file({key: torch.zeros(2, 2)}, tmp_path / "lora.safetensors")
    with pytest.raises(ModelError, match=f"the key .*{reason}"):
        read_lora(tmp_path / "lora.safetensors")


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "pickled.pt").write_bytes(b"")
    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    kohya_file(tmp_path / "half.safetensors", lora_up__weight=None)
    kohya_file(tmp_path / "odd.safetensors", lora_up__weight=torch.zeros(32, 3))
    for name, reason in (
        ("pickled.pt", "can run any code"),
        ("broken.safetensors", "not a readable"),
        ("other.safetensors", "no LoRA"),
        ("gone.safetensors", "no such"),
        ("half.safetensors", "lacks one"),
        ("odd.safetensors", "don't belong together"),
    ):
        with pytest.raises(ModelError, match=reason):
            read_lora(tmp_path / name)


@pytest.mark.parametrize(
    ("tensors", "metadata", "family"),
    [
        ({"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": 768}, {}, "sd15"),
        ({"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": 2048}, {}, "sdxl"),
        ({"unet.conv_in": 4, "text_encoder_2.text_model.encoder.layers.0.mlp.fc1": 32}, {}, "sdxl"),
        ({"unet.conv_in": 4}, {"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"unet.conv_in": 4}, {"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd15"),
        ({"unet.conv_in": 4}, {}, "sd15"),
    ],
)
def test_families_are_told_apart(
    tensors: dict[str, int], metadata: dict[str, str], family: str, tmp_path: Path
) -> None:
    file = tmp_path / "lora.safetensors"
    pairs = {f"{name}.lora_{ab}.weight": torch.zeros(shape) for name, width in tensors.items()
             for ab, shape in (("A", (2, width)), ("B", (8, 2)))}  # fmt: skip
    save_file(pairs, file, metadata)
    assert read_lora(file).family == family
