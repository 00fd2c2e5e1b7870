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


KOHYA_LAYER = "lora_unet_mid_block_attentions_0_proj_in"
PEFT_LAYER = "unet.mid_block.attentions.0.proj_in"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"alpha": torch.ones(2)}, "its alpha is no number"),
        ({"alpha": torch.tensor(float("inf"))}, "hold something that is no number"),
        ({"lora_down.weight": torch.ones(32)}, "don't belong together"),
        ({"lora_down.weight": torch.ones(0, 32), "lora_up.weight": torch.ones(32, 0)}, "don't belong together"),
        ({"lora_up.weight": torch.tensor(1.0), "dora_scale": torch.tensor(1.0)}, "don't belong together"),
        ({"dora_scale": torch.tensor(1.0)}, "32 outputs"),
        ({"dora_scale": torch.ones(7, 1)}, r"\(7, 1\), which doesn't belong to its 32 outputs"),
        ({"lora_up.weight": torch.full((32, 4), float("nan")).to(torch.float8_e4m3fn)}, "1 of its 3 tensors"),
    ],
)
def test_tensors_that_do_not_belong_together(changed: dict[str, torch.Tensor], reason: str, tmp_path: Path) -> None:
    tensors = {"lora_down.weight": torch.ones(4, 32), "lora_up.weight": torch.ones(32, 4), "alpha": torch.tensor(4.0)}
    file = tmp_path / "lora.safetensors"
    save_file({f"{KOHYA_LAYER}.{key}": tensor for key, tensor in (tensors | changed).items()}, file)
    with pytest.raises(ModelError, match=reason):
        read_lora(file)


@pytest.mark.parametrize(
    "settings",
    [
        {"unet.lora_alpha": None},
        {"unet.lora_alpha": [1]},
        {"unet.lora_alpha": float("nan")},
        {"unet.alpha_pattern": 3},
        {"unet.alpha_pattern": {"proj_(in": 2}},
        {"unet.alpha_pattern": {"proj_in": None}},
        [1],
    ],
)
def test_adapter_settings_that_say_nothing(settings: object, tmp_path: Path) -> None:
    pair = {f"{PEFT_LAYER}.lora_A.weight": torch.ones(4, 32), f"{PEFT_LAYER}.lora_B.weight": torch.ones(32, 4)}
    file = tmp_path / "lora.safetensors"
    save_file(pair, file, {"lora_adapter_metadata": json.dumps(settings)})
    with pytest.raises(ModelError, match=r"lora_adapter_metadata.*download the file again"):
        read_lora(file)


@pytest.mark.parametrize("magnitude", [torch.tensor(1.0), torch.ones(7)])
def test_a_magnitude_of_another_layer(magnitude: torch.Tensor, tmp_path: Path) -> None:
    pair = {f"{PEFT_LAYER}.lora_A.weight": torch.ones(4, 32), f"{PEFT_LAYER}.lora_B.weight": torch.ones(32, 4)}
    file = tmp_path / "lora.safetensors"
    save_file(pair | {f"{PEFT_LAYER}.lora_magnitude_vector": magnitude}, file)
    with pytest.raises(ModelError, match="32 outputs"):
        read_lora(file)


def test_eight_bit_floats_keep_their_values(tmp_path: Path) -> None:
    up = torch.tensor([[448.0, -0.001953125, 1.25, 0.0]]).expand(32, 4)
    file = kohya_file(tmp_path / "small.safetensors", lora_up__weight=up.contiguous().to(torch.float8_e4m3fn))
    assert torch.equal(only(read_lora(file)).up.float(), up)


def test_numbers_that_a_format_cannot_hold(tmp_path: Path) -> None:
    file = kohya_file(tmp_path / "large.safetensors", lora_up__weight=torch.full((32, 4), 70000.0))
    for layout in ("kohya", "diffusers"):
        out = tmp_path / f"{layout}.safetensors"
        with pytest.raises(ModelError, match=r"fp16 can't hold .* to 70000; save it in bf16 or fp32"):
            export_lora(Export(file, layout, out, precision="fp16"))
        assert not out.exists()
        export_lora(Export(file, layout, out, precision="bf16"))


@pytest.mark.parametrize(
    ("tensors", "metadata", "family"),
    [
        ({"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": 768}, {}, "sd15"),
        ({"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": 2048}, {}, "sdxl"),
        ({"unet.conv_in": 4, "text_encoder_2.text_model.encoder.layers.0.mlp.fc1": 32}, {}, "sdxl"),
        ({"unet.conv_in": 4}, {"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"text_encoder_2.text_model.encoder.layers.0.mlp.fc1": 32}, {"ss_base_model_version": "Pony"}, "sdxl"),
        ({"unet.mid_block.attentions.0.transformer_blocks.9.attn1.to_k": 9}, {"ss_base_model_version": "Pony"}, "sdxl"),
        ({"unet.add_embedding.linear_1": 9}, {"ss_base_model_version": "Pony"}, "sdxl"),
        (
            {"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": 768},
            {"ss_base_model_version": "sdxl_base_v1-0"},
            "sd15",
        ),
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


def test_sgm_names_are_sdxls_whatever_the_metadata_say(tmp_path: Path) -> None:
    name = "lora_unet_middle_block_1_proj_in"
    pair = {f"{name}.lora_down.weight": torch.ones(4, 32), f"{name}.lora_up.weight": torch.ones(32, 4)}
    save_file(pair, tmp_path / "pony.safetensors", {"ss_base_model_version": "Pony"})
    weights = read_lora(tmp_path / "pony.safetensors")
    assert (weights.family, [*weights.parts["unet"]]) == ("sdxl", ["mid_block.attentions.0.proj_in"])
    with pytest.raises(ModelError, match="a LoRA for sdxl, and the base model is of sd15"):
        read_lora(tmp_path / "pony.safetensors", family="sd15")


def test_a_lora_for_stable_diffusion_2_is_refused(tmp_path: Path) -> None:
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    pair = {f"{layer}.lora_A.weight": torch.ones(2, 1024), f"{layer}.lora_B.weight": torch.ones(8, 2)}
    save_file(pair, tmp_path / "v2.safetensors", {"ss_base_model_version": "sd_v1"})
    with pytest.raises(ModelError, match="is a LoRA for Stable Diffusion 2"):
        read_lora(tmp_path / "v2.safetensors")
